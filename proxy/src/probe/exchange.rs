//! One connection, one request, one answer.

use std::future::{Future, pending};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of an answer's body that are read; the kubelet reads no more either.
const MAX_BODY: usize = 10 * 1024;

/// Bytes of an answer's head, far more than any probe's answer has.
const MAX_HEAD: usize = 64 * 1024;

/// What came back. A body longer than the bound is cut off.
pub(super) struct ProbeAnswer {
    pub(super) head: http::response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

/// A connection to an application, with TLS or without. One type for both: what speaks
/// HTTP is in the program once for each kind of stream.
pub(super) trait ProbeStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> ProbeStream for S {}

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

/// Starts TLS with whoever is there, as the kubelet does.
pub(super) async fn encrypt(stream: TcpStream, host: &str) -> Result<Box<dyn ProbeStream>, String> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| format!("{host:?}: {error}"))?;
    let encrypted = TlsConnector::from(trusting_anybody()?)
        .connect(name, stream)
        .await
        .map_err(|error| format!("TLS: {error}"))?;
    Ok(Box::new(encrypted))
}

pub(super) async fn http1(
    stream: Box<dyn ProbeStream>,
    request: Request<Full<Bytes>>,
) -> Result<ProbeAnswer, String> {
    let shaken = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = shaken.map_err(|e| e.to_string())?;
    beside(connection, async move {
        read(sender.send_request(request).await).await
    })
    .await
}

/// The types are those of the way to the collector of traces, and so is the code.
pub(super) async fn http2(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<ProbeAnswer, String> {
    let shaken = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(MAX_HEAD as u32)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = shaken.map_err(|e| e.to_string())?;
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
        .map_err(|error| format!("no answer: {error}"))?
        .into_parts();
    let (body, trailers) = match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            (collected.to_bytes(), trailers)
        }
        // Too long to be read to its end, which the kubelet does not mind.
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Default::default(),
        Err(error) => return Err(format!("the answer broke off: {error}")),
    };
    Ok(ProbeAnswer {
        head,
        body,
        trailers,
    })
}

fn trusting_anybody() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    // Applications may be older than the mesh, so every version is offered.
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The kubelet verifies no certificate of a probe either: the question is
/// whether the application lives, and nothing secret is said.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
