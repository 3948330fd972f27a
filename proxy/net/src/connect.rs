//! Opens connections for the proxy, and sets the socket options of all its connections.
//!
//! Claims: calls-10

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// A peer that TCP alone watches is probed after this silence,
const PING_INTERVAL: Duration = Duration::from_secs(7);
/// and has this long to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// What is to accept a connection, and so how long that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectTimeout {
    /// An endpoint in whose place another one may be tried, or a proxy: that always has room, so
    /// one that does not answer is not there. 1 s.
    Replaceable,
    /// An application in whose place this proxy has no other endpoint. An absent one refuses at
    /// once; one whose queue is full, which some servers have for five connections, drops the
    /// SYN. The kernel then sends again after 1 and 3 s, or after 1, 2, 3 and 4 s
    /// (`net.ipv4.tcp_syn_linear_timeouts`, Linux 6.5), so without a proxy nothing is lost but
    /// time. 4.5 s last beyond the last of these, and end at none of them. [`FULL`] once a caller
    /// waited for an application in vain, until it accepts: it may hang, and its callers have
    /// other endpoints.
    Application,
    /// The same in so many times 50 ms, for a call that is over soon after. Each request holds
    /// one of these.
    ApplicationWithin(u8),
    /// Outside the mesh distances are unknown, so the wait is the usual one: 10 s.
    External,
}

/// What a call keeps of its time for another endpoint. A call of 2 s so waits for 1.25 s, beyond
/// the moment of the kernel's first retransmission.
const KEPT_FOR_OTHERS: Duration = Duration::from_millis(750);

/// How long an application has whose queue was full for long. The kernel retransmits for the
/// first time after exactly 1 s, so with no more than that an application which has room by then
/// would answer just too late, and stay known as full.
const FULL: Duration = Duration::from_millis(1250);

/// By which the time of a call is measured here.
const STEP: Duration = Duration::from_millis(50);

impl ConnectTimeout {
    /// Of an application, for a call that has so much time left and may go elsewhere. One that
    /// spent all of it here would end as a call whose time is over, without another endpoint.
    pub fn of_application(left: Option<Duration>) -> Self {
        let kept = left.map(|left| left.saturating_sub(KEPT_FOR_OTHERS));
        match kept.map(|kept| kept.max(Self::Replaceable.limit())) {
            Some(within) if within < Self::Application.limit() => {
                // Below 4.5 s, so it is that many.
                let steps = within.as_millis() / STEP.as_millis();
                Self::ApplicationWithin(u8::try_from(steps).unwrap_or(u8::MAX))
            }
            Some(_) | None => Self::Application,
        }
    }

    /// How long a call may wait for a connection that others share, where it is over soon after.
    pub const fn of_call(self) -> Option<Duration> {
        match self {
            Self::ApplicationWithin(_) => Some(self.limit()),
            Self::Application | Self::Replaceable | Self::External => None,
        }
    }

    const fn is_of_application(self) -> bool {
        matches!(self, Self::Application | Self::ApplicationWithin(_))
    }

    const fn limit(self) -> Duration {
        match self {
            Self::Replaceable => Duration::from_secs(1),
            Self::Application => Duration::from_millis(4500),
            Self::ApplicationWithin(steps) => STEP.saturating_mul(steps as u32),
            Self::External => Duration::from_secs(10),
        }
    }
}

/// A dead peer is noticed after about a minute and a half of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Opens the connections of one workload, and knows whose queue has been full for long.
#[derive(Debug, Default)]
pub struct Connector {
    full_queues: FullQueues,
}

impl Connector {
    /// Opens a connection with the socket options of every connection of ours.
    ///
    /// # Errors
    /// When the peer refuses, is unreachable, or does not answer in time.
    pub fn connect(
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
    pub async fn connect_buffered(
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
        let mut waiting = self.wait_for(addr, limit);
        let whole = self.limit_to(addr, limit);
        let began = Instant::now();
        async move {
            let mut connecting = pin!(connecting);
            // Not by the clock alone: after a stall the answer may be there already.
            let long = began + whole.min(ConnectTimeout::Replaceable.limit());
            let mut connected = timeout_at(long, connecting.as_mut()).await;
            if connected.is_err() {
                if let Some(waiting) = &mut waiting {
                    waiting.is_long = true;
                }
                connected = timeout_at(began + whole, connecting).await;
            }
            if let (Some(waiting), Ok(connected)) = (&mut waiting, &connected) {
                waiting.ended(connected);
            }
            tuned(connected)
        }
    }

    /// How long this address has, for now.
    fn limit_to(&self, addr: SocketAddr, limit: ConnectTimeout) -> Duration {
        if limit.is_of_application() && self.full_queues.contain(addr) {
            limit.limit().min(FULL)
        } else {
            limit.limit()
        }
    }

    fn wait_for(&self, addr: SocketAddr, limit: ConnectTimeout) -> Option<Waiting<'_>> {
        limit.is_of_application().then(|| Waiting {
            full_queues: &self.full_queues,
            addr,
            is_long: false,
            answered: false,
        })
    }
}

/// A caller waits for an application to accept. Dropped without a result it notes that, where it
/// took long: most callers leave before all the time is over that the connection may take.
#[derive(Debug)]
struct Waiting<'a> {
    full_queues: &'a FullQueues,
    addr: SocketAddr,
    /// For a second.
    is_long: bool,
    answered: bool,
}

impl Waiting<'_> {
    /// An error of the own side shows nothing of the listener, and one of the way to it is no
    /// answer either.
    fn ended(&mut self, connected: &io::Result<TcpStream>) {
        let refused = |error: &io::Error| {
            let refusals = [
                io::ErrorKind::ConnectionRefused,
                io::ErrorKind::ConnectionReset,
            ];
            refusals.contains(&error.kind())
        };
        // Also where it refuses: its queue is not what keeps calls waiting.
        self.answered = connected.as_ref().err().is_none_or(refused);
        if self.answered {
            self.full_queues.forget(self.addr);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_long && !self.answered {
            self.full_queues.note(self.addr);
        }
    }
}

/// Opens a connection to the proxy of a pod, whose queue is never full for long.
///
/// # Errors
/// As [`Connector::connect`].
pub fn connect_to_proxy(addr: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send {
    let until = Instant::now() + ConnectTimeout::Replaceable.limit();
    let connecting = timeout_at(until, TcpStream::connect(addr));
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

/// The kernel looks once, when the answer to its probe is due, and probes again for as long if
/// the connection was silent for a tick less than what it may be.
const LOOKED_EARLIER: Duration = Duration::from_millis(500);

/// No delay, and keepalive. Failing to set an option never fails a connection.
pub fn tune(stream: &TcpStream) {
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
pub fn broken(stream: &TcpStream) -> io::Result<()> {
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
pub fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Of one workload: a pod has few applications, and calls few that have no proxy. The oldest goes.
const MAX_FULL: usize = 64;

/// Applications whose queue of connections has been full for long.
///
/// An application that hangs accepts nothing, so its queue fills and stays so. Calls that then
/// waited as long as a momentarily full queue is worth would have no time left for another
/// endpoint. A caller that left after a second without a response is as good a sign as one that
/// stayed.
///
/// Addresses of applications with a wait in vain and no accepted connection since.
#[derive(Debug, Default)]
struct FullQueues(Mutex<VecDeque<SocketAddr>>);

impl FullQueues {
    fn contain(&self, addr: SocketAddr) -> bool {
        self.0.lock().contains(&addr)
    }

    /// A caller waited for it in vain.
    fn note(&self, addr: SocketAddr) {
        let mut full = self.0.lock();
        if !full.contains(&addr) {
            if full.len() >= MAX_FULL {
                full.pop_front();
            }
            full.push_back(addr);
        }
    }

    /// It accepts, or refuses.
    fn forget(&self, addr: SocketAddr) {
        self.0.lock().retain(|full| *full != addr);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::net::TcpListener;

    use tokio::time::{sleep, timeout};

    use super::*;

    const SOON: Duration = ConnectTimeout::Replaceable.limit();
    const PATIENT: Duration = ConnectTimeout::Application.limit();

    fn somewhere() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 80))
    }

    /// One that knows of a full queue.
    async fn kept_waiting() -> Connector {
        let connector = Connector::default();
        let attempt = connector.within(somewhere(), ConnectTimeout::Application, pending());
        let error = attempt.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        connector
    }

    fn limit_of(connector: &Connector) -> Duration {
        connector.limit_to(somewhere(), ConnectTimeout::Application)
    }

    #[tokio::test(start_paused = true)]
    async fn persistently_full_queue_is_noted_per_waiting_workload() {
        let (waited, other) = (kept_waiting().await, Connector::default());
        assert_eq!((limit_of(&waited), limit_of(&other)), (FULL, PATIENT));
        // A call with less time takes no more of it for that.
        for (steps, limit) in [(20, SOON), (40, FULL)] {
            let short = ConnectTimeout::ApplicationWithin(steps);
            assert_eq!(waited.limit_to(somewhere(), short), limit, "{steps}");
        }
    }

    /// As an application answers that had room again within a second.
    #[tokio::test(start_paused = true)]
    async fn full_queue_gets_time_for_one_kernel_retry() {
        let connector = kept_waiting().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let asked_again = async move {
            sleep(SOON + Duration::from_millis(50)).await;
            TcpStream::from_std(stream)
        };
        let attempt = connector.within(somewhere(), ConnectTimeout::Application, asked_again);
        assert!(attempt.await.is_ok());
        assert_eq!(limit_of(&connector), PATIENT, "it accepts");
        // Control: one in whose place another one is tried, as between proxies.
        let late = async {
            sleep(SOON + Duration::from_millis(50)).await;
            Err(io::Error::from(io::ErrorKind::ConnectionRefused))
        };
        let attempt = connector.within(somewhere(), ConnectTimeout::Replaceable, late);
        assert_eq!(attempt.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn queue_is_learned_from_cancelled_call_after_one_second() {
        let long = SOON + Duration::from_millis(1);
        let short = SOON / 2;
        for (limit, left_after, learnt) in [
            (ConnectTimeout::Application, long, FULL),
            (ConnectTimeout::Application, short, PATIENT),
            (ConnectTimeout::ApplicationWithin(40), long, FULL),
            // Not for calls that could go nowhere else.
            (ConnectTimeout::External, long, PATIENT),
        ] {
            let connector = Connector::default();
            let attempt = connector.within(somewhere(), limit, pending());
            assert!(timeout(left_after, attempt).await.is_err());
            assert_eq!(limit_of(&connector), learnt, "{limit:?}, {left_after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_server_response_clears_full_queue_state() {
        for (error, after) in [
            (io::ErrorKind::ConnectionRefused, PATIENT),
            (io::ErrorKind::ConnectionReset, PATIENT),
            // As where this process has no file or no port left, or no way leads there.
            (io::ErrorKind::Other, FULL),
            (io::ErrorKind::AddrNotAvailable, FULL),
            (io::ErrorKind::HostUnreachable, FULL),
        ] {
            let connector = kept_waiting().await;
            let attempt = ready(Err(io::Error::from(error)));
            let attempt = connector.within(somewhere(), ConnectTimeout::Application, attempt);
            assert!(attempt.await.is_err());
            assert_eq!(limit_of(&connector), after, "{error}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let accepted = ready(TcpStream::from_std(stream));
        let connector = kept_waiting().await;
        let attempt = connector.within(somewhere(), ConnectTimeout::Application, accepted);
        assert!(attempt.await.is_ok());
        assert_eq!(limit_of(&connector), PATIENT, "it accepts");
    }

    /// As from a neighbour that does not answer, after three seconds.
    #[tokio::test(start_paused = true)]
    async fn slow_connect_error_counts_as_waiting_in_vain() {
        for (after, learnt) in [(3 * SOON, FULL), (Duration::ZERO, PATIENT)] {
            let connector = Connector::default();
            let attempt = async move {
                sleep(after).await;
                Err(io::Error::from(io::ErrorKind::HostUnreachable))
            };
            let attempt = connector.within(somewhere(), ConnectTimeout::Application, attempt);
            assert!(attempt.await.is_err());
            assert_eq!(limit_of(&connector), learnt, "{after:?}");
        }
    }

    #[test]
    fn a_call_keeps_time_for_another_endpoint() {
        let millis = Duration::from_millis;
        for (left, within) in [
            (None, PATIENT),
            (Some(millis(60_000)), PATIENT),
            (Some(millis(5250)), PATIENT),
            (Some(millis(5000)), millis(4250)),
            (Some(millis(2000)), millis(1250)),
            (Some(millis(500)), SOON),
            (Some(Duration::ZERO), SOON),
        ] {
            assert_eq!(
                ConnectTimeout::of_application(left).limit(),
                within,
                "{left:?}"
            );
        }
    }
}
