//! Tests of commands by annotation: done once, removed, and ignored when they come late.

use super::*;

#[tokio::test(start_paused = true)]
async fn command_is_recorded_with_its_manager_and_removed() {
    let mut bench = Bench::releasing().await;
    let value = bench.command("pause", 0);
    bench.look(1).await;
    let status = bench.status();
    assert_eq!(bench.phase(), "Paused", "{status}");
    assert_eq!(status["lastCommand"], value);
    assert_eq!(status["run"]["by"], "kubectl-annotate");
    assert_eq!(bench.annotation(), None);
    let paused = bench.events().await;
    assert_eq!(paused.iter().filter(|one| *one == "Paused").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn replayed_command_changes_nothing_and_is_removed() {
    let mut bench = Bench::releasing().await;
    let first = bench.command("pause", 0);
    bench.look(2).await;
    bench.command("resume", 0);
    bench.look(2).await;
    assert_eq!(bench.phase(), "Progressing", "{}", bench.status());
    // What GitOps or a backup writes once more.
    bench.annotate(&first);
    bench.look(1).await;
    assert_eq!(bench.phase(), "Progressing", "{}", bench.status());
    assert_eq!(bench.annotation(), None);
    let events = bench.events().await;
    assert!(events.contains(&"CommandIgnored".to_owned()), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn old_command_is_ignored() {
    let mut bench = Bench::releasing().await;
    bench.command("abort", 121);
    bench.look(1).await;
    assert_eq!(bench.phase(), "Progressing", "{}", bench.status());
    assert_eq!(bench.annotation(), None);
    assert_eq!(bench.status()["lastCommand"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn command_whose_removal_failed_is_not_carried_out_again() {
    let mut bench = Bench::releasing().await;
    let pause = bench.command("pause", 0);
    bench.look(1).await;
    assert_eq!(bench.phase(), "Paused");
    // The removal is lost, and the holder with it.
    bench.annotate(&pause);
    bench.hand_over();
    let paused_at = bench.status()["run"]["pausedAt"].clone();
    bench.look(2).await;
    assert_eq!(bench.status()["run"]["pausedAt"], paused_at);
    assert_eq!(bench.annotation(), None);
    let events = bench.events().await;
    assert!(!events.contains(&"CommandIgnored".to_owned()), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn command_without_a_run_is_ignored() {
    let mut bench = Bench::new().await;
    bench.command("promote", 0);
    bench.look(1).await;
    assert_eq!(bench.phase(), "Idle", "{}", bench.status());
    assert_eq!(bench.annotation(), None);
    assert_eq!(bench.events().await, ["CommandIgnored"]);
}

#[tokio::test(start_paused = true)]
async fn refused_removal_of_command_is_tried_with_pauses() {
    let mut bench = Bench::new().await;
    let removals = |bench: &Bench| {
        let writes = bench.api.writes();
        writes.iter().filter(|(_, at)| at == RELEASE).count()
    };
    bench.command("abort", 121);
    bench.api.refuse(RELEASE);
    let before = removals(&bench);
    bench.look(60).await;
    let tries = removals(&bench) - before;
    assert!((4..=15).contains(&tries), "{tries}");
    assert_eq!(bench.events().await, ["CommandIgnored"]);
}
