//! Applications that send a scripted response, and policies about calls to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use policy::origin::Origin;
use policy::route::{Match, Rule, Table};
use policy::traffic::{EffectivePolicy, Limited, Scoped, Sources, Whole};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::v1;

use crate::support::{Pod, endpoint, endpoints, raw, resource, vip};

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
pub(super) const UNAVAILABLE: &str = "HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno";
/// [`OK`] after 50 ms.
pub(super) const SLOW: &str = "slow";
/// [`OK`] after 200 ms.
pub(super) const LATE: &str = "late";
/// [`OK`] after a second.
pub(super) const LATER: &str = "later";
/// [`OK`] to the first request of a connection, and the end of it instead of another answer.
pub(super) const ONCE: &str = "once";
/// [`OK`] to the first request of a connection, and a part of a head instead of another answer.
pub(super) const HALF: &str = "half";
/// No answer ever.
pub(super) const SILENCE: &str = "silence";
/// [`OK`], but never a response to a request for `/wait`.
pub(super) const WAITS: &str = "waits";
/// A head, a part of what it announces, and the end of the connection.
pub(super) const TRUNCATED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc";
/// Ends the connection instead of an answer.
pub(super) const NOTHING: &str = "";

/// An application that answers every request alike.
pub(super) struct App {
    pub(super) port: u16,
    log: Arc<Log>,
}

/// What an application has seen.
#[derive(Default)]
struct Log {
    request_count: AtomicUsize,
    heads: Mutex<Vec<String>>,
    bodies: Mutex<Vec<String>>,
    ended: AtomicUsize,
}

impl App {
    pub(super) async fn new(ip: IpAddr, answer: &'static str) -> Self {
        Self::on(TcpListener::bind((ip, 0)).await.unwrap(), answer)
    }

    pub(super) fn on(listener: TcpListener, answer: &'static str) -> Self {
        let app = Self {
            port: listener.local_addr().unwrap().port(),
            log: Arc::default(),
        };
        let log = Arc::clone(&app.log);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    serve(stream, answer, &log).await;
                    log.ended.fetch_add(1, Relaxed);
                });
            }
        });
        app
    }

    /// Requests that it has seen.
    pub(super) fn request_count(&self) -> usize {
        self.log.request_count.load(Relaxed)
    }

    /// In lower case.
    pub(super) fn heads(&self) -> Vec<String> {
        self.log.heads.lock().clone()
    }

    pub(super) fn bodies(&self) -> Vec<String> {
        self.log.bodies.lock().clone()
    }

    /// Connections to it that have ended.
    pub(super) fn ended(&self) -> usize {
        self.log.ended.load(Relaxed)
    }
}

/// One request after the other, each with a length or without a body.
async fn serve(mut stream: TcpStream, answer: &str, log: &Log) -> Option<()> {
    let mut bytes = Vec::new();
    for nth in 0.. {
        let head = loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some(end) = text.find("\r\n\r\n") {
                break text[..end].to_lowercase();
            }
            read(&mut stream, &mut bytes).await?;
        };
        let length = head.lines().find_map(|line| {
            let length = line.strip_prefix("content-length: ")?;
            length.parse::<usize>().ok()
        });
        let whole = head.len() + 4 + length.unwrap_or(0);
        while bytes.len() < whole {
            read(&mut stream, &mut bytes).await?;
        }
        let request: Vec<u8> = bytes.drain(..whole).collect();
        let body = String::from_utf8_lossy(&request[head.len() + 4..]).into_owned();
        log.bodies.lock().push(body);
        let waits = head.starts_with("get /wait ");
        log.heads.lock().push(head);
        log.request_count.fetch_add(1, Relaxed);
        match answer {
            NOTHING => return None,
            SILENCE => continue,
            WAITS if waits => continue,
            ONCE if nth > 0 => return None,
            HALF if nth > 0 => {
                let partial_head = b"HTTP/1.1 200 OK\r\ncontent-le";
                stream.write_all(partial_head).await.ok()?;
                return None;
            }
            TRUNCATED => {
                stream.write_all(answer.as_bytes()).await.ok()?;
                return None;
            }
            ONCE | HALF | WAITS => stream.write_all(OK.as_bytes()).await.ok()?,
            SLOW | LATE | LATER => {
                let millis = match answer {
                    SLOW => 50,
                    LATE => 200,
                    _ => 1000,
                };
                tokio::time::sleep(Duration::from_millis(millis)).await;
                stream.write_all(OK.as_bytes()).await.ok()?;
            }
            answer => stream.write_all(answer.as_bytes()).await.ok()?,
        }
    }
    None
}

async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    let count = stream.read(&mut buffer).await.ok()?;
    bytes.extend_from_slice(&buffer[..count]);
    (count > 0).then_some(())
}

/// From now on calls of `api` go to these applications of `server`.
pub(super) fn served_by(client: &Pod, server: &Pod, apps: &[&App]) {
    let all = apps
        .iter()
        .map(|app| endpoint(server.ip, app.port, Some("api")));
    client.set(vec![endpoints("api", all.collect())]);
}

/// One request on a connection of its own: the status, and all that came.
pub(super) async fn ask(client: &Pod, method: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = client.call(vip()).await;
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let request = format!(
        "{method} / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n{length}{headers}\r\n{body}"
    );
    let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(10)).await;
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), answer)
}

/// Sum of a pod's samples whose line contains all of `parts`.
pub(super) fn sum(pod: &Pod, name: &str, parts: &[&str]) -> f64 {
    let text = pod.metrics();
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    lines
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Retries of `pod` that came to this.
pub(super) fn retries(pod: &Pod, outcome: &str) -> f64 {
    let outcome = format!("outcome=\"{outcome}\"");
    let labels = ["service=\"shop/api\"", "backend=\"shop/api\"", &outcome];
    sum(pod, "weft_retries_total", &labels)
}

/// What policies say of calls to `api`, for its callers.
pub(super) fn policy_of(traffic: &EffectivePolicy) -> v1::Resource {
    resource(
        &wire::names::policy("shop", "api", 80),
        v1::resource::Content::Policy(wire::convert::policy_message(traffic)),
    )
}

fn rule<T>(then: T) -> Rule<T> {
    Rule {
        origin: Origin::new("TrafficPolicy", "shop", "calls"),
        when: Match::Always,
        then,
    }
}

/// A section for every request and caller.
pub(super) fn limited<T>(section: T) -> Limited<T> {
    Table {
        rules: vec![rule(Some(Scoped {
            sources: Sources::Everyone,
            section,
        }))],
        otherwise: None,
    }
}

pub(super) fn whole<T>(section: T) -> Whole<T> {
    Table {
        rules: vec![rule(Some(section))],
        otherwise: None,
    }
}
