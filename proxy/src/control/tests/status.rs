//! Status reports of a proxy on its stream, and how soon they come.
//!
//! Claims: observe-103, observe-104

use super::*;

#[tokio::test]
async fn proxy_status_contains_certificate_clock_and_draining() {
    let bench = Bench::start(&Ca::new()).await;
    let statuses = || bench.stand_in.statuses.lock().clone();
    bench.until(|_| !statuses().is_empty()).await;
    let first = statuses()[0].clone();
    let leaf = bench.control.certs.current().unwrap();
    let certificate = first.certificate.clone().unwrap();
    assert_eq!(certificate.serial, leaf.serial());
    assert!(certificate.issuer.contains("CN="), "{certificate:?}");
    let ends = leaf
        .not_after()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(certificate.not_after, ends.as_secs());
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(
        first.now.abs_diff(now.as_millis() as u64) < 20_000,
        "{first:?}"
    );
    assert!(first.memory > 1 << 20 && !first.draining, "{first:?}");

    // A pod that is deleted may not live until the next look.
    bench.draining.send_replace(true);
    bench
        .until(|_| statuses().last().is_some_and(|last| last.draining))
        .await;
}

#[tokio::test]
async fn clock_change_is_reported_within_one_interval() {
    let bench = Bench::start(&Ca::new()).await;
    let statuses = || bench.stand_in.statuses.lock().clone();
    bench.until(|_| !statuses().is_empty()).await;
    let before = statuses()[0].now;
    bench.ahead.store(60, Ordering::Relaxed);
    pass(Duration::from_secs(5)).await;
    bench
        .until(|_| {
            statuses()
                .last()
                .is_some_and(|last| last.now > before + 55_000)
        })
        .await;
}
