//! A call as a tap of requests sees it.

use std::time::Duration;

use super::{At, Call};
use crate::telemetry::tap::record::TapEnding;

impl Call {
    /// Shows how it ended to those taps that noted its head. A status of gRPC stands beside that
    /// of HTTP.
    pub(super) fn show(
        &mut self,
        (status, grpc): (u16, Option<u16>),
        reason: &'static str,
        latency: Duration,
        bytes: u64,
    ) {
        let Some(tapped) = self.tapped.take() else {
            return;
        };
        let ending = TapEnding {
            port: self.port,
            route: match &self.at {
                At::Nowhere(_) => None,
                At::Counters(cell) => cell.key().route.as_deref(),
            },
            status,
            grpc,
            reason,
            latency,
            bytes,
        };
        tapped.ended(self.parties(), self.protocol, &ending);
    }
}
