//! Proxies that speak the real protocol: a pod's token for a certificate, then one
//! stream over mutual TLS, every batch answered.
//!
//! They keep what real ones keep (what they hold and in which version) and come back
//! as real ones do, with the same waits. What they lack is traffic.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use identity::tls::{H2_ALPN, bootstrap_client_config, mesh_client_config, peer_name};
use identity::{CertHandle, Leaf, LeafKey, Roots};
use policy::name::SpiffeId;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use wire::capability::Capabilities;
use wire::v1;
use wire::v1::control_client::ControlClient;
use wire::v1::from_proxy::Message;

use crate::api::Api;
use crate::change_tracker::ChangeTracker;
use crate::cluster;
use crate::messages;
use crate::process::{NAMESPACE, SERVES};

/// As the real proxy does.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const OUTBOX: usize = 64;
const MESSAGE_LIMIT: usize = 32 * 1024 * 1024;
/// Certificates fetched at one time, when a whole fleet is new.
const NEW_AT_ONCE: usize = 32;
const TRUST_DOMAIN: &str = "cluster.local";
const TOKEN_SECONDS: u32 = 2 * 3600;
const CONNECTED_WITHIN: Duration = Duration::from_secs(120);
/// What a proxy reports of a slot: so many Services that it calls, and pods of each.
const REPORTED: (usize, usize) = (5, 4);

/// One pod's proxy.
struct Member {
    number: usize,
    namespace: String,
    account: String,
    pod: String,
    certs: CertHandle,
    /// Name to version, as the next Hello sends it.
    versions: Mutex<HashMap<String, String>>,
    destinations: Vec<String>,
    /// Services whose destinations those are.
    calls: BTreeSet<usize>,
    /// Whether the stream that is open now has brought its first batch.
    connected: Mutex<bool>,
    /// To the controller, while there is a stream.
    outbox: Mutex<Option<mpsc::Sender<v1::FromProxy>>>,
    /// Whether a breaker of the whole mesh holds its calls back.
    held_back: AtomicBool,
}

/// All of them. Their streams end with this value.
pub(crate) struct Fleet {
    members: Vec<Arc<Member>>,
    tasks: Vec<JoinHandle<()>>,
    change_tracker: ChangeTracker,
    roots: Roots,
    /// How many have an open stream that has brought its first batch.
    connected: Arc<watch::Sender<usize>>,
}

/// Which pod a proxy belongs to and which Services it calls.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) service: usize,
    pub(crate) replica: usize,
    pub(crate) calls: BTreeSet<usize>,
}

impl Fleet {
    /// Certifies and connects one proxy per role.
    pub(crate) async fn start(
        api: &Api,
        change_tracker: &ChangeTracker,
        roles: Vec<Role>,
    ) -> Result<Self> {
        let roots = Roots::from_pem(&controller()?, &trust_bundle(api).await?)?;
        let mut fleet = Self {
            members: Vec::new(),
            tasks: Vec::new(),
            change_tracker: change_tracker.clone(),
            roots,
            connected: Arc::new(watch::Sender::new(0)),
        };
        let members: Vec<Arc<Member>> = roles
            .into_iter()
            .enumerate()
            .map(|(number, role)| Arc::new(Member::new(number, role)))
            .collect();
        let mut certified = futures::stream::iter(members)
            .map(|member| {
                let roots = fleet.roots.clone();
                async move {
                    member.certify(api, &roots).await?;
                    anyhow::Ok(member)
                }
            })
            .buffer_unordered(NEW_AT_ONCE);
        while let Some(member) = certified.next().await {
            fleet.members.push(member?);
        }
        drop(certified);
        for member in &fleet.members {
            let (member, roots) = (Arc::clone(member), fleet.roots.clone());
            let (change_tracker, connected) =
                (change_tracker.clone(), Arc::clone(&fleet.connected));
            let keep = async move {
                member
                    .keep_streaming(&roots, &change_tracker, &connected)
                    .await
            };
            fleet.tasks.push(tokio::spawn(keep));
        }
        fleet.all_connected().await?;
        Ok(fleet)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn change_tracker(&self) -> &ChangeTracker {
        &self.change_tracker
    }

    /// Proxies that call a Service.
    pub(crate) fn callers(&self, service: usize) -> BTreeSet<usize> {
        let callers = self
            .members
            .iter()
            .filter(|member| member.calls.contains(&service));
        callers.map(|member| member.number).collect()
    }

    /// Waits until none is connected.
    pub(crate) async fn none_connected(&self) -> Result<()> {
        self.count_is(|connected| connected == 0).await
    }

    /// Waits until every stream has brought its first batch.
    pub(crate) async fn all_connected(&self) -> Result<()> {
        let all = self.members.len();
        self.count_is(|connected| connected == all).await
    }

    /// Every proxy reports what it counted in the interval that began then, as real ones do each
    /// five seconds.
    pub(crate) fn report(&self, slot: u64) -> Result<()> {
        self.send_all(|member| Message::Report(member.report(slot)))
    }

    /// Every proxy reports how its calls of the last second went. `failing`: a Service to which
    /// all failed.
    pub(crate) fn send_breaker_reports(&self, failing: Option<usize>) -> Result<()> {
        self.send_all(|member| Message::Pulse(member.breaker_report(failing)))
    }

    /// Proxies whose calls a breaker holds back.
    pub(crate) fn held_back(&self) -> usize {
        let members = self.members.iter();
        members.filter(|member| member.is_held_back()).count()
    }

    /// Services that are called, each as often as it has callers.
    pub(crate) fn calls(&self) -> usize {
        self.members.iter().map(|member| member.calls.len()).sum()
    }

    fn send_all(&self, what: impl Fn(&Member) -> Message) -> Result<()> {
        for member in &self.members {
            let outbox = member.outbox().clone();
            let outbox = outbox.context("a proxy has no stream")?;
            outbox.try_send(from_proxy(what(member)))?;
        }
        Ok(())
    }

    async fn count_is(&self, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let mut connected = self.connected.subscribe();
        let reached = connected.wait_for(|connected| wanted(*connected));
        let reached = timeout(CONNECTED_WITHIN, reached).await.is_ok();
        ensure!(
            reached,
            "{} of {} proxies were connected after {CONNECTED_WITHIN:?}",
            *self.connected.borrow(),
            self.members.len()
        );
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Member {
    fn new(number: usize, role: Role) -> Self {
        let destination = |service: &usize| {
            wire::names::destination(cluster::service_ip(*service).into(), cluster::PORT)
        };
        Self {
            number,
            namespace: cluster::namespace_of(role.service),
            account: cluster::service_name(role.service),
            pod: cluster::pod_name(role.service, role.replica),
            certs: CertHandle::empty(),
            versions: Mutex::default(),
            destinations: role.calls.iter().map(destination).collect(),
            calls: role.calls,
            connected: Mutex::new(false),
            outbox: Mutex::default(),
            held_back: AtomicBool::new(false),
        }
    }

    /// What kubelet and proxy do together: a token bound to the pod, and a
    /// certificate for it.
    async fn certify(&self, api: &Api, roots: &Roots) -> Result<()> {
        let (namespace, account, pod) = (&self.namespace, &self.account, &self.pod);
        let found = api
            .get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"))
            .await?;
        let request = json!({"spec": {
            "audiences": ["weft.dev"], "expirationSeconds": TOKEN_SECONDS,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": found["metadata"]["uid"]},
        }});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = api.post(&path, &request).await?;
        let token = answer["status"]["token"]
            .as_str()
            .context("no token")?
            .to_owned();
        let key = LeafKey::generate()?;
        let csr = key.csr()?;
        let config = bootstrap_client_config(roots, controller()?, &[H2_ALPN]);
        let channel = channel(config, self.number).await?;
        let answer = ControlClient::new(channel)
            .certify(v1::CertifyRequest { token, csr })
            .await?
            .into_inner();
        let chain = answer.chain.into_iter().map(Into::into).collect();
        let own = SpiffeId::of(TRUST_DOMAIN, namespace, account)?;
        let leaf = Leaf::verified(chain, &key, roots, &own, SystemTime::now())?;
        self.certs.store(leaf);
        Ok(())
    }

    async fn keep_streaming(
        &self,
        roots: &Roots,
        change_tracker: &ChangeTracker,
        connected: &watch::Sender<usize>,
    ) {
        let mut failures = 0;
        loop {
            let ended = self.stream(roots, change_tracker, connected).await;
            *self.outbox() = None;
            let was = std::mem::take(
                &mut *self
                    .connected
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            if was {
                failures = 0;
                connected.send_modify(|connected| *connected -= 1);
            }
            if let Err(error) = ended
                && failures > 8
            {
                eprintln!("weft-bench-control: {}: {error:#}", self.pod);
            }
            sleep(self.wait(failures)).await;
            failures += 1;
        }
    }

    /// The wait of the real proxy: doubled from the first to the longest, and spread
    /// over its upper half.
    fn wait(&self, failures: u32) -> Duration {
        let full = BACKOFF
            .0
            .saturating_mul(1 << failures.min(20))
            .min(BACKOFF.1);
        // No randomness is needed where the number is as good.
        let spread = (self.number * 7919 + failures as usize * 104_729) % 1000;
        full.mul_f64(0.5 + spread as f64 / 2000.0)
    }

    async fn stream(
        &self,
        roots: &Roots,
        change_tracker: &ChangeTracker,
        connected: &watch::Sender<usize>,
    ) -> Result<()> {
        let config = mesh_client_config(roots, &self.certs, controller()?, &[H2_ALPN]);
        let channel = channel(config, self.number).await?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        *self.outbox() = Some(outbox.clone());
        let hello = v1::Hello {
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            held: self.versions().clone(),
            destinations: self.destinations.clone(),
            capabilities: Capabilities::of_this_version(),
        };
        outbox.try_send(from_proxy(Message::Hello(hello)))?;
        let mut batches = ControlClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .stream(ReceiverStream::new(messages))
            .await?
            .into_inner();
        while let Some(message) = batches.message().await? {
            let batch = match message.message {
                Some(v1::to_proxy::Message::Batch(batch)) => batch,
                Some(v1::to_proxy::Message::Steer(fleet_states)) => {
                    if let Some(held_back) = messages::holds_back(&fleet_states) {
                        self.held_back.store(held_back, Ordering::Relaxed);
                    }
                    continue;
                }
                _ => continue,
            };
            self.keep(&batch);
            let ack = v1::Ack {
                batch: batch.id,
                nacks: Vec::new(),
            };
            outbox.try_send(from_proxy(Message::Ack(ack)))?;
            change_tracker.saw(self.number, &batch.set);
            let mut was = self
                .connected
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if !std::mem::replace(&mut *was, true) {
                connected.send_modify(|connected| *connected += 1);
            }
        }
        Ok(())
    }

    fn versions(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbox(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<v1::FromProxy>>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, slot: u64) -> v1::Report {
        let services = self.calls.iter().take(REPORTED.0);
        let edges = services.flat_map(|service| {
            let pods = 0..REPORTED.1;
            pods.map(move |replica| messages::edge(*service, replica))
        });
        v1::Report {
            process: self.number as u64 + 1,
            slot,
            edges: edges.collect(),
            ..v1::Report::default()
        }
    }

    fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    fn breaker_report(&self, failing: Option<usize>) -> v1::Pulse {
        let held_back = self.is_held_back();
        let counts_of = |service: &usize| {
            let fails = failing == Some(*service);
            messages::of_service(*service, fails, held_back)
        };
        v1::Pulse {
            circuits: self.calls.iter().map(counts_of).collect(),
        }
    }

    fn keep(&self, batch: &v1::Batch) {
        let mut versions = self.versions();
        if batch.full {
            versions.retain(|name, _| batch.unchanged.contains(name));
        }
        for name in &batch.remove {
            versions.remove(name);
        }
        for resource in &batch.set {
            versions.insert(resource.name.clone(), resource.version.clone());
        }
    }
}

fn from_proxy(message: Message) -> v1::FromProxy {
    v1::FromProxy {
        message: Some(message),
    }
}

fn controller() -> Result<SpiffeId> {
    Ok(SpiffeId::of(TRUST_DOMAIN, NAMESPACE, "weft-controller")?)
}

/// What is mounted into every pod, from the namespace where the first ones are.
async fn trust_bundle(api: &Api) -> Result<String> {
    let path = format!(
        "/api/v1/namespaces/{}/configmaps/weft-trust-bundle",
        cluster::namespace_of(0)
    );
    let until = Instant::now() + CONNECTED_WITHIN;
    loop {
        match api.get(&path).await {
            Ok(bundle) => {
                let data = bundle["data"].as_object();
                let pem = data.into_iter().flatten().find_map(|(_, text)| {
                    text.as_str()
                        .filter(|text| text.contains("BEGIN CERTIFICATE"))
                });
                return Ok(pem
                    .context("the trust bundle holds no certificate")?
                    .to_owned());
            }
            Err(error) => ensure!(Instant::now() < until, "no trust bundle: {error:#}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Each proxy from an address of its own, as pods are: what the controller does for one
/// address is limited.
async fn channel(
    config: Arc<tokio_rustls::rustls::ClientConfig>,
    number: usize,
) -> Result<Channel> {
    let connect = async {
        let [.., high, low] = number.to_be_bytes();
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 1, high, low], 0)))?;
        let socket = socket.connect(SERVES.parse()?).await?;
        socket.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(config);
        anyhow::Ok(connector.connect(peer_name(), socket).await?)
    };
    let stream = timeout(CONNECT_WITHIN, connect)
        .await
        .context("no connection in time")??;
    let io = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = io.lock().ok().and_then(|mut io| io.take());
        std::future::ready(io.ok_or_else(|| std::io::Error::other("the connection has ended")))
    });
    Ok(Endpoint::from_static("http://weft-controller")
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await?)
}
