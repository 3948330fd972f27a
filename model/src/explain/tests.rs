//! What is said of calls in a small shop.
//!
//! Claims: observe-57

use std::collections::BTreeSet;

use crds::observe::{ExplanationSpec, ExplanationStatus, ExplanationVerdict, From, Header, To};
use serde_json::{Value, json};

use super::{BadQuestion, CallerView, SeenCallers};
use crate::fixtures::*;
use crate::model::{Defaults, PodId};
use crate::world::ObjectKey;

mod beside;
mod external;
mod gateways;
mod headers;
mod instead;
mod meant;
mod noticed;
mod parts;
mod places;
mod plaintext;
mod releases;
mod requests;
mod revoked;
mod routes;
mod unknown_pods;

fn spec(from: &str, to: &str, method: &str, path: &str) -> ExplanationSpec {
    let (from_kind, from_name) = from.split_once('/').unwrap();
    let (to_kind, to_name) = to.split_once('/').unwrap();
    ExplanationSpec {
        from: From {
            kind: from_kind.to_owned(),
            namespace: "shop".to_owned(),
            name: from_name.to_owned(),
            outside: false,
        },
        to: To {
            kind: to_kind.to_owned(),
            namespace: "shop".to_owned(),
            name: to_name.to_owned(),
            port: None,
        },
        method: Some(method.to_owned()),
        path: Some(path.to_owned()),
        ..ExplanationSpec::default()
    }
}

fn outside(to: &str) -> ExplanationSpec {
    ExplanationSpec {
        from: From {
            outside: true,
            ..From::default()
        },
        ..spec("Pod/x", to, "GET", "/")
    }
}

/// Pods of a Deployment are named `<deployment>-<number>`.
fn owner(pod: &PodId) -> (String, ObjectKey) {
    let name = pod
        .name
        .rsplit_once('-')
        .map_or(&*pod.name, |(name, _)| name);
    (
        "Deployment".to_owned(),
        ObjectKey::new(&pod.namespace, name),
    )
}

fn ask_with(cluster: &Cluster, spec: &ExplanationSpec, defaults: &Defaults) -> ExplanationStatus {
    try_explain(cluster, spec, defaults).unwrap()
}

fn try_explain(
    cluster: &Cluster,
    spec: &ExplanationSpec,
    defaults: &Defaults,
) -> Result<ExplanationStatus, BadQuestion> {
    let model = cluster.compile_with(defaults).0;
    let seen = |_: &BTreeSet<PodId>| SeenCallers {
        accounts: BTreeSet::from([ObjectKey::new("shop", "seen")]),
        unnamed: 0,
        unknown: 2,
    };
    let explained = model.explain(spec, CallerView::Known, &owner, &seen);
    explained.map(|explained| explained.status)
}

/// In rules `*` stands for all methods.
#[test]
fn calls_that_no_pod_makes_are_not_explained() {
    let query = spec("Pod/client", "Service/api", "*", "/items/7");
    let answer = try_explain(&read_only(), &query, &Defaults::default());
    assert_eq!(answer.unwrap_err().field, "method");
}

fn explain(cluster: &Cluster, spec: &ExplanationSpec) -> ExplanationStatus {
    ask_with(cluster, spec, &Defaults::default())
}

fn texts(status: &ExplanationStatus, step: &str) -> Vec<String> {
    let steps = status.steps.iter().filter(|one| one.step == step);
    steps.map(|one| one.text.clone()).collect()
}

fn read_only() -> Cluster {
    let read = json!([{"name": "read", "pathRegex": "/items", "methods": ["GET", "HEAD"]}]);
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    shop()
        .with(group("routes", read))
        .with(target("read", "api", &["web"], rules))
}

#[test]
fn refusal_names_nearest_rule_and_what_it_lacks() {
    let status = explain(
        &read_only(),
        &spec("Pod/client", "Service/api", "DELETE", "/items/7"),
    );
    assert_eq!(status.verdict, ExplanationVerdict::Refused);
    assert_eq!(
        (status.reason.as_str(), status.http_status),
        ("not-allowed", Some(403))
    );
    assert_eq!(status.owner, "shop");
    let rule = texts(&status, "rule");
    assert_eq!(
        rule,
        ["shop/read: source and port fit; method DELETE fits no match (read: GET, HEAD)"]
    );
    let access = texts(&status, "access");
    assert_eq!(
        access,
        ["auto (the chart's), closed by TrafficTarget shop/read; 8080: refused, not-allowed"]
    );
    assert!(texts(&status, "route")[0].starts_with("shop/api; 2 of 2 endpoints"));
    assert!(texts(&status, "who")[0].contains("spiffe://cluster.local/ns/shop/sa/web"));
    assert_eq!(status.backends.len(), 1);
    let allowed = explain(
        &read_only(),
        &spec("Pod/client", "Service/api", "GET", "/items/7?x=1"),
    );
    assert_eq!(allowed.verdict, ExplanationVerdict::Allowed);
    assert_eq!(allowed.fix, None);
}

#[test]
fn owner_of_pods_is_asked_about_as_they_are() {
    let status = explain(
        &read_only(),
        &spec("ServiceAccount/web", "Deployment/api", "PUT", "/items"),
    );
    assert_eq!(status.verdict, ExplanationVerdict::Refused);
    // An account that has no pod yet.
    let status = explain(
        &read_only(),
        &spec("ServiceAccount/new", "Deployment/api", "GET", "/items"),
    );
    assert_eq!(status.verdict, ExplanationVerdict::Refused);
    assert!(texts(&status, "rule")[0].contains("none of its sources"));
    let status = explain(
        &read_only(),
        &spec("Deployment/absent", "Service/api", "GET", "/"),
    );
    assert_eq!(status.verdict, ExplanationVerdict::Unknown);
    assert!(status.reason.contains("has no pods"), "{}", status.reason);
    let status = explain(
        &read_only(),
        &spec("Pod/client", "Service/nothing", "GET", "/"),
    );
    assert_eq!(status.verdict, ExplanationVerdict::Unknown);
}

#[test]
fn question_without_a_meaning_is_refused_by_its_field() {
    let model = shop().compile().0;
    let none = |_: &BTreeSet<PodId>| SeenCallers::default();
    let field = |spec: &ExplanationSpec| {
        model
            .explain(spec, CallerView::Known, &owner, &none)
            .unwrap_err()
            .field
    };
    let good = spec("Pod/client", "Service/api", "GET", "/");
    let with = |change: &dyn Fn(&mut ExplanationSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        field(&spec)
    };
    assert_eq!(with(&|spec| spec.method = Some("G T".to_owned())), "method");
    assert_eq!(with(&|spec| spec.path = Some("items".to_owned())), "path");
    assert_eq!(
        with(&|spec| spec.from.kind = "Widget".to_owned()),
        "from.kind"
    );
    assert_eq!(with(&|spec| spec.to.kind = "Ingress".to_owned()), "to.kind");
    assert_eq!(with(&|spec| spec.from.name = String::new()), "from.name");
    assert_eq!(with(&|spec| spec.from.outside = true), "from.outside");
    assert_eq!(with(&|spec| spec.tcp = true), "tcp");
    let header = Header {
        name: "a b".to_owned(),
        value: String::new(),
    };
    assert_eq!(with(&|spec| spec.headers = vec![header.clone()]), "headers");
    let two = shop().with(service("api", "10.96.0.1", &[("http", 80), ("admin", 81)]));
    let model = two.compile().0;
    let error = model
        .explain(&good, CallerView::Known, &owner, &none)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.to.port: say which one: it has 80, 81"
    );
}

#[test]
fn call_leaving_cluster_is_relayed_without_evaluation() {
    let status = explain(
        &shop(),
        &spec("Pod/client", "External/api.example.com", "GET", "/"),
    );
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
    assert!(texts(&status, "route")[0].contains("no proxy of the mesh evaluates rules for it"));
    assert_eq!(status.fix, None);
}

#[test]
fn backends_are_judged_each_with_its_share() {
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let cluster = shop()
        .with(pod("v2-1", "10.0.0.21", "v2"))
        .with(service("v2", "10.96.0.2", &[("http", 80)]))
        .with(slice(
            "v2-x",
            "v2",
            &[("http", 8080)],
            &[endpoint("v2-1", "10.0.0.21")],
        ))
        .with(split("s", "api", &[("api", 90), ("v2", 10)]))
        .with(tcp_route("ports", &[8080]))
        .with(target("closed", "v2", &["absent"], rules));
    let status = explain(&cluster, &spec("Pod/client", "Service/api", "GET", "/"));
    assert_eq!(
        (status.verdict, status.reason.as_str()),
        (ExplanationVerdict::Mixed, "")
    );
    let backends: Vec<(&str, f64, ExplanationVerdict)> = status
        .backends
        .iter()
        .map(|one| (one.service.as_str(), one.share, one.verdict))
        .collect();
    assert_eq!(
        backends,
        [
            ("shop/api", 0.9, ExplanationVerdict::Allowed),
            ("shop/v2", 0.1, ExplanationVerdict::Refused)
        ]
    );
    // A caller without a proxy knows no splits.
    let status = explain(&cluster, &outside("Service/api"));
    assert_eq!(
        (status.verdict, status.backends.len()),
        (ExplanationVerdict::Allowed, 1)
    );
    let without_backend = cluster.with(split("s", "api", &[("api", 0), ("v2", 0)]));
    let status = explain(
        &without_backend,
        &spec("Pod/client", "Service/api", "GET", "/"),
    );
    assert_eq!(
        (status.verdict, status.reason.as_str()),
        (ExplanationVerdict::Refused, "no-backend")
    );
    assert_eq!(status.http_status, Some(503));
    assert_eq!(
        status.fix.unwrap().commands,
        ["kubectl -n shop edit trafficsplit s"]
    );
}

#[test]
fn missing_endpoints_and_missing_proxies_are_explained() {
    let cluster = shop()
        .with(service("empty", "10.96.0.3", &[("http", 80)]))
        .with(plain_pod("old-1", "10.0.0.31", "old"));
    let status = explain(&cluster, &spec("Pod/client", "Service/empty", "GET", "/"));
    assert_eq!(
        (status.verdict, status.reason.as_str()),
        (ExplanationVerdict::Refused, "no-endpoint")
    );
    let status = explain(&cluster, &spec("Pod/client", "Pod/old-1", "GET", "/"));
    assert_eq!(status.verdict, ExplanationVerdict::Allowed);
    assert!(texts(&status, "wire")[0].contains("the pod has no proxy"));
    let deny = Defaults {
        access: policy::mode::AccessMode::Deny,
        ..Defaults::default()
    };
    let status = ask_with(
        &cluster,
        &spec("Pod/old-1", "Service/api", "GET", "/"),
        &deny,
    );
    assert_eq!(
        (status.verdict, status.reason.as_str()),
        (ExplanationVerdict::Refused, "no-identity")
    );
    let fix = status.fix.unwrap();
    assert!(fix.objects.is_empty());
    assert!(
        fix.commands[0].contains("weft.dev/inject=enabled"),
        "{fix:?}"
    );
    let strict = Defaults {
        mtls: policy::mode::MtlsMode::Strict,
        ..Defaults::default()
    };
    let status = ask_with(&cluster, &outside("Service/api"), &strict);
    assert_eq!(status.reason, "no-identity");
    let fix = status.fix.unwrap();
    assert!(
        fix.commands[0].contains("weft.dev/permissive-ports=8080"),
        "{fix:?}"
    );
}

/// Puts what a fix adds into a cluster.
fn applied(cluster: Cluster, objects: &[Value]) -> Cluster {
    objects.iter().cloned().fold(cluster, Cluster::with)
}

// Claims: observe-114
#[test]
fn fix_takes_a_name_that_no_object_has() {
    let query = spec("Pod/client", "Service/api", "DELETE", "/items/7");
    let first = explain(&read_only(), &query).fix.unwrap();
    let name = first.objects[0]["metadata"]["name"].as_str().unwrap();
    let matches = json!([{"name": "all", "pathRegex": ".*", "methods": ["*"]}]);
    for own in [
        target(name, "other", &["web"], json!([])),
        group(name, matches),
        tcp_route(name, &[9090]),
        binding(name, json!({"serviceAccount": "other"})),
    ] {
        let cluster = read_only().with(own.clone());
        let fix = explain(&cluster, &query).fix.unwrap();
        assert!(!fix.objects.is_empty(), "{own}");
        for object in &fix.objects {
            assert_ne!(object["metadata"]["name"], name, "{object}");
        }
        let after = applied(cluster, &fix.objects);
        let verdict = explain(&after, &query).verdict;
        assert_eq!(verdict, ExplanationVerdict::Allowed, "{own}");
    }
}

// Claims: observability-6
#[test]
fn fix_allows_this_call_and_none_beside_it() {
    let query = spec("Pod/client", "Service/api", "DELETE", "/items/7");
    let fix = explain(&read_only(), &query).fix.unwrap();
    assert_eq!((fix.commands.len(), fix.warnings.len()), (0, 0), "{fix:?}");
    let group = fix
        .objects
        .iter()
        .find(|object| object["kind"] == "HTTPRouteGroup");
    assert_eq!(
        group.unwrap()["spec"]["matches"][0]["pathRegex"],
        "^/items/7$"
    );
    let after = applied(read_only(), &fix.objects);
    let verdict = |spec: &ExplanationSpec| explain(&after, spec).verdict;
    assert_eq!(verdict(&query), ExplanationVerdict::Allowed);
    for (from, method, path) in [
        ("Pod/client", "PUT", "/items/7"),
        ("Pod/client", "DELETE", "/items/70"),
        ("Pod/client", "DELETE", "/items/7/x"),
        ("ServiceAccount/other", "DELETE", "/items/7"),
        ("ServiceAccount/other", "GET", "/items/7"),
    ] {
        let beside = spec(from, "Service/api", method, path);
        assert_eq!(
            verdict(&beside),
            ExplanationVerdict::Refused,
            "{from} {method} {path}"
        );
    }
    assert_eq!(
        verdict(&outside("Service/api")),
        ExplanationVerdict::Refused
    );
    // What was allowed still is.
    assert_eq!(
        verdict(&spec("Pod/client", "Service/api", "GET", "/items")),
        ExplanationVerdict::Allowed
    );
}

#[test]
fn raw_tcp_is_fixed_by_port_if_possible() {
    let closed = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let cluster =
        shop()
            .with(tcp_route("ports", &[9090]))
            .with(target("other", "api", &["web"], closed));
    let mut query = spec("Pod/client", "Pod/api-1", "GET", "/");
    (query.method, query.path, query.tcp) = (None, None, true);
    query.to.port = Some(8081);
    let status = explain(&cluster, &query);
    assert_eq!(
        (status.verdict, status.http_status),
        (ExplanationVerdict::Refused, None)
    );
    let fix = status.fix.unwrap();
    assert!(
        fix.objects
            .iter()
            .all(|object| object["kind"] != "HTTPRouteGroup")
    );
    let after = applied(cluster, &fix.objects);
    assert_eq!(explain(&after, &query).verdict, ExplanationVerdict::Allowed);
    query.to.port = Some(8082);
    assert_eq!(explain(&after, &query).verdict, ExplanationVerdict::Refused);
    let bad = explain(
        &read_only(),
        &spec("Pod/client", "Service/api", "GET", "/a%2Fb"),
    );
    assert_eq!(bad.reason, "bad-request");
    assert!(bad.fix.unwrap().warnings[0].contains("a match without pathRegex"));
}
