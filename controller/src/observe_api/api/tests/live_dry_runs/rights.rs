//! Which user may try what of live requests, and at whose proxies.
//!
//! Claims: observe-123

use super::*;
use crate::testing::cluster::{binding, in_namespace, namespace, set, tcp_route};

/// Route `read` with a pattern for this header.
fn by_header(name: &str) -> Value {
    let headers = json!({name: "Bearer eyJ[a-m].*"});
    let read = json!([{"name": "read", "pathRegex": "/items", "headers": headers}]);
    json!({"objects": [group("routes", read)], "watchSeconds": 20})
}

#[tokio::test]
async fn dry_runs_reveal_no_headers_forbidden_to_taps() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-api-1");
    for (user, header) in [
        ("owner", "Authorization"),
        ("owner", "cookie"),
        ("router", "authorization"),
        ("router", "x-account"),
    ] {
        let mut answer = watch(&bench, user, by_header(header)).await;
        let summary = until(&mut answer, |summary| summary["last"] == true).await;
        let took_part = (&summary["proxies"], &summary["takingPart"]);
        assert_eq!(took_part, (&json!(2), &json!(0)), "{user} {header}");
        let reason = summary["reasons"][0].as_str().unwrap_or_default();
        let words = format!("header {}", header.to_ascii_lowercase());
        assert!(reason.contains(&words), "{user} {header}: {summary}");
        assert!(proxy.orders.try_recv().is_err(), "{user} {header}: asked");
    }
    assert!(
        bench.recorded.lock().is_empty(),
        "no user is shown anything"
    );
    // With the right to tap there all others may be tried, and without it those that are shown.
    for (user, header) in [("owner", "x-account"), ("router", "User-Agent")] {
        let _answer = watch(&bench, user, by_header(header)).await;
        next_query(&mut proxy).await;
    }
}

#[tokio::test]
async fn pods_of_unwritable_unreadable_namespace_are_not_queried() {
    // `other` decides what `shop` admits.
    let by_port = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let read = set(
        target("read", "api", &["callers"], by_port),
        "/spec/sources/0",
        json!({"kind": "IdentityBinding", "name": "callers", "namespace": "other"}),
    );
    let cluster = shop()
        .with(namespace("other"))
        .with(tcp_route("ports", &[8080]))
        .with(read);
    let bench = Bench::of(&cluster);
    let mut proxy = Proxy::of(&bench, "uid-api-1");
    let callers = in_namespace(
        binding("callers", json!({"serviceAccount": "web"})),
        "other",
    );
    let spec = json!({"objects": [callers], "watchSeconds": 20});
    let body = json!({"apiVersion": API_VERSION, "kind": "DryRun", "spec": spec}).to_string();
    let watch = async |user: &str| {
        let path = "namespaces/other/dryruns";
        bench.send(user, Method::POST, path, body.clone()).await
    };
    let mut answer = watch("tenant").await;
    let summary = until(&mut answer, |summary| summary["last"] == true).await;
    let took_part = (&summary["proxies"], &summary["takingPart"]);
    assert_eq!(took_part, (&json!(0), &json!(0)), "how many: {summary}");
    let reason = summary["reasons"][0].as_str().unwrap_or_default();
    assert!(
        reason.starts_with("some pods are in namespaces"),
        "no yes: {summary}"
    );
    assert!(proxy.orders.try_recv().is_err(), "asked all the same");
    drop(answer);

    // Control: with the right to read the graph there it is shown what becomes of its calls.
    let _answer = watch("reader").await;
    next_query(&mut proxy).await;
}

/// Pods of `bank` called one of `shop` by address.
async fn called_by_address(bench: &Bench, port: u32) {
    let now = SystemTime::now();
    let reporter = crate::observe::reports::Reporter {
        uid: "bank-web".into(),
        pod: model::world::ObjectKey::new("bank", "web-1"),
        account: None,
    };
    let edge = v1::Edge {
        service: String::new(),
        backend: String::new(),
        port,
        ..seen_by_client("shop/api", 1, 0)
    };
    let report = v1::Report {
        process: 1,
        slot: (interval_of(now) - 1) * INTERVAL,
        edges: vec![edge],
        ..v1::Report::default()
    };
    bench.reports.take(&reporter, report, true, now);
    bench.api.context.graph.look(now, true).await;
}

#[tokio::test]
async fn unreadable_pod_ports_are_hidden_unless_called_by_address() {
    let bench = Bench::of(&read_only().with(namespace("bank")));
    called_by_address(&bench, 9090).await;
    let mut proxy = Proxy::of(&bench, "uid-api-1");
    // Control: one may read the called namespace.
    for (user, ports) in [("writer", [0, 9090]), ("editor", [8080, 9090])] {
        let mut answer = watch(&bench, user, others_for(20)).await;
        let (id, _) = next_query(&mut proxy).await;
        let rows = [8080, 9090].map(|port| {
            let edge = v1::Edge {
                caller: "bank-web".to_owned(),
                identity: "bank/web".to_owned(),
                port,
                ..seen_by_web()
            };
            v1::TrialRow {
                edge: Some(edge),
                ..refused("api/read", 1)
            }
        });
        proxy.answer_with(id, counts(rows.to_vec(), 0));
        let summary = until(&mut answer, |summary| summary["judged"] == 4).await;
        let edges = summary["edges"].as_array().unwrap();
        let shown: Vec<&Value> = edges.iter().map(|edge| &edge["port"]).collect();
        assert_eq!(shown, ports.map(|port| json!(port)).each_ref(), "{user}");
        assert_eq!(edges[0]["from"], "bank/Deployment/web", "{user}");
    }
}

#[tokio::test]
async fn user_has_one_watched_change_without_blocking_others() {
    let bench = Bench::new();
    let first = watch(&bench, "editor", others_for(20)).await;
    assert_eq!(first.status(), 200);
    let (status, summary) = read(watch(&bench, "editor", others_for(20)).await).await;
    assert_eq!(status, 429, "{summary}");
    let words = summary["message"].as_str().unwrap();
    assert!(words.contains("a change of this user's already"), "{words}");
    let other = watch(&bench, "owner", others_for(20)).await;
    assert_eq!(other.status(), 200);
    // What was refused gives back no other's place, and what has ended its own.
    let again = watch(&bench, "editor", others_for(20)).await;
    assert_eq!(again.status(), 429);
    drop(first);
    let again = watch(&bench, "editor", others_for(20)).await;
    assert_eq!(again.status(), 200);
}
