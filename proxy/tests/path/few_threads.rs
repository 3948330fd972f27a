//! Applications that serve one connection after the other, and applications that close with a part
//! of the body unread.
//!
//! Claims: calls-11

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use crate::support::{Pod, pair, raw, vip};

const PATIENCE: Duration = Duration::from_secs(5);
/// More than a connection's first window, and less than what is kept.
const LARGE: usize = 200 * 1024;
/// More than a server reads beside a head.
const BODY: usize = 20 * 1024;
/// More than proxies and kernels hold, so its sender waits as well.
const LONG_BODY: usize = 8 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bodies {
    Read,
    Left,
}

/// One thread, which serves a connection until it ends.
fn application(ip: IpAddr, bodies: Bodies) -> u16 {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = serve(stream.unwrap(), bodies);
        }
    });
    port
}

fn serve(stream: TcpStream, bodies: Bodies) -> Option<()> {
    let mut stream = BufReader::with_capacity(4096, stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| {
            let length = line.strip_prefix("content-length: ")?;
            length.parse::<usize>().ok()
        });
        if bodies == Bodies::Read {
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).ok()?;
        }
        let size = if head.contains(" /large ") { LARGE } else { 2 };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
        let answer = answer + &"x".repeat(size);
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
        if head.contains("\r\nconnection: close\r\n") {
            return Some(());
        }
    }
}

/// A client's and a server's pod, and the application's port.
struct Scene {
    client: Pod,
    server: Pod,
    port: u16,
}

impl Scene {
    async fn with(bodies: Bodies) -> Self {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let port = application(server.ip, bodies);
        client.reaches(&server, port);
        Self {
            client,
            server,
            port,
        }
    }

    /// By way 0 through two proxies, and by way 1 from outside through one.
    async fn post(&self, route: usize, path: &str) -> String {
        self.post_and_read(route, path, Duration::ZERO).await
    }

    /// The answer as a caller gets it that begins to read `later`.
    async fn post_and_read(&self, route: usize, path: &str, later: Duration) -> String {
        let mut stream = self.open(route).await;
        let request = posted(path, BODY);
        stream.write_all(request.as_bytes()).await.unwrap();
        sleep(later).await;
        raw(&mut stream, b"", PATIENCE).await
    }

    async fn open(&self, route: usize) -> tokio::net::TcpStream {
        match route {
            0 => self.client.call(vip()).await,
            _ => self.server.plain(self.port).await,
        }
    }
}

fn posted(path: &str, size: usize) -> String {
    let body = "y".repeat(size);
    format!(
        "POST {path} HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\
         Content-Length: {size}\r\n\r\n{body}"
    )
}

fn content(answer: &str) -> usize {
    let content = answer.split_once("\r\n\r\n");
    content.map_or(0, |(_, content)| content.len())
}

#[tokio::test]
async fn response_arrives_complete_though_server_ignores_body() {
    let scene = Arc::new(Scene::with(Bodies::Left).await);
    for route in [0, 1] {
        for round in 0..10 {
            let answer = scene.post(route, "/large").await;
            assert_eq!(content(&answer), LARGE, "{route}, {round}");
        }
        let late = scene.post_and_read(route, "/large", Duration::from_millis(300));
        assert_eq!(content(&late.await), LARGE, "{route}, read late");
        let answers = (0..50).map(|_| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { content(&scene.post(route, "/large").await) })
        });
        for got in answers.collect::<Vec<_>>() {
            assert_eq!(got.await.unwrap(), LARGE, "{route}, in parallel");
        }
    }
    // A caller without such a window sees the server truncate its response.
    let (ip, port) = (scene.server.ip, scene.port);
    let direct = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect((ip, port)).unwrap();
        stream.write_all(posted("/large", BODY).as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(100));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer.len()
    });
    assert!(direct.await.unwrap() < LARGE, "the server closes in peace");
}

#[tokio::test]
async fn single_threaded_server_serves_others_beside_kept_connection() {
    let scene = Arc::new(Scene::with(Bodies::Read).await);
    for route in [0, 1] {
        let done = Arc::new(AtomicBool::new(false));
        let (beside, ended) = (Arc::clone(&scene), Arc::clone(&done));
        // One connection that is never idle for long.
        let reading = tokio::spawn(async move {
            let get = b"GET /small HTTP/1.1\r\nHost: web.shop\r\n\r\n";
            let mut stream = beside.client.call(vip()).await;
            let mut answers = 0;
            while !ended.load(Relaxed) {
                stream.write_all(get).await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\nxx") {
                    let mut part = [0; 1024];
                    let size = stream.read(&mut part).await.unwrap();
                    assert!(size > 0, "closed after {answers}");
                    answer.extend_from_slice(&part[..size]);
                }
                assert!(answer.starts_with(b"HTTP/1.1 200"), "after {answers}");
                answers += 1;
                sleep(Duration::from_millis(2)).await;
            }
            answers
        });
        sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        for round in 0..4 {
            let answer = scene.post(route, "/small").await;
            assert!(
                answer.starts_with("HTTP/1.1 200"),
                "{route}, {round}: {answer}"
            );
        }
        assert!(started.elapsed() < Duration::from_secs(4), "{route}");
        let (mut read, mut write) = scene.open(route).await.into_split();
        let sending = tokio::spawn(async move {
            let request = posted("/small", LONG_BODY);
            write.write_all(request.as_bytes()).await.map(|()| write)
        });
        let mut status = [0; 12];
        let answered = timeout(PATIENCE, read.read_exact(&mut status)).await;
        answered.expect("a long body is not taken").unwrap();
        assert_eq!(&status, b"HTTP/1.1 200", "{route}, a long body");
        sending.await.unwrap().unwrap();
        done.store(true, Relaxed);
        assert!(reading.await.unwrap() > 10);
    }
}
