//! A byte stream to an endpoint: a CONNECT stream over the mesh, or a plain
//! connection to whoever is not meshed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use policy::reason::Reason;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::app::Proxy;
use crate::body;
use crate::detect::Prefixed;
use crate::endpoint::{Endpoint, InFlight};
use crate::failure::{Failure, reason_in};
use crate::finish::Call;
use crate::headers;
use crate::peer::Place;
use crate::tcp::{self, CONNECT_TIMEOUT};
use crate::upstream;

/// Either kind of stream.
#[derive(Debug)]
pub enum Io {
    Plain(TcpStream),
    Mesh(TokioIo<Upgraded>),
}

/// An open way to an endpoint.
#[derive(Debug)]
pub struct Tunnel {
    pub io: Prefixed<Io>,
    call: Call,
    _place: Option<Place>,
    _in_flight: InFlight,
}

/// Opens a tunnel to `endpoint`.
///
/// # Errors
/// When the endpoint cannot be reached or refuses.
pub async fn open(
    proxy: &Proxy,
    endpoint: &Arc<Endpoint>,
    protocol: &'static str,
    call: Call,
) -> Result<Tunnel, Failure> {
    let in_flight = endpoint.begin();
    let Some(identity) = &endpoint.identity else {
        let stream = tcp::connect(endpoint.addr, CONNECT_TIMEOUT)
            .await
            .map_err(|error| {
                Failure::unsent(Reason::ConnectFailed, format!("{}: {error}", endpoint.addr))
            })?;
        return Ok(Tunnel {
            io: Prefixed::new(Io::Plain(stream)),
            call,
            _place: None,
            _in_flight: in_flight,
        });
    };
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(endpoint.addr.to_string())
        .header(headers::PORT, HeaderValue::from(endpoint.addr.port()))
        .header(headers::PROTOCOL, HeaderValue::from_static(protocol))
        .body(body::empty())
        .map_err(|error| Failure::unsent(Reason::BadRequest, error.to_string()))?;
    let (parts, body) = request.into_parts();
    let answer = upstream::mesh(&proxy.peers, endpoint.addr, identity, parts, body).await?;
    let mut response = answer.response;
    if response.status() != StatusCode::OK {
        let reason = reason_in(response.headers()).unwrap_or(Reason::ConnectFailed);
        return Err(Failure::verdict(
            reason,
            format!("{} refused the connection", endpoint.addr),
        ));
    }
    let upgraded = hyper::upgrade::on(&mut response)
        .await
        .map_err(|error| Failure::unsent(Reason::ConnectFailed, error.to_string()))?;
    Ok(Tunnel {
        io: Prefixed::new(Io::Mesh(TokioIo::new(upgraded))),
        call,
        _place: answer.place,
        _in_flight: in_flight,
    })
}

impl Tunnel {
    /// Copies until both directions have ended, and counts it.
    pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(mut self, client: &mut S) {
        let outcome = tcp::relay(client, &mut self.io).await;
        self.call.relayed(outcome);
    }
}

/// Makes the close of `stream` a reset, as a refused connection looks like.
pub fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, out),
            Self::Mesh(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Mesh(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Mesh(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Mesh(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
