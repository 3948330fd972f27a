//! How large a head may be, and what is held of one direction.

use http::HeaderMap;

/// Sum of header names and values, both protocols.
pub(crate) const HEADER_BYTES: u32 = 64 * 1024;

/// What hyper may hold of one direction of HTTP/1.1: a largest head, and no more of a
/// body, where hyper alone would keep 400 KiB.
pub(crate) const BUFFER: usize = MESH_HEADER_BYTES + 16 * 1024;
/// Headers of one message.
pub(crate) const HEADER_COUNT: usize = 100;
/// The same between two proxies, which add some of their own.
pub(crate) const MESH_HEADER_COUNT: usize = HEADER_COUNT + 16;
/// Sum of header names and values between two proxies in HTTP/1.1.
pub(crate) const MESH_HEADER_BYTES: usize = HEADER_BYTES as usize + 16 * 1024;

/// Bytes of the body of a request that asks for an upgrade: all of it is kept while the application
/// may still refuse, and replays keep as much.
pub(crate) const UPGRADE_BODY: usize = 64 * 1024;

/// What a map holds for each field beside its name and value, in bytes: measured with
/// 1 500 fields.
const FIELD: usize = 160;

/// About what a head holds, in bytes.
#[must_use]
pub(crate) fn size(head: &HeaderMap) -> usize {
    head.iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD)
        .sum()
}
