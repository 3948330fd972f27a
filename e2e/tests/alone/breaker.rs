//! The breaker of the mesh: all callers of a failing Service open and close together, and
//! none of them for failures that one account alone sees.
//!
//! Claims: calls-80

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use e2e::harness::{Api, App, Namespace, Outcome, Pod, eventually, settled};
use serde_json::{Value, json};

use super::{
    policy_change::{in_time, last_change},
    url,
};

/// The promises: from the first failure until no caller calls any more, from the repair until
/// all may call again, and from the write of a state until it takes effect.
const OPENED: Duration = Duration::from_secs(7);
const CLOSED: Duration = Duration::from_secs(15);
const WRITTEN: Duration = Duration::from_secs(1);
/// Until a status or an Event reports it, with kubectl's own time.
const SOON: Duration = Duration::from_secs(10);
/// Of all callers together, while it is open.
const PROBES_PER_SECOND: f64 = 12.0;

/// Callers, and the first of them is the one account whose calls to `reviews` fail.
const ACCOUNTS: [&str; 4] = ["mobile", "web", "cart", "search"];
/// Of each account.
const PODS: usize = 3;
/// Calls of each pod in a second: too few for a proxy to open by its own numbers, which
/// takes 50 in ten seconds. What opens is the breaker of the mesh.
const RATE: u32 = 4;
/// The same to `reviews` of the account that fails there alone: enough for its own proxies.
const OWN_RATE: u32 = 10;

/// A whole interval of the breaker, in which nothing fails.
const CALM: Duration = Duration::from_secs(10);
/// Far longer than from one call to the next of 48 in a second, and shorter than the
/// breaker is open before it probes.
const NO_CALL: Duration = Duration::from_millis(1500);
/// The limit of the wait for the end of the calls.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the breaker is open before it probes.
const OPEN: Duration = Duration::from_secs(5);
/// How long probes and calls are counted.
const COUNTED: Duration = Duration::from_secs(5);

/// As `weft_breaker_state` says it.
const ALL_CALLS: f64 = 0.0;
const NONE_BUT_PROBES: f64 = 2.0;

#[test]
fn twelve_callers_throttle_together_unlike_single_account() -> Outcome {
    let ns = Namespace::meshed("breaker")?;
    let scene = Scene::begin(&ns)?;
    thread::sleep(CALM);
    for service in ["ratings", "reviews"] {
        scene.is_shown(service)?;
        let states = scene.states(service)?;
        assert!(states.iter().all(|state| *state == ALL_CALLS), "{states:?}");
    }

    scene.opens()?;
    scene.probes()?;
    scene.closes()?;
    scene.one_account_alone()?;
    scene.is_written_down()?;
    Ok(())
}

/// `ratings` fails for all callers, `reviews` for the calls of one account.
struct Scene<'a> {
    ns: &'a Namespace,
    api: Api,
    ratings: Pod,
    reviews: Pod,
    /// Those of the first account first.
    callers: Vec<Pod>,
}

impl<'a> Scene<'a> {
    /// All of it runs, and every caller is served.
    fn begin(ns: &'a Namespace) -> anyhow::Result<Self> {
        let mut objects = Vec::new();
        for service in ["ratings", "reviews"] {
            objects.extend(App::new(service).objects());
            objects.push(
                json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
                "metadata": {"name": service}, "spec": {
                    "targetRef": {"kind": "Service", "name": service}, "breaker": {}}}),
            );
        }
        ns.apply_all(&objects)?;
        // Calls to what does not run yet would fail, and the breaker would count them.
        ns.ready(&["ratings", "reviews"])?;
        let ratings = url("ratings", 8080, "/items");
        let mut objects = Vec::new();
        for account in ACCOUNTS {
            let (path, rate) = if account == ACCOUNTS[0] {
                ("/items/alone", OWN_RATE)
            } else {
                ("/items", RATE)
            };
            let reviews = url("reviews", 8080, path);
            let app = App::new(account)
                .replicas(PODS as u32)
                .calling(&[(&ratings, RATE), (&reviews, rate)]);
            objects.extend(app.objects());
        }
        ns.apply_all(&objects)?;
        ns.ready(&ACCOUNTS)?;
        let mut callers = Vec::new();
        for account in ACCOUNTS {
            let pods = ns.pods(account)?;
            ensure!(
                pods.len() == PODS,
                "there are {} pods of {account}, not {PODS}",
                pods.len()
            );
            callers.extend(pods);
        }
        let scene = Self {
            ns,
            api: Api::open(&ns.cluster)?,
            ratings: ns.pod("ratings")?,
            reviews: ns.pod("reviews")?,
            callers,
        };
        eventually(PATIENCE, "every caller is served", || {
            for service in ["ratings", "reviews"] {
                let served = scene.request_rates(service, ("status", "200"))?;
                ensure!(
                    served.iter().all(|calls| *calls > 0.0),
                    "by {service}: {served:?}"
                );
            }
            Ok(())
        })?;
        Ok(scene)
    }

    fn opens(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        let broken = json!({"status": 503, "only": "/items"});
        self.api.set_fault(&self.ratings, &broken)?;
        let broken = json!({"status": 503, "only": "/items/alone"});
        self.api.set_fault(&self.reviews, &broken)?;
        let arrived = || self.api.arrived(&self.ratings);
        let (last, _) = settled(PATIENCE, NO_CALL, arrived)?;
        let took = last.duration_since(started);
        println!("the last call came {took:?} after the failure had started");
        ensure!(took <= OPENED, "the last call came after {took:?}");

        self.reports_state("ratings", &["Open", "Probing"])?;
        let states = self.states("ratings")?;
        ensure!(
            states.iter().all(|state| *state == NONE_BUT_PROBES),
            "not all hold back: {states:?}"
        );
        let refused = self.request_rates("ratings", ("reason", "circuit-open"))?;
        ensure!(
            refused.iter().all(|calls| *calls > 0.0),
            "not all refuse: {refused:?}"
        );
        let event = self.event_of("ratings", "BreakerOpened")?;
        ensure!(event.contains("12 proxies"), "{event}");
        let row = self.ns.kubectl(&["get", "tp", "ratings"])?;
        ensure!(row.contains("Open") || row.contains("Probing"), "{row}");
        Ok(())
    }

    /// While it fails all callers together probe it seldom.
    fn probes(&self) -> anyhow::Result<()> {
        thread::sleep(OPEN);
        let (probes, seconds) = self.counted()?;
        println!("{probes} probes in {seconds:.2} s");
        ensure!(
            probes <= PROBES_PER_SECOND * seconds && probes >= seconds,
            "{probes} probes came in {seconds:.2} s"
        );
        self.reports_state("ratings", &["Probing"])
    }

    fn closes(&self) -> anyhow::Result<()> {
        let mended = Instant::now();
        self.api.set_fault(&self.ratings, &json!({"percent": 0}))?;
        eventually(CLOSED, "every caller may call again", || {
            let states = self.states("ratings")?;
            let open = |state: &f64| *state >= NONE_BUT_PROBES;
            ensure!(!states.iter().any(open), "{states:?}");
            Ok(())
        })?;
        let took = mended.elapsed();
        println!("every caller might call again {took:?} after the mend");
        ensure!(took <= CLOSED, "that took {took:?}");

        self.event_of("ratings", "BreakerClosed")?;
        self.reports_state("ratings", &["Closed"])?;
        // A tenth of the calls first, and all of them ten seconds later.
        self.all_closed()?;
        // A machine that stalls at the end of a window takes calls out of it.
        eventually(Duration::from_secs(30), "all calls come", || {
            let (calls, seconds) = self.counted()?;
            let wanted = f64::from(RATE) * self.callers.len() as f64 * seconds;
            ensure!(
                calls >= 0.8 * wanted,
                "{calls} calls came in {seconds:.2} s, of {wanted:.0}"
            );
            Ok(())
        })
    }

    fn all_closed(&self) -> anyhow::Result<()> {
        eventually(PATIENCE, "no proxy holds a call back", || {
            let states = self.states("ratings")?;
            ensure!(states.iter().all(|state| *state == ALL_CALLS), "{states:?}");
            Ok(())
        })
    }

    /// Its own proxies hold back what it alone sees fail, and did so all the while. No other
    /// proxy was notified, and no policy's status says open.
    fn one_account_alone(&self) -> anyhow::Result<()> {
        let refused = self.request_rates("reviews", ("reason", "circuit-open"))?;
        let states = self.states("reviews")?;
        let (alone, others) = refused.split_at(PODS);
        ensure!(
            alone.iter().all(|calls| *calls > 0.0) && others.iter().all(|calls| *calls == 0.0),
            "calls to reviews that were held back, those of one account first: {refused:?}"
        );
        let (alone, others) = states.split_at(PODS);
        ensure!(
            alone.iter().all(|state| *state == NONE_BUT_PROBES)
                && others.iter().all(|state| *state == ALL_CALLS),
            "states of reviews, those of one account first: {states:?}"
        );
        self.reports_state("reviews", &["Closed"])?;
        let events = self.events("reviews", "BreakerOpened")?;
        ensure!(events.is_empty(), "{events:?}");
        Ok(())
    }

    /// Whatever was counted.
    fn is_written_down(&self) -> anyhow::Result<()> {
        let path = format!(
            "/apis/weft.dev/v1alpha1/namespaces/{}/trafficpolicies/ratings",
            self.ns.name
        );
        let write = |state: &str| {
            let change = json!({"spec": {"breaker": {"state": state}}});
            self.api.merge(&path, &change)
        };
        let round = || {
            write("Open")?;
            last_change(PATIENCE, NO_CALL, || self.api.arrived(&self.ratings))
        };
        in_time("state Open: no calls", WRITTEN, round, || {
            write("Auto")?;
            self.all_closed()
        })?;
        let states = self.states("ratings")?;
        ensure!(
            states.iter().all(|state| *state == NONE_BUT_PROBES),
            "not all obey: {states:?}"
        );
        Ok(())
    }

    /// Calls that came to `ratings`, and in how many seconds.
    fn counted(&self) -> anyhow::Result<(f64, f64)> {
        let before = self.api.arrived(&self.ratings)?;
        let started = Instant::now();
        thread::sleep(COUNTED);
        let after = self.api.arrived(&self.ratings)?;
        Ok((after - before, started.elapsed().as_secs_f64()))
    }

    /// What each caller's breaker of a Service is.
    fn states(&self, service: &str) -> anyhow::Result<Vec<f64>> {
        let backend = self.named(service);
        let labels = [("backend", backend.as_str())];
        self.api.sums(&self.callers, "weft_breaker_state", &labels)
    }

    /// That a state of 0 is what the proxies say, and not that they say nothing.
    fn is_shown(&self, service: &str) -> anyhow::Result<()> {
        for caller in &self.callers {
            let samples = self.api.proxy_metrics(caller)?;
            let shown = samples.values("weft_breaker_state", "backend");
            ensure!(
                shown.contains(self.named(service).as_str()),
                "{} shows {shown:?}",
                caller.name
            );
        }
        Ok(())
    }

    /// How many calls of each caller to a Service ended with that.
    fn request_rates(&self, service: &str, end: (&str, &str)) -> anyhow::Result<Vec<f64>> {
        let service = self.named(service);
        let labels = [
            ("direction", "outbound"),
            ("service", service.as_str()),
            end,
        ];
        self.api.sums(&self.callers, "weft_requests_total", &labels)
    }

    fn named(&self, service: &str) -> String {
        format!("{}/{service}", self.ns.name)
    }

    /// Waits until the status of the policy says one of these, by the words of all callers.
    fn reports_state(&self, policy: &str, states: &[&str]) -> anyhow::Result<()> {
        eventually(SOON, "the status reports the breaker", || {
            let status = self.ns.json(&["get", "tp", policy])?["status"]["breaker"].clone();
            let state = status["state"].as_str().unwrap_or_default();
            ensure!(states.contains(&state), "it says {status}");
            ensure!(status["callers"] == self.callers.len(), "it says {status}");
            Ok(())
        })
    }

    /// Waits for an Event about a policy, and returns its text.
    fn event_of(&self, policy: &str, reason: &str) -> anyhow::Result<String> {
        eventually(SOON, reason, || {
            let mut events = self.events(policy, reason)?;
            events.pop().with_context(|| format!("none about {policy}"))
        })
    }

    fn events(&self, policy: &str, reason: &str) -> anyhow::Result<Vec<String>> {
        let events = self.ns.json(&["get", "events"])?;
        let all = events["items"].as_array().context("no list of Events")?;
        let about =
            |event: &&Value| event["reason"] == reason && event["involvedObject"]["name"] == policy;
        let texts = all.iter().filter(about);
        let texts = texts.filter_map(|event| event["message"].as_str());
        Ok(texts.map(str::to_owned).collect())
    }
}
