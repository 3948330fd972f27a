//! Dry runs of live calls: the rights for them, the queries to proxies, and what is shown of the
//! results.
//!
//! Claims: observe-123

use tokio::time::timeout;
use wire::v1;
use wire::v1::answered::What as Answered;
use wire::v1::ask::What as Question;
use wire::v1::to_proxy::Message as Order;

use super::dry_runs::for_others;
use super::taps::{Proxy, all_queried};
use super::*;

mod rights;

const PATIENCE: Duration = Duration::from_secs(10);

/// `user` watches what this would do.
async fn watch(bench: &Bench, user: &str, spec: Value) -> ApiResponse {
    let body = json!({"apiVersion": API_VERSION, "kind": "DryRun", "spec": spec}).to_string();
    let path = "namespaces/shop/dryruns";
    bench.send(user, Method::POST, path, body).await
}

fn others_for(seconds: u32) -> Value {
    json!({"objects": [for_others()], "watchSeconds": seconds})
}

pub(super) async fn next_query(proxy: &mut Proxy) -> (u64, v1::TrialAsk) {
    loop {
        let order = timeout(PATIENCE, proxy.orders.recv()).await;
        match order.expect("not asked") {
            Some(Order::Ask(v1::Ask {
                id,
                what: Some(Question::Trial(trial)),
                ..
            })) => return (id, trial),
            // The query before is over.
            Some(Order::EndAsk(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Deployment `web` called by this route so often: kept, refused, allowed.
fn row(route: &str, [kept, would_refuse, would_allow]: [u64; 3]) -> v1::TrialRow {
    v1::TrialRow {
        edge: Some(seen_by_web()),
        route: route.to_owned(),
        kept,
        would_refuse,
        would_allow,
    }
}

fn seen_by_web() -> v1::Edge {
    v1::Edge {
        side: v1::Side::Server.into(),
        caller: "shop-web".to_owned(),
        identity: "shop/web".to_owned(),
        port: 8080,
        protocol: v1::Protocol::Http1.into(),
        ..v1::Edge::default()
    }
}

pub(super) fn counts(rows: Vec<v1::TrialRow>, skipped: u64) -> Answered {
    Answered::Trial(v1::TrialCounts { rows, skipped })
}

pub(super) fn refused(route: &str, calls: u64) -> v1::TrialRow {
    row(route, [1, calls, 0])
}

pub(super) fn example() -> Answered {
    Answered::Example(v1::TrialExample {
        at: 1_793_610_000_000,
        edge: Some(seen_by_web()),
        route: "api/read".to_owned(),
        method: "GET".to_owned(),
        path: "/items/7".to_owned(),
        would_allow: false,
    })
}

/// The first line of a stream that is so.
async fn until(answer: &mut ApiResponse, so: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let summary = line(answer.body_mut()).await.expect("the stream ended");
            if so(&summary) {
                return summary;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("no such line")
}

#[tokio::test]
async fn called_pods_evaluate_candidate_by_edge_and_route() {
    let bench = Bench::new();
    let mut proxies = ["uid-api-1", "uid-api-2"].map(|uid| Proxy::of(&bench, uid));
    let mut client = Proxy::of(&bench, "uid-client");
    let mut answer = watch(&bench, "owner", others_for(20)).await;
    assert_eq!(answer.status(), 200);
    let first = line(answer.body_mut()).await.unwrap();
    assert_eq!(
        (&first["proxies"], &first["takingPart"]),
        (&json!(2), &json!(0))
    );
    let mut ids = Vec::new();
    for proxy in &mut proxies {
        let (id, trial) = next_query(proxy).await;
        let candidate = wire::convert::candidate(&trial).unwrap();
        let [rule] = &*candidate.rules else {
            panic!("{candidate:?}")
        };
        let other = policy::name::SpiffeId::of("cluster.local", "shop", "other").unwrap();
        assert_eq!(rule.sources, [policy::access::Source::Identity(other)]);
        assert_eq!(candidate.enforcement, policy::mode::Enforcement::Enforce);
        assert_eq!(trial.examples, 20);
        ids.push(id);
    }
    assert!(client.orders.try_recv().is_err(), "nothing changes for it");

    proxies[0].answer_with(ids[0], counts(vec![row("api/read", [3, 2, 0])], 5));
    proxies[0].answer_with(ids[0], example());
    let second = vec![row("api/read", [1, 1, 0]), row("", [0, 0, 4])];
    proxies[1].answer_with(ids[1], counts(second, 1));
    let summary = until(&mut answer, |summary| summary["judged"] == 11).await;
    assert_eq!(
        (&summary["proxies"], &summary["takingPart"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(
        (&summary["refused"], &summary["allowed"]),
        (&json!(3), &json!(4))
    );
    assert_eq!(
        (&summary["skipped"], &summary["hidden"]),
        (&json!(6), &json!(0))
    );
    let edge = |to: &str, [kept, refused, allowed]: [u64; 3]| {
        json!({"from": "shop/Deployment/web", "to": to, "port": 8080, "protocol": "http1",
            "kept": kept, "refused": refused, "allowed": allowed})
    };
    let mut edges = [
        edge("shop/Deployment/api", [3, 2, 0]),
        edge("shop/Pod/api-2", [1, 1, 0]),
        edge("shop/Pod/api-2", [0, 0, 4]),
    ];
    for named in &mut edges[..2] {
        named["route"] = json!("api/read");
    }
    assert_eq!(summary["edges"], json!(edges));
    let seen = json!([{"time": "2026-11-02T09:00:00Z", "change": "refused",
        "from": "shop/Deployment/web", "to": "shop/Deployment/api", "port": 8080,
        "route": "api/read", "method": "GET", "path": "/items/7"}]);
    assert_eq!(summary["examples"], seen);

    // A row that is reported again takes the place of the former one, and the other rows stay.
    let again = vec![row("api/read", [3, 7, 0])];
    proxies[0].answer_with(ids[0], counts(again, 5));
    let summary = until(&mut answer, |summary| summary["judged"] != 11).await;
    assert_eq!(
        (&summary["judged"], &summary["refused"]),
        (&json!(16), &json!(8))
    );
    let [went, mut stays] = proxies;
    drop(went);
    let summary = until(&mut answer, |summary| summary["takingPart"] == 1).await;
    assert_eq!(
        (&summary["proxies"], &summary["refused"]),
        (&json!(2), &json!(8))
    );

    // With its reader it ends.
    drop(answer);
    let ended = timeout(PATIENCE, stays.orders.recv()).await;
    assert_eq!(ended.unwrap(), Some(Order::EndAsk(ids[1])));
}

#[tokio::test]
async fn watched_change_needs_write_permission_before_proxies_are_queried() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-api-1");
    let split = crate::testing::cluster::split("s", "api", &[("api", 1)]);
    for (user, objects, right) in [
        (
            "viewer",
            json!([for_others()]),
            "create resource \"dryruns\"",
        ),
        (
            "editor",
            json!([split]),
            "create resource \"trafficsplits\"",
        ),
    ] {
        let spec = json!({"objects": objects, "watchSeconds": 20});
        let (status, summary) = read(watch(&bench, user, spec).await).await;
        assert_eq!(status, 403, "{user}: {summary}");
        assert!(
            summary["message"].as_str().unwrap().contains(right),
            "{summary}"
        );
    }
    assert!(proxy.orders.try_recv().is_err(), "asked all the same");
    // Control: with the right it starts, and the proxy is queried.
    let _answer = watch(&bench, "editor", others_for(20)).await;
    next_query(&mut proxy).await;
}

// Claims: observability-10
#[tokio::test]
async fn watched_change_without_tap_permission_shows_counts_only() {
    let bench = Bench::new();
    // One may create taps and not get them.
    for (user, examples) in [("editor", 0), ("half", 0), ("owner", 20)] {
        bench.recorded.lock().clear();
        let mut proxy = Proxy::of(&bench, "uid-api-1");
        let mut answer = watch(&bench, user, others_for(20)).await;
        let (id, trial) = next_query(&mut proxy).await;
        assert_eq!(trial.examples, examples, "{user}");
        // One that reports more than the query requests changes nothing.
        proxy.answer_with(id, example());
        proxy.answer_with(id, counts(vec![refused("api/read", 2)], 0));
        let summary = until(&mut answer, |summary| summary["judged"] == 3).await;
        assert_eq!(summary["refused"], 2, "{user}: {summary}");
        let shown = summary["examples"].as_array().map_or(0, Vec::len);
        assert_eq!(shown, usize::from(examples > 0), "{user}: {summary}");
        assert!(
            bench
                .reviewed
                .lock()
                .contains(&format!("{user} get taps shop"))
        );
    }
    // The user who is shown requests is named where they are.
    let written = async {
        while bench.recorded.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    let events = bench.recorded.lock().clone();
    assert_eq!(events.len(), 1, "{events:?}");
    let event: Value = serde_json::from_str(&events[0]).unwrap();
    assert_eq!(event["reason"], "TapStarted");
    assert!(event["note"].as_str().unwrap().contains("owner"), "{event}");
    assert_eq!(event["metadata"]["namespace"], "shop");
}

#[tokio::test]
async fn unreadable_edges_are_summed_into_one_number() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-api-1");
    let mut answer = watch(&bench, "blind", others_for(20)).await;
    let (id, _) = next_query(&mut proxy).await;
    let rows = vec![refused("api/read", 2), refused("", 1)];
    proxy.answer_with(id, counts(rows, 0));
    proxy.answer_with(id, example());
    let summary = until(&mut answer, |summary| summary["judged"] == 5).await;
    assert_eq!(
        (&summary["hidden"], &summary["refused"]),
        (&json!(5), &json!(3))
    );
    assert_eq!(summary["edges"], json!([]), "{summary}");
    assert!(!summary.to_string().contains("web"), "{summary}");
    drop(answer);

    // Control: with the right to read them it is shown where they are.
    proxy.orders.recv().await;
    let mut answer = watch(&bench, "editor", others_for(20)).await;
    let (id, _) = next_query(&mut proxy).await;
    proxy.answer_with(id, counts(vec![refused("api/read", 2)], 0));
    let summary = until(&mut answer, |summary| summary["judged"] == 3).await;
    assert_eq!(
        (&summary["hidden"], &summary["refused"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(summary["edges"][0]["from"], "shop/Deployment/web");
}

#[tokio::test]
async fn non_participating_proxies_are_excluded_with_reason() {
    let bench = Bench::new();
    let mut proxies = ["uid-api-1", "uid-api-2"].map(|uid| Proxy::of(&bench, uid));
    let mut answer = watch(&bench, "editor", others_for(20)).await;
    let (id, _) = next_query(&mut proxies[0]).await;
    proxies[0].answer_with(id, counts(Vec::new(), 0));
    let (id, _) = next_query(&mut proxies[1]).await;
    let why = format!("\u{1b}[2J{}", "x".repeat(1_000));
    proxies[1].answer_with(id, Answered::Refused(why));
    let summary = until(&mut answer, |summary| summary.get("reasons").is_some()).await;
    assert_eq!(
        (&summary["proxies"], &summary["takingPart"]),
        (&json!(2), &json!(1))
    );
    let reason = summary["reasons"][0].as_str().unwrap();
    assert!(
        reason.starts_with("?[2Jxxx") && reason.len() == 200,
        "{reason}"
    );
    drop(answer);

    // More patterns than a proxy tries: none is queried at all.
    let matches = |name: &str| {
        let one = |at: u32| json!({"name": format!("m{at}"), "pathRegex": format!("/{at}")});
        let matches: Vec<Value> = (0..40).map(one).collect();
        group(name, json!(matches))
    };
    let both = json!([{"kind": "HTTPRouteGroup", "name": "routes"},
        {"kind": "HTTPRouteGroup", "name": "more"}]);
    let objects = [
        matches("routes"),
        matches("more"),
        target("read", "api", &["web"], both),
    ];
    let spec = json!({"objects": objects, "watchSeconds": 20});
    for proxy in &mut proxies {
        proxy.orders.recv().await;
    }
    let mut answer = watch(&bench, "owner", spec).await;
    let summary = until(&mut answer, |_| true).await;
    assert_eq!(
        (&summary["proxies"], &summary["takingPart"]),
        (&json!(2), &json!(0))
    );
    let reason = summary["reasons"][0].as_str().unwrap();
    assert!(reason.contains("80 patterns"), "{reason}");
    assert!(proxies[0].orders.try_recv().is_err(), "asked all the same");
}

#[tokio::test]
async fn fabricated_rows_of_one_proxy_are_bounded_but_summed() {
    let bench = Bench::new();
    let proxy = &mut Proxy::of(&bench, "uid-api-1");
    let mut answer = watch(&bench, "editor", others_for(20)).await;
    let (id, _) = next_query(proxy).await;
    let many = (0..400).map(|at| refused(&format!("\"\\\n{at}"), 1));
    proxy.answer_with(id, counts(many.collect(), 0));
    proxy.answer_with(id, counts(vec![refused("more", u64::MAX)], u64::MAX));
    let summary = until(&mut answer, |summary| summary["skipped"] == u64::MAX).await;
    // 136 rows of one proxy, and 100 edges of a line.
    assert_eq!(
        (&summary["judged"], &summary["refused"]),
        (&json!(272), &json!(136))
    );
    assert_eq!(summary["edges"].as_array().unwrap().len(), 100);
    assert_eq!(summary["truncated"], true);
    assert_eq!(summary["edges"][0]["route"], "???0");
    assert!(summary.to_string().len() < 64 * 1024);
}

#[tokio::test]
async fn excessive_watched_changes_are_refused_and_empty_one_finishes() {
    let bench = Bench::new();
    let (status, summary) = read(watch(&bench, "editor", others_for(51)).await).await;
    assert_eq!(status, 400, "{summary}");
    let words = summary["message"].as_str().unwrap();
    assert!(words.contains("spec.watchSeconds: 51"), "{words}");

    // As it is.
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    let same = json!({"objects": [target("read", "api", &["web"], rules)], "watchSeconds": 20});
    let mut answer = watch(&bench, "editor", same).await;
    let summary = until(&mut answer, |summary| summary["last"] == true).await;
    assert_eq!(
        (&summary["proxies"], &summary["judged"]),
        (&json!(0), &json!(0))
    );
    drop(answer);

    let mut open = Vec::new();
    for user in ["editor", "blind"] {
        open.push(watch(&bench, user, others_for(20)).await);
    }
    assert!(open.iter().all(|answer| answer.status() == 200));
    let (status, summary) = read(watch(&bench, "owner", others_for(20)).await).await;
    assert_eq!(status, 429, "{summary}");
    open.pop();
    let again = watch(&bench, "owner", others_for(20)).await;
    assert_eq!(again.status(), 200, "one has ended");
}

#[tokio::test]
async fn watched_change_beyond_proxy_limit_gets_no_retry_time() {
    let bench = Bench::new();
    let mut open = all_queried(&bench);
    let full = watch(&bench, "editor", others_for(20)).await;
    assert_eq!(full.status(), 429, "{} are open", open.len());
    assert!(!full.headers().contains_key("retry-after"));
    open.pop();
    let control = watch(&bench, "editor", others_for(20)).await;
    assert_eq!(control.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn watched_change_lasts_requested_time_and_informs_proxies() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-api-1");
    for seconds in [7, 50] {
        let started = tokio::time::Instant::now();
        let mut answer = watch(&bench, "editor", others_for(seconds)).await;
        let Ok(Order::Ask(ask)) = proxy.orders.try_recv() else {
            panic!("not asked")
        };
        assert_eq!(ask.lasts, u64::from(seconds + 10) * 1_000);
        let mut last = Value::Null;
        while let Some(next) = line(answer.body_mut()).await {
            last = next;
        }
        assert_eq!(last["last"], true, "{last}");
        let took = started.elapsed().as_millis();
        let wanted = u128::from(seconds) * 1_000;
        assert!((wanted..wanted + 500).contains(&took), "{seconds}: {took}");
        drop(answer);
        assert!(matches!(proxy.orders.try_recv(), Ok(Order::EndAsk(_))));
    }
}
