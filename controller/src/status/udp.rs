//! What a status says about UDP.

use policy::name::{Kind, ObjectRef};

use crate::network_policy::{Enforced, InForce, names_udp};
use crate::world::{ObjectKey, World};

/// What became of the UDPRoutes of a TrafficTarget; `None` when it names none.
///
/// The model and the policies are settled one after the other, so what is known may be
/// about an earlier generation. Saying that it is in force would be a guess then.
pub(super) fn of(
    object: &ObjectRef,
    world: &World,
    enforced: Option<&Enforced>,
) -> Option<InForce> {
    if object.kind != Kind::TrafficTarget {
        return None;
    }
    let key = ObjectKey {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    };
    let target = world.targets.get(&key).filter(|target| names_udp(target))?;
    let generation = target.meta.generation;
    let known = enforced.and_then(|enforced| enforced.get(&key));
    let known = known.filter(|known| known.generation == generation);
    Some(known.cloned().unwrap_or_else(|| InForce {
        generation,
        lacks: Some("Pending"),
        message: "NetworkPolicies for UDP have not been settled yet".to_owned(),
    }))
}
