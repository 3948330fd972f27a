//! Mutual TLS between two proxies: the configurations that both sides use, the handshake of either
//! side, and when the certificate of a caller ends.
//!
//! Claims: attack-8

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use identity::Roots;
use identity::tls::{self, CertHandle, ClientAuth, DEDICATED_ALPN, MESH_ALPN, peer_name};
use identity::verify::{IdentityError, PeerIdentity, peer_identity};
use parking_lot::Mutex;
use policy::name::SpiffeId;
use policy::origin::Origin;
use policy::reason::Reason;
use policy::well_known::MESH_PORT;
use runtime::clock::Clock;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use crate::failure::Failure;
use crate::mesh::open::OpenConnections;
use crate::mesh::protocol::Transport;
use crate::net::chunk::TLS_BUFFER;
use crate::net::coalesce::{Coalescing, FlushHandle};
use crate::net::connect::connect_to_proxy;
use crate::net::idle::scheduled_within;

/// TLS handshake with a peer proxy, after the TCP connection stands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// A caller has this long to finish the TLS handshake.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);
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
    open: OpenConnections,
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
            open: OpenConnections::default(),
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

    /// Looks for connections of peers that do not stay, and breaks off those that the last look
    /// found; true when there are any.
    pub(super) fn end_unless(&self, stays: impl Fn(&PeerIdentity) -> bool) -> bool {
        self.open.end_unless(stays)
    }

    /// Breaks off at once the connections of peers that end.
    pub(super) fn break_off(&self, ends: impl Fn(&PeerIdentity) -> bool) {
        self.open.break_off(ends);
    }

    /// The object that revokes the own certificate, if one does.
    fn own_revoked(&self) -> Option<Origin> {
        self.roots.revokes(self.certs.current()?.identity())
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
) -> Result<SecuredPeer, Failure> {
    // Every peer refuses it, and the application is to know why.
    if let Some(by) = tls.own_revoked() {
        let (kind, name) = (by.kind(), by.name());
        let detail = format!("the certificate of this pod is revoked by {kind} {name}");
        return Err(Failure::not_sent(Reason::Revoked, detail));
    }
    let addr = SocketAddr::new(ip, MESH_PORT);
    let stream = connect_to_proxy(addr)
        .await
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    tune(&stream);
    let connector = TlsConnector::from(config);
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
        let reason = match IdentityError::from_io(&error) {
            Some(IdentityError::Revoked { .. }) => Reason::Revoked,
            _ => Reason::TlsFailed,
        };
        Failure::not_sent(reason, format!("{addr}: {error}"))
    })?;
    let peer = pod_of(&secured, pod_uid).map_err(|error| {
        tls.failed(error.label());
        Failure::wrong_pod(format!("{addr}: {error}"))
    })?;
    let peer = Arc::new(peer);
    tls.open.add(Arc::clone(&peer), flush_handle.break_off());
    Ok(SecuredPeer {
        stream: secured,
        flush: flush_handle,
        peer,
    })
}

/// A peer that was called and has proved its identity.
pub(crate) struct SecuredPeer {
    pub(crate) stream: TlsStream<Coalescing>,
    pub(crate) flush: FlushHandle,
    pub(crate) peer: Arc<PeerIdentity>,
}

/// The peer, where it is the expected pod. Addresses pass from pod to pod, also within one service
/// account.
fn pod_of(secured: &TlsStream<Coalescing>, expected: &str) -> Result<PeerIdentity, IdentityError> {
    let chain = secured.get_ref().1.peer_certificates();
    let peer = peer_identity(chain.ok_or(IdentityError::NoCertificate)?)?;
    if expected.is_empty() || peer.pod_uid() == Some(expected) {
        return Ok(peer);
    }
    Err(IdentityError::WrongPod {
        expected: expected.to_owned(),
        presented: peer.pod_uid().unwrap_or_default().to_owned(),
    })
}

/// A peer that has proved its identity.
pub(crate) struct Secured {
    pub(crate) stream: server::TlsStream<Coalescing>,
    pub(crate) flush: FlushHandle,
    /// With what signed its certificate, the serial and the time of issue.
    pub(crate) peer: Arc<PeerIdentity>,
    /// Of that certificate.
    pub(crate) certificate_end: CertificateEnd,
    pub(crate) transport: Transport,
}

/// The handshake with a caller of the mesh port.
///
/// # Errors
/// The reason by which a failed handshake is counted.
pub(crate) async fn accept(tls: &MeshTls, stream: TcpStream) -> Result<Secured, &'static str> {
    let (coalescing, flush) = Coalescing::new(stream);
    let handshake = TlsAcceptor::from(tls.server()).accept_with(coalescing, |tls| {
        tls.set_buffer_limit(Some(TLS_BUFFER));
    });
    let stream = scheduled_within(ACCEPT_TIMEOUT, handshake)
        .await
        .ok_or("timeout")?
        .map_err(|error| {
            tracing::debug!(%error, "refused a caller on the mesh port");
            tls_failure(&error)
        })?;
    let session = stream.get_ref().1;
    let certs = session.peer_certificates().unwrap_or_default();
    let peer = peer_identity(certs).map_err(|error| {
        tracing::debug!(%error, "refused a caller on the mesh port");
        error.label()
    })?;
    let peer = Arc::new(peer);
    let transport = if session.alpn_protocol() == Some(DEDICATED_ALPN) {
        Transport::Http1
    } else {
        Transport::Http2
    };
    let not_after = peer.certificate.not_after;
    tls.open.add(Arc::clone(&peer), flush.break_off());
    Ok(Secured {
        stream,
        flush,
        peer,
        certificate_end: CertificateEnd::new(not_after, Clock::system()),
        transport,
    })
}

/// The end of the certificate by which one caller has proved its identity. Clones are of the same
/// one.
///
/// Certificates end by the wall clock. A timer stops while the machine is suspended, and knows
/// nothing of a clock that is set: by it a caller would be believed for as long again.
#[derive(Clone, Debug)]
pub(crate) struct CertificateEnd {
    at: SystemTime,
    clock: Clock,
}

impl CertificateEnd {
    /// Of one that is valid until `not_after` by `clock`.
    pub(crate) fn new(not_after: SystemTime, clock: Clock) -> Self {
        let now = clock.now();
        let left = not_after.duration_since(now).unwrap_or_default();
        // All connections of a caller were made with one certificate, and are not to be made anew
        // all at once. By then it has the next one.
        let early = left.mul_f64(rand::random::<f64>() / 16.0);
        let at = now + left.saturating_sub(early);
        Self { at, clock }
    }

    /// Returns once it has come.
    pub(crate) async fn passed(&self) {
        self.clock.sleep_until(self.at).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, UNIX_EPOCH};

    use runtime::clock::LOOK_EVERY;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A clock that goes with paused time, and how many seconds it is ahead.
    fn clock() -> (Clock, Arc<AtomicU64>) {
        let (start, ahead) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let jumps = Arc::clone(&ahead);
        let clock = Clock::from_fn(move || {
            let jump = Duration::from_secs(jumps.load(Relaxed));
            UNIX_EPOCH + 1_000 * HOUR + start.elapsed() + jump
        });
        (clock, ahead)
    }

    #[tokio::test(start_paused = true)]
    async fn certificate_end_is_early_by_max_sixteenth_with_jitter() {
        let (clock, _) = clock();
        let mut all = Vec::new();
        for _ in 0..20 {
            let (start, not_after) = (Instant::now(), clock.now() + 16 * HOUR);
            CertificateEnd::new(not_after, clock.clone()).passed().await;
            let took = start.elapsed();
            let most = 16 * HOUR + Duration::from_secs(1);
            assert!((15 * HOUR..most).contains(&took), "{took:?}");
            all.push(took);
        }
        all.dedup();
        assert!(all.len() > 1, "all at once: {all:?}");
        // One that is over already.
        let start = Instant::now();
        CertificateEnd::new(UNIX_EPOCH, clock).passed().await;
        assert!(start.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn suspended_machine_accepts_no_certificate_expired_meanwhile() {
        let (clock, ahead) = clock();
        let end = CertificateEnd::new(clock.now() + 8 * HOUR, clock.clone());
        let waiting = tokio::spawn(async move { end.passed().await });
        sleep(HOUR).await;
        assert!(!waiting.is_finished());
        ahead.store(8 * HOUR.as_secs(), Relaxed);
        let ended = timeout(2 * LOOK_EVERY, waiting).await;
        ended.expect("believed for hours").unwrap();
    }
}
