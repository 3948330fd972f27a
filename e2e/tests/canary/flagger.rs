//! Rows FL-01 and FL-02: Flagger with all three versions of TrafficSplit that it
//! can write, at the same time.
//!
//! Callers see every response with a status that is not retried. Of one that is retried, 503,
//! they see a part only; so the version that answers it has two instances, or no retry would
//! happen, and Flagger evaluates the attempts.
//!
//! Claims: calls-6

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{
    conformance::Record,
    harness::{App, Namespace, Outcome, Pod, Prometheus, eventually},
};
use serde_json::{Value, json};

use super::{
    client::Client,
    documented,
    splits::{Author, Splits},
    traffic::{RATE, Traffic, TrafficResult},
};

/// A canary takes 10 s per step, and pods have to start and end.
const PHASE: Duration = Duration::from_secs(240);
/// A failure that is not retried, and one that is.
const BROKEN: &str = "500";
const UNAVAILABLE: &str = "503";

/// An application, the version of TrafficSplit in which Flagger writes for it, and how its
/// bad version fails.
#[derive(Debug)]
struct Target {
    name: &'static str,
    version: &'static str,
    /// What every second request to the bad version is answered.
    status: &'static str,
    /// Of each version. A retry goes to another one.
    instances: u32,
    /// Requests per second. Where they are few the budget has a retry for most failures.
    rate: &'static str,
    /// Percent of success that Flagger asks for.
    least: u32,
}

impl Target {
    const fn broken(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            status: BROKEN,
            instances: 1,
            rate: RATE,
            least: 95,
        }
    }

    fn canary(&self, ns: &Namespace) -> String {
        format!("{}/{}-canary", ns.name, self.name)
    }
}

const TARGETS: [Target; 3] = [
    Target::broken("one", "v1alpha1"),
    Target::broken("two", "v1alpha2"),
    Target {
        status: UNAVAILABLE,
        instances: 2,
        // Fewer would be too few for Flagger's first look, 10 s after the first of them.
        rate: "12",
        // Half of the attempts succeed, and three of four requests at least: who judged by
        // those would promote it.
        least: 70,
        ..Target::broken("three", "v1alpha3")
    },
];

#[test]
fn flagger_promotes_good_and_rolls_back_bad_version() -> Outcome {
    let promotion = Record::begin("FL-01")?;
    let ns = Namespace::meshed("flagger")?;
    let prometheus = Prometheus::watching(&ns)?;
    let flagger = Client::flagger(&ns, "smi:v1alpha3:weft", &prometheus)?;

    ns.apply_all(&App::new("client").objects())?;
    ns.apply(&documented("flagger-metric-templates.yaml", &prometheus)?)?;
    let watches: Vec<Splits> = TARGETS
        .iter()
        .map(|target| Splits::watch(&ns, target.version))
        .collect::<anyhow::Result<_>>()?;
    for target in &TARGETS {
        ns.apply_all(&application(target, "first", "0"))?;
        ns.apply_all(&[canary(target)])?;
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
    for target in &TARGETS {
        ns.apply_all(&application(target, "second", "0"))?;
    }
    await_phase(ns, "Succeeded")?;
    for ((target, seen), watch) in TARGETS.iter().zip(traffic).zip(watches) {
        let Target {
            name,
            version,
            rate,
            ..
        } = target;
        let seen = seen.finish()?;
        let weights = watch.weights(name, &author(name))?;
        ensure!(
            weights == [0, 20, 40, 60, 0],
            "{name} {version}: {weights:?}"
        );
        ensure!(
            seen.by_status.get("200") == Some(&seen.planned) && seen.errors.is_empty(),
            "{name}: requests failed during a good canary: {seen:?}"
        );
        ensure!(seen.by_version.contains_key("second"), "{name}: {seen:?}");
        let statuses = watch.statuses(name);
        ensure!(statuses > 0, "{name}: no status was written");
        row.saw(
            format!("provider smi:{version}:weft, a version without errors, {rate} requests/s"),
            format!(
                "Succeeded; canary weights {weights:?}; {} of {} answered 200, by version {:?}; {statuses} states of status",
                seen.planned, seen.planned, seen.by_version
            ),
        );
    }
    runs_the_second(ns)?;
    row.passed()
}

fn roll_back(ns: &Namespace, watches: &[Splits], prometheus: &Prometheus) -> anyhow::Result<()> {
    let mut row = Record::begin("FL-02")?;
    let client = ns.pod("client")?;
    let before: Vec<Sent> = TARGETS
        .iter()
        .map(|target| Sent::by(&client, &target.canary(ns)))
        .collect::<anyhow::Result<_>>()?;
    let traffic = start(ns)?;
    for target in &TARGETS {
        ns.apply_all(&application(target, "third", "2"))?;
    }
    await_phase(ns, "Failed")?;
    for (((target, seen), watch), before) in TARGETS.iter().zip(traffic).zip(watches).zip(before) {
        let Target {
            name,
            version,
            status,
            ..
        } = target;
        let (seen, canary) = (seen.finish()?, target.canary(ns));
        let weights = watch.weights(name, &author(name))?;
        ensure!(
            weights == [0, 20, 40, 60, 0, 20, 0],
            "{name} {version}: {weights:?}"
        );
        let sent = Sent::by(&client, &canary)?.since(&before);
        if *status == UNAVAILABLE {
            hidden_in_part(name, &seen, &sent)?;
        } else {
            failed_in_half(name, &seen)?;
        }
        let rate = prometheus.query(&format!(
            "sum(increase(weft_attempts_total{{backend=\"{canary}\",success=\"false\"}}[10m]))"
        ))?;
        ensure!(rate.is_some_and(|rate| rate > 0.0), "{name}: {rate:?}");
        row.saw(
            format!("provider smi:{version}:weft, every second request is answered {status}"),
            format!(
                "Failed; canary weights from then on {:?}; statuses {:?}, by version {:?}; of {} attempts at it {} failed, {} were retries",
                &weights[4..],
                seen.by_status,
                seen.by_version,
                sent.attempts,
                sent.failed,
                sent.retries
            ),
        );
    }
    runs_the_second(ns)?;
    row.passed()
}

fn runs_the_second(ns: &Namespace) -> anyhow::Result<()> {
    for Target { name, .. } in &TARGETS {
        let primary = ns.json(&["get", "deployment", &format!("{name}-primary")])?;
        let version = version_of(&primary).context("a version")?;
        ensure!(version == "second", "{name}-primary runs {version}");
    }
    Ok(())
}

/// What the client's proxy sent to a backend: each try, those that failed, and those that
/// were retries.
#[derive(Debug)]
struct Sent {
    attempts: f64,
    failed: f64,
    retries: f64,
}

impl Sent {
    fn by(client: &Pod, backend: &str) -> anyhow::Result<Self> {
        let counted = client.proxy_metrics()?;
        let to = ("backend", backend);
        let retries = |outcome| counted.sum("weft_retries_total", &[to, ("outcome", outcome)]);
        Ok(Self {
            attempts: counted.sum("weft_attempts_total", &[to]),
            failed: counted.sum("weft_attempts_total", &[to, ("success", "false")]),
            retries: retries("success") + retries("failure"),
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            attempts: self.attempts - before.attempts,
            failed: self.failed - before.failed,
            retries: self.retries - before.retries,
        }
    }
}

fn of(map: &BTreeMap<String, u64>, key: &str) -> u64 {
    map.get(key).copied().unwrap_or_default()
}

/// The bad version failed about half of what it got, the good one nothing.
fn failed_in_half(app: &str, seen: &TrafficResult) -> anyhow::Result<()> {
    let (bad, failed) = (of(&seen.by_version, "third"), of(&seen.by_status, BROKEN));
    all_answered(app, seen, failed)?;
    ensure!(
        bad > 0 && failed.abs_diff(bad / 2) <= 1 + bad / 10,
        "{app}: {failed} failed of {bad} that the bad version answered: {seen:?}"
    );
    Ok(())
}

/// Half of the attempts at the bad version failed, as each of its instances does, and its
/// callers saw less of that.
fn hidden_in_part(app: &str, seen: &TrafficResult, sent: &Sent) -> anyhow::Result<()> {
    let bad = of(&seen.by_version, "third");
    let failed = of(&seen.by_status, UNAVAILABLE);
    all_answered(app, seen, failed)?;
    ensure!(
        (sent.failed / sent.attempts - 0.5).abs() <= 0.1,
        "{app}: not half of the attempts failed: {sent:?}"
    );
    // Each retry takes a failure from the callers; without any they would see one half.
    ensure!(
        bad > 0 && failed * 10 <= bad * 4 && sent.retries > 0.0,
        "{app}: {failed} failed of {bad} that the bad version answered: {sent:?}"
    );
    Ok(())
}

/// Every request was answered by an application, well or with the failure that was asked for.
fn all_answered(app: &str, seen: &TrafficResult, failed: u64) -> anyhow::Result<()> {
    ensure!(
        seen.errors.is_empty() && !seen.by_version.contains_key("-"),
        "{app}: requests were lost: {seen:?}"
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
    Ok(TARGETS
        .iter()
        .map(|target| Traffic::start(client.clone(), url(target.name), target.rate))
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
fn application(target: &Target, version: &str, fail_every: &str) -> Vec<Value> {
    let app = App::new(target.name)
        .replicas(target.instances)
        .version(version)
        .env("FAIL_EVERY", fail_every)
        .env("FAIL_STATUS", target.status)
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

fn canary(target: &Target) -> Value {
    let (app, version) = (target.name, target.version);
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": app}, "spec": {
        "provider": format!("smi:{version}:weft"),
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": app},
        "progressDeadlineSeconds": 120,
        "service": {"port": 8080, "targetPort": 8080, "portName": "http"},
        "analysis": {"interval": "10s", "threshold": 2, "maxWeight": 60, "stepWeight": 20, "metrics": [
            {"name": "success rate", "interval": "20s", "thresholdRange": {"min": target.least},
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
            states.len() == TARGETS.len() && states.iter().all(|(_, now, _)| *now == phase),
            "they are {states:?}"
        );
        Ok(())
    })
}
