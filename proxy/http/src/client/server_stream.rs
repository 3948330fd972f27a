//! The connection to a server without a proxy: a socket, or TLS that this proxy begins on one.
//!
//! One type for both, since a client is compiled for each type, with all of hyper and `h2` that
//! belongs to it. What else is done with a connection is done with its socket: a server that
//! breaks it off breaks off the socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use policy::reason::Reason;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::failure::Failure;

/// A server outside the mesh may be far away: as long as a connection to one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The protocols, as TLS names them.
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// The TLS of connections to one server: which name its certificate must have, and which
/// authorities vouch for that.
#[derive(Debug)]
pub struct OriginTls {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl OriginTls {
    #[must_use]
    pub fn new(config: &ClientConfig, name: ServerName<'static>) -> Self {
        let offering = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Self {
            http1: offering(HTTP1),
            http2: offering(HTTP2),
            name,
        }
    }

    /// Begins TLS on a connection that will carry this version of HTTP.
    ///
    /// # Errors
    /// When the server does not prove its name, or speaks another protocol. It has seen no request.
    async fn begin(&self, stream: TcpStream, version: Version) -> Result<ServerStream, Failure> {
        let is_http2 = version == Version::HTTP_2;
        let config = if is_http2 { &self.http2 } else { &self.http1 };
        let connector = TlsConnector::from(Arc::clone(config));
        let connecting = connector.connect(self.name.clone(), stream);
        let stream = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.failed(&error.to_string())),
            Err(_) => return Err(self.failed("no handshake within 10 s")),
        };
        // A server that knows nothing of ALPN speaks HTTP/1.1.
        if is_http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(self.failed("the server does not speak HTTP/2"));
        }
        Ok(ServerStream::Tls(Box::new(stream)))
    }

    fn failed(&self, detail: &str) -> Failure {
        let name = self.name.to_str();
        Failure::not_sent(Reason::TlsFailed, format!("TLS with {name}: {detail}"))
    }
}

/// A connection to a server.
#[derive(Debug)]
pub enum ServerStream {
    Socket(TcpStream),
    /// Boxed: it is many times as large as a socket, and rare.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ServerStream {
    /// What carries this version of HTTP on a connection that stands.
    ///
    /// # Errors
    /// When TLS is to begin on it and does not.
    pub(super) async fn begin(
        stream: TcpStream,
        tls: Option<&OriginTls>,
        version: Version,
    ) -> Result<Self, Failure> {
        match tls {
            None => Ok(Self::Socket(stream)),
            // On the heap: most servers are called in plaintext.
            Some(tls) => Box::pin(tls.begin(stream, version)).await,
        }
    }

    /// What all of it passes.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Socket(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// The same of whichever it is.
macro_rules! of_either {
    ($stream:expr, $inner:ident => $does:expr) => {
        match $stream {
            Self::Socket($inner) => $does,
            Self::Tls($inner) => $does,
        }
    };
}

impl AsyncRead for ServerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, out))
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        of_either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
