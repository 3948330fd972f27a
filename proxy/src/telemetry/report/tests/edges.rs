//! What an edge says of the rule that chose its backend, and which calls are on none.

use std::sync::Arc;

use policy::origin::Origin;
use policy::protocol::Protocol;

use super::super::ends;
use super::{BAD, GOOD, closed, reports, to};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::CellKey;
use crate::telemetry::labels::Security;

#[test]
fn edge_names_split_or_route_that_chose_backend() {
    for (kind, split, rule) in [
        ("TrafficSplit", "shop/cart", ""),
        ("CanaryRelease", "", ""),
        ("HTTPRoute", "", "HTTPRoute shop/cart"),
        ("GRPCRoute", "", "GRPCRoute shop/cart"),
        (
            "TCPRoute.gateway.networking.k8s.io",
            "",
            "TCPRoute shop/cart",
        ),
    ] {
        let call_ends = CallEnds::Outbound {
            service: "shop/cart".into(),
            port: 80,
            backend: "shop/cart-v2".into(),
            rule: Some(Origin::new(kind, "shop", "cart")),
            pod: "shop/cart-v2-1".into(),
            security: Security::mtls,
        };
        let edge = ends(&call_ends, Protocol::Http1);
        assert_eq!((&*edge.split, &*edge.rule), (split, rule), "{kind}");
    }
}

/// The graph would show it as a call out of the mesh.
#[test]
fn gateway_reports_no_edge_for_its_own_answers() {
    for (reports, edges) in [(reports(), 2), (reports().of_gateway(), 1)] {
        let answered = CellKey {
            call_ends: CallEnds::to_service(Arc::default(), 80),
            ..to("shop/a")
        };
        reports.count_at(1, answered, BAD);
        reports.count(to("shop/a"), GOOD);
        reports.close_at(2);
        assert_eq!(closed(&reports)[0].edges.len(), edges);
    }
}
