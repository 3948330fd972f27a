//! What floods of bodies and connections do to the API server's calls.

use futures::StreamExt as _;
use futures::channel::mpsc;
use hyper::body::Frame;
use tokio::time::timeout;

use super::super::counted::ANSWER_TIMEOUT;
use super::*;

const ATTACKERS: [[u8; 4]; 2] = [[127, 0, 0, 66], [127, 0, 0, 67]];

type Pieces = mpsc::UnboundedSender<Bytes>;
type Slow = http_body_util::StreamBody<
    futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>,
>;

/// A call whose body begins and does not end, while what is returned lives.
fn begin(sender: &http2::SendRequest<Slow>, path: &str, first: Bytes) -> Pieces {
    let (pieces, body) = mpsc::unbounded();
    pieces.unbounded_send(first).unwrap();
    let body = body.map(|piece| Ok(Frame::data(piece))).boxed();
    let request = Request::post(format!("https://{NAME}{path}"))
        .body(Slow::new(body))
        .unwrap();
    let mut sender = sender.clone();
    tokio::spawn(async move { sender.send_request(request).await.map(drop) });
    pieces
}

async fn sender(harness: &Harness, from: [u8; 4]) -> http2::SendRequest<Slow> {
    let stream = TokioIo::new(harness.connect_from(from, b"h2").await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A pod is made, as the API server asks for it, in less than a second.
async fn must_be_answered(harness: &Harness) {
    let request = pod(json!({ "containers": [{ "name": "app" }] }));
    let review = timeout(Duration::from_secs(1), harness.review("/mutate", request));
    assert_eq!(review.await.unwrap()["response"]["allowed"], true);
}

async fn memory_is_given_back(harness: &Harness) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while harness.webhooks.memory.held() > 0 {
        assert!(Instant::now() < deadline, "{:?}", harness.webhooks.memory);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The most memory that this process ever had.
fn high_water() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[tokio::test]
async fn three_hundred_slow_bodies_delay_no_pod() {
    let harness = Harness::start().await;
    let mut slow = Vec::new();
    for at in 0..6 {
        let sender = sender(&harness, ATTACKERS[at % 2]).await;
        for path in ["/mutate", "/validate", "/account", "/convert", "/mutate"].repeat(10) {
            slow.push(begin(&sender, path, Bytes::from_static(b"{")));
        }
    }
    assert_eq!(slow.len(), 300);
    tokio::time::sleep(Duration::from_millis(200)).await;
    must_be_answered(&harness).await;
    drop(slow);
    memory_is_given_back(&harness).await;
}

#[tokio::test]
async fn large_bodies_that_never_end_are_bounded_and_delay_no_pod() {
    let harness = Harness::start().await;
    let mut slow = Vec::new();
    for at in 0..6 {
        let sender = sender(&harness, ATTACKERS[at % 2]).await;
        for _ in 0..10 {
            let most = Bytes::from(vec![b' '; MAX_BODY - 1]);
            slow.push(begin(&sender, "/mutate", most));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        must_be_answered(&harness).await;
    }
    let peak = harness.webhooks.memory.peak();
    assert!(peak > MEMORY.total / 2, "little was held: {peak}");
    assert!(peak <= MEMORY.total, "{peak}");
    drop(slow);
    memory_is_given_back(&harness).await;
}

#[tokio::test]
async fn review_that_takes_a_hundred_times_its_length_is_refused_unread() {
    let harness = Harness::start().await;
    let maps = vec![r#"{"":0}"#; MAX_BODY / 8].join(",");
    let body = Bytes::from(format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{}},"object":[{maps}]}}}}"#
    ));
    assert!(body.len() > 2 * MAX_BODY / 3 && body.len() <= MAX_BODY);
    let before = high_water();
    for path in ["/mutate", "/validate", "/account"].repeat(4) {
        let (status, _) = harness.call(path, body.clone()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
    let more = high_water() - before;
    assert!(more < 128 * 1024 * 1024, "{more} bytes");
    must_be_answered(&harness).await;
    memory_is_given_back(&harness).await;
}

#[tokio::test]
async fn list_of_many_objects_is_converted_within_the_memory_of_a_few() {
    let harness = Harness::start().await;
    let many: Vec<Value> = (0..250).map(|i| target(&format!("t{i}"), 100)).collect();
    let body = conversion(&many.into());
    let whole = crate::review::cost(body.as_bytes()).whole;
    let (status, body) = harness.call("/convert", body).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let review: Value = serde_json::from_slice(&body).unwrap();
    let objects = review["response"]["convertedObjects"].as_array().unwrap();
    assert_eq!(objects.len(), 250);
    let peak = harness.webhooks.memory.peak();
    assert!(peak < whole / 2, "{peak} of {whole}");
    memory_is_given_back(&harness).await;
}

#[tokio::test]
async fn answer_that_nobody_takes_is_given_up() {
    let harness = Harness::start().await;
    let many: Vec<Value> = (0..900).map(|i| target(&format!("t{i}"), 200)).collect();
    let body = conversion(&many.into());
    let mut tls = harness.connect_from(ATTACKERS[0], b"http/1.1").await;
    let head = format!(
        "POST /convert HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    tls.write_all(head.as_bytes()).await.unwrap();
    tls.write_all(body.as_bytes()).await.unwrap();
    let mut first = [0; 1];
    tls.read_exact(&mut first).await.unwrap();
    let held = harness.webhooks.memory.held();
    assert!(held > 1024 * 1024, "the answer does not count: {held}");
    must_be_answered(&harness).await;
    tokio::time::sleep(ANSWER_TIMEOUT).await;
    memory_is_given_back(&harness).await;
}

#[tokio::test]
async fn address_that_connects_without_end_shuts_no_other_out() {
    let harness = Harness::start().await;
    let mut hoard = Vec::new();
    for _ in 0..2 * ARRIVALS.burst {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((ATTACKERS[0], 0))).unwrap();
        hoard.push(socket.connect(harness.address).await.unwrap());
    }
    must_be_answered(&harness).await;
    let metrics = harness.metrics();
    for limit in ["connections", "connection-rate"] {
        let line = format!("weft_injector_limit_reached_total{{limit=\"{limit}\"}}");
        assert!(metrics.contains(&line), "{metrics}");
    }
}
