//! HTTPS with a certificate that nobody signed, for probes of scheme HTTPS: the
//! kubelet does not verify what it probes. And what a client says first, which tells a
//! proxy on the way which host is asked for.

use std::sync::Arc;

use anyhow::Context as _;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};

/// A server with a key and a certificate made now, for the name `pod`.
pub fn config(pod: &str) -> anyhow::Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed([pod.to_owned()])
        .with_context(|| format!("a certificate for {pod}"))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(Arc::new(config))
}

/// The first message of a client that asks for the host `name`.
pub fn hello(name: &str) -> anyhow::Result<Vec<u8>> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let host = ServerName::try_from(name.to_owned())
        .with_context(|| format!("{name} is no name of a host"))?;
    let mut sent = Vec::new();
    ClientConnection::new(Arc::new(config), host)?.write_tls(&mut sent)?;
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::server::Acceptor;

    use super::*;

    #[test]
    fn first_message_asks_for_the_host() {
        let hello = hello("api.example").unwrap();
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut hello.as_slice()).unwrap();
        let accepted = acceptor.accept().unwrap().unwrap();
        assert_eq!(accepted.client_hello().server_name(), Some("api.example"));
    }
}
