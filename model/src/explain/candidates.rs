//! The rules that a change would give to proxies, for a live dry run of it.
//!
//! Claims: observe-122, observe-123

use std::sync::Arc;
use std::time::Instant;

use policy::access::Access;

use super::evaluate::PodAccess;
use crate::model::{Model, PodId};

/// Sets of rules that are tried at one time: each is a query of its own.
pub const MAX_SETS: usize = 8;
/// Pods of all of them.
pub const MAX_PODS: usize = 512;

/// What pods of one namespace would hold for their inbound side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRunCandidate {
    pub namespace: Arc<str>,
    pub access: Access,
    pub pods: Vec<PodId>,
}

/// What is to be tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    pub sets: Vec<DryRunCandidate>,
    /// Pods that would hold something else than they do, also those that found no place above.
    pub pods: usize,
    /// Of these, pods of namespaces where none may be queried.
    pub foreign: usize,
    /// Some found no place.
    pub truncated: bool,
    /// There was no time to look at all.
    pub late: bool,
}

impl Candidates {
    /// What the proxies of `before` would hold by `after`, where that differs; `may_query`: whether
    /// those of a namespace may be queried.
    #[must_use]
    pub fn of(
        (before, after): (&Model, &Model),
        may_query: impl Fn(&str) -> bool,
        until: Instant,
    ) -> Self {
        let mut found = Self::default();
        for pod in before.meshed_pods() {
            if Instant::now() >= until {
                found.late = true;
                break;
            }
            let access_of = |model: &Model| {
                let facts = model.index.world.pods.get(pod)?;
                Some(PodAccess::of(&model.index, pod, facts))
            };
            if let (Some(was), Some(will)) = (access_of(before), access_of(after))
                && was.access() != will.access()
            {
                found.pods += 1;
                if may_query(&pod.namespace) {
                    found.add(pod, will.access());
                } else {
                    found.foreign += 1;
                }
            }
        }
        found
    }

    fn add(&mut self, pod: &PodId, access: &Access) {
        let placed: usize = self.sets.iter().map(|set| set.pods.len()).sum();
        if placed >= MAX_PODS {
            self.truncated = true;
            return;
        }
        let mut sets = self.sets.iter_mut();
        let known = sets.find(|set| set.namespace == pod.namespace && set.access == *access);
        if let Some(set) = known {
            set.pods.push(pod.clone());
        } else if self.sets.len() < MAX_SETS {
            self.sets.push(DryRunCandidate {
                namespace: Arc::clone(&pod.namespace),
                access: access.clone(),
                pods: vec![pod.clone()],
            });
        } else {
            self.truncated = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::mode::Enforcement;
    use serde_json::json;

    use super::*;
    use crate::fixtures::{Cluster, pod, shop, target, tcp_route};

    fn of(before: &Cluster, after: &Cluster, within: Duration) -> Candidates {
        let (before, after) = (before.compile().0, after.compile().0);
        Candidates::of((&before, &after), |_| true, Instant::now() + within)
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// `from` may call `to`.
    fn closed(cluster: Cluster, to: &str, from: &str) -> Cluster {
        let by_port = json!([{"kind": "TCPRoute", "name": "port"}]);
        cluster.with(tcp_route("port", &[8080])).with(target(
            &format!("to-{to}"),
            to,
            &[from],
            by_port,
        ))
    }

    #[test]
    fn candidates_are_only_changed_pods_grouped_by_equal_rules() {
        assert_eq!(of(&shop(), &shop(), MINUTE), Candidates::default());
        let found = of(&shop(), &closed(shop(), "api", "web"), MINUTE);
        let [set] = &*found.sets else {
            panic!("{found:?}")
        };
        assert_eq!(
            set.pods,
            ["api-1", "api-2"].map(|name| PodId::new("shop", name))
        );
        assert_eq!((&*set.namespace, found.pods), ("shop", 2));
        assert!(!found.truncated);
        assert_eq!(set.access.enforcement, Enforcement::Enforce);
        assert_eq!(set.access.rules.len(), 1);
        // And back: it is the rules that would hold then.
        let found = of(&closed(shop(), "api", "web"), &shop(), MINUTE);
        assert_eq!(found.sets[0].access.enforcement, Enforcement::Open);
        assert!(found.sets[0].access.rules.is_empty());
    }

    #[test]
    fn candidate_sets_and_pods_are_bounded_and_truncation_reported() {
        let mut before = shop();
        let mut after = shop();
        for number in 0..12 {
            let account = format!("account-{number}");
            let ip = format!("10.0.1.{number}");
            let one = pod(&format!("pod-{number}"), &ip, &account);
            before = before.with(one.clone());
            after = closed(after.with(one), &account, "web");
        }
        let found = of(&before, &after, MINUTE);
        assert_eq!((found.sets.len(), found.pods), (MAX_SETS, 12));
        assert!(found.truncated, "four sets found no place");
        let (mut before, mut after) = (shop(), closed(shop(), "many", "web"));
        for number in 0..600 {
            let ip = format!("10.1.{}.{}", number / 250, number % 250);
            let one = pod(&format!("many-{number}"), &ip, "many");
            before = before.with(one.clone());
            after = after.with(one);
        }
        let found = of(&before, &after, MINUTE);
        assert_eq!((found.sets.len(), found.pods), (1, 600));
        assert_eq!(found.sets[0].pods.len(), MAX_PODS);
        assert!(found.truncated && !found.late);
    }

    #[test]
    fn what_there_was_no_time_for_is_said() {
        let found = of(&shop(), &closed(shop(), "api", "web"), Duration::ZERO);
        assert!(found.late && found.sets.is_empty());
    }
}
