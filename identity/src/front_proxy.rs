//! The TLS configuration of a server that the API server calls on behalf of users.
//!
//! The API server proves itself with a certificate of the cluster's own authority, which has
//! nothing to do with the mesh: it is checked by the usual rules of TLS, and the server evaluates
//! the name in it.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::tls::{H2_ALPN, HTTP1_ALPN, PROVIDER, ServingHandle, server_config};

/// Certificates that are read from one bundle of authorities.
const MAX_AUTHORITIES: usize = 64;

/// Why a bundle of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadAuthorities {
    #[error("it is not PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("it holds more than {MAX_AUTHORITIES} certificates")]
    TooMany,
    #[error("it holds no certificate that can be trusted")]
    Empty,
    #[error("its certificates cannot be used to verify callers")]
    Unusable(#[source] rustls::server::VerifierBuilderError),
}

/// A server known by DNS names, whose callers may show a certificate of one of
/// the authorities in `pem`. Without one they are let in and have no name; with
/// one of another authority the handshake fails.
///
/// # Errors
/// When `pem` holds no usable authority.
pub fn front_server_config(
    serving: &ServingHandle,
    pem: &str,
) -> Result<Arc<ServerConfig>, BadAuthorities> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        if at >= MAX_AUTHORITIES {
            return Err(BadAuthorities::TooMany);
        }
        // One odd certificate must not take the others down.
        let _ = roots.add(certificate.map_err(BadAuthorities::Pem)?);
    }
    if roots.is_empty() {
        return Err(BadAuthorities::Empty);
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER))
            .allow_unauthenticated()
            .build()
            .map_err(BadAuthorities::Unusable)?;
    let alpn = [H2_ALPN, HTTP1_ALPN];
    Ok(server_config(verifier, Arc::new(serving.clone()), &alpn))
}

/// The common name of a certificate that TLS has verified.
#[must_use]
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    // Two names in one certificate would let each reader pick another one.
    names.next().is_none().then_some(name)
}
