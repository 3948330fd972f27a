//! Contents of the Secret that a backup, a tool or a person put there: which of them are taken.

use super::*;

// Claims: trust-8
#[tokio::test(start_paused = true)]
async fn replica_starts_from_no_root_that_status_lacks() {
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

// Claims: trust-8
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

// Claims: trust-8
#[tokio::test(start_paused = true)]
async fn earlier_step_of_the_secret_is_not_taken() {
    let mut bench = Bench::generated();
    let (events, writer) = EventRecorder::new(bench.api.client(), "me", Counter::default());
    bench.holder.events = events;
    bench.ticks(2).await;
    bench.request(&json!({"id": "audit"}));
    bench.tick().await;
    let (preparing, early) = (bench.api.read(PATH).unwrap(), bench.state().step);
    bench.ticks(40).await;
    let (root, step) = (key(&bench.api, ROOT_CRT), bench.state().step);
    bench.api.put(PATH, preparing);
    bench.ticks(2).await;
    assert_eq!(key(&bench.api, ROOT_CRT), root, "written back");
    assert_eq!(bench.state().step, step + 1);
    assert_eq!(bench.holder.metrics.reverts.get(), 1);

    let api = bench.api.clone();
    drop(bench);
    writer.run(std::future::pending()).await;
    let events = api.below("/apis/events.k8s.io/v1/namespaces/mesh/events/");
    let said = events[0]["note"].as_str().unwrap();
    for part in [
        format!("is of an earlier step ({early})"),
        format!("the one of step {step},"),
    ] {
        assert!(said.contains(&part), "{part}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn unusable_content_is_named_until_written_back() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    // A tool that repeats it is answered slowly.
    for _ in 0..4 {
        let mut damaged = bench.api.read(PATH).unwrap();
        damaged["data"][ISSUER_KEY] = json!("bm90IGEga2V5");
        bench.api.put(PATH, damaged);
        bench.tick().await;
    }
    let usable = bench.condition("Usable");
    assert_eq!(usable["reason"], "SecretUnusable");
    let why = usable["message"].as_str().unwrap();
    for part in ["weft-ca", "issuer.key: the key is not", "delete the Secret"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert!(can_sign(&bench.holder, bench.now()), "by what it serves");

    bench.ticks(60).await;
    assert_eq!(bench.condition("Usable")["status"], "True");
    bench.request(&json!({"id": "leak", "reason": "Compromise"}));
    bench.ticks(20).await;
    bench.must_be_steady("compromise");
    assert_eq!(bench.state().ids, ["leak"]);
}

#[tokio::test(start_paused = true)]
async fn replica_that_lags_behind_serves_no_proxies() {
    let authority = Authority::in_memory();
    let observed = Observed::default();
    let peer = "10.0.0.9".parse().unwrap();
    observed.follow_replicas(&BTreeSet::from([peer]));
    let ready = Ready::new();
    let followed = follow_others(authority.clone(), observed.clone(), ready.clone());
    let followed = tokio::spawn(followed);
    let replica = Reconciler {
        authority: authority.clone(),
        ..reconciler(&FakeApi::default(), false)
    };
    observed.receive(
        peer,
        wire::v1::Observed {
            full: true,
            authority: Some(wire::v1::AuthorityStep {
                step: 7,
                ..wire::v1::AuthorityStep::default()
            }),
            ..wire::v1::Observed::default()
        },
    );
    sleep(5 * SECOND).await;
    assert!(!authority.is_late(), "it may read it in a moment");
    assert!(ready.is_ready() && can_sign(&replica, SystemTime::now()));
    sleep(10 * SECOND).await;
    assert!(authority.is_late());
    assert!(!ready.is_ready() && !can_sign(&replica, SystemTime::now()));
    observed.follow_replicas(&BTreeSet::new());
    sleep(2 * SECOND).await;
    assert!(!authority.is_late() && ready.is_ready());
    followed.abort();
}
