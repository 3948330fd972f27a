//! What the API shows of proxies.
//!
//! Claims: observe-105, observe-151, observe-33

use std::sync::Arc;
use std::time::Duration;

use policy::name::{Kind, ObjectRef};
use serde_json::{Value, json};
use wire::v1;
use wire::v1::answered::What as Answered;
use wire::v1::to_proxy::Message as Order;

use super::{Bench, read_only};
use crate::testing::cluster::{in_namespace, namespace, pod, revocation, service, set, shop};

#[tokio::test]
async fn proxies_show_what_they_say_of_themselves() {
    let bench = Bench::new();
    let path = "namespaces/shop/proxies/client";
    let (_, body) = bench.get("viewer", path).await;
    let uid = body["metadata"]["uid"].as_str().unwrap().to_owned();
    assert!(body["status"].get("memory").is_none(), "{body}");
    let status = wire::v1::ProxyStatus {
        certificate: Some(wire::v1::Certificate {
            serial: "0a:0b".to_owned(),
            issuer: "CN=weft".to_owned(),
            not_after: 1_800_000_000,
            not_before: 1_799_913_300,
            authority: vec![0xab; 16],
        }),
        memory: 12 << 20,
        draining: true,
        now: 0,
        trusts: vec![vec![0xcd; 16], vec![0x0e; 16]],
    };
    let state = wire::v1::ProxyState {
        namespace: "shop".to_owned(),
        pod: "client".to_owned(),
        uid,
        version: "9.9.9".to_owned(),
        lacks: vec!["telemetry".to_owned()],
        status: Some(status),
        clock_ahead: -7,
        ..wire::v1::ProxyState::default()
    };
    bench.api.context.observed.note(1, state);
    let (_, body) = bench.get("viewer", path).await;
    for (field, expected) in [
        ("version", json!("9.9.9")),
        ("connected", json!(true)),
        (
            "certificate",
            json!({"serial": "0a:0b", "issued": "2027-01-14T08:00:00Z",
                "notAfter": "2027-01-15T08:00:00Z", "issuer": "CN=weft",
                "authority": "ab".repeat(16)}),
        ),
        ("trusts", json!(["cd".repeat(16), "0e".repeat(16)])),
        ("memory", json!(12 << 20)),
        ("draining", json!(true)),
        ("clockAheadMs", json!(-7)),
        ("lacks", json!(["telemetry"])),
    ] {
        assert_eq!(body["status"][field], expected, "{field} of {body}");
    }
}

#[tokio::test]
async fn certificate_without_start_time_shows_configured_lifetime() {
    let bench = Bench::new();
    let mut state = client(&[]);
    state.status = Some(v1::ProxyStatus {
        certificate: Some(v1::Certificate {
            serial: "0a:0b".to_owned(),
            issuer: "CN=weft".to_owned(),
            not_after: 1_800_000_000,
            ..v1::Certificate::default()
        }),
        ..v1::ProxyStatus::default()
    });
    bench.api.context.observed.note(1, state);
    let path = "namespaces/shop/proxies/client?config=0";
    let (_, body) = bench.get("viewer", path).await;
    assert_eq!(
        body["status"]["certificate"],
        json!({"serial": "0a:0b", "ttlSeconds": 900, "notAfter": "2027-01-15T08:00:00Z",
            "issuer": "CN=weft"}),
        "{body}"
    );
    assert_eq!(body["status"].get("trusts"), None, "{body}");
}

#[tokio::test(start_paused = true)]
async fn proxy_lag_is_shown_with_its_duration() {
    let bench = Bench::new();
    let path = "namespaces/shop/proxies/client?config=0";
    let split = ObjectRef {
        kind: Kind::TrafficSplit,
        namespace: "shop".into(),
        name: "api".into(),
    };
    let having = |acknowledged| v1::ProxyState {
        objects: vec![v1::ObjectState {
            object: Some(v1::ObjectRef::from(&split)),
            needed: 1,
            acknowledged,
            ..v1::ObjectState::default()
        }],
        ..client(&[])
    };
    let observed = &bench.api.context.observed;
    observed.note(1, having(false));
    tokio::time::advance(Duration::from_secs(61)).await;
    let (_, body) = bench.get("viewer", path).await;
    let behind = body["status"]["behindSeconds"].as_u64();
    assert!(
        behind.is_some_and(|seconds| (61..70).contains(&seconds)),
        "{body}"
    );
    observed.note(1, having(true));
    let (_, body) = bench.get("viewer", path).await;
    assert_eq!(body["status"]["acknowledged"], 1, "{body}");
    assert!(body["status"].get("behindSeconds").is_none(), "{body}");
}

#[tokio::test]
async fn proxies_revoked_for_good_name_the_revocation() {
    let web = json!({"serviceAccount": {"namespace": "shop", "name": "web"}});
    let leak = revocation("leak", json!({"reason": "test", "subjects": [web]}));
    let bench = Bench::of(&shop().with(leak));
    for (pod, by) in [("client", json!("leak")), ("api-1", Value::Null)] {
        let path = format!("namespaces/shop/proxies/{pod}?config=0");
        let (_, body) = bench.get("viewer", &path).await;
        assert_eq!(body["status"]["revokedBy"], by, "{body}");
    }
}

#[tokio::test]
async fn lag_of_unknown_kind_has_no_invented_duration() {
    let bench = Bench::new();
    let lacking = v1::ProxyState {
        objects: vec![v1::ObjectState {
            object: Some(v1::ObjectRef {
                kind: "Later".to_owned(),
                namespace: "shop".to_owned(),
                name: "api".to_owned(),
            }),
            needed: 1,
            ..v1::ObjectState::default()
        }],
        ..client(&[])
    };
    bench.api.context.observed.note(1, lacking);
    let path = "namespaces/shop/proxies/client?config=0";
    let (_, body) = bench.get("viewer", path).await;
    let status = &body["status"];
    assert_eq!(
        (&status["needed"], &status["acknowledged"]),
        (&1.into(), &0.into())
    );
    assert!(status.get("behindSeconds").is_none(), "{body}");
}

/// The proxy of `client` is there, is queried and responds, until the task ends. Returns how often.
pub(super) fn answering(bench: &Bench, uid: &str) -> tokio::sync::watch::Receiver<usize> {
    holding(bench, uid, &["workload"])
}

/// The same with other resources than its own.
fn holding(
    bench: &Bench,
    uid: &str,
    names: &'static [&'static str],
) -> tokio::sync::watch::Receiver<usize> {
    let live_queries = bench.api.context.live_queries.clone();
    let uid: Arc<str> = uid.into();
    let (here, mut orders) = live_queries.listens(Arc::clone(&uid));
    let (count, counted) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        let _here = here;
        while let Some(order) = orders.recv().await {
            let Order::Ask(ask) = order else { continue };
            count.send_modify(|count| *count += 1);
            let resources = names.iter().map(|name| v1::HeldResource {
                name: (*name).to_owned(),
                version: "00ff".to_owned(),
            });
            let config = v1::HeldConfig {
                last: true,
                identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
                enforcement: "audit".to_owned(),
                mtls: "permissive".to_owned(),
                resources: resources.collect(),
                ..v1::HeldConfig::default()
            };
            let what = Some(Answered::Config(config));
            live_queries.answered(&uid, v1::Answered { id: ask.id, what });
        }
    });
    counted
}

/// `client`, whose proxy streams and lacks this.
pub(super) fn client(lacks: &[&str]) -> v1::ProxyState {
    v1::ProxyState {
        namespace: "shop".to_owned(),
        pod: "client".to_owned(),
        uid: "uid-client".to_owned(),
        lacks: lacks.iter().map(|one| (*one).to_owned()).collect(),
        ..v1::ProxyState::default()
    }
}

#[tokio::test]
async fn single_proxy_says_itself_what_it_holds() {
    let bench = Bench::new();
    let path = "namespaces/shop/proxies/client";
    let answered_by = answering(&bench, "uid-client");
    let (_, body) = bench.get("viewer", path).await;
    assert_eq!(body["metadata"]["uid"], "uid-client");
    assert!(body["status"].get("config").is_none(), "not connected");

    let observed = &bench.api.context.observed;
    observed.note(1, client(&["asks"]));
    let (_, body) = bench.get("viewer", path).await;
    assert!(body["status"].get("config").is_none(), "too old: {body}");
    assert_eq!(*answered_by.borrow(), 0);

    observed.note(1, client(&[]));
    let (_, body) = bench.get("viewer", path).await;
    let config = json!({
        "identity": "spiffe://cluster.local/ns/shop/sa/web", "enforcement": "audit",
        "mtls": "permissive", "draining": false, "resources": {"workload": "00ff"},
    });
    assert_eq!(body["status"]["config"], config);
    assert_eq!(*answered_by.borrow(), 1);

    // A list queries no proxy, and neither does a request for what controllers know alone.
    let (_, list) = bench.get("viewer", "namespaces/shop/proxies").await;
    assert_eq!(names(&list).len(), 3);
    let without = format!("{path}?config=0");
    let (_, body) = bench.get("viewer", &without).await;
    assert_eq!(body["status"]["connected"], true);
    assert!(body["status"].get("config").is_none(), "{body}");
    let (status, body) = bench.get("viewer", &format!("{path}?config=some")).await;
    assert_eq!(status, 400, "{body}");
    let (status, _) = bench.get("stranger", path).await;
    assert_eq!((status, *answered_by.borrow()), (403, 1));
}

/// What a proxy of `shop` holds: four of its own and of what is outside the mesh, four of `bank`,
/// and what only a newer controller knows.
static RESOURCES: [&str; 9] = [
    "workload",
    "service/shop/api:80",
    "destination/10.96.0.1:80",
    "destination/192.0.2.1:443",
    "service/bank/cart:80",
    "endpoints/bank/cart:80",
    "destination/10.96.0.2:80",
    "destination/10.0.0.21:5432",
    "later/bank/cart",
];

#[tokio::test]
async fn proxy_details_of_other_namespaces_need_graph_permission() {
    let cluster = read_only()
        .with(namespace("bank"))
        .with(in_namespace(pod("vault-1", "10.0.0.21", "vault"), "bank"))
        .with(in_namespace(
            service("cart", "10.96.0.2", &[("http", 80)]),
            "bank",
        ));
    let bench = Bench::of(&cluster);
    let _asked = holding(&bench, "uid-client", &RESOURCES);
    let (own, elsewhere, later) = (&RESOURCES[..4], &RESOURCES[4..8], RESOURCES[8]);
    let calls = ["10.96.0.1:80", "10.96.0.2:80", "10.0.0.21:5432"];
    let state = v1::ProxyState {
        destinations: calls.map(str::to_owned).to_vec(),
        ..client(&[])
    };
    bench.api.context.observed.note(1, state);
    for (user, reads, hidden) in [
        ("viewer", false, 5),
        ("auditor", true, 1),
        ("root", true, 0),
    ] {
        let (status, body) = bench.get(user, "namespaces/shop/proxies/client").await;
        assert_eq!(status, 200, "{user}: {body}");
        let status = &body["status"];
        let config = status["config"]["resources"].as_object().unwrap();
        assert!(
            own.iter().all(|name| config.contains_key(*name)),
            "{user}: {body}"
        );
        for name in elsewhere {
            assert_eq!(config.contains_key(*name), reads, "{user} {name}: {body}");
        }
        // A thing that this controller does not know has no known owner.
        assert_eq!(config.contains_key(later), hidden == 0, "{user}: {body}");
        let count = |value: &Value| value.as_u64().unwrap_or_default();
        assert_eq!(count(&status["config"]["hidden"]), hidden, "{user}: {body}");
        let called = status["destinations"].as_array().unwrap().len();
        assert_eq!(called, if reads { 3 } else { 1 }, "{user}: {body}");
        let left = if reads { 0 } else { 2 };
        assert_eq!(count(&status["hiddenDestinations"]), left, "{user}: {body}");
    }
}

/// Whatever a proxy says that it holds of one.
#[tokio::test]
async fn certificate_of_gateway_is_shown_by_name_alone() {
    const NAME: &str = "certificate/shop/edge-tls";
    let bench = Bench::of(&read_only());
    let _asked = holding(&bench, "uid-client", &["workload", NAME]);
    bench.api.context.observed.note(1, client(&[]));
    for user in ["viewer", "root"] {
        let (status, body) = bench.get(user, "namespaces/shop/proxies/client").await;
        assert_eq!(status, 200, "{user}: {body}");
        let resources = &body["status"]["config"]["resources"];
        assert_eq!(resources[NAME], "hidden", "{user}: {body}");
        assert_ne!(resources["workload"], "hidden", "{user}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn unresponsive_proxy_is_shown_without_its_config() {
    let bench = Bench::new();
    let (_here, _orders) = bench.api.context.live_queries.listens("uid-client".into());
    bench.api.context.observed.note(1, client(&[]));
    let start = tokio::time::Instant::now();
    let (status, body) = bench.get("viewer", "namespaces/shop/proxies/client").await;
    assert_eq!((status, &body["status"]["connected"]), (200, &json!(true)));
    assert!(body["status"].get("config").is_none(), "{body}");
    let waited = start.elapsed();
    assert!(waited <= Duration::from_secs(4), "{waited:?}");
}

fn names(body: &Value) -> Vec<String> {
    let items = body["items"].as_array().unwrap().iter();
    items
        .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn truncated_list_returns_continue_token_for_remainder() {
    let bench = Bench::new();
    let path = "namespaces/shop/proxies";
    let (_, first) = bench.get("viewer", &format!("{path}?limit=2")).await;
    assert_eq!(names(&first), ["api-1", "api-2"]);
    let next = &first["metadata"];
    assert_eq!(
        *next,
        json!({"continue": "shop/api-2", "remainingItemCount": 1})
    );
    let (_, rest) = bench
        .get("viewer", &format!("{path}?limit=2&continue=shop%2Fapi-2"))
        .await;
    assert_eq!(
        (names(&rest), &rest["metadata"]),
        (vec!["client".to_owned()], &json!({}))
    );
    let (_, all) = bench.get("viewer", &format!("{path}?limit=0")).await;
    assert_eq!((names(&all).len(), &all["metadata"]), (3, &json!({})));
    for (query, name) in [("limit=-1", "limit"), ("continue=x", "continue")] {
        let (status, body) = bench.get("viewer", &format!("{path}?{query}")).await;
        let words = format!("parameter {name}:");
        assert_eq!(status, 400, "{body}");
        assert!(
            body["message"].as_str().unwrap().starts_with(&words),
            "{body}"
        );
    }
    // A request for pages was cut by its own limit.
    assert_eq!(bench.api.context.metrics.lists_cut.get(), 0);
}

// Claims: observe-35
#[tokio::test]
async fn proxies_are_selected_by_the_labels_of_their_pods() {
    let labels = json!({"tier": "front"});
    let client = set(pod("client", "10.0.0.1", "web"), "/metadata/labels", labels);
    let bench = Bench::of(&read_only().with(client));
    let path = "namespaces/shop/proxies";
    for (selector, expected) in [
        ("tier%3Dfront", &["client"][..]),
        ("%21tier", &["api-1", "api-2"]),
        ("tier+in+(back)", &[]),
        ("", &["api-1", "api-2", "client"]),
    ] {
        let (_, list) = bench
            .get("viewer", &format!("{path}?labelSelector={selector}"))
            .await;
        assert_eq!(names(&list), expected, "{selector}");
    }
    let (_, first) = bench
        .get("viewer", &format!("{path}?labelSelector=%21tier&limit=1"))
        .await;
    assert_eq!(names(&first), ["api-1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    for (query, name) in [
        ("labelSelector=tier+front", "labelSelector"),
        ("fieldSelector=metadata.name%3Dclient", "fieldSelector"),
    ] {
        let (status, body) = bench.get("viewer", &format!("{path}?{query}")).await;
        assert_eq!(status, 400, "{body}");
        let words = format!("parameter {name}:");
        let message = body["message"].as_str().unwrap();
        assert!(message.starts_with(&words), "{message}");
    }
}

#[tokio::test]
async fn proxies_beyond_response_limit_are_counted_and_continued() {
    let mut cluster = shop();
    for number in 0..20_000 {
        cluster = cluster.with(pod(&format!("web-{number:05}"), "10.0.0.9", "web"));
    }
    let bench = Bench::of(&cluster);
    let (_, first) = bench.get("admin", "proxies").await;
    let next = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    assert_eq!(bench.api.context.metrics.lists_cut.get(), 1);
    let (_, rest) = bench
        .get("admin", &format!("proxies?continue={next}"))
        .await;
    assert_eq!(names(&rest), ["web-19997", "web-19998", "web-19999"]);
    assert_eq!(names(&first).len(), 20_000);
    assert_eq!(bench.api.context.metrics.lists_cut.get(), 1);
}

#[tokio::test]
async fn proxies_are_listed_named_and_printed() {
    let bench = Bench::new();
    let (status, body) = bench.get("viewer", "namespaces/shop/proxies").await;
    assert_eq!((status, &body["kind"]), (200, &json!("ProxyList")));
    let names: Vec<&Value> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["metadata"]["name"])
        .collect();
    assert_eq!(names, ["api-1", "api-2", "client"]);
    let (status, body) = bench.get("viewer", "namespaces/shop/proxies/api-1").await;
    assert_eq!(status, 200);
    assert_eq!(
        body["status"]["identity"],
        "spiffe://cluster.local/ns/shop/sa/api"
    );
    assert_eq!(body["status"]["connected"], false);
    assert_eq!(body["status"]["version"], "0.1.0");
    assert_eq!(
        bench
            .get("viewer", "namespaces/shop/proxies/absent")
            .await
            .0,
        404
    );
    assert_eq!(bench.get("viewer", "proxies").await.0, 403);
    assert_eq!(bench.get("admin", "proxies").await.0, 200);
}
