//! TLS configurations of the mesh, and the handle by which their certificate is replaced.
//!
//! A configuration is made once and lives as long as the process; certificate and roots are looked
//! up at every handshake. No session is resumed, because that would skip the checks of the current
//! certificate and roots.

use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use policy::name::SpiffeId;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ConfigBuilder, ConfigSide, ServerConfig, SignatureScheme, WantsVerifier,
    WantsVersions,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::authority::Serving;
use crate::request::LeafKey;
use crate::verify::{
    self, AuthorityId, ClientVerifier, IdentityError, PeerIdentity, Purpose, Roots, ServerVerifier,
};

/// ALPN of the mesh port.
pub const MESH_ALPN: &[u8] = b"weft-h2/1";
/// ALPN of the mesh port for dedicated connections: HTTP/1.1, one request at a
/// time. A server that knows it prefers it, as clients offer it only to get it.
pub const DEDICATED_ALPN: &[u8] = b"weft-h1/1";
/// ALPN of plain HTTP/2, for the controller's gRPC.
pub const H2_ALPN: &[u8] = b"h2";
/// ALPN of HTTP/1.1, beside [`H2_ALPN`] for the webhook.
pub(crate) const HTTP1_ALPN: &[u8] = b"http/1.1";

pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        // AES has hardware wherever Kubernetes runs, so it comes first.
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    })
});

/// Whether a peer must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// The mesh port.
    Required,
    /// The controller's port, where a new proxy requests its first certificate.
    /// A certificate that is shown is checked all the same.
    Optional,
}

/// Why a certificate is not taken into use; the one before it stays.
#[derive(Debug, thiserror::Error)]
pub enum BadLeaf {
    #[error("the key does not belong to the certificate")]
    KeyMismatch(#[source] rustls::Error),
    #[error("peers would refuse the certificate")]
    Refused(#[source] IdentityError),
}

/// A certificate chain with its key.
#[derive(Clone)]
pub struct Leaf {
    certified: Arc<CertifiedKey>,
    identity: PeerIdentity,
    stamp: Stamp,
}

impl Leaf {
    /// Puts a chain (leaf first) and its key together, after the checks that a
    /// peer would make at `now` on either side, and that it names `expected`.
    ///
    /// # Errors
    /// When the key is another one's or a peer would refuse the chain.
    pub fn verified(
        chain: Vec<CertificateDer<'static>>,
        key: &LeafKey,
        roots: &Roots,
        expected: &SpiffeId,
        now: SystemTime,
    ) -> Result<Self, BadLeaf> {
        accepted(&chain, roots, now).map_err(BadLeaf::Refused)?;
        let leaf = Self::new(chain, key)?;
        if leaf.identity.spiffe == *expected {
            Ok(leaf)
        } else {
            Err(BadLeaf::Refused(IdentityError::WrongIdentity {
                expected: expected.clone(),
                presented: leaf.identity.spiffe,
            }))
        }
    }

    /// Puts a chain and its key together without checking what peers trust, for
    /// the authority's own process.
    ///
    /// # Errors
    /// When the key is another one's or the leaf carries no identity.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &LeafKey) -> Result<Self, BadLeaf> {
        let identity = verify::peer_identity(&chain).map_err(BadLeaf::Refused)?;
        let stamp = stamp_of(&chain)?;
        let certified =
            CertifiedKey::from_der(chain, key.to_der(), &PROVIDER).map_err(BadLeaf::KeyMismatch)?;
        Ok(Self {
            certified: Arc::new(certified),
            identity,
            stamp,
        })
    }

    /// Checks whether peers that trust `roots` accept it at `now`, on either side.
    ///
    /// # Errors
    /// Why they would refuse it.
    pub fn accepted_by(&self, roots: &Roots, now: SystemTime) -> Result<(), IdentityError> {
        accepted(self.chain(), roots, now)
    }

    #[must_use]
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// Leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.stamp.not_before
    }

    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.stamp.not_after
    }

    /// Bytes in hex, with colons between them.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.stamp.serial
    }

    /// The authority that signed it.
    #[must_use]
    pub fn authority(&self) -> AuthorityId {
        self.identity.certificate.authority
    }

    /// Name of that authority, which others may have too.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.stamp.issuer
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("identity", &self.identity)
            .field("not_after", &self.stamp.not_after)
            .finish_non_exhaustive()
    }
}

/// The certificate in use, replaceable while connections run. Clones share it.
/// While it is empty, handshakes that need it fail.
#[derive(Clone, Debug, Default)]
pub struct CertHandle {
    current: Arc<RwLock<Option<Arc<Leaf>>>>,
}

impl CertHandle {
    /// A handle without a certificate.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Uses `leaf` from the next handshake on.
    pub fn store(&self, leaf: Leaf) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(leaf));
    }

    /// The certificate in use.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Leaf>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// When the certificate in use ends.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.current().map(|leaf| leaf.not_after())
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.current().map(|leaf| Arc::clone(&leaf.certified))
    }
}

impl ResolvesServerCert for CertHandle {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for CertHandle {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.current().is_some()
    }
}

/// The webhook's serving certificate, replaceable while connections run.
#[derive(Clone, Debug, Default)]
pub struct ServingHandle {
    current: Arc<RwLock<Option<Serves>>>,
}

#[derive(Clone, Debug)]
struct Serves {
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
}

impl ServingHandle {
    /// A handle without a certificate.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Uses `serving` from the next handshake on.
    ///
    /// # Errors
    /// When the key is another one's.
    pub fn store(&self, serving: &Serving) -> Result<(), BadLeaf> {
        let key = serving.key.to_der();
        let certified = CertifiedKey::from_der(serving.chain.clone(), key, &PROVIDER)
            .map_err(BadLeaf::KeyMismatch)?;
        let serves = Serves {
            certified: Arc::new(certified),
            not_after: serving.not_after,
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(serves);
        Ok(())
    }

    /// When the certificate in use ends.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.current().map(|serves| serves.not_after)
    }

    fn current(&self) -> Option<Serves> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

impl ResolvesServerCert for ServingHandle {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().map(|serves| serves.certified)
    }
}

/// A server that peers know by its SPIFFE id: the mesh port with
/// [`ClientAuth::Required`], the controller's port with `Optional`.
#[must_use]
pub fn mesh_server_config(
    roots: &Roots,
    cert: &CertHandle,
    alpn: &[&[u8]],
    client_auth: ClientAuth,
) -> Arc<ServerConfig> {
    let verifier = Arc::new(ClientVerifier {
        roots: roots.clone(),
        mandatory: client_auth == ClientAuth::Required,
    });
    server_config(verifier, Arc::new(cert.clone()), alpn)
}

/// The webhook's server, known by DNS names to a caller without certificate.
#[must_use]
pub fn webhook_server_config(serving: &ServingHandle) -> Arc<ServerConfig> {
    let no_client_auth = WebPkiClientVerifier::no_client_auth();
    let alpn = [H2_ALPN, HTTP1_ALPN];
    server_config(no_client_auth, Arc::new(serving.clone()), &alpn)
}

/// A client that shows its certificate and talks to `expected` only. Making one
/// costs a few small allocations; roots, certificate and provider are shared.
/// Connect with [`peer_name`]. A peer with another identity fails the handshake
/// with [`IdentityError::WrongIdentity`].
#[must_use]
pub fn mesh_client_config(
    roots: &Roots,
    cert: &CertHandle,
    expected: SpiffeId,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let config = expecting(roots, expected).with_client_cert_resolver(Arc::new(cert.clone()));
    finish_client(config, alpn)
}

/// A client without certificate, for the call that gets the first one.
#[must_use]
pub fn bootstrap_client_config(
    roots: &Roots,
    expected: SpiffeId,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    finish_client(expecting(roots, expected).with_no_client_auth(), alpn)
}

/// The name to hand to rustls when connecting. It is neither sent nor checked:
/// the configuration knows the identity to expect.
#[must_use]
pub fn peer_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([0u8; 4]).into())
}

pub(crate) fn server_config(
    verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
    cert: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let mut config = tls13(ServerConfig::builder_with_provider(Arc::clone(&PROVIDER)))
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(cert);
    config.alpn_protocols = owned(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// The only version that is spoken.
fn tls13<S: ConfigSide>(
    builder: ConfigBuilder<S, WantsVersions>,
) -> ConfigBuilder<S, WantsVerifier> {
    builder
        .with_protocol_versions(&[&TLS13])
        .expect("the provider above must have suites for TLS 1.3")
}

fn expecting(
    roots: &Roots,
    expected: SpiffeId,
) -> ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let verifier = ServerVerifier {
        roots: roots.clone(),
        expected,
    };
    tls13(ClientConfig::builder_with_provider(Arc::clone(&PROVIDER)))
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

fn finish_client(mut config: ClientConfig, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    config.alpn_protocols = owned(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Arc::new(config)
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

fn accepted(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    now: SystemTime,
) -> Result<(), IdentityError> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    for purpose in [Purpose::Server, Purpose::Client] {
        let now = UnixTime::since_unix_epoch(since);
        verify::verify_chain(roots, chain, now, purpose)?;
    }
    Ok(())
}

/// What a leaf holds beside its identity.
#[derive(Clone)]
struct Stamp {
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
    issuer: String,
}

fn stamp_of(chain: &[CertificateDer<'_>]) -> Result<Stamp, BadLeaf> {
    let refused = |error| BadLeaf::Refused(error);
    let leaf = chain
        .first()
        .ok_or_else(|| refused(IdentityError::NoCertificate))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|_| refused(IdentityError::Malformed("not an X.509 certificate")))?;
    let (not_before, not_after) = verify::validity(&parsed);
    Ok(Stamp {
        not_before,
        not_after,
        serial: parsed.raw_serial_as_string(),
        issuer: verify::issuer_name(&parsed),
    })
}

#[cfg(test)]
mod tests;
