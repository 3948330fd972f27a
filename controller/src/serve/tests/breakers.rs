//! Breaker reports and states of breakers on streams, and between replicas.
//!
//! Claims: calls-68

use serde_json::json;
use tokio::time::sleep;
use wire::capability::Capabilities;
use wire::v1::circuit_state::State;

use super::*;
use crate::fleet::{AnnouncedStates, Caller};
use crate::serve::announced_breakers::AnnouncedBreakers;
use crate::serve::session::Session;

fn with_breaker() -> Cluster {
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"}, "breaker": {}});
    cluster::shop().with(cluster::traffic_policy("p", spec))
}

fn hello() -> v1::Hello {
    v1::Hello {
        capabilities: Capabilities::of_this_version(),
        ..hello_for(&[API])
    }
}

fn breaker_report(sent: u32, failed: u32) -> Message {
    let circuit = v1::Circuit {
        service: "shop/api".to_owned(),
        backend: "shop/api".to_owned(),
        port: 80,
    };
    let circuits = vec![v1::CircuitPulse {
        circuit: Some(circuit),
        sent,
        failed,
        ..v1::CircuitPulse::default()
    }];
    Message::Pulse(v1::Pulse { circuits })
}

/// The next state of `api` that is announced.
async fn next_state(proxy: &mut Proxy) -> State {
    let message = timeout(PATIENCE, proxy.inbox.message()).await;
    match message.unwrap().unwrap().unwrap().message {
        Some(v1::to_proxy::Message::Steer(fleet_state)) => {
            let [state] = &fleet_state.states[..] else {
                panic!("{fleet_state:?}")
            };
            let circuit = state.circuit.as_ref().unwrap();
            assert_eq!((&*circuit.backend, circuit.port), ("shop/api", 80));
            state.state()
        }
        other => panic!("no state: {other:?}"),
    }
}

async fn ready(bench: &Bench, account_name: &str, uid: &str) -> Proxy {
    let channel = bench
        .mesh_channel(&account("shop", account_name), Some(uid))
        .await;
    let mut proxy = Proxy::open(channel, hello()).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    proxy
}

#[tokio::test]
async fn breaker_opening_reaches_callers_including_silent_ones() {
    let other = cluster::pod("other", "10.0.0.3", "other");
    let bench = Bench::start(&with_breaker().with(other)).await;
    let mut caller = ready(&bench, "web", "uid-client").await;
    let other = ready(&bench, "other", "uid-other").await;
    let mut silent = ready(&bench, "api", "uid-api-1").await;
    let channel = bench
        .mesh_channel(&account("shop", "api"), Some("uid-api-2"))
        .await;
    let mut older = Proxy::open(channel, hello_for(&[API])).await;
    let batch = older.batch().await;
    older.ack(&batch).await;
    other.send_message(breaker_report(60, 60)).await;
    caller.send_message(breaker_report(60, 60)).await;
    assert_eq!(next_state(&mut caller).await, State::Open);
    assert_eq!(next_state(&mut silent).await, State::Open);
    // One that comes later gets it as soon as it has the policy.
    drop(silent);
    let mut late = ready(&bench, "api", "uid-api-1").await;
    assert_eq!(next_state(&mut late).await, State::Open);
    // A policy that goes closes it.
    bench.publish(&cluster::shop());
    for proxy in [&mut caller, &mut late] {
        let mut closed = false;
        while !closed {
            let message = timeout(PATIENCE, proxy.inbox.message()).await;
            match message.unwrap().unwrap().unwrap().message {
                Some(v1::to_proxy::Message::Steer(fleet_state)) => {
                    closed = fleet_state.states[0].state() == State::Closed;
                }
                Some(v1::to_proxy::Message::Batch(batch)) => proxy.ack(&batch).await,
                other => panic!("neither: {other:?}"),
            }
        }
    }
    assert!(
        older.is_silent_for(Duration::from_millis(300)).await,
        "it could not do anything with it"
    );
}

#[tokio::test]
async fn what_one_account_alone_says_holds_back_no_other() {
    let bench = Bench::start(&with_breaker()).await;
    let mut caller = ready(&bench, "web", "uid-client").await;
    let mut silent = ready(&bench, "api", "uid-api-1").await;
    caller.send_message(breaker_report(60, 60)).await;
    assert_eq!(next_state(&mut caller).await, State::Open, "the control");
    assert!(silent.is_silent_for(Duration::from_secs(1)).await);
    // When it sees failures itself, the two get it.
    silent.send_message(breaker_report(60, 60)).await;
    assert_eq!(next_state(&mut silent).await, State::Open);
}

/// Another replica listens.
fn listen(bench: &Bench, other: &Fleet) -> tokio::task::JoinHandle<()> {
    let listener = Listener {
        reports: Reports::new(ReportMetrics::default()),
        early: EarlyCounts::new(Counter::default()),
        live_queries: LiveQueries::default(),
        fleet: other.clone(),
        share_registry: ShareRegistry::default(),
        inventory: Arc::default(),
        client: crate::testing::api_server::FakeApi::default().client(),
        namespace: "weft-system".to_owned(),
        service: "weft-controller".to_owned(),
        own: "127.0.0.2".parse().unwrap(),
        observed: Observed::default(),
        roots: bench.roots.clone(),
        certificate: bench.certificate.clone(),
        identity: bench.identity.clone(),
        peers: prometheus_client::metrics::gauge::Gauge::default(),
    };
    let addr = bench.addr;
    tokio::spawn(async move {
        listener.listen(addr).await;
    })
}

#[tokio::test]
async fn report_to_one_replica_opens_breaker_at_others() {
    let bench = Bench::start(&with_breaker()).await;
    let caller = ready(&bench, "web", "uid-client").await;
    let other = bench.other_fleet();
    let deciding = tokio::spawn(other.clone().run());
    let listening = listen(&bench, &other);
    // It gets what is sent from when it listens on.
    let deadline = Instant::now() + PATIENCE;
    while other.announced().is_empty() {
        assert!(Instant::now() < deadline, "it was not heard");
        caller.send_message(breaker_report(60, 60)).await;
        sleep(Duration::from_millis(500)).await;
    }
    listening.abort();
    deciding.abort();
}

/// Requests that are counted of those to `api`.
fn counted(fleet: &Fleet) -> u32 {
    let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    let report = fleet.report(&policy, Instant::now());
    report.map_or(0, |report| report.requests)
}

#[tokio::test]
async fn a_replica_that_listens_anew_counts_nothing_twice() {
    let bench = Bench::start(&with_breaker()).await;
    let caller = ready(&bench, "web", "uid-client").await;
    let other = bench.other_fleet();
    let deciding = tokio::spawn(other.clone().run());
    for sent in [20, 1] {
        let listening = listen(&bench, &other);
        let before = counted(&other);
        let deadline = Instant::now() + PATIENCE;
        while counted(&other) <= before {
            assert!(Instant::now() < deadline, "it was not heard");
            caller.send_message(breaker_report(sent, 0)).await;
            sleep(Duration::from_millis(500)).await;
        }
        listening.abort();
    }
    assert!(counted(&other) <= counted(&bench.fleet));
    deciding.abort();
}

#[tokio::test(start_paused = true)]
async fn breaker_verdict_expired_before_resend_is_withdrawn() {
    let cluster = with_breaker();
    let target = cluster::resolve_newest(&cluster.compile().0, "client", &["10.96.0.1:80"]).0;
    let mut session = Session::new(hello(), []).0;
    let now = Instant::now();
    assert!(session.next(&target, now).is_some());
    let (_models, latest) = watch::channel(Some(compiled(&cluster)));
    let fleet = Fleet::new(latest, Counter::default());
    let deciding = tokio::spawn(fleet.clone().run());
    let caller = Caller {
        account: "shop/web".into(),
        uid: "uid-client".into(),
    };
    let Message::Pulse(reported) = breaker_report(60, 60) else {
        panic!("no pulse");
    };
    fleet.take(&caller, reported.clone(), now);
    sleep(Duration::from_secs(1)).await;
    let (open, none) = (fleet.announced(), AnnouncedStates::default());
    let mut breakers = AnnouncedBreakers::new();
    let mut news = |announced: &AnnouncedStates, has_report: bool| -> Vec<State> {
        if has_report {
            breakers.note_breaker_report(&reported);
        }
        let news = breakers.news(announced, &session, &caller.account, now);
        news.iter().map(v1::CircuitState::state).collect()
    };
    assert_eq!(news(&open, false), [State::Open]);
    assert_eq!(news(&open, false), []);
    assert_eq!(news(&open, true), [State::Open], "a caller gets it again");
    assert_eq!(news(&none, true), [State::Closed]);
    assert_eq!(news(&none, true), []);
    deciding.abort();
}

#[tokio::test]
async fn breaker_reports_of_one_proxy_are_rate_limited() {
    let bench = Bench::start(&with_breaker()).await;
    let caller = ready(&bench, "web", "uid-client").await;
    for _ in 0..40 {
        caller.send_message(breaker_report(10, 0)).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while bench.metrics.limits.count("breaker-pulses") < 30 {
        assert!(Instant::now() < deadline, "all were taken");
        sleep(Duration::from_millis(10)).await;
    }
    let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    let report = bench.fleet.report(&policy, Instant::now()).unwrap();
    assert!(report.requests <= 60, "{report:?}");
}

// Claims: attack-77
#[tokio::test]
async fn breaker_report_limit_holds_across_repeated_streams() {
    let bench = Bench::start(&with_breaker()).await;
    // Goes up with each breaker report that is taken, as long as another replica listens.
    let _listens = bench.fleet.own_changes();
    let taken = || bench.fleet.revision();
    let began = Instant::now();
    for stream in 1..=6 {
        let caller = ready(&bench, "web", "uid-client").await;
        for _ in 0..5 {
            caller.send_message(breaker_report(10, 0)).await;
        }
        let deadline = Instant::now() + PATIENCE;
        while taken() + bench.metrics.limits.count("breaker-pulses") < 5 * stream {
            assert!(Instant::now() < deadline, "not all are read");
            sleep(Duration::from_millis(5)).await;
        }
    }
    // What may come at once, and one in 0.9 s since.
    let since = began.elapsed().as_millis() / 900;
    let most = 4 + 1 + u64::try_from(since).unwrap();
    assert!(taken() <= most, "{} of 30, {most} at most", taken());
}
