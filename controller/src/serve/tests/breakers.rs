//! Pulses and verdicts on streams, and between replicas.

use serde_json::json;
use tokio::time::sleep;
use wire::capability::Capabilities;
use wire::v1::verdict::State;

use super::*;

fn with_breaker() -> Cluster {
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"}, "breaker": {}});
    cluster::shop().with(cluster::traffic_policy("p", spec))
}

fn hello() -> v1::Hello {
    v1::Hello {
        capabilities: Capabilities::of_this_version(),
        ..asks(&[API])
    }
}

fn pulse(sent: u32, failed: u32) -> Message {
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

/// The state of the next verdict about `api`.
async fn verdict(proxy: &mut Proxy) -> State {
    let message = timeout(PATIENCE, proxy.inbox.message()).await;
    match message.unwrap().unwrap().unwrap().message {
        Some(v1::to_proxy::Message::Steer(steer)) => {
            let [verdict] = &steer.verdicts[..] else {
                panic!("{steer:?}")
            };
            let circuit = verdict.circuit.as_ref().unwrap();
            assert_eq!((&*circuit.backend, circuit.port), ("shop/api", 80));
            verdict.state()
        }
        other => panic!("no verdict: {other:?}"),
    }
}

async fn ready(bench: &Bench, account_name: &str, uid: &str) -> Proxy {
    let channel = bench
        .somebody(&account("shop", account_name), Some(uid))
        .await;
    let mut proxy = Proxy::open(channel, hello()).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    proxy
}

#[tokio::test]
async fn who_calls_a_service_of_which_most_calls_fail_is_told_and_who_says_nothing_too() {
    let bench = Bench::start(&with_breaker()).await;
    let mut caller = ready(&bench, "web", "uid-client").await;
    let mut silent = ready(&bench, "api", "uid-api-1").await;
    let channel = bench
        .somebody(&account("shop", "api"), Some("uid-api-2"))
        .await;
    let mut older = Proxy::open(channel, asks(&[API])).await;
    let batch = older.batch().await;
    older.ack(&batch).await;
    caller.say(pulse(60, 60)).await;
    assert_eq!(verdict(&mut caller).await, State::Open);
    assert_eq!(verdict(&mut silent).await, State::Open);
    // One that comes later is told as soon as it has the policy.
    drop(silent);
    let mut late = ready(&bench, "api", "uid-api-1").await;
    assert_eq!(verdict(&mut late).await, State::Open);
    // A policy that goes closes it.
    bench.publish(&cluster::shop());
    for proxy in [&mut caller, &mut late] {
        let mut closed = false;
        while !closed {
            let message = timeout(PATIENCE, proxy.inbox.message()).await;
            match message.unwrap().unwrap().unwrap().message {
                Some(v1::to_proxy::Message::Steer(steer)) => {
                    closed = steer.verdicts[0].state() == State::Closed;
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
async fn what_one_replica_hears_opens_it_at_the_others() {
    let bench = Bench::start(&with_breaker()).await;
    let caller = ready(&bench, "web", "uid-client").await;
    let other = bench.other_fleet();
    let deciding = tokio::spawn(other.clone().run());
    let listener = Listener {
        reports: Reports::new(ReportMetrics::default()),
        asks: Asks::default(),
        fleet: other.clone(),
        board: Board::default(),
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
    let listening = tokio::spawn(async move { listener.listen(addr).await });
    caller.say(pulse(60, 60)).await;
    let deadline = Instant::now() + PATIENCE;
    while other.verdicts().is_empty() {
        assert!(Instant::now() < deadline, "it was not heard");
        sleep(Duration::from_millis(10)).await;
    }
    listening.abort();
    deciding.abort();
}

#[tokio::test]
async fn a_proxy_that_pulses_all_the_time_is_heard_as_often_as_others() {
    let bench = Bench::start(&with_breaker()).await;
    let caller = ready(&bench, "web", "uid-client").await;
    for _ in 0..40 {
        caller.say(pulse(10, 0)).await;
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
