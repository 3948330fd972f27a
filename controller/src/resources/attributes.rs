//! What spans say of the pod that they come from, by the semantic conventions of
//! OpenTelemetry for Kubernetes.

use wire::v1;

use crate::model::peers::{TEMPLATE_HASH, deployment};
use crate::world::{ObjectKey, Owner, PodFacts};

/// Bytes that a name of a service may have: nobody needs more, and each proxy holds it.
const LONGEST: usize = 256;
/// A CronJob ends the names of its Jobs with the minute, since 1970, for which each is.
const MINUTE_DIGITS: usize = 8;

/// What spans of this pod say of it.
pub(super) fn of_pod(key: &ObjectKey, facts: &PodFacts) -> Vec<v1::Attribute> {
    let owners = owners(facts);
    let named = facts.appearance.service_name.as_deref();
    let named = named.filter(|name| (1..=LONGEST).contains(&name.len()));
    let owner = owners.first().map(|(_, name)| name.as_str());
    let mut all = vec![
        ("service.name", named.or(owner).unwrap_or(&key.name)),
        ("service.namespace", &*key.namespace),
        ("k8s.namespace.name", &*key.namespace),
        ("k8s.pod.name", &*key.name),
        ("k8s.pod.uid", &*facts.uid),
        ("k8s.node.name", &*facts.node),
    ];
    all.extend(owners.iter().map(|(kind, name)| (*kind, name.as_str())));
    let all = all.into_iter().filter(|(_, value)| !value.is_empty());
    all.map(|(name, value)| v1::Attribute {
        name: name.to_owned(),
        value: value.to_owned(),
    })
    .collect()
}

/// The owners of a pod, the topmost first. That of its ReplicaSet, and of its Job, show in
/// their names.
fn owners(facts: &PodFacts) -> Vec<(&'static str, String)> {
    let Some(Owner { kind, name, .. }) = &facts.owner else {
        return Vec::new();
    };
    let own = |attribute| (attribute, name.to_string());
    match &**kind {
        "ReplicaSet" => {
            let deployment = deployment(name, facts.labels.get(TEMPLATE_HASH));
            let deployment = deployment.map(|name| ("k8s.deployment.name", name));
            deployment
                .into_iter()
                .chain([own("k8s.replicaset.name")])
                .collect()
        }
        "Job" => {
            let cron_job = cron_job(name).map(|name| ("k8s.cronjob.name", name));
            cron_job.into_iter().chain([own("k8s.job.name")]).collect()
        }
        "StatefulSet" => vec![own("k8s.statefulset.name")],
        "DaemonSet" => vec![own("k8s.daemonset.name")],
        _ => Vec::new(),
    }
}

fn cron_job(job: &str) -> Option<String> {
    let (name, minute) = job.rsplit_once('-')?;
    let digits = minute.bytes().all(|byte| byte.is_ascii_digit());
    (digits && minute.len() >= MINUTE_DIGITS && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Appearance;

    fn pod(kind: &str, owner: &str, hash: Option<&str>) -> Vec<v1::Attribute> {
        let key = ObjectKey {
            namespace: "shop".into(),
            name: "web-7d9c-x".into(),
        };
        let labels = hash.map(|hash| (TEMPLATE_HASH.into(), hash.into()));
        let facts = PodFacts {
            uid: "u1".into(),
            node: "n1".into(),
            owner: (!kind.is_empty()).then(|| Owner {
                api_version: "apps/v1".into(),
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
    fn a_service_is_named_by_the_topmost_owner_that_shows() {
        for (kind, owner, hash, name, attribute) in [
            (
                "ReplicaSet",
                "web-7d9c",
                Some("7d9c"),
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
            ("Job", "report-29387460", None, "report", "k8s.cronjob.name"),
            ("Job", "report-7", None, "report-7", "k8s.job.name"),
        ] {
            let all = pod(kind, owner, hash);
            assert_eq!(value(&all, "service.name").as_deref(), Some(name));
            assert_eq!(value(&all, attribute).as_deref(), Some(name));
        }
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
    fn what_the_pods_author_calls_it_comes_first() {
        let key = ObjectKey {
            namespace: "shop".into(),
            name: "web".into(),
        };
        let long = "x".repeat(10_000);
        for (named, expected) in [("checkout", "checkout"), ("", "web"), (&long, "web")] {
            let facts = PodFacts {
                appearance: Appearance {
                    service_name: Some(named.into()),
                    ..Appearance::default()
                },
                ..PodFacts::default()
            };
            let all = of_pod(&key, &facts);
            assert_eq!(value(&all, "service.name").as_deref(), Some(expected));
            assert_eq!(value(&all, "k8s.node.name"), None, "not placed yet");
        }
    }
}
