//! Compares the remembered calls by the current Model and by the changed one.
//!
//! Claims: observe-109

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crds::observe::{BackendShare, Change, ChangedEdge, DryRunStatus, NodeKind, Protocol, Scope};
use policy::access::passes::Effect;

use crate::explain::comparison::{CallerSet, Calls, Meaning, ModelComparison, Share};
use crate::graph::answer::timestamp;
use crate::graph::key::{EdgeKey, NodeKey};
use crate::model::compiled::Compiled;
use crate::model::{Model, PodId};
use crate::observe_api::context::ObserveContext;

/// Max edges of one response, the worst first.
const MAX_CHANGED: usize = 2_000;

/// What is compared.
#[derive(Debug)]
pub(super) struct Edges {
    /// With when each was last seen, in seconds since 1970.
    edges: Vec<(EdgeKey, u64)>,
    /// Pods that run, by their topmost owner.
    pods: BTreeMap<NodeKey, Vec<PodId>>,
}

impl Edges {
    /// All that are remembered.
    pub(super) fn of(context: &ObserveContext, compiled: &Compiled) -> Self {
        let edges = context.graph.with_memory(|memory, _| {
            let all = memory.iter();
            all.map(|(edge, seen)| (edge.key().clone(), seen.last))
                .collect()
        });
        let inventory = context.followed.inventory.read();
        let mut pods: BTreeMap<NodeKey, Vec<PodId>> = BTreeMap::new();
        for (pod, facts) in compiled.world.pods.iter().filter(|(_, facts)| !facts.ended) {
            let node = NodeKey::of_workload(inventory.topmost(pod, &facts.uid));
            pods.entry(node).or_default().push(pod.clone());
        }
        Self { edges, pods }
    }

    /// What becomes of them, as far as `scope` may be shown and there is time.
    pub(super) fn compared(
        &self,
        (before, after): (&Model, &Model),
        scope: &Scope,
        until: Instant,
    ) -> DryRunStatus {
        let known: BTreeSet<&str> = scope.namespaces.iter().map(String::as_str).collect();
        let mut comparison = ModelComparison::new(before, after, until);
        let mut status = DryRunStatus {
            hidden_depends: Some(0),
            ..DryRunStatus::default()
        };
        // Before the edges: where there is no time for all nodes, no edge is compared either.
        for node in self.opened(&comparison) {
            if scope.cluster || known.contains(node.namespace()) {
                status.opened.push(node.to_string());
            } else {
                status.hidden_opened += 1;
            }
        }
        for (edge, last) in &self.edges {
            if comparison.is_late() {
                status.uncompared += 1;
                continue;
            }
            let may_read = |end: &NodeKey| scope.cluster || known.contains(end.namespace());
            let is_shown = may_read(&edge.from) || may_read(&edge.to);
            if lacks_port(before, edge) {
                status.kept += u64::from(is_shown);
                continue;
            }
            let calls = self.calls(before, edge);
            let Some(meaning) = calls.and_then(|calls| comparison.of(&calls)) else {
                if comparison.is_late() {
                    status.uncompared += 1;
                    continue;
                }
                status.unknown += u64::from(is_shown);
                // Of what is outside the cluster there is never anything to show.
                if is_shown && edge.to.kind != NodeKind::External {
                    status
                        .changed
                        .push(shown(edge, *last, Change::Unknown, None));
                }
                continue;
            };
            let Some(change) = change(&meaning) else {
                status.kept += u64::from(is_shown);
                continue;
            };
            if is_shown {
                let pod_ports = self.pod_ports(before, edge, may_read(&edge.to));
                status.changed.push(ChangedEdge {
                    pod_ports,
                    ..shown(edge, *last, change, Some(meaning))
                });
            } else {
                status.hidden += 1;
                status.hidden_refused += u64::from(change == Change::Refused);
                let depends = status.hidden_depends.get_or_insert_default();
                *depends += u64::from(change == Change::Depends);
            }
        }
        let order = |one: &ChangedEdge| (one.change, one.from.clone(), one.to.clone(), one.port);
        status.changed.sort_by_cached_key(order);
        status.truncated = status.changed.len().max(status.opened.len()) > MAX_CHANGED;
        status.changed.truncate(MAX_CHANGED);
        status.opened.truncate(MAX_CHANGED);
        status
    }

    /// What the change opens to every caller, as far as there is time. Remembered calls do not show
    /// that: those that were refused are of callers that tried.
    fn opened<'a>(
        &'a self,
        comparison: &'a ModelComparison<'_>,
    ) -> impl Iterator<Item = &'a NodeKey> {
        let nodes = self.pods.iter();
        let opened = nodes.filter(move |(_, pods)| {
            !comparison.is_late() && pods.iter().any(|pod| comparison.opens(pod))
        });
        opened.map(|(node, _)| node)
    }

    /// The calls of an edge; `None` where an end has no pods, or lies outside the cluster.
    fn calls(&self, model: &Model, edge: &EdgeKey) -> Option<Calls> {
        let from = match edge.from.kind {
            NodeKind::Outside => CallerSet::Outside,
            NodeKind::ServiceAccount => CallerSet::Account(edge.from.object.clone()),
            _ => self.callers(model, edge)?,
        };
        let to = self.pods.get(&edge.to).cloned().unwrap_or_default();
        if to.is_empty() && edge.service.is_none() {
            return None;
        }
        Some(Calls {
            from,
            service: edge.service.clone(),
            port: edge.port,
            to,
            http: match edge.protocol {
                Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => true,
                Protocol::Tcp | Protocol::Tls => false,
                Protocol::Unknown => true,
            },
        })
    }

    /// The callers: those of the node's pods that run as the account that made the calls, or that
    /// account where none of its pods runs now. `None` where all run as another one: no pod makes
    /// these calls any more.
    fn callers(&self, model: &Model, edge: &EdgeKey) -> Option<CallerSet> {
        let pods = self.pods.get(&edge.from);
        let Some(account) = &edge.account else {
            return Some(CallerSet::Pods(pods?.clone()));
        };
        let runs_as = |pod: &&PodId| {
            let facts = model.index.world.pods.get(*pod);
            pod.namespace == account.namespace
                && facts.is_some_and(|facts| facts.service_account == account.name)
        };
        let all = pods.map_or(&[][..], Vec::as_slice);
        let own: Vec<PodId> = all.iter().filter(runs_as).cloned().collect();
        match (own.is_empty(), all.is_empty()) {
            (false, _) => Some(CallerSet::Pods(own)),
            (true, true) => Some(CallerSet::Account(account.clone())),
            (true, false) => None,
        }
    }

    /// The called pods' own ports, by which their proxies report live calls. Which of them a
    /// Service leads to belongs to their namespace: none where the graph of that may not be read.
    fn pod_ports(&self, model: &Model, edge: &EdgeKey, may_read: bool) -> Vec<u16> {
        let Some(service) = edge.backend.as_ref().or(edge.service.as_ref()) else {
            return vec![edge.port];
        };
        if !may_read {
            return Vec::new();
        }
        let called = self.pods.get(&edge.to).into_iter().flatten();
        let entries = called.filter_map(|pod| model.index.pods.get(pod));
        let led_to_by = entries.flat_map(|entry| entry.led_to_by());
        let ports: BTreeSet<u16> = led_to_by
            .filter(|(of, port, _)| of == service && *port == edge.port)
            .map(|(_, _, own)| *own)
            .collect();
        ports.into_iter().collect()
    }
}

/// Whether a Service was called at a port that it does not have: whatever is changed, no pod serves
/// that.
fn lacks_port(model: &Model, edge: &EdgeKey) -> bool {
    let service = edge.service.as_ref();
    let service = service.and_then(|service| model.index.services.get(service));
    edge.port != 0 && service.is_some_and(|service| !service.ports.contains_key(&edge.port))
}

/// The kind of change that is reported; `None`: nothing changes.
fn change(meaning: &Meaning) -> Option<Change> {
    Some(match (meaning.effect, &meaning.rerouted) {
        (Effect::Refused, _) => Change::Refused,
        (Effect::Depends, _) => Change::Depends,
        (Effect::Kept | Effect::Allowed, Some(_)) => Change::Rerouted,
        (Effect::Allowed, None) => Change::Allowed,
        (Effect::Kept, None) => return None,
    })
}

fn shown(edge: &EdgeKey, last: u64, change: Change, meaning: Option<Meaning>) -> ChangedEdge {
    let (reason, rerouted) =
        meaning.map_or((None, None), |outcome| (outcome.reason, outcome.rerouted));
    let shares = |shares: Vec<Share>| {
        let shares = shares.into_iter().map(|one| BackendShare {
            service: one.service.to_string(),
            share: one.share,
        });
        shares.collect()
    };
    let [before, after] = rerouted.unwrap_or_default().map(shares);
    ChangedEdge {
        change,
        from: edge.from.to_string(),
        to: edge.to.to_string(),
        service: edge
            .service
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        port: edge.port,
        pod_ports: Vec::new(),
        protocol: edge.protocol,
        reason: reason.map(|reason| reason.to_string()).unwrap_or_default(),
        before,
        after,
        last_seen: timestamp(last),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::testing::cluster::{group, shop, target};
    use crate::world::ObjectKey;

    /// What a Job that ran at night called.
    fn edge(to: &str, service: Option<ObjectKey>) -> (EdgeKey, u64) {
        let node = |id: &str| NodeKey::parse(id).unwrap();
        let key = EdgeKey {
            from: node("shop/Job/nightly"),
            to: node(to),
            service,
            port: 80,
            backend: None,
            split: None,
            protocol: Protocol::Http1,
            account: None,
        };
        (key, 1)
    }

    #[test]
    fn absent_caller_is_listed_and_unevaluated_edges_are_counted() {
        let (model, _) = shop().compile();
        let outside = format!("{}/example.com", NodeKind::External.as_str());
        let edges = Edges {
            edges: vec![
                edge("shop/Deployment/api", Some(ObjectKey::new("shop", "api"))),
                edge(&outside, None),
            ],
            pods: BTreeMap::new(),
        };
        let all = Scope {
            cluster: true,
            ..Scope::default()
        };
        let compared = |scope: &Scope, within: u64| {
            let until = Instant::now() + Duration::from_secs(within);
            edges.compared((&model, &model), scope, until)
        };
        let outcome = compared(&all, 60);
        assert_eq!((outcome.unknown, outcome.uncompared), (2, 0));
        let [listed] = &*outcome.changed else {
            panic!("{:?}", outcome.changed)
        };
        assert_eq!(listed.change, Change::Unknown);
        assert_eq!(listed.from, "shop/Job/nightly");
        let outcome = compared(&Scope::default(), 60);
        assert_eq!((outcome.unknown, outcome.changed), (0, Vec::new()));
        let outcome = compared(&all, 0);
        assert_eq!((outcome.unknown, outcome.uncompared), (0, 2));
    }

    /// The shop, and the same where accounts of `web` may read items.
    fn opened_for_reads() -> (Model, Model) {
        let reads = json!([{"name": "read", "pathRegex": "/items", "methods": ["GET"]}]);
        let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
        let after =
            shop()
                .with(group("routes", reads))
                .with(target("read", "api", &["web"], rules));
        (shop().compile().0, after.compile().0)
    }

    fn pods(names: &[&str]) -> Vec<PodId> {
        let names = names.iter();
        names.map(|name| PodId::new("shop", name)).collect()
    }

    // Claims: observe-110
    #[test]
    fn workload_opened_by_deletion_is_listed_without_calls() {
        let (closed, _) = {
            let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
            let read = target("read", "api", &["web"], rules);
            shop().with(read).compile()
        };
        let (open, _) = shop().compile();
        let node = |id: &str| NodeKey::parse(id).unwrap();
        let edges = Edges {
            edges: Vec::new(),
            pods: BTreeMap::from([
                (node("shop/Pod/client"), pods(&["client"])),
                (node("shop/Deployment/api"), pods(&["api-1", "api-2"])),
            ]),
        };
        let opened = |models: (&Model, &Model), namespaces: &[&str]| {
            let scope = Scope {
                namespaces: namespaces.iter().map(ToString::to_string).collect(),
                ..Scope::default()
            };
            let until = Instant::now() + Duration::from_secs(60);
            let outcome = edges.compared(models, &scope, until);
            (outcome.opened, outcome.hidden_opened)
        };
        let api = vec!["shop/Deployment/api".to_owned()];
        assert_eq!(opened((&closed, &open), &["shop"]), (api, 0));
        assert_eq!(opened((&closed, &open), &["bank"]), (Vec::new(), 1));
        // Control: what is open stays open, and what is closed stays closed.
        for same in [&closed, &open] {
            assert_eq!(opened((same, same), &["shop"]), (Vec::new(), 0));
        }
        assert_eq!(opened((&open, &closed), &["shop"]), (Vec::new(), 0));
    }

    #[test]
    fn mixed_edge_shows_pod_ports_and_counts_where_hidden() {
        let (before, after) = opened_for_reads();
        let node = |id: &str| NodeKey::parse(id).unwrap();
        let (mut called, last) = edge("shop/Deployment/api", Some(ObjectKey::new("shop", "api")));
        called.from = node("shop/Pod/client");
        let own = EdgeKey {
            service: None,
            port: 8080,
            ..called.clone()
        };
        let edges = Edges {
            edges: vec![(called, last), (own, last)],
            pods: BTreeMap::from([
                (node("shop/Pod/client"), pods(&["client"])),
                (node("shop/Deployment/api"), pods(&["api-1", "api-2"])),
            ]),
        };
        let compared = |scope: &Scope| {
            let until = Instant::now() + Duration::from_secs(60);
            edges.compared((&before, &after), scope, until)
        };
        let outcome = compared(&Scope {
            cluster: true,
            ..Scope::default()
        });
        assert_eq!(
            (outcome.changed.len(), outcome.hidden_depends),
            (2, Some(0))
        );
        for edge in &outcome.changed {
            assert_eq!(edge.change, Change::Depends, "{edge:?}");
            assert_eq!(edge.pod_ports, [8080], "{edge:?}");
        }
        let outcome = compared(&Scope::default());
        let counts = (
            outcome.hidden,
            outcome.hidden_refused,
            outcome.hidden_depends,
        );
        assert_eq!(counts, (2, 0, Some(2)));
        assert!(outcome.changed.is_empty(), "{:?}", outcome.changed);
    }

    #[test]
    fn ports_behind_service_need_permission_on_called_namespace() {
        let (before, after) = opened_for_reads();
        let node = |id: &str| NodeKey::parse(id).unwrap();
        let (mut called, last) = edge("shop/Deployment/api", Some(ObjectKey::new("shop", "api")));
        called.from = node("bank/Pod/client");
        let own = EdgeKey {
            service: None,
            port: 8080,
            ..called.clone()
        };
        let edges = Edges {
            edges: vec![(called, last), (own, last)],
            pods: BTreeMap::from([
                (node("bank/Pod/client"), pods(&["client"])),
                (node("shop/Deployment/api"), pods(&["api-1", "api-2"])),
            ]),
        };
        let results = |namespaces: &[&str]| {
            let scope = Scope {
                namespaces: namespaces.iter().map(ToString::to_string).collect(),
                ..Scope::default()
            };
            let until = Instant::now() + Duration::from_secs(60);
            let outcome = edges.compared((&before, &after), &scope, until);
            let changed = outcome.changed.into_iter();
            let ports: Vec<(u16, Vec<u16>)> =
                changed.map(|edge| (edge.port, edge.pod_ports)).collect();
            ports
        };
        // What was called by address is in `port` anyway.
        let bare: [(u16, Vec<u16>); 2] = [(80, Vec::new()), (8080, vec![8080])];
        assert_eq!(results(&["bank"]), bare);
        // Control: a user with the right to read both, or the called one alone.
        for namespaces in [&["bank", "shop"][..], &["shop"][..]] {
            let all: [(u16, Vec<u16>); 2] = [(80, vec![8080]), (8080, vec![8080])];
            assert_eq!(results(namespaces), all, "{namespaces:?}");
        }
    }

    #[test]
    fn calls_are_evaluated_by_calling_account_despite_current_pods() {
        let (before, after) = opened_for_reads();
        let called = |from: &str, account: &str| {
            let (mut called, last) =
                edge("shop/Deployment/api", Some(ObjectKey::new("shop", "api")));
            called.from = NodeKey::parse(from).unwrap();
            called.account = Some(ObjectKey::new("shop", account));
            (called, last)
        };
        let client = "shop/Pod/client";
        let pods = BTreeMap::from([
            (NodeKey::parse(client).unwrap(), pods(&["client"])),
            (
                NodeKey::parse("shop/Deployment/api").unwrap(),
                pods(&["api-1", "api-2"]),
            ),
        ]);
        for (from, account, expected) in [
            // As its pod still does.
            (client, "web", Change::Depends),
            // No pod calls by that any more.
            (client, "before", Change::Unknown),
            // No pod of it runs now, and its account is known all the same.
            ("shop/Job/nightly", "web", Change::Depends),
        ] {
            let edges = Edges {
                edges: vec![called(from, account)],
                pods: pods.clone(),
            };
            let all = Scope {
                cluster: true,
                ..Scope::default()
            };
            let until = Instant::now() + Duration::from_secs(60);
            let outcome = edges.compared((&before, &after), &all, until);
            let changes: Vec<Change> = outcome.changed.iter().map(|edge| edge.change).collect();
            assert_eq!(changes, [expected], "{from} {account}");
        }
    }
}
