//! Applications see the same over a dedicated connection and over HTTP/2: every shape of request
//! and response, over both.
//!
//! Claims: calls-21, mesh-15

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::Dedicated;
use wire::v1::{Enforcement, MtlsMode, Protocol};

use crate::support::{Pod, endpoint, endpoints, get, id, pair, raw, rule, vip};

mod late_bodies;
mod shapes;

const PATIENCE: Duration = Duration::from_secs(5);

/// The dedicated connections of `client` to `server`.
pub(super) fn dedicated(client: &Pod, server: &Pod) -> Arc<Dedicated> {
    Arc::clone(
        &client
            .proxy
            .peers
            .mesh(server.ip, &id("api"), &Arc::default())
            .dedicated,
    )
}

/// Calls until a call was served by a dedicated connection.
pub(super) async fn warm(client: &Pod, dedicated: &Arc<Dedicated>) {
    let before = dedicated.used().1;
    for _ in 0..200 {
        let (status, answer) = get(client.call(vip()).await, "/warm", "").await;
        assert_eq!(status, 200, "{answer}");
        if dedicated.used().1 > before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no dedicated connection came up: {dedicated:?}");
}

/// What the application got, request by request: heads in lower case, and bodies.
type Got = Arc<Mutex<Vec<String>>>;

/// Two pods, and an application whose response depends on the requested path.
struct Testbed {
    client: Pod,
    server: Pod,
    got: Got,
    dedicated: Arc<Dedicated>,
}

impl Testbed {
    async fn new() -> Self {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let got = Got::default();
        let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let there = endpoint(server.ip, port, Some("api"));
        client.set(vec![endpoints("api", vec![there])]);
        let log = Arc::clone(&got);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(application(stream, Arc::clone(&log)));
            }
        });
        let dedicated = dedicated(&client, &server);
        Self {
            client,
            server,
            got,
            dedicated,
        }
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = self.client.call(vip()).await;
        raw(&mut stream, request.as_bytes(), PATIENCE).await
    }

    /// The answers by HTTP/2 and by a dedicated connection.
    async fn both(&self, request: &str) -> [String; 2] {
        warm(&self.client, &self.dedicated).await;
        self.got.lock().clear();
        let before = self.dedicated.used().1;
        let busy = self.dedicated.beside();
        let multiplexed = self.ask(request).await;
        drop(busy);
        assert_eq!(
            self.dedicated.used().1,
            before,
            "by a dedicated connection, though busy"
        );
        let dedicated = self.ask(request).await;
        assert_eq!(
            self.dedicated.used().1,
            before + 1,
            "no dedicated connection: {request:.100}"
        );
        [multiplexed, dedicated]
    }

    /// The answer, which is the same by both ways, as is what the application got.
    async fn same(&self, request: &str) -> String {
        let [multiplexed, dedicated] = self.both(request).await;
        assert_eq!(multiplexed, dedicated, "{request:.200}");
        let got = self.got.lock();
        assert!(
            got.is_empty() || (got.len() == 2 && got[0] == got[1]),
            "{request:.200}: {got:?}"
        );
        dedicated
    }
}

async fn application(mut stream: TcpStream, log: Got) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let length: usize = head
        .lines()
        .find_map(|line| {
            line.to_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    let mut body = vec![0; if path == "/early" { 0 } else { length }];
    stream.read_exact(&mut body).await.unwrap();
    if path != "/warm" {
        // The order of headers means nothing.
        let mut lines: Vec<_> = head.lines().map(str::to_lowercase).collect();
        lines[1..].sort();
        lines.push(String::from_utf8(body).unwrap());
        log.lock().push(lines.join("|"));
    }
    if path == "/late" {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let close = "Connection: close\r\n";
    let answer = match path.as_str() {
        "/head" | "/nothing-new" => {
            let status = if path == "/head" {
                "200 OK"
            } else {
                "304 Not Modified"
            };
            format!("HTTP/1.1 {status}\r\n{close}Content-Length: 5\r\nx-a: 1\r\nx-a: 2\r\n\r\n")
        }
        "/empty" => format!("HTTP/1.1 204 No Content\r\n{close}\r\n"),
        "/chunked" => format!(
            "HTTP/1.1 200 OK\r\n{close}Transfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-t: 1\r\n\r\n"
        ),
        "/old" => "HTTP/1.0 200 OK\r\n\r\nuntil the end".to_owned(),
        "/interim" => format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n{close}Content-Length: 2\r\n\r\nok"
        ),
        "/large" => format!(
            "HTTP/1.1 200 OK\r\n{close}Content-Length: 4000000\r\n\r\n{}",
            "y".repeat(4_000_000)
        ),
        "/short" => format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 9\r\n\r\nabc"),
        "/cut" => format!("HTTP/1.1 200 OK\r\n{close}Transfer-Encoding: chunked\r\n\r\n5\r\nab"),
        "/gone" => String::new(),
        "/teapot" => format!("HTTP/1.1 418 Short and stout\r\n{close}Content-Length: 0\r\n\r\n"),
        "/wait" => {
            // Writes until the connection is closed.
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head).await;
            while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            log.lock().push("left".to_owned());
            return;
        }
        _ => format!(
            "HTTP/1.1 200 OK\r\n{close}Content-Length: 2\r\nweft-reason: overload\r\n\r\nok"
        ),
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn with(request: &str) -> String {
    format!("{request}\r\nHost: web.shop:81\r\nConnection: close\r\n")
}

#[tokio::test]
async fn request_unfit_for_dedicated_connection_uses_http2() {
    let testbed = Testbed::new().await;
    warm(&testbed.client, &testbed.dedicated).await;
    let before = testbed.dedicated.used().1;
    let large = format!("Content-Length: 16385\r\n\r\n{}", "z".repeat(16385));
    for (case, rest) in [
        ("a larger body", large.as_str()),
        (
            "a body of unknown length",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n",
        ),
        ("trailers welcome", "TE: trailers\r\n\r\n"),
        (
            "asks before it sends",
            "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nz",
        ),
        ("an upgrade", "Upgrade: chat\r\nConnection: upgrade\r\n\r\n"),
    ] {
        let method = if case == "an upgrade" { "GET" } else { "POST" };
        let answer = testbed
            .ask(&format!("{}{rest}", with(&format!("{method} /p HTTP/1.1"))))
            .await;
        assert!(answer.contains(" 200 OK"), "{case}: {answer}");
        assert_eq!(testbed.dedicated.used().1, before, "{case}");
    }
    let answer = testbed.ask("GET /p HTTP/1.0\r\nHost: h\r\n\r\n").await;
    assert!(answer.contains(" 200 OK"), "{answer}");
    assert_eq!(testbed.dedicated.used().1, before, "HTTP/1.0");
}

#[tokio::test]
async fn departed_caller_cancels_its_request_at_application() {
    let testbed = Testbed::new().await;
    for busy in [true, false] {
        warm(&testbed.client, &testbed.dedicated).await;
        let guard = busy.then(|| testbed.dedicated.beside());
        let before = testbed.dedicated.used().1;
        let mut stream = testbed.client.call(vip()).await;
        let request = with("GET /wait HTTP/1.1") + "\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_u8().await.unwrap();
        drop(stream);
        let left = async {
            while testbed.got.lock().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, left).await.unwrap();
        assert_eq!(testbed.dedicated.used().1, before + u64::from(!busy));
        assert_eq!(testbed.got.lock()[1], "left");
        testbed.got.lock().clear();
        drop(guard);
    }
}

#[tokio::test]
async fn successive_requests_over_dedicated_connection_get_own_responses() {
    let (client, server, _, seen) = pair(Protocol::Http1).await;
    let dedicated = dedicated(&client, &server);
    warm(&client, &dedicated).await;
    seen.lock().clear();
    let before = dedicated.used().1;
    let mut stream = client.call(vip()).await;
    for at in 0..200 {
        let body = format!("body-{at}-{}", "b".repeat(at % 40));
        let request = format!(
            "POST /{at} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let expected = format!(
            "api POST /{at} id=spiffe://cluster.local/ns/shop/sa/web host=h forged=- body={body}"
        );
        let mut answer = String::new();
        while !answer.ends_with(&expected) {
            let mut more = [0; 2048];
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut more));
            let count = read.await.unwrap().unwrap();
            assert!(count > 0, "{at}: {answer}");
            answer.push_str(&String::from_utf8_lossy(&more[..count]));
        }
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.len() < 600,
            "{at}: {answer}"
        );
    }
    assert_eq!(dedicated.used(), (1, before + 200));
    assert_eq!(seen.lock().len(), 200);
    let metrics = server.metrics();
    assert!(
        metrics.contains(
            "weft_connections_total{direction=\"inbound\",protocol=\"http1\",security=\"mtls\"} 1"
        ),
        "{metrics}"
    );
}

#[tokio::test]
async fn late_response_is_awaited_while_peer_is_alive() {
    let testbed = Testbed::new().await;
    warm(&testbed.client, &testbed.dedicated).await;
    let before = testbed.dedicated.used().1;
    // Far more often than a process does.
    let watched = async {
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            testbed.client.proxy.peers.watch_over();
        }
    };
    let request = format!("{}\r\n", with("GET /late HTTP/1.1"));
    let answer = tokio::select! {
        answer = testbed.ask(&request) => answer,
        () = watched => panic!("no answer"),
    };
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(
        testbed.dedicated.used(),
        (1, before + 1),
        "by the dedicated connection, which stays"
    );
}

#[tokio::test]
async fn access_is_decided_for_each_request_of_a_line() {
    let testbed = Testbed::new().await;
    warm(&testbed.client, &testbed.dedicated).await;
    testbed
        .server
        .mode("api", Enforcement::Enforce, MtlsMode::Strict);
    testbed
        .server
        .set(vec![rule("t", "web", None, Some(&["/warm", "/public"]))]);
    let answer = testbed
        .same(&format!("{}\r\n", with("GET /private HTTP/1.1")))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("weft-reason: not-allowed"),
        "{answer}"
    );
    let answer = testbed
        .same(&format!("{}\r\n", with("GET /public/../private HTTP/1.1")))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(testbed.got.lock().is_empty(), "{:?}", testbed.got.lock());
    let answer = testbed
        .same(&format!("{}\r\n", with("GET /public HTTP/1.1")))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Taken away in between: the connection that stays open allows nothing more.
    testbed
        .server
        .set(vec![rule("t", "web", None, Some(&["/warm"]))]);
    let answer = testbed
        .same(&format!("{}\r\n", with("GET /public HTTP/1.1")))
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn request_proven_unsent_on_dedicated_connection_fails_over() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    let dedicated = dedicated(&client, &server);
    let there = endpoint(server.ip, port, Some("api"));
    // Same pod, an unserved port: the peer proxy reports it.
    let dead = endpoint(server.ip, 1, Some("api"));
    let mut one_by_one = 0;
    for _ in 0..6 {
        client.set(vec![endpoints("api", vec![there.clone()])]);
        warm(&client, &dedicated).await;
        seen.lock().clear();
        let before = dedicated.used().1;
        client.set(vec![endpoints("api", vec![dead.clone(), there.clone()])]);
        let mut stream = client.call(vip()).await;
        let request = with("POST / HTTP/1.1") + "Content-Length: 5\r\n\r\nhello";
        let answer = raw(&mut stream, request.as_bytes(), PATIENCE).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(seen.lock().len(), 1);
        one_by_one += dedicated.used().1 - before;
    }
    assert!(one_by_one >= 6, "{one_by_one} by dedicated connections");
    client.set(vec![endpoints("api", vec![there.clone()])]);
    warm(&client, &dedicated).await;
    client.set(vec![endpoints("api", vec![dead])]);
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert!(
        status == 503 && answer.contains("weft-reason: connect-failed"),
        "{answer}"
    );
}
