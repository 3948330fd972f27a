//! Rows FL-01 and FL-02: Flagger with all three versions of TrafficSplit that it
//! can write, at the same time.

use std::{collections::BTreeMap, time::Duration};

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
    traffic::{Seen, Traffic},
};

/// A canary takes 10 s per step, and pods have to start and end.
const PHASE: Duration = Duration::from_secs(240);
/// Application, and the version of TrafficSplit in which Flagger writes for it.
const APPS: [(&str, &str); 3] = [
    ("one", "v1alpha1"),
    ("two", "v1alpha2"),
    ("three", "v1alpha3"),
];

#[test]
fn flagger_promotes_a_good_version_and_rolls_a_bad_one_back() -> Outcome {
    let promotion = Record::begin("FL-01")?;
    let ns = Namespace::meshed("flagger")?;
    let prometheus = Prometheus::watching(&ns)?;
    let source = prepared("FLAGGER_SOURCE")?;
    let (metrics_server, only) = (
        format!("-metrics-server={}", prometheus.url()),
        format!("-namespace={}", ns.name),
    );
    let flagger = Client::install(&Parts {
        name: "flagger",
        definitions: vec![format!("{source}/artifacts/flagger/crd.yaml")],
        role: format!("{source}/artifacts/flagger/account.yaml"),
        image: prepared("FLAGGER_IMAGE")?,
        args: vec![
            "-log-level=debug",
            "-mesh-provider=smi:v1alpha3:weft",
            "-enable-config-tracking=false",
            "-control-loop-interval=5s",
            &metrics_server,
            &only,
        ],
        ready: ("/healthz", 8080),
        works_in: &ns.name,
    })?;

    ns.apply_all(&App::new("client").objects())?;
    ns.apply(&documented("flagger-metric-templates.yaml", &prometheus)?)?;
    let watches: Vec<Splits> = APPS
        .iter()
        .map(|(_, version)| Splits::watch(&ns, version))
        .collect::<anyhow::Result<_>>()?;
    for (app, version) in APPS {
        ns.apply_all(&application(app, "first", "0"))?;
        ns.apply_all(&[canary(app, version)])?;
    }
    await_phase(&ns, "Initialized")?;
    ns.ready(&["client"])?;
    promote(&ns, &watches, promotion)?;
    roll_back(&ns, &watches, &prometheus)?;

    let log = flagger.log()?;
    let began_anew: Vec<_> = log
        .lines()
        .filter(|line| line.contains("TrafficSplit") && line.contains("updated"))
        .collect();
    assert!(
        began_anew.is_empty(),
        "Flagger saw a difference: {began_anew:?}"
    );
    let failed: Vec<_> = log
        .lines()
        .filter(|line| line.contains("TrafficSplit") && line.contains("error"))
        .collect();
    assert!(
        failed.is_empty(),
        "Flagger could not read or write: {failed:?}"
    );
    Ok(())
}

fn promote(ns: &Namespace, watches: &[Splits], mut row: Record) -> anyhow::Result<()> {
    let traffic = start(ns)?;
    std::thread::sleep(Duration::from_secs(5));
    for (app, _) in APPS {
        ns.apply_all(&application(app, "second", "0"))?;
    }
    await_phase(ns, "Succeeded")?;
    for (((app, version), seen), watch) in APPS.iter().zip(traffic).zip(watches) {
        let seen = seen.finish()?;
        let weights = watch.weights(app, &author(app))?;
        ensure!(
            weights == [0, 20, 40, 60, 0],
            "{app} {version}: {weights:?}"
        );
        ensure!(
            seen.by_status.get("200") == Some(&seen.planned) && seen.errors.is_empty(),
            "{app}: requests failed during a good canary: {seen:?}"
        );
        ensure!(seen.by_version.contains_key("second"), "{app}: {seen:?}");
        let statuses = watch.statuses(app);
        ensure!(statuses > 0, "{app}: no status was written");
        row.saw(
            format!("provider smi:{version}:weft, a version without errors, 15 requests/s"),
            format!(
                "Succeeded; canary weights {weights:?}; {} of {} answered 200, by version {:?}; {statuses} states of status",
                seen.planned, seen.planned, seen.by_version
            ),
        );
    }
    for (app, _) in APPS {
        let primary = ns.json(&["get", "deployment", &format!("{app}-primary")])?;
        let version = version_of(&primary).context("a version")?;
        ensure!(version == "second", "{app}-primary runs {version}");
    }
    row.passed()
}

fn roll_back(ns: &Namespace, watches: &[Splits], prometheus: &Prometheus) -> anyhow::Result<()> {
    let mut row = Record::begin("FL-02")?;
    let traffic = start(ns)?;
    for (app, _) in APPS {
        ns.apply_all(&application(app, "third", "2"))?;
    }
    await_phase(ns, "Failed")?;
    for (((app, version), seen), watch) in APPS.iter().zip(traffic).zip(watches) {
        let seen = seen.finish()?;
        let weights = watch.weights(app, &author(app))?;
        ensure!(
            weights == [0, 20, 40, 60, 0, 20, 0],
            "{app} {version}: {weights:?}"
        );
        failed_in_half(app, &seen)?;
        let rate = prometheus.query(&format!(
            "sum(increase(weft_requests_total{{direction=\"outbound\",backend=\"{0}/{app}-canary\",success=\"false\"}}[10m]))",
            ns.name
        ))?;
        ensure!(rate.is_some_and(|rate| rate > 0.0), "{app}: {rate:?}");
        row.saw(
            format!("provider smi:{version}:weft, a version that fails every second request"),
            format!(
                "Failed; canary weights from then on {:?}; statuses {:?}, by version {:?}",
                &weights[4..],
                seen.by_status,
                seen.by_version
            ),
        );
    }
    for (app, _) in APPS {
        let primary = ns.json(&["get", "deployment", &format!("{app}-primary")])?;
        let version = version_of(&primary).context("a version")?;
        ensure!(version == "second", "{app}-primary runs {version}");
    }
    row.passed()
}

/// The bad version failed about half of what it got, the good one nothing.
fn failed_in_half(app: &str, seen: &Seen) -> anyhow::Result<()> {
    let of = |map: &BTreeMap<String, u64>, key: &str| map.get(key).copied().unwrap_or_default();
    let (bad, failed) = (of(&seen.by_version, "third"), of(&seen.by_status, "500"));
    ensure!(
        seen.errors.is_empty(),
        "{app}: requests were lost: {seen:?}"
    );
    ensure!(
        bad > 0 && failed.abs_diff(bad / 2) <= 1 + bad / 10,
        "{app}: {failed} failed of {bad} that the bad version answered: {seen:?}"
    );
    ensure!(
        of(&seen.by_status, "200") + failed == seen.planned,
        "{app}: {seen:?}"
    );
    Ok(())
}

fn start(ns: &Namespace) -> anyhow::Result<Vec<Traffic>> {
    let client = ns.pod("client")?;
    let url = |app: &str| format!("http://{app}:8080/");
    Ok(APPS
        .iter()
        .map(|(app, _)| Traffic::start(client.clone(), url(app)))
        .collect())
}

fn author(app: &str) -> Author {
    Author {
        root: app.into(),
        canary: format!("{app}-canary"),
        stable: format!("{app}-primary"),
    }
}

/// Account and Deployment; Flagger makes the Services.
fn application(name: &str, version: &str, fail_every: &str) -> Vec<Value> {
    let app = App::new(name)
        .version(version)
        .env("FAIL_EVERY", fail_every)
        // Not the HTTP port, half of whose answers may be errors.
        .readiness(json!({"tcpSocket": {"port": "call"}, "periodSeconds": 1}));
    let mut objects = app.objects();
    objects.retain(|object| object["kind"] != "Service");
    objects
}

fn version_of(deployment: &Value) -> Option<&str> {
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array()?;
    let variable = env.iter().find(|variable| variable["name"] == "VERSION")?;
    variable["value"].as_str()
}

fn canary(app: &str, version: &str) -> Value {
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": app}, "spec": {
        "provider": format!("smi:{version}:weft"),
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": app},
        "progressDeadlineSeconds": 120,
        "service": {"port": 8080, "targetPort": 8080, "portName": "http"},
        "analysis": {"interval": "10s", "threshold": 2, "maxWeight": 60, "stepWeight": 20, "metrics": [
            {"name": "success rate", "interval": "20s", "thresholdRange": {"min": 95},
                "templateRef": {"name": "weft-success-rate"}},
            {"name": "latency", "interval": "20s", "thresholdRange": {"max": 2000},
                "templateRef": {"name": "weft-latency"}}]}}})
}

fn await_phase(ns: &Namespace, phase: &str) -> anyhow::Result<()> {
    eventually(PHASE, &format!("all canaries are {phase}"), || {
        let list = ns.json(&["get", "canaries.flagger.app"])?;
        let items = list["items"].as_array().context("a list")?;
        let states: Vec<_> = items
            .iter()
            .map(|item| {
                (
                    &item["metadata"]["name"],
                    &item["status"]["phase"],
                    &item["status"]["canaryWeight"],
                )
            })
            .collect();
        ensure!(
            states.len() == APPS.len() && states.iter().all(|(_, now, _)| *now == phase),
            "they are {states:?}"
        );
        Ok(())
    })
}
