//! Answers that break off before their clients have taken what came of them.
//!
//! Claims: attack-27

use http::header::CONTENT_TYPE;
use policy::reason::Reason;

use super::super::recv::RecvBody;
use super::*;
use crate::ending_body::TAKEN_WITHIN;
use crate::failure::Failure;

/// What the application sends, apart from each other.
const PARTS: [&str; 2] = ["what came ", "before it "];
/// What its client lets come at once: neither part leaves as a whole.
const WINDOW: u32 = 4;
/// Whatever is on its way has come by then.
const LATER: Duration = Duration::from_secs(1);

/// How the application ends its answer.
#[derive(Clone, Copy, Debug)]
enum AppEnd {
    Reset(h2::Reason),
    /// Its connection is gone.
    Lost,
}

/// An application whose only answer has no length, and ends so behind its parts.
async fn application(end: AppEnd) -> RequestSender {
    let (sender, far) = client().await;
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        let answer = async {
            for part in PARTS {
                stream
                    .send_data(Bytes::from_static(part.as_bytes()), false)
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if let AppEnd::Reset(code) = end {
                stream.send_reset(code);
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = answer => {}
            _ = connection.accept() => {}
        }
    });
    sender
}

/// The connection to a proxy that sends everything on to this server.
fn proxy(server: RequestSender) -> DuplexStream {
    let (near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let handler = move |_: Request<RecvBody>| {
            let mut server = server.clone();
            async move {
                let answer = server.send(post(body::empty())).await.unwrap();
                answer.map(BodyExt::boxed_unsync)
            }
        };
        let close = pin!(pending::<()>());
        let _ = server::serve(far, limits(PROFILE, Permit::unlisted()), close, handler).await;
    });
    near
}

/// What a client of a small window gets of an answer there.
async fn asked(near: DuplexStream, content_type: &str) -> h2::RecvStream {
    let (mut caller, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .handshake::<_, Bytes>(near)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://s/")
        .header(CONTENT_TYPE, content_type)
        .body(())
        .unwrap();
    let (answer, _) = caller.send_request(request, true).unwrap();
    answer.await.unwrap().into_body()
}

/// All that comes, two bytes at a time with this pause before them, and what it ends with.
async fn taken(body: &mut h2::RecvStream, pause: Duration) -> (Vec<u8>, Option<h2::Error>) {
    let mut came = Vec::new();
    while let Some(data) = body.data().await {
        let data = match data {
            Ok(data) => data,
            Err(error) => return (came, Some(error)),
        };
        came.extend_from_slice(&data);
        for part in data.chunks(2) {
            tokio::time::sleep(pause).await;
            body.flow_control().release_capacity(part.len()).unwrap();
        }
    }
    (came, None)
}

#[tokio::test(start_paused = true)]
async fn data_before_reset_arrives_through_one_or_two_proxies() {
    for code in [
        h2::Reason::NO_ERROR,
        h2::Reason::CANCEL,
        h2::Reason::INTERNAL_ERROR,
    ] {
        for proxies in [1, 2] {
            let mut server = application(AppEnd::Reset(code)).await;
            for _ in 1..proxies {
                let near = proxy(server);
                let made = client::handshake(near, PROFILE, budget(), None).await;
                server = made.unwrap();
            }
            let mut body = asked(proxy(server), "text/plain").await;
            tokio::time::sleep(LATER).await;
            // Slower than it may stall in all, and never for so long.
            let (came, end) = taken(&mut body, TAKEN_WITHIN / 6).await;
            let case = format!("{code:?} by {proxies}");
            assert_eq!(came, PARTS.concat().as_bytes(), "{case}");
            let end = end.unwrap_or_else(|| panic!("{case}: it looks whole"));
            assert!(end.is_reset() && end.is_remote(), "{case}: {end}");
            assert_eq!(end.reason(), Some(code), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn partial_grpc_response_precedes_status_of_lost_server() {
    let server = application(AppEnd::Lost).await;
    let mut body = asked(proxy(server), "application/grpc").await;
    tokio::time::sleep(LATER).await;
    let (came, end) = taken(&mut body, Duration::from_secs(1)).await;
    assert_eq!(came, PARTS.concat().as_bytes());
    assert!(end.is_none(), "{end:?}");
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
}

/// When an answer is reset of which its client takes only what fits its window.
async fn reset_of_an_unread_one(near: DuplexStream) -> Duration {
    let mut body = asked(near, "text/plain").await;
    assert_eq!(body.data().await.unwrap().unwrap().len(), WINDOW as usize);
    let start = Instant::now();
    let end = timeout(TAKEN_WITHIN * 10, body.data()).await;
    let end = end.expect("it is kept").unwrap();
    assert!(end.is_err(), "more came");
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn client_reading_nothing_does_not_hold_broken_response() {
    let server = application(AppEnd::Reset(h2::Reason::CANCEL)).await;
    let took = reset_of_an_unread_one(proxy(server)).await;
    let expected = TAKEN_WITHIN..TAKEN_WITHIN + LATER;
    assert!(expected.contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn response_closed_by_mesh_does_not_await_client() {
    let (near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let handler = |_: Request<RecvBody>| async {
            let over: BoxError = Failure::refused(Reason::NotAllowed, "by now").into();
            let [first, second] = PARTS.map(data);
            let (_, body) = later([first, second, Err(over)]);
            Response::new(body)
        };
        let close = pin!(pending::<()>());
        let _ = server::serve(far, limits(PROFILE, Permit::unlisted()), close, handler).await;
    });
    let took = reset_of_an_unread_one(near).await;
    assert!(took < LATER, "{took:?}");
}
