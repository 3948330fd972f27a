//! A request that is refused for its head gets an access log line, as a served one does.
//!
//! Claims: observe-98

use std::time::Duration;

use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::collector::{export, grpc, value};
use super::refusals::{refused_heads, send};
use super::tracing::until;
use crate::support::{external, get, logging, pair, vip};

/// As OpenTelemetry numbers severities.
const ERROR: i32 = 17;

fn heads() -> Vec<(&'static str, String)> {
    let get = |target: &str, lines: &str| {
        format!("GET {target} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n")
    };
    let mut heads = Vec::from(refused_heads());
    heads.extend([
        ("a control in the target", get("/a\u{1b}[2J", "Host: h\r\n")),
        (
            "a host that is none",
            get("/?token=s3cret", "Host: a b\r\n"),
        ),
        (
            "too many headers",
            get("/", &format!("Host: h\r\n{}", "X: y\r\n".repeat(150))),
        ),
    ]);
    heads
}

/// Method, path and status in the log line of this case. For a head whose body has no known end,
/// only the status is kept.
fn expected_fields(case: &str) -> [String; 3] {
    let (method, path, status) = match case {
        "CONNECT" => ("CONNECT", String::new(), "400"),
        "a long target" => ("GET", format!("/{}", "a".repeat(255)), "414"),
        "a control in the target" => ("GET", "/a".to_owned(), "400"),
        "too many headers" => ("GET", "/".to_owned(), "431"),
        "another encoding" => ("", String::new(), "400"),
        _ => ("GET", "/".to_owned(), "400"),
    };
    [method.to_owned(), path, status.to_owned()]
}

#[tokio::test]
async fn refused_head_and_served_request_each_log_once() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let url = format!("http://{addr}");
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    // Where an answer is due, whatever might be a request is read as one.
    server.mode("api", Enforcement::Open, MtlsMode::Strict);
    for pod in [&client, &server] {
        pod.set(vec![external(addr), logging(&url, "otlp,errors")]);
        export(pod);
    }
    // No line of those that failed: the ones that follow would not be the first.
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    let mut before = 0;
    for side in ["inbound", "outbound"] {
        let heads = heads();
        for (case, head) in &heads {
            let stream = match side {
                "inbound" => server.plain(port).await,
                _ => client.call(vip()).await,
            };
            let answer = send(stream, head).await;
            assert!(answer.starts_with("HTTP/1.1 4"), "{side}, {case}: {answer}");
        }
        let all = before + heads.len();
        until("each has a line", || got.records().len() >= all).await;
        let records = got.records().split_off(before);
        assert_eq!(records.len(), heads.len(), "{side}: {records:#?}");
        for ((case, _), record) in heads.iter().zip(&records) {
            let of = |key| value(&record.attributes, key).unwrap_or_default();
            let keys = [
                "http.request.method",
                "url.path",
                "http.response.status_code",
            ];
            assert_eq!(keys.map(of), expected_fields(case), "{side}, {case}");
            assert_eq!(of("weft.direction"), side, "{case}");
            assert_eq!(of("weft.reason"), "bad-request", "{side}, {case}");
            let ends = [of("weft.peer"), of("weft.service")];
            let expected = match side {
                "inbound" => ["outside", ""],
                _ => ["", "shop/api"],
            };
            assert_eq!(ends, expected, "{side}, {case}");
            assert_eq!(record.severity_number, ERROR, "{side}, {case}");
            assert!(!format!("{record:?}").contains("s3cret"), "{side}, {case}");
        }
        before = all;
    }
    // Control: one that is served has one line at each end, and no more come.
    for pod in [&client, &server] {
        pod.set(vec![logging(&url, "otlp")]);
    }
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    until("both lines are there", || got.records().len() >= before + 2).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let served = got.records().split_off(before);
    assert_eq!(served.len(), 2, "{served:#?}");
    assert_eq!(seen.lock().len(), 2, "{:?}", seen.lock());
}
