//! What a peer presents is the path to a root, and shows what signed its leaf.

use rustls_pki_types::pem::PemObject as _;

use super::*;
use crate::fixtures::names;
use crate::request::LeafKey;

/// The order of P-256.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// DER of the algorithm ecdsa-with-SHA256.
const ECDSA_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];

const ROOT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUHKthaeFgtwcAwUj88iim/EI/whUwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFbXktY2EwHhcNMjYxMTMwMDEyMzA3WhcNMzYxMTI3MDEyMzA3
WjAQMQ4wDAYDVQQDDAVteS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGEE
j9UuPLJmXitDqBDcinLOSIX+FZ9Vdb5OE+3a7Ul+EbH1tKUYCK9cdSRHwbE3L+Ef
WcWK4cSSZwgCnf93RTKjUzBRMB0GA1UdDgQWBBS8z/QJS00jx1qh8CaZZTyY9wY9
AzAfBgNVHSMEGDAWgBS8z/QJS00jx1qh8CaZZTyY9wY9AzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQCNDseyzcVBuEC02B1+fBQ/FYvAQXAhgDBv
b6Y4cqdWwgIhAL5KY3c1kTyVvPpCEq676jYuFV82YHVjf0rtr7Rj7hY6
-----END CERTIFICATE-----";

fn both_sides(
    roots: &Roots,
    chain: &[CertificateDer<'static>],
) -> Result<PeerIdentity, IdentityError> {
    let server = verify_chain(roots, chain, now(), Purpose::Server);
    let client = verify_chain(roots, chain, now(), Purpose::Client);
    assert_eq!(server, client);
    server
}

/// Roots for the same identities, in place of those of an authority.
fn trusting(certificates: &[&CertificateDer<'static>]) -> Roots {
    let certificates = certificates.iter().map(|one| (*one).clone()).collect();
    Roots::new(&account("web"), certificates).unwrap()
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut encoded = vec![tag];
    match (length, content.len()) {
        ([0, short], 0..=0x7f) => encoded.push(short),
        ([0, middle], _) => encoded.extend([0x81, middle]),
        ([high, low], _) => encoded.extend([0x82, high, low]),
    }
    encoded.extend(content);
    encoded
}

/// The same certificate with the other signature that is valid too: each of its readers can write
/// n - s in the place of s.
fn other_signature(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    let signature: &[u8] = &parsed.signature_value.data;
    // A sequence of r and s, all of them short.
    let r_end = 4 + usize::from(signature[3]);
    let s = &signature[r_end + 2..];
    let (mut other, mut borrowed) = (ORDER, 0);
    for (at, digit) in other.iter_mut().rev().enumerate() {
        let taken = s.iter().rev().nth(at).copied().unwrap_or(0);
        let left = i16::from(*digit) - i16::from(taken) - borrowed;
        borrowed = i16::from(left < 0);
        *digit = u8::try_from(left.rem_euclid(256)).unwrap();
    }
    let zeros = other.iter().take_while(|digit| **digit == 0).count();
    let mut integer = other[zeros..].to_vec();
    if integer[0] > 0x7f {
        integer.insert(0, 0);
    }
    let mut both = signature[2..r_end].to_vec();
    both.extend(der(0x02, &integer));
    let mut bits = vec![0];
    bits.extend(der(0x30, &both));
    let signed: &[u8] = parsed.tbs_certificate.as_ref();
    let mut all = signed.to_vec();
    all.extend(ECDSA_SHA256);
    all.extend(der(0x03, &bits));
    CertificateDer::from(der(0x30, &all))
}

// Claims: trust-1a
#[test]
fn certificates_that_vouch_for_nothing_are_refused() {
    let (real, foreign) = (Authority::new(), Authority::new());
    let roots = real.roots();
    let leaf = real.leaf("web").chain()[0].clone();
    let other = real.leaf("other").chain()[0].clone();
    let (issuer, root) = (real.issuer.certificate(), real.root.certificate());
    let unrelated = foreign.issuer.certificate();
    for (what, behind) in [
        ("an unrelated one first", vec![unrelated, issuer]),
        ("an unrelated one last", vec![issuer, unrelated]),
        (
            "a root that is not in use",
            vec![issuer, foreign.root.certificate()],
        ),
        ("another leaf", vec![issuer, &other]),
        ("the leaf again", vec![&leaf, issuer]),
        ("the issuer twice", vec![issuer, issuer]),
        ("the root first", vec![root, issuer]),
    ] {
        let behind = behind.into_iter().cloned();
        let chain: Vec<_> = std::iter::once(leaf.clone()).chain(behind).collect();
        assert_eq!(both_sides(&roots, &chain), Err(NOT_IN_ORDER), "{what}");
    }
}

#[test]
fn chains_of_every_version_show_their_authority() {
    let authority = Authority::new();
    let leaf = authority.leaf("web").chain()[0].clone();
    let (issuer, root) = (authority.issuer.certificate(), authority.root.certificate());
    let by = |roots: &Roots, behind: &[&CertificateDer<'static>]| {
        let behind = behind.iter().map(|one| (*one).clone());
        let chain: Vec<_> = std::iter::once(leaf.clone()).chain(behind).collect();
        both_sides(roots, &chain).map(|peer| peer.certificate.authority)
    };
    let expected = Ok(AuthorityId::of(&parse(issuer).unwrap()));
    // What every version sends; and the root, as other tools add it.
    assert_eq!(by(&authority.roots(), &[issuer]), expected);
    assert_eq!(by(&authority.roots(), &[issuer, root]), expected);
    // An issuer that is a root in use, alone and beside its own root.
    assert_eq!(by(&trusting(&[issuer]), &[issuer]), expected);
    assert_eq!(by(&trusting(&[issuer, root]), &[issuer]), expected);
    assert_eq!(by(&trusting(&[issuer, root]), &[issuer, root]), expected);
    // That root was renewed with its key; proxies have the former one.
    let renewed = other_signature(issuer);
    assert_ne!(renewed, *issuer);
    assert_eq!(by(&trusting(&[issuer]), &[&renewed]), expected);
}

#[test]
fn peer_cannot_leave_out_what_signed_its_leaf() {
    let authority = Authority::new();
    let leaf = authority.leaf("web").chain()[0].clone();
    let roots = trusting(&[authority.issuer.certificate()]);
    assert_eq!(both_sides(&roots, &[leaf]), Err(NOT_IN_ORDER));
}

#[test]
fn rewritten_signature_of_issuer_leaves_its_authority() {
    let authority = Authority::new();
    let leaf = authority.leaf("web");
    let rewritten = other_signature(authority.issuer.certificate());
    assert_ne!(rewritten, leaf.chain()[1]);
    let chain = [leaf.chain()[0].clone(), rewritten];
    let peer = both_sides(&authority.roots(), &chain).expect("it is valid too");
    assert_eq!(peer.certificate, leaf.identity().certificate);
}

#[test]
fn peer_is_known_by_its_certificates_serial_and_issue() {
    let authority = Authority::new();
    let time = UNIX_EPOCH + Duration::from_secs(at(SystemTime::now()).as_secs());
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let issued = authority.issuer.issue(&csr, &names("web"), time, HOUR);
    let issued = issued.unwrap();
    let peer = both_sides(&authority.roots(), &issued.chain).unwrap();
    let serial = peer.certificate.serial.iter();
    let serial: String = serial.map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(serial, issued.serial);
    assert_eq!(peer.certificate.issued, time);
    assert_eq!(peer.certificate.not_after, time + HOUR);
}

#[test]
fn authorities_of_one_name_differ_by_their_keys() {
    let certificate = |name: &str, key: &rcgen::KeyPair, life: Duration| {
        let mut made = CertificateParams::default();
        made.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        made.not_after = (SystemTime::now() + life).into();
        made.distinguished_name = rcgen::DistinguishedName::new();
        made.distinguished_name
            .push(rcgen::DnType::CommonName, name);
        made.self_signed(key).unwrap()
    };
    let id = |name: &str, key: &rcgen::KeyPair, life: Duration| {
        let made = certificate(name, key, life);
        AuthorityId::of(&parse(made.der()).unwrap())
    };
    let keys = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
    let first = id("my-ca", &keys[0], HOUR);
    assert_ne!(id("my-ca", &keys[1], HOUR), first);
    assert_ne!(id("other", &keys[0], HOUR), first);
    assert_eq!(id("my-ca", &keys[0], 2 * HOUR), first, "it was renewed");
    assert_eq!(first.to_string().len(), 32);
}

/// `weft identity` writes the same of it.
#[test]
fn authority_is_known_by_digits_that_last() {
    let root = CertificateDer::from_pem_slice(ROOT.as_bytes()).unwrap();
    let roots = trusting(&[&root]);
    let ids: Vec<String> = roots.ids().iter().map(ToString::to_string).collect();
    assert_eq!(ids, ["78c3b8c7c9a0b582d49c5f87098d668e"]);
}

fn ca_of(key: &rcgen::KeyPair, life: Duration) -> (CertificateParams, CertificateDer<'static>) {
    let mut made = CertificateParams::default();
    made.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    made.not_after = (SystemTime::now() + life).into();
    made.distinguished_name = rcgen::DistinguishedName::new();
    made.distinguished_name
        .push(rcgen::DnType::CommonName, "my-ca");
    let certificate = made.self_signed(key).unwrap().der().clone();
    (made, certificate)
}

#[test]
fn root_renewed_with_its_key_vouches_as_before() {
    let keys = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
    let roots = trusting(&[&ca_of(&keys[0], HOUR).1]);
    let renewed = trusting(&[&ca_of(&keys[0], 2 * HOUR).1]);
    assert_eq!(roots.missing_in(&renewed, SystemTime::now()), []);
    let other = trusting(&[&ca_of(&keys[1], HOUR).1]);
    assert_eq!(
        roots.missing_in(&other, SystemTime::now()),
        roots.certificates()
    );
}

#[test]
fn authority_of_known_name_and_other_algorithm_is_unknown() {
    let known = trusting(&[&ca_of(&rcgen::KeyPair::generate().unwrap(), HOUR).1]);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let issuer = rcgen::Issuer::new(ca_of(&key, HOUR).0, key);
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![uri(account("web").as_str())];
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let chain = [leaf.signed_by(&leaf_key, &issuer).unwrap().der().clone()];
    let refused = Err(IdentityError::UnknownAuthority);
    assert_eq!(both_sides(&known, &chain), refused);
}
