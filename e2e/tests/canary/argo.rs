//! Rows AR-01 and AR-02: Argo Rollouts with its default version of TrafficSplit
//! and its default root, which is the stable backend itself.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{
    conformance::Record,
    harness::{App, Namespace, Outcome, Prometheus, eventually},
};
use serde_json::{Value, json};

use super::{
    client::{Client, Parts},
    documented, prepared,
    splits::{Author, Splits},
    traffic::{RATE, Traffic},
};

/// Two weights with an analysis of 15 s each, and pods that start and end.
const PHASE: Duration = Duration::from_secs(180);
/// What Argo writes unless its flag names another version.
const VERSION: &str = "v1alpha1";

#[test]
fn argo_rollouts_promotes_good_and_aborts_bad_version() -> Outcome {
    let promotion = Record::begin("AR-01")?;
    let ns = Namespace::meshed("argo")?;
    let prometheus = Prometheus::watching(&ns)?;
    let source = prepared("ARGO_SOURCE")?;
    let only = format!("--namespace={}", ns.name);
    let definitions = [
        "rollout",
        "analysis-run",
        "analysis-template",
        "cluster-analysis-template",
        "experiment",
    ];
    let argo = Client::install(&Parts {
        name: "argo-rollouts",
        definitions: definitions
            .iter()
            .map(|name| format!("{source}/manifests/crds/{name}-crd.yaml"))
            .collect(),
        role: format!("{source}/manifests/role/argo-rollouts-clusterrole.yaml"),
        image: prepared("ARGO_IMAGE")?,
        args: vec!["--namespaced", "--leader-elect=false", &only],
        ready: ("/healthz", 8080),
        works_in: &ns.name,
    })?;

    ns.apply_all(&App::new("client").objects())?;
    ns.apply(&documented("argo-analysis-template.yaml", &prometheus)?)?;
    let watch = Splits::watch(&ns, VERSION)?;
    ns.apply_all(&services())?;
    ns.apply_all(&rollout("first", "0"))?;
    await_phase(&ns, "Healthy", "first")?;
    ns.ready(&["client"])?;
    promote(&ns, &watch, promotion)?;
    abort(&ns, &watch)?;

    let log = argo.log()?;
    let failed: Vec<_> = log
        .lines()
        .filter(|line| line.to_lowercase().contains("traffic") && line.contains("level=error"))
        .collect();
    assert!(
        failed.is_empty(),
        "Argo could not read or write: {failed:?}"
    );
    Ok(())
}

fn promote(ns: &Namespace, watch: &Splits, mut row: Record) -> anyhow::Result<()> {
    let traffic = Traffic::start(ns.pod("client")?, "http://web-stable:8080/".into(), RATE);
    std::thread::sleep(Duration::from_secs(5));
    ns.apply_all(&rollout("second", "0"))?;
    await_phase(ns, "Healthy", "second")?;
    let seen = traffic.finish()?;
    let weights = watch.weights("web", &author())?;
    // At 100 the new version becomes the stable one, and the canary has 0 again.
    ensure!(weights == [0, 20, 60, 100, 0], "{weights:?}");
    ensure!(
        seen.by_status.get("200") == Some(&seen.planned) && seen.errors.is_empty(),
        "requests failed during a good rollout: {seen:?}"
    );
    ensure!(seen.by_version.contains_key("second"), "{seen:?}");
    let statuses = watch.statuses("web");
    ensure!(statuses > 0, "no status was written");
    row.saw(
        "smi with defaults (v1alpha1, root = stable), a version without errors, 15 requests/s",
        format!(
            "Healthy; canary weights {weights:?}; {} of {} answered 200, by version {:?}; {statuses} states of status",
            seen.planned, seen.planned, seen.by_version
        ),
    );
    row.passed()
}

fn abort(ns: &Namespace, watch: &Splits) -> anyhow::Result<()> {
    let mut row = Record::begin("AR-02")?;
    let traffic = Traffic::start(ns.pod("client")?, "http://web-stable:8080/".into(), RATE);
    ns.apply_all(&rollout("third", "2"))?;
    await_phase(ns, "Degraded", "third")?;
    let seen = traffic.finish()?;
    let weights = watch.weights("web", &author())?;
    ensure!(weights == [0, 20, 60, 100, 0, 20, 0], "{weights:?}");
    let of = |status: &str| seen.by_status.get(status).copied().unwrap_or_default();
    ensure!(seen.errors.is_empty(), "requests were lost: {seen:?}");
    let bad = seen.by_version.get("third").copied().unwrap_or_default();
    ensure!(
        bad > 0 && of("500").abs_diff(bad / 2) <= 1 + bad / 10,
        "{} failed of {bad} that the bad version answered: {seen:?}",
        of("500")
    );
    ensure!(of("200") + of("500") == seen.planned, "{seen:?}");
    let object = ns.json(&["get", "rollouts.argoproj.io", "web"])?;
    ensure!(object["status"]["abort"] == true, "{}", object["status"]);
    row.saw(
        "the same, a version that fails every second request",
        format!(
            "Degraded, aborted; canary weights from then on {:?}; statuses {:?}, by version {:?}",
            &weights[4..],
            seen.by_status,
            seen.by_version
        ),
    );
    row.passed()
}

fn author() -> Author {
    Author {
        root: "web-stable".into(),
        canary: "web-canary".into(),
        stable: "web-stable".into(),
    }
}

fn services() -> Vec<Value> {
    ["web-stable", "web-canary"]
        .iter()
        .map(|name| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
                "selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080}]}})
        })
        .collect()
}

/// Account and Rollout.
fn rollout(version: &str, fail_every: &str) -> Vec<Value> {
    let app = App::new("web")
        .version(version)
        .env("FAIL_EVERY", fail_every)
        // Not the HTTP port, half of whose answers may be errors.
        .readiness(json!({"tcpSocket": {"port": "call"}, "periodSeconds": 1}));
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}});
    let analysis = json!({"analysis": {"templates": [{"templateName": "weft-success-rate"}],
        "args": [
            {"name": "namespace", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "service", "value": "web-canary"}]}});
    // Long enough for the window of the query to hold requests to this weight.
    let pause = json!({"pause": {"duration": "10s"}});
    let steps = json!([{"setWeight": 20}, pause, analysis, {"setWeight": 60}, pause, analysis]);
    vec![
        account,
        json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": app.template(),
                "strategy": {"canary": {"canaryService": "web-canary", "stableService": "web-stable",
                    "trafficRouting": {"smi": {}}, "steps": steps}}}}),
    ]
}

/// Waits until the rollout of `version` has ended like this.
fn await_phase(ns: &Namespace, phase: &str, version: &str) -> anyhow::Result<()> {
    eventually(
        PHASE,
        &format!("the rollout of {version} is {phase}"),
        || {
            let object = ns.json(&["get", "rollouts.argoproj.io", "web"])?;
            let (spec, status) = (&object["spec"], &object["status"]);
            let env = spec["template"]["spec"]["containers"][0]["env"].as_array();
            let mut env = env.context("an environment")?.iter();
            let current = env.find(|variable| variable["name"] == "VERSION");
            ensure!(
                current.is_some_and(|current| current["value"] == version),
                "{object}"
            );
            let observed = status["observedGeneration"].as_str().map(str::to_owned);
            let generation = object["metadata"]["generation"].to_string();
            ensure!(observed == Some(generation), "not observed yet: {status}");
            ensure!(status["phase"] == phase, "it is {status}");
            Ok(())
        },
    )
}
