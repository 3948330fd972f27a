//! The last attempt of a call gets all the remaining time, for whatever reason it is the last.
//!
//! Claims: calls-2

use std::time::{Duration, Instant};

use futures::future::join_all;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Budget, Retry, Timeouts};
use policy::traffic::endpoint::Ejection;
use policy::traffic::set::{Methods, Percent};
use tokio::net::TcpListener;
use wire::v1::Protocol;

use super::answers::{
    App, LATER, OK, SILENCE, ask, limited, policy_of, retries, served_by, sum, whole,
};
use super::lost::{address, silent};
use crate::support::{Pod, endpoint, endpoints, pair};

/// Of one attempt, and less than [`LATER`] takes.
const ATTEMPT: Duration = Duration::from_millis(300);

/// A call has far more time than any attempt that another one may follow.
fn patient(retry: Retry) -> EffectivePolicy {
    of_time(Duration::from_secs(30), retry)
}

/// A call is over after that time.
fn of_time(request: Duration, retry: Retry) -> EffectivePolicy {
    EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(request),
            backend_request: Some(ATTEMPT),
            ..Timeouts::DEFAULT
        }),
        retry: limited(retry),
        ..EffectivePolicy::default()
    }
}

async fn fleet<const N: usize>(
    answers: [&'static str; N],
    policy: &EffectivePolicy,
) -> (Pod, Pod, Vec<App>) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let mut apps = Vec::new();
    for answer in answers {
        apps.push(App::new(server.ip, answer).await);
    }
    served_by(&client, &server, &apps.iter().collect::<Vec<_>>());
    client.set(vec![policy_of(policy)]);
    (client, server, apps)
}

fn request_count(apps: &[App]) -> usize {
    apps.iter().map(App::request_count).sum()
}

#[tokio::test]
async fn get_outlasting_attempt_timeout_at_only_endpoint_succeeds() {
    let (client, _server, apps) = fleet([LATER], &patient(Retry::DEFAULT)).await;
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!((status, request_count(&apps)), (200, 1), "{answer}");
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
}

#[tokio::test]
async fn call_without_retry_budget_gets_late_response() {
    let nothing = Budget {
        percent: Percent::at_most(0),
        min_per_second: 0,
        ..Budget::DEFAULT
    };
    let unpaid = Retry {
        budget: nothing,
        ..Retry::DEFAULT
    };
    let (client, _server, apps) = fleet([LATER, LATER], &patient(unpaid)).await;
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!((status, request_count(&apps)), (200, 1), "{answer}");
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
}

/// Calls that hang together are not promised the same token.
#[tokio::test]
async fn hung_calls_are_abandoned_within_retry_budget_only() {
    let savings = Budget {
        percent: Percent::at_most(100),
        min_per_second: 0,
        ..Budget::DEFAULT
    };
    let saved = Retry {
        budget: savings,
        ..Retry::DEFAULT
    };
    let (client, _server, apps) = fleet([LATER, LATER], &patient(saved)).await;
    // It saves the one token, and none of the hanging calls ends before it is needed.
    assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
    let calls = (0..8).map(|_| ask(&client, "GET", "", ""));
    for (status, answer) in join_all(calls).await {
        assert_eq!(status, 200, "{answer}");
    }
    let made = retries(&client, "success");
    assert!(made >= 1.0, "the token is spent: {}", client.metrics());
    assert_eq!(sum(&client, "weft_retries_total", &[]), made);
    assert_eq!(request_count(&apps), 9 + made as usize);
}

#[tokio::test]
async fn call_without_time_for_retry_backoff_gets_response() {
    let slowly = Retry {
        backoff: Duration::from_secs(10),
        ..Retry::DEFAULT
    };
    let policy = of_time(Duration::from_secs(9), slowly);
    let (client, _server, apps) = fleet([LATER, LATER], &policy).await;
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!((status, request_count(&apps)), (200, 1), "{answer}");
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
}

#[tokio::test]
async fn body_too_long_to_resend_makes_attempt_final() {
    let any = Retry {
        methods: Methods::Any,
        ..Retry::DEFAULT
    };
    let (client, _server, apps) = fleet([LATER, LATER], &patient(any)).await;
    let body = "x".repeat(64 * 1024 + 1);
    let (status, answer) = ask(&client, "PUT", "", &body).await;
    assert_eq!((status, request_count(&apps)), (200, 1), "{answer}");
}

/// Control: its first attempt is abandoned at its own timeout.
#[tokio::test]
async fn attempt_is_abandoned_when_other_endpoint_is_available() {
    let (client, _server, apps) = fleet([SILENCE, OK], &patient(Retry::DEFAULT)).await;
    let mut gets = 0;
    while apps[0].request_count() == 0 {
        let started = Instant::now();
        let (status, answer) = ask(&client, "GET", "", "").await;
        assert_eq!(status, 200, "{answer}");
        assert!(apps[0].request_count() == 0 || started.elapsed() >= ATTEMPT);
        gets += 1;
        assert!(gets < 200, "the silent one must be asked");
    }
    assert_eq!(retries(&client, "success"), 1.0, "{}", client.metrics());
}

/// The one of two that is down got a call before, and then it is ejected.
#[tokio::test]
async fn endpoint_without_working_alternative_gets_full_call_time() {
    let policy = EffectivePolicy {
        ejection: whole(Ejection {
            consecutive_failures: 1,
            base_time: Duration::from_secs(60),
            ..Ejection::DEFAULT
        }),
        ..patient(Retry::DEFAULT)
    };
    let (client, server, apps) = fleet([LATER], &policy).await;
    let closed = TcpListener::bind((server.ip, 0)).await.unwrap();
    let unreachable = closed.local_addr().unwrap().port();
    drop(closed);
    let all = [unreachable, apps[0].port].map(|port| endpoint(server.ip, port, Some("api")));
    client.set(vec![endpoints("api", all.to_vec())]);
    let rests = || sum(&client, "weft_ejections_total", &["cause=\"unreachable\""]) > 0.0;
    let mut asked = 0;
    while !rests() {
        // Which of them comes first is drawn: not by GET, which would not wait for this one
        // while another one seems to work.
        let (status, answer) = ask(&client, "POST", "", "{}").await;
        assert_eq!(status, 200, "{answer}");
        asked += 1;
        assert!(asked < 100, "it must rest: {}", client.metrics());
    }
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!((status, request_count(&apps)), (200, asked + 1), "{answer}");
}

/// What may be gone with its node is worth no answer that may still come.
#[tokio::test]
async fn endpoint_is_not_abandoned_for_silent_alternative() {
    let policy = EffectivePolicy {
        ejection: whole(Ejection {
            consecutive_failures: 100,
            ..Ejection::DEFAULT
        }),
        ..patient(Retry::DEFAULT)
    };
    let (client, server, apps) = fleet([LATER], &policy).await;
    let lost = address(254);
    let _silent = silent(lost).await;
    let all = [lost, server.ip].map(|ip| endpoint(ip, apps[0].port, Some("api")));
    client.set(vec![endpoints("api", all.to_vec())]);
    // Whom the lost one comes first waits for a connection, and goes to the other one.
    let mut asked = 0;
    let mut waited = Duration::ZERO;
    while waited < Duration::from_millis(1900) {
        let started = Instant::now();
        assert_eq!(ask(&client, "POST", "", "{}").await.0, 200);
        waited = started.elapsed();
        asked += 1;
        assert!(asked < 50, "the lost one must be asked");
    }
    for _ in 0..3 {
        let (status, answer) = ask(&client, "GET", "", "").await;
        asked += 1;
        assert_eq!((status, request_count(&apps)), (200, asked), "{answer}");
    }
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
}
