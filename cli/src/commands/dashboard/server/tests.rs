//! The server over real connections, before an API server in memory.
//!
//! Claims: observe-76, observe-81

use std::time::Instant;

use clap::Parser as _;
use crds::observe::Resource;
use fake_api::FakeApi;
use futures::stream;
use http::Response;
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::*;
use crate::args::Cli;

mod unauthenticated;

const GRAPH: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live";

struct Served {
    api: FakeApi,
    port: u16,
}

async fn served() -> Served {
    let api = FakeApi::default();
    api.put(GRAPH, json!({"kind": "Graph", "nodes": [], "edges": []}));
    let port = before(api.client()).await;
    Served { api, port }
}

/// The port of a server before this API server.
async fn before(client: Client) -> u16 {
    let cli = Cli::parse_from(["weft", "dashboard", "-n", "shop", "--request-timeout", "1s"]);
    let cluster = Cluster::of(client, &cli.global);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let site = Site::new(cluster, Guard::new(port, "key".to_owned()));
    tokio::spawn(async move { serve(&listener, &site).await });
    port
}

impl Served {
    /// Sends these bytes and reads to the end of the connection.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Status and body for a request with these headers besides the host.
    async fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let port = self.port;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n{headers}\r\n"
        );
        let answer = self.raw(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.unwrap_or_default(), head.to_owned(), body.to_owned())
    }
}

const KEY: &str = "weft-dashboard: key\r\n";

#[tokio::test]
async fn dashboard_requires_key_for_cluster_data_only() {
    let served = served().await;
    for path in ["/", "/dashboard.js", "/dashboard.css"] {
        let (status, head, _) = served.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}");
        assert!(
            head.contains("default-src 'none'; script-src 'self'"),
            "{head}"
        );
        assert!(!head.contains("unsafe-"), "{head}");
        assert!(
            head.contains("nosniff") && head.contains("no-store"),
            "{head}"
        );
    }
    let (status, _, body) = served.ask("GET", GRAPH, "").await;
    assert_eq!(status, 403, "{body}");
    let (status, head, body) = served.ask("GET", GRAPH, KEY).await;
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("application/json"), "{head}");
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["kind"],
        "Graph"
    );
    let (_, _, start) = served.ask("GET", "/start", KEY).await;
    let start: Value = serde_json::from_str(&start).unwrap();
    assert_eq!(
        (&start["namespace"], &start["named"]),
        (&json!("shop"), &json!(true))
    );
}

#[tokio::test]
async fn foreign_host_origin_or_method_never_reaches_cluster() {
    let served = served().await;
    let foreign =
        format!("GET {GRAPH} HTTP/1.1\r\nhost: evil.example\r\n{KEY}connection: close\r\n\r\n");
    assert!(
        served
            .raw(foreign.as_bytes())
            .await
            .starts_with("HTTP/1.1 403")
    );
    for (method, headers, wanted) in [
        ("GET", "origin: http://evil.example\r\n", 403),
        ("GET", "sec-fetch-site: cross-site\r\n", 403),
        ("POST", "", 405),
        ("DELETE", "", 405),
        ("PATCH", "", 405),
    ] {
        let (status, ..) = served.ask(method, GRAPH, &format!("{KEY}{headers}")).await;
        assert_eq!(status, wanted, "{method} {headers}");
    }
    for path in [
        "/api/v1/secrets",
        "/apis/observe.weft.dev/v1alpha1/taps/live",
    ] {
        let (status, ..) = served.ask("GET", path, KEY).await;
        assert_eq!(status, 404, "{path}");
    }
    assert_eq!(served.api.reads(GRAPH), 0);
    assert!(served.api.writes().is_empty());
    let (status, ..) = served.ask("GET", GRAPH, KEY).await;
    assert_eq!(
        (status, served.api.reads(GRAPH)),
        (200, 1),
        "the honest one is answered"
    );
}

#[tokio::test]
async fn refusing_or_silent_cluster_is_reported_in_time() {
    let served = served().await;
    let (status, _, body) = served
        .ask("GET", &GRAPH.replace("shop", "other"), KEY)
        .await;
    assert_eq!(status, 404, "{body}");
    assert!(body.contains("observe.enabled"), "{body}");
    served.api.vanish(true);
    let started = Instant::now();
    let (status, _, body) = served.ask("GET", GRAPH, KEY).await;
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("did not answer within 1 s"), "{body}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn request_after_refused_oversized_head_is_served() {
    let served = served().await;
    let head = |length| format!("x: {}\r\n", "a".repeat(length));
    let (status, ..) = served.ask("GET", "/", &head(MAX_HEAD / 2)).await;
    assert_eq!(status, 200);
    // The response may be lost, because not all of the head was read.
    let (status, ..) = served.ask("GET", "/", &head(2 * MAX_HEAD)).await;
    assert!([0, 431].contains(&status), "{status}");
    let (status, ..) = served.ask("GET", "/", "").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn connection_without_complete_head_is_closed_in_time() {
    let served = served().await;
    let ended = timeout(3 * HEAD_WITHIN, served.raw(b"GET / HTTP/1.1\r\n")).await;
    ended.expect("it stays open");
}

/// The path of the page's query about a call from `web` in `bank` to `cart` in `shop`.
fn question() -> String {
    let spec = json!({"from": {"kind": "Deployment", "namespace": "bank", "name": "web"},
        "to": {"kind": "Service", "namespace": "shop", "name": "cart"}})
    .to_string();
    let spec: String = form_urlencoded::byte_serialize(spec.as_bytes()).collect();
    format!("/explanation?spec={spec}")
}

#[tokio::test]
async fn refused_explanation_keeps_its_status_and_message() {
    let served = served().await;
    let path = question();
    for namespace in ["shop", "bank"] {
        let collection = Resource::Explanations.path(Some(namespace), None);
        served.api.allow_creation(&collection, false);
    }
    let (status, _, body) = served.ask("GET", &path, KEY).await;
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("explanations: Forbidden"), "{body}");
    served.api.vanish(true);
    let (status, _, body) = served.ask("GET", &path, KEY).await;
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("did not answer within 1 s"), "{body}");
}

#[tokio::test]
async fn slow_explanations_are_limited_and_leave_page_responsive() {
    let served = served().await;
    let path = question();
    served.api.vanish(true);
    let requests = (0..10).map(|_| served.ask("GET", &path, KEY));
    let answers = futures::future::join_all(requests).await;
    let with = |wanted| {
        answers
            .iter()
            .filter(|(status, ..)| *status == wanted)
            .count()
    };
    assert_eq!((with(502), with(429)), (EXPLANATIONS, 10 - EXPLANATIONS));
    let refused = answers.iter().find(|(status, ..)| *status == 429).unwrap();
    assert!(
        refused.2.contains("ask again when one is answered"),
        "{}",
        refused.2
    );
    // While other requests wait for the API server, one that does not need it is answered at once.
    let hung = (0..QUESTIONS).map(|_| served.ask("GET", &path, KEY));
    let started = Instant::now();
    let page = async {
        sleep(Duration::from_millis(200)).await;
        let (status, ..) = served.ask("GET", "/", "").await;
        (status, started.elapsed())
    };
    let (_, (status, took)) = futures::future::join(futures::future::join_all(hung), page).await;
    assert_eq!(status, 200);
    assert!(took < Duration::from_millis(800), "{took:?}");
    served.api.vanish(false);
    let (status, _, body) = served.ask("GET", &path, KEY).await;
    assert_eq!(status, 200, "places are given back: {body}");
}

#[tokio::test]
async fn explanation_is_returned_with_fix_as_yaml() {
    let served = served().await;
    let path = question();
    let (status, _, body) = served.ask("GET", &path, KEY).await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["explanation"]["kind"], "Explanation", "{body}");
    assert_eq!(answer["yaml"], "");
    let writes = served.api.writes();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert!(
        writes[0].1.ends_with("/namespaces/shop/explanations"),
        "{writes:?}"
    );
    let (status, ..) = served.ask("GET", &path, "").await;
    assert_eq!(status, 403);
}

const TAP: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/taps/live?watch=true&of=Pod/web";

/// An API server that streams the test's lines; and a channel that yields each stream as it is
/// opened.
fn streaming() -> (Client, mpsc::Receiver<mpsc::Sender<Bytes>>) {
    let (streams, started) = mpsc::channel(16);
    let service = tower::service_fn(move |_: Request<Body>| {
        let (lines, received) = mpsc::channel::<Bytes>(16);
        streams.try_send(lines).unwrap();
        let frames = stream::unfold(received, |mut received| async move {
            let line = received.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(line)), received))
        });
        async move { Ok::<_, Infallible>(Response::new(StreamBody::new(frames))) }
    });
    (Client::new(service, "shop"), started)
}

/// The sender of the lines of the next stream that is requested.
async fn next_stream(started: &mut mpsc::Receiver<mpsc::Sender<Bytes>>) -> mpsc::Sender<Bytes> {
    let lines = timeout(Duration::from_secs(5), started.recv()).await;
    lines.expect("the API server is not asked").unwrap()
}

/// Requests a tap and leaves the response to be read.
async fn watching(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {TAP} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{KEY}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until this has come, while more may follow.
async fn read_until(stream: &mut TcpStream, wanted: &str) {
    let mut read: Vec<u8> = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(wanted) {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).await.unwrap();
            assert!(length > 0, "it ended without {wanted}");
            read.extend_from_slice(&part[..length]);
        }
    };
    timeout(Duration::from_secs(5), reading)
        .await
        .unwrap_or_else(|_| panic!("{wanted} never came"));
}

// Claims: observe-71
#[tokio::test]
async fn tap_lines_are_forwarded_immediately_until_reader_closes() {
    let (client, mut started) = streaming();
    let port = before(client).await;
    let mut reader = watching(port).await;
    let lines = next_stream(&mut started).await;
    for line in ["{\"first\":1}\n", "{\"second\":2}\n"] {
        lines.send(Bytes::from(line)).await.unwrap();
        // Before the next is sent.
        read_until(&mut reader, line).await;
    }
    assert!(!lines.is_closed(), "the control: it goes on");
    drop(reader);
    let ended = timeout(Duration::from_secs(5), lines.closed()).await;
    ended.expect("the reader is gone, and the tap goes on");
}

#[tokio::test]
async fn retry_after_is_forwarded_only_if_sent() {
    for (seconds, expected) in [(1, json!(1)), (0, Value::Null)] {
        let service = tower::service_fn(move |_: Request<Body>| {
            let refusal = json!({"kind": "Status", "status": "Failure", "code": 429,
                "message": "no place", "details": {"retryAfterSeconds": seconds}});
            let mut answer = Response::new(Body::from(refusal.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = Served {
            api: FakeApi::default(),
            port: before(Client::new(service, "shop")).await,
        };
        let (status, head, body) = served.ask("GET", TAP, KEY).await;
        assert_eq!(status, 429, "{body}");
        assert_eq!(head.contains("retry-after: 1"), seconds == 1, "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["details"]["retryAfterSeconds"], expected, "{body}");
    }
}

#[tokio::test]
async fn dashboard_404_names_missing_object_but_not_unserved_api() {
    for (name, expected) in [("Pod/web", json!("Pod/web")), ("", Value::Null)] {
        let service = tower::service_fn(move |_: Request<Body>| {
            let refusal = json!({"kind": "Status", "status": "Failure", "code": 404,
                "reason": "NotFound", "message": "not there", "details": {"name": name}});
            let mut answer = Response::new(Body::from(refusal.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::NOT_FOUND;
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = Served {
            api: FakeApi::default(),
            port: before(Client::new(service, "shop")).await,
        };
        let (status, _, body) = served.ask("GET", TAP, KEY).await;
        assert_eq!(status, 404, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["details"]["name"], expected, "{body}");
    }
}

#[tokio::test]
async fn redirect_and_refusal_without_message_are_explained() {
    for (code, expected, words) in [
        (302_u16, 502, "redirects to /login, which is not followed"),
        // Control: what refuses keeps its status.
        (500, 500, "status 500"),
    ] {
        let service = tower::service_fn(move |_: Request<Body>| {
            let answer = Response::builder()
                .status(code)
                .header("location", "/login");
            let answer = answer.body(Body::from(b"{}".to_vec()));
            async move { Ok::<_, Infallible>(answer.unwrap()) }
        });
        let served = Served {
            api: FakeApi::default(),
            port: before(Client::new(service, "shop")).await,
        };
        let (status, _, body) = served.ask("GET", GRAPH, KEY).await;
        assert_eq!(status, expected, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let message = body["message"].as_str().unwrap();
        assert!(message.starts_with("graphs"), "{message}");
        assert!(message.contains(words), "{message}");
    }
}

// Claims: observe-71
#[tokio::test]
async fn taps_are_few_and_leave_the_page_its_turns() {
    let (client, mut started) = streaming();
    let port = before(client).await;
    let served = Served {
        api: FakeApi::default(),
        port,
    };
    let mut readers = Vec::new();
    for _ in 0..TAPS {
        let mut reader = watching(port).await;
        let lines = next_stream(&mut started).await;
        read_until(&mut reader, "HTTP/1.1 200").await;
        readers.push((reader, lines));
    }
    let more = timeout(Duration::from_secs(5), served.ask("GET", TAP, KEY)).await;
    let (status, _, body) = more.expect("one more goes on");
    assert_eq!(status, 429, "{body}");
    assert!(body.contains("when one was stopped"), "{body}");
    assert_eq!(served.ask("GET", "/start", KEY).await.0, 200);
    assert_eq!(served.ask("GET", TAP, "").await.0, 403, "without the key");
    // A place is given back.
    let (reader, lines) = readers.pop().unwrap();
    drop(reader);
    let ended = timeout(Duration::from_secs(5), lines.closed()).await;
    ended.expect("the reader is gone, and the tap goes on");
    let mut reader = watching(port).await;
    read_until(&mut reader, "HTTP/1.1 200").await;
}

#[tokio::test]
async fn silent_connections_are_evicted_before_active_ones() {
    let (client, mut started) = streaming();
    let port = before(client).await;
    let served = Served {
        api: FakeApi::default(),
        port,
    };
    let mut reader = watching(port).await;
    let lines = next_stream(&mut started).await;
    read_until(&mut reader, "HTTP/1.1 200").await;
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let answer = timeout(HEAD_WITHIN / 2, served.ask("GET", "/", "")).await;
    let (status, ..) = answer.expect("the silent keep who asks out");
    assert_eq!(status, 200);
    // The oldest of all has sent a request.
    lines.send(Bytes::from("{\"first\":1}\n")).await.unwrap();
    read_until(&mut reader, "first").await;
}
