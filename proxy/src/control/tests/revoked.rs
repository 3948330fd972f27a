//! What a proxy does whose own certificate is revoked.

use policy::origin::Origin;
use policy::revoked::{PeerFacts, Revocation, Subject};
use runtime::ready::Ready;
use wire::convert::revocations_message;

use super::*;
use crate::control::revoked::follow_revocation;

fn web() -> Subject {
    Subject::ServiceAccount {
        namespace: "shop".into(),
        name: "web".into(),
    }
}

fn revocation(subject: Subject) -> Revocation {
    Revocation {
        subject,
        issued_before: None,
        announced: false,
        by: Origin::new("Revocation", "", "incident-42"),
    }
}

/// The batch of this number, which brings what is revoked.
fn batch(id: u64, revocation: &Revocation) -> v1::to_proxy::Message {
    let message = revocations_message([revocation]);
    let set = vec![v1::Resource {
        name: wire::names::REVOCATIONS.to_owned(),
        version: id.to_string(),
        content: Some(v1::resource::Content::Revocations(message)),
    }];
    v1::to_proxy::Message::Batch(v1::Batch {
        id,
        set,
        ..v1::Batch::default()
    })
}

fn lifted(id: u64) -> v1::to_proxy::Message {
    v1::to_proxy::Message::Batch(v1::Batch {
        id,
        remove: vec![wire::names::REVOCATIONS.to_owned()],
        ..v1::Batch::default()
    })
}

#[tokio::test]
async fn certificate_revoked_by_serial_is_replaced_at_once() {
    let bench = Bench::start(&Ca::new()).await;
    let leaf = bench.control.certs.current().unwrap();
    let serial = leaf.identity().certificate.serial.clone();
    let revocation = revocation(Subject::Serial(serial));
    bench.send_message(batch(1, &revocation)).await;
    bench.until(|bench| bench.issued() == 2).await;
    let is_good = |bench: &Bench| bench.control.config.own_revoked().is_none();
    bench.until(is_good).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!((bench.issued(), bench.streams()), (2, 1));
}

/// It was down when the Revocation came.
#[tokio::test]
async fn stream_refused_as_revoked_brings_another_certificate() {
    let bench = Bench::start(&Ca::new()).await;
    refuse(&bench, "the certificate names no pod").await;
    bench.until(|bench| bench.streams() == 2).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), 1, "another reason");
    refuse(&bench, REFUSAL).await;
    bench.until(|bench| bench.issued() == 2).await;
    bench.until(|bench| bench.streams() == 3).await;
    assert_eq!(bench.control.config.own_revoked(), None);
}

/// It was down when the Revocation came, and no other certificate is issued.
#[tokio::test]
async fn pod_denied_stream_and_certificate_is_unready_until_lifted() {
    let bench = Bench::start(&Ca::new()).await;
    let (ready, config) = (Ready::new(), Arc::clone(&bench.control.config));
    let (_certified, seen) = watch::channel(true);
    tokio::spawn(follow_revocation(ready.clone(), config, seen));
    let older = revocation(Subject::Serial([1, 2].into()));
    bench.send_message(batch(1, &older)).await;
    bench
        .until(|bench| bench.control.config.revocations().is_some())
        .await;
    let denial = "Revocation incident-42 revokes pod shop/web-1: no certificate is issued until it";
    *bench.stand_in.denial.lock() = Some(denial);
    refuse(&bench, REFUSAL).await;
    bench.until(|bench| bench.streams() == 2).await;
    sleep(Duration::from_millis(300)).await;
    assert!(ready.is_ready(), "another certificate may come");
    refuse(&bench, REFUSAL).await;
    bench.until(|_| !ready.is_ready()).await;
    let config = &bench.control.config;
    let own = config.own_revoked().unwrap();
    assert_eq!(own.name().as_ref(), "incident-42");
    let others = config.revocations().unwrap();
    let leaf = bench.control.certs.current().unwrap();
    let other = PeerFacts {
        serial: &[1, 2],
        ..leaf.identity().facts()
    };
    assert!(others.revoked(&other).is_some(), "those of others stay");

    bench.until(|bench| bench.streams() == 3).await;
    let full = v1::Batch {
        id: 1,
        full: true,
        ..v1::Batch::default()
    };
    bench.send_message(v1::to_proxy::Message::Batch(full)).await;
    bench.until(|_| ready.is_ready()).await;
    assert_eq!(bench.control.config.revocations(), None);
}

const REFUSAL: &str = "the certificate is revoked by Revocation incident-42";

/// Ends the proxy's stream.
async fn refuse(bench: &Bench, message: &str) {
    let proxy = bench.stand_in.proxy.lock().clone().unwrap();
    let refused = Status::permission_denied(message);
    proxy.send(Err(refused)).await.unwrap();
}

#[tokio::test]
async fn announced_revocation_renews_before_it_is_in_force() {
    let bench = Bench::start(&Ca::new()).await;
    let config = &bench.control.config;
    let leaf = bench.control.certs.current().unwrap();
    let issued = leaf.identity().certificate.issued;
    let revocation = Revocation {
        issued_before: Some(issued + Duration::from_secs(1)),
        announced: true,
        ..revocation(web())
    };
    bench.send_message(batch(1, &revocation)).await;
    bench.until(|_| config.revocations().is_some()).await;
    // Certificates count in seconds: the next one may be as old.
    let is_newer = |bench: &Bench| {
        assert_eq!(config.own_revoked(), None, "nothing is refused yet");
        bench.issued() > 1 && !config.own_is_outdated()
    };
    bench.until(is_newer).await;
    let in_force = Revocation {
        announced: false,
        ..revocation
    };
    let certificates = bench.issued();
    bench.send_message(batch(2, &in_force)).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(config.own_revoked(), None);
    assert_eq!(bench.issued(), certificates);
}

#[tokio::test]
async fn pod_revoked_for_good_is_unready_until_lifted() {
    let bench = Bench::start(&Ca::new()).await;
    let (ready, config) = (Ready::new(), Arc::clone(&bench.control.config));
    let (_certified, seen) = watch::channel(true);
    tokio::spawn(follow_revocation(ready.clone(), config, seen));
    bench.send_message(batch(1, &revocation(web()))).await;
    bench.until(|_| !ready.is_ready()).await;
    assert_eq!(ready.waiting(), ["a certificate that is not revoked"]);
    pass(FRESH_FOR).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), 1, "no other one would do");
    bench.send_message(lifted(2)).await;
    bench.until(|_| ready.is_ready()).await;
}
