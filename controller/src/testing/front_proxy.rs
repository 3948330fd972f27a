//! An API server as the mesh's aggregated APIs meet it: an authority with certificates for
//! it, and what both sides trust.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use identity::tls::ServingHandle;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::aggregated::front_proxy::{Front, Trusted};
use crate::authority::Authority;

/// An authority, and certificates of it.
pub(crate) struct Ca(Issuer<'static, KeyPair>, String);

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self(Issuer::new(params, key), certificate.pem())
    }

    pub(crate) fn client(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (certificate.into(), key)
    }

    /// What a port of this name gets to verify API servers that this authority proves to be
    /// `front-proxy`, and by which roots they know the port.
    pub(crate) fn trusted(&self, name: &str) -> (Trusted, RootCertStore) {
        let authority = Authority::in_memory();
        let serving = ServingHandle::empty();
        let made = authority.serving(&[name], SystemTime::now(), Duration::from_secs(600));
        serving.store(&made.unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        let pem = authority.roots_pem().borrow().clone();
        for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let data: BTreeMap<String, String> = [
            ("requestheader-client-ca-file", self.1.as_str()),
            ("requestheader-allowed-names", "[\"front-proxy\"]"),
            ("requestheader-username-headers", "[\"X-Remote-User\"]"),
            ("requestheader-group-headers", "[\"X-Remote-Group\"]"),
            (
                "requestheader-extra-headers-prefix",
                "[\"X-Remote-Extra-\"]",
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let front = Front::read(&data).unwrap();
        let tls = front.tls(&serving).unwrap();
        (Trusted { front, tls }, roots)
    }
}
