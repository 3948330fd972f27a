//! HTTP as a client: connections to applications, and one request on one of them.

pub(crate) mod dedicated;
pub(crate) mod exchange;
pub(crate) mod http1;
pub(crate) mod multiplexed;
pub(crate) mod silence;
pub(crate) mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use policy::reason::Reason;
use runtime::rate::{Allowance, Rate};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::http::client::http1::{Http1, Pool, http1_connection};
use crate::http::client::multiplexed::{Multiplexed, handshake};
use crate::http::http2::PLAIN;
use crate::http::http2::client::Sender;
use crate::net::budget::Budget;
use crate::net::connect::{self, CONNECT_TIMEOUT};

/// Connections that may be closed as usual, of each of two kinds: those of one request, and
/// those that no pool had room for. The port of each stays taken for a minute, and there are
/// some 28 000: even a burst of both and what follows it within that minute take fewer.
const MAY_LEAVE: Allowance = Allowance {
    burst: 200,
    every: Duration::from_millis(5),
};
/// Requests that have an HTTP/2 connection for themselves, all in all.
const EXCLUSIVE: usize = 64;
/// Addresses with a pool. An entry takes a few hundred bytes beside its connections.
const POOLS: usize = 4096;

/// An application's address, and who calls it: a pod's uid, a name, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Served(SocketAddr, Arc<str>);

/// Every connection that the proxy opens to applications for HTTP.
#[derive(Debug)]
pub struct Clients {
    budget: Arc<Budget>,
    http2: Mutex<HashMap<Served, Arc<Multiplexed>>>,
    /// Held by every connection that is not shared.
    exclusive: Arc<()>,
    http1: Mutex<HashMap<SocketAddr, Arc<Pool>>>,
    left: Mutex<Rate>,
    /// Those that no pool had room for.
    surplus: Arc<Mutex<Rate>>,
}

impl Clients {
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            http2: Mutex::default(),
            exclusive: Arc::default(),
            http1: Mutex::default(),
            left: Mutex::new(Rate::new(MAY_LEAVE)),
            surplus: Arc::new(Mutex::new(Rate::new(MAY_LEAVE))),
        }
    }

    /// The bytes of the process, which their connections count in.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Connections to an application for one caller: what an application does not take
    /// from one of them must not hold up another.
    pub fn http2(&self, addr: SocketAddr, caller: &Arc<str>) -> Arc<Multiplexed> {
        let mut plain = self.http2.lock();
        let served = Served(addr, Arc::clone(caller));
        let connections = || self.connections(addr, None);
        Arc::clone(plain.entry(served).or_insert_with(connections))
    }

    /// The same for one request that lost its stream with a shared connection: what
    /// others ask of the application may be what ends those.
    pub(crate) fn http2_exclusive(&self, addr: SocketAddr, caller: &Arc<str>) -> Arc<Multiplexed> {
        let held = Arc::clone(&self.exclusive);
        if Arc::strong_count(&held) > EXCLUSIVE + 1 {
            return self.http2(addr, caller);
        }
        self.connections(addr, Some(held))
    }

    fn connections(&self, addr: SocketAddr, held: Option<Arc<()>>) -> Arc<Multiplexed> {
        let budget = Arc::clone(&self.budget);
        Arc::new(Multiplexed::new(move || {
            let _held = &held;
            connect_plain(addr, Arc::clone(&budget))
        }))
    }

    /// A connection that served before, where one waits for the next request.
    pub(crate) fn reuse(&self, addr: SocketAddr) -> Option<Http1> {
        let pool = self.http1.lock().get(&addr).cloned();
        pool?.reuse()
    }

    /// A new connection.
    ///
    /// # Errors
    /// When none can be made; the application has seen nothing.
    pub(crate) async fn connect(
        &self,
        addr: SocketAddr,
        limit: Duration,
    ) -> Result<Http1, Failure> {
        Box::pin(http1_connection(addr, limit, &self.budget)).await
    }

    /// Whether one more connection of one request may be closed as usual, and counts it.
    pub(crate) fn may_leave(&self) -> bool {
        self.left.lock().take(Instant::now()).is_ok()
    }

    /// The pool of an address, where there is room for it.
    fn or_new(&self, addr: SocketAddr) -> Option<Arc<Pool>> {
        let mut pools = self.http1.lock();
        if pools.len() >= POOLS && !pools.contains_key(&addr) {
            return None;
        }
        Some(Arc::clone(pools.entry(addr).or_default()))
    }

    /// Gives a connection back once its exchange is over.
    pub(crate) fn give_back(&self, addr: SocketAddr, mut connection: Http1) {
        let Some(pool) = self.or_new(addr) else {
            return;
        };
        let surplus = Arc::clone(&self.surplus);
        #[expect(
            clippy::disallowed_methods,
            reason = "one connection to an application"
        )]
        tokio::spawn(async move {
            if connection.sender.ready().await.is_ok()
                && let Some(unpooled) = pool.put(connection)
                && surplus.lock().take(Instant::now()).is_err()
            {
                // A reset leaves no port taken.
                unpooled.abort.set();
            }
        });
    }

    /// Closes what is idle. Called every few seconds.
    pub fn sweep(&self) {
        // What somebody is connecting to right now is held by them too.
        self.http2
            .lock()
            .retain(|_, shared| !shared.sweep() || Arc::strong_count(shared) > 1);
        self.http1
            .lock()
            .retain(|_, pool| !pool.sweep() || Arc::strong_count(pool) > 1);
    }
}

/// HTTP/2 without TLS.
async fn connect_plain(addr: SocketAddr, budget: Arc<Budget>) -> Result<Sender, Failure> {
    let stream = connect::connect(addr, CONNECT_TIMEOUT)
        .await
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    handshake(stream, PLAIN, budget, None).await
}
