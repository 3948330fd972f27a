//! Sends one request to one address and reports, when it fails, whether the application can have
//! seen it.
//!
//! Claims: attack-16, attack-82

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use policy::reason::Reason;
use weft_proxy_net::abandon_limiter::ConnectGuard;
use weft_proxy_net::connect::ConnectTimeout;

use crate::body::Body;
use crate::client::bodies::{AnswerGuard, GuardedBody, gated};
use crate::client::dedicated::ResponseBody;
use crate::client::multiplexed::{Multiplexed, Sends, StreamPermit};
use crate::client::{Clients, give_back};
use crate::deadline;
use crate::failure::{Failure, StreamReset};
use crate::head::{HEADER_BYTES, HEADER_COUNT};
use crate::http2::SendError;
use crate::incoming::IncomingBody;
use crate::received::written_target;
use crate::replay::Replay;

/// What hyper calls a head that is too large, of an answer.
const TOO_LARGE: &str = "the head of the answer is too large or has more than 100 fields, or its \
                         Content-Length is larger than any body";
const _: () = assert!(HEADER_COUNT == 100, "is said above");

/// Bytes of a head that a server of HTTP/2 is sent, as that counts them: Python's h2 ends the
/// connection beyond 64 KiB, and hyper beyond four times its 16 KiB. A length may still be
/// added.
const MOST_LISTED: usize = HEADER_BYTES as usize - 128;
/// What a field counts beside its name and value (RFC 9113, 6.5.2).
const LISTED_FIELD: usize = 32;

/// An answer and what has to live until its body ends.
#[derive(Debug)]
pub struct UpstreamResponse {
    pub response: Response<ResponseBody>,
    /// The sending side, where the stream was opened for bytes both ways.
    pub out: Option<SendStream<Bytes>>,
    pub permit: Option<StreamPermit>,
    /// From an open connection to the head of the answer. The cost of opening does not show how
    /// fast the endpoint serves the next request.
    pub took: Duration,
}

/// Sends over a shared HTTP/2 connection.
///
/// # Errors
/// [`Failure::ConnectionClosed`] when the connection takes no more, [`Failure::NotSent`]
/// when the server refused the stream.
pub fn multiplexed(
    peer: &Multiplexed,
    request: Request<Body>,
) -> impl Future<Output = Result<UpstreamResponse, Failure>> {
    // That of a proxy has its own time.
    multiplexed_within(peer, request, ConnectTimeout::Replaceable)
}

/// The same. `limit`: how long it may wait for a connection to be opened.
async fn multiplexed_within(
    peer: &Multiplexed,
    mut request: Request<Body>,
    limit: ConnectTimeout,
) -> Result<UpstreamResponse, Failure> {
    let sends = Sends::of(request.body());
    let stream = peer.stream_within(sends, limit).await?;
    deadline::renew(&mut request);
    let first = stream.first;
    let (mut sender, mut permit) = stream.into_parts();
    // The body may go on behind its answer, and is as much of a stream by then.
    let of_the_body = (sends == Sends::Bytes).then(|| permit.share());
    let sent = Instant::now();
    let response = sender.send_with(request, of_the_body).await;
    let response = response.map_err(|error| failed(peer, &permit, first, &error))?;
    peer.answered();
    Ok(UpstreamResponse {
        response: response.map(ResponseBody::from),
        out: None,
        permit: Some(permit),
        took: sent.elapsed(),
    })
}

/// Opens a stream of a shared HTTP/2 connection for bytes both ways. `begins`: the first of them,
/// which the answer may depend on.
///
/// # Errors
/// As [`multiplexed`].
pub async fn open(
    peer: &Multiplexed,
    parts: Parts,
    begins: Option<Box<Bytes>>,
) -> Result<UpstreamResponse, Failure> {
    let stream = peer.stream(Sends::Bytes).await?;
    let first = stream.first;
    let (mut sender, permit) = stream.into_parts();
    let sent = Instant::now();
    let mut request = Request::from_parts(parts, ());
    deadline::renew(&mut request);
    let opened = sender.open(request, begins).await;
    let (response, out) = opened.map_err(|error| failed(peer, &permit, first, &error))?;
    peer.answered();
    Ok(UpstreamResponse {
        response: response.map(ResponseBody::from),
        out: Some(out),
        permit: Some(permit),
        took: sent.elapsed(),
    })
}

/// `first`: the connection was opened for the stream.
fn failed(peer: &Multiplexed, permit: &StreamPermit, first: bool, error: &SendError) -> Failure {
    match error {
        SendError::Unsent(cause) => {
            peer.retire(permit);
            if first {
                peer.took_nothing();
            }
            let refuses = first && cause.is_go_away() && !peer.takes_no_further();
            if refuses && !peer.may_take_more() {
                // Its server refuses new connections, another one fares no better, and none is
                // there.
                return Failure::not_sent(Reason::ConnectFailed, error.to_string());
            }
            Failure::connection_closed(error.to_string())
        }
        // The connection is as good as before; its server is busy.
        SendError::Refused(_) => Failure::not_sent(Reason::ConnectionLost, error.to_string()),
        SendError::Malformed(_) => Failure::not_sent(Reason::BadRequest, error.to_string()),
        SendError::Lost(cause) => {
            if first && !cause.is_reset() {
                peer.took_nothing();
            }
            Failure::Lost {
                detail: error.to_string().into(),
                reset: StreamReset::of(cause),
            }
        }
    }
}

fn describe(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        return TOO_LARGE.to_owned();
    }
    std::error::Error::source(error)
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Sends over HTTP/1.1.
///
/// Requests that only read share connections: what the server closed in the same moment is replaced
/// once. Any other request has one of its own. A server may leave a body where it is and take it
/// for the next request, also of another caller; and what is not to be sent twice is lost where the
/// server closes a kept connection in that moment. One is opened only in the turn of its call,
/// where that has one.
///
/// # Errors
/// [`Failure::NotSent`] when nothing was sent, also where it is not the turn of its call, which
/// `beginning` decides.
pub async fn http1(
    clients: &Clients,
    addr: SocketAddr,
    limit: ConnectTimeout,
    parts: &Parts,
    replay: &Replay,
    beginning: Option<&ConnectGuard<'_>>,
) -> Result<UpstreamResponse, Failure> {
    let bodiless = replay.size() == Some(0);
    let upgrades = parts.headers.contains_key(header::UPGRADE);
    if upgrades && !bodiless {
        // Nothing of it is sent before all of it is here: an early switch has to wait. On the heap:
        // hardly any request asks for an upgrade.
        Box::pin(replay.fill()).await?;
    }
    let shares = only_reads(&parts.method) && bodiless;
    let pool = clients.pool(addr);
    // Before its turn it may have gone by a kept connection in vain, and is replaced once only.
    let mut reuse = shares && !beginning.is_some_and(ConnectGuard::has_turn);
    loop {
        let pooled = pool.as_ref().filter(|_| reuse);
        let pooled = pooled.and_then(|pool| pool.reuse());
        // The server may have closed it just now.
        let used = pooled.is_some();
        if let (false, Some(beginning)) = (used, beginning) {
            let begins = beginning.begins();
            begins.map_err(|wait| Failure::not_sent(Reason::Overload, wait.to_string()))?;
        }
        let mut connection = match pooled {
            Some(connection) => connection,
            None if bodiless || upgrades => clients.connect(addr, limit).await?,
            None => clients.connect_for_body(addr, limit).await?,
        };
        let sent = Instant::now();
        let body = replay.take().ok_or_else(|| {
            Failure::lost("the request's body was sent already and is too large to send again")
        })?;
        connection.watch.start_request();
        let mut guard = (!bodiless).then(|| AnswerGuard::new(&connection));
        let body = if bodiless {
            body
        } else {
            gated(body, &connection, replay)
        };
        let request = http1_request(addr, parts.clone(), body, !shares);
        let answer = connection.sender.try_send_request(request);
        let answer = if used {
            answer.await
        } else {
            let opened = tokio::time::Instant::now();
            let waits = || replay.waits_for_sender();
            let answer = clients.first_answer(pool.as_deref(), opened, waits, answer);
            let answer = answer.await;
            connection.answered_first(opened);
            answer
        };
        match answer {
            Ok(mut response) => {
                let takes_all = bodiless || connection.watch.gets_whole_body();
                if switches(parts, &response, takes_all)? {
                    guard.iter_mut().for_each(AnswerGuard::fulfil);
                    let abort = connection.abort.clone();
                    response.extensions_mut().insert(abort);
                } else if shares && !brings_more(&parts.method, &response) {
                    if let Some(pool) = pool {
                        give_back(pool, connection);
                    }
                } else {
                    clients.once.close(&connection.abort);
                }
                return Ok(UpstreamResponse {
                    response: response.map(|body| ResponseBody::from(answer_body(body, guard))),
                    out: None,
                    permit: None,
                    took: sent.elapsed(),
                });
            }
            Err(mut error) => {
                let unsent = error.take_message().is_some();
                let error = error.into_error();
                // A part of an answer proves that the request was taken.
                let silent = closed_silently(&error) && !connection.watch.has_received();
                if used && (unsent || silent) {
                    reuse = false;
                    continue;
                }
                return Err(if unsent {
                    Failure::not_sent(Reason::ConnectFailed, describe(&error))
                } else {
                    Failure::lost(describe(&error))
                });
            }
        }
    }
}

fn answer_body(body: Incoming, guard: Option<AnswerGuard>) -> IncomingBody {
    match guard {
        Some(guard) => IncomingBody::Watched(GuardedBody::new(body, guard).boxed_unsync()),
        None => body.into(),
    }
}

/// True when the server switches protocols; it may where the request offered that, once it
/// `takes_all` of the request, and must encode what it answers in a way that is known.
fn switches<B>(parts: &Parts, response: &Response<B>, takes_all: bool) -> Result<bool, Failure> {
    let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
    if switched && !parts.headers.contains_key(header::UPGRADE) {
        return Err(Failure::lost("the server switched protocols unasked"));
    }
    if switched && !takes_all {
        // hyper drops what it has not written by then, and other bytes would take its place.
        let detail = "the server switched protocols before it took the request's body";
        return Err(Failure::lost(detail));
    }
    let encoding = response.headers().get(header::TRANSFER_ENCODING);
    let chunked = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if encoding.is_some_and(|encoding| !chunked(encoding)) {
        let detail = "the server encoded its answer in an unknown way";
        return Err(Failure::lost(detail));
    }
    Ok(switched)
}

/// Sends over HTTP/2 without TLS. `limit`: how long it may wait for a connection to be opened.
///
/// # Errors
/// As [`multiplexed`], and [`Failure::Refused`] for a head that may end the connection.
pub async fn http2(
    application: &Multiplexed,
    parts: &Parts,
    body: Body,
    limit: ConnectTimeout,
) -> Result<UpstreamResponse, Failure> {
    let mut parts = parts.clone();
    parts.version = Version::HTTP_2;
    if parts.uri.authority().is_some() {
        // Rules and splits saw the host here; on the wire it would be there
        // twice, which some servers refuse.
        parts.headers.remove(header::HOST);
    }
    if listed(&parts) > MOST_LISTED {
        // What callers may send is bounded as well; the proxy then adds the caller and the parent
        // request.
        let detail = "the head, with what the proxy adds, is too large for HTTP/2: 64 KiB, \
                      of which each field takes 32 bytes more than its name and value";
        return Err(Failure::refused(Reason::BadRequest, detail));
    }
    multiplexed_within(application, Request::from_parts(parts, body), limit).await
}

/// The size of a head as HTTP/2 counts it.
fn listed(parts: &Parts) -> usize {
    let target = &parts.uri;
    let pseudo = [
        (":method", Some(parts.method.as_str())),
        (":scheme", target.scheme_str()),
        (":authority", target.authority().map(Authority::as_str)),
        (":path", target.path_and_query().map(PathAndQuery::as_str)),
    ];
    let field = |name: usize, value: usize| name + value + LISTED_FIELD;
    let pseudo = pseudo.iter().map(|(name, value)| {
        let value = value.map_or(0, str::len);
        field(name.len(), value)
    });
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| field(name.as_str().len(), value.len()));
    pseudo.chain(fields).sum()
}

/// Whether the server may send content behind an answer that has none by its kind: the next request
/// on the connection would take that for its own.
fn brings_more(method: &Method, response: &Response<Incoming>) -> bool {
    let headers = response.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    let announced = headers.contains_key(header::TRANSFER_ENCODING)
        || length.is_some_and(|length| length.as_bytes() != b"0");
    let without = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    *method == Method::HEAD || (without && announced)
}

fn closed_silently(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_reset(error)
}

fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            return matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
            );
        }
        source = cause.source();
    }
    false
}

/// PUT and DELETE do the same twice, and yet not where another client writes in between.
const fn only_reads(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    )
}

/// A target as HTTP/1.1 has it and a Host header, whatever version the request came in. `alone`:
/// the server is to close the connection behind its answer, so that it takes nothing else from it.
fn http1_request(addr: SocketAddr, mut parts: Parts, body: Body, alone: bool) -> Request<Body> {
    parts.version = Version::HTTP_11;
    if alone && !parts.headers.contains_key(header::CONNECTION) {
        let close = HeaderValue::from_static("close");
        parts.headers.insert(header::CONNECTION, close);
    }
    if let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(header::HOST, host);
    }
    // HTTP/1.0 needs none, HTTP/1.1 does.
    if !parts.headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(&addr.to_string())
    {
        parts.headers.insert(header::HOST, host);
    }
    parts.uri = written_target(&parts);
    // Without either header a GET would be sent without its body.
    let has_body = !http_body::Body::is_end_stream(&body);
    // A length without a body would make one of the next request, also of another caller.
    let length = parts.headers.get(header::CONTENT_LENGTH);
    if !has_body && length.is_some_and(|length| length.as_bytes() != b"0") {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    if has_body && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        );
    }
    let mut request = Request::from_parts(parts, body);
    deadline::renew(&mut request);
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    #[test]
    fn nonzero_length_of_empty_body_is_not_sent() {
        let addr = SocketAddr::from(([10, 0, 0, 1], 80));
        let sent = |length: &'static str, body: Body| {
            let request = Request::get("/").header(header::CONTENT_LENGTH, length);
            let parts = request.body(()).unwrap().into_parts().0;
            let sent = http1_request(addr, parts, body, false);
            let length = sent.headers().get(header::CONTENT_LENGTH).cloned();
            length.map(|length| length.to_str().unwrap().to_owned())
        };
        assert_eq!(sent("40", body::empty()), None);
        assert_eq!(sent("0", body::empty()).as_deref(), Some("0"));
        assert_eq!(sent("2", body::text("ok")).as_deref(), Some("2"));
    }

    #[test]
    fn switch_before_the_whole_body_is_not_followed() {
        let request = Request::post("/").header(header::UPGRADE, "tcp");
        let parts = request.body(()).unwrap().into_parts().0;
        for (status, takes_all, followed) in [
            (101_u16, true, Some(true)),
            (101, false, None),
            (200, false, Some(false)),
        ] {
            let response = Response::builder().status(status).body(()).unwrap();
            let switched = switches(&parts, &response, takes_all).ok();
            assert_eq!(switched, followed, "{status} {takes_all}");
        }
    }

    #[test]
    fn a_head_counts_as_servers_of_http2_count_it() {
        let request = Request::get("http://s/a?b")
            .header("x", "12")
            .header("x", "");
        let parts = request.body(()).unwrap().into_parts().0;
        let pseudo = ":methodGET:schemehttp:authoritys:path/a?b".len();
        assert_eq!(listed(&parts), pseudo + "x12x".len() + 6 * 32);
    }
}
