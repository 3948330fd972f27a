//! Chains that prove an identity, and those that do not.
//!
//! Claims: attack-6

mod path;

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use super::*;
use crate::authority::{ISSUER_LIFE, ROOT_LIFE, Root};
use crate::fixtures::{Authority, HOUR, account, dns, uri};

fn now() -> UnixTime {
    UnixTime::now()
}

fn at(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap())
}

/// What verifiers on both sides say to a leaf with changed parameters.
fn verdict(change: impl FnOnce(&mut CertificateParams)) -> Result<PeerIdentity, IdentityError> {
    let authority = Authority::new();
    let (chain, _) = authority.forge(change);
    let roots = authority.roots();
    let server = verify_chain(&roots, &chain, now(), Purpose::Server);
    let client = verify_chain(&roots, &chain, now(), Purpose::Client);
    assert_eq!(server, client);
    server
}

#[test]
fn issued_leaf_is_who_it_says_on_both_sides() {
    let authority = Authority::new();
    let leaf = authority.leaf("web");
    for purpose in [Purpose::Server, Purpose::Client] {
        let peer = verify_chain(&authority.roots(), leaf.chain(), now(), purpose).unwrap();
        assert_eq!(peer.spiffe, account("web"));
        assert_eq!(peer.pod_uid(), Some("6c1e2b6e-6d0f-4f6b-8a54-0d0f9c2a7d11"));
    }
}

fn elsewhere() -> SpiffeId {
    SpiffeId::of("other.example", "shop", "web").unwrap()
}

// Claims: A4
#[test]
fn any_leaf_of_other_trust_domain_is_refused() {
    let authority = Authority::new();
    let abroad = |authority: &Authority| {
        let name = vec![uri(elsewhere().as_str())];
        authority.forge(|params| params.subject_alt_names = name).0
    };
    let refused = Err(IdentityError::UnknownTrustDomain {
        trusted: "cluster.local".to_owned(),
        presented: elsewhere(),
    });
    let roots = authority.roots();
    let shared = abroad(&authority);
    for purpose in [Purpose::Server, Purpose::Client] {
        assert_eq!(verify_chain(&roots, &shared, now(), purpose), refused);
        let foreign = abroad(&Authority::new());
        assert_eq!(verify_chain(&roots, &foreign, now(), purpose), refused);
    }
    // Under the same root each trust domain has its own identities, and keeps them
    // when the roots are replaced.
    let theirs = Roots::new(&elsewhere(), roots.certificates()).unwrap();
    theirs.replace(roots.certificates()).unwrap();
    roots.replace(theirs.certificates()).unwrap();
    let ours = authority.leaf("web");
    for purpose in [Purpose::Server, Purpose::Client] {
        assert!(verify_chain(&theirs, &shared, now(), purpose).is_ok());
        assert!(verify_chain(&theirs, ours.chain(), now(), purpose).is_err());
        assert!(verify_chain(&roots, ours.chain(), now(), purpose).is_ok());
        assert_eq!(verify_chain(&roots, &shared, now(), purpose), refused);
    }
}

// Claims: mesh-3b
#[test]
fn chain_of_another_root_is_of_an_unknown_authority() {
    let chain = Authority::new().leaf("web");
    let elsewhere = Authority::new().roots();
    let refused = verify_chain(&elsewhere, chain.chain(), now(), Purpose::Server);
    assert_eq!(refused, Err(IdentityError::UnknownAuthority));
}

#[test]
fn chain_with_same_named_foreign_issuer_is_refused() {
    let real = Authority::new();
    let leaf = real.leaf("web");
    // The leaf is real, but what was put behind it is not.
    let foreign = Authority::new();
    let chain = [
        leaf.chain()[0].clone(),
        foreign.issuer.certificate().clone(),
    ];
    let refused = verify_chain(&real.roots(), &chain, now(), Purpose::Server);
    assert_eq!(refused, Err(IdentityError::UnknownAuthority));
}

#[test]
fn leaf_alone_is_not_trusted() {
    let authority = Authority::new();
    let leaf = authority.leaf("web");
    let refused = verify_chain(
        &authority.roots(),
        &leaf.chain()[..1],
        now(),
        Purpose::Server,
    );
    assert_eq!(refused, Err(IdentityError::UnknownAuthority));
}

// Claims: mesh-3b
#[test]
fn expired_and_not_yet_valid_leaves_are_distinguished() {
    let authority = Authority::new();
    let leaf = authority.leaf("web");
    let verdict = |time| verify_chain(&authority.roots(), leaf.chain(), at(time), Purpose::Client);
    let second = Duration::from_secs(1);

    assert!(verdict(leaf.not_after() - second).is_ok());
    let late = verdict(leaf.not_after() + second).unwrap_err();
    assert!(matches!(late, IdentityError::Expired { .. }), "{late}");
    assert!(verdict(leaf.not_before() + second).is_ok());
    let early = verdict(leaf.not_before() - second).unwrap_err();
    assert!(
        matches!(early, IdentityError::NotYetValid { .. }),
        "{early}"
    );
}

#[test]
fn both_roots_are_trusted_while_one_follows_the_other() {
    let old = Authority::new();
    let new = Authority::new();
    let roots = old.roots();
    let verdict = |authority: &Authority| {
        verify_chain(
            &roots,
            authority.leaf("web").chain(),
            now(),
            Purpose::Server,
        )
    };
    assert!(verdict(&old).is_ok() && verdict(&new).is_err());

    let bundle = format!("{}{}", old.root.cert_pem(), new.root.cert_pem());
    roots.replace_pem(&bundle).unwrap();
    assert!(verdict(&old).is_ok() && verdict(&new).is_ok());

    roots.replace_pem(new.root.cert_pem()).unwrap();
    assert_eq!(verdict(&old), Err(IdentityError::UnknownAuthority));
    assert!(verdict(&new).is_ok());
}

#[test]
fn bad_bundle_leaves_the_roots_as_they_are() {
    let authority = Authority::new();
    let roots = authority.roots();
    assert_eq!(roots.replace_pem(""), Err(BadRoots::Empty));
    assert_eq!(roots.replace_pem("nonsense"), Err(BadRoots::Empty));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(roots.replace_pem(broken), Err(BadRoots::Malformed));
    let leaf = authority.leaf("web").chain()[0].clone();
    let mixed = vec![authority.root.certificate().clone(), leaf];
    assert_eq!(roots.replace(mixed), Err(BadRoots::NotAnAuthority(2)));
    let many = vec![authority.root.certificate().clone(); MAX_ROOTS + 1];
    assert_eq!(roots.replace(many), Err(BadRoots::TooMany));
    assert_eq!(roots.certificates(), [authority.root.certificate().clone()]);
}

#[test]
fn only_exactly_one_strict_spiffe_id_is_an_identity() {
    let id = "spiffe://cluster.local/ns/shop/sa/web";
    let other = "spiffe://cluster.local/ns/shop/sa/admin";
    let refused: Vec<(&str, Vec<SanType>)> = vec![
        ("no name at all", vec![]),
        ("a pod name only", vec![dns("a.pod.weft")]),
        ("two ids", vec![uri(id), uri(other)]),
        ("one id twice", vec![uri(id), uri(id)]),
        (
            "a web address",
            vec![uri("https://cluster.local/ns/shop/sa/web")],
        ),
        (
            "an id and a web address",
            vec![uri(id), uri("https://a.example/")],
        ),
        (
            "upper-case scheme",
            vec![uri("SPIFFE://cluster.local/ns/shop/sa/web")],
        ),
        (
            "upper-case trust domain",
            vec![uri("spiffe://Cluster.local/ns/shop/sa/web")],
        ),
        (
            "dot segments",
            vec![uri("spiffe://cluster.local/ns/shop/sa/a/../web")],
        ),
        (
            "trailing slash",
            vec![uri("spiffe://cluster.local/ns/shop/sa/web/")],
        ),
        ("escape", vec![uri("spiffe://cluster.local/ns/shop/sa/%2e")]),
        ("NUL", vec![uri("spiffe://cluster.local/ns/shop/sa/web\0")]),
        (
            "query",
            vec![uri("spiffe://cluster.local/ns/shop/sa/web?a=b")],
        ),
        (
            "port",
            vec![uri("spiffe://cluster.local:80/ns/shop/sa/web")],
        ),
        ("user", vec![uri("spiffe://a@cluster.local/ns/shop/sa/web")]),
        ("no path", vec![uri("spiffe://cluster.local")]),
        ("a service's name", vec![uri(id), dns("web.shop.svc")]),
        ("a wildcard", vec![uri(id), dns("*.pod.weft")]),
        (
            "two pods",
            vec![uri(id), dns("a.pod.weft"), dns("b.pod.weft")],
        ),
        (
            "an address",
            vec![uri(id), SanType::IpAddress([10, 0, 0, 1].into())],
        ),
        (
            "mail",
            vec![
                uri(id),
                SanType::Rfc822Name("a@b.example".try_into().unwrap()),
            ],
        ),
    ];
    for (what, names) in refused {
        let verdict = verdict(|params| params.subject_alt_names = names);
        assert!(
            matches!(verdict, Err(IdentityError::NoIdentity(_))),
            "{what}: {verdict:?}"
        );
    }
    let long = format!("spiffe://cluster.local/ns/shop/sa/{}", "a".repeat(2_048));
    let verdict = verdict(|params| params.subject_alt_names = vec![uri(&long)]);
    assert!(
        matches!(verdict, Err(IdentityError::NoIdentity(_))),
        "longer than SPIFFE allows"
    );
}

#[test]
fn id_without_pod_name_is_an_identity() {
    let peer = verdict(|_| ()).unwrap();
    assert_eq!(peer.spiffe, account("web"));
    assert_eq!(peer.pod_dns, None);
}

#[test]
fn authority_is_no_peer() {
    let refused = verdict(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(
        matches!(refused, Err(IdentityError::NoIdentity(_))),
        "{refused:?}"
    );
    let refused = verdict(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
    assert!(
        matches!(refused, Err(IdentityError::NoIdentity(_))),
        "{refused:?}"
    );
}

// Claims: attack-7
#[test]
fn peer_key_signs_handshakes_but_no_certificates_or_crls() {
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign, KeyEncipherment};
    for usages in [
        vec![],
        vec![DigitalSignature],
        vec![DigitalSignature, KeyEncipherment, KeyAgreement],
    ] {
        let verdict = verdict(|params| params.key_usages.clone_from(&usages));
        assert!(verdict.is_ok(), "{usages:?}: {verdict:?}");
    }
    for usages in [
        vec![KeyEncipherment],
        vec![KeyAgreement],
        vec![CrlSign],
        vec![DigitalSignature, CrlSign],
        vec![DigitalSignature, KeyCertSign],
    ] {
        let refused = verdict(|params| params.key_usages.clone_from(&usages));
        let label = refused.as_ref().map_err(IdentityError::label).err();
        assert_eq!(label, Some("no-identity"), "{usages:?}: {refused:?}");
    }
}

#[test]
fn purpose_must_be_named_and_must_fit_the_side() {
    let refused = verdict(|params| params.extended_key_usages.clear());
    assert_eq!(refused, Err(IdentityError::WrongPurpose));
    let refused = verdict(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    assert_eq!(refused, Err(IdentityError::WrongPurpose));

    let authority = Authority::new();
    let (chain, _) = authority.forge(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let roots = authority.roots();
    assert!(verify_chain(&roots, &chain, now(), Purpose::Server).is_ok());
    let refused = verify_chain(&roots, &chain, now(), Purpose::Client);
    assert_eq!(refused, Err(IdentityError::WrongPurpose));
}

#[test]
fn leaf_used_as_issuer_is_refused() {
    let authority = Authority::new();
    let (middle, middle_key) = authority.forge(|_| ());
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/admin")];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let forger = rcgen::Issuer::from_ca_cert_der(&middle[0], middle_key.pair()).unwrap();
    let forged = params.signed_by(&key, &forger).unwrap();
    let chain = [forged.into(), middle[0].clone(), middle[1].clone()];
    assert!(verify_chain(&authority.roots(), &chain, now(), Purpose::Server).is_err());
}

#[test]
fn authority_below_an_issuer_is_refused() {
    let authority = Authority::new();
    let (middle, middle_key) = authority.forge(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "third");
    });
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/admin")];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate().unwrap();
    let forger = rcgen::Issuer::from_ca_cert_der(&middle[0], middle_key.pair()).unwrap();
    let forged = params.signed_by(&key, &forger).unwrap();
    let chain = [forged.into(), middle[0].clone(), middle[1].clone()];
    let refused = verify_chain(&authority.roots(), &chain, now(), Purpose::Server);
    assert!(
        matches!(refused, Err(IdentityError::Malformed(_))),
        "{refused:?}"
    );
}

#[test]
fn long_chain_is_refused_without_work() {
    let authority = Authority::new();
    let leaf = authority.leaf("web");
    let mut chain = vec![leaf.chain()[0].clone()];
    chain.extend(vec![authority.issuer.certificate().clone(); 200]);
    let start = std::time::Instant::now();
    let refused = verify_chain(&authority.roots(), &chain, now(), Purpose::Server);
    assert!(
        matches!(refused, Err(IdentityError::Malformed(_))),
        "{refused:?}"
    );
    assert!(start.elapsed() < Duration::from_millis(50));
}

#[test]
fn renewed_issuer_of_same_root_is_trusted_immediately() {
    let time = SystemTime::now();
    let root = Root::generate(time, ROOT_LIFE).unwrap();
    let roots = Roots::from_pem(&account("web"), root.cert_pem()).unwrap();
    for _ in 0..2 {
        let issuer = root.issuer(time, ISSUER_LIFE).unwrap();
        issuer.prove(&roots, time).unwrap();
    }
}

#[test]
fn serving_certificate_of_the_webhook_is_no_identity() {
    let root = Root::generate(SystemTime::now(), ROOT_LIFE).unwrap();
    let serving = root
        .serving(&["weft-injector.weft-system.svc"], SystemTime::now(), HOUR)
        .unwrap();
    let refused = peer_identity(&serving.chain);
    assert!(
        matches!(refused, Err(IdentityError::NoIdentity(_))),
        "{refused:?}"
    );
}

#[test]
fn missing_certificate_is_distinguished_from_bad_one() {
    assert_eq!(peer_identity(&[]), Err(IdentityError::NoCertificate));
    let garbage = [CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])];
    assert!(matches!(
        peer_identity(&garbage),
        Err(IdentityError::Malformed(_))
    ));
}

#[test]
fn every_error_survives_its_way_through_rustls() {
    let errors = [
        IdentityError::UnknownAuthority,
        IdentityError::UnknownTrustDomain {
            trusted: "cluster.local".to_owned(),
            presented: elsewhere(),
        },
        IdentityError::Expired {
            now: now(),
            not_after: now(),
        },
        IdentityError::NotYetValid {
            now: now(),
            not_before: now(),
        },
        IdentityError::WrongIdentity {
            expected: account("a"),
            presented: account("b"),
        },
        IdentityError::NoIdentity("no URI name"),
        IdentityError::WrongPurpose,
        IdentityError::NoCertificate,
        IdentityError::Malformed("encoding"),
    ];
    for error in errors {
        let through = rustls::Error::from(error.clone());
        assert_eq!(IdentityError::from_tls(&through), Some(error.clone()));
        let stream = std::io::Error::new(std::io::ErrorKind::InvalidData, through);
        assert_eq!(IdentityError::from_io(&stream), Some(error));
    }
}

#[test]
fn issuer_name_has_short_names_and_rare_oids() {
    let mut made = CertificateParams::default();
    made.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in [
        (rcgen::DnType::CommonName, "weft"),
        (rcgen::DnType::OrganizationName, "Shop"),
        (rcgen::DnType::CustomDnType(vec![2, 5, 4, 5]), "7"),
    ] {
        made.distinguished_name.push(kind, value);
    }
    let made = made.self_signed(&rcgen::KeyPair::generate().unwrap());
    let made = made.unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(made.der()).unwrap();
    assert_eq!(issuer_name(&parsed), "CN=weft, O=Shop, OID(2.5.4.5)=7");
}
