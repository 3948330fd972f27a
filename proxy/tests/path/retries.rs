//! Retries: which requests are retried, which never are, and what retries may cost.
//!
//! Claims: calls-1, calls-39

use std::time::{Duration, Instant};

use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Retry, Timeouts};
use policy::traffic::set::{GrpcCode, GrpcCodes, Methods, Statuses};
use wire::v1::{self, Protocol};

use super::answers::{
    App, HALF, NOTHING, OK, ONCE, SILENCE, UNAVAILABLE, ask, limited, policy_of, retries,
    served_by, sum,
};
use crate::support::{Pod, endpoint, endpoints, pair, resource};

const REQUESTS: &str = "weft_requests_total";
const ATTEMPTS: &str = "weft_attempts_total";
const BROKEN: &str = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
const BAD_GATEWAY: &str = "HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n";
const SOON: &str = "HTTP/1.1 503 No\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
/// Trailers-Only.
const REFUSED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\
                       grpc-status: 14\r\ncontent-length: 0\r\n\r\n";
/// Within this time a connection is kept that served.
const KEPT: Duration = Duration::from_millis(100);
const GOOD: &str = "success=\"true\"";
const BAD: &str = "success=\"false\"";

/// A client and a server, whose `api` is served by applications with these answers.
async fn fleet<const N: usize>(answers: [&'static str; N]) -> (Pod, Pod, Vec<App>) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let mut apps = Vec::new();
    for answer in answers {
        apps.push(App::new(server.ip, answer).await);
    }
    served_by(&client, &server, &apps.iter().collect::<Vec<_>>());
    (client, server, apps)
}

fn policy(client: &Pod, retry: Retry) {
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(retry),
        ..EffectivePolicy::default()
    })]);
}

fn request_count(apps: &[App]) -> usize {
    apps.iter().map(App::request_count).sum()
}

/// Asks until an application has seen a request; all must be answered with 200.
async fn until_seen(client: &Pod, app: &App) -> usize {
    let mut requests = 0;
    while app.request_count() == 0 {
        let (status, answer) = ask(client, "GET", "", "").await;
        assert_eq!(status, 200, "{answer}");
        requests += 1;
        assert!(requests < 200, "the failing one must be tried");
    }
    requests
}

#[tokio::test]
async fn failed_get_succeeds_elsewhere_and_each_attempt_counts() {
    for answer in [UNAVAILABLE, NOTHING] {
        let (client, _server, apps) = fleet([answer, OK]).await;
        let requests = until_seen(&client, &apps[0]).await as f64;
        assert_eq!(retries(&client, "success"), 1.0, "{}", client.metrics());
        assert_eq!(sum(&client, REQUESTS, &[GOOD]), requests);
        assert_eq!(sum(&client, REQUESTS, &[BAD]), 0.0);
        assert_eq!(sum(&client, ATTEMPTS, &[GOOD]), requests);
        assert_eq!(sum(&client, ATTEMPTS, &[BAD]), 1.0, "retries hide nothing");
    }
}

#[tokio::test]
async fn default_retries_exclude_writes_grpc_and_other_statuses() {
    const GRPC: &str = "content-type: application/grpc\r\n";
    for answer in [UNAVAILABLE, NOTHING] {
        for (method, headers) in [("POST", ""), ("PUT", ""), ("POST", GRPC), ("GET", GRPC)] {
            let (client, _server, apps) = fleet([answer, answer]).await;
            ask(&client, method, headers, "{}").await;
            assert_eq!(request_count(&apps), 1, "{method} {headers} {answer}");
        }
    }
    let (client, _server, apps) = fleet([REFUSED, REFUSED]).await;
    let (_, answer) = ask(&client, "POST", GRPC, "call").await;
    assert!(answer.contains("grpc-status: 14"), "{answer}");
    assert_eq!(request_count(&apps), 1, "its author lists no code");
    for answer in [
        BROKEN,
        BAD_GATEWAY,
        "HTTP/1.1 504 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 429 No\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (client, _server, apps) = fleet([answer, answer]).await;
        ask(&client, "GET", "", "").await;
        assert_eq!(request_count(&apps), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_backend_that_answers_nothing_else_earns_no_retries() {
    let (client, _server, apps) = fleet([UNAVAILABLE, UNAVAILABLE, UNAVAILABLE]).await;
    let started = Instant::now();
    for _ in 0..30 {
        assert_eq!(ask(&client, "GET", "", "").await.0, 503);
    }
    // One each second is outside the budget.
    let most = 1 + started.elapsed().as_secs() as usize;
    let made = request_count(&apps) - 30;
    assert!((1..=most).contains(&made), "{made} of {most}");
    assert_eq!(retries(&client, "failure"), made as f64);
    assert_eq!(retries(&client, "budget"), (30 - made) as f64);
}

#[tokio::test]
async fn zero_attempts_disable_retries_until_policy_is_removed() {
    let (client, _server, apps) = fleet([UNAVAILABLE, UNAVAILABLE]).await;
    policy(
        &client,
        Retry {
            attempts: 0,
            ..Retry::DEFAULT
        },
    );
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(&apps), 1);
    client.replace(&wire::names::policy("shop", "api", 80), Vec::new());
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(&apps), 3);
}

#[tokio::test]
async fn retry_policy_sets_methods_codes_attempts_and_resends_body() {
    const TEAPOT: &str = "HTTP/1.1 418 No\r\ncontent-length: 0\r\n\r\n";
    let (client, _server, apps) = fleet([TEAPOT, TEAPOT, TEAPOT, TEAPOT]).await;
    let mut retry = Retry {
        attempts: 2,
        codes: Statuses::of(&[418]),
        methods: Methods::Any,
        ..Retry::DEFAULT
    };
    retry.budget.min_per_second = 1000;
    policy(&client, retry);
    assert_eq!(ask(&client, "POST", "", "pay 5").await.0, 418);
    let bodies: Vec<String> = apps.iter().flat_map(App::bodies).collect();
    assert_eq!(bodies, ["pay 5", "pay 5", "pay 5"]);
    assert!(
        apps.iter().all(|app| app.request_count() <= 1),
        "none twice"
    );
}

#[tokio::test]
async fn body_too_long_to_buffer_is_sent_once() {
    let (client, _server, apps) = fleet([UNAVAILABLE, UNAVAILABLE]).await;
    policy(
        &client,
        Retry {
            methods: Methods::Any,
            ..Retry::DEFAULT
        },
    );
    let body = "x".repeat(64 * 1024 + 1);
    assert_eq!(ask(&client, "POST", "", &body).await.0, 503);
    assert_eq!(request_count(&apps), 1);
    assert_eq!(retries(&client, "body"), 1.0, "{}", client.metrics());
}

#[tokio::test]
async fn grpc_retries_need_listed_code_and_nothing_forwarded() {
    const GRPC: &str = "content-type: application/grpc\r\n";
    const PARTIAL_RESPONSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\
                         grpc-status: 14\r\ncontent-length: 2\r\n\r\nab";
    const OTHER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\
                         grpc-status: 8\r\ncontent-length: 0\r\n\r\n";
    let (unavailable, late) = (GrpcCode::Unavailable, GrpcCode::DeadlineExceeded);
    for (answer, code, expected) in [
        (REFUSED, unavailable, 2),
        (UNAVAILABLE, unavailable, 2),
        (PARTIAL_RESPONSE, unavailable, 1),
        (OTHER, unavailable, 1),
        // A connection that ends is UNAVAILABLE, and nothing else.
        (NOTHING, unavailable, 2),
        (NOTHING, late, 1),
    ] {
        let (client, _server, apps) = fleet([answer, answer, answer]).await;
        policy(
            &client,
            Retry {
                grpc_codes: GrpcCodes::of(&[code]),
                ..Retry::DEFAULT
            },
        );
        ask(&client, "POST", GRPC, "call").await;
        assert_eq!(request_count(&apps), expected, "{code} {answer}");
    }
}

#[tokio::test]
async fn retry_waits_for_servers_retry_after() {
    const LATER: &str = "HTTP/1.1 503 No\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n";
    let (client, _server, apps) = fleet([LATER, LATER]).await;
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(&apps), 1);
    let (client, _server, apps) = fleet([SOON, SOON]).await;
    let started = Instant::now();
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(&apps), 2);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn retry_without_remaining_time_is_skipped_as_deadline() {
    let (client, _server, apps) = fleet([SOON, SOON]).await;
    client.set(vec![policy_of(&EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(Duration::from_millis(900)),
            ..Timeouts::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!((status, request_count(&apps)), (503, 1), "{answer}");
    assert!(!answer.contains("weft-reason"), "its own answer: {answer}");
    assert_eq!(retries(&client, "deadline"), 1.0, "{}", client.metrics());
    assert_eq!(sum(&client, "weft_retries_total", &[]), 1.0);
}

fn serving(server: &Pod, apps: &[App], account: Option<&str>) -> Vec<v1::Resource> {
    let all = apps
        .iter()
        .map(|app| endpoint(server.ip, app.port, account));
    vec![endpoints("api", all.collect())]
}

async fn once_asked(apps: &[App]) {
    while request_count(apps) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(KEPT).await;
}

/// A second passes between the two attempts.
#[tokio::test]
async fn retry_uses_endpoints_as_known_after_its_backoff() {
    // They turn out to be meshed.
    let (client, server, apps) = fleet([SOON, SOON]).await;
    client.set(serving(&server, &apps, None));
    let meshed = async {
        once_asked(&apps).await;
        client.set(serving(&server, &apps, Some("api")));
    };
    let ((status, answer), ()) = tokio::join!(ask(&client, "GET", "", ""), meshed);
    assert_eq!((status, request_count(&apps)), (503, 2), "{answer}");
    let heads = apps.iter().flat_map(App::heads);
    let by_mesh = heads.filter(|head| head.contains("weft-client-id: spiffe://"));
    assert_eq!(by_mesh.count(), 1, "the second came by its proxy");
    // They have left.
    let (client, server, apps) = fleet([SOON, SOON]).await;
    let gone = async {
        once_asked(&apps).await;
        client.set(serving(&server, &[], None));
    };
    let ((status, answer), ()) = tokio::join!(ask(&client, "GET", "", ""), gone);
    assert_eq!((status, request_count(&apps)), (503, 1), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    assert!(!answer.contains("weft-reason"), "{answer}");
    assert_eq!(sum(&client, REQUESTS, &["reason=\"no-endpoint\""]), 0.0);
    assert_eq!(sum(&client, ATTEMPTS, &[]), 1.0, "{}", client.metrics());
}

#[tokio::test]
async fn what_the_called_proxy_refuses_is_asked_nowhere_else() {
    use wire::v1::{Enforcement, MtlsMode};
    let (client, server, apps) = fleet([OK, OK]).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    assert_eq!(ask(&client, "GET", "", "").await.0, 403);
    assert_eq!(request_count(&apps), 0);
    assert_eq!(sum(&client, ATTEMPTS, &[]), 1.0, "{}", client.metrics());
}

#[tokio::test]
async fn failure_without_alternative_passes_at_no_cost() {
    let (client, server, apps) = fleet([UNAVAILABLE]).await;
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!((status, request_count(&apps)), (503, 1));
    assert!(answer.ends_with("no"), "the application's own: {answer}");
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
    // The token is there when it is of use.
    let other = App::new(server.ip, UNAVAILABLE).await;
    served_by(&client, &server, &[&apps[0], &other]);
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(&apps) + other.request_count(), 3);
}

#[tokio::test]
async fn timed_out_attempt_is_retried_only_for_reads() {
    let within = |limit| EffectivePolicy {
        timeouts: limited(Timeouts {
            backend_request: Some(Duration::from_millis(limit)),
            ..Timeouts::DEFAULT
        }),
        ..EffectivePolicy::default()
    };
    let (client, _server, apps) = fleet([SILENCE, OK]).await;
    client.set(vec![policy_of(&within(300))]);
    until_seen(&client, &apps[0]).await;
    assert_eq!(retries(&client, "success"), 1.0, "{}", client.metrics());
    // A POST gets the error, and no other endpoint sees its body.
    let (client, _server, apps) = fleet([SILENCE, SILENCE]).await;
    client.set(vec![policy_of(&within(300))]);
    let started = Instant::now();
    let (status, answer) = ask(&client, "POST", "", "{}").await;
    assert_eq!((status, request_count(&apps)), (504, 1), "{answer}");
    assert!(answer.contains("weft-reason: deadline"), "{answer}");
    let took = started.elapsed();
    assert!((300..3000).contains(&took.as_millis()), "{took:?}");
}

/// The server may have closed a kept connection just then; what it did with a write before that is
/// unknown.
// Claims: calls-31
#[tokio::test]
async fn write_lost_on_kept_connection_is_not_resent() {
    for method in ["PUT", "DELETE"] {
        let (client, _server, apps) = fleet([ONCE]).await;
        assert_eq!(ask(&client, "GET", "", "").await.0, 200);
        tokio::time::sleep(KEPT).await;
        ask(&client, method, "", "{}").await;
        assert_eq!(apps[0].request_count(), 2, "{method}");
    }
    // A read is resent, also with a method that is not retried.
    for method in ["GET", "OPTIONS", "TRACE"] {
        let (client, _server, apps) = fleet([ONCE]).await;
        for method in ["GET", method] {
            let (status, answer) = ask(&client, method, "", "").await;
            assert_eq!(status, 200, "{method}: {answer}");
            tokio::time::sleep(KEPT).await;
        }
        assert_eq!(apps[0].request_count(), 3, "{method} once in vain");
    }
}

/// A server that started its response has taken the request.
#[tokio::test]
async fn get_is_not_resent_once_its_response_started() {
    let (client, _server, apps) = fleet([HALF]).await;
    assert_eq!(ask(&client, "GET", "", "").await.0, 200);
    tokio::time::sleep(KEPT).await;
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!((status, apps[0].request_count()), (502, 2), "{answer}");
}

#[tokio::test]
async fn retry_ending_in_other_failure_counts_as_failure() {
    let (client, _server, apps) = fleet([UNAVAILABLE, BROKEN]).await;
    let mut requests = 0;
    while apps[0].request_count() == 0 {
        ask(&client, "GET", "", "").await;
        requests += 1;
        assert!(requests < 200, "it must be asked");
    }
    assert_eq!(request_count(&apps), requests + 1);
    assert_eq!(retries(&client, "failure"), 1.0, "{}", client.metrics());
    assert_eq!(retries(&client, "success"), 0.0);
}

#[tokio::test]
async fn failures_without_retry_add_no_budget() {
    let started = Instant::now();
    let (client, server, _apps) = fleet([BAD_GATEWAY]).await;
    for _ in 0..100 {
        assert_eq!(ask(&client, "GET", "", "").await.0, 502);
    }
    let down = [
        App::new(server.ip, UNAVAILABLE).await,
        App::new(server.ip, UNAVAILABLE).await,
    ];
    served_by(&client, &server, &[&down[0], &down[1]]);
    for _ in 0..30 {
        assert_eq!(ask(&client, "GET", "", "").await.0, 503);
    }
    let most = 1 + started.elapsed().as_secs() as usize;
    let made = request_count(&down) - 30;
    assert!((1..=most).contains(&made), "{made} of {most}");
}

/// A retry that needs no savings comes once a second, and proxies of one workload share it.
#[tokio::test]
async fn proxies_of_workload_share_minimum_retry_budget() {
    for (peers, again) in [(1, 2), (4, 1)] {
        let (client, _server, apps) = fleet([UNAVAILABLE, UNAVAILABLE]).await;
        let position = v1::Place {
            index: 0,
            peers,
            zone_index: 0,
            zone_peers: peers,
        };
        client.set(vec![resource(
            wire::names::PLACE,
            v1::resource::Content::Place(position),
        )]);
        assert_eq!(ask(&client, "GET", "", "").await.0, 503);
        assert_eq!(request_count(&apps), 2, "the first is there at once");
        assert_eq!(ask(&client, "GET", "", "").await.0, 503);
        assert_eq!(request_count(&apps), 3, "and no other");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(ask(&client, "GET", "", "").await.0, 503);
        assert_eq!(request_count(&apps), 3 + again, "{peers} proxies");
    }
}
