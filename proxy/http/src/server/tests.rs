//! What both versions of HTTP have in common as a server.
//!
//! Claims: calls-48

use std::cell::{Cell, RefCell};
use std::future::pending;

use bytes::Bytes;
use http_body_util::BodyExt;
use runtime::occupancy::{Bounds, InFlight, Occupancy};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use weft_proxy_net::coalesce::Coalescing;
use weft_proxy_net::ticket::{WAIT, Waited};

use super::*;
use crate::body;
use crate::deadline::GRPC_TIMEOUT;
use crate::headers;

const LIMIT: usize = 64 << 20;
const MUCH: usize = 40 << 20;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static REFUSED: RefCell<Vec<NotHandled>> = const { RefCell::new(Vec::new()) };
}

/// A caller that has a hundred requests in flight already, on a connection of HTTP/2.
async fn saturated(
    profile: Profile,
) -> (
    h2::client::SendRequest<Bytes>,
    Arc<Budget>,
    (Arc<Permit>, Vec<InFlight>),
) {
    let bounds = Bounds {
        permits: 10,
        per_holder: usize::MAX,
        shared: true,
        head_within: Duration::MAX,
        idle_within: Duration::MAX,
    };
    let occupancy = Occupancy::new(bounds, |_| {});
    let enter = || {
        let from = std::net::IpAddr::from([10, 0, 0, 1]).into();
        occupancy.try_admit(&from).unwrap().unwrap()
    };
    let (permit, other) = (enter(), enter());
    let requests = (0..100).map(|_| other.begin_request()).collect();
    let budget = Budget::measured(LIMIT, LIMIT, || USED.get());
    let accepted = Accepted {
        version: Version::HTTP_2,
        profile,
        budget: Arc::clone(&budget),
        permit,
    };
    let (near, far) = duplex(1 << 20);
    let handler = |request: Request<IncomingBody>| async move {
        let waited = request.extensions().get::<Waited>();
        let waited = waited.map_or(0, |Waited(time)| time.as_secs());
        if !request.body().is_end_stream() {
            tokio::spawn(request.into_body().collect());
        }
        Response::new(body::text(format!("waited {waited}")))
    };
    let refused = |how, _: ReportedHead<'_>| REFUSED.with_borrow_mut(|all| all.push(how));
    tokio::spawn(serve::<DuplexStream, _, _>(
        far,
        accepted,
        pending(),
        refused,
        handler,
    ));
    let (sender, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    (sender, budget, (other, requests))
}

/// What a peer's connection flushes: nothing here goes through it.
async fn flush() -> weft_proxy_net::coalesce::FlushHandle {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
    Coalescing::new(stream.unwrap()).1
}

fn get(content_type: &str) -> Request<()> {
    Request::get("http://s/")
        .header("content-type", content_type)
        .body(())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn http2_peer_proxy_learns_that_waiting_request_was_unsent() {
    for peer in [true, false] {
        let profile = if peer {
            Profile::Mesh(flush().await)
        } else {
            Profile::Network
        };
        let (mut sender, _, _held) = saturated(profile).await;
        USED.set(MUCH);
        let mut answers = Vec::new();
        for content_type in ["text/plain", "application/grpc"] {
            let (answer, _) = sender.send_request(get(content_type), true).unwrap();
            answers.push(answer);
        }
        sleep(WAIT + Duration::from_secs(1)).await;
        assert_eq!(REFUSED.take(), [NotHandled::LATE; 2], "each counts");
        for (answer, status) in answers.into_iter().zip([503, 200]) {
            let head = answer.await.unwrap().into_parts().0;
            assert_eq!(head.status, status);
            assert_eq!(head.headers[headers::REASON], "overload");
            assert_eq!(head.headers.contains_key(headers::UNSENT), peer);
        }
    }
}

/// As its application or its proxy sets it, where they may, and at any place of the queue.
#[tokio::test(start_paused = true)]
async fn http2_waiting_request_ends_at_its_own_deadline() {
    for behind in [false, true] {
        for (profile, name, value, content_type, status) in [
            (
                Profile::Network,
                GRPC_TIMEOUT,
                "2S",
                "application/grpc",
                200,
            ),
            (
                Profile::OwnApplication,
                headers::TIMEOUT,
                "2000ms",
                "text/plain",
                504,
            ),
            (
                Profile::Mesh(flush().await),
                headers::REST,
                "2000ms",
                "text/plain",
                504,
            ),
        ] {
            let (mut sender, budget, (permit, _held)) = saturated(profile).await;
            let waiting = || permit.requests().unwrap().waiting();
            // From where on calls of the own application wait as well.
            USED.set(41 << 20);
            let mut ask = |request| sender.send_request(request, true).unwrap().0;
            let first = behind.then(|| ask(get("text/plain")));
            let mut request = get(content_type);
            request.headers_mut().insert(&name, value.parse().unwrap());
            let answer = ask(request);
            sleep(Duration::from_millis(1990)).await;
            assert_eq!((waiting(), REFUSED.take().len()), (1, 0), "{name}");
            sleep(Duration::from_millis(20)).await;
            assert_eq!(REFUSED.take(), [NotHandled::DEADLINE], "{name}");
            assert_eq!(waiting(), usize::from(behind), "{name}");
            let head = answer.await.unwrap().into_parts().0;
            assert_eq!(head.status, status, "{name}");
            assert_eq!(head.headers[headers::REASON], "deadline");
            assert!(!head.headers.contains_key(headers::UNSENT));
            if status == 200 {
                assert_eq!(head.headers["grpc-status"], "4");
            }
            USED.set(0);
            budget.settle();
            if let Some(first) = first {
                assert_eq!(first.await.unwrap().status(), 200);
            }
        }
    }
}

/// Some are found when many wait, others when they would be admitted.
#[tokio::test(start_paused = true)]
async fn http2_requests_withdrawn_while_waiting_are_reported() {
    for count in [1, 100] {
        let (mut sender, budget, permits) = saturated(Profile::Network).await;
        USED.set(MUCH);
        let ask = |sender: &mut h2::client::SendRequest<Bytes>| {
            sender.send_request(get("text/plain"), true).unwrap().0
        };
        for _ in 0..count {
            // One by one, or its peer would be taken for one that floods it with resets.
            drop(ask(&mut sender));
            sleep(Duration::from_millis(1)).await;
        }
        let stays = ask(&mut sender);
        USED.set(0);
        drop(permits);
        budget.settle();
        assert_eq!(stays.await.unwrap().status(), 200);
        assert_eq!(REFUSED.take(), vec![NotHandled::Left; count]);
    }
}

#[tokio::test(start_paused = true)]
async fn http2_waiting_time_is_reported_with_request() {
    let (mut sender, budget, _held) = saturated(Profile::Network).await;
    for waits in [false, true] {
        USED.set(if waits { MUCH } else { 0 });
        let (answer, _) = sender.send_request(get("text/plain"), true).unwrap();
        sleep(Duration::from_secs(7)).await;
        USED.set(0);
        budget.settle();
        let mut body = answer.await.unwrap().into_body();
        let expected = if waits { "waited 7" } else { "waited 0" };
        assert_eq!(body.data().await.unwrap().unwrap(), expected);
    }
}

/// As over HTTP/1.1.
#[tokio::test(start_paused = true)]
async fn http2_request_is_in_flight_until_its_body_arrives() {
    let (mut sender, _, (permit, _held)) = saturated(Profile::Network).await;
    let in_flight = || permit.requests().unwrap().in_flight() - 100;
    for whole in [true, false] {
        let head = Request::post("http://s/").body(()).unwrap();
        let (answer, mut stream) = sender.send_request(head, false).unwrap();
        let kept = answer.await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(in_flight(), 1);
        if whole {
            stream.send_data(Bytes::from("body"), true).unwrap();
        }
        drop((kept, stream));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(in_flight(), 0);
    }
}

/// What it sends meanwhile would be answered with a reset, which overtakes the answer.
// Claims: calls-15
#[tokio::test(start_paused = true)]
async fn closed_http2_connection_is_read_until_peer_proxy_closes() {
    // A DATA frame of no stream: a connection ends with it.
    let nonsense = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 1, 0, 0, 0, 0],
    ];
    let accepted = Accepted {
        version: Version::HTTP_2,
        profile: Profile::Mesh(flush().await),
        budget: Budget::new(LIMIT),
        permit: Permit::unlisted(),
    };
    let (mut near, far) = duplex(4096);
    let handler = |_| async { Response::new(body::empty()) };
    let serving = tokio::spawn(serve::<DuplexStream, _, _>(
        far,
        accepted,
        pending(),
        |_, _| {},
        handler,
    ));
    near.write_all(&nonsense.concat()).await.unwrap();
    near.read_to_end(&mut Vec::new()).await.unwrap();
    // More than the pipe holds.
    let late = timeout(Duration::from_millis(100), near.write_all(&[0; 100_000]));
    late.await.expect("nothing is read").unwrap();
    assert!(!serving.is_finished());
    drop(near);
    let ended = timeout(Duration::from_millis(100), serving);
    ended.await.expect("it waits for no client").unwrap();
}
