//! Connections that the proxy opens, and the socket options of all of them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::net::tuning::{PING_INTERVAL, PING_TIMEOUT};

/// Longest wait for a connection to an endpoint, where another one may be asked instead: a
/// proxy always has room, so one that does not answer is not there.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The same to an application in whose place nobody can be asked. One that is not there refuses
/// at once; one whose queue is full, which some servers have for five connections, drops what
/// asks for another. The kernel then asks again after 1 and 3 s, or after 1, 2, 3 and 4 s
/// (`net.ipv4.tcp_syn_linear_timeouts`, Linux 6.5), so without a proxy nothing is lost but time.
/// This lasts beyond the last of these, and ends at none of them.
pub(crate) const CONNECT_TIMEOUT_APP: Duration = Duration::from_millis(4500);
/// Outside the mesh distances are unknown, so the wait is the usual one.
pub(crate) const CONNECT_TIMEOUT_EXTERNAL: Duration = Duration::from_secs(10);
/// A dead peer is noticed after about a minute and a half of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Opens a connection with the socket options of every connection of ours.
///
/// # Errors
/// When the peer refuses, is unreachable, or does not answer within `limit`.
pub(crate) async fn connect(addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    within(limit, TcpStream::connect(addr)).await
}

/// The same with a receive buffer of `bytes`, which the kernel doubles, up to twice
/// `net.core.rmem_max`.
///
/// # Errors
/// As [`connect`], and where no socket can be had.
pub(crate) async fn connect_buffered(
    addr: SocketAddr,
    limit: Duration,
    bytes: u32,
) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Before the connection exists: how far its window may grow follows from this.
    let _ = socket.set_recv_buffer_size(bytes);
    within(limit, socket.connect(addr)).await
}

async fn within(
    limit: Duration,
    connecting: impl Future<Output = io::Result<TcpStream>>,
) -> io::Result<TcpStream> {
    let stream = timeout(limit, connecting).await.map_err(|_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer to the connection attempt",
        )
    })??;
    tune(&stream);
    Ok(stream)
}

/// The kernel looks once, when the answer to its question is due, and asks again for as
/// long if the connection was silent for a tick less than what it may be.
const LOOKED_EARLIER: Duration = Duration::from_millis(500);

/// No delay, and keepalive. Failing to set an option never fails a connection.
pub(crate) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Whether the other end has reset the connection, though bytes may be left to be read.
///
/// # Errors
/// When it has: what the kernel keeps of it, once.
pub(crate) fn broken(stream: &TcpStream) -> io::Result<()> {
    stream.take_error()?.map_or(Ok(()), Err)
}

/// For connections that nothing but TCP watches: a dead peer is noticed as soon
/// as HTTP/2 notices one by its pings, idle or waiting for an answer. Only for
/// connections that send little: a peer that takes nothing for as long, though it
/// lives, counts as dead too.
pub fn tune_closely(stream: &impl AsFd) {
    let keepalive = TcpKeepalive::new()
        .with_time(PING_INTERVAL)
        .with_interval(PING_TIMEOUT)
        .with_retries(1);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(PING_INTERVAL + PING_TIMEOUT - LOOKED_EARLIER));
}

/// Makes the close of `stream` a reset, as a refused connection looks like.
pub(crate) fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
