//! Which roots a new certificate brings.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// Lets the renewal of the first certificate come.
async fn renewal_is_due(bench: &Bench) {
    bench.ahead.store(20 * 3_600, Ordering::Relaxed);
    pass(runtime::clock::LOOK_EVERY).await;
}

#[tokio::test]
async fn answer_of_lagging_replica_leaves_roots_of_stream() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    // The stream has brought a root that the replica which issues does not know yet.
    let both = [new.roots(), old.roots()].concat();
    bench.control.roots.replace(both.clone()).unwrap();
    renewal_is_due(&bench).await;
    let is_renewed = |bench: &Bench| {
        let late = bench.stand_in.clock.now() + 12 * HOUR;
        bench
            .control
            .certs
            .not_after()
            .is_some_and(|end| end > late)
    };
    bench.until(is_renewed).await;
    assert_eq!(bench.control.roots.certificates(), both);
}

#[tokio::test]
async fn roots_that_do_not_vouch_for_their_answer_are_ignored() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    let now = SystemTime::now();
    let liar = Ca {
        root: Root::generate(now, ROOT_LIFE).unwrap(),
        issuer: new.root.issuer(now, ISSUER_LIFE).unwrap(),
    };
    *bench.stand_in.ca.lock() = Arc::new(liar);
    renewal_is_due(&bench).await;
    let metrics = &bench.control.config.telemetry.metrics;
    bench
        .until(|_| metrics.certificate_failures.get() >= 1)
        .await;
    assert_eq!(bench.control.roots.certificates(), old.roots());
    assert!(bench.holds_one_of(&old), "the certificate is kept");
}
