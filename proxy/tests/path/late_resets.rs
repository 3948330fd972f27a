//! A member of the mesh that sends many requests and resets each a moment later. Each call opens a
//! connection to the application, which lies in the accept queue until the application accepts it.
//!
//! Claims: calls-13

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use wire::v1::{self, Protocol};

use super::full_queue::FullQueue;
use super::mesh_port::secured;
use super::overload::{cap, guard, guard_port};
use crate::support::{Authority, Pod, pair, vip, workload_of_bytes};

/// Heads that are sent together: more than an owner may abandon at once.
const BATCH: usize = 100;
/// All connections are started by then, and count where they are abandoned.
const EARLY: Duration = Duration::from_millis(30);
/// A connection that is abandoned by then was waited for.
const LATE: Duration = Duration::from_millis(150);
/// Poll interval, and longer than bytes take to arrive.
const MOMENT: Duration = Duration::from_millis(5);
/// From one turn of such a member to the next, in milliseconds.
const APART: usize = 5;
/// Each may meet a machine that stalls.
const TRIES: usize = 5;

/// A call has waited for its turn.
const COUNTED: &str = "weft_limit_reached_total{limit=\"given-up-connections\"}";

/// Calls that are not cancelled.
type Calls = Vec<(ResponseFuture, SendStream<Bytes>)>;

/// A hand-made peer, which sends requests to one port.
struct Member {
    sender: SendRequest<Bytes>,
    port: u16,
}

impl Member {
    async fn new(authority: &Authority, account: &str, server: &Pod, port: u16) -> Self {
        let certs = authority.leaf(account, Duration::from_secs(3600), SystemTime::now());
        let stream = secured(authority, &certs, server).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { sender, port }
    }

    /// Asks for a path, or for a tunnel.
    async fn ask(&mut self, protocol: &str, path: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let is_tunnel = protocol == "tcp";
        let method = if is_tunnel { Method::POST } else { Method::GET };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://h{path}"))
            .header("weft-port", self.port.to_string())
            .header("weft-protocol", protocol)
            .body(())
            .unwrap();
        self.sender = self.sender.clone().ready().await.unwrap();
        self.sender.send_request(request, !is_tunnel).unwrap()
    }

    async fn batch(&mut self, protocol: &str) -> Calls {
        let mut calls = Vec::new();
        for _ in 0..BATCH {
            calls.push(self.ask(protocol, "/never").await);
        }
        calls
    }

    /// Sends batches, and resets each so long `after` it was sent.
    async fn reset(&mut self, protocol: &str, batches: usize, after: Duration) {
        for _ in 0..batches {
            let calls = self.batch(protocol).await;
            sleep(after).await;
            drop(calls);
        }
    }

    /// The status of a call that an application answers.
    async fn status(&mut self) -> u16 {
        let (answer, _) = self.ask("http1", "/now").await;
        answer.await.unwrap().status().as_u16()
    }

    /// How long a call takes that is answered.
    async fn waits(&mut self) -> Duration {
        let began = Instant::now();
        assert_eq!(self.status().await, 200);
        began.elapsed()
    }
}

/// Answers requests for `/now` and nothing else, and counts its connections.
async fn application(pod: &Pod) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Relaxed);
            tokio::spawn(serve(stream));
        }
    });
    (port, accepted)
}

async fn serve(mut stream: TcpStream) {
    let mut head = vec![0; 4096];
    let Ok(read) = stream.read(&mut head).await else {
        return;
    };
    if head[..read].starts_with(b"GET /now ") {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        let _ = stream.write_all(answer).await;
        return;
    }
    // Until its caller leaves.
    let _ = stream.read(&mut head).await;
}

/// Accepted connections of so many batches, and the max when they are started in turn.
async fn accepted_of(batches: usize, reset_after: Duration) -> (usize, usize) {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, accepted) = application(&server).await;
    let mut member = Member::new(&authority, "web", &server, port).await;
    let began = Instant::now();
    member.reset("http1", batches, reset_after).await;
    // The last ones may lie in the queue still.
    sleep(EARLY).await;
    let turns = began.elapsed().as_millis() as usize / APART;
    (accepted.load(Relaxed), 2 * BATCH + turns)
}

#[tokio::test]
async fn connections_of_resetting_member_are_opened_in_turn() {
    let mut last = None;
    for _ in 0..TRIES {
        let early = accepted_of(6, EARLY).await;
        // Control: as many as requested, when the member waits for them.
        let late = accepted_of(3, LATE).await;
        if early.0 <= early.1 && late.0 == 3 * BATCH {
            return;
        }
        last = Some((early, late));
    }
    panic!("{last:?}");
}

#[tokio::test]
async fn resetting_members_turns_delay_no_other_member() {
    let mut last = None;
    for _ in 0..TRIES {
        let authority = Authority::new();
        let server = Pod::new(&authority, "api").await;
        let (port, _) = application(&server).await;
        let mut hostile = Member::new(&authority, "web", &server, port).await;
        let mut same = Member::new(&authority, "web", &server, port).await;
        let mut other = Member::new(&authority, "cart", &server, port).await;
        hostile.reset("http1", 3, EARLY).await;
        let _in_turn = hostile.batch("http1").await;
        sleep(EARLY).await;
        let other = other.waits().await;
        // Control: behind the requests of the same account on another connection.
        let same = same.waits().await;
        if other < LATE && same > LATE {
            return;
        }
        last = Some((other, same));
    }
    panic!("{last:?}");
}

/// Whether a member has to wait for its turn once it has reset a batch of connections, which the
/// application accepts, or has no room for.
async fn has_to_wait(protocol: &str, accepts: bool, reset_after: Duration) -> bool {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let queue = FullQueue::of(&server).await;
    let port = if accepts {
        application(&server).await.0
    } else {
        queue.port()
    };
    let mut member = Member::new(&authority, "web", &server, port).await;
    member.reset(protocol, 2, reset_after).await;
    server.metrics().contains(COUNTED)
}

#[tokio::test]
async fn reset_requests_and_tunnels_count_before_acceptance_too() {
    let cases = ["http1", "tcp"].into_iter();
    for (protocol, accepts) in cases.flat_map(|protocol| [(protocol, true), (protocol, false)]) {
        let mut waits = (false, false);
        for _ in 0..TRIES {
            let early = has_to_wait(protocol, accepts, EARLY).await;
            // Control: what is waited for.
            let late = has_to_wait(protocol, accepts, LATE).await;
            waits = (early, late);
            if waits == (true, false) {
                break;
            }
        }
        assert_eq!(waits, (true, false), "{protocol}, accepted: {accepts}");
    }
}

/// Sends a greeting on each connection before any request, and keeps it until its caller leaves.
async fn greeter(pod: &Pod, greeting: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.write_all(greeting).await;
                let mut said = [0; 64];
                while stream.read(&mut said).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    port
}

/// Whether a member must wait that resets a batch of tunnels, and ends as many others right behind
/// that, on which an application has sent bytes long before.
async fn has_to_wait_ending_others(reset_after: Duration) -> bool {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let port = greeter(&server, b"220 ready\r\n").await;
    let mut keeps = Member::new(&authority, "web", &server, port).await;
    let kept = keeps.batch("tcp").await;
    sleep(LATE).await;
    let (port, _) = application(&server).await;
    let mut member = Member::new(&authority, "web", &server, port).await;
    member.reset("tcp", 1, reset_after).await;
    sleep(EARLY).await;
    drop(kept);
    sleep(EARLY).await;
    let _again = member.batch("tcp").await;
    sleep(EARLY).await;
    server.metrics().contains(COUNTED)
}

#[tokio::test]
async fn used_tunnels_do_not_offset_later_abandoned_ones() {
    let mut waits = (false, false);
    for _ in 0..TRIES {
        let early = has_to_wait_ending_others(EARLY).await;
        // Control: what is waited for.
        let late = has_to_wait_ending_others(LATE).await;
        waits = (early, late);
        if waits == (true, false) {
            return;
        }
    }
    panic!("{waits:?}");
}

/// Whether a member must wait after a change of rules has ended a batch of its tunnels, or itself.
async fn has_to_wait_revoked(is_revoked: bool) -> bool {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, _) = application(&server).await;
    let mut member = Member::new(&authority, "web", &server, port).await;
    let mut calls = member.batch("tcp").await;
    for (_, out) in &mut calls {
        out.send_data(Bytes::from_static(b"\0"), false).unwrap();
    }
    sleep(EARLY).await;
    if is_revoked {
        server.mode("api", v1::Enforcement::Enforce, v1::MtlsMode::Permissive);
        sleep(EARLY).await;
        server.mode("api", v1::Enforcement::Open, v1::MtlsMode::Permissive);
    }
    drop(calls);
    sleep(EARLY).await;
    let _again = member.batch("tcp").await;
    sleep(EARLY).await;
    server.metrics().contains(COUNTED)
}

#[tokio::test]
async fn tunnels_closed_by_rule_change_are_not_abandoned() {
    let mut waits = (true, false);
    for _ in 0..TRIES {
        let revoked = has_to_wait_revoked(true).await;
        // Control: the member ends them.
        let reset = has_to_wait_revoked(false).await;
        waits = (revoked, reset);
        if waits == (false, true) {
            return;
        }
    }
    panic!("{waits:?}");
}

/// Whether a member must wait that resets tunnels to an application with this greeting.
async fn has_to_wait_being_greeted(greeting: &'static [u8]) -> bool {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let port = greeter(&server, greeting).await;
    let mut member = Member::new(&authority, "web", &server, port).await;
    member.reset("tcp", 2, EARLY).await;
    server.metrics().contains(COUNTED)
}

#[tokio::test]
async fn tunnels_with_http2_server_greeting_are_not_abandoned() {
    let mut waits = (true, false);
    for _ in 0..TRIES {
        // SETTINGS without any.
        let greeted = has_to_wait_being_greeted(b"\0\0\0\x04\0\0\0\0\0").await;
        // Control: without a greeting.
        let silent = has_to_wait_being_greeted(b"").await;
        waits = (greeted, silent);
        if waits == (false, true) {
            return;
        }
    }
    panic!("{waits:?}");
}

/// Whether a member has to wait after it has sent bytes or an end of stream in each of its tunnels,
/// and reset them. The application's queue has room, and no connection is accepted.
async fn has_to_wait_having_said(
    (says, ends, is_declared): (&'static str, bool, bool),
    reset_after: Duration,
) -> bool {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let queue = TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = queue.local_addr().unwrap().port();
    if is_declared {
        server.set(vec![workload_of_bytes("api", port)]);
    }
    let mut member = Member::new(&authority, "web", &server, port).await;
    for _ in 0..2 {
        let mut calls = member.batch("tcp").await;
        for (_, out) in &mut calls {
            if ends || !says.is_empty() {
                out.send_data(Bytes::from_static(says.as_bytes()), ends)
                    .unwrap();
            }
        }
        sleep(reset_after).await;
        drop(calls);
    }
    server.metrics().contains(COUNTED)
}

#[tokio::test]
async fn reset_tunnels_count_whatever_their_caller_sends_first() {
    for case in [
        ("\0", false, false),
        ("", true, false),
        ("GET ", false, false),
        ("", false, true),
        ("\0", true, true),
    ] {
        let mut waits = (false, false);
        for _ in 0..TRIES {
            let early = has_to_wait_having_said(case, EARLY).await;
            // Control: what is waited for.
            let late = has_to_wait_having_said(case, LATE).await;
            waits = (early, late);
            if waits == (true, false) {
                break;
            }
        }
        assert_eq!(waits, (true, false), "{case:?}");
    }
}

/// Asks something by a pod, and waits for the answer, whenever the turn of that is.
async fn is_answered(client: &Pod) {
    let mut caller = client.call(vip()).await;
    let request = b"GET /now HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    caller.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    caller.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// A pod has a tunnel opened ahead for each of a batch of silent clients. Then these ask something,
/// or say what is no request and leave. How many were opened, and whether what the pod asks behind
/// that has to wait: whatever is asked together with the resets is there before them.
async fn has_to_wait_having_been_silent(asks: bool) -> (usize, bool) {
    let (client, server, _, _) = pair(Protocol::Detect).await;
    let (port, accepted) = application(&server).await;
    client.reaches(&server, port);
    let mut callers = Vec::new();
    for _ in 0..BATCH {
        callers.push(client.call(vip()).await);
    }
    // As soon as they are open: an old connection would not count as abandoned.
    let opening = async {
        while accepted.load(Relaxed) < BATCH {
            sleep(MOMENT).await;
        }
    };
    let _ = timeout(LATE, opening).await;
    let ahead = accepted.load(Relaxed);
    let says: &[u8] = if asks {
        b"GET /never HTTP/1.1\r\nHost: web.shop\r\n\r\n"
    } else {
        b"\0"
    };
    for caller in &mut callers {
        caller.write_all(says).await.unwrap();
    }
    if !asks {
        sleep(MOMENT).await;
        for caller in callers.drain(..) {
            let linger = socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO));
            linger.unwrap();
        }
    }
    // What is left at once is seen behind the first time, and what is left later behind the other.
    for after in [EARLY, LATE] {
        sleep(after).await;
        is_answered(&client).await;
    }
    (ahead, server.metrics().contains(COUNTED))
}

#[tokio::test]
async fn tunnels_opened_ahead_of_requests_are_not_abandoned() {
    let mut last = None;
    for _ in 0..TRIES {
        let asked = has_to_wait_having_been_silent(true).await;
        // Control: the clients leave what was opened for them.
        let left = has_to_wait_having_been_silent(false).await;
        if asked == (BATCH, false) && left == (BATCH, true) {
            return;
        }
        last = Some((asked, left));
    }
    panic!("{last:?}");
}

#[tokio::test]
async fn calls_waiting_for_turn_take_no_room_of_others() {
    let mut last = None;
    for _ in 0..TRIES {
        let authority = Authority::new();
        let server = Pod::new(&authority, "api").await;
        let (port, _) = application(&server).await;
        server.set(vec![guard([(port, guard_port(cap(BATCH as u32)))])]);
        let mut hostile = Member::new(&authority, "web", &server, port).await;
        let mut other = Member::new(&authority, "cart", &server, port).await;
        hostile.reset("http1", 3, EARLY).await;
        let _in_turn = hostile.batch("http1").await;
        sleep(EARLY).await;
        let waiting = other.status().await;
        // Control: all of them have had their turn, and are in flight.
        let turns = u64::try_from(2 * BATCH * APART).unwrap();
        sleep(Duration::from_millis(turns)).await;
        let in_flight = other.status().await;
        if (waiting, in_flight) == (200, 503) {
            return;
        }
        last = Some((waiting, in_flight));
    }
    panic!("{last:?}");
}
