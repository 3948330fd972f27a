//! HTTP/2 with itself, and frame by frame.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use runtime::occupancy::Place;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::io::InspectReader;

use super::client::{self, SendError, Sender};
use super::flow::STREAM_WINDOW;
use super::server::{self, Accept};
use super::{PLAIN, PLAIN_FRAME, Tuning};
use crate::http::body::{self, Body, BoxError};
use crate::http::byte_stream::ByteStream;
use crate::net::budget::Budget;

const PROFILE: Tuning = Tuning {
    frame: PLAIN_FRAME,
    unsent: 256 * 1024,
    learn_limit: false,
    grows: true,
    asks: true,
    resets: 512,
};

fn budget() -> Arc<Budget> {
    Budget::new(64 << 20)
}

/// A client of ours, and the other end of its connection.
async fn client() -> (Sender, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    let sender = client::handshake(near, PROFILE, budget(), None)
        .await
        .unwrap();
    (sender, far)
}

fn limits(profile: Tuning, place: Arc<Place>) -> server::Limits {
    server::Limits {
        profile,
        budget: budget(),
        outlet: None,
        place,
    }
}

/// A client and a server of ours.
async fn pair<F>(
    handler: impl Fn(Request<super::recv::RecvBody>) -> F + Send + Sync + 'static,
) -> Sender
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (sender, far) = client().await;
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let _ = server::serve(far, limits(PROFILE, Place::unlisted()), close, handler).await;
    });
    sender
}

/// Type, flags and length of each frame of stream 1, up to its end.
async fn frames(io: &mut DuplexStream) -> Vec<(u8, u8, usize)> {
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut content = vec![0; size];
        io.read_exact(&mut content).await.unwrap();
        if head[8] != 1 {
            continue;
        }
        seen.push((head[3], head[4], size));
        let (kind, flags) = (head[3], head[4]);
        if kind == 3 || (kind <= 1 && flags & 1 == 1) {
            return seen;
        }
    }
}

fn later(
    parts: impl IntoIterator<Item = Result<Frame<Bytes>, BoxError>>,
) -> (
    tokio::sync::mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>,
    Body,
) {
    let (sender, receiver) = unbounded_channel();
    for part in parts {
        sender.send(part).unwrap();
    }
    let body = StreamBody::new(UnboundedReceiverStream::new(receiver));
    (sender, body.boxed_unsync())
}

fn data(content: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(content.as_bytes())))
}

fn post(body: Body) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri("http://s/")
        .body(body)
        .unwrap()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const END: u8 = 1;

#[tokio::test]
async fn small_frames_that_nobody_reads_yet_are_kept_and_end_no_connection() {
    const PIECES: usize = 60_000;
    let read = Arc::new(tokio::sync::Notify::new());
    let go = Arc::clone(&read);
    let sender = pair(move |request: Request<super::recv::RecvBody>| {
        let go = Arc::clone(&go);
        async move {
            if request.method() == Method::POST {
                go.notified().await;
            }
            let got = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(body::text(String::from_utf8(got.to_vec()).unwrap()))
        }
    })
    .await;
    let ask = |request: Request<Body>| {
        let mut sender = sender.clone();
        async move {
            sender
                .send(request)
                .await
                .unwrap()
                .into_body()
                .collect()
                .await
        }
    };
    let text: String = (0..PIECES)
        .map(|at| char::from(b'a' + (at % 26) as u8))
        .collect();
    let (pieces, upload) = later([]);
    let uploading = tokio::spawn(ask(post(upload)));
    for (nth, piece) in text.as_bytes().chunks(1).enumerate() {
        pieces
            .send(Ok(Frame::data(Bytes::copy_from_slice(piece))))
            .unwrap();
        if nth % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // They are there, and others of the connection are served.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        let get = Request::get("http://s/").body(body::empty()).unwrap();
        assert_eq!(ask(get).await.unwrap().to_bytes(), "");
    }
    drop(pieces);
    read.notify_one();
    let got = uploading.await.unwrap().unwrap().to_bytes();
    assert!(got == text, "{} of {PIECES} bytes", got.len());
}

#[tokio::test]
async fn callers_that_leave_by_the_hundred_end_no_connection() {
    let sender = pair(|request: Request<super::recv::RecvBody>| async move {
        if request.uri().path() != "/endless" {
            return Response::new(body::text("well".to_owned()));
        }
        let parts = futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[7; 9]))));
        Response::new(StreamBody::new(parts).boxed_unsync())
    })
    .await;
    let get = |path| {
        Request::get(format!("http://s{path}"))
            .body(body::empty())
            .unwrap()
    };
    let honest = async || {
        let answer = sender.clone().send(get("/")).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    };
    // Before anybody has looked at them: all in one turn, and more than streams may be open.
    for _ in 0..4 {
        let mut leaving: Vec<_> = (0..100)
            .map(|_| Box::pin(async { sender.clone().send(get("/endless")).await.map(drop) }))
            .collect();
        for one in &mut leaving {
            let _ = futures::poll!(one);
        }
        drop(leaving);
        assert_eq!(honest().await, "well");
    }
    // And while what they asked for comes.
    for _ in 0..60 {
        let leaving = (0..50).map(async |_| {
            let _ = sender.clone().send(get("/endless")).await;
        });
        futures::future::join_all(leaving).await;
        assert_eq!(honest().await, "well");
    }
}

#[tokio::test]
async fn the_end_of_a_body_goes_with_its_last_frame_and_nothing_empty_is_sent() {
    let bodies = [
        body::text("hello"),
        later([data("hel"), data(""), data("lo")]).1,
        later([data(""), data("hello"), data("")]).1,
    ];
    for body in bodies {
        let (mut sender, mut io) = client().await;
        let asking = tokio::spawn(async move { sender.send(post(body)).await });
        let seen = frames(&mut io).await;
        assert!(seen.iter().skip(1).all(|frame| frame.2 > 0), "{seen:?}");
        let (kind, flags, _) = seen[seen.len() - 1];
        assert_eq!((kind, flags & END), (DATA, END), "{seen:?}");
        asking.abort();
    }
}

#[tokio::test]
async fn trailers_end_a_body_without_an_empty_frame_before_them() {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let (_, body) = later([data("hello"), Ok(Frame::trailers(trailers))]);
    let (mut sender, mut io) = client().await;
    let asking = tokio::spawn(async move { sender.send(post(body)).await });
    let seen = frames(&mut io).await;
    let kinds: Vec<u8> = seen.iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [HEADERS, DATA, HEADERS], "{seen:?}");
    asking.abort();
}

#[tokio::test]
async fn a_body_that_breaks_while_it_waits_for_credit_resets_its_stream() {
    let (mut sender, mut io) = client().await;
    // More than the window of a peer that says nothing of windows.
    let large = Bytes::from(vec![7; 100_000]);
    let (parts, body) = later([
        Ok(Frame::data(large.clone())),
        Ok(Frame::data(Bytes::from_static(b"x"))),
    ]);
    let asking = tokio::spawn(async move { sender.send(post(body)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    parts.send(Err("broken".into())).unwrap();
    let seen = timeout(Duration::from_secs(5), frames(&mut io)).await;
    let seen = seen.expect("a reset must come while there is no credit");
    assert_eq!(seen[seen.len() - 1].0, RESET, "{seen:?}");
    asking.abort();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_avoided_and_given_up_within_ten_seconds() {
    let (sender, far) = client().await;
    let mut busy = sender.clone();
    let begun = Instant::now();
    let asking = tokio::spawn(async move { busy.send(post(body::empty())).await.map(|_| ()) });
    while sender.is_usable() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let avoided = begun.elapsed();
    assert!(!sender.is_closed(), "given up at {avoided:?}");
    assert!(avoided <= Duration::from_millis(7600), "{avoided:?}");
    let outcome = asking.await.unwrap();
    let took = begun.elapsed();
    assert!(matches!(outcome, Err(SendError::Lost(_))), "{outcome:?}");
    assert!(took <= Duration::from_millis(10_100), "{took:?}");
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_slow_to_say_its_limits_is_watched_all_the_same() {
    let (near, far) = duplex(1 << 20);
    let profile = Tuning {
        learn_limit: true,
        ..PROFILE
    };
    let mut sender = client::handshake(near, profile, budget(), None)
        .await
        .unwrap();
    let begun = Instant::now();
    let asked = timeout(Duration::from_secs(60), sender.send(post(body::empty())));
    let outcome = asked.await.expect("nobody watches it").map(|_| ());
    assert!(matches!(outcome, Err(SendError::Lost(_))), "{outcome:?}");
    let took = begun.elapsed();
    assert!(took <= Duration::from_millis(10_100), "{took:?}");
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_at_once_is_not_waited_for() {
    let (near, mut far) = duplex(1 << 20);
    tokio::spawn(async move {
        let mut preface = [0; 24];
        far.read_exact(&mut preface).await.unwrap();
        drop(far);
    });
    let profile = Tuning {
        learn_limit: true,
        ..PROFILE
    };
    let begun = Instant::now();
    let made = client::handshake(near, profile, budget(), None).await;
    assert!(made.is_err(), "a connection to nobody");
    assert!(begun.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn a_server_that_says_goodbye_gets_no_new_requests_while_its_streams_go_on() {
    let (mut sender, far) = client().await;
    let (go, mut gone) = unbounded_channel();
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        connection.graceful_shutdown();
        tokio::spawn(async move {
            let () = gone.recv().await.unwrap();
            stream.send_data(Bytes::from_static(b"late"), true).unwrap();
        });
        while connection.accept().await.is_some() {}
    });
    let answer = sender.send(post(body::empty())).await.unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while sender.takes_requests() {
        assert!(Instant::now() < until, "the goodbye is not noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!sender.is_closed());
    go.send(()).unwrap();
    let rest = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(rest, "late");
}

#[tokio::test]
async fn a_request_goes_on_after_an_answer_that_came_early_and_whole() {
    let (told, mut heard) = unbounded_channel();
    let mut sender = pair(move |request| {
        let told = told.clone();
        async move {
            tokio::spawn(async move {
                let all = request.into_body().collect().await;
                let _ = told.send(all.map(|all| all.to_bytes().len()).ok());
            });
            Response::new(body::empty())
        }
    })
    .await;
    let (parts, body) = later([data("first")]);
    let answer = sender.send(post(body)).await.unwrap();
    drop(answer);
    tokio::time::sleep(Duration::from_millis(50)).await;
    parts.send(data("second")).unwrap();
    drop(parts);
    assert_eq!(heard.recv().await.unwrap(), Some(11), "it was broken off");
}

/// An application that computes answers no ping, nor does a caller that reads only when
/// it wants something.
#[tokio::test(start_paused = true)]
async fn whoever_is_no_proxy_may_be_silent_for_minutes() {
    const MINUTES: Duration = Duration::from_secs(10 * 60);
    // As an application: it has the request, and says nothing.
    let (near, mut far) = duplex(1 << 20);
    let silent = Tuning {
        learn_limit: false,
        ..PLAIN
    };
    let mut sender = client::handshake(near, silent, budget(), None)
        .await
        .unwrap();
    let mut other = sender.clone();
    let asking = tokio::spawn(async move { sender.send(post(body::empty())).await });
    let mut preface = [0; 24];
    far.read_exact(&mut preface).await.unwrap();
    tokio::time::sleep(MINUTES).await;
    assert!(!asking.is_finished(), "the application was given up");
    assert!(other.is_usable() && other.takes_requests());
    // As a caller: it has asked for something, and does not read.
    let (near, far) = duplex(1 << 10);
    let place = Place::unlisted();
    let serving = tokio::spawn(async move {
        let handler = |_| async {
            let (_, body) = later([data("one")]);
            Response::new(body)
        };
        let close = pin!(pending::<()>());
        server::serve(far, limits(PLAIN, place), close, handler).await
    });
    let (mut caller, connection) = h2::client::handshake(near).await.unwrap();
    let mut connection = Box::pin(connection);
    let request = Request::get("http://s/").body(()).unwrap();
    let (answer, _) = caller.send_request(request, true).unwrap();
    let begun = tokio::select! {
        answer = answer => answer.unwrap(),
        _ = &mut connection => panic!("the connection ended"),
    };
    tokio::time::sleep(MINUTES).await;
    assert!(!serving.is_finished(), "the caller was given up");
    drop(begun);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lives_and_says_nothing_else_is_kept() {
    let mut sender = pair(|_| async {
        tokio::time::sleep(Duration::from_secs(120)).await;
        Response::new(body::text("late"))
    })
    .await;
    let answer = sender.send(post(body::empty())).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "late");
}

/// A stream in both directions, as the client has it; the server's side is `serve`d.
async fn opened<F>(
    serve: impl Fn(ByteStream) -> F + Clone + Send + Sync + 'static,
) -> (ByteStream, Sender)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut sender = pair(move |request| {
        let serve = serve.clone();
        async move {
            let (accept, out) = Accept::new();
            let mut response = Response::new(body::empty());
            response.extensions_mut().insert(accept);
            tokio::spawn(async move {
                serve(ByteStream::new(out.await.unwrap(), request.into_body())).await;
            });
            response
        }
    })
    .await;
    let head = Request::post("http://s/").body(()).unwrap();
    let (response, out) = sender.open(head).await.unwrap();
    (ByteStream::new(out, response.into_body()), sender)
}

async fn send(stream: &mut ByteStream, piece: &'static [u8]) -> std::io::Result<()> {
    let mut piece = Bytes::from_static(piece);
    poll_fn(|cx| stream.poll_send(cx, &mut piece)).await
}

#[tokio::test]
async fn pieces_arrive_in_order_and_the_end_is_told() {
    let (mut stream, _sender) = opened(|mut stream: ByteStream| async move {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    for piece in [&b"one"[..], b"two", b"three"] {
        send(&mut stream, piece).await.unwrap();
    }
    stream.end().unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "onetwothree");
}

#[tokio::test]
async fn a_sender_that_is_dropped_early_breaks_the_body_off() {
    let (told, mut heard) = unbounded_channel();
    let (mut stream, _sender) = opened(move |mut stream: ByteStream| {
        let told = told.clone();
        async move {
            let mut got = Vec::new();
            let outcome = stream.read_to_end(&mut got).await;
            let _ = told.send(outcome.is_err());
        }
    })
    .await;
    send(&mut stream, b"one").await.unwrap();
    drop(stream);
    assert!(heard.recv().await.unwrap(), "an end was told");
}

#[tokio::test]
async fn a_sender_learns_that_nobody_wants_more() {
    let (mut stream, _sender) = opened(|stream: ByteStream| async move { drop(stream) }).await;
    let sending = async { while send(&mut stream, &[7; 60_000]).await.is_ok() {} };
    timeout(Duration::from_secs(5), sending).await.unwrap();
}

#[tokio::test]
async fn a_sender_waits_until_its_last_piece_was_taken() {
    let (mut stream, _sender) = opened(|stream: ByteStream| async move {
        let _held = stream;
        pending::<()>().await;
    })
    .await;
    let mut sent = 0;
    let sending = async {
        while send(&mut stream, &[7; 60_000]).await.is_ok() {
            sent += 1;
        }
    };
    let stuck = timeout(Duration::from_millis(300), sending).await;
    assert!(
        stuck.is_err(),
        "a reader that does not read was sent everything"
    );
    assert!(sent <= 3, "{sent} pieces for a window of 64 KiB");
}

/// How long a test waits, in its own time, for what has to come.
const SOON: Duration = Duration::from_secs(5);

/// Has the connection look at its windows.
async fn touch(sender: &mut Sender) {
    let request = Request::get("http://s/quick").body(body::empty()).unwrap();
    let answer = timeout(SOON, sender.send(request)).await.unwrap().unwrap();
    answer.into_body().collect().await.unwrap();
}

/// Takes `size` bytes from what `parts` sends, in pieces as a relay has them.
async fn pass(
    parts: &tokio::sync::mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>,
    body: &mut super::recv::RecvBody,
    size: usize,
) -> Result<(), String> {
    const PIECE: usize = 16 * 1024;
    for _ in 0..size / PIECE {
        let _ = parts.send(Ok(Frame::data(Bytes::from(vec![7; PIECE]))));
    }
    let mut got = 0;
    while got < size / PIECE * PIECE {
        let frame = timeout(SOON, body.frame()).await;
        let frame = frame.map_err(|_| format!("{got} of {size} bytes came"))?;
        let frame = frame
            .ok_or("it ended")?
            .map_err(|error| error.to_string())?;
        got += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(())
}

/// Whatever of its window a stream had used when that became small again, what comes
/// afterwards arrives.
#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_after_its_window_became_small_again() {
    for used in (64..=1024).step_by(64) {
        let (asked, mut bodies) = unbounded_channel();
        let mut sender = pair(move |request| {
            let asked = asked.clone();
            async move {
                if request.uri().path() == "/quick" {
                    return Response::new(body::empty());
                }
                let (parts, answer) = later([]);
                asked.send((parts, request.into_body())).unwrap();
                Response::new(answer)
            }
        })
        .await;
        let (up, upload) = later([]);
        let answer = sender.send(post(upload)).await.unwrap();
        let (down, mut request) = bodies.recv().await.unwrap();
        let mut answer = answer.into_body();
        for (way, parts, body) in [
            ("download", &down, &mut answer),
            ("upload", &up, &mut request),
        ] {
            pass(parts, body, 8 << 20).await.unwrap();
            // From here on the window has its largest size, and this much of it is used.
            pass(parts, body, used << 10).await.unwrap();
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(600)).await;
                touch(&mut sender).await;
            }
            let rest = pass(parts, body, 256 << 10).await;
            assert_eq!(rest, Ok(()), "{way}, {used} KiB after the last update");
        }
    }
}

/// Where a process has very many streams they begin with less than a client may send
/// before it hears of that.
#[tokio::test(start_paused = true)]
async fn a_stream_that_began_before_the_first_settings_came_goes_on() {
    let profile = Tuning {
        grows: false,
        ..PROFILE
    };
    for first in (4..=60).step_by(4) {
        let crowded = budget();
        let _others: Vec<_> = (0..1000).map(|_| crowded.hold()).collect();
        let (asked, mut bodies) = unbounded_channel();
        let (mut sender, slow) = client().await;
        let (far, other) = duplex(1 << 20);
        // The client hears late, so all that it sends by itself is read before.
        let (mut to_client, mut to_server) = (split(slow), split(other));
        tokio::spawn(async move { copy(&mut to_client.0, &mut to_server.1).await });
        tokio::spawn(async move {
            loop {
                let mut buffer = vec![0; 1 << 16];
                let count = to_server.0.read(&mut buffer).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                if to_client.1.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
        });
        let (up, upload) = later([Ok(Frame::data(Bytes::from(vec![7; first << 10])))]);
        let asking = tokio::spawn(async move { sender.send(post(upload)).await });
        tokio::spawn(async move {
            let close = pin!(pending::<()>());
            let handler = |request: Request<super::recv::RecvBody>| {
                asked.send(request.into_body()).unwrap();
                pending()
            };
            let mut limits = limits(profile, Place::unlisted());
            limits.budget = crowded;
            let _ = server::serve(far, limits, close, handler).await;
        });
        let mut body = bodies.recv().await.unwrap();
        let mut got = 0;
        while got < first << 10 {
            let frame = body.frame().await.unwrap().unwrap();
            got += frame.data_ref().map_or(0, Bytes::len);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let rest = pass(&up, &mut body, 256 << 10).await;
        assert_eq!(rest, Ok(()), "after {first} KiB");
        asking.abort();
    }
}

/// The windows of streams that SETTINGS among `said` tell of.
fn windows(mut said: &[u8]) -> Vec<u32> {
    let mut told = Vec::new();
    while let [a, b, c, kind, flags, ..] = *said {
        let size = u32::from_be_bytes([0, a, b, c]) as usize;
        if (kind, flags & 1) == (4, 0) {
            for setting in said[9..9 + size].chunks(6) {
                if setting[..2] == [0, 4] {
                    told.push(u32::from_be_bytes(setting[2..].try_into().unwrap()));
                }
            }
        }
        said = said.get(9 + size..).unwrap_or_default();
    }
    told
}

/// However fast a stream is: not every application expects it.
#[tokio::test]
async fn windows_towards_applications_stay_as_they_were_told_first() {
    const SIZE: usize = 8 << 20;
    let heard = Arc::<parking_lot::Mutex<Vec<u8>>>::default();
    let hears = |io| {
        let heard = Arc::clone(&heard);
        InspectReader::new(io, move |said: &[u8]| heard.lock().extend_from_slice(said))
    };

    let (near, far) = duplex(1 << 20);
    let far = hears(far);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(vec![7; SIZE].into(), true).unwrap();
        }
    });
    let mut sender = client::handshake(near, PLAIN, budget(), None)
        .await
        .unwrap();
    let answer = sender.send(post(body::empty())).await.unwrap();
    let got = answer.into_body().collect().await.unwrap().to_bytes().len();
    assert_eq!(got, SIZE);
    let said = std::mem::take(&mut *heard.lock());
    assert_eq!(windows(&said[24..]), [STREAM_WINDOW], "as a client");

    let (near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let handler = |request: Request<super::recv::RecvBody>| async move {
            let got = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(body::text(got.len().to_string()))
        };
        let _ = server::serve(far, limits(PLAIN, Place::unlisted()), close, handler).await;
    });
    let (mut send, connection) = h2::client::handshake(hears(near)).await.unwrap();
    tokio::spawn(connection);
    let head = Request::post("http://s/").body(()).unwrap();
    let (response, mut stream) = send.send_request(head, false).unwrap();
    stream.send_data(Bytes::from(vec![7; SIZE]), true).unwrap();
    let mut answer = response.await.unwrap().into_body();
    let got = answer.data().await.unwrap().unwrap();
    assert_eq!(got, SIZE.to_string());
    assert_eq!(windows(&heard.lock()), [STREAM_WINDOW], "as a server");
}

#[tokio::test]
async fn streams_that_are_not_read_leave_the_others_of_their_connection_alone() {
    let mut sender = pair(|request| async move {
        if request.uri().path() == "/quick" {
            return Response::new(body::text("ok"));
        }
        let (_, endless) = later((0..400).map(|_| Ok(Frame::data(Bytes::from(vec![7; 16_384])))));
        Response::new(endless)
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(sender.send(post(body::empty())).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..20 {
        let request = Request::get("http://s/quick").body(body::empty()).unwrap();
        let asked = async {
            let answer = sender.send(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        };
        let got = timeout(Duration::from_secs(2), asked).await;
        assert_eq!(got.expect("held up by streams that nobody reads"), "ok");
    }
}
