//! A controller on loopback, and a proxy's end of a stream.

pub(super) use std::collections::HashMap;
pub(super) use std::sync::atomic::AtomicU64;
pub(super) use std::time::SystemTime;

pub(super) use hyper_util::rt::TokioIo;
pub(super) use identity::authority::LeafNames;
pub(super) use identity::tls::{bootstrap_client_config, mesh_client_config, peer_name};
pub(super) use identity::{Leaf, LeafKey};
pub(super) use model::compiled::Compiled;
pub(super) use model::{Defaults, Model};
pub(super) use parking_lot::RwLock;
pub(super) use policy::name::{Kind, ObjectRef, SpiffeId};
pub(super) use prometheus_client::metrics::counter::Counter;
pub(super) use tokio::time::Instant;
pub(super) use tokio_rustls::TlsConnector;
pub(super) use tokio_stream::wrappers::ReceiverStream;
pub(super) use tonic::Streaming;
pub(super) use tonic::transport::{Channel, Endpoint, Uri};
pub(super) use wire::v1;
pub(super) use wire::v1::control_client::ControlClient;
pub(super) use wire::v1::from_proxy::Message;
pub(super) use wire::v1::replica_client::ReplicaClient;

pub(super) use crate::authority::Authority;
pub(super) use crate::authority::certify::tests::FakeCluster;
pub(super) use crate::fleet::Fleet;
use crate::grants::Grants;
pub(super) use crate::inventory::Inventory;
use crate::listener_certificates::ListenerCertificates;
pub(super) use crate::metrics::{CertifyResult, Metrics, ReportMetrics};
pub(super) use crate::observe::acknowledged::{Observed, Tally};
pub(super) use crate::observe::early::EarlyCounts;
pub(super) use crate::observe::exchange::Listener;
pub(super) use crate::observe::live_queries::LiveQueries;
pub(super) use crate::observe::reports::{Reports, interval_of};
use crate::serve::*;
pub(super) use crate::shares::ShareRegistry;
pub(super) use crate::testing::cluster;
pub(super) use crate::testing::cluster::Cluster;

pub(super) const API: &str = "destination/10.96.0.1:80";
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A controller on loopback, and what its clients need.
pub(super) struct Bench {
    pub(super) addr: SocketAddr,
    pub(super) authority: Authority,
    pub(super) roots: Roots,
    pub(super) identity: SpiffeId,
    pub(super) certificate: CertHandle,
    pub(super) cluster: Arc<FakeCluster>,
    pub(super) observed: Observed,
    pub(super) reports: Reports,
    pub(super) early: EarlyCounts,
    pub(super) live_queries: LiveQueries,
    pub(super) fleet: Fleet,
    pub(super) share_registry: ShareRegistry,
    pub(super) grants: Grants,
    pub(super) certificates: ListenerCertificates,
    pub(super) inventory: Arc<RwLock<Inventory>>,
    pub(super) metrics: Metrics,
    pub(super) models: watch::Sender<Option<Arc<Compiled>>>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) server: tokio::task::JoinHandle<()>,
}

impl Bench {
    pub(super) async fn start(cluster: &Cluster) -> Self {
        let authority = Authority::in_memory();
        let roots = authority.ready().await;
        let identity = account("weft-system", "weft-controller");
        let certificate = CertHandle::empty();
        certificate.store(leaf(&authority, &identity, None));
        let (models, latest) = watch::channel(Some(compiled(cluster)));
        let (stop, stopping) = watch::channel(false);
        let observed = Observed::default();
        let metrics = Metrics::default();
        let reports = Reports::new(metrics.reports.clone());
        let early = EarlyCounts::new(metrics.limits.counter("early-reports"));
        let live_queries = LiveQueries::new(metrics.live_queries.clone(), &metrics.limits);
        let fleet = Fleet::new(latest.clone(), metrics.limits.counter("breakers"));
        let share_registry = ShareRegistry::default();
        let grants = Grants::default();
        let certificates = ListenerCertificates::default();
        let inventory = Arc::<RwLock<Inventory>>::default();
        let deciding = tokio::spawn(fleet.clone().run());
        let fake = Arc::new(FakeCluster::default());
        fake.knows("client-token", "shop", "web", "client", "uid-client");
        let services = Services {
            certifier: Certifier::new(
                fake.clone(),
                authority.clone(),
                "cluster.local",
                Duration::from_secs(3600),
                metrics.certify.clone(),
            ),
            streams: Streams {
                reports: reports.clone(),
                early: early.clone(),
                live_queries: live_queries.clone(),
                fleet: fleet.clone(),
                share_registry: share_registry.clone(),
                grants: grants.clone(),
                latest,
                observed: observed.clone(),
                sources: stream::Sources {
                    authority: authority.clone(),
                    certificates: certificates.clone(),
                },
                metrics: metrics.stream.clone(),
                stop: stopping.clone(),
                next: Arc::new(AtomicU64::new(1)),
                permits: crate::serve::stream::stream_permits(&metrics.limits),
                allowances: crate::serve::allowances::Allowances::default(),
                limits: metrics.limits.clone(),
            },
            replica: exchange::Answerer {
                reports: reports.clone(),
                early: early.clone(),
                live_queries: live_queries.clone(),
                fleet: fleet.clone(),
                share_registry: share_registry.clone(),
                inventory: Arc::clone(&inventory),
                observed: observed.clone(),
                identity: identity.clone(),
                stop: stopping.clone(),
            },
            connections: crate::settings::caps::Caps::default().connections,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (trusted, handle, all) = (roots.clone(), certificate.clone(), metrics.clone());
        let server = tokio::spawn(async move {
            let connections = all.connections;
            serve(listener, &trusted, &handle, services, connections, stopping).await;
            deciding.abort();
        });
        Self {
            addr,
            authority,
            roots,
            identity,
            certificate,
            cluster: fake,
            observed,
            reports,
            early,
            live_queries,
            fleet,
            share_registry,
            grants,
            certificates,
            inventory,
            metrics,
            models,
            stop,
            server,
        }
    }

    /// Of another replica, which knows the same of the cluster.
    pub(super) fn other_fleet(&self) -> Fleet {
        Fleet::new(self.models.subscribe(), Counter::default())
    }

    pub(super) fn publish(&self, cluster: &Cluster) {
        self.models.send_replace(Some(compiled(cluster)));
    }

    /// A channel without a client certificate.
    pub(super) async fn bootstrap_channel(&self) -> Channel {
        let tls = bootstrap_client_config(&self.roots, self.identity.clone(), &[H2_ALPN]);
        channel(self.addr, tls).await.unwrap()
    }

    /// A channel with a certificate for this account and pod.
    pub(super) async fn mesh_channel(&self, identity: &SpiffeId, uid: Option<&str>) -> Channel {
        let handle = CertHandle::empty();
        handle.store(leaf(&self.authority, identity, uid));
        let tls = mesh_client_config(&self.roots, &handle, self.identity.clone(), &[H2_ALPN]);
        channel(self.addr, tls).await.unwrap()
    }

    /// The same, from an address of its own.
    pub(super) async fn mesh_channel_from(
        &self,
        from: [u8; 4],
        identity: &SpiffeId,
        uid: Option<&str>,
    ) -> Channel {
        let handle = CertHandle::empty();
        handle.store(leaf(&self.authority, identity, uid));
        let tls = mesh_client_config(&self.roots, &handle, self.identity.clone(), &[H2_ALPN]);
        channel_from(from, self.addr, tls).await.unwrap()
    }

    /// A channel without a client certificate, from an address of its own.
    pub(super) async fn bootstrap_channel_from(&self, from: [u8; 4]) -> Channel {
        let tls = bootstrap_client_config(&self.roots, self.identity.clone(), &[H2_ALPN]);
        channel_from(from, self.addr, tls).await.unwrap()
    }

    pub(super) async fn client(&self, hello: v1::Hello) -> Proxy {
        Proxy::open(
            self.mesh_channel(&account("shop", "web"), Some("uid-client"))
                .await,
            hello,
        )
        .await
    }

    pub(super) fn tally_now(&self, object: &ObjectRef) -> Tally {
        self.tally_of(&self.observed, object)
    }

    pub(super) fn tally_of(&self, observed: &Observed, object: &ObjectRef) -> Tally {
        let compiled = self.models.borrow().clone().unwrap();
        observed.tally(&compiled.model, object, 1)
    }

    pub(super) async fn tally(&self, object: &ObjectRef, acknowledged: usize) {
        let mut changes = self.observed.changes();
        let deadline = Instant::now() + PATIENCE;
        while self.tally_now(object).acknowledged != acknowledged {
            tokio::time::timeout_at(deadline, changes.changed())
                .await
                .unwrap()
                .unwrap();
        }
    }
}

/// The proxy's end of a stream.
pub(super) struct Proxy {
    pub(super) outbox: mpsc::Sender<v1::FromProxy>,
    pub(super) inbox: Streaming<v1::ToProxy>,
}

impl Proxy {
    pub(super) async fn open(channel: Channel, hello: v1::Hello) -> Self {
        Self::try_open(channel, hello).await.unwrap()
    }

    pub(super) async fn try_open(channel: Channel, hello: v1::Hello) -> Result<Self, Status> {
        let (outbox, messages) = mpsc::channel(16);
        let hello = v1::FromProxy {
            message: Some(Message::Hello(hello)),
        };
        outbox.send(hello).await.unwrap();
        let inbox = ControlClient::new(channel)
            .stream(ReceiverStream::new(messages))
            .await?
            .into_inner();
        Ok(Self { outbox, inbox })
    }

    pub(super) async fn batch(&mut self) -> v1::Batch {
        let message = timeout(PATIENCE, self.inbox.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let Some(v1::to_proxy::Message::Batch(batch)) = message.message else {
            panic!("no batch")
        };
        batch
    }

    pub(super) async fn send_message(&self, message: Message) {
        self.outbox
            .send(v1::FromProxy {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    pub(super) async fn ack(&self, batch: &v1::Batch) {
        self.send_message(Message::Ack(v1::Ack {
            batch: batch.id,
            nacks: Vec::new(),
        }))
        .await;
    }

    pub(super) async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.inbox.message()).await.is_err()
    }
}

pub(super) fn compiled(cluster: &Cluster) -> Arc<Compiled> {
    let world = Arc::new(cluster.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    Arc::new(Compiled::new(world, model, problems))
}

pub(super) fn account(namespace: &str, name: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", namespace, name).unwrap()
}

pub(super) fn leaf(authority: &Authority, identity: &SpiffeId, uid: Option<&str>) -> Leaf {
    let key = LeafKey::generate().unwrap();
    let names = LeafNames {
        spiffe: identity.clone(),
        pod_dns: uid.map(|uid| identity::verify::pod_dns(uid).unwrap()),
    };
    let csr = key.csr().unwrap();
    let issued = authority
        .issue(&csr, &names, SystemTime::now(), Duration::from_secs(3600))
        .unwrap();
    Leaf::new(issued.chain, &key).unwrap()
}

pub(super) async fn channel(
    addr: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    channel_from([127, 0, 0, 1], addr, tls).await
}

/// A socket from one of loopback's many addresses.
pub(super) async fn socket_from(from: [u8; 4], to: SocketAddr) -> io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(to).await
}

pub(super) async fn channel_from(
    from: [u8; 4],
    addr: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(tls);
    Endpoint::try_from(format!("http://{addr}"))
        .unwrap()
        .connect_with_connector(tower::service_fn(move |_uri: Uri| {
            let connector = connector.clone();
            async move {
                let socket = socket_from(from, addr).await?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(peer_name(), socket).await?))
            }
        }))
        .await
}

pub(super) fn hello_for(destinations: &[&str]) -> v1::Hello {
    v1::Hello {
        proxy_version: "test".to_owned(),
        held: HashMap::new(),
        destinations: destinations.iter().map(|name| (*name).to_owned()).collect(),
        capabilities: Vec::new(),
    }
}

pub(super) fn names(batch: &v1::Batch) -> Vec<&str> {
    batch
        .set
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

pub(super) fn weight(batch: &v1::Batch, backend: usize) -> u32 {
    let service = batch
        .set
        .iter()
        .find_map(|resource| match &resource.content {
            Some(v1::resource::Content::Service(service)) => Some(service.clone()),
            _ => None,
        });
    service.unwrap().splits[0].backends[backend].weight
}

pub(super) fn with_split(first: i64) -> Cluster {
    cluster::shop().with(cluster::split("canary", "api", &[("api", first)]))
}

pub(super) fn canary() -> ObjectRef {
    ObjectRef::new(Kind::TrafficSplit, "shop", "canary")
}
