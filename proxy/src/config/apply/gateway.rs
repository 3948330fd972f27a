//! Parses the configuration of the own Gateway: its listeners with their routes, and their
//! certificates. Only the pods of a Gateway get it.
//!
//! Only a Gateway's proxy takes any of it: no key ever lies in the proxy of an application.

use std::mem::take;
use std::sync::{Arc, Once};

use identity::verify::not_after;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use wire::{convert, v1};

use crate::config::gateway::{GatewayConfig, ServedCertificate, ServedGateway};
use crate::config::snapshot::Snapshot;

const NOT_A_GATEWAY: &str = "is for a Gateway, and this proxy serves an application";

impl Snapshot {
    pub(super) fn set_gateway(&mut self, sent: &v1::Gateway) -> Result<(), String> {
        let gateway = self.own_gateway()?;
        let served = convert::gateway(sent).map_err(|bad| bad.to_string())?;
        gateway.served = Some(Arc::new(ServedGateway::from(served)));
        Ok(())
    }

    /// `name`: of the resource.
    pub(super) fn set_certificate(
        &mut self,
        name: &str,
        sent: v1::ListenerCertificate,
    ) -> Result<(), String> {
        let gateway = self.own_gateway()?;
        let certificate = Arc::new(certificate(name, sent)?);
        gateway
            .certificates
            .insert(Arc::clone(&certificate.name), certificate);
        Ok(())
    }

    /// A listener without it refuses handshakes from now on.
    pub(super) fn remove_certificate(&mut self, name: &str) {
        if let Ok(gateway) = self.own_gateway() {
            gateway.certificates.remove(name);
        }
    }

    pub(super) fn remove_gateway(&mut self) {
        if let Ok(gateway) = self.own_gateway() {
            gateway.served = None;
        }
    }

    /// Whether both have the same listeners and certificates.
    pub(super) fn serves_as(&self, before: &Self) -> bool {
        let held = |of: &Self| of.gateway.as_ref().map(Arc::as_ptr);
        held(self) == held(before)
    }

    fn own_gateway(&mut self) -> Result<&mut GatewayConfig, String> {
        let gateway = self.gateway.as_mut();
        gateway
            .map(Arc::make_mut)
            .ok_or_else(|| NOT_A_GATEWAY.to_owned())
    }
}

/// A chain with its key, in the form in which handshakes use it. The bytes of the key are
/// overwritten by what reads them.
fn certificate(name: &str, mut sent: v1::ListenerCertificate) -> Result<ServedCertificate, String> {
    let chain = take(&mut sent.chain).into_iter();
    let chain: Vec<_> = chain.map(CertificateDer::from).collect();
    let ends = chain.first().and_then(not_after);
    let ends = ends.ok_or("chain: no certificate that can be read")?;
    let key = take(&mut sent.key);
    let key = PrivateKeyDer::try_from(key).map_err(|error| format!("key: {error}"))?;
    let provider = aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider);
    Ok(ServedCertificate {
        name: name.into(),
        certified: Arc::new(certified.map_err(|error| error.to_string())?),
        ends,
        end_logged: Once::new(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use wire::v1::resource::Content;

    use super::*;
    use crate::endpoints::registry::Registry;

    fn sent_certificate(host: &str) -> v1::ListenerCertificate {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        v1::ListenerCertificate {
            chain: vec![certificate.der().to_vec()],
            key: key.serialize_der(),
        }
    }

    fn gateway() -> v1::Gateway {
        v1::Gateway {
            origin: Some(v1::ObjectRef {
                kind: "Gateway".to_owned(),
                namespace: "edge".to_owned(),
                name: "web".to_owned(),
            }),
            listeners: Vec::new(),
        }
    }

    fn batch(set: Vec<(String, Content)>, remove: Vec<String>) -> v1::Batch {
        let set = set.into_iter().map(|(name, content)| {
            wire::version::stamp(v1::Resource {
                name,
                version: String::new(),
                content: Some(content),
            })
        });
        v1::Batch {
            set: set.collect(),
            remove,
            ..v1::Batch::default()
        }
    }

    fn both() -> Vec<(String, Content)> {
        let name = wire::names::certificate("edge", "web");
        vec![
            (wire::names::GATEWAY.to_owned(), Content::Gateway(gateway())),
            (
                name,
                Content::ListenerCertificate(sent_certificate("shop.example")),
            ),
        ]
    }

    #[test]
    fn proxy_of_application_takes_no_key() {
        let registry = Registry::default();
        let before = Snapshot::default();
        let (now, nacks) = before.after(batch(both(), Vec::new()), &registry);
        assert_eq!(nacks.len(), 2, "{nacks:?}");
        assert!(now.gateway.is_none());
    }

    #[test]
    fn certificate_goes_with_its_resource_and_bad_one_changes_nothing() {
        let registry = Registry::default();
        let name = wire::names::certificate("edge", "web");
        let before = Snapshot::of_gateway();
        let (held, nacks) = before.after(batch(both(), Vec::new()), &registry);
        assert!(nacks.is_empty(), "{nacks:?}");
        let certified = |now: &Snapshot| {
            let gateway = now.gateway.as_ref().unwrap();
            gateway.certificates.get(&*name).map(Arc::as_ptr)
        };
        let first = certified(&held);
        assert!(first.is_some());
        // Open connections look again whether they may go on.
        assert_ne!(held.policy_revision, before.policy_revision);
        let other = sent_certificate("shop.example");
        let mut bad = sent_certificate("shop.example");
        bad.key.clone_from(&other.key);
        let bad = vec![(name.clone(), Content::ListenerCertificate(bad))];
        let (kept, nacks) = held.after(batch(bad, Vec::new()), &registry);
        assert_eq!(nacks.len(), 1, "a key of another certificate");
        assert_eq!(certified(&kept), first);
        let (none, _) = kept.after(batch(Vec::new(), vec![name.clone()]), &registry);
        assert_eq!(certified(&none), None);
        assert_ne!(none.policy_revision, kept.policy_revision);
        // Nothing that prints the configuration prints a key.
        let printed = format!("{held:?}");
        assert!(
            printed.contains(&name) && !printed.contains("CertifiedKey"),
            "{printed}"
        );
    }
}
