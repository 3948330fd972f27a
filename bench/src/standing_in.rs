//! What stands in for a controller has in common, whatever cluster it tells of: an
//! authority, and connections that know whom their certificate names.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use identity::authority::{ISSUER_LIFE, Issuer, LeafNames, ROOT_LIFE, Root};
use identity::key::LeafKey;
use identity::tls::{ClientAuth, H2_ALPN, mesh_server_config};
use identity::verify::peer_identity;
use identity::{CertHandle, Issued, Leaf, Roots};
use policy::name::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::server::Connected;

const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Connections that wait to be served.
const QUEUE: usize = 64;

/// The authority of one run. All proxies are certified by it.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) root: Root,
    pub(crate) issuer: Issuer,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let now = SystemTime::now();
        let root = Root::generate(now, ROOT_LIFE)?;
        let issuer = root.issuer(now, ISSUER_LIFE)?;
        Ok(Self { root, issuer })
    }

    pub(crate) fn issue(&self, csr: &[u8], spiffe: SpiffeId) -> Result<Issued> {
        let names = LeafNames {
            spiffe,
            pod_dns: None,
        };
        Ok(self
            .issuer
            .issue(csr, &names, SystemTime::now(), LEAF_LIFE)?)
    }

    /// The controller's side of TLS, certified by this authority.
    pub(crate) fn tls(&self, trust_domain: &str) -> Result<TlsAcceptor> {
        let own = SpiffeId::of(trust_domain, "weft-system", "weft-controller")?;
        let roots = Roots::new(&own, vec![self.root.certificate().clone()])?;
        let key = LeafKey::generate()?;
        let issued = self.issue(&key.csr()?, own)?;
        let certificate = CertHandle::empty();
        certificate.store(Leaf::new(issued.chain, &key)?);
        Ok(TlsAcceptor::from(mesh_server_config(
            &roots,
            &certificate,
            &[H2_ALPN],
            ClientAuth::Optional,
        )))
    }
}

/// Connections whose handshake has ended well. `namespace` is the one of all pods.
pub(crate) fn accepted(
    listener: TcpListener,
    tls: TlsAcceptor,
    namespace: &'static str,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, accepted) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // As the controller does; else a proxy's start may wait 40 ms for an
            // acknowledgement that the other side delays.
            let _ = socket.set_nodelay(true);
            let (tls, ready) = (tls.clone(), ready.clone());
            tokio::spawn(async move {
                // A proxy that goes away during its handshake is no news.
                if let Ok(stream) = tls.accept(socket).await {
                    let _ = ready.send(Ok(Connection { stream, namespace })).await;
                }
            });
        }
    });
    ReceiverStream::new(accepted)
}

/// The service account that the certificate of a request's connection names, if any.
pub(crate) fn account<T>(request: &Request<T>) -> Option<&str> {
    let Account(account) = request.extensions().get()?;
    account.as_deref()
}

#[derive(Clone)]
pub(crate) struct Account(Option<String>);

pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    namespace: &'static str,
}

impl Connected for Connection {
    type ConnectInfo = Account;

    fn connect_info(&self) -> Account {
        let named = self
            .stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| {
                let identity = peer_identity(chain).ok()?.spiffe;
                (identity.namespace() == Some(self.namespace)).then_some(())?;
                identity.service_account().map(str::to_owned)
            });
        Account(named)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
