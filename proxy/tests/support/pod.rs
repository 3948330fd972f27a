//! Pods, an authority, and the resources that a controller would send.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::LeafKey;
use identity::Roots;
use identity::authority::{ISSUER_LIFE, Issuer, LeafNames, ROOT_LIFE, Root};
use identity::tls::{CertHandle, Leaf};
use parking_lot::Mutex;
use policy::access_log::AccessLog;
use policy::name::SpiffeId;
use prometheus_client::registry::Registry;
use runtime::env::EnvReader;
use runtime::occupancy::{Occupancy, Permit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::Budget;
use weft_proxy::MESH_PORT;
use weft_proxy::Metrics;
use weft_proxy::Own;
use weft_proxy::Proxy;
use weft_proxy::Settings;
use weft_proxy::Telemetry;
use weft_proxy::{serve_mesh, serve_outbound, serve_plain};
use wire::v1;

mod resources;

pub(crate) use resources::*;

pub(crate) struct Authority {
    root: Root,
    issuer: Issuer,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now() - Duration::from_secs(24 * 3600);
        let root = Root::generate(now, ROOT_LIFE).unwrap();
        let issuer = root.issuer(now, ISSUER_LIFE).unwrap();
        Self { root, issuer }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::new(&id("web"), vec![self.root.certificate().clone()]).unwrap()
    }

    pub(crate) fn leaf(&self, account: &str, life: Duration, now: SystemTime) -> CertHandle {
        self.leaf_of(account, None, life, now)
    }

    /// A certificate that may say which pod it is for.
    fn leaf_of(
        &self,
        account: &str,
        uid: Option<&str>,
        life: Duration,
        now: SystemTime,
    ) -> CertHandle {
        self.leaf_named(id(account), uid, life, now)
    }

    /// A certificate with an identity of any trust domain.
    pub(crate) fn leaf_named(
        &self,
        spiffe: SpiffeId,
        uid: Option<&str>,
        life: Duration,
        now: SystemTime,
    ) -> CertHandle {
        let key = LeafKey::generate().unwrap();
        let names = LeafNames {
            spiffe,
            pod_dns: uid.map(|uid| identity::verify::pod_dns(uid).unwrap()),
        };
        let issued = self
            .issuer
            .issue(&key.csr().unwrap(), &names, now, life)
            .unwrap();
        let handle = CertHandle::empty();
        handle.store(Leaf::new(issued.chain, &key).unwrap());
        handle
    }
}

pub(crate) fn id(account: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", account).unwrap()
}

/// A pod of its own address, which no other test of the process uses.
pub(crate) struct Pod {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) ip: IpAddr,
    pub(crate) registry: Arc<Mutex<Registry>>,
    batch: AtomicU64,
    /// Milliseconds before a TLS handshake on the mesh port begins.
    pub(crate) late: Arc<AtomicU64>,
    /// Where peers have their places, once that is set.
    pub(crate) peers: Arc<OnceLock<Arc<Occupancy>>>,
}

/// Loopback addresses, one per pod of the whole test run.
fn next_ip() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(2);
    let at = NEXT.fetch_add(1, Relaxed);
    IpAddr::from([127, own_part(), (at >> 8) as u8, at as u8])
}

/// The second octet of this process's addresses, different from that of other test programs, which
/// run at the same time. The process that listens at its last address owns it.
fn own_part() -> u8 {
    const PARTS: u32 = 200;
    static OWN: OnceLock<(u8, std::net::TcpListener)> = OnceLock::new();
    let (part, _) = OWN.get_or_init(|| {
        let first = std::process::id();
        (0..PARTS)
            .find_map(|at| {
                let part = ((first % PARTS + at) % PARTS) as u8 + 1;
                let last = IpAddr::from([127, part, 255, 255]);
                let listener = std::net::TcpListener::bind((last, MESH_PORT)).ok()?;
                Some((part, listener))
            })
            .expect("another test program has each part of loopback")
    });
    *part
}

impl Pod {
    pub(crate) async fn new(authority: &Authority, account: &str) -> Self {
        let certs = authority.leaf(account, Duration::from_secs(3600), SystemTime::now());
        Self::with(authority.roots(), certs, account).await
    }

    /// A pod whose certificate names the pod, as in a real mesh.
    pub(crate) async fn of_uid(authority: &Authority, account: &str, uid: &str) -> Self {
        let life = Duration::from_secs(3600);
        let certs = authority.leaf_of(account, Some(uid), life, SystemTime::now());
        Self::with(authority.roots(), certs, account).await
    }

    pub(crate) async fn with(roots: Roots, certs: CertHandle, account: &str) -> Self {
        Self::within(Budget::new(64 * 1024 * 1024), roots, certs, account).await
    }

    /// A pod that keeps within a budget.
    pub(crate) async fn within(
        budget: Arc<Budget>,
        roots: Roots,
        certs: CertHandle,
        account: &str,
    ) -> Self {
        let pod = Self::without_configuration(budget, roots, certs, account).await;
        pod.set(vec![workload(
            account,
            v1::Enforcement::Open,
            v1::MtlsMode::Permissive,
        )]);
        pod
    }

    /// A pod whose proxy has no configuration from a controller.
    pub(crate) async fn without_configuration(
        budget: Arc<Budget>,
        roots: Roots,
        certs: CertHandle,
        account: &str,
    ) -> Self {
        let pod = Self::unserved(&budget, roots, certs, account);
        pod.listen().await;
        pod
    }

    /// The same, without a listener on its mesh port.
    pub(crate) fn unserved(
        budget: &Arc<Budget>,
        roots: Roots,
        certs: CertHandle,
        account: &str,
    ) -> Self {
        Self::unserved_at(next_ip(), budget, roots, certs, account)
    }

    /// The same, of an address that the test gave to a network device.
    pub(crate) fn unserved_at(
        ip: IpAddr,
        budget: &Arc<Budget>,
        roots: Roots,
        certs: CertHandle,
        account: &str,
    ) -> Self {
        let settings = Settings::read(EnvReader::from_map([
            ("WEFT_TRUST_DOMAIN", "cluster.local"),
            ("WEFT_NAMESPACE", "shop"),
            ("WEFT_SERVICE_ACCOUNT", account),
            ("WEFT_CONTROLLER_NAMESPACE", "weft-system"),
            ("WEFT_POD_NAME", account),
            ("WEFT_POD_IPS", &ip.to_string()),
            ("WEFT_CONTROLLER_ADDRESS", "127.0.0.1:1"),
            ("WEFT_TOKEN_FILE", "/none"),
            ("WEFT_TRUST_BUNDLE", "/none"),
        ]))
        .unwrap();
        Self::made(settings.workload.own, budget, roots, certs)
    }

    /// A pod that is described so, with nothing that serves.
    pub(crate) fn made(own: Own, budget: &Arc<Budget>, roots: Roots, certs: CertHandle) -> Self {
        let mut registry = Registry::default();
        let telemetry = Telemetry::new(Metrics::register(&mut registry), AccessLog::OFF);
        Self {
            ip: own.ip,
            proxy: Arc::new(Proxy::new(own, telemetry, certs, roots, budget)),
            registry: Arc::new(Mutex::new(registry)),
            batch: 0.into(),
            late: Arc::default(),
            peers: Arc::default(),
        }
    }

    /// Serves its mesh port from now on.
    pub(crate) async fn listen(&self) {
        let listener = TcpListener::bind((self.ip, MESH_PORT)).await.unwrap();
        let (proxy, late) = (Arc::clone(&self.proxy), Arc::clone(&self.late));
        let peers = Arc::clone(&self.peers);
        tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await.unwrap();
                let (proxy, late) = (Arc::clone(&proxy), Arc::clone(&late));
                let permit = match peers.get() {
                    Some(occupancy) => occupancy.admit(from.ip().into()).await.unwrap(),
                    None => Permit::unlisted(),
                };
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(late.load(Relaxed))).await;
                    let serving = serve_mesh(proxy, stream, Arc::clone(&permit));
                    permit.keep(serving).await;
                });
            }
        });
    }

    /// Sends resources as the controller would; none may be refused.
    pub(crate) fn set(&self, resources: Vec<v1::Resource>) {
        let nacks = self.try_set(resources);
        assert!(nacks.is_empty(), "{nacks:?}");
    }

    /// Takes resources away and sends others, in one batch.
    pub(crate) fn replace(&self, remove: &str, resources: Vec<v1::Resource>) {
        let set = resources.into_iter().map(wire::version::stamp).collect();
        let nacks = self.proxy.config.apply(v1::Batch {
            id: 1,
            set,
            remove: vec![remove.to_owned()],
            ..v1::Batch::default()
        });
        assert!(nacks.is_empty(), "{nacks:?}");
    }

    pub(crate) fn try_set(&self, resources: Vec<v1::Resource>) -> Vec<v1::Nack> {
        let id = self.batch.fetch_add(1, Relaxed) + 1;
        let set = resources.into_iter().map(wire::version::stamp).collect();
        self.proxy.config.apply(v1::Batch {
            id,
            set,
            ..v1::Batch::default()
        })
    }

    pub(crate) fn mode(&self, account: &str, enforcement: v1::Enforcement, mtls: v1::MtlsMode) {
        self.set(vec![workload(account, enforcement, mtls)]);
    }

    /// Both ends of a connection to this pod.
    pub(crate) async fn accepted(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((self.ip, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (client, stream)
    }

    /// A connection of this pod's application to `addr`, as if redirected.
    pub(crate) async fn call(&self, addr: SocketAddr) -> TcpStream {
        let (client, stream) = self.accepted().await;
        let proxy = Arc::clone(&self.proxy);
        tokio::spawn(serve_outbound(proxy, stream, addr, Permit::unlisted()));
        client
    }

    /// A plaintext connection from outside the mesh to `port` of this pod.
    pub(crate) async fn plain(&self, port: u16) -> TcpStream {
        self.plain_at(port, Permit::unlisted()).await
    }

    /// The same with this permit.
    pub(crate) async fn plain_at(&self, port: u16, permit: Arc<Permit>) -> TcpStream {
        let (client, stream) = self.accepted().await;
        let proxy = Arc::clone(&self.proxy);
        let original = SocketAddr::new(self.ip, port);
        tokio::spawn(async move {
            let serving = serve_plain(proxy, stream, original, Arc::clone(&permit));
            permit.keep(serving).await;
        });
        client
    }

    /// From now on calls of `api` go to this port of `server`, which has a proxy.
    pub(crate) fn reaches(&self, server: &Self, port: u16) {
        let there = endpoint(server.ip, port, Some("api"));
        self.set(vec![endpoints("api", vec![there])]);
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock()).unwrap();
        text
    }
}

/// What serves the calls of `client` to `api` from now on.
pub(crate) async fn listening(client: &Pod, server: &Pod) -> TcpListener {
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    client.reaches(server, listener.local_addr().unwrap().port());
    listener
}

/// The address of a Service in these tests.
pub(crate) fn vip() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 80], 80))
}

/// What an application saw, one line per request.
pub(crate) type SeenRequests = Arc<Mutex<Vec<String>>>;

/// An HTTP application on the pod's address; answers with what it saw.
pub(crate) async fn http_app(pod: &Pod, name: &'static str) -> (u16, SeenRequests) {
    let seen = SeenRequests::default();
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            let service = service_fn(move |request: Request<Incoming>| {
                let log = Arc::clone(&log);
                async move { Ok::<_, Infallible>(answer(name, &log, request).await) }
            });
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (port, seen)
}

async fn answer(
    name: &str,
    log: &SeenRequests,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("-")
            .to_owned()
    };
    let line = format!(
        "{name} {} {} id={} host={} forged={} body={}",
        parts.method,
        parts.uri,
        header("weft-client-id"),
        header("host"),
        header("weft-forged"),
        String::from_utf8_lossy(&body[..body.len().min(64)]),
    );
    log.lock().push(line.clone());
    Response::builder()
        .header("weft-reason", "not-allowed")
        .header("x-app", name)
        .body(Full::new(Bytes::from(line)))
        .unwrap()
}

/// Sends raw bytes and returns everything up to the end of the connection, or
/// what came within the time.
pub(crate) async fn raw(stream: &mut TcpStream, bytes: &[u8], patience: Duration) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// One GET with `connection: close`: status and the complete response.
pub(crate) async fn get(stream: TcpStream, path: &str, headers: &str) -> (u16, String) {
    get_within(stream, path, headers, Duration::from_secs(5)).await
}

/// The same with this time limit.
pub(crate) async fn get_within(
    mut stream: TcpStream,
    path: &str,
    headers: &str,
    patience: Duration,
) -> (u16, String) {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n{headers}\r\n");
    let answer = raw(&mut stream, request.as_bytes(), patience).await;
    let status = answer
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    (status, answer)
}

/// A client pod and a server pod with an HTTP application behind Service `web`.
pub(crate) async fn pair(protocol: v1::Protocol) -> (Pod, Pod, u16, SeenRequests) {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    client.set(service("api", vip().ip(), protocol, Vec::new()));
    client.set(vec![endpoints(
        "api",
        vec![endpoint(server.ip, port, Some("api"))],
    )]);
    (client, server, port, seen)
}
