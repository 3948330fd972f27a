//! The rights for taps, what a tap shows, and the Events that name its user.
//!
//! Claims: observe-128

use http_body_util::BodyExt as _;
use tokio::time::timeout;
use wire::v1;
use wire::v1::answered::What as Answered;
use wire::v1::ask::What as Question;
use wire::v1::to_proxy::Message as Order;

use super::*;
use crate::observe::live_queries::{Answers, LiveQueryRegistration, Orders};
use crate::testing::cluster::{in_namespace, namespace, pod, service, slice};

const PATH: &str = "namespaces/shop/taps/live?watch=true";

/// An API server that takes whatever it is given.
pub(super) fn recorder(recorded: Arc<Mutex<Vec<String>>>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<KubeBody>| {
        let recorded = Arc::clone(&recorded);
        async move {
            let body = request.into_body().collect_bytes().await.unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            recorded.lock().push(text);
            Ok::<_, Infallible>(Response::new(KubeBody::from(body.to_vec())))
        }
    });
    kube::Client::new(service, "default")
}

/// A proxy that can be queried.
pub(super) struct Proxy {
    live_queries: LiveQueries,
    uid: Arc<str>,
    pub(super) orders: Orders,
    _here: LiveQueryRegistration,
}

impl Proxy {
    pub(super) fn of(bench: &Bench, uid: &str) -> Self {
        let live_queries = bench.api.context.live_queries.clone();
        let uid: Arc<str> = uid.into();
        let (here, orders) = live_queries.listens(Arc::clone(&uid));
        Self {
            live_queries,
            uid,
            orders,
            _here: here,
        }
    }

    pub(super) async fn next_query(&mut self) -> (u64, v1::TapAsk) {
        let order = timeout(Duration::from_secs(5), self.orders.recv()).await;
        match order.expect("not asked") {
            Some(Order::Ask(ask)) => match ask.what {
                Some(Question::Tap(tap)) => (ask.id, tap),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn answer_with(&self, id: u64, what: Answered) {
        let what = Some(what);
        self.live_queries
            .answered(&self.uid, v1::Answered { id, what });
    }
}

/// As many queries to proxies as may be open at one time.
pub(super) fn all_queried(bench: &Bench) -> Vec<(Proxy, Answers)> {
    // A proxy each, because one takes a few commands at a time alone.
    let more = |number: usize| {
        let uid: Arc<str> = format!("uid-{number}").into();
        let proxy = Proxy::of(bench, &uid);
        let question = Question::Tap(v1::TapAsk::default());
        let live_queries = &bench.api.context.live_queries;
        let answers = live_queries.query(question, &[uid], Duration::from_secs(60));
        Some((proxy, answers.ok()?))
    };
    (0..1_000).map_while(more).collect()
}

/// `client` called `api-1`, which was in vain.
pub(super) fn record() -> v1::TapRecord {
    let edge = v1::Edge {
        side: v1::Side::Client.into(),
        service: "shop/api".to_owned(),
        port: 80,
        pod: "shop/api-1".to_owned(),
        security: v1::Security::Mtls.into(),
        protocol: v1::Protocol::Http1.into(),
        ..v1::Edge::default()
    };
    v1::TapRecord {
        at: 1_793_610_000_000,
        edge: Some(edge),
        method: "GET".to_owned(),
        path: "/items".to_owned(),
        route: "api/read".to_owned(),
        status: 503,
        reason: "overload".to_owned(),
        latency: 1_500,
        ..v1::TapRecord::default()
    }
}

/// The next line of a stream.
async fn line(answer: &mut ApiResponse) -> Option<Value> {
    let frame = timeout(Duration::from_secs(5), answer.body_mut().frame());
    let frame = frame.await.expect("no line came")?;
    let data = frame.unwrap().into_data().unwrap();
    Some(serde_json::from_slice(&data).unwrap())
}

async fn tap(bench: &Bench, user: &str, query: &str) -> ApiResponse {
    let path = format!("{PATH}&{query}");
    bench.send(user, Method::GET, &path, String::new()).await
}

// Claims: observability-10
#[tokio::test]
async fn full_read_permission_does_not_allow_tap() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-client");
    for user in ["viewer", "stranger"] {
        // Only the head: with the right to tap the response is a stream of 50 s.
        let answer = tap(&bench, user, "of=Pod/client").await;
        assert_eq!(answer.status(), 403, "{user}");
    }
    assert!(proxy.orders.try_recv().is_err(), "no proxy was queried");
    assert!(bench.recorded.lock().is_empty());
    let reviewed = bench.reviewed.lock().clone();
    assert!(
        reviewed.contains(&"viewer create taps shop".to_owned()),
        "{reviewed:?}"
    );
    assert_eq!(tap(&bench, "tapper", "of=Pod/client").await.status(), 200);
    proxy.next_query().await;
    let all = bench
        .get("tapper", "taps/live?watch=true&of=Pod/client")
        .await;
    assert_eq!(all.0, 404, "in a namespace only");
}

#[tokio::test]
async fn tap_streams_requests_and_closes_with_its_reader() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-client");
    let query = "of=ServiceAccount/web&to=Service/api&status=5xx&maxRps=30&header=User-Agent";
    let mut answer = tap(&bench, "tapper", query).await;
    let (id, ask) = proxy.next_query().await;
    assert_eq!(ask.to_services, ["shop/api"]);
    assert_eq!((ask.status_first, ask.status_last), (500, 599));
    assert_eq!(
        (ask.max_per_second, ask.headers),
        (30, vec!["user-agent".to_owned()])
    );
    let first = line(&mut answer).await.unwrap();
    assert_eq!(first["metadata"]["proxies"], 1);
    assert_eq!(first["metadata"]["takingPart"], 0);

    proxy.answer_with(id, Answered::Record(record()));
    let shown = line(&mut answer).await.unwrap()["request"].clone();
    for (field, expected) in [
        ("pod", json!("shop/client")),
        ("direction", json!("outbound")),
        ("peer", json!("shop/api-1")),
        ("service", json!("shop/api")),
        ("mtls", json!(true)),
        ("protocol", json!("http1")),
        ("status", json!(503)),
        ("route", json!("api/read")),
        ("reason", json!("overload")),
        ("ms", json!(1.5)),
        ("time", json!("2026-11-02T09:00:00.000Z")),
    ] {
        assert_eq!(shown[field], expected, "{field}: {shown}");
    }
    let summary = v1::TapSummary {
        matched: 9,
        shown: 1,
        dropped: 2,
    };
    proxy.answer_with(id, Answered::Summary(summary));
    let counted = line(&mut answer).await.unwrap()["metadata"].clone();
    let expected = json!({"proxies": 1, "takingPart": 1, "matched": 9, "shown": 1, "dropped": 2});
    assert_eq!(counted, expected);
    drop(answer);
    assert_eq!(proxy.orders.recv().await, Some(Order::EndAsk(id)));
}

#[tokio::test]
async fn proxy_without_tap_capacity_is_reported_until_it_participates() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-client");
    let mut answer = tap(&bench, "tapper", "of=Pod/client").await;
    let (id, _) = proxy.next_query().await;
    let mut counted = async || {
        let metadata = line(&mut answer).await.unwrap()["metadata"].clone();
        (
            metadata["takingPart"].clone(),
            metadata.get("refused").cloned(),
        )
    };
    assert_eq!(counted().await, (json!(0), None), "it said nothing yet");
    proxy.answer_with(
        id,
        Answered::Refused("it answers as many as it may".to_owned()),
    );
    assert_eq!(counted().await, (json!(0), Some(json!(1))));
    proxy.answer_with(id, Answered::Summary(v1::TapSummary::default()));
    assert_eq!(counted().await, (json!(1), None));
}

#[tokio::test]
async fn vanished_proxy_stops_participating_but_its_counts_stay() {
    let bench = Bench::new();
    let mut proxies = ["uid-api-1", "uid-api-2"].map(|uid| Proxy::of(&bench, uid));
    let mut answer = tap(&bench, "tapper", "of=Service/api").await;
    assert_eq!(
        line(&mut answer).await.unwrap()["metadata"]["takingPart"],
        0
    );
    for proxy in &mut proxies {
        let (id, _) = proxy.next_query().await;
        // Whatever a proxy reports is added up.
        let summary = v1::TapSummary {
            matched: u64::MAX,
            shown: 3,
            dropped: 0,
        };
        proxy.answer_with(id, Answered::Summary(summary));
    }
    let mut counted = async |expected: u64| {
        let metadata = async {
            loop {
                let metadata = line(&mut answer).await.unwrap()["metadata"].clone();
                if metadata["takingPart"] == expected {
                    return metadata;
                }
            }
        };
        timeout(Duration::from_secs(5), metadata).await.unwrap()
    };
    assert_eq!(counted(2).await["matched"], u64::MAX);
    let [_stays, went] = proxies;
    drop(went);
    let metadata = counted(1).await;
    assert_eq!(
        (&metadata["proxies"], &metadata["shown"]),
        (&json!(2), &json!(6))
    );
}

/// A Service of `shop` whose endpoint, written by hand, is a pod of `bank`.
fn beyond() -> Cluster {
    let vault = json!({"addresses": ["10.9.0.1"], "conditions": {"ready": true}});
    shop()
        .with(namespace("bank"))
        .with(in_namespace(pod("vault", "10.9.0.1", "vault"), "bank"))
        .with(service("x", "10.96.0.9", &[("http", 80)]))
        .with(slice("by-hand", "x", &[("http", 8080)], &[vault]))
}

#[tokio::test]
async fn tap_of_namespace_never_reaches_pods_of_another() {
    let bench = Bench::of(&beyond());
    let mut vault = Proxy::of(&bench, "uid-vault");
    let (code, body) = read(tap(&bench, "tapper", "of=Service/x").await).await;
    assert_eq!(code, 404, "{body}");
    assert!(vault.orders.try_recv().is_err(), "asked all the same");
    let mut own = Proxy::of(&bench, "uid-client");
    assert_eq!(tap(&bench, "tapper", "of=Pod/client").await.status(), 200);
    own.next_query().await;
}

#[tokio::test]
async fn tap_filter_hides_contents_of_other_namespaces() {
    let bench = Bench::of(&beyond());
    let mut proxy = Proxy::of(&bench, "uid-client");
    let no_pod = "-".repeat(36);
    for (there, uid) in [("vault", "uid-vault"), ("nothing", no_pod.as_str())] {
        let query = format!("of=Pod/client&from=Pod/bank/{there}&to=Pod/bank/{there}");
        let answer = tap(&bench, "tapper", &query).await;
        assert_eq!(answer.status(), 200, "{there}");
        let (_, ask) = proxy.next_query().await;
        assert_eq!(ask.from_pods, [uid]);
        let named = format!("bank/{there}");
        assert_eq!(ask.to_pods, [named], "no name at all would fit everything");
        drop(answer);
        proxy.orders.recv().await;
    }
}

/// What fits into a query is measured against the user's own part of it.
#[tokio::test]
async fn pod_count_elsewhere_is_revealed_only_with_graph_permission() {
    let words = async |there: usize, user: &str, end: &str| {
        let mut cluster = beyond();
        for number in 0..there {
            let vault = pod(&format!("vault-{number:05}"), "10.9.0.2", "vault");
            cluster = cluster.with(in_namespace(vault, "bank"));
        }
        let bench = Bench::of(&cluster);
        let _proxy = Proxy::of(&bench, "uid-client");
        let query = format!("of=Pod/client&{end}");
        let answer = tap(&bench, user, &query).await;
        match answer.status().as_u16() {
            200 => (200, String::new()),
            code => (code, read(answer).await.1["message"].to_string()),
        }
    };
    for end in ["from=Namespace/bank", "to=ServiceAccount/bank/vault"] {
        let (few, many) = (
            words(1, "tapper", end).await,
            words(1_000, "tapper", end).await,
        );
        assert_eq!(few, many, "{end}");
        assert!(few.0 == 400 && few.1.contains("may not read"), "{few:?}");
        // With the right to it the number is known anyway.
        assert_eq!(words(1, "watcher", end).await.0, 200, "{end}");
        let many = words(1_000, "watcher", end).await;
        assert!(
            many.1.contains("more pods than a query to a proxy"),
            "{many:?}"
        );
    }
}

#[tokio::test]
async fn impossible_tap_route_is_refused_with_nearest_one() {
    let bench = Bench::new();
    let mut proxy = Proxy::of(&bench, "uid-api-1");
    for (query, words) in [
        (
            "of=Service/api&route=routes/raed",
            "parameter route: no requests to Service shop/api have route \"routes/raed\"; you may \
             mean routes/read",
        ),
        (
            "of=Service/api&route=cart/items",
            "have route \"cart/items\"; `weft routes` lists them",
        ),
        // Routes name the requests to pods, and not those of pods.
        (
            "of=Pod/client&to=Service/api&route=routes/read",
            "parameter route: no requests to Pod shop/client are distinguished by routes",
        ),
    ] {
        let (code, body) = read(tap(&bench, "tapper", query).await).await;
        assert_eq!(code, 400, "{query}: {body}");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(words), "{words}: {message}");
    }
    let known = "of=Service/api&route=routes/read";
    assert_eq!(tap(&bench, "tapper", known).await.status(), 200);
    assert_eq!(proxy.next_query().await.1.route, "routes/read");
}

#[tokio::test]
async fn tap_event_names_user_on_tapped_object() {
    let bench = Bench::new();
    let _proxy = Proxy::of(&bench, "uid-client");
    for (of, kind, name) in [
        ("Pod/client", "Pod", "client"),
        // A user with rights in a namespace reads its Events, and no others.
        ("ServiceAccount/web", "Namespace", "shop"),
    ] {
        bench.recorded.lock().clear();
        let _answer = tap(&bench, "tapper", &format!("of={of}")).await;
        let written = async {
            while bench.recorded.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), written).await.unwrap();
        let event: Value = serde_json::from_str(&bench.recorded.lock()[0]).unwrap();
        assert_eq!(event["reason"], "TapStarted");
        assert!(
            event["note"].as_str().unwrap().contains("tapper"),
            "{event}"
        );
        assert_eq!(event["metadata"]["namespace"], "shop", "{of}");
        let about = &event["regarding"];
        assert_eq!(
            (&about["kind"], &about["name"]),
            (&json!(kind), &json!(name))
        );
        assert_eq!(about["namespace"], "shop", "{of}");
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_tap_is_recorded_again() {
    let bench = Bench::new();
    let _proxy = Proxy::of(&bench, "uid-client");
    for taps in 1..=2 {
        drop(tap(&bench, "tapper", "of=Pod/client").await);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(bench.recorded.lock().len(), taps);
    }
}

#[tokio::test]
async fn tap_of_unknown_target_or_filter_is_refused() {
    let bench = Bench::new();
    for (query, status, words) in [
        ("of=Deployment/absent", 404, "Deployment shop/absent"),
        ("of=Pod/client&to=Deployment/absent", 400, "parameter to:"),
        (
            "of=Pod/client&to=Service/apii",
            400,
            "parameter to: there is no Service shop/apii; you may mean api",
        ),
        ("of=Pod/client&header=cookie", 400, "observe.tapHeaders"),
    ] {
        let (code, body) = read(tap(&bench, "tapper", query).await).await;
        assert_eq!(code, status, "{query}: {body}");
        assert!(body["message"].as_str().unwrap().contains(words), "{body}");
    }
}

#[tokio::test]
async fn filter_with_too_many_pods_is_refused() {
    let mut cluster = shop();
    for number in 0..1_000 {
        cluster = cluster.with(pod(&format!("web-{number:05}"), "10.0.0.9", "web"));
    }
    let bench = Bench::of(&cluster);
    let mut proxy = Proxy::of(&bench, "uid-client");
    let query = "of=Pod/client&from=Namespace/shop";
    let (code, body) = read(tap(&bench, "tapper", query).await).await;
    assert_eq!(code, 400, "{body}");
    let words = body["message"].as_str().unwrap();
    assert!(
        words.contains("more pods than a query to a proxy holds"),
        "{body}"
    );
    let account = "of=Pod/client&from=ServiceAccount/web";
    assert_eq!(tap(&bench, "tapper", account).await.status(), 200);
    let (_, ask) = proxy.next_query().await;
    assert_eq!(ask.from_accounts, ["shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn tap_stream_closes_itself_before_api_server_timeout() {
    let bench = Bench::new();
    let _proxy = Proxy::of(&bench, "uid-client");
    let mut answer = tap(&bench, "tapper", "of=Pod/client").await;
    let start = tokio::time::Instant::now();
    let mut last = Value::Null;
    loop {
        let frame = answer.body_mut().frame().await;
        let Some(frame) = frame else { break };
        last = serde_json::from_slice(&frame.unwrap().into_data().unwrap()).unwrap();
    }
    assert_eq!(last["metadata"]["last"], true);
    assert_eq!(start.elapsed().as_secs(), 50);
}

#[tokio::test]
async fn excess_tap_has_no_retry_time_and_succeeds_later() {
    let bench = Bench::new();
    let mut open = all_queried(&bench);
    let full = tap(&bench, "tapper", "of=Pod/client").await;
    assert_eq!(full.status(), 429, "{} are open", open.len());
    // Each goes on for as long as its reader likes.
    assert!(!full.headers().contains_key("retry-after"));
    let (_, body) = read(full).await;
    assert!(body["details"]["retryAfterSeconds"].is_null(), "{body}");
    open.pop();
    let control = tap(&bench, "tapper", "of=Pod/client").await;
    assert_eq!(control.status(), 200);
}
