//! The specification's example of birds: row E10.

use anyhow::ensure;
use e2e::{
    conformance::Record,
    harness::{App, Namespace, Outcome, eventually},
};
use serde_json::{Value, json};

use super::super::{SOON, url};

/// A Service of both ports; `first` is what the port 8080 is and leads to.
fn service(name: &str, part: &str, first: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
        "selector": {"bird": part}, "ports": [first, {"name": "http-second", "port": 9090}]}})
}

/// Blue and green, half of the calls of `birds` for each, and who calls.
fn birds() -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed("birds")?;
    // The second port answers /echo and records who called.
    for (name, port) in [("blue", "8080"), ("green", "8081")] {
        let app = App::new(name)
            .label("bird", name)
            .env("PORT", port)
            .env("CALL_PORT", "9090")
            .readiness(json!({"tcpSocket": {"port": 9090}, "periodSeconds": 1}));
        ns.apply_all(&app.objects())?;
    }
    ns.apply_all(&App::new("client").objects())?;
    ns.apply_all(&[
        service("birds", "none", &json!({"name": "http", "port": 8080})),
        service("blue-birds", "blue", &json!({"name": "http", "port": 8080})),
        service("green-birds", "green", &json!({"name": "http", "port": 8080, "targetPort": 8081})),
        json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": "birds"}, "spec": {"service": "birds", "backends": [
                {"service": "blue-birds", "weight": 50}, {"service": "green-birds", "weight": 50}]}}),
    ])?;
    ns.ready(&["blue", "green", "client"])?;
    Ok(ns)
}

/// The Event of the split that says which backend lacks which port.
fn event_of_the_missing_port(ns: &Namespace) -> anyhow::Result<String> {
    eventually(SOON, "an Event on the split says so", || {
        let list = ns.json(&[
            "get",
            "events",
            "--field-selector=involvedObject.kind=TrafficSplit,involvedObject.name=birds",
        ])?;
        let items = list["items"].as_array().into_iter().flatten();
        let messages: Vec<_> = items
            .filter(|event| event["reason"] == "PortNotFound")
            .filter_map(|event| event["message"].as_str())
            .collect();
        let fits = |message: &&&str| message.contains("blue-birds") && message.contains("8080");
        let message = messages.iter().find(fits);
        let message = message.ok_or_else(|| anyhow::anyhow!("there are {messages:?} of {list}"))?;
        Ok((*message).to_owned())
    })
}

#[test]
fn split_skips_backend_lacking_roots_port() -> Outcome {
    let mut row = Record::begin("E10")?;
    let ns = birds()?;
    let client = ns.pod("client")?;
    let (blue, green) = (ns.pod("blue")?, ns.pod("green")?);
    let first = || client.get(&url("birds", 8080, "/"), &["-n", "200", "-c", "4"]);
    let second = || -> anyhow::Result<[usize; 2]> {
        for pod in [&blue, &green] {
            pod.get("http://127.0.0.1:9090/metrics", &["-X", "DELETE"])?;
        }
        let seen = client.get(&url("birds", 9090, "/echo"), &["-n", "200", "-c", "4"])?;
        ensure!(seen.by_status.get("200") == Some(&200), "{seen:?}");
        let mut counts = [0; 2];
        for (count, pod) in counts.iter_mut().zip([&blue, &green]) {
            let body = pod.get("http://127.0.0.1:9090/metrics", &[])?.last.body;
            let seen: e2e::echo::seen::EchoMetrics = serde_json::from_str(&body)?;
            *count = seen.req_received.len();
        }
        Ok(counts)
    };
    // 100 of 200 within 5 sigma of 7.07.
    let half = |count: usize| (65..=135).contains(&count);

    let seen = eventually(SOON, "both birds answer on 8080", || {
        let seen = first()?;
        ensure!(seen.by_status.get("200") == Some(&200), "{seen:?}");
        let blue = seen.by_version.get("blue").copied().unwrap_or_default();
        ensure!(half(usize::try_from(blue)?), "{:?}", seen.by_version);
        Ok(seen)
    })?;
    row.saw(
        "200 x GET http://birds:8080/, blue and green 50 to 50, green's targetPort is 8081",
        format!("by {:?}", seen.by_version),
    );
    let [of_blue, of_green] = second()?;
    assert!(
        half(of_blue) && of_blue + of_green == 200,
        "{of_blue}, {of_green}"
    );
    row.saw(
        "200 x GET http://birds:9090/echo",
        format!("blue received {of_blue}, green {of_green}"),
    );

    // Blue moves to another port number: the root's 8080 has no blue any more.
    let moved = json!({"name": "http", "port": 1024, "targetPort": 8080});
    ns.apply_all(&[service("blue-birds", "blue", &moved)])?;
    let seen = eventually(SOON, "blue gets nothing on 8080", || {
        let seen = first()?;
        ensure!(seen.by_version.get("green") == Some(&200), "{seen:?}");
        Ok(seen)
    })?;
    row.saw(
        "blue's port 8080 becomes 1024; 200 x GET http://birds:8080/",
        format!("by {:?}", seen.by_version),
    );
    let [of_blue, of_green] = second()?;
    assert!(
        half(of_blue),
        "blue lost 9090 as well: {of_blue}, {of_green}"
    );
    row.saw(
        "200 x GET http://birds:9090/echo",
        format!("blue received {of_blue}, green {of_green}"),
    );
    let message = event_of_the_missing_port(&ns)?;
    row.saw(
        "Events of TrafficSplit birds",
        format!("PortNotFound: {message}"),
    );
    row.passed()?;
    Ok(())
}
