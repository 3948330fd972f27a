//! A stand-in for the controller. It speaks the real protocol (Certify without
//! a client certificate, then Stream with one) over the real TLS, and tells of a
//! cluster that never changes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use identity::authority::{ISSUER_LIFE, Issuer, LeafNames, ROOT_LIFE, Root};
use identity::key::LeafKey;
use identity::tls::{ClientAuth, H2_ALPN, mesh_server_config};
use identity::verify::peer_identity;
use identity::{CertHandle, Leaf, Roots};
use policy::name::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::names::Name;
use wire::v1;
use wire::v1::control_server::{Control, ControlServer};

use crate::place::Place;
use crate::resources::{self, NAMESPACE, Pod, TRUST_DOMAIN};

pub(crate) const PORT: u16 = 8443;
const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Batches that wait for a proxy; two proxies subscribe one at a time.
const QUEUE: usize = 64;
/// A proxy applies a batch in far less.
const APPLY_WITHIN: Duration = Duration::from_secs(5);
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// The authority of one run. Both pairs are certified by it.
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

    pub(crate) fn issue(&self, csr: &[u8], spiffe: SpiffeId) -> Result<identity::Issued> {
        let names = LeafNames {
            spiffe,
            pod_dns: None,
        };
        Ok(self
            .issuer
            .issue(csr, &names, SystemTime::now(), LEAF_LIFE)?)
    }
}

/// The stand-in as the bench sees it.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    /// What proxies refused; must stay empty.
    pub(crate) refusals: Arc<Mutex<Vec<String>>>,
    /// A new number changes [`resources::CHANGED`] endpoints of the crowd.
    generation: Arc<watch::Sender<u32>>,
    /// Batches that the client acknowledged.
    acknowledged: Arc<AtomicU64>,
}

impl Controller {
    /// Changes endpoints and waits until the client's proxy says that they are
    /// in use.
    pub(crate) fn change_endpoints(&self) -> Result<()> {
        let before = self.acknowledged.load(Ordering::Acquire);
        self.generation.send_modify(|generation| *generation += 1);
        let until = Instant::now() + APPLY_WITHIN;
        while self.acknowledged.load(Ordering::Acquire) == before {
            ensure!(Instant::now() < until, "a change was not acknowledged");
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

/// Starts the stand-in in the place's third namespace. It lives as long as the
/// process; when the namespace goes, nobody reaches it any more.
pub(crate) fn start(place: &Place, authority: Arc<Authority>) -> Result<Controller> {
    let controller = Controller {
        refusals: Arc::default(),
        generation: Arc::new(watch::Sender::new(0)),
        acknowledged: Arc::default(),
    };
    let kept = controller.clone();
    let listener = place
        .control
        .within(|| Ok(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("controller".to_owned())
        .spawn(move || {
            let ended = runtime.block_on(serve(listener, authority, kept));
            if let Err(error) = ended {
                eprintln!("weft-bench: the stand-in controller ended: {error:#}");
            }
        })?;
    Ok(controller)
}

async fn serve(
    listener: std::net::TcpListener,
    authority: Arc<Authority>,
    controller: Controller,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
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
    let (ready, accepted) = mpsc::channel::<io::Result<Connection>>(QUEUE);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // As the controller does; else a proxy's start may wait 40 ms for an
            // acknowledgement that the other side delays.
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
        authority,
        controller,
    };
    Server::builder()
        .add_service(ControlServer::new(control).max_decoding_message_size(MESSAGE_LIMIT))
        .serve_with_incoming(ReceiverStream::new(accepted))
        .await
        .context("gRPC")
}

struct StandIn {
    authority: Arc<Authority>,
    controller: Controller,
}

#[async_trait]
impl Control for StandIn {
    /// Here the token is the pod's name.
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let request = request.into_inner();
        let pod = Pod::by_name(&request.token)
            .ok_or_else(|| Status::unauthenticated("no pod of the bench"))?;
        let issued = self
            .authority
            .issue(&request.csr, pod.identity())
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
        let pod = request.extensions().get::<Option<Pod>>().copied().flatten();
        let pod = pod.ok_or_else(|| Status::unauthenticated("a stream needs a certificate"))?;
        let (outbox, batches) = mpsc::channel(QUEUE);
        let bundle = v1::Bundle {
            roots: vec![self.authority.root.certificate().to_vec()],
        };
        let bundle =
            resources::resource(wire::names::BUNDLE, v1::resource::Content::Bundle(bundle));
        let talk = talk(
            pod,
            bundle,
            request.into_inner(),
            outbox,
            self.controller.clone(),
        );
        tokio::spawn(talk);
        Ok(Response::new(ReceiverStream::new(batches)))
    }
}

async fn talk(
    pod: Pod,
    bundle: v1::Resource,
    mut messages: Streaming<v1::FromProxy>,
    outbox: mpsc::Sender<Result<v1::ToProxy, Status>>,
    controller: Controller,
) {
    let mut id = 0;
    let mut generations = controller.generation.subscribe();
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            changed = generations.changed(), if pod == Pod::Client => {
                let generation = *generations.borrow_and_update();
                id += 1;
                let set = resources::changed(generation);
                if changed.is_err() || send(&outbox, id, false, set).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Ok(Some(message)) = message else { return };
        let (full, set) = match message.message {
            Some(v1::from_proxy::Message::Hello(hello)) => {
                let own = std::iter::once(bundle.clone()).chain(resources::own(pod));
                (true, own.chain(described(&hello.destinations)).collect())
            }
            Some(v1::from_proxy::Message::Subscribe(change)) => (false, described(&change.add)),
            Some(v1::from_proxy::Message::Ack(ack)) => {
                let said = ack
                    .nacks
                    .iter()
                    .map(|nack| format!("{} {}: {}", pod.name(), nack.name, nack.reason));
                let mut refusals = controller
                    .refusals
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                refusals.extend(said);
                if pod == Pod::Client {
                    controller.acknowledged.fetch_add(1, Ordering::Release);
                }
                continue;
            }
            Some(v1::from_proxy::Message::Report(_)) | None => continue,
        };
        id += 1;
        if send(&outbox, id, full, set).await.is_err() {
            return;
        }
    }
}

/// # Errors
/// When the proxy has gone.
async fn send(
    outbox: &mpsc::Sender<Result<v1::ToProxy, Status>>,
    id: u64,
    full: bool,
    set: Vec<v1::Resource>,
) -> Result<(), mpsc::error::SendError<Result<v1::ToProxy, Status>>> {
    let batch = v1::Batch {
        id,
        full,
        set,
        ..v1::Batch::default()
    };
    let message = v1::ToProxy {
        message: Some(v1::to_proxy::Message::Batch(batch)),
    };
    outbox.send(Ok(message)).await
}

fn described(names: &[String]) -> Vec<v1::Resource> {
    names
        .iter()
        .filter_map(|name| match wire::names::parse(name) {
            Some(Name::Destination { ip, port }) => Some(SocketAddr::new(ip, port)),
            _ => None,
        })
        .flat_map(resources::destination)
        .collect()
}

/// A connection that knows which pod its certificate names.
struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = Option<Pod>;

    fn connect_info(&self) -> Option<Pod> {
        let chain = self.0.get_ref().1.peer_certificates()?;
        let identity = peer_identity(chain).ok()?.spiffe;
        (identity.namespace() == Some(NAMESPACE)).then_some(())?;
        Pod::by_name(identity.service_account()?)
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
