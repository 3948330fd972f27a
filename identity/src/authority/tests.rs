//! What an issuer signs, and what it must not.

use std::collections::HashSet;

use x509_parser::extensions::GeneralName;

use super::*;
use crate::fixtures::{Authority, HOUR, account, dns, names, uri};

fn greedy_request(key: &LeafKey) -> Vec<u8> {
    let mut wish = CertificateParams::default();
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    wish.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::CodeSigning,
        ExtendedKeyUsagePurpose::Any,
    ];
    wish.subject_alt_names = vec![
        uri("spiffe://cluster.local/ns/weft-system/sa/weft-controller"),
        dns("*.example.com"),
        SanType::IpAddress([10, 0, 0, 1].into()),
    ];
    wish.distinguished_name
        .push(DnType::CommonName, "weft-controller");
    wish.serialize_request(key.pair()).unwrap().der().to_vec()
}

#[test]
fn csr_with_extra_requests_gets_plain_leaf() {
    let authority = Authority::new();
    let key = LeafKey::generate().unwrap();
    let issued = authority
        .issuer
        .issue(
            &greedy_request(&key),
            &names("web"),
            SystemTime::now(),
            HOUR,
        )
        .unwrap();

    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    assert!(!leaf.is_ca());
    assert_eq!(leaf.subject().iter().count(), 0, "the subject is empty");
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth);
    assert!(!purposes.code_signing && !purposes.any && purposes.other.is_empty());
    let san = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(
        san.general_names,
        [
            GeneralName::URI("spiffe://cluster.local/ns/shop/sa/web"),
            GeneralName::DNSName("6c1e2b6e-6d0f-4f6b-8a54-0d0f9c2a7d11.pod.weft"),
        ]
    );
    assert_eq!(leaf.public_key().raw, key.pair().subject_public_key_info());
}

#[test]
fn leaf_starts_five_minutes_back_and_lasts_its_life() {
    let authority = Authority::new();
    let key = LeafKey::generate().unwrap();
    let now = SystemTime::now();
    let issued = authority
        .issuer
        .issue(&key.csr().unwrap(), &names("web"), now, HOUR)
        .unwrap();
    let second = Duration::from_secs(1);
    let leaf = crate::Leaf::new(issued.chain, &key).unwrap();
    assert!(
        now.duration_since(leaf.not_before())
            .unwrap()
            .abs_diff(BACKDATE)
            <= second
    );
    assert!(leaf.not_after().duration_since(now).unwrap().abs_diff(HOUR) <= second);
    assert!(issued.not_after.duration_since(leaf.not_after()).unwrap() <= second);
}

#[test]
fn leaf_never_outlives_its_issuer() {
    let now = SystemTime::now();
    let root = Root::generate(now, ROOT_LIFE).unwrap();
    let issuer = root.issuer(now, HOUR).unwrap();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let issued = issuer.issue(&csr, &names("web"), now, 24 * HOUR).unwrap();
    assert!(issued.not_after <= issuer.not_after());

    let late = now + 2 * HOUR;
    let refused = issuer.issue(&csr, &names("web"), late, HOUR);
    assert!(
        matches!(refused, Err(IssueError::IssuerNotValid)),
        "{refused:?}"
    );
}

#[test]
fn issuer_never_outlives_its_root() {
    let now = SystemTime::now();
    let root = Root::generate(now, HOUR).unwrap();
    let issuer = root.issuer(now, ISSUER_LIFE).unwrap();
    assert!(issuer.not_after() <= root.not_after());
}

#[test]
fn life_without_end_is_an_error_and_no_panic() {
    let now = SystemTime::now();
    let endless = Root::generate(now, Duration::MAX);
    assert!(matches!(endless, Err(BadAuthority::Time)));
    let authority = Authority::new();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    for life in [Duration::MAX, Duration::ZERO] {
        let refused = authority.issuer.issue(&csr, &names("web"), now, life);
        assert!(matches!(refused, Err(IssueError::Life)));
    }
}

#[test]
fn serials_differ_even_for_one_key() {
    let authority = Authority::new();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let serials: HashSet<String> = (0..20)
        .map(|_| {
            let issued = authority
                .issuer
                .issue(&csr, &names("web"), SystemTime::now(), HOUR);
            issued.unwrap().serial
        })
        .collect();
    assert_eq!(serials.len(), 20);
    assert!(
        serials.iter().all(|s| s.len() == 2 * SERIAL_LENGTH),
        "{serials:?}"
    );
}

#[test]
fn dns_name_that_is_no_pods_is_not_issued() {
    let authority = Authority::new();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    for name in [
        "example.com",
        ".pod.weft",
        "a.b.pod.weft",
        "A.pod.weft",
        "a.pod.weft\0",
        "*.pod.weft",
    ] {
        let names = LeafNames {
            spiffe: account("web"),
            pod_dns: Some(name.to_owned()),
        };
        let refused = authority
            .issuer
            .issue(&csr, &names, SystemTime::now(), HOUR);
        assert!(matches!(refused, Err(IssueError::Name(_))), "{name:?}");
    }
}

#[test]
fn authority_survives_its_pem_form() {
    let authority = Authority::new();
    let root = Root::from_pem(authority.root.cert_pem(), &authority.root.key_pem()).unwrap();
    let issuer =
        Issuer::from_pem(authority.issuer.cert_pem(), &authority.issuer.key_pem()).unwrap();
    assert_eq!(root.certificate(), authority.root.certificate());
    assert_eq!(root.not_after(), authority.root.not_after());
    issuer.prove(&authority.roots(), SystemTime::now()).unwrap();
    // A reloaded root still makes issuers that old verifiers trust.
    let next = root.issuer(SystemTime::now(), ISSUER_LIFE).unwrap();
    next.prove(&authority.roots(), SystemTime::now()).unwrap();
}

#[test]
fn unusable_issuer_is_distinguished_from_usable_one() {
    let authority = Authority::new();
    let other = Authority::new();
    let now = SystemTime::now();
    let (cert, key) = (authority.issuer.cert_pem(), authority.issuer.key_pem());

    assert!(matches!(
        Issuer::from_pem("nonsense", &key),
        Err(BadAuthority::Certificate)
    ));
    assert!(matches!(
        Issuer::from_pem(cert, "nonsense"),
        Err(BadAuthority::Key)
    ));
    let mismatch = Issuer::from_pem(cert, &other.issuer.key_pem());
    assert!(matches!(mismatch, Err(BadAuthority::KeyMismatch)));

    let foreign = authority.issuer.prove(&other.roots(), now).unwrap_err();
    assert!(
        matches!(
            foreign,
            BadAuthority::NotTrusted(IdentityError::UnknownAuthority)
        ),
        "{foreign:?}"
    );
    let late = authority
        .issuer
        .prove(&authority.roots(), now + 2 * ISSUER_LIFE);
    assert!(matches!(
        late,
        Err(BadAuthority::Probe(IssueError::IssuerNotValid))
    ));
}

/// An issuer below `root` that may only name what `permitted` allows.
fn constrained(root: &Root, permitted: &str) -> Issuer {
    let now = SystemTime::now();
    let end = after(now, HOUR).unwrap();
    let (mut params, key) = authority_params("constrained", 0, now, end).unwrap();
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName(permitted.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let certificate = params.signed_by(&key, &root.0.issuer).unwrap();
    Issuer::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap()
}

// Claims: M2
#[test]
fn issuer_with_constraints_forbidding_pod_names_is_refused() {
    let authority = Authority::new();
    let (roots, now) = (authority.roots(), SystemTime::now());
    let forbidding = constrained(&authority.root, "example.com");
    let key = LeafKey::generate().unwrap();
    let real = forbidding
        .issue(&key.csr().unwrap(), &names("web"), now, HOUR)
        .unwrap();
    let peers = verify::verify_chain(&roots, &real.chain, unix(now), Purpose::Server);
    assert!(peers.is_err(), "peers refuse what pods would get");
    let refused = forbidding.prove(&roots, now).unwrap_err();
    assert!(
        matches!(&refused, BadAuthority::NotTrusted(error) if error.to_string().contains("name constraints")),
        "{refused:?}"
    );
    constrained(&authority.root, "pod.weft")
        .prove(&roots, now)
        .unwrap();
}

// Claims: M2
#[test]
fn issuer_probe_uses_trust_domain_of_roots() {
    let authority = Authority::new();
    let elsewhere = SpiffeId::of("other.example", "shop", "web").unwrap();
    let roots = Roots::new(&elsewhere, authority.roots().certificates()).unwrap();
    authority.issuer.prove(&roots, SystemTime::now()).unwrap();
}

#[test]
fn serving_certificate_is_verified_against_its_service_names() {
    let authority = Authority::new();
    let (roots, now) = (authority.roots(), SystemTime::now());
    let name = ["weft-metrics.weft-system.svc"];
    let serving = authority.issuer.serving(&name, now, HOUR).unwrap();
    serving.prove(&roots, &name, now).unwrap();
    assert!(serving.prove(&roots, &["other.svc"], now).is_err());
    assert!(serving.prove(&roots, &name, now + 2 * HOUR).is_err());
    assert!(
        serving
            .prove(&Authority::new().roots(), &name, now)
            .is_err()
    );
    let forbidding = constrained(&authority.root, "example.com");
    let serving = forbidding.serving(&name, now, HOUR).unwrap();
    assert!(serving.prove(&roots, &name, now).is_err());
}

#[test]
fn leaf_cannot_become_an_issuer() {
    let authority = Authority::new();
    let (chain, key) = authority.forge(|_| ());
    let pem = to_pem(&chain[0]);
    let made = Issuer::from_pem(&pem, &key.pair().serialize_pem());
    assert!(
        matches!(made, Err(BadAuthority::NotAnAuthority)),
        "{made:?}"
    );
}

#[test]
fn debug_output_holds_no_key() {
    let authority = Authority::new();
    let shown = format!("{:?} {:?}", authority.root, authority.issuer);
    assert!(
        !shown.contains("PRIVATE") && !shown.contains("pem"),
        "{shown}"
    );
}

pub(super) fn to_pem(der: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bits = (0..3).fold(0u32, |bits, i| {
                bits << 8 | u32::from(*group.get(i).unwrap_or(&0))
            });
            for i in 0..4 {
                let index = (bits >> (18 - 6 * i)) as usize & 63;
                text.push(if i <= group.len() {
                    ALPHABET[index] as char
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}
