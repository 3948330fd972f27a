//! Encodes one request as a span by OpenTelemetry's semantic conventions, of kind CLIENT on the
//! outbound side and SERVER on the inbound side.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Version, header, request};
use policy::origin::Origin;
use policy::reason::Reason;
use policy::trace::context::Onward;
use prost::Message as _;

use crate::http::grpc::is_grpc;
use crate::telemetry::access_log::cut;
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::labels::Direction;
use crate::telemetry::trace::otlp::{self, KeyValue};

/// The version of the conventions that names and values follow.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";
/// The trace is sampled; whether the parent came from elsewhere is known, and it did.
const SAMPLED: u32 = 0x1;
const REMOTE_PARENT: u32 = 0x300;
/// Names of the values of `grpc-status`.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A span that is open.
#[derive(Debug)]
pub(crate) struct Span {
    parent: Option<u64>,
    began: SystemTime,
    method: Method,
    version: Version,
    grpc: bool,
    host: String,
    /// Of gRPC it is the method's name.
    path: String,
    shows_path: bool,
    /// The route that describes it, of those that the workload's owner has named.
    route: Option<Arc<str>>,
    attempts: u32,
    /// What allowed or refused the call.
    rule: Option<Origin>,
    /// The FaultExperiment that harmed it.
    fault: Option<Arc<str>>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    /// Its two ends.
    pub call_ends: &'a CallEnds,
    /// 0: there was no answer.
    pub status: u16,
    pub grpc: Option<u16>,
    /// Why the mesh answered or ended it.
    pub reason: Option<Reason>,
    /// Its caller left before the answer.
    pub cancelled: bool,
    pub after: Duration,
}

impl Span {
    /// Of a request that came so long ago.
    pub(crate) fn of(parts: &request::Parts, ago: Duration, shows_path: bool) -> Self {
        let now = SystemTime::now();
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let host = authority.or_else(|| parts.headers.get(header::HOST)?.to_str().ok());
        let grpc = is_grpc(&parts.headers);
        let path = if shows_path || grpc {
            cut(parts.uri.path()).to_owned()
        } else {
            String::new()
        };
        Self {
            parent: None,
            began: now.checked_sub(ago).unwrap_or(now),
            method: parts.method.clone(),
            version: parts.version,
            grpc,
            host: host.map(cut).unwrap_or_default().to_owned(),
            path,
            shows_path,
            route: None,
            attempts: 0,
            rule: None,
            fault: None,
        }
    }

    pub(super) fn child_of(self, parent: Option<u64>) -> Self {
        Self { parent, ..self }
    }

    /// It is sent to one more endpoint.
    pub(crate) const fn attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// A route of this name describes it, or, where the name is empty, none does.
    pub(crate) fn takes_route(&mut self, route: &Arc<str>) {
        self.route = (!route.is_empty()).then(|| Arc::clone(route));
    }

    /// Notes what allowed or refused it.
    pub(crate) fn decided_by(&mut self, rule: Option<&Origin>) {
        self.rule = rule.cloned();
    }

    /// Notes which FaultExperiment harmed it.
    pub(crate) fn harmed(&mut self, experiment: &Arc<str>) {
        self.fault = Some(Arc::clone(experiment));
    }

    /// The span as the collector gets it.
    pub(super) fn encode(self, onward: Onward, ended: &Ended<'_>) -> Vec<u8> {
        let client = ended.call_ends.direction() == Direction::outbound;
        let error = error_type(client, ended);
        let mut attributes = self.request();
        self.answer(ended, error.as_deref(), &mut attributes);
        self.of_the_mesh(ended, client, &mut attributes);
        let parent = self.parent;
        otlp::Span {
            trace_id: onward.trace.to_be_bytes().to_vec(),
            span_id: onward.span.to_be_bytes().to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec()),
            name: self.name(),
            kind: if client {
                otlp::SpanKind::Client
            } else {
                otlp::SpanKind::Server
            }
            .into(),
            start: nanoseconds(self.began),
            end: nanoseconds(self.began + ended.after),
            attributes,
            status: error.is_some().then(|| otlp::Status {
                code: otlp::Code::Error.into(),
            }),
            flags: SAMPLED | if parent.is_some() { REMOTE_PARENT } else { 0 },
        }
        .encode_to_vec()
    }

    /// `{method} {route}`, `{method}` where no route describes it, and of gRPC
    /// `service/method`. Never the path, of which there are as many as callers like.
    fn name(&self) -> String {
        let method = known_method(&self.method).unwrap_or("HTTP");
        match &self.route {
            _ if self.grpc => self.path.trim_start_matches('/').to_owned(),
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        }
    }

    /// The attributes of the request.
    fn request(&self) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(16);
        match known_method(&self.method) {
            Some(method) => attributes.push(KeyValue::text("http.request.method", method)),
            None => {
                let method = cut(self.method.as_str());
                attributes.push(KeyValue::text("http.request.method", "_OTHER"));
                attributes.push(KeyValue::text("http.request.method_original", method));
            }
        }
        attributes.push(KeyValue::text("url.scheme", "http"));
        if self.shows_path {
            attributes.push(KeyValue::text("url.path", &self.path));
        }
        if let Some(route) = &self.route {
            attributes.push(KeyValue::text("http.route", route));
        }
        let (host, port) = host_and_port(&self.host);
        if !host.is_empty() {
            attributes.push(KeyValue::text("server.address", host));
        }
        if let Some(port) = port {
            attributes.push(KeyValue::number("server.port", port.into()));
        }
        let version = match self.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        };
        attributes.push(KeyValue::text("network.protocol.version", version));
        if self.grpc {
            let method = self.path.trim_start_matches('/');
            attributes.push(KeyValue::text("rpc.system.name", "grpc"));
            attributes.push(KeyValue::text("rpc.method", method));
        }
        attributes
    }

    /// What was answered.
    fn answer(&self, ended: &Ended<'_>, error: Option<&str>, attributes: &mut Vec<KeyValue>) {
        if ended.status != 0 {
            let status = ended.status.into();
            attributes.push(KeyValue::number("http.response.status_code", status));
        }
        if let Some(code) = ended.grpc.filter(|_| self.grpc) {
            attributes.push(KeyValue::text("rpc.response.status_code", &grpc_name(code)));
        }
        if let Some(error) = error {
            attributes.push(KeyValue::text("error.type", error));
        }
    }

    /// What the mesh made of it.
    fn of_the_mesh(&self, ended: &Ended<'_>, client: bool, attributes: &mut Vec<KeyValue>) {
        let call_ends = ended.call_ends;
        let reason = match ended.reason {
            Some(reason) => reason.as_str(),
            None if ended.cancelled => "cancelled",
            None => "",
        };
        let rule = |rule: Option<&Origin>| rule.map(Origin::to_string).unwrap_or_default();
        let (split, target) = if client {
            (rule(call_ends.rule()), String::new())
        } else {
            (String::new(), rule(self.rule.as_ref()))
        };
        for (key, text) in [
            ("weft.service", call_ends.service_name()),
            ("weft.backend", call_ends.backend_name()),
            ("weft.peer", call_ends.peer_name()),
            ("weft.split", &split),
            ("weft.target", &target),
            ("weft.reason", reason),
            ("weft.fault", self.fault.as_deref().unwrap_or_default()),
        ] {
            if !text.is_empty() {
                attributes.push(KeyValue::text(key, text));
            }
        }
        if client {
            attributes.push(KeyValue::number("weft.attempts", self.attempts.into()));
        }
    }
}

/// What is wrong, by the conventions: a caller gets more than its callee, whose response may be
/// the caller's own fault.
fn error_type(client: bool, ended: &Ended<'_>) -> Option<Cow<'static, str>> {
    if let Some(reason) = ended.reason {
        return Some(reason.as_str().into());
    }
    if ended.cancelled {
        return None;
    }
    if ended.status >= 500 || (client && ended.status >= 400) {
        return Some(ended.status.to_string().into());
    }
    let blames = |code: u16| matches!(code, 2 | 4 | 12..=15) || (client && code != 0);
    ended.grpc.filter(|code| blames(*code)).map(grpc_name)
}

fn grpc_name(code: u16) -> Cow<'static, str> {
    match GRPC.get(usize::from(code)) {
        Some(name) => (*name).into(),
        None => code.to_string().into(),
    }
}

/// The methods that the conventions know.
fn known_method(method: &Method) -> Option<&str> {
    let all = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    ];
    all.into_iter()
        .find(|known_method| *known_method == method.as_str())
}

/// Of a `Host`, without brackets.
fn host_and_port(host: &str) -> (&str, Option<u16>) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name, port.parse().ok())
        }
        _ => (host, None),
    };
    (name.trim_start_matches('[').trim_end_matches(']'), port)
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default().as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
