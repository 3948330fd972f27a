//! Probes mean what the kubelet's own would have.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

mod https;

const POD: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port without a listener.
async fn dead_port() -> u16 {
    listen().await.1
}

/// Reads one request head and answers with this text.
async fn serve_once(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(head).unwrap()
}

/// An application that gives these answers, one per connection, the last one for ever, and
/// returns the requests that it got.
async fn application(answers: &'static [&'static str]) -> (u16, mpsc::UnboundedReceiver<String>) {
    let (listener, port) = listen().await;
    let (tx, rx) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut turn = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answers[turn.min(answers.len() - 1)];
            turn += 1;
            // A test may have read enough.
            let _ = tx.send(serve_once(stream, answer).await);
        }
    });
    (port, rx)
}

fn one_probe(probe: &Value, pod_ip: IpAddr) -> Probes {
    let probes = json!({ "app/liveness": probe }).to_string();
    Probes::parse(&probes, "", pod_ip).unwrap()
}

async fn ask(probes: &Probes, path: &str) -> (u16, String) {
    let answer = probes.answer(&Method::GET, path).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn probe(probe: Value) -> (u16, String) {
    ask(&one_probe(&probe, POD), "/probe/app/liveness").await
}

async fn http(port: u16, path: &str) -> (u16, String) {
    probe(json!({ "httpGet": { "port": port, "path": path, "scheme": "HTTP" } })).await
}

#[tokio::test]
async fn tcp_probe_passes_only_for_live_application() {
    let (_listener, live) = listen().await;
    assert_eq!(probe(json!({ "tcpSocket": { "port": live } })).await.0, 200);
    let (status, reason) = probe(json!({ "tcpSocket": { "port": dead_port().await } })).await;
    assert_eq!(status, 503);
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn http_probe_asks_as_it_was_written() {
    let (port, mut rx) = application(&["HTTP/1.1 200 OK\r\n\r\n"]).await;
    let written = json!({ "httpGet": {
        "port": port, "path": "/health?deep=1", "scheme": "HTTP",
        "httpHeaders": [
            { "name": "Host", "value": "shop.example" },
            { "name": "X-Probe", "value": "a" },
            { "name": "X-Probe", "value": "b" },
            { "name": "Accept", "value": "" },
        ],
    } });
    assert_eq!(probe(written).await.0, 200);
    let head = rx.recv().await.unwrap().to_lowercase();
    assert!(
        head.starts_with("get /health?deep=1 http/1.1\r\n"),
        "{head}"
    );
    for line in [
        "host: shop.example",
        "x-probe: a",
        "x-probe: b",
        "connection: close",
    ] {
        assert!(
            head.contains(&format!("\r\n{line}\r\n")),
            "{line} in {head}"
        );
    }
    assert!(head.contains("\r\nuser-agent: kube-probe/"), "{head}");
    assert!(!head.contains("\r\naccept:"), "{head}");
}

#[tokio::test]
async fn http_probe_without_host_sends_pod_address() {
    let (port, mut rx) = application(&["HTTP/1.1 200 OK\r\n\r\n"]).await;
    assert_eq!(http(port, "health").await.0, 200);
    let head = rx.recv().await.unwrap();
    assert!(head.starts_with("GET /health HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: 127.0.0.1:{port}\r\n")),
        "{head}"
    );
}

#[tokio::test]
async fn http_probe_goes_to_the_host_that_is_written() {
    let (port, _asked) = application(&["HTTP/1.1 200 OK\r\n\r\n"]).await;
    let elsewhere = IpAddr::from([127, 0, 0, 2]);
    for (host, status) in [(Value::Null, 503), (json!("127.0.0.1"), 200)] {
        let written = json!({ "httpGet": { "port": port, "path": "/", "host": host } });
        let probes = one_probe(&written, elsewhere);
        assert_eq!(
            ask(&probes, "/probe/app/liveness").await.0,
            status,
            "{written}"
        );
    }
}

#[tokio::test]
async fn http_success_is_200_to_399() {
    for (answer, expected) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 200),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", 200),
        ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", 200),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", 503),
        ("HTTP/1.1 404 Not Found\r\n\r\n", 503),
        ("HTTP/1.1 500 No\r\n\r\n", 503),
        ("no HTTP at all\r\n\r\n", 503),
        ("", 503),
    ] {
        let (port, _asked) = application(Box::leak(Box::new([answer]))).await;
        assert_eq!(http(port, "/").await.0, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn http_probe_reads_no_more_than_it_must() {
    let endless = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{}",
        "x".repeat(20_000)
    );
    let (port, _asked) = application(Box::leak(Box::new([&*endless.leak()]))).await;
    assert_eq!(http(port, "/").await.0, 200);
}

#[tokio::test]
async fn redirects_within_the_host_are_followed() {
    let (port, mut rx) = application(&[
        "HTTP/1.1 302 Found\r\nlocation: /second?x=1\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 307 Temporary\r\nlocation: third\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
    ])
    .await;
    assert_eq!(http(port, "/first").await.0, 503);
    for path in ["/first", "/second?x=1", "/third"] {
        assert!(
            rx.recv()
                .await
                .unwrap()
                .starts_with(&format!("GET {path} HTTP/1.1\r\n"))
        );
    }
}

#[tokio::test]
async fn probe_accepts_foreign_redirect_but_not_endless_one() {
    let (port, _asked) = application(&[
        "HTTP/1.1 302 Found\r\nlocation: http://login.example/\r\ncontent-length: 0\r\n\r\n",
    ])
    .await;
    assert_eq!(http(port, "/").await.0, 200);

    let (port, _asked) =
        application(&["HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"]).await;
    let (status, reason) = http(port, "/").await;
    assert_eq!(status, 503);
    assert!(reason.contains("10 redirects"), "{reason}");
}

#[tokio::test]
async fn https_probe_accepts_any_certificate_but_no_plaintext() {
    let certified = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for version in rustls::ALL_VERSIONS {
        let config = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.clone_key())
            .unwrap();
        let (listener, port) = listen().await;
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let stream = acceptor
                .accept(listener.accept().await.unwrap().0)
                .await
                .unwrap();
            serve_once(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await
        });
        let written = json!({ "httpGet": { "port": port, "path": "/", "scheme": "HTTPS" } });
        assert_eq!(
            probe(written).await,
            (200, "status 200\n".into()),
            "{version:?}"
        );
    }

    let (port, _asked) = application(&["HTTP/1.1 200 OK\r\n\r\n"]).await;
    let written = json!({ "httpGet": { "port": port, "path": "/", "scheme": "HTTPS" } });
    assert_eq!(probe(written).await.0, 503);
}

/// A gRPC server that gives one answer to every request, and returns the requests.
async fn health_server(
    code: &'static str,
    status: i32,
) -> (u16, mpsc::UnboundedReceiver<(String, Bytes)>) {
    let (listener, port) = listen().await;
    let (tx, rx) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service =
            hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let tx = tx.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    tx.send((path, body)).unwrap();
                    let answer = Full::new(grpc::framed(&grpc::HealthCheckResponse { status }));
                    let trailers = [(
                        http::HeaderName::from_static("grpc-status"),
                        HeaderValue::from_static(code),
                    )];
                    let body = answer
                        .with_trailers(async move { Some(Ok(trailers.into_iter().collect())) });
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                }
            });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
    (port, rx)
}

#[tokio::test]
async fn grpc_probe_names_service_and_accepts_only_serving() {
    use prost::Message;

    let (port, mut rx) = health_server("0", grpc::SERVING).await;
    let serving = probe(json!({ "grpc": { "port": port, "service": "shop.Cart" } })).await;
    assert_eq!(serving, (200, "SERVING\n".into()));
    let (path, body) = rx.recv().await.unwrap();
    assert_eq!(path, "/grpc.health.v1.Health/Check");
    assert_eq!(
        grpc::HealthCheckRequest::decode(&body[5..])
            .unwrap()
            .service,
        "shop.Cart"
    );

    for (code, status, reason) in [
        ("0", 2, "NOT_SERVING"),
        ("5", 0, "does not know"),
        ("12", 0, "implement"),
    ] {
        let (port, _asked) = health_server(code, status).await;
        let (status, text) = probe(json!({ "grpc": { "port": port } })).await;
        assert_eq!(status, 503);
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(
        probe(json!({ "grpc": { "port": dead_port().await } }))
            .await
            .0,
        503
    );
}

#[tokio::test]
async fn silent_application_fails_when_its_time_is_over() {
    let (_listener, port) = listen().await;
    for handler in ["httpGet", "grpc"] {
        let started = std::time::Instant::now();
        let (status, reason) =
            probe(json!({ handler: { "port": port }, "timeoutSeconds": 1 })).await;
        assert_eq!((status, reason.as_str()), (503, "no answer within 1 s\n"));
        assert!(started.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn concurrent_probes_share_run_and_next_starts_another() {
    let (listener, port) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            serve_once(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let probes = one_probe(&json!({ "httpGet": { "port": port, "path": "/" } }), POD);
    for runs in 1..=2 {
        let askers = (0..20).map(|_| ask(&probes, "/probe/app/liveness"));
        for (status, _) in futures::future::join_all(askers).await {
            assert_eq!(status, 200);
        }
        assert_eq!(connections.load(Ordering::SeqCst), runs);
    }
}

#[tokio::test]
async fn cancelled_probe_request_does_not_end_shared_run() {
    let (port, _asked) = application(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await;
    let probes = one_probe(&json!({ "httpGet": { "port": port, "path": "/" } }), POD);
    let mut leaver = Box::pin(ask(&probes, "/probe/app/liveness"));
    let mut stayer = Box::pin(ask(&probes, "/probe/app/liveness"));
    assert!(futures::poll!(&mut leaver).is_pending());
    assert!(
        futures::poll!(&mut stayer).is_pending(),
        "it has joined the run"
    );
    drop(leaver);
    assert_eq!(stayer.await.0, 200);
}

fn one_hook(port: u16) -> Probes {
    let key = format!("{TOKEN}/app/postStart");
    let hooks = json!({ key: { "httpGet": { "port": port, "path": "/hello" } } });
    Probes::parse("", &hooks.to_string(), POD).unwrap()
}

#[tokio::test]
async fn any_answer_of_the_application_completes_a_hook() {
    let (port, mut rx) = application(&["HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"]).await;
    let (status, text) = ask(&one_hook(port), &format!("/hook/{TOKEN}/app/postStart")).await;
    assert_eq!((status, text.as_str()), (200, "status 500\n"));
    assert!(
        rx.recv()
            .await
            .unwrap()
            .starts_with("GET /hello HTTP/1.1\r\n")
    );
}

#[tokio::test]
async fn failed_hook_response_counts_as_error_for_kubelet() {
    let hook = one_hook(dead_port().await);
    let answer = hook
        .answer(&Method::GET, &format!("/hook/{TOKEN}/app/postStart"))
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (302, &HeaderValue::from_static("%"))
    );
}

#[tokio::test]
async fn only_what_was_written_can_be_reached() {
    let (port, mut rx) = application(&["HTTP/1.1 200 OK\r\n\r\n"]).await;
    let hook = one_hook(port);
    let probes = one_probe(&json!({ "httpGet": { "port": port } }), POD);
    for path in [
        "/probe/app/readiness",
        "/probe/other/liveness",
        "/probe/",
        "/probe/app/liveness/",
        "/hook/",
    ] {
        assert_eq!(ask(&probes, path).await.0, 404, "{path}");
    }
    let wrong_token = TOKEN.replace('0', "f");
    for path in [
        format!("/hook/{wrong_token}/app/postStart"),
        format!("/hook/{TOKEN}/app/preStop"),
    ] {
        assert_eq!(ask(&hook, &path).await.0, 404, "{path}");
    }
    let post = probes
        .answer(&Method::POST, "/probe/app/liveness")
        .await
        .unwrap();
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    for path in ["/", "/drain", "/probe", "/hooked/x"] {
        assert!(probes.answer(&Method::GET, path).await.is_none(), "{path}");
    }
    assert!(rx.try_recv().is_err(), "the application was left alone");
}

#[test]
fn mistakes_name_the_variable_the_key_and_the_reason() {
    let probes = |value: Value| {
        Probes::parse(&value.to_string(), "", POD)
            .unwrap_err()
            .to_string()
    };
    for (value, parts) in [
        (json!([]), ["WEFT_PROBES", "no JSON object"]),
        (json!({ "app": {} }), ["\"app\"", "<container>/"]),
        (
            json!({ "app/liveness": {} }),
            ["\"app/liveness\"", "exactly one"],
        ),
        (
            json!({ "app/liveness": { "tcpSocket": { "port": "http" } } }),
            ["\"app/liveness\"", "invalid type"],
        ),
        (
            json!({ "app/liveness": { "httpGet": { "port": 1, "scheme": "FTP" } } }),
            ["scheme", "FTP"],
        ),
        (
            json!({ "app/liveness": { "httpGet": { "port": 1, "httpHeaders": [{ "name": "a b", "value": "" }] } } }),
            ["httpHeaders", "a b"],
        ),
    ] {
        let error = probes(value);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn hook_errors_do_not_reveal_the_token() {
    let hooks = json!({ format!("{TOKEN}/app/preStop"): {} }).to_string();
    let error = Probes::parse("", &hooks, POD).unwrap_err().to_string();
    assert!(
        error.contains("app/preStop") && error.contains("httpGet") && !error.contains(TOKEN),
        "{error}"
    );
}

#[test]
fn paths_are_rooted_and_escaped_like_the_kubelets() {
    for (written, sent) in [
        ("", "/"),
        ("healthz", "/healthz"),
        ("/a b?c=ä#d", "/a%20b?c=%C3%A4"),
        ("/a%20b", "/a%20b"),
    ] {
        assert_eq!(target::path(written).unwrap().as_str(), sent);
    }
}
