//! Relays opaque bytes from outside the pod to the application, on connections and on tunnels of
//! peer proxies.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use policy::protocol::Protocol;
use policy::reason::Reason;
use tokio::net::TcpStream;

use crate::failure::Failure;
use crate::inbound::authorize::{AllowedBytes, declared_bytes};
use crate::inbound::connection::Connection;
use crate::inbound::reauthorize::revoked;
use crate::net::abandon_limiter::ConnectGuard;
use crate::net::chunk::{ChunkIo, ReadSize};
use crate::net::forward::forward_chunks_out;
use crate::net::opaque_scan::{OpaqueScan, ScanFinding};
use crate::net::prefixed::Prefixed;
use crate::net::relay;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::cell::CallGroup;
use crate::telemetry::labels::Direction;

/// Serves opaque bytes as it was decided, for as long as they are allowed. `connect_guard`: of
/// the connection `server`, where that counts if its caller gives it up.
pub(super) async fn relay_bytes<S>(
    connection: &Connection,
    mut stream: Prefixed<S>,
    mut server: Option<Prefixed<TcpStream>>,
    decided: Result<AllowedBytes, Failure>,
    connect_guard: Option<&ConnectGuard<'_>>,
) where
    S: ChunkIo,
{
    let mut call = call_of_bytes(connection);
    if stream.begins_as_tls() {
        call.carries_tls();
    }
    connection.count_on_cell(&mut call, CallGroup::None);
    let allowed = match decided {
        Ok(allowed) => allowed,
        Err(failure) => {
            return call.reset(&failure, || {
                stream.abort();
                if let Some(server) = &mut server {
                    server.abort();
                }
            });
        }
    };
    call.allowed_by(allowed.by.as_ref());
    if allowed.audited {
        call.audited();
    }
    let server = match server {
        Some(server) => Ok(server),
        None => connection.connect().await.map(Prefixed::new),
    };
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            let failure = Failure::not_sent(Reason::ConnectFailed, error.to_string());
            return call.reset(&failure, || stream.abort());
        }
    };
    connection
        .proxy
        .count_connection(Direction::inbound, "opaque", connection.security());
    let (mut stream, mut server) =
        sides(connection, stream, server, allowed.watched, connect_guard);
    let cell = call.open();
    tokio::select! {
        // First this: nothing passes that a change forbids which came while the way was
        // opened.
        biased;
        failure = revoked(connection, allowed.policy_revision) => {
            if let Some(connect_guard) = connect_guard {
                connect_guard.ended();
            }
            // A side that had not received its end was aborted with the relay.
            call.reset(&failure, || {});
        }
        outcome = relay::relay(&mut stream, &mut server, connection.proxy.budget(), cell.flows()) => {
            if let Some(found) = stream.found {
                // Both ends were aborted with the relay.
                call.reset(&Failure::refused(Reason::BadRequest, found.describe()), || {});
            } else {
                call.relayed(outcome);
            }
        }
    }
}

/// A call of bytes begins. Their declaration only decides how it counts, so it need not be of
/// the snapshot that decides about them.
pub(super) fn call_of_bytes(connection: &Connection) -> Call {
    let mut call = connection.call(CallKind::Bytes);
    let config = &connection.proxy.config;
    if config.inspect(|now| declared_bytes(connection, now)) == Protocol::Tls {
        call.carries_tls();
    }
    call
}

/// Both sides of opaque bytes, with what is looked at in them.
fn sides<'a, S>(
    connection: &'a Connection,
    stream: Prefixed<S>,
    server: Prefixed<TcpStream>,
    watched: bool,
    connect_guard: Option<&'a ConnectGuard<'a>>,
) -> (ScannedStream<'a, S>, AnsweringServer<'a>) {
    let spoke_first = server.has_bytes();
    if spoke_first {
        connection.note_answer_by(connect_guard);
    }
    let stream = ScannedStream {
        inner: stream,
        connection,
        scan: watched.then(|| OpaqueScan::new(spoke_first)),
        found: None,
    };
    let server = AnsweringServer {
        inner: server,
        connection,
        connect_guard,
    };
    (stream, server)
}

/// What a caller sends as opaque bytes, up to what must not pass unread.
struct ScannedStream<'a, S> {
    inner: Prefixed<S>,
    connection: &'a Connection,
    scan: Option<OpaqueScan>,
    found: Option<ScanFinding>,
}

impl<S: ChunkIo> ChunkIo for ScannedStream<'_, S> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, room: &mut ReadSize) -> Poll<io::Result<Bytes>> {
        let chunk = ready!(self.inner.poll_chunk(cx, room))?;
        self.found = self.scan.as_mut().and_then(|scan| scan.note(&chunk));
        if self.found.is_some() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(chunk))
    }

    /// A peer that has ended its direction is no longer read. Whether it then resets the stream
    /// at once, and so gives up the connection, is asked here, where each turn of a relay comes
    /// by, until the application says something.
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        if self.connection.peer.is_some() && !self.connection.has_answered() {
            self.inner.poll_broken(cx)?;
        }
        self.inner.poll_send(cx, chunk)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_end(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.inner.poll_broken(cx)
    }

    fn abort(&mut self) {
        self.inner.abort();
    }
}

/// The application's side of opaque bytes: its first word, or its end, is noted.
struct AnsweringServer<'a> {
    inner: Prefixed<TcpStream>,
    connection: &'a Connection,
    /// Taken by the first word.
    connect_guard: Option<&'a ConnectGuard<'a>>,
}

impl ChunkIo for AnsweringServer<'_> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, room: &mut ReadSize) -> Poll<io::Result<Bytes>> {
        let chunk = ready!(self.inner.poll_chunk(cx, room));
        self.connection.note_answer_by(self.connect_guard.take());
        Poll::Ready(chunk)
    }

    forward_chunks_out!(inner);
}
