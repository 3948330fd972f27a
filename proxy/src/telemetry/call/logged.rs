//! What the access log shows beyond the metrics. Only made when it is on.

use std::sync::Arc;

use http::Method;
use policy::access_log::AccessLog;
use policy::origin::Origin;

use crate::http::head::Asked;
use crate::telemetry::access_log::cut;
use crate::telemetry::trace::{self, Trace};

/// See the module header.
#[derive(Debug)]
pub(super) struct Logged {
    /// Whether it is written down, once it has ended, and where.
    pub(super) log: AccessLog,
    /// Whether it failed or was refused, once it has ended.
    pub(super) failed: bool,
    /// `None`: it could not be read.
    pub(super) method: Option<Method>,
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
    pub(super) fn of(asked: Asked<'_>, trace: Option<&Trace>, log: AccessLog) -> Self {
        // Else each message to the collector would be a line of the next one.
        let own = log.is_otlp() && asked.headers.is_some_and(trace::is_own);
        let log = if own { log.without_otlp() } else { log };
        Self {
            log,
            failed: false,
            method: asked.method.cloned(),
            host: cut(asked.host).to_owned(),
            path: cut(asked.path).to_owned(),
            trace: match trace {
                Some(trace) => Some(trace.id()),
                None => asked.headers.and_then(trace::id),
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
