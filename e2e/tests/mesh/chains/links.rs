//! The applications of a chain, and their logs.

use anyhow::ensure;
use e2e::{
    echo::request_log::{LogSnapshot, PATH, Record},
    harness::{Api, App, Pod},
};
use http::Method;
use serde_json::json;

/// Orders and logs of the application; the pods skip the port, so that no proxy counts what
/// the test itself asks.
pub(crate) const BYPASS: u16 = 9092;
/// What calls of gRPC ask each of a chain for: its path is that of its method.
pub(crate) const CALLS: &str = "/weft.echo.Echo/Unary";

/// An application that calls no other. It is ready as soon as it answers, and stays so while
/// the machine is busy: with the defaults three probes in a row that take over a second remove
/// the only pod of a link from its Service, and its callers rightly receive `no-endpoint`.
pub(crate) fn link(name: &str) -> App {
    App::new(name)
        .annotation("weft.dev/skip-inbound-ports", &BYPASS.to_string())
        // Not by the port that calls on: a probe would go down the chain.
        .readiness(json!({
            "httpGet": {"path": "/metrics", "port": 9091},
            "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 12,
        }))
}

/// An application that asks the next one, with these headers of its request.
pub(crate) fn calls_on(name: &str, next: &str, propagate: &str) -> App {
    link(name)
        .env("NEXT", &format!("http://{next}:8080"))
        .env("PROPAGATE", propagate)
}

/// From now on the application of this pod fails so.
pub(crate) fn fault(pod: &Pod, fault: &str) -> anyhow::Result<()> {
    // Within the pod, past its proxy.
    let url = "http://127.0.0.1:8080/fault";
    let args = ["get", url, "-X", "POST", "--body", fault];
    pod.exec(&[&args[..], &["--expect", "fault set"]].concat())
        .map(drop)
}

/// The application's log of what reached it below `path`, as it returns it.
pub(crate) fn log(api: &Api, pod: &Pod, path: &str) -> anyhow::Result<String> {
    let path = format!("{PATH}?only={path}");
    let (status, text) = api.ask_pod(pod, BYPASS, &Method::GET, &path, "")?;
    ensure!(
        status == 200,
        "{path} of {} answered {status}: {text}",
        pod.name
    );
    Ok(text)
}

/// What reached the application below `path`, from the first request on.
pub(crate) fn requests(api: &Api, pod: &Pod, path: &str) -> anyhow::Result<Vec<Record>> {
    let text = log(api, pod, path)?;
    let snapshot: LogSnapshot = serde_json::from_str(&text)?;
    ensure!(
        snapshot.lost == 0,
        "{} lost {} requests",
        pod.name,
        snapshot.lost
    );
    Ok(snapshot.records)
}
