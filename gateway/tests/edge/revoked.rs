//! Identities that are revoked: those of called pods, and the Gateway's own.

use policy::origin::Origin;
use policy::revoked::{Revocation, Subject};
use wire::convert::revocations_message;
use wire::names::REVOCATIONS;
use wire::v1;

use super::harness::{ACCOUNT, Edge, all};
use crate::support::resource;

/// All certificates of an account, for good.
fn revoked(account: &str) -> v1::Resource {
    let revocation = Revocation {
        subject: Subject::ServiceAccount {
            namespace: "shop".into(),
            name: account.into(),
        },
        issued_before: None,
        announced: false,
        by: Origin::new("Revocation", "", "incident-42"),
    };
    let message = revocations_message([&revocation]);
    resource(REVOCATIONS, v1::resource::Content::Revocations(message))
}

/// Also by a connection that stands: nothing is waited for between the batch and the request.
async fn is_refused(account: &str) {
    let edge = Edge::ruled(all()).await;
    assert_eq!(edge.get("web.example", "/").await.0, 200);
    edge.pod.set(vec![revoked(account)]);
    let (status, answer) = edge.get("web.example", "/").await;
    assert_eq!(status, 403, "{account}: {answer}");
    assert!(answer.contains("weft-reason: revoked\r\n"), "{answer}");
    // A client outside learns no name of what lies inside.
    assert!(answer.ends_with("weft: revoked\n"), "{answer}");

    edge.pod.replace(REVOCATIONS, Vec::new());
    let (status, answer) = edge.get("web.example", "/").await;
    assert_eq!(status, 200, "{account}: {answer}");
}

#[tokio::test]
async fn revoked_pod_gets_no_call_until_lifted() {
    is_refused("api").await;
}

#[tokio::test]
async fn revoked_gateway_calls_no_pod_until_lifted() {
    is_refused(ACCOUNT).await;
}
