//! An object of any kind, as a webhook and a command line meet it.

use policy::name::Kind;
use serde_json::Value;

use crate::{
    smi::{
        HttpRouteGroupSpec, IdentityBindingSpec, SmiKind, TcpRouteSpec, TrafficSplitSpec,
        TrafficTargetSpec, UdpRouteSpec,
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
    if (group, kind) == (weft::GROUP, Kind::TrafficPolicy.as_str()) {
        return Some(spec::<TrafficPolicySpec>(written, at).1);
    }
    Some(match SmiKind::named(group, kind)? {
        SmiKind::TrafficSplit => spec::<TrafficSplitSpec>(written, at).1,
        SmiKind::TrafficTarget => spec::<TrafficTargetSpec>(written, at).1,
        SmiKind::HttpRouteGroup => spec::<HttpRouteGroupSpec>(written, at).1,
        SmiKind::TcpRoute => spec::<TcpRouteSpec>(written, at).1,
        SmiKind::UdpRoute => spec::<UdpRouteSpec>(written, at).1,
        SmiKind::IdentityBinding => spec::<IdentityBindingSpec>(written, at).1,
    })
}
