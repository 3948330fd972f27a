//! Mirrored requests: their share, that no caller waits for them, and that their destination
//! affects no response.
//!
//! Claims: calls-54, calls-82

use std::time::Duration;

use anyhow::ensure;
use e2e::echo::load::Summary;
use e2e::harness::{Api, Namespace, Outcome, Pod, app, eventually, settled};
use serde_json::{Value, json};

use super::{SOON, url};

const REQUESTS: u32 = 3000;
/// Of all requests.
const COPIED: f64 = 0.1;
/// A proxy has so many copies under way at most.
const IN_FLIGHT: f64 = 64.0;
/// How long copies take that no caller waits for.
const HANGS: &str = "60s";
/// Loads of a second, of which the best one counts: a busy machine only ever adds to a load.
const ROUNDS: usize = 30;
/// What answers take.
const TAKES: &str = "1s";
const TAKES_MS: f64 = 1000.0;
/// How much longer the 99th percentile may be beside copies.
const UNNOTICED: f64 = 1.05;
/// What no single caller waits beside them: far less than a copy hangs.
const LONGEST_MS: f64 = 5000.0;
/// The last copies of a load have ended when no further one has for so long.
const ENDED: Duration = Duration::from_millis(500);

#[test]
fn tenth_of_requests_is_mirrored_and_target_cannot_write() -> Outcome {
    let ns = shop("mirror")?;
    let scene = Scene::begin(&ns, &json!({"service": "next", "percent": 10}))?;
    eventually(SOON, "copies are made", || {
        scene.ask(50)?;
        ensure!(scene.copies("success")? > 0.0, "none yet");
        Ok(())
    })?;
    // The sender counts copies when they have ended, the destination when it has answered:
    // while the machine stalls one count may be behind another.
    let before = eventually(SOON, "each copy so far has come to its end", || {
        let counts = scene.made_answered_and_come()?;
        ensure!(counts[1] == counts[2], "{counts:?}");
        Ok(counts)
    })?;
    scene.ask(REQUESTS)?;
    let copied = eventually(SOON, "copies are answered, and come to next", || {
        let after = scene.made_answered_and_come()?;
        let [copied, answered, came] = [0, 1, 2].map(|at| after[at] - before[at]);
        ensure!(
            answered == copied && came == copied,
            "{copied} copies, {answered} answered, {came} came to next"
        );
        Ok(copied)
    })?;
    let (all, expected) = (f64::from(REQUESTS), f64::from(REQUESTS) * COPIED);
    let sigma = (all * COPIED * (1.0 - COPIED)).sqrt();
    println!(
        "{copied} of {all} were copied, {:.1} sigma off",
        (copied - expected).abs() / sigma
    );
    assert!(
        (copied - expected).abs() <= 5.0 * sigma,
        "{copied} of {all} were copied, not about {expected}"
    );

    // It passes nothing on that would show what its call is made for.
    let ledger = url("ledger", 8080, "/entries");
    scene
        .next
        .refused(&ledger, &["-X", "POST"], 403, "shadow-write")?;
    scene.next.report(&ledger, &[])?;
    ns.pod("catalog")?.report(&ledger, &["-X", "POST"])?;

    ns.apply_all(&[app::service("also", &json!({"app": "next"}))])?;
    let accepted = ns.await_condition("tp/rehearsal", "Accepted", "False")?;
    assert_eq!(accepted["reason"], "NotGuarded", "{accepted}");
    eventually(SOON, "no copies are made any more", || {
        let before = scene.copied()?;
        scene.ask(200)?;
        let made = scene.copied()? - before;
        ensure!(made == 0.0, "{made} were made");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn copies_that_hang_cost_no_caller_anything() -> Outcome {
    let ns = shop("mirror-hangs")?;
    // The same pods, by a Service that is not mirrored.
    ns.apply_all(&[app::service("plain", &json!({"app": "catalog"}))])?;
    let scene = Scene::begin(&ns, &json!({"service": "next", "percent": 100}))?;
    eventually(SOON, "copies are made", || {
        scene.ask(1)?;
        ensure!(scene.copies("success")? > 0.0, "none yet");
        Ok(())
    })?;
    let hangs = json!({"delay": HANGS, "only": "/items"});
    scene.api.set_fault(&scene.next, &hangs)?;
    let takes = json!({"delay": TAKES, "only": "/items"});
    scene.api.set_fault(&ns.pod("catalog")?, &takes)?;
    // Calls that are copied, and calls that are not, at the same moments: what the machine does
    // comes to both, whatever it does.
    scene.load("plain")?;
    let [copied, plain] = scene.both()?;
    println!("copied {:?}, not {:?}", copied.latency_ms, plain.latency_ms);
    assert!(copied.latency_ms.max <= LONGEST_MS, "{copied:?}");
    let ratio = copied.latency_ms.p99 / plain.latency_ms.p99;
    assert!(
        ratio <= UNNOTICED,
        "{ratio:.3}: {copied:?}, and not copied {plain:?}"
    );
    let mut planned = copied.planned as f64;
    // Nor do copies cost what both share: beside those that hang, calls take what the
    // application takes.
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let copied = scene.load("catalog")?;
        assert!(copied.latency_ms.max <= LONGEST_MS, "{copied:?}");
        planned += copied.planned as f64;
        best = best.min(copied.latency_ms.p99);
        if best <= UNNOTICED * TAKES_MS {
            break;
        }
    }
    println!("beside copies that hang the p99 of a load is {best} ms");
    assert!(
        best <= UNNOTICED * TAKES_MS,
        "{best} ms, in the best of {ROUNDS}"
    );
    // They did hang: so many at once that no more were made.
    let unmade = scene.copies("full")?;
    assert!(
        unmade > 0.0 && unmade <= planned - IN_FLIGHT,
        "{unmade} of {planned} copies were not made"
    );
    Ok(())
}

/// A Service whose requests are copied, the one that gets the copies, and one that both
/// might write to.
fn shop(claim: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?;
    ns.run(&["client", "catalog", "next", "ledger"])?;
    Ok(ns)
}

struct Scene<'a> {
    ns: &'a Namespace,
    api: Api,
    client: Pod,
    next: Pod,
}

impl<'a> Scene<'a> {
    /// With a policy that mirrors so.
    fn begin(ns: &'a Namespace, mirror: &Value) -> anyhow::Result<Self> {
        let scene = Self {
            ns,
            api: Api::open(&ns.cluster)?,
            client: ns.pod("client")?,
            next: ns.pod("next")?,
        };
        // A proxy receives the policies of the Services that it has called.
        scene.ask(1)?;
        ns.apply_all(&[
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": "rehearsal"}, "spec": {
                "targetRef": {"kind": "Service", "name": "catalog"}, "mirror": [mirror]}}),
        ])?;
        ns.await_condition("tp/rehearsal", "Accepted", "True")?;
        ns.await_condition("tp/rehearsal", "Programmed", "True")?;
        Ok(scene)
    }

    /// Asks what is mirrored, so many times, and is answered each time.
    fn ask(&self, times: u32) -> anyhow::Result<()> {
        let number = times.to_string();
        let args = ["-n", &number, "-c", "10"];
        let seen = self.client.get(&url("catalog", 8080, "/items"), &args)?;
        ensure!(
            seen.by_status.get("200") == Some(&u64::from(times)),
            "{seen:?}"
        );
        Ok(())
    }

    /// A hundred requests within a second, each of which is answered.
    fn load(&self, service: &str) -> anyhow::Result<Summary> {
        // No request waits for the answer to another one.
        let args = ["--rate", "100", "--duration", "1s", "-c", "100"];
        let seen = self.client.get(&url(service, 8080, "/items"), &args)?;
        ensure!(
            seen.by_status.get("200") == Some(&seen.planned),
            "not all were answered with 200: {seen:?}"
        );
        Ok(seen)
    }

    /// Fifty requests a second of what is copied, and as many, at the same moments, of what is
    /// not, each of which is answered.
    fn both(&self) -> anyhow::Result<[Summary; 2]> {
        let args = ["--rate", "50", "--duration", "10s", "-c", "100"];
        let [copied, plain] = ["catalog", "plain"].map(|service| url(service, 8080, "/items"));
        let both = self.client.get_both([&copied, &plain], &args)?;
        for seen in &both {
            ensure!(
                seen.by_status.get("200") == Some(&seen.planned),
                "not all were answered with 200: {seen:?}"
            );
        }
        Ok(both)
    }

    /// Copies that came to this.
    fn copies(&self, outcome: &str) -> anyhow::Result<f64> {
        self.counted(&[("outcome", outcome)])
    }

    fn counted(&self, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let (service, mirror) = (self.named("catalog"), self.named("next"));
        let counters = [("service", service.as_str()), ("mirror", mirror.as_str())];
        let samples = self.api.proxy_metrics(&self.client)?;
        Ok(samples.sum("weft_mirrored_total", &[&counters[..], labels].concat()))
    }

    /// Copies that have ended, those with an answer, and those that came to `next`, once none
    /// of these changes.
    fn made_answered_and_come(&self) -> anyhow::Result<[f64; 3]> {
        let counts = || {
            let (made, answered) = (self.counted(&[])?, self.copies("success")?);
            anyhow::Ok([made, answered, self.api.arrived(&self.next)?])
        };
        let (_, counts) = settled(SOON, ENDED, counts)?;
        Ok(counts)
    }

    /// Copies that were to be made, whatever became of them, once none is under way.
    fn copied(&self) -> anyhow::Result<f64> {
        // No caller waits for a copy, so the last ones may end after the load.
        let (_, copied) = settled(SOON, ENDED, || self.counted(&[]))?;
        Ok(copied)
    }

    fn named(&self, service: &str) -> String {
        format!("{}/{service}", self.ns.name)
    }
}
