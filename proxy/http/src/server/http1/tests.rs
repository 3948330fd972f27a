//! HTTP/1 as a server, byte by byte.
//!
//! Claims: attack-69

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use http::header;
use http_body::Body as _;
use http_body_util::BodyExt;
use runtime::occupancy::{Bounds, Holder, Occupancy};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::body;

mod ends;
mod held_back;
mod switching;

/// Well beyond the time after which a connection is idle.
const LONG: Duration = Duration::from_secs(2);
/// What a client has for its last request.
const LAST_REQUEST_WITHIN: Duration = Duration::from_millis(500);
/// Buffers of hyper are larger, those of an idle connection smaller.
const SMALL: usize = 1024;

/// The server's end, which notes the size of the last read.
struct Noted(DuplexStream, Arc<AtomicUsize>);

impl MayAbort for Noted {
    fn abort(&mut self) {}
}

impl AsyncRead for Noted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.1.store(out.remaining(), Ordering::Relaxed);
        Pin::new(&mut this.0).poll_read(cx, out)
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, data)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

struct Served {
    client: DuplexStream,
    shutdowns: Arc<AtomicUsize>,
    close: Option<oneshot::Sender<()>>,
    ended: JoinHandle<hyper::Result<()>>,
}

impl Served {
    fn new<H, F>(room: usize, patience: Option<Duration>, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::at(Permit::unlisted(), room, patience, handler)
    }

    fn at<H, F>(permit: Arc<Permit>, room: usize, patience: Option<Duration>, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::within(Budget::new(1 << 26), permit, room, patience, handler)
    }

    /// The client is no peer proxy.
    fn to_client<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let budget = Budget::new(1 << 26);
        let (from, permit) = (PreviousHop::Outside, Permit::unlisted());
        Self::to(from, budget, permit, 4096, None, handler)
    }

    fn within<H, F>(
        budget: Arc<Budget>,
        permit: Arc<Permit>,
        room: usize,
        patience: Option<Duration>,
        handler: H,
    ) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::to(PreviousHop::Peer, budget, permit, room, patience, handler)
    }

    fn to<H, F>(
        from: PreviousHop,
        budget: Arc<Budget>,
        permit: Arc<Permit>,
        room: usize,
        patience: Option<Duration>,
        handler: H,
    ) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (client, server) = duplex(room);
        let shutdowns = Arc::<AtomicUsize>::default();
        let (close, closed) = oneshot::channel::<()>();
        let io = Noted(server, Arc::clone(&shutdowns));
        let ended = tokio::spawn(async move {
            let close = async {
                if closed.await.is_err() {
                    pending::<()>().await;
                }
            };
            let mut builder = Builder::new();
            builder.auto_date_header(false).half_close(true);
            let limits = Limits {
                builder,
                patience,
                budget,
                class: AdmissionClass::Callers,
                from,
                last_within: LAST_REQUEST_WITHIN,
                permit,
            };
            serve(io, limits, pin!(close), |_, _| {}, handler).await
        });
        Self {
            client,
            shutdowns,
            close: Some(close),
            ended,
        }
    }

    fn rests(&self) -> bool {
        self.shutdowns.load(Ordering::Relaxed) < SMALL
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    /// Reads one answer without a body of its own length.
    async fn expect_read(&mut self, expected: &str) {
        let mut read = vec![0; expected.len()];
        let all = timeout(LONG, self.client.read_exact(&mut read)).await;
        all.expect("an answer in time").unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), expected);
    }
}

const GET: &[u8] = b"GET /one HTTP/1.1\r\nhost: a\r\n\r\n";

fn response_to(path: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}",
        path.len()
    )
}

async fn path(request: Request<Incoming>) -> Response<Body> {
    Response::new(body::text(request.uri().path().to_owned()))
}

#[tokio::test(start_paused = true)]
async fn idle_connection_releases_buffers_and_continues_later() {
    let mut served = Served::new(4096, None, path);
    for _ in 0..3 {
        served.send(GET).await;
        served.expect_read(&response_to("/one")).await;
        assert!(!served.rests());
        sleep(LONG).await;
        assert!(served.rests());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_use_does_not_rest() {
    let mut served = Served::new(4096, None, path);
    for _ in 0..40 {
        served.send(GET).await;
        served.expect_read(&response_to("/one")).await;
        sleep(IDLE_AFTER / 2).await;
        assert!(!served.rests());
    }
}

#[tokio::test(start_paused = true)]
async fn half_head_received_with_previous_request_is_kept() {
    let mut served = Served::new(4096, None, path);
    served.send(&[GET, b"GET /two HT"].concat()).await;
    served.expect_read(&response_to("/one")).await;
    sleep(LONG).await;
    served.send(b"TP/1.1\r\nhost: a\r\n\r\n").await;
    served.expect_read(&response_to("/two")).await;
    sleep(LONG).await;
    assert!(served.rests());
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
}

#[tokio::test(start_paused = true)]
async fn remaining_body_is_never_read_as_request() {
    let (bodies, mut received) = mpsc::unbounded_channel();
    let mut served = Served::new(4096, None, move |request| {
        let bodies = bodies.clone();
        let path = request.uri().path().to_owned();
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut all = Vec::new();
            while !body.is_end_stream() {
                match body.frame().await {
                    Some(Ok(frame)) => all.extend(frame.into_data().unwrap()),
                    _ => break,
                }
            }
            let _ = bodies.send(all);
        });
        async move { Response::new(body::text(path)) }
    });
    let inner = GET;
    let head = format!(
        "POST /post HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        inner.len()
    );
    served.send(head.as_bytes()).await;
    served.expect_read(&response_to("/post")).await;
    sleep(LONG).await;
    served.send(inner).await;
    let body = timeout(LONG, received.recv()).await.unwrap().unwrap();
    assert_eq!(body, inner);
    served.send(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
    served.expect_read(&response_to("/next")).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_client_takes_slowly_is_whole() {
    const SIZE: usize = 300_000;
    let mut served = Served::new(1000, None, |_| async {
        Response::new(body::text(vec![b'x'; SIZE]))
    });
    served.send(GET).await;
    sleep(LONG).await;
    served
        .expect_read(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"
        ))
        .await;
    let mut rest = SIZE;
    let mut chunk = vec![0; 50_000];
    while rest > 0 {
        sleep(LONG).await;
        let chunk = &mut chunk[..rest.min(50_000)];
        let all = timeout(LONG, served.client.read_exact(chunk)).await;
        all.expect("the rest in time").unwrap();
        rest -= chunk.len();
    }
    sleep(LONG).await;
    assert!(served.rests());
}

const SWITCH: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

/// The answer by which the connection speaks `echo` from then on.
fn switched() -> Response<Body> {
    Response::builder()
        .status(101)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "echo")
        .body(body::empty())
        .unwrap()
}

/// The same, where five bytes come back.
fn echoes(request: &mut Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgraded.await.unwrap());
        let mut read = [0; 5];
        stream.read_exact(&mut read).await.unwrap();
        stream.write_all(&read).await.unwrap();
    });
    switched()
}

#[tokio::test(start_paused = true)]
async fn idle_connection_closes_by_client_close_signal_or_timeout() {
    for how in ["client", "close", "patience"] {
        let patience = (how == "patience").then_some(LONG.mul_f32(1.5));
        let mut served = Served::new(4096, patience, path);
        served.send(GET).await;
        served.expect_read(&response_to("/one")).await;
        sleep(LONG).await;
        assert!(served.rests());
        assert!(!served.ended.is_finished(), "{how}");
        match how {
            "client" => served.client.shutdown().await.unwrap(),
            "close" => served.close.take().unwrap().send(()).unwrap(),
            _ => {}
        }
        let ended = timeout(LONG, &mut served.ended).await;
        ended.expect(how).unwrap().unwrap();
    }
}

/// A table with one permit that newcomers can take.
fn saturated() -> (Arc<Occupancy>, Arc<Permit>) {
    let bounds = Bounds {
        permits: 2,
        per_holder: 1,
        shared: true,
        head_within: HEAD_WITHIN,
        idle_within: Duration::MAX,
    };
    let occupancy = Occupancy::new(bounds, |_| {});
    let permit = occupancy.try_admit(&caller()).unwrap().unwrap();
    (occupancy, permit)
}

fn caller() -> Holder {
    std::net::IpAddr::from([10, 0, 0, 1]).into()
}

/// A newcomer of the same caller, and whether it cost this connection.
async fn costs(occupancy: &Arc<Occupancy>, served: &mut Served) -> bool {
    let newcomer = occupancy.try_admit(&caller());
    sleep(Duration::from_millis(10)).await;
    drop(newcomer);
    served.ended.is_finished()
}

// Claims: B1, M5
#[tokio::test(start_paused = true)]
async fn slow_head_is_aborted_ten_seconds_after_first_byte() {
    for (before, patience) in [(&b""[..], None), (GET, Some(LONG * 100))] {
        let mut served = Served::new(4096, patience, path);
        if !before.is_empty() {
            served.send(before).await;
            served.expect_read(&response_to("/one")).await;
        }
        // Rest is no part of a head.
        sleep(HEAD_WITHIN * 3).await;
        let start = Instant::now();
        let mut cut = None;
        assert!(served.rests());
        for byte in b"GET /two HTTP/1.1\r\nhost: a\r\nx-filling: aaaaaaaaaaaa" {
            if served.client.write_all(&[*byte]).await.is_err() {
                cut = Some(start.elapsed());
                break;
            }
            sleep(Duration::from_millis(500)).await;
            assert!(served.rests(), "half a head needs no large buffer");
        }
        let cut = cut.expect("cut off while it still sends");
        assert!((HEAD_WITHIN..HEAD_WITHIN + LONG).contains(&cut), "{cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_but_timely_head_and_slow_body_get_response() {
    let mut served = Served::new(4096, None, |request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(body::text(body))
    });
    for _ in 0..2 {
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";
        for chunk in head.chunks(8) {
            served.send(chunk).await;
            sleep(Duration::from_secs(1)).await;
        }
        for byte in b"body" {
            sleep(HEAD_WITHIN * 2).await;
            served.send(&[*byte]).await;
        }
        served
            .expect_read("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody")
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn connection_frees_its_place_between_requests_only() {
    // After a request with a body as well, and whether it is idle already or not.
    let post = b"POST /one HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";
    for request in [GET, post] {
        for rest in [Duration::from_millis(10), LONG] {
            let (occupancy, permit) = saturated();
            let mut served = Served::at(permit, 4096, None, |request| async {
                sleep(LONG).await;
                let _ = request.into_body().collect().await;
                Response::new(body::text("/one"))
            });
            served.send(request).await;
            sleep(LONG / 2).await;
            assert!(!costs(&occupancy, &mut served).await, "in use");
            served.expect_read(&response_to("/one")).await;
            sleep(rest).await;
            assert!(costs(&occupancy, &mut served).await, "idle for {rest:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slowly_read_response_and_upgraded_connection_keep_place() {
    let (occupancy, permit) = saturated();
    let mut served = Served::at(permit, 1000, None, |_| async {
        Response::new(body::text(vec![b'x'; 100_000]))
    });
    served.send(GET).await;
    for _ in 0..3 {
        sleep(HEAD_WITHIN).await;
        assert!(!costs(&occupancy, &mut served).await, "not taken in full");
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
    served
        .expect_read(&format!("{head}{}", "x".repeat(100_000)))
        .await;
    sleep(LONG).await;
    assert!(costs(&occupancy, &mut served).await);

    let (occupancy, permit) = saturated();
    let mut served = Served::at(permit, 4096, None, |mut request| async move {
        echoes(&mut request)
    });
    served.send(SWITCH).await;
    served.expect_read(SWITCHED).await;
    sleep(HEAD_WITHIN * 2).await;
    assert_eq!(occupancy.taken(), 1, "the permit goes with the connection");
    costs(&occupancy, &mut served).await;
    served.send(b"hello").await;
    served.expect_read("hello").await;
    sleep(LONG).await;
    assert_eq!(occupancy.taken(), 0);
}
