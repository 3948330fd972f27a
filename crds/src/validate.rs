//! An object of any kind, as a webhook and a command line meet it.

use serde_json::Value;

use crate::{
    smi::{
        ACCESS_GROUP, HttpRouteGroupSpec, IdentityBindingSpec, SPECS_GROUP, SPLIT_GROUP,
        TcpRouteSpec, TrafficSplitSpec, TrafficTargetSpec, UdpRouteSpec,
        judge::{Mistake, Surroundings, spec},
    },
    weft::{self, TrafficPolicySpec},
};

/// What is wrong with the spec of an object in the version that is stored; `None` if its
/// kind is none of ours.
pub fn object(
    group: &str,
    kind: &str,
    written: Option<&Value>,
    at: &Surroundings<'_>,
) -> Option<Vec<Mistake>> {
    Some(match (group, kind) {
        (SPLIT_GROUP, "TrafficSplit") => spec::<TrafficSplitSpec>(written, at).1,
        (ACCESS_GROUP, "TrafficTarget") => spec::<TrafficTargetSpec>(written, at).1,
        (SPECS_GROUP, "HTTPRouteGroup") => spec::<HttpRouteGroupSpec>(written, at).1,
        (SPECS_GROUP, "TCPRoute") => spec::<TcpRouteSpec>(written, at).1,
        (SPECS_GROUP, "UDPRoute") => spec::<UdpRouteSpec>(written, at).1,
        (ACCESS_GROUP, "IdentityBinding") => spec::<IdentityBindingSpec>(written, at).1,
        (weft::GROUP, "TrafficPolicy") => spec::<TrafficPolicySpec>(written, at).1,
        _ => return None,
    })
}
