//! HTTPS with a certificate that nobody signed, for probes of scheme HTTPS: the
//! kubelet does not verify what it probes.

use std::sync::Arc;

use anyhow::Context as _;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
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
