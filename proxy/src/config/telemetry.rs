//! What the controller configures of the proxy's telemetry.

use std::sync::Arc;

use policy::access_log::{AccessLog, NotAnAccessLog};
use policy::log_filter::LogFilter;
use policy::trace::Tracing;
use wire::v1;

use crate::telemetry::trace::TracingConfig;

/// Attributes that spans have of their workload.
const ATTRIBUTES: usize = 32;
/// Bytes of the name and of the value of one of them.
const LONGEST: usize = 512;

pub(super) fn log_filter(message: &v1::Telemetry) -> Result<LogFilter, String> {
    match message.log_filter.as_str() {
        "" => Ok(LogFilter::default()),
        filter => filter.parse().map_err(|bad| format!("log_filter {bad}")),
    }
}

/// Which requests are written down. `None`: as the proxy was started.
pub(super) fn access_log(message: &v1::Telemetry) -> Result<Option<AccessLog>, String> {
    match message.access_log.as_str() {
        "" => Ok(None),
        log => {
            let read = log.parse().map(Some);
            read.map_err(|bad: NotAnAccessLog| format!("access_log {bad}"))
        }
    }
}

/// Which traces are recorded. `None`: none, and headers pass as they came.
pub(super) fn tracing(message: v1::Telemetry) -> Result<Option<Arc<TracingConfig>>, String> {
    let Some(message) = message.tracing else {
        return Ok(None);
    };
    let tracing = Tracing::try_from(&message).map_err(|bad| format!("tracing.{bad}"))?;
    let attributes = message.resource.into_iter();
    let fitting = attributes.filter(|one| one.name.len().max(one.value.len()) <= LONGEST);
    let resource = fitting.map(|one| (one.name, one.value));
    Ok(Some(Arc::new(TracingConfig {
        tracing,
        resource: resource.take(ATTRIBUTES).collect(),
    })))
}
