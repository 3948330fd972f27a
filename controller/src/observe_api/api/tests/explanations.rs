//! What is explained to which user.
//!
//! Claims: observe-20, observe-22, observe-23

use std::time::SystemTime;

use http::Method;
use serde_json::{Value, json};

use super::{Bench, read, read_only};
use crate::observe::reports::{INTERVAL, interval_of};
use crate::observe_api::explanations;
use crate::testing::cluster::{
    Cluster, annotate, group, in_namespace, namespace, plain_pod, pod, service, set, shop, slice,
    target, tcp_route,
};

fn explanation_query(from: &str, kind: &str, to: &str) -> Value {
    json!({
        "from": {"kind": kind, "namespace": from, "name": if kind == "Pod" { "client" } else { "web" }},
        "to": {"kind": "Service", "namespace": to, "name": "api"},
        "method": "DELETE", "path": "/items/7",
    })
}

// Claims: observability-10
#[tokio::test]
async fn explanation_is_limited_by_permissions_at_each_end() {
    let bench = Bench::new();
    let (status, body) = bench
        .explain(
            "viewer",
            "namespaces/shop/explanations",
            explanation_query("shop", "Pod", "shop"),
        )
        .await;
    assert_eq!(status, 201, "{body}");
    let explained = &body["status"];
    assert_eq!(
        (&explained["verdict"], &explained["reason"]),
        (&json!("Refused"), &json!("not-allowed"))
    );
    assert!(
        explained["steps"].to_string().contains("shop/read"),
        "{explained}"
    );
    assert!(!explained["fix"]["objects"].as_array().unwrap().is_empty());
    assert_eq!(explained["programmed"], json!({"proxies": 0, "of": 2}));
    // Only the caller's: what calling would reveal.
    let mut called = explanation_query("bank", "ServiceAccount", "shop");
    called["to"]["port"] = json!(80);
    let (status, body) = bench
        .explain("neighbour", "namespaces/bank/explanations", called.clone())
        .await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(
        body["status"],
        json!({"verdict": "Refused", "reason": "not-allowed", "httpStatus": 403, "owner": "shop"})
    );
    let mut nothing = called;
    nothing["to"]["name"] = json!("nothing");
    let (_, body) = bench
        .explain("neighbour", "namespaces/bank/explanations", nothing)
        .await;
    assert!(
        body["status"]["reason"]
            .as_str()
            .unwrap()
            .contains("you may not know"),
        "{body}"
    );
    // Only the called side's: nothing of the caller beyond the request's own text, whether it
    // exists.
    for name in ["client", "absent"] {
        let mut query = explanation_query("bank", "Pod", "shop");
        query["from"]["name"] = json!(name);
        let (_, body) = bench
            .explain("viewer", "namespaces/shop/explanations", query)
            .await;
        assert_eq!(body["status"]["verdict"], "Unknown");
        assert!(!body.to_string().contains("no pods"), "{body}");
    }
    let by_account = explanation_query("bank", "ServiceAccount", "shop");
    let (_, body) = bench
        .explain("viewer", "namespaces/shop/explanations", by_account)
        .await;
    assert_eq!(body["status"]["verdict"], "Refused");
    assert_eq!(
        body["status"]["steps"][0]["text"],
        "bank/web, as it was asked"
    );
    assert!(body["status"].get("seen").is_none());
    // Neither.
    let (status, _) = bench
        .explain(
            "viewer",
            "namespaces/shop/explanations",
            explanation_query("bank", "Pod", "bank"),
        )
        .await;
    assert_eq!(status, 400);
    let (status, _) = bench
        .explain(
            "stranger",
            "namespaces/shop/explanations",
            explanation_query("shop", "Pod", "shop"),
        )
        .await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn question_that_is_too_long_or_misspelt_is_refused() {
    let bench = Bench::new();
    let path = "namespaces/shop/explanations";
    let question = json!({"kind": "Explanation", "spec": explanation_query("shop", "Pod", "shop")})
        .to_string();
    // Spaces behind a request change nothing but its length.
    let padded = async |length: usize| {
        let body = format!("{question}{}", " ".repeat(length - question.len()));
        read(bench.send("viewer", Method::POST, path, body).await).await
    };
    let (status, body) = padded(explanations::MAX_BODY).await;
    assert_eq!(status, 201, "{body}");
    let (status, body) = padded(explanations::MAX_BODY + 1).await;
    assert_eq!((status, &body["reason"]), (400, &json!("BadRequest")));
    let bound = format!("the body ({} bytes at most)", explanations::MAX_BODY);
    assert!(
        body["message"].as_str().unwrap().starts_with(&bound),
        "{body}"
    );
    let mut query = explanation_query("shop", "Pod", "shop");
    query["methd"] = json!("GET");
    let (status, body) = bench.explain("viewer", path, query).await;
    assert_eq!(status, 400);
    assert!(
        body["message"].as_str().unwrap().contains("methd"),
        "{body}"
    );
    let mut query = explanation_query("shop", "Pod", "shop");
    query["from"]["kind"] = json!("Widget");
    let (status, body) = bench.explain("viewer", path, query).await;
    assert_eq!(status, 400);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("spec.from.kind:"),
        "{body}"
    );
}

// Claims: observability-10
#[tokio::test]
async fn callers_side_permission_reveals_nothing_about_called_objects() {
    let two = service("two", "10.96.0.2", &[("http", 80), ("admin", 9090)]);
    let bench = Bench::of(&shop().with(two));
    let ask = async |kind: &str, name: &str, port: Option<u16>| {
        let mut query = explanation_query("bank", "ServiceAccount", "shop");
        query["to"] = json!({"kind": kind, "namespace": "shop", "name": name});
        if let Some(port) = port {
            query["to"]["port"] = json!(port);
        }
        let path = "namespaces/bank/explanations";
        let (status, body) = bench.explain("neighbour", path, query).await;
        (status, body["status"].to_string())
    };
    let nothing = ask("Service", "nothing", None).await;
    assert_eq!(nothing.0, 201);
    for (kind, name, port) in [
        // Near to one that is there: without the right to know of it, its name is not shown.
        ("Service", "tow", Some(80)),
        ("Service", "two", None),
        ("Service", "two", Some(81)),
        ("Service", "api", None),
        ("Deployment", "api", None),
        ("Deployment", "api", Some(8080)),
        ("Pod", "api-1", Some(8080)),
        ("Pod", "client", None),
    ] {
        let answer = ask(kind, name, port).await;
        assert_eq!(answer, nothing, "{kind} {name} {port:?}");
    }
    // What calling shows is shown.
    let answer = ask("Service", "api", Some(80)).await;
    assert!(answer.1.contains("Allowed"), "{answer:?}");
}

/// `neighbour` may explain in `bank`, where a Service leads by hand to a pod of `shop`.
#[tokio::test]
async fn service_into_other_namespace_reveals_only_what_callers_observe() {
    let endpoints = [json!({"addresses": ["10.0.0.11"], "conditions": {"ready": true}})];
    let cluster = read_only()
        .with(namespace("bank"))
        .with(in_namespace(
            service("api", "10.96.0.9", &[("http", 80)]),
            "bank",
        ))
        .with(in_namespace(
            slice("by-hand", "api", &[("http", 8080)], &endpoints),
            "bank",
        ));
    let bench = Bench::of(&cluster);
    let path = "namespaces/bank/explanations";
    let query = explanation_query("bank", "ServiceAccount", "bank");
    let (status, body) = bench.explain("both", path, query.clone()).await;
    assert_eq!(status, 201, "{body}");
    assert!(
        body.to_string().contains("shop/read"),
        "the control: {body}"
    );
    let (_, body) = bench.explain("neighbour", path, query).await;
    assert_eq!(
        body["status"],
        json!({"verdict": "Refused", "reason": "not-allowed", "httpStatus": 403, "owner": "bank"})
    );
    // What the other namespace admits is not revealed to a user without rights there.
    let mut outside = explanation_query("bank", "ServiceAccount", "bank");
    outside["from"] = json!({"outside": true});
    for foreign in [explanation_query("shop", "ServiceAccount", "bank"), outside] {
        let (status, body) = bench.explain("neighbour", path, foreign).await;
        assert_eq!(status, 201, "{body}");
        assert_eq!(body["status"]["verdict"], "Unknown", "{body}");
    }
}

/// One of two pods of the account refuses its callers, and no label distinguishes the two.
fn half_closed(name: &str, ip: &str) -> Cluster {
    let closed = annotate(pod(name, ip, "api"), "weft.dev/access", "deny");
    shop().with(closed)
}

#[tokio::test]
async fn fix_is_unavailable_before_callers_are_loaded() {
    let cluster = half_closed("api-2", "10.0.0.12").with(pod("web-1", "10.0.0.71", "shopper"));
    let mut bench = Bench::of(&cluster);
    bench.begin_anew();
    let path = "namespaces/shop/explanations";
    let query = explanation_query("shop", "ServiceAccount", "shop");
    let (status, body) = bench.explain("viewer", path, query.clone()).await;
    assert_eq!(status, 503, "{body}");
    bench.api.context.graph.startup().set_loaded();
    let (status, body) = bench.explain("viewer", path, query).await;
    assert_eq!(status, 201, "{body}");
    let warnings = body["status"]["fix"]["warnings"].to_string();
    assert!(!warnings.contains("cannot be read"), "{body}");
    assert!(warnings.contains("would be closed by this"), "{body}");
}

#[tokio::test]
async fn fix_warns_of_missing_callers_with_unreadable_history() {
    let cluster = half_closed("api-2", "10.0.0.12").with(pod("web-1", "10.0.0.71", "shopper"));
    let mut bench = Bench::of(&cluster);
    bench.begin_anew();
    bench.api.context.graph.startup().grow();
    let query = explanation_query("shop", "ServiceAccount", "shop");
    let path = "namespaces/shop/explanations";
    let (status, body) = bench.explain("viewer", path, query).await;
    assert_eq!(status, 201, "{body}");
    let warnings = body["status"]["fix"]["warnings"].to_string();
    assert!(warnings.contains("cannot be read"), "{body}");
}

#[tokio::test]
async fn fix_names_callers_only_with_permission_in_their_namespace() {
    let teller = in_namespace(pod("web-1", "10.0.0.70", "teller"), "bank");
    let cluster = half_closed("api-2", "10.0.0.12")
        .with(namespace("bank"))
        .with(teller)
        .with(pod("web-1", "10.0.0.71", "shopper"));
    let bench = Bench::of(&cluster);
    bench.called_by(&["shop/web", "bank/web"]).await;
    let path = "namespaces/shop/explanations";
    let outside = json!({
        "from": {"outside": true}, "to": {"kind": "Service", "namespace": "shop", "name": "api"},
        "method": "DELETE", "path": "/items/7",
    });
    for query in [
        explanation_query("shop", "ServiceAccount", "shop"),
        explanation_query("bank", "ServiceAccount", "shop"),
        outside.clone(),
    ] {
        let (_, body) = bench.explain("viewer", path, query.clone()).await;
        assert!(!body.to_string().contains("teller"), "{body}");
        let warnings = body["status"]["fix"]["warnings"].to_string();
        assert!(warnings.contains("shopper"), "{body}");
        assert!(warnings.contains("1 more accounts called"), "{body}");
        // With the right to explain there too they are named.
        let (_, body) = bench.explain("both", path, query).await;
        let fix = &body["status"]["fix"];
        let warnings = fix["warnings"].to_string();
        assert!(
            warnings.contains("teller") && warnings.contains("shopper"),
            "{body}"
        );
        assert!(!warnings.contains("more accounts"), "{body}");
        // And let in nowhere: the account has a pod that refuses them.
        let objects = fix["objects"].to_string();
        assert!(
            !objects.contains("teller") && !objects.contains("shopper"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn fix_warns_of_closing_pods_without_revealing_callers() {
    let bench = Bench::of(&half_closed("api-1", "10.0.0.11"));
    for from in ["bank", "shop"] {
        let query = explanation_query(from, "ServiceAccount", "shop");
        let (_, body) = bench
            .explain("viewer", "namespaces/shop/explanations", query)
            .await;
        assert_eq!(body["status"]["verdict"], "Mixed", "{body}");
        let warnings = body["status"]["fix"]["warnings"].to_string();
        assert!(warnings.contains("would be closed"), "{from}: {body}");
    }
}

/// Of a Job that has ended the account is no longer known.
#[tokio::test]
async fn fix_counts_callers_it_cannot_name_when_closing_pods() {
    for (callers, unknown) in [
        (&["shop/web"][..], false),
        (&["shop/web", "shop/nightly"], true),
    ] {
        let cluster = half_closed("api-2", "10.0.0.12").with(pod("web-1", "10.0.0.71", "shopper"));
        let bench = Bench::of(&cluster);
        bench.called_by(callers).await;
        let query = explanation_query("shop", "ServiceAccount", "shop");
        let (_, body) = bench
            .explain("viewer", "namespaces/shop/explanations", query)
            .await;
        let warnings = body["status"]["fix"]["warnings"].to_string();
        assert!(warnings.contains("shopper"), "{body}");
        assert_eq!(warnings.contains("1 more callers of"), unknown, "{body}");
    }
}

// Claims: observability-10
#[tokio::test]
async fn called_side_permission_reveals_nothing_about_callers_pods() {
    let bench_with = |proxy: bool| {
        let caller = if proxy { pod } else { plain_pod };
        let caller = in_namespace(caller("teller-7", "10.0.0.70", "web"), "bank");
        let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
        let closed = target("closed", "api", &["other"], rules);
        let cluster = shop().with(namespace("bank")).with(caller);
        Bench::of(&cluster.with(tcp_route("ports", &[8080])).with(closed))
    };
    let mut answers = Vec::new();
    for proxy in [false, true] {
        let query = explanation_query("bank", "ServiceAccount", "shop");
        let (status, body) = bench_with(proxy)
            .explain("viewer", "namespaces/shop/explanations", query)
            .await;
        assert_eq!(status, 201, "{body}");
        assert_eq!(body["status"]["verdict"], "Refused", "{body}");
        assert!(!body.to_string().contains("teller-7"), "{body}");
        answers.push(body["status"].clone());
    }
    assert_eq!(
        answers[0], answers[1],
        "whether they have a proxy is not shown"
    );
}

// Claims: observe-25
#[tokio::test]
async fn callers_side_permission_reveals_that_host_decides() {
    let hosts = json!([{"name": "cart", "headers": {"host": "cart"}}]);
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "hosts"}]);
    let sources = json!([{"kind": "ServiceAccount", "name": "web", "namespace": "bank"}]);
    let named = set(target("hosts", "api", &[], rules), "/spec/sources", sources);
    let bench = Bench::of(&shop().with(group("hosts", hosts)).with(named));
    let mut called = explanation_query("bank", "ServiceAccount", "shop");
    called["to"]["port"] = json!(80);
    let path = "namespaces/bank/explanations";
    let (status, body) = bench.explain("neighbour", path, called.clone()).await;
    assert_eq!(status, 201, "{body}");
    let explained = &body["status"];
    assert_eq!(explained["verdict"], "Unknown", "{explained}");
    let reason = explained["reason"].as_str().unwrap();
    assert!(reason.contains("-H 'host: "), "{explained}");
    assert!(explained.get("steps").is_none(), "{explained}");
    called["headers"] = json!([{"name": "host", "value": "cart"}]);
    let (_, body) = bench.explain("neighbour", path, called).await;
    assert_eq!(body["status"]["verdict"], "Allowed", "{body}");
}

#[tokio::test]
async fn called_side_permission_reveals_no_route_of_callers() {
    let set = json!({"set": [{"name": "x-plan", "value": "acquire"}]});
    let filter = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": set});
    let private = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "private", "namespace": "bank", "uid": "private", "generation": 1},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "namespace": "shop", "name": "api"}],
            "rules": [{
                "filters": [filter],
                "backendRefs": [{"name": "api", "namespace": "shop", "port": 80}],
            }],
        },
    });
    let caller = in_namespace(pod("teller-7", "10.0.0.70", "web"), "bank");
    let bench = Bench::of(&shop().with(namespace("bank")).with(caller).with(private));
    for (user, sees) in [("viewer", false), ("both", true)] {
        let query = explanation_query("bank", "ServiceAccount", "shop");
        let path = "namespaces/shop/explanations";
        let (status, body) = bench.explain(user, path, query).await;
        assert_eq!(status, 201, "{body}");
        for part in ["bank/private", "acquire"] {
            let is_there = body.to_string().contains(part);
            assert_eq!(is_there, sees, "{user}: {part}: {body}");
        }
    }
}

#[tokio::test]
async fn calls_to_outside_host_are_counted_by_its_object() {
    let pay = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "ExternalService",
        "metadata": {"name": "pay", "namespace": "shop"},
        "spec": {"hosts": ["api.pay.example"], "ports": [{"port": 443, "protocol": "TLS"}]},
    });
    let bench = Bench::of(&shop().with(pay));
    let now = SystemTime::now();
    let reporter = crate::observe::reports::Reporter {
        uid: "uid-client".into(),
        pod: model::world::ObjectKey::new("shop", "client"),
        account: None,
    };
    let edges = ["shop/pay", "other.example"].map(|remote| wire::v1::Edge {
        side: wire::v1::Side::Client.into(),
        success: 2,
        port: 443,
        remote: remote.to_owned(),
        ..wire::v1::Edge::default()
    });
    let report = wire::v1::Report {
        process: 1,
        slot: (interval_of(now) - 1) * INTERVAL,
        edges: edges.to_vec(),
        ..wire::v1::Report::default()
    };
    bench.reports.take(&reporter, report, true, now);
    bench.api.context.graph.look(now, true).await;
    for (host, tcp, requests) in [
        ("api.pay.example", false, json!(2)),
        ("other.example", false, json!(2)),
        ("quiet.example", false, json!(0)),
        // The address decides by which they are counted.
        ("other.example", true, Value::Null),
    ] {
        let mut query = explanation_query("shop", "Pod", "shop");
        query["to"] = json!({"kind": "External", "name": host, "port": 443});
        if tcp {
            query["tcp"] = json!(true);
            let fields = query.as_object_mut().unwrap();
            fields.retain(|field, _| !["method", "path"].contains(&field.as_str()));
        }
        let path = "namespaces/shop/explanations";
        let (status, body) = bench.explain("viewer", path, query).await;
        assert_eq!(status, 201, "{body}");
        assert_eq!(body["status"]["seen"]["requests"], requests, "{body}");
    }
}
