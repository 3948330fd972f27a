//! HTTP as a client: connections to applications, and one request on one of them.

pub(crate) mod exchange;
pub(crate) mod http1;
pub(crate) mod multiplexed;
pub(crate) mod taskless;
pub(crate) mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::client::http1::{Http1, Pool, Pooled, http1_connection};
use crate::http::client::multiplexed::{Multiplexed, handshake};
use crate::http::http2::PLAIN;
use crate::http::http2::client::Sender;
use crate::net::budget::Budget;
use crate::net::connect::{self, CONNECT_TIMEOUT};

/// Connections that may be left unused in a second though they could serve again. The
/// port of each stays taken for a minute, and there are some 28 000.
const LEAVE_PER_SECOND: u32 = 200;

/// An application's address, and who calls it: a pod's uid, a name, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Served(SocketAddr, Arc<str>);

/// Every connection that the proxy opens to applications for HTTP.
#[derive(Debug)]
pub struct Clients {
    budget: Arc<Budget>,
    http2: Mutex<HashMap<Served, Arc<Multiplexed>>>,
    http1: Mutex<HashMap<SocketAddr, Arc<Pool>>>,
    /// Connections that were left in the second that began then.
    left: Mutex<Option<(Instant, u32)>>,
}

impl Clients {
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            http2: Mutex::default(),
            http1: Mutex::default(),
            left: Mutex::default(),
        }
    }

    /// Connections to an application for one caller: what an application does not take
    /// from one of them must not hold up another.
    pub fn http2(&self, addr: SocketAddr, caller: &Arc<str>) -> Arc<Multiplexed> {
        let mut plain = self.http2.lock();
        let served = Served(addr, Arc::clone(caller));
        Arc::clone(plain.entry(served).or_insert_with(|| {
            let budget = Arc::clone(&self.budget);
            Arc::new(Multiplexed::new(move || {
                connect_plain(addr, Arc::clone(&budget))
            }))
        }))
    }

    /// A pooled connection, or a new one.
    ///
    /// # Errors
    /// When none can be made; the application has seen nothing.
    pub async fn http1(
        &self,
        addr: SocketAddr,
        limit: Duration,
        fresh: bool,
    ) -> Result<Pooled, Failure> {
        if !fresh {
            let pool = self.http1.lock().get(&addr).cloned();
            if let Some(connection) = pool.and_then(|pool| pool.reuse()) {
                return Ok(Pooled {
                    connection,
                    reused: true,
                });
            }
        }
        Ok(Pooled {
            connection: Box::pin(http1_connection(addr, limit, &self.budget)).await?,
            reused: false,
        })
    }

    /// Whether one more connection may be left that could serve again, and counts it.
    pub fn may_leave(&self) -> bool {
        let mut left = self.left.lock();
        let (begun, count) = left.get_or_insert_with(|| (Instant::now(), 0));
        if begun.elapsed() >= Duration::from_secs(1) {
            (*begun, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count <= LEAVE_PER_SECOND
    }

    /// Gives a connection back once its exchange is over.
    pub fn give_back(&self, addr: SocketAddr, mut connection: Http1) {
        let pool = Arc::clone(self.http1.lock().entry(addr).or_default());
        #[expect(
            clippy::disallowed_methods,
            reason = "one connection to an application"
        )]
        tokio::spawn(async move {
            if connection.sender.ready().await.is_ok() {
                pool.put(connection);
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
        .map_err(|error| Failure::unsent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    handshake(stream, PLAIN, budget, None).await
}
