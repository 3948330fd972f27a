//! Statuses that another holder of the Lease or a forger wrote, and writes whose answer is lost.

use super::*;

#[tokio::test(start_paused = true)]
async fn next_holder_goes_on_with_the_same_run() {
    let mut bench = Bench::releasing().await;
    bench.look(5).await;
    let before = bench.status();
    bench.hand_over();
    bench.look(3).await;
    let after = bench.status();
    for field in ["number", "step", "startedAt", "stepStartedAt"] {
        assert_eq!(
            after["run"][field], before["run"][field],
            "{field}: {after}"
        );
    }
    assert_eq!(bench.events().await, ["ReleaseStarted", "StepStarted"]);
    bench.look(40).await;
    assert_eq!(bench.status()["run"]["step"], 2, "{}", bench.status());
}

#[tokio::test(start_paused = true)]
async fn rollback_by_another_holder_is_not_undone() {
    let mut bench = Bench::releasing().await;
    bench.edit("/status/phase", json!("RolledBack"));
    bench.edit("/status/run/weight", json!(0));
    bench.look(100).await;
    let status = bench.status();
    assert_eq!(bench.phase(), "RolledBack", "{status}");
    assert_eq!(status["run"]["weight"], 0, "{status}");
    assert!(!bench.is_open(NEW));
    assert_eq!(bench.condition("Stalled"), pair("True", "RolledBack"));
}

#[tokio::test(start_paused = true)]
async fn status_that_is_no_status_is_replaced() {
    let mut bench = Bench::releasing().await;
    for status in [
        json!("text"),
        json!({"phase": ["Promoting"], "extra": {"a": 1}}),
        json!({"phase": "Promoting", "run": {"step": "four"}}),
    ] {
        bench.edit("/status", status.clone());
        bench.look(2).await;
        let written = bench.status();
        // Which revision is stable was only there: one is left, or it waits until it is.
        assert_eq!(bench.phase(), "Waiting", "{status}: {written}");
        assert_eq!(written["extra"], Value::Null, "{written}");
    }
}

#[tokio::test(start_paused = true)]
async fn decision_whose_answer_is_lost_is_acted_on_once() {
    let mut bench = Bench::new().await;
    bench.update();
    bench.lose_answers(true);
    bench.look(1).await;
    assert_eq!(bench.phase(), "Waiting", "it was carried out");
    let events = bench.events().await;
    assert!(events.is_empty(), "before it is known: {events:?}");
    bench.lose_answers(false);
    bench.look(5).await;
    assert_eq!(bench.phase(), "Progressing", "{}", bench.status());
    assert_eq!(bench.status()["run"]["number"], 1);
    assert_eq!(bench.events().await, ["ReleaseStarted", "StepStarted"]);
}

#[tokio::test(start_paused = true)]
async fn refused_write_changes_nothing_and_acts_on_nothing() {
    let mut bench = Bench::new().await;
    bench.update();
    bench.api.refuse(RELEASE);
    bench.look(20).await;
    assert_eq!(bench.phase(), "Idle", "{}", bench.status());
    assert!(!bench.is_open(NEW));
    assert!(bench.events().await.is_empty());
    assert!(bench.parts.metrics.failures.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn counts_are_written_every_five_seconds_at_most() {
    let mut bench = Bench::releasing().await;
    let writes = |bench: &Bench| {
        let writes = bench.api.writes();
        writes.iter().filter(|(_, at)| at == RELEASE).count()
    };
    let before = writes(&bench);
    // The time that is left changes in each second.
    bench.look(20).await;
    let written = writes(&bench) - before;
    assert!((2..=6).contains(&written), "{written}");
}
