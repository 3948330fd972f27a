//! The field `status.breaker` of a TrafficPolicy.
//!
//! Claims: calls-68

use super::*;
use crate::fleet::Caller;

const POLICY: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/trafficpolicies/p";

#[tokio::test(start_paused = true)]
async fn status_shows_breaker_state_while_calls_arrive() {
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"}, "breaker": {}});
    let policy = cluster::traffic_policy("p", spec);
    let world = Arc::new(cluster::shop().with(policy.clone()).world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let compiled = Arc::new(Compiled::new(world, model, problems));
    let mut bench = Bench::new(&[("api", 1)]);
    bench.api.put(POLICY, policy);
    bench.models.send_replace(Some(compiled));
    assert_eq!(bench.round().await, None);
    let shown = |bench: &Bench| bench.api.read(POLICY).unwrap()["status"]["breaker"].clone();
    assert_eq!(shown(&bench), Value::Null);
    let fleet = bench.writer.fleet.clone();
    let deciding = tokio::spawn(fleet.clone().run());
    let from = Caller {
        account: "shop/web".into(),
        uid: "uid-client".into(),
    };
    let circuit = v1::Circuit {
        service: "shop/api".to_owned(),
        backend: "shop/api".to_owned(),
        port: 80,
    };
    let say = |sent, failed| {
        let circuits = vec![v1::CircuitPulse {
            circuit: Some(circuit.clone()),
            sent,
            failed,
            ..v1::CircuitPulse::default()
        }];
        fleet.take(&from, v1::Pulse { circuits }, Instant::now());
    };
    say(40, 10);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = bench.round().await;
    assert!(again.is_some_and(|at| at <= Instant::now() + COUNT_EVERY));
    assert_eq!(shown(&bench)["state"], json!("Closed"));
    assert_eq!(shown(&bench)["requests"], json!(40));
    assert_eq!(shown(&bench)["failurePercent"], json!(25));
    say(60, 60);
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.round().await;
    assert_eq!(shown(&bench)["state"], json!("Open"), "at once");
    assert_eq!(shown(&bench)["callers"], json!(1));
    assert!(shown(&bench)["since"].as_str().unwrap().ends_with('Z'));
    // Open, then probed, then closed over its ramp, because there are no calls.
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.round().await;
    assert_eq!(shown(&bench), Value::Null);
    deciding.abort();
}

/// While there are no calls, nothing else may wake the writer: no proxy has anything to report, and
/// the model stays as it is.
#[tokio::test(start_paused = true)]
async fn closed_breaker_status_exists_only_while_called() {
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"}, "breaker": {}});
    let policy = cluster::traffic_policy("p", spec);
    let world = Arc::new(cluster::shop().with(policy.clone()).world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let bench = Bench::new(&[("api", 1)]);
    bench.api.put(POLICY, policy);
    let compiled = Compiled::new(world, model, problems);
    bench.models.send_replace(Some(Arc::new(compiled)));
    let fleet = bench.writer.fleet.clone();
    let writing = tokio::spawn(bench.writer.clone().write());
    let deciding = tokio::spawn(fleet.clone().run());
    let shown = || bench.api.read(POLICY).unwrap()["status"]["breaker"].clone();
    let written = || bench.writer.written.get();
    let from = Caller {
        account: "shop/web".into(),
        uid: "uid-client".into(),
    };
    let say = || {
        let circuit = v1::Circuit {
            service: "shop/api".to_owned(),
            backend: "shop/api".to_owned(),
            port: 80,
        };
        let circuits = vec![v1::CircuitPulse {
            circuit: Some(circuit),
            sent: 10,
            ..v1::CircuitPulse::default()
        }];
        fleet.take(&from, v1::Pulse { circuits }, Instant::now());
    };
    // Everything is looked at when it begins, and again with the first pods.
    sleep(4 * COUNT_EVERY).await;
    let before = written();
    assert!(before > 0);
    sleep(4 * COUNT_EVERY).await;
    assert_eq!((shown(), written()), (Value::Null, before));

    say();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shown()["state"], json!("Closed"));
    assert_eq!(written(), before + 1);
    // What proxies go on to say waits for its time.
    for _ in 0..3 {
        say();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(written(), before + 1);
    sleep(COUNT_EVERY).await;
    assert_eq!(shown()["requests"], json!(40));
    assert_eq!(written(), before + 2);

    sleep(Duration::from_secs(60)).await;
    assert_eq!(shown(), Value::Null);
    let cleared = written();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(written(), cleared);
    writing.abort();
    deciding.abort();
}
