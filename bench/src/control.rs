//! A stand-in for the controller. It speaks the real protocol (Certify without
//! a client certificate, then Stream with one) over the real TLS, and tells of a
//! cluster that never changes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::names::Name;
use wire::v1;
use wire::v1::control_server::{Control, ControlServer};

use crate::place::Place;
use crate::resources::{self, NAMESPACE, Pod, TRUST_DOMAIN};
use crate::standing_in::{self, Authority};

pub(crate) const PORT: u16 = 8443;
/// Batches that wait for a proxy; two proxies subscribe one at a time.
const QUEUE: usize = 64;
/// A proxy applies a batch in far less.
const APPLY_WITHIN: Duration = Duration::from_secs(5);
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

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
    let tls = authority.tls(TRUST_DOMAIN)?;
    let accepted = standing_in::accepted(listener, tls, NAMESPACE);
    let control = StandIn {
        authority,
        controller,
    };
    Server::builder()
        .add_service(ControlServer::new(control).max_decoding_message_size(MESSAGE_LIMIT))
        .serve_with_incoming(accepted)
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
        let account = standing_in::account(&request);
        let pod = account.and_then(Pod::by_name);
        let pod = pod.ok_or_else(|| Status::unauthenticated("a stream needs a certificate"))?;
        let (outbox, batches) = mpsc::channel(QUEUE);
        let bundle = v1::Bundle {
            roots: vec![self.authority.root.certificate().to_vec()],
        };
        let bundle =
            standing_in::resource(wire::names::BUNDLE, v1::resource::Content::Bundle(bundle));
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

    async fn answer(
        &self,
        _: Request<Streaming<v1::Answered>>,
    ) -> Result<Response<v1::AnswerEnd>, Status> {
        Err(Status::unimplemented("nobody asks here"))
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
            Some(
                v1::from_proxy::Message::Report(_)
                | v1::from_proxy::Message::Status(_)
                | v1::from_proxy::Message::Pulse(_)
                | v1::from_proxy::Message::SharesTaken(_),
            )
            | None => continue,
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
