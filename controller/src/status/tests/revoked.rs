//! Statuses of Revocations, which are in no namespace.

use super::*;

const LEAK: &str = "/apis/weft.dev/v1alpha1/revocations/leak";

fn leak() -> ObjectRef {
    ObjectRef::new(Kind::Revocation, "", "leak")
}

/// All proxies that run acknowledge this generation.
fn acknowledged(bench: &Bench, compiled: &Compiled, generation: i64) {
    for (stream, pod) in (1..).zip(compiled.model.running_pods()) {
        let object = v1::ObjectState {
            object: Some(v1::ObjectRef::from(&leak())),
            needed: generation,
            acknowledged: true,
            ..v1::ObjectState::default()
        };
        let state = v1::ProxyState {
            namespace: pod.namespace.to_string(),
            pod: pod.name.to_string(),
            objects: vec![object],
            ..v1::ProxyState::default()
        };
        bench.writer.observed.note(stream, state);
    }
}

#[tokio::test(start_paused = true)]
async fn revocation_status_counts_proxies_and_keeps_pods() {
    let mut bench = Bench::new(&[("api", 1)]);
    let spec = json!({"reason": "test", "subjects": [
        {"pod": {"namespace": "shop", "name": "api-1"}},
        {"certificate": {"serial": "5f3a90"}}]});
    let revocation = cluster::revocation("leak", spec);
    bench.api.put(LEAK, revocation.clone());
    let world = Arc::new(cluster::shop().with(revocation).world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let compiled = Arc::new(Compiled::new(world, model, problems));
    bench.models.send_replace(Some(compiled.clone()));
    bench.round().await;
    let status = |bench: &Bench| bench.api.read(LEAK).unwrap()["status"].clone();
    let programmed = |status: &Value| {
        let conditions = status["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|one| one["type"] == "Programmed");
        found.unwrap().clone()
    };
    let first = status(&bench);
    assert_eq!(first["summary"], "pod shop/api-1, 1 more");
    assert_eq!(first["subjects"][0]["subject"], "pod shop/api-1");
    let uids = first["subjects"][0]["podUids"].as_array().unwrap();
    assert_eq!(uids.len(), 1, "{first}");
    assert_eq!(programmed(&first)["status"], "False");

    // The pod that is revoked is not waited for.
    acknowledged(&bench, &compiled, 1);
    bench.round().await;
    let second = programmed(&status(&bench));
    assert_eq!(second["status"], "True", "{second}");
    assert_eq!(second["message"], "2 of 2 proxies");
}

#[tokio::test(start_paused = true)]
async fn missing_subject_stands_before_count_of_proxies() {
    let mut bench = Bench::new(&[("api", 1)]);
    let spec = json!({"reason": "test", "subjects": [
        {"pod": {"namespace": "shop", "name": "apl-1"}}]});
    let revocation = cluster::revocation("leak", spec);
    bench.api.put(LEAK, revocation.clone());
    let world = Arc::new(cluster::shop().with(revocation).world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let compiled = Arc::new(Compiled::new(world, model, problems));
    bench.models.send_replace(Some(compiled));
    bench.round().await;
    let status = bench.api.read(LEAK).unwrap()["status"].clone();
    let conditions = status["conditions"].as_array().unwrap();
    let programmed = conditions.iter().find(|one| one["type"] == "Programmed");
    let message = programmed.unwrap()["message"].as_str().unwrap();
    let (missing, proxies) = (
        message.find("there is no pod shop/apl-1"),
        message.find("proxies"),
    );
    assert!(missing.is_some() && missing < proxies, "{message}");
}
