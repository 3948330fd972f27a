//! Servers that send without end what nothing called for.
//!
//! Claims: attack-17

use tokio::time::sleep;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::set_default;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

use super::floods::{PING, SETTINGS, WHOLE, frame};
use super::*;
use crate::http2::flood::{LOG_RATE, MOST};

/// Whether a server is left that sends so many PINGs.
async fn is_left_for(pings: usize) -> bool {
    let (sender, far) = client().await;
    let (mut read, mut write) = split(far);
    tokio::spawn(async move {
        let mut answers = [0; 4096];
        while read.read(&mut answers).await.is_ok_and(|got| got > 0) {}
    });
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(pings);
    let _ = write.write_all(&frame(SETTINGS, 0, 0, &[])).await;
    let _ = write.write_all(&pings).await;
    // Only what waits lets time pass, so all of it is read by then.
    sleep(Duration::from_millis(100)).await;
    sender.is_closed()
}

#[tokio::test(start_paused = true)]
async fn server_sending_only_control_frames_is_disconnected() {
    let most = MOST as usize;
    assert!(!is_left_for(most / 2).await);
    assert!(is_left_for(2 * most).await);
}

/// `h2` keeps each until the answer is read, and counts none.
#[tokio::test(start_paused = true)]
async fn server_sending_endless_informational_heads_is_disconnected() {
    const END_HEADERS: u8 = 4;
    // `:status: 103`
    let hints = frame(HEADERS, END_HEADERS, 1, &[0x08, 3, b'1', b'0', b'3']);
    let with_pings = [hints.clone(), frame(PING, 0, 0, &[7; 8]).repeat(20)].concat();
    let most = MOST as usize;
    for (one, many, left) in [
        (&hints, most / 2, false),
        (&hints, 2 * most, true),
        (&with_pings, most / 50, false),
        (&with_pings, most / 10, true),
    ] {
        let (sender, far) = client().await;
        let (mut read, mut write) = split(far);
        tokio::spawn(async move {
            let mut requests = [0; 4096];
            while read.read(&mut requests).await.is_ok_and(|got| got > 0) {}
        });
        let mut asking = sender.clone();
        let asking = tokio::spawn(async move {
            let get = Request::get("http://s/").body(body::empty()).unwrap();
            asking.send(get).await.map(|answer| answer.status())
        });
        let _ = write.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        // The stream is open by then.
        sleep(Duration::from_millis(1)).await;
        let _ = write.write_all(&one.repeat(many)).await;
        sleep(Duration::from_millis(100)).await;
        let case = format!("{many} of {} bytes", one.len());
        assert_eq!(sender.is_closed(), left, "{case}");
        let answer = frame(HEADERS, WHOLE, 1, &[0x88]);
        let _ = write.write_all(&answer).await;
        let answered = asking.await.unwrap();
        assert_eq!(answered.is_ok_and(|status| status == 200), !left, "{case}");
    }
}

/// Counts the log lines about floods, on the thread of the test.
#[derive(Clone, Default)]
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().ends_with("flood")
    }

    fn event(&self, _event: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// Its connections are as many as the calls to it.
#[tokio::test(start_paused = true)]
async fn repeatedly_flooding_server_does_not_flood_log() {
    let warnings = Warnings::default();
    // With one dispatcher alone, a line that another thread reaches first is not looked at again.
    let _second = Dispatch::new(warnings.clone());
    let _counting = set_default(warnings.clone());
    // Later than all log lines of other tests of this process.
    sleep(1000 * LOG_RATE.every).await;
    for minute in 1..=2 {
        for _ in 0..5 {
            assert!(is_left_for(2 * MOST as usize).await);
        }
        assert_eq!(warnings.0.load(Ordering::Relaxed), minute);
        sleep(LOG_RATE.every).await;
    }
}
