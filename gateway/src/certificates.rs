//! Builds the TLS configuration of a listener: the versions of TLS and HTTP, and which of its
//! certificates a client is shown.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use weft_proxy::ServedCertificate;

/// What clients may choose, the first that they know.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
/// As TLS names HTTP/2.
pub(crate) const HTTP2: &[u8] = b"h2";

/// The certificates of one listener, in its own order.
#[derive(Debug)]
struct OfListener(Vec<Arc<ServedCertificate>>);

impl ResolvesServerCert for OfListener {
    /// The first that is for the server that the client names, else the first, of those that last and
    /// whose key the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let is_usable = |one: &&Arc<CertifiedKey>| one.key.choose_scheme(schemes).is_some();
        let now = SystemTime::now();
        let lasting = self.0.iter().filter(|one| one.lasts_at(now));
        let certified = lasting.map(|one| &one.certified);
        let mut usable = certified.filter(is_usable).peekable();
        let first = usable.peek().copied();
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let fits = name.and_then(|name| usable.find(|one| is_for(one, &name)));
        fits.or(first).cloned()
    }
}

fn is_for(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = certified.end_entity_cert();
    let parsed = certificate.and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

/// The TLS of a listener with these certificates; `None` where it has none.
pub(crate) fn server_config(certificates: &[Arc<ServedCertificate>]) -> Option<Arc<ServerConfig>> {
    if certificates.is_empty() {
        return None;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = match builder.with_protocol_versions(&[&TLS13, &TLS12]) {
        Ok(builder) => builder,
        Err(error) => {
            tracing::error!(%error, "cannot speak TLS");
            return None;
        }
    };
    let certificates = Arc::new(OfListener(certificates.to_vec()));
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = Vec::from(PROTOCOLS.map(<[u8]>::to_vec));
    Some(Arc::new(config))
}
