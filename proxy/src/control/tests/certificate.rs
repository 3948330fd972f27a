//! When a certificate is requested before its time, and which roots it brings.

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
async fn roots_that_cannot_verify_their_certificate_are_ignored() {
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

/// From now on controllers sign by `ca` and let in only what it has signed. They show what they
/// showed, and streams stay open.
fn accept_only(bench: &Bench, ca: &Arc<Ca>) {
    bench.roots.replace(ca.roots()).unwrap();
    *bench.stand_in.ca.lock() = Arc::clone(ca);
}

#[tokio::test]
async fn certificate_that_controllers_refuse_is_replaced_at_once() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    let both = [new.roots(), old.roots()].concat();
    bench.control.roots.replace(both).unwrap();
    accept_only(&bench, &new);
    bench.connections.lock().abort_all();
    bench.until(|bench| bench.holds_one_of(&new)).await;
    bench.until(|bench| bench.streams() == 2).await;
    assert_eq!(bench.issued(), 2);
}

#[tokio::test]
async fn certificates_refused_again_and_again_are_requested_half_minutely() {
    let (old, unrelated) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    bench.roots.replace(unrelated.roots()).unwrap();
    bench.connections.lock().abort_all();
    for certificates in [2, 3, 4] {
        bench.until(|bench| bench.issued() == certificates).await;
        // Several streams are refused meanwhile.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(bench.issued(), certificates);
        pass(FRESH_FOR).await;
    }
    assert_eq!(bench.streams(), 1);
}

#[tokio::test]
async fn certificate_of_dropped_root_is_replaced_at_once() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    // The stream stays: nothing but the roots says that its time is over.
    let key = LeafKey::generate().unwrap();
    let own = id("weft-system", "weft-controller");
    let chain = new.issue(&key.csr().unwrap(), own, SystemTime::now());
    bench.serving.store(Leaf::new(chain, &key).unwrap());
    accept_only(&bench, &new);
    let bundle = |version: &str, roots: Vec<CertificateDer<'static>>| v1::Resource {
        name: wire::names::BUNDLE.to_owned(),
        version: version.to_owned(),
        content: Some(v1::resource::Content::Bundle(v1::Bundle {
            roots: roots.iter().map(|root| root.to_vec()).collect(),
            ..v1::Bundle::default()
        })),
    };
    let batch = |id, bundle| {
        let set = vec![bundle];
        v1::to_proxy::Message::Batch(v1::Batch {
            id,
            set,
            ..v1::Batch::default()
        })
    };
    let both = [new.roots(), old.roots()].concat();
    bench
        .send_message(batch(1, bundle("1", both.clone())))
        .await;
    bench
        .until(|bench| bench.control.roots.certificates() == both)
        .await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), 1, "its root is one of them");

    bench.send_message(batch(2, bundle("2", new.roots()))).await;
    bench.until(|bench| bench.holds_one_of(&new)).await;
    assert_eq!((bench.issued(), bench.streams()), (2, 1));
}

#[tokio::test]
async fn stream_that_ends_without_alert_costs_no_certificate() {
    let bench = Bench::start(&Ca::new()).await;
    for streams in [2, 3] {
        bench.connections.lock().abort_all();
        bench.until(|bench| bench.streams() == streams).await;
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), 1);
}
