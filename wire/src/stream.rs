//! What a proxy sends on its stream, for a server that answers without the generated one.

use tonic::Streaming;
use tonic::body::Body;

use crate::codec::BoundedDecoder;
use crate::v1;

/// The messages in this body, each of so many bytes at most, decoded as the generated
/// server does.
#[must_use]
pub fn from_proxy(body: Body, most: usize) -> Streaming<v1::FromProxy> {
    Streaming::new_request(BoundedDecoder::default(), body, None, Some(most))
}
