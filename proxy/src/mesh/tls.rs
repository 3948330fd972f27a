//! Mutual TLS between two proxies: the port, the protocol name, and the
//! configurations that both sides use.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use identity::Roots;
use identity::tls::{self, CertHandle, ClientAuth, DEDICATED_ALPN, MESH_ALPN, peer_name};
use identity::verify::{IdentityError, peer_identity};
use parking_lot::Mutex;
use policy::name::SpiffeId;
use policy::reason::Reason;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::failure::Failure;
use crate::net::chunk::TLS_BUFFER;
use crate::net::coalesce::{Coalescing, FlushHandle};
use crate::net::connect::connect_to_proxy;
use crate::net::idle::scheduled_within;
use crate::ports::MESH_PORT;

/// TLS handshake with a peer proxy, after the TCP connection stands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Client configurations kept, one per identity called.
const CONFIGS_KEPT: usize = 1024;

/// TLS for the mesh port, both directions, from one certificate and one list
/// of roots that may be replaced at any time.
#[derive(Clone, Debug)]
pub struct MeshTls {
    certs: CertHandle,
    roots: Roots,
    server: Arc<rustls::ServerConfig>,
    clients: Arc<Mutex<HashMap<SpiffeId, Arc<rustls::ClientConfig>>>>,
    on_failure: Option<OnFailure>,
}

/// What the certificate of a peer must carry.
#[derive(Clone, Debug)]
pub(crate) struct ExpectedPeer {
    pub(crate) identity: SpiffeId,
    /// Empty: of any pod.
    pub(crate) pod_uid: Arc<str>,
}

/// Counts a handshake that failed, by its reason.
#[derive(Clone)]
struct OnFailure(Arc<dyn Fn(&'static str) + Send + Sync>);

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnFailure").finish_non_exhaustive()
    }
}

/// Why a handshake failed, for metrics.
#[must_use]
pub(crate) fn tls_failure(error: &io::Error) -> &'static str {
    IdentityError::from_io(error).map_or("handshake", |error| error.label())
}

impl MeshTls {
    #[must_use]
    pub fn new(certs: CertHandle, roots: Roots) -> Self {
        let server = tls::mesh_server_config(
            &roots,
            &certs,
            &[DEDICATED_ALPN, MESH_ALPN],
            ClientAuth::Required,
        );
        Self {
            certs,
            roots,
            server,
            clients: Arc::default(),
            on_failure: None,
        }
    }

    /// Calls `counts` with the reason of each handshake that this proxy began and that
    /// fails.
    #[must_use]
    pub fn counted(mut self, counts: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        self.on_failure = Some(OnFailure(Arc::new(counts)));
        self
    }

    /// A handshake that this proxy began has failed.
    pub fn failed(&self, reason: &'static str) {
        if let Some(OnFailure(counts)) = &self.on_failure {
            counts(reason);
        }
    }

    /// The certificate that is shown to others, and those that vouch for it, as PEM.
    pub(crate) fn chain(&self) -> Option<String> {
        const LINE: usize = 64;
        let leaf = self.certs.current()?;
        let mut pem = String::new();
        for certificate in leaf.chain() {
            let text = BASE64.encode(certificate);
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            // Base64 is ASCII: every byte is a character.
            for at in (0..text.len()).step_by(LINE) {
                pem.push_str(&text[at..text.len().min(at + LINE)]);
                pem.push('\n');
            }
            pem.push_str("-----END CERTIFICATE-----\n");
        }
        Some(pem)
    }

    #[must_use]
    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The same as [`Self::client`], and offers a dedicated connection. A peer that does not know
    /// these takes HTTP/2.
    #[must_use]
    pub(crate) fn dedicated_client(&self, expected: &SpiffeId) -> Arc<rustls::ClientConfig> {
        let alpn = [DEDICATED_ALPN, MESH_ALPN];
        tls::mesh_client_config(&self.roots, &self.certs, expected.clone(), &alpn)
    }

    /// The configuration that accepts only `expected`.
    #[must_use]
    pub fn client(&self, expected: &SpiffeId) -> Arc<rustls::ClientConfig> {
        let mut clients = self.clients.lock();
        if let Some(config) = clients.get(expected) {
            return Arc::clone(config);
        }
        if clients.len() >= CONFIGS_KEPT {
            clients.clear();
        }
        let config =
            tls::mesh_client_config(&self.roots, &self.certs, expected.clone(), &[MESH_ALPN]);
        clients.insert(expected.clone(), Arc::clone(&config));
        config
    }
}

/// Mutual TLS with the mesh port of the pod of this uid; of any pod that `config` accepts where
/// the uid is empty.
///
/// The uid is compared behind the handshake and before anything is sent: a configuration
/// that knows it would be one for each pod.
pub(crate) async fn secure(
    ip: IpAddr,
    tls: &MeshTls,
    (config, pod_uid): (Arc<rustls::ClientConfig>, &str),
    tune: fn(&TcpStream),
) -> Result<(TlsStream<Coalescing>, FlushHandle), Failure> {
    let addr = SocketAddr::new(ip, MESH_PORT);
    let stream = connect_to_proxy(addr)
        .await
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    tune(&stream);
    let connector = tokio_rustls::TlsConnector::from(config);
    let (coalescing, flush_handle) = Coalescing::new(stream);
    let handshake = connector.connect_with(peer_name(), coalescing, |tls| {
        tls.set_buffer_limit(Some(TLS_BUFFER));
    });
    let secured = scheduled_within(HANDSHAKE_TIMEOUT, handshake).await;
    // The handshake shows nothing of the peer: it may be busy, or gone.
    let secured = secured.ok_or_else(|| {
        tls.failed("timeout");
        let detail = format!("{addr}: no TLS handshake within {HANDSHAKE_TIMEOUT:?}");
        Failure::not_sent(Reason::ConnectFailed, detail)
    })?;
    let secured = secured.map_err(|error| {
        tls.failed(tls_failure(&error));
        Failure::not_sent(Reason::TlsFailed, format!("{addr}: {error}"))
    })?;
    must_be_pod(&secured, pod_uid).map_err(|error| {
        tls.failed(error.label());
        Failure::wrong_pod(format!("{addr}: {error}"))
    })?;
    Ok((secured, flush_handle))
}

/// Addresses pass from pod to pod, also within one service account.
fn must_be_pod(secured: &TlsStream<Coalescing>, expected: &str) -> Result<(), IdentityError> {
    if expected.is_empty() {
        return Ok(());
    }
    let chain = secured.get_ref().1.peer_certificates();
    let peer = peer_identity(chain.ok_or(IdentityError::NoCertificate)?)?;
    match peer.pod_uid() {
        Some(uid) if uid == expected => Ok(()),
        presented => Err(IdentityError::WrongPod {
            expected: expected.to_owned(),
            presented: presented.unwrap_or_default().to_owned(),
        }),
    }
}
