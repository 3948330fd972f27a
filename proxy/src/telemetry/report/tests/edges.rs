//! What an edge says of the rule that chose its backend.

use policy::origin::Origin;
use policy::protocol::Protocol;

use super::super::ends;
use crate::telemetry::call_ends::CallEnds;
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
