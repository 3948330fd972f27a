//! Builds the TLS configuration of a listener: the versions of TLS and HTTP, and which of its
//! certificates a client is shown.

use std::sync::{Arc, Once};
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
struct OfListener {
    name: Arc<str>,
    certificates: Vec<Shown>,
}

#[derive(Debug)]
struct Shown {
    certificate: Arc<ServedCertificate>,
    /// That it has ended.
    logged: Once,
}

impl From<&Arc<ServedCertificate>> for Shown {
    fn from(certificate: &Arc<ServedCertificate>) -> Self {
        Self {
            certificate: Arc::clone(certificate),
            logged: Once::new(),
        }
    }
}

impl ResolvesServerCert for OfListener {
    /// The first that is for the server that the client names, else the first, of those that last and
    /// whose key the client can verify.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let is_usable = |one: &&Arc<CertifiedKey>| one.key.choose_scheme(schemes).is_some();
        let mut usable = self.lasting().filter(is_usable).peekable();
        let first = usable.peek().copied();
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let fits = name.and_then(|name| usable.find(|one| is_for(one, &name)));
        fits.or(first).cloned()
    }
}

impl OfListener {
    fn lasting(&self) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let now = SystemTime::now();
        let lasting = self.certificates.iter().filter(move |one| {
            let lasts = now < one.certificate.ends;
            if !lasts {
                one.logged.call_once(|| {
                    let listener = &self.name;
                    tracing::warn!(%listener, "a certificate has ended and is no longer served; renew its Secret");
                });
            }
            lasts
        });
        lasting.map(|one| &one.certificate.certified)
    }
}

fn is_for(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = certified.end_entity_cert();
    let parsed = certificate.and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

/// The TLS of the listener of this name with these certificates; `None` where it has none.
pub(crate) fn server_config(
    name: &Arc<str>,
    certificates: &[Arc<ServedCertificate>],
) -> Option<Arc<ServerConfig>> {
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
    let of_listener = OfListener {
        name: Arc::clone(name),
        certificates: certificates.iter().map(Shown::from).collect(),
    };
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(of_listener));
    config.alpn_protocols = Vec::from(PROTOCOLS.map(<[u8]>::to_vec));
    Some(Arc::new(config))
}
