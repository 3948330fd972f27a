//! What a collector gets of the graph, and what it refuses.
//!
//! Claims: observe-86

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;
use crate::metrics::service_graph::{Calls, Pair, ReportingWorkload};

const PATIENCE: Duration = Duration::from_secs(10);

/// Hands on what it gets, and responds so.
struct Got(
    mpsc::Sender<ExportMetricsServiceRequest>,
    ExportMetricsServiceResponse,
);

#[tonic::async_trait]
impl MetricsService for Got {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).await.unwrap();
        Ok(tonic::Response::new(self.1.clone()))
    }
}

/// A pair, and where it is sent.
fn push(to: SocketAddr, path: &str) -> Push {
    let push = Push {
        collector: format!("http://{to}{path}").parse().unwrap(),
        pairs: ServiceGraphMetrics::default(),
        resource: vec![("service.name", "weft-controller".to_owned())],
    };
    called(&push);
    push
}

fn called(push: &Push) {
    let pair = Pair {
        client: "shop/Deployment/web".into(),
        server: "shop/Deployment/cart".into(),
    };
    let calls = Calls {
        requests: 3,
        ..Calls::default()
    };
    let by = ReportingWorkload {
        namespace: "shop".into(),
        node: "shop/Deployment/web".into(),
    };
    assert!(push.pairs.add(pair, &by, &calls, 200));
}

/// A collector that responds so, and the messages that it gets.
fn collector(
    listener: TcpListener,
    answer: ExportMetricsServiceResponse,
) -> mpsc::Receiver<ExportMetricsServiceRequest> {
    let (got, messages) = mpsc::channel(4);
    let service = MetricsServiceServer::new(Got(got, answer));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    messages
}

/// Sends once, and returns why that is taken not to have worked.
async fn sent(push: &Push) -> Result<(), String> {
    let message = otlp::message(&push.resource, &push.pairs.all(), SystemTime::now());
    let sent = timeout(PATIENCE, send(&push.collector, message)).await;
    sent.unwrap().map_err(|error| error.to_string())
}

fn rejecting(points: i64) -> ExportMetricsServiceResponse {
    ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: points,
            error_message: "no room".to_owned(),
        }),
    }
}

/// Requests of the only pair.
fn requests(message: &ExportMetricsServiceRequest) -> i64 {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;

    let metric = &message.resource_metrics[0].scope_metrics[0].metrics[0];
    assert_eq!(metric.name, "traces_service_graph_request_total");
    match &metric.data {
        Some(Data::Sum(sum)) => match sum.data_points[0].value {
            Some(Value::AsInt(number)) => number,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Timers go on by this much at once; sockets need real time.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn collector_receives_graph_every_fifteen_seconds_over_grpc() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let push = push(listener.local_addr().unwrap(), "");
    let mut messages = collector(listener, ExportMetricsServiceResponse::default());
    tokio::spawn(push.clone().keep());
    let first = timeout(PATIENCE, messages.recv()).await.unwrap().unwrap();
    assert_eq!(requests(&first), 3);
    called(&push);
    let sooner = timeout(Duration::from_millis(300), messages.recv()).await;
    assert!(sooner.is_err(), "it is not time yet");
    pass(Duration::from_secs(15)).await;
    let second = timeout(PATIENCE, messages.recv()).await.unwrap().unwrap();
    assert_eq!(requests(&second), 6);
    // A replica without the Lease shows nothing, and has nothing to send.
    push.pairs.clear();
    pass(Duration::from_secs(15)).await;
    let third = timeout(Duration::from_millis(300), messages.recv()).await;
    assert!(third.is_err(), "{third:?}");
}

/// Takes a message that is posted, and responds so.
async fn posted(
    listener: &TcpListener,
    answer: &str,
    body: &[u8],
) -> (String, ExportMetricsServiceRequest) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = Vec::new();
    let head = loop {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{read:?}");
        let end = read.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
    let mut lines = text.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.unwrap().parse().unwrap();
    while read.len() < head + length {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{read:?}");
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    // A client that has read enough of it may be gone.
    let _ = stream.write_all(body).await;
    let message = ExportMetricsServiceRequest::decode(&read[head..]).unwrap();
    (text, message)
}

#[tokio::test]
async fn http_push_uses_metrics_path_and_resends_refused_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let push = push(listener.local_addr().unwrap(), "/otlp/v1/traces");
    tokio::spawn(push.clone().keep());
    let refused = posted(&listener, "503 Service Unavailable", &[]);
    let (head, message) = timeout(PATIENCE, refused).await.unwrap();
    assert!(head.starts_with("post /otlp/v1/metrics "), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    assert_eq!(requests(&message), 3);
    called(&push);
    pass(Duration::from_secs(15)).await;
    let taken = posted(&listener, "200 OK", &[]);
    let (_, message) = timeout(PATIENCE, taken).await.unwrap();
    assert_eq!(requests(&message), 6);
}

#[tokio::test]
async fn points_that_the_collector_rejects_were_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let over_grpc = push(listener.local_addr().unwrap(), "");
    let _messages = collector(listener, rejecting(2));
    let refused = sent(&over_grpc).await.unwrap_err();
    assert!(
        refused.contains("rejected 2 data points: no room"),
        "{refused}"
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let over_http = push(listener.local_addr().unwrap(), "/v1/traces");
    let rejected = rejecting(2).encode_to_vec();
    // A warning about what was taken is none.
    let taken = rejecting(0).encode_to_vec();
    let endless = vec![0; ANSWER + 1];
    for (body, reason) in [
        (rejected, Some("rejected 2 data points: no room")),
        (taken, None),
        (b"<html>taken</html>".to_vec(), None),
        (endless, Some("length limit exceeded")),
    ] {
        let posted = timeout(PATIENCE, posted(&listener, "200 OK", &body));
        let (sent, _) = tokio::join!(sent(&over_http), posted);
        match (sent, reason) {
            (Ok(()), None) => {}
            (Err(error), Some(reason)) => assert!(error.contains(reason), "{error}"),
            (sent, reason) => panic!("{sent:?}, not {reason:?}"),
        }
    }
}

#[tokio::test]
async fn why_a_collector_is_not_reached_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    for path in ["", "/v1/traces"] {
        let error = sent(&push(at, path)).await.unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }
}
