//! Requests that are reset a moment after they began, again and again: over HTTP/1.1 each costs
//! its application a connection, which that has to accept though nobody waits for it any more.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use identity::tls::{self, MESH_ALPN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use weft_proxy::MESH_PORT;
use wire::v1::Protocol;

use super::raw_http2::{
    ACK, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, RawHttp2, block, frame, get,
};
use super::two_pods::{ENTRY_POINTS, TwoPods, serving, status};
use crate::support::id;

const ROUNDS: u32 = 20;
const EACH: u32 = 100;
/// Requests that were read are on their way to the application by then.
const TURN: Duration = Duration::from_millis(5);
/// What a caller may give up, as the documents say: so many at once, and one more in that time.
const AT_ONCE: u128 = 100;
const ONE_MORE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(15);

/// Answers `/ok`, and nothing else until its caller has left.
async fn application(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    if head.starts_with(b"GET /ok ") {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        let _ = stream.write_all(answer).await;
    } else {
        let _ = stream.read(&mut [0]).await;
    }
}

/// The pods, and how many connections their application has accepted.
async fn pods() -> (TwoPods, Arc<AtomicUsize>) {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let accepted = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&accepted);
    let port = serving(&pods.server, move |stream| {
        counted.fetch_add(1, Relaxed);
        application(stream)
    })
    .await;
    pods.deliver_to(port);
    pods.port = port;
    (pods, accepted)
}

/// A member of the mesh, which speaks as its proxy.
async fn member(pods: &TwoPods, account: &str) -> RawHttp2 {
    let (authority, life) = (&pods.authority, Duration::from_secs(600));
    let certs = authority.leaf(account, life, SystemTime::now());
    let config = tls::mesh_client_config(&authority.roots(), &certs, id("api"), &[MESH_ALPN]);
    let stream = TcpStream::connect((pods.server.ip, MESH_PORT)).await;
    let secured = tokio_rustls::TlsConnector::from(config)
        .connect(tls::peer_name(), stream.unwrap())
        .await;
    RawHttp2::new(secured.unwrap()).await
}

/// The proxy has read all that was sent.
async fn was_read(raw: &mut RawHttp2) {
    assert!(raw.write(&frame(PING, 0, 0, &[7; 8])).await);
    let until = Instant::now() + PATIENCE;
    while let Some(got) = raw.read(until).await {
        if got.kind == PING && got.flags & ACK != 0 {
            return;
        }
    }
    panic!("its connection has ended: {:?}", raw.over);
}

/// Begins requests that are not answered, and resets all of them a turn later.
async fn begin_and_reset(raw: &mut RawHttp2, port: u16, requests: Range<u32>) {
    let port = port.to_string();
    let mut fields = get("/never").to_vec();
    fields.push((b"weft-port", port.as_bytes()));
    fields.push((b"weft-protocol", b"http1"));
    let head = block(&fields);
    let streams = requests.map(|at| at * 2 + 1);
    let flags = END_HEADERS | END_STREAM;
    let heads = streams.clone().map(|at| frame(HEADERS, flags, at, &head));
    assert!(raw.write(&heads.collect::<Vec<_>>().concat()).await);
    was_read(raw).await;
    sleep(TURN).await;
    let cancel = 8_u32.to_be_bytes();
    let resets = streams.map(|at| frame(RST_STREAM, 0, at, &cancel));
    assert!(raw.write(&resets.collect::<Vec<_>>().concat()).await);
    was_read(raw).await;
}

/// Others ask meanwhile, each by a connection of its own.
async fn others_are_answered(pods: &TwoPods, case: &str) -> usize {
    for entry in ENTRY_POINTS {
        let request = "GET /ok HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let answer = pods.send(entry, request).await;
        assert_eq!(status(&answer), 200, "{case}, {entry:?}: {answer:?}");
    }
    ENTRY_POINTS.len()
}

#[tokio::test]
async fn resets_a_turn_after_the_heads_cost_the_application_no_more_than_an_allowance() {
    let (pods, accepted) = pods().await;
    let mut honest = others_are_answered(&pods, "before").await;
    let mut raw = member(&pods, "mallory").await;
    let began = Instant::now();
    for round in 0..ROUNDS {
        let requests = round * EACH..(round + 1) * EACH;
        begin_and_reset(&mut raw, pods.port, requests).await;
        honest += others_are_answered(&pods, &format!("round {round}")).await;
    }
    let lasted = began.elapsed();
    // What was accepted last came before these.
    honest += others_are_answered(&pods, "after").await;
    let lost = accepted.load(Relaxed) - honest;
    // Those that had begun when the allowance was used up go on.
    let most = AT_ONCE + u128::from(2 * EACH) + lasted.as_millis() / ONE_MORE.as_millis();
    assert!(lost as u128 <= most, "{lost} in {lasted:?}, of {most}");
    assert!(lost >= EACH as usize, "nothing was begun: {lost}");
    // A machine that stands still for most of the time lets all of them begin.
    let held = lost < (ROUNDS * EACH) as usize;
    let page = pods.server.metrics();
    let counted = page.contains(r#"limit="abandoned-requests""#);
    assert!(counted || !held, "{page}");
}

/// The control: who gives up no more than its allowance is not held.
#[tokio::test]
async fn resets_within_the_allowance_hold_nobody() {
    let (pods, accepted) = pods().await;
    let mut raw = member(&pods, "mallory").await;
    for requests in [0..40, 40..80] {
        begin_and_reset(&mut raw, pods.port, requests).await;
    }
    let honest = others_are_answered(&pods, "after 80 resets").await;
    let lost = accepted.load(Relaxed) - honest;
    assert_eq!(lost, 80, "all of them were sent");
    let page = pods.server.metrics();
    assert!(!page.contains(r#"limit="abandoned-requests""#), "{page}");
}
