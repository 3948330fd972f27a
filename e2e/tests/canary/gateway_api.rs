//! Rows FL-03 and FL-04: Flagger with an HTTPRoute whose parent is the Service that callers name.
//!
//! Claims: routes-1

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{
    conformance::Record,
    harness::{App, Namespace, Outcome, Prometheus, Watch, eventually, gateway_api},
};
use serde_json::{Value, json};

use super::{
    client::Client,
    documented,
    traffic::{RATE, Traffic, TrafficResult},
};

/// A canary takes 10 s per step, and pods have to start and end.
const PHASE: Duration = Duration::from_secs(240);
/// What every second request to the bad version is answered, which no proxy sends again.
const BROKEN: &str = "500";
const PROVIDER: &str = "gatewayapi:v1";
const APP: &str = "web";
const ROUTES: &str = "httproutes.v1.gateway.networking.k8s.io";

#[test]
fn flagger_promotes_and_rolls_back_by_http_route() -> Outcome {
    let promotion = Record::begin("FL-03")?;
    gateway_api::installed()?;
    let ns = Namespace::meshed("flagger-route")?;
    let prometheus = Prometheus::watching(&ns)?;
    let flagger = Client::flagger(&ns, PROVIDER, &prometheus)?;

    ns.apply_all(&App::new("client").objects())?;
    ns.apply(&documented("flagger-metric-templates.yaml", &prometheus)?)?;
    let watch = Watch::start(&ns, ROUTES)?;
    ns.apply_all(&application("first", "0"))?;
    ns.apply_all(&[canary()])?;
    await_phase(&ns, "Initialized")?;
    ns.ready(&["client"])?;
    promote(&ns, &watch, promotion)?;
    roll_back(&ns, &watch)?;

    let log = flagger.log()?;
    let failed: Vec<_> = log
        .lines()
        .filter(|line| line.contains("HTTPRoute") && line.contains("error"))
        // Flagger itself updates a route without a name right after it made the first one.
        .filter(|line| !line.contains("resource name may not be empty"))
        .collect();
    assert!(
        failed.is_empty(),
        "Flagger could not read or write: {failed:?}"
    );
    Ok(())
}

fn promote(ns: &Namespace, watch: &Watch, mut row: Record) -> anyhow::Result<()> {
    let traffic = start(ns)?;
    std::thread::sleep(Duration::from_secs(5));
    ns.apply_all(&application("second", "0"))?;
    await_phase(ns, "Succeeded")?;
    let seen = traffic.finish()?;
    let weights = weights(watch)?;
    ensure!(weights == [0, 20, 40, 60, 0], "{weights:?}");
    ensure!(
        seen.by_status.get("200") == Some(&seen.planned) && seen.errors.is_empty(),
        "requests failed during a good canary: {seen:?}"
    );
    ensure!(seen.by_version.contains_key("second"), "{seen:?}");
    is_accepted(ns)?;
    runs_the_second(ns)?;
    row.saw(
        format!(
            "provider {PROVIDER}, parent Service {APP}, a version without errors, {RATE} requests/s"
        ),
        format!(
            "Succeeded; canary weights {weights:?}; {} of {} answered 200, by version {:?}",
            seen.planned, seen.planned, seen.by_version
        ),
    );
    row.passed()
}

fn roll_back(ns: &Namespace, watch: &Watch) -> anyhow::Result<()> {
    let mut row = Record::begin("FL-04")?;
    let traffic = start(ns)?;
    ns.apply_all(&application("third", "2"))?;
    await_phase(ns, "Failed")?;
    let seen = traffic.finish()?;
    let weights = weights(watch)?;
    ensure!(weights == [0, 20, 40, 60, 0, 20, 0], "{weights:?}");
    failed_in_half(&seen)?;
    runs_the_second(ns)?;
    row.saw(
        format!("provider {PROVIDER}, every second request is answered {BROKEN}"),
        format!(
            "Failed; canary weights from then on {:?}; statuses {:?}, by version {:?}",
            &weights[4..],
            seen.by_status,
            seen.by_version
        ),
    );
    row.passed()
}

fn start(ns: &Namespace) -> anyhow::Result<Traffic> {
    let url = format!("http://{APP}:8080/");
    Ok(Traffic::start(ns.pod("client")?, url, RATE))
}

/// Of the canary in each state of the route, equal neighbours once.
fn weights(watch: &Watch) -> anyhow::Result<Vec<i64>> {
    let mut weights = Vec::new();
    for route in watch.states(APP) {
        let backends = route["spec"]["rules"][0]["backendRefs"].as_array();
        let canary = format!("{APP}-canary");
        let backend = backends
            .into_iter()
            .flatten()
            .find(|backend| backend["name"] == canary)
            .with_context(|| format!("no canary: {route}"))?;
        let weight = backend["weight"].as_i64();
        let weight = weight.with_context(|| format!("no weight: {route}"))?;
        if weights.last() != Some(&weight) {
            weights.push(weight);
        }
    }
    Ok(weights)
}

/// The bad version failed about half of what it got, the good one nothing.
fn failed_in_half(seen: &TrafficResult) -> anyhow::Result<()> {
    let of = |status: &str| seen.by_status.get(status).copied().unwrap_or_default();
    let bad = seen.by_version.get("third").copied().unwrap_or_default();
    ensure!(
        seen.errors.is_empty() && of("200") + of(BROKEN) == seen.planned,
        "requests were lost: {seen:?}"
    );
    ensure!(
        bad > 0 && of(BROKEN).abs_diff(bad / 2) <= 1 + bad / 10,
        "{} failed of {bad} that the bad version answered: {seen:?}",
        of(BROKEN)
    );
    Ok(())
}

fn is_accepted(ns: &Namespace) -> anyhow::Result<()> {
    let route = ns.json(&["get", ROUTES, APP])?;
    let parents = route["status"]["parents"].as_array();
    let accepted = parents
        .into_iter()
        .flatten()
        .filter(|parent| parent["controllerName"] == "weft.dev/mesh")
        .filter_map(|parent| parent["conditions"].as_array())
        .flatten()
        .any(|condition| condition["type"] == "Accepted" && condition["status"] == "True");
    ensure!(accepted, "the route is {}", route["status"]);
    Ok(())
}

fn runs_the_second(ns: &Namespace) -> anyhow::Result<()> {
    let primary = ns.json(&["get", "deployment", &format!("{APP}-primary")])?;
    let env = primary["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
    let second = env
        .into_iter()
        .flatten()
        .any(|variable| variable["name"] == "VERSION" && variable["value"] == "second");
    ensure!(second, "{APP}-primary runs another version: {primary}");
    Ok(())
}

/// Account and Deployment; Flagger makes the Services and the route.
fn application(version: &str, fail_every: &str) -> Vec<Value> {
    let app = App::new(APP)
        .version(version)
        .env("FAIL_EVERY", fail_every)
        .env("FAIL_STATUS", BROKEN)
        // Not the HTTP port, half of whose answers may be errors.
        .readiness(json!({"tcpSocket": {"port": "call"}, "periodSeconds": 1}));
    let mut objects = app.objects();
    objects.retain(|object| object["kind"] != "Service");
    objects
}

fn canary() -> Value {
    let parent = json!({"group": "", "kind": "Service", "name": APP, "port": 8080});
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": APP}, "spec": {
        "provider": PROVIDER,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": APP},
        "progressDeadlineSeconds": 120,
        "service": {"port": 8080, "targetPort": 8080, "portName": "http", "gatewayRefs": [parent]},
        "analysis": {"interval": "10s", "threshold": 2, "maxWeight": 60, "stepWeight": 20, "metrics": [
            {"name": "success rate", "interval": "20s", "thresholdRange": {"min": 95},
                "templateRef": {"name": "weft-success-rate"}},
            {"name": "latency", "interval": "20s", "thresholdRange": {"max": 2000},
                "templateRef": {"name": "weft-latency"}}]}}})
}

fn await_phase(ns: &Namespace, phase: &str) -> anyhow::Result<()> {
    eventually(PHASE, &format!("the canary is {phase}"), || {
        let canary = ns.json(&["get", "canaries.flagger.app", APP])?;
        let status = &canary["status"];
        ensure!(status["phase"] == phase, "it is {status}");
        Ok(())
    })
}
