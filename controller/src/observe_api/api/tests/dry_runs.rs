//! What a change would mean, which rights that takes, and how much of it each user is shown.
//!
//! Claims: observe-108, observe-109, observe-117

use futures::future::join_all;
use http_body_util::BodyExt as _;
use model::world::ObjectKey;
use wire::v1;

use super::*;
use crate::observe::reports::Reporter;
use crate::testing::cluster::{in_namespace, namespace};

/// `client` has called `api`, whose target lets it read.
pub(super) async fn bench() -> Bench {
    let bench = Bench::new();
    let now = SystemTime::now();
    let reporter = Reporter {
        uid: "uid-client".into(),
        pod: ObjectKey::new("shop", "client"),
        account: None,
    };
    let edge = v1::Edge {
        security: v1::Security::Mtls.into(),
        protocol: v1::Protocol::Http1.into(),
        ..seen_by_client("shop/api", 3, 1)
    };
    // A port that it does not have, of which no change can make anything else.
    let lacked = v1::Edge {
        port: 81,
        pod: String::new(),
        backend: String::new(),
        ..edge.clone()
    };
    let report = v1::Report {
        process: 1,
        slot: (interval_of(now) - 1) * INTERVAL,
        edges: vec![edge, lacked],
        ..v1::Report::default()
    };
    bench.reports.take(&reporter, report, true, now);
    bench.api.context.graph.look(now, true).await;
    bench
}

async fn tried(bench: &Bench, user: &str, spec: Value) -> (u16, Value) {
    let body = json!({"apiVersion": API_VERSION, "kind": "DryRun", "spec": spec}).to_string();
    let path = "namespaces/shop/dryruns";
    let (status, answer) = read(bench.send(user, Method::POST, path, body).await).await;
    let returned = match status {
        201 => answer["status"].clone(),
        _ => answer,
    };
    (status, returned)
}

pub(super) fn for_others() -> Value {
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    target("read", "api", &["other"], rules)
}

fn deletion() -> Value {
    json!([{"kind": "TrafficTarget", "namespace": "shop", "name": "read"}])
}

#[tokio::test]
async fn dry_run_reports_each_edge_and_changes_nothing() {
    let bench = bench().await;
    for (spec, change, reason) in [
        (
            json!({"objects": [for_others()]}),
            "refused",
            json!("not-allowed"),
        ),
        (json!({"delete": deletion()}), "allowed", Value::Null),
        (
            json!({"delete": deletion(), "access": [{"namespace": "shop", "mode": "deny"}]}),
            "refused",
            json!("not-allowed"),
        ),
    ] {
        let (status, answer) = tried(&bench, "editor", spec.clone()).await;
        assert_eq!(status, 201, "{spec}: {answer}");
        let [edge] = &**answer["changed"].as_array().unwrap() else {
            panic!("{spec}: {answer}")
        };
        assert_eq!(edge["change"], change, "{spec}: {answer}");
        assert_eq!(edge["reason"], reason, "{spec}: {answer}");
        assert_eq!(edge["from"], "shop/Pod/client");
        assert_eq!(
            (&edge["service"], &edge["port"]),
            (&json!("shop/api"), &json!(80))
        );
        assert_eq!(answer["hidden"], 0);
    }
    // The same once more: nothing of all that is there now.
    let same = json!({"objects": [for_others()]});
    let (_, answer) = tried(&bench, "editor", same).await;
    assert_eq!(answer["changed"][0]["change"], "refused");
}

// Claims: observability-10
#[tokio::test]
async fn dry_run_requires_permission_for_the_change() {
    let bench = bench().await;
    let split = crate::testing::cluster::split("s", "api", &[("api", 1)]);
    for (user, spec, right) in [
        (
            "viewer",
            json!({"delete": deletion()}),
            "create resource \"dryruns\"",
        ),
        (
            "editor",
            json!({"objects": [split]}),
            "create resource \"trafficsplits\"",
        ),
        (
            "blind",
            json!({"delete": deletion()}),
            "delete resource \"traffictargets\"",
        ),
        (
            "blind",
            json!({"access": [{"namespace": "shop", "mode": "deny"}]}),
            "update resource \"namespaces\"",
        ),
    ] {
        let (status, answer) = tried(&bench, user, spec).await;
        assert_eq!(status, 403, "{user}: {answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(right),
            "{answer}"
        );
    }
    // Of graphs without the right to read them the response has a number.
    let (status, answer) = tried(&bench, "blind", json!({"objects": [for_others()]})).await;
    assert_eq!(status, 201, "{answer}");
    let counts = (
        &answer["changed"],
        &answer["hidden"],
        &answer["hiddenRefused"],
    );
    assert_eq!(counts, (&json!([]), &json!(1), &json!(1)));
    // How many others there are is none of them.
    assert_eq!(
        (&answer["kept"], &answer["unknown"]),
        (&json!(0), &json!(0))
    );
    // Nor does it have how many stay as they are.
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    let wider = target("read", "api", &["web", "other"], rules);
    for (user, kept) in [("editor", 2), ("blind", 0)] {
        let (status, answer) = tried(&bench, user, json!({"objects": [wider.clone()]})).await;
        assert_eq!(status, 201, "{user}: {answer}");
        assert_eq!(answer["kept"], json!(kept), "{user}: {answer}");
    }
}

// Claims: observe-118
#[tokio::test]
async fn dry_run_accepts_patch_but_deletion_needs_delete_permission() {
    let bench = bench().await;
    let change = json!({"objects": [for_others()]});
    let mode = json!({"access": [{"namespace": "shop", "mode": "deny"}]});
    let gone = json!({"delete": deletion()});
    let mut new = for_others();
    new["metadata"]["name"] = json!("write");
    let new = json!({"objects": [new]});
    for (user, spec, missing) in [
        ("patcher", &change, None),
        ("patcher", &mode, None),
        ("patcher", &gone, Some("cannot delete")),
        ("patcher", &new, Some("cannot create")),
        ("remover", &gone, None),
        ("remover", &change, Some("cannot create")),
    ] {
        let (status, answer) = tried(&bench, user, spec.clone()).await;
        let wanted = if missing.is_some() { 403 } else { 201 };
        assert_eq!(status, wanted, "{user} {spec}: {answer}");
        if let Some(words) = missing {
            let message = answer["message"].as_str().unwrap();
            let words = format!("{words} resource \"traffictargets\"");
            assert!(message.contains(&words), "{user} {spec}: {message}");
        }
    }
}

/// Namespace `bank` is there and has TrafficTarget `read`, or neither is.
fn with_bank(there: bool) -> Bench {
    let cluster = read_only();
    if there {
        Bench::of(&cluster.with(namespace("bank")).with(of_bank()))
    } else {
        Bench::of(&cluster)
    }
}

fn of_bank() -> Value {
    in_namespace(for_others(), "bank")
}

// Claims: observe-118
#[tokio::test]
async fn dry_run_reveals_nothing_about_unreadable_namespaces() {
    // The complete response, and the API server's part in it.
    let asked = async |user: &str, there: bool, spec: &Value| {
        let bench = with_bank(there);
        let body = json!({"apiVersion": API_VERSION, "kind": "DryRun", "spec": spec}).to_string();
        let path = "namespaces/shop/dryruns";
        let answer = bench.send(user, Method::POST, path, body).await;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let reviewed = bench.reviewed.lock().clone();
        (head.status.as_u16(), head.headers, body, reviewed)
    };
    let change = json!({"objects": [of_bank()]});
    let watched = json!({"objects": [of_bank()], "watchSeconds": 20});
    let gone = json!({"delete": [{"kind": "TrafficTarget", "namespace": "bank", "name": "read"}]});
    let mode = json!({"access": [{"namespace": "bank", "mode": "deny"}]});
    for spec in [&change, &watched, &gone, &mode] {
        let there = asked("prober", true, spec).await;
        assert_eq!(there.0, 403, "{spec}: {there:?}");
        assert_eq!(there, asked("prober", false, spec).await, "{spec}");
    }

    // Control: with the right to get it, or to learn it from the API server, the refusal names what
    // is missing.
    let update = "cannot update resource \"traffictargets\"";
    let create = "cannot create resource \"traffictargets\"";
    let absent = "there is no TrafficTarget";
    for (user, spec, [there, missing]) in [
        ("knower", &change, [(403, update), (403, create)]),
        ("knower", &watched, [(403, update), (403, create)]),
        ("knower", &gone, [(201, ""), (400, absent)]),
        ("maker", &change, [(403, update), (201, "")]),
    ] {
        for (is_there, (status, words)) in [(true, there), (false, missing)] {
            let answer = asked(user, is_there, spec).await;
            assert_eq!(answer.0, status, "{user} {spec} {is_there}: {answer:?}");
            let body: Value = serde_json::from_slice(&answer.2).unwrap();
            let message = body["message"].as_str().unwrap_or_default();
            assert!(message.contains(words), "{user} {spec}: {message}");
        }
    }
}

// Claims: observe-119
#[tokio::test]
async fn concurrent_dry_runs_are_all_answered() {
    let bench = bench().await;
    let all = (0..6).map(|_| tried(&bench, "editor", json!({"delete": deletion()})));
    for (status, answer) in join_all(all).await {
        assert_eq!(status, 201, "{answer}");
        assert_eq!(answer["changed"][0]["change"], "allowed", "{answer}");
    }
}

#[tokio::test]
async fn dry_run_is_unavailable_before_calls_are_loaded() {
    let mut bench = Bench::new();
    let context = &mut Arc::get_mut(&mut bench.api).unwrap().context;
    context.graph = Graph::new(
        bench.reports.clone(),
        Arc::clone(&context.followed.inventory),
        context.latest.clone(),
        Duration::from_secs(3600),
        GraphMetrics::default(),
    );
    let (status, answer) = tried(&bench, "editor", json!({"delete": deletion()})).await;
    assert_eq!(status, 503, "{answer}");
    bench.api.context.graph.startup().set_loaded();
    let (status, answer) = tried(&bench, "editor", json!({"delete": deletion()})).await;
    assert_eq!(status, 201, "{answer}");
}

/// They would call safe what refuses some caller.
#[tokio::test]
async fn permanent_dry_run_obstacle_is_named() {
    let mut bench = Bench::new();
    bench.begin_anew();
    let why = "ConfigMap weft-graph-3 cannot be fetched";
    bench
        .api
        .context
        .graph
        .startup()
        .cannot_load(why.to_owned());
    let (status, answer) = tried(&bench, "editor", json!({"delete": deletion()})).await;
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(status == 503 && message.contains("try again"), "{answer}");
    bench.api.context.graph.startup().grow();
    let (status, answer) = tried(&bench, "editor", json!({"delete": deletion()})).await;
    assert_eq!((status, &answer["message"]), (503, &json!(why)), "{answer}");
    bench.api.context.graph.startup().set_loaded();
    let (status, answer) = tried(&bench, "editor", json!({"delete": deletion()})).await;
    assert_eq!(status, 201, "{answer}");
}

#[tokio::test]
async fn what_admission_refuses_is_refused_in_its_words() {
    let bench = bench().await;
    let unreadable = json!({
        "apiVersion": "access.smi-spec.io/v1alpha4", "kind": "TrafficTarget",
        "metadata": {"namespace": "shop", "name": "read"}, "spec": {"destination": 7},
    });
    let nameless = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}});
    let foreign = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "x"}});
    for (spec, words) in [
        (json!({}), "spec.objects: there is nothing to try"),
        (
            json!({"objects": [unreadable]}),
            "spec.objects[0]: would be refused",
        ),
        (json!({"objects": [nameless]}), "needs metadata.name"),
        (json!({"objects": [foreign]}), "is none of TrafficTarget"),
        (
            json!({"access": [{"namespace": "shop", "mode": "shut"}]}),
            "spec.access[0].mode",
        ),
        (json!({"delete": [{"kind": "Secret"}]}), "spec.delete[0]"),
        (
            json!({"delete": [{"kind": "TrafficTarget", "namespace": "shop", "name": "raed"}]}),
            "spec.delete[0]: there is no TrafficTarget shop/raed",
        ),
        (
            json!({"access": [{"namespace": "shpo", "mode": "deny"}]}),
            "spec.access[0].namespace: there is no namespace shpo",
        ),
    ] {
        let (status, answer) = tried(&bench, "editor", spec.clone()).await;
        assert_eq!(status, 400, "{spec}: {answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(words), "{words}: {message}");
    }
}

// Claims: observe-116
#[tokio::test]
async fn dry_run_suggests_names_for_unknown_fields() {
    let bench = bench().await;
    let mut misspelt = for_others();
    misspelt["spec"]["rules"][0]["match"] = json!(["read"]);
    let (status, answer) = tried(&bench, "editor", json!({"objects": [misspelt]})).await;
    assert_eq!(status, 201, "{answer}");
    let [warning] = &**answer["warnings"].as_array().unwrap() else {
        panic!("{answer}")
    };
    let warning = warning.as_str().unwrap();
    assert!(
        warning.starts_with("TrafficTarget shop/read: spec.rules[0].match: is no field"),
        "{warning}"
    );
    assert!(warning.ends_with("; matches is one"), "{warning}");
    // As it should be, there is no warning.
    let (_, answer) = tried(&bench, "editor", json!({"objects": [for_others()]})).await;
    assert_eq!(
        answer["warnings"].as_array().map_or(0, Vec::len),
        0,
        "{answer}"
    );
    // A name that the API server would refuse.
    let mut named = for_others();
    named["metadata"]["name"] = json!("Read_1");
    let (status, answer) = tried(&bench, "editor", json!({"objects": [named]})).await;
    assert_eq!(status, 400, "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("metadata.name: is \"Read_1\""),
        "{message}"
    );
}
