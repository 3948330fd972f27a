//! One pod that calls and three that serve it, each of them a namespace at a cable of its
//! own to the caller's, so that one alone can be cut off. Pods are made as in the tests in
//! process; what is between them is the kernel's.
//!
//! caller  10.77.N.1 on its device `toN`
//! others  10.77.N.2, N from 1 on

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use identity::Roots;
use identity::tls::CertHandle;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use weft_proxy::{Budget, MESH_PORT, sweep};
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::grpc::GrpcApp;
use super::testbed::{Namespace, cable};
use crate::answers::{App, WAITS};
use crate::support::{Authority, Pod, endpoint, endpoints, service, vip};

const ENDPOINTS: u8 = 3;
/// Of every application.
const PORT: u16 = 8080;
/// How long certificates live.
const LIFE: Duration = Duration::from_secs(3600);

/// The protocol of the applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// GETs are answered, but for those of `/wait`.
    Http1,
    Grpc,
}

pub(crate) struct Fleet {
    pub(crate) client: Arc<Pod>,
    pub(crate) endpoints: Vec<Served>,
    caller: Inside,
    _namespace: Namespace,
}

impl Fleet {
    /// All endpoints serve, and the caller has its configuration.
    pub(crate) fn new(name: &str, speaks: Speaks) -> Self {
        let authority = Authority::new();
        let leaf = |account: &str| authority.leaf(account, LIFE, SystemTime::now());
        let certs = leaf("api");
        let namespace = Namespace::new(&format!("{name}-pod"));
        let joined = |nth: u8| {
            let at = Namespace::new(&format!("{name}-{nth}"));
            let device = format!("to{nth}");
            cable([(&namespace, device.as_str()), (&at, "eth0")]);
            namespace.ip(&format!("addr add 10.77.{nth}.1/24 dev {device}"));
            at.ip(&format!("addr add 10.77.{nth}.2/24 dev eth0"));
            let mut served = Served {
                ip: IpAddr::from([10, 77, nth, 2]),
                roots: authority.roots(),
                certs: certs.clone(),
                speaks,
                app: None,
                process: None,
                namespace: at,
            };
            served.start();
            served
        };
        let served: Vec<Served> = (1..=ENDPOINTS).map(joined).collect();
        let there = |one: &Served| endpoint(one.ip, PORT, Some("api"));
        let all = endpoints("api", served.iter().map(there).collect());
        let (roots, own) = (authority.roots(), leaf("web"));
        let (client, caller) = Inside::begin(&namespace, move || async move {
            let client = Arc::new(Pod::with(roots, own, "web").await);
            let protocol = match speaks {
                Speaks::Http1 => Protocol::Http1,
                Speaks::Grpc => Protocol::Grpc,
            };
            client.set(service("api", vip().ip(), protocol, Vec::new()));
            client.set(vec![all]);
            // As the process of a proxy does.
            tokio::spawn(sweep(vec![Arc::clone(&client.proxy)]));
            client
        });
        Self {
            client,
            endpoints: served,
            caller,
            _namespace: namespace,
        }
    }

    /// Does this where the caller is, beside all else.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.caller.runtime.spawn(work);
    }
}

/// An application, as one may ask it what it has seen.
enum Application {
    Http1(App),
    Grpc(GrpcApp),
}

/// An application and its proxy.
pub(crate) struct Served {
    ip: IpAddr,
    roots: Roots,
    certs: CertHandle,
    speaks: Speaks,
    app: Option<Application>,
    process: Option<Inside>,
    pub(crate) namespace: Namespace,
}

impl Served {
    /// Begins anew.
    pub(crate) fn start(&mut self) {
        self.end();
        let (ip, roots, certs) = (self.ip, self.roots.clone(), self.certs.clone());
        let speaks = self.speaks;
        let (app, process) = Inside::begin(&self.namespace, move || async move {
            let pod = Pod::unserved_at(ip, &Budget::new(64 << 20), roots, certs, "api");
            pod.listen().await;
            pod.mode("api", Enforcement::Open, MtlsMode::Permissive);
            let listener = TcpListener::bind((ip, PORT)).await.unwrap();
            match speaks {
                Speaks::Http1 => Application::Http1(App::on(listener, WAITS)),
                Speaks::Grpc => Application::Grpc(GrpcApp::on(listener)),
            }
        });
        (self.app, self.process) = (Some(app), Some(process));
    }

    /// Stops listening; the kernel closes open connections.
    pub(crate) fn end(&mut self) {
        (self.app, self.process) = (None, None);
    }

    /// A listener in their place accepts every connection and resets it at once.
    pub(crate) fn reset_all(&mut self) {
        self.end();
        let ip = self.ip;
        let ((), process) = Inside::begin(&self.namespace, move || async move {
            let listener = TcpListener::bind((ip, MESH_PORT)).await.unwrap();
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let at_once = Some(Duration::ZERO);
                    SockRef::from(&stream).set_linger(at_once).unwrap();
                }
            });
        });
        self.process = Some(process);
    }

    /// Requests that the application has seen since it began.
    pub(crate) fn request_count(&self) -> usize {
        match &self.app {
            None => 0,
            Some(Application::Http1(app)) => app.request_count(),
            Some(Application::Grpc(app)) => app.request_count(),
        }
    }

    /// Those of them that are never answered.
    pub(crate) fn waiting(&self) -> usize {
        let Some(Application::Http1(app)) = &self.app else {
            return 0;
        };
        let heads = app.heads();
        let waits = |head: &&String| head.starts_with("get /wait ");
        heads.iter().filter(waits).count()
    }
}

/// Tasks inside a namespace, on a thread of their own. They end with this value and their
/// sockets with them, as those of a process that is killed.
pub(crate) struct Inside {
    runtime: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Inside {
    /// Waits for `begin`; what that has spawned goes on.
    pub(crate) fn begin<T, F>(
        namespace: &Namespace,
        begin: impl FnOnce() -> F + Send + 'static,
    ) -> (T, Self)
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let namespace = namespace.open();
        let (tx, rx) = sync_channel(1);
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let value = begin().await;
                tx.send((Handle::current(), value)).unwrap();
                // No value is sent: the other end is dropped.
                let _ = ended.await;
            });
        });
        let (runtime, value) = rx.recv().expect("it begins");
        let inside = Self {
            runtime,
            end: Some(end),
            thread: Some(thread),
        };
        (value, inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The thread has printed its panic.
            let _ = thread.join();
        }
    }
}
