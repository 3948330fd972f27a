//! Resolves the log level, access log and tracing of a pod's proxy, from pod, namespace and chart.
//!
//! A value that cannot be read counts as absent: what a proxy does not log or record harms no user,
//! and the Event names the value.

use std::str::FromStr;
use std::sync::Arc;

use policy::access_log::AccessLog;
use policy::log_filter::LogFilter;
use policy::trace::Tracing;

use super::defaults::Defaults;
use crate::world::{Annotations, NamespaceFacts};

/// What the proxy of a pod logs.
pub(crate) fn log_filter(namespace: Option<&NamespaceFacts>, pod: &Annotations) -> LogFilter {
    closest(namespace, pod, |annotations| annotations.log_level.as_ref()).unwrap_or_default()
}

/// Which requests it writes down.
pub(crate) fn access_log(namespace: Option<&NamespaceFacts>, pod: &Annotations) -> AccessLog {
    closest(namespace, pod, |annotations| {
        annotations.access_log.as_ref()
    })
    .unwrap_or_default()
}

/// Which traces it records, and where it sends them; `None`: nowhere.
pub(crate) fn tracing(
    defaults: &Defaults,
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
) -> Option<Tracing> {
    let mut tracing = defaults.tracing.as_deref()?.clone();
    let closest_share = closest(namespace, pod, |annotations| {
        annotations.trace_sampling.as_ref()
    });
    tracing.share = closest_share.unwrap_or(tracing.share);
    Some(tracing)
}

/// The pod's own, else its namespace's.
fn closest<T: FromStr>(
    namespace: Option<&NamespaceFacts>,
    pod: &Annotations,
    value: impl Fn(&Annotations) -> Option<&Arc<str>>,
) -> Option<T> {
    let read = |annotations: &Annotations| value(annotations)?.parse().ok();
    read(pod).or_else(|| read(&namespace?.annotations))
}
