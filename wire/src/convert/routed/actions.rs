//! Converts the actions of a route's rule: edits, redirects, CORS, mirrors, time limits and
//! retries.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use policy::name::ServiceId;
use policy::route::cors::{Allowed, AllowedOrigin, Cors};
use policy::route::edits::{
    Actions, Edits, HeaderEdits, MAX_ATTEMPTS, MAX_BACKOFF, PathRewrite, Redirect, Rewrite,
    RuleMirror, RuleRetry, RuleTimeouts, Scheme,
};
use policy::share::Share;
use policy::traffic::bounds::RETRY_CODES;

use crate::convert::error::{BadResource, each};
use crate::convert::port::port;
use crate::v1;

pub(super) fn actions(message: &v1::CallActions) -> Result<Actions, BadResource> {
    Ok(Actions {
        edits: each("edits", &message.edits)?,
        cors: part("cors", message.cors.as_ref(), cors)?,
        mirrors: each("mirrors", &message.mirrors)?,
        timeouts: message.timeouts.as_ref().map(timeouts),
        retry: part("retry", message.retry.as_ref(), retry)?,
    })
}

pub(super) fn message(actions: &Actions) -> v1::CallActions {
    v1::CallActions {
        edits: actions.edits.iter().map(v1::Edits::from).collect(),
        cors: actions.cors.as_ref().map(cors_message),
        mirrors: actions.mirrors.iter().map(v1::RuleMirror::from).collect(),
        timeouts: actions.timeouts.as_ref().map(timeouts_message),
        retry: actions.retry.as_ref().map(retry_message),
    }
}

/// Reads a part that may be absent.
fn part<M, T>(
    field: &str,
    message: Option<&M>,
    read: impl FnOnce(&M) -> Result<T, BadResource>,
) -> Result<Option<T>, BadResource> {
    let read = message.map(read).transpose();
    read.map_err(|bad| bad.within(field))
}

impl TryFrom<&v1::Edits> for Edits {
    type Error = BadResource;

    fn try_from(message: &v1::Edits) -> Result<Self, BadResource> {
        Ok(Self {
            request: header_edits("request", message.request.as_ref())?,
            response: header_edits("response", message.response.as_ref())?,
            rewrite: part("rewrite", message.rewrite.as_ref(), rewrite)?,
        })
    }
}

impl From<&Edits> for v1::Edits {
    fn from(edits: &Edits) -> Self {
        Self {
            request: header_edits_message(&edits.request),
            response: header_edits_message(&edits.response),
            rewrite: edits.rewrite.as_ref().map(|rewrite| v1::Rewrite {
                host: rewrite.host.as_deref().map(str::to_owned),
                path: rewrite.path.as_ref().map(path_message),
            }),
        }
    }
}

/// Absent: no edits.
fn header_edits(
    field: &str,
    message: Option<&v1::HeaderEdits>,
) -> Result<HeaderEdits, BadResource> {
    let read = part(field, message, |message| {
        let remove = message.remove.iter().enumerate();
        let remove = remove.map(|(i, name)| header_name(&format!("remove[{i}]"), name));
        Ok(HeaderEdits {
            set: headers("set", &message.set)?,
            add: headers("add", &message.add)?,
            remove: remove.collect::<Result<_, _>>()?,
        })
    });
    read.map(Option::unwrap_or_default)
}

fn header_edits_message(edits: &HeaderEdits) -> Option<v1::HeaderEdits> {
    let headers = |list: &[(HeaderName, HeaderValue)]| -> Vec<v1::Header> {
        let messages = list.iter().map(|(name, value)| v1::Header {
            name: name.as_str().to_owned(),
            value: value.as_bytes().to_vec(),
        });
        messages.collect()
    };
    (!edits.is_empty()).then(|| v1::HeaderEdits {
        set: headers(&edits.set),
        add: headers(&edits.add),
        remove: names(&edits.remove),
    })
}

fn headers(
    field: &str,
    messages: &[v1::Header],
) -> Result<Vec<(HeaderName, HeaderValue)>, BadResource> {
    let read = messages.iter().enumerate().map(|(i, message)| {
        let name = header_name(&format!("{field}[{i}].name"), &message.name)?;
        let value = HeaderValue::from_bytes(&message.value)
            .map_err(|bad| BadResource::new(format!("{field}[{i}].value"), bad))?;
        Ok((name, value))
    });
    read.collect()
}

fn header_name(field: &str, text: &str) -> Result<HeaderName, BadResource> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| BadResource::new(field, format_args!("{text:?} is no header")))
}

fn rewrite(message: &v1::Rewrite) -> Result<Rewrite, BadResource> {
    Ok(Rewrite {
        host: message.host.as_deref().map(Into::into),
        path: part("path", message.path.as_ref(), path)?,
    })
}

fn path(message: &v1::PathRewrite) -> Result<PathRewrite, BadResource> {
    use v1::path_rewrite::How;
    match &message.how {
        Some(How::Full(with)) => Ok(PathRewrite::Full(with.clone())),
        Some(How::Prefix(one)) => Ok(PathRewrite::Prefix {
            matched: one.matched.clone(),
            with: one.with.clone(),
        }),
        None => Err(BadResource::unknown("how")),
    }
}

fn path_message(rewrite: &PathRewrite) -> v1::PathRewrite {
    use v1::path_rewrite::How;
    let how = match rewrite {
        PathRewrite::Full(with) => How::Full(with.clone()),
        PathRewrite::Prefix { matched, with } => How::Prefix(v1::PrefixRewrite {
            matched: matched.clone(),
            with: with.clone(),
        }),
    };
    v1::PathRewrite { how: Some(how) }
}

impl TryFrom<&v1::RouteRedirect> for Redirect {
    type Error = BadResource;

    fn try_from(message: &v1::RouteRedirect) -> Result<Self, BadResource> {
        let status = u16::try_from(message.status).ok();
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.filter(StatusCode::is_redirection);
        Ok(Self {
            scheme: message.scheme.as_deref().map(scheme).transpose()?,
            host: message.host.as_deref().map(Into::into),
            port: message.port.map(|raw| port("port", raw)).transpose()?,
            path: part("path", message.path.as_ref(), path)?,
            status: status.ok_or_else(|| BadResource::new("status", "is no redirection"))?,
            response: header_edits("response", message.response.as_ref())?,
            cors: part("cors", message.cors.as_ref(), cors)?,
        })
    }
}

impl From<&Redirect> for v1::RouteRedirect {
    fn from(redirect: &Redirect) -> Self {
        Self {
            status: redirect.status.as_u16().into(),
            scheme: redirect.scheme.map(|scheme| scheme.as_str().to_owned()),
            host: redirect.host.as_deref().map(str::to_owned),
            port: redirect.port.map(u32::from),
            path: redirect.path.as_ref().map(path_message),
            response: header_edits_message(&redirect.response),
            cors: redirect.cors.as_ref().map(cors_message),
        }
    }
}

fn cors(message: &v1::Cors) -> Result<Cors, BadResource> {
    let origins = message.origins.iter().enumerate().map(|(i, text)| {
        let read = text.parse::<AllowedOrigin>();
        read.map_err(|bad| BadResource::new(format!("origins[{i}]"), bad))
    });
    let method = |field: &str, text: &str| {
        Method::from_bytes(text.as_bytes())
            .map_err(|_| BadResource::new(field, format_args!("{text:?} is no method")))
    };
    Ok(Cors {
        origins: origins.collect::<Result<_, _>>()?,
        credentials: message.credentials,
        methods: allowed("methods", message.methods.as_ref(), method)?,
        headers: allowed("headers", message.headers.as_ref(), header_name)?,
        expose: allowed("expose", message.expose.as_ref(), header_name)?,
        max_age: message.max_age,
    })
}

fn cors_message(cors: &Cors) -> v1::Cors {
    let origins = cors.origins.iter();
    v1::Cors {
        origins: origins.map(|one| one.as_str().to_owned()).collect(),
        credentials: cors.credentials,
        methods: Some(allowed_message(&cors.methods)),
        headers: Some(allowed_message(&cors.headers)),
        expose: Some(allowed_message(&cors.expose)),
        max_age: cors.max_age,
    }
}

/// Absent: nothing.
fn allowed<T>(
    field: &str,
    message: Option<&v1::Allowed>,
    read: impl Fn(&str, &str) -> Result<T, BadResource>,
) -> Result<Allowed<T>, BadResource> {
    let Some(message) = message else {
        return Ok(Allowed::Only(Vec::new()));
    };
    if message.any {
        return Ok(Allowed::Any);
    }
    let only = message.only.iter().enumerate();
    let only = only.map(|(i, text)| read(&format!("{field}.only[{i}]"), text));
    only.collect::<Result<_, _>>().map(Allowed::Only)
}

fn allowed_message<T: AsRef<str>>(allowed: &Allowed<T>) -> v1::Allowed {
    match allowed {
        Allowed::Any => v1::Allowed {
            any: true,
            only: Vec::new(),
        },
        Allowed::Only(list) => v1::Allowed {
            any: false,
            only: names(list),
        },
    }
}

fn names<T: AsRef<str>>(list: &[T]) -> Vec<String> {
    list.iter().map(|one| one.as_ref().to_owned()).collect()
}

fn scheme(text: &str) -> Result<Scheme, BadResource> {
    let mut known = [Scheme::Http, Scheme::Https].into_iter();
    let read = known.find(|scheme| scheme.as_str() == text);
    read.ok_or_else(|| BadResource::new("scheme", "is neither http nor https"))
}

impl TryFrom<&v1::RuleMirror> for RuleMirror {
    type Error = BadResource;

    fn try_from(message: &v1::RuleMirror) -> Result<Self, BadResource> {
        for (field, text) in [
            ("service", &message.service),
            ("endpoints", &message.endpoints),
        ] {
            if text.is_empty() {
                return Err(BadResource::new(field, "is missing"));
            }
        }
        let share = Share::of_millionths(message.share);
        Ok(Self {
            service: ServiceId::new(message.namespace.as_str(), message.service.as_str()),
            port: port("port", message.port)?,
            endpoints: message.endpoints.as_str().into(),
            share: share.ok_or_else(|| BadResource::new("share", "is more than all"))?,
        })
    }
}

impl From<&RuleMirror> for v1::RuleMirror {
    fn from(mirror: &RuleMirror) -> Self {
        Self {
            namespace: mirror.service.namespace.to_string(),
            service: mirror.service.name.to_string(),
            port: mirror.port.into(),
            endpoints: mirror.endpoints.to_string(),
            share: mirror.share.millionths(),
        }
    }
}

fn timeouts(message: &v1::RuleTimeouts) -> RuleTimeouts {
    RuleTimeouts {
        request: message.request.map(Duration::from_millis),
        backend_request: message.backend_request.map(Duration::from_millis),
    }
}

fn timeouts_message(timeouts: &RuleTimeouts) -> v1::RuleTimeouts {
    v1::RuleTimeouts {
        request: timeouts.request.map(milliseconds),
        backend_request: timeouts.backend_request.map(milliseconds),
    }
}

fn retry(message: &v1::RuleRetry) -> Result<RuleRetry, BadResource> {
    let attempts = u8::try_from(message.attempts).ok();
    let attempts = attempts.filter(|attempts| *attempts <= MAX_ATTEMPTS);
    let codes = message.codes.iter().enumerate().map(|(i, raw)| {
        let code = u16::try_from(*raw).ok();
        let code = code.filter(|code| RETRY_CODES.contains(code));
        code.ok_or_else(|| BadResource::new(format!("codes[{i}]"), "is no error status"))
    });
    let backoff = message.backoff.map(Duration::from_millis);
    if backoff.is_some_and(|backoff| backoff > MAX_BACKOFF) {
        return Err(BadResource::new("backoff", "is too long"));
    }
    Ok(RuleRetry {
        attempts: attempts.ok_or_else(|| BadResource::new("attempts", "are too many"))?,
        codes: codes.collect::<Result<_, _>>()?,
        backoff,
    })
}

/// Within the bounds that [`retry`] reads: what is beyond one is lowered to it.
fn retry_message(retry: &RuleRetry) -> v1::RuleRetry {
    let codes = retry.codes.iter().copied();
    v1::RuleRetry {
        attempts: retry.attempts.min(MAX_ATTEMPTS).into(),
        codes: codes
            .filter(|code| RETRY_CODES.contains(code))
            .map(u32::from)
            .collect(),
        backoff: retry
            .backoff
            .map(|backoff| milliseconds(backoff.min(MAX_BACKOFF))),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
