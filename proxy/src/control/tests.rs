//! A controller on loopback whose authority can be replaced under it.
//!
//! Claims: attack-87

mod automation;
mod breakers;
mod certificate;
mod older;
mod revoked;
mod shares;
mod startup;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::{Instant, SystemTime};

use identity::LeafKey;
use identity::Roots;
use identity::authority::{ISSUER_LIFE, LeafNames, ROOT_LIFE};
use identity::tls::ClientAuth;
use identity::tls::{self, CertHandle, H2_ALPN, Leaf};
use identity::verify::{Purpose, verify_chain};
use identity::{Issuer, Root};
use parking_lot::Mutex;
use policy::access_log::AccessLog;
use policy::name::SpiffeId;
use prometheus_client::registry::Registry;
use runtime::clock::Clock;
use runtime::env::EnvReader;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::v1;
use wire::v1::control_server::{Control as Service, ControlServer};

use super::Control;
use crate::config::store::Store;
use crate::control::certificate::FRESH_FOR;
use crate::control::trust_bundle::BUNDLE_EVERY;
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;

const PATIENCE: Duration = Duration::from_secs(20);
const LIFE: Duration = Duration::from_secs(24 * 3600);

fn id(namespace: &str, account: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", namespace, account).unwrap()
}

pub(super) struct Ca {
    root: Root,
    issuer: Issuer,
}

impl Ca {
    pub(super) fn new() -> Arc<Self> {
        let now = SystemTime::now();
        let root = Root::generate(now, ROOT_LIFE).unwrap();
        let issuer = root.issuer(now, ISSUER_LIFE).unwrap();
        Arc::new(Self { root, issuer })
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.certificate().clone()]
    }

    fn issue(&self, csr: &[u8], spiffe: SpiffeId, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let names = LeafNames {
            spiffe,
            pod_dns: None,
        };
        self.issuer.issue(csr, &names, now, LIFE).unwrap().chain
    }

    fn signed(&self, leaf: &Leaf) -> bool {
        let roots = Roots::new(&id("shop", "web"), self.roots()).unwrap();
        verify_chain(&roots, leaf.chain(), UnixTime::now(), Purpose::Client).is_ok()
    }
}

/// What its connections share.
#[derive(Clone)]
struct StandIn {
    ca: Arc<Mutex<Arc<Ca>>>,
    clock: Clock,
    issued: Arc<AtomicUsize>,
    /// Why it issues none.
    denial: Arc<Mutex<Option<&'static str>>>,
    streams: Arc<AtomicUsize>,
    /// Status reports of proxies.
    statuses: Arc<Mutex<Vec<v1::ProxyStatus>>>,
    /// To the proxy whose stream opened last.
    proxy: Arc<Mutex<Option<ToProxies>>>,
    /// Calls that bring answers, and what they brought.
    answers: Arc<AtomicUsize>,
    answered: Arc<Mutex<Vec<v1::Answered>>>,
    /// Their breaker reports of calls to Services with a breaker. A proxy that reports failures
    /// gets back that the breaker is open.
    breaker_reports: Arc<Mutex<Vec<v1::CircuitPulse>>>,
    /// Shares that they reported as taken.
    taken: Arc<Mutex<Vec<v1::SharesTaken>>>,
    /// All messages of them.
    messages: Arc<Mutex<Vec<v1::FromProxy>>>,
}

type ToProxies = mpsc::Sender<Result<v1::ToProxy, Status>>;

#[tonic::async_trait]
impl Service for StandIn {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        if let Some(why) = *self.denial.lock() {
            return Err(Status::permission_denied(why));
        }
        let ca = Arc::clone(&self.ca.lock());
        let csr = request.into_inner().csr;
        let chain = ca.issue(&csr, id("shop", "web"), self.clock.now());
        self.issued.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(v1::CertifyResponse {
            chain: chain.iter().map(|one| one.to_vec()).collect(),
            roots: ca.roots().iter().map(|one| one.to_vec()).collect(),
        }))
    }

    type StreamStream = ReceiverStream<Result<v1::ToProxy, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::FromProxy>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        let (sender, batches) = mpsc::channel(1);
        *self.proxy.lock() = Some(sender.clone());
        let (mut incoming, statuses) = (request.into_inner(), Arc::clone(&self.statuses));
        let (breaker_reports, taken) = (Arc::clone(&self.breaker_reports), Arc::clone(&self.taken));
        let (fleet_states, messages) = (sender.clone(), Arc::clone(&self.messages));
        // Open for as long as the connection.
        tokio::spawn(async move {
            let listening = async {
                while let Ok(Some(message)) = incoming.message().await {
                    messages.lock().push(message.clone());
                    match message.message {
                        Some(v1::from_proxy::Message::Status(status)) => {
                            statuses.lock().push(status)
                        }
                        Some(v1::from_proxy::Message::Pulse(breaker_report)) => {
                            let _ = fleet_states.send(Ok(opens(&breaker_report))).await;
                            breaker_reports.lock().extend(breaker_report.circuits);
                        }
                        Some(v1::from_proxy::Message::SharesTaken(shares)) => {
                            taken.lock().push(shares);
                        }
                        _ => {}
                    }
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = listening => {}
                () = sender.closed() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(batches)))
    }

    async fn answer(
        &self,
        request: Request<Streaming<v1::Answered>>,
    ) -> Result<Response<v1::AnswerEnd>, Status> {
        self.answers.fetch_add(1, Ordering::Relaxed);
        let mut answers = request.into_inner();
        while let Some(answered) = answers.message().await? {
            self.answered.lock().push(answered);
        }
        Ok(Response::new(v1::AnswerEnd {}))
    }
}

/// That the breakers of which something failed are open.
fn opens(breaker_report: &v1::Pulse) -> v1::ToProxy {
    let failing = breaker_report.circuits.iter().filter(|one| one.failed > 0);
    let states = failing.map(|one| v1::CircuitState {
        circuit: one.circuit.clone(),
        state: v1::circuit_state::State::Open.into(),
        ..v1::CircuitState::default()
    });
    v1::ToProxy {
        message: Some(v1::to_proxy::Message::Steer(v1::Steer {
            states: states.collect(),
        })),
    }
}

pub(super) struct Bench {
    stand_in: StandIn,
    roots: Roots,
    serving: CertHandle,
    connections: Arc<Mutex<JoinSet<()>>>,
    pub(super) control: Control,
    bundle: PathBuf,
    ahead: Arc<AtomicUsize>,
    draining: watch::Sender<bool>,
}

impl Bench {
    /// A proxy that has got its certificate and its stream from a controller of `ca`.
    pub(super) async fn start(ca: &Arc<Ca>) -> Self {
        let ahead = Arc::new(AtomicUsize::new(0));
        let jump = Arc::clone(&ahead);
        let clock = Clock::from_fn(move || {
            SystemTime::now() + Duration::from_secs(jump.load(Ordering::Relaxed) as u64)
        });
        let stand_in = StandIn {
            ca: Arc::new(Mutex::new(Arc::clone(ca))),
            clock: clock.clone(),
            issued: Arc::default(),
            denial: Arc::default(),
            streams: Arc::default(),
            statuses: Arc::default(),
            proxy: Arc::default(),
            answers: Arc::default(),
            answered: Arc::default(),
            breaker_reports: Arc::default(),
            taken: Arc::default(),
            messages: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let controller = listener.local_addr().unwrap().to_string();
        let roots = Roots::new(&id("shop", "web"), ca.roots()).unwrap();
        let serving = CertHandle::empty();
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let bundle = file("ca.crt", ca.root.cert_pem());
        let token = file("token", "a token");
        let Settings { workload, .. } = Settings::read(EnvReader::from_map([
            ("WEFT_TRUST_DOMAIN", "cluster.local"),
            ("WEFT_NAMESPACE", "shop"),
            ("WEFT_SERVICE_ACCOUNT", "web"),
            ("WEFT_CONTROLLER_NAMESPACE", "weft-system"),
            ("WEFT_POD_NAME", "web"),
            ("WEFT_POD_IPS", "127.0.0.1"),
            ("WEFT_CONTROLLER_ADDRESS", &controller),
            ("WEFT_TOKEN_FILE", token.to_str().unwrap()),
            ("WEFT_TRUST_BUNDLE", bundle.to_str().unwrap()),
        ]))
        .unwrap();
        let mut registry = Registry::default();
        let telemetry = Telemetry::new(Metrics::register(&mut registry), AccessLog::OFF);
        let certs = CertHandle::empty();
        let trusted = Roots::new(&id("shop", "web"), ca.roots()).unwrap();
        let config = Store::new(Arc::new(telemetry)).of_pod(certs.clone(), trusted.clone());
        let draining = watch::Sender::new(false);
        let bench = Self {
            control: Control {
                identity: workload.own.identity,
                controller: Arc::new(workload.controller),
                config: Arc::new(config),
                certs,
                roots: trusted,
                refused: Arc::default(),
                denied: Arc::default(),
                renew_within: watch::Sender::default(),
                clock,
                draining: draining.subscribe(),
            },
            draining,
            stand_in,
            roots,
            serving,
            connections,
            bundle,
            ahead,
        };
        bench.becomes(ca);
        bench.accept(listener);
        let mut progress = bench.control.clone().start();
        let certified = progress.certified.wait_for(|certified| *certified);
        timeout(PATIENCE, certified).await.unwrap().unwrap();
        bench.until(|bench| bench.streams() == 1).await;
        bench
    }

    fn accept(&self, listener: TcpListener) {
        let tls =
            tls::mesh_server_config(&self.roots, &self.serving, &[H2_ALPN], ClientAuth::Optional);
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let (connections, stand_in) = (Arc::clone(&self.connections), self.stand_in.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, stand_in) = (acceptor.clone(), stand_in.clone());
                connections.lock().spawn(async move {
                    let Ok(mut stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    // tonic knows this kind of stream already.
                    let (mut near, far) = tokio::io::duplex(64 * 1024);
                    let served = tonic::transport::Server::builder()
                        .add_service(ControlServer::new(stand_in))
                        .serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(far)));
                    let copied = tokio::io::copy_bidirectional(&mut stream, &mut near);
                    let _ = tokio::join!(served, copied);
                });
            }
        });
    }

    /// All controllers are of `ca` from now on, and connections end.
    fn becomes(&self, ca: &Arc<Ca>) {
        let key = LeafKey::generate().unwrap();
        let own = id("weft-system", "weft-controller");
        let chain = ca.issue(&key.csr().unwrap(), own, self.stand_in.clock.now());
        self.roots.replace(ca.roots()).unwrap();
        self.serving.store(Leaf::new(chain, &key).unwrap());
        *self.stand_in.ca.lock() = Arc::clone(ca);
        self.connections.lock().abort_all();
    }

    fn mount(&self, ca: &Ca) {
        std::fs::write(&self.bundle, ca.root.cert_pem()).unwrap();
    }

    fn streams(&self) -> usize {
        self.stand_in.streams.load(Ordering::Relaxed)
    }

    fn issued(&self) -> usize {
        self.stand_in.issued.load(Ordering::Relaxed)
    }

    fn holds_one_of(&self, ca: &Ca) -> bool {
        ca.signed(&self.control.certs.current().unwrap())
    }

    /// Sends a message on the proxy's stream.
    pub(super) async fn send_message(&self, message: v1::to_proxy::Message) {
        let proxy = self.stand_in.proxy.lock().clone().unwrap();
        let message = v1::ToProxy {
            message: Some(message),
        };
        proxy.send(Ok(message)).await.unwrap();
    }

    pub(super) fn answers(&self) -> usize {
        self.stand_in.answers.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) -> Vec<v1::Answered> {
        self.stand_in.answered.lock().clone()
    }

    pub(super) async fn until(&self, so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !so(self) {
            assert!(start.elapsed() < PATIENCE, "it did not become so in time");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Timers go on by this much at once; sockets need real time.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn file(name: &str, content: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = format!("weft-control-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

// Claims: M3
#[tokio::test]
async fn clock_jumping_past_renewal_renews_within_one_check() {
    let bench = Bench::start(&Ca::new()).await;
    pass(2 * runtime::clock::LOOK_EVERY).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), 1, "nothing is due yet");
    // A machine that slept over the renewal, and over the end of the certificate.
    for (hours, certificates) in [(20, 2), (20 + 30, 3)] {
        bench.ahead.store(hours * 3600, Ordering::Relaxed);
        pass(runtime::clock::LOOK_EVERY).await;
        bench.until(|bench| bench.issued() == certificates).await;
        let now = bench.stand_in.clock.now();
        bench
            .until(|bench| bench.control.certs.not_after().is_some_and(|end| end > now))
            .await;
    }
}

/// What it got meanwhile is refused by every peer that knows the time, for hours.
// Claims: attack-86
#[tokio::test]
async fn corrected_fast_clock_renews_certificate_within_one_check() {
    let bench = Bench::start(&Ca::new()).await;
    let begins_in_future = |bench: &Bench| {
        let leaf = bench.control.certs.current().unwrap();
        leaf.not_before() > bench.stand_in.clock.now()
    };
    bench.ahead.store(20 * 3600, Ordering::Relaxed);
    pass(runtime::clock::LOOK_EVERY).await;
    bench.until(|bench| bench.issued() == 2).await;
    sleep(Duration::from_millis(300)).await;

    // Less than a certificate is backdated by.
    bench.ahead.fetch_sub(120, Ordering::Relaxed);
    pass(2 * runtime::clock::LOOK_EVERY).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.issued(), 2, "it is valid still");

    bench.ahead.store(0, Ordering::Relaxed);
    assert!(begins_in_future(&bench));
    pass(runtime::clock::LOOK_EVERY).await;
    bench.until(|bench| !begins_in_future(bench)).await;
    assert_eq!(bench.issued(), 3);
}

// Claims: M4
#[tokio::test]
async fn proxy_that_missed_root_rotation_recovers_through_mounted_bundle() {
    let (old, new) = (Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    bench.mount(&new);
    bench.becomes(&new);
    pass(FRESH_FOR).await;
    bench.until(|bench| bench.holds_one_of(&new)).await;
    assert_eq!(bench.control.roots.certificates(), new.roots());
    bench.until(|bench| bench.streams() >= 2).await;
}

// Claims: M4
#[tokio::test]
async fn mounted_bundle_is_trusted_only_for_certificate_connection() {
    let (old, new, stranger) = (Ca::new(), Ca::new(), Ca::new());
    let bench = Bench::start(&old).await;
    let trusted = |bench: &Bench| {
        assert!(bench.holds_one_of(&old), "the certificate is kept");
        assert_eq!(bench.control.roots.certificates(), old.roots());
    };
    // A root of another authority is there: while controllers are known it is not read.
    bench.mount(&stranger);
    pass(FRESH_FOR).await;
    sleep(3 * BUNDLE_EVERY / 2).await;
    trusted(&bench);
    assert_eq!(bench.issued(), 1);

    // Neither does it help a controller of a third authority.
    bench.becomes(&new);
    pass(FRESH_FOR).await;
    let failures = || {
        bench
            .control
            .config
            .telemetry
            .metrics
            .certificate_failures
            .get()
    };
    bench.until(|_| failures() >= 2).await;
    trusted(&bench);

    // Controllers that are known again are found, whatever is mounted.
    let streams = bench.streams();
    bench.becomes(&old);
    bench.until(|bench| bench.streams() > streams).await;
    trusted(&bench);
}
