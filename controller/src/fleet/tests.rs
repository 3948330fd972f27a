//! Breaker reports in, states of breakers out.
//!
//! Claims: calls-68

mod authorization;
mod called;
mod sets;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::compiled::Compiled;
use model::{Defaults, Model};
use policy::breaker::FleetBreakerState;
use policy::name::Kind;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use wire::v1::circuit_state::State as WireState;

use super::*;
use crate::testing::cluster::{self, Cluster};

const SECOND: Duration = Duration::from_secs(1);

fn with_breaker(breaker: &serde_json::Value) -> Cluster {
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"}, "breaker": breaker});
    cluster::shop().with(cluster::traffic_policy("p", spec))
}

/// Service `v2` beside it, with a pod of its own.
fn with_v2(cluster: Cluster) -> Cluster {
    let endpoints = [cluster::endpoint("v2-1", "10.0.0.21")];
    cluster
        .with(cluster::pod("v2-1", "10.0.0.21", "v2"))
        .with(cluster::service("v2", "10.96.0.2", &[("h", 80)]))
        .with(cluster::slice("v2-x", "v2", &[("h", 8080)], &endpoints))
}

fn compiled(cluster: &Cluster) -> Arc<Compiled> {
    let world = Arc::new(cluster.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    Arc::new(Compiled::new(world, model, problems))
}

struct Bench {
    fleet: Fleet,
    models: watch::Sender<Option<Arc<Compiled>>>,
    now: Instant,
    /// Another replica does.
    _listens: watch::Receiver<u64>,
}

impl Bench {
    fn new(cluster: &Cluster) -> Self {
        let (models, latest) = watch::channel(Some(compiled(cluster)));
        let fleet = Fleet::new(latest, Counter::default());
        Self {
            _listens: fleet.own_changes(),
            fleet,
            models,
            now: Instant::now(),
        }
    }

    /// A pod of this account of namespace `shop` says what became of its calls to `api`.
    fn send_report(&self, account: &str, breaker_report: v1::CircuitPulse) {
        self.send_report_of(account, "shop/api", "shop/api", breaker_report);
    }

    fn send_report_of(
        &self,
        account: &str,
        service: &str,
        backend: &str,
        breaker_report: v1::CircuitPulse,
    ) {
        let from = caller(&format!("shop/{account}"), &format!("uid-{account}"));
        self.receive(&from, service, backend, breaker_report);
    }

    fn receive(
        &self,
        from: &Caller,
        service: &str,
        backend: &str,
        mut breaker_report: v1::CircuitPulse,
    ) {
        breaker_report.circuit = Some(v1::Circuit {
            service: service.to_owned(),
            backend: backend.to_owned(),
            port: 80,
        });
        let circuits = vec![breaker_report];
        self.fleet.take(from, v1::Pulse { circuits }, self.now);
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
        self.fleet.tick(self.now, SystemTime::now());
    }

    fn announced_states(&self) -> Vec<(String, WireState, u64)> {
        let announced = self.fleet.announced();
        let states = announced.iter().map(|(key, states)| {
            let message = states.message(key, self.now);
            (key.backend.to_string(), message.state(), message.every)
        });
        states.collect()
    }
}

fn caller(account: &str, uid: &str) -> Caller {
    Caller {
        account: account.into(),
        uid: uid.into(),
    }
}

fn seen(sent: u32, failed: u32) -> v1::CircuitPulse {
    v1::CircuitPulse {
        sent,
        failed,
        ..v1::CircuitPulse::default()
    }
}

fn wants() -> v1::CircuitPulse {
    v1::CircuitPulse {
        refused: 5,
        ..v1::CircuitPulse::default()
    }
}

fn api(state: WireState, every: u64) -> Vec<(String, WireState, u64)> {
    vec![("shop/api".to_owned(), state, every)]
}

#[test]
fn account_majority_opens_breaker_and_probes_or_time_close() {
    let mut bench = Bench::new(&with_breaker(&json!({})));
    let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    bench.send_report("web", seen(100, 100));
    bench.send_report("other", seen(20, 0));
    bench.passes(SECOND);
    assert!(bench.announced_states().is_empty(), "one of two accounts");
    bench.send_report("other", seen(60, 60));
    let changes = bench.fleet.changes();
    bench.passes(SECOND);
    assert_eq!(bench.announced_states(), api(WireState::Open, 0));
    assert!(changes.has_changed().unwrap());
    let report = bench.fleet.report(&policy, bench.now).unwrap();
    assert_eq!((report.state, report.failure_percent), (Phase::Open, 75));
    assert_eq!((report.requests, report.callers), (180, 2));
    assert_eq!(bench.fleet.open(bench.now).len(), 1);
    for _ in 0..5 {
        bench.send_report("web", wants());
        bench.send_report("other", wants());
        bench.passes(SECOND);
    }
    assert_eq!(bench.announced_states(), api(WireState::Probing, 200));
    let report = bench.fleet.report(&policy, bench.now).unwrap();
    assert_eq!(report.state, Phase::Probing);
    for _ in 0..2 {
        for account in ["web", "other"] {
            let good = v1::CircuitPulse {
                probes: 5,
                ..v1::CircuitPulse::default()
            };
            bench.send_report(account, good);
        }
        bench.passes(SECOND);
    }
    assert_eq!(bench.announced_states(), api(WireState::Closing, 0));
    let since = bench.fleet.announced();
    bench.passes(3 * SECOND);
    assert_eq!(since, bench.fleet.announced(), "it says how it goes on");
    let (key, news) = since.iter().next().unwrap();
    assert_eq!(news.message(key, bench.now).since, 3000);
    assert_eq!(
        bench.fleet.report(&policy, bench.now).unwrap().state,
        Phase::Closed
    );
    bench.passes(10 * SECOND);
    assert!(bench.announced_states().is_empty());
    assert!(
        bench.fleet.report(&policy, bench.now).is_none(),
        "forgotten"
    );
    assert!(bench.fleet.objects().is_empty());
}

#[test]
fn reports_without_breaker_or_for_unrouted_backends_are_ignored() {
    let cluster = with_v2(with_breaker(&json!({})));
    let mut bench = Bench::new(&cluster);
    for (service, backend) in [
        ("shop/v2", "shop/v2"),
        ("shop/api", "shop/v2"),
        ("shop/api", "elsewhere/api"),
        ("shop/api", "no name"),
        ("absent/nothing", "absent/nothing"),
    ] {
        bench.send_report_of("web", service, backend, seen(1000, 1000));
    }
    bench.passes(SECOND);
    assert!(bench.announced_states().is_empty() && bench.fleet.objects().is_empty());
    let split = cluster::split("s", "api", &[("v2", 1)]);
    bench
        .models
        .send_replace(Some(compiled(&cluster.with(split))));
    bench.send_report_of("web", "shop/api", "shop/v2", seen(1000, 1000));
    bench.passes(SECOND);
    assert_eq!(
        bench.announced_states(),
        [("shop/v2".to_owned(), WireState::Open, 0)]
    );
}

#[test]
fn overridden_calls_use_breaker_policy_of_called_service() {
    let spec = json!({
        "targetRef": {"kind": "Service", "name": "api"},
        "breaker": {}, "overrides": [{"to": ["v2"]}],
    });
    let cluster = with_v2(cluster::shop()).with(cluster::traffic_policy("p", spec));
    let mut bench = Bench::new(&cluster);
    bench.send_report_of("web", "shop/api", "shop/v2", seen(1000, 1000));
    bench.passes(SECOND);
    assert_eq!(
        bench.announced_states(),
        [("shop/v2".to_owned(), WireState::Open, 0)]
    );
}

#[test]
fn deleted_policy_or_explicit_state_withdraws_announced_state() {
    let mut bench = Bench::new(&with_breaker(&json!({})));
    let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    let open = |bench: &mut Bench| {
        bench.send_report("web", seen(100, 100));
        bench.passes(SECOND);
        assert_eq!(bench.announced_states(), api(WireState::Open, 0));
    };
    open(&mut bench);
    let state = |state| compiled(&with_breaker(&json!({"state": state})));
    bench.models.send_replace(Some(state("Open")));
    bench.passes(SECOND);
    assert!(bench.announced_states().is_empty(), "the policy says it");
    let report = bench.fleet.report(&policy, bench.now).unwrap();
    assert_eq!(report.state, Phase::Open);
    bench.models.send_replace(Some(state("Closed")));
    bench.passes(SECOND);
    let report = bench.fleet.report(&policy, bench.now).unwrap();
    assert_eq!(report.state, Phase::Closed);
    // Afterwards nothing is left of what was seen before.
    for written in ["Open", "Closed"] {
        let mut bench = Bench::new(&with_breaker(&json!({})));
        open(&mut bench);
        bench.models.send_replace(Some(state(written)));
        bench.passes(SECOND);
        let auto = compiled(&with_breaker(&json!({})));
        bench.models.send_replace(Some(auto));
        bench.send_report("web", seen(1, 0));
        bench.passes(SECOND);
        assert!(
            bench.announced_states().is_empty(),
            "{written}: {:?}",
            bench.announced_states()
        );
    }
    let mut bench = Bench::new(&with_breaker(&json!({})));
    open(&mut bench);
    bench.models.send_replace(Some(compiled(&cluster::shop())));
    bench.passes(SECOND);
    assert!(
        bench.announced_states().is_empty() && bench.fleet.report(&policy, bench.now).is_none()
    );
}

/// It is in the policy, for every reader.
#[test]
fn explicit_breaker_state_is_not_reported_as_opened() {
    let state = |state| with_breaker(&json!({"state": state}));
    let opened = |bench: &Bench| bench.fleet.open(bench.now).len();
    let key = |bench: &Bench| bench.fleet.open(bench.now).into_keys().next();
    let mut bench = Bench::new(&state("Open"));
    bench.send_report("web", wants());
    bench.passes(SECOND);
    assert_eq!(opened(&bench), 0);
    // Nor has one that had opened by itself, which is not called again.
    let auto = with_breaker(&json!({}));
    for (written, stays) in [("Open", true), ("Closed", false)] {
        let mut bench = Bench::new(&auto);
        bench.send_report("web", seen(100, 100));
        bench.passes(SECOND);
        assert_eq!(opened(&bench), 1);
        let key = key(&bench).unwrap();
        assert!(!bench.fleet.is_written_open(&key));
        bench.models.send_replace(Some(compiled(&state(written))));
        bench.passes(SECOND);
        assert_eq!(opened(&bench), 0, "{written}");
        assert_eq!(bench.fleet.is_written_open(&key), stays);
    }
}

#[test]
fn replica_receives_reports_once_and_reaches_same_state() {
    let (mut bench, mut other) = (
        Bench::new(&with_breaker(&json!({}))),
        Bench::new(&with_breaker(&json!({}))),
    );
    let news = bench.fleet.own_changes();
    bench.send_report("web", seen(30, 30));
    bench.send_report("other", seen(30, 30));
    assert!(!news.has_changed().unwrap(), "they travel together");
    bench.passes(SECOND);
    assert!(news.has_changed().unwrap());
    let (revision, announced) = bench.fleet.own_since(0);
    other.fleet.receive(announced.unwrap().pulses, other.now);
    other.passes(SECOND);
    assert_eq!(other.announced_states(), bench.announced_states());
    assert_eq!(other.announced_states(), api(WireState::Open, 0));
    assert_eq!(bench.fleet.own_since(revision), (revision, None));
    assert_eq!(other.fleet.own_since(0), (0, None), "it passes nothing on");
    bench.passes(KEPT);
    bench.passes(SECOND);
    assert_eq!(bench.fleet.own_since(0), (revision, None));
}

#[test]
fn callers_are_bounded_and_known_ones_continue() {
    let mut bench = Bench::new(&with_breaker(&json!({})));
    bench.send_report("web", seen(30, 30));
    bench.fleet.inner.state.lock().callers = CALLERS;
    bench.send_report("other", seen(1000, 0));
    bench.send_report("web", seen(30, 30));
    assert_eq!(bench.fleet.inner.at_capacity.get(), 1);
    bench.passes(SECOND);
    assert_eq!(
        bench.announced_states(),
        api(WireState::Open, 0),
        "no other caller was counted"
    );
    assert_eq!(bench.fleet.inner.state.lock().callers, 1, "there is room");
    bench.send_report("other", seen(1, 0));
    assert_eq!(bench.fleet.inner.at_capacity.get(), 1);
}

#[test]
fn caller_changes_are_announced_only_when_probe_interval_changes() {
    let probing = |millis| FleetBreakerState::Probing {
        every: Duration::from_millis(millis),
    };
    let at = Instant::now();
    let news = AnnouncedState::after(None, probing(1000), None, at);
    let then = |fleet_state| AnnouncedState::after(news.clone(), fleet_state, None, at + SECOND);
    assert_eq!(then(probing(1200)), news);
    assert_ne!(then(probing(2000)), news);
    assert_ne!(then(FleetBreakerState::Open), news);
    assert_eq!(then(FleetBreakerState::Closed), None);
    let web = Arc::from("shop/web");
    let of_one = AnnouncedState::after(news.clone(), probing(1000), Some(&web), at);
    assert_ne!(of_one, news);
}

/// What a proxy says `times` over of its calls to `api`, in one breaker report.
fn again(times: usize) -> v1::Pulse {
    let circuit = v1::Circuit {
        service: "shop/api".to_owned(),
        backend: "shop/api".to_owned(),
        port: 80,
    };
    let breaker_report = v1::CircuitPulse {
        circuit: Some(circuit),
        ..seen(10, 0)
    };
    v1::Pulse {
        circuits: vec![breaker_report; times],
    }
}

// Claims: attack-78
#[test]
fn breaker_repeated_in_one_report_counts_and_forwards_once() {
    let bench = Bench::new(&with_breaker(&json!({})));
    let web = caller("shop/web", "uid-web");
    bench.fleet.take(&web, again(CIRCUITS + 7), bench.now);
    let (_, news) = bench.fleet.own_since(0);
    let news = news.unwrap().pulses;
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].pulse.as_ref().unwrap().circuits.len(), 1);
    let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    let report = bench.fleet.report(&policy, bench.now).unwrap();
    assert_eq!(report.requests, 10);
    let left_out = bench.fleet.inner.at_capacity.get();
    assert_eq!(left_out, CIRCUITS as u64 + 6, "all but the first");
}

/// A caller that takes so many bytes of each breaker report.
fn large(bytes: usize) -> Caller {
    caller("shop/web", &"u".repeat(bytes))
}

// Claims: attack-78
#[test]
fn pending_breaker_reports_are_bounded_in_bytes() {
    let bench = Bench::new(&with_breaker(&json!({})));
    let from = large(64 * 1024);
    let received = KEPT_BYTES / (64 * 1024) + 40;
    for _ in 0..received {
        bench.fleet.take(&from, again(1), bench.now);
    }
    let kept = {
        let state = bench.fleet.inner.state.lock();
        let bytes: usize = state
            .own
            .iter()
            .map(|breaker_report| bytes_of(&breaker_report.reported))
            .sum();
        assert_eq!(bytes, state.own_bytes);
        assert!(bytes <= KEPT_BYTES, "{bytes}");
        assert_eq!(state.own.back().unwrap().revision, received as u64);
        state.own.len()
    };
    assert!(kept > received - 60, "{kept} of {received}");
    assert_eq!(
        bench.fleet.inner.at_capacity.get(),
        0,
        "no replica was to get it"
    );
    let (news, _) = bench.fleet.own_since(0);
    let lost = (received - kept) as u64;
    assert_eq!(bench.fleet.inner.at_capacity.get(), lost);
    bench.fleet.own_since(news);
    assert_eq!(bench.fleet.inner.at_capacity.get(), lost, "counted once");
    bench.fleet.tick(bench.now + 2 * KEPT, SystemTime::now());
    assert_eq!(bench.fleet.inner.state.lock().own_bytes, 0);
}

#[test]
fn breaker_reports_are_kept_only_while_replica_listens() {
    let (_models, latest) = watch::channel(Some(compiled(&with_breaker(&json!({})))));
    let fleet = Fleet::new(latest, Counter::default());
    let (web, now) = (caller("shop/web", "uid-web"), Instant::now());
    let other = caller("shop/other", "uid-other");
    let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    fleet.take(&web, again(1), now);
    assert_eq!(fleet.report(&policy, now).unwrap().requests, 10);
    assert_eq!(fleet.inner.state.lock().own_bytes, 0);
    let news = fleet.own_changes();
    fleet.take(&other, again(1), now);
    let (revision, announced) = fleet.own_since(0);
    let announced = announced.unwrap().pulses;
    assert_eq!(announced.len(), 1);
    assert_eq!((revision, announced[0].uid.as_str()), (1, "uid-other"));
    drop(news);
    fleet.take(&web, again(1), now);
    assert_eq!(fleet.own_since(revision), (revision, None));
}

// Claims: attack-78
#[test]
fn breaker_reports_are_forwarded_in_mebibyte_messages() {
    let bench = Bench::new(&with_breaker(&json!({})));
    let from = large(100 * 1024);
    for _ in 0..40 {
        bench.fleet.take(&from, again(1), bench.now);
    }
    let (mut since, mut news, mut messages) = (0, 0, 0);
    while let (next, Some(message)) = bench.fleet.own_since(since) {
        let bytes = message.encoded_len();
        assert!(bytes <= TOGETHER_BYTES, "{bytes} in one message");
        news += message.pulses.len();
        messages += 1;
        assert_eq!(next, news as u64, "in order, each once");
        since = next;
    }
    assert_eq!((news, messages), (40, 4));
    assert_eq!(bench.fleet.own_since(since), (since, None));
}
