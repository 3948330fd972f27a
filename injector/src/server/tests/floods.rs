//! What floods of bodies and connections do to the API server's calls.
//!
//! Claims: attack-67, attack-80

use futures::StreamExt as _;
use futures::channel::mpsc;
use hyper::body::Frame;
use tokio::time::timeout;

use super::super::counted::ANSWER_TIMEOUT;
use super::*;

const ATTACKERS: [[u8; 4]; 2] = [[127, 0, 0, 66], [127, 0, 0, 67]];

type Chunks = mpsc::UnboundedSender<Bytes>;
type Slow = http_body_util::StreamBody<
    futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>,
>;

/// A call whose body begins and does not end, while what is returned lives.
fn begin(sender: &http2::SendRequest<Slow>, path: &str, first: Bytes) -> Chunks {
    let (chunks, body) = mpsc::unbounded();
    chunks.unbounded_send(first).unwrap();
    let body = body.map(|chunk| Ok(Frame::data(chunk))).boxed();
    let request = Request::post(format!("https://{NAME}{path}"))
        .body(Slow::new(body))
        .unwrap();
    let mut sender = sender.clone();
    tokio::spawn(async move { sender.send_request(request).await.map(drop) });
    chunks
}

async fn sender(harness: &Harness, from: [u8; 4]) -> http2::SendRequest<Slow> {
    let stream = TokioIo::new(harness.connect_from(from, b"h2").await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A pod is made, as the API server requests it. It takes milliseconds; the bound allows for a
/// busy machine.
async fn must_be_answered(harness: &Harness) {
    let request = pod(json!({ "containers": [{ "name": "app" }] }));
    let review = timeout(Duration::from_secs(5), harness.review("/mutate", request));
    assert_eq!(review.await.unwrap()["response"]["allowed"], true);
}

async fn memory_is_given_back(harness: &Harness) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while harness.webhooks.memory.in_use() > 0 {
        assert!(Instant::now() < deadline, "{:?}", harness.webhooks.memory);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The most memory that this process ever had, in bytes. The kernel adds it up from counters of
/// each processor, so a later reading may be some pages smaller.
fn high_water() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// A pod is made, as an API server requests it on a connection that it has.
async fn must_be_answered_on(sender: &http2::SendRequest<Slow>) {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": pod(json!({ "containers": [{ "name": "app" }] })),
    });
    let body = Bytes::from(review.to_string());
    let body = futures::stream::iter([Ok(Frame::data(body))]).boxed();
    let request = Request::post(format!("https://{NAME}/mutate"))
        .body(Slow::new(body))
        .unwrap();
    let response = sender.clone().send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// Connections that say nothing, each from an address of its own.
async fn unauthenticated(harness: &Harness, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for at in 0..count {
        let last = u8::try_from(at + 1).unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let from = SocketAddr::from(([127, 0, 1, last], 0));
        socket.bind(from).unwrap();
        open.push(socket.connect(harness.address).await.unwrap());
    }
    open
}

// Claims: B5
#[tokio::test]
async fn connection_flood_closes_no_api_server_connections() {
    let harness = Harness::start().await;
    let mut api = Vec::new();
    for _ in 0..2 {
        let sender = sender(&harness, [127, 0, 0, 1]).await;
        must_be_answered_on(&sender).await;
        api.push(sender);
    }
    let flood = unauthenticated(&harness, CONNECTIONS.total + 50).await;
    let closed = || harness.webhooks.metrics.limits.count("connections");
    let deadline = Instant::now() + Duration::from_secs(5);
    while closed() < 50 {
        assert!(Instant::now() < deadline, "{} were closed", closed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for sender in &api {
        must_be_answered_on(sender).await;
    }
    must_be_answered(&harness).await;
    drop(flood);
}

// Claims: B5
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

// Claims: B5
#[tokio::test]
async fn endless_large_bodies_are_bounded_without_delaying_pods() {
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

// Claims: B5
#[tokio::test]
async fn review_costing_100_times_its_length_is_refused() {
    if !is_alone("review_costing_100_times_its_length_is_refused") {
        return;
    }
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
    let more = high_water().saturating_sub(before);
    assert!(more < 128 * 1024 * 1024, "{more} bytes");
    must_be_answered(&harness).await;
    memory_is_given_back(&harness).await;
}

// Claims: B5
#[tokio::test]
async fn large_list_is_converted_within_memory_of_few_objects() {
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
async fn unread_response_is_abandoned() {
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
    let in_use = harness.webhooks.memory.in_use();
    assert!(in_use > 1024 * 1024, "the answer does not count: {in_use}");
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

/// A review with as many short keys as fit: read, it takes twenty times its length.
fn keys(path: &str) -> Bytes {
    let keys: Vec<String> = (0..300_000).map(|i| format!("\"{i:x}\":0")).collect();
    let keys = keys.join(",");
    let body = if path == "/convert" {
        format!(
            r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","request":{{"uid":"u","desiredAPIVersion":"access.smi-spec.io/v1alpha4","objects":[{{"apiVersion":"access.smi-spec.io/v1alpha1","kind":"TrafficTarget","metadata":{{"name":"t"}},"x":{{{keys}}}}}]}}}}"#
        )
    } else {
        format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{"group":"","kind":"Pod"}},"namespace":"shop","operation":"CREATE","object":{{"metadata":{{}},"spec":{{"containers":[],"x":{{{keys}}}}}}}}}}}"#
        )
    };
    assert!((MAX_BODY * 9 / 10..=MAX_BODY).contains(&body.len()));
    body.into()
}

/// Statuses of so many calls with the same body at one time, each on its own connection.
async fn at_once(harness: &Harness, path: &str, body: &Bytes, calls: usize) -> Vec<StatusCode> {
    let calls = (0..calls).map(async |at| {
        let stream = TokioIo::new(harness.connect_from(ATTACKERS[at % 2], b"h2").await);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("https://{NAME}{path}"))
            .body(Full::new(body.clone()))
            .unwrap();
        let response = sender.send_request(request).await;
        // A connection that is closed for its bytes is an answer as well.
        response.map_or(StatusCode::SERVICE_UNAVAILABLE, |response| {
            response.status()
        })
    });
    futures::future::join_all(calls).await
}

/// Set for the process that measures its own memory, away from the other tests'.
const ALONE: &str = "WEFT_TEST_ALONE";

/// Runs a test of this file again in a process of its own. True if this is that process.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg(format!("server::tests::floods::{test}"))
        .env(ALONE, "1")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{out}{err}"
    );
    println!("{out}");
    false
}

// Claims: B5
#[tokio::test]
async fn eight_concurrent_reviews_need_memory_of_one() {
    if !is_alone("eight_concurrent_reviews_need_memory_of_one") {
        return;
    }
    let harness = Harness::start().await;
    let paths = [
        "/mutate",
        "/validate",
        "/account",
        "/ephemeral",
        "/spelling",
        "/convert",
    ];
    let (mut grown, mut late) = (Vec::new(), 0);
    for path in paths {
        let body = keys(path);
        let before = high_water();
        let mut flood = std::pin::pin!(at_once(&harness, path, &body, 8));
        let mut pods = 0;
        let statuses = loop {
            let began = Instant::now();
            let request = pod(json!({ "containers": [{ "name": "app" }] }));
            tokio::select! {
                biased;
                statuses = &mut flood => break statuses,
                review = harness.review("/mutate", request) => {
                    assert_eq!(review["response"]["allowed"], true);
                    pods += 1;
                    late += usize::from(began.elapsed() > Duration::from_secs(1));
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let more = (high_water().saturating_sub(before)) / 1024 / 1024;
        println!("{path}: {more} MiB more, {pods} pods beside, {late} late, {statuses:?}");
        grown.push(more);
    }
    // One review takes 60 MiB, the bodies and what this side has of them some 40.
    let all: usize = grown.iter().sum();
    assert!(all < 112, "{grown:?} MiB");
    assert_eq!(late, 0, "pods that took longer than a second");
    memory_is_given_back(&harness).await;
}

#[tokio::test]
async fn large_reviews_of_honest_authors_are_answered() {
    let harness = Harness::start().await;
    let fields: Vec<String> = (0..40)
        .map(|i| format!(r#""f:field{i}":{{".":{{}},"f:name":{{}},"f:value":{{}}}}"#))
        .collect();
    let fields = format!("{{{}}}", fields.join(","));
    let fields: Value = serde_json::from_str(&fields).unwrap();
    let manager = |i| {
        json!({
            "manager": format!("controller-{i}"), "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": fields}, "f:spec": fields},
        })
    };
    let managers: Vec<Value> = (0..60).map(manager).collect();
    let env: Vec<Value> = (0..1_000)
        .map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "x".repeat(600)}))
        .collect();
    let conditions: Vec<Value> = (0..100)
        .map(|i| json!({"type": format!("c{i}"), "status": "True"}))
        .collect();
    let large = json!({
        "metadata": {
            "name": "web-1", "labels": {"app": "web"}, "managedFields": managers,
            "annotations": {"note": "y".repeat(200 * 1024)},
        },
        "spec": {"containers": [{"name": "app", "env": env}]},
        "status": {"conditions": conditions},
    });
    assert!(large.to_string().len() > 1024 * 1024);
    let mut request = pod(json!({}));
    request["object"] = large.clone();
    let review = harness.review("/mutate", request.clone()).await;
    assert!(review["response"]["patch"].is_string());
    request["operation"] = "UPDATE".into();
    request["oldObject"] = large;
    for path in ["/account", "/ephemeral", "/spelling"] {
        let review = harness.review(path, request.clone()).await;
        assert_eq!(review["response"]["allowed"], true, "{path}: {review}");
    }
    // As much as etcd takes, with its former state.
    let source = json!({"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"});
    let rule = json!({"kind": "HTTPRouteGroup", "name": "routes", "matches": ["all"]});
    let target = |port: u16| {
        json!({
            "metadata": {"annotations": {"note": "z".repeat(1_200_000)}, "managedFields": managers},
            "spec": {
                "destination": {"kind": "ServiceAccount", "name": "web", "port": port},
                "sources": vec![&source; 256], "rules": vec![&rule; 64],
            },
        })
    };
    let request = json!({
        "uid": "u2", "namespace": "shop", "name": "web", "operation": "UPDATE",
        "kind": {"group": "access.smi-spec.io", "version": "v1alpha4", "kind": "TrafficTarget"},
        "object": target(1), "oldObject": target(2),
    });
    assert!(request.to_string().len() > 2_500_000);
    let review = harness.review("/validate", request).await;
    assert_eq!(review["response"]["uid"], "u2", "{review}");
    memory_is_given_back(&harness).await;
}

/// Thousands of expressions, and as many as may be compiled for one object.
fn expressions() -> Bytes {
    let matches: Vec<Value> = (0..64)
        .map(|i| {
            let headers: Vec<Value> = (0..32)
                .map(|k| json!({format!("h{k}"): format!("\\w{{9}}{}", i * 40 + k)}))
                .collect();
            json!({"name": format!("m{i}"), "pathRegex": format!("\\w{{9}}{i}"), "headers": headers})
        })
        .collect();
    let request = json!({
        "uid": "u", "namespace": "shop", "name": "x", "operation": "CREATE",
        "kind": {"group": "specs.smi-spec.io", "version": "v1alpha4", "kind": "HTTPRouteGroup"},
        "object": {"spec": {"matches": matches}},
    });
    let review = json!({"apiVersion": "admission.k8s.io/v1", "request": request});
    review.to_string().into()
}

#[tokio::test]
async fn address_with_dear_reviews_without_end_delays_no_others() {
    let harness = Harness::start().await;
    let (body, began) = (expressions(), Instant::now());
    let (status, _) = harness.call("/validate", body.clone()).await;
    assert_eq!(status, StatusCode::OK);
    println!("one takes {:?}", began.elapsed());
    let (done, finished) = mpsc::unbounded();
    let mut flood = tokio::task::JoinSet::new();
    for at in 0..10 {
        let stream = TokioIo::new(harness.connect_from(ATTACKERS[at % 2], b"h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        flood.spawn(async move { drop(connection.await) });
        for _ in 0..5 {
            let (mut sender, body, done) = (sender.clone(), body.clone(), done.clone());
            flood.spawn(async move {
                loop {
                    let request = Request::post(format!("https://{NAME}/validate"));
                    let request = request.body(Full::new(body.clone())).unwrap();
                    let Ok(response) = sender.send_request(request).await else {
                        return;
                    };
                    let _ = done.unbounded_send(response.status());
                }
            });
        }
    }
    drop(done);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let began = Instant::now();
        must_be_answered(&harness).await;
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    flood.shutdown().await;
    let statuses: Vec<StatusCode> = finished.collect().await;
    let count = |status| statuses.iter().filter(|seen| **seen == status).count();
    let (validated, refused) = (
        count(StatusCode::OK),
        count(StatusCode::TOO_MANY_REQUESTS) + count(StatusCode::SERVICE_UNAVAILABLE),
    );
    println!("slowest pod {slowest:?}; {validated} dear reviews judged, {refused} refused");
    assert!(validated > 3, "the others are not starved: {validated}");
}
