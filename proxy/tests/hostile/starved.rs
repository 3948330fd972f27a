//! A proxy whose thread gets no CPU for longer than a caller may be silent, as beside a flood:
//! afterwards it sees arrived bytes and passed time at once.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{sleep, timeout};
use wire::v1::{Enforcement, Protocol};

use super::two_pods::{EntryPoint, TwoPods};

/// Longer than a caller without any permission may be silent.
const STARVED: Duration = Duration::from_millis(1200);
/// What was accepted waits for its first byte by then.
const ACCEPTED: Duration = Duration::from_millis(200);
/// A wrong choice between two things that are ready would be right for all of these by
/// chance once in thousands of runs.
const CALLERS: usize = 16;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn starved_proxy_answers_timely_unadmitted_request_with_403() {
    let pods = TwoPods::new(Protocol::Detect).await;
    pods.server.set(Vec::new());
    for declared in [Protocol::Detect, Protocol::Http1] {
        pods.workload(declared, Enforcement::Enforce);
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            callers.push(pods.open(EntryPoint::Inbound).await);
        }
        sleep(ACCEPTED).await;
        for caller in &mut callers {
            assert_eq!(caller.try_write(REQUEST).unwrap(), REQUEST.len());
        }
        // The proxy runs on this thread.
        std::thread::sleep(STARVED);
        for caller in &mut callers {
            let mut answer = String::new();
            let read = caller.read_to_string(&mut answer);
            let read = timeout(Duration::from_secs(5), read).await.unwrap();
            assert!(read.is_ok(), "{declared:?}: {read:?}");
            assert!(
                answer.starts_with("HTTP/1.1 403 "),
                "{declared:?}: {answer}"
            );
        }
    }
}
