//! Experiments at an API server that holds nothing else.

use std::time::SystemTime;

use model::compiled::Compiled;
use model::{Defaults, Model};
use prometheus_client::metrics::counter::Counter;
use runtime::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::advance;
use wire::v1;
use wire::v1::early_sums::Group;

use super::*;
use crate::apiserver::events::{EventRecorder, Writer};
use crate::metrics::ReportMetrics;
use crate::observe::acknowledged::Observed;
use crate::observe::early::EarlyCounts;
use crate::observe::reports::{INTERVAL, Reporter, Reports, interval_of};
use crate::testing::api_server::FakeApi;
use crate::testing::cluster::{annotate, namespace, shop};

const SLOW: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/faultexperiments/slow";
const NOW: &str = "2026-11-29T10:00:00Z";
const SECOND: Duration = Duration::from_secs(1);

fn experiment() -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "FaultExperiment",
        "metadata": {
            "name": "slow", "namespace": "shop", "uid": "u", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "targetRef": {"kind": "Service", "name": "api"}, "share": "10%",
            "fault": {"abort": {}}, "duration": "30s",
            "checks": [{"service": "api", "errorRate": {"max": "2%", "tolerance": "1%"}}],
        },
    })
}

struct Bench {
    api: FakeApi,
    driver: Driver,
    models: watch::Sender<Option<Arc<Compiled>>>,
    namespace: Value,
    /// Sums of the pods of `api` so far.
    calls: [(Group, u64, u64); 3],
    reported: u64,
    _writer: Writer,
}

impl Bench {
    fn new() -> Self {
        let api = FakeApi::default();
        api.put(SLOW, experiment());
        let (models, latest) = watch::channel(None);
        let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
        let now: Timestamp = NOW.parse().unwrap();
        let parts = Experiments {
            client: api.client(),
            enabled: true,
            latest,
            observed: Observed::settled(),
            early: EarlyCounts::new(Counter::default()),
            reports: Reports::new(ReportMetrics::default()),
            events,
            namespace: "weft-system".into(),
            clock: Clock::from_fn(move || SystemTime::from(now)),
        };
        Self {
            api,
            driver: Driver::new(parts),
            models,
            namespace: annotate(namespace("shop"), "weft.dev/faults", "allowed"),
            calls: [
                (Group::None, 0, 0),
                (Group::Control, 0, 0),
                (Group::Harmed, 0, 0),
            ],
            reported: 0,
            _writer: writer,
        }
    }

    /// A second later: each group has a hundred more calls, of harmed ones so many failed.
    async fn second(&mut self, failed: u64) {
        advance(SECOND).await;
        self.reported += 1;
        for (group, calls, bad) in &mut self.calls {
            *calls += 100;
            *bad += if *group == Group::Harmed { failed } else { 0 };
        }
        let sums = self.calls.iter().map(|(group, calls, bad)| v1::EarlySums {
            port: 8080,
            group: (*group).into(),
            calls: *calls,
            failed: *bad,
            ..v1::EarlySums::default()
        });
        let report = v1::EarlyReport {
            epoch: 1,
            number: self.reported,
            sums: sums.collect(),
        };
        let early = &self.driver.parts.early;
        early.take(&"uid-api-1".into(), report, Instant::now());
        self.look().await;
    }

    /// The proxy of a caller reports that the first run harmed calls.
    fn report_harm(&self) {
        let (wall, began) = self.driver.began;
        let now = SystemTime::UNIX_EPOCH + wall + began.elapsed();
        let pod = ObjectKey::new("shop", "web-1");
        let reporter = Reporter::certified("uid-web-1".into(), &pod, "web");
        let harmed = v1::FaultCalls {
            experiment: "shop/slow".to_owned(),
            seed: model::faults::seed("u", 1),
            attempts: 400,
            harmed: 40,
            ..v1::FaultCalls::default()
        };
        let report = v1::Report {
            process: 1,
            slot: interval_of(now) * INTERVAL,
            faults: vec![harmed],
            ..v1::Report::default()
        };
        self.driver.parts.reports.take(&reporter, report, true, now);
    }

    /// A look by the objects as they are.
    async fn look(&mut self) {
        let mut cluster = shop().with(self.namespace.clone());
        for object in self.api.below(SLOW) {
            cluster = cluster.with(object);
        }
        let world = Arc::new(cluster.world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        let compiled = Compiled::new(world, model, problems);
        self.models.send_replace(Some(Arc::new(compiled)));
        self.driver.look().await;
    }

    fn status(&self) -> Value {
        self.api.read(SLOW).unwrap()["status"].clone()
    }

    fn command(&self, command: &str) {
        let object = self.api.read(SLOW).unwrap();
        self.api
            .put(SLOW, annotate(object, "weft.dev/command", command));
    }

    /// Starts a run, and goes on until it harms.
    async fn running() -> Self {
        let mut bench = Self::new();
        bench.command(&format!("run@{NOW}"));
        for _ in 0..13 {
            bench.second(0).await;
        }
        assert_eq!(bench.status()["phase"], "Running", "{}", bench.status());
        bench
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_experiment_ends_its_run_on_the_target() {
    let mut bench = Bench::running().await;
    bench.api.remove(SLOW);
    bench.second(0).await;
    let Bench {
        api,
        _writer: writer,
        ..
    } = bench;
    tokio::spawn(writer.run(std::future::pending()));
    sleep(SECOND * 2).await;
    let events = api.below("/apis/events.k8s.io/v1/namespaces/shop/events/");
    let mut ends = events
        .iter()
        .filter(|event| event["reason"] == "FaultEnded" && event["regarding"]["kind"] == "Service");
    let note = ends.next().expect("an Event on the Service")["note"].clone();
    assert!(
        note.as_str().unwrap().contains("slow was deleted"),
        "{note}"
    );
}

#[tokio::test(start_paused = true)]
async fn default_that_is_written_out_ends_no_run() {
    let mut bench = Bench::running().await;
    let mut object = bench.api.read(SLOW).unwrap();
    object["spec"]["suspend"] = json!(false);
    object["metadata"]["generation"] = json!(2);
    bench.api.put(SLOW, object.clone());
    for _ in 0..3 {
        bench.second(0).await;
    }
    assert_eq!(bench.status()["phase"], "Running", "{}", bench.status());
    object = bench.api.read(SLOW).unwrap();
    object["spec"]["share"] = json!("20%");
    object["metadata"]["generation"] = json!(3);
    bench.api.put(SLOW, object);
    bench.second(0).await;
    let last = &bench.status()["history"][0];
    assert_eq!(last["reason"], "spec was changed during the run", "{last}");
}

#[tokio::test(start_paused = true)]
async fn former_verdict_is_not_shown_during_a_run() {
    let mut bench = Bench::running().await;
    while bench.status()["phase"] == "Running" {
        bench.second(100).await;
    }
    assert_eq!(bench.status()["verdict"], "Harmful");
    let later: Timestamp = NOW.parse().unwrap();
    let later = later + k8s_openapi::jiff::SignedDuration::from_secs(60);
    bench.command(&format!("run@{later}"));
    bench.second(0).await;
    let status = bench.status();
    assert_eq!(
        (&status["phase"], &status["verdict"]),
        (&json!("Waiting"), &Value::Null)
    );
}

#[tokio::test(start_paused = true)]
async fn new_experiment_gets_a_status_and_no_run() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.second(0).await;
    }
    let status = bench.status();
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["target"], "api");
    assert_eq!(status["run"], Value::Null);
    let conditions = status["conditions"].as_array().unwrap();
    let accepted = conditions.iter().find(|one| one["type"] == "Accepted");
    assert_eq!(accepted.unwrap()["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn command_starts_one_run_and_is_removed() {
    let bench = Bench::running().await;
    let object = bench.api.read(SLOW).unwrap();
    let annotation = &object["metadata"]["annotations"]["weft.dev/command"];
    assert_eq!(*annotation, Value::Null);
    let status = &object["status"];
    assert_eq!(status["lastCommand"], format!("run@{NOW}"));
    assert_eq!(status["run"]["number"], 1);
    assert!(status["run"]["endsAt"].is_string(), "{status}");
    assert_eq!(status["run"]["by"], "unknown", "no managed fields here");
}

#[tokio::test(start_paused = true)]
async fn schedule_starts_its_run_at_its_time() {
    let mut bench = Bench::new();
    let mut object = experiment();
    object["metadata"]["creationTimestamp"] = json!(NOW);
    object["spec"]["schedule"] = json!({"cron": "1 10 * * *"});
    bench.api.put(SLOW, object);
    for _ in 0..58 {
        bench.second(0).await;
    }
    assert_eq!(bench.status()["run"], Value::Null);
    for _ in 0..4 {
        bench.second(0).await;
    }
    assert_eq!(bench.status()["run"]["by"], "schedule");
}

#[tokio::test(start_paused = true)]
async fn running_experiment_marks_its_status_each_few_seconds() {
    let mut bench = Bench::running().await;
    let mark = |bench: &Bench| bench.status()["run"]["state"].clone();
    let before = mark(&bench);
    for _ in 0..6 {
        bench.second(0).await;
    }
    assert_ne!(mark(&bench), before);
}

#[tokio::test(start_paused = true)]
async fn harmed_calls_that_fail_end_the_run_as_harmful() {
    let mut bench = Bench::running().await;
    for _ in 0..6 {
        bench.second(30).await;
    }
    let status = bench.status();
    assert_eq!(status["phase"], "Finished", "{status}");
    let last = &status["history"][0];
    assert_eq!(last["verdict"], "Harmful", "{last}");
    assert_eq!(last["checks"][0]["name"], "api errorRate");
    assert_eq!(status["verdict"], "Harmful");
}

#[tokio::test(start_paused = true)]
async fn calls_reported_after_the_end_are_in_the_history() {
    let mut bench = Bench::running().await;
    while bench.status()["phase"] == "Running" {
        bench.second(100).await;
    }
    bench.report_harm();
    for _ in 0..25 {
        bench.second(0).await;
    }
    let last = &bench.status()["history"][0];
    assert_eq!(last["verdict"], "Harmful", "{last}");
    assert_eq!(last["calls"]["harmed"], 40, "{last}");
}

#[tokio::test(start_paused = true)]
async fn run_without_failures_is_tolerated() {
    let mut bench = Bench::running().await;
    bench.report_harm();
    for _ in 0..31 {
        bench.second(0).await;
    }
    let status = bench.status();
    assert_eq!(status["history"][0]["verdict"], "Tolerated", "{status}");
}

#[tokio::test(start_paused = true)]
async fn run_that_harmed_no_call_is_inconclusive() {
    // Its checked pods count by trace, as if calls had been harmed.
    let mut bench = Bench::running().await;
    for _ in 0..46 {
        bench.second(0).await;
    }
    let last = &bench.status()["history"][0];
    assert_eq!(last["verdict"], "Inconclusive", "{last}");
    assert_eq!(last["reason"], "no call was harmed");
}

#[tokio::test(start_paused = true)]
async fn stop_and_withdrawn_permission_end_the_run() {
    let mut stopped = Bench::running().await;
    let later: Timestamp = NOW.parse().unwrap();
    let later = later + k8s_openapi::jiff::SignedDuration::from_secs(60);
    stopped.command(&format!("stop@{later}"));
    stopped.second(0).await;
    let last = &stopped.status()["history"][0];
    assert_eq!(last["verdict"], "Stopped", "{last}");

    let mut withdrawn = Bench::running().await;
    withdrawn.namespace = namespace("shop");
    withdrawn.second(0).await;
    let last = &withdrawn.status()["history"][0];
    assert_eq!(last["verdict"], "Stopped", "{last}");
    let reason = last["reason"].as_str().unwrap();
    assert!(reason.starts_with("NotAllowed: "), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn deletion_ends_the_run_of_an_object_that_stays() {
    let mut bench = Bench::running().await;
    let mut object = bench.api.read(SLOW).unwrap();
    object["metadata"]["deletionTimestamp"] = json!(NOW);
    bench.api.put(SLOW, object);
    bench.second(0).await;
    let last = &bench.status()["history"][0];
    assert_eq!(last["verdict"], "Stopped", "{last}");
    assert_eq!(last["reason"], "the experiment is being deleted");
}

#[tokio::test(start_paused = true)]
async fn new_holder_goes_on_with_the_stored_run() {
    let mut bench = Bench::running().await;
    bench.second(1).await;
    let before = bench.status();
    let parts = bench.driver.parts.clone();
    bench.driver = Driver::new(parts);
    bench.second(0).await;
    let after = bench.status();
    assert_eq!(after["phase"], "Running");
    assert_eq!(after["run"]["number"], 1);
    assert_eq!(after["run"]["endsAt"], before["run"]["endsAt"]);
}

#[tokio::test(start_paused = true)]
async fn forged_status_without_permission_starts_nothing() {
    let mut bench = Bench::new();
    bench.namespace = namespace("shop");
    let mut object = experiment();
    object["status"] = json!({"phase": "Running", "run": {"number": 1,
        "startedAt": NOW, "endsAt": "2099-01-01T00:00:00Z"}});
    bench.api.put(SLOW, object);
    bench.second(0).await;
    assert_eq!(bench.status()["phase"], "Finished");
    assert_eq!(bench.status()["history"][0]["verdict"], "Stopped");
}
