//! `weft-stand-in FILE` is a controller for two proxies without a cluster: it
//! speaks the real protocol over the real TLS and tells what FILE says. Harnesses
//! that start proxies in network namespaces use it (e2e/interop).
//!
//! FILE is JSON, see [`cluster::Cluster`]. Every call of Certify is answered,
//! because the token is the pod's name. It says `ready` once it listens, and every
//! refusal of a proxy on standard error as `refused NAME: REASON`.

mod cluster;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
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
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::names::Name;
use wire::v1;
use wire::v1::control_server::{Control, ControlServer};

use crate::cluster::{Cluster, NAMESPACE, Pod, TRUST_DOMAIN};

const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Batches that wait for a proxy; a proxy subscribes one at a time.
const QUEUE: usize = 64;
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

fn main() -> Result<()> {
    let path = std::env::args()
        .nth(1)
        .context("usage: weft-stand-in FILE")?;
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let cluster = Cluster::read(&text).with_context(|| path.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(cluster))
}

async fn serve(cluster: Cluster) -> Result<()> {
    let authority = Authority::new()?;
    std::fs::write(&cluster.root, authority.root.cert_pem())?;
    let listener = TcpListener::bind(cluster.listen).await?;
    let own = SpiffeId::of(TRUST_DOMAIN, "weft-system", "weft-controller")?;
    let roots = Roots::new(&own, vec![authority.root.certificate().clone()])?;
    let key = LeafKey::generate()?;
    let issued = authority.issue(&key.csr()?, own)?;
    let certificate = CertHandle::empty();
    certificate.store(Leaf::new(issued.chain, &key)?);
    let tls = TlsAcceptor::from(mesh_server_config(
        &roots,
        &certificate,
        &[H2_ALPN],
        ClientAuth::Optional,
    ));
    println!("ready");
    io::stdout().flush()?;
    let (ready, accepted) = mpsc::channel::<io::Result<Connection>>(QUEUE);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // As the controller does; else a proxy's start waits for delayed
            // acknowledgements.
            let _ = socket.set_nodelay(true);
            let (tls, ready) = (tls.clone(), ready.clone());
            tokio::spawn(async move {
                // A proxy that goes away during its handshake is no news.
                if let Ok(stream) = tls.accept(socket).await {
                    let _ = ready.send(Ok(Connection(stream))).await;
                }
            });
        }
    });
    let control = StandIn {
        cluster: Arc::new(cluster),
        authority,
    };
    Server::builder()
        .add_service(ControlServer::new(control).max_decoding_message_size(MESSAGE_LIMIT))
        .serve_with_incoming(ReceiverStream::new(accepted))
        .await
        .context("gRPC")
}

struct Authority {
    root: Root,
    issuer: Issuer,
}

impl Authority {
    fn new() -> Result<Self> {
        let now = SystemTime::now();
        let root = Root::generate(now, ROOT_LIFE)?;
        let issuer = root.issuer(now, ISSUER_LIFE)?;
        Ok(Self { root, issuer })
    }

    fn issue(&self, csr: &[u8], spiffe: SpiffeId) -> Result<Issued> {
        let names = LeafNames {
            spiffe,
            pod_dns: None,
        };
        Ok(self
            .issuer
            .issue(csr, &names, SystemTime::now(), LEAF_LIFE)?)
    }
}

struct StandIn {
    cluster: Arc<Cluster>,
    authority: Authority,
}

#[async_trait]
impl Control for StandIn {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let request = request.into_inner();
        let pod = self
            .cluster
            .pod(&request.token)
            .ok_or_else(|| Status::unauthenticated("no pod of this name"))?;
        let internal = |error: anyhow::Error| Status::internal(error.to_string());
        let spiffe = pod.identity().map_err(internal)?;
        let issued = self
            .authority
            .issue(&request.csr, spiffe)
            .map_err(internal)?;
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
        let named = request.extensions().get::<CallerName>().cloned();
        let pod = named
            .and_then(|name| self.cluster.pod(name.0.as_deref()?).cloned())
            .ok_or_else(|| Status::unauthenticated("a stream needs a certificate of a pod"))?;
        let (outbox, batches) = mpsc::channel(QUEUE);
        let bundle = v1::Bundle {
            roots: vec![self.authority.root.certificate().to_vec()],
        };
        let bundle = cluster::resource(wire::names::BUNDLE, v1::resource::Content::Bundle(bundle));
        let cluster = Arc::clone(&self.cluster);
        tokio::spawn(async move {
            // The proxy has gone; it comes back by itself.
            let _ = talk(&cluster, &pod, bundle, request.into_inner(), outbox).await;
        });
        Ok(Response::new(ReceiverStream::new(batches)))
    }
}

async fn talk(
    cluster: &Cluster,
    pod: &Pod,
    bundle: v1::Resource,
    mut messages: Streaming<v1::FromProxy>,
    outbox: mpsc::Sender<Result<v1::ToProxy, Status>>,
) -> Result<()> {
    let mut id = 0;
    while let Some(message) = messages.message().await? {
        let (full, set) = match message.message {
            Some(v1::from_proxy::Message::Hello(hello)) => {
                let own = std::iter::once(bundle.clone()).chain(cluster.own(pod)?);
                let asked = described(cluster, pod, &hello.destinations)?;
                (true, own.chain(asked).collect())
            }
            Some(v1::from_proxy::Message::Subscribe(change)) => {
                (false, described(cluster, pod, &change.add)?)
            }
            Some(v1::from_proxy::Message::Ack(ack)) => {
                for nack in ack.nacks {
                    eprintln!("refused {}: {}", nack.name, nack.reason);
                }
                continue;
            }
            Some(v1::from_proxy::Message::Report(_)) | None => continue,
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

fn described(cluster: &Cluster, pod: &Pod, names: &[String]) -> Result<Vec<v1::Resource>> {
    let mut all = Vec::new();
    for name in names {
        if let Some(Name::Destination { ip, port }) = wire::names::parse(name) {
            all.extend(cluster.destination(pod, SocketAddr::new(ip, port))?);
        }
    }
    Ok(all)
}

/// Service account that a connection's certificate names, if any.
#[derive(Clone)]
struct CallerName(Option<String>);

struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = CallerName;

    fn connect_info(&self) -> CallerName {
        let name = self.0.get_ref().1.peer_certificates().and_then(|chain| {
            let identity = peer_identity(chain).ok()?.spiffe;
            (identity.namespace() == Some(NAMESPACE)).then_some(())?;
            identity.service_account().map(str::to_owned)
        });
        CallerName(name)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
