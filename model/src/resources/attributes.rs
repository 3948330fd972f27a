//! The attributes of a pod that its spans carry, by the semantic conventions of OpenTelemetry for
//! Kubernetes.
//!
//! Claims: observe-102, observe-142

use wire::v1;

use crate::model::peers::owner_above;
use crate::world::{ObjectKey, PodFacts};

/// Bytes that the name of a service, or of what it belongs to, may have: no user needs more, and
/// each proxy holds it.
const LONGEST: usize = 256;

/// What spans of this pod say of it.
pub(super) fn of_pod(key: &ObjectKey, facts: &PodFacts) -> Vec<v1::Attribute> {
    let owners = owners(facts);
    let named = usable(facts.annotations.service_name.as_deref());
    let within = usable(facts.annotations.service_namespace.as_deref());
    let owner = owners.first().map(|(_, name)| *name);
    let mut all = vec![
        ("service.name", named.or(owner).unwrap_or(&key.name)),
        ("service.namespace", within.unwrap_or(&key.namespace)),
        ("k8s.namespace.name", &*key.namespace),
        ("k8s.pod.name", &*key.name),
        ("k8s.pod.uid", &*facts.uid),
        ("k8s.node.name", &*facts.node),
    ];
    for (kind, name) in &owners {
        all.extend(attribute(kind).map(|attribute| (attribute, *name)));
    }
    let all = all.into_iter().filter(|(_, value)| !value.is_empty());
    all.map(|(name, value)| v1::Attribute {
        name: name.to_owned(),
        value: value.to_owned(),
    })
    .collect()
}

/// What the pod's author wrote, unless it is nothing or too long.
fn usable(written: Option<&str>) -> Option<&str> {
    written.filter(|written| (1..=LONGEST).contains(&written.len()))
}

/// Kinds and names of a pod's owners, the topmost that shows first.
fn owners(facts: &PodFacts) -> Vec<(&str, &str)> {
    let own = facts.owner.as_ref();
    let own = own.and_then(|owner| Some((owner.known_kind()?, &*owner.name)));
    let own = own.filter(|(kind, _)| attribute(kind).is_some());
    owner_above(facts).into_iter().chain(own).collect()
}

/// The attribute for the name of an owner of this kind; the conventions have none for a Rollout.
fn attribute(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Deployment" => "k8s.deployment.name",
        "ReplicaSet" => "k8s.replicaset.name",
        "ReplicationController" => "k8s.replicationcontroller.name",
        "StatefulSet" => "k8s.statefulset.name",
        "DaemonSet" => "k8s.daemonset.name",
        "CronJob" => "k8s.cronjob.name",
        "Job" => "k8s.job.name",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Annotations, Owner};

    const HASH: &str = "pod-template-hash";
    const ROLLOUTS: &str = "rollouts-pod-template-hash";

    fn pod(kind: &str, owner: &str, hash: Option<(&str, &str)>) -> Vec<v1::Attribute> {
        let api_version = match kind {
            "Job" => "batch/v1",
            "ReplicationController" => "v1",
            _ => "apps/v1",
        };
        pod_of((api_version, kind), owner, hash)
    }

    fn pod_of(
        (api_version, kind): (&str, &str),
        owner: &str,
        hash: Option<(&str, &str)>,
    ) -> Vec<v1::Attribute> {
        let key = ObjectKey {
            namespace: "shop".into(),
            name: "web-7d9c-x".into(),
        };
        let labels = hash.map(|(label, hash)| (label.into(), hash.into()));
        let facts = PodFacts {
            uid: "u1".into(),
            node: "n1".into(),
            owner: (!kind.is_empty()).then(|| Owner {
                api_version: api_version.into(),
                kind: kind.into(),
                name: owner.into(),
            }),
            labels: labels.into_iter().collect(),
            ..PodFacts::default()
        };
        of_pod(&key, &facts)
    }

    fn value(all: &[v1::Attribute], name: &str) -> Option<String> {
        let found = all.iter().find(|one| one.name == name);
        found.map(|one| one.value.clone())
    }

    #[test]
    fn service_name_comes_from_topmost_visible_owner() {
        let hash = |label| Some((label, "7d9c"));
        for (kind, owner, hash, name, attribute) in [
            (
                "ReplicaSet",
                "web-7d9c",
                hash(HASH),
                "web",
                "k8s.deployment.name",
            ),
            (
                "ReplicaSet",
                "web-7d9c",
                None,
                "web-7d9c",
                "k8s.replicaset.name",
            ),
            ("StatefulSet", "db", None, "db", "k8s.statefulset.name"),
            ("DaemonSet", "agent", None, "agent", "k8s.daemonset.name"),
            (
                "ReplicationController",
                "old",
                None,
                "old",
                "k8s.replicationcontroller.name",
            ),
            ("Job", "report-29387460", None, "report", "k8s.cronjob.name"),
            ("Job", "report-7", None, "report-7", "k8s.job.name"),
        ] {
            let all = pod(kind, owner, hash);
            assert_eq!(value(&all, "service.name").as_deref(), Some(name));
            assert_eq!(value(&all, attribute).as_deref(), Some(name));
        }
        // The conventions have no attribute for what is called so.
        let released = pod("ReplicaSet", "web-7d9c", hash(ROLLOUTS));
        assert_eq!(value(&released, "service.name").as_deref(), Some("web"));
        let set = value(&released, "k8s.replicaset.name");
        assert_eq!(set.as_deref(), Some("web-7d9c"));
        let alone = pod("", "", None);
        assert_eq!(value(&alone, "service.name").unwrap(), "web-7d9c-x");
        for (name, expected) in [
            ("service.namespace", "shop"),
            ("k8s.namespace.name", "shop"),
            ("k8s.pod.name", "web-7d9c-x"),
            ("k8s.pod.uid", "u1"),
            ("k8s.node.name", "n1"),
        ] {
            assert_eq!(value(&alone, name).as_deref(), Some(expected));
        }
    }

    #[test]
    fn owner_of_foreign_group_names_no_service() {
        for (api_version, kind, owner, attribute) in [
            ("batch/v1", "Job", "report-29387460", "k8s.job.name"),
            ("apps/v1", "ReplicaSet", "web-7d9c", "k8s.replicaset.name"),
            ("apps/v1", "StatefulSet", "db", "k8s.statefulset.name"),
        ] {
            let hash = Some((HASH, "7d9c"));
            let own = pod_of(("own.example/v1", kind), owner, hash);
            let service = value(&own, "service.name");
            assert_eq!(service.as_deref(), Some("web-7d9c-x"), "{kind}");
            for attribute in [attribute, "k8s.cronjob.name", "k8s.deployment.name"] {
                assert_eq!(value(&own, attribute), None, "{kind}");
            }
            // Control: the known ones.
            let known = pod_of((api_version, kind), owner, hash);
            assert_eq!(value(&known, attribute).as_deref(), Some(owner));
        }
    }

    #[test]
    fn what_the_pods_author_calls_it_comes_first() {
        let key = ObjectKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let long = "x".repeat(10_000);
        for (named, expected) in [("checkout", "checkout"), ("", "web"), (&long, "web")] {
            let facts = PodFacts {
                annotations: Annotations {
                    service_name: Some(named.into()),
                    ..Annotations::default()
                },
                ..PodFacts::default()
            };
            let all = of_pod(&key, &facts);
            assert_eq!(value(&all, "service.name").as_deref(), Some(expected));
            assert_eq!(value(&all, "k8s.node.name"), None, "not placed yet");
        }
    }

    #[test]
    fn pod_declared_service_namespace_overrides_its_namespace() {
        let key = ObjectKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let long = "x".repeat(LONGEST);
        let longer = "x".repeat(LONGEST + 1);
        for (written, expected) in [
            (Some("retail"), "retail"),
            (Some(&*long), &*long),
            (Some(&*longer), "shop"),
            (Some(""), "shop"),
            (None, "shop"),
        ] {
            let facts = PodFacts {
                annotations: Annotations {
                    service_namespace: written.map(Into::into),
                    ..Annotations::default()
                },
                ..PodFacts::default()
            };
            let all = of_pod(&key, &facts);
            let within = value(&all, "service.namespace");
            assert_eq!(within.as_deref(), Some(expected));
            // Where the pod is stays what Kubernetes says.
            let own = value(&all, "k8s.namespace.name");
            assert_eq!(own.as_deref(), Some("shop"));
            assert_eq!(value(&all, "service.name").as_deref(), Some("web"));
        }
    }
}
