//! A protobuf codec with a bound on the decoded size of a message.
//!
//! An empty message takes two bytes as an element of a list, and some hundred as a value: 4 MiB
//! that a proxy sends could be 800 MiB of edges before any check. So the decoded size of a message
//! is computed before anything of it is decoded.
//!
//! The codec depends on no message: the generated code names it, and `bounds` has the size of each
//! message.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// Bytes that each direction of a call begins with, and how many are sent together. A call
/// may stay for an hour and say little, and there are as many as there are proxies.
const BUFFER: usize = 1024;
const TOGETHER: usize = 16 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(BUFFER, TOGETHER)
}

/// What is counted of a message before it is decoded.
pub(crate) trait Bounded {
    /// # Errors
    /// When it would become too large.
    fn check(_encoded: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Encodes into no more room than it takes, and decodes what is [`Bounded`].
#[derive(Debug)]
pub(crate) struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + 'static,
    U: Message + Default + Bounded + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ExactEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder::default()
    }
}

/// Makes room for a whole message before the first byte of it: a buffer that grows on its
/// way is twice as large in the end, and stays for as long as the call.
#[derive(Debug)]
pub(crate) struct ExactEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for ExactEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, encoded: &mut EncodeBuf<'_>) -> Result<(), Status> {
        encoded.reserve(message.encoded_len());
        message
            .encode(encoded)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// See [`Codec`].
#[derive(Debug)]
pub(crate) struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U> Default for BoundedDecoder<U> {
    fn default() -> Self {
        Self(ProstDecoder::new(buffers()))
    }
}

impl<U: Message + Default + Bounded> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, encoded: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // A message is in one piece once it is there.
        let whole = bytes::Buf::chunk(encoded);
        if whole.len() < bytes::Buf::remaining(encoded) {
            return Err(Status::internal("a message is in several pieces"));
        }
        U::check(whole).map_err(Status::invalid_argument)?;
        self.0.decode(encoded)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use tonic::codec::{Codec as _, EncodeBody};
    use tonic::codegen::{Body as _, tokio_stream};

    use super::*;
    use crate::v1;

    /// Whether a message is compressed, and its length.
    const HEAD: usize = 5;

    /// A message of so many parts of a kilobyte.
    fn message(parts: usize) -> v1::ToProxy {
        let batch = v1::Batch {
            remove: vec!["x".repeat(1000); parts],
            ..v1::Batch::default()
        };
        v1::ToProxy {
            message: Some(v1::to_proxy::Message::Batch(batch)),
        }
    }

    /// What is sent first where all of these wait, and the memory that it lies in, in bytes.
    fn first(messages: Vec<v1::ToProxy>) -> (usize, usize) {
        let encoder = Codec::<v1::ToProxy, v1::FromProxy>::default().encoder();
        let messages = tokio_stream::iter(messages.into_iter().map(Ok::<_, Status>));
        let mut body = Box::pin(EncodeBody::new_client(encoder, messages, None, None));
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) else {
            panic!("nothing is sent")
        };
        // It has a part of the same memory.
        drop(body);
        let sent = frame.into_data().unwrap();
        let length = sent.len();
        let all = sent.try_into_mut().expect("it has no other owner");
        (length, all.capacity())
    }

    #[test]
    fn message_buffer_starts_with_kilobyte_or_complete_message() {
        assert_eq!(first(vec![v1::ToProxy::default()]), (HEAD, 1024));
        let large = message(40);
        let length = HEAD + large.encoded_len();
        assert_eq!(first(vec![large]), (length, length), "it grew on its way");
    }

    #[test]
    fn messages_are_sent_together_up_to_sixteen_kilobytes() {
        let four = HEAD + message(4).encoded_len();
        let (sent, _) = first(vec![message(4); 10]);
        assert_eq!(sent, (16 * 1024_usize).div_ceil(four) * four);
    }
}
