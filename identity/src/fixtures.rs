//! A small authority for tests, and certificates that our own issuer would
//! never make.

use std::time::{Duration, SystemTime};

use policy::name::SpiffeId;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;

use crate::authority::{ISSUER_LIFE, Issuer, LeafNames, ROOT_LIFE, Root};
use crate::request::LeafKey;
use crate::tls::{CertHandle, Leaf};
use crate::verify::{Roots, pod_dns};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) struct Authority {
    pub(crate) root: Root,
    pub(crate) issuer: Issuer,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let now = SystemTime::now();
        let root = Root::generate(now, ROOT_LIFE).unwrap();
        let issuer = root.issuer(now, ISSUER_LIFE).unwrap();
        Self { root, issuer }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::new(&account("web"), vec![self.root.certificate().clone()]).unwrap()
    }

    pub(crate) fn leaf(&self, account: &str) -> Leaf {
        let key = LeafKey::generate().unwrap();
        let issued = self
            .issuer
            .issue(
                &key.csr().unwrap(),
                &names(account),
                SystemTime::now(),
                HOUR,
            )
            .unwrap();
        Leaf::new(issued.chain, &key).unwrap()
    }

    pub(crate) fn handle(&self, account: &str) -> CertHandle {
        let handle = CertHandle::empty();
        handle.store(self.leaf(account));
        handle
    }

    /// A leaf with whatever `change` makes of the parameters, signed by the
    /// real issuer.
    pub(crate) fn forge(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, LeafKey) {
        let key = LeafKey::generate().unwrap();
        let mut params = usual_params();
        change(&mut params);
        let issuer_key = rcgen::KeyPair::from_pem(&self.issuer.key_pem()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(self.issuer.cert_pem(), issuer_key).unwrap();
        let leaf = params.signed_by(key.pair(), &issuer).unwrap();
        (vec![leaf.into(), self.issuer.certificate().clone()], key)
    }
}

fn usual_params() -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - HOUR).into();
    params.not_after = (now + HOUR).into();
    params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/web")];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

pub(crate) fn account(name: &str) -> SpiffeId {
    SpiffeId::try_from(format!("spiffe://cluster.local/ns/shop/sa/{name}").as_str()).unwrap()
}

pub(crate) fn names(name: &str) -> LeafNames {
    LeafNames {
        spiffe: account(name),
        pod_dns: pod_dns("6c1e2b6e-6d0f-4f6b-8a54-0d0f9c2a7d11"),
    }
}
