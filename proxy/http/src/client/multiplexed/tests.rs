//! By which connection a body goes.
//!
//! Claims: attack-23, calls-13

mod apart;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::body;
use crate::failure::Next;
use crate::http2::PLAIN;
use crate::http2::send_window::STALLED_AFTER;

/// More than a server takes on a connection before it announces more.
const UPLOAD: usize = 80_000;

/// Connections to a server that reads no body before the test allows it.
struct Field {
    peer: Multiplexed,
    opened: Arc<AtomicUsize>,
    /// Takes no further connection.
    is_full: Arc<AtomicBool>,
    reads: watch::Sender<bool>,
}

impl Field {
    fn new() -> Self {
        let (reads, signal) = watch::channel(false);
        let (opened, is_full) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, refuses) = (Arc::clone(&opened), Arc::clone(&is_full));
        let peer = Multiplexed::new(move || {
            let (signal, refuses) = (signal.clone(), refuses.load(Ordering::Relaxed));
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                if refuses {
                    return Err(Failure::not_sent(Reason::ConnectFailed, "refused"));
                }
                let (near, far) = duplex(256 * 1024);
                tokio::spawn(serve(far, signal));
                handshake(near, PLAIN, Budget::new(64 << 20), None).await
            }
        });
        Self {
            peer,
            opened,
            is_full,
            reads,
        }
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    async fn take(&self, sends: Sends) -> Http2Stream {
        self.peer.stream(sends).await.unwrap()
    }

    /// Begins one that is answered once it was read.
    async fn upload(&self) -> JoinHandle<()> {
        let (mut sender, permit) = self.take(Sends::Bytes).await.into_parts();
        tokio::spawn(async move {
            let body = body::text(vec![b'x'; UPLOAD]);
            let request = http::Request::post("http://s/").body(body).unwrap();
            let answer = sender.send(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            drop(permit);
        })
    }
}

async fn serve(io: DuplexStream, signal: watch::Receiver<bool>) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut signal = signal.clone();
        tokio::spawn(async move {
            let _ = signal.wait_for(|reads| *reads).await;
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let _ = respond.send_response(http::Response::new(()), true);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn body_uses_other_connection_while_existing_ones_stall() {
    let field = Field::new();
    let upload = field.upload().await;
    sleep(STALLED_AFTER / 2).await;
    field.take(Sends::Bytes).await;
    assert_eq!(field.opened(), 1, "bodies that rest for a moment");
    sleep(STALLED_AFTER).await;
    field.take(Sends::Nothing).await;
    assert_eq!(field.opened(), 1, "what has no body need not wait for any");
    let other = field.take(Sends::Bytes).await;
    assert!(other.first);
    for _ in 0..10 {
        field.take(Sends::Bytes).await;
    }
    assert_eq!(field.opened(), 2, "one that carries bodies is enough");
    field.reads.send(true).unwrap();
    upload.await.unwrap();
    let again = field.take(Sends::Bytes).await;
    assert_eq!(field.opened(), 2);
    assert!(
        !Arc::ptr_eq(&again._permit.streams, &other._permit.streams),
        "what has moved is the one with fewer streams"
    );
}

/// A stalled body may move again, and it was all that there was before.
#[tokio::test(start_paused = true)]
async fn body_waits_on_stalled_connection_without_alternative() {
    let field = Field::new();
    let upload = field.upload().await;
    sleep(2 * STALLED_AFTER).await;
    field.is_full.store(true, Ordering::Relaxed);
    let late = field.upload().await;
    assert_eq!(field.opened(), 2, "another connection was asked for");
    field.reads.send(true).unwrap();
    upload.await.unwrap();
    late.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn connections_on_which_bodies_stand_still_are_bounded() {
    let field = Field::new();
    let mut uploads = Vec::new();
    for _ in 0..CONNECTIONS_PER_PEER + 2 {
        uploads.push(field.upload().await);
        sleep(2 * STALLED_AFTER).await;
    }
    assert_eq!(field.opened(), CONNECTIONS_PER_PEER);
    field.reads.send(true).unwrap();
    for upload in uploads {
        upload.await.unwrap();
    }
}

/// As of a request whose answer has come and whose body goes on.
#[tokio::test]
async fn stream_with_two_holders_counts_until_both_drop_it() {
    let field = Field::new();
    let (_sender, mut of_the_answer) = field.take(Sends::Bytes).await.into_parts();
    let streams = Arc::clone(&of_the_answer.streams);
    let count = || streams.load(Ordering::Relaxed);
    let of_the_upload = of_the_answer.share();
    let _other = field.take(Sends::Nothing).await;
    assert_eq!(count(), 2, "one and another one");
    drop(of_the_answer);
    assert_eq!(count(), 2);
    drop(of_the_upload);
    assert_eq!(count(), 1);
}

/// The caller that opens the connection, and those that wait for it meanwhile.
#[tokio::test(start_paused = true)]
async fn short_call_keeps_time_for_other_endpoint_without_connection() {
    let peer = Multiplexed::new(std::future::pending);
    let began = Instant::now();
    let limit = ConnectTimeout::ApplicationWithin(25);
    let hurried = || async {
        let failure = peer.stream_within(Sends::Nothing, limit).await.unwrap_err();
        assert_eq!(failure.next(), Next::OtherEndpoint, "{failure:?}");
        began.elapsed()
    };
    let patient = timeout(
        Duration::from_secs(60),
        peer.stream_within(Sends::Nothing, ConnectTimeout::Application),
    );
    let (one, other, patient) = tokio::join!(hurried(), hurried(), patient);
    assert!(
        one.max(other) < Duration::from_millis(1300),
        "{one:?}, {other:?}"
    );
    assert!(patient.is_err(), "its time is that of the connection");
}

/// Connections that are opened for calls which each leave after `after`, and come `later` after the
/// one before left.
async fn connections_for_cancelled_calls(after: Duration, later: Duration) -> usize {
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    let peer = Multiplexed::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending()
    });
    for _ in 0..5 {
        let left = timeout(after, peer.stream(Sends::Nothing)).await;
        assert!(left.is_err());
        sleep(later).await;
    }
    connections.load(Ordering::Relaxed)
}

/// Each would lie in the queue of the server until that accepts it.
#[tokio::test(start_paused = true)]
async fn calls_abandoned_immediately_share_one_connection_attempt() {
    let millis = Duration::from_millis;
    for (after, later, connections) in [
        (millis(1), Duration::ZERO, 1),
        (millis(1), millis(200), 1),
        // Control: an old idle connection is not trusted, nor a server that a caller waited for.
        (millis(1), millis(1000), 5),
        (millis(101), Duration::ZERO, 5),
    ] {
        let now = connections_for_cancelled_calls(after, later).await;
        assert_eq!(now, connections, "{after:?}, {later:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn call_reuses_connection_attempt_of_cancelled_call() {
    let field = Field::new();
    let (opens, gate) = watch::channel(false);
    let connections = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&connections);
    let peer = Multiplexed::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let (mut gate, signal) = (gate.clone(), field.reads.subscribe());
        async move {
            let _ = gate.wait_for(|opens| *opens).await;
            let (near, far) = duplex(256 * 1024);
            tokio::spawn(serve(far, signal));
            handshake(near, PLAIN, Budget::new(64 << 20), None).await
        }
    });
    let left = timeout(Duration::from_millis(1), peer.stream(Sends::Nothing)).await;
    assert!(left.is_err());
    opens.send(true).unwrap();
    let stream = peer.stream(Sends::Nothing).await.unwrap();
    assert!(stream.first);
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn failure_names_text_in_place_of_http2() {
    let cases: [(&[u8], bool); 6] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", true),
        // Some answer as before HTTP/1.0, without a head.
        (b"<!DOCTYPE HTML>\n", true),
        (b"", false),
        // The end behind SETTINGS, a frame of 64 KiB, and an alert of TLS.
        (&[0, 0, 0, 4, 0, 0, 0, 0, 0], false),
        (&[1, 0, 0, 4, 0, 0, 0, 0, 0], false),
        (&[0x15, 3, 1, 0, 2, 2, 70, 0, 0], false),
    ];
    for (answer, is_text) in cases {
        let (near, mut far) = duplex(64 * 1024);
        tokio::spawn(async move {
            let mut preface = [0; 24];
            far.read_exact(&mut preface).await.unwrap();
            far.write_all(answer).await.unwrap();
        });
        let opened = handshake(near, PLAIN, Budget::new(64 << 20), None).await;
        let failure = opened.unwrap_err();
        assert_eq!(
            failure.reason(),
            Reason::ConnectFailed,
            "{answer:?}: {failure}"
        );
        assert_eq!(failure.next(), Next::OtherEndpoint, "{answer:?}");
        let named = failure.to_string().contains("does not speak HTTP/2");
        assert_eq!(named, is_text, "{answer:?}: {failure}");
    }
}
