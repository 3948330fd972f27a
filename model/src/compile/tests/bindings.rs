//! IdentityBindings, as sources and as destinations.
//!
//! Claims: attack-91

use policy::{
    access::{Access, Caller, EvaluatedTraffic},
    name::SpiffeId,
};
use serde_json::{Value, json};

use super::{failures, report};
use crate::{
    fixtures::*,
    problem::{
        ConditionType::{Accepted, ResolvedRefs},
        Reason,
    },
};

mod destinations;

/// A caller as its certificate shows it.
struct Peer {
    id: SpiffeId,
    uid: Option<&'static str>,
}

fn peer(namespace: &str, account: &str, uid: &'static str) -> Peer {
    Peer {
        id: SpiffeId::of("cluster.local", namespace, account).unwrap(),
        uid: (!uid.is_empty()).then_some(uid),
    }
}

/// Whether `from` may open a TCP connection to port 8080 of a pod in `shop`.
fn admits(cluster: &Cluster, pod: &str, from: &Peer) -> bool {
    let resolved = cluster.resolve(pod, &[]);
    let enforcement = wire::convert::enforcement(resolved.workload().enforcement);
    let access = Access {
        enforcement,
        rules: resolved.rules(),
    };
    let caller = Caller::Mesh {
        id: &from.id,
        pod: from.uid,
    };
    access
        .decide(caller, 8080, EvaluatedTraffic::Opaque)
        .is_allowed()
}

/// Whether anything is refused at a pod.
fn is_protected(cluster: &Cluster, pod: &str) -> bool {
    !admits(cluster, pod, &peer("nowhere", "stranger", ""))
}

fn labelled(pod: Value, label: &str, value: &str) -> Value {
    set(pod, &format!("/metadata/labels/{label}"), json!(value))
}

/// TCPRoute `ports` with 8080; `api` is the destination of target `t`, whose only
/// source is the IdentityBinding `callers`.
fn cluster() -> Cluster {
    shop()
        .with(tcp_route("ports", &[8080]))
        .with(from_binding())
}

fn from_binding() -> Value {
    let object = target("t", "api", &["callers"], tcp());
    set(object, "/spec/sources/0/kind", json!("IdentityBinding"))
}

/// A target that lets account `web` call the workloads of binding `name`.
fn to_binding(name: &str) -> Value {
    let object = target("t", name, &["web"], tcp());
    set(object, "/spec/destination/kind", json!("IdentityBinding"))
}

fn tcp() -> Value {
    json!([{"kind": "TCPRoute", "name": "ports"}])
}

fn by_labels(labels: Value) -> Value {
    let mut schemes = json!({"podLabelSelector": {}});
    schemes["podLabelSelector"]["matchLabels"] = labels;
    schemes
}

#[test]
fn binding_by_account_matches_own_namespace_only() {
    let cluster = cluster().with(binding("callers", json!({"serviceAccount": "web"})));
    assert!(admits(&cluster, "api-1", &peer("shop", "web", "")));
    assert!(!admits(&cluster, "api-1", &peer("bank", "web", "")));
    assert!(!admits(
        &cluster,
        "api-1",
        &peer("shop", "other", "uid-client")
    ));
    let names = cluster.resolve("api-1", &[]);
    assert!(names.names().contains(&"rule/shop/t"), "nothing new in it");
}

#[test]
fn binding_by_spiffe_id_accepts_either_spelling_within_namespace() {
    let ids = json!([
        "spiffe://cluster.local/ns/shop/sa/one",
        "cluster.local/ns/shop/sa/two",
        "cluster.local/ns/bank/sa/three",
        "federated.example/anything/at/all",
        "no id",
    ]);
    let cluster = cluster().with(binding("callers", json!({"spiffeIdentities": ids})));
    assert!(admits(&cluster, "api-1", &peer("shop", "one", "")));
    assert!(admits(&cluster, "api-1", &peer("shop", "two", "")));
    assert!(
        !admits(&cluster, "api-1", &peer("bank", "three", "")),
        "not its namespace"
    );
    let federated = Peer {
        id: SpiffeId::try_from("spiffe://federated.example/anything/at/all").unwrap(),
        uid: None,
    };
    assert!(admits(&cluster, "api-1", &federated));
    let (_, problems) = cluster.compile();
    let field = |n: u8| format!("spec.schemes.spiffeIdentities[{n}]");
    assert_eq!(
        failures(&problems, Accepted),
        [
            (Reason::Invalid, field(4).as_str()),
            (Reason::ForeignIdentity, field(2).as_str())
        ]
    );
    let condition = &report(&problems, "IdentityBinding callers").accepted;
    assert_eq!((condition.status, condition.reason), (false, "Invalid"));
}

#[test]
fn binding_by_label_follows_pods_with_every_label() {
    let labels = by_labels(json!({"app": "shop-window", "tier": "front"}));
    let cluster = cluster().with(binding("callers", labels));
    let client = pod("client", "10.0.0.1", "web");
    let both = labelled(
        labelled(client.clone(), "app", "shop-window"),
        "tier",
        "front",
    );
    let mine = peer("shop", "web", "uid-client");
    assert!(!admits(&cluster, "api-1", &mine), "no label");
    let one = cluster
        .clone()
        .with(labelled(client.clone(), "app", "shop-window"));
    assert!(!admits(&one, "api-1", &mine), "one label of two");
    let full = cluster.clone().with(both.clone());
    assert!(admits(&full, "api-1", &mine));
    assert!(
        full.resolve("api-1", &[])
            .names()
            .contains(&"extended-rule/shop/t")
    );
    // The account alone is not enough, nor is a certificate that names no pod.
    assert!(!admits(&full, "api-1", &peer("shop", "web", "uid-other")));
    assert!(!admits(&full, "api-1", &peer("shop", "web", "")));
    // Another namespace's pod with these labels, an ended one, one without proxy.
    let elsewhere = in_namespace(set(both.clone(), "/metadata/uid", json!("uid-b")), "bank");
    let foreign = cluster.clone().with(elsewhere);
    assert!(!admits(&foreign, "api-1", &peer("bank", "web", "uid-b")));
    let ended = set(both.clone(), "/status/phase", json!("Succeeded"));
    assert!(!admits(&cluster.clone().with(ended), "api-1", &mine));
    let bare = labelled(plain_pod("client", "10.0.0.1", "web"), "app", "shop-window");
    let bare = labelled(bare, "tier", "front");
    assert!(!admits(&cluster.clone().with(bare), "api-1", &mine));
    // Taken away again.
    assert!(!admits(&full.with(client), "api-1", &mine));
}

#[test]
fn the_schemes_of_a_binding_add_up() {
    let mut schemes = by_labels(json!({"app": "a"}));
    schemes["spiffeIdentities"] = json!(["cluster.local/ns/shop/sa/one"]);
    let cluster = cluster()
        .with(labelled(pod("client", "10.0.0.1", "web"), "app", "a"))
        .with(binding("callers", schemes));
    assert!(admits(&cluster, "api-1", &peer("shop", "one", "")));
    assert!(admits(
        &cluster,
        "api-1",
        &peer("shop", "web", "uid-client")
    ));
    assert!(!admits(&cluster, "api-1", &peer("shop", "web", "uid-x")));
}

#[test]
fn binding_of_other_namespace_requires_explicit_namespace() {
    let foreign = in_namespace(binding("callers", json!({"serviceAccount": "web"})), "bank");
    let mut cluster = cluster().with(foreign);
    assert!(
        !admits(&cluster, "api-1", &peer("bank", "web", "")),
        "its own namespace first"
    );
    cluster = cluster.with(set(
        from_binding(),
        "/spec/sources/0/namespace",
        json!("bank"),
    ));
    assert!(admits(&cluster, "api-1", &peer("bank", "web", "")));
    assert!(!admits(&cluster, "api-1", &peer("shop", "web", "")));
}

#[test]
fn missing_binding_admits_no_caller_until_created() {
    let web = peer("shop", "web", "");
    let without = cluster();
    assert!(!admits(&without, "api-1", &web));
    let (_, problems) = without.compile();
    let expected = [(Reason::RefNotFound, "spec.sources[0].name")];
    assert_eq!(failures(&problems, ResolvedRefs), expected);
    assert!(failures(&problems, Accepted).is_empty());
    let with = without.with(binding("callers", json!({"serviceAccount": "web"})));
    assert!(admits(&with, "api-1", &web));
    assert!(failures(&with.compile().1, ResolvedRefs).is_empty());
}

#[test]
fn a_missing_binding_takes_no_other_source_down() {
    let both = target("t", "api", &["callers", "web"], tcp());
    let both = set(both, "/spec/sources/0/kind", json!("IdentityBinding"));
    assert!(admits(
        &cluster().with(both),
        "api-1",
        &peer("shop", "web", "")
    ));
}

#[test]
fn contradictory_or_empty_binding_admits_no_caller() {
    let mut both = by_labels(json!({"app": "a"}));
    both["serviceAccount"] = json!("web");
    let bad = [
        (both, "spec.schemes.serviceAccount"),
        (json!({}), "spec.schemes"),
        (
            by_labels(json!({})),
            "spec.schemes.podLabelSelector.matchLabels",
        ),
        (
            json!({"spiffeIdentities": []}),
            "spec.schemes.spiffeIdentities",
        ),
        (
            json!({"serviceAccount": "a/b"}),
            "spec.schemes.serviceAccount",
        ),
        (json!({"serviceAccount": ""}), "spec.schemes.serviceAccount"),
    ];
    for (schemes, field) in bad {
        let cluster = cluster()
            .with(labelled(pod("client", "10.0.0.1", "web"), "app", "a"))
            .with(binding("callers", schemes));
        assert!(
            !admits(&cluster, "api-1", &peer("shop", "web", "uid-client")),
            "{field}"
        );
        assert!(is_protected(&cluster, "api-1"), "{field}");
        let (_, problems) = cluster.compile();
        assert_eq!(failures(&problems, Accepted), [(Reason::Invalid, field)]);
        let condition = &report(&problems, "IdentityBinding callers").accepted;
        assert!(!condition.status);
        assert!(
            report(&problems, "TrafficTarget t").accepted.status,
            "{field}"
        );
    }
}

#[test]
fn unreadable_binding_admits_no_caller_but_still_protects() {
    let broken = json!({"serviceAccount": "api", "spiffeIdentities": 3});
    let as_source = cluster().with(binding("callers", broken.clone()));
    assert!(!admits(&as_source, "api-1", &peer("shop", "api", "")));
    let as_destination = shop()
        .with(tcp_route("ports", &[8080]))
        .with(binding("callees", broken))
        .with(to_binding("callees"));
    assert!(!admits(&as_destination, "api-1", &peer("shop", "web", "")));
    let (_, problems) = as_destination.compile();
    assert_eq!(
        report(&problems, "IdentityBinding callees").accepted.reason,
        "Unreadable"
    );
}

#[test]
fn rule_origins_include_named_bindings_with_generation() {
    let callers = set(
        binding("callers", json!({"serviceAccount": "web"})),
        "/metadata/generation",
        json!(5),
    );
    let object = set(
        from_binding(),
        "/spec/destination/kind",
        json!("IdentityBinding"),
    );
    let cluster = cluster()
        .with(object)
        .with(callers)
        .with(binding("api", json!({"serviceAccount": "api"})));
    let resolved = cluster.resolve("api-1", &[]);
    let origins: Vec<String> = resolved
        .published("rule/shop/t")
        .origins
        .iter()
        .map(|(object, generation)| format!("{object} {generation}"))
        .collect();
    assert_eq!(
        origins,
        [
            "TrafficTarget shop/t 1",
            "IdentityBinding shop/api 1",
            "IdentityBinding shop/callers 5",
            "TCPRoute shop/ports 1",
        ]
    );
}

#[test]
fn identities_beyond_target_limit_are_refused_and_reported() {
    let mut cluster = cluster();
    let mut sources = Vec::new();
    for n in 0..40 {
        let ids: Vec<String> = (0..64)
            .map(|id| format!("cluster.local/ns/shop/sa/a{n}-{id}"))
            .collect();
        let name = format!("b{n}");
        cluster = cluster.with(binding(&name, json!({"spiffeIdentities": ids})));
        sources.push(json!({"kind": "IdentityBinding", "name": name}));
    }
    let cluster = cluster.with(set(from_binding(), "/spec/sources", json!(sources)));
    let rules = cluster.resolve("api-1", &[]).rules();
    assert_eq!(rules[0].sources.len(), 2048);
    let expected = [(Reason::Invalid, "spec.sources")];
    assert_eq!(failures(&cluster.compile().1, Accepted), expected);
}
