//! Sends one message to the collector, over a connection of its own, and reads the response.
//!
//! gRPC and HTTP differ in what is around the message. Both are spoken by hyper, because
//! a message needs neither streams nor a channel that reconnects.

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::trace::context::{self, Onward};
use policy::trace::{Collector, Format, Otlp};
use prost::Message as _;
use tokio::net::TcpStream;

use crate::http::body::{Body, BoxError};
use crate::http::client::dedicated::connection::Wire;
use crate::http::grpc::grpc_status;
use crate::telemetry::trace::signal::Signal;
use crate::telemetry::trace::{OWN, otlp};

/// Bytes of an answer that are read; one that is longer is none.
const ANSWER: usize = 64 * 1024;

/// What a collector answered.
struct CollectorAnswer {
    head: http::response::Parts,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

/// Sends a message, and gives how much of it the collector did not take.
pub(super) async fn send(
    collector: &Collector,
    stream: TcpStream,
    signal: Signal,
    message: Vec<u8>,
) -> Result<usize, BoxError> {
    let answer = match collector.protocol() {
        Otlp::Grpc => over_http2(stream, grpc(collector, signal, &message)?).await?,
        Otlp::Http => over_http1(stream, post(collector, signal, message)?).await?,
    };
    let body = match collector.protocol() {
        Otlp::Grpc => grpc_message(&answer)?,
        Otlp::Http => http_message(&answer)?,
    };
    // An unreadable response means at least that all was taken.
    let response = otlp::Response::decode(body).unwrap_or_default();
    let rejected = response
        .partial_success
        .map_or(0, |response| response.rejected);
    Ok(usize::try_from(rejected).unwrap_or(0))
}

fn grpc(
    collector: &Collector,
    signal: Signal,
    message: &[u8],
) -> Result<Request<Full<Bytes>>, BoxError> {
    let mut body = BytesMut::with_capacity(5 + message.len());
    // Not compressed.
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len())?);
    body.put_slice(message);
    let target = format!("http://{}{}", collector.authority(), signal.grpc_path());
    let request = Request::post(target)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers");
    Ok(untraced(request.body(Full::new(body.freeze()))?))
}

fn post(
    collector: &Collector,
    signal: Signal,
    message: Vec<u8>,
) -> Result<Request<Full<Bytes>>, BoxError> {
    let request = Request::post(&*signal.http_path(collector))
        .header(header::HOST, collector.authority())
        .header(header::CONTENT_TYPE, "application/x-protobuf");
    Ok(untraced(request.body(Full::new(message.into()))?))
}

/// Marks it as unrecorded: else each span would make another one, here and at the collector's own
/// proxy.
fn untraced(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    const AGENT: &str = concat!("weft-proxy/", env!("CARGO_PKG_VERSION"));
    let map = request.headers_mut();
    map.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
    let onward = Onward {
        trace: *OWN,
        span: rand::random::<u64>().max(1),
        sampled: false,
    };
    context::begin(map, onward, &[Format::TraceContext]);
    request
}

async fn over_http2(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<CollectorAnswer, BoxError> {
    // Of the type that probes have: it is in the program once.
    let stream: Box<dyn Wire> = Box::new(stream);
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    let mut connection = pin!(connection);
    let exchange = async { whole(sender.send_request(request).await?).await };
    tokio::select! {
        biased;
        answer = exchange => answer,
        ended = &mut connection => Err(cut_off(ended)),
    }
}

async fn over_http1(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<CollectorAnswer, BoxError> {
    // Of the types that a dedicated connection has: what speaks HTTP/1.1 is in the program
    // once for each pair of stream and body.
    let stream: Box<dyn Wire> = Box::new(stream);
    let request: Request<Body> =
        request.map(|body| body.map_err(|never| match never {}).boxed_unsync());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let exchange = async { whole(sender.send_request(request).await?).await };
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            // It may have ended with the answer.
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}

fn cut_off(ended: hyper::Result<()>) -> BoxError {
    match ended {
        Ok(()) => "the connection ended before the answer".into(),
        Err(error) => error.into(),
    }
}

async fn whole(response: Response<Incoming>) -> Result<CollectorAnswer, BoxError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER).collect().await?;
    let trailers = body.trailers().cloned();
    Ok(CollectorAnswer {
        head,
        body: body.to_bytes(),
        trailers,
    })
}

fn grpc_message(answer: &CollectorAnswer) -> Result<Bytes, BoxError> {
    let trailers = answer.trailers.as_ref();
    let status = trailers
        .and_then(grpc_status)
        .or_else(|| grpc_status(&answer.head.headers));
    match status {
        Some(0) => Ok(answer.body.slice(answer.body.len().min(5)..)),
        Some(code) => Err(format!("the collector answered grpc-status {code}").into()),
        None => Err(refused(answer)),
    }
}

fn http_message(answer: &CollectorAnswer) -> Result<Bytes, BoxError> {
    if answer.head.status.is_success() {
        Ok(answer.body.clone())
    } else {
        Err(refused(answer))
    }
}

/// By the collector, or by the mesh before it.
fn refused(answer: &CollectorAnswer) -> BoxError {
    let reason = answer.head.headers.get(crate::http::headers::REASON);
    let reason = reason.and_then(|reason| reason.to_str().ok());
    let status = answer.head.status.as_u16();
    match reason {
        Some(reason) => format!("the collector was not reached: {status} {reason}").into(),
        None => format!("the collector answered {status}").into(),
    }
}
