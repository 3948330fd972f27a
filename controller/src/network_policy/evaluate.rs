//! An evaluator of NetworkPolicies for tests: what a set of them allows by their specification.
//!
//! It reads the JSON that the API server would get and shares no code with what writes the
//! policies. Where the specification leaves something to the network plugin (ICMP, nodes, address
//! translation) it decides nothing.

use std::collections::BTreeMap;

use serde_json::Value;

/// Labels by name.
pub(super) type Tags = BTreeMap<String, String>;

/// A pod as a network plugin knows it.
#[derive(Clone, Debug)]
pub(super) struct PluginPod {
    pub(super) namespace: String,
    pub(super) labels: Tags,
}

/// All policies of a cluster, and the labels of its namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// Namespace and `spec`.
    pub(super) policies: Vec<(String, Value)>,
    pub(super) namespaces: BTreeMap<String, Tags>,
}

impl Network {
    /// Whether a first packet from `from` (`None`: an address outside the cluster)
    /// reaches `to`. Replies need no permission.
    pub(super) fn allows(
        &self,
        from: Option<&PluginPod>,
        to: &PluginPod,
        protocol: &str,
        port: u16,
    ) -> bool {
        let isolating: Vec<_> = self.isolating(to).collect();
        isolating.is_empty()
            || isolating.iter().any(|(namespace, spec)| {
                list(&spec["ingress"]).iter().any(|rule| {
                    self.comes_from(&rule["from"], namespace, from)
                        && allows_port(&rule["ports"], protocol, port)
                })
            })
    }

    /// Policies about ingress that select the pod.
    pub(super) fn isolating(&self, to: &PluginPod) -> impl Iterator<Item = &(String, Value)> {
        self.policies.iter().filter(|(namespace, spec)| {
            let types = list(&spec["policyTypes"]);
            let ingress = types.is_empty() || types.iter().any(|kind| kind == "Ingress");
            *namespace == to.namespace && ingress && selects(&spec["podSelector"], &to.labels)
        })
    }

    fn comes_from(&self, peers: &Value, namespace: &str, from: Option<&PluginPod>) -> bool {
        let peers = list(peers);
        peers.is_empty()
            || peers.iter().any(|peer| {
                assert!(
                    peer["ipBlock"].is_null(),
                    "none is written and none generated"
                );
                let Some(from) = from else { return false };
                let in_namespace = match &peer["namespaceSelector"] {
                    Value::Null => from.namespace == namespace,
                    selector => self
                        .namespaces
                        .get(&from.namespace)
                        .is_some_and(|labels| selects(selector, labels)),
                };
                in_namespace && selects(&peer["podSelector"], &from.labels)
            })
    }
}

fn allows_port(ports: &Value, protocol: &str, port: u16) -> bool {
    let ports = list(ports);
    ports.is_empty()
        || ports.iter().any(|one| {
            let same = one["protocol"].as_str().unwrap_or("TCP") == protocol;
            let first = &one["port"];
            let fits = match first.as_u64() {
                Some(first) => {
                    let last = one["endPort"].as_u64().unwrap_or(first);
                    (first..=last).contains(&u64::from(port))
                }
                None => {
                    assert!(first.is_null(), "no named ports are written");
                    true
                }
            };
            same && fits
        })
}

/// An absent selector selects everything, like an empty one: that is so for pods of a
/// policy and, beside a namespaceSelector, for pods of a peer.
fn selects(selector: &Value, labels: &Tags) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let mut equal =
        equal.map(|(name, value)| labels.get(name).map(String::as_str) == value.as_str());
    let mut set = list(&selector["matchExpressions"]).iter().map(|one| {
        let actual = one["key"].as_str().and_then(|key| labels.get(key));
        let listed = actual.is_some_and(|actual| list(&one["values"]).iter().any(|v| v == actual));
        match one["operator"].as_str() {
            Some("In") => listed,
            Some("NotIn") => !listed,
            Some("Exists") => actual.is_some(),
            Some("DoesNotExist") => actual.is_none(),
            other => panic!("no operator: {other:?}"),
        }
    });
    equal.all(|fits| fits) && set.all(|fits| fits)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

mod by_the_book {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, app: &str) -> PluginPod {
        PluginPod {
            namespace: namespace.into(),
            labels: Tags::from([("app".into(), app.into())]),
        }
    }

    fn network(specs: &[Value]) -> Network {
        Network {
            policies: specs
                .iter()
                .map(|spec| ("a".into(), spec.clone()))
                .collect(),
            namespaces: BTreeMap::from([
                ("a".into(), Tags::new()),
                ("b".into(), Tags::from([("team".into(), "b".into())])),
            ]),
        }
    }

    #[test]
    fn a_pod_that_no_policy_selects_takes_everything() {
        let other = json!({"podSelector": {"matchLabels": {"app": "db"}}});
        let egress = json!({"podSelector": {}, "policyTypes": ["Egress"]});
        let network = network(&[other, egress]);
        assert!(network.allows(None, &pod("a", "web"), "UDP", 53));
        assert!(!network.allows(None, &pod("a", "db"), "UDP", 53));
        assert!(
            network.allows(None, &pod("b", "db"), "UDP", 53),
            "another namespace"
        );
    }

    #[test]
    fn policies_add_up_and_an_empty_list_means_all() {
        let nothing = json!({"podSelector": {}});
        let dns =
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "UDP", "port": 53}]}]});
        let all = json!({"podSelector": {}, "ingress": [{"from": [], "ports": []}]});
        let to = pod("a", "web");
        assert!(!network(std::slice::from_ref(&nothing)).allows(None, &to, "UDP", 53));
        let two = network(&[nothing.clone(), dns]);
        assert!(two.allows(None, &to, "UDP", 53));
        assert!(!two.allows(None, &to, "UDP", 54) && !two.allows(None, &to, "TCP", 53));
        assert!(network(&[nothing, all]).allows(None, &to, "SCTP", 1));
    }

    #[test]
    fn network_policy_peer_matches_own_or_selected_namespaces() {
        let from =
            |peer: Value| network(&[json!({"podSelector": {}, "ingress": [{"from": [peer]}]})]);
        let web = json!({"matchLabels": {"app": "web"}});
        let to = pod("a", "x");
        let here = from(json!({"podSelector": web}));
        assert!(here.allows(Some(&pod("a", "web")), &to, "TCP", 1));
        assert!(!here.allows(Some(&pod("b", "web")), &to, "TCP", 1));
        assert!(!here.allows(None, &to, "TCP", 1));
        let there =
            from(json!({"podSelector": web, "namespaceSelector": {"matchLabels": {"team": "b"}}}));
        assert!(there.allows(Some(&pod("b", "web")), &to, "TCP", 1));
        assert!(!there.allows(Some(&pod("b", "api")), &to, "TCP", 1));
        assert!(!there.allows(Some(&pod("a", "web")), &to, "TCP", 1));
        let any = from(json!({"podSelector": web, "namespaceSelector": {}}));
        assert!(any.allows(Some(&pod("a", "web")), &to, "TCP", 1));
    }
}
