//! Requests whose body the proxy does not need: their response comes, and a request behind the
//! body on the same connection is either served or was announced as not served.
//!
//! Claims: calls-7

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::v1::{Enforcement, MtlsMode, Protocol};

use crate::support::{Pod, endpoints, http_app, pair, vip};

const PATIENCE: Duration = Duration::from_secs(3);

/// A head without its body, with the body's length.
pub(super) fn head(bytes: usize, more: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {bytes}\r\n{more}\r\n")
}

/// One complete response and no byte behind it, or what came instead.
pub(super) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<String, String> {
    let mut text = Vec::new();
    let whole = async {
        loop {
            let read = String::from_utf8_lossy(&text).into_owned();
            if let Some((head, body)) = read.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.parse::<usize>().unwrap())
                });
                if body.len() >= length.unwrap_or(0) {
                    return Some(read);
                }
            }
            let byte = stream.read_u8().await.ok()?;
            text.push(byte);
        }
    };
    let found = tokio::time::timeout(PATIENCE, whole).await;
    match found {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(format!("ended after {:?}", String::from_utf8_lossy(&text))),
        Err(_) => Err(format!("only {:?}", String::from_utf8_lossy(&text))),
    }
}

pub(super) fn closes(answer: &str) -> bool {
    answer.to_lowercase().contains("\r\nconnection: close\r\n")
}

/// Setups that refuse every request of a caller, one for each kind of refusal.
struct Refusing {
    via: &'static str,
    status: u16,
    // Both live as long as the connections.
    client: Pod,
    server: Pod,
    port: u16,
}

impl Refusing {
    async fn all() -> [Self; 3] {
        let (client, server, port, _) = pair(Protocol::Http1).await;
        client.set(vec![endpoints("api", Vec::new())]);
        let no_endpoint = Self {
            via: "by the own proxy",
            status: 503,
            client,
            server,
            port,
        };
        let denied = async || {
            let (client, server, port, _) = pair(Protocol::Http1).await;
            server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
            (client, server, port)
        };
        let (client, server, port) = denied().await;
        let peer = Self {
            via: "by a peer proxy",
            status: 403,
            client,
            server,
            port,
        };
        let (client, server, port) = denied().await;
        let outside = Self {
            via: "from outside the mesh",
            status: 403,
            client,
            server,
            port,
        };
        [no_endpoint, peer, outside]
    }

    async fn connect(&self) -> TcpStream {
        if self.via == "from outside the mesh" {
            return self.server.plain(self.port).await;
        }
        self.client.call(vip()).await
    }
}

#[tokio::test]
async fn refusal_of_small_delayed_body_keeps_connection() {
    for refusing in Refusing::all().await {
        let mut stream = refusing.connect().await;
        stream.set_nodelay(true).unwrap();
        for round in 0..10 {
            let request = head(5, "");
            let sent = stream.write_all(request.as_bytes()).await;
            // As clients do that write head and body apart.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let sent = match sent {
                Ok(()) => stream.write_all(b"hello").await,
                failed => failed,
            };
            let answer = answer(&mut stream).await;
            let via = refusing.via;
            let answer = answer.unwrap_or_else(|what| panic!("{via}, {round}: {sent:?}, {what}"));
            let status = format!("HTTP/1.1 {}", refusing.status);
            assert!(answer.starts_with(&status), "{via}: {answer}");
            assert!(!closes(&answer), "{via}: {answer}");
        }
    }
}

#[tokio::test]
async fn refusal_of_large_or_missing_body_announces_close() {
    let large = head(200_000, "");
    let asks = head(5, "Expect: 100-continue\r\n");
    let old = head(5, "Connection: keep-alive\r\n").replace("/1.1", "/1.0") + "hel";
    let chunks = "POST /x HTTP/1.1\r\nHost: web.shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    for refusing in Refusing::all().await {
        for (what, request) in [
            ("large", large.clone() + &"x".repeat(90_000)),
            ("asks before", asks.clone()),
            ("stops", head(5, "") + "hel"),
            ("stops in a chunk", chunks.to_owned()),
            ("is old", old.clone()),
        ] {
            let by_peer = refusing.via == "by a peer proxy";
            if by_peer && what == "asks before" {
                // Which it is to send, before the peer has said anything.
                continue;
            }
            let mut stream = refusing.connect().await;
            let (mut reads, mut writes) = stream.split();
            let written = async {
                // The other end may stop to read.
                let _ = writes.write_all(request.as_bytes()).await;
            };
            let mut text = Vec::new();
            let read = async {
                while !String::from_utf8_lossy(&text).contains("\r\n\r\n") {
                    text.push(reads.read_u8().await?);
                }
                Ok::<_, std::io::Error>(())
            };
            let both = async { tokio::join!(written, read).1 };
            let came = tokio::time::timeout(PATIENCE, both).await;
            let answer = String::from_utf8_lossy(&text).into_owned();
            let case = format!("{}, {what}: {came:?} {answer:?}", refusing.via);
            assert!(
                answer[8..].starts_with(&format!(" {}", refusing.status)),
                "{case}"
            );
            let kept = answer.to_lowercase().contains("keep-alive");
            assert!(closes(&answer) && !kept, "{case}");
        }
    }
}

#[tokio::test]
async fn application_response_to_complete_request_keeps_connection() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let (port, seen) = http_app(&server, "api").await;
    client.reaches(&server, port);
    let mut stream = client.call(vip()).await;
    for _ in 0..3 {
        stream.write_all(head(5, "").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        stream.write_all(b"hello").await.unwrap();
        let answer = answer(&mut stream).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && !closes(&answer),
            "{answer}"
        );
    }
    assert_eq!(seen.lock().len(), 3);
}
