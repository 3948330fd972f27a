//! Sends one request of a probe or hook, on a connection of its own, and reads the response.

use std::error::Error as StdError;
use std::future::{Future, pending};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, InvalidMessage, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

// What speaks HTTP is in the program once for each type of stream. Plaintext and TLS are
// one type here, and what speaks HTTP/2 is that of the way to the collector of traces.
use crate::http::client::dedicated::connection::Wire;

/// Bytes of an answer's body that are read; the kubelet reads no more either.
const MAX_BODY: usize = 10 * 1024;

/// Bytes of an answer's head, far more than any probe's answer has.
const MAX_HEAD: usize = 64 * 1024;

/// The result of a probe or hook, in short; `Err` is a failure.
pub(super) type ProbeResult = Result<String, String>;

/// What came back. A body longer than the bound is cut off.
pub(super) struct ProbeAnswer {
    pub(super) head: http::response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

/// A connection with TLS, by what the application chose to speak on it.
pub(super) enum Encrypted {
    Http1(Box<dyn Wire>),
    Http2(Box<dyn Wire>),
}

/// ALPN, in the kubelet's order.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Connects to `host`, or to the pod itself.
pub(super) async fn connect(
    host: Option<&str>,
    port: u16,
    pod_ip: IpAddr,
) -> Result<TcpStream, String> {
    let connected = match host {
        Some(host) => TcpStream::connect((host.trim_matches(['[', ']']), port)).await,
        None => TcpStream::connect((pod_ip, port)).await,
    };
    connected.map_err(|error| format!("cannot connect to port {port}: {error}"))
}

/// Starts TLS with any server, as the kubelet does.
pub(super) async fn encrypt(stream: TcpStream, host: &str) -> Result<Encrypted, String> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| format!("{host:?}: {error}"))?;
    let encrypted = TlsConnector::from(accepting_any_certificate()?)
        .connect(name, stream)
        .await
        .map_err(|error| without_tls(&error))?;
    let is_http2 = encrypted.get_ref().1.alpn_protocol() == Some(HTTP2);
    let stream: Box<dyn Wire> = Box::new(EndsAsItLikes(encrypted));
    Ok(if is_http2 {
        Encrypted::Http2(stream)
    } else {
        // An application that knows nothing of ALPN speaks HTTP/1.1.
        Encrypted::Http1(stream)
    })
}

/// Why TLS did not come about, with the way out where there is one.
fn without_tls(error: &io::Error) -> String {
    use AlertDescription as Alert;
    use rustls::Error;

    let cause = error.get_ref();
    let why = match cause.and_then(|cause| cause.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the application does not speak TLS on this port; write scheme HTTP"
        }
        Some(
            Error::AlertReceived(
                Alert::HandshakeFailure | Alert::InsufficientSecurity | Alert::ProtocolVersion,
            )
            | Error::PeerIncompatible(_),
        ) => {
            "the application refuses the versions and cipher suites that the probe offers, TLS 1.3 \
             and TLS 1.2 with ECDHE and AES-GCM or ChaCha20, or asks for a client certificate; let \
             it take one of them, or probe it by exec or tcpSocket"
        }
        Some(Error::AlertReceived(Alert::NoApplicationProtocol)) => {
            "the application speaks neither HTTP/2 nor HTTP/1.1 by its ALPN; probe it by exec or \
             tcpSocket"
        }
        _ => return format!("TLS: {error}"),
    };
    format!("TLS: {why} ({error})")
}

/// A stream that ends where its connection does, as for the kubelet: some servers do not
/// end TLS before. Whether a body is whole hyper knows by its length.
struct EndsAsItLikes(TlsStream<TcpStream>);

impl AsyncRead for EndsAsItLikes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, out)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }
}

impl AsyncWrite for EndsAsItLikes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

pub(super) async fn http1(
    stream: Box<dyn Wire>,
    request: Request<Full<Bytes>>,
) -> Result<ProbeAnswer, String> {
    let shaken = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = shaken.map_err(|error| in_words(&error))?;
    beside(connection, async move {
        read(sender.send_request(request).await).await
    })
    .await
}

pub(super) async fn http2(
    stream: Box<dyn Wire>,
    request: Request<Full<Bytes>>,
) -> Result<ProbeAnswer, String> {
    let shaken = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MAX_HEAD as u32)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = shaken.map_err(|error| in_words(&error))?;
    beside(connection, async move {
        read(sender.send_request(request).await).await
    })
    .await
}

/// Drives the connection as long as the exchange needs it, and no longer.
async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let driven = async {
        connection.await;
        pending().await
    };
    tokio::select! {
        result = exchange => result,
        result = driven => result,
    }
}

async fn read(response: hyper::Result<Response<Incoming>>) -> Result<ProbeAnswer, String> {
    let (head, body) = response
        .map_err(|error| format!("no answer: {}", in_words(&error)))?
        .into_parts();
    let (body, trailers) = match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            (collected.to_bytes(), trailers)
        }
        // Too long to be read to its end, which the kubelet does not mind.
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Default::default(),
        Err(error) => return Err(format!("the answer broke off: {}", in_words(&*error))),
    };
    Ok(ProbeAnswer {
        head,
        body,
        trailers,
    })
}

/// An error with its causes: of hyper's errors only these name what happened.
fn in_words(error: &(dyn StdError + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

fn accepting_any_certificate() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    // Applications may be older than the mesh, so every version is offered.
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAnyServerCert(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// The kubelet verifies no certificate of a probe either: it checks whether the application
/// lives, and nothing secret is sent.
#[derive(Debug)]
struct AcceptAnyServerCert(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyServerCert {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.signature_verification_algorithms.supported_schemes();
        // Nothing is verified, so what old servers sign with is as good as any.
        schemes.extend([
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
        ]);
        schemes
    }
}
