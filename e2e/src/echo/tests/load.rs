//! The load generator: how many requests it sends, and what it reports.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, Method, header::CONTENT_TYPE};

use super::{ask, running};
use crate::echo::{client::Ask, grpc, load::Plan};

#[tokio::test]
async fn load_counts_every_request_by_status_pod_and_version() {
    let app = running("pod-a").await;
    let plan = Plan {
        ask: ask(app.http, "/"),
        requests: 500,
        connections: 5,
        rate: None,
        duration: None,
    };
    let summary = plan.run().await;
    assert_eq!(
        (
            summary.planned,
            summary.sent,
            summary.answered,
            summary.connects
        ),
        (500, 500, 500, 5)
    );
    assert_eq!(summary.by_status["200"], 500);
    assert_eq!(
        (summary.by_pod["pod-a"], summary.by_version["v7"]),
        (500, 500)
    );
    assert!(summary.errors.is_empty() && summary.latency_ms.p50 > 0.0);
}

#[tokio::test]
async fn load_counts_how_grpc_calls_ended() {
    let app = running("pod-a").await;
    for (path, status) in [("/weft.echo.Echo/Unary", "0"), ("/weft.echo.Echo/No", "12")] {
        let mut ask = ask(app.http, path);
        ask.method = Method::POST;
        ask.http2 = true;
        ask.body = grpc::message(b"hello");
        let kind = HeaderValue::from_static("application/grpc");
        ask.headers.insert(CONTENT_TYPE, kind);
        let plan = Plan {
            ask,
            requests: 10,
            connections: 2,
            rate: None,
            duration: None,
        };
        let summary = plan.run().await;
        assert_eq!(summary.by_status["200"], 10);
        assert_eq!(summary.by_grpc_status, [(status.to_owned(), 10)].into());
    }
}

#[tokio::test]
async fn rate_sets_the_plan_and_the_time_it_takes() {
    let app = running("pod-a").await;
    let plan = Plan {
        ask: ask(app.http, "/"),
        requests: 1_000_000,
        connections: 4,
        rate: Some(100.0),
        duration: Some(Duration::from_millis(500)),
    };
    let summary = plan.run().await;
    assert_eq!(
        (summary.planned, summary.sent, summary.answered),
        (50, 50, 50)
    );
    assert!(
        (0.45..2.0).contains(&summary.seconds),
        "{} s",
        summary.seconds
    );
}

#[tokio::test]
async fn interrupted_load_has_sent_everything_due() {
    let app = running("pod-a").await;
    let ended = |rate| {
        let plan = Plan {
            ask: ask(app.http, "/"),
            requests: 1_000_000,
            connections: 4,
            rate,
            duration: Some(Duration::from_secs(60)),
        };
        plan.run_until(tokio::time::sleep(Duration::from_millis(300)))
    };
    for rate in [Some(100.0), None] {
        let summary = ended(rate).await;
        assert_eq!(summary.planned, summary.sent, "{rate:?}");
        assert_eq!(summary.planned, summary.answered, "{rate:?}");
        assert!((0.29..2.0).contains(&summary.seconds), "{summary:?}");
        let due = rate.unwrap_or(100.0) * 0.3;
        assert!(summary.planned as f64 >= due, "{summary:?}");
        assert!(
            rate.is_none() || summary.planned <= 200,
            "more than was due: {summary:?}"
        );
    }
}

#[tokio::test]
async fn load_without_server_counts_connect_errors() {
    let plan = Plan {
        ask: Ask::get("http://127.0.0.1:1/").unwrap(),
        requests: 3,
        connections: 1,
        rate: None,
        duration: None,
    };
    let summary = plan.run().await;
    assert_eq!(
        (summary.sent, summary.answered, summary.errors["connect"]),
        (3, 0, 3)
    );
    assert!(
        summary.first_error.contains("127.0.0.1:1"),
        "{}",
        summary.first_error
    );
}

#[test]
fn restarted_steady_load_finishes_at_its_deadline() {
    let plan = Plan {
        ask: Ask::get("http://catalog/products").unwrap(),
        requests: 1,
        connections: 1,
        rate: Some(2.0),
        duration: None,
    };
    let at = |second| UNIX_EPOCH + Duration::from_secs(second);
    let seconds = |now| {
        let part = plan.until(at(2000), at(now))?;
        part.duration.map(|duration| duration.as_secs())
    };
    let parts = [200, 1400, 1990, 2000, 2001].map(seconds);
    assert_eq!(parts, [Some(600), Some(600), Some(10), None, None]);
}
