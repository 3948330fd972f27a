//! Streams that rest, are not read, or whose windows change.
//!
//! Claims: attack-22

use super::super::recv::RecvBody;
use super::*;

/// How long a test waits, in its own time, for what has to come.
const SOON: Duration = Duration::from_secs(5);

/// Has the connection look at its windows.
async fn touch(sender: &mut RequestSender) {
    let request = Request::get("http://s/quick").body(body::empty()).unwrap();
    let answer = timeout(SOON, sender.send(request)).await.unwrap().unwrap();
    answer.into_body().collect().await.unwrap();
}

/// Takes `size` bytes from what `parts` sends, in chunks as a relay has them.
async fn pass(
    parts: &tokio::sync::mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>,
    body: &mut RecvBody,
    size: usize,
) -> Result<(), String> {
    const CHUNK: usize = 16 * 1024;
    for _ in 0..size / CHUNK {
        let _ = parts.send(Ok(Frame::data(Bytes::from(vec![7; CHUNK]))));
    }
    let mut got = 0;
    while got < size / CHUNK * CHUNK {
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
// Claims: attack-57
#[tokio::test(start_paused = true)]
async fn stream_continues_after_its_window_shrinks() {
    for used in (64..=1024).step_by(64) {
        let (tx, mut bodies) = unbounded_channel();
        let mut sender = pair(move |request| {
            let tx = tx.clone();
            async move {
                if request.uri().path() == "/quick" {
                    return Response::new(body::empty());
                }
                let (parts, answer) = later([]);
                tx.send((parts, request.into_body())).unwrap();
                Response::new(answer)
            }
        })
        .await;
        let (up, upload) = later([]);
        let answer = sender.send(post(upload)).await.unwrap();
        let (down, mut request) = bodies.recv().await.unwrap();
        let mut answer = answer.into_body();
        for (case, parts, body) in [
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
            assert_eq!(rest, Ok(()), "{case}, {used} KiB after the last update");
        }
    }
}

/// Where a process has very many streams they begin with less than a client may send before the
/// announcement arrives.
// Claims: attack-57
#[tokio::test(start_paused = true)]
async fn stream_opened_before_first_settings_continues() {
    let profile = Tuning {
        windows: WindowChanges::BackToFull,
        ..PROFILE
    };
    for first in (4..=60).step_by(4) {
        let saturated = budget();
        let _others: Vec<_> = (0..1000).map(|_| saturated.enter()).collect();
        let (tx, mut bodies) = unbounded_channel();
        let (mut sender, slow) = client().await;
        let (far, other) = duplex(1 << 20);
        // The announcement reaches the client late, so all that it sends by itself is read before.
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
            let handler = |request: Request<RecvBody>| {
                tx.send(request.into_body()).unwrap();
                pending()
            };
            let mut limits = limits(profile, Permit::unlisted());
            limits.budget = saturated;
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

/// The windows of streams in the SETTINGS among `bytes`.
fn windows(mut bytes: &[u8]) -> Vec<u32> {
    let mut windows_sent = Vec::new();
    while let [a, b, c, kind, flags, ..] = *bytes {
        let size = u32::from_be_bytes([0, a, b, c]) as usize;
        if (kind, flags & 1) == (4, 0) {
            for setting in bytes[9..9 + size].chunks(6) {
                if setting[..2] == [0, 4] {
                    windows_sent.push(u32::from_be_bytes(setting[2..].try_into().unwrap()));
                }
            }
        }
        bytes = bytes.get(9 + size..).unwrap_or_default();
    }
    windows_sent
}

/// However fast a stream is: not every application expects it.
#[tokio::test]
async fn windows_towards_applications_stay_as_announced_first() {
    const SIZE: usize = 8 << 20;
    let captured = Arc::<parking_lot::Mutex<Vec<u8>>>::default();
    let capture = |io| {
        let captured = Arc::clone(&captured);
        InspectReader::new(io, move |bytes: &[u8]| {
            captured.lock().extend_from_slice(bytes)
        })
    };

    let (near, far) = duplex(1 << 20);
    let far = capture(far);
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
    let bytes = std::mem::take(&mut *captured.lock());
    assert_eq!(windows(&bytes[24..]), [STREAM_WINDOW], "as a client");

    let (near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let handler = |request: Request<RecvBody>| async move {
            let got = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(body::text(got.len().to_string()))
        };
        let _ = server::serve(far, limits(PLAIN, Permit::unlisted()), close, handler).await;
    });
    let (mut send, connection) = h2::client::handshake(capture(near)).await.unwrap();
    tokio::spawn(connection);
    let head = Request::post("http://s/").body(()).unwrap();
    let (response, mut stream) = send.send_request(head, false).unwrap();
    stream.send_data(Bytes::from(vec![7; SIZE]), true).unwrap();
    let mut answer = response.await.unwrap().into_body();
    let got = answer.data().await.unwrap().unwrap();
    assert_eq!(got, SIZE.to_string());
    assert_eq!(windows(&captured.lock()), [STREAM_WINDOW], "as a server");
}

/// A connection that began while the process had very many streams outlives them.
#[tokio::test(start_paused = true)]
async fn small_initial_application_windows_grow_when_room_appears() {
    let captured = Arc::<parking_lot::Mutex<Vec<u8>>>::default();
    let (near, far) = duplex(1 << 20);
    let capture = Arc::clone(&captured);
    let far = InspectReader::new(far, move |bytes: &[u8]| {
        capture.lock().extend_from_slice(bytes)
    });
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(vec![7; 1 << 20].into(), true).unwrap();
        }
    });
    let saturated = budget();
    let others: Vec<_> = (0..1000).map(|_| saturated.enter()).collect();
    let mut sender = client::handshake(near, PLAIN, Arc::clone(&saturated), None)
        .await
        .unwrap();
    let mut download = async || {
        let answer = sender.send(post(body::empty())).await.unwrap();
        let whole = answer.into_body().collect();
        timeout(SOON, whole)
            .await
            .unwrap()
            .unwrap()
            .to_bytes()
            .len()
    };
    assert_eq!(download().await, 1 << 20);
    drop(others);
    for _ in 0..2 {
        assert_eq!(download().await, 1 << 20);
    }
    let windows_sent = windows(&captured.lock()[24..]);
    let (first, last) = (windows_sent.first().unwrap(), windows_sent.last().unwrap());
    assert!(*first < STREAM_WINDOW, "{windows_sent:?}");
    assert_eq!(*last, STREAM_WINDOW, "{windows_sent:?}");
}

#[tokio::test]
async fn unread_streams_do_not_block_others_of_connection() {
    let mut sender = pair(|request| async move {
        if request.uri().path() == "/quick" {
            return Response::new(body::text("ok"));
        }
        let (_, endless) = later((0..400).map(|_| Ok(Frame::data(Bytes::from(vec![7; 16_384])))));
        Response::new(endless)
    })
    .await;
    let mut responses = Vec::new();
    for _ in 0..100 {
        responses.push(sender.send(post(body::empty())).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..20 {
        let request = Request::get("http://s/quick").body(body::empty()).unwrap();
        let requests = async {
            let answer = sender.send(request).await.unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        };
        let got = timeout(Duration::from_secs(2), requests).await;
        assert_eq!(got.expect("held up by streams that are not read"), "ok");
    }
}
