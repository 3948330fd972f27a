//! The authority of the webhooks, over a scripted API server.

use std::time::{Duration, SystemTime};

use fake_api::FakeApi;

use super::*;

const PATH: &str = "/api/v1/namespaces/weft-system/secrets/weft-injector-ca";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn store(api: &FakeApi) -> Store {
    Store::new(api.client(), "weft-system")
}

fn certificates(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test]
async fn first_replica_creates_authority_and_others_adopt_it() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let first = store(&api).authority(now).await.unwrap();
    let second = store(&api).authority(now).await.unwrap();
    assert!(first.changed);
    assert!(!second.changed);
    assert_eq!(first.authority.bundle(), second.authority.bundle());
    assert_eq!(certificates(&first.authority.bundle()), 1);
}

#[tokio::test]
async fn replicas_that_start_together_end_with_one_authority() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let replicas: Vec<Store> = (0..5).map(|_| store(&api)).collect();
    let found = futures::future::join_all(replicas.iter().map(|s| s.authority(now))).await;
    let bundles: Vec<String> = found
        .into_iter()
        .map(|f| f.unwrap().authority.bundle())
        .collect();
    assert!(bundles.iter().all(|bundle| *bundle == bundles[0]));
}

#[tokio::test]
async fn next_authority_is_trusted_for_overlap_before_signing() {
    let api = FakeApi::default();
    let store = store(&api);
    let start = SystemTime::now();
    let old = store.authority(start).await.unwrap().authority;
    let still = store.authority(start + 240 * DAY).await.unwrap();
    assert!(!still.changed, "nothing before two thirds of its life");

    let prepared_at = start + 244 * DAY;
    let prepared = store.authority(prepared_at).await.unwrap();
    assert!(prepared.changed);
    assert_eq!(
        prepared.authority.current.cert_pem(),
        old.current.cert_pem(),
        "the old one signs"
    );
    let both = prepared.authority.bundle();
    assert_eq!(certificates(&both), 2);

    let early = store
        .authority(prepared_at + OVERLAP - Duration::from_secs(60))
        .await
        .unwrap();
    assert!(!early.changed);
    let promoted = store
        .authority(prepared_at + OVERLAP + Duration::from_secs(1))
        .await
        .unwrap();
    assert!(promoted.changed);
    let signer = promoted.authority.current.cert_pem();
    assert_ne!(signer, old.current.cert_pem());
    assert!(
        both.contains(signer.trim()),
        "it was trusted before it signed"
    );
    assert!(
        promoted
            .authority
            .bundle()
            .contains(old.current.cert_pem().trim())
    );

    let later = store.authority(prepared_at + 2 * OVERLAP).await.unwrap();
    assert!(!later.changed, "the rotation is over");
}

#[tokio::test]
async fn authority_that_ended_or_was_damaged_is_made_anew() {
    let api = FakeApi::default();
    let store = store(&api);
    let start = SystemTime::now();
    store.authority(start).await.unwrap();
    let late = store.authority(start + 400 * DAY).await.unwrap();
    assert!(late.authority.current.not_after() > start + 700 * DAY);

    api.put(
        PATH,
        serde_json::json!({ "metadata": { "name": "weft-injector-ca" }, "data": {} }),
    );
    let anew = store.authority(start).await.unwrap();
    assert!(anew.changed);
    assert_eq!(certificates(&anew.authority.bundle()), 1);
}

// Claims: attack-86
#[tokio::test]
async fn fast_clock_authority_is_replaced_but_trusted_until_expiry() {
    let api = FakeApi::default();
    let store = store(&api);
    let now = SystemTime::now();
    let ahead = now + Duration::from_secs(8 * 60 * 60);
    let old = store.authority(ahead).await.unwrap().authority;

    let new = store.authority(now).await.unwrap();
    assert!(new.changed);
    let names = ["weft-injector.weft-system.svc"];
    let signed = new.authority.current.serving(&names, now, DAY);
    assert!(signed.is_ok(), "{signed:?}");
    // A replica whose clock is still ahead goes on serving by the old one.
    let bundle = new.authority.bundle();
    assert!(bundle.contains(old.current.cert_pem().trim()));
    assert_eq!(certificates(&bundle), 2);
    assert!(!store.authority(ahead).await.unwrap().changed);

    // A clock that is off by less than the backdating changes nothing.
    let behind = store.authority(now - Duration::from_secs(120)).await;
    assert!(!behind.unwrap().changed);
}

#[tokio::test]
async fn failing_api_server_is_error_without_new_authority() {
    let api = FakeApi::default();
    api.break_down();
    let error = store(&api).authority(SystemTime::now()).await.unwrap_err();
    assert!(matches!(error, AuthorityError::Api(_)));
}
