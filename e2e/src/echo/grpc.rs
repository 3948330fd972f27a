//! gRPC without a schema: `/weft.echo.Echo/Unary` and `/Stream` give back the
//! messages they got, byte for byte, and end with trailers.
//!
//! The length-prefixed frames are passed through unparsed, so any message type
//! works. `echo-grpc-status: N` in the request chooses the final status. With `NEXT` the
//! next one answers `/Unary`, with its status; `/Stream` is answered here. A fault delays
//! `/Unary`, and ends it with status 14 in trailers alone, as a server does that is too busy
//! to look at a message.

use anyhow::Context as _;
use futures::stream;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame, Incoming},
};

use super::{
    client::WholeResponse,
    fault::Wrong,
    next::{self, Next},
    response::{self, Body},
};

/// True for gRPC in all its content subtypes.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers `Echo/Unary`, `Echo/Stream` and the standard health check.
pub async fn answer(
    next: Option<&Next>,
    wrong: Option<Wrong>,
    request: Request<Incoming>,
) -> Response<Body> {
    let status = request
        .headers()
        .get(next::GRPC_STATUS_WISH)
        .cloned()
        .unwrap_or(HeaderValue::from_static("0"));
    match request.uri().path() {
        "/weft.echo.Echo/Stream" => respond(request.into_body(), status),
        // One message: wait for the whole request, as a unary handler does.
        "/weft.echo.Echo/Unary" => {
            let (head, body) = request.into_parts();
            let message = whole(body).await;
            if let Some(wrong) = wrong {
                tokio::time::sleep(wrong.delay).await;
                if wrong.status.is_some() {
                    return ended(HeaderValue::from_static("14"), "a fault is set");
                }
            }
            match (message, next) {
                (Ok(message), None) => respond(http_body_util::Full::new(message), status),
                (Ok(message), Some(next)) => match next.ask_grpc(&head, message).await {
                    Ok(answer) => passed_up(answer),
                    Err(_) => ended(HeaderValue::from_static("14"), "NEXT did not answer"),
                },
                (Err(_), _) => ended(HeaderValue::from_static("13"), "the request broke off"),
            }
        }
        // HealthCheckResponse{status: SERVING}: field 1, varint 1.
        "/grpc.health.v1.Health/Check" => respond(
            http_body_util::Full::new(message(&[0x08, 0x01])),
            HeaderValue::from_static("0"),
        ),
        _ => ended(HeaderValue::from_static("12"), "no such method"),
    }
}

/// The answer of the next one, with its status wherever that stands.
fn passed_up(answer: WholeResponse) -> Response<Body> {
    if let Some(status) = answer.headers.get("grpc-status") {
        return ended(status.clone(), "NEXT ended so");
    }
    if answer.body_bytes > answer.body.len() as u64 {
        let status = HeaderValue::from_static("8");
        return ended(status, "the answer of NEXT is longer than is kept of one");
    }
    let status = answer.trailers.get("grpc-status").cloned();
    let unknown = HeaderValue::from_static("2");
    let message = Bytes::from(answer.body);
    respond(
        http_body_util::Full::new(message),
        status.unwrap_or(unknown),
    )
}

/// One uncompressed message with gRPC's five-byte prefix.
pub fn message(payload: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(payload.len() + 5);
    framed.push(0);
    framed.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    framed.extend_from_slice(payload);
    framed.into()
}

async fn whole(body: Incoming) -> anyhow::Result<Bytes> {
    /// gRPC's own default for one message.
    const LIMIT: usize = 4 << 20;
    let limited = http_body_util::Limited::new(body, LIMIT);
    Ok(limited
        .collect()
        .await
        .map_err(anyhow::Error::from_boxed)
        .context("read the message")?
        .to_bytes())
}

fn respond<B>(body: B, status: HeaderValue) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let frames = stream::unfold(Some((body, status)), |state| async {
        let (mut body, status) = state?;
        loop {
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Some((Ok(Frame::data(data)), Some((body, status)))),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => {
                    return Some((Err(anyhow::Error::from_boxed(error.into())), None));
                }
                None => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", status);
                    trailers.insert("echo-trailer", HeaderValue::from_static("at-the-end"));
                    return Some((Ok(Frame::trailers(trailers)), None));
                }
            }
        }
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn ended(status: HeaderValue, message: &'static str) -> Response<Body> {
    let mut response = response::text(http::StatusCode::OK, "");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", status);
    headers.insert("grpc-message", HeaderValue::from_static(message));
    response
}
