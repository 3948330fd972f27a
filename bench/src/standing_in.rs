//! What stand-ins for a controller have in common, whatever cluster they serve: an
//! authority, connections that know the name in their certificate, and [`serve`], which
//! sends any number of proxies what a [`ClusterView`] holds.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use identity::authority::{ISSUER_LIFE, Issuer, LeafNames, ROOT_LIFE, Root};
use identity::tls::{ClientAuth, H2_ALPN, mesh_server_config};
use identity::verify::peer_identity;
use identity::{CertHandle, Issued, Leaf, LeafKey, Roots};
use policy::name::SpiffeId;
use policy::traffic::part::Parts;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::capability::Capabilities;
use wire::names::Name;
use wire::v1;
use wire::v1::control_server::{Control, ControlServer};

const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Connections that wait to be served, and batches that wait for a proxy, which
/// subscribes one at a time.
const QUEUE: usize = 64;
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

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
                // A proxy that goes away during its handshake is normal.
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

/// A cluster as proxies get it. Pods are known by their service accounts.
pub(crate) trait ClusterView: Send + Sync + 'static {
    /// Namespace and trust domain of all pods.
    const NAMESPACE: &'static str;
    const TRUST_DOMAIN: &'static str;

    /// `None`: there is no such pod.
    fn identity(&self, pod: &str) -> Option<SpiffeId>;

    /// What a pod gets without asking, but for the trusted roots. Its proxy carries
    /// out these parts of policies.
    ///
    /// # Errors
    /// Whatever cannot be said ends the stream.
    fn own(&self, pod: &str, parts: Parts) -> Result<Vec<v1::Resource>>;

    /// What stands at an address, as sent to a pod, with everything that this refers to.
    ///
    /// # Errors
    /// Whatever cannot be said ends the stream.
    fn destination(&self, pod: &str, parts: Parts, addr: SocketAddr) -> Result<Vec<v1::Resource>>;

    /// The proxy of a pod could not use its configuration.
    fn refused(&self, pod: &str, nack: &v1::Nack);
}

/// Sends proxies what `cluster` holds, until the listener fails. Every call of Certify is
/// answered, because the token is the pod's name.
///
/// # Errors
/// When the listener or the authority cannot be used.
pub(crate) async fn serve<C: ClusterView>(
    listener: TcpListener,
    authority: Arc<Authority>,
    cluster: Arc<C>,
) -> Result<()> {
    let tls = authority.tls(C::TRUST_DOMAIN)?;
    let accepted = accepted(listener, tls, C::NAMESPACE);
    let control = StandIn { cluster, authority };
    Server::builder()
        .add_service(ControlServer::new(control).max_decoding_message_size(MESSAGE_LIMIT))
        .serve_with_incoming(accepted)
        .await
        .context("gRPC")
}

struct StandIn<C> {
    cluster: Arc<C>,
    authority: Arc<Authority>,
}

#[async_trait]
impl<C: ClusterView> Control for StandIn<C> {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let request = request.into_inner();
        let spiffe = self
            .cluster
            .identity(&request.token)
            .ok_or_else(|| Status::unauthenticated("no pod of this name"))?;
        let issued = self
            .authority
            .issue(&request.csr, spiffe)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(v1::CertifyResponse {
            chain: issued.chain.iter().map(|one| one.to_vec()).collect(),
            roots: vec![self.authority.root.certificate().to_vec()],
        }))
    }

    type StreamStream = ReceiverStream<Result<v1::ToProxy, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::FromProxy>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let pod = account(&request)
            .filter(|account| self.cluster.identity(account).is_some())
            .map(str::to_owned)
            .ok_or_else(|| Status::unauthenticated("a stream needs a certificate of a pod"))?;
        let (outbox, batches) = mpsc::channel(QUEUE);
        let roots = vec![self.authority.root.certificate().to_vec()];
        let bundle = v1::resource::Content::Bundle(v1::Bundle {
            roots,
            ..v1::Bundle::default()
        });
        let bundle = resource(wire::names::BUNDLE, bundle);
        let cluster = Arc::clone(&self.cluster);
        tokio::spawn(async move {
            // The proxy has gone; it comes back by itself.
            let _ = talk(&*cluster, &pod, bundle, request.into_inner(), outbox).await;
        });
        Ok(Response::new(ReceiverStream::new(batches)))
    }

    async fn answer(
        &self,
        _: Request<Streaming<v1::Answered>>,
    ) -> Result<Response<v1::AnswerEnd>, Status> {
        Err(Status::unimplemented("not served by a stand-in"))
    }
}

async fn talk<C: ClusterView>(
    cluster: &C,
    pod: &str,
    bundle: v1::Resource,
    mut messages: Streaming<v1::FromProxy>,
    outbox: mpsc::Sender<Result<v1::ToProxy, Status>>,
) -> Result<()> {
    let (mut id, mut parts) = (0, Parts::NONE);
    while let Some(message) = messages.message().await? {
        let (full, set) = match message.message {
            Some(v1::from_proxy::Message::Hello(hello)) => {
                parts = Capabilities::named(&hello.capabilities).parts();
                let own = std::iter::once(bundle.clone()).chain(cluster.own(pod, parts)?);
                let described_now = described(cluster, pod, parts, &hello.destinations)?;
                (true, own.chain(described_now).collect())
            }
            Some(v1::from_proxy::Message::Subscribe(change)) => {
                (false, described(cluster, pod, parts, &change.add)?)
            }
            Some(v1::from_proxy::Message::Ack(ack)) => {
                ack.nacks.iter().for_each(|nack| cluster.refused(pod, nack));
                continue;
            }
            Some(
                v1::from_proxy::Message::Report(_)
                | v1::from_proxy::Message::Status(_)
                | v1::from_proxy::Message::Pulse(_)
                | v1::from_proxy::Message::SharesTaken(_)
                | v1::from_proxy::Message::OfferedLoads(_)
                | v1::from_proxy::Message::EarlyReport(_),
            )
            | None => continue,
        };
        id += 1;
        let batch = v1::Batch {
            id,
            full,
            set,
            ..v1::Batch::default()
        };
        let message = v1::ToProxy {
            message: Some(v1::to_proxy::Message::Batch(batch)),
        };
        outbox.send(Ok(message)).await?;
    }
    Ok(())
}

fn described<C: ClusterView>(
    cluster: &C,
    pod: &str,
    parts: Parts,
    names: &[String],
) -> Result<Vec<v1::Resource>> {
    let mut all = Vec::new();
    for name in names {
        if let Some(Name::Destination { ip, port }) = wire::names::parse(name) {
            all.extend(cluster.destination(pod, parts, SocketAddr::new(ip, port))?);
        }
    }
    Ok(all)
}

pub(crate) fn resource(name: &str, content: v1::resource::Content) -> v1::Resource {
    wire::version::stamp(v1::Resource {
        name: name.to_owned(),
        version: String::new(),
        content: Some(content),
    })
}
