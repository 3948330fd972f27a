//! What the access log shows beyond the metrics. Only made when it is on.

use std::sync::Arc;

use http::{Method, header, request};
use policy::access_log::AccessLog;
use policy::origin::Origin;

use crate::telemetry::access_log::cut;
use crate::telemetry::trace::{self, Trace};

/// See the module header.
#[derive(Debug)]
pub(super) struct Logged {
    /// Whether it is written down, once it has ended, and where.
    pub(super) log: AccessLog,
    /// Whether it failed or was refused, once it has ended.
    pub(super) failed: bool,
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) trace: Option<String>,
    /// The proxy's own, where it is recorded.
    pub(super) span: Option<String>,
    /// What allowed or refused the call.
    pub(super) rule: Option<Origin>,
    /// The route that describes it; empty where none does.
    pub(super) route: Option<Arc<str>>,
}

impl Logged {
    /// Of a request that belongs to a trace which changes its headers, or to none such.
    pub(super) fn of(parts: &request::Parts, trace: Option<&Trace>, log: AccessLog) -> Self {
        let host = parts.uri.authority().map(|authority| authority.as_str());
        let host = host.or_else(|| parts.headers.get(header::HOST)?.to_str().ok());
        // Else each message to the collector would be a line of the next one.
        let own = log.is_otlp() && trace::is_own(&parts.headers);
        let log = if own { log.without_otlp() } else { log };
        Self {
            log,
            failed: false,
            method: parts.method.clone(),
            host: host.map(cut).unwrap_or_default().to_owned(),
            path: cut(parts.uri.path()).to_owned(),
            trace: match trace {
                Some(trace) => Some(trace.id()),
                None => trace::id(&parts.headers),
            },
            span: trace.and_then(Trace::span_id),
            rule: None,
            route: None,
        }
    }

    /// Whether it is written down, now that it `failed` or did not.
    pub(super) const fn is_wanted(&self, failed: bool) -> bool {
        self.log.takes(failed)
    }
}
