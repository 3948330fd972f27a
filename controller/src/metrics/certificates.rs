//! The metric that shows when the certificates of Gateways' listeners end.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The certificates that Gateways name. Every replica reads them, and shows the same.
#[derive(Clone, Debug, Default)]
pub struct CertificateMetrics {
    expires: Family<SecretLabel, Gauge>,
}

/// A Secret that some Gateway names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SecretLabel {
    namespace: String,
    name: String,
}

impl CertificateMetrics {
    /// The certificate in this Secret ends in so many seconds, or has ended.
    pub fn expires_in(&self, namespace: &str, name: &str, seconds: i64) {
        self.expires
            .get_or_create(&label(namespace, name))
            .set(seconds);
    }

    /// The Secret is not served any more.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.expires.remove(&label(namespace, name));
    }

    /// Under the mesh's own name: it is about users' certificates, whichever replica has read them.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "weft_gateway_certificate_expires_seconds",
            "Seconds until the certificate in a Secret that Gateways serve ends, below zero once it has",
            self.expires.clone(),
        );
    }
}

fn label(namespace: &str, name: &str) -> SecretLabel {
    SecretLabel {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}
