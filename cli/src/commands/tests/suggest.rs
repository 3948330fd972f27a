//! Messages beside a suggestion, and about the dry run at its end.
//!
//! Claims: observe-14, observe-5

use super::*;

const API: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop";

/// `web` has called `cart` by its own address.
fn graph() -> Value {
    let id = |name: &str| format!("shop/Deployment/{name}");
    let account = |name: &str| format!("spiffe://cluster.local/ns/shop/sa/{name}");
    let node = |name: &str| {
        json!({"id": id(name), "kind": "Deployment", "namespace": "shop", "name": name,
            "accounts": [account(name)]})
    };
    let edge = json!({"id": "1", "from": id("web"), "to": id("cart"), "port": 8080,
        "protocol": "http1", "requests": 5, "success": 5, "mtls": 1.0,
        "server": {"requests": 5, "failure": 0, "mtls": 1.0}, "identities": [account("web")]});
    json!({"metadata": {"windowSeconds": 300, "complete": true, "sides": true},
        "nodes": [node("web"), node("cart")], "edges": [edge]})
}

#[tokio::test]
async fn inconclusive_suggestion_advises_options_of_suggest() {
    let depends = json!({"change": "depends", "from": "shop/Deployment/web",
        "to": "shop/Deployment/cart", "port": 8080, "podPorts": [8080]});
    for (status, advice) in [
        (
            json!({"changed": [depends]}),
            "`weft dry-run -f FILE --watch 60s`",
        ),
        (json!({"kept": 1, "uncompared": 2}), "--to RES suggests"),
    ] {
        let api = FakeApi::default();
        api.put(&format!("{API}/graphs/live"), graph());
        api.judge(&format!("{API}/dryruns"), status);
        let (code, out, err) = run(api.client(), "weft suggest -n shop").await;
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("kind: TrafficTarget"), "{out}{err}");
        assert!(out.starts_with("# Ports are those of containers"), "{out}");
        assert!(err.contains(advice), "{err}");
        assert!(!err.contains("; --watch"), "{err}");
    }
}

#[tokio::test]
async fn account_warning_and_audit_advice_appear_in_every_format() {
    let api = FakeApi::default();
    api.judge(&format!("{API}/dryruns"), json!({"kept": 1}));
    let warning = "warning: shop/default is the account of every pod that names none";
    for format in ["table", "json", "yaml"] {
        for (account, is_shared) in [("default", true), ("web", false)] {
            let graph = graph().to_string();
            let graph = graph.replace("/sa/web", &format!("/sa/{account}"));
            let graph: Value = serde_json::from_str(&graph).unwrap();
            api.put(&format!("{API}/graphs/live"), graph);
            let line = format!("weft suggest -n shop -o {format}");
            let (code, out, err) = run(api.client(), &line).await;
            assert_eq!(code, 0, "{line}: {err}");
            assert!(out.contains("TrafficTarget"), "{line}: {out}{err}");
            let is_reported = err.contains(warning);
            assert_eq!(is_reported, is_shared, "{line} of {account}: {err}");
            assert!(err.contains("weft.dev/access=audit"), "{line}: {err}");
            assert!(!out.contains("audit"), "{line}: {out}");
        }
    }
}

#[tokio::test]
async fn refused_and_caller_only_calls_appear_in_every_format() {
    let api = FakeApi::default();
    api.judge(&format!("{API}/dryruns"), json!({"kept": 1}));
    let mut graph = graph();
    let mut made_up = graph["edges"][0].clone();
    made_up["id"] = json!("2");
    made_up["port"] = json!(9090);
    made_up["server"] = json!({"requests": 4, "failure": 4, "refused": {"not-allowed": 4}});
    graph["edges"].as_array_mut().unwrap().push(made_up);
    api.put(&format!("{API}/graphs/live"), graph);
    let said = [
        "left out: deploy/web to deploy/cart port 9090: reported by its caller alone",
        "refused: deploy/web to deploy/cart port 9090: 4 of its calls in the last 300 s",
    ];
    for (line, in_output) in [
        ("weft suggest -n shop", true),
        ("weft suggest -n shop -o json", false),
    ] {
        let (code, out, err) = run(api.client(), line).await;
        assert_eq!(code, 0, "{line}: {err}");
        assert_eq!(out.matches("TrafficTarget").count(), 1, "{line}: {out}");
        let words = if in_output { &out } else { &err };
        for part in said {
            assert!(words.contains(part), "{line}: no {part:?} in {out}{err}");
        }
        // The edge that both sides reported has no note.
        assert!(!words.contains("port 8080:"), "{line}: {out}{err}");
    }
}

#[tokio::test]
async fn period_without_minutes_is_reported_in_every_format() {
    let api = FakeApi::default();
    api.judge(&format!("{API}/dryruns"), json!({"kept": 1}));
    let mut graph = graph();
    graph["metadata"]["end"] = json!("2026-11-02T10:00:00Z");
    for (since, is_reported) in [(json!("2026-11-02T09:48:00Z"), true), (Value::Null, false)] {
        graph["metadata"]["historySince"] = since;
        api.put(&format!("{API}/graphs/live"), graph.clone());
        for line in ["weft suggest -n shop", "weft suggest -n shop -o json"] {
            let (code, out, err) = run(api.client(), line).await;
            assert_eq!(code, 0, "{line}: {err}");
            assert_eq!(out.matches("TrafficTarget").count(), 1, "{line}: {out}");
            let words = "these are the calls of the last 12 min alone";
            assert_eq!(err.contains(words), is_reported, "{line}: {err}");
            // Edges are retained for longer than the results of their calls.
            let before = err.contains("knows at most who called whom");
            assert_eq!(before, is_reported, "{line}: {err}");
        }
    }
}

#[tokio::test]
async fn older_controllers_calls_without_sides_are_skipped() {
    let api = FakeApi::default();
    api.judge(&format!("{API}/dryruns"), json!({"kept": 1}));
    let mut graph = graph();
    let served = graph["edges"][0]["server"].clone();
    let failed = json!({"requests": 5, "failure": 5, "mtls": 1.0});
    for (sides, server, why) in [
        (false, &Value::Null, "this controller is older than this"),
        (true, &Value::Null, "reported by its caller alone"),
        // What both sides counted, such a controller reports too.
        (false, &served, ""),
        (
            false,
            &failed,
            "reported by its caller alone: the called pods",
        ),
    ] {
        graph["metadata"]["sides"] = json!(sides);
        graph["edges"][0]["server"] = server.clone();
        api.put(&format!("{API}/graphs/live"), graph.clone());
        let (code, out, err) = run(api.client(), "weft suggest -n shop").await;
        assert_eq!(code, 0, "as where numbers are missing: {err}");
        let left_out = format!("left out: deploy/web to deploy/cart port 8080: {why}");
        assert_eq!(out.contains(&left_out), !why.is_empty(), "{out}{err}");
        assert_eq!(out.contains("TrafficTarget"), why.is_empty(), "{out}{err}");
        let is_older = why.starts_with("this controller");
        assert_eq!(err.contains("upgrade it"), is_older, "{err}");
        let none = err.contains("nothing to suggest");
        let is_known = why.starts_with("reported");
        assert_eq!(none, is_known, "of calls that may have been served: {err}");
    }
}

#[tokio::test]
async fn caller_only_calls_are_provisional_in_incomplete_graph() {
    let api = FakeApi::default();
    let mut graph = graph();
    graph["edges"][0]["server"] = Value::Null;
    for complete in [true, false] {
        graph["metadata"]["complete"] = json!(complete);
        api.put(&format!("{API}/graphs/live"), graph.clone());
        let (code, out, err) = run(api.client(), "weft suggest -n shop").await;
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("reported by its caller alone"), "{out}{err}");
        let is_reported = out.contains("as far as was reported by now");
        assert_eq!(is_reported, !complete, "{out}{err}");
    }
}

#[tokio::test]
async fn account_shared_by_two_workloads_is_warned() {
    let api = FakeApi::default();
    api.judge(&format!("{API}/dryruns"), json!({"kept": 1}));
    let warning = "warning: shop/web is the account of 2 workloads (deploy/idle and deploy/web)";
    for (account, is_shared) in [("web", true), ("idle", false)] {
        let mut graph = graph();
        let idle = json!({"id": "shop/Deployment/idle", "kind": "Deployment", "namespace": "shop",
            "name": "idle", "accounts": [format!("spiffe://cluster.local/ns/shop/sa/{account}")]});
        graph["nodes"].as_array_mut().unwrap().push(idle);
        api.put(&format!("{API}/graphs/live"), graph);
        for line in ["weft suggest -n shop", "weft suggest -n shop -o json"] {
            let (code, out, err) = run(api.client(), line).await;
            assert_eq!(code, 0, "{line}: {err}");
            assert_eq!(err.contains(warning), is_shared, "{account}: {err}");
            assert!(!out.contains("warning"), "{line}: {out}");
        }
    }
}
