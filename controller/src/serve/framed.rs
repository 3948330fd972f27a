//! The gRPC call of a control stream, written to hold no memory while it is idle.
//!
//! tonic keeps one buffer for all that a call sends, as large as the largest message, until the
//! call ends: the first batch, which is the largest, would stay for as long as its proxy does.
//! Here each message gets memory of its own size, which is freed with its last byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use http::{HeaderMap, Request as HttpRequest, header};
use hyper::body::{Body as HttpBody, Frame};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Request, Status};
use wire::v1;
use wire::v1::control_server::Control;

/// Bytes before each message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// Where the messages of a stream are put. They wait boxed: a queue makes room for 32 of
/// them before the first comes.
pub(super) type Outbox = mpsc::Sender<Result<Box<v1::ToProxy>, Status>>;

/// What a stream sends.
#[derive(Debug)]
pub(crate) struct ToProxies(mpsc::Receiver<Result<Box<v1::ToProxy>, Status>>);

impl ToProxies {
    /// A queue of so many.
    pub(super) fn queue(bound: usize) -> (Outbox, Self) {
        let (outbox, sent) = mpsc::channel(bound);
        (outbox, Self(sent))
    }
}

impl Stream for ToProxies {
    type Item = Result<v1::ToProxy, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.0.poll_recv(cx));
        Poll::Ready(next.map(|sent| sent.map(|message| *message)))
    }
}

/// Serves a call of Stream, whose messages have so many bytes at most.
pub(super) async fn call(
    control: &impl Control<StreamStream = ToProxies>,
    request: HttpRequest<Body>,
    most: usize,
) -> http::Response<Body> {
    let request = request.map(|body| wire::from_proxy(body, most));
    match control.stream(Request::from_http(request)).await {
        Ok(answer) => {
            let body = Body::new(FramedMessages::of(answer.into_inner()));
            let mut answer = http::Response::new(body);
            let headers = answer.headers_mut();
            headers.insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
            answer
        }
        Err(status) => status.into_http(),
    }
}

/// The body of an answer: a frame for each message, and at the end how it ended.
struct FramedMessages {
    messages: ToProxies,
    over: bool,
}

impl FramedMessages {
    fn of(messages: ToProxies) -> Self {
        Self {
            messages,
            over: false,
        }
    }

    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.over = true;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl HttpBody for FramedMessages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.messages.0.poll_recv(cx));
        let framed = next.map(|sent| sent.and_then(|message| framed(&message)));
        Poll::Ready(Some(match framed {
            Some(Ok(bytes)) => Ok(Frame::data(bytes)),
            Some(Err(status)) => self.end(&status),
            None => self.end(&Status::ok("")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

/// A message as it is sent, in memory of exactly its size.
fn framed(message: &v1::ToProxy) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let Ok(head) = u32::try_from(length) else {
        return Err(Status::out_of_range(format!(
            "a message for a proxy has {length} bytes, and 4 GiB are the most that gRPC carries"
        )));
    };
    let mut bytes = BytesMut::with_capacity(HEAD + length);
    // It is not compressed.
    bytes.put_u8(0);
    bytes.put_u32(head);
    message
        .encode(&mut bytes)
        .map_err(|error| Status::internal(format!("a message was not encoded: {error}")))?;
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;
    use tonic::Code;
    use wire::v1::to_proxy::Message;

    use super::*;

    fn message(id: u64) -> v1::ToProxy {
        v1::ToProxy {
            message: Some(Message::EndAsk(id)),
        }
    }

    #[tokio::test]
    async fn messages_are_framed_and_a_refusal_ends_them() {
        let (outbox, sent) = ToProxies::queue(4);
        let mut body = FramedMessages::of(sent);
        outbox.try_send(Ok(Box::new(message(7)))).unwrap();
        outbox.try_send(Err(Status::aborted("over"))).unwrap();
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data[0], 0, "said to be compressed");
        let length = u32::from_be_bytes(data[1..HEAD].try_into().unwrap());
        assert_eq!(length as usize, data.len() - HEAD);
        assert_eq!(v1::ToProxy::decode(&data[HEAD..]).unwrap(), message(7));
        let trailers = body.frame().await.unwrap().unwrap();
        let trailers = trailers.into_trailers().unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!((status.code(), status.message()), (Code::Aborted, "over"));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn stream_that_ends_says_that_all_is_well() {
        let (outbox, sent) = ToProxies::queue(4);
        let mut body = FramedMessages::of(sent);
        assert!(body.frame().now_or_never().is_none(), "nothing was said");
        drop(outbox);
        let trailers = body.frame().await.unwrap().unwrap();
        let trailers = trailers.into_trailers().unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.code(), Code::Ok);
    }

    #[test]
    fn outgoing_message_buffer_has_exactly_its_size() {
        let long = v1::ToProxy {
            message: Some(Message::Batch(v1::Batch {
                remove: vec!["x".repeat(1000); 40],
                ..v1::Batch::default()
            })),
        };
        let bytes = framed(&long).unwrap();
        let bytes = bytes
            .try_into_mut()
            .expect("there is no other handle to it");
        assert_eq!(bytes.capacity(), HEAD + long.encoded_len());
    }

    /// Bytes of what waits in a queue.
    fn of_one<T>(_: &mpsc::Sender<T>) -> usize {
        size_of::<T>()
    }

    #[test]
    fn queues_of_a_silent_stream_are_small() {
        let (outbox, _sent) = ToProxies::queue(1);
        // A queue has a block of 32 intervals from its beginning.
        assert!(of_one(&outbox) <= 16, "{} bytes", of_one(&outbox));
        assert!(size_of::<v1::ToProxy>() > 100, "boxes it for nothing");
    }
}
