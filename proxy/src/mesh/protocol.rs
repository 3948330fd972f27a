//! Headers that two proxies send each other.

use http::Response;
use http::header::{HeaderName, HeaderValue};

use crate::http::body::Body;
use crate::mesh::protocol;

// Between two proxies only; none of these ever reaches an application.
/// Container port that a request is for.
pub(crate) const PORT: HeaderName = HeaderName::from_static("weft-port");
/// How the application is to be spoken to: `http1`, `http2`, or [`TCP`].
pub(crate) const PROTOCOL: HeaderName = HeaderName::from_static("weft-protocol");
/// The bodies of the exchange are the bytes of a connection.
pub(crate) const TCP: &str = "tcp";
/// On CONNECT streams: the protocol that the caller asked to upgrade to, and in
/// the answer the one that the application switched to.
pub(crate) const UPGRADE_TO: HeaderName = HeaderName::from_static("weft-upgrade");
/// On CONNECT streams of an upgrade: the request target.
pub(crate) const TARGET: HeaderName = HeaderName::from_static("weft-target");
/// On CONNECT streams of an upgrade: the status that the application answered.
pub(crate) const STATUS: HeaderName = HeaderName::from_static("weft-status");
/// Present when the peer proxy proves that no application saw the request.
pub(crate) const UNSENT: HeaderName = HeaderName::from_static("weft-unsent");

/// Marks an answer as proof that no application saw the request.
pub(crate) fn unsent(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert(protocol::UNSENT, HeaderValue::from_static("1"));
    response
}
