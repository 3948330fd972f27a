//! What becomes of a retry whose endpoint is not what it was once it has waited.

use std::time::Duration;

use futures::future::join_all;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Budget, Retry};
use tokio::time::sleep;
use wire::v1::Protocol;

use super::answers::{App, NOTHING, UNAVAILABLE, ask, limited, policy_of, retries, sum};
use crate::support::{endpoint, endpoints, pair};

/// Of the first retry, and enough for what happens meanwhile.
const BACKOFF: Duration = Duration::from_millis(500);
/// Within this time the end of an attempt is known.
const KEPT: Duration = Duration::from_millis(100);

fn request_count(apps: &[App]) -> usize {
    apps.iter().map(App::request_count).sum()
}

/// A call that may be tried again twice, and whose endpoints all leave once so many were asked:
/// its status, how many were asked in all, and the retries that failed.
async fn all_leave_after(answer: &'static str, asked: usize) -> (u16, usize, f64) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(App::new(server.ip, answer).await);
    }
    // Without proxies, which would answer in the place of who gives none.
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
async fn a_retry_for_which_nobody_was_left_once_it_had_waited_was_not_made() {
    for (answer, status) in [(NOTHING, 502), (UNAVAILABLE, 503)] {
        // Control: the second retry is made of three that were asked.
        let of = [1, 2, 3].map(|asked| all_leave_after(answer, asked));
        let expected = [(status, 1, 0.0), (status, 2, 1.0), (status, 3, 2.0)];
        assert_eq!(join_all(of).await, expected, "{answer}");
    }
}
