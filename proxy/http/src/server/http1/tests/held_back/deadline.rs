//! Requests whose own time is over while they wait for memory.
//!
//! Claims: calls-48

use super::*;

const TIMED: &[u8] = b"GET /one HTTP/1.1\r\nhost: a\r\nweft-timeout: 2000ms\r\n\r\n";

/// Where its head was not read, and where hyper has read it behind another one.
#[tokio::test(start_paused = true)]
async fn waiting_request_gets_504_at_its_own_deadline() {
    for piped in [false, true] {
        let (mut served, _, (other, _requests)) = saturated();
        let waiting = || other.requests().unwrap().waiting();
        USED.set(0);
        if piped {
            served.send(&GET[..GET.len() - 2]).await;
            sleep(Duration::from_millis(1)).await;
        }
        USED.set(MUCH);
        let last: &[u8] = if piped { b"\r\n" } else { b"" };
        served.send(&[last, TIMED].concat()).await;
        if piped {
            served.expect_read(&response_to("/one")).await;
        }
        sleep(Duration::from_millis(1990)).await;
        assert_eq!(waiting(), 1, "{piped}");
        sleep(Duration::from_millis(20)).await;
        assert_eq!(waiting(), 0, "{piped}");
        let mut answer = vec![0; 16 * 1024];
        let read = timeout(Duration::from_millis(1), served.client.read(&mut answer));
        let count = read.await.expect("the answer comes at once").unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]);
        assert!(answer.starts_with("HTTP/1.1 504 "), "{piped}: {answer}");
        assert!(answer.contains("weft-reason: deadline\r\n"), "{answer}");
        assert!(answer.contains("the time of this request"), "{answer}");
        assert!(!answer.contains("weft-unsent"), "{answer}");
    }
}
