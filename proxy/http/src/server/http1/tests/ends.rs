//! How a connection ends on request: no request on its way is lost. And behind an answer that
//! breaks off: no byte of it that came is lost.
//!
//! Claims: attack-27, calls-60

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;
use crate::ending_body::TAKEN_WITHIN;
use crate::failure::Failure;

mod half_closed;

const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\n/one";

#[tokio::test(start_paused = true)]
async fn client_with_pending_request_learns_close_from_response() {
    // In use, and so long ago that it is idle.
    for before in [Duration::from_millis(10), LONG] {
        let mut served = Served::to_client(path);
        served.send(GET).await;
        served.expect_read(&response_to("/one")).await;
        sleep(before).await;
        served.close.take().unwrap().send(()).unwrap();
        sleep(LAST_REQUEST_WITHIN * 9 / 10).await;
        served.send(GET).await;
        served.expect_read(LAST).await;
        let ended = timeout(Duration::from_millis(1), &mut served.ended).await;
        ended.expect("it ends with that answer").unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn in_flight_request_is_answered_with_connection_close() {
    let mut served = Served::to_client(|request| async {
        sleep(LONG).await;
        path(request).await
    });
    served.send(GET).await;
    sleep(LONG / 2).await;
    served.close.take().unwrap().send(()).unwrap();
    served.expect_read(LAST).await;
    let ended = timeout(Duration::from_millis(1), &mut served.ended).await;
    ended.expect("it ends with that answer").unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn client_without_further_requests_keeps_no_connection() {
    let mut served = Served::to_client(path);
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
    served.close.take().unwrap().send(()).unwrap();
    let closed = Instant::now();
    let ended = timeout(LONG, &mut served.ended).await;
    ended.expect("it ends").unwrap().unwrap();
    assert_eq!(closed.elapsed(), LAST_REQUEST_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_another_protocol_last_gets_it() {
    let mut served = Served::to_client(|mut request: Request<Incoming>| async move {
        if !request.headers().contains_key(header::UPGRADE) {
            return path(request).await;
        }
        echoes(&mut request)
    });
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
    served.close.take().unwrap().send(()).unwrap();
    sleep(LAST_REQUEST_WITHIN / 2).await;
    served.send(SWITCH).await;
    served.expect_read(SWITCHED).await;
    sleep(LONG).await;
    served.send(b"hello").await;
    served.expect_read("hello").await;
}

/// An answer that breaks off behind what is there of it already.
fn broken(error: impl Into<body::BoxError>) -> Response<Body> {
    let parts: [Result<Frame<Bytes>, body::BoxError>; 3] = [
        Ok(Frame::data(Bytes::from_static(b"what came "))),
        Ok(Frame::data(Bytes::from_static(b"before it"))),
        Err(error.into()),
    ];
    Response::new(StreamBody::new(tokio_stream::iter(parts)).boxed_unsync())
}

/// All of it, which lacks the last chunk.
const BROKEN: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                      A\r\nwhat came \r\n9\r\nbefore it\r\n";

/// Next to nothing fits between a client and its server.
const NARROW: usize = 8;

/// A client that gets this for an answer, and sends the request.
async fn asked<F>(
    room: usize,
    handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
) -> Served
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (budget, permit) = (Budget::new(1 << 26), Permit::unlisted());
    let mut served = Served::to(PreviousHop::Outside, budget, permit, room, None, handler);
    served.send(GET).await;
    served
}

#[tokio::test(start_paused = true)]
async fn partial_response_arrives_before_abort_and_is_visibly_incomplete() {
    // The second client needs longer than it may stall, and never does so for that long.
    for (room, pause) in [(4096, Duration::ZERO), (NARROW, TAKEN_WITHIN / 4)] {
        let mut served = asked(room, |_| async { broken("the server is gone") }).await;
        let mut got = Vec::new();
        let mut part = [0; NARROW];
        loop {
            sleep(pause).await;
            match served.client.read(&mut part).await.unwrap() {
                0 => break,
                read => got.extend_from_slice(&part[..read]),
            }
        }
        assert_eq!(String::from_utf8(got).unwrap(), BROKEN, "{room}");
        assert!((&mut served.ended).await.unwrap().is_err(), "{room}");
    }
}

#[tokio::test(start_paused = true)]
async fn client_reading_nothing_keeps_no_broken_response() {
    // An end by the mesh itself waits for no client.
    for (mesh, least) in [(false, TAKEN_WITHIN), (true, Duration::ZERO)] {
        let mut served = asked(NARROW, move |_| async move {
            if mesh {
                broken(Failure::refused(Reason::NotAllowed, "by now"))
            } else {
                broken("the server is gone")
            }
        })
        .await;
        let start = Instant::now();
        let ended = timeout(TAKEN_WITHIN * 10, &mut served.ended).await;
        assert!(ended.expect("it is kept").unwrap().is_err());
        let took = start.elapsed();
        let expected = least..least + Duration::from_secs(1);
        assert!(expected.contains(&took), "{mesh}: {took:?}");
    }
}
