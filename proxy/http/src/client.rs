//! HTTP as a client: connections to applications, and one request on one of them.
//!
//! Claims: calls-11

mod bodies;
pub mod dedicated;
pub mod exchange;
pub mod http1;
pub mod multiplexed;
pub mod server_stream;
pub mod silence;
pub mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use parking_lot::Mutex;
use policy::reason::Reason;
use tokio::time::{Instant, timeout};
use weft_proxy_net::budget::Budget;
use weft_proxy_net::connect::{ConnectTimeout, Connector};

use crate::client::http1::{GracefulCloses, Http1, Pool, http1_connection};
use crate::client::multiplexed::{Multiplexed, handshake};
use crate::client::server_stream::{OriginTls, ServerStream};
use crate::client::upstream::Windows;
use crate::failure::Failure;
use crate::http2::PLAIN;
use crate::http2::client::RequestSender;

/// Requests that have an HTTP/2 connection for themselves, all in all.
const EXCLUSIVE: usize = 64;
/// An answer that has not started after this time may have to wait for another connection's end.
/// Far below the second that a probe waits.
const SILENT: Duration = Duration::from_millis(200);
/// Less than the keep-alive of common servers, so that ours closes first.
const IDLE: Duration = Duration::from_secs(3);
/// Also less than the second that a probe waits: an application with few threads serves no other
/// client meanwhile.
const IDLE_OF_APPLICATION: Duration = Duration::from_millis(500);
/// Addresses whose connections are shared, over HTTP/1.1 and, by caller, over HTTP/2. An entry
/// takes a few hundred bytes beside its connections.
const POOLS: usize = 4096;

/// An application's address, and its caller: a pod's uid, a name, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AppKey(SocketAddr, Arc<str>);

/// Whose servers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servers {
    /// The application beside the proxy.
    OwnPod,
    /// Outside the mesh.
    Elsewhere,
}

impl Servers {
    const fn idle(self) -> Duration {
        match self {
            Self::OwnPod => IDLE_OF_APPLICATION,
            Self::Elsewhere => IDLE,
        }
    }

    /// How long a connection that many requests will share may take to be made.
    const fn connect_timeout(self) -> ConnectTimeout {
        match self {
            Self::OwnPod => ConnectTimeout::Application,
            Self::Elsewhere => ConnectTimeout::Replaceable,
        }
    }
}

/// Counts that an address found no place among [`POOLS`].
struct OnFull(Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for OnFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OnFull").finish_non_exhaustive()
    }
}

/// One of the connections that are not shared, until it ends: what it carries goes on when its
/// caller has the answer.
#[derive(Debug)]
struct Exclusive {
    _counted: Arc<()>,
}

/// Every connection that the proxy opens to servers of one kind for HTTP, without TLS but for what
/// it begins itself.
#[derive(Debug)]
pub struct Clients {
    servers: Servers,
    budget: Arc<Budget>,
    connector: Arc<Connector>,
    /// `None`: plaintext.
    tls: Option<Arc<OriginTls>>,
    http2: Mutex<HashMap<AppKey, Arc<Multiplexed>>>,
    /// Held by every connection that is not shared.
    exclusive: Arc<()>,
    http1: Mutex<HashMap<SocketAddr, Arc<Pool>>>,
    windows: Windows,
    /// Those of one request.
    pub once: GracefulCloses,
    /// Those of pools.
    pooled: GracefulCloses,
    on_full: Option<OnFull>,
}

impl Clients {
    #[must_use]
    pub fn new(servers: Servers, budget: Arc<Budget>, connector: Arc<Connector>) -> Self {
        Self {
            servers,
            budget,
            connector,
            tls: None,
            http2: Mutex::default(),
            exclusive: Arc::default(),
            http1: Mutex::default(),
            windows: Windows::default(),
            once: GracefulCloses::default(),
            pooled: GracefulCloses::default(),
            on_full: None,
        }
    }

    /// The same, by TLS that the proxy begins.
    #[must_use]
    pub fn over_tls(mut self, tls: OriginTls) -> Self {
        self.tls = Some(Arc::new(tls));
        self
    }

    /// Whether what it sends leaves encrypted.
    #[must_use]
    pub const fn begins_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Calls `counts` for each request that shares no connection because there are too many
    /// addresses.
    #[must_use]
    pub fn counted(mut self, counts: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_full = Some(OnFull(Arc::new(counts)));
        self
    }

    fn note_full(&self) {
        if let Some(OnFull(counts)) = &self.on_full {
            counts();
        }
    }

    /// The bytes of the process, which their connections count in.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Connections to an application for one caller: what an application does not take
    /// from one of them must not hold up another. Where there is no room for them, the
    /// request has one for itself.
    pub fn http2(&self, addr: SocketAddr, caller: &Arc<str>) -> Arc<Multiplexed> {
        let connections = || self.connections(addr, None);
        let mut plain = self.http2.lock();
        let served = AppKey(addr, Arc::clone(caller));
        if plain.len() >= POOLS && !plain.contains_key(&served) {
            drop(plain);
            self.note_full();
            return connections();
        }
        Arc::clone(plain.entry(served).or_insert_with(connections))
    }

    /// The same for one request that lost its stream with a shared connection: requests of others
    /// may be what ends those.
    pub fn http2_exclusive(&self, addr: SocketAddr, caller: &Arc<str>) -> Arc<Multiplexed> {
        let counted = Arc::clone(&self.exclusive);
        if Arc::strong_count(&counted) > EXCLUSIVE + 1 {
            return self.http2(addr, caller);
        }
        self.connections(addr, Some(Arc::new(Exclusive { _counted: counted })))
    }

    fn connections(&self, addr: SocketAddr, guard: Option<Arc<Exclusive>>) -> Arc<Multiplexed> {
        let (connector, budget) = (Arc::clone(&self.connector), Arc::clone(&self.budget));
        let limit = self.servers.connect_timeout();
        let tls = self.tls.clone();
        Arc::new(Multiplexed::new(move || {
            let connector = (Arc::clone(&connector), tls.clone());
            connect_http2(connector, addr, limit, Arc::clone(&budget), guard.clone())
        }))
    }

    /// The HTTP/1.1 connections to an address, where there is room for their pool. Held for as
    /// long as one of them is in use: a pool that is dropped forgets what has to close.
    pub(crate) fn pool(&self, addr: SocketAddr) -> Option<Arc<Pool>> {
        let mut pools = self.http1.lock();
        if pools.len() >= POOLS && !pools.contains_key(&addr) {
            drop(pools);
            self.note_full();
            return None;
        }
        let idle = self.servers.idle();
        let new = || Arc::new(Pool::new(self.pooled.clone(), idle));
        Some(Arc::clone(pools.entry(addr).or_insert_with(new)))
    }

    /// A new connection for requests without a body.
    ///
    /// # Errors
    /// When none can be made; the server has seen nothing.
    pub async fn connect(&self, addr: SocketAddr, limit: ConnectTimeout) -> Result<Http1, Failure> {
        Box::pin(http1_connection(
            (&*self.connector, self.tls.as_deref()),
            addr,
            limit,
            &self.budget,
            None,
        ))
        .await
    }

    /// A new connection for one request, of whose body its server may leave a part.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn connect_for_body(
        &self,
        addr: SocketAddr,
        limit: ConnectTimeout,
    ) -> Result<Http1, Failure> {
        let window = match self.servers {
            Servers::OwnPod => self.windows.take(&self.budget),
            // Its kernel sends as much as ours grows to take, and less of it comes at once.
            Servers::Elsewhere => None,
        };
        Box::pin(http1_connection(
            (&*self.connector, self.tls.as_deref()),
            addr,
            limit,
            &self.budget,
            window,
        ))
        .await
    }

    /// The answer to the first request of a connection that was there at `opened`. Where its server
    /// is silent the pooled ones before it are closed, as they may be what it waits for; not so
    /// while `waits` reports that the request's own sender is waited for.
    pub(crate) async fn first_answer<F: Future>(
        &self,
        pool: Option<&Pool>,
        opened: Instant,
        waits: impl Fn() -> bool,
        answer: F,
    ) -> F::Output {
        let Some(pool) = pool.filter(|_| self.servers == Servers::OwnPod) else {
            return answer.await;
        };
        let give_way = || {
            if !waits() {
                pool.renew(opened);
            }
        };
        patiently(answer, give_way).await
    }

    /// The answer of the pod over a connection that is none of these, a probe's: the same with all
    /// pools.
    pub async fn beside<F: Future>(&self, answer: F) -> F::Output {
        let renew = || {
            let pools: Vec<_> = self.http1.lock().values().cloned().collect();
            pools.iter().for_each(|pool| pool.renew(Instant::now()));
        };
        patiently(answer, renew).await
    }

    /// Whether it has no connections that are shared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.http2.lock().is_empty() && self.http1.lock().is_empty()
    }

    /// Closes what is idle. Called every few seconds.
    pub fn sweep(&self) {
        // A connection that is being opened right now is held by them too.
        self.http2
            .lock()
            .retain(|_, shared| !shared.sweep() || Arc::strong_count(shared) > 1);
        self.http1
            .lock()
            .retain(|_, pool| !pool.is_empty() || Arc::strong_count(pool) > 1);
    }
}

/// `answer`, and `give_way` where it has not come for a while, again and again: what is in the
/// way may have been in use, and what is opened meanwhile does not come before it.
async fn patiently<F: Future>(answer: F, give_way: impl Fn()) -> F::Output {
    let mut answer = pin!(answer);
    let mut patience = SILENT;
    loop {
        if let Ok(answer) = timeout(patience, &mut answer).await {
            return answer;
        }
        give_way();
        patience *= 2;
    }
}

/// Gives a connection back once its exchange is over.
pub(crate) fn give_back(pool: Arc<Pool>, mut connection: Http1) {
    #[expect(
        clippy::disallowed_methods,
        reason = "one connection to an application"
    )]
    tokio::spawn(async move {
        if connection.sender.ready().await.is_ok() {
            pool.put(connection);
            pool.expire().await;
        }
    });
}

/// HTTP/2, with TLS where there is such.
async fn connect_http2(
    (connector, tls): (Arc<Connector>, Option<Arc<OriginTls>>),
    addr: SocketAddr,
    limit: ConnectTimeout,
    budget: Arc<Budget>,
    guard: Option<Arc<Exclusive>>,
) -> Result<RequestSender, Failure> {
    let stream = connector
        .connect(addr, limit)
        .await
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    let stream = ServerStream::begin(stream, tls.as_deref(), Version::HTTP_2).await?;
    let sender = handshake(stream, PLAIN, budget, None).await?;
    if let Some(guard) = guard {
        sender.holds(guard);
    }
    Ok(sender)
}

#[cfg(test)]
mod tests;
