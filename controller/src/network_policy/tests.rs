//! UDPRoutes become NetworkPolicies, by what a network plugin makes of these.
//!
//! Claims: smi-6

use crds::labels::{ACCOUNT, account_hash};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::{Defaults, world::ObjectKey};
use policy::mode::AccessMode;
use serde_json::{Value, json};

use super::{
    evaluate::{Network, PluginPod, Tags},
    live::{Live, Lives},
    plan::{LackReason, Plan, plan},
};
use crate::testing::cluster::{self, Cluster};

mod limits;

/// A meshed pod that carries its account's label.
pub(super) fn pod(name: &str, account: &str) -> Value {
    let ip = format!("10.0.1.{}", name.len());
    let label = account_hash("shop", account);
    let labels = json!({"app": name, ACCOUNT: label});
    cluster::set(cluster::pod(name, &ip, account), "/metadata/labels", labels)
}

pub(super) fn udp_route(name: &str, spec: &Value) -> Value {
    cluster::set(cluster::udp_route(name, &[]), "/spec", spec.clone())
}

fn ports(ports: &[i64]) -> Value {
    json!({"matches": {"ports": ports}})
}

fn udp(name: &str) -> Value {
    json!({"kind": "UDPRoute", "name": name})
}

pub(super) fn foreign(name: &str, namespace: &str, spec: Value) -> (ObjectKey, Live) {
    let mut object = json!({"metadata": {"name": name, "namespace": namespace, "uid": name}});
    object["spec"] = spec;
    let policy: NetworkPolicy = serde_json::from_value(object).unwrap();
    (ObjectKey::new(namespace, name), policy.into())
}

/// A cluster, the policies of others in it, and what Weft makes of both.
struct Case {
    cluster: Cluster,
    defaults: Defaults,
    foreign: Lives,
}

impl Case {
    /// Pods server, client and other of accounts of these names, in mode deny.
    fn deny() -> Self {
        Self::with_mode("deny")
    }

    fn with_mode(mode: &str) -> Self {
        let shop = cluster::annotate(cluster::namespace("shop"), "weft.dev/access", mode);
        let cluster = Cluster::default()
            .with(shop)
            .with(cluster::namespace("elsewhere"))
            .with(pod("server", "server"))
            .with(pod("client", "client"))
            .with(pod("other", "other"));
        Self {
            cluster,
            defaults: Defaults::default(),
            foreign: Lives::new(),
        }
    }

    fn with(mut self, object: Value) -> Self {
        self.cluster = self.cluster.with(object);
        self
    }

    /// A target for account server with these sources and rules.
    fn target(self, sources: Value, rules: Value) -> Self {
        let target = cluster::target("t", "server", &[], rules);
        self.with(cluster::set(target, "/spec/sources", sources))
    }

    fn foreign(mut self, spec: Value) -> Self {
        let (key, live) = foreign("theirs", "shop", spec);
        self.foreign.insert(key, live.into());
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.cluster.compile_with(&self.defaults).0, &self.foreign)
    }

    fn network(&self) -> Network {
        network(&self.plan(), &self.foreign, &self.cluster)
    }

    fn seen(&self, name: &str) -> PluginPod {
        let pods = self.cluster.objects().iter();
        let mut pods = pods.filter(|object| object["kind"] == "Pod");
        seen(pods.find(|pod| pod["metadata"]["name"] == name).unwrap())
    }

    fn udp(&self, from: &str, port: u16) -> bool {
        let from = (!from.is_empty()).then(|| self.seen(from));
        self.network()
            .allows(from.as_ref(), &self.seen("server"), "UDP", port)
    }

    fn lacks(&self) -> Vec<LackReason> {
        let plan = self.plan();
        let needs = &plan.targets[&ObjectKey::new("shop", "t")];
        needs.lacks.iter().map(|lack| lack.reason).collect()
    }
}

pub(super) fn seen(pod: &Value) -> PluginPod {
    let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    PluginPod {
        namespace: text(&pod["metadata"]["namespace"]),
        labels: labels
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
    }
}

/// Everything that is in force: ours and theirs.
pub(super) fn network(plan: &Plan, foreign: &Lives, cluster: &Cluster) -> Network {
    let spec = |spec| serde_json::to_value(spec).unwrap();
    let ours = plan
        .policies
        .iter()
        .map(|(key, policy)| (key, spec(policy)));
    let theirs = foreign.iter().map(|(key, live)| (key, spec(&live.spec)));
    let policies = ours.chain(theirs);
    let namespaces = cluster
        .objects()
        .iter()
        .filter(|o| o["kind"] == "Namespace");
    Network {
        policies: policies
            .map(|(key, spec)| (key.namespace.to_string(), spec))
            .collect(),
        namespaces: namespaces
            .map(|object| {
                // The API server puts this label on every namespace.
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                let label = ("kubernetes.io/metadata.name".to_owned(), name.clone());
                (name, Tags::from([label]))
            })
            .collect(),
    }
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name})
}

#[test]
fn e6_udp_8300_is_blocked_beside_routed_tcp_8300() {
    let tcp = json!({"kind": "TCPRoute", "name": "tcp"});
    let case = Case::deny()
        .with(cluster::tcp_route("tcp", &[8300, 8301, 8302]))
        .with(udp_route("udp", &ports(&[8301, 8302])))
        .target(json!([account("client")]), json!([tcp, udp("udp")]));
    let udp: Vec<bool> = (8300..=8303).map(|port| case.udp("client", port)).collect();
    println!("sent: UDP 8300, 8301, 8302, 8303 from the source of the target");
    println!("saw: allowed {udp:?}");
    assert_eq!(udp, [false, true, true, false]);
    let other = case.udp("other", 8301);
    println!("sent: UDP 8301 from another account");
    println!("saw: allowed {other}");
    assert!(!other && !case.udp("", 8301), "no other source");
    // What TCP may do is the proxies' business.
    let network = case.network();
    for port in [8300, 9999] {
        assert!(network.allows(None, &case.seen("server"), "TCP", port));
    }
    assert_eq!(case.lacks(), []);
}

#[test]
fn deny_mode_blocks_untargeted_udp_only_inside_mesh() {
    let case = Case::deny().with(cluster::plain_pod("plain", "10.0.1.9", "plain"));
    assert!(!case.udp("client", 53) && !case.udp("", 53));
    let network = case.network();
    assert!(network.allows(None, &case.seen("plain"), "UDP", 53));
    assert_eq!(
        case.plan().policies.len(),
        3,
        "one for each account of the mesh"
    );
}

#[test]
fn udp_target_closes_auto_but_not_open_or_audit() {
    let tcp = json!([{"kind": "TCPRoute", "name": "tcp"}]);
    let case = |mode: &str, rules: &Value| {
        Case::with_mode(mode)
            .with(udp_route("udp", &ports(&[1])))
            .target(json!([account("client")]), rules.clone())
    };
    assert!(case("auto", &tcp).udp("other", 1));
    for rules in [
        json!([udp("udp")]),
        json!([udp("missing")]),
        json!([]),
        json!("odd"),
    ] {
        assert!(!case("auto", &rules).udp("other", 1), "{rules}");
        assert!(case("open", &rules).udp("other", 1), "{rules}");
        assert!(case("audit", &rules).udp("other", 1), "{rules}");
    }
    let closed = case("auto", &json!([udp("udp")]));
    assert!(closed.udp("client", 1) && !closed.udp("client", 2));
    assert_eq!(closed.plan().policies.len(), 1, "others are left alone");
}

#[test]
fn every_source_kind_of_target_reaches_network_policy() {
    let allowed = |source: Value, from: &str| {
        Case::deny()
            .with(cluster::plain_pod("plain", "10.0.1.9", "client"))
            .with(cluster::binding(
                "by-account",
                json!({"serviceAccount": "client"}),
            ))
            .with(cluster::binding(
                "by-id",
                json!({"spiffeIdentities": ["cluster.local/ns/shop/sa/client"]}),
            ))
            .with(cluster::binding(
                "strange",
                json!({"spiffeIdentities": ["spiffe://else/ns/shop/sa/client"]}),
            ))
            .with(cluster::binding(
                "by-label",
                json!({"podLabelSelector": {"matchLabels": {"app": "client"}}}),
            ))
            .with(cluster::binding(
                "bad",
                json!({"podLabelSelector": {"matchLabels": {"a b": "c"}}}),
            ))
            .with(cluster::binding(
                "empty",
                json!({"podLabelSelector": {"matchLabels": {}}}),
            ))
            .with(udp_route("udp", &json!({})))
            .target(json!([source]), json!([udp("udp")]))
            .udp(from, 7)
    };
    let bound = |name: &str| json!({"kind": "IdentityBinding", "name": name});
    let group = |name: &str| json!({"kind": "Group", "name": name});
    for source in [
        account("client"),
        bound("by-account"),
        bound("by-id"),
        bound("by-label"),
    ] {
        assert!(allowed(source.clone(), "client"), "{source}");
        for other in ["other", "plain", ""] {
            assert!(!allowed(source.clone(), other), "{source} {other}");
        }
    }
    for unmatched in [
        bound("strange"),
        bound("bad"),
        bound("empty"),
        bound("missing"),
        json!({}),
    ] {
        for from in ["client", "other", "plain", ""] {
            assert!(!allowed(unmatched.clone(), from), "{unmatched} {from}");
        }
    }
    assert!(allowed(group("system:authenticated"), "other"));
    assert!(!allowed(group("system:authenticated"), "plain"));
    assert!(!allowed(group("system:authenticated"), ""));
    for from in ["client", "plain", ""] {
        assert!(allowed(group("system:unauthenticated"), from));
    }
    let elsewhere = json!({"kind": "ServiceAccount", "name": "client", "namespace": "elsewhere"});
    assert!(!allowed(elsewhere, "client"));
    let never = json!({"kind": "ServiceAccount", "name": "client", "namespace": "No Such"});
    assert!(
        !allowed(never, "client"),
        "and the policy can still be written"
    );
}

#[test]
fn a_bound_destination_admits_to_its_pods_only() {
    let to = |schemes: Value| {
        let target = cluster::target("t", "bound", &["client"], json!([udp("udp")]));
        let target = cluster::set(target, "/spec/destination/kind", json!("IdentityBinding"));
        Case::deny()
            .with(cluster::set(
                pod("second", "server"),
                "/metadata/labels/app",
                json!("two"),
            ))
            .with(cluster::binding("bound", schemes.clone()))
            .with(udp_route("udp", &json!({})))
            .with(target)
    };
    let by_label = to(json!({"podLabelSelector": {"matchLabels": {"app": "server"}}}));
    assert!(by_label.udp("client", 7) && !by_label.udp("other", 7));
    let second = by_label.seen("second");
    let client = by_label.seen("client");
    assert!(!by_label.network().allows(Some(&client), &second, "UDP", 7));
    assert!(by_label.network().allows(Some(&client), &second, "TCP", 7));
    assert_eq!(by_label.lacks(), []);

    let by_account = to(json!({"serviceAccount": "server"}));
    assert!(by_account.udp("client", 7));
    assert!(
        by_account
            .network()
            .allows(Some(&client), &second, "UDP", 7)
    );
    // It cannot speak for accounts of other namespaces.
    let foreign = to(json!({"spiffeIdentities": ["spiffe://cluster.local/ns/elsewhere/sa/x"]}));
    assert!(!foreign.udp("client", 7));
    assert!(
        foreign
            .plan()
            .policies
            .keys()
            .all(|key| &*key.namespace == "shop")
    );
}

#[test]
fn invalid_ports_allow_nothing_while_destination_port_limits() {
    let case = |spec: Value, limit: Value| {
        let case = Case::deny().with(udp_route("udp", &spec));
        let target = cluster::target("t", "server", &["client"], json!([udp("udp")]));
        case.with(cluster::set(target, "/spec/destination/port", limit))
    };
    let none = Value::Null;
    assert!(!case(ports(&[0, 70_000]), none.clone()).udp("client", 4464));
    assert!(case(ports(&[]), none).udp("client", 4464));
    let limited = case(ports(&[1, 2]), json!(2));
    assert!(limited.udp("client", 2) && !limited.udp("client", 1));
    assert!(!case(ports(&[1, 2]), json!(3)).udp("client", 3));
    assert!(!case(json!({}), json!(0)).udp("client", 1));
}

#[test]
fn foreign_ingress_policy_suppresses_ours_and_target_reports_it() {
    let case = Case::deny()
        .with(udp_route("udp", &ports(&[1])))
        .target(json!([account("client")]), json!([udp("udp")]));
    let theirs = json!({"podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"ports": [{"port": 80}]}]});
    let foreign = case.foreign(theirs);
    assert_eq!(foreign.lacks(), [LackReason::ForeignNetworkPolicy]);
    let network = foreign.network();
    let server = foreign.seen("server");
    assert!(network.allows(None, &server, "TCP", 80));
    assert!(
        !network.allows(None, &server, "TCP", 81),
        "theirs is not widened"
    );
    assert!(
        !network.allows(None, &foreign.seen("client"), "UDP", 1),
        "other accounts keep ours"
    );
    let unprotected = foreign.plan().unprotected;
    let lack = &unprotected[&ObjectKey::new("shop", "server")];
    assert!(
        lack.message.contains("theirs") && lack.message.contains("server"),
        "{lack:?}"
    );

    let egress = Case::deny().foreign(json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    assert_eq!(egress.plan().policies.len(), 3);
}

#[test]
fn account_with_two_modes_is_skipped_and_reported() {
    let open = cluster::annotate(pod("open-one", "server"), "weft.dev/access", "open");
    let mut case = Case::deny()
        .with(open)
        .with(udp_route("udp", &ports(&[1])))
        .target(json!([account("client")]), json!([udp("udp")]));
    // The pod may not loosen what its namespace says.
    assert_eq!(case.lacks(), []);
    case.defaults.access_pods_may_loosen = true;
    assert_eq!(case.lacks(), [LackReason::MixedAccessModes]);
    assert!(
        case.udp("other", 9),
        "the open pod stays open, and so does its neighbour"
    );

    let closed = cluster::annotate(pod("closed-one", "server"), "weft.dev/access", "deny");
    let mut case = Case::with_mode("open").with(closed);
    case.defaults.access = AccessMode::Open;
    let unprotected = case.plan().unprotected;
    let lack = &unprotected[&ObjectKey::new("shop", "server")];
    assert!(
        lack.message.contains("closed-one"),
        "reported without a target: {lack:?}"
    );
}
