//! Retries whose endpoint changes while they wait for their backoff.
//!
//! Claims: calls-1

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Budget, Retry};
use policy::traffic::endpoint::Ejection;
use policy::traffic::set::Percent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;
use wire::v1::Protocol;

use super::answers::{App, NOTHING, OK, UNAVAILABLE, ask, limited, policy_of, retries, sum, whole};
use crate::support::{Pod, endpoint, endpoints, pair};

/// Of the first retry, and enough for what happens meanwhile.
const BACKOFF: Duration = Duration::from_millis(500);
/// Within this time the end of an attempt is known.
const KEPT: Duration = Duration::from_millis(100);

fn request_count(apps: &[App]) -> usize {
    apps.iter().map(App::request_count).sum()
}

/// A call that may be retried twice, and whose endpoints all leave once so many got a request: its
/// status, the number of requests in all, and the retries that failed.
async fn all_leave_after(answer: &'static str, asked: usize) -> (u16, usize, f64) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(App::new(server.ip, answer).await);
    }
    // Without proxies, which would respond in the place of an endpoint that does not.
    let all = apps.iter().map(|app| endpoint(server.ip, app.port, None));
    client.set(vec![endpoints("api", all.collect())]);
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(Retry {
            attempts: 2,
            backoff: BACKOFF,
            budget: Budget {
                min_per_second: 1000,
                ..Budget::DEFAULT
            },
            ..Retry::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let leaving = async {
        while request_count(&apps) < asked {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(KEPT).await;
        client.set(vec![endpoints("api", Vec::new())]);
    };
    let ((status, _), ()) = tokio::join!(ask(&client, "GET", "", ""), leaving);
    let failed = retries(&client, "failure");
    assert_eq!(sum(&client, "weft_retries_total", &[]), failed);
    (status, request_count(&apps), failed)
}

#[tokio::test]
async fn retry_without_endpoint_after_backoff_is_not_made() {
    for (answer, status) in [(NOTHING, 502), (UNAVAILABLE, 503)] {
        // Control: the second retry, after three requests.
        let of = [1, 2, 3].map(|asked| all_leave_after(answer, asked));
        let expected = [(status, 1, 0.0), (status, 2, 1.0), (status, 3, 2.0)];
        assert_eq!(join_all(of).await, expected, "{answer}");
    }
}

/// An address of a pod without a listener.
async fn closed(pod: &Pod) -> SocketAddr {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// A call whose first attempt ends like this, and whose retry waits to go to the only other
/// endpoint. Meanwhile that one is ejected (`rests`), since it is down for a moment, or gets no
/// request; and `another` one comes, or none does. The call's status, the requests that came to the
/// chosen endpoint and to the other one, and the retries that made the call good.
async fn chosen_and_then(
    answer: &'static str,
    rests: bool,
    another: bool,
) -> (u16, [usize; 2], f64) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let first = TcpListener::bind((server.ip, 0)).await.unwrap();
    let tried = first.local_addr().unwrap().port();
    let (chosen, unserved) = (closed(&server).await, closed(&server).await);
    let other = App::new(server.ip, OK).await;
    let served_at = |ports: &[u16]| {
        let all = ports.iter().map(|port| endpoint(server.ip, *port, None));
        client.set(vec![endpoints("api", all.collect())]);
    };
    served_at(&[tried]);
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(Retry {
            backoff: BACKOFF,
            ..Retry::DEFAULT
        }),
        ejection: whole(Ejection {
            consecutive_failures: 1,
            base_time: Duration::from_secs(60),
            max_percent: Percent::at_most(100),
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let meanwhile = async {
        let (mut stream, _) = first.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        served_at(&[tried, chosen.port()]);
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream);
        sleep(KEPT).await;
        if rests {
            // A request that was not sent is retried on another one, so this comes to both.
            served_at(&[chosen.port(), unserved.port()]);
            assert_eq!(ask(&client, "POST", "", "{}").await.0, 503);
            let ejected = sum(&client, "weft_ejections_total", &["cause=\"unreachable\""]);
            assert_eq!(ejected, 2.0, "{}", client.metrics());
        }
        let back = App::on(TcpListener::bind(chosen).await.unwrap(), OK);
        let count = if another { 3 } else { 2 };
        served_at(&[tried, chosen.port(), other.port][..count]);
        back
    };
    let ((status, _), back) = tokio::join!(ask(&client, "GET", "", ""), meanwhile);
    let came = [&back, &other].map(App::request_count);
    (status, came, retries(&client, "success"))
}

#[tokio::test]
async fn retry_skips_endpoint_ejected_during_its_backoff() {
    let of = [UNAVAILABLE, NOTHING].map(|answer| chosen_and_then(answer, true, true));
    assert_eq!(join_all(of).await, [(200, [0, 1], 1.0); 2]);
    // Control: it works.
    let of = [UNAVAILABLE, NOTHING].map(|answer| chosen_and_then(answer, false, true));
    assert_eq!(join_all(of).await, [(200, [1, 0], 1.0); 2]);
}

/// As with any call, this proxy may be wrong about those that rest. An answer would be lost with
/// the call.
#[tokio::test]
async fn retry_uses_ejected_endpoint_only_without_any_response() {
    let of = [UNAVAILABLE, NOTHING].map(|answer| chosen_and_then(answer, true, false));
    let expected = [(503, [0, 0], 0.0), (200, [1, 0], 1.0)];
    assert_eq!(join_all(of).await, expected);
}
