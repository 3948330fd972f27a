//! What a collector gets.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;
use crate::metrics::service_graph::{Calls, Pair};

const PATIENCE: Duration = Duration::from_secs(10);

/// Hands on what it gets.
struct Got(mpsc::Sender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Got {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).await.unwrap();
        let taken = ExportMetricsServiceResponse::default();
        Ok(tonic::Response::new(taken))
    }
}

/// A pair, and who sends it.
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
    assert!(push.pairs.add(pair, &calls, 200));
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
async fn a_collector_is_sent_the_graph_every_fifteen_seconds_over_grpc() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let push = push(listener.local_addr().unwrap(), "");
    let (got, mut messages) = mpsc::channel(4);
    let server =
        tonic::transport::Server::builder().add_service(MetricsServiceServer::new(Got(got)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    tokio::spawn(push.clone().keep());
    let first = timeout(PATIENCE, messages.recv()).await.unwrap().unwrap();
    assert_eq!(requests(&first), 3);
    called(&push);
    let sooner = timeout(Duration::from_millis(300), messages.recv()).await;
    assert!(sooner.is_err(), "it is not time yet");
    pass(Duration::from_secs(15)).await;
    let second = timeout(PATIENCE, messages.recv()).await.unwrap().unwrap();
    assert_eq!(requests(&second), 6);
    // Whoever no longer holds the Lease shows nothing, and has nothing to send.
    push.pairs.clear();
    pass(Duration::from_secs(15)).await;
    let third = timeout(Duration::from_millis(300), messages.recv()).await;
    assert!(third.is_err(), "{third:?}");
}

/// Takes a message that is posted, and answers so.
async fn posted(listener: &TcpListener, answer: &str) -> (String, ExportMetricsServiceRequest) {
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
    let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    let message = ExportMetricsServiceRequest::decode(&read[head..]).unwrap();
    (text, message)
}

#[tokio::test]
async fn over_http_it_is_posted_beside_the_spans_and_what_was_refused_is_in_the_next_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let push = push(listener.local_addr().unwrap(), "/otlp/v1/traces");
    tokio::spawn(push.clone().keep());
    let refused = posted(&listener, "503 Service Unavailable");
    let (head, message) = timeout(PATIENCE, refused).await.unwrap();
    assert!(head.starts_with("post /otlp/v1/metrics "), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    assert_eq!(requests(&message), 3);
    called(&push);
    pass(Duration::from_secs(15)).await;
    let taken = posted(&listener, "200 OK");
    let (_, message) = timeout(PATIENCE, taken).await.unwrap();
    assert_eq!(requests(&message), 6);
}
