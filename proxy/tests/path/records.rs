//! Access log records at a collector.
//!
//! Claims: observe-95

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::answers::{OK, sum};
use super::collector::{export, grpc, hex, value};
use super::deadlines::fleet;
use super::tracing::{PARENT, TRACE, until};
use crate::support::{
    endpoint, endpoints, external, get, listening, logging, pair, resource_of_log, rule, service,
    vip,
};

const DROPPED: &str = "weft_telemetry_dropped_total";
/// As OpenTelemetry numbers severities.
const ERROR: i32 = 17;

/// The log line of a request has its trace, also where the trace is not recorded.
#[tokio::test]
async fn lines_of_the_access_log_go_to_the_collector() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let url = format!("http://{addr}");
    let (client, server, _apps) = fleet([OK]).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/open"]))]);
    client.set(vec![external(addr), logging(&url, "otlp,errors")]);
    server.set(vec![external(addr), logging(&url, "otlp")]);
    for pod in [&client, &server] {
        export(pod);
    }
    let came = format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n");
    assert_eq!(get(client.call(vip()).await, "/open", &came).await.0, 200);
    assert_eq!(get(client.call(vip()).await, "/closed", &came).await.0, 403);
    // Of the caller the refused one, of the called both.
    until("all lines are there", || got.records().len() >= 3).await;
    let records = got.records();
    assert_eq!(records.len(), 3, "{records:#?}");
    for record in &records {
        assert_eq!(hex(&record.trace_id), TRACE);
        assert!(record.span_id.is_empty(), "it is not recorded");
    }
    let errors = records.iter().filter(|one| one.severity_number == ERROR);
    assert_eq!(errors.count(), 2);
    assert_eq!(got.spans().len(), 0);
    // Without a collector they have nowhere to go, and are counted.
    server.set(vec![resource_of_log("otlp")]);
    assert_eq!(get(client.call(vip()).await, "/open", "").await.0, 200);
    until("the lost line is counted", || {
        sum(&server, DROPPED, &["signal=\"logs\"", "reason=\"off\""]) == 1.0
    })
    .await;
}

/// A caller that leaves before the head of the response is no failure.
#[tokio::test]
async fn departed_caller_has_log_line_with_own_reason() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    for pod in [&client, &server] {
        let url = format!("http://{addr}");
        pod.set(vec![external(addr), logging(&url, "otlp")]);
        export(pod);
    }
    let mut caller = client.call(vip()).await;
    let head = b"GET /slow HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    caller.write_all(head).await.unwrap();
    let (mut accepted, _) = application.accept().await.unwrap();
    accepted.read_u8().await.unwrap();
    let linger = socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO));
    linger.unwrap();
    drop(caller);
    until("both lines are there", || got.records().len() >= 2).await;
    let mut directions = Vec::new();
    for record in got.records() {
        let attribute = |key| value(&record.attributes, key).unwrap_or_default();
        assert_eq!(attribute("http.response.status_code"), "499", "{record:#?}");
        assert_eq!(attribute("weft.reason"), "cancelled", "{record:#?}");
        assert_eq!(attribute("url.path"), "/slow", "{record:#?}");
        assert_ne!(record.severity_number, ERROR, "{record:#?}");
        directions.push(attribute("weft.direction"));
    }
    directions.sort();
    assert_eq!(directions, ["inbound", "outbound"]);
}

/// Else each message would be a line of the next one, for ever.
#[tokio::test]
async fn the_way_to_the_collector_makes_no_lines_there() {
    let (client, server, _apps) = fleet([OK]).await;
    let (addr, got) = grpc((server.ip, 0)).await;
    let there = SocketAddr::from(([10, 96, 0, 91], 80));
    client.set(service("collector", there.ip(), Protocol::Grpc, Vec::new()));
    let at = endpoint(server.ip, addr.port(), Some("api"));
    client.set(vec![endpoints("collector", vec![at])]);
    client.set(vec![logging(&format!("http://{there}"), "otlp")]);
    export(&client);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    until("the line is there", || got.records().len() == 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(got.records().len(), 1, "{:#?}", got.records());
    // Control: what its application sends is a line there still.
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    until("the second line is there", || got.records().len() == 2).await;
}
