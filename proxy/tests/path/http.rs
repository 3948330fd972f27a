//! HTTP through two proxies, as both applications see it.
//!
//! Claims: mesh-18

use std::time::Duration;

use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::v1::Protocol;

use super::answers::{App, OK};
use crate::support::{Pod, endpoint, endpoints, get, listening, pair, raw, service, vip};

#[tokio::test]
async fn a_request_arrives_with_the_callers_verified_identity() {
    let (client, _server, _, seen) = pair(Protocol::Http1).await;
    let (status, answer) = get(client.call(vip()).await, "/x?y=1", "").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        seen.lock().clone(),
        ["api GET /x?y=1 id=spiffe://cluster.local/ns/shop/sa/web host=web.shop forged=- body="]
    );
}

#[tokio::test]
async fn forged_mesh_headers_reach_neither_application_nor_caller() {
    let (client, _server, _, seen) = pair(Protocol::Http1).await;
    let forged = "weft-client-id: spiffe://evil\r\nweft-forged: 1\r\n";
    let (status, answer) = get(client.call(vip()).await, "/", forged).await;
    assert_eq!(status, 200);
    assert!(
        seen.lock()[0].contains("id=spiffe://cluster.local/ns/shop/sa/web")
            && seen.lock()[0].contains("forged=-")
    );
    // The application of the harness claims a reason of its own.
    assert!(!answer.contains("weft-reason"), "{answer}");
    assert!(answer.contains("x-app: api"));
}

#[tokio::test]
async fn an_undeclared_port_is_recognised_as_http() {
    let (client, _server, _, seen) = pair(Protocol::Detect).await;
    let (status, _) = get(client.call(vip()).await, "/", "").await;
    assert_eq!((status, seen.lock().len()), (200, 1));
}

#[tokio::test]
async fn one_connection_carries_many_requests_and_bodies() {
    let (client, _server, _, seen) = pair(Protocol::Http1).await;
    let mut stream = client.call(vip()).await;
    let one = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    let two = "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let answer = raw(
        &mut stream,
        format!("{one}{two}").as_bytes(),
        Duration::from_secs(5),
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert!(seen.lock()[0].ends_with("body=hello") && seen.lock()[1].ends_with("body=abc"));
}

#[tokio::test]
async fn http2_keeps_trailers_both_ways() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    // A server that echoes the request's trailers in its own.
    let listener = listening(&client, &server).await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((mut request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                while let Some(Ok(data)) = request.body_mut().data().await {
                    let _ = request
                        .body_mut()
                        .flow_control()
                        .release_capacity(data.len());
                }
                let trailers = request
                    .body_mut()
                    .trailers()
                    .await
                    .unwrap()
                    .unwrap_or_default();
                let mut send = respond
                    .send_response(http::Response::new(()), false)
                    .unwrap();
                send.send_data(Bytes::from_static(b"data"), false).unwrap();
                send.send_trailers(trailers).unwrap();
            });
        }
    });
    let stream = client.call(vip()).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let body =
        Full::new(Bytes::from_static(b"ask")).with_trailers(std::future::ready(Some(Ok(trailers))));
    let request = Request::builder()
        .version(Version::HTTP_2)
        .method("POST")
        .uri("http://api.shop/svc/Method")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answer = sender
        .send_request(request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(answer.to_bytes(), "data");
}

#[tokio::test]
async fn response_names_application_that_does_not_speak_http2() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let listener = listening(&client, &server).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).await.unwrap();
                let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                // A close before the rest is read would be a reset.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    let stream = client.call(vip()).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://api.shop/")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["weft-reason"], "connect-failed");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains("does not speak HTTP/2"), "{body}");
}

#[tokio::test]
async fn a_websocket_passes_and_carries_bytes_both_ways() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let listener = listening(&client, &server).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let count = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..count]).to_lowercase();
        assert!(
            head.starts_with("get /ws?room=1 ") && head.contains("upgrade: websocket"),
            "{head}"
        );
        assert!(
            head.contains("weft-client-id: spiffe://cluster.local/ns/shop/sa/web"),
            "{head}"
        );
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nx-accept: k\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    let mut stream = client.call(vip()).await;
    stream
        .write_all(b"GET /ws?room=1 HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let mut head = vec![0; 1024];
    let count = stream.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..count]).to_lowercase();
    assert!(
        head.starts_with("http/1.1 101")
            && head.contains("upgrade: websocket")
            && head.contains("x-accept: k"),
        "{head}"
    );
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
}

#[tokio::test]
async fn a_refused_upgrade_brings_the_applications_answer() {
    let (client, _server, _, _) = pair(Protocol::Http1).await;
    let (status, answer) = get_upgrade(client.call(vip()).await).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("api GET /ws"), "{answer}");
}

async fn get_upgrade(mut stream: tokio::net::TcpStream) -> (u16, String) {
    let request =
        b"GET /ws HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = raw(&mut stream, request, Duration::from_secs(1)).await;
    (
        answer
            .get(9..12)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0),
        answer,
    )
}

#[tokio::test]
async fn a_large_body_passes_each_way_unharmed() {
    let (client, _server, _, _) = pair(Protocol::Http1).await;
    let size = 8 * 1024 * 1024;
    let mut stream = client.call(vip()).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; size]).await.unwrap();
    let answer = raw(&mut stream, b"", Duration::from_secs(10)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn unserved_port_gets_503_with_reason() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    client.reaches(&server, 1);
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("weft-reason: connect-failed"), "{answer}");
    client.set(vec![endpoints("api", Vec::new())]);
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains("weft-reason: no-endpoint"), "{answer}");
}

#[tokio::test]
async fn grpc_caller_gets_grpc_status_for_mesh_refusal() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    client.reaches(&server, 1);
    let (status, answer) = get(
        client.call(vip()).await,
        "/",
        "content-type: application/grpc\r\n",
    )
    .await;
    assert_eq!(status, 200);
    assert!(answer.contains("grpc-status: 14"), "{answer}");
}

/// Some servers answer 411 to such a method without a length, and HTTP/2 between the proxies has
/// other means to say that there is no body.
#[tokio::test]
async fn bodiless_post_gets_zero_length_behind_two_proxies() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, OK).await;
    client.reaches(&server, app.port);
    for (method, needs_length) in [
        ("POST", true),
        ("PUT", true),
        ("PATCH", true),
        ("DELETE", false),
        ("GET", false),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        for (mut stream, peer) in [
            (client.call(vip()).await, true),
            (server.plain(app.port).await, false),
        ] {
            let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(10)).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
            let head = app.heads().pop().unwrap();
            let length = head.contains("\r\ncontent-length: 0");
            assert_eq!(length, needs_length && peer, "{head}");
        }
    }
}

#[tokio::test]
async fn messages_that_can_be_read_two_ways_are_refused() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    for (case, request) in [
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        ),
        (
            "signed length",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello",
        ),
        (
            "encoding in 1.0",
            "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "unknown encoding",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        ("blank before colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (
            "folded header",
            "GET / HTTP/1.1\r\nHost: h\r\nx: a\r\n b\r\n\r\n",
        ),
    ] {
        for answer in both(&client, &server, port, request).await {
            assert!(answer.starts_with("HTTP/1.1 400"), "{case}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{case}: {answer}");
        }
        assert_eq!(seen.lock().len(), 0, "{case}");
    }
    // Control: the same way, well formed.
    let fine = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    for answer in both(&client, &server, port, fine).await {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// What both listeners answer to the same bytes.
async fn both(client: &Pod, server: &Pod, port: u16, request: &str) -> [String; 2] {
    let patience = Duration::from_secs(1);
    let outbound = raw(&mut client.call(vip()).await, request.as_bytes(), patience).await;
    let inbound = raw(&mut server.plain(port).await, request.as_bytes(), patience).await;
    [outbound, inbound]
}

/// The parser drops a length beside an encoding, so the request looks the same as one without. Then
/// the encoding alone must count, here and for the application, and nothing after the message may
/// become another.
#[tokio::test]
async fn a_length_beside_an_encoding_frames_nothing() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    let (length, encoding) = ("Content-Length: 6", "Transfer-Encoding: chunked");
    for (first, second) in [(length, encoding), (encoding, length)] {
        let request = format!(
            "POST /a HTTP/1.1\r\nHost: h\r\n{first}\r\n{second}\r\n\r\n0\r\n\r\nGET /private HTTP/1.1\r\nHost: h\r\n\r\n"
        );
        for answer in both(&client, &server, port, &request).await {
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
    }
    assert!(
        seen.lock()
            .iter()
            .all(|line| line.starts_with("api POST /a ")),
        "{:?}",
        seen.lock()
    );
}

/// What is too large is not the head.
#[tokio::test]
async fn oversized_content_length_is_refused_as_length_error() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    for length in ["18446744073709551614", "99999999999999999999"] {
        let request =
            format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\nhello");
        for answer in both(&client, &server, port, &request).await {
            assert!(answer.starts_with("HTTP/1.1 400 "), "{length}: {answer}");
            assert!(answer.contains("the length of the body"), "{answer}");
        }
    }
    assert!(seen.lock().is_empty(), "{:?}", seen.lock());
}

#[tokio::test]
async fn oversized_heads_get_their_own_statuses() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    let many: String = (0..101).map(|at| format!("x-{at}: 1\r\n")).collect();
    for (case, request, status) in [
        (
            "long target",
            format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(9000)),
            "414",
        ),
        (
            "many headers",
            format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n"),
            "431",
        ),
        (
            "large header",
            format!(
                "GET / HTTP/1.1\r\nHost: h\r\nx: {}\r\n\r\n",
                "a".repeat(70_000)
            ),
            "431",
        ),
    ] {
        for answer in both(&client, &server, port, &request).await {
            let start = &answer[..answer.len().min(200)];
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{case}: {start}"
            );
        }
    }
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn undelivered_request_goes_to_other_endpoint() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    // Same pod, an unserved port: the peer proxy reports it.
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.set(vec![endpoints(
        "api",
        vec![
            endpoint(server.ip, 1, Some("api")),
            endpoint(server.ip, port, Some("api")),
        ],
    )]);
    for _ in 0..20 {
        let mut stream = client.call(vip()).await;
        let request =
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(5)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(
        seen.lock()
            .iter()
            .filter(|line| line.ends_with("body=hello"))
            .count(),
        20
    );
}

#[tokio::test]
async fn latency_ends_with_response_head_on_both_sides() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let listener = listening(&client, &server).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 512];
        let _ = stream.read(&mut head).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stream.write_all(b"late").await.unwrap();
    });
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert!(status == 200 && answer.ends_with("late"), "{answer}");
    for pod in [&client, &server] {
        let metrics = pod.metrics();
        let sum = metrics
            .lines()
            .find(|line| line.starts_with("weft_request_duration_seconds_sum{"));
        let seconds: f64 = sum
            .and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap();
        assert!(seconds < 1.5, "{metrics}");
    }
}
