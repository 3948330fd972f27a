//! The server's side of mutual TLS between two proxies: the handshake, and the peer's identity
//! after it.

use std::time::Duration;

use identity::tls::DEDICATED_ALPN;
use identity::verify::{PeerIdentity, peer_with_expiry};
use runtime::clock::Clock;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::mesh::certificate_end::CertificateEnd;
use crate::mesh::protocol::Transport;
use crate::mesh::tls::{MeshTls, tls_failure};
use crate::net::chunk::TLS_BUFFER;
use crate::net::coalesce::{Coalescing, FlushHandle};
use crate::net::idle::scheduled_within;

/// A caller has this long to finish the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer that has proved its identity.
pub(crate) struct Secured {
    pub(crate) stream: TlsStream<Coalescing>,
    pub(crate) flush: FlushHandle,
    pub(crate) peer: PeerIdentity,
    /// Of the certificate that it proved that by.
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
    let stream = scheduled_within(HANDSHAKE_TIMEOUT, handshake)
        .await
        .ok_or("timeout")?
        .map_err(|error| {
            tracing::debug!(%error, "refused a caller on the mesh port");
            tls_failure(&error)
        })?;
    let session = stream.get_ref().1;
    let certs = session.peer_certificates().unwrap_or_default();
    let (peer, not_after) = peer_with_expiry(certs).map_err(|error| {
        tracing::debug!(%error, "refused a caller on the mesh port");
        error.label()
    })?;
    let transport = if session.alpn_protocol() == Some(DEDICATED_ALPN) {
        Transport::Http1
    } else {
        Transport::Http2
    };
    Ok(Secured {
        stream,
        flush,
        peer,
        certificate_end: CertificateEnd::new(not_after, Clock::system()),
        transport,
    })
}
