//! What a proxy is to tell of itself: pod, else namespace, else the default.
//!
//! A value that cannot be read counts as absent: nobody is harmed by what a proxy does
//! not log, and the Event tells.

use policy::log_filter::LogFilter;

use crate::world::{Appearance, NamespaceFacts};

/// What the proxy of a pod logs.
pub(crate) fn log_filter(namespace: Option<&NamespaceFacts>, pod: &Appearance) -> LogFilter {
    let read = |appearance: &Appearance| appearance.log_level.as_deref()?.parse().ok();
    read(pod)
        .or_else(|| read(&namespace?.appearance))
        .unwrap_or_default()
}
