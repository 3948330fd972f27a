//! What `weft release` shows of an object, and the commands that it writes.

use std::time::Duration;

use fake_api::FakeApi;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::run;

const WEB: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases/web";

/// In the second of its four steps, 79 s after the step's start.
fn release() -> Value {
    let step = |weight: u8| json!({"weight": weight, "duration": "2m"});
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "CanaryRelease",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"service": "web", "deployment": "web", "steps": [step(5), step(20), step(50), step(100)]},
        "status": {
            "phase": "Progressing", "summary": "step 2 of 4: 20 %, 41 s left",
            "stable": {"revision": "5d4c8f9b6", "pods": 3},
            "candidate": {"revision": "75fd76f75b", "pods": 1},
            "run": {"number": 7, "step": 2, "weight": 20, "startedAt": "2026-11-02T08:55:00Z",
                "stepStartedAt": "2026-11-02T08:58:41Z"},
            "checks": [
                {"name": "errorRate", "verdict": "unsuspicious", "evidence": "0.4 of 400",
                 "stable": {"requests": 9120, "bad": 11}, "candidate": {"requests": 480, "bad": 1}},
                {"name": "restarts", "verdict": "unsuspicious", "evidence": "0 of 0"},
            ],
            "lastCommand": "resume@2026-11-02T08:58:00Z",
        },
    })
}

fn api(change: impl FnOnce(&mut Value)) -> FakeApi {
    let api = FakeApi::default();
    let mut release = release();
    change(&mut release);
    api.put(WEB, release);
    api
}

async fn status(api: &FakeApi) -> (u8, Vec<String>) {
    let (code, out, err) = run(api.client(), "weft release status web -n shop").await;
    assert_eq!(err, "");
    (code, out.lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn release_status_shows_step_cap_time_and_checks() {
    let (code, lines) = status(&api(|_| ())).await;
    assert_eq!(code, 1, "it is not idle");
    assert_eq!(
        lines[0],
        "shop/web  run 7  75fd76f75b  Progressing  step 2/4  20 % (cap 25 %)  41 s left"
    );
    let cells = |line: &str| -> Vec<String> {
        let cells = line.split("   ").map(str::trim);
        cells
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let rows: Vec<Vec<String>> = lines[1..].iter().map(|line| cells(line)).collect();
    assert_eq!(
        rows,
        [
            ["CHECK", "STABLE", "CANDIDATE", "EVIDENCE", "VERDICT"],
            [
                "errorRate",
                "11/9120 0.12%",
                "1/480 0.21%",
                "0.4 of 400",
                "unsuspicious"
            ],
            ["restarts", "-", "-", "0 of 0", "unsuspicious"],
        ]
    );
}

#[tokio::test]
async fn mirror_step_shows_copies_in_place_of_share() {
    let api = api(|release| {
        release["spec"]["steps"][1] = json!({"mirror": 10, "duration": "10m"});
        release["status"]["run"]["weight"] = json!(0);
    });
    let (_, lines) = status(&api).await;
    let end = "step 2/4  copies of 10 %  8 min left";
    assert!(lines[0].ends_with(end), "{lines:?}");
}

#[tokio::test]
async fn idle_release_ends_with_0_and_names_last_run() {
    let api = api(|release| {
        release["status"] = json!({"phase": "Idle", "summary": "no run",
            "stable": {"revision": "75fd76f75b", "pods": 4},
            "history": [{"number": 7, "revision": "75fd76f75b", "result": "Promoted", "by": "weft"}]});
    });
    let (code, lines) = status(&api).await;
    assert_eq!(code, 0);
    let last = "last run 7  75fd76f75b  Promoted  by weft";
    assert_eq!(lines, ["shop/web  Idle", "no run", last]);
}

#[tokio::test]
async fn release_status_names_reason_of_rollback_or_refusal() {
    let reason = "errorRate: 37 of 401 bad, stable 1 of 7612";
    let rolled_back = api(|release| {
        let status = &mut release["status"];
        status["phase"] = json!("RolledBack");
        let summary = format!("{reason}; 3 of 4 pods serve; kubectl rollout undo deployment/web");
        status["summary"] = json!(summary);
        status["history"] = json!([{"number": 7, "revision": "75fd76f75b", "result": "RolledBack", "reason": reason}]);
    });
    let (code, lines) = status(&rolled_back).await;
    assert_eq!(code, 1);
    assert_eq!(lines[0], "shop/web  run 7  75fd76f75b  RolledBack");
    assert!(lines[1].starts_with(reason), "{lines:?}");
    assert!(lines[2].starts_with("CHECK"), "{lines:?}");
    let refused = api(|release| {
        let message = "spec.deployment: Deployment web has the strategy Recreate";
        release["status"] = json!({"phase": "Idle", "conditions": [{"type": "Accepted", "status": "False",
            "reason": "Invalid", "message": message, "lastTransitionTime": "2026-11-02T08:00:00Z"}]});
    });
    let (code, lines) = status(&refused).await;
    assert_eq!(code, 1, "it has no effect");
    assert_eq!(lines[0], "shop/web  Idle");
    assert!(
        lines[1].starts_with("Accepted: Invalid: spec.deployment"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn release_status_prints_object_and_escapes_its_texts() {
    let api = api(|release| {
        release["status"]["phase"] = json!("Paused");
        release["status"]["summary"] = json!("one\nshop/web  Idle \u{1b}[2J");
    });
    let (_, lines) = status(&api).await;
    assert_eq!(lines[1], "one\\nshop/web  Idle \\u{1b}[2J");
    let (code, out, _) = run(api.client(), "weft release status web -n shop -o json").await;
    assert_eq!(code, 1);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["status"]["run"]["number"], 7, "{object}");
}

#[tokio::test]
async fn release_command_is_annotation_later_than_last_one() {
    for (last, written) in [
        ("resume@2026-11-02T08:58:00Z", "abort@2026-11-02T09:00:00Z"),
        (
            "resume@2026-11-02T09:00:00Z",
            "abort@2026-11-02T09:00:00.001Z",
        ),
        ("", "abort@2026-11-02T09:00:00Z"),
    ] {
        let api = api(|release| release["status"]["lastCommand"] = json!(last));
        let (code, out, err) = run(api.client(), "weft release abort web -n shop").await;
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        let words = "CanaryRelease shop/web is Progressing and gets the command abort; ";
        assert!(err.starts_with(words), "{err}");
        let object = api.read(WEB).unwrap();
        assert_eq!(
            object["metadata"]["annotations"]["weft.dev/command"],
            written
        );
        assert_eq!(object["spec"], release()["spec"]);
    }
}

#[tokio::test]
async fn command_without_effect_is_refused_with_others_named() {
    for (phase, verb, takes) in [
        ("Waiting", "promote", "it takes abort"),
        ("Progressing", "retry", "it takes pause, promote, abort"),
        ("RolledBack", "resume", "it takes retry"),
        ("Idle", "pause", "a run starts when the template"),
    ] {
        let api = api(|release| release["status"]["phase"] = json!(phase));
        let line = format!("weft release {verb} web -n shop");
        let (code, out, err) = run(api.client(), &line).await;
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        let words =
            format!("CanaryRelease shop/web is {phase}, where {verb} has no effect; {takes}");
        assert!(err.starts_with(&words), "{err}");
        assert!(api.writes().is_empty());
    }
}

#[tokio::test]
async fn absent_release_is_bad_input_with_nearest_name() {
    for verb in ["status", "pause"] {
        let api = api(|_| ());
        let (code, out, err) = run(api.client(), &format!("weft release {verb} wbe -n shop")).await;
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        let words = "there is no CanaryRelease wbe in namespace shop; you may mean crel/web\n";
        assert_eq!(err, words);
        assert!(api.writes().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn watch_of_release_ends_with_its_run() {
    let api = api(|_| ());
    let later = api.clone();
    let end = tokio::spawn(async move {
        sleep(Duration::from_secs(5)).await;
        let mut release = release();
        release["status"]["phase"] = json!("RolledBack");
        later.put(WEB, release);
    });
    let (code, out, err) = run(api.client(), "weft release status web -n shop --watch").await;
    assert_eq!(code, 1, "{err}");
    let heads: Vec<&str> = out
        .lines()
        .filter(|line| line.starts_with("shop/web"))
        .collect();
    assert_eq!(heads.len(), 2, "one for each state: {out}");
    assert!(heads[1].ends_with("RolledBack"), "{out}");
    end.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn watch_before_run_waits_until_it_begins_and_ends() {
    let idle = |release: &mut Value| release["status"] = json!({"phase": "Idle"});
    let api = api(idle);
    let later = api.clone();
    let run_of_20_seconds = tokio::spawn(async move {
        sleep(Duration::from_secs(3)).await;
        later.put(WEB, release());
        sleep(Duration::from_secs(20)).await;
        let mut ended = release();
        idle(&mut ended);
        later.put(WEB, ended);
    });
    let (code, out, err) = run(api.client(), "weft release status web -n shop --watch").await;
    assert_eq!(code, 0, "{err}");
    let heads = out.lines().filter(|line| line.starts_with("shop/web"));
    assert_eq!(heads.count(), 3, "one for each state: {out}");
    run_of_20_seconds.await.unwrap();
}
