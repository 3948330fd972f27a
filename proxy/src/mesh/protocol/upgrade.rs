//! An upgrade between two proxies: a CONNECT stream, whose head holds the application's own.
//!
//! By POST the request may have a body. It comes first on the stream, and the head has its number
//! of bytes, in a header of ours: `Content-Length` would be that of the stream, which ends with the
//! other protocol. The calling proxy has all of it before it opens the stream and sends nothing
//! more before the answer, so what is behind it belongs to the other protocol.
//!
//! A proxy that knows upgrades by GET alone refuses the name of the protocol. A proxy that knows
//! both marks whatever it answers itself, so a refusal without the mark proves that no application
//! saw the request, and it goes without the upgrade, as it went to such a proxy before.

use http::header::HeaderMap;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use policy::reason::Reason;

use super::{
    AppHttp, AppPort, BY_POST, Malformed, NO_HOST, PeerRequest, PeerResponse, RequestKind, TUNNEL,
    Transport, head_of, only,
};
use crate::http::head::{UPGRADE_BODY, number};
use crate::http::header_names::{BODY, STATUS, TARGET, UNSENT, UPGRADE_TO};
use crate::http::headers::without_http;
use crate::http::received::{acceptable, authority_of};
use crate::http::refusal::reason_in;

const NO_UPGRADE: Malformed = Malformed(
    "CONNECT without weft-target, or without a weft-upgrade to another protocol than HTTP",
);
const NO_LENGTH: Malformed =
    Malformed("an upgrade by POST says in weft-body how long its body is, and one by GET has none");

impl PeerRequest {
    /// The head of its stream. `body`: bytes that come first on it.
    pub(super) fn upgrade_head(
        parts: &Parts,
        port: AppPort,
        to: &HeaderValue,
        body: usize,
    ) -> Result<Parts, Malformed> {
        let posts = parts.method == Method::POST;
        if !posts && (parts.method != Method::GET || body > 0) {
            return Err(Malformed(
                "only a GET without a body and a POST ask for an upgrade",
            ));
        }
        let target = parts.uri.path_and_query();
        let target = target.map_or("/", PathAndQuery::as_str);
        let target = HeaderValue::from_str(target)
            .map_err(|_| Malformed("the request target cannot be sent on"))?;
        let mut uri = http::uri::Parts::default();
        uri.authority = Some(authority_of(parts).ok_or(NO_HOST)?);
        let protocol = if posts {
            BY_POST
        } else {
            AppHttp::Http1.label()
        };
        let mut mesh = head_of(parts, port, protocol);
        // Of the stream it would be: the peer would take no more.
        mesh.headers.remove(header::CONTENT_LENGTH);
        mesh.headers.insert(UPGRADE_TO, to.clone());
        mesh.headers.insert(TARGET, target);
        if posts {
            mesh.headers.insert(BODY, HeaderValue::from(body));
        }
        mesh.method = Method::CONNECT;
        mesh.uri = Uri::from_parts(uri).map_err(|_| NO_HOST)?;
        Ok(mesh)
    }

    /// Back to the request that the application on the other side made, by GET or POST.
    pub(super) fn decode_upgrade(
        mut parts: Parts,
        port: AppPort,
        transport: Transport,
        method: Method,
    ) -> Result<Self, Malformed> {
        if transport == Transport::Http1 {
            return Err(TUNNEL);
        }
        acceptable(&parts).map_err(Malformed)?;
        let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
        if lengths.any(|length| length.as_bytes() != b"0") {
            return Err(Malformed("the stream of an upgrade has no length"));
        }
        let posts = method == Method::POST;
        let body = match (only(&mut parts.headers, &BODY)?, posts) {
            (None, false) => 0,
            (Some(length), true) => number::<usize>(&length)
                .filter(|length| *length <= UPGRADE_BODY)
                .ok_or(NO_LENGTH)?,
            _ => return Err(NO_LENGTH),
        };
        let to = only(&mut parts.headers, &UPGRADE_TO)?.ok_or(NO_UPGRADE)?;
        let mut listed = HeaderMap::with_capacity(1);
        listed.insert(UPGRADE_TO, to);
        let to = without_http(listed.get_all(UPGRADE_TO)).ok_or(NO_UPGRADE)?;
        let target = only(&mut parts.headers, &TARGET)?.ok_or(NO_UPGRADE)?;
        let target = PathAndQuery::try_from(target.as_bytes())
            .map_err(|_| Malformed("weft-target is no request target"))?;
        let host = parts
            .uri
            .authority()
            .and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        if let Some(host) = host {
            parts.headers.insert(header::HOST, host);
        }
        if posts {
            let length = HeaderValue::from(body);
            parts.headers.insert(header::CONTENT_LENGTH, length);
        }
        parts.method = method;
        parts.uri = Uri::from(target);
        Ok(Self::Upgrade {
            port,
            to,
            body,
            parts,
        })
    }
}

/// The answer to an upgrade by POST, marked as that of a proxy which knows them: those of its
/// application are, and what it has not sent.
pub(crate) fn marked<B>(response: Response<B>) -> Response<B> {
    let map = response.headers();
    if map.contains_key(STATUS) || map.contains_key(UNSENT) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let parts = PeerResponse::Answered(parts).encode(RequestKind::Upgrade);
    Response::from_parts(parts, body)
}

/// Whether a proxy that knows no upgrade by POST answers one: no application has seen it.
pub(crate) fn is_unknown<B>(response: &Response<B>) -> bool {
    let map = response.headers();
    response.status() == StatusCode::BAD_REQUEST
        && reason_in(map) == Some(Reason::BadRequest)
        && !map.contains_key(STATUS)
        && !map.contains_key(UNSENT)
}
