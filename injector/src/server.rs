//! The HTTPS server that the API server calls.
//!
//! Every pod of the cluster can reach it, and the API server presents no certificate here. So only
//! their address distinguishes callers, and everything is shared by address: connections, bytes,
//! and concurrent reads. When a bound is reached, the largest holder by address is evicted. The
//! API server holds little, so a flood may delay it, and neither shuts it out nor exhausts this
//! process. A flood from more addresses than there are permits holds as little from each: then
//! connections of an address whose calls were answered are spared.
//!
//! Bytes are counted from the first one of a body until the last one of the response is sent. A
//! parsed body can take a hundred times its length in memory, and evaluating it can take as long
//! as matching a thousand requests. So that is done beside this thread, one review at a time and
//! by turns of the addresses; see [`lanes`].

mod counted;
mod lanes;
mod outcome;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crds::{inject, smi::validation::Cluster};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use runtime::https::{self, Bounds, HttpsListener};
use runtime::keyed_semaphore::KeyedSemaphore;
use runtime::pool::{Limits, Pool};
use runtime::rate::Allowance;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use counted::{CallBytes, Caller, CountedResponse, read};
use lanes::{Lanes, MAX_COST};
use outcome::{ReviewOutcome, answered, failure, json, refused, unanswered};

use crate::metrics::Metrics;
use crate::mutate::{self, Mutator};
use crate::obstacles::Obstacles;
use crate::review::{About, AdmissionResponse};
use crate::{account, convert, review, spelling, validate};

/// Bytes of one call. The API server's own limit for a request is 3 MiB.
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;
/// Bytes of one conversion, which may hold many objects. etcd takes 1.5 MiB for one, and the API
/// server mostly sends one at a time.
pub(crate) const MAX_CONVERSION: usize = 16 * 1024 * 1024;
/// Bytes of the bodies and answers of all calls at one time. With 128 MiB for the process
/// and what the lanes may take, this leaves 36 MiB for connections and everything else.
const MEMORY: Limits = Limits {
    total: 24 * 1024 * 1024,
    per_holder: 24 * 1024 * 1024,
};
/// Namespaces that are read at one time, and those for one address.
const MAX_LOOKUPS: (usize, usize) = (32, 24);
/// Connections at one time: a few API servers, with a few connections each, and room.
const CONNECTIONS: Limits = Limits {
    total: 128,
    per_holder: 64,
};
/// Connections of an address whose calls were answered that are spared: those of an API
/// server, also where several come through one proxy.
const SPARED: usize = 16;
/// New connections of one address. API servers keep theirs.
const ARRIVALS: Allowance = Allowance {
    burst: 200,
    every: Duration::from_millis(10),
};
/// As many streams as one API server has calls under way, so that they queue here, where
/// turns are taken, and not there; bodies are read as they come.
const BOUNDS: Bounds = Bounds {
    handshake: Duration::from_secs(5),
    streams: 64,
    headers: 16 * 1024,
    windows: (64 * 1024, 128 * 1024),
};
/// Time for one call, from its head to its answer. The webhooks are configured with 5 s,
/// and an answer that says why is better than none.
const CALL_TIMEOUT: Duration = Duration::from_millis(4500);

/// What answers the calls.
pub(crate) struct Webhooks {
    mutator: Mutator,
    cluster: Arc<Cluster>,
    metrics: Metrics,
    lanes: Lanes,
    lookups: KeyedSemaphore<IpAddr>,
    memory: Pool<IpAddr>,
    obstacles: Option<Arc<Obstacles>>,
}

impl Webhooks {
    pub(crate) fn new(mutator: Mutator, cluster: Cluster, metrics: Metrics) -> Self {
        Self {
            mutator,
            cluster: Arc::new(cluster),
            lanes: Lanes::new(&metrics.limits),
            lookups: KeyedSemaphore::new(MAX_LOOKUPS.0, MAX_LOOKUPS.1),
            memory: Pool::new(MEMORY, metrics.limits.counter("memory")),
            metrics,
            obstacles: None,
        }
    }

    /// The same, reporting what keeps pods with a proxy out.
    pub(crate) fn reporting(mut self, obstacles: Obstacles) -> Self {
        self.obstacles = Some(Arc::new(obstacles));
        self
    }
}

/// Accepts until `stop` ends, then lets open connections finish for `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    webhooks: Arc<Webhooks>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = GracefulShutdown::new();
    let limits = &webhooks.metrics.limits;
    let permits = Pool::sparing(SPARED, CONNECTIONS, limits.counter("connections"));
    let listener = HttpsListener::new(
        listener,
        "webhooks",
        ARRIVALS,
        limits.counter("connection-rate"),
        limits.counter("open-files"),
    );
    let mut stop = pin!(stop);
    loop {
        let admitted = tokio::select! {
            admitted = listener.next() => admitted,
            () = &mut stop => break,
        };
        let Ok((stream, addr)) = admitted else {
            continue;
        };
        let source = https::source(addr);
        let (Ok(permit), Ok(memory)) = (permits.take(source, 1), webhooks.memory.take(source, 0))
        else {
            continue;
        };
        let caller = Arc::new(Caller::new(source, permit, memory));
        let (acceptor, webhooks) = (acceptor.clone(), Arc::clone(&webhooks));
        let watcher = graceful.watcher();
        #[expect(
            clippy::disallowed_methods,
            reason = "one connection's task: its panic ends that connection only"
        )]
        tokio::spawn(attend(stream, addr, acceptor, webhooks, caller, watcher));
    }
    drop(listener);
    let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
}

/// One connection, from its handshake to its end.
async fn attend(
    stream: TcpStream,
    addr: SocketAddr,
    acceptor: TlsAcceptor,
    webhooks: Arc<Webhooks>,
    caller: Arc<Caller>,
    watcher: Watcher,
) {
    tokio::select! {
        () = serve_connection(stream, acceptor, webhooks, Arc::clone(&caller), watcher) => {}
        () = caller.permit.taken() => debug!(%addr, "connection closed: there are too many"),
        () = caller.memory.taken() => {
            warn!(%addr, "connection closed: its calls hold most of the memory, and others need some");
        }
        () = caller.stuck.notified() => debug!(%addr, "connection closed: it took no answer"),
    }
    caller.close();
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    webhooks: Arc<Webhooks>,
    caller: Arc<Caller>,
    watcher: Watcher,
) {
    let Some(stream) = BOUNDS.handshake(acceptor, stream).await else {
        return;
    };
    let service = service_fn(move |request| {
        let webhooks = Arc::clone(&webhooks);
        let caller = Arc::clone(&caller);
        async move { Ok::<_, Infallible>(webhooks.call(request, caller).await) }
    });
    let connection = BOUNDS
        .http()
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "connection ended");
    }
}

impl Webhooks {
    async fn call(
        &self,
        request: Request<Incoming>,
        caller: Arc<Caller>,
    ) -> Response<CountedResponse> {
        let began = Instant::now();
        let path = match request.uri().path() {
            "/mutate" => "mutate",
            "/validate" => "validate",
            "/account" => "account",
            "/ephemeral" => "ephemeral",
            "/spelling" => "spelling",
            "/convert" => "convert",
            _ => "other",
        };
        let mut reserved = CallBytes::new(Arc::clone(&caller));
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.answer(path, request, &mut reserved));
        let answer = tokio::select! {
            answer = answer => answer,
            // No caller waits, and its bytes belong to another one by now.
            () = caller.closed() => Ok(Err(unanswered())),
        };
        let outcome = match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(outcome)) => *outcome,
            Err(_) => failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "timeout",
                "the call took too long",
            ),
        };
        let outcome = match reserved.resize(outcome.response.body().len()) {
            Ok(()) => outcome,
            Err(overload) => *overload,
        };
        if outcome.response.status().is_success() {
            caller.permit.completed();
        }
        self.metrics
            .review(path, outcome.outcome, outcome.reason, began.elapsed());
        outcome
            .response
            .map(|body| CountedResponse::new(body, reserved))
    }

    /// The answer, or why there is none.
    async fn answer(
        &self,
        path: &'static str,
        request: Request<Incoming>,
        reserved: &mut CallBytes,
    ) -> Result<ReviewOutcome, Box<ReviewOutcome>> {
        if path == "other" {
            let message = "no such page";
            return Err(refused(StatusCode::NOT_FOUND, "no-such-path", message));
        }
        if request.method() != Method::POST {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Err(refused(status, "bad-method", "use POST"));
        }
        let conversion = path == "convert";
        let most = if conversion { MAX_CONVERSION } else { MAX_BODY };
        let body = Bytes::from(read(request.into_body(), most, reserved).await?);
        let source = reserved.caller.source;
        let lane = self.lanes.of(&body);
        if conversion {
            return lane.run(source, move || converted(&body)).await?;
        }
        if path != "mutate" {
            let cluster = Arc::clone(&self.cluster);
            return lane
                .run(source, move || validated(path, &body, &cluster))
                .await?;
        }
        let (namespace, dry_run) = {
            let body = body.clone();
            let about = lane.run(source, move || read_as(&body, review::about));
            let about = about.await??;
            if !about.is_new_pod() {
                return Ok(answered(
                    AdmissionResponse::allow(),
                    &about.uid,
                    "ignored",
                    "",
                ));
            }
            let _permit = self.lookups.acquire(source).await;
            let namespace = self.namespace(&about).await?;
            (namespace, about.dry_run.unwrap_or_default())
        };
        let (mutator, name) = (self.mutator.clone(), namespace.name.clone());
        let mutated = lane.run(source, move || mutated(&mutator, &body, &namespace));
        let (outcome, demand) = mutated.await??;
        if let (Some(obstacles), Some(demand)) = (&self.obstacles, demand)
            && !dry_run
        {
            obstacles.look(&name, demand);
        }
        Ok(outcome)
    }

    async fn namespace(&self, about: &About) -> Result<inject::Namespace, Box<ReviewOutcome>> {
        self.mutator.namespace(about).await.map_err(|error| {
            let namespace = about.namespace.as_str();
            warn!(%error, namespace, "namespace could not be read");
            // Without the API server's message: the client may not read it itself.
            let message = "weft could not read the namespace; the injector's log says why";
            refused(StatusCode::SERVICE_UNAVAILABLE, "no-namespace", message)
        })
    }
}

/// The review in a body, if it may be read.
fn read_as<R>(
    body: &[u8],
    read: impl FnOnce(&[u8]) -> Result<R, review::BadReview>,
) -> Result<R, Box<ReviewOutcome>> {
    must_fit(review::cost(body).whole)?;
    read(body).map_err(|error| refused(StatusCode::BAD_REQUEST, "bad-review", &error.to_string()))
}

fn must_fit(cost: usize) -> Result<(), Box<ReviewOutcome>> {
    if cost <= MAX_COST {
        return Ok(());
    }
    Err(refused(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-large",
        "reading this body would take too much memory: it holds too many values",
    ))
}

fn mutated(
    mutator: &Mutator,
    body: &[u8],
    namespace: &inject::Namespace,
) -> Result<(ReviewOutcome, Option<inject::PodDemand>), Box<ReviewOutcome>> {
    let review = read_as(body, review::parse)?;
    must_fit(mutate::COPIES * review::size(&review.object))?;
    let mutation = mutator.mutate(&review, namespace);
    let outcome = answered(
        mutation.answer,
        &review.uid,
        mutation.outcome,
        mutation.reason,
    );
    Ok((outcome, mutation.demand))
}

fn validated(
    path: &'static str,
    body: &[u8],
    cluster: &Cluster,
) -> Result<ReviewOutcome, Box<ReviewOutcome>> {
    let review = read_as(body, review::parse)?;
    let answer = match path {
        "account" => account::check(&review),
        "ephemeral" => mutate::ephemeral(&review),
        "spelling" => spelling::check(&review),
        _ => validate::validate(&review, cluster),
    };
    let outcome = if answer.refusal.is_none() {
        "valid"
    } else {
        "invalid"
    };
    Ok(answered(answer, &review.uid, outcome, ""))
}

fn converted(body: &[u8]) -> Result<ReviewOutcome, Box<ReviewOutcome>> {
    // One object is read at a time, and converted into another; the answer grows beside
    // them.
    must_fit(2 * review::cost(body).part + 2 * body.len())?;
    let converted = convert::answer(body)
        .map_err(|error| refused(StatusCode::BAD_REQUEST, "bad-review", &error.to_string()))?;
    if let Some(message) = converted.refusal {
        warn!(message, "objects could not be converted");
    }
    Ok(ReviewOutcome {
        response: json(converted.review.into()),
        outcome: converted.outcome,
        reason: converted.reason,
    })
}

#[cfg(test)]
mod tests;
