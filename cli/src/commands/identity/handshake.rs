//! The certificates that a server shows in a TLS handshake. Nothing is believed and
//! nothing sent: they are only shown to the user, so they are not verified either.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::cluster::forward::Stream;

/// The chain, the server's own certificate first.
pub(super) async fn chain(
    stream: Box<dyn Stream>,
    within: Duration,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (sender, mut shown) = oneshot::channel();
    let noting = Arc::new(Noting {
        provider: Arc::clone(&provider),
        shown: Slot::new(sender),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(noting)
        .with_no_client_auth();
    let name = ServerName::try_from("weft.invalid").map_err(|error| error.to_string())?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let ended = timeout(within, connecting).await;
    // A proxy refuses us, who have no certificate, after it has shown its own.
    if let Ok(chain) = shown.try_recv() {
        return Ok(chain);
    }
    Err(match ended {
        Err(_) => format!("no handshake within {} s", within.as_secs()),
        Ok(Err(error)) => format!("no handshake: {error}"),
        Ok(Ok(_)) => "shows no certificate".to_owned(),
    })
}

type Chain = Vec<CertificateDer<'static>>;
/// Taken once.
type Slot = SlotOf<oneshot::Sender<Chain>>;

#[derive(Debug)]
struct SlotOf<T>(parking_lot::Mutex<Option<T>>);

impl<T> SlotOf<T> {
    fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(Some(value)))
    }

    fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

#[derive(Debug)]
struct Noting {
    provider: Arc<CryptoProvider>,
    shown: Slot,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(sender) = self.shown.take() {
            let chain = std::iter::once(end_entity).chain(intermediates);
            // Nobody waits any more: then nobody misses it.
            let _ = sender.send(chain.map(|one| one.clone().into_owned()).collect());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio_rustls::TlsAcceptor;

    use super::super::certificate::Certificate;
    use super::*;

    #[tokio::test]
    async fn certificate_of_a_server_that_refuses_us_is_read_all_the_same() {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_cert = root.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(root, root_key);
        let mut leaf = CertificateParams::default();
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        leaf.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root_cert.der().clone()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                vec![leaf.der().clone()],
                key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let serving = tokio::spawn(TlsAcceptor::from(Arc::new(server)).accept(theirs));
        let chain = chain(Box::new(ours), Duration::from_secs(5)).await.unwrap();
        assert_eq!(Certificate::read(&chain[0]).unwrap().identity, id);
        assert!(
            serving.await.unwrap().is_err(),
            "it asked us for a certificate"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_says_nothing_is_given_up() {
        let (ours, _silent) = tokio::io::duplex(1024);
        let error = chain(Box::new(ours), Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(error.contains("5 s"), "{error}");
    }
}
