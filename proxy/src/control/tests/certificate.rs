//! When a certificate is requested before its time, and which roots it brings.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// Lets the renewal of the first certificate come.
async fn renewal_is_due(bench: &Bench) {
    bench.ahead.store(20 * 3_600, Ordering::Relaxed);
    pass(runtime::clock::LOOK_EVERY).await;
}

// Claims: trust-1a
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

// Claims: trust-1a
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

/// Controllers show a certificate of `ca` on new connections.
fn show(bench: &Bench, ca: &Arc<Ca>) -> Leaf {
    let key = LeafKey::generate().unwrap();
    let own = id("weft-system", "weft-controller");
    let chain = ca.issue(&key.csr().unwrap(), own, SystemTime::now());
    let leaf = Leaf::new(chain, &key).unwrap();
    bench.serving.store(leaf.clone());
    leaf
}

fn bundle_of(roots: &[CertificateDer<'static>]) -> v1::Bundle {
    v1::Bundle {
        roots: roots.iter().map(|root| root.to_vec()).collect(),
        ..v1::Bundle::default()
    }
}

/// The batch of this number, which brings a bundle.
fn bundle(id: u64, bundle: v1::Bundle) -> v1::to_proxy::Message {
    let set = vec![v1::Resource {
        name: wire::names::BUNDLE.to_owned(),
        version: id.to_string(),
        content: Some(v1::resource::Content::Bundle(bundle)),
    }];
    v1::to_proxy::Message::Batch(v1::Batch {
        id,
        set,
        ..v1::Batch::default()
    })
}

// Claims: trust-1a
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

// Claims: trust-1a
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

// Claims: trust-1a
#[tokio::test]
async fn certificate_of_dropped_root_is_replaced_at_once() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    // The stream stays: nothing but the roots says that its time is over.
    show(&bench, &new);
    accept_only(&bench, &new);
    let both = [new.roots(), old.roots()].concat();
    bench.send_message(bundle(1, bundle_of(&both))).await;
    bench
        .until(|bench| bench.control.roots.certificates() == both)
        .await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), 1, "its root is one of them");

    bench.send_message(bundle(2, bundle_of(&new.roots()))).await;
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

// Claims: trust-2
#[tokio::test]
async fn certificate_of_former_root_is_renewed_where_asked() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    *bench.stand_in.ca.lock() = Arc::clone(&new);
    let both = [new.roots(), old.roots()].concat();
    bench.send_message(bundle(1, bundle_of(&both))).await;
    bench
        .until(|bench| bench.control.roots.certificates() == both)
        .await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), 1, "the bundle does not ask for it");

    let asking = v1::Bundle {
        renew_within: 200,
        ..bundle_of(&both)
    };
    bench.send_message(bundle(2, asking)).await;
    bench.until(|bench| bench.holds_one_of(&new)).await;
    // At once, and not at the next look.
    let authority = bench.control.certs.current().unwrap().authority();
    let is_reported = |bench: &Bench| {
        let statuses = bench.stand_in.statuses.lock();
        let last = statuses.last().and_then(|last| last.certificate.as_ref());
        last.is_some_and(|last| last.authority == authority.as_bytes())
    };
    bench.until(is_reported).await;
    assert_eq!((bench.issued(), bench.streams()), (2, 1));
}

/// As where no replica ever has the first root.
#[tokio::test]
async fn replicas_that_lag_get_requests_ever_more_seldom() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    let serial = || bench.control.certs.current().unwrap().serial().to_owned();
    let asking = v1::Bundle {
        renew_within: 1,
        ..bundle_of(&[new.roots(), old.roots()].concat())
    };
    let mut last = serial();
    bench.send_message(bundle(1, asking)).await;
    for _ in 0..6 {
        bench.until(|_| serial() != last).await;
        last = serial();
        sleep(Duration::from_millis(100)).await;
        pass(FRESH_FOR).await;
    }
    bench.until(|_| serial() != last).await;
    let issued = bench.issued();
    pass(Duration::from_secs(10)).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), issued, "the wait is half a minute by now");
    *bench.stand_in.ca.lock() = Arc::clone(&new);
    pass(FRESH_FOR).await;
    bench.until(|bench| bench.holds_one_of(&new)).await;
}

/// A controller sends what a proxy does not hold.
#[tokio::test]
async fn bundle_is_not_held_where_other_roots_are_in_use() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    let of_old = bundle_of(&old.roots());
    bench.send_message(bundle(1, of_old)).await;
    let held = |bench: &Bench| -> Vec<bool> {
        let messages = bench.stand_in.messages.lock();
        let hellos = messages.iter().filter_map(|one| match &one.message {
            Some(v1::from_proxy::Message::Hello(hello)) => Some(hello),
            _ => None,
        });
        let held = hellos.map(|hello| hello.held.contains_key(wire::names::BUNDLE));
        held.collect()
    };
    bench
        .until(|bench| !bench.control.config.snapshot().roots.is_empty())
        .await;
    bench.connections.lock().abort_all();
    bench.until(|bench| held(bench).len() >= 2).await;
    assert_eq!(held(&bench)[..2], [false, true]);

    // The answer that brings the certificate brings its root too.
    bench.mount(&new);
    bench.becomes(&new);
    pass(FRESH_FOR).await;
    bench.until(|bench| held(bench).len() >= 3).await;
    assert_eq!(held(&bench)[..3], [false, true, false]);
}

// Claims: trust-4
#[tokio::test]
async fn stream_of_other_authority_is_opened_anew() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    let shown = show(&bench, &new);
    let both = [new.roots(), old.roots()].concat();
    let ending = |end_others| v1::Bundle {
        end_others,
        issuers: vec![shown.authority().as_bytes().to_vec()],
        ..bundle_of(&both)
    };
    bench.send_message(bundle(1, ending(false))).await;
    bench
        .until(|bench| bench.control.roots.certificates() == both)
        .await;
    bench.send_message(bundle(2, ending(true))).await;
    bench.until(|bench| bench.streams() == 2).await;
    // That of the new authority stays.
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.streams(), 2);
}
