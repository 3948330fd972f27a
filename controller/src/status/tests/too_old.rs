//! Proxies that cannot use what is made of an object.

use super::*;

#[tokio::test(start_paused = true)]
async fn object_that_a_proxy_is_too_old_for_is_not_programmed_and_says_whose() {
    let mut bench = Bench::new(&[("api", 1)]);
    let state = |pod: &str, too_old: bool| v1::ProxyState {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        objects: vec![v1::ObjectState {
            object: Some(v1::ObjectRef::from(&canary())),
            needed: 1,
            acknowledged: !too_old,
            too_old,
            ..v1::ObjectState::default()
        }],
        ..v1::ProxyState::default()
    };
    let observed = bench.writer.observed.clone();
    observed.note(1, state("one", false));
    observed.note(2, state("two", true));
    bench.round().await;
    let programmed = bench.condition("Programmed");
    assert_eq!(programmed["status"], json!("False"));
    assert_eq!(programmed["reason"], json!("ProxyTooOld"));
    let message = programmed["message"].as_str().unwrap();
    assert!(message.starts_with("1 of 2 proxies; the proxies of shop/two are too old"));

    observed.note(2, state("two", false));
    tokio::time::advance(COUNT_EVERY).await;
    bench.round().await;
    assert_eq!(bench.condition("Programmed")["status"], json!("True"));
}

#[tokio::test(start_paused = true)]
async fn policy_that_no_proxy_can_carry_out_yet_says_so_with_what_it_is_about() {
    const POLICY: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/trafficpolicies/p";
    let spec =
        json!({"targetRef": {"kind": "Service", "name": "api"}, "retry": {}, "overload": {}});
    let policy = cluster::traffic_policy("p", spec);
    let mut bench = Bench::new(&[("api", 1)]);
    bench.api.put(POLICY, policy.clone());
    let world = Arc::new(cluster::shop().with(policy).world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    // What the replica says of streams whose proxies name no such capability.
    for (stream, pod) in [(1, "client"), (2, "api-1"), (3, "api-2")] {
        let pod_id = crate::model::PodId::new("shop", pod);
        let names = ["destination/10.96.0.1:80".to_owned()].into();
        let set = model.resolve(&pod_id, &names, &wire::capability::Capabilities::default());
        let left_out = set.unwrap().left_out;
        let of = if pod == "client" {
            &names
        } else {
            &Default::default()
        };
        let state = v1::ProxyState {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            objects: left_out
                .iter()
                .map(|(object, generation)| v1::ObjectState {
                    object: Some(v1::ObjectRef::from(object)),
                    needed: *generation,
                    too_old: true,
                    ..v1::ObjectState::default()
                })
                .collect(),
            destinations: of.iter().cloned().collect(),
            ..v1::ProxyState::default()
        };
        bench.writer.observed.note(stream, state);
    }
    let compiled = Arc::new(Compiled::new(world, model, problems));
    bench.models.send_replace(Some(compiled));
    bench.round().await;
    let status = bench.api.read(POLICY).unwrap()["status"].clone();
    assert_eq!(status["target"], json!("Service/api"));
    assert_eq!(status["summary"], json!("retry, overload"));
    let words = |place: usize| {
        let held = &status["conditions"][place];
        [&held["type"], &held["status"], &held["reason"]]
            .map(|text| text.as_str().unwrap().to_owned())
    };
    assert_eq!(words(0), ["Accepted", "True", "Accepted"]);
    assert_eq!(words(1), ["ResolvedRefs", "True", "ResolvedRefs"]);
    assert_eq!(words(2), ["Programmed", "False", "ProxyTooOld"]);
    let message = status["conditions"][2]["message"].as_str().unwrap();
    assert!(
        message.starts_with("0 of 3 proxies; the proxies of shop/api-1, shop/api-2, shop/client")
    );
}
