//! Converts the counts of an edge or a route, and the reasons why a response is incomplete, into
//! the fields of the read API.

use std::collections::BTreeMap;

use crds::observe::{Edge, GraphMetadata, Latency, RouteSums, ServerSums, SharedServerSums};

use crate::graph::sums::EdgeTotals;
use crate::graph::window::{Incomplete, Shared, Window};
use crate::observe::reports::INTERVAL;

/// What is shown of an edge's calls.
pub(super) fn numbers(shown: &mut Edge, sums: &EdgeTotals) {
    shown.requests = sums.requests();
    shown.success = sums.success.into();
    shown.failure = sums.failure.into();
    shown.cancelled = sums.cancelled.into();
    shown.attempts = sums.attempts.into();
    shown.attempt_failures = sums.attempt_failures.into();
    shown.client_errors = sums.client_errors.into();
    shown.open = sums.open.into();
    shown.opened = sums.opened.into();
    (shown.sent, shown.received) = sums.bytes;
    shown.ms = latency(sums);
    shown.mtls = sums.mtls();
    shown.refused = refused(sums);
}

/// By reason.
fn refused(sums: &EdgeTotals) -> BTreeMap<String, u64> {
    let reasons = sums.rare.iter().flat_map(|rare| &rare.reasons);
    reasons
        .map(|(reason, calls)| (reason.to_string(), u64::from(*calls)))
        .collect()
}

/// What the called side counted of them.
pub(super) fn server_sums(sums: &EdgeTotals, port_known: bool) -> ServerSums {
    ServerSums {
        requests: sums.requests(),
        failure: sums.failure.into(),
        cancelled: sums.cancelled.into(),
        refused: refused(sums),
        open: sums.open.into(),
        mtls: sums.mtls(),
        port_unknown: !port_known,
        ms: latency(sums),
    }
}

/// The same of the calls of several edges.
pub(super) fn shared_sums(shared: &Shared, sums: ServerSums) -> SharedServerSums {
    SharedServerSums {
        group: shared.held_by.id().to_owned(),
        edges: shared.edges.into(),
        sums,
    }
}

/// What a node served by one route.
pub(super) fn route_sums(route: &str, sums: &EdgeTotals) -> RouteSums {
    RouteSums {
        route: route.to_owned(),
        requests: sums.requests(),
        failure: sums.failure.into(),
        cancelled: sums.cancelled.into(),
        ms: latency(sums),
    }
}

fn latency(sums: &EdgeTotals) -> Option<Latency> {
    let histogram = sums.histogram();
    let ms = |share| {
        histogram
            .quantile(share)
            .map(|seconds| (seconds * 1e5).round() / 1e2)
    };
    Some(Latency {
        p50: ms(0.5)?,
        p95: ms(0.95)?,
        p99: ms(0.99)?,
    })
}

/// What had no room in a response.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overflow {
    /// Edges and nodes that are skipped.
    pub left_out: usize,
    /// Those that are shown without history or routes.
    pub bare: usize,
}

impl Overflow {
    fn why(self, beyond: usize) -> Option<String> {
        let Self { left_out, bare } = self;
        let left_out = left_out + beyond;
        (left_out + bare > 0).then(|| {
            format!(
                "the answer is too long: {left_out} edges and nodes had no room in it, and {bare} \
                 are shown without history or routes; ask for one namespace, or for less history"
            )
        })
    }

    /// What the response lacks, without its end. `beyond`: edges that were too many.
    pub(super) fn metadata(self, window: &Window, beyond: usize) -> GraphMetadata {
        let unsettled = window.incomplete == Some(Incomplete::Unsettled);
        let why = self.why(beyond);
        let lost = window.incomplete.map(Incomplete::why);
        let incomplete = match (lost, &why) {
            (lost, None) => lost.map(str::to_owned),
            (Some(lost), Some(why)) if !unsettled => Some(format!("{lost}; {why}")),
            (_, Some(why)) => Some(why.clone()),
        };
        GraphMetadata {
            window_seconds: (window.intervals.1 - window.intervals.0) * INTERVAL,
            complete: incomplete.is_none(),
            incomplete,
            unsettled: unsettled && why.is_none(),
            left_out: (beyond + self.left_out) as u64,
            sides: true,
            ..GraphMetadata::default()
        }
    }
}
