//! The endpoint that serves a call, until its answer has ended.

use std::sync::Arc;

use http::HeaderMap;

use crate::endpoints::endpoint::InFlight;
use crate::endpoints::learned::Latency;
use crate::endpoints::set::EndpointSet;
use crate::http::watched::BodyEnd;
use crate::outbound::said::{self, Said};
use crate::outbound::verdict::seen_at_end;
use crate::telemetry::call::Call;

/// The endpoint that serves a call.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(super) in_flight: InFlight,
    /// Who is told how a gRPC call went, which its trailers say.
    pub(super) open: Option<Open>,
}

/// A gRPC answer that has begun.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) set: Arc<EndpointSet>,
    pub(super) said: Option<Arc<Said>>,
}

impl Serving {
    /// The answer has ended.
    pub(super) fn ended(mut self, end: BodyEnd, trailers: Option<&HeaderMap>, call: &Call) {
        let Some(Open { set, said }) = self.open.take() else {
            return;
        };
        let (seen, ejection) = (seen_at_end(end, trailers), said::ejection(said.as_deref()));
        if let Some(cause) = set.record(&mut self.in_flight, Latency::Told, seen, ejection) {
            call.ejected(cause);
        }
    }
}
