//! Many frames and many callers at once that mean no harm.

use super::super::recv::RecvBody;
use super::*;

#[tokio::test]
async fn small_frames_that_nobody_reads_yet_are_kept_and_end_no_connection() {
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

/// `h2` hands out no stream before it has read all that came, and keeps all of them until then.
#[tokio::test]
async fn whoever_begins_streams_and_takes_them_back_is_read_a_few_at_a_time() {
    const STREAMS: u32 = 10_000;
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let (mut near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let close = pin!(pending::<()>());
        let handler = |_| {
            BEGUN.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Response::new(body::empty()))
        };
        let _ = server::serve(far, limits(MESH, Permit::unlisted()), close, handler).await;
    });
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for at in 0..STREAMS {
        let stream = (2 * at + 1).to_be_bytes();
        // GET, http, / and an authority.
        let block = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
        sent.extend([0, 0, block.len() as u8, 1, 5]);
        sent.extend(stream);
        sent.extend(block);
        sent.extend([0, 0, 4, 3, 0]);
        sent.extend(stream);
        sent.extend([0, 0, 0, 8]);
    }
    near.write_all(&sent).await.unwrap();
    // A neighbour, which has its turns beside it.
    let (mut before, mut most) = (0, 0);
    let all = async {
        while before < STREAMS as usize {
            tokio::task::yield_now().await;
            let begun = BEGUN.load(Ordering::Relaxed);
            (before, most) = (begun, most.max(begun - before));
        }
    };
    timeout(Duration::from_secs(30), all).await.unwrap();
    assert!(most <= 512, "{most} between two turns of another task");
}
