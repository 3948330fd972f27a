//! Issuers as tools write them: odd texts are taken, bad ones name their reason.
//!
//! Claims: trust-1b

use std::time::UNIX_EPOCH;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, PKCS_ECDSA_P521_SHA512,
    PKCS_ED25519, SignatureAlgorithm,
};

use super::super::{ROOT_LIFE, Root, authority_params, unix};
use super::*;
use crate::authority::LeafNames;
use crate::request::LeafKey;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A certificate that may sign, with its key.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Made {
    /// A root that any depth of authorities may hang below.
    fn root() -> Self {
        Self::root_with(&PKCS_ECDSA_P256_SHA256, |_| {})
    }

    fn root_with(
        kind: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let (params, key) = Self::wish(kind, change);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn below(&self) -> Self {
        self.below_with(&PKCS_ECDSA_P256_SHA256, |_| {})
    }

    fn below_with(
        &self,
        kind: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let (params, key) = Self::wish(kind, change);
        let signer = rcgen::Issuer::from_params(&self.params, &self.key);
        let pem = params.signed_by(&key, &signer).unwrap().pem();
        Self { params, key, pem }
    }

    fn wish(
        kind: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateParams, KeyPair) {
        let now = SystemTime::now();
        let (mut params, _) = authority_params("corp", 0, now, now + 30 * DAY).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        (params, KeyPair::generate_for(kind).unwrap())
    }
}

fn parse(certificate: &str, key: &str, roots: &str) -> Result<Candidate, BadCandidate> {
    let texts = Texts {
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
        roots: roots.as_bytes(),
    };
    let member = crate::fixtures::account("web");
    Candidate::parse(&texts, &member, SystemTime::now(), None)
}

/// What is parsed signs leaves that verify below its root.
fn must_be_taken(what: &str, parsed: Result<Candidate, BadCandidate>) -> Candidate {
    let candidate = parsed.unwrap_or_else(|error| panic!("{what}: {error}"));
    let member = crate::fixtures::account("web");
    let now = SystemTime::now();
    let names = LeafNames {
        spiffe: member.clone(),
        pod_dns: None,
    };
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let stored = Issuer::from_pem(candidate.issuer.cert_pem(), &candidate.issuer.key_pem());
    let issued = stored.unwrap().issue(&csr, &names, now, DAY / 24).unwrap();
    let roots = Roots::new(&member, vec![candidate.root.clone()]).unwrap();
    let purpose = verify::Purpose::Server;
    let peer = verify::verify_chain(&roots, &issued.chain, unix(now), purpose);
    let peer = peer.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(peer.certificate.authority, candidate.issuer_id, "{what}");
    assert_eq!(roots.ids(), [candidate.root_id], "{what}");
    candidate
}

#[test]
fn texts_as_tools_write_them_are_taken() {
    let root = Made::root();
    let above = root.below();
    let issuer = above.below();
    let key = issuer.key.serialize_pem();
    let both = format!("{}{}", issuer.pem, above.pem);
    let attributes = format!(
        "Bag Attributes\n    localKeyID: 01\nsubject=CN = corp\n{both}Bag Attributes: <No Attributes>\n"
    );
    let other = Made::root();
    let cases = [
        ("plain", both.clone(), key.clone(), root.pem.clone()),
        (
            "carriage returns",
            both.replace('\n', "\r\n"),
            key.replace('\n', "\r\n"),
            root.pem.replace('\n', "\r\n"),
        ),
        ("bag attributes", attributes, key.clone(), root.pem.clone()),
        (
            "no last line end",
            both.trim_end().to_owned(),
            key.trim_end().to_owned(),
            root.pem.trim_end().to_owned(),
        ),
        (
            "doubles",
            format!("{both}{both}"),
            key.clone(),
            format!("{0}{0}", root.pem),
        ),
        (
            "a last root",
            format!("{both}{}", root.pem),
            key.clone(),
            root.pem.clone(),
        ),
        (
            "another order",
            format!("{}{}{}", root.pem, above.pem, issuer.pem),
            key.clone(),
            root.pem.clone(),
        ),
        (
            "the key beside it",
            format!("{key}{both}"),
            key.clone(),
            root.pem.clone(),
        ),
        (
            "other roots",
            both.clone(),
            key.clone(),
            format!("{}{}", other.pem, root.pem),
        ),
        (
            "blank lines",
            both.replace("-----BEGIN", "\n\n-----BEGIN"),
            format!("\n{key}\n"),
            root.pem.clone(),
        ),
        (
            "parameters before a key",
            both.clone(),
            format!(
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{key}"
            ),
            root.pem.clone(),
        ),
        (
            "comments",
            format!("# rotated by a job\n{both}"),
            format!("# secret\n{key}"),
            format!("# corp\n{}", root.pem),
        ),
    ];
    for (what, certificate, key, roots) in cases {
        let candidate = must_be_taken(what, parse(&certificate, &key, &roots));
        assert_eq!(
            candidate.issuer.cert_pem().matches("BEGIN").count(),
            2,
            "{what}"
        );
        assert!(!candidate.issuer.cert_pem().contains('\r'), "{what}");
    }
}

/// The contents of the OCTET STRING of a PKCS#8 key: the key in its former form.
fn inner(pkcs8: &[u8]) -> &[u8] {
    let (header, length) = length_of(pkcs8);
    let mut rest = &pkcs8[header..header + length];
    loop {
        let (header, length) = length_of(rest);
        if rest[0] == 0x04 {
            return &rest[header..header + length];
        }
        rest = &rest[header + length..];
    }
}

/// Bytes of the tag and length, and of what follows.
fn length_of(der: &[u8]) -> (usize, usize) {
    match usize::from(der[1]) {
        short @ 0..0x80 => (2, short),
        long => {
            let digits = long & 0x7f;
            let bytes = &der[2..2 + digits];
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (2 + digits, length)
        }
    }
}

fn pem_of(label: &str, der: &[u8]) -> String {
    let certificate = crate::authority::tests::to_pem(der);
    certificate.replace("CERTIFICATE", label)
}

#[test]
fn keys_of_every_kind_and_form_are_taken() {
    for kind in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_RSA_SHA256,
    ] {
        let root = Made::root_with(kind, |_| {});
        let issuer = root.below_with(kind, |_| {});
        let key = issuer.key.serialize_pem();
        must_be_taken("PKCS#8", parse(&issuer.pem, &key, &root.pem));
        // An issuer that is its own root.
        let key = root.key.serialize_pem();
        must_be_taken("self-signed", parse(&root.pem, &key, &root.pem));
    }
    let root = Made::root();
    let rsa = root.below_with(&PKCS_RSA_SHA256, |_| {});
    let pkcs1 = pem_of("RSA PRIVATE KEY", inner(rsa.key.serialized_der()));
    must_be_taken("PKCS#1", parse(&rsa.pem, &pkcs1, &root.pem));

    let issuer = root.below();
    let plain = inner(issuer.key.serialized_der());
    // As `openssl ecparam -genkey` writes it: the curve stands behind the 32 bytes of the key.
    let curve: [u8; 12] = [
        0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    let (header, _) = length_of(plain);
    let (key, public) = plain[header..].split_at(3 + 2 + 32);
    let length = u8::try_from(key.len() + curve.len() + public.len()).unwrap();
    let sec1 = [[0x30, length].as_slice(), key, &curve, public].concat();
    let sec1 = format!(
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
        pem_of("EC PRIVATE KEY", &sec1)
    );
    must_be_taken("SEC1", parse(&issuer.pem, &sec1, &root.pem));
}

#[test]
fn roots_of_one_name_differ_by_signature() {
    let former = Made::root();
    let name = former.params.distinguished_name.clone();
    let root = Made::root_with(&PKCS_ECDSA_P256_SHA256, |params| {
        params.distinguished_name = name
    });
    let issuer = root.below();
    let roots = format!("{}{}", former.pem, root.pem);
    let candidate = must_be_taken(
        "two",
        parse(&issuer.pem, &issuer.key.serialize_pem(), &roots),
    );
    assert_eq!(candidate.root_pem, root.pem);
}

/// What is refused, with a part of the reason.
type Refused = (&'static str, String, String, String);

fn must_name_reasons(cases: Vec<Refused>) {
    for (reason, certificate, key, roots) in cases {
        let error = parse(&certificate, &key, &roots).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

/// A certificate with its key, below a root.
fn of(reason: &'static str, made: &Made, root: &Made) -> Refused {
    let key = made.key.serialize_pem();
    (reason, made.pem.clone(), key, root.pem.clone())
}

#[test]
fn unusable_texts_name_their_file() {
    let root = Made::root();
    let issuer = root.below();
    let key = issuer.key.serialize_pem();
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let cut = issuer.pem.replace("-----END", "-----ENDE");
    let many: String = (0..5).map(|_| Made::root().pem).collect();
    let ca = || root.pem.clone();
    let certificate = || issuer.pem.clone();
    must_name_reasons(vec![
        (
            "tls.crt holds no PEM certificate",
            String::new(),
            key.clone(),
            ca(),
        ),
        (
            "tls.crt holds a certificate that cannot be read",
            cut,
            key.clone(),
            ca(),
        ),
        (
            "tls.key holds no PEM key",
            certificate(),
            String::new(),
            ca(),
        ),
        (
            "tls.key holds no PEM key without a password",
            certificate(),
            encrypted,
            ca(),
        ),
        (
            "the key in tls.key fits no certificate",
            root.below().pem,
            key.clone(),
            ca(),
        ),
        (
            "ca.crt holds no PEM certificate",
            certificate(),
            key.clone(),
            String::new(),
        ),
        (
            "ca.crt holds more than 4 roots",
            certificate(),
            key.clone(),
            many,
        ),
    ]);
}

#[test]
fn chains_that_end_at_no_root_are_refused() {
    let root = Made::root();
    let (issuer, above) = (root.below(), root.below());
    let below = above.below();
    let narrow = Made::root_with(&PKCS_ECDSA_P256_SHA256, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let mut deep = vec![root.below()];
    for _ in 0..4 {
        let next = deep[deep.len() - 1].below();
        deep.push(next);
    }
    let mut deepest = of("more than 3 certificates", &deep[4], &root);
    deepest.1 = deep.iter().map(|made| made.pem.as_str()).collect();
    must_name_reasons(vec![
        of(
            "is no root: name the roots in identity.issuer.roots",
            &below,
            &above,
        ),
        of("ends at no root in ca.crt", &issuer, &Made::root()),
        of("ends at no root in ca.crt", &below, &root),
        deepest,
        of(
            "the path length of the certificate",
            &narrow.below(),
            &narrow,
        ),
    ]);
}

#[test]
fn authorities_that_peers_would_refuse_name_the_reason() {
    let root = Made::root();
    let with =
        |change: fn(&mut CertificateParams)| root.below_with(&PKCS_ECDSA_P256_SHA256, change);
    let leaf = with(|params| params.is_ca = IsCa::ExplicitNoCa);
    let no_usage = with(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let soon = with(|params| params.not_after = (SystemTime::now() + DAY / 48).into());
    let later = with(|params| params.not_before = (SystemTime::now() + DAY).into());
    let ended = with(|params| {
        params.not_before = UNIX_EPOCH.into();
        params.not_after = (SystemTime::now() - DAY).into();
    });
    let forbidding = with(|params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let ed = root.below_with(&PKCS_ED25519, |_| {});
    let p521 = root.below_with(&PKCS_ECDSA_P521_SHA512, |_| {});
    must_name_reasons(vec![
        of("the key in tls.key is of a kind", &ed, &root),
        of("the key in tls.key is of a kind", &p521, &root),
        of("request one with CA:TRUE", &leaf, &root),
        of("request one with CA:TRUE and keyCertSign", &no_usage, &root),
        of("names allow the mesh's certificates", &forbidding, &root),
        of("is not valid yet", &later, &root),
        of("has ended or ends within the hour", &ended, &root),
        of("has ended or ends within the hour", &soon, &root),
    ]);
}

#[test]
fn generated_root_differs_from_a_brought_one() {
    let generated = Root::generate(SystemTime::now(), ROOT_LIFE).unwrap();
    assert!(generated.is_generated());
    let brought = Made::root();
    let brought = Root::from_pem(&brought.pem, &brought.key.serialize_pem());
    assert!(!brought.unwrap().is_generated());
}

#[test]
fn reason_holds_a_bounded_part_of_the_name() {
    let root = Made::root();
    let long = root.below_with(&PKCS_ECDSA_P256_SHA256, |params| {
        let name = "n".repeat(10_000);
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, name);
    });
    let key = long.key.serialize_pem();
    let error = parse(&long.pem, &key, &Made::root().pem)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ends at no root") && error.len() < 500,
        "{error}"
    );
}

#[test]
fn short_issuer_is_taken_where_it_outlives_the_present_one() {
    let root = Made::root();
    let end = SystemTime::now() + DAY / 48;
    let issuer = root.below_with(&PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = end.into()
    });
    let key = issuer.key.serialize_pem();
    let texts = Texts {
        certificate: issuer.pem.as_bytes(),
        key: key.as_bytes(),
        roots: root.pem.as_bytes(),
    };
    let member = crate::fixtures::account("web");
    let parse = |until| Candidate::parse(&texts, &member, SystemTime::now(), Some(until));
    assert!(matches!(parse(end + DAY), Err(BadCandidate::Ends(_))));
    parse(end - DAY / 24).unwrap();
}
