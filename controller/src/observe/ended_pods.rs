//! The owners of pods that have ended, which replicas send each other so that counts of such pods
//! find their workload.
//!
//! A replica that starts lists the running pods, and then receives the counts of the last minutes:
//! also of and by pods that it never saw. The other replicas know the owners of those, and send
//! them before any report that may name them.

use std::time::Duration;

use crds::label_syntax::is_object_name;
use model::world::ObjectKey;
use parking_lot::RwLock;
use prost::Message as _;
use tokio::time::Instant;
use wire::v1;

use super::reports::{CHUNK, MAX_NAMES};
use crate::inventory::kind::MetricsKind;
use crate::inventory::{DEEPEST, EndedPod, Inventory, InventoryObject, ObjectId};

/// Pods of one message; `wire::codec` takes more.
const MAX_PODS: usize = 5_000;

/// Pods that ended after the one with this number, as many as fit into one message, and the number
/// that they lead to; nothing when all are sent. 0 begins with the first.
pub(crate) fn ended_since(
    inventory: &Inventory,
    since: u64,
    now: Instant,
) -> (u64, Option<v1::Reports>) {
    let (mut news, mut reported, mut bytes) = (v1::Reports::default(), since, 0);
    for (number, pod) in inventory.ended_since(since) {
        let pod = message(pod, now);
        bytes += pod.encoded_len();
        let is_full = bytes > CHUNK || news.ended.len() >= MAX_PODS;
        if is_full && !news.ended.is_empty() {
            break;
        }
        reported = number;
        news.ended.push(pod);
    }
    (reported, (!news.ended.is_empty()).then_some(news))
}

/// Takes in what another replica sends of them.
pub(crate) fn receive(inventory: &RwLock<Inventory>, ended: Vec<v1::EndedPod>, now: Instant) {
    if ended.is_empty() {
        return;
    }
    let mut inventory = inventory.write();
    let ended = ended.into_iter().take(MAX_PODS);
    for pod in ended.filter_map(|reported| read(reported, now)) {
        inventory.add_ended(pod, now);
    }
}

fn message(pod: &EndedPod, now: Instant) -> v1::EndedPod {
    let owner = |(kind, key): &ObjectId| v1::PodOwner {
        kind: kind.name().to_owned(),
        name: key.name.to_string(),
    };
    let ago = now.saturating_duration_since(pod.at).as_millis();
    v1::EndedPod {
        namespace: pod.key.namespace.to_string(),
        pod: pod.key.name.to_string(),
        uid: pod.thing.uid.to_string(),
        node: pod.thing.node.to_string(),
        owners: pod.owners.iter().map(owner).collect(),
        ago: u64::try_from(ago).unwrap_or(u64::MAX),
    }
}

/// `None`: what no replica says.
fn read(reported: v1::EndedPod, now: Instant) -> Option<EndedPod> {
    let (of_namespace, of_others) = MAX_NAMES;
    let is_name = |text: &str, most: usize| {
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        (1..=most).contains(&text.len()) && text.bytes().all(fits)
    };
    let is_pod = is_name(&reported.namespace, of_namespace)
        && is_name(&reported.pod, of_others)
        && is_name(&reported.uid, of_namespace)
        && (reported.node.is_empty() || is_name(&reported.node, of_others));
    let at = now.checked_sub(Duration::from_millis(reported.ago))?;
    let key = is_pod.then(|| ObjectKey::new(&reported.namespace, &reported.pod))?;
    // One of a kind that only a newer replica knows ends them.
    let owners = reported.owners.iter().take(DEEPEST).map_while(|owner| {
        let kind = MetricsKind::owner_named(&owner.kind)?;
        let name = is_object_name(&owner.name).then_some(&*owner.name)?;
        Some((kind, ObjectKey::new(&reported.namespace, name)))
    });
    let owners: Vec<ObjectId> = owners.collect();
    let nearest = owners.first();
    let thing = InventoryObject {
        uid: reported.uid.into(),
        owner: nearest.map(|(kind, key)| (*kind, key.name.clone())),
        node: reported.node.into(),
        ..InventoryObject::default()
    };
    Some(EndedPod {
        key,
        thing: thing.into(),
        owners,
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::topology::{inventory, key};

    fn reported(inventory: &Inventory, now: Instant) -> Vec<v1::EndedPod> {
        let news = ended_since(inventory, 0, now).1;
        news.map_or_else(Vec::new, |news| news.ended)
    }

    #[test]
    fn terminated_pods_pass_between_replicas_with_original_age() {
        let (mut there, here) = (inventory(), RwLock::new(Inventory::default()));
        let (start, pod) = (Instant::now(), key("shop", "api-1"));
        assert_eq!(ended_since(&there, 0, start), (0, None));
        there.end(MetricsKind::Pod, &pod, start);
        let later = start + Duration::from_secs(200);
        let (last, _) = ended_since(&there, 0, later);
        assert_eq!(ended_since(&there, last, later), (last, None));
        receive(&here, reported(&there, later), later);
        let here = here.into_inner();
        let owner = here.of(MetricsKind::Deployment, &pod, "shop-api");
        assert_eq!(owner, Some(key("shop", "api")));
        let much_later = later + Duration::from_secs(200);
        assert_eq!(reported(&here, much_later), reported(&there, much_later));
        assert_eq!(reported(&here, much_later)[0].ago, 400_000);
    }

    #[test]
    fn reports_of_ended_pods_are_bounded() {
        let (there, now) = (RwLock::new(Inventory::default()), Instant::now());
        let long = "x".repeat(MAX_NAMES.1 - 5);
        let pod = |at: usize| v1::EndedPod {
            namespace: "shop".to_owned(),
            pod: format!("{long}{at}"),
            uid: format!("uid-{at}"),
            node: long.clone(),
            ..v1::EndedPod::default()
        };
        receive(&there, (0..MAX_PODS + 10).map(pod).collect(), now);
        let there = there.into_inner();
        assert_eq!(there.ended_since(0).count(), MAX_PODS);
        let (mut since, mut pods) = (0, 0);
        while let (next, Some(news)) = ended_since(&there, since, now) {
            assert!(news.encoded_len() < CHUNK + CHUNK / 8);
            (since, pods) = (next, pods + news.ended.len());
        }
        assert_eq!(pods, MAX_PODS);
    }

    #[test]
    fn what_no_replica_says_is_passed_over() {
        let now = Instant::now();
        let owner = |kind: &str| v1::PodOwner {
            kind: kind.to_owned(),
            name: "api".to_owned(),
        };
        let good = v1::EndedPod {
            namespace: "shop".to_owned(),
            pod: "api-1".to_owned(),
            uid: "uid".to_owned(),
            owners: vec![owner("ReplicaSet"); 9],
            ..v1::EndedPod::default()
        };
        let owners = |reported| read(reported, now).map(|pod| pod.owners.len());
        assert_eq!(owners(good.clone()), Some(DEEPEST));
        let newer = vec![owner("ReplicaSet"), owner("Widget"), owner("Deployment")];
        let newer = v1::EndedPod {
            owners: newer,
            ..good.clone()
        };
        assert_eq!(owners(newer), Some(1));
        // Of an older version, which took any name.
        for name in ["API".to_owned(), "x".repeat(254)] {
            let mut older = vec![owner("ReplicaSet"), owner("Rollout")];
            older[1].name = name;
            let older = v1::EndedPod {
                owners: older,
                ..good.clone()
            };
            assert_eq!(owners(older), Some(1));
        }
        let without = |change: fn(&mut v1::EndedPod)| {
            let mut reported = good.clone();
            change(&mut reported);
            owners(reported)
        };
        assert_eq!(without(|reported| reported.uid.clear()), None);
        assert_eq!(without(|reported| reported.uid = "x".repeat(64)), None);
        assert_eq!(
            without(|reported| reported.namespace = "a/b".to_owned()),
            None
        );
        assert_eq!(without(|reported| reported.pod = "x".repeat(254)), None);
        assert_eq!(without(|reported| reported.node = "a\nb".to_owned()), None);
    }
}
