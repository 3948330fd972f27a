//! Detects the protocol of an outbound connection, by the first bytes of the application or of a
//! server that sends first.

use std::io;
use std::pin::pin;

use policy::protocol::Protocol;
use policy::reason::Reason;
use tokio::net::TcpStream;

use crate::failure::Failure;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{DETECT_WITHIN, SILENCE, Sniffed, sniff};
use crate::outbound::connection::Connection;
use crate::outbound::opaque::{Ahead, OpenedTunnel, open_ahead};
use crate::telemetry::call::{Call, CallKind};

/// Finds out what is spoken; a server that sends first decides as well. `Detect`: neither
/// side has sent anything.
pub(super) async fn detect(
    connection: &Connection,
    stream: &mut Prefixed<TcpStream>,
) -> Result<(Protocol, Option<OpenedTunnel>), Failure> {
    let lost = |error: io::Error| Failure::not_sent(Reason::BadRequest, error.to_string());
    let now = tokio::time::Instant::now();
    let sniffed = stream.look(now + SILENCE, sniff).await.map_err(lost)?;
    if sniffed != Sniffed::Unsure || stream.has_bytes() {
        let sniffed = if sniffed == Sniffed::Unsure {
            stream
                .look(now + DETECT_WITHIN, sniff)
                .await
                .map_err(lost)?
        } else {
            sniffed
        };
        return Ok((spoken(sniffed, stream), None));
    }
    // Counted only if this turns out to be its connection.
    let mut call = connection.call(CallKind::Bytes);
    let (ahead, heard) = open_and_listen(connection, stream, &mut call)
        .await
        .map_err(lost)?;
    if let Some(http @ (Sniffed::Http1 | Sniffed::Http2)) = heard {
        return Ok((http.protocol(), None));
    }
    let Some(mut ahead) = ahead else {
        // What is not reached cannot speak first. The client's bytes decide the form of the
        // error.
        let sniffed = match heard {
            Some(sniffed) => sniffed,
            None => stream
                .look(now + DETECT_WITHIN, sniff)
                .await
                .map_err(lost)?,
        };
        return Ok((spoken(sniffed, stream), None));
    };
    if let Some(sniffed) = heard {
        return Ok((spoken(sniffed, stream), Some(OpenedTunnel { ahead, call })));
    }
    // No limit: while both are silent nothing is withheld.
    tokio::select! {
        _ = stream.first_bytes() => {}
        _ = ahead.tunnel.io.first_bytes() => {
            if !ahead.tunnel.io.greets_in_http2().await {
                // One that has ended without a byte has sent nothing either.
                let protocol = if ahead.tunnel.io.has_bytes() {
                    Protocol::Opaque
                } else {
                    Protocol::Detect
                };
                return Ok((protocol, Some(OpenedTunnel { ahead, call })));
            }
            stream.first_bytes().await.map_err(lost)?;
        }
    }
    let until = tokio::time::Instant::now() + DETECT_WITHIN;
    match stream.look(until, sniff).await.map_err(lost)? {
        sniffed @ (Sniffed::Opaque | Sniffed::Unsure) => {
            Ok((spoken(sniffed, stream), Some(OpenedTunnel { ahead, call })))
        }
        http => {
            ahead.tunnel.leave();
            Ok((http.protocol(), None))
        }
    }
}

/// Opens the way to the server, and reads what its client sends meanwhile: a server whose
/// queue is full takes seconds to accept a connection, and HTTP is recognised without one.
/// What is no HTTP waits for the way that is being opened.
async fn open_and_listen(
    connection: &Connection,
    stream: &mut Prefixed<TcpStream>,
    call: &mut Call,
) -> io::Result<(Option<Ahead>, Option<Sniffed>)> {
    let mut opening = pin!(open_ahead(connection, call));
    let listening = async {
        stream.first_bytes().await?;
        let until = tokio::time::Instant::now() + DETECT_WITHIN;
        stream.look(until, sniff).await
    };
    tokio::select! {
        biased;
        opened = &mut opening => Ok((opened.ok(), None)),
        heard = listening => match heard? {
            http @ (Sniffed::Http1 | Sniffed::Http2) => Ok((None, Some(http))),
            other => Ok((opening.await.ok(), Some(other))),
        },
    }
}

/// `Detect` where its client has left without a word, as one does that only looks whether it
/// can connect.
fn spoken(sniffed: Sniffed, stream: &Prefixed<TcpStream>) -> Protocol {
    if sniffed == Sniffed::Unsure && !stream.has_bytes() {
        Protocol::Detect
    } else if stream.begins_as_tls() {
        Protocol::Tls
    } else {
        sniffed.protocol()
    }
}
