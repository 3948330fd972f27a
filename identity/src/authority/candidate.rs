//! An issuer as other tools write it: a certificate, its key and its roots, each a text of PEM
//! sections.
//!
//! Tools differ in line ends, in what stands between the sections, in the form of keys, in the order
//! of certificates, and in whether the root is among them; all of that is taken. What proxies would
//! refuse, now or within the hour, is not: the reason names the file and the way out.

use std::time::{Duration, SystemTime};

use policy::name::SpiffeId;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData as _,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::public_key::PublicKey;

use super::{BadAuthority, Issuer};
use crate::verify::{self, AuthorityId, Roots};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOTS: &str = "ca.crt";
/// Certificates between the issuer and the root; all of them go out with every leaf.
const MAX_ABOVE: usize = 3;
/// Roots that a source may list.
const MAX_ROOTS: usize = 4;
/// Certificates of one text, doubles among them.
const MAX_CERTIFICATES: usize = 64;
/// Characters of a certificate's name in a reason.
const MAX_NAME: usize = 128;
/// Bits of RSA keys that every verifier takes and that sign in milliseconds.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;
/// What is taken shall be in use for so long, unless nothing that lasts longer is there.
const HOUR: Duration = Duration::from_secs(3_600);

/// The texts of a source, by the names that Secrets of certificates have.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    /// `tls.crt`
    pub certificate: &'a [u8],
    /// `tls.key`
    pub key: &'a [u8],
    /// `ca.crt`, or what the configuration names instead.
    pub roots: &'a [u8],
}

impl std::fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Texts").finish_non_exhaustive()
    }
}

/// An issuer that proxies would accept, and the root that it ends at.
#[derive(Debug)]
pub struct Candidate {
    pub issuer: Issuer,
    /// What signs leaves.
    pub issuer_id: AuthorityId,
    pub root: CertificateDer<'static>,
    pub root_id: AuthorityId,
    /// The root in PEM.
    pub root_pem: String,
}

/// Why a source's content is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadCandidate {
    #[error("{0} holds no PEM certificate: put one there")]
    NoCertificate(&'static str),
    #[error("{0} holds a certificate that cannot be read: write it as PEM")]
    Malformed(&'static str),
    #[error("{0} holds more than {MAX_CERTIFICATES} certificates: leave out those of others")]
    TooMany(&'static str),
    #[error("{KEY} holds no PEM key without a password: write it as PKCS#8, PKCS#1 or SEC1")]
    NoKey,
    #[error(
        "the key in {KEY} is of a kind that is not taken: use P-256, P-384 or RSA of 2048 to 4096 bits"
    )]
    KeyKind,
    #[error("the key in {KEY} fits no certificate in {CERTIFICATE}: write both from one issue")]
    KeyMismatch,
    #[error(
        "the certificate {0} in {CERTIFICATE} may not issue others: request one with CA:TRUE and keyCertSign"
    )]
    NotAnAuthority(String),
    #[error(
        "{ROOTS} holds more than {MAX_ROOTS} roots: leave out those that the issuer does not end at"
    )]
    TooManyRoots,
    #[error("the certificate {0} in {ROOTS} is no root: name the roots in identity.issuer.roots")]
    NotARoot(String),
    #[error(
        "the certificate {0} in {CERTIFICATE} ends at no root in {ROOTS}: add what is between them to \
         {CERTIFICATE}, or its root to {ROOTS}"
    )]
    NoPath(String),
    #[error(
        "{CERTIFICATE} holds more than {MAX_ABOVE} certificates between the issuer and its root: use one nearer to it"
    )]
    TooLong,
    #[error(
        "the path length of the certificate {0} is too small for what is below it: request a longer one"
    )]
    PathLength(String),
    #[error("the certificate {0} is not valid yet: correct the clocks, or wait")]
    NotYetValid(String),
    #[error("the certificate {0} has ended or ends within the hour: renew it")]
    Ends(String),
    #[error(
        "certificates of the issuer in {CERTIFICATE} would be refused ({0}): request one whose path length and names allow the mesh's certificates"
    )]
    NotProven(String),
}

/// A section with its text, in which lines end as everywhere here.
struct Section {
    pem: String,
    der: CertificateDer<'static>,
}

impl Candidate {
    /// Reads the texts for the trust domain of `member`. `signs_until`: the end of what signs now; one
    /// that ends within the hour is taken if it outlives that.
    ///
    /// # Errors
    /// The first reason why proxies would refuse it.
    pub fn parse(
        texts: &Texts<'_>,
        member: &SpiffeId,
        now: SystemTime,
        signs_until: Option<SystemTime>,
    ) -> Result<Self, BadCandidate> {
        let certificates = sections(texts.certificate, CERTIFICATE)?;
        let key = key(texts.key)?;
        let roots = roots(texts.roots)?;
        let (chain, ends) = path(&certificates, &key, &roots)?;
        let pem: Vec<&str> = chain.iter().map(|section| section.pem.as_str()).collect();
        let issuer = Issuer::from_pem(&pem.join("\n"), &key.serialize_pem());
        let issuer = issuer.map_err(|error| not_proven(&error))?;
        // Roots may share a name, since an owner keeps that when the key is another one.
        let mut refused = BadCandidate::NoCertificate(ROOTS);
        for root in ends {
            if let Err(error) = ends_at(&issuer, &chain, root, member, now, signs_until) {
                refused = error;
                continue;
            }
            let root_id = AuthorityId::of_der(&root.der);
            return Ok(Self {
                issuer_id: issuer.id().ok_or(BadCandidate::Malformed(CERTIFICATE))?,
                root_id: root_id.ok_or(BadCandidate::Malformed(ROOTS))?,
                issuer,
                root: root.der.clone(),
                root_pem: root.pem.clone(),
            });
        }
        Err(refused)
    }
}

/// Whether proxies would accept leaves of the issuer by this root.
fn ends_at(
    issuer: &Issuer,
    chain: &[&Section],
    root: &Section,
    member: &SpiffeId,
    now: SystemTime,
    signs_until: Option<SystemTime>,
) -> Result<(), BadCandidate> {
    let is_issuer = chain.iter().any(|section| section.der == root.der);
    let above = (!is_issuer).then_some(root);
    // As many authorities are below each as stand before it.
    for (below, section) in chain.iter().copied().chain(above).enumerate() {
        let certificate = parsed(section, CERTIFICATE)?;
        is_deep_enough(&certificate, below)?;
        outlives(&certificate, now, signs_until)?;
    }
    let trusted = Roots::new(member, vec![root.der.clone()]);
    let trusted = trusted.map_err(|_| BadCandidate::Malformed(ROOTS))?;
    let proven = issuer.prove(&trusted, now);
    proven.map_err(|error| not_proven(&error))
}

fn not_proven(error: &BadAuthority) -> BadCandidate {
    let source = std::error::Error::source(error);
    let source = source.map(|source| format!(": {source}"));
    BadCandidate::NotProven(format!("{error}{}", source.unwrap_or_default()))
}

/// The certificates of a text, each once.
fn sections(text: &[u8], file: &'static str) -> Result<Vec<Section>, BadCandidate> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut rest = text.as_str();
    let mut found: Vec<Section> = Vec::new();
    let mut count = 0;
    while let Some(begin) = rest.find(BEGIN) {
        let end = rest[begin..].find(END);
        let end = end.ok_or(BadCandidate::Malformed(file))? + begin + END.len();
        let lines = rest[begin..end].lines().map(str::trim);
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let pem = lines.join("\n") + "\n";
        rest = &rest[end..];
        count += 1;
        if count > MAX_CERTIFICATES {
            return Err(BadCandidate::TooMany(file));
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes());
        let der = der.map_err(|_| BadCandidate::Malformed(file))?;
        if found.iter().all(|known| known.der != der) {
            found.push(Section { pem, der });
        }
    }
    match found.is_empty() {
        true => Err(BadCandidate::NoCertificate(file)),
        false => Ok(found),
    }
}

fn key(text: &[u8]) -> Result<KeyPair, BadCandidate> {
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|_| BadCandidate::NoKey)?;
    let key = KeyPair::try_from(&key).map_err(|_| BadCandidate::KeyKind)?;
    let kinds = [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_RSA_SHA256,
    ];
    match kinds.contains(&key.algorithm()) {
        true => Ok(key),
        false => Err(BadCandidate::KeyKind),
    }
}

fn roots(text: &[u8]) -> Result<Vec<Section>, BadCandidate> {
    let roots = sections(text, ROOTS)?;
    if roots.len() > MAX_ROOTS {
        return Err(BadCandidate::TooManyRoots);
    }
    for root in &roots {
        let root = parsed(root, ROOTS)?;
        if !is_self_issued(&root) || !root.is_ca() {
            return Err(BadCandidate::NotARoot(name(&root)));
        }
    }
    Ok(roots)
}

/// The issuer with what is between it and one of `roots`, and the roots of the name that it ends at.
/// The order of `certificates` means nothing, and others may be among them.
fn path<'a>(
    certificates: &'a [Section],
    key: &KeyPair,
    roots: &'a [Section],
) -> Result<(Vec<&'a Section>, Vec<&'a Section>), BadCandidate> {
    let spki = key.subject_public_key_info();
    let mut chain: Vec<&Section> = Vec::new();
    for section in certificates {
        if parsed(section, CERTIFICATE)?.public_key().raw == spki {
            chain.push(section);
            break;
        }
    }
    let mut last = *chain.first().ok_or(BadCandidate::KeyMismatch)?;
    loop {
        let certificate = parsed(last, CERTIFICATE)?;
        may_issue(&certificate)?;
        let mut ends = Vec::new();
        for root in roots {
            let of_root = parsed(root, ROOTS)?;
            // The issuer may be the root itself.
            let is_root = last.der == root.der;
            if is_root || (!is_self_issued(&certificate) && signed(&certificate, &of_root)) {
                ends.push(root);
            }
        }
        if !ends.is_empty() {
            return Ok((chain, ends));
        }
        let mut above = None;
        for section in certificates {
            let other = parsed(section, CERTIFICATE)?;
            let is_new = chain.iter().all(|known| known.der != section.der);
            if is_new && !is_self_issued(&other) && signed(&certificate, &other) {
                above = Some(section);
                break;
            }
        }
        last = above.ok_or_else(|| BadCandidate::NoPath(name(&certificate)))?;
        if chain.len() > MAX_ABOVE {
            return Err(BadCandidate::TooLong);
        }
        chain.push(last);
    }
}

/// By its name; the proof checks the signature.
fn signed(certificate: &X509Certificate<'_>, by: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == by.subject().as_raw()
}

fn is_self_issued(certificate: &X509Certificate<'_>) -> bool {
    signed(certificate, certificate)
}

fn may_issue(certificate: &X509Certificate<'_>) -> Result<(), BadCandidate> {
    let usage = certificate.key_usage().ok().flatten();
    let may_sign = usage.is_none_or(|usage| usage.value.key_cert_sign());
    if !certificate.is_ca() || !may_sign {
        return Err(BadCandidate::NotAnAuthority(name(certificate)));
    }
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if !RSA_BITS.contains(&key.key_size()) => {
            Err(BadCandidate::KeyKind)
        }
        _ => Ok(()),
    }
}

/// Of a root webpki looks at its name and key alone.
fn is_deep_enough(certificate: &X509Certificate<'_>, below: usize) -> Result<(), BadCandidate> {
    let constraints = certificate.basic_constraints().ok().flatten();
    let longest = constraints.and_then(|constraints| constraints.value.path_len_constraint);
    match longest {
        Some(longest) if usize::try_from(longest).is_ok_and(|longest| longest < below) => {
            Err(BadCandidate::PathLength(name(certificate)))
        }
        _ => Ok(()),
    }
}

fn outlives(
    certificate: &X509Certificate<'_>,
    now: SystemTime,
    signs_until: Option<SystemTime>,
) -> Result<(), BadCandidate> {
    let (not_before, not_after) = verify::validity(certificate);
    if now < not_before {
        return Err(BadCandidate::NotYetValid(name(certificate)));
    }
    let outlives = signs_until.is_some_and(|until| not_after > until);
    if not_after <= now || (not_after < now + HOUR && !outlives) {
        return Err(BadCandidate::Ends(name(certificate)));
    }
    Ok(())
}

fn parsed<'a>(
    section: &'a Section,
    file: &'static str,
) -> Result<X509Certificate<'a>, BadCandidate> {
    match x509_parser::parse_x509_certificate(&section.der) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(BadCandidate::Malformed(file)),
    }
}

/// It stands in Events and in a status, and its owner may have made it as long as a Secret.
fn name(certificate: &X509Certificate<'_>) -> String {
    let name = verify::subject_name(certificate);
    match name.char_indices().nth(MAX_NAME) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}

#[cfg(test)]
mod tests;
