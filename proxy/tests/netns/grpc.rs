//! A gRPC application, and a call of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

const STATUS: &str = "grpc-status";
/// A message without anything in it.
const EMPTY: &[u8] = &[0; 5];

/// It answers every call with an empty message and status 0.
pub(super) struct GrpcApp {
    request_count: Arc<AtomicUsize>,
}

impl GrpcApp {
    pub(super) fn on(listener: TcpListener) -> Self {
        let request_count = Arc::<AtomicUsize>::default();
        let log = Arc::clone(&request_count);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let log = Arc::clone(&log);
                let service = service_fn(move |request: Request<Incoming>| {
                    let log = Arc::clone(&log);
                    async move {
                        // A cancelled request does not count.
                        if request.into_body().collect().await.is_ok() {
                            log.fetch_add(1, Relaxed);
                        }
                        let mut trailers = HeaderMap::new();
                        trailers.insert(STATUS, HeaderValue::from_static("0"));
                        let frames = [
                            Ok::<_, Infallible>(Frame::data(Bytes::from_static(EMPTY))),
                            Ok(Frame::trailers(trailers)),
                        ];
                        let body = StreamBody::new(tokio_stream::iter(frames));
                        Response::builder()
                            .header("content-type", "application/grpc")
                            .body(body)
                    }
                });
                tokio::spawn(async move {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { request_count }
    }

    /// Calls that it has seen.
    pub(super) fn request_count(&self) -> usize {
        self.request_count.load(Relaxed)
    }
}

/// One call; whether its status was 0.
pub(super) async fn unary(mut sender: SendRequest<Full<Bytes>>) -> bool {
    let request = Request::post("http://api.shop/a.B/C")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(EMPTY)))
        .unwrap();
    let Ok(answer) = sender.send_request(request).await else {
        return false;
    };
    let (head, body) = answer.into_parts();
    let Ok(body) = body.collect().await else {
        return false;
    };
    let status = body.trailers().unwrap_or(&head.headers).get(STATUS);
    status.is_some_and(|status| status == "0")
}
