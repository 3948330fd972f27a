//! Reads a certificate and its key out of a Secret, and checks that they belong together.
//!
//! No message has anything of what the Secret holds.

use std::sync::Arc;

use identity::verify::valid_between;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use model::world::ObjectKey;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use wire::v1;
use zeroize::Zeroizing;

const CERTIFICATES: &str = "tls.crt";
const KEY: &str = "tls.key";
/// Certificates of a chain. Public authorities send two or three.
const MAX_CHAIN: usize = 10;
/// Bytes of a chain. One of three has about 4 KiB.
const MAX_BYTES: usize = 64 * 1024;
/// Seconds by which the clock of what issues certificates may be ahead of ours.
const CLOCK_DIFFERENCE: i64 = 5 * 60;

/// What can be served of a Secret.
pub(super) struct Certificate {
    pub(super) content: v1::ListenerCertificate,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// The same.
    pub(super) not_after: i64,
    /// Of the chain.
    pub(super) fingerprint: Arc<str>,
}

opaque_debug!(Certificate);

/// Takes the certificate and its key out of a Secret.
///
/// # Errors
/// Why it cannot be served, and the way out.
pub(super) fn read(name: &ObjectKey, secret: Secret) -> Result<Certificate, String> {
    let mut data = secret.data.unwrap_or_default();
    let key = data.remove(KEY).map(|ByteString(pem)| Zeroizing::new(pem));
    let chain = data.remove(CERTIFICATES);
    // Whatever else lies in it is no business of the mesh.
    for ByteString(other) in data.into_values() {
        drop(Zeroizing::new(other));
    }
    let lacks = |field: &str, what: &str| {
        format!("Secret {name}: {field} is missing: put {what} in PEM there")
    };
    let ByteString(chain) = chain.ok_or_else(|| lacks(CERTIFICATES, "the certificate"))?;
    let key = key.ok_or_else(|| lacks(KEY, "the private key"))?;
    let chain = certificates(name, &chain)?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| format!("Secret {name}: {KEY} is no private key in PEM: replace it"))?;
    let content = v1::ListenerCertificate {
        chain: chain.iter().map(|one| one.to_vec()).collect(),
        key: key.secret_der().to_vec(),
    };
    let mut digest = Sha256::new();
    chain.iter().for_each(|one| digest.update(one));
    let fingerprint: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let lifetime = chain.first().and_then(valid_between);
    let (not_before, not_after) = lifetime.ok_or_else(|| {
        format!("Secret {name}: the first certificate of {CERTIFICATES} cannot be read: replace it")
    })?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| {
        let why = match error {
            rustls::Error::InconsistentKeys(_) => {
                "is of another certificate than tls.crt: replace it with the certificate's own"
            }
            _ => {
                "is of a kind that no proxy can use: replace certificate and key with ones of RSA \
                 (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519"
            }
        };
        format!("Secret {name}: {KEY} {why}")
    })?;
    Ok(Certificate {
        content,
        not_before,
        not_after,
        fingerprint: fingerprint.into(),
    })
}

/// Why a certificate that begins and ends then is not valid now, and the way out; none where it is.
pub(super) fn invalid_at(
    name: &ObjectKey,
    (not_before, not_after): (i64, i64),
    now: Timestamp,
) -> Option<String> {
    let seconds = now.as_second();
    let (verb, since, way_out) = if seconds > not_after {
        ("ended", not_after, "put a newer one there")
    } else if not_before.saturating_sub(seconds) > CLOCK_DIFFERENCE {
        let way_out = "put one there that is valid now, or set the clocks right";
        ("begins", not_before, way_out)
    } else {
        return None;
    };
    let at = Timestamp::from_second(since).map_or_else(
        |_| format!("second {since}"),
        |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    );
    Some(format!(
        "Secret {name}: the certificate of {CERTIFICATES} {verb} on {at}: {way_out}"
    ))
}

fn certificates(name: &ObjectKey, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(pem).collect();
    let all = all.unwrap_or_default();
    if all.is_empty() {
        return Err(format!(
            "Secret {name}: {CERTIFICATES} holds no certificate in PEM: replace it"
        ));
    }
    let bytes: usize = all.iter().map(|one| one.len()).sum();
    if all.len() > MAX_CHAIN || bytes > MAX_BYTES {
        return Err(format!(
            "Secret {name}: {CERTIFICATES} holds more than {MAX_CHAIN} certificates or 64 KiB: \
             leave the certificate and its intermediates"
        ));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pem() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn read_of(entries: &[(&str, &str)]) -> Result<Certificate, String> {
        let bytes = |(name, text): &(&str, &str)| {
            let bytes = ByteString(text.as_bytes().to_vec());
            ((*name).to_owned(), bytes)
        };
        let data: BTreeMap<String, ByteString> = entries.iter().map(bytes).collect();
        let secret = Secret {
            data: Some(data),
            ..Secret::default()
        };
        read(&ObjectKey::new("edge", "shop-tls"), secret)
    }

    #[test]
    fn certificate_with_its_key_can_be_served() {
        let (chain, key) = pem();
        let read = read_of(&[(CERTIFICATES, &chain), (KEY, &key), ("ca.crt", "x")]).unwrap();
        assert_eq!(read.content.chain.len(), 1);
        assert!(!read.content.key.is_empty());
        assert!(read.not_after > 1_700_000_000, "{}", read.not_after);
        assert_eq!(read.fingerprint.len(), 64);
        let other = pem();
        let again = read_of(&[(CERTIFICATES, &other.0), (KEY, &other.1)]).unwrap();
        assert_ne!(read.fingerprint, again.fingerprint);
    }

    #[test]
    fn certificate_is_invalid_outside_of_its_time() {
        let secret = ObjectKey::new("edge", "shop-tls");
        let (begin, end) = (1_800_000_000, 1_800_086_400);
        let at = |seconds: i64| {
            let now = Timestamp::from_second(seconds).unwrap();
            invalid_at(&secret, (begin, end), now)
        };
        for seconds in [begin - CLOCK_DIFFERENCE, begin, end] {
            assert_eq!(at(seconds), None, "{seconds}");
        }
        let why = at(end + 1).unwrap();
        assert!(why.contains("edge/shop-tls: the certificate"), "{why}");
        assert!(why.contains("ended on 2027-01-16 08:00 UTC: put"), "{why}");
        let why = at(begin - CLOCK_DIFFERENCE - 1).unwrap();
        assert!(why.contains("begins on 2027-01-15 08:00 UTC"), "{why}");
    }

    #[test]
    fn what_cannot_be_served_is_named_without_content() {
        let ((chain, key), (_, other)) = (pem(), pem());
        let long = chain.repeat(MAX_CHAIN + 1);
        let unknown = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for (entries, expected) in [
            (vec![(KEY, key.as_str())], "tls.crt is missing"),
            (vec![(CERTIFICATES, chain.as_str())], "tls.key is missing"),
            (
                vec![(CERTIFICATES, "secret-text"), (KEY, key.as_str())],
                "no certificate",
            ),
            (
                vec![(CERTIFICATES, chain.as_str()), (KEY, "secret-text")],
                "no private key",
            ),
            (
                vec![(CERTIFICATES, chain.as_str()), (KEY, other.as_str())],
                "another certificate",
            ),
            (
                vec![(CERTIFICATES, chain.as_str()), (KEY, unknown)],
                "RSA (2048 to 8192 bits)",
            ),
            (
                vec![(CERTIFICATES, long.as_str()), (KEY, key.as_str())],
                "more than 10",
            ),
        ] {
            let why = read_of(&entries).unwrap_err();
            assert!(
                why.contains(expected) && why.contains("edge/shop-tls"),
                "{why}"
            );
            assert!(
                !why.contains("secret-text") && !why.contains("BEGIN"),
                "{why}"
            );
        }
    }
}
