//! A limit of a whole Service, which its pods keep together however many they are.
//!
//! Claims: calls-81

use std::{
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use e2e::harness::{
    Api, App, Load, Namespace, Outcome, Pod, UNTIL_ENDED, eventually, metrics::Samples,
};
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
/// How long it is watched, so that there are several such windows, and so many at least in
/// which the machine never stalled.
const WATCHED: Duration = Duration::from_secs(12);
const WINDOWS: usize = 3;
/// The limit of the search for those.
const AT_MOST: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(500);
/// The burst of a limit is one second's worth, so no caller makes up for what it did not send
/// in a longer time.
const BURST: Duration = Duration::from_secs(1);
/// What one of five pods lets through in a second.
const FIFTH: RangeInclusive<f64> = 15.0..=25.0;
/// New pods run, and have their share of the calls, by then.
const STARTED: Duration = Duration::from_secs(90);

#[test]
fn three_and_five_pods_each_share_one_limit() -> Outcome {
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
    let three = scene.settle()?;
    scene.watch(three)?;

    let scaled = Instant::now();
    ns.kubectl(&["scale", "deployment/catalog", "--replicas=5"])?;
    scene.until_called(5)?;
    let five = scene.settle()?;
    scene.watch(five)?;
    let parts = scene.part_of_each(five)?;
    println!("each of five let through {parts:.1?} in a second");

    scene.kept(three, scaled, "three pods")?;
    scene.kept(five, Instant::now(), "five pods")?;
    assert!(
        parts.len() == 5 && parts.iter().all(|part| may_be_in(part, &FIFTH)),
        "the parts are not alike: {parts:.1?}"
    );
    // Nor more between the two, while parts went from pod to pod.
    let all = scene.windows(three, Instant::now());
    assert!(all.iter().all(Window::is_not_above), "{all:.1?}");
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
    seen: Vec<Look>,
}

/// What the pods had counted, each at some moment of this look.
struct Look {
    started: Instant,
    ended: Instant,
    /// Calls that each let through.
    passed: Vec<f64>,
    /// Calls that came to all of them, however they ended.
    came: f64,
}

impl Look {
    /// The least and the most that so many calls from this look to a later one may be in a second.
    fn in_a_second(&self, calls: f64, later: &Self) -> RangeInclusive<f64> {
        let longest = later.ended.duration_since(self.started);
        let shortest = later.started.duration_since(self.ended);
        calls / longest.as_secs_f64()..=calls / shortest.as_secs_f64()
    }

    /// Whether nothing stalled from this look to the next, neither the callers nor this test.
    /// Callers send delayed requests later, so their calls alone do not show a stall.
    fn ran_until(&self, next: &Self) -> bool {
        let step = next.ended.duration_since(self.ended);
        let offered = f64::from(OFFERED) * self.passed.len() as f64 * step.as_secs_f64();
        step <= BURST && next.came - self.came >= 0.5 * offered
    }
}

/// One of [`WINDOW`].
#[derive(Debug)]
struct Window {
    /// What was let through in a second, between these two.
    rate: RangeInclusive<f64>,
    /// Whether nothing stalled, so that too few calls are the fault of the limit.
    ran: bool,
}

impl Window {
    fn is_not_above(&self) -> bool {
        self.rate.start() <= KEPT.end()
    }

    fn is_kept(&self) -> bool {
        self.is_not_above() && (!self.ran || may_be_in(&self.rate, &KEPT))
    }
}

fn may_be_in(rate: &RangeInclusive<f64>, bounds: &RangeInclusive<f64>) -> bool {
    rate.end() >= bounds.start() && rate.start() <= bounds.end()
}

/// Calls of the client that a pod counts, of those with these labels.
fn calls(pod: &Samples, with: &[(&str, &str)]) -> f64 {
    pod.sum("weft_requests_total", &[&OF_THE_CLIENT[..], with].concat())
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
        // A machine that stalls for a moment offers less meanwhile.
        eventually(SOON, "more is answered than the limit will be", || {
            let (before, started) = (self.ended("200")?, Instant::now());
            thread::sleep(SETTLING);
            let rate = (self.ended("200")? - before) / started.elapsed().as_secs_f64();
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
        let others = |pod: &Samples| {
            let limited = calls(pod, &[("status", "429"), ("reason", "limit")]);
            calls(pod, &[]) - calls(pod, &[("status", "200")]) - limited
        };
        let pods = self.api.metrics_of_each(&self.pods)?;
        Ok(pods.iter().map(others).sum())
    }

    /// Waits until so many are called, and goes on to look.
    fn until_called(&mut self, pods: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.pods.len() < pods {
            ensure!(
                started.elapsed() < STARTED,
                "there are no {pods} pods after {STARTED:?}"
            );
            self.look()?;
            thread::sleep(STEP);
            self.call_all()?;
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let pods = self.api.metrics_of_each(&self.pods)?;
        let ended = Instant::now();
        let passed = pods.iter().map(|pod| calls(pod, &[("status", "200")]));
        self.seen.push(Look {
            started,
            ended,
            passed: passed.collect(),
            came: pods.iter().map(|pod| calls(pod, &[])).sum(),
        });
        Ok(())
    }

    /// Looks until the promise holds, and returns from when on that is. What the machine stood
    /// still, the pods had no time to settle.
    fn settle(&mut self) -> anyhow::Result<Instant> {
        let mut from = Instant::now() + SETTLING;
        while Instant::now() < from {
            let started = Instant::now();
            self.look()?;
            thread::sleep(STEP);
            from += started.elapsed().saturating_sub(BURST);
        }
        Ok(from)
    }

    /// Looks until enough windows from then on are those of a machine that ran.
    fn watch(&mut self, from: Instant) -> anyhow::Result<()> {
        loop {
            let windows = self.windows(from, Instant::now());
            let ran = windows.iter().filter(|window| window.ran).count();
            if from.elapsed() >= WATCHED && ran >= WINDOWS {
                return Ok(());
            }
            ensure!(
                from.elapsed() < AT_MOST,
                "after {AT_MOST:?} the load had come all the time in {ran} windows, not {WINDOWS}"
            );
            self.look()?;
            thread::sleep(STEP);
        }
    }

    /// What each pod let through in a second since then.
    fn part_of_each(&self, from: Instant) -> anyhow::Result<Vec<RangeInclusive<f64>>> {
        let looks = self.between(from, Instant::now());
        let [first, .., last] = looks else {
            bail!("it was looked only {} times", looks.len())
        };
        let parts = first.passed.iter().zip(&last.passed);
        Ok(parts
            .map(|(before, after)| first.in_a_second(after - before, last))
            .collect())
    }

    fn kept(&self, from: Instant, to: Instant, name: &str) -> anyhow::Result<()> {
        let windows = self.windows(from, to);
        println!("{name} let through in a second {windows:.1?}");
        ensure!(
            windows.iter().any(|window| window.ran) && windows.iter().all(Window::is_kept),
            "{name} let through in a second {windows:.1?}, not {KEPT:?}"
        );
        Ok(())
    }

    fn between(&self, from: Instant, to: Instant) -> &[Look] {
        let first = self.seen.partition_point(|look| look.started < from);
        let end = self.seen.partition_point(|look| look.ended <= to);
        self.seen.get(first..end).unwrap_or_default()
    }

    /// Each window that begins and ends between these two, one from each look on.
    fn windows(&self, from: Instant, to: Instant) -> Vec<Window> {
        let looks = self.between(from, to);
        let window = |at: usize| {
            let rest = looks.get(at..)?;
            let first = rest.first()?;
            let end = first.ended + WINDOW;
            let last = rest.iter().position(|look| look.started >= end)?;
            let (last, steps) = (rest.get(last)?, rest.get(..=last)?);
            let passed = last.passed.iter().sum::<f64>() - first.passed.iter().sum::<f64>();
            let ran = |step: &[Look]| matches!(step, [one, next] if one.ran_until(next));
            Some(Window {
                rate: first.in_a_second(passed, last),
                ran: steps.windows(2).all(ran),
            })
        };
        (0..looks.len()).filter_map(window).collect()
    }
}
