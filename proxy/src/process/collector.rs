//! Connects the exporter of traces to their collector through the mesh, like any call of the pod's
//! own application.
//!
//! The sender of spans is on the control thread, and connections of the mesh are on the data
//! thread. A pair of loopback sockets connects the two: one end is the sender's, the other is
//! served as if the application had opened it to the collector's address. So it is balanced,
//! encrypted, authorized and counted, and there is no second way out.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use runtime::occupancy::Permit;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::outbound;
use crate::proxy::Proxy;

/// The end of a connection that the data thread serves, and the address that it is to.
#[derive(Debug)]
pub struct Opened {
    stream: std::net::TcpStream,
    to: SocketAddr,
}

/// Opens connections to the collector.
#[derive(Clone, Debug)]
pub struct Connector(mpsc::Sender<Opened>);

/// Opens connections, and hands the data thread what it is to serve.
#[must_use]
pub fn connector() -> (Connector, mpsc::Receiver<Opened>) {
    let (opened, serving) = mpsc::channel(1);
    (Connector(opened), serving)
}

impl Connector {
    /// A connection to this address.
    ///
    /// # Errors
    /// When there are no sockets, or it is not served any more.
    pub async fn connect(self, to: SocketAddr) -> io::Result<TcpStream> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let own = TcpStream::connect(listener.local_addr()?).await?;
        let from = own.local_addr()?;
        let served = loop {
            // Every program of the pod may find the port; only the own end counts.
            let (stream, caller) = listener.accept().await?;
            if caller == from {
                break stream;
            }
        };
        let opened = Opened {
            stream: served.into_std()?,
            to,
        };
        let gone = |_| io::Error::other("the proxy is ending");
        self.0.send(opened).await.map_err(gone)?;
        Ok(own)
    }
}

/// Serves what was opened, for as long as the process lives.
pub async fn serve(proxy: Arc<Proxy>, mut serving: mpsc::Receiver<Opened>) {
    while let Some(Opened { stream, to }) = serving.recv().await {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection to the collector cannot be served");
                continue;
            }
        };
        let proxy = Arc::clone(&proxy);
        #[expect(
            clippy::disallowed_methods,
            reason = "one connection's: its panic ends that connection only"
        )]
        tokio::spawn(Box::pin(outbound::serve(
            proxy,
            stream,
            to,
            // One at a time, opened by the proxy itself.
            Permit::unlisted(),
        )));
    }
}
