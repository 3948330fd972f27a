//! The gRPC port, with proxies that behave and others.
//!
//! Claims: attack-6

use tokio::time::sleep;

use super::*;

mod bench;
mod breakers;
mod capabilities;
mod grants;
mod limits;
mod older;
mod proxy_info;
mod questions;
mod replicas;
mod revoked;
mod shares;
use bench::*;

#[tokio::test]
async fn new_proxy_gets_certificate_that_opens_its_stream() {
    let bench = Bench::start(&cluster::shop()).await;
    let key = LeafKey::generate().unwrap();
    let request = v1::CertifyRequest {
        token: "client-token".to_owned(),
        csr: key.csr().unwrap(),
    };
    let answer = ControlClient::new(bench.bootstrap_channel().await)
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
    let mut proxy = Proxy::open(channel(bench.addr, tls).await.unwrap(), hello_for(&[])).await;
    let batch = proxy.batch().await;
    assert!(batch.full);
    assert_eq!(names(&batch), ["bundle", "workload"]);
    assert_eq!(bench.metrics.certify.answers(CertifyResult::Issued), 1);
}

#[tokio::test]
async fn refused_certificate_is_a_status_with_its_reason() {
    let bench = Bench::start(&cluster::shop()).await;
    bench.cluster.pods.lock().clear();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let request = v1::CertifyRequest {
        token: "client-token".to_owned(),
        csr,
    };
    let status = ControlClient::new(bench.bootstrap_channel().await)
        .certify(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    assert!(status.message().contains("shop/client"), "{status}");
}

#[tokio::test]
async fn first_batch_follows_hello_without_resending_held_resources() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello_for(&[API])).await;
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

    let versions = first
        .set
        .iter()
        .map(|resource| (resource.name.clone(), resource.version.clone()))
        .collect();
    let mut again = bench
        .client(v1::Hello {
            held: versions,
            ..hello_for(&[API])
        })
        .await;
    let batch = again.batch().await;
    assert!(batch.full && batch.set.is_empty());
    assert_eq!(batch.unchanged.len(), first.set.len());
}

#[tokio::test]
async fn subscription_immediately_returns_destination_and_its_references() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello_for(&[])).await;
    // Not even the answer to the first batch is waited for.
    proxy.batch().await;
    proxy
        .send_message(Message::Subscribe(v1::Subscribe {
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
        .send_message(Message::Subscribe(v1::Subscribe {
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
async fn acknowledgement_marks_source_object_programmed() {
    let bench = Bench::start(&with_split(10)).await;
    let mut proxy = bench.client(hello_for(&[API])).await;
    let batch = proxy.batch().await;
    assert_eq!(bench.tally_now(&canary()).acknowledged, 0);
    proxy.ack(&batch).await;
    bench.tally(&canary(), 1).await;
    assert_eq!(bench.tally_now(&canary()).needed, 1);
}

#[tokio::test]
async fn nack_names_proxy_and_reason_and_stops_resending() {
    let bench = Bench::start(&with_split(10)).await;
    let mut proxy = bench.client(hello_for(&[API])).await;
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
        .send_message(Message::Ack(v1::Ack {
            batch: batch.id,
            nacks: vec![nack],
        }))
        .await;
    let deadline = Instant::now() + PATIENCE;
    while bench.tally_now(&canary()).nack.is_none() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(5)).await;
    }
    let nack = bench.tally_now(&canary()).nack.unwrap();
    assert_eq!(nack, ("shop/client".to_owned(), "unknown split".to_owned()));
    bench.publish(&with_split(10));
    assert!(proxy.is_silent_for(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn slow_proxy_gets_only_the_newest_state() {
    let bench = Bench::start(&with_split(1)).await;
    let mut proxy = bench.client(hello_for(&[API])).await;
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
    let bench = Bench::start(&cluster::shop()).await;
    let refused = Proxy::try_open(bench.bootstrap_channel().await, hello_for(&[]))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn certificate_of_another_authority_is_refused_in_the_handshake() {
    let bench = Bench::start(&cluster::shop()).await;
    let foreign = Authority::in_memory();
    let handle = CertHandle::empty();
    handle.store(leaf(&foreign, &account("shop", "web"), Some("uid-client")));
    let tls = mesh_client_config(&bench.roots, &handle, bench.identity.clone(), &[H2_ALPN]);
    // With TLS 1.3 the client learns of it with its first read.
    let refused = match channel(bench.addr, tls).await {
        Ok(channel) => Proxy::try_open(channel, hello_for(&[])).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    assert_eq!(bench.metrics.connections.handshakes_failed.get(), 1);
    assert_eq!(bench.metrics.stream.batches.get(), 0);
}

// Claims: A4
#[tokio::test]
async fn foreign_trust_domain_opens_no_proxy_or_replica_stream() {
    let bench = Bench::start(&cluster::shop()).await;
    // Below the same root, as with two clusters of one company.
    let abroad = |namespace, name| SpiffeId::of("other.example", namespace, name).unwrap();
    let web = abroad("shop", "web");
    let controller = abroad("weft-system", "weft-controller");
    for (identity, uid) in [(&web, Some("uid-client")), (&controller, None)] {
        let handle = CertHandle::empty();
        handle.store(leaf(&bench.authority, identity, uid));
        let tls = mesh_client_config(&bench.roots, &handle, bench.identity.clone(), &[H2_ALPN]);
        let channel = channel(bench.addr, tls).await;
        let refused = match channel {
            Ok(channel) => {
                let replica = ReplicaClient::new(channel.clone());
                let observing = { replica }.observe(v1::ObserveRequest {}).await;
                observing.is_err() && Proxy::try_open(channel, hello_for(&[])).await.is_err()
            }
            Err(_) => true,
        };
        assert!(refused, "{identity}");
    }
    let failed = bench.metrics.connections.handshakes_failed.get();
    assert!(
        failed >= 2,
        "in the handshake, before anything is read: {failed}"
    );
    assert_eq!(bench.metrics.stream.batches.get(), 0);

    let mut honest = bench.client(hello_for(&[])).await;
    assert!(honest.batch().await.full);
    // A replica does not listen to a controller of another trust domain either.
    bench
        .certificate
        .store(leaf(&bench.authority, &controller, None));
    let tls = bootstrap_client_config(&bench.roots, controller.clone(), &[H2_ALPN]);
    assert!(channel(bench.addr, tls).await.is_err());
}

#[tokio::test]
async fn certificate_without_a_pod_opens_no_stream() {
    let bench = Bench::start(&cluster::shop()).await;
    let channel = bench.mesh_channel(&account("shop", "web"), None).await;
    let refused = Proxy::try_open(channel, hello_for(&[]))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn pods_state_is_not_served_to_another_identity() {
    let bench = Bench::start(&cluster::shop()).await;
    for foreign in [account("shop", "api"), account("bank", "web")] {
        let channel = bench.mesh_channel(&foreign, Some("uid-client")).await;
        let refused = Proxy::try_open(channel, hello_for(&[]))
            .await
            .err()
            .unwrap();
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    }
}

#[tokio::test]
async fn each_pod_gets_its_own_rules_only() {
    let rules = serde_json::json!([{"kind": "TCPRoute", "name": "all"}]);
    let guarded = cluster::shop()
        .with(cluster::tcp_route("all", &[]))
        .with(cluster::target("guard", "api", &["web"], rules));
    let bench = Bench::start(&guarded).await;
    let mut client = bench.client(hello_for(&[])).await;
    assert_eq!(names(&client.batch().await), ["bundle", "workload"]);
    let channel = bench
        .mesh_channel(&account("shop", "api"), Some("uid-api-1"))
        .await;
    let mut server = Proxy::open(channel, hello_for(&[])).await;
    assert!(names(&server.batch().await).contains(&"rule/shop/guard"));
}

#[tokio::test]
async fn pod_that_is_not_known_yet_is_waited_for() {
    let bench = Bench::start(&Cluster::default().with(cluster::namespace("shop"))).await;
    let channel = bench
        .mesh_channel(&account("shop", "web"), Some("uid-client"))
        .await;
    let opening = tokio::spawn(Proxy::open(channel, hello_for(&[])));
    sleep(Duration::from_millis(100)).await;
    bench.publish(&cluster::shop());
    let mut proxy = timeout(PATIENCE, opening).await.unwrap().unwrap();
    assert!(proxy.batch().await.full);
}

#[tokio::test]
async fn stream_of_deleted_pod_closes_with_that_reason() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello_for(&[])).await;
    proxy.batch().await;
    bench.publish(&Cluster::default().with(cluster::namespace("shop")));
    let status = timeout(PATIENCE, proxy.inbox.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn stream_must_begin_with_a_hello() {
    let bench = Bench::start(&cluster::shop()).await;
    let channel = bench
        .mesh_channel(&account("shop", "web"), Some("uid-client"))
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
async fn new_workload_replica_gets_destinations_before_subscribing() {
    let replicas = cluster::shop().with(cluster::pod("client-2", "10.0.0.2", "web"));
    let bench = Bench::start(&replicas).await;
    // One destination that serves, and one outside the mesh that is not worth remembering.
    let mut first = bench
        .client(hello_for(&[API, "destination/192.0.2.9:443"]))
        .await;
    let batch = first.batch().await;
    first.ack(&batch).await;
    let channel = bench
        .mesh_channel(&account("shop", "web"), Some("uid-client-2"))
        .await;
    let mut second = Proxy::open(channel, hello_for(&[])).await;
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
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello_for(&[])).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    bench.stop.send_replace(true);
    let end = timeout(PATIENCE, proxy.inbox.message()).await.unwrap();
    assert!(matches!(end, Ok(None)), "{end:?}");
    drop(proxy);
    timeout(PATIENCE, bench.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn silent_connection_is_closed_after_handshake_timeout() {
    let bench = Bench::start(&cluster::shop()).await;
    let silent = TcpStream::connect(bench.addr).await.unwrap();
    let mut byte = [0];
    let start = Instant::now();
    let read = timeout(HANDSHAKE_TIMEOUT + PATIENCE, silent.readable()).await;
    assert!(read.is_ok());
    assert!(matches!(silent.try_read(&mut byte), Ok(0) | Err(_)));
    assert!(start.elapsed() >= HANDSHAKE_TIMEOUT - Duration::from_millis(50));
}
