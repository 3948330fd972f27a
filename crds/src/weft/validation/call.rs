//! Validates the sections about calls: timeouts, retry, fallback, mirror, sticky.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use policy::fallback::may_have_body;
use policy::traffic::{
    bounds,
    call::{
        Budget, Cause, Causes, Downstream, Fallback, FallbackResponse, FallbackTo, Mirror, Retry,
        Sticky, StickyKey, StickyScope, TcpTarget, Timeouts,
    },
    set::{GrpcCode, GrpcCodes, Percent},
};

use super::reader::{FieldReader, is_own_header, shown};
use crate::{
    label_syntax::is_dns_label,
    smi::validation::Code,
    weft::{self, RetryBudget},
};

/// At most a day.
const TIMEOUTS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3600);
/// A year.
const COOKIE_LIFE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(365 * 24 * 3600);
/// Maximum of headers in a fallback's response.
const MOST_HEADERS: usize = 16;
/// Headers about connection and framing, which the proxy writes.
const FRAMING: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Maximum length of a cookie's name.
const LONGEST_COOKIE: usize = 256;

pub(super) fn timeouts(written: &weft::Timeouts, reader: &mut FieldReader<'_>) -> Option<Timeouts> {
    reader.whole(|reader| {
        let mut time = |field: &str, text: Option<&String>| {
            let field = format!("spec.timeouts.{field}");
            let text = text.map(String::as_str);
            let read = reader.duration_or(&field, text, &TIMEOUTS, Duration::ZERO);
            (!read.is_zero()).then_some(read)
        };
        let request = time("request", written.request.as_ref());
        let backend_request = time("backendRequest", written.backend_request.as_ref());
        let idle = time("idle", written.idle.as_ref());
        if let (Some(whole), Some(attempt)) = (request, backend_request)
            && attempt > whole
        {
            let text = "is longer than request, so no attempt could ever take so long; make it \
                        shorter, or leave it out";
            reader.wrong("spec.timeouts.backendRequest", text);
        }
        let least = *bounds::TIMEOUT_SHARE.start();
        Some(Timeouts {
            request,
            backend_request,
            idle,
            share: reader.percent_or("spec.timeouts.share", written.share, least, Percent::ALL),
        })
    })
}

pub(super) fn retry(written: &weft::Retry, reader: &mut FieldReader<'_>) -> Option<Retry> {
    reader.whole(|reader| {
        let or = Retry::DEFAULT;
        let attempts = &bounds::RETRY_ATTEMPTS;
        let codes = written.codes.as_deref();
        let backoff = written.backoff.as_deref();
        Some(Retry {
            attempts: reader.number_or(
                "spec.retry.attempts",
                written.attempts,
                attempts,
                or.attempts,
            ),
            codes: reader.statuses_or("spec.retry.codes", codes, &bounds::RETRY_CODES, or.codes),
            grpc_codes: grpc_codes(written.grpc_codes.as_deref().unwrap_or_default(), reader),
            methods: reader.methods_or_safe("spec.retry.methods", written.methods.as_deref()),
            backoff: reader.duration_or(
                "spec.retry.backoff",
                backoff,
                &bounds::RETRY_BACKOFF,
                or.backoff,
            ),
            budget: budget(written.budget.as_ref(), reader),
        })
    })
}

fn grpc_codes(written: &[String], reader: &mut FieldReader<'_>) -> GrpcCodes {
    const FIELD: &str = "spec.retry.grpcCodes";
    let known = GrpcCode::ALL.map(|code| (code.as_str(), code));
    if !reader.fits(FIELD, written, known.len()) {
        return GrpcCodes::EMPTY;
    }
    let read = written.iter().enumerate();
    let read = read.filter_map(|(i, text)| reader.one_of(&format!("{FIELD}[{i}]"), text, &known));
    let read: Vec<GrpcCode> = read.collect();
    GrpcCodes::of(&read)
}

fn budget(written: Option<&RetryBudget>, reader: &mut FieldReader<'_>) -> Budget {
    let or = Budget::DEFAULT;
    let Some(written) = written else { return or };
    let interval = written.interval.as_deref();
    Budget {
        percent: reader.percent_or("spec.retry.budget.percent", written.percent, 0, or.percent),
        interval: reader.duration_or(
            "spec.retry.budget.interval",
            interval,
            &bounds::BUDGET_INTERVAL,
            or.interval,
        ),
        min_per_second: reader.number_or(
            "spec.retry.budget.minPerSecond",
            written.min_per_second,
            &bounds::BUDGET_MIN_PER_SECOND,
            or.min_per_second,
        ),
    }
}

pub(super) fn fallback(
    written: &weft::Fallback,
    reader: &mut FieldReader<'_>,
) -> Option<Arc<Fallback>> {
    reader.whole(|reader| {
        let on = causes(written.when.as_deref(), reader);
        let to = match (&written.service, &written.response) {
            (Some(service), None) => {
                let service = reader.other_service("spec.fallback.service", service, "fallback");
                FallbackTo::Service(service?)
            }
            (None, Some(written)) => FallbackTo::Response(response(written, reader)?),
            (both, _) => {
                let how = if both.is_some() { "both" } else { "neither" };
                let text = format!("holds {how} of service and response, but must hold one");
                reader.wrong("spec.fallback", &text);
                return None;
            }
        };
        Some(Arc::new(Fallback { to, on }))
    })
}

fn causes(written: Option<&[String]>, reader: &mut FieldReader<'_>) -> Causes {
    const FIELD: &str = "spec.fallback.when";
    let known = Cause::ALL.map(|cause| (cause.as_str(), cause));
    let Some(written) = written else {
        return Causes::ALL;
    };
    if !reader.fits(FIELD, written, known.len()) {
        return Causes::ALL;
    }
    if written.is_empty() {
        let text = "is empty, so the fallback is never used; leave it out for all causes";
        reader.caution(FIELD, Code::FieldIgnored, text);
    }
    let read = written.iter().enumerate();
    let read = read.filter_map(|(i, text)| reader.one_of(&format!("{FIELD}[{i}]"), text, &known));
    let read: Vec<Cause> = read.collect();
    Causes::of(&read)
}

fn response(
    written: &weft::FallbackResponse,
    reader: &mut FieldReader<'_>,
) -> Option<FallbackResponse> {
    const FIELD: &str = "spec.fallback.response";
    let field = format!("{FIELD}.status");
    let status = reader.number(&field, written.status, &bounds::FALLBACK_STATUS);
    let body = written.body.as_deref().unwrap_or_default();
    let listed = written.headers.as_deref().unwrap_or_default();
    let mut bytes = body.len();
    let mut headers = Vec::new();
    if reader.fits(&format!("{FIELD}.headers"), listed, MOST_HEADERS) {
        for (i, one) in listed.iter().enumerate() {
            let field = format!("{FIELD}.headers[{i}]");
            bytes += one.name.len() + one.value.len();
            let name = reader.header(&format!("{field}.name"), &one.name);
            let value = HeaderValue::from_str(&one.value).ok();
            if value.is_none() {
                let text = "holds a character that no header may hold";
                reader.wrong(&format!("{field}.value"), text);
            }
            let (Some(name), Some(value)) = (name, value) else {
                continue;
            };
            if FRAMING.contains(&name) || is_own_header(&name) {
                let text = format!("is {name}, which the proxy itself writes; leave it out");
                reader.wrong(&format!("{field}.name"), &text);
            }
            headers.push((name, value));
        }
    }
    if bytes > bounds::FALLBACK_BYTES {
        let most = bounds::FALLBACK_BYTES;
        let text = format!("has {bytes} bytes of headers and body, but may have {most}");
        reader.wrong(FIELD, &text);
    }
    let status = StatusCode::from_u16(status?).ok()?;
    if !body.is_empty() && !may_have_body(status) {
        let text = format!(
            "is set, but a response with status {} has no body",
            status.as_u16()
        );
        reader.wrong(&format!("{FIELD}.body"), &text);
    }
    Some(FallbackResponse {
        status,
        headers,
        body: body.as_bytes().into(),
    })
}

pub(super) fn mirror(
    written: &[weft::Mirror],
    reader: &mut FieldReader<'_>,
) -> Option<Arc<[Mirror]>> {
    reader.whole(|reader| {
        if !reader.fits("spec.mirror", written, bounds::MIRRORS) {
            return None;
        }
        let read = written.iter().enumerate();
        let read = read.map(|(i, one)| {
            let mut before = written.iter().take(i);
            if before.any(|other| other.service == one.service) {
                let text = format!(
                    "names {:?} a second time, but no Service gets a request twice",
                    shown(&one.service)
                );
                reader.wrong(&format!("spec.mirror[{i}].service"), &text);
            }
            mirror_entry(&format!("spec.mirror[{i}]"), one, reader)
        });
        let read: Vec<Option<Mirror>> = read.collect();
        read.into_iter().collect()
    })
}

fn mirror_entry(
    field: &str,
    written: &weft::Mirror,
    reader: &mut FieldReader<'_>,
) -> Option<Mirror> {
    let downstream = [("ReadOnly", Downstream::ReadOnly), ("Any", Downstream::Any)];
    let service = reader.other_service(&format!("{field}.service"), &written.service, "mirror");
    let percent = reader.number(&format!("{field}.percent"), written.percent, &(0..=100));
    let methods = written.methods.as_deref();
    let methods = reader.methods_or_safe(&format!("{field}.methods"), methods);
    let downstream = reader.one_of_or(
        &format!("{field}.downstream"),
        written.downstream.as_deref(),
        &downstream,
        Downstream::ReadOnly,
    );
    let listed = written.allow_tcp.as_deref().unwrap_or_default();
    let mut allow_tcp = Vec::new();
    if reader.fits(&format!("{field}.allowTcp"), listed, bounds::MIRROR_TCP) {
        for (i, text) in listed.iter().enumerate() {
            allow_tcp.extend(tcp_target(&format!("{field}.allowTcp[{i}]"), text, reader));
        }
    }
    Some(Mirror {
        service: service?,
        percent: Percent::at_most(percent?),
        methods,
        downstream,
        allow_tcp,
    })
}

/// `name:port`, or `name.namespace:port` for a Service of another namespace.
fn tcp_target(field: &str, text: &str, reader: &mut FieldReader<'_>) -> Option<TcpTarget> {
    let (name, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let (name, namespace) = name.split_once('.').unwrap_or((name, reader.namespace));
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0);
    match port {
        Some(port) if is_dns_label(name) && is_dns_label(namespace) => Some(TcpTarget {
            service: policy::name::ServiceId::new(namespace, name),
            port,
        }),
        _ => {
            let text = format!(
                "is {:?}, but must be a Service and its port, such as \"catalog-db:5432\" or \
                 \"db.data:5432\"",
                shown(text)
            );
            reader.wrong(field, &text);
            None
        }
    }
}

pub(super) fn sticky(written: &weft::Sticky, reader: &mut FieldReader<'_>) -> Option<Sticky> {
    const FIELD: &str = "spec.sticky.name";
    const TYPES: [(&str, &str); 3] = [("Header", "header"), ("Cookie", "cookie"), ("Caller", "")];
    let scopes = [
        ("Endpoint", StickyScope::Endpoint),
        ("Backend", StickyScope::Backend),
    ];
    reader.whole(|reader| {
        let kind = reader.one_of("spec.sticky.type", &written.r#type, &TYPES)?;
        let scope = written.scope.as_deref();
        let scope = reader.one_of_or("spec.sticky.scope", scope, &scopes, StickyScope::Endpoint);
        let ttl = written.ttl.as_deref();
        let ttl = reader.duration_or("spec.sticky.ttl", ttl, &COOKIE_LIFE, Duration::ZERO);
        if written.ttl.is_some() && kind != "cookie" {
            let text = "has a meaning for type Cookie only";
            reader.caution("spec.sticky.ttl", Code::FieldIgnored, text);
        }
        let key = match (kind, written.name.as_deref()) {
            ("", None) => StickyKey::Caller,
            ("", Some(_)) => {
                reader.wrong(FIELD, "is set, but type Caller has none; leave it out");
                return None;
            }
            (kind, None) => {
                reader.wrong(FIELD, &format!("must name the {kind}"));
                return None;
            }
            ("header", Some(name)) => StickyKey::Header(reader.callers_header(FIELD, name)?),
            (_, Some(name)) if is_cookie_name(name) => StickyKey::Cookie(name.into()),
            (_, Some(name)) => {
                let text = format!("is {:?}, which is not a valid cookie name", shown(name));
                reader.wrong(FIELD, &text);
                return None;
            }
        };
        Some(Sticky {
            key,
            scope,
            ttl: (!ttl.is_zero()).then_some(ttl),
        })
    })
}

/// A token (RFC 9110, RFC 6265).
fn is_cookie_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= LONGEST_COOKIE && name.bytes().all(token)
}
