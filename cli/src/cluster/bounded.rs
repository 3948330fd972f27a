//! Reads response bodies up to a bound, so that an endless response cannot fill the memory.

use std::fmt;

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::client::Body;

/// The error of a response that exceeds this max number of bytes.
#[derive(Debug)]
pub(super) struct TooLong(usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(most) = *self;
        let (number, unit) = match most >> 20 {
            0 => (most >> 10, "KiB"),
            number => (number, "MiB"),
        };
        write!(
            f,
            "the answer is too long to be read, longer than {number} {unit}; ask for less, such as one \
             namespace"
        )
    }
}

impl std::error::Error for TooLong {}

/// The complete body of a response that has at most `most` bytes.
pub(crate) async fn whole(body: Body, most: usize) -> kube::Result<Bytes> {
    let bytes = Limited::new(body, most).collect().await;
    // The error that ended the body is returned itself, not wrapped in another error.
    let bytes = bytes.map_err(|error| match error.downcast::<kube::Error>() {
        Ok(error) => *error,
        Err(error) if error.is::<LengthLimitError>() => {
            kube::Error::Service(Box::new(TooLong(most)))
        }
        Err(error) => kube::Error::Service(error),
    });
    Ok(bytes?.to_bytes())
}
