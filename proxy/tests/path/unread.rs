//! Applications that respond without reading a body, or that send one where the response has none:
//! the bytes left on the connection do not reach another call.
//!
//! Claims: calls-9

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use wire::v1::Protocol;

use crate::support::{Pod, pair, raw, vip};

const PATIENCE: Duration = Duration::from_secs(3);
/// A response that a caller would inject for others.
const EVIL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL";
/// A request that no rule saw.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n";

/// What came to an application: the connections, and the heads of requests.
#[derive(Debug, Default)]
struct Came {
    connections: usize,
    heads: Vec<String>,
}

/// How an application treats bodies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bodies {
    Read,
    /// It leaves them, and sends its own with answers that have none.
    Left,
}

/// Answers with the target of each request, over connections that it keeps.
async fn application(ip: IpAddr, bodies: Bodies) -> (u16, Arc<Mutex<Came>>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let came = Arc::new(Mutex::new(Came::default()));
    let log = Arc::clone(&came);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            log.lock().connections += 1;
            tokio::spawn(serve(stream, bodies, Arc::clone(&log)));
        }
    });
    (port, came)
}

async fn serve(stream: TcpStream, bodies: Bodies, log: Arc<Mutex<Came>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        log.lock().heads.push(head.clone());
        let head = head.to_ascii_lowercase();
        let closes = head.contains("\r\nconnection: close\r\n");
        let words: Vec<&str> = head.lines().next()?.split(' ').collect();
        let [
            "get" | "head" | "post" | "delete" | "options",
            target,
            "http/1.1",
        ] = words[..]
        else {
            let no = "HTTP/1.1 501 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(no.as_bytes()).await.ok()?;
            return stream.shutdown().await.ok();
        };
        let length = head.lines().find_map(|line| {
            let length = line.strip_prefix("content-length: ")?;
            length.parse::<usize>().ok()
        });
        if bodies == Bodies::Read {
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).await.ok()?;
        }
        let status = if target == "/nm" {
            "304 Same"
        } else {
            "200 OK"
        };
        let without = words[0] == "head" || target == "/nm";
        let content = if without { EVIL } else { target };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n",
            content.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        if without {
            // As servers do that write both apart.
            sleep(Duration::from_millis(30)).await;
        }
        if !without || bodies == Bodies::Left {
            stream.write_all(content.as_bytes()).await.ok()?;
        }
        if closes {
            return stream.shutdown().await.ok();
        }
    }
}

/// Callers inside and outside of the mesh, and an application.
struct Scene {
    client: Pod,
    server: Pod,
    port: u16,
    came: Arc<Mutex<Came>>,
}

impl Scene {
    async fn with(bodies: Bodies) -> Self {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let (port, came) = application(server.ip, bodies).await;
        client.reaches(&server, port);
        Self {
            client,
            server,
            port,
            came,
        }
    }

    async fn open(&self, route: usize) -> TcpStream {
        match route {
            0 => self.client.call(vip()).await,
            _ => self.server.plain(self.port).await,
        }
    }

    /// Over a connection of its own, by way 0 through two proxies and by way 1 from outside.
    async fn ask(&self, route: usize, line: &str, body: &str) -> String {
        let mut stream = self.open(route).await;
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let request =
            format!("{line} HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n{length}\r\n{body}");
        raw(&mut stream, request.as_bytes(), PATIENCE).await
    }

    /// Another caller's call gets its own response.
    async fn honest(&self, route: usize, after: &str) {
        let answer = self.ask(route, "GET /honest", "").await;
        let right = answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n/honest");
        assert!(right, "{route} after {after}: {answer:?}");
    }

    fn came(&self, line: &str) -> usize {
        let came = self.came.lock();
        let all = came.heads.iter();
        all.filter(|head| head.starts_with(line)).count()
    }
}

#[tokio::test]
async fn a_body_that_no_server_expects_becomes_no_request() {
    let scene = Scene::with(Bodies::Left).await;
    for (round, method) in ["GET", "DELETE", "OPTIONS", "GET"].into_iter().enumerate() {
        for route in [0, 1] {
            let line = format!("{method} /asked{round}");
            let answer = scene.ask(route, &line, HIDDEN).await;
            assert!(
                answer.ends_with(&format!("/asked{round}")),
                "{route}: {answer}"
            );
            scene.honest(route, &line).await;
        }
    }
    assert_eq!(scene.came("GET /hidden"), 0);
    assert_eq!(scene.came("GET /honest"), 8, "none was sent twice");
}

/// Of methods that have bodies as a rule, and share kept connections where they can.
#[tokio::test]
async fn a_body_that_reads_as_a_request_becomes_none() {
    let behind = format!("{{\"a\":1}}\r\n{HIDDEN}");
    let large = format!("{}{HIDDEN}", "\r\n".repeat(20_000));
    let words = "GET hidden\r\nx-rest:";
    for body in [HIDDEN, "GET /hidden\r\n\r\n", words, &behind, &large] {
        let scene = Scene::with(Bodies::Left).await;
        for round in 0..3 {
            for route in [0, 1] {
                let answer = scene.ask(route, "POST /post", body).await;
                assert!(answer.ends_with("/post"), "{route}, {round}: {answer}");
                scene.honest(route, body).await;
            }
        }
        assert_eq!(
            scene.came("GET /hidden") + scene.came("GET hidden"),
            0,
            "{body}"
        );
    }
}

/// Its head and body, with a pause between.
async fn in_parts(scene: &Scene, route: usize, head: &str, body: &str, pause: u64) -> String {
    let mut stream = scene.open(route).await;
    let head = format!("POST {head}\r\nHost: web.shop\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(pause)).await;
    raw(&mut stream, body.as_bytes(), PATIENCE).await
}

#[tokio::test]
async fn nor_does_one_that_comes_late_or_in_chunks() {
    let scene = Scene::with(Bodies::Left).await;
    let length = format!("/late HTTP/1.1\r\nContent-Length: {}", HIDDEN.len());
    let chunks = "/late HTTP/1.1\r\nTransfer-Encoding: chunked";
    let chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    for route in [0, 1] {
        for pause in [0, 10, 200] {
            for (head, body) in [(length.as_str(), HIDDEN), (chunks, &chunk)] {
                let answer = in_parts(&scene, route, head, body, pause).await;
                assert!(answer.ends_with("/late"), "{route}, {pause}: {answer}");
                scene.honest(route, head).await;
            }
        }
    }
    assert_eq!(scene.came("GET /hidden"), 0);
}

#[tokio::test]
async fn body_ignored_by_server_costs_no_other_caller() {
    let scene = Scene::with(Bodies::Left).await;
    for round in 0..5 {
        for route in [0, 1] {
            let answer = scene.ask(route, "POST /post", "{\"a\":1}").await;
            assert!(answer.ends_with("/post"), "{route}, {round}: {answer}");
            scene.honest(route, "POST").await;
        }
    }
    let heads = scene.came.lock().heads.clone();
    let posts = heads.iter().filter(|head| head.starts_with("POST"));
    let alone = posts.filter(|head| head.to_ascii_lowercase().contains("connection: close"));
    assert_eq!(alone.count(), 10, "{heads:?}");
    assert_eq!(scene.came("{\"a\":1}"), 0, "{heads:?}");
}

#[tokio::test]
async fn body_ignored_by_server_never_starts_next_request() {
    let scene = Scene::with(Bodies::Left).await;
    for round in 0..3 {
        let answer = scene.ask(0, "POST /post", "{\"a\":1}").await;
        assert!(answer.ends_with("/post"), "{round}: {answer}");
        // Long enough to prove that the server keeps its connections.
        sleep(Duration::from_millis(1200)).await;
    }
}

#[tokio::test]
async fn content_behind_bodiless_response_reaches_no_other_caller() {
    let scene = Scene::with(Bodies::Left).await;
    for (line, status) in [("HEAD /x", "200"), ("GET /nm", "304"), ("HEAD /nm", "304")] {
        for route in [0, 1] {
            let answer = scene.ask(route, line, "").await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
            for _ in 0..4 {
                scene.honest(route, line).await;
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_reads_bodies_keeps_its_connections() {
    let scene = Scene::with(Bodies::Read).await;
    for _ in 0..30 {
        let answer = scene.ask(0, "POST /post", "{\"a\":1}").await;
        assert!(answer.ends_with("/post"), "{answer}");
        scene.honest(0, "POST").await;
    }
    let opened = scene.came.lock().connections;
    // Of each body, and those that all others share.
    assert!((31..=33).contains(&opened), "{opened}");
}
