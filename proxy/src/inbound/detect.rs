//! Detects the protocol of a caller, as far as it may send anything.

use std::time::Duration;

use http::Version;
use runtime::occupancy::Permit;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::inbound::authorize::Expected;
use crate::inbound::connection::Connection;
use crate::net::given_up::ConnectGuard;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{DETECT_WITHIN, FIRST_LINE_TIMEOUT, SILENCE, Sniffed, sniff_leniently};

/// What had come before a time was over is known by so much later, however little time this
/// process got.
const NEXT_LOOK: Duration = Duration::from_millis(10);

/// What a connection turned out to speak.
pub(crate) enum Detected {
    Http(Version),
    /// What begins no request, on a port that is declared to carry them.
    NoRequest,
    /// With the connection to the application, if it spoke first.
    Opaque(Option<Prefixed<TcpStream>>),
}

/// The beginning of a request, sent too slowly to be sure, counts as HTTP.
pub(crate) fn spoken(
    sniffed: Sniffed,
    begins_as_http: bool,
    server: Option<Prefixed<TcpStream>>,
) -> Detected {
    match sniffed {
        Sniffed::Http2 => Detected::Http(Version::HTTP_2),
        Sniffed::Http1 => Detected::Http(Version::HTTP_11),
        Sniffed::Unsure if begins_as_http => Detected::Http(Version::HTTP_11),
        Sniffed::Opaque | Sniffed::Unsure => Detected::Opaque(server),
    }
}

impl Connection {
    /// Waits for the first bytes of either side. There is no limit: while both are silent nothing
    /// is withheld from either, and giving up would let a caller that waits long enough send HTTP
    /// past all checks of HTTP.
    pub(super) async fn race<S: AsyncRead + Unpin>(
        &self,
        stream: &mut Prefixed<S>,
        mut server: Prefixed<TcpStream>,
        beginning: Option<&ConnectGuard<'_>>,
    ) -> std::io::Result<Detected> {
        tokio::select! {
            _ = stream.first_bytes() => {}
            _ = server.first_bytes() => {
                if !server.greets_in_http2().await {
                    return Ok(Detected::Opaque(Some(server)));
                }
                self.note_answer_by(beginning);
                stream.first_bytes().await?;
            }
        }
        let sniffed = stream
            .look(tokio::time::Instant::now() + DETECT_WITHIN, sniff_leniently)
            .await?;
        Ok(spoken(sniffed, stream.begins_as_http(), Some(server)))
    }

    /// Finds out what is spoken.
    pub(super) async fn protocol<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut Prefixed<S>,
        permit: &Permit,
    ) -> std::io::Result<Detected> {
        let mut changes = self.proxy.config.policy_changes();
        let came = tokio::time::Instant::now();
        loop {
            let (declared, silence, sniff) =
                match self.proxy.config.inspect(|now| self.expected(now)) {
                    Expected::Bytes => return Ok(Detected::Opaque(None)),
                    Expected::Either => return self.first_speaker(stream).await,
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
                _ if declared && sniff(stream.read_ahead()) == Sniffed::Opaque => {
                    Detected::NoRequest
                }
                // The strict parser refuses what is no HTTP.
                Sniffed::Opaque | Sniffed::Unsure if declared => Detected::Http(Version::HTTP_11),
                Sniffed::Opaque | Sniffed::Unsure => Detected::Opaque(None),
            });
        }
    }

    /// For callers that may send anything on an undeclared port.
    pub(super) async fn first_speaker<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut Prefixed<S>,
    ) -> std::io::Result<Detected> {
        let now = tokio::time::Instant::now();
        let mut sniffed = stream.look(now + SILENCE, sniff_leniently).await?;
        let mut until = now + DETECT_WITHIN;
        if sniffed == Sniffed::Unsure && !stream.has_bytes() {
            let server = tokio::select! {
                biased;
                server = self.connect() => server.ok(),
                // The application has a full queue; a client that sends first does not wait for
                // it twice.
                first = stream.first_bytes() => {
                    first?;
                    until = tokio::time::Instant::now() + DETECT_WITHIN;
                    None
                }
            };
            if let Some(server) = server {
                return self.race(stream, Prefixed::new(server), None).await;
            }
        }
        if sniffed == Sniffed::Unsure {
            sniffed = stream.look(until, sniff_leniently).await?;
        }
        Ok(spoken(sniffed, stream.begins_as_http(), None))
    }
}
