//! Only the public key of a signing request counts.

use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;

fn request_of(key: &KeyPair) -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    request.der().to_vec()
}

#[test]
fn own_request_is_accepted_and_carries_the_key() {
    let key = LeafKey::generate().unwrap();
    let accepted = public_key(&key.csr().unwrap()).unwrap();
    assert_eq!(accepted.der_bytes(), key.pair().der_bytes());
}

#[test]
fn keys_of_other_kinds_are_refused() {
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(public_key(&request_of(&key)), Err(BadRequest::WrongKey));
    }
}

#[test]
fn rsa_key_is_refused() {
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    assert_eq!(public_key(&request_of(&key)), Err(BadRequest::WrongKey));
}

#[test]
fn request_with_another_ones_key_is_refused() {
    let mine = LeafKey::generate().unwrap();
    let theirs = LeafKey::generate().unwrap();
    let mut csr = mine.csr().unwrap();
    let old = mine.pair().der_bytes();
    let start = csr.windows(old.len()).position(|w| w == old).unwrap();
    csr[start..start + old.len()].copy_from_slice(theirs.pair().der_bytes());
    assert_eq!(public_key(&csr), Err(BadRequest::BadSignature));
}

#[test]
fn point_that_is_not_on_the_curve_is_refused() {
    let key = LeafKey::generate().unwrap();
    let mut csr = key.csr().unwrap();
    let point = key.pair().der_bytes();
    let start = csr.windows(point.len()).position(|w| w == point).unwrap();
    csr[start + 1..start + point.len()].fill(0xff);
    assert_eq!(public_key(&csr), Err(BadRequest::BadSignature));
}

#[test]
fn garbage_is_refused() {
    let valid = LeafKey::generate().unwrap().csr().unwrap();
    let trailing = [valid.as_slice(), b"x"].concat();
    let cut = &valid[..valid.len() - 1];
    for garbage in [
        b"".as_slice(),
        b"aaaaaa",
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        &trailing,
        cut,
    ] {
        assert_eq!(public_key(garbage), Err(BadRequest::Malformed));
    }
    let huge = vec![0x30; MAX_REQUEST + 1];
    assert_eq!(public_key(&huge), Err(BadRequest::TooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(public_key(&bytes).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Damaged requests reach far deeper than random bytes. Whatever is accepted
    /// must still be signed by the key that it carries.
    #[test]
    fn damaged_request_never_panics_nor_passes_with_another_key(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let key = LeafKey::generate().unwrap();
        let valid = key.csr().unwrap();
        let mut csr = valid.clone();
        for (index, byte) in damage {
            let index = index.index(csr.len());
            csr[index] = byte;
        }
        if let Ok(accepted) = public_key(&csr) {
            prop_assert_eq!(accepted.der_bytes(), key.pair().der_bytes());
        }
    }
}

#[test]
fn debug_output_holds_no_key() {
    let key = LeafKey::generate().unwrap();
    assert_eq!(format!("{key:?}"), "LeafKey { .. }");
}
