//! The mesh's certificate authority: a root that lasts for years, an issuer below it that is
//! replaced every few months, and leaf certificates that last for hours.
//!
//! Time is an argument, and the code does no I/O: the controller keeps the PEM texts in its
//! Secret.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::name::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    string::Ia5String,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::request::{self, LeafKey};
use crate::verify::{self, AuthorityId, IdentityError, Purpose, Roots};

pub mod candidate;
mod error;

pub use error::{BadAuthority, IssueError};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a root lasts: ten years.
pub const ROOT_LIFE: Duration = DAY.saturating_mul(3_652);
/// How long an issuer lasts.
pub const ISSUER_LIFE: Duration = DAY.saturating_mul(90);
/// Every certificate is valid from this long before its issue.
pub const BACKDATE: Duration = policy::well_known::BACKDATE;
/// Stands for a pod's uid in the leaf that an issuer is probed with.
const PROBE_UID: &str = "00000000-0000-0000-0000-000000000000";
/// Bytes of a serial number; RFC 5280 allows 20.
const SERIAL_LENGTH: usize = 16;

/// The anchor of trust. Its certificate is what every proxy gets.
#[derive(Debug)]
pub struct Root(Signer);

/// Signs leaves; below a [`Root`], with what is between them.
#[derive(Debug)]
pub struct Issuer(Signer, Vec<CertificateDer<'static>>);

/// The names of one leaf, from a reviewed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafNames {
    pub spiffe: SpiffeId,
    /// `<pod-uid>.pod.weft`, see [`verify::pod_dns`].
    pub pod_dns: Option<String>,
}

/// A fresh leaf.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The leaf, then its issuer and what is above that, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Hexadecimal, for logs and events.
    pub serial: String,
}

/// A serving certificate for DNS names, with its key.
#[derive(Debug)]
pub struct Serving {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: LeafKey,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Root {
    /// A new root that is valid from `now` (less [`BACKDATE`]) for `life`.
    ///
    /// # Errors
    /// When no key can be made or the end lies beyond what certificates can say.
    pub fn generate(now: SystemTime, life: Duration) -> Result<Self, BadAuthority> {
        // Room for exactly one authority below it.
        Self::self_signed("weft root", 1, now, life)
    }

    /// A new root for serving certificates alone: no authority is valid below it.
    ///
    /// # Errors
    /// As [`Root::generate`].
    pub fn for_serving(now: SystemTime, life: Duration) -> Result<Self, BadAuthority> {
        Self::self_signed("weft api root", 0, now, life)
    }

    fn self_signed(
        name: &str,
        authorities_below: u8,
        now: SystemTime,
        life: Duration,
    ) -> Result<Self, BadAuthority> {
        let (params, key) = authority_params(name, authorities_below, now, after(now, life)?)?;
        let certificate = params.self_signed(&key).map_err(BadAuthority::Generate)?;
        Signer::new(certificate.pem(), key).map(Self)
    }

    /// Loads what [`Root::cert_pem`] and [`Root::key_pem`] gave.
    ///
    /// # Errors
    /// When the texts are no certificate of an authority with its own key.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, BadAuthority> {
        Signer::from_pem(cert_pem, key_pem).map(Self)
    }

    /// Whether [`Root::generate`] made it, by its name. One that was brought is its owner's to replace.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        let parsed = x509_parser::parse_x509_certificate(&self.0.certificate);
        parsed.is_ok_and(|(_, root)| verify::subject_name(&root).starts_with("CN=weft root "))
    }

    /// A new issuer below this root. It never outlives the root.
    ///
    /// # Errors
    /// As [`Root::generate`].
    pub fn issuer(&self, now: SystemTime, life: Duration) -> Result<Issuer, BadAuthority> {
        let end = after(now, life)?.min(self.0.not_after);
        let (params, key) = authority_params("weft issuer", 0, now, end)?;
        let certificate = params
            .signed_by(&key, &self.0.issuer)
            .map_err(BadAuthority::Generate)?;
        Signer::new(certificate.pem(), key).map(|signer| Issuer(signer, Vec::new()))
    }

    /// A serving certificate for `dns_names`, with a key of its own. For the
    /// webhook and the controller's API, whose caller (the API server) checks names
    /// and not SPIFFE ids; such a certificate has no identity in the mesh.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate or this root is not valid now.
    pub fn serving(
        &self,
        dns_names: &[impl AsRef<str>],
        now: SystemTime,
        life: Duration,
    ) -> Result<Serving, IssueError> {
        self.0.serving(dns_names, now, life)
    }
}

impl Issuer {
    /// Loads what [`Issuer::cert_pem`] and [`Issuer::key_pem`] gave; certificates behind the first
    /// go out with leaves. Ask [`Issuer::prove`] before using it.
    ///
    /// # Errors
    /// When the texts are no certificate of an authority with its own key.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, BadAuthority> {
        let signer = Signer::from_pem(cert_pem, key_pem)?;
        let certificates = CertificateDer::pem_slice_iter(cert_pem.as_bytes());
        let above: Result<_, _> = certificates.skip(1).collect();
        Ok(Self(signer, above.map_err(|_| BadAuthority::Certificate)?))
    }

    /// What proxies report of leaves that it signed.
    #[must_use]
    pub fn id(&self) -> Option<AuthorityId> {
        AuthorityId::of_der(&self.0.certificate)
    }

    /// A leaf of this issuer, with what is between that and the root.
    fn chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        let signer = self.0.certificate.clone();
        [leaf, signer]
            .into_iter()
            .chain(self.1.iter().cloned())
            .collect()
    }

    /// Issues a certificate for the public key of `csr_der` and for nothing else
    /// in it. Valid from [`BACKDATE`] before `now` until `ttl` after it, or until
    /// the issuer ends.
    ///
    /// # Errors
    /// When the request or a name is not usable, or the issuer is not valid now.
    pub fn issue(
        &self,
        csr_der: &[u8],
        names: &LeafNames,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Issued, IssueError> {
        let public_key = request::public_key(csr_der)?;
        let mut params = self.0.leaf_params(now, ttl)?;
        params.subject_alt_names = vec![SanType::URI(ia5(names.spiffe.as_str())?)];
        if let Some(pod_dns) = &names.pod_dns {
            if !verify::is_pod_dns(pod_dns) {
                return Err(IssueError::Name(pod_dns.clone()));
            }
            params
                .subject_alt_names
                .push(SanType::DnsName(ia5(pod_dns)?));
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = self.0.sign(&params, &public_key)?;
        Ok(Issued {
            chain: self.chain(leaf),
            not_before: params.not_before.into(),
            not_after: params.not_after.into(),
            serial: params
                .serial_number
                .map(|serial| serial.to_string().replace(':', ""))
                .unwrap_or_default(),
        })
    }

    /// A serving certificate for `dns_names`, with a key of its own. For the
    /// controller's API, whose caller (the API server) checks names and not
    /// SPIFFE ids; such a certificate has no identity in the mesh.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate or this issuer is not valid now.
    pub fn serving(
        &self,
        dns_names: &[impl AsRef<str>],
        now: SystemTime,
        life: Duration,
    ) -> Result<Serving, IssueError> {
        let mut serving = self.0.serving(dns_names, now, life)?;
        serving.chain.push(self.0.certificate.clone());
        serving.chain.extend(self.1.iter().cloned());
        Ok(serving)
    }

    /// Issues a throw-away leaf and verifies it as a peer would. A reloaded
    /// issuer that fails this must not replace one that works.
    ///
    /// The leaf has names of every kind that real ones have, in the trust domain of
    /// `roots`: name constraints above the issuer may forbid just one of them.
    ///
    /// # Errors
    /// Why peers would refuse leaves of this issuer.
    pub fn prove(&self, roots: &Roots, now: SystemTime) -> Result<(), BadAuthority> {
        let names = LeafNames {
            spiffe: SpiffeId::of(roots.trust_domain(), "probe", "probe").map_err(|_| {
                BadAuthority::Probe(IssueError::Name(roots.trust_domain().to_owned()))
            })?,
            pod_dns: verify::pod_dns(PROBE_UID),
        };
        let issued = LeafKey::generate()
            .map_err(IssueError::from)
            .and_then(|key| Ok(key.csr()?))
            .and_then(|csr| self.issue(&csr, &names, now, Duration::from_secs(60)))
            .map_err(BadAuthority::Probe)?;
        for purpose in [Purpose::Server, Purpose::Client] {
            verify::verify_chain(roots, &issued.chain, unix(now), purpose)
                .map_err(BadAuthority::NotTrusted)?;
        }
        Ok(())
    }
}

/// What a root and an issuer tell of themselves.
macro_rules! certificate_accessors {
    ($($authority:ident),+) => { $(
        impl $authority {
            /// The certificate in PEM: what goes into trust bundles and `caBundle`.
            #[must_use]
            pub fn cert_pem(&self) -> &str {
                &self.0.pem
            }

            /// The private key in PEM. Secret: it belongs into the Secret and nowhere else.
            #[must_use]
            pub fn key_pem(&self) -> String {
                self.0.issuer.key().serialize_pem()
            }

            #[must_use]
            pub fn certificate(&self) -> &CertificateDer<'static> {
                &self.0.certificate
            }

            #[must_use]
            pub fn not_before(&self) -> SystemTime {
                self.0.not_before
            }

            #[must_use]
            pub fn not_after(&self) -> SystemTime {
                self.0.not_after
            }
        }
    )+ };
}
certificate_accessors!(Root, Issuer);

/// A certificate that may sign others, with its key.
struct Signer {
    pem: String,
    certificate: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, KeyPair>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Serving {
    /// Checks the chain as the caller of each of `dns_names` would. One that fails
    /// must not replace one that works.
    ///
    /// # Errors
    /// Why such a caller would refuse it.
    pub fn prove(
        &self,
        roots: &Roots,
        dns_names: &[impl AsRef<str>],
        now: SystemTime,
    ) -> Result<(), IdentityError> {
        verify::verify_serving(roots, &self.chain, dns_names, unix(now))
    }
}

impl Signer {
    fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, BadAuthority> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| BadAuthority::Key)?;
        Self::new(cert_pem.to_owned(), key)
    }

    fn new(pem: String, key: KeyPair) -> Result<Self, BadAuthority> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| BadAuthority::Certificate)?;
        let (not_before, not_after) = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
                .map_err(|_| BadAuthority::Certificate)?;
            if !parsed.is_ca() {
                return Err(BadAuthority::NotAnAuthority);
            }
            if parsed.public_key().raw != key.subject_public_key_info() {
                return Err(BadAuthority::KeyMismatch);
            }
            verify::validity(&parsed)
        };
        let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|_| BadAuthority::Certificate)?;
        Ok(Self {
            pem,
            certificate,
            issuer,
            not_before,
            not_after,
        })
    }

    /// What all leaves share: no authority, one purpose of the key, a random
    /// serial, and a life within the issuer's.
    fn leaf_params(
        &self,
        now: SystemTime,
        life: Duration,
    ) -> Result<CertificateParams, IssueError> {
        if now < self.not_before || now >= self.not_after {
            return Err(IssueError::IssuerNotValid);
        }
        if life.is_zero() {
            return Err(IssueError::Life);
        }
        let end = now.checked_add(life).ok_or(IssueError::Life)?;
        let mut params = CertificateParams::default();
        params.not_before = (now - BACKDATE).into();
        params.not_after = end.min(self.not_after).into();
        params.serial_number = Some(random_serial());
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn serving(
        &self,
        dns_names: &[impl AsRef<str>],
        now: SystemTime,
        life: Duration,
    ) -> Result<Serving, IssueError> {
        let mut names = Vec::with_capacity(dns_names.len());
        for name in dns_names {
            names.push(SanType::DnsName(ia5(name.as_ref())?));
        }
        let mut params = self.leaf_params(now, life)?;
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = LeafKey::generate()?;
        let issued = self.sign(&params, key.pair())?;
        Ok(Serving {
            chain: vec![issued],
            key,
            not_before: params.not_before.into(),
            not_after: params.not_after.into(),
        })
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let signed = params
            .signed_by(key, &self.issuer)
            .map_err(IssueError::Sign)?;
        Ok(signed.into())
    }
}

fn authority_params(
    name: &str,
    authorities_below: u8,
    now: SystemTime,
    end: SystemTime,
) -> Result<(CertificateParams, KeyPair), BadAuthority> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(BadAuthority::Generate)?;
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATE).into();
    params.not_after = end.into();
    params.serial_number = Some(random_serial());
    // Distinct names let a verifier find the right one of two roots at once, and
    // people tell them apart.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        format!("{name} {:08x}", rand::random::<u32>()),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(authorities_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok((params, key))
}

/// Unpredictable, positive, and of full length.
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; SERIAL_LENGTH] = rand::random();
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn ia5(name: &str) -> Result<Ia5String, IssueError> {
    Ia5String::try_from(name).map_err(|_| IssueError::Name(name.to_owned()))
}

/// The end of a life, kept within the years that a certificate can name.
fn after(now: SystemTime, life: Duration) -> Result<SystemTime, BadAuthority> {
    const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);
    now.checked_add(life)
        .filter(|end| *end < UNIX_EPOCH + YEAR_9999)
        .ok_or(BadAuthority::Time)
}

fn unix(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests;
