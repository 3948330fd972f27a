//! Draws random clusters for the property test of NetworkPolicies.

use crds::labels::account_hash;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

pub(super) const NAMESPACES: [&str; 2] = ["shop", "depot"];
const ACCOUNTS: [&str; 2] = ["a", "b"];
const MODES: [&str; 4] = ["deny", "auto", "open", "audit"];
/// 4 stands in no route.
pub(super) const PORTS: [u16; 4] = [1, 2, 3, 4];

#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) namespace: &'static str,
    pub(super) account: &'static str,
    pub(super) app: &'static str,
    /// Account whose label it carries.
    pub(super) label: Option<&'static str>,
    pub(super) meshed: bool,
    pub(super) mode: Option<&'static str>,
    pub(super) ended: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    pub(super) namespace: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) namespace: &'static str,
    pub(super) to: Subject,
    pub(super) limit: Option<i64>,
    pub(super) sources: Vec<Subject>,
    /// Kind and name; `None` for a target that cannot be read.
    pub(super) rules: Option<Vec<(&'static str, &'static str)>>,
}

#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
    pub(super) schemes: Value,
}

#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
    pub(super) ports: Option<Vec<i64>>,
}

#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) default: &'static str,
    pub(super) may_loosen: bool,
    pub(super) modes: [Option<&'static str>; 2],
    pub(super) pods: Vec<Pod>,
    pub(super) targets: Vec<Target>,
    pub(super) bindings: Vec<Binding>,
    pub(super) routes: Vec<Route>,
    pub(super) foreign: Vec<(&'static str, Value)>,
}

fn pod() -> impl Strategy<Value = Pod> {
    let label = prop_oneof![
        6 => Just(Some(true)),
        1 => Just(None),
        1 => Just(Some(false)),
    ];
    (
        select(&NAMESPACES[..]),
        select(&ACCOUNTS[..]),
        select(vec!["x", "y"]),
        label,
        prop::bool::weighted(0.8),
        option::weighted(0.2, select(&MODES[..])),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(namespace, account, app, label, meshed, mode, ended)| Pod {
                namespace,
                account,
                app,
                label: label.map(|right| match (right, account) {
                    (true, account) => account,
                    (false, "a") => "b",
                    (false, _) => "a",
                }),
                meshed,
                mode,
                ended,
            },
        )
}

fn subject() -> impl Strategy<Value = Subject> {
    let names = prop_oneof![
        5 => select(&ACCOUNTS[..]).prop_map(|name| ("ServiceAccount", name)),
        1 => Just(("Group", "system:authenticated")),
        1 => Just(("Group", "system:unauthenticated")),
        2 => select(vec!["p", "q"]).prop_map(|name| ("IdentityBinding", name)),
        1 => select(vec![("User", "a"), ("Group", "a"), ("", ""), ("ServiceAccount", "")]),
    ];
    (
        names,
        select(vec!["", "", "", "", "shop", "depot", "not one"]),
    )
        .prop_map(|((kind, name), namespace)| Subject {
            kind,
            name,
            namespace,
        })
}

fn target() -> impl Strategy<Value = Target> {
    let to = prop_oneof![
        5 => select(&ACCOUNTS[..]).prop_map(|name| ("ServiceAccount", name)),
        2 => select(vec!["p", "q"]).prop_map(|name| ("IdentityBinding", name)),
        1 => select(vec![("Group", "a"), ("ServiceAccount", "")]),
    ];
    let to = (to, select(vec!["", "", "", "depot"]));
    let rule = prop_oneof![
        6 => select(vec!["u", "u", "v", "missing"]).prop_map(|name| ("UDPRoute", name)),
        1 => Just(("TCPRoute", "u")),
    ];
    (
        select(&NAMESPACES[..]),
        to,
        option::weighted(0.15, select(vec![0, 1, 2, 70_000])),
        vec(subject(), 0..5),
        option::weighted(0.9, vec(rule, 0..3)),
    )
        .prop_map(
            |(namespace, ((kind, name), to), limit, sources, rules)| Target {
                namespace,
                to: Subject {
                    kind,
                    name,
                    namespace: to,
                },
                limit,
                sources,
                rules,
            },
        )
}

fn binding() -> impl Strategy<Value = Binding> {
    let schemes = select(vec![
        json!({"serviceAccount": "a"}),
        json!({"serviceAccount": ""}),
        json!({"podLabelSelector": {"matchLabels": {"app": "x"}}}),
        json!({"podLabelSelector": {"matchLabels": {}}}),
        json!({"podLabelSelector": {"matchLabels": {"no label": "x"}}}),
        json!({"spiffeIdentities": ["spiffe://cluster.local/ns/shop/sa/b", "spiffe://else/ns/shop/sa/a"]}),
        json!({"spiffeIdentities": ["cluster.local/ns/depot/sa/a"],
            "podLabelSelector": {"matchLabels": {"app": "y"}}}),
        json!({}),
        // They exclude each other: closes, and allows nothing.
        json!({"serviceAccount": "b", "podLabelSelector": {"matchLabels": {"app": "y"}}}),
    ]);
    (select(&NAMESPACES[..]), select(vec!["p", "q"]), schemes).prop_map(
        |(namespace, name, schemes)| Binding {
            namespace,
            name,
            schemes,
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let ports = select(vec![
        None,
        Some(vec![]),
        Some(vec![1]),
        Some(vec![1, 2]),
        Some(vec![2, 3]),
        Some(vec![0]),
        Some(vec![-1, 3, 65_536]),
    ]);
    (select(&NAMESPACES[..]), select(vec!["u", "v"]), ports).prop_map(|(namespace, name, ports)| {
        Route {
            namespace,
            name,
            ports,
        }
    })
}

fn policies() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let a = account_hash("shop", "a");
    let spec = select(vec![
        json!({"podSelector": {"matchLabels": {"app": "x"}}}),
        json!({"podSelector": {"matchLabels": {"app": "none"}}}),
        json!({"podSelector": {}, "policyTypes": ["Egress"]}),
        json!({"podSelector": {"matchExpressions": [
            {"key": "app", "operator": "NotIn", "values": ["x"]}]},
            "ingress": [{"ports": [{"protocol": "UDP", "port": 2}]}]}),
        json!({"podSelector": {"matchLabels": {"weft.dev/account": a}},
            "ingress": [{"from": [{"podSelector": {}}]}]}),
    ]);
    prop_oneof![
        2 => Just(Vec::new()),
        1 => vec((select(&NAMESPACES[..]), spec), 1..3),
    ]
}

pub(super) fn scene() -> impl Strategy<Value = Scene> {
    let mode = || option::weighted(0.7, select(vec!["deny", "deny", "auto", "open", "audit"]));
    (
        select(&MODES[..]),
        any::<bool>(),
        [mode(), mode()],
        vec(pod(), 1..7),
        vec(target(), 0..9),
        vec(binding(), 0..5),
        vec(route(), 2..9),
        policies(),
    )
        .prop_map(
            |(default, may_loosen, modes, pods, targets, bindings, routes, foreign)| Scene {
                default,
                may_loosen,
                modes,
                pods,
                targets,
                bindings,
                routes,
                foreign,
            },
        )
}
