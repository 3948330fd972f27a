//! Connections that the proxy opens, and the socket options of all of them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::net::full_queues::FullQueues;
use crate::net::tuning::{PING_INTERVAL, PING_TIMEOUT};

/// Who is to accept a connection, and so how long that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectTimeout {
    /// An endpoint in whose place another one may be asked, or a proxy: that always has room,
    /// so one that does not answer is not there. 1 s.
    Replaceable,
    /// An application in whose place this proxy can ask nobody. One that is not there refuses at
    /// once; one whose queue is full, which some servers have for five connections, drops what
    /// asks for another. The kernel then asks again after 1 and 3 s, or after 1, 2, 3 and 4 s
    /// (`net.ipv4.tcp_syn_linear_timeouts`, Linux 6.5), so without a proxy nothing is lost but
    /// time. 4.5 s last beyond the last of these, and end at none of them. As before, 1 s, once
    /// an application kept somebody waiting in vain, until it accepts: it may hang, and its
    /// callers have others to ask.
    Application,
    /// Outside the mesh distances are unknown, so the wait is the usual one: 10 s.
    External,
}

impl ConnectTimeout {
    const fn limit(self) -> Duration {
        match self {
            Self::Replaceable => Duration::from_secs(1),
            Self::Application => Duration::from_millis(4500),
            Self::External => Duration::from_secs(10),
        }
    }
}

/// A dead peer is noticed after about a minute and a half of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Opens the connections of one workload, and knows whose queue has been full for long.
#[derive(Debug, Default)]
pub(crate) struct Connector {
    full_queues: FullQueues,
}

impl Connector {
    /// Opens a connection with the socket options of every connection of ours.
    ///
    /// # Errors
    /// When the peer refuses, is unreachable, or does not answer in time.
    pub(crate) fn connect(
        &self,
        addr: SocketAddr,
        limit: ConnectTimeout,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send {
        self.within(addr, limit, TcpStream::connect(addr))
    }

    /// The same with a receive buffer of `bytes`, which the kernel doubles, up to twice
    /// `net.core.rmem_max`.
    ///
    /// # Errors
    /// As [`Self::connect`], and where no socket can be had.
    pub(crate) async fn connect_buffered(
        &self,
        addr: SocketAddr,
        limit: ConnectTimeout,
        bytes: u32,
    ) -> io::Result<TcpStream> {
        let socket = if addr.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // Before the connection exists: how far its window may grow follows from this.
        let _ = socket.set_recv_buffer_size(bytes);
        self.within(addr, limit, socket.connect(addr)).await
    }

    /// What an async function is given it holds a second time; a block holds it once.
    fn within(
        &self,
        addr: SocketAddr,
        limit: ConnectTimeout,
        connecting: impl Future<Output = io::Result<TcpStream>> + Send,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send {
        let connecting = timeout(self.limit_to(addr, limit), connecting);
        async move {
            let connected = connecting.await;
            // Also where it refuses: its queue is not what keeps calls waiting.
            self.note(addr, limit, connected.is_ok());
            tuned(connected)
        }
    }

    /// How long this address has, for now.
    fn limit_to(&self, addr: SocketAddr, limit: ConnectTimeout) -> Duration {
        if limit == ConnectTimeout::Application && self.full_queues.contain(addr) {
            ConnectTimeout::Replaceable.limit()
        } else {
            limit.limit()
        }
    }

    fn note(&self, addr: SocketAddr, limit: ConnectTimeout, accepted: bool) {
        match limit {
            ConnectTimeout::Application if accepted => self.full_queues.forget(addr),
            ConnectTimeout::Application => self.full_queues.note(addr),
            ConnectTimeout::Replaceable | ConnectTimeout::External => {}
        }
    }
}

/// Opens a connection to the proxy of a pod, whose queue is never full for long.
///
/// # Errors
/// As [`Connector::connect`].
pub(crate) fn connect_to_proxy(
    addr: SocketAddr,
) -> impl Future<Output = io::Result<TcpStream>> + Send {
    let limit = ConnectTimeout::Replaceable.limit();
    let connecting = timeout(limit, TcpStream::connect(addr));
    async move { tuned(connecting.await) }
}

fn tuned(connected: Result<io::Result<TcpStream>, Elapsed>) -> io::Result<TcpStream> {
    let stream = connected.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer to the connection attempt",
        ))
    })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_stays_full_is_remembered_by_the_workload_that_waited_until_it_accepts() {
        let (waited, other) = (Connector::default(), Connector::default());
        let addr = SocketAddr::from(([10, 0, 0, 1], 80));
        let application = ConnectTimeout::Application;
        let limit_of = |connector: &Connector| connector.limit_to(addr, application);
        let (patient, soon) = (application.limit(), ConnectTimeout::Replaceable.limit());
        waited.note(addr, application, false);
        assert_eq!((limit_of(&waited), limit_of(&other)), (soon, patient));
        waited.note(addr, application, true);
        assert_eq!(limit_of(&waited), patient);
    }
}
