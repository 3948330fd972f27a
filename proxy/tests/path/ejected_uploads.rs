//! Uploads larger than the retained part of a body, while an endpoint fails them, is ejected and
//! is probed: no two applications see the same upload.
//!
//! Claims: calls-1

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use policy::traffic::EffectivePolicy;
use policy::traffic::endpoint::Ejection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use super::answers::{OK, UNAVAILABLE, policy_of, sum, whole};
use crate::support::{Pod, endpoint, endpoints, pair, vip};

/// More than the 64 KiB that a proxy keeps, and a beginning that it could send again.
const BODY: usize = 80 * 1024;
const BEGINNING: usize = 1024;
/// Between the two a failure comes back.
const BETWEEN: Duration = Duration::from_millis(10);
const AT_ONCE: usize = 4;
const REST: Duration = Duration::from_secs(1);

/// An application that notes the number of each upload as soon as its head is there.
#[derive(Clone)]
struct Uploads {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    broken: Arc<AtomicBool>,
}

#[derive(Default)]
struct Seen {
    all: Vec<usize>,
    /// Those that it failed.
    failed: BTreeSet<usize>,
}

/// How an application answers an upload.
#[derive(Clone, Copy)]
enum Way {
    Good,
    /// Ends the connection when it has the head.
    Breaks,
    /// Answers 503 then, and takes the body.
    FailsEarly,
    /// Answers 503 when it has all.
    Fails,
}

impl Uploads {
    async fn new(ip: IpAddr, broken: bool) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let app = Self {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            broken: Arc::new(AtomicBool::new(broken)),
        };
        let serving = app.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let app = serving.clone();
                tokio::spawn(async move { app.take(stream).await });
            }
        });
        app
    }

    /// One upload.
    async fn take(&self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        let (head, received) = loop {
            more(&mut stream, &mut bytes).await?;
            let text = String::from_utf8_lossy(&bytes);
            if let Some(end) = text.find("\r\n\r\n") {
                break (text[..end].to_owned(), bytes.len() - end - 4);
            }
        };
        let number = head.strip_prefix("POST /")?.split(' ').next()?;
        let way = self.note(number.parse().ok()?);
        match way {
            Way::Breaks => return None,
            Way::FailsEarly => stream.write_all(UNAVAILABLE.as_bytes()).await.ok()?,
            Way::Good | Way::Fails => {}
        }
        let mut body = vec![0; BODY - received];
        stream.read_exact(&mut body).await.ok()?;
        match way {
            Way::Good => stream.write_all(OK.as_bytes()).await.ok(),
            Way::Fails => stream.write_all(UNAVAILABLE.as_bytes()).await.ok(),
            Way::Breaks | Way::FailsEarly => None,
        }
    }

    fn note(&self, number: usize) -> Way {
        let mut seen = self.seen.lock();
        seen.all.push(number);
        if !self.broken.load(Relaxed) {
            return Way::Good;
        }
        seen.failed.insert(number);
        match seen.failed.len() % 3 {
            0 => Way::Fails,
            1 => Way::Breaks,
            _ => Way::FailsEarly,
        }
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let count = stream.read_buf(bytes).await.ok()?;
    (count > 0).then_some(())
}

/// Whether the upload of this number was answered 200. It is sent in two parts, so that it could
/// be sent again when the first one has failed.
async fn upload(client: &Pod, number: usize) -> bool {
    let mut stream = client.call(vip()).await;
    let (mut read, mut write) = stream.split();
    let head = format!(
        "POST /{number} HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\
         Content-Length: {BODY}\r\n\r\n"
    );
    let body = vec![b'x'; BODY];
    let (beginning, rest) = body.split_at(BEGINNING);
    let sending = async {
        write.write_all(head.as_bytes()).await?;
        write.write_all(beginning).await?;
        sleep(BETWEEN).await;
        write.write_all(rest).await
    };
    let mut answer = Vec::new();
    let exchange = async {
        // A call that has its response may be broken off.
        let _ = tokio::join!(sending, read.read_to_end(&mut answer));
    };
    let patience = Duration::from_secs(20);
    timeout(patience, exchange).await.unwrap();
    answer.starts_with(b"HTTP/1.1 200")
}

/// Uploads one after the other, and which of them were answered 200.
struct Uploader {
    client: Pod,
    good: Vec<bool>,
}

impl Uploader {
    async fn round(&mut self) {
        let first = self.good.len();
        let uploads = (first..first + AT_ONCE).map(|number| upload(&self.client, number));
        let ended = join_all(uploads).await;
        self.good.extend(ended);
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Pod) -> bool) {
        let started = Instant::now();
        while !holds(&self.client) {
            self.round().await;
            let waited = started.elapsed();
            let metrics = self.client.metrics();
            assert!(waited < Duration::from_secs(60), "{what}: {metrics}");
        }
    }
}

fn ejections(client: &Pod) -> f64 {
    sum(client, "weft_ejections_total", &["cause=\"failures\""])
}

#[tokio::test]
async fn long_upload_reaches_one_endpoint_during_ejection_cycle() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        Uploads::new(server.ip, true).await,
        Uploads::new(server.ip, false).await,
        Uploads::new(server.ip, false).await,
    ];
    let [bad, ..] = &apps;
    let all: Vec<_> = apps
        .iter()
        .map(|app| endpoint(server.ip, app.port, Some("api")))
        .collect();
    client.set(vec![policy_of(&EffectivePolicy {
        ejection: whole(Ejection {
            base_time: REST,
            max_time: REST,
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let mut uploader = Uploader {
        client,
        good: Vec::new(),
    };
    // Control, and as many answers as it takes to compare with.
    uploader
        .client
        .set(vec![endpoints("api", all[1..].to_vec())]);
    while uploader.good.len() < 24 {
        uploader.round().await;
    }
    assert!(uploader.good.iter().all(|good| *good));
    uploader.client.set(vec![endpoints("api", all)]);
    let until_rests = uploader.until("it must rest", |client| ejections(client) >= 1.0);
    until_rests.await;
    let before = bad.seen.lock().all.len();
    let until_probed = uploader.until("it must be probed", |client| ejections(client) >= 2.0);
    until_probed.await;
    assert!(bad.seen.lock().all.len() > before, "by an upload");
    bad.broken.store(false, Relaxed);
    let until_back = uploader.until("it must be back", |client| {
        sum(client, "weft_ejected_endpoints", &[]) == 0.0
    });
    until_back.await;
    uploader.round().await;

    let mut seen: Vec<usize> = Vec::new();
    for app in &apps {
        seen.extend(&app.seen.lock().all);
    }
    seen.sort_unstable();
    let sent: Vec<usize> = (0..uploader.good.len()).collect();
    assert_eq!(seen, sent, "each once");
    let failed = bad.seen.lock().failed.clone();
    assert!(failed.len() > 5, "{failed:?}");
    for (number, good) in uploader.good.iter().enumerate() {
        assert_eq!(*good, !failed.contains(&number), "{number} of {failed:?}");
    }
}
