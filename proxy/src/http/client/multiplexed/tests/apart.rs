//! What goes by another connection than those that are there.

use http::{Request, Response};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::*;
use crate::http::body;
use crate::http::http2::PLAIN;

/// An answer that waits for nothing is there by then.
const SOON: Duration = Duration::from_secs(1);
/// What the answer to a long poll takes.
const POLL: Duration = Duration::from_secs(20);

/// Connections to a server.
struct Field {
    peer: Multiplexed,
    opened: Arc<AtomicUsize>,
    /// Takes no further connection.
    is_full: Arc<AtomicBool>,
    /// The first so many connections are not answered.
    silent: watch::Sender<usize>,
}

/// An answer.
struct Answer {
    /// The number of its connection.
    nth: usize,
    _permit: StreamPermit,
}

impl Field {
    fn new(silent: usize) -> Self {
        let (silent, told) = watch::channel(silent);
        let (opened, is_full) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, refuses) = (Arc::clone(&opened), Arc::clone(&is_full));
        let peer = Multiplexed::new(move || {
            let (told, refuses) = (told.clone(), refuses.load(Ordering::Relaxed));
            let nth = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                if refuses {
                    return Err(Failure::not_sent(Reason::ConnectFailed, "refused"));
                }
                let (near, far) = duplex(256 * 1024);
                tokio::spawn(serve(far, nth, told));
                handshake(near, PLAIN, Budget::new(64 << 20), None).await
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

async fn serve(io: DuplexStream, nth: usize, told: watch::Receiver<usize>) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut told = told.clone();
        tokio::spawn(async move {
            let _ = told.wait_for(|silent| *silent <= nth).await;
            if request.uri().path() == "/poll" {
                sleep(POLL).await;
            }
            let head = Response::builder().header("nth", nth);
            let _ = respond.send_response(head.body(()).unwrap(), true);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn call_goes_by_another_connection_than_a_silent_one_until_that_says_something() {
    let field = Field::new(1);
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

/// Also where nothing is asked for a while.
#[tokio::test(start_paused = true)]
async fn server_that_takes_its_time_for_one_call_of_several_has_one_connection() {
    let field = Field::new(0);
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
    let field = Field::new(usize::MAX);
    for _ in 0..200 {
        field.call("/").await;
        sleep(SILENT_AFTER / 10).await;
    }
    assert_eq!(field.opened(), SILENT_CONNECTIONS);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_where_no_other_connection_is_had_and_try_that_now_and_then() {
    let field = Field::new(1);
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
