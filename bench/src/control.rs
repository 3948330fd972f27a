//! A stand-in for the controller. It speaks the real protocol (Certify without
//! a client certificate, then Stream with one) over the real TLS, and sends a
//! cluster that never changes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use policy::traffic::pod::PodGuard;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wire::names::{self, Name};
use wire::v1::control_server::{Control, ControlServer};
use wire::{convert, v1};

use crate::namespaces::{CONTROL_FOR_CLIENT, CONTROL_FOR_SERVER, Namespaces};
use crate::resources::{self, NAMESPACE, Pod, TRUST_DOMAIN};
use crate::sections;
use crate::standing_in::{self, Authority};

pub(crate) const PORT: u16 = 8443;
/// Batches that wait for a proxy; two proxies subscribe one at a time.
const QUEUE: usize = 64;
/// A proxy applies a batch in far less.
const APPLY_WITHIN: Duration = Duration::from_secs(5);
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;
/// Where a collector of traces is, in the same namespace, if there is one.
pub(crate) const COLLECTOR: u16 = 4318;
/// Unused addresses in the network of each pod's cable.
const UNREACHABLE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 79, 1, 9), Ipv4Addr::new(10, 79, 2, 9)];
/// Spans that a proxy may begin in a second: the most that can be said.
const SPANS: u32 = 10_000;
/// The one tap that there is, and how long it goes on unless it is ended.
const TAP: u64 = 1;
const TAP_LASTS: Duration = Duration::from_secs(600);

/// What the proxies are made to do beside carrying calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Extra {
    #[default]
    Nothing,
    /// So many millionths of all traces, to a collector that takes them or to no collector.
    Traces { share: u32, lost: bool },
    /// Requests of the client whose path begins so, so many in a second.
    Tap { prefix: &'static str, most: u32 },
    /// To go by a TrafficPolicy that sets something in every section.
    Policies,
}

/// The stand-in as the bench sees it.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    /// What proxies refused; must stay empty.
    pub(crate) refusals: Arc<Mutex<Vec<String>>>,
    /// A new number changes [`resources::CHANGED`] endpoints of the many Services.
    generation: Arc<watch::Sender<u32>>,
    /// Batches that the client acknowledged.
    acknowledged: Arc<AtomicU64>,
    extra: Arc<watch::Sender<Extra>>,
    /// Requests that taps have shown.
    shown: Arc<AtomicU64>,
}

impl Controller {
    /// What proxies do from now on, in force some milliseconds later.
    pub(crate) fn send_extra(&self, extra: Extra) {
        self.extra.send_replace(extra);
    }

    /// Requests that taps have shown so far.
    pub(crate) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Relaxed)
    }

    /// Changes endpoints and waits until the client's proxy reports that they are
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
/// process; when the namespace goes, it cannot be reached any more.
pub(crate) fn start(namespaces: &Namespaces, authority: Arc<Authority>) -> Result<Controller> {
    let controller = Controller {
        refusals: Arc::default(),
        generation: Arc::new(watch::Sender::new(0)),
        acknowledged: Arc::default(),
        extra: Arc::new(watch::Sender::new(Extra::default())),
        shown: Arc::default(),
    };
    let kept = controller.clone();
    let listener = namespaces
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
            ..v1::Bundle::default()
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
        request: Request<Streaming<v1::Answered>>,
    ) -> Result<Response<v1::AnswerEnd>, Status> {
        let mut answers = request.into_inner();
        while let Some(answered) = answers.message().await? {
            if matches!(answered.what, Some(v1::answered::What::Record(_))) {
                self.controller.shown.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(Response::new(v1::AnswerEnd {}))
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
    let mut extra = controller.extra.subscribe();
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
            changed = extra.changed() => {
                let now = *extra.borrow_and_update();
                id += 1;
                if changed.is_err() || send_message(&outbox, id, pod, now).await.is_err() {
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
                let detail = ack
                    .nacks
                    .iter()
                    .map(|nack| format!("{} {}: {}", pod.name(), nack.name, nack.reason));
                let mut refusals = controller
                    .refusals
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                refusals.extend(detail);
                if pod == Pod::Client {
                    controller.acknowledged.fetch_add(1, Ordering::Release);
                }
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
    order(outbox, v1::to_proxy::Message::Batch(batch)).await
}

/// # Errors
/// When the proxy has gone.
async fn order(
    outbox: &mpsc::Sender<Result<v1::ToProxy, Status>>,
    message: v1::to_proxy::Message,
) -> Result<(), mpsc::error::SendError<Result<v1::ToProxy, Status>>> {
    let message = Some(message);
    outbox.send(Ok(v1::ToProxy { message })).await
}

/// Makes a proxy do this and nothing else.
///
/// # Errors
/// When the proxy has gone.
async fn send_message(
    outbox: &mpsc::Sender<Result<v1::ToProxy, Status>>,
    id: u64,
    pod: Pod,
    extra: Extra,
) -> Result<(), mpsc::error::SendError<Result<v1::ToProxy, Status>>> {
    let mut batch = v1::Batch {
        id,
        set: vec![telemetry(pod, extra)],
        ..v1::Batch::default()
    };
    let policies = policies(pod);
    if extra == Extra::Policies {
        batch.set.push(policies);
    } else {
        batch.remove.push(policies.name);
    }
    order(outbox, v1::to_proxy::Message::Batch(batch)).await?;
    if pod == Pod::Server {
        return Ok(());
    }
    order(outbox, v1::to_proxy::Message::EndAsk(TAP)).await?;
    let Extra::Tap { prefix, most } = extra else {
        return Ok(());
    };
    let tap = v1::TapAsk {
        path_prefix: prefix.to_owned(),
        max_per_second: most,
        ..v1::TapAsk::default()
    };
    let ask = v1::Ask {
        id: TAP,
        lasts: u64::try_from(TAP_LASTS.as_millis()).unwrap_or(u64::MAX),
        what: Some(v1::ask::What::Tap(tap)),
    };
    order(outbox, v1::to_proxy::Message::Ask(ask)).await
}

/// What policies say of calls to the Service, or of those that come to its pod.
fn policies(pod: Pod) -> v1::Resource {
    let every = sections::every();
    match pod {
        Pod::Client => {
            let policy = convert::policy_message(&every.for_callers());
            let name = names::policy(NAMESPACE, resources::WEB, resources::HTTP_PORT);
            standing_in::resource(&name, v1::resource::Content::Policy(policy))
        }
        Pod::Server => {
            let guarded = every.for_pods();
            let ports = resources::HTTP_TARGETS.map(|port| (port, guarded.clone()));
            let guard = PodGuard {
                ports: ports.into(),
                read_only: None,
            };
            let content = v1::resource::Content::Guard((&guard).into());
            standing_in::resource(names::GUARD, content)
        }
    }
}

fn telemetry(pod: Pod, extra: Extra) -> v1::Resource {
    let tracing = match extra {
        Extra::Traces { share, lost } => {
            let [client, server] = if lost {
                UNREACHABLE
            } else {
                [CONTROL_FOR_CLIENT, CONTROL_FOR_SERVER]
            };
            let collector = match pod {
                Pod::Client => client,
                Pod::Server => server,
            };
            Some(v1::Tracing {
                collector: format!("http://{collector}:{COLLECTOR}"),
                share,
                inject: vec!["tracecontext".to_owned()],
                most_per_second: SPANS,
                paths: true,
                resource: Vec::new(),
            })
        }
        Extra::Nothing | Extra::Tap { .. } | Extra::Policies => None,
    };
    let settings = v1::Telemetry {
        tracing,
        ..v1::Telemetry::default()
    };
    let content = v1::resource::Content::Telemetry(settings);
    standing_in::resource(wire::names::TELEMETRY, content)
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
