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
    assert_eq!(certificate.authority, leaf.authority().as_bytes());
    let trusts = bench.control.roots.ids();
    let trusts = trusts.iter().map(|root| root.as_bytes().to_vec());
    assert_eq!(first.trusts, trusts.collect::<Vec<_>>());
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

#[tokio::test]
async fn change_of_roots_is_reported_within_one_interval() {
    let bench = Bench::start(&Ca::new()).await;
    let trusts = || {
        let statuses = bench.stand_in.statuses.lock();
        statuses.last().map_or(0, |last| last.trusts.len())
    };
    bench.until(|_| trusts() == 1).await;
    let both = [bench.control.roots.certificates(), Ca::new().roots()].concat();
    bench.control.roots.replace(both).unwrap();
    pass(Duration::from_secs(5)).await;
    bench.until(|_| trusts() == 2).await;
}
