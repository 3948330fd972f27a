//! Servers that shut down, and the requests that their clients had started before GOAWAY arrived.
//!
//! Claims: attack-8, calls-15

use tokio::sync::oneshot;

use super::super::graceful_shutdown::{ACK, HEARD_WITHIN, IN_HAND, PING};
use super::super::recv::RecvBody;
use super::*;

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The same and END_STREAM.
const WHOLE: u8 = 5;
/// `GET http://s/` as a block of fields, and a block that is `:status: 200`.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b's'];
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b's'];
const OK: &[u8] = &[0x88];

/// A server that answers with how many bytes it was sent, and what makes it go.
fn counting(
    io: DuplexStream,
) -> (
    oneshot::Sender<()>,
    impl Future<Output = Result<(), h2::Error>> + Send,
) {
    let (go, gone) = oneshot::channel::<()>();
    let serving = async move {
        let close = pin!(async {
            let _ = gone.await;
        });
        let handler = |request: Request<RecvBody>| async move {
            let got = request.into_body().collect().await.unwrap().to_bytes();
            if got.is_empty() {
                return Response::new(body::empty());
            }
            Response::new(body::text(got.len().to_string()))
        };
        let permit = Permit::unlisted();
        server::serve(io, limits(PLAIN, permit), close, handler).await
    };
    (go, serving)
}

/// A client, frame by frame.
struct Client(DuplexStream);

impl Client {
    async fn greet(io: DuplexStream) -> Self {
        let mut client = Self(io);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.0.write_all(preface).await.unwrap();
        client.write([SETTINGS, 0, 0], &[]).await;
        client
    }

    async fn write(&mut self, [kind, flags, stream]: [u8; 3], content: &[u8]) {
        let mut frame = (content.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, stream]);
        frame.extend(content);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The content of the next frame of this kind; `None`: the connection ended before.
    async fn next(&mut self, kind: u8) -> Option<Vec<u8>> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut content = vec![0; size];
            self.0.read_exact(&mut content).await.ok()?;
            if head[3] == kind {
                return Some(content);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_server_accepts_requests_sent_after_ping_ack() {
    let (near, far) = duplex(1 << 20);
    let (go, serving) = counting(far);
    let serving = tokio::spawn(serving);
    let mut client = Client::greet(near).await;
    client.next(SETTINGS).await.unwrap();
    let start = Instant::now();
    go.send(()).unwrap();
    let goaway = client.next(GOAWAY).await.unwrap();
    assert_eq!(goaway[..4], [0x7f, 0xff, 0xff, 0xff], "it names no stream");
    let ping = client.next(PING).await.unwrap();
    client.write([PING, ACK, 0], &ping).await;
    client.write([HEADERS, WHOLE, 1], GET).await;
    let answer = client.next(HEADERS).await;
    assert_eq!(answer.as_deref(), Some(OK), "the request was dropped");
    assert!(
        start.elapsed() < IN_HAND,
        "nothing waits for the answer to the PING"
    );
    // Then it reports what it took, and ends.
    let last = client.next(GOAWAY).await.unwrap();
    assert_eq!(last[..4], [0, 0, 0, 1]);
    assert_eq!(client.next(GOAWAY).await, None);
    serving.await.unwrap().unwrap();
    let took = start.elapsed();
    assert!((IN_HAND..2 * IN_HAND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn client_never_acknowledging_shutdown_starts_nothing_after_timeout() {
    let (near, far) = duplex(1 << 20);
    let (go, serving) = counting(far);
    let serving = tokio::spawn(serving);
    let mut client = Client::greet(near).await;
    let start = Instant::now();
    go.send(()).unwrap();
    client.next(PING).await.unwrap();
    tokio::time::sleep(HEARD_WITHIN / 2).await;
    client.write([HEADERS, WHOLE, 1], GET).await;
    let answer = client.next(HEADERS).await;
    assert_eq!(answer.as_deref(), Some(OK), "it may not have heard yet");
    client.write([HEADERS, END_HEADERS, 3], POST).await;
    let last = timeout(HEARD_WITHIN, client.next(GOAWAY)).await;
    let last = last.expect("it is waited for without end").unwrap();
    assert_eq!(last[..4], [0, 0, 0, 3]);
    assert!(start.elapsed() >= HEARD_WITHIN);
    client.write([HEADERS, WHOLE, 5], GET).await;
    tokio::time::sleep(3 * HEARD_WITHIN).await;
    // A request that had started before comes to its end, and with it the connection.
    client.write([DATA, END, 3], b"four").await;
    assert!(client.next(HEADERS).await.is_some(), "it was cut off");
    let late = client.next(HEADERS).await;
    assert_eq!(late, None, "what came late was answered");
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn idle_connection_closes_without_client_shutdown_ack() {
    let (near, far) = duplex(1 << 20);
    let (go, serving) = counting(far);
    let serving = tokio::spawn(serving);
    let mut client = Client::greet(near).await;
    let start = Instant::now();
    go.send(()).unwrap();
    let ended = timeout(2 * HEARD_WITHIN, client.next(DATA)).await;
    assert_eq!(ended.expect("it stays for ever"), None);
    assert!(start.elapsed() >= HEARD_WITHIN, "{:?}", start.elapsed());
    serving.await.unwrap().unwrap();
}

/// Where a frame is cut nothing else can be read.
#[tokio::test(start_paused = true)]
async fn client_stopping_within_frame_is_refused_and_closed() {
    let (near, far) = duplex(1 << 20);
    let (go, serving) = counting(far);
    let serving = tokio::spawn(serving);
    let mut client = Client::greet(near).await;
    go.send(()).unwrap();
    client.next(PING).await.unwrap();
    // Half a PING, and later its other half, a request and the first half again.
    let ping = [0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let (half, rest) = ping.split_at(13);
    client.0.write_all(half).await.unwrap();
    tokio::time::sleep(HEARD_WITHIN * 3 / 2).await;
    let mut head = vec![0, 0, GET.len() as u8, HEADERS, WHOLE, 0, 0, 0, 1];
    head.extend(GET);
    let late = [rest, &head[..], half].concat();
    client.0.write_all(&late).await.unwrap();
    let refused = client.next(RESET).await;
    assert_eq!(refused.as_deref(), Some(&REFUSED_STREAM[..]));
    let ended = timeout(2 * HEARD_WITHIN, client.next(DATA)).await;
    assert_eq!(ended.expect("it stays for ever"), None);
    assert!(serving.await.unwrap().is_err(), "cut off");
}

/// The client's answer is handed on a moment later, and not between the frames of a head, which
/// would end the connection.
#[tokio::test(start_paused = true)]
async fn two_frame_head_survives_server_shutdown_between_frames() {
    let (near, far) = duplex(1 << 20);
    let (go, serving) = counting(far);
    let serving = tokio::spawn(serving);
    let mut client = Client::greet(near).await;
    go.send(()).unwrap();
    let asked = client.next(PING).await.unwrap();
    client.write([PING, ACK, 0], &asked).await;
    let (first, rest) = GET.split_at(3);
    client.write([HEADERS, END_STREAM, 1], first).await;
    tokio::time::sleep(IN_HAND * 4).await;
    client.write([CONTINUATION, END_HEADERS, 1], rest).await;
    assert_eq!(client.next(HEADERS).await.as_deref(), Some(OK));
    drop(client);
    let _ = serving.await.unwrap();
}

/// Both are ours: the client's connection reads GOAWAY before it sends the head of a
/// request that it was given already. What was read of the body cannot be sent again.
#[tokio::test(start_paused = true)]
async fn upload_started_during_server_shutdown_gets_response() {
    const SIZE: usize = 300_000;
    let (mut sender, far) = client().await;
    let (go, serving) = counting(far);
    let mut serving = Box::pin(serving);
    let connected = tokio::select! {
        biased;
        answer = sender.send(post(body::empty())) => answer.unwrap().status(),
        _ = &mut serving => panic!("the server has gone"),
    };
    assert_eq!(connected, 200);
    // Until nothing of that is on its way any more.
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(10)) => {}
        _ = &mut serving => panic!("the server has gone"),
    }
    go.send(()).unwrap();
    assert!(futures::poll!(&mut serving).is_pending(), "it sends GOAWAY");
    let mut sending = Box::pin(sender.send(post(body::text(vec![7; SIZE]))));
    assert!(futures::poll!(&mut sending).is_pending());
    let answer = tokio::select! {
        biased;
        answer = &mut sending => answer,
        ended = &mut serving => panic!("the server took nothing more: {ended:?}"),
    };
    let answer = answer.expect("it was dropped").into_body();
    let body = tokio::select! {
        // The connection may end with it.
        biased;
        body = answer.collect() => body.unwrap().to_bytes(),
        ended = &mut serving => panic!("the server ended first: {ended:?}"),
    };
    assert_eq!(body, SIZE.to_string());
}
