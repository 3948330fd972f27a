//! Opaque bytes: copied both ways, with half-close, until both sides ended.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a connection to an endpoint or the application.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Outside the mesh distances are unknown, so the wait is the usual one.
pub const CONNECT_TIMEOUT_EXTERNAL: Duration = Duration::from_secs(10);
/// A dead peer is noticed after about a minute and a half of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// One direction's buffer. Two per connection bound what an idle one costs;
/// larger ones buy throughput with memory that a thousand idle connections hold.
const COPY_BUFFER: usize = 8 * 1024;

/// Opens a connection with the socket options of every connection of ours.
///
/// # Errors
/// When the peer refuses, is unreachable, or does not answer within `limit`.
pub async fn connect(addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(addr))
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "no answer to the connection attempt",
            )
        })??;
    tune(&stream);
    Ok(stream)
}

/// No delay, and keepalive. Failing to set an option never fails a connection.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Bytes that went each way: from the caller, and to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub sent: u64,
    pub received: u64,
}

/// Relays until both directions have ended.
///
/// # Errors
/// When either side fails.
pub async fn relay<A, B>(caller: &mut A, callee: &mut B) -> io::Result<Copied>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (sent, received) =
        tokio::io::copy_bidirectional_with_sizes(caller, callee, COPY_BUFFER, COPY_BUFFER).await?;
    Ok(Copied { sent, received })
}
