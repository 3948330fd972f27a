//! A limit of a whole Service, which its pods keep together however many they are.

use std::{
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use e2e::harness::{Api, App, Load, Namespace, Outcome, Pod, UNTIL_ENDED, eventually};
use serde_json::json;

use super::SOON;

/// Requests a second that all pods let through together.
const LIMIT: u32 = 100;
/// Requests a second that come to each pod: more than its part, which it gets whole. They are
/// sent to its address. Callers of the Service prefer who answers fast, and on a machine that
/// is busy with other things that is now this pod and then that one.
const OFFERED: u32 = 60;
/// The promise: from the third second on, each ten seconds.
const SETTLING: Duration = Duration::from_secs(3);
const WINDOW: Duration = Duration::from_secs(10);
const KEPT: RangeInclusive<f64> = 90.0..=110.0;
/// How long it is looked at, so that there are several such windows.
const WATCHED: Duration = Duration::from_secs(12);
const STEP: Duration = Duration::from_millis(500);
/// What one of five pods lets through in a second.
const FIFTH: RangeInclusive<f64> = 15.0..=25.0;
/// New pods run, and have their share of the calls, by then.
const STARTED: Duration = Duration::from_secs(90);

#[test]
fn three_pods_keep_a_limit_together_and_so_do_five() -> Outcome {
    let ns = Namespace::meshed("service-limit")?;
    ns.apply_all(&App::new("catalog").replicas(3).objects())?;
    ns.ready(&["catalog"])?;
    ns.run(&["client"])?;
    let mut scene = Scene {
        api: Api::open(&ns.cluster)?,
        client: ns.pod("client")?,
        ns: &ns,
        pods: Vec::new(),
        loads: Vec::new(),
        seen: Vec::new(),
    };
    scene.call_all()?;
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
    scene.until_called(5)?;
    let five = Instant::now() + SETTLING;
    scene.watch(five)?;
    let parts = scene.part_of_each()?;
    println!("each of five let through {parts:.1?} in a second");

    scene.kept(three, scaled, "three pods")?;
    scene.kept(five, Instant::now(), "five pods")?;
    assert!(
        parts.len() == 5 && parts.iter().all(|part| FIFTH.contains(part)),
        "the parts are not alike: {parts:.1?}"
    );
    // Nor more between the two, while parts went from pod to pod.
    let all = scene.rates(three, Instant::now());
    assert!(all.iter().all(|rate| rate <= KEPT.end()), "{all:.1?}");
    assert_eq!(scene.others()?, before, "there were other answers");
    assert!(scene.ended("429")? > 0.0, "nothing was refused");
    for load in scene.loads {
        let seen = load.end()?;
        println!("{:?}", seen.by_status);
        assert!(seen.errors.is_empty(), "calls were lost: {seen:?}");
    }
    Ok(())
}

/// What a pod's proxy counts of it.
const OF_THE_CLIENT: [(&str, &str); 2] = [("direction", "inbound"), ("security", "mtls")];

struct Scene<'a> {
    ns: &'a Namespace,
    api: Api,
    /// Calls all the time.
    client: Pod,
    /// The ready ones, which the client calls.
    pods: Vec<Pod>,
    loads: Vec<Load>,
    /// How many calls had been answered by then.
    seen: Vec<(Instant, f64)>,
}

impl Scene<'_> {
    /// Begins to call those that became ready.
    fn call_all(&mut self) -> anyhow::Result<()> {
        for pod in self.ns.pods("catalog")? {
            let is_called = self.pods.iter().any(|known| known.name == pod.name);
            if is_called || !pod.is_ready() {
                continue;
            }
            let (called, rate) = (format!("http://{}:8080/items", pod.ip), OFFERED.to_string());
            let args = ["--rate", &rate, "--duration", UNTIL_ENDED, "-c", "4"];
            self.loads.push(self.client.start_load(&called, &args)?);
            self.pods.push(pod);
        }
        Ok(())
    }

    /// Without the policy all calls are answered, and they are far more than it will allow.
    fn is_offered(&self) -> anyhow::Result<()> {
        eventually(SOON, "the client is served", || {
            ensure!(
                self.of_each("200")?.iter().all(|calls| *calls > 0.0),
                "not yet"
            );
            Ok(())
        })?;
        // A machine that stands still for a moment offers less meanwhile.
        eventually(SOON, "more is answered than the limit will be", || {
            let (before, begun) = (self.ended("200")?, Instant::now());
            thread::sleep(SETTLING);
            let rate = (self.ended("200")? - before) / begun.elapsed().as_secs_f64();
            ensure!(
                rate >= 1.5 * f64::from(LIMIT),
                "only {rate:.1} calls in a second are answered without a limit"
            );
            Ok(())
        })
    }

    /// Calls to each pod that ended with this status.
    fn of_each(&self, status: &str) -> anyhow::Result<Vec<f64>> {
        let labels = [&OF_THE_CLIENT[..], &[("status", status)]].concat();
        self.api.sums(&self.pods, "weft_requests_total", &labels)
    }

    /// Calls that ended with this status.
    fn ended(&self, status: &str) -> anyhow::Result<f64> {
        Ok(self.of_each(status)?.iter().sum())
    }

    /// Those that ended neither well nor by the limit.
    fn others(&self) -> anyhow::Result<f64> {
        let mut others = 0.0;
        for pod in &self.pods {
            let samples = self.api.proxy_metrics(pod)?;
            let calls = |with: &[(&str, &str)]| {
                samples.sum("weft_requests_total", &[&OF_THE_CLIENT[..], with].concat())
            };
            let limited = calls(&[("status", "429"), ("reason", "limit")]);
            others += calls(&[]) - calls(&[("status", "200")]) - limited;
        }
        Ok(others)
    }

    /// Waits until so many are called, and goes on to look.
    fn until_called(&mut self, pods: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.pods.len() < pods {
            ensure!(
                begun.elapsed() < STARTED,
                "there are no {pods} pods after {STARTED:?}"
            );
            self.look()?;
            thread::sleep(STEP);
            self.call_all()?;
        }
        Ok(())
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
        let before = self.of_each("200")?;
        let begun = Instant::now();
        self.watch(begun + WATCHED)?;
        let after = self.of_each("200")?;
        let seconds = begun.elapsed().as_secs_f64();
        let parts = before.iter().zip(&after);
        Ok(parts
            .map(|(before, after)| (after - before) / seconds)
            .collect())
    }

    fn kept(&self, from: Instant, to: Instant, name: &str) -> anyhow::Result<()> {
        let rates = self.rates(from, to);
        println!("{name} let through {rates:.1?} in a second");
        ensure!(
            !rates.is_empty() && rates.iter().all(|rate| KEPT.contains(rate)),
            "{name} let through {rates:.1?} in a second, not {KEPT:?}"
        );
        Ok(())
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
