//! The application of the scenarios: it answers, fails on command, is as slow as its
//! workers, or calls the next one. It counts its requests, and which ones came from others.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::sticky::mix;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::client::{Call, Client, Target};
use crate::grpc::{EMPTY_MESSAGE, GrpcBody, OK, grpc, whole};
use crate::namespaces::Namespace;

/// Where it serves HTTP/1.1, and gRPC.
pub(super) const HTTP: u16 = 8080;
pub(super) const GRPC: u16 = 8084;
/// What it calls over gRPC, and is called by.
pub(super) const METHOD: &str = "/bench.Echo/Unary";
/// A path whose answer waits for [`POLL`] and for no worker.
pub(super) const LONG_POLL: &str = "/poll";
const POLL: Duration = Duration::from_secs(5);
/// A server with a queue: so many requests at once, for so long each.
pub(super) const WORKERS: usize = 8;
pub(super) const WORK: Duration = Duration::from_millis(10);
/// Requests that wait for a worker. Beyond, it answers at once that it cannot.
const QUEUE: usize = 10_000;
/// One bin of the log.
pub(super) const BIN: Duration = Duration::from_millis(100);
/// Six minutes: longer than any load lasts.
const BINS: usize = 3600;

const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");
/// Headers with what a call is made for; it passes them on if so configured.
const CONTEXT: [&str; 2] = ["traceparent", "weft-context"];
/// The number of a request that must not be served twice.
pub(super) const ID: &str = "bench-id";

/// What kind of application a pod runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Behaviour {
    #[default]
    Answers,
    /// As fast as its workers.
    Works,
    /// Calls this one, and answers as it does.
    Asks(Next),
}

/// The next of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) http: std::net::SocketAddr,
    pub(super) grpc: std::net::SocketAddr,
    pub(super) host: &'static str,
}

/// Numbers that more than one request of a scenario carried.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    once: Mutex<BTreeSet<u64>>,
    again: AtomicU64,
}

impl Repeats {
    /// Requests that were seen a second time, or more often.
    pub(super) fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    fn note(&self, headers: &HeaderMap) {
        let number = headers
            .get(ID)
            .and_then(|id| id.to_str().ok()?.parse().ok());
        if let Some(number) = number {
            let mut once = self.once.lock().unwrap_or_else(PoisonError::into_inner);
            if !once.insert(number) {
                self.again.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct App {
    behaviour: Behaviour,
    repeats: Arc<Repeats>,
    /// Of its answers, so many in a hundred are 503 or grpc-status 14.
    failing: AtomicU8,
    passes_on: AtomicBool,
    /// A request came with what only the mesh can have given it.
    context: AtomicBool,
    requests: AtomicU64,
    workers: Mutex<Arc<Semaphore>>,
    queue: AtomicUsize,
    worked: AtomicU64,
    log: Mutex<(Instant, Vec<u32>)>,
}

/// An application that serves until this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) app: Arc<App>,
    _ends: watch::Sender<()>,
}

/// Serves in the namespace, on a thread of its own.
pub(super) fn start(
    namespace: &Namespace,
    behaviour: Behaviour,
    repeats: &Arc<Repeats>,
) -> Result<Running> {
    let app = Arc::new(App::new(behaviour, repeats));
    let (ends, end) = watch::channel(());
    let serving = Arc::clone(&app);
    namespace.within(|| {
        let listeners = [HTTP, GRPC]
            .map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // A thread begins where the one is that makes it: in the namespace.
        std::thread::Builder::new()
            .name("application".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(serve(&serving, listeners, end)) {
                    eprintln!("weft-bench: an application ended: {error:#}");
                }
            })?;
        Ok(())
    })?;
    Ok(Running { app, _ends: ends })
}

async fn serve(
    app: &Arc<App>,
    listeners: Vec<TcpListener>,
    mut end: watch::Receiver<()>,
) -> Result<()> {
    let next = |grpc| match app.behaviour {
        Behaviour::Asks(next) => Some(Arc::new(Client::new(Target {
            addr: if grpc { next.grpc } else { next.http },
            host: next.host,
            grpc,
        }))),
        Behaviour::Answers | Behaviour::Works => None,
    };
    for (listener, grpc) in listeners.into_iter().zip([false, true]) {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (app, next) = (Arc::clone(app), next(grpc));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(Arc::clone(&app), next.clone(), stream, grpc));
            }
        });
    }
    // Nothing is ever sent: it resolves when the sender is gone.
    let _ = end.changed().await;
    Ok(())
}

async fn connection(app: Arc<App>, next: Option<Arc<Client>>, stream: TcpStream, grpc: bool) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request: Request<Incoming>| {
        let (app, next) = (Arc::clone(&app), next.clone());
        async move { Ok::<_, Infallible>(app.answer(next.as_deref(), request, grpc).await) }
    });
    let stream = TokioIo::new(stream);
    // A caller that goes away is normal.
    if grpc {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(stream, answer).await;
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(stream, answer).await;
    }
}

impl App {
    fn new(behaviour: Behaviour, repeats: &Arc<Repeats>) -> Self {
        Self {
            behaviour,
            repeats: Arc::clone(repeats),
            failing: AtomicU8::new(0),
            passes_on: AtomicBool::new(false),
            context: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            workers: Mutex::new(Arc::new(Semaphore::new(WORKERS))),
            queue: AtomicUsize::new(0),
            worked: AtomicU64::new(0),
            log: Mutex::new((Instant::now(), Vec::new())),
        }
    }

    /// From now on so many answers in a hundred are failures.
    pub(super) fn fail(&self, percent: u8) {
        self.failing.store(percent, Ordering::Relaxed);
    }

    /// Whether it passes on the headers by which the mesh finds what a call belongs to.
    pub(super) fn pass_on(&self, yes: bool) {
        self.passes_on.store(yes, Ordering::Relaxed);
    }

    /// Whether the mesh gave it a context to pass on.
    pub(super) fn got_context(&self) -> bool {
        self.context.load(Ordering::Relaxed)
    }

    /// Counts from here, in bins of [`BIN`].
    pub(super) fn count_from(&self, begin: Instant) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = (begin, Vec::new());
    }

    /// Requests in each bin since then.
    pub(super) fn counted(&self) -> Vec<u32> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.1.clone()
    }

    /// Requests that its workers did.
    pub(super) fn worked(&self) -> u64 {
        self.worked.load(Ordering::Relaxed)
    }

    /// Forgets whatever waits for a worker.
    pub(super) fn drop_queue(&self) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.close();
        *workers = Arc::new(Semaphore::new(WORKERS));
    }

    async fn answer(
        self: &Arc<Self>,
        next: Option<&Client>,
        request: Request<Incoming>,
        grpc: bool,
    ) -> Response<GrpcBody> {
        let (head, body) = request.into_parts();
        // A body that broke off gets no response.
        let _ = body.collect().await;
        self.note(&head.headers);
        let good = if head.uri.path() == LONG_POLL {
            tokio::time::sleep(POLL).await;
            true
        } else {
            !self.fails() && self.does(next, &head.headers).await
        };
        reply(good, grpc)
    }

    async fn does(self: &Arc<Self>, next: Option<&Client>, headers: &HeaderMap) -> bool {
        match (self.behaviour, next) {
            (Behaviour::Works, _) => self.work().await,
            (_, Some(next)) => next.call(&self.made_for(headers)).await.unwrap_or(false),
            (_, None) => true,
        }
    }

    /// The call to the next one that a request is served by.
    fn made_for(&self, headers: &HeaderMap) -> Call {
        let passed = CONTEXT.into_iter().filter_map(|name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some((name, value.to_owned()))
        });
        Call {
            method: "GET",
            path: METHOD,
            headers: if self.passes_on.load(Ordering::Relaxed) {
                passed.collect()
            } else {
                Vec::new()
            },
        }
    }

    async fn work(self: &Arc<Self>) -> bool {
        let workers = self.workers();
        let before = self.queue.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(Arc::clone(self));
        if before >= QUEUE {
            return false;
        }
        // What waits is worked on even when its caller has left, as by most servers.
        let working = tokio::spawn(async move {
            let Ok(_one) = workers.acquire().await else {
                return false;
            };
            tokio::time::sleep(WORK).await;
            waits.0.worked.fetch_add(1, Ordering::Relaxed);
            true
        });
        working.await.unwrap_or(false)
    }

    fn workers(&self) -> Arc<Semaphore> {
        Arc::clone(&self.workers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, headers: &HeaderMap) {
        self.repeats.note(headers);
        if headers.contains_key("weft-context") {
            self.context.store(true, Ordering::Relaxed);
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // Before its beginning, and long after it, nothing is counted.
        let Some(since) = Instant::now().checked_duration_since(log.0) else {
            return;
        };
        let bin = (since.as_millis() / BIN.as_millis()) as usize;
        if bin < BINS {
            if log.1.len() <= bin {
                log.1.resize(bin + 1, 0);
            }
            log.1[bin] += 1;
        }
    }

    fn fails(&self) -> bool {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        // Without any order, and the same in each run.
        mix(number) % 100 < u64::from(self.failing.load(Ordering::Relaxed))
    }
}

/// A place in the queue.
#[derive(Debug)]
struct Waits(Arc<App>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.queue.fetch_sub(1, Ordering::Relaxed);
    }
}

fn reply(good: bool, over_grpc: bool) -> Response<GrpcBody> {
    match (over_grpc, good) {
        (true, true) => grpc(whole(Bytes::from_static(&EMPTY_MESSAGE)), OK),
        (true, false) => {
            // Before any message: what a mesh may try again.
            let mut response = Response::new(whole(Bytes::new()));
            let headers = response.headers_mut();
            let grpc = HeaderValue::from_static("application/grpc");
            headers.insert("content-type", grpc);
            headers.insert("grpc-status", UNAVAILABLE);
            response
        }
        (false, true) => Response::new(whole(Bytes::from_static(b"ok"))),
        (false, false) => {
            let mut response = Response::new(whole(Bytes::from_static(b"no")));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;

    use policy::sticky::mix;
    use tokio::sync::watch;

    use super::{App, Behaviour, Call, Client, ID, METHOD, Repeats, Target, serve};

    /// Else "none was seen twice" would say nothing of gRPC.
    #[tokio::test]
    async fn id_seen_by_two_grpc_applications_is_counted() {
        let repeats = Arc::<Repeats>::default();
        let call = Call {
            method: "POST",
            path: METHOD,
            headers: vec![(ID, "7".to_owned())],
        };
        let (_ends, end) = watch::channel(());
        for again in [0, 1] {
            let app = Arc::new(App::new(Behaviour::Answers, &repeats));
            let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
            let client = Client::new(Target {
                addr: listeners[1].local_addr().unwrap(),
                host: "web",
                grpc: true,
            });
            let good = tokio::select! {
                ended = serve(&app, listeners.into(), end.clone()) => panic!("{ended:?}"),
                good = client.call(&call) => good.unwrap(),
            };
            assert!(good);
            assert_eq!(repeats.again(), again);
        }
    }

    #[test]
    fn thirty_percent_fail_but_never_twenty_in_a_row() {
        let failed: Vec<bool> = (0..10_000).map(|n| mix(n) % 100 < 30).collect();
        let count = failed.iter().filter(|failed| **failed).count();
        assert!((2800..3200).contains(&count), "{count}");
        assert!(
            failed
                .windows(20)
                .all(|row| row.iter().any(|failed| !failed))
        );
    }
}
