use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use hyper_util::rt::TokioIo;
use identity::authority::LeafNames;
use identity::tls::{bootstrap_client_config, mesh_client_config, peer_name};
use identity::{Leaf, LeafKey};
use policy::name::{Kind, ObjectRef, SpiffeId};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use wire::v1::control_client::ControlClient;
use wire::v1::from_proxy::Message;
use wire::v1::replica_client::ReplicaClient;

use super::*;
use crate::authority::Authority;
use crate::certify::tests::FakeCluster;
use crate::compiled::Compiled;
use crate::fixture::{self, Cluster};
use crate::metrics::{Metrics, Outcome};
use crate::model::{Defaults, Model};
use crate::observed::Observed;
use crate::replica::Listener;

const API: &str = "destination/10.96.0.1:80";
const PATIENCE: Duration = Duration::from_secs(5);

/// A controller on loopback, and what its clients need.
struct Bench {
    addr: SocketAddr,
    authority: Authority,
    roots: Roots,
    identity: SpiffeId,
    certificate: CertHandle,
    cluster: Arc<FakeCluster>,
    observed: Observed,
    metrics: Metrics,
    models: watch::Sender<Option<Arc<Compiled>>>,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Bench {
    async fn start(cluster: &Cluster) -> Self {
        let authority = Authority::in_memory();
        let roots = authority.ready().await;
        let identity = account("weft-system", "weft-controller");
        let certificate = CertHandle::empty();
        certificate.store(leaf(&authority, &identity, None));
        let (models, latest) = watch::channel(Some(compiled(cluster)));
        let (stop, stopping) = watch::channel(false);
        let observed = Observed::default();
        let metrics = Metrics::default();
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
                latest,
                observed: observed.clone(),
                authority: authority.clone(),
                metrics: metrics.stream.clone(),
                stop: stopping.clone(),
                next: Arc::new(AtomicU64::new(1)),
            },
            replica: replica::Answerer {
                observed: observed.clone(),
                identity: identity.clone(),
                stop: stopping.clone(),
            },
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (trusted, handle, connections) = (
            roots.clone(),
            certificate.clone(),
            metrics.connections.clone(),
        );
        let server = tokio::spawn(async move {
            serve(listener, &trusted, &handle, services, connections, stopping).await
        });
        Self {
            addr,
            authority,
            roots,
            identity,
            certificate,
            cluster: fake,
            observed,
            metrics,
            models,
            stop,
            server,
        }
    }

    fn publish(&self, cluster: &Cluster) {
        self.models.send_replace(Some(compiled(cluster)));
    }

    /// A channel without a client certificate.
    async fn nobody(&self) -> Channel {
        let tls = bootstrap_client_config(&self.roots, self.identity.clone(), &[H2_ALPN]);
        channel(self.addr, tls).await.unwrap()
    }

    /// A channel with a certificate for this account and pod.
    async fn somebody(&self, identity: &SpiffeId, uid: Option<&str>) -> Channel {
        let handle = CertHandle::empty();
        handle.store(leaf(&self.authority, identity, uid));
        let tls = mesh_client_config(&self.roots, &handle, self.identity.clone(), &[H2_ALPN]);
        channel(self.addr, tls).await.unwrap()
    }

    async fn client(&self, hello: v1::Hello) -> Proxy {
        Proxy::open(
            self.somebody(&account("shop", "web"), Some("uid-client"))
                .await,
            hello,
        )
        .await
    }

    async fn tally(&self, object: &ObjectRef, acknowledged: usize) {
        let mut changes = self.observed.changes();
        let deadline = Instant::now() + PATIENCE;
        while self.observed.tally(object, 1).acknowledged != acknowledged {
            tokio::time::timeout_at(deadline, changes.changed())
                .await
                .unwrap()
                .unwrap();
        }
    }
}

/// The proxy's end of a stream.
struct Proxy {
    outbox: mpsc::Sender<v1::FromProxy>,
    inbox: Streaming<v1::ToProxy>,
}

impl Proxy {
    async fn open(channel: Channel, hello: v1::Hello) -> Self {
        Self::try_open(channel, hello).await.unwrap()
    }

    async fn try_open(channel: Channel, hello: v1::Hello) -> Result<Self, Status> {
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

    async fn batch(&mut self) -> v1::Batch {
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

    async fn say(&self, message: Message) {
        self.outbox
            .send(v1::FromProxy {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    async fn ack(&self, batch: &v1::Batch) {
        self.say(Message::Ack(v1::Ack {
            batch: batch.id,
            nacks: Vec::new(),
        }))
        .await;
    }

    async fn is_silent_for(&mut self, time: Duration) -> bool {
        timeout(time, self.inbox.message()).await.is_err()
    }
}

fn compiled(cluster: &Cluster) -> Arc<Compiled> {
    let world = Arc::new(cluster.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    Arc::new(Compiled::new(world, model, problems))
}

fn account(namespace: &str, name: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", namespace, name).unwrap()
}

fn leaf(authority: &Authority, identity: &SpiffeId, uid: Option<&str>) -> Leaf {
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

async fn channel(
    addr: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(tls);
    Endpoint::try_from(format!("http://{addr}"))
        .unwrap()
        .connect_with_connector(tower::service_fn(move |_uri: Uri| {
            let connector = connector.clone();
            async move {
                let socket = TcpStream::connect(addr).await?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(peer_name(), socket).await?))
            }
        }))
        .await
}

fn asks(destinations: &[&str]) -> v1::Hello {
    v1::Hello {
        proxy_version: "test".to_owned(),
        held: HashMap::new(),
        destinations: destinations.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn names(batch: &v1::Batch) -> Vec<&str> {
    batch
        .set
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

fn weight(batch: &v1::Batch, backend: usize) -> u32 {
    let service = batch
        .set
        .iter()
        .find_map(|resource| match &resource.content {
            Some(v1::resource::Content::Service(service)) => Some(service.clone()),
            _ => None,
        });
    service.unwrap().splits[0].backends[backend].weight
}

fn with_split(first: i64) -> Cluster {
    fixture::shop().with(fixture::split("canary", "api", &[("api", first)]))
}

fn canary() -> ObjectRef {
    ObjectRef::new(Kind::TrafficSplit, "shop", "canary")
}

#[tokio::test]
async fn new_proxy_gets_a_certificate_with_which_its_stream_opens() {
    let bench = Bench::start(&fixture::shop()).await;
    let key = LeafKey::generate().unwrap();
    let request = v1::CertifyRequest {
        token: "client-token".to_owned(),
        csr: key.csr().unwrap(),
    };
    let answer = ControlClient::new(bench.nobody().await)
        .certify(request)
        .await
        .unwrap()
        .into_inner();
    let chain = answer
        .chain
        .into_iter()
        .map(rustls::pki_types::CertificateDer::from)
        .collect();
    let handle = CertHandle::empty();
    handle.store(Leaf::new(chain, &key).unwrap());
    let tls = mesh_client_config(&bench.roots, &handle, bench.identity.clone(), &[H2_ALPN]);
    let mut proxy = Proxy::open(channel(bench.addr, tls).await.unwrap(), asks(&[])).await;
    let batch = proxy.batch().await;
    assert!(batch.full);
    assert_eq!(names(&batch), ["bundle", "workload"]);
    assert_eq!(bench.metrics.certify.answers(Outcome::Issued), 1);
}

#[tokio::test]
async fn refused_certificate_is_a_status_with_its_reason() {
    let bench = Bench::start(&fixture::shop()).await;
    bench.cluster.pods.lock().clear();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let request = v1::CertifyRequest {
        token: "client-token".to_owned(),
        csr,
    };
    let status = ControlClient::new(bench.nobody().await)
        .certify(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(status.message().contains("shop/client"), "{status}");
}

#[tokio::test]
async fn first_batch_answers_the_hello_and_what_is_held_is_not_sent_again() {
    let bench = Bench::start(&fixture::shop()).await;
    let mut proxy = bench.client(asks(&[API])).await;
    let first = proxy.batch().await;
    assert!(first.full);
    assert_eq!(
        names(&first),
        [
            "bundle",
            API,
            "endpoints/shop/api:80",
            "service/shop/api:80",
            "workload"
        ]
    );
    drop(proxy);

    let held = first
        .set
        .iter()
        .map(|resource| (resource.name.clone(), resource.version.clone()))
        .collect();
    let mut again = bench
        .client(v1::Hello {
            held,
            ..asks(&[API])
        })
        .await;
    let batch = again.batch().await;
    assert!(batch.full && batch.set.is_empty());
    assert_eq!(batch.unchanged.len(), first.set.len());
}

#[tokio::test]
async fn subscription_is_answered_at_once_with_what_the_destination_refers_to() {
    let bench = Bench::start(&fixture::shop()).await;
    let mut proxy = bench.client(asks(&[])).await;
    // Not even the answer to the first batch is waited for.
    proxy.batch().await;
    proxy
        .say(Message::Subscribe(v1::Subscribe {
            add: vec![API.to_owned()],
            remove: Vec::new(),
        }))
        .await;
    let batch = proxy.batch().await;
    assert_eq!(
        names(&batch),
        [API, "endpoints/shop/api:80", "service/shop/api:80"]
    );
    proxy
        .say(Message::Subscribe(v1::Subscribe {
            add: Vec::new(),
            remove: vec![API.to_owned()],
        }))
        .await;
    assert_eq!(
        proxy.batch().await.remove,
        [API, "endpoints/shop/api:80", "service/shop/api:80"]
    );
}

#[tokio::test]
async fn acknowledgement_programs_the_object_that_the_resource_was_made_of() {
    let bench = Bench::start(&with_split(10)).await;
    let mut proxy = bench.client(asks(&[API])).await;
    let batch = proxy.batch().await;
    assert_eq!(bench.observed.tally(&canary(), 1).acknowledged, 0);
    proxy.ack(&batch).await;
    bench.tally(&canary(), 1).await;
    assert_eq!(bench.observed.tally(&canary(), 1).needed, 1);
}

#[tokio::test]
async fn nack_names_the_proxy_and_its_reason_and_the_resource_is_not_sent_again() {
    let bench = Bench::start(&with_split(10)).await;
    let mut proxy = bench.client(asks(&[API])).await;
    let batch = proxy.batch().await;
    let service = batch
        .set
        .iter()
        .find(|resource| resource.name.starts_with("service/"))
        .unwrap();
    let nack = v1::Nack {
        name: service.name.clone(),
        version: service.version.clone(),
        reason: "unknown split".to_owned(),
    };
    proxy
        .say(Message::Ack(v1::Ack {
            batch: batch.id,
            nacks: vec![nack],
        }))
        .await;
    let deadline = Instant::now() + PATIENCE;
    while bench.observed.tally(&canary(), 1).nack.is_none() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }
    let nack = bench.observed.tally(&canary(), 1).nack.unwrap();
    assert_eq!(nack, ("shop/client".to_owned(), "unknown split".to_owned()));
    bench.publish(&with_split(10));
    assert!(proxy.is_silent_for(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn slow_proxy_gets_only_the_newest_state() {
    let bench = Bench::start(&with_split(1)).await;
    let mut proxy = bench.client(asks(&[API])).await;
    let first = proxy.batch().await;
    for share in 2..=20 {
        bench.publish(&with_split(share));
        tokio::task::yield_now().await;
    }
    assert!(
        proxy.is_silent_for(Duration::from_millis(300)).await,
        "nothing before the answer"
    );
    proxy.ack(&first).await;
    let next = proxy.batch().await;
    assert_eq!(next.id, 2);
    assert_eq!(weight(&next, 0), 20);
}

#[tokio::test]
async fn stream_without_a_certificate_is_refused() {
    let bench = Bench::start(&fixture::shop()).await;
    let refused = Proxy::try_open(bench.nobody().await, asks(&[]))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn certificate_of_another_authority_is_refused_in_the_handshake() {
    let bench = Bench::start(&fixture::shop()).await;
    let stranger = Authority::in_memory();
    let handle = CertHandle::empty();
    handle.store(leaf(&stranger, &account("shop", "web"), Some("uid-client")));
    let tls = mesh_client_config(&bench.roots, &handle, bench.identity.clone(), &[H2_ALPN]);
    // With TLS 1.3 the client learns of it with its first read.
    let refused = match channel(bench.addr, tls).await {
        Ok(channel) => Proxy::try_open(channel, asks(&[])).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    assert_eq!(bench.metrics.connections.handshakes_failed.get(), 1);
    assert_eq!(bench.metrics.stream.batches.get(), 0);
}

#[tokio::test]
async fn certificate_without_a_pod_opens_no_stream() {
    let bench = Bench::start(&fixture::shop()).await;
    let channel = bench.somebody(&account("shop", "web"), None).await;
    let refused = Proxy::try_open(channel, asks(&[])).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn pods_state_is_not_served_to_another_identity() {
    let bench = Bench::start(&fixture::shop()).await;
    for stranger in [account("shop", "api"), account("bank", "web")] {
        let channel = bench.somebody(&stranger, Some("uid-client")).await;
        let refused = Proxy::try_open(channel, asks(&[])).await.err().unwrap();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }
}

#[tokio::test]
async fn each_pod_gets_its_own_rules_only() {
    let rules = serde_json::json!([{"kind": "TCPRoute", "name": "all"}]);
    let guarded = fixture::shop()
        .with(fixture::tcp_route("all", &[]))
        .with(fixture::target("guard", "api", &["web"], rules));
    let bench = Bench::start(&guarded).await;
    let mut client = bench.client(asks(&[])).await;
    assert_eq!(names(&client.batch().await), ["bundle", "workload"]);
    let channel = bench
        .somebody(&account("shop", "api"), Some("uid-api-1"))
        .await;
    let mut server = Proxy::open(channel, asks(&[])).await;
    assert!(names(&server.batch().await).contains(&"rule/shop/guard"));
}

#[tokio::test]
async fn pod_that_is_not_known_yet_is_waited_for() {
    let bench = Bench::start(&Cluster::default().with(fixture::namespace("shop"))).await;
    let channel = bench
        .somebody(&account("shop", "web"), Some("uid-client"))
        .await;
    let opening = tokio::spawn(Proxy::open(channel, asks(&[])));
    sleep(Duration::from_millis(100)).await;
    bench.publish(&fixture::shop());
    let mut proxy = timeout(PATIENCE, opening).await.unwrap().unwrap();
    assert!(proxy.batch().await.full);
}

#[tokio::test]
async fn stream_of_a_pod_that_is_gone_ends_with_that_reason() {
    let bench = Bench::start(&fixture::shop()).await;
    let mut proxy = bench.client(asks(&[])).await;
    proxy.batch().await;
    bench.publish(&Cluster::default().with(fixture::namespace("shop")));
    let status = timeout(PATIENCE, proxy.inbox.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn stream_must_begin_with_a_hello() {
    let bench = Bench::start(&fixture::shop()).await;
    let channel = bench
        .somebody(&account("shop", "web"), Some("uid-client"))
        .await;
    let (outbox, messages) = mpsc::channel(4);
    let ack = v1::Ack {
        batch: 1,
        nacks: Vec::new(),
    };
    outbox
        .send(v1::FromProxy {
            message: Some(Message::Ack(ack)),
        })
        .await
        .unwrap();
    let stream = ControlClient::new(channel)
        .stream(ReceiverStream::new(messages))
        .await
        .unwrap();
    let status = timeout(PATIENCE, stream.into_inner().message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn new_replica_of_a_workload_gets_its_destinations_before_it_asks() {
    let replicas = fixture::shop().with(fixture::pod("client-2", "10.0.0.2", "web"));
    let bench = Bench::start(&replicas).await;
    // One destination that serves, and one outside the mesh that is not worth remembering.
    let mut first = bench
        .client(asks(&[API, "destination/192.0.2.9:443"]))
        .await;
    let batch = first.batch().await;
    first.ack(&batch).await;
    let channel = bench
        .somebody(&account("shop", "web"), Some("uid-client-2"))
        .await;
    let mut second = Proxy::open(channel, asks(&[])).await;
    assert_eq!(
        names(&second.batch().await),
        [
            "bundle",
            API,
            "endpoints/shop/api:80",
            "service/shop/api:80",
            "workload"
        ]
    );
}

#[tokio::test]
async fn stop_ends_streams_in_order_and_then_the_server() {
    let bench = Bench::start(&fixture::shop()).await;
    let mut proxy = bench.client(asks(&[])).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    bench.stop.send_replace(true);
    let end = timeout(PATIENCE, proxy.inbox.message()).await.unwrap();
    assert!(matches!(end, Ok(None)), "{end:?}");
    drop(proxy);
    timeout(PATIENCE, bench.server)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn connection_that_says_nothing_is_closed_after_the_handshakes_time() {
    let bench = Bench::start(&fixture::shop()).await;
    let silent = TcpStream::connect(bench.addr).await.unwrap();
    let mut byte = [0];
    let start = Instant::now();
    let read = timeout(HANDSHAKE_TIMEOUT + PATIENCE, silent.readable()).await;
    assert!(read.is_ok());
    assert!(matches!(silent.try_read(&mut byte), Ok(0) | Err(_)));
    assert!(start.elapsed() >= HANDSHAKE_TIMEOUT - Duration::from_millis(50));
}

#[tokio::test]
async fn replica_hears_what_another_observes_and_what_changes() {
    let bench = Bench::start(&with_split(10)).await;
    let mut proxy = bench.client(asks(&[API])).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    bench.tally(&canary(), 1).await;

    let other = Observed::default();
    let listener = Listener {
        client: crate::fake_api::FakeApi::default().client(),
        namespace: "weft-system".to_owned(),
        service: "weft-controller".to_owned(),
        own: "127.0.0.2".parse().unwrap(),
        observed: other.clone(),
        roots: bench.roots.clone(),
        certificate: bench.certificate.clone(),
        identity: bench.identity.clone(),
        peers: prometheus_client::metrics::gauge::Gauge::default(),
    };
    let addr = bench.addr;
    let listening = tokio::spawn(async move { listener.listen(addr).await });
    let mut changes = other.changes();
    let deadline = Instant::now() + PATIENCE;
    while other.tally(&canary(), 1).acknowledged != 1 {
        tokio::time::timeout_at(deadline, changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
    assert_eq!(other.remembered("shop", "web"), [API]);
    drop(proxy);
    while other.tally(&canary(), 1).needed != 0 {
        tokio::time::timeout_at(deadline, changes.changed())
            .await
            .unwrap()
            .unwrap();
    }
    listening.abort();
}

#[tokio::test]
async fn only_a_controller_may_ask_what_was_observed() {
    let bench = Bench::start(&fixture::shop()).await;
    for channel in [
        bench.nobody().await,
        bench
            .somebody(&account("shop", "web"), Some("uid-client"))
            .await,
    ] {
        let refused = ReplicaClient::new(channel)
            .observe(v1::ObserveRequest {})
            .await
            .unwrap_err();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }
}
