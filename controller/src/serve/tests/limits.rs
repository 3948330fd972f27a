//! What floods of connections, bytes and messages do to all other clients.
//!
//! Claims: attack-80, calls-61

use bytes::{BufMut as _, Bytes};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::sleep;
use tokio_stream::StreamExt as _;
use tower::ServiceExt as _;

use super::bench::*;
use super::*;
use crate::serve::allowances::OPENINGS;
use crate::serve::buffers::PART_TIMEOUT;
use crate::testing::warnings::Warnings;

const ATTACKER: [u8; 4] = [127, 0, 0, 66];
const HONEST: [u8; 4] = [127, 0, 0, 2];

fn request(token: &str) -> v1::CertifyRequest {
    v1::CertifyRequest {
        token: token.to_owned(),
        csr: LeafKey::generate().unwrap().csr().unwrap(),
    }
}

async fn silent(bench: &Bench, from: [u8; 4], count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(socket_from(from, bench.addr).await.unwrap());
    }
    open
}

/// Connections that say nothing, each from an address of its own.
async fn unauthenticated(bench: &Bench, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for at in 0..count {
        let third = u8::try_from(1 + at / 250).unwrap();
        let last = u8::try_from(1 + at % 250).unwrap();
        let socket = socket_from([127, 0, third, last], bench.addr).await;
        open.push(socket.unwrap());
    }
    open
}

/// A certificate and then a stream, as every proxy needs them, in less than a second.
async fn must_be_served(bench: &Bench) {
    let all = async {
        let certified = ControlClient::new(bench.bootstrap_channel_from(HONEST).await)
            .certify(request("client-token"))
            .await;
        certified.unwrap();
        let web = account("shop", "web");
        let channel = bench
            .mesh_channel_from(HONEST, &web, Some("uid-client"))
            .await;
        let mut proxy = Proxy::open(channel, hello_for(&[])).await;
        assert!(proxy.batch().await.full);
    };
    timeout(Duration::from_secs(1), all).await.unwrap();
}

// Claims: B5
#[tokio::test]
async fn flood_of_silent_connections_turns_no_proxy_away() {
    let bench = Bench::start(&cluster::shop()).await;
    must_be_served(&bench).await;
    let flood = silent(&bench, ATTACKER, UNPROVEN.per_holder + 50).await;
    must_be_served(&bench).await;
    let open = bench.metrics.connections.open.get();
    let most = i64::try_from(UNPROVEN.per_holder).unwrap();
    assert!(open <= most + 8, "{open} connections are held");
    drop(flood);
    let deadline = Instant::now() + PATIENCE;
    while bench.metrics.connections.open.get() > 8 {
        assert!(Instant::now() < deadline, "connections stay open");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn address_flood_closes_oldest_connections_and_no_proxy() {
    const MORE: usize = 50;
    // Both ends of each connection are open here.
    runtime::files::raise();
    let bench = Bench::start(&with_split(1)).await;
    let mut proxy = bench.client(hello_for(&[API])).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    let mut flood = unauthenticated(&bench, UNPROVEN.total + MORE).await;
    must_be_served(&bench).await;
    // Long before their time for a handshake is over.
    let oldest = async {
        for connection in &mut flood[..MORE] {
            let read = connection.read(&mut [0; 1]).await;
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
    };
    timeout(Duration::from_secs(1), oldest).await.unwrap();
    let newest = flood.last_mut().unwrap();
    let read = timeout(Duration::from_millis(50), newest.read(&mut [0; 1])).await;
    assert!(read.is_err(), "the newest has ended as well: {read:?}");
    let ended = bench.metrics.limits.count("unproven-connections");
    assert!(ended >= 50, "{ended} were ended");
    // A client with a proven identity goes on where it was.
    bench.publish(&with_split(30));
    let next = proxy.batch().await;
    assert_eq!(weight(&next, 0), 30);
}

// Claims: B5
#[tokio::test]
async fn flooding_address_is_dropped_before_handshake() {
    let bench = Bench::start(&cluster::shop()).await;
    let count = 3 * ARRIVALS.burst as usize;
    for _ in 0..count {
        drop(socket_from(ATTACKER, bench.addr).await.unwrap());
    }
    must_be_served(&bench).await;
    let dropped = bench.metrics.limits.count("connection-rate");
    assert!(dropped > u64::from(ARRIVALS.burst), "{dropped} of {count}");
}

// Claims: B5
#[tokio::test]
async fn connection_without_a_certificate_ends_after_its_time() {
    let bench = Bench::start(&cluster::shop()).await;
    let tls = bootstrap_client_config(&bench.roots, bench.identity.clone(), &[H2_ALPN]);
    let socket = socket_from(ATTACKER, bench.addr).await.unwrap();
    let stream = TlsConnector::from(tls).connect(peer_name(), socket).await;
    let (mut reader, _writer) = tokio::io::split(stream.unwrap());
    let began = Instant::now();
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut rest);
    let ended = timeout(UNPROVEN_LIFE + PATIENCE, read).await;
    assert!(ended.is_ok(), "it is still open");
    assert!(began.elapsed() > UNPROVEN_LIFE / 2);
    must_be_served(&bench).await;
}

// Claims: B5
#[tokio::test]
async fn certificate_request_above_32_kib_is_rejected_unread() {
    let bench = Bench::start(&cluster::shop()).await;
    let channel = bench.bootstrap_channel_from(ATTACKER).await;
    let refused = ControlClient::new(channel)
        .certify(request(&"x".repeat(MAX_RECEIVED_UNPROVEN)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    let read = bench.metrics.certify.answers(CertifyResult::BadRequest);
    assert_eq!(read, 0, "it was read as a whole");
    must_be_served(&bench).await;
}

// Claims: B5
#[tokio::test]
async fn older_streams_close_beyond_newest_two_of_pod() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut proxy = bench.client(hello_for(&[])).await;
        assert!(proxy.batch().await.full);
        streams.push(proxy);
    }
    for old in &mut streams[..2] {
        let end = timeout(PATIENCE, old.inbox.message()).await.unwrap();
        assert_eq!(end.unwrap_err().code(), tonic::Code::Aborted);
    }
    for new in &mut streams[2..] {
        assert!(new.is_silent_for(Duration::from_millis(100)).await);
    }
}

// Claims: B7
#[tokio::test]
async fn invalid_destination_name_is_neither_stored_nor_replicated() {
    let bench = Bench::start(&cluster::shop()).await;
    let huge = "x".repeat(1_000_000);
    let bad = [
        huge.as_str(),
        "service/shop/api:80",
        "destination/nowhere:80",
    ];
    let mut hello = hello_for(&bad);
    hello.destinations.push(API.to_owned());
    let mut proxy = bench.client(hello).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    let add = bad.map(str::to_owned).to_vec();
    let remove = Vec::new();
    proxy
        .send_message(Message::Subscribe(v1::Subscribe { add, remove }))
        .await;
    let deadline = Instant::now() + PATIENCE;
    while bench.metrics.stream.left_out.get() < 6 {
        assert!(Instant::now() < deadline, "names were taken");
        sleep(Duration::from_millis(10)).await;
    }
    let (_, news) = bench.observed.own_since(0);
    let news: Vec<&String> = news
        .iter()
        .flat_map(|message| &message.proxies)
        .flat_map(|proxy| &proxy.destinations)
        .collect();
    assert_eq!(news, [API]);
    assert_eq!(bench.observed.retained("shop", "web"), [API]);
}

// Claims: attack-83
#[tokio::test]
async fn repeated_invalid_subscriptions_are_logged_few_times() {
    let (warnings, _counting) = Warnings::counted();
    let bench = Bench::start(&cluster::shop()).await;
    let mut proxy = bench.client(hello_for(&[])).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    for number in 0..50 {
        let add = vec![format!("service/shop/none-{number}:80")];
        let remove = Vec::new();
        proxy
            .send_message(Message::Subscribe(v1::Subscribe { add, remove }))
            .await;
    }
    let deadline = Instant::now() + PATIENCE;
    while bench.metrics.stream.left_out.get() < 50 {
        assert!(Instant::now() < deadline, "not all were counted");
        sleep(Duration::from_millis(10)).await;
    }
    let lines = warnings.count();
    assert!((1..=10).contains(&lines), "{lines} lines");
}

// Claims: B7
#[tokio::test]
async fn destinations_above_proxy_limit_are_not_replicated() {
    let bench = Bench::start(&cluster::shop()).await;
    let many: Vec<String> = (0..crate::serve::session::MAX_DESTINATIONS + 500)
        .map(|at| format!("destination/10.{}.{}.1:80", at / 250, at % 250))
        .collect();
    let mut hello = hello_for(&[]);
    hello.destinations = many;
    let mut proxy = bench.client(hello).await;
    proxy.batch().await;
    let (_, news) = bench.observed.own_since(0);
    let news: usize = news
        .iter()
        .flat_map(|message| &message.proxies)
        .map(|proxy| proxy.destinations.len())
        .sum();
    assert_eq!(news, crate::serve::session::MAX_DESTINATIONS);
    assert_eq!(bench.metrics.stream.left_out.get(), 500);
}

// Claims: B7
#[tokio::test]
async fn flooding_proxy_is_slowed_but_still_served() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut loud = bench.client(hello_for(&[])).await;
    let batch = loud.batch().await;
    let outbox = loud.outbox.clone();
    let began = Instant::now();
    let flood = tokio::spawn(async move {
        for process in 0..100_000 {
            let report = v1::Report {
                process,
                slot: 1,
                ..v1::Report::default()
            };
            let message = Some(Message::Report(report));
            if outbox.send(v1::FromProxy { message }).await.is_err() {
                return;
            }
        }
    });
    sleep(Duration::from_secs(1)).await;
    must_be_served(&bench).await;
    let received = bench
        .metrics
        .reports
        .reports(crate::metrics::ReportOutcome::OutOfTime);
    let passed = began.elapsed().as_secs_f64();
    // A burst, and then what comes in the time since, twice over at most.
    assert!(
        (received as f64) < 500.0 + 2.0 * 100.0 * passed + 100.0,
        "{received} in {passed} s"
    );
    assert!(received >= 500, "{received}");
    assert!(bench.metrics.limits.count("stream-messages") > 0);
    flood.abort();
    // It is not cut off: what it said before the flood still counts.
    loud.ack(&batch).await;
    assert!(!loud.outbox.is_closed());
}

/// So many reports of a time that is long over, as far as they are read.
async fn flood(proxy: &Proxy, reports: u64) {
    let outbox = proxy.outbox.clone();
    let saying = async {
        for process in 0..reports {
            let report = v1::Report {
                process,
                slot: 1,
                ..v1::Report::default()
            };
            let message = Some(Message::Report(report));
            if outbox.send(v1::FromProxy { message }).await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(Duration::from_millis(400), saying).await;
}

// Claims: attack-77
#[tokio::test]
async fn message_allowance_of_pod_spans_repeated_streams() {
    let bench = Bench::start(&cluster::shop()).await;
    let received = || {
        let reports = &bench.metrics.reports;
        reports.reports(crate::metrics::ReportOutcome::OutOfTime)
    };
    let began = Instant::now();
    for _ in 0..5 {
        let mut loud = bench.client(hello_for(&[])).await;
        loud.batch().await;
        flood(&loud, 2_000).await;
    }
    let passed = began.elapsed().as_secs_f64();
    let received = received();
    assert!(
        (received as f64) < 500.0 + 100.0 * passed + 100.0,
        "{received} in {passed} s"
    );
    assert!(bench.metrics.limits.count("stream-messages") > 0);
    // Another pod has its own.
    let channel = bench
        .mesh_channel(&account("shop", "api"), Some("uid-api-1"))
        .await;
    let mut other = Proxy::open(channel, hello_for(&[])).await;
    other.batch().await;
    let before = bench.metrics.stream.left_out.get();
    let add = vec!["no-destination".to_owned()];
    let remove = Vec::new();
    other
        .send_message(Message::Subscribe(v1::Subscribe { add, remove }))
        .await;
    let deadline = Instant::now() + PATIENCE;
    while bench.metrics.stream.left_out.get() == before {
        assert!(Instant::now() < deadline, "it is not read");
        sleep(Duration::from_millis(5)).await;
    }
}

// Claims: attack-77
#[tokio::test]
async fn pod_opening_endless_streams_is_refused_with_retry_time() {
    let bench = Bench::start(&cluster::shop()).await;
    let web = account("shop", "web");
    let channel = bench.mesh_channel(&web, Some("uid-client")).await;
    let began = Instant::now();
    let mut opened = 0;
    let refused = loop {
        match Proxy::try_open(channel.clone(), hello_for(&[])).await {
            Ok(proxy) => drop(proxy),
            Err(refused) => break refused,
        }
        opened += 1;
        assert!(opened < 1_000, "none is refused");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().contains("opens streams too often"));
    assert!(opened >= OPENINGS.burst, "{opened}");
    let since = began.elapsed().as_secs_f64();
    assert!(f64::from(opened) <= f64::from(OPENINGS.burst) + since + 1.0);
    assert_eq!(bench.metrics.limits.count("stream-openings"), 1);
    // Another pod has its own.
    let api = account("shop", "api");
    let channel = bench.mesh_channel(&api, Some("uid-api-1")).await;
    let mut other = Proxy::open(channel, hello_for(&[])).await;
    assert!(other.batch().await.full);
}

/// A stream that says Hello, and then so many bytes of a message of 4 MiB and no more.
async fn begin_message(channel: Channel, bytes: usize) -> (mpsc::Sender<Bytes>, Body) {
    let hello = v1::FromProxy {
        message: Some(Message::Hello(hello_for(&[]))),
    };
    let mut first = Vec::new();
    for (length, message) in [
        (hello.encoded_len(), hello.encode_to_vec()),
        (MAX_RECEIVED, vec![0; bytes]),
    ] {
        first.put_u8(0);
        first.put_u32(u32::try_from(length).unwrap());
        first.extend(message);
    }
    let (outbox, chunks) = mpsc::channel(1);
    outbox.send(Bytes::from(first)).await.unwrap();
    let chunks = ReceiverStream::new(chunks).map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let request = HttpRequest::post(format!("/{}/Stream", control_server::SERVICE_NAME))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(StreamBody::new(chunks)))
        .unwrap();
    let answer = channel.oneshot(request).await.unwrap();
    (outbox, answer.into_body())
}

/// The status that a stream ends with.
async fn end_of(mut answer: Body) -> tonic::Code {
    while let Some(frame) = answer.frame().await {
        if let Ok(trailers) = frame.unwrap().into_trailers() {
            return Status::from_header_map(&trailers).unwrap().code();
        }
    }
    panic!("it ended without a status")
}

#[tokio::test]
async fn message_that_begins_and_stands_still_ends_its_stream() {
    let bench = Bench::start(&cluster::shop()).await;
    let web = account("shop", "web");
    let channel = bench
        .mesh_channel_from(ATTACKER, &web, Some("uid-client"))
        .await;
    let (_outbox, answer) = begin_message(channel, 1000).await;
    let end = timeout(PART_TIMEOUT + PATIENCE, end_of(answer)).await;
    assert_eq!(end.unwrap(), tonic::Code::DeadlineExceeded);
    assert_eq!(bench.metrics.limits.count("slow-messages"), 1);
    must_be_served(&bench).await;
}

/// So many pods with two streams begin messages of more than there is room for.
const PODS: usize = 8;

#[tokio::test]
async fn unfinished_messages_of_many_pods_stay_within_buffer_limit() {
    let greedy = |at: usize| format!("greedy-{at}");
    let with = |all: Cluster, at: usize| {
        all.with(cluster::pod(&greedy(at), &format!("10.0.1.{at}"), "web"))
    };
    let bench = Bench::start(&(0..PODS).fold(cluster::shop(), with)).await;
    let mut unfinished = Vec::new();
    for at in 0..PODS {
        let uid = format!("uid-{}", greedy(at));
        let web = account("shop", "web");
        let channel = bench.mesh_channel_from(ATTACKER, &web, Some(&uid)).await;
        for _ in 0..2 {
            unfinished.push(begin_message(channel.clone(), MAX_RECEIVED - 1).await);
        }
    }
    // Some 60 MiB pass through TLS first.
    let deadline = Instant::now() + PATIENCE * 4;
    while bench.metrics.limits.count("message-buffers") == 0 {
        assert!(Instant::now() < deadline, "all of them are held");
        sleep(Duration::from_millis(10)).await;
    }
    must_be_served(&bench).await;
}
