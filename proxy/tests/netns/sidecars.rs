//! An application's pod and pods that call it, each of them a namespace at a cable of its
//! own to the application's. The proxy of each is a process of its own in a memory control
//! group, and calls come to it by the real rules; callers and the application are tasks of
//! the test, which no group limits.
//!
//! application  10.77.9.1, and 10.77.N.1 on its device `toN`
//! callers      10.77.N.2, N from 1 on, with default routes to the application

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::authority::{ISSUER_LIFE, LeafNames, ROOT_LIFE, Root};
use identity::tls::{CertHandle, Leaf};
use identity::{LeafKey, Roots};
use policy::well_known::{INBOUND_PORT, OUTBOUND_PORT};
use runtime::cgroup::{ROOT, memory_limit};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use weft_proxy::{
    Addresses, Budget, MESH_PORT, Process, ServedWorkload, heap_in_use, original_dst,
};
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::fleet::Inside;
use super::processes::{self, Group};
use super::testbed::{Namespace, Who, cable, run};
use crate::support::{Pod, endpoint, endpoints, id, service, vip};

/// Where the application is.
pub(crate) const APP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 9, 1));
/// The application speaks HTTP on this port, for the Service `api` at [`vip`].
pub(crate) const HTTP: u16 = 8080;
/// An unknown protocol on this port, for the Service `bytes` at [`bytes`].
pub(crate) const BYTES: u16 = 9000;
/// Account of the application.
const SERVER: &str = "api";
/// What each proxy may hold, in MiB.
const MEMORY: u64 = 64;
/// How long certificates live.
const LIFE: Duration = Duration::from_secs(3600);

pub(crate) fn bytes() -> SocketAddr {
    SocketAddr::from(([10, 96, 0, 81], 80))
}

pub(crate) struct Sidecars {
    _app: Inside,
    server: Sidecar,
    callers: Vec<Sidecar>,
}

impl Sidecars {
    /// Everybody serves. `app` begins the application; callers are named by their accounts.
    pub(crate) fn new<F>(
        name: &str,
        callers: &[&str],
        app: impl FnOnce() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()>,
    {
        let root = Root::generate(SystemTime::now(), ROOT_LIFE).unwrap();
        let namespace = Namespace::new(&format!("{name}-app"));
        namespace.ip(&format!("addr add {APP}/32 dev lo"));
        let joined = |(nth, account): (usize, &&str)| {
            let at = Namespace::new(&format!("{name}-{account}"));
            let device = format!("to{nth}");
            cable([(&namespace, device.as_str()), (&at, "eth0")]);
            namespace.ip(&format!("addr add 10.77.{nth}.1/24 dev {device}"));
            at.ip(&format!("addr add 10.77.{nth}.2/24 dev eth0"));
            at.ip(&format!("route add default via 10.77.{nth}.1"));
            at.capture(&[]).unwrap();
            let ip = IpAddr::from([10, 77, nth as u8, 2]);
            Sidecar::new(name, at, &Arguments::new(account, ip, &root))
        };
        let callers = (1..).zip(callers).map(joined).collect();
        let ((), running) = Inside::begin(&namespace, app);
        Self {
            _app: running,
            server: Sidecar::new(name, namespace, &Arguments::new(SERVER, APP, &root)),
            callers,
        }
    }

    /// Does this where a caller is, as its application.
    pub(crate) fn call<T, F>(&self, nth: usize, work: impl FnOnce() -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let (done, _ended) = Inside::begin(&self.callers[nth].namespace, work);
        done
    }

    /// No proxy runs for so long, as on a node that has no CPU for them.
    pub(crate) fn stand_still(&self, time: Duration) {
        let all = self.callers.iter().chain([&self.server]);
        let processes: Vec<String> = all.flat_map(|one| one.group.processes()).collect();
        assert!(processes.len() > self.callers.len(), "{processes:?}");
        for (signal, lasts) in [("-STOP", time), ("-CONT", Duration::ZERO)] {
            for process in &processes {
                run(&["kill", signal, process]);
            }
            std::thread::sleep(lasts);
        }
    }

    /// No proxy was killed for want of memory, nor ended otherwise.
    pub(crate) fn all_live(&mut self) {
        for one in self.callers.iter_mut().chain([&mut self.server]) {
            let (peak, killed) = (one.group.peak(), one.group.killed());
            println!("{}: {peak:?} MiB at most", one.account);
            assert_eq!(killed, 0, "{}: {peak:?} MiB", one.account);
            assert!(one.process.is_running(), "{}: {peak:?} MiB", one.account);
        }
    }
}

/// A proxy and where it is. The process goes before its group and its namespace.
struct Sidecar {
    account: String,
    process: processes::Process,
    group: Group,
    namespace: Namespace,
}

impl Sidecar {
    /// Serves already.
    fn new(name: &str, namespace: Namespace, arguments: &Arguments) -> Self {
        let account = arguments.account.clone();
        let group = Group::of_mebibytes(&format!("{name}-{account}"), MEMORY);
        let mut process = processes::Process::play_limited(
            &group,
            &namespace,
            Who::Ids(15190, 15190),
            "sidecar",
            &serde_json::to_string(arguments).unwrap(),
        );
        assert_eq!(process.line(), "\"ready\"");
        Self {
            account,
            process,
            group,
            namespace,
        }
    }
}

/// The configuration of a proxy's process, in place of a controller's.
#[derive(Debug, Serialize, Deserialize)]
struct Arguments {
    account: String,
    ip: IpAddr,
    root_cert: String,
    root_key: String,
}

impl Arguments {
    fn new(account: &str, ip: IpAddr, root: &Root) -> Self {
        Self {
            account: account.to_owned(),
            ip,
            root_cert: root.cert_pem().to_owned(),
            root_key: root.key_pem(),
        }
    }
}

/// Role: [`Arguments`]. Serves as the program does, and prints when it starts.
pub(crate) fn serve(arguments: &str, print: impl Fn(String)) {
    let parsed: Arguments = serde_json::from_str(arguments).unwrap();
    let limit = memory_limit(Path::new(ROOT)).expect("it is in a group") as usize;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let budget = Budget::measured(limit, limit, heap_in_use);
        let pod = pod(&parsed, &budget);
        let served = ServedWorkload::new(Arc::clone(&pod.proxy), redirected());
        let _process = Process::start(vec![served], budget).unwrap();
        print("ready".to_owned());
        std::future::pending::<()>().await;
    });
}

fn pod(arguments: &Arguments, budget: &Arc<Budget>) -> Pod {
    let root = Root::from_pem(&arguments.root_cert, &arguments.root_key).unwrap();
    let now = SystemTime::now();
    let issuer = root.issuer(now, ISSUER_LIFE).unwrap();
    let key = LeafKey::generate().unwrap();
    let names = LeafNames {
        spiffe: id(&arguments.account),
        pod_dns: None,
    };
    let csr = key.csr().unwrap();
    let issued = issuer.issue(&csr, &names, now, LIFE).unwrap();
    let certs = CertHandle::empty();
    certs.store(Leaf::new(issued.chain, &key).unwrap());
    let roots = Roots::new(&names.spiffe, vec![root.certificate().clone()]).unwrap();

    let pod = Pod::unserved_at(arguments.ip, budget, roots, certs, &arguments.account);
    pod.mode(&arguments.account, Enforcement::Open, MtlsMode::Permissive);
    if arguments.account != SERVER {
        let there = |port| vec![endpoint(APP, port, Some(SERVER))];
        pod.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        pod.set(service("bytes", bytes().ip(), Protocol::Opaque, Vec::new()));
        pod.set(vec![
            endpoints("api", there(HTTP)),
            endpoints("bytes", there(BYTES)),
        ]);
    }
    pod
}

/// The listeners that the rules lead to.
fn redirected() -> Addresses {
    let at = |ip: Ipv4Addr, port: u16| vec![SocketAddr::from((ip, port))];
    Addresses {
        outbound: at(Ipv4Addr::LOCALHOST, OUTBOUND_PORT),
        inbound: at(Ipv4Addr::UNSPECIFIED, INBOUND_PORT),
        mesh: at(Ipv4Addr::UNSPECIFIED, MESH_PORT),
        original: |stream| original_dst(stream),
    }
}
