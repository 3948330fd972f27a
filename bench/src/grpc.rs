//! The server of gRPC and of echoed bodies, over HTTP/2 without TLS.
//!
//! | path | asks for | answer |
//! |---|---|---|
//! | `/bench.Echo/Unary` | one message | the same |
//! | `/bench.Echo/Both` | messages | each one as it comes |
//! | `/bench.Echo/Collect` | [`STREAM`] bytes of messages | one empty message |
//! | `/bench.Echo/Produce` | one message | [`STREAM`] bytes of messages |
//! | any other | a body | the same |
//!
//! A gRPC call that brings anything else is answered without a message. So a
//! client that knows nothing of gRPC's status, but counts bytes, sees it fail.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use anyhow::Result;
use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::namespaces::Namespace;

/// Whether it is compressed, then its length.
const PREFIX: usize = 5;
/// No compression, length 0.
pub(crate) const EMPTY_MESSAGE: [u8; PREFIX] = [0; PREFIX];
/// Messages of a stream in one direction, and the content of each.
pub(crate) const STREAMED: usize = 1000;
pub(crate) const STREAMED_LENGTH: u32 = 1024;
/// All bytes of such a stream.
pub(crate) const STREAM: usize = STREAMED * framed(STREAMED_LENGTH);

const SERVICE: &str = "/bench.Echo/";
/// gRPC's numbers.
pub(crate) const OK: HeaderValue = HeaderValue::from_static("0");
const INVALID_ARGUMENT: HeaderValue = HeaderValue::from_static("3");

pub(crate) type GrpcBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// Bytes of a message of this length on the wire.
pub(crate) const fn framed(length: u32) -> usize {
    PREFIX + length as usize
}

/// A message of this length as it is on the wire.
pub(crate) fn message(length: u32) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(length.to_be_bytes());
    message.resize(framed(length), b'x');
    message
}

/// Serves `port` in the namespace on a thread of its own, as long as the process
/// lives.
pub(crate) fn start(namespace: &Namespace, port: u16) -> Result<()> {
    serve(namespace.within(|| Ok(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?))?)
}

pub(crate) fn serve(listener: std::net::TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("grpc".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                while let Ok((stream, _)) = listener.accept().await {
                    // A message that waits for an acknowledgement would be the
                    // server's delay, not the proxies'.
                    let _ = stream.set_nodelay(true);
                    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer));
                    tokio::spawn(serving);
                }
            });
        })?;
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<GrpcBody>, hyper::Error> {
    let (head, body) = request.into_parts();
    let Some(method) = head.uri.path().strip_prefix(SERVICE) else {
        let body = body.collect().await?.to_bytes();
        return Ok(Response::new(whole(body)));
    };
    if method == "Both" {
        return Ok(grpc(sent_back(body).boxed_unsync(), OK));
    }
    let sent = body.collect().await?.to_bytes();
    let answer = match (method, messages(sent.clone())) {
        ("Unary", Some(1)) => Some(whole(sent)),
        ("Collect", Some(STREAMED)) if sent.len() == STREAM => {
            Some(whole(Bytes::from_static(&EMPTY_MESSAGE)))
        }
        ("Produce", Some(1)) => Some(produced()),
        _ => None,
    };
    Ok(match answer {
        Some(body) => grpc(body, OK),
        None => grpc(whole(Bytes::new()), INVALID_ARGUMENT),
    })
}

/// An answer whose trailers say how the call went.
pub(crate) fn grpc(body: GrpcBody, status: HeaderValue) -> Response<GrpcBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status);
    let ended = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(ended.boxed_unsync());
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

pub(crate) fn whole(body: Bytes) -> GrpcBody {
    Full::new(body).map_err(never).boxed_unsync()
}

/// Without the empty frame with which clients of gRPC end their half: in a response,
/// which ends with trailers, it means nothing, and Envoy takes it for a flood.
fn sent_back<B>(body: B) -> impl Body<Data = Bytes, Error = B::Error>
where
    B: Body<Data = Bytes>,
{
    let says_something = |frame: &Frame<Bytes>| {
        let empty = frame.data_ref().is_some_and(Bytes::is_empty);
        std::future::ready(!empty)
    };
    StreamBody::new(BodyStream::new(body).try_filter(says_something))
}

/// One DATA frame for each message, as servers of gRPC send them.
fn produced() -> GrpcBody {
    let message = Bytes::from(message(STREAMED_LENGTH));
    let frames = std::iter::repeat_n(message, STREAMED).map(|message| Ok(Frame::data(message)));
    StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
}

fn never(never: Infallible) -> hyper::Error {
    match never {}
}

/// How many messages these bytes hold, if the last one is whole.
fn messages(mut bytes: Bytes) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        bytes.try_get_u8().ok()?;
        let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
        if length > bytes.len() {
            return None;
        }
        bytes.advance(length);
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use anyhow::Result;
    use bytes::Bytes;
    use futures::TryStreamExt;
    use http::Request;
    use http_body_util::{BodyStream, StreamBody};
    use hyper::body::Frame;

    use super::{
        EMPTY_MESSAGE, STREAM, STREAMED, STREAMED_LENGTH, message, messages, sent_back, serve,
    };

    #[test]
    fn a_message_without_its_end_is_none() {
        let stream = message(STREAMED_LENGTH).repeat(STREAMED);
        assert_eq!(stream.len(), STREAM);
        assert_eq!(messages(stream.clone().into()), Some(STREAMED));
        for end in [1, STREAM - 1, STREAM - STREAMED_LENGTH as usize - 1] {
            assert_eq!(messages(Bytes::copy_from_slice(&stream[..end])), None);
        }
        assert_eq!(messages(Bytes::new()), Some(0));
    }

    #[tokio::test]
    async fn an_empty_frame_is_not_sent_back() {
        let frames = ["one", "", "two"].map(|data| Ok::<_, Infallible>(Frame::data(data.into())));
        let body = StreamBody::new(futures::stream::iter(frames));
        let mut stream = BodyStream::new(Box::pin(sent_back(body)));
        let mut seen: Vec<Bytes> = Vec::new();
        while let Some(frame) = stream.try_next().await.unwrap() {
            seen.extend(frame.into_data());
        }
        assert_eq!(seen, ["one", "two"]);
    }

    /// Length of the answer's body, and gRPC's status.
    async fn call(
        target: std::net::SocketAddr,
        path: &str,
        body: Bytes,
    ) -> Result<(usize, String)> {
        let socket = tokio::net::TcpStream::connect(target).await?;
        let (sender, connection) = h2::client::handshake(socket).await?;
        tokio::spawn(connection);
        let request = Request::post(format!("http://web{path}")).body(())?;
        let (answer, mut sending) = sender.ready().await?.send_request(request, false)?;
        sending.send_data(body, false)?;
        sending.send_data(Bytes::new(), true)?;
        let mut body = answer.await?.into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            length += data.len();
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        let status = trailers.get("grpc-status").map(|value| value.to_str());
        Ok((length, status.transpose()?.unwrap_or_default().to_owned()))
    }

    #[tokio::test]
    async fn short_grpc_call_is_answered_without_message() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        serve(listener).unwrap();
        let hundred = message(100);
        let stream = message(STREAMED_LENGTH).repeat(STREAMED);
        for (path, body, answer) in [
            ("/bench.Echo/Unary", hundred.clone(), hundred.len()),
            ("/bench.Echo/Collect", stream, EMPTY_MESSAGE.len()),
            ("/bench.Echo/Produce", EMPTY_MESSAGE.to_vec(), STREAM),
        ] {
            let body = Bytes::from(body);
            let short = body.slice(..body.len() - 1);
            let whole = call(target, path, body).await.unwrap();
            assert_eq!(whole, (answer, "0".to_owned()), "{path}");
            let cut = call(target, path, short).await.unwrap();
            assert_eq!(cut, (0, "3".to_owned()), "{path}");
        }
        let both = call(target, "/bench.Echo/Both", hundred.clone().into()).await;
        assert_eq!(both.unwrap(), (hundred.len(), "0".to_owned()));
        let echoed = call(target, "/bench-echo", hundred.clone().into()).await;
        assert_eq!(echoed.unwrap(), (hundred.len(), String::new()));
    }
}
