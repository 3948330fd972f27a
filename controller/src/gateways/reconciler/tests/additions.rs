//! What others add to the objects of a Gateway goes where it changes what they mean.

use super::*;

#[tokio::test(start_paused = true)]
async fn additions_go_and_labels_stay() {
    let bench = Bench::start(&gateway(1, &json!({}))).await;
    bench.becomes_available().await;
    let (service, deployment) = (bench.read(SERVICE), bench.read(DEPLOYMENT));
    let (mut more, mut pods) = (service.clone(), deployment.clone());
    more["metadata"]["labels"]["theirs"] = json!("x");
    more["spec"]["selector"]["app"] = json!("api");
    more["spec"]["externalIPs"] = json!(["192.0.2.1"]);
    more["spec"]["ports"][0]["nodePort"] = json!(30080);
    let port = json!({"name": "more", "port": 7777, "targetPort": 15190, "protocol": "TCP"});
    more["spec"]["ports"].as_array_mut().unwrap().push(port);
    let pod = &mut pods["spec"]["template"]["spec"];
    pod["nodeSelector"]["disk"] = json!("none");
    let containers = pod["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "theirs", "image": "x"}));
    let env = containers[0]["env"].as_array_mut().unwrap();
    env.push(json!({"name": "THEIRS", "value": "x"}));
    bench.api.put(SERVICE, more);
    bench.api.put(DEPLOYMENT, pods);
    sleep(2 * EVERY).await;
    let now = bench.read(SERVICE);
    assert_eq!(now["metadata"]["labels"]["theirs"], "x");
    assert_eq!(now["spec"]["selector"], service["spec"]["selector"]);
    assert_eq!(now["spec"]["externalIPs"], Value::Null);
    let mut ports = service["spec"]["ports"].clone();
    ports[0]["nodePort"] = json!(30080);
    assert_eq!(now["spec"]["ports"], ports);
    let now = bench.read(DEPLOYMENT);
    assert_eq!(now["spec"]["template"], deployment["spec"]["template"]);
}

/// Else two controllers would write for ever.
#[tokio::test(start_paused = true)]
async fn additions_that_come_back_are_left_and_named() {
    let mut bench = Bench::of(&gateway(1, &json!({})));
    bench.write_events();
    tokio::spawn(bench.reconciler.clone().keep());
    sleep(3 * SOON).await;
    bench.becomes_available().await;
    sleep(2 * EVERY).await;
    bench.writes();
    for _ in 0..40 {
        let mut more = bench.read(SERVICE);
        more["spec"]["selector"]["app"] = json!("api");
        bench.api.put(SERVICE, more);
        sleep(EVERY).await;
    }
    let writes = bench.writes().into_iter().map(|(_, path)| path);
    let writes = writes.filter(|path| path == SERVICE).count();
    assert!((1..8).contains(&writes), "{writes}");
    let notes = bench.notes("ForeignEdit");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("Service edge/web-weft: spec.selector"));
    sleep(400 * EVERY).await;
    assert_eq!(bench.read(SERVICE)["spec"]["selector"]["app"], Value::Null);
}
