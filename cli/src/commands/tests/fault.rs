//! What `weft fault` shows of an object, and what it writes.

use clap::Parser as _;
use fake_api::FakeApi;
use serde_json::{Value, json};

use super::run;
use crate::args::{Cli, Command};
use crate::commands::ClusterCommand as _;
use crate::failure::Failure;

const SLOW: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/faultexperiments/payments-slow";
const SHOP: &str = "/api/v1/namespaces/shop";
const MESH: &str = "/api/v1/namespaces/weft-system";

fn experiment() -> Value {
    let checks = json!([{"name": "checkout errorRate", "verdict": "worse",
        "evidence": "2.1e4 of 400", "control": {"requests": 412, "bad": 1},
        "harmed": {"requests": 401, "bad": 37}}]);
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "FaultExperiment",
        "metadata": {"name": "payments-slow", "namespace": "shop"},
        "spec": {"targetRef": {"kind": "Service", "name": "payments"}, "share": "10%",
            "fault": {"delay": "300ms"}, "duration": "5m",
            "checks": [{"service": "checkout", "errorRate": {"tolerance": "0.5%"}}]},
        "status": {
            "phase": "Running", "summary": "run 4: 41 s left",
            "run": {"number": 4, "endsAt": "2099-01-01T00:00:00Z"},
            "lastCommand": "run@2026-11-02T08:58:00Z",
            "history": [
                {"number": 3, "verdict": "Harmful", "harmed": 401,
                 "reason": "checkout errorRate: 37 of 401 harmed calls failed, 1 of 412 spared after 9.4 s",
                 "hypothesis": "Checkout works while payments is slow", "checks": checks,
                 "calls": {"total": 4098, "harmed": 401, "excluded": 0, "beyondLimit": 0,
                     "untraced": 12}},
                {"number": 2, "verdict": "NotStarted", "harmed": 0,
                 "reason": "no controller could start it within 10 minutes of its time"},
            ],
        },
    })
}

fn api() -> FakeApi {
    let api = FakeApi::default();
    api.put(SLOW, experiment());
    for (path, name) in [(SHOP, "shop"), (MESH, "weft-system")] {
        api.put(
            path,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
    }
    api
}

async fn ran(api: &FakeApi, line: &str) -> (u8, Vec<String>) {
    let (code, out, _) = run(api.client(), &format!("weft fault {line} -n shop")).await;
    (code, out.lines().map(str::to_owned).collect())
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn report_shows_verdict_checks_and_calls_of_last_run() {
    let (code, lines) = ran(&api(), "report payments-slow").await;
    assert_eq!(code, 1, "it was not tolerated");
    assert_eq!(
        lines[0],
        "payments-slow run 3  Harmful after 9.4 s: \"Checkout works while payments is slow\" is \
         refuted"
    );
    assert_eq!(words(&lines[1]), ["CHECK", "CONTROL", "HARMED", "EVIDENCE"]);
    let row = "checkout errorRate 1/412 0.24% 37/401 9.23% 2.1e4 of 400";
    assert_eq!(words(&lines[2]), words(row));
    assert_eq!(
        lines[3],
        "harmed 401 of 4098 calls, excluded 0, beyond limit 0, untraced 12"
    );
}

#[tokio::test]
async fn report_of_earlier_run_and_as_markdown() {
    let (_, lines) = ran(&api(), "report payments-slow --run 2").await;
    assert!(lines[0].starts_with("payments-slow run 2  NotStarted: no controller"));
    let (_, lines) = ran(&api(), "report payments-slow -o markdown").await;
    assert!(
        lines[0].starts_with("**payments-slow run 3**: Harmful"),
        "{lines:?}"
    );
    assert!(lines.contains(&"|---|---|---|---|".to_owned()), "{lines:?}");
    let (code, _) = ran(&api(), "report payments-slow --run 9").await;
    assert_eq!(code, 2);
}

#[tokio::test]
async fn command_is_annotation_later_than_the_last() {
    let api = api();
    let (code, _) = ran(&api, "stop payments-slow").await;
    assert_eq!(code, 0);
    let written = api.read(SLOW).unwrap();
    let command = written["metadata"]["annotations"]["weft.dev/command"].as_str();
    let (verb, at) = command.unwrap().split_once('@').unwrap();
    assert_eq!(verb, "stop");
    assert!(at > "2026-11-02T08:58:00Z", "{at}");
}

#[tokio::test]
async fn fault_command_without_effect_is_refused() {
    for (phase, verb) in [
        ("Finished", "stop"),
        ("Pending", "stop"),
        ("Running", "run"),
    ] {
        let api = api();
        let mut other = experiment();
        other["status"]["phase"] = json!(phase);
        api.put(SLOW, other);
        let before = api.read(SLOW);
        assert_eq!(ran(&api, &format!("{verb} payments-slow")).await.0, 1);
        assert_eq!(api.read(SLOW), before, "{verb} in {phase}");
    }
}

#[tokio::test]
async fn faults_are_allowed_by_namespace_and_stopped_for_all() {
    let api = api();
    let annotation = |path: &str| {
        let namespace = api.read(path).unwrap();
        namespace["metadata"]["annotations"]["weft.dev/faults"].clone()
    };
    assert_eq!(ran(&api, "allow --share 5%").await.0, 0);
    assert_eq!(annotation(SHOP), "share=5%");
    assert_eq!(ran(&api, "stop --all").await.0, 0);
    assert_eq!(annotation(MESH), "stopped");
    assert_eq!(ran(&api, "allow --all").await.0, 0);
    assert_eq!(annotation(MESH), Value::Null);
    assert_eq!(annotation(SHOP), "share=5%");
}

#[tokio::test]
async fn allow_without_all_leaves_stop_of_mesh() {
    let api = api();
    assert_eq!(ran(&api, "stop --all").await.0, 0);
    let stopped = api.read(MESH);
    for share in ["", " --share 5%"] {
        let line = format!("weft fault allow{share} -n weft-system");
        let (code, out, err) = run(api.client(), &line).await;
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("weft fault allow --all"), "{err}");
        assert_eq!(api.read(MESH), stopped);
    }
}

#[test]
fn contradictory_options_are_refused_before_any_query() {
    for (line, word) in [
        ("status slow -A", "say -n NAME instead of -A"),
        ("run slow -o json", "leave -o out"),
        ("status slow -o markdown", "only report prints that"),
        ("report", "name the FaultExperiment"),
        ("run slow --all", "--all is for stop and allow"),
        ("stop slow --run 3", "--run is for report"),
        ("run slow --share 5%", "--share is for allow"),
        ("allow slow", "leave it out"),
        ("allow --share 5", "a share such as 5%"),
    ] {
        let cli = Cli::try_parse_from(format!("weft fault {line}").split(' ')).unwrap();
        let Command::Fault(fault) = cli.command else {
            panic!("{line}");
        };
        match fault.must_be_readable(&cli.global) {
            Err(Failure::Usage(why)) => assert!(why.contains(word), "{line}: {why}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}
