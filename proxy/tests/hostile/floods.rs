//! Floods of HTTP/2 frames that cost the sender little: each ends at a count or a bound, memory
//! stays flat, and other callers are served meanwhile.
//!
//! Claims: attack-18

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::Response;
use identity::tls::{self, MESH_ALPN};
use tokio::net::TcpStream;
use weft_proxy::MESH_PORT;
use wire::v1::Protocol;

use super::healthy::works_by_http2;
use super::raw_http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Outcome, PING, PRIORITY, RST_STREAM,
    RawHttp2, SETTINGS, WINDOW_UPDATE, block, frame, get, length,
};
use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, serving};
use crate::support::id;

/// A write that takes longer meets a peer that has stopped to read.
const STUCK: Duration = Duration::from_secs(1);
/// Every attack is over by then.
const OVER_WITHIN: Duration = Duration::from_secs(15);
/// Tests of the same process run beside, and need memory too.
const GROWTH: usize = 48 * 1024 * 1024;
/// Streams that the proxy lets a caller have at once.
const STREAMS: usize = 128;

/// What the application is doing.
#[derive(Clone, Default)]
struct Busy {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    began: Arc<AtomicUsize>,
}

struct Working(Busy);

impl Busy {
    fn work(&self) -> Working {
        self.began.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Working(self.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers at once, but works ten seconds on `/slow`, unless cancelled.
async fn application(stream: TcpStream, busy: Busy) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let working = busy.work();
        tokio::spawn(async move {
            let _working = working;
            if request.uri().path() == "/slow" {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(10)) => {}
                    _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return,
                }
            }
            if let Ok(mut send) = respond.send_response(Response::new(()), false) {
                let _ = send.send_data(Bytes::from_static(b"ok"), true);
            }
        });
    }
}

async fn pods() -> (TwoPods, Busy) {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    let busy = Busy::default();
    let shared = busy.clone();
    let port = serving(&pods.server, move |stream| {
        application(stream, shared.clone())
    })
    .await;
    pods.deliver_to(port);
    pods.port = port;
    (pods, busy)
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Runs an attack on both ways; afterwards memory has not grown and an
/// ordinary request is answered within a second. Returns how many were made for that.
async fn survive(
    case: &str,
    pods: &TwoPods,
    attack: impl AsyncFn(&mut RawHttp2, EntryPoint),
) -> usize {
    let mut controls = 0;
    for entry in ENTRY_POINTS {
        let before = resident();
        let started = Instant::now();
        let mut raw = RawHttp2::new(pods.open(entry).await).await;
        attack(&mut raw, entry).await;
        assert!(
            started.elapsed() < OVER_WITHIN,
            "{case}, {entry:?}: {:?}",
            started.elapsed()
        );
        let grown = resident().saturating_sub(before);
        assert!(grown < GROWTH, "{case}, {entry:?}: {grown} bytes more");
        controls += works_by_http2(case, pods, entry).await;
    }
    controls
}

fn post(path: &str) -> [(&[u8], &[u8]); 4] {
    let mut fields = get(path);
    fields[0].1 = b"POST";
    fields
}

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let (pods, busy) = pods().await;
    let head = block(&get("/slow"));
    survive("rapid reset", &pods, async |raw, entry| {
        busy.began.store(0, Ordering::Relaxed);
        let mut sent = 0_u32;
        while sent < 100_000 {
            let mut batch = Vec::new();
            for at in sent..sent + 100 {
                let stream = at * 2 + 1;
                batch.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
                batch.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            }
            sent += 100;
            if !raw.write_within(&batch, STUCK).await {
                break;
            }
            // The other tasks of this one thread.
            tokio::task::yield_now().await;
        }
        raw.drain(Duration::from_secs(1)).await;
        assert!(sent < 100_000, "{entry:?}: no limit ended it");
        assert!(raw.over.is_some(), "{entry:?}: {:?} after {sent}", raw.over);
        let most = busy.most.load(Ordering::Relaxed);
        assert!(most <= STREAMS, "{entry:?}: {most} at once");
    })
    .await;
}

/// Each stream was taken up by the application before it is reset: its work
/// ends with the stream, so no more than the limit is ever under way.
#[tokio::test]
async fn started_work_is_cancelled_with_its_stream() {
    let (pods, busy) = pods().await;
    survive("late reset", &pods, async |raw, entry| {
        for at in 0..300_u32 {
            let stream = at * 2 + 1;
            let began = busy.began.load(Ordering::Relaxed);
            if !raw.request(stream, true, &get("/slow")).await {
                break;
            }
            for _ in 0..200 {
                if busy.began.load(Ordering::Relaxed) > began {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            raw.write(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()))
                .await;
        }
        raw.drain(Duration::from_millis(300)).await;
        let now = busy.now.load(Ordering::Relaxed);
        assert_eq!(now, 0, "{entry:?}: the application still works");
    })
    .await;
}

/// Six ways to make the proxy itself reset a stream whose request is at work.
#[tokio::test]
async fn resets_that_the_caller_provokes_leave_no_work_behind() {
    let (pods, busy) = pods().await;
    let zero = 0_u32.to_be_bytes();
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let own = |stream: u32| [&stream.to_be_bytes()[..], &[16]].concat();
    for trigger in 0..6 {
        survive(
            &format!("provoked reset {trigger}"),
            &pods,
            async |raw, entry| {
                for at in 0..2_000_u32 {
                    let stream = at * 2 + 1;
                    let mut bytes = frame(
                        HEADERS,
                        END_HEADERS | END_STREAM,
                        stream,
                        &block(&get("/slow")),
                    );
                    bytes.extend(match trigger {
                        0 => frame(WINDOW_UPDATE, 0, stream, &zero),
                        1 => frame(WINDOW_UPDATE, 0, stream, &most),
                        2 => frame(PRIORITY, 0, stream, &[0; 4]),
                        3 => frame(PRIORITY, 0, stream, &own(stream)),
                        4 => frame(
                            HEADERS,
                            END_HEADERS | END_STREAM,
                            stream,
                            &block(&get("/slow")),
                        ),
                        _ => frame(DATA, END_STREAM, stream, b"late"),
                    });
                    if !raw.write_within(&bytes, STUCK).await {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                raw.drain(Duration::from_millis(500)).await;
                let most = busy.most.load(Ordering::Relaxed);
                assert!(most <= STREAMS, "{trigger}, {entry:?}: {most} at once");
                if raw.over.is_some() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    let now = busy.now.load(Ordering::Relaxed);
                    assert_eq!(now, 0, "{trigger}, {entry:?}: work for a lost caller");
                }
            },
        )
        .await;
    }
}

#[tokio::test]
async fn malformed_requests_without_end_end_the_connection() {
    let (pods, busy) = pods().await;
    let controls = survive("malformed", &pods, async |raw, entry| {
        let mut fields = get("/ok").to_vec();
        fields.push((b"Upper", b"case"));
        let head = block(&fields);
        for at in 0..5_000_u32 {
            let bytes = frame(HEADERS, END_HEADERS | END_STREAM, at * 2 + 1, &head);
            if !raw.write_within(&bytes, STUCK).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        raw.drain(Duration::from_secs(1)).await;
        assert!(raw.over.is_some(), "{entry:?}: no limit ended it");
    })
    .await;
    assert_eq!(busy.began.load(Ordering::Relaxed), controls);
}

#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let (pods, _) = pods().await;
    for size in [0, 1, 10_000] {
        survive(
            &format!("continuation of {size}"),
            &pods,
            async |raw, entry| {
                raw.write(&frame(HEADERS, 0, 1, &block(&get("/ok")))).await;
                let part = if size > 1 {
                    block(&[(b"x", &vec![b'a'; size])])
                } else {
                    vec![0x82; size]
                };
                let mut sent = 0;
                while sent < 20_000
                    && raw
                        .write_within(&frame(CONTINUATION, 0, 1, &part), STUCK)
                        .await
                {
                    sent += 1;
                    if sent % 10 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                raw.drain(Duration::from_secs(1)).await;
                assert!(raw.over.is_some(), "{entry:?}: still open after {sent}");
            },
        )
        .await;
    }
}

/// A header in the table costs one byte to repeat; what counts is its size.
#[tokio::test]
async fn a_small_block_that_unfolds_to_megabytes_is_refused() {
    let (pods, busy) = pods().await;
    let mut controls = 0;
    for name in [&b"x"[..], b"cookie"] {
        controls += survive("amplification", &pods, async |raw, entry| {
            let mut head = block(&get("/ok"));
            // Literal with indexing, so that index 62 is this one.
            head.push(0x40);
            for part in [name, &[b'a'; 4000]] {
                length(&mut head, 0, 7, part.len());
                head.extend_from_slice(part);
            }
            head.extend(std::iter::repeat_n(0x80 | 62, 5_000));
            raw.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head))
                .await;
            let seen = raw.outcome(1, Duration::from_secs(2)).await;
            assert!(seen.is_refusal(), "{entry:?}: {seen:?}");
        })
        .await;
    }
    assert_eq!(busy.began.load(Ordering::Relaxed), controls);
}

// Claims: R1
#[tokio::test]
async fn flood_of_unread_tiny_data_frames_ends_connection() {
    let (pods, _) = pods().await;
    for size in [0, 1] {
        survive(&format!("data of {size}"), &pods, async |raw, entry| {
            raw.request(1, false, &post("/slow")).await;
            let batch = frame(DATA, 0, 1, &vec![b'x'; size]).repeat(100);
            let mut sent = 0;
            while sent < 10_000 && raw.write_within(&batch, STUCK).await {
                sent += 1;
                tokio::task::yield_now().await;
            }
            raw.drain(Duration::from_secs(1)).await;
            assert!(
                raw.over.is_some() || raw.all().any(|seen| matches!(seen, Outcome::Reset(_))),
                "{entry:?}: a million frames, and no limit ended it"
            );
        })
        .await;
    }
}

#[tokio::test]
async fn unread_query_responses_fill_no_memory() {
    let (pods, _) = pods().await;
    for (case, question) in [
        ("ping", frame(PING, 0, 0, &[1; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("priority", frame(PRIORITY, 0, 1001, &[0, 0, 0, 3, 16])),
    ] {
        survive(case, &pods, async |raw, _| {
            let batch = question.repeat(1000);
            // Either all are taken in passing or the writes get stuck.
            for _ in 0..300 {
                if !raw.write_within(&batch, STUCK).await {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn thousand_concurrent_requests_are_held_to_stream_limit() {
    let (pods, busy) = pods().await;
    for entry in ENTRY_POINTS {
        busy.most.store(0, Ordering::Relaxed);
        let mut raw = RawHttp2::new(pods.open(entry).await).await;
        for at in 0..1000_u32 {
            raw.request(at * 2 + 1, true, &get("/slow")).await;
        }
        raw.drain(Duration::from_millis(500)).await;
        let most = busy.most.load(Ordering::Relaxed);
        assert!(most <= STREAMS, "{entry:?}: {most} at once");
        let refused = raw.all().filter(|seen| *seen == Outcome::Reset(7)).count();
        assert!(
            refused >= 1000 - STREAMS || raw.over.is_some(),
            "{entry:?}: {refused} refused"
        );
        // A closed connection cancels its work.
        drop(raw);
        for _ in 0..200 {
            if busy.now.load(Ordering::Relaxed) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(busy.now.load(Ordering::Relaxed), 0, "{entry:?}");
    }
}

/// A reader of one byte at a time gets its byte and holds little memory.
#[tokio::test]
async fn one_byte_windows_hold_no_more_than_send_buffer() {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    let port = serving(&pods.server, |stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                for _ in 0..640 {
                    send.reserve_capacity(16 * 1024);
                    match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
                        Some(Ok(room)) => {
                            let part = Bytes::from(vec![b'x'; room.min(16 * 1024)]);
                            if send.send_data(part, false).is_err() {
                                return;
                            }
                        }
                        _ => return,
                    }
                }
            });
        }
    })
    .await;
    pods.deliver_to(port);
    pods.port = port;
    for entry in ENTRY_POINTS {
        let before = resident();
        let mut raw = RawHttp2::new(pods.open(entry).await).await;
        raw.write(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await;
        for at in 0..100_u32 {
            raw.request(at * 2 + 1, true, &get("/big")).await;
        }
        for _ in 0..50 {
            for at in 0..100_u32 {
                raw.write(&frame(WINDOW_UPDATE, 0, at * 2 + 1, &1_u32.to_be_bytes()))
                    .await;
            }
            raw.drain(Duration::from_millis(10)).await;
        }
        // A hundred streams of 10 MiB each wait: the bound is the windows'.
        let grown = resident().saturating_sub(before);
        assert!(grown < 2 * GROWTH, "{entry:?}: {grown} bytes more");
        let served = raw.all().any(|seen| seen == Outcome::Status(200));
        assert!(served, "{entry:?}");
    }
}

/// A member of the mesh names one port of the pod after the other, none with a listener.
// Claims: attack-15
#[tokio::test]
async fn peer_requesting_every_port_takes_bounded_pool_entries() {
    let (pods, _) = pods().await;
    let (authority, life) = (&pods.authority, Duration::from_secs(600));
    let certs = authority.leaf("web", life, SystemTime::now());
    let config = tls::mesh_client_config(&authority.roots(), &certs, id("api"), &[MESH_ALPN]);
    let stream = TcpStream::connect((pods.server.ip, MESH_PORT)).await;
    let secured = tokio_rustls::TlsConnector::from(config)
        .connect(tls::peer_name(), stream.unwrap())
        .await;
    let mut raw = RawHttp2::new(secured.unwrap()).await;
    let most = 0x7fff_0000_u32.to_be_bytes();
    raw.write(&frame(WINDOW_UPDATE, 0, 0, &most)).await;
    // Each status is encoded in full.
    raw.write(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0])).await;
    let before = resident();
    for batch in 0..100_u32 {
        let streams = (batch * 50..batch * 50 + 50).map(|at| (at * 2 + 1, at + 20_000));
        for (stream, port) in streams.clone() {
            let port = port.to_string();
            let mut fields = get("/ok").to_vec();
            fields.push((b"weft-port", port.as_bytes()));
            fields.push((b"weft-protocol", b"http2"));
            raw.request(stream, true, &fields).await;
        }
        for (stream, port) in streams {
            let seen = raw.outcome(stream, OVER_WITHIN).await;
            assert_eq!(seen, Outcome::Status(503), "port {port}");
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    let page = pods.server.metrics();
    assert!(page.contains(r#"limit="pooled-addresses""#), "{page}");
    for entry in ENTRY_POINTS {
        works_by_http2("all ports", &pods, entry).await;
    }
}
