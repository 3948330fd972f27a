//! The Service ports that a pod serves, and whether each Service may configure it.

use crate::world::ObjectKey;

/// A Service, one of its ports, and the pod's own port behind that.
pub(crate) type Served = (ObjectKey, u16, u16);

/// Whether a Service has a say over a pod that it leads to. An author who writes endpoints by hand
/// may name any address, so only a Service of the pod's own namespace has.
pub(crate) fn has_say(service: &ObjectKey, pod: &ObjectKey) -> bool {
    service.namespace == pod.namespace
}

/// What a pod serves, by whether the Services have a say over it. Both keep their order.
pub(crate) fn by_say(pod: &ObjectKey, all: Vec<Served>) -> (Vec<Served>, Vec<Served>) {
    let all = all.into_iter();
    all.partition(|(service, ..)| has_say(service, pod))
}

/// Whether two Service ports lead to one of the pod's. At most pods there is one alone.
pub(crate) fn has_shared_port(serves: &[Served]) -> bool {
    let own = |nth: usize| serves[nth].2;
    (1..serves.len()).any(|nth| (0..nth).any(|before| own(before) == own(nth)))
}
