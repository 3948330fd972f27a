//! Verifies that a peer has the expected identity.
//!
//! webpki builds the chain from a list of roots that can be replaced while connections run;
//! several roots are trusted at once while one replaces another. What a peer presents must be that
//! chain, in its order: so the second certificate is always the one that signed the first. The leaf
//! must carry exactly one SPIFFE id, of the trust domain that the roots are for. Host names are
//! never checked: addresses are reused by other pods, identities are not.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::name::SpiffeId;
use policy::well_known::BACKDATE;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OidRegistry;
use x509_parser::x509::X509Name;

mod authority_id;
mod error;
mod peer;
mod revoked;
mod roots;

pub use authority_id::AuthorityId;
pub use error::IdentityError;
pub(crate) use peer::is_pod_dns;
pub use peer::{PeerCertificate, PeerIdentity, pod_dns};
#[cfg(test)]
pub(crate) use roots::MAX_ROOTS;
pub use roots::{BadRoots, Roots};

/// Intermediates that a peer may send. Ours send one; a user's own authority may
/// add some.
pub(crate) const MAX_INTERMEDIATES: usize = 4;

static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
});

/// The side that a certificate is used on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Server,
    Client,
}

/// The identity in a chain that rustls has verified already (the peer's
/// certificates of an open connection).
///
/// # Errors
/// When there is no certificate, it carries no usable identity, or what signed it is missing.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Result<PeerIdentity, IdentityError> {
    let leaf = parse(chain.first().ok_or(IdentityError::NoCertificate)?)?;
    identity_in(&leaf, chain.get(1))
}

fn identity_in(
    leaf: &X509Certificate<'_>,
    signer: Option<&CertificateDer<'_>>,
) -> Result<PeerIdentity, IdentityError> {
    let (spiffe, pod_dns) = names_of(leaf)?;
    let signer = parse(signer.ok_or(NOT_IN_ORDER)?)?;
    let (not_before, not_after) = validity(leaf);
    Ok(PeerIdentity {
        spiffe,
        pod_dns,
        certificate: Arc::new(PeerCertificate {
            authority: AuthorityId::of(&signer),
            serial: leaf.raw_serial().into(),
            issued: not_before + BACKDATE,
            not_after,
        }),
    })
}

/// When a certificate begins and ends, in seconds since 1970; none where it cannot be read.
#[must_use]
pub fn valid_between(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let certificate = parse(certificate).ok()?;
    let validity = certificate.validity();
    Some((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

/// Checks a chain, leaf first, at `now`: trust domain, authority, time, purpose,
/// identity, and that it is not revoked.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify_chain(
    roots: &Roots,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
    purpose: Purpose,
) -> Result<PeerIdentity, IdentityError> {
    let (leaf, intermediates) = chain.split_first().ok_or(IdentityError::NoCertificate)?;
    verify(roots, leaf, intermediates, now, purpose)?;
    peer_identity(chain)
}

/// Checks a serving certificate as a client does that does not know SPIFFE and
/// calls its bearer by each of these names.
pub(crate) fn verify_serving(
    roots: &Roots,
    chain: &[CertificateDer<'_>],
    dns_names: &[impl AsRef<str>],
    now: UnixTime,
) -> Result<(), IdentityError> {
    let (leaf, intermediates) = chain.split_first().ok_or(IdentityError::NoCertificate)?;
    let trusted = roots.current();
    let leaf = EndEntityCert::try_from(leaf)?;
    leaf.verify_for_usage(
        ALGORITHMS.all,
        trusted.anchors(),
        intermediates,
        now,
        KeyUsage::server_auth(),
        None,
        None,
    )?;
    for name in dns_names {
        let name = ServerName::try_from(name.as_ref())
            .map_err(|_| IdentityError::Malformed("a name that is not DNS"))?;
        leaf.verify_is_valid_for_subject_name(&name)?;
    }
    Ok(())
}

fn verify(
    roots: &Roots,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    purpose: Purpose,
) -> Result<SpiffeId, IdentityError> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(IdentityError::Malformed("more certificates than allowed"));
    }
    let usage = match purpose {
        Purpose::Server => KeyUsage::server_auth(),
        Purpose::Client => KeyUsage::client_auth(),
    };
    let parsed = parse(leaf)?;
    let names = names_of(&parsed);
    // Before the chain: no signature makes an identity of another trust domain ours.
    if let Ok((spiffe, _)) = &names
        && spiffe.trust_domain() != roots.trust_domain()
    {
        return Err(IdentityError::UnknownTrustDomain {
            trusted: roots.trust_domain().to_owned(),
            presented: spiffe.clone(),
        });
    }
    let trusted = roots.current();
    let out_of_order = Cell::new(false);
    let in_order = |path: &VerifiedPath<'_>| match is_in_order(intermediates, path) {
        true => Ok(()),
        // There may be another path.
        false => {
            out_of_order.set(true);
            Err(webpki::Error::UnknownIssuer)
        }
    };
    EndEntityCert::try_from(leaf)
        .map_err(IdentityError::from)?
        .verify_for_usage(
            ALGORITHMS.all,
            trusted.anchors(),
            intermediates,
            now,
            usage,
            None,
            Some(&in_order),
        )
        .map_err(|error| match out_of_order.get() {
            true => NOT_IN_ORDER,
            false => error.into(),
        })?;
    names_a_purpose(&parsed)?;
    let (spiffe, _) = names?;
    // What signed the leaf is presented behind it, as the path is in order.
    let presented = || identity_in(&parsed, intermediates.first());
    roots.revoked.check(presented)?;
    Ok(spiffe)
}

/// Why a chain is refused that holds a path to a root and is not one.
const NOT_IN_ORDER: IdentityError =
    IdentityError::Malformed("the chain is not the path to its root, in order");

/// Whether what a peer presents behind its leaf is this path and nothing else. Its authority may
/// be a root itself; so the root may end the chain, in any certificate of its name and key. What
/// signed the leaf is never missing, since nothing else shows it later.
fn is_in_order(presented: &[CertificateDer<'_>], path: &VerifiedPath<'_>) -> bool {
    let mut rest = presented.iter();
    let mut used = path.intermediate_certificates();
    if !used.all(|used| rest.next().is_some_and(|next| **next == *used.der())) {
        return false;
    }
    match rest.as_slice() {
        [] => !presented.is_empty(),
        [last] => webpki::anchor_from_trusted_cert(last).is_ok_and(|last| {
            let root = path.anchor();
            last.subject == root.subject
                && last.subject_public_key_info == root.subject_public_key_info
        }),
        _ => false,
    }
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    match x509_parser::parse_x509_certificate(leaf) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(IdentityError::Malformed("not an X.509 certificate")),
    }
}

/// webpki has checked that a purpose which is named fits, but it accepts a leaf
/// that names none; the mesh does not.
fn names_a_purpose(leaf: &X509Certificate<'_>) -> Result<(), IdentityError> {
    match leaf.extended_key_usage() {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(IdentityError::WrongPurpose),
        Err(_) => Err(IdentityError::Malformed("extended key usage")),
    }
}

/// A peer proves itself by a signature of its key in the handshake, so that must be what the
/// key is for, and nothing that only an authority signs (X509-SVID, 4.3). TLS libraries look at
/// none of this. A certificate that does not limit its key may do so.
fn proves_by_signing(leaf: &X509Certificate<'_>) -> Result<(), IdentityError> {
    let usage = leaf
        .key_usage()
        .map_err(|_| IdentityError::Malformed("key usage"))?;
    let Some(usage) = usage.map(|usage| usage.value) else {
        return Ok(());
    };
    let wrong = if usage.key_cert_sign() {
        "the key may sign certificates"
    } else if usage.crl_sign() {
        "the key may sign lists of revoked certificates"
    } else if !usage.digital_signature() {
        "the key may not sign a handshake"
    } else {
        return Ok(());
    };
    Err(IdentityError::NoIdentity(wrong))
}

/// Exactly one URI name, a SPIFFE id; at most one DNS name, a pod's; no name of
/// any other kind; no authority.
fn names_of(leaf: &X509Certificate<'_>) -> Result<(SpiffeId, Option<Box<str>>), IdentityError> {
    if leaf.is_ca() {
        return Err(IdentityError::NoIdentity(
            "the certificate is an authority's",
        ));
    }
    proves_by_signing(leaf)?;
    let names = leaf
        .subject_alternative_name()
        .map_err(|_| IdentityError::Malformed("alternative names"))?
        .ok_or(IdentityError::NoIdentity("no alternative name"))?;
    let mut spiffe = None;
    let mut pod_dns = None;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) if spiffe.is_none() => {
                let id = SpiffeId::try_from(*uri)
                    .map_err(|_| IdentityError::NoIdentity("the URI name is not a SPIFFE id"))?;
                spiffe = Some(id);
            }
            GeneralName::URI(_) => {
                return Err(IdentityError::NoIdentity("more than one URI name"));
            }
            GeneralName::DNSName(dns) if pod_dns.is_none() && is_pod_dns(dns) => {
                pod_dns = Some(Box::from(*dns));
            }
            _ => return Err(IdentityError::NoIdentity("a name that is not the mesh's")),
        }
    }
    let spiffe = spiffe.ok_or(IdentityError::NoIdentity("no URI name"))?;
    Ok((spiffe, pod_dns))
}

/// The signer, as people write it: `CN=weft, O=Shop`. Attributes without one of the short
/// well-known names are written by their number. The library's own registry has
/// names for those, and for every algorithm, in tables that it would keep for good.
pub(crate) fn issuer_name(certificate: &X509Certificate<'_>) -> String {
    written(certificate.issuer())
}

/// The certificate's own name, alike.
pub(crate) fn subject_name(certificate: &X509Certificate<'_>) -> String {
    written(certificate.subject())
}

fn written(name: &X509Name<'_>) -> String {
    let nothing_more = OidRegistry::default();
    let name = name.to_string_with_registry(&nothing_more);
    name.unwrap_or_else(|_| "a name that is not text".to_owned())
}

/// When a certificate ends; none where it cannot be read.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    Some(validity(&parse(certificate).ok()?).1)
}

/// NotBefore and NotAfter.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let at = |seconds: i64| {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        }
        .unwrap_or(UNIX_EPOCH)
    };
    let validity = certificate.validity();
    (
        at(validity.not_before.timestamp()),
        at(validity.not_after.timestamp()),
    )
}

/// The client's view: the server must be exactly `expected`.
pub(crate) struct ServerVerifier {
    pub(crate) roots: Roots,
    pub(crate) expected: SpiffeId,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

/// What both verifiers say of signatures: TLS 1.3 and [`leaf_schemes`], nothing else.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(tls13_only())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, cert, dss, &ALGORITHMS)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            leaf_schemes()
        }
    };
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = verify(&self.roots, end_entity, intermediates, now, Purpose::Server)?;
        if presented == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(IdentityError::WrongIdentity {
                expected: self.expected.clone(),
                presented,
            }
            .into())
        }
    }

    signatures!();
}

/// The server's view: any identity of the trust domain; policy judges it later.
pub(crate) struct ClientVerifier {
    pub(crate) roots: Roots,
    pub(crate) mandatory: bool,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("mandatory", &self.mandatory)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// No hints: roots change while this verifier lives, and clients have one
    /// certificate anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        verify(&self.roots, end_entity, intermediates, now, Purpose::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

/// Leaves are P-256 and nothing else, whatever signed them.
fn leaf_schemes() -> Vec<SignatureScheme> {
    vec![SignatureScheme::ECDSA_NISTP256_SHA256]
}

fn tls13_only() -> rustls::Error {
    rustls::Error::General("the mesh speaks TLS 1.3 only".to_owned())
}

#[cfg(test)]
mod tests;
