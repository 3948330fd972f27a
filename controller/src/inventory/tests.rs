//! What is kept of objects that are gone, and what pods belong to.
//!
//! Claims: observe-141

use model::world::Owner;

use super::*;
use crate::testing::topology::{inventory, key};

#[test]
fn terminated_objects_resolve_for_ten_minutes_but_are_unlisted() {
    let mut inventory = inventory();
    let start = Instant::now();
    let pod = key("shop", "api-1");
    inventory.end(MetricsKind::Pod, &pod, start);
    inventory.end(MetricsKind::ReplicaSet, &key("shop", "api-rs"), start);
    assert_eq!(inventory.list(MetricsKind::Pod, Some("shop")).count(), 2);
    inventory.tidy(start + RETAINED_FOR - Duration::from_secs(1));
    let owner = || Some(key("shop", "api"));
    assert_eq!(
        inventory.of(MetricsKind::Deployment, &pod, "shop-api"),
        owner()
    );
    inventory.tidy(start + RETAINED_FOR);
    assert_eq!(
        inventory.of(MetricsKind::Deployment, &pod, "shop-api"),
        None
    );
    assert_eq!(inventory.pod_by_uid("shop-api"), None);
}

#[test]
fn too_many_ended_objects_cost_the_oldest() {
    let mut inventory = Inventory::default();
    let start = Instant::now();
    for at in 0..=MAX_ENDED as u64 {
        let pod = key("shop", &format!("job-{at}"));
        let thing = InventoryObject {
            uid: format!("uid-{at}").into(),
            ..InventoryObject::default()
        };
        inventory.put(MetricsKind::Pod, pod.clone(), Arc::new(thing));
        inventory.end(MetricsKind::Pod, &pod, start + Duration::from_millis(at));
    }
    assert!(
        inventory.ended_count <= MAX_ENDED,
        "{}",
        inventory.ended_count
    );
    assert_eq!(inventory.pod_by_uid("uid-0"), None);
    let last = format!("uid-{MAX_ENDED}");
    assert!(inventory.pod_by_uid(&last).is_some());
}

#[test]
fn pod_with_reused_name_inherits_nothing_from_predecessor() {
    let mut inventory = inventory();
    let pod = key("shop", "api-1");
    let next = InventoryObject {
        uid: "next".into(),
        owner: Some((MetricsKind::StatefulSet, "api".into())),
        ..InventoryObject::default()
    };
    inventory.put(MetricsKind::Pod, pod.clone(), Arc::new(next));
    assert_eq!(
        inventory.of(MetricsKind::Deployment, &pod, "shop-api"),
        Some(key("shop", "api"))
    );
    assert_eq!(
        inventory.of(MetricsKind::StatefulSet, &pod, "next"),
        Some(key("shop", "api"))
    );
    assert_eq!(inventory.of(MetricsKind::Deployment, &pod, "next"), None);
}

#[test]
fn terminated_pod_with_reused_name_is_kept_equally_long() {
    let mut inventory = inventory();
    let (start, pod) = (Instant::now(), key("shop", "api-1"));
    inventory.end(MetricsKind::Pod, &pod, start);
    let next = InventoryObject {
        uid: "next".into(),
        ..InventoryObject::default()
    };
    inventory.put(MetricsKind::Pod, pod.clone(), Arc::new(next));
    inventory.tidy(start + RETAINED_FOR - Duration::from_secs(1));
    let owner = Some(key("shop", "api"));
    assert_eq!(
        inventory.of(MetricsKind::Deployment, &pod, "shop-api"),
        owner
    );
    inventory.tidy(start + RETAINED_FOR);
    assert_eq!(inventory.pod_by_uid("shop-api"), None);
    assert_eq!(inventory.pod_by_uid("next"), Some(&pod));
}

#[test]
fn peers_terminated_pod_resolves_to_owners_with_original_age() {
    let (mut there, mut here) = (inventory(), Inventory::default());
    let (start, pod) = (Instant::now(), key("shop", "api-1"));
    there.end(MetricsKind::Pod, &pod, start);
    let ended_pod = || {
        let (_, ended) = there.ended_since(0).next().unwrap();
        let thing = Arc::new((*ended.thing).clone());
        let ended = ended.clone();
        EndedPod { thing, ..ended }
    };
    let later = start + Duration::from_secs(300);
    for _ in 0..2 {
        here.add_ended(ended_pod(), later);
    }
    assert_eq!(
        (here.peer_revision(), here.ended_since(0).count()),
        (1, 1),
        "once"
    );
    let owner = || Some(key("shop", "api"));
    for uid in ["shop-api", ""] {
        assert_eq!(
            here.of(MetricsKind::Deployment, &pod, uid),
            owner(),
            "{uid}"
        );
    }
    assert_eq!(here.of(MetricsKind::Node, &pod, ""), Some(key("", "n1")));
    for kind in [
        MetricsKind::Pod,
        MetricsKind::ReplicaSet,
        MetricsKind::Deployment,
    ] {
        assert_eq!(here.list(kind, None).count(), 0, "{kind:?}");
    }
    here.tidy(start + RETAINED_FOR);
    assert_eq!((here.pod_by_uid("shop-api"), here.ended_count), (None, 0));
    here.add_ended(ended_pod(), start + RETAINED_FOR);
    assert_eq!(here.peer_revision(), 1, "of long ago");
    // One that is there ends by what is seen here.
    let mut living = inventory();
    living.add_ended(ended_pod(), later);
    assert!(living.get(MetricsKind::Pod, &pod).is_some() && living.peer_revision() == 0);
}

#[test]
fn new_list_ends_what_it_does_not_hold() {
    let mut inventory = inventory();
    let kept = key("shop", "web");
    inventory.keep_only(MetricsKind::Deployment, |key| *key == kept, Instant::now());
    let names: Vec<&ObjectKey> = inventory
        .list(MetricsKind::Deployment, None)
        .map(|(key, _)| key)
        .collect();
    assert_eq!(names, [&kept]);
}

/// An owned object.
fn owned(kind: MetricsKind, owner: &str) -> Arc<InventoryObject> {
    Arc::new(InventoryObject {
        owner: Some((kind, owner.into())),
        ..InventoryObject::default()
    })
}

#[test]
fn runs_and_revisions_share_owner_while_any_exists() {
    let mut inventory = Inventory::default();
    let start = Instant::now();
    for (top, owner, between, names) in [
        (
            MetricsKind::CronJob,
            "report",
            MetricsKind::Job,
            ["report-29387460", "report-29387520"],
        ),
        (
            MetricsKind::Rollout,
            "web",
            MetricsKind::ReplicaSet,
            ["web-5d8", "web-6c9"],
        ),
    ] {
        let one = key("shop", owner);
        for name in names {
            let pod = key("shop", &format!("{name}-x"));
            inventory.put(between, key("shop", name), owned(top, owner));
            inventory.put(MetricsKind::Pod, pod.clone(), owned(between, name));
            assert_eq!(inventory.topmost(&pod, ""), (top, one.clone()));
            let nearest = inventory.of(between, &pod, "");
            assert_eq!(nearest, Some(key("shop", name)), "as before");
        }
        for other in [key("shop", "other"), key("bank", owner)] {
            assert!(!inventory.exists(top, &other), "{other}");
        }
        for name in names {
            assert!(inventory.exists(top, &one), "{name} is there");
            inventory.end(between, &key("shop", name), start);
        }
        assert!(!inventory.exists(top, &one), "it owns nothing");
    }
    let alone = key("shop", "once");
    inventory.put(MetricsKind::Job, alone.clone(), Arc::default());
    assert!(inventory.exists(MetricsKind::Job, &alone));
    inventory.end(MetricsKind::Job, &alone, start);
    assert!(!inventory.exists(MetricsKind::Job, &alone));
}

#[test]
fn owners_of_owners_match_kind_and_group_without_metrics() {
    for (kind, api_version, known) in [
        ("CronJob", "batch/v1", Some(MetricsKind::CronJob)),
        (
            "Rollout",
            "argoproj.io/v1alpha1",
            Some(MetricsKind::Rollout),
        ),
        ("Rollout", "rollouts.example/v1", None),
        ("Deployment", "apps/v1", Some(MetricsKind::Deployment)),
        ("Job", "batch/v1", Some(MetricsKind::Job)),
        ("Job", "batch.example/v1", None),
        (
            "ReplicationController",
            "v1",
            Some(MetricsKind::ReplicationController),
        ),
        ("Pod", "v1", None),
    ] {
        let owner = Owner {
            api_version: api_version.into(),
            kind: kind.into(),
            name: "web".into(),
        };
        assert_eq!(MetricsKind::of_owner(&owner), known, "{api_version} {kind}");
        if let Some(known) = known {
            assert_eq!(known.api_version(), api_version, "{kind}");
        }
    }
    let mut versions = MetricsKind::all().map(MetricsKind::api_version);
    assert!(versions.all(|version| !version.is_empty()));
    assert_eq!(MetricsKind::from_plural("cronjobs"), None);
    assert_eq!(MetricsKind::from_plural("jobs"), Some(MetricsKind::Job));
}

#[test]
fn owner_whose_name_no_object_can_have_is_none() {
    let named = |name: &str| {
        let owner = Owner {
            api_version: "argoproj.io/v1alpha1".into(),
            kind: "Rollout".into(),
            name: name.into(),
        };
        MetricsKind::of_owner(&owner)
    };
    for name in ["web", "web.v2", &"a".repeat(253)] {
        assert_eq!(named(name), Some(MetricsKind::Rollout), "{name}");
    }
    for name in [
        "",
        "Web",
        "a/b",
        "a\n",
        &"a".repeat(254),
        &"a".repeat(400_000),
    ] {
        assert_eq!(named(name), None, "{} bytes", name.len());
    }
}
