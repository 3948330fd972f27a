//! The field `status.breaker` of a TrafficPolicy.

use super::*;
use crate::fleet::Caller;

const POLICY: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/trafficpolicies/p";

#[tokio::test(start_paused = true)]
async fn status_says_how_the_breaker_fares_while_anybody_calls() {
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
    // Open, then probed, then closed over its ramp, because nobody calls.
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.round().await;
    assert_eq!(shown(&bench), Value::Null);
    deciding.abort();
}
