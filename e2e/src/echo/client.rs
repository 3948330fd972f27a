//! One HTTP connection and the answers that come over it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::tls;

/// A pod's connect fails or succeeds well within this.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The request, the same throughout a run.
#[derive(Clone, Debug)]
pub struct Ask {
    pub uri: Uri,
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub http2: bool,
    /// Each request begins a trace, as the first service of a chain does.
    pub traced: bool,
    /// The connection ends with a reset: over HTTP/1.1 a server has no other sign that its
    /// caller is gone.
    pub resets: bool,
    /// From sending to the last byte of the answer.
    pub timeout: Duration,
}

/// A whole answer. Bodies are kept up to 64 KiB and counted beyond.
#[derive(Clone, Debug)]
pub struct WholeResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub body_bytes: u64,
    pub trailers: HeaderMap,
}

/// Why there is no answer; closed, because counts are kept by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Name not found, connection refused or timed out.
    Connect,
    /// The connection ended before the answer did.
    Broken,
    /// The answer did not end in time.
    Timeout,
}

impl Failure {
    /// The key in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
        }
    }
}

/// Why there is no answer, with the detail for people.
#[derive(Debug)]
pub struct NoAnswer {
    pub failure: Failure,
    pub detail: anyhow::Error,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A client that keeps one connection alive and makes a new one when it must.
#[derive(Debug)]
pub struct Client {
    ask: Ask,
    sender: Option<Sender>,
    /// Connections made so far.
    pub connects: u64,
}

impl Ask {
    /// GET `url` with defaults. No certificate of a server at `https://` is verified.
    pub fn get(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        ensure!(
            matches!(uri.scheme_str(), Some("http" | "https")),
            "{url} must begin with http:// or https://"
        );
        ensure!(uri.host().is_some(), "{url} names no host");
        Ok(Self {
            uri,
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            http2: false,
            traced: false,
            resets: false,
            timeout: Duration::from_secs(30),
        })
    }

    /// `host:port` for connecting.
    fn authority(&self) -> String {
        let host = self.uri.host().unwrap_or_default();
        let port = if self.is_secured() { 443 } else { 80 };
        format!("{host}:{}", self.uri.port_u16().unwrap_or(port))
    }

    fn is_secured(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The name that the handshake asks for: that of the Host, if one is given.
    fn server_name(&self) -> &str {
        let given = self.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = given.map(|host| host.split(':').next().unwrap_or_default());
        host.or(self.uri.host()).unwrap_or_default()
    }

    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        if self.traced {
            request.headers_mut().insert("traceparent", new_trace()?);
        }
        if self.http2 {
            *request.uri_mut() = self.uri.clone();
        } else {
            let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = path.parse()?;
            let authority = self
                .uri
                .authority()
                .map_or("", |authority| authority.as_str());
            if !request.headers().contains_key(HOST) {
                request
                    .headers_mut()
                    .insert(HOST, HeaderValue::from_str(authority)?);
            }
        }
        Ok(request)
    }
}

impl Client {
    pub fn new(ask: Ask) -> Self {
        Self {
            ask,
            sender: None,
            connects: 0,
        }
    }

    /// Sets the request from now on, at the same address.
    pub fn turn_to(&mut self, ask: Ask) {
        self.ask = ask;
    }

    /// Sends one request and waits for all of its answer.
    ///
    /// A kept connection that closed before the request went out is replaced
    /// once, as every HTTP client does; nothing is ever sent twice.
    pub async fn send(&mut self) -> Result<WholeResponse, NoAnswer> {
        let timeout = self.ask.timeout;
        match tokio::time::timeout(timeout, self.exchange()).await {
            Ok(outcome) => {
                if outcome.is_err() {
                    self.sender = None;
                }
                outcome
            }
            Err(_) => {
                self.sender = None;
                Err(NoAnswer {
                    failure: Failure::Timeout,
                    detail: anyhow::anyhow!("no answer within {timeout:?}"),
                })
            }
        }
    }

    async fn exchange(&mut self) -> Result<WholeResponse, NoAnswer> {
        let broken = |detail| NoAnswer {
            failure: Failure::Broken,
            detail,
        };
        let mut request = self.ask.request().map_err(broken)?;
        loop {
            let kept = self.sender.is_some();
            let mut sender = match self.sender.take() {
                Some(sender) => sender,
                None => self.connect().await.map_err(|detail| NoAnswer {
                    failure: Failure::Connect,
                    detail,
                })?,
            };
            let sent = match &mut sender {
                Sender::Http1(sender) => match sender.ready().await {
                    Ok(()) => sender.try_send_request(request).await,
                    // The ready check takes no request, so it is still ours.
                    Err(_) if kept => continue,
                    Err(error) => return Err(broken(error.into())),
                },
                Sender::Http2(sender) => match sender.ready().await {
                    Ok(()) => sender.try_send_request(request).await,
                    Err(_) if kept => continue,
                    Err(error) => return Err(broken(error.into())),
                },
            };
            match sent {
                Ok(response) => {
                    let answer = WholeResponse::read(response).await.map_err(broken)?;
                    self.sender = Some(sender);
                    return Ok(answer);
                }
                Err(mut unsent) => match unsent.take_message() {
                    Some(message) if kept => request = message,
                    _ => return Err(broken(unsent.into_error().into())),
                },
            }
        }
    }

    async fn connect(&mut self) -> anyhow::Result<Sender> {
        let authority = self.ask.authority();
        let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(&authority))
            .await
            .map_err(|_| anyhow::anyhow!("connecting took over {CONNECT_LIMIT:?}"))
            .and_then(|connected| Ok(connected?))
            .with_context(|| format!("connect to {authority}"))?;
        self.connects += 1;
        stream.set_nodelay(true)?;
        if self.ask.resets {
            stream.set_zero_linger()?;
        }
        if !self.ask.is_secured() {
            return Sender::over(stream, self.ask.http2).await;
        }
        let protocol: &[u8] = if self.ask.http2 { b"h2" } else { b"http/1.1" };
        let protocols = [protocol];
        let secured = tls::shake_hands(stream, self.ask.server_name(), &protocols);
        let secured = tokio::time::timeout(CONNECT_LIMIT, secured)
            .await
            .map_err(|_| anyhow::anyhow!("the TLS handshake took over {CONNECT_LIMIT:?}"))??;
        Sender::over(secured, self.ask.http2).await
    }
}

impl Sender {
    async fn over<S>(stream: S, http2: bool) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        // The driver ends with its connection; its error shows on the request.
        if http2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io)
                .await
                .context("HTTP/2 handshake")?;
            tokio::spawn(driver);
            Ok(Self::Http2(sender))
        } else {
            let (sender, driver) = http1::handshake(io).await?;
            tokio::spawn(driver);
            Ok(Self::Http1(sender))
        }
    }
}

impl WholeResponse {
    async fn read(response: hyper::Response<Incoming>) -> anyhow::Result<Self> {
        const KEPT: usize = 64 * 1024;
        let (head, mut incoming) = response.into_parts();
        let (mut body, mut body_bytes) = (Vec::new(), 0);
        let mut trailers = HeaderMap::new();
        while let Some(frame) = incoming.frame().await {
            match frame.context("the answer broke off")?.into_data() {
                Ok(data) => {
                    body_bytes += data.len() as u64;
                    let room = KEPT.saturating_sub(body.len()).min(data.len());
                    body.extend_from_slice(data.get(..room).unwrap_or_default());
                }
                Err(last) => trailers = last.into_trailers().unwrap_or_default(),
            }
        }
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body,
            body_bytes,
            trailers,
        })
    }
}

/// W3C trace context of a new trace.
fn new_trace() -> anyhow::Result<HeaderValue> {
    // All zeros would be no id.
    let (trace, span) = (rand::random::<u128>() | 1, rand::random::<u64>() | 1);
    let text = format!("00-{trace:032x}-{span:016x}-01");
    Ok(HeaderValue::from_str(&text)?)
}
