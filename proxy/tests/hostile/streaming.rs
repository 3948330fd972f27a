//! Calls with both directions open at the same time, as in gRPC, through two proxies.

use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::v1::Protocol;

use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, serving};

const SOON: Duration = Duration::from_secs(2);

/// Events of its stream that a server reports to the test.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Began,
    Reset(h2::Reason),
    Ended,
}

/// Echoes each message at once; answers to `/headers-only` without a body, and resets
/// with the code in `/reset/head/CODE` and `/reset/body/CODE`.
async fn echo(stream: tokio::net::TcpStream, events: mpsc::UnboundedSender<Event>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let events = events.clone();
        tokio::spawn(async move {
            let _ = events.send(Event::Began);
            let event = match one(request, respond).await {
                Ok(()) => Event::Ended,
                Err(error) => Event::Reset(error.reason().unwrap_or(h2::Reason::INTERNAL_ERROR)),
            };
            let _ = events.send(event);
        });
    }
}

async fn one(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let response = Response::builder().header("content-type", "application/grpc");
    if path == "/headers-only" {
        let response = response.header("grpc-status", "7").body(()).unwrap();
        respond.send_response(response, true)?;
        return Ok(());
    }
    if let Some(reset) = path.strip_prefix("/reset/") {
        let (when, code) = reset.split_once('/').unwrap();
        let code = h2::Reason::from(code.parse::<u32>().unwrap());
        if when == "head" {
            respond.send_reset(code);
            return Ok(());
        }
        let mut send = respond.send_response(response.body(()).unwrap(), false)?;
        send.send_data(Bytes::from_static(b"half"), false)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        send.send_reset(code);
        return Ok(());
    }
    let mut send = respond.send_response(response.body(()).unwrap(), false)?;
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        send.send_data(data, false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    send.send_trailers(trailers)
}

async fn pods() -> (TwoPods, mpsc::UnboundedReceiver<Event>) {
    let mut pods = TwoPods::new(Protocol::Grpc).await;
    let (events, received) = mpsc::unbounded_channel();
    let port = serving(&pods.server, move |stream| echo(stream, events.clone())).await;
    pods.deliver_to(port);
    pods.port = port;
    (pods, received)
}

struct Calls {
    sender: h2::client::SendRequest<Bytes>,
}

impl Calls {
    async fn new(pods: &TwoPods, entry: EntryPoint) -> Self {
        let (sender, connection) = h2::client::handshake(pods.open(entry).await).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    async fn begin(&self, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut sender = self.sender.clone().ready().await.unwrap();
        let request = Request::post(format!("http://api.shop{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        sender.send_request(request, false).unwrap()
    }
}

async fn message(body: &mut RecvStream) -> Bytes {
    let data = timeout(SOON, body.data())
        .await
        .expect("a message must not wait for another")
        .unwrap()
        .unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    data
}

#[tokio::test]
async fn messages_flow_both_ways_before_the_request_ends() {
    let (pods, mut received) = pods().await;
    for entry in ENTRY_POINTS {
        let calls = Calls::new(&pods, entry).await;
        let (answer, mut send) = calls.begin("/echo").await;
        // The head of the answer comes before any message was sent.
        let answer = timeout(SOON, answer).await.expect("head").unwrap();
        assert_eq!(answer.status(), 200);
        let mut body = answer.into_body();
        for at in 0..20 {
            let text = format!("message {at}");
            send.send_data(Bytes::from(text.clone()), false).unwrap();
            assert_eq!(message(&mut body).await, text, "{entry:?}");
        }
        send.send_data(Bytes::new(), true).unwrap();
        assert!(timeout(SOON, body.data()).await.unwrap().is_none());
        let trailers = timeout(SOON, body.trailers()).await.unwrap().unwrap();
        assert_eq!(trailers.unwrap()["grpc-status"], "0", "{entry:?}");
        assert_eq!(received.recv().await, Some(Event::Began));
        assert_eq!(received.recv().await, Some(Event::Ended));
    }
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_server() {
    let (pods, mut received) = pods().await;
    for entry in ENTRY_POINTS {
        let calls = Calls::new(&pods, entry).await;
        let (answer, mut send) = calls.begin("/echo").await;
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        let mut body = answer.into_body();
        send.send_data(Bytes::from_static(b"one"), false).unwrap();
        assert_eq!(message(&mut body).await, "one");
        assert_eq!(received.recv().await, Some(Event::Began));
        send.send_reset(h2::Reason::CANCEL);
        drop(body);
        let event = timeout(SOON, received.recv())
            .await
            .expect("cancelled in time");
        assert!(
            matches!(event, Some(Event::Reset(_))),
            "{entry:?}: {event:?}"
        );
        // Others on the same connection go on.
        let (answer, mut send) = calls.begin("/echo").await;
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        send.send_data(Bytes::from_static(b"two"), true).unwrap();
        assert_eq!(message(&mut answer.into_body()).await, "two", "{entry:?}");
        assert_eq!(received.recv().await, Some(Event::Began));
        assert_eq!(received.recv().await, Some(Event::Ended));
    }
}

/// A caller that hangs up cancels all that it had under way.
#[tokio::test]
async fn a_lost_caller_cancels_its_calls_at_the_server() {
    let (pods, mut received) = pods().await;
    for entry in ENTRY_POINTS {
        let stream = pods.open(entry).await;
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let calls = Calls { sender };
        let (answer, send) = calls.begin("/echo").await;
        let _answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(received.recv().await, Some(Event::Began));
        driver.abort();
        drop(send);
        let event = timeout(SOON, received.recv())
            .await
            .expect("cancelled in time");
        assert!(
            matches!(event, Some(Event::Reset(_))),
            "{entry:?}: {event:?}"
        );
    }
}

/// A client whose deadline has passed resets with CANCEL, and gRPC clients then look at their own
/// clocks; any other response would be taken for the application's.
// Claims: attack-58
#[tokio::test]
async fn application_stream_reset_code_is_passed_to_caller() {
    let (pods, mut received) = pods().await;
    for entry in ENTRY_POINTS {
        let calls = Calls::new(&pods, entry).await;
        for code in [
            h2::Reason::CANCEL,
            h2::Reason::INTERNAL_ERROR,
            h2::Reason::ENHANCE_YOUR_CALM,
        ] {
            let number = u32::from(code);
            let (answer, _send) = calls.begin(&format!("/reset/head/{number}")).await;
            let failed = timeout(SOON, answer).await.expect("an end").unwrap_err();
            assert!(failed.is_reset(), "{entry:?} {code:?}: {failed}");
            assert_eq!(failed.reason(), Some(code), "{entry:?} before the head");

            let (answer, _send) = calls.begin(&format!("/reset/body/{number}")).await;
            let mut body = timeout(SOON, answer).await.unwrap().unwrap().into_body();
            assert_eq!(message(&mut body).await, "half", "{entry:?}");
            let end = timeout(SOON, body.data()).await.expect("an end");
            let failed = end.expect("no good end").unwrap_err();
            assert_eq!(failed.reason(), Some(code), "{entry:?} in the body");
        }
        // Others on the same connection go on.
        let (answer, mut send) = calls.begin("/echo").await;
        send.send_data(Bytes::from_static(b"two"), true).unwrap();
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(message(&mut answer.into_body()).await, "two", "{entry:?}");
        while received.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn an_answer_of_headers_only_stays_one() {
    let (pods, _received) = pods().await;
    for entry in ENTRY_POINTS {
        let calls = Calls::new(&pods, entry).await;
        let (answer, mut send) = calls.begin("/headers-only").await;
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "7", "{entry:?}");
        // The end stands in the same frame: gRPC reads the status only then.
        assert!(answer.body().is_end_stream(), "{entry:?}");
        let _ = send.send_data(Bytes::new(), true);
    }
}

/// What the mesh itself refuses is such an answer too.
#[tokio::test]
async fn grpc_mesh_refusal_is_headers_only_response() {
    let (pods, _received) = pods().await;
    pods.workload(Protocol::Grpc, wire::v1::Enforcement::Enforce);
    for entry in ENTRY_POINTS {
        let calls = Calls::new(&pods, entry).await;
        let (answer, _send) = calls.begin("/echo").await;
        let answer = timeout(SOON, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "7", "{entry:?}");
        assert!(answer.body().is_end_stream(), "{entry:?}");
    }
}
