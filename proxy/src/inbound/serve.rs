//! Detects the protocol of an inbound connection or tunnel and serves it, if its caller may send
//! anything at all.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use policy::reason::Reason;
use runtime::occupancy::Permit;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::http::head::ReportedHead;
use crate::http::incoming::IncomingBody;
use crate::http::plain_stream::PlainStream;
use crate::http::received::Upgrades;
use crate::http::refusal::NO_REQUEST;
use crate::http::server::{Accepted, Profile, serve as serve_http};
use crate::inbound::authorize::{Expected, expected};
use crate::inbound::connection::Connection;
use crate::inbound::guard::admit_bytes;
use crate::inbound::opaque::relay_bytes;
use crate::inbound::reauthorize::plaintext_forbidden;
use crate::inbound::request::handle_request;
use crate::mesh::protocol::AppHttp;
use crate::net::abandon_limiter::ConnectGuard;
use crate::net::chunk::ChunkIo;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{DETECT_WITHIN, FIRST_LINE_TIMEOUT, SILENCE, Sniffed, sniff_leniently};
use crate::telemetry::call::CallKind;
use crate::telemetry::cell::CallGroup;
use crate::telemetry::labels::Direction;

/// What had come before a time was over is known by so much later, however little time this
/// process got.
const NEXT_LOOK: Duration = Duration::from_millis(10);

/// What a connection turned out to speak.
pub(super) enum Detected {
    Http(Version),
    /// What begins no request, on a port that is declared to carry them.
    NoRequest,
    /// With the connection to the application, if it spoke first.
    Opaque(Option<Prefixed<TcpStream>>),
}

/// The beginning of a request, sent too slowly to be sure, counts as HTTP.
fn spoken(sniffed: Sniffed, begins_as_http: bool, server: Option<Prefixed<TcpStream>>) -> Detected {
    match sniffed {
        Sniffed::Http2 => Detected::Http(Version::HTTP_2),
        Sniffed::Http1 => Detected::Http(Version::HTTP_11),
        Sniffed::Unsure if begins_as_http => Detected::Http(Version::HTTP_11),
        Sniffed::Opaque | Sniffed::Unsure => Detected::Opaque(server),
    }
}

/// Waits for the first bytes of either side. There is no limit: while both are silent nothing
/// is withheld from either, and giving up would let a caller that waits long enough send HTTP
/// past all checks of HTTP.
pub(super) async fn race<S: AsyncRead + Unpin>(
    connection: &Connection,
    stream: &mut Prefixed<S>,
    mut server: Prefixed<TcpStream>,
    connect_guard: Option<&ConnectGuard<'_>>,
) -> std::io::Result<Detected> {
    tokio::select! {
        _ = stream.first_bytes() => {}
        _ = server.first_bytes() => {
            if !server.greets_in_http2().await {
                return Ok(Detected::Opaque(Some(server)));
            }
            connection.note_answer_by(connect_guard);
            stream.first_bytes().await?;
        }
    }
    let sniffed = stream
        .look(tokio::time::Instant::now() + DETECT_WITHIN, sniff_leniently)
        .await?;
    Ok(spoken(sniffed, stream.begins_as_http(), Some(server)))
}

/// Finds out what is spoken.
pub(super) async fn detect<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &Connection,
    stream: &mut Prefixed<S>,
    permit: &Permit,
) -> std::io::Result<Detected> {
    let mut changes = connection.proxy.config.policy_changes();
    let came = tokio::time::Instant::now();
    loop {
        let (declared, silence, sniff) = match connection
            .proxy
            .config
            .inspect(|now| expected(connection, now))
        {
            Expected::Bytes => return Ok(Detected::Opaque(None)),
            Expected::Either => return first_speaker(connection, stream).await,
            Expected::Http {
                declared,
                silence,
                sniff,
            } => (declared, silence, sniff),
        };
        // Nothing is delivered until the protocol is known, so a caller that waits
        // costs nothing else. It may be allowed more by then.
        tokio::select! {
            // Where this thread had no time for long, all of these are ready at once.
            biased;
            first = stream.first_bytes() => first?,
            changed = changes.changed() => {
                if changed.is_ok() {
                    continue;
                }
                false
            }
            () = tokio::time::sleep_until(came + silence) => {
                // One look is at so many connections that this one may be in the next.
                match timeout(NEXT_LOOK, stream.first_bytes()).await {
                    Ok(first) => first?,
                    Err(_) if declared => return Err(std::io::ErrorKind::TimedOut.into()),
                    Err(_) => return Ok(Detected::Opaque(None)),
                }
            }
        };
        permit.head_begins();
        let until = tokio::time::Instant::now() + FIRST_LINE_TIMEOUT;
        let sniffed = stream.look(until, sniff).await?;
        return Ok(match sniffed {
            Sniffed::Http2 => Detected::Http(Version::HTTP_2),
            Sniffed::Http1 => Detected::Http(Version::HTTP_11),
            Sniffed::Unsure if declared && stream.has_bytes() => {
                // As of any head that does not come whole.
                permit.head_is_overdue(FIRST_LINE_TIMEOUT);
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            _ if declared && sniff(stream.read_ahead()) == Sniffed::Opaque => Detected::NoRequest,
            // The strict parser refuses what is no HTTP.
            Sniffed::Opaque | Sniffed::Unsure if declared => Detected::Http(Version::HTTP_11),
            Sniffed::Opaque | Sniffed::Unsure => Detected::Opaque(None),
        });
    }
}

/// For callers that may send anything on an undeclared port.
async fn first_speaker<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &Connection,
    stream: &mut Prefixed<S>,
) -> std::io::Result<Detected> {
    let now = tokio::time::Instant::now();
    let mut sniffed = stream.look(now + SILENCE, sniff_leniently).await?;
    let mut until = now + DETECT_WITHIN;
    if sniffed == Sniffed::Unsure && !stream.has_bytes() {
        let server = tokio::select! {
            biased;
            server = connection.connect() => server.ok(),
            // The application has a full queue; a client that sends first does not wait for
            // it twice.
            first = stream.first_bytes() => {
                first?;
                until = tokio::time::Instant::now() + DETECT_WITHIN;
                None
            }
        };
        if let Some(server) = server {
            return race(connection, stream, Prefixed::new(server), None).await;
        }
    }
    if sniffed == Sniffed::Unsure {
        sniffed = stream.look(until, sniff_leniently).await?;
    }
    Ok(spoken(sniffed, stream.begins_as_http(), None))
}

/// Serves HTTP on a connection or tunnel.
async fn requests(
    connection: Arc<Connection>,
    stream: Prefixed<PlainStream>,
    version: Version,
    permit: &Arc<Permit>,
) {
    let speak = AppHttp::of(version);
    let budget = Arc::clone(connection.proxy.budget());
    connection
        .proxy
        .count_connection(Direction::inbound, speak.label(), connection.security());
    let close = {
        let connection = Arc::clone(&connection);
        async move {
            tokio::select! {
                () = connection.proxy.drain.time_to_go() => {}
                () = plaintext_forbidden(&connection) => {}
                () = connection.certificate_ended() => {}
            }
        }
    };
    let refused = {
        let connection = Arc::clone(&connection);
        move |how, head: ReportedHead<'_>| connection.turned_away(how, head)
    };
    let handler = move |request: Request<IncomingBody>| {
        let connection = Arc::clone(&connection);
        handle_request(connection, request, speak, Upgrades::Own)
    };
    let accepted = Accepted {
        version,
        profile: Profile::Network,
        budget,
        permit: Arc::clone(permit),
    };
    serve_http(stream, accepted, close, refused, handler).await;
}

/// Serves a connection or tunnel once it is known what it speaks. `connect_guard`: of the
/// connection to the application that was opened for it, where that counts.
pub(super) async fn serve<S>(
    connection: Arc<Connection>,
    stream: Prefixed<S>,
    spoken: std::io::Result<Detected>,
    permit: &Arc<Permit>,
    connect_guard: Option<&ConnectGuard<'_>>,
) where
    S: ChunkIo + Into<PlainStream>,
{
    match spoken {
        Ok(Detected::Http(version)) => {
            requests(connection, stream.map(Into::into), version, permit).await;
        }
        Ok(Detected::NoRequest) => reset_no_request(&connection, stream),
        Ok(Detected::Opaque(server)) => {
            permit.busy();
            let begins_as_tls = stream.begins_as_tls();
            let decided = admit_bytes(
                &connection,
                &connection.proxy.config.snapshot(),
                begins_as_tls,
            );
            relay_bytes(&connection, stream, server, decided, connect_guard).await;
        }
        Err(error) => tracing::debug!(%error, "a caller left before it said anything"),
    }
}

/// Resets a connection on which no request can begin, to a port that carries requests.
fn reset_no_request<S: ChunkIo>(connection: &Connection, mut stream: Prefixed<S>) {
    let mut call = connection.call(CallKind::Bytes);
    if stream.begins_as_tls() {
        call.carries_tls();
    }
    connection.count_on_cell(&mut call, CallGroup::None);
    let failure = Failure::refused(Reason::BadRequest, NO_REQUEST);
    tracing::debug!(
        caller = %connection.label,
        port = connection.local.port(),
        %failure,
        "reset a connection"
    );
    call.reset(&failure, || stream.abort());
}
