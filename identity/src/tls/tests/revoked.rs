//! Handshakes with certificates that are revoked.

use policy::origin::Origin;
use policy::revoked::{Revocation, Revocations, Subject};

use super::*;

fn revoking(subject: Subject, issued_before: Option<SystemTime>) -> Option<Arc<Revocations>> {
    let revocation = Revocation {
        subject,
        issued_before,
        announced: false,
        by: Origin::new("Revocation", "", "incident-42"),
    };
    Some(Arc::new(Revocations::of([revocation])))
}

fn shop(name: &str) -> Subject {
    Subject::ServiceAccount {
        namespace: "shop".into(),
        name: name.into(),
    }
}

#[tokio::test]
async fn revoked_caller_is_refused_and_gets_the_alert() {
    let pair = Pair::new();
    let leaf = pair.client.current().unwrap();
    let serial = leaf.identity().certificate.serial.clone();
    for subject in [shop("client"), Subject::Serial(serial)] {
        pair.roots.revoke(revoking(subject, None));
        let (client, server) = shake(pair.client(), pair.server(ClientAuth::Required)).await;
        assert_eq!(identity_error(server), IdentityError::Revoked { by: None });
        assert_eq!(alert(client), AlertDescription::CertificateRevoked);
    }
    pair.roots.revoke(None);
    let (client, server) = shake(pair.client(), pair.server(ClientAuth::Required)).await;
    assert!(client.is_ok() && server.is_ok());
}

#[tokio::test]
async fn revoked_server_is_refused_by_its_caller() {
    let pair = Pair::new();
    let leaf = pair.server.current().unwrap();
    let identity = leaf.identity();
    let subjects = [
        shop("server"),
        Subject::Pod {
            uid: identity.pod_uid().unwrap().into(),
        },
        Subject::Issuer(*identity.certificate.authority.as_bytes()),
    ];
    for subject in subjects {
        pair.roots.revoke(revoking(subject, None));
        let (client, server) = shake(pair.client(), pair.server(ClientAuth::Required)).await;
        assert_eq!(identity_error(client), IdentityError::Revoked { by: None });
        assert_eq!(alert(server), AlertDescription::CertificateRevoked);
    }
}

#[test]
fn certificate_older_than_its_revocation_is_refused_by_name() {
    let pair = Pair::new();
    let (leaf, now) = (pair.client.current().unwrap(), SystemTime::now());
    let issued = leaf.identity().certificate.issued;
    pair.roots.revoke(revoking(shop("client"), Some(issued)));
    assert_eq!(leaf.accepted_by(&pair.roots, now), Ok(()));
    let later = issued + Duration::from_secs(1);
    pair.roots.revoke(revoking(shop("client"), Some(later)));
    let refused = leaf.accepted_by(&pair.roots, now).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the certificate is revoked by Revocation incident-42"
    );
    assert_eq!(refused.label(), "revoked");
    // Roots of the same certificates that are not in use refuse nothing.
    let others = pair.authority.roots();
    assert_eq!(leaf.accepted_by(&others, now), Ok(()));
}
