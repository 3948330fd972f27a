//! A Secret from a backup, or of an earlier step, brings back no root that is out of use.
//!
//! Claims: trust-8

use super::*;

#[tokio::test(start_paused = true)]
async fn replica_does_not_start_from_a_root_that_status_lacks() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    let other = Bench::generated();
    other.ticks(2).await;
    bench.api.put(PATH, other.api.read(PATH).unwrap());
    let late = reconciler(&bench.api, false);
    let refused = late.step(bench.now()).await.unwrap_err();
    assert!(matches!(refused, CaError::Restored), "{refused}");
    tokio::time::advance(60 * SECOND).await;
    late.step(bench.now()).await.unwrap();
    assert_eq!(
        late.authority.roots_der(),
        other.holder.authority.roots_der()
    );
}

#[tokio::test(start_paused = true)]
async fn retired_root_is_not_taken_out_of_a_backup() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    let backup = bench.api.read(PATH).unwrap();
    bench.request(&json!({"id": "leak", "reason": "Compromise"}));
    bench.ticks(20).await;
    bench.must_be_steady("compromise");
    bench.api.put(PATH, backup);
    let late = reconciler(&bench.api, false);
    tokio::time::advance(120 * SECOND).await;
    let refused = late.step(bench.now()).await.unwrap_err();
    assert!(matches!(refused, CaError::RootRetired), "{refused}");
    assert!(!can_sign(&late, bench.now()));
}

#[tokio::test(start_paused = true)]
async fn earlier_step_of_the_secret_is_not_taken() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    bench.request(&json!({"id": "audit"}));
    bench.tick().await;
    let preparing = bench.api.read(PATH).unwrap();
    bench.ticks(40).await;
    let (root, step) = (key(&bench.api, ROOT_CRT), bench.state().step);
    bench.api.put(PATH, preparing);
    bench.ticks(2).await;
    assert_eq!(key(&bench.api, ROOT_CRT), root, "written back");
    assert_eq!(bench.state().step, step + 1);
    assert_eq!(bench.holder.metrics.reverts.get(), 1);
}
