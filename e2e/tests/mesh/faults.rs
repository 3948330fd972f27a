//! FaultExperiments in a real cluster: what is harmed, what is not, and what ends a run.
//!
//! `web` calls `checkout`, which calls `payments` for each request and passes on the trace.
//! Bounds in seconds are five times those of the promise.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use e2e::harness::{Api, App, CommandOutput, Namespace, Outcome, Pod, eventually, settled};
use serde_json::{Value, json};

use super::url;

/// Of a test that looks at a whole run: the look before it, and the run.
const RUN: Duration = Duration::from_secs(120);
/// Calls of `web` in a second.
const RATE: u32 = 100;
/// Far longer than from one harmed call to the next.
const NO_HARM: Duration = Duration::from_millis(1500);
/// From what ends a run to the last harmed call.
const ENDED: Duration = Duration::from_secs(5);

/// A shop whose namespace allows faults.
struct Shop {
    ns: Namespace,
    api: Api,
    checkout: Pod,
}

impl Shop {
    fn open(claim: &str) -> anyhow::Result<Self> {
        let ns = Namespace::meshed(claim)?;
        ns.annotate("weft.dev/faults", Some("allowed"))?;
        let checkout = App::new("checkout")
            // Not by the port that calls on: a probe would go down the chain.
            .readiness(json!({"httpGet": {"path": "/metrics", "port": 9091}, "periodSeconds": 1}))
            .env("NEXT", "http://payments:8080")
            .env("PROPAGATE", "trace");
        let mut objects = App::new("payments").objects();
        objects.extend(checkout.objects());
        ns.apply_all(&objects)?;
        ns.ready(&["payments", "checkout"])?;
        let web = App::new("web").calling(&[(&url("checkout", 8080, "/buy"), RATE)]);
        ns.apply_all(&web.objects())?;
        ns.ready(&["web"])?;
        Ok(Self {
            api: Api::open(&ns.cluster)?,
            checkout: ns.pod("checkout")?,
            ns,
        })
    }

    /// Attempts that the proxy of `checkout` harmed so far.
    fn harmed(&self) -> anyhow::Result<f64> {
        harmed(&self.api, &self.checkout)
    }
}

fn harmed(api: &Api, pod: &Pod) -> anyhow::Result<f64> {
    Ok(api.proxy_metrics(pod)?.sum("weft_faults_total", &[]))
}

/// Waits until the proxy of this pod harms a call from now on: what ends then, had started.
fn harms(api: &Api, pod: &Pod) -> anyhow::Result<()> {
    let before = harmed(api, pod)?;
    eventually(RUN, "a call is harmed", || {
        ensure!(harmed(api, pod)? > before, "none is");
        Ok(())
    })
}

/// About a fifth of the calls to `payments`.
fn experiment(name: &str, fault: &Value, check: &Value) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "FaultExperiment",
        "metadata": {"name": name},
        "spec": {
            "hypothesis": "The shop goes on",
            "targetRef": {"kind": "Service", "name": "payments", "port": 8080},
            "share": "20%", "fault": fault, "duration": "10s", "minRequests": 20,
            "checks": [check],
        },
    })
}

fn with_duration(mut experiment: Value, duration: &str) -> Value {
    experiment["spec"]["duration"] = json!(duration);
    experiment
}

fn checkout(rate: &Value) -> Value {
    json!({"service": "checkout", "errorRate": rate})
}

/// `weft fault VERB NAME`.
fn weft(ns: &Namespace, words: &[&str]) -> anyhow::Result<CommandOutput> {
    ns.cluster
        .weft(&[&["fault"], words, &["-n", &ns.name]].concat())
}

fn start(ns: &Namespace, experiment: &Value) -> anyhow::Result<String> {
    ns.apply_all(std::slice::from_ref(experiment))?;
    let name = experiment["metadata"]["name"].as_str().unwrap_or_default();
    ns.await_condition(&format!("fexp/{name}"), "Accepted", "True")?;
    weft(ns, &["run", name])?.with_status(0)?;
    Ok(name.to_owned())
}

fn await_phase(ns: &Namespace, name: &str, phase: &str) -> anyhow::Result<Value> {
    eventually(RUN, &format!("{name} is {phase}"), || {
        let object = ns.json(&["get", "fexp", name])?;
        let status = object["status"].clone();
        ensure!(status["phase"] == phase, "{status}");
        Ok(status)
    })
}

fn verdict(status: &Value) -> &str {
    status["verdict"].as_str().unwrap_or_default()
}

/// Until nothing is harmed any more, from this moment on.
fn ends(since: Instant, api: &Api, pod: &Pod) -> anyhow::Result<()> {
    let (last, _) = settled(RUN, NO_HARM, || harmed(api, pod))?;
    let took = last.saturating_duration_since(since);
    println!("the last call was harmed {took:?} after the run was ended");
    ensure!(took <= ENDED, "the last call was harmed after {took:?}");
    Ok(())
}

#[test]
fn run_ends_itself_when_a_check_is_worse() -> Outcome {
    let shop = Shop::open("faults-worse")?;
    let abort = json!({"abort": {"httpStatus": 500}});
    let check = checkout(&json!({"max": "1%"}));
    let before = shop.harmed()?;
    start(
        &shop.ns,
        &with_duration(experiment("worse", &abort, &check), "5m"),
    )?;
    let first = eventually(RUN, "a call is harmed", || {
        ensure!(shop.harmed()? > before, "none is");
        Ok(Instant::now())
    })?;
    let (last, _) = settled(RUN, NO_HARM, || shop.harmed())?;
    let took = last.saturating_duration_since(first);
    println!("calls were harmed for {took:?}");
    assert!(took <= Duration::from_secs(25), "{took:?}");
    let status = await_phase(&shop.ns, "worse", "Finished")?;
    assert_eq!(verdict(&status), "Harmful", "{status}");

    let report = weft(&shop.ns, &["report", "worse"])?.with_status(1)?;
    assert!(
        report.out.contains("\"The shop goes on\" is refuted"),
        "{report:?}"
    );
    let events = shop.ns.kubectl(&["events", "--for", "service/payments"])?;
    for reason in ["FaultStarted", "FaultEnded"] {
        assert!(events.contains(reason), "{events}");
    }
    Ok(())
}

#[test]
fn tolerated_fault_is_distinguished_from_one_that_harms() -> Outcome {
    let shop = Shop::open("faults-verdicts")?;
    let check = checkout(&json!({"tolerance": "5%"}));
    let delay = json!({"delay": "20ms"});
    start(&shop.ns, &experiment("mild", &delay, &check))?;
    let status = await_phase(&shop.ns, "mild", "Finished")?;
    assert_eq!(verdict(&status), "Tolerated", "{status}");
    weft(&shop.ns, &["report", "mild"])?.with_status(0)?;

    let abort = json!({"abort": {"httpStatus": 500}});
    start(
        &shop.ns,
        &with_duration(experiment("hard", &abort, &check), "5m"),
    )?;
    let status = await_phase(&shop.ns, "hard", "Finished")?;
    assert_eq!(verdict(&status), "Harmful", "{status}");
    let last = &status["history"][0];
    let counts = |group: &str| last["checks"][0][group]["bad"].as_i64().unwrap_or(-1);
    assert!(counts("harmed") > counts("control"), "{last}");
    Ok(())
}

#[test]
fn only_callers_of_namespaces_that_allow_it_are_harmed() -> Outcome {
    let shop = Shop::open("faults-callers")?;
    let target = url(&format!("payments.{}", shop.ns.name), 8080, "/pay");
    let mut others = Vec::new();
    for (claim, annotation) in [
        ("faults-other", None),
        ("faults-little", Some("share=1%")),
        ("faults-all", Some("allowed")),
    ] {
        let ns = Namespace::meshed(claim)?;
        ns.annotate("weft.dev/faults", annotation)?;
        ns.apply_all(&App::new("client").calling(&[(&target, 20)]).objects())?;
        ns.ready(&["client"])?;
        others.push((ns.pod("client")?, annotation == Some("allowed"), ns));
    }
    let abort = json!({"abort": {"httpStatus": 500}});
    // Not judged by what fails: harmed calls do not arrive there.
    let check = json!({"service": "payments", "errorRate": {"max": "90%"}});
    let long = with_duration(experiment("callers", &abort, &check), "5m");
    start(&shop.ns, &long)?;
    await_phase(&shop.ns, "callers", "Running")?;
    harms(&shop.api, &shop.checkout)?;
    for (pod, ..) in others.iter().filter(|(_, allows, _)| *allows) {
        harms(&shop.api, pod)?;
    }
    // The others had as long, and three seconds more.
    thread::sleep(Duration::from_secs(3));
    for (pod, _, ns) in others.iter().filter(|(_, allows, _)| !allows) {
        let harmed = harmed(&shop.api, pod)?;
        assert!(harmed <= 0.0, "{harmed} of {}", ns.name);
    }

    let suspend = json!([{"op": "add", "path": "/spec/suspend", "value": true}]).to_string();
    let at = Instant::now();
    shop.ns
        .kubectl(&["patch", "fexp", "callers", "--type=json", "-p", &suspend])?;
    ends(at, &shop.api, &shop.checkout)?;
    let status = await_phase(&shop.ns, "callers", "Finished")?;
    assert_eq!(verdict(&status), "Stopped", "{status}");

    let again = with_duration(experiment("again", &abort, &check), "5m");
    start(&shop.ns, &again)?;
    await_phase(&shop.ns, "again", "Running")?;
    harms(&shop.api, &shop.checkout)?;
    let at = Instant::now();
    shop.ns.annotate("weft.dev/faults", None)?;
    ends(at, &shop.api, &shop.checkout)?;

    // The status that ends the run says Accepted=False: only the annotation makes it true again.
    await_phase(&shop.ns, "again", "Finished")?;
    shop.ns.annotate("weft.dev/faults", Some("allowed"))?;
    shop.ns.await_condition("fexp/again", "Accepted", "True")?;
    weft(&shop.ns, &["run", "again"])?.with_status(0)?;
    await_phase(&shop.ns, "again", "Running")?;
    harms(&shop.api, &shop.checkout)?;
    let at = Instant::now();
    shop.ns.kubectl(&["delete", "fexp", "again"])?;
    ends(at, &shop.api, &shop.checkout).context("deleted")?;
    Ok(())
}
