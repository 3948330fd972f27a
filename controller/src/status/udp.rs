//! Computes what the status of a TrafficTarget or UDPRoute reports of UDP, which NetworkPolicies
//! enforce.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::problem::few;
use model::world::{ObjectKey, TargetFacts, World};
use policy::name::{Kind, ObjectRef};

use crate::network_policy::{Enforced, InForce, names_udp, udp_routes};

/// What became of the UDPRoutes of a TrafficTarget, or of a UDPRoute in all targets that
/// name it; `None` when there is nothing to enforce.
pub(super) fn of(
    object: &ObjectRef,
    world: &World,
    enforced: Option<&Enforced>,
) -> Option<InForce> {
    let key = ObjectKey {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    };
    match object.kind {
        Kind::TrafficTarget => {
            let (key, target) = world.targets.get_key_value(&key)?;
            names_udp(target).then(|| of_target(key, target, world, enforced))
        }
        Kind::UdpRoute => of_route(&key, world, enforced),
        _ => None,
    }
}

/// The model and the policies are settled one after the other, so what is known may be
/// about earlier generations. Saying that it is in force would be a guess then.
fn of_target(
    key: &ObjectKey,
    target: &TargetFacts,
    world: &World,
    enforced: Option<&Enforced>,
) -> InForce {
    let generation = target.meta.generation;
    let routes: BTreeMap<Arc<str>, i64> = udp_routes(world, key, target).collect();
    let known = enforced.and_then(|enforced| enforced.get(key));
    let known = known.filter(|known| known.generation == generation && known.routes == routes);
    known.cloned().unwrap_or_else(|| InForce {
        generation,
        routes,
        lacks: Some("Pending"),
        message: "NetworkPolicies for UDP have not been settled yet".to_owned(),
    })
}

/// In force where every target that names the route has it in force; else what the
/// first of them lacks.
fn of_route(route: &ObjectKey, world: &World, enforced: Option<&Enforced>) -> Option<InForce> {
    let from = ObjectKey {
        namespace: route.namespace.clone(),
        name: "".into(),
    };
    let here = world.targets.range(from..);
    let here = here.take_while(|(key, _)| key.namespace == route.namespace);
    let mut names = Vec::new();
    let mut in_force = None;
    for (key, target) in here {
        let state = of_target(key, target, world, enforced);
        if !state.routes.contains_key(&route.name) {
            continue;
        }
        if state.lacks.is_some() {
            let message = format!("TrafficTarget {}: {}", key.name, state.message);
            return Some(InForce { message, ..state });
        }
        names.push(key.name.to_string());
        in_force = Some(state);
    }
    in_force.map(|state| InForce {
        message: format!("in force for TrafficTarget {}", few(names)),
        ..state
    })
}
