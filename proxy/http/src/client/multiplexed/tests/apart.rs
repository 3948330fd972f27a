//! What goes by another connection than those that are there.
//!
//! Claims: attack-24, attack-25

use std::future::poll_fn;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::*;
use crate::body;
use crate::http2::recv::RecvBody;
use crate::http2::{MESH, PLAIN};

/// An answer that waits for nothing is there by then.
const SOON: Duration = Duration::from_secs(1);
/// What the answer to a long poll takes.
const POLL: Duration = Duration::from_secs(20);
/// What a server may send ahead of a stream.
const WINDOW: usize = 64 * 1024;

/// Messages of 1 KiB, one each second, of a stream that lasts.
const TRICKLE: usize = 2 * WINDOW / 1024 + 1;

/// Connections to a server.
struct Field {
    peer: Multiplexed,
    opened: Arc<AtomicUsize>,
    /// Takes no further connection.
    is_full: Arc<AtomicBool>,
    /// The first so many connections are not answered.
    silent: watch::Sender<usize>,
}

/// An answer that goes on.
struct Answer {
    /// The number of its connection.
    nth: usize,
    body: RecvBody,
    _permit: StreamPermit,
}

impl Answer {
    async fn read(&mut self, size: usize) {
        let mut got = 0;
        while got < size {
            let frame = self.body.frame().await.unwrap().unwrap();
            got += frame.data_ref().map_or(0, Bytes::len);
        }
    }
}

impl Field {
    fn new(profile: Tuning, silent: usize) -> Self {
        let (silent, silence) = watch::channel(silent);
        let (opened, is_full) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, refuses) = (Arc::clone(&opened), Arc::clone(&is_full));
        let peer = Multiplexed::new(move || {
            let (silence, refuses) = (silence.clone(), refuses.load(Ordering::Relaxed));
            let nth = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                if refuses {
                    return Err(Failure::not_sent(Reason::ConnectFailed, "refused"));
                }
                let (near, far) = duplex(256 * 1024);
                tokio::spawn(serve(far, nth, silence));
                handshake(near, profile, Budget::new(64 << 20), None).await
            }
        });
        Self {
            peer,
            opened,
            is_full,
            silent,
        }
    }

    /// Tries, too.
    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Begins a call.
    async fn call(&self, path: &str) -> JoinHandle<Answer> {
        let stream = self.peer.stream(Sends::Nothing).await.unwrap();
        let (mut sender, permit) = stream.into_parts();
        let request = Request::get(format!("http://s{path}"));
        let request = request.body(body::empty()).unwrap();
        tokio::spawn(async move {
            let answer = sender.send(request).await.unwrap();
            Answer {
                nth: answer.headers()["nth"].to_str().unwrap().parse().unwrap(),
                body: answer.into_body(),
                _permit: permit,
            }
        })
    }

    /// The answer to one that need not wait.
    async fn answer(&self, path: &str) -> Answer {
        let call = self.call(path).await;
        let answer = timeout(SOON, call).await;
        answer.expect("no answer").unwrap()
    }
}

async fn serve(io: DuplexStream, nth: usize, silence: watch::Receiver<usize>) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut silence = silence.clone();
        tokio::spawn(async move {
            let _ = silence.wait_for(|silent| *silent <= nth).await;
            let head = Response::builder().header("nth", nth);
            let (head, sent) = match request.uri().path() {
                "/announced" => (head.header("content-length", 10_u64 << 20), 0),
                "/large" => (head, 2 * WINDOW),
                "/window" => (head, WINDOW),
                "/trickle" => (head, 0),
                path => {
                    if path == "/poll" {
                        sleep(POLL).await;
                    }
                    let _ = respond.send_response(head.body(()).unwrap(), true);
                    return;
                }
            };
            let mut stream = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            stream.send_data(vec![b'x'; sent].into(), false).unwrap();
            if request.uri().path() == "/trickle" {
                for _ in 0..TRICKLE {
                    sleep(Duration::from_secs(1)).await;
                    stream.send_data(vec![b'x'; 1024].into(), false).unwrap();
                }
            }
            let _ = poll_fn(|cx| stream.poll_reset(cx)).await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn call_avoids_silent_connection_until_it_responds() {
    let field = Field::new(PLAIN, 1);
    let waits = field.call("/").await;
    sleep(SILENT_AFTER / 2).await;
    let later = field.call("/").await;
    assert_eq!(field.opened(), 1, "an answer that takes a moment");
    sleep(SILENT_AFTER).await;
    for _ in 0..10 {
        assert_eq!(field.answer("/").await.nth, 1);
    }
    assert_eq!(field.opened(), 2, "one that is answered is enough");
    assert!(!waits.is_finished() && !later.is_finished());
    field.silent.send(0).unwrap();
    for call in [waits, later] {
        assert_eq!(call.await.unwrap().nth, 0, "it goes on where it was");
    }
    assert_eq!(field.answer("/").await.nth, 0, "it is not silent any more");
}

/// Also without a request for a while.
#[tokio::test(start_paused = true)]
async fn server_slow_on_one_call_gets_single_connection() {
    let field = Field::new(PLAIN, 0);
    let poll = field.call("/poll").await;
    for pause in [1, 1, 1, 1, 1, 10] {
        sleep(Duration::from_secs(pause)).await;
        field.answer("/").await;
    }
    assert!(!poll.is_finished());
    assert_eq!(field.opened(), 1);
    poll.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn server_that_never_answers_is_opened_a_few_connections() {
    let field = Field::new(PLAIN, usize::MAX);
    for _ in 0..200 {
        field.call("/").await;
        sleep(SILENT_AFTER / 10).await;
    }
    assert_eq!(field.opened(), SILENT_CONNECTIONS);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_without_other_connection_and_retry_it_occasionally() {
    let field = Field::new(PLAIN, 1);
    field.call("/").await;
    sleep(SILENT_AFTER).await;
    field.is_full.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        field.call("/").await;
    }
    assert_eq!(field.opened(), 2, "with the one that was refused");
    field.is_full.store(false, Ordering::Relaxed);
    sleep(REFUSED_FOR).await;
    assert_eq!(field.answer("/").await.nth, 2);
}

#[tokio::test(start_paused = true)]
async fn large_answers_come_apart_by_a_few_connections() {
    for path in ["/announced", "/large"] {
        let field = Field::new(PLAIN, 0);
        let mut answers = Vec::new();
        for at in 0..LARGE_APART + 4 {
            let mut answer = field.answer(path).await;
            if path == "/large" {
                answer.read(WINDOW + 1).await;
            }
            answers.push(answer);
            assert_eq!(field.opened(), LARGE_APART.min(at + 1), "{path}");
        }
        for nth in 0..LARGE_APART {
            let count = answers.iter().filter(|answer| answer.nth == nth).count();
            assert!((1..=2).contains(&count), "{path}: {count} by one of them");
        }
        drop(answers);
        for _ in 0..10 {
            field.answer("/").await;
        }
        assert_eq!(field.opened(), LARGE_APART, "{path}");
    }
}

/// As a watch, or server-sent events, of which the server holds nothing.
#[tokio::test(start_paused = true)]
async fn trickling_streams_share_one_connection_indefinitely() {
    let field = Field::new(PLAIN, 0);
    let mut watch = field.answer("/trickle").await;
    watch.read(TRICKLE * 1024).await;
    field.answer("/").await;
    assert_eq!(field.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn response_is_large_only_until_slow_reader_finishes() {
    let field = Field::new(PLAIN, 0);
    let mut first = field.answer("/large").await;
    first.read(WINDOW + 1).await;
    sleep(REFUSED_FOR).await;
    assert_eq!(
        field.answer("/").await.nth,
        1,
        "its server may hold the rest"
    );
    // What is left of it.
    while let Ok(Some(_)) = timeout(SOON, first.body.frame()).await {}
    sleep(SOON).await;
    // As many streams by each, and none of them is large.
    let _beside = field.answer("/").await;
    assert_eq!((field.answer("/").await.nth, field.opened()), (0, 2));
}

/// And between two proxies whatever comes.
#[tokio::test(start_paused = true)]
async fn answers_that_a_server_sends_ahead_share_one_connection() {
    for (profile, path, read) in [(PLAIN, "/window", WINDOW), (MESH, "/large", WINDOW + 1)] {
        let field = Field::new(profile, 0);
        let mut answers = Vec::new();
        for _ in 1..STREAMS_PER_CONNECTION {
            let mut answer = field.answer(path).await;
            answer.read(read).await;
            answers.push(answer);
        }
        assert_eq!(field.opened(), 1, "{path}");
    }
}

/// A server whose queue of connections is full drops attempts at another one.
#[tokio::test(start_paused = true)]
async fn existing_connection_is_used_when_another_takes_long() {
    let (silent, silence) = watch::channel(0);
    let (opened, is_full) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let counted = Arc::clone(&opened);
    let peer = Multiplexed::new(move || {
        let (nth, silence) = (counted.fetch_add(1, Ordering::Relaxed), silence.clone());
        async move {
            if nth > 0 {
                std::future::pending::<()>().await;
            }
            let (near, far) = duplex(256 * 1024);
            tokio::spawn(serve(far, nth, silence));
            handshake(near, PLAIN, Budget::new(64 << 20), None).await
        }
    });
    let field = Field {
        peer,
        opened,
        is_full,
        silent,
    };
    let _large = field.answer("/announced").await;
    // A caller that leaves before the outcome has found none either.
    for _ in 0..5 {
        let _ = timeout(BESIDE_WITHIN / 10, field.peer.stream(Sends::Nothing)).await;
    }
    assert_eq!(field.opened(), 2);
    assert_eq!(field.answer("/").await.nth, 0);
    sleep(REFUSED_FOR).await;
    let start = Instant::now();
    assert_eq!(field.answer("/").await.nth, 0);
    assert!(start.elapsed() < 2 * BESIDE_WITHIN);
    assert_eq!(field.opened(), 3);
}
