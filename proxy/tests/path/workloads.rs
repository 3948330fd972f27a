//! One process that serves two workloads: each with its own rules, its own telemetry and its own
//! end.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use policy::well_known::{INBOUND_PORT as INBOUND, OUTBOUND_PORT as OUTBOUND};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_proxy::{Addresses, Budget, MESH_PORT, Process, ServedWorkload};
use wire::v1::{Enforcement, MtlsMode, Protocol};

use crate::support::{
    Authority, Pod, SeenRequests, endpoint, endpoints, get, http_app, rule, service, vip, workload,
};

const MIB: usize = 1024 * 1024;

/// Where a connection to one of the listeners was for, as the kernel would tell.
static REDIRECTED: LazyLock<Mutex<HashMap<SocketAddr, SocketAddr>>> = LazyLock::new(Mutex::default);

fn original(stream: &TcpStream) -> io::Result<SocketAddr> {
    let local = stream.local_addr()?;
    let known = REDIRECTED.lock().get(&local).copied();
    known.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// A workload with an application.
struct Workload {
    pod: Pod,
    seen: SeenRequests,
}

impl Workload {
    async fn new(authority: &Authority, budget: &Arc<Budget>, account: &'static str) -> Self {
        let certs = authority.leaf(account, Duration::from_secs(3600), SystemTime::now());
        let pod = Pod::unserved(budget, authority.roots(), certs, account);
        pod.set(vec![workload(
            account,
            Enforcement::Open,
            MtlsMode::Permissive,
        )]);
        let (port, seen) = http_app(&pod, account).await;
        let redirected = [(OUTBOUND, vip()), (INBOUND, SocketAddr::new(pod.ip, port))];
        for (listener, to) in redirected {
            let listener = SocketAddr::new(pod.ip, listener);
            REDIRECTED.lock().insert(listener, to);
        }
        Self { pod, seen }
    }

    fn served(&self) -> ServedWorkload {
        let at = |port| vec![SocketAddr::new(self.pod.ip, port)];
        let addresses = Addresses {
            outbound: at(OUTBOUND),
            inbound: at(INBOUND),
            mesh: at(MESH_PORT),
            original,
        };
        ServedWorkload::new(Arc::clone(&self.pod.proxy), addresses)
    }

    /// The same Service at the same address, which is another workload to each.
    fn calls(&self, other: &Self, account: &str) {
        let app = SocketAddr::new(other.pod.ip, INBOUND);
        let port = REDIRECTED.lock()[&app].port();
        let there = endpoint(other.pod.ip, port, Some(account));
        let known = service("other", vip().ip(), Protocol::Http1, Vec::new());
        self.pod.set(known);
        self.pod.set(vec![endpoints("other", vec![there])]);
    }

    async fn connect(&self, listener: u16) -> TcpStream {
        TcpStream::connect((self.pod.ip, listener)).await.unwrap()
    }

    async fn status(&self, listener: u16, path: &str) -> u16 {
        get(self.connect(listener).await, path, "").await.0
    }

    /// Requests that this workload counted, of all series with these labels.
    fn counted(&self, labels: &[&str]) -> u64 {
        let metrics = self.pod.metrics();
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("weft_requests_total{"))
            .filter(|line| labels.iter().all(|label| line.contains(label)));
        lines
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum()
    }
}

/// One request on a connection that stays open: its status.
async fn ask(stream: &mut TcpStream) -> String {
    let request = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 4096];
    let reading = stream.read(&mut answer);
    let count = tokio::time::timeout(Duration::from_secs(5), reading).await;
    let count = count.expect("an answer must come").unwrap();
    String::from_utf8_lossy(answer.get(9..12).filter(|_| count > 0).unwrap_or_default())
        .into_owned()
}

/// True when the other end ends the connection.
async fn ends(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(3), ended)
        .await
        .is_ok()
}

/// `strict` takes nothing in plaintext and of `open` only `/a`; `open` takes everything.
async fn two(budget: &Arc<Budget>) -> (Workload, Workload) {
    let authority = Authority::new();
    let strict = Workload::new(&authority, budget, "strict").await;
    let open = Workload::new(&authority, budget, "open").await;
    strict.calls(&open, "open");
    open.calls(&strict, "strict");
    let pod = &strict.pod;
    pod.mode("strict", Enforcement::Enforce, MtlsMode::Strict);
    pod.set(vec![rule("a-only", "open", None, Some(&["/a"]))]);
    (strict, open)
}

// Claims: attack-49
#[tokio::test]
async fn workloads_of_process_are_enforced_counted_drained_separately() {
    let budget = Budget::new(64 * MIB);
    let (strict, open) = two(&budget).await;
    let process = Process::start(vec![strict.served(), open.served()], budget).unwrap();

    // Each calls the other at the same address, and proves itself.
    for path in ["/a", "/b"] {
        assert_eq!(strict.status(OUTBOUND, path).await, 200, "{path}");
    }
    assert_eq!(open.status(OUTBOUND, "/a").await, 200);
    assert_eq!(open.status(OUTBOUND, "/b").await, 403);
    assert_eq!(open.status(INBOUND, "/a").await, 200);
    assert_eq!(strict.status(INBOUND, "/a").await, 403);
    let by = |seen: &SeenRequests, account: &str| {
        let id = format!("id=spiffe://cluster.local/ns/shop/sa/{account} ");
        seen.lock().iter().filter(|line| line.contains(&id)).count()
    };
    assert_eq!((by(&open.seen, "strict"), open.seen.lock().len()), (2, 3));
    assert_eq!((by(&strict.seen, "open"), strict.seen.lock().len()), (1, 1));

    // Counted by the caller's proxy, and by the called one.
    let inbound = r#"direction="inbound""#;
    let outbound = r#"direction="outbound""#;
    for (workload, labels, count) in [
        (&strict, vec![outbound], 2),
        (&strict, vec![inbound], 3),
        (&strict, vec![inbound, r#"peer="shop/open""#], 2),
        (&strict, vec![inbound, r#"reason="no-identity""#], 1),
        (&open, vec![outbound], 2),
        (&open, vec![outbound, r#"reason="not-allowed""#], 1),
        (&open, vec![inbound], 3),
        (&open, vec![inbound, r#"peer="shop/strict""#], 2),
    ] {
        assert_eq!(workload.counted(&labels), count, "{labels:?}");
    }

    // One goes, and the other goes on.
    let mut of_strict = strict.connect(INBOUND).await;
    let mut of_open = open.connect(INBOUND).await;
    assert_eq!(ask(&mut of_strict).await, "403");
    assert_eq!(ask(&mut of_open).await, "200");
    open.pod.proxy.leave();
    assert!(ends(&mut of_open).await, "its callers get a GOAWAY");
    assert_eq!(ask(&mut of_strict).await, "403", "those of the other stay");
    assert_eq!(open.status(OUTBOUND, "/a").await, 200, "it is still served");
    assert!(!strict.pod.proxy.drain.is_draining());

    process.stop().await;
    assert!(strict.pod.proxy.drain.is_draining());
    for workload in [&strict, &open] {
        for listener in [OUTBOUND, INBOUND, MESH_PORT] {
            let called = TcpStream::connect((workload.pod.ip, listener)).await;
            assert!(called.is_err(), "port {listener} is still open");
        }
    }
}
