//! What Revocations keep from getting certificates, and how those of the healthy are dated.

use std::time::UNIX_EPOCH;

use model::fixtures::{revocation, shop};
use model::{Defaults, Model};
use serde_json::{Value, json};

use super::*;

/// Puts this in force on the cluster.
fn revoke(bench: &Bench, spec: Value) {
    let world = shop().with(revocation("leak", spec)).world();
    let (model, _) = Model::compile(&world, &Defaults::default());
    *bench.cluster.revocations.lock() = Arc::clone(&model.index.revocations);
}

fn issued(answer: v1::CertifyResponse) -> SystemTime {
    let chain = answer.chain.into_iter();
    let chain: Vec<_> = chain.map(rustls::pki_types::CertificateDer::from).collect();
    peer_identity(&chain).unwrap().certificate.issued
}

/// The pod of the token `good` runs on node-z, as the API server's review says.
fn reviewed_on_node_z(bench: &Bench) {
    let mut reviews = bench.cluster.reviews.lock();
    let review = reviews.get_mut("good").unwrap();
    let node = vec!["node-z".to_owned()];
    review.extra.insert(NODE_NAME.to_owned(), node);
}

#[tokio::test]
async fn revoked_account_pod_or_node_gets_no_certificate() {
    for subject in [
        json!({"serviceAccount": {"namespace": "shop", "name": "web"}}),
        json!({"pod": {"namespace": "shop", "name": "web-0", "uid": "uid-0"}}),
        json!({"node": {"name": "node-z"}}),
    ] {
        let bench = Bench::new();
        reviewed_on_node_z(&bench);
        revoke(&bench, json!({"reason": "test", "subjects": [subject]}));
        let (code, outcome) = (tonic::Code::PermissionDenied, CertifyResult::Revoked);
        bench.must_refuse("good", code, outcome).await;
        let refused = bench.fetch("good").await.unwrap_err();
        let message = refused.message();
        assert!(
            message.starts_with("Revocation leak revokes pod shop/web-0"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn pod_of_revoked_serial_or_issuer_gets_new_certificate() {
    let issuer = format!("sha256:{}", "0".repeat(32));
    for subject in [
        json!({"certificate": {"serial": "5f3a90"}}),
        json!({"issuer": {"fingerprint": issuer}}),
    ] {
        let bench = Bench::new();
        revoke(&bench, json!({"reason": "test", "subjects": [subject]}));
        assert!(bench.fetch("good").await.is_ok());
    }
}

/// Whatever the clock of this replica has.
#[tokio::test]
async fn healthy_certificate_is_dated_after_the_revocation() {
    let bench = Bench::new();
    let account = json!({"serviceAccount": {"namespace": "shop", "name": "web"}});
    // Objects without a time of creation are not bound to it.
    let ahead = SystemTime::now() + Duration::from_secs(120);
    let ahead = ahead.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = k8s_openapi::jiff::Timestamp::from_second(i64::try_from(ahead).unwrap());
    let spec = json!({"reason": "test", "subjects": [account],
        "issuedBefore": before.unwrap().to_string()});
    let mut object = revocation("leak", spec);
    object["metadata"]["creationTimestamp"] = Value::Null;
    let world = shop().with(object).world();
    let (model, _) = Model::compile(&world, &Defaults::default());
    *bench.cluster.revocations.lock() = Arc::clone(&model.index.revocations);
    let answer = bench.fetch("good").await.unwrap();
    assert!(issued(answer) >= UNIX_EPOCH + Duration::from_secs(ahead));
}
