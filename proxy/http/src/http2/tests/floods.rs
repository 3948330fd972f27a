//! Many frames and many callers at once that mean no harm, and those that do.
//!
//! Claims: attack-17

use std::net::IpAddr;

use runtime::occupancy::{Bounds, Occupancy, Reached};
use weft_proxy_net::ticket::NotAdmitted;

use super::super::flood::MOST;
use super::super::recv::RecvBody;
use super::*;

/// What a client begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// GET, http, / and an authority.
pub(super) const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// END_HEADERS and END_STREAM.
pub(super) const WHOLE: u8 = 5;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = (content.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// Type, flags and content of the next frame; `None` where the connection ends before.
async fn next(io: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut content = vec![0; length as usize];
    io.read_exact(&mut content).await.ok()?;
    Some((head[3], head[4], content))
}

// Claims: attack-51
#[tokio::test]
async fn unread_small_frames_are_kept_without_closing_connection() {
    const CHUNKS: usize = 60_000;
    let read = Arc::new(tokio::sync::Notify::new());
    let go = Arc::clone(&read);
    let sender = pair(move |request: Request<RecvBody>| {
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
    let text: String = (0..CHUNKS)
        .map(|at| char::from(b'a' + (at % 26) as u8))
        .collect();
    let (chunks, upload) = later([]);
    let uploading = tokio::spawn(ask(post(upload)));
    for (nth, chunk) in text.as_bytes().chunks(1).enumerate() {
        chunks
            .send(Ok(Frame::data(Bytes::copy_from_slice(chunk))))
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
    drop(chunks);
    read.notify_one();
    let got = uploading.await.unwrap().unwrap().to_bytes();
    assert!(got == text, "{} of {CHUNKS} bytes", got.len());
}

// Claims: attack-52
#[tokio::test]
async fn callers_that_leave_by_the_hundred_end_no_connection() {
    let sender = pair(|request: Request<RecvBody>| async move {
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
    // Before the task has looked at them: all in one turn, and more than streams may be open.
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
    // And while the answers come.
    for _ in 0..60 {
        let leaving = (0..50).map(async |_| {
            let _ = sender.clone().send(get("/endless")).await;
        });
        futures::future::join_all(leaving).await;
        assert_eq!(honest().await, "well");
    }
}

/// `h2` hands out no stream before it has read all that came, and keeps all of them until then.
#[tokio::test]
async fn client_resetting_streams_is_read_in_small_batches() {
    const STREAMS: u32 = 10_000;
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let (mut near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let handler = |_| {
            STARTED.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Response::new(body::empty()))
        };
        let _ = server::serve(far, limits(MESH, Permit::unlisted()), close, handler).await;
    });
    let mut sent = PREFACE.to_vec();
    for at in 0..STREAMS {
        let stream = 2 * at + 1;
        sent.extend(frame(HEADERS, WHOLE, stream, &GET));
        sent.extend(frame(RESET, 0, stream, &[0, 0, 0, 8]));
    }
    near.write_all(&sent).await.unwrap();
    // A neighbour, which has its turns beside it.
    let (mut before, mut most) = (0, 0);
    let all = async {
        while before < STREAMS as usize {
            tokio::task::yield_now().await;
            let started = STARTED.load(Ordering::Relaxed);
            (before, most) = (started, most.max(started - before));
        }
    };
    timeout(Duration::from_secs(30), all).await.unwrap();
    assert!(most <= 512, "{most} between two turns of another task");
}

/// For each the application would be opened a connection, which it loses.
#[tokio::test]
async fn request_reset_together_with_its_head_is_not_started() {
    const TAKEN_BACK: u32 = 100;
    for profile in [PLAIN, MESH] {
        let (mut near, far) = duplex(1 << 20);
        let (started, left) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counted = (Arc::clone(&started), Arc::clone(&left));
        tokio::spawn(async move {
            let close = pin!(pending::<()>());
            let handler = move |request: Request<RecvBody>| {
                let (started, left) = &counted;
                let why = request.extensions().get::<NotAdmitted>().copied();
                let counter = if why == Some(NotAdmitted::Left) {
                    left
                } else {
                    started
                };
                counter.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Response::new(body::empty()))
            };
            let _ = server::serve(far, limits(profile, Permit::unlisted()), close, handler).await;
        });
        let mut sent = PREFACE.to_vec();
        for at in 0..TAKEN_BACK {
            sent.extend(frame(HEADERS, WHOLE, 2 * at + 1, &GET));
            sent.extend(frame(RESET, 0, 2 * at + 1, &[0, 0, 0, 8]));
        }
        // Control: one that is not.
        sent.extend(frame(HEADERS, WHOLE, 2 * TAKEN_BACK + 1, &GET));
        near.write_all(&sent).await.unwrap();
        let answered = async {
            while let Some((kind, ..)) = next(&mut near).await
                && kind != HEADERS
            {}
        };
        timeout(Duration::from_secs(30), answered).await.unwrap();
        let seen = (
            started.load(Ordering::Relaxed),
            left.load(Ordering::Relaxed),
        );
        assert_eq!(seen, (1, TAKEN_BACK as usize), "{profile:?}");
    }
}

/// The end of a connection of an unauthenticated client.
#[derive(Debug, PartialEq, Eq)]
struct Fared {
    answered: bool,
    /// The code of the GOAWAY that came before its end.
    received: Option<u8>,
    /// Counted where floods are counted.
    floods: usize,
}

/// Sends this and a request.
async fn sends(profile: Tuning, flood: &[u8]) -> Fared {
    let bounds = Bounds {
        permits: 10,
        per_holder: usize::MAX,
        shared: true,
        head_within: Duration::MAX,
        idle_within: Duration::MAX,
    };
    let floods = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&floods);
    let occupancy = Occupancy::new(bounds, move |reached| {
        if reached == Reached::Flood {
            counting.fetch_add(1, Ordering::Relaxed);
        }
    });
    let from = IpAddr::from([10, 0, 0, 1]).into();
    let permit = occupancy.try_admit(&from).unwrap().unwrap();
    let (near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let handler = |_| std::future::ready(Response::new(body::empty()));
        let _ = server::serve(far, limits(profile, permit), close, handler).await;
    });
    let (mut read, mut write) = split(near);
    let sent = [PREFACE, flood, &frame(HEADERS, WHOLE, 1, &GET)].concat();
    let writing = async {
        // A client that is cut off cannot send all.
        let _ = write.write_all(&sent).await;
    };
    let reading = async {
        let (mut answered, mut received) = (false, None);
        while !answered && let Some((kind, _, content)) = next(&mut read).await {
            answered = kind == HEADERS;
            if kind == GOAWAY {
                received = Some(content[7]);
            }
        }
        (answered, received)
    };
    let ((), (answered, received)) = tokio::join!(writing, reading);
    let floods = floods.load(Ordering::Relaxed);
    Fared {
        answered,
        received,
        floods,
    }
}

#[tokio::test(start_paused = true)]
async fn control_frame_flood_is_closed_with_enhance_your_calm() {
    const ENHANCE_YOUR_CALM: u8 = 11;
    let kinds = [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        // PRIORITY, and an unknown type.
        frame(2, 0, 1, &[0, 0, 0, 0, 16]),
        frame(77, 0, 0, &[]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
    ];
    let most = MOST as usize;
    for profile in [PLAIN, MESH] {
        for one in &kinds {
            let kind = one[3];
            let fared = sends(profile, &one.repeat(2 * most)).await;
            let cut_off = Fared {
                answered: false,
                received: Some(ENHANCE_YOUR_CALM),
                floods: 1,
            };
            assert_eq!(fared, cut_off, "{kind}");
            let fared = sends(profile, &one.repeat(most / 2)).await;
            let served = Fared {
                answered: true,
                received: None,
                floods: 0,
            };
            assert_eq!(fared, served, "control: {kind}");
        }
    }
}

/// More than any library sends: for each frame of an answer a WINDOW_UPDATE of its stream, one
/// of the connection, and a PING by which to measure how much is under way.
#[tokio::test(start_paused = true)]
async fn client_sending_three_frames_per_frame_gets_complete_response() {
    let (near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let handler = |_| {
            let part = |_: u32| -> Result<Frame<Bytes>, BoxError> {
                Ok(Frame::data(Bytes::from_static(&[7; 100])))
            };
            let parts = futures::stream::iter((0..MOST).map(part));
            std::future::ready(Response::new(StreamBody::new(parts).boxed_unsync()))
        };
        let _ = server::serve(far, limits(PLAIN, Permit::unlisted()), close, handler).await;
    });
    let (mut read, mut write) = split(near);
    let asked = [PREFACE, &frame(HEADERS, WHOLE, 1, &GET)].concat();
    write.write_all(&asked).await.unwrap();
    let (mut came, mut bytes, mut whole) = (0, 0, false);
    while !whole && let Some((kind, flags, content)) = next(&mut read).await {
        if kind != DATA {
            continue;
        }
        (came, bytes, whole) = (came + 1, bytes + content.len(), flags & END != 0);
        if content.is_empty() {
            continue;
        }
        let increment = (content.len() as u32).to_be_bytes();
        let answer = [
            frame(WINDOW_UPDATE, 0, 1, &increment),
            frame(WINDOW_UPDATE, 0, 0, &increment),
            frame(PING, 0, 0, &[7; 8]),
        ];
        if write.write_all(&answer.concat()).await.is_err() {
            break;
        }
    }
    assert!(whole, "cut off after {came} frames");
    assert_eq!(bytes, 100 * MOST as usize);
    assert!(3 * came > MOST, "too few to be a flood: {came}");
}

/// Its requests would be work without a receiver.
#[tokio::test(start_paused = true)]
async fn request_arriving_with_flood_is_not_started() {
    for (resets, begins) in [(100, 1), (MOST as usize + 100, 0)] {
        let (mut near, far) = duplex(1 << 20);
        let started = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&started);
        // Of a stream that counts as ended: one turn reads all of them.
        let sent = [
            PREFACE,
            &frame(HEADERS, WHOLE, 5, &GET),
            &frame(RESET, 0, 3, &[0, 0, 0, 8]).repeat(resets),
        ]
        .concat();
        near.write_all(&sent).await.unwrap();
        tokio::spawn(async move {
            let close = pin!(pending::<()>());
            let handler = move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Response::new(body::empty()))
            };
            let _ = server::serve(far, limits(PLAIN, Permit::unlisted()), close, handler).await;
        });
        let mut received = None;
        while received.is_none()
            && let Some((kind, ..)) = next(&mut near).await
        {
            received = [GOAWAY, HEADERS].contains(&kind).then_some(kind);
        }
        assert_eq!(
            started.load(Ordering::Relaxed),
            begins,
            "{resets}: {received:?}"
        );
    }
}
