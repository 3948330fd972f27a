//! A collector of traces that shares no code with the proxies: its messages and its server are
//! OpenTelemetry's own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use weft_proxy::Signal;

use crate::support::Pod;

/// Kinds of spans.
pub(super) const SERVER: i32 = 2;
pub(super) const CLIENT: i32 = 3;

/// What a collector got.
#[derive(Clone, Debug, Default)]
pub(super) struct Got {
    pub(super) requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    pub(super) heads: Arc<Mutex<Vec<String>>>,
    logs: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Got {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let head = format!("{:?}", request.metadata());
        self.heads.lock().push(head);
        self.requests.lock().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Got {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.logs.lock().push(request.into_inner());
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Got {
    pub(super) fn records(&self) -> Vec<LogRecord> {
        let logs = self.logs.lock();
        let scopes = logs
            .iter()
            .flat_map(|request| &request.resource_logs)
            .flat_map(|resource| &resource.scope_logs);
        scopes.flat_map(|scope| scope.log_records.clone()).collect()
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock();
        let scopes = requests
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Waits until so many spans are there.
    pub(super) async fn wait(&self, spans: usize) -> Vec<Span> {
        let began = Instant::now();
        while self.spans().len() < spans && began.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let got = self.spans();
        assert_eq!(got.len(), spans, "{got:#?}");
        got
    }
}

/// A collector that takes OTLP over gRPC.
pub(super) async fn grpc(at: impl tokio::net::ToSocketAddrs) -> (SocketAddr, Got) {
    let (got, listener) = (Got::default(), TcpListener::bind(at).await.unwrap());
    let addr = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(got.clone()))
        .add_service(LogsServiceServer::new(got.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (addr, got)
}

/// One that takes it over HTTP.
pub(super) async fn http1() -> (SocketAddr, Got) {
    let got = Got::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let taken = got.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let taken = taken.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let taken = taken.clone();
                async move { Ok::<_, Infallible>(post(&taken, request).await) }
            });
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (addr, got)
}

async fn post(taken: &Got, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(parts.uri.path(), "/v1/traces");
    assert_eq!(parts.headers["content-type"], "application/x-protobuf");
    taken.heads.lock().push(format!("{:?}", parts.headers));
    let message = ExportTraceServiceRequest::decode(body).unwrap();
    taken.requests.lock().push(message);
    Response::new(Full::new(Bytes::new()))
}

/// From now on the pod's proxy sends its spans, and lines of its access log.
pub(super) fn export(pod: &Pod) {
    let (connector, opened) = weft_proxy::connector();
    let proxy = Arc::clone(&pod.proxy);
    tokio::spawn(weft_proxy::serve_to_collector(Arc::clone(&proxy), opened));
    for signal in [Signal::Spans, Signal::Logs] {
        let connector = connector.clone();
        let connect = move |to| connector.clone().connect(to);
        let telemetry = Arc::clone(&proxy.telemetry);
        tokio::spawn(weft_proxy::export_telemetry(telemetry, signal, connect));
    }
}

/// The value of an attribute of a span.
pub(super) fn text(span: &Span, key: &str) -> Option<String> {
    value(&span.attributes, key)
}

/// The value of an attribute.
pub(super) fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|one| one.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
