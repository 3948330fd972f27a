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
