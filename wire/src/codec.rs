//! Protobuf with a bound on what a message becomes.
//!
//! An empty message takes two bytes as one of many, and some hundred as a value: 4 MiB that a
//! proxy sends could be 800 MiB of edges before anybody looks at them. So a message is asked
//! what it would become before anything of it is decoded.
//!
//! Knows no message: the generated code names this codec, and what each message may become is
//! said in `bounds`.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What is counted of a message before it is decoded.
pub(crate) trait Bounded {
    /// # Errors
    /// When it would become too large.
    fn check(_encoded: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Encodes as prost does, and decodes what is [`Bounded`].
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
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::default()))
    }
}

/// See [`Codec`].
#[derive(Debug)]
pub(crate) struct BoundedDecoder<U>(ProstDecoder<U>);

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
