//! What the HTTPS servers of the control plane share: admission of connections, and bounds on what
//! unauthenticated peers make them hold. Every client in the cluster can reach these servers.
//!
//! An [`HttpsListener`] admits new connections, by rate; a [`Bounds`] sets what one connection may
//! take, from its handshake to its last stream. Each server decides itself which ones it rejects
//! when there are too many, and how.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::counter::Counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::listen;
use crate::rate::{Allowance, Rates};

/// Addresses whose connections are counted at one time.
const MAX_SOURCES: usize = 4096;

/// A listening socket, and how often each address may come.
#[derive(Debug)]
pub struct HttpsListener {
    listener: TcpListener,
    /// For the log.
    port: &'static str,
    arrivals: Rates<IpAddr>,
    too_often: Counter<u64, AtomicU64>,
    no_file: Counter<u64, AtomicU64>,
}

impl HttpsListener {
    /// `too_often` counts those that `each` rejects, `no_file` that a connection could not be
    /// accepted because no further file may be opened.
    #[must_use]
    pub fn new(
        listener: TcpListener,
        port: &'static str,
        each: Allowance,
        too_often: Counter<u64, AtomicU64>,
        no_file: Counter<u64, AtomicU64>,
    ) -> Self {
        Self {
            listener,
            port,
            arrivals: Rates::new(each, MAX_SOURCES),
            too_often,
            no_file,
        }
    }

    /// The next connection, or the address of one that came too often and is closed.
    ///
    /// May be dropped at any time, and no connection is lost by it.
    pub async fn next(&self) -> Result<(TcpStream, SocketAddr), SocketAddr> {
        let ran_out = || {
            self.no_file.inc();
        };
        let (stream, addr) = listen::next(&self.listener, self.port, ran_out).await;
        match self.arrivals.take(&source(addr), Instant::now()) {
            Ok(()) => Ok((stream, addr)),
            Err(_) => {
                self.too_often.inc();
                Err(addr)
            }
        }
    }
}

/// The key of a caller that shows no certificate.
#[must_use]
pub fn source(addr: SocketAddr) -> IpAddr {
    addr.ip().to_canonical()
}

/// What one connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Time for a TLS handshake, and for the head of an HTTP/1 request.
    pub handshake: Duration,
    /// Streams on an HTTP/2 connection.
    pub streams: u32,
    /// Bytes of all headers of one call.
    pub headers: u32,
    /// Bytes of one call, and of all calls together, that wait to be read.
    pub windows: (u32, u32),
}

impl Bounds {
    /// The handshake; `None` if it fails or takes too long.
    pub async fn handshake(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
    ) -> Option<TlsStream<TcpStream>> {
        match timeout(self.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                debug!(%error, "handshake failed");
                None
            }
            Err(_) => None,
        }
    }

    /// Serves HTTP/1.1 and HTTP/2 within these bounds.
    #[must_use]
    pub fn http(&self) -> auto::Builder<TokioExecutor> {
        self.http_on(TokioExecutor::new())
    }

    /// The same with streams of HTTP/2 that are run by `executor`.
    #[must_use]
    pub fn http_on<E>(&self, executor: E) -> auto::Builder<E> {
        let mut builder = auto::Builder::new(executor);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.handshake)
            .max_buf_size(self.headers as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .initial_stream_window_size(self.windows.0)
            .initial_connection_window_size(self.windows.1)
            .max_header_list_size(self.headers);
        builder
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use crate::limit::Reached;

    use super::*;

    #[tokio::test]
    async fn address_connecting_too_often_is_identified_and_counted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let each = Allowance {
            burst: 2,
            every: Duration::from_secs(3600),
        };
        let limits = Reached::default();
        let (rate, files) = (limits.counter("rate"), limits.counter("files"));
        let listener = HttpsListener::new(listener, "test", each, rate, files);
        let callers = [
            TcpStream::connect(addr).await.unwrap(),
            TcpStream::connect(addr).await.unwrap(),
            TcpStream::connect(addr).await.unwrap(),
        ];
        assert!(listener.next().await.is_ok());
        assert!(listener.next().await.is_ok());
        assert_eq!(
            listener.next().await.unwrap_err(),
            callers[2].local_addr().unwrap()
        );
        assert_eq!(limits.counter("rate").get(), 1);
    }
}
