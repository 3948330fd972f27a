//! A limit of a whole Service, which its pods keep together however many they are.

use std::{
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use e2e::harness::{Api, App, Namespace, Outcome, Pod, eventually, metrics::Samples};
use serde_json::json;

use super::{SOON, url};

/// Requests a second that all pods let through together.
const LIMIT: u32 = 100;
/// Requests a second that come: each pod gets more than its part, also where calls are not
/// spread quite evenly.
const OFFERED: u32 = 250;
/// The promise: from the third second on, each ten seconds.
const SETTLING: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(10);
const KEPT: RangeInclusive<f64> = 90.0..=110.0;
/// How long it is looked at, so that there are several such windows.
const WATCHED: Duration = Duration::from_secs(12);
const STEP: Duration = Duration::from_millis(500);
/// What one of five pods lets through in a second.
const FIFTH: RangeInclusive<f64> = 15.0..=25.0;
/// Calls a second that each of five gets before its part is measured: who gets fewer than
/// its part lets fewer through.
const ENOUGH: f64 = 30.0;
/// New pods run, and have their share of the calls, by then.
const STARTED: Duration = Duration::from_secs(90);

#[test]
fn three_pods_keep_a_limit_together_and_so_do_five() -> Outcome {
    let ns = Namespace::meshed("service-limit")?;
    ns.apply_all(&App::new("catalog").replicas(3).objects())?;
    ns.ready(&["catalog"])?;
    let called = url("catalog", 8080, "/items");
    let client = App::new("client").calling(&[(&called, OFFERED)]);
    ns.apply_all(&client.objects())?;
    ns.ready(&["client"])?;
    let mut scene = Scene {
        api: Api::open(&ns.cluster)?,
        client: ns.pod("client")?,
        ns: &ns,
        seen: Vec::new(),
    };
    scene.is_offered()?;

    let before = scene.others()?;
    ns.apply_all(&[
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "limit"}, "spec": {
            "targetRef": {"kind": "Service", "name": "catalog"},
            "rateLimits": [{"name": "all", "requests": LIMIT}]}}),
    ])?;
    let three = Instant::now() + SETTLING;
    scene.watch(three + WATCHED)?;

    let scaled = Instant::now();
    ns.kubectl(&["scale", "deployment/catalog", "--replicas=5"])?;
    while scene.ready()? < 5 {
        assert!(
            scaled.elapsed() < STARTED,
            "there are no five pods after {STARTED:?}"
        );
        scene.look()?;
        thread::sleep(STEP);
    }
    scene.is_spread()?;
    let five = Instant::now() + SETTLING;
    scene.watch(five)?;
    let parts = scene.part_of_each()?;
    println!("each of five let through {parts:.1?} in a second");

    let kept = |from, to, name: &str| -> anyhow::Result<()> {
        let rates = scene.rates(from, to);
        println!("{name} let through {rates:.1?} in a second");
        ensure!(
            !rates.is_empty() && rates.iter().all(|rate| KEPT.contains(rate)),
            "{name} let through {rates:.1?} in a second, not {KEPT:?}"
        );
        Ok(())
    };
    kept(three, scaled, "three pods")?;
    kept(five, Instant::now(), "five pods")?;
    assert!(
        parts.len() == 5 && parts.iter().all(|part| FIFTH.contains(part)),
        "the parts are not alike: {parts:.1?}"
    );
    // Nor more between the two, while parts went from pod to pod.
    let all = scene.rates(three, Instant::now());
    assert!(all.iter().all(|rate| rate <= KEPT.end()), "{all:.1?}");
    assert_eq!(scene.others()?, before, "there were other answers");
    assert!(scene.ended("429")? > 0.0, "nothing was refused");
    Ok(())
}

struct Scene<'a> {
    ns: &'a Namespace,
    api: Api,
    /// Calls all the time.
    client: Pod,
    /// How many of its calls had been answered by then.
    seen: Vec<(Instant, f64)>,
}

impl Scene<'_> {
    /// Without the policy all calls are answered, and they are far more than it will allow.
    fn is_offered(&self) -> anyhow::Result<()> {
        eventually(SOON, "the client is served", || {
            ensure!(self.ended("200")? > 0.0, "not yet");
            Ok(())
        })?;
        let (before, begun) = (self.ended("200")?, Instant::now());
        thread::sleep(SETTLING);
        let rate = (self.ended("200")? - before) / begun.elapsed().as_secs_f64();
        ensure!(
            rate >= 2.0 * f64::from(LIMIT),
            "only {rate:.1} calls in a second are answered without a limit"
        );
        Ok(())
    }

    /// Calls of the client that ended with this status.
    fn ended(&self, status: &str) -> anyhow::Result<f64> {
        let samples = self.api.proxy_metrics(&self.client)?;
        Ok(self.calls(&samples, &[("status", status)]))
    }

    /// Those that ended neither well nor by the limit.
    fn others(&self) -> anyhow::Result<f64> {
        let samples = self.api.proxy_metrics(&self.client)?;
        let well = self.calls(&samples, &[("status", "200")]);
        let limited = self.calls(&samples, &[("status", "429"), ("reason", "limit")]);
        Ok(self.calls(&samples, &[]) - well - limited)
    }

    fn calls(&self, samples: &Samples, with: &[(&str, &str)]) -> f64 {
        let service = format!("{}/catalog", self.ns.name);
        let called = [("direction", "outbound"), ("service", service.as_str())];
        samples.sum("weft_requests_total", &[&called[..], with].concat())
    }

    /// Pods of the Service that are ready.
    fn ready(&self) -> anyhow::Result<u64> {
        let path = format!(
            "/apis/apps/v1/namespaces/{}/deployments/catalog",
            self.ns.name
        );
        let status = self.api.read(&path)?["status"].clone();
        Ok(status["readyReplicas"].as_u64().unwrap_or(0))
    }

    /// The calls are spread well enough: an endpoint that is new, or was slow in its first
    /// seconds, gets fewer of them for a while.
    fn is_spread(&mut self) -> anyhow::Result<()> {
        let pods = self.ns.pods("catalog")?;
        let labels = [("direction", "inbound"), ("security", "mtls")];
        let begun = Instant::now();
        loop {
            let before = self.api.sums(&pods, "weft_requests_total", &labels)?;
            let from = Instant::now();
            self.watch(from + SETTLING)?;
            let after = self.api.sums(&pods, "weft_requests_total", &labels)?;
            let seconds = from.elapsed().as_secs_f64();
            let rates = before.iter().zip(&after);
            let rates: Vec<f64> = rates.map(|(from, to)| (to - from) / seconds).collect();
            if rates.iter().all(|rate| *rate >= ENOUGH) {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < STARTED,
                "each of five gets {rates:.1?} calls in a second, and not {ENOUGH} at least"
            );
        }
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let passed = self.ended("200")?;
        self.seen.push((Instant::now(), passed));
        Ok(())
    }

    fn watch(&mut self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            self.look()?;
            thread::sleep(STEP);
        }
        Ok(())
    }

    /// What each pod lets through in a second, while all of it is watched.
    fn part_of_each(&mut self) -> anyhow::Result<Vec<f64>> {
        let pods = self.ns.pods("catalog")?;
        let labels = [
            ("direction", "inbound"),
            ("security", "mtls"),
            ("status", "200"),
        ];
        let name = "weft_requests_total";
        let before = self.api.sums(&pods, name, &labels)?;
        let begun = Instant::now();
        self.watch(begun + WATCHED)?;
        let after = self.api.sums(&pods, name, &labels)?;
        let seconds = begun.elapsed().as_secs_f64();
        let parts = before.iter().zip(&after);
        Ok(parts
            .map(|(before, after)| (after - before) / seconds)
            .collect())
    }

    /// What was let through in a second, over each window that begins and ends between
    /// these two.
    fn rates(&self, from: Instant, to: Instant) -> Vec<f64> {
        let within = |look: &&(Instant, f64)| (from..=to).contains(&look.0);
        let looks: Vec<&(Instant, f64)> = self.seen.iter().filter(within).collect();
        let rate = |first: &&(Instant, f64)| {
            let last = looks.iter().find(|look| look.0 >= first.0 + WINDOW)?;
            Some((last.1 - first.1) / last.0.duration_since(first.0).as_secs_f64())
        };
        looks.iter().filter_map(rate).collect()
    }
}
