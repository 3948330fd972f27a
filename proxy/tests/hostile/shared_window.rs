//! Uploads of one caller that share the window of a connection to the application.
//!
//! Claims: attack-23

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, serving};

/// An unhindered upload is over within this time.
const SOON: Duration = Duration::from_secs(1);
/// Uploads that stall on each of two connections of the caller. Together fewer than two connections
/// to the application take, so that another one has to be chosen.
const STALLED: usize = 90;
/// Bytes of each. A connection to the application takes 65 535 of all.
const SENT: usize = 4096;
/// Bytes of an upload that is read.
const WHOLE: usize = 20 * 1024;

/// What the application saw.
#[derive(Clone, Debug, Default)]
struct Seen {
    connections: Arc<AtomicUsize>,
    /// Bodies that it does not read.
    held: Arc<AtomicUsize>,
}

impl Seen {
    /// Reads the body and returns its size, except for `/stall`.
    async fn serve(self, stream: TcpStream) {
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        self.connections.fetch_add(1, Ordering::Relaxed);
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let held = Arc::clone(&self.held);
            tokio::spawn(async move {
                let stalls = request.uri().path() == "/stall";
                let mut body = request.into_body();
                if stalls {
                    held.fetch_add(1, Ordering::Relaxed);
                    pending::<()>().await;
                }
                let mut size = 0;
                while let Some(Ok(data)) = body.data().await {
                    size += data.len();
                    let _ = body.flow_control().release_capacity(data.len());
                }
                let response = Response::builder().header("size", size).body(()).unwrap();
                let _ = respond.send_response(response, true);
            });
        }
    }
}

async fn pods() -> (TwoPods, Seen) {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    let seen = Seen::default();
    let seen_by_all = seen.clone();
    let serve = move |stream| seen_by_all.clone().serve(stream);
    pods.port = serving(&pods.server, serve).await;
    pods.deliver_to(pods.port);
    (pods, seen)
}

struct Caller(SendRequest<Bytes>);

impl Caller {
    async fn new(pods: &TwoPods, entry: EntryPoint) -> Self {
        let (sender, connection) = h2::client::handshake(pods.open(entry).await).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn post(
        &self,
        path: &str,
        size: usize,
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = self.0.clone().ready().await.unwrap();
        let request = Request::post(format!("http://s{path}")).body(()).unwrap();
        let (answer, mut send) = sender.send_request(request, false).unwrap();
        send.send_data(vec![b'x'; size].into(), end).unwrap();
        (answer, send)
    }

    /// An upload that the application reads.
    async fn upload(&self, case: &str) {
        let answered = timeout(SOON, async {
            let (answer, _send) = self.post("/", WHOLE, true).await;
            answer.await.unwrap()
        })
        .await;
        let answer = answered.unwrap_or_else(|_| panic!("{case}: no answer"));
        assert_eq!(answer.status(), 200, "{case}");
        assert_eq!(answer.headers()["size"], WHOLE.to_string(), "{case}");
    }
}

#[tokio::test]
async fn upload_does_not_wait_behind_callers_stalled_uploads() {
    let (pods, seen) = pods().await;
    for (entry, round) in ENTRY_POINTS.into_iter().zip(1..) {
        let (mut callers, mut stalled) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let caller = Caller::new(&pods, entry).await;
            for _ in 0..STALLED {
                stalled.push(caller.post("/stall", SENT, false).await);
            }
            callers.push(caller);
        }
        let all_held = async {
            while seen.held.load(Ordering::Relaxed) < round * 2 * STALLED {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let all_held = timeout(10 * SOON, all_held).await;
        assert!(all_held.is_ok(), "{entry:?}: {seen:?}");
        // From then on the proxy takes them for what they are.
        sleep(SOON / 2).await;
        let caller = Caller::new(&pods, entry).await;
        for at in 0..5 {
            caller.upload(&format!("{entry:?} {at}")).await;
        }
        drop((stalled, callers));
    }
}

/// The control: what was read opens the window again, and no other connection is needed.
#[tokio::test]
async fn consecutive_uploads_share_one_connection_when_read() {
    let (pods, seen) = pods().await;
    let caller = Caller::new(&pods, EntryPoint::Outbound).await;
    for at in 0..50 {
        caller.upload(&at.to_string()).await;
    }
    assert_eq!(seen.connections.load(Ordering::Relaxed), 1);
}
