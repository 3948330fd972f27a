//! Whole addresses as targets come back on the other side, and not at a peer that does not know
//! them.
//!
//! Claims: attack-103

use super::*;
use crate::http::received::written_target;

fn request(scheme: Option<&str>) -> PeerRequest {
    let mut parts = parts(("GET", "/a?b", ONE), &[("x", "1"), ("host", "h:1")]);
    if let Some(scheme) = scheme {
        let scheme = Scheme::try_from(scheme).unwrap();
        parts.extensions.insert(AbsoluteForm(scheme));
    }
    PeerRequest::Http {
        port: AppPort::new(8080).unwrap(),
        speak: AppHttp::Http1,
        parts,
    }
}

/// A proxy from before drops a header of ours that it does not know, and sends the path.
#[test]
fn whole_address_comes_back_by_either_transport() {
    for transport in TRANSPORTS {
        let plain = request(None).encode(transport).unwrap();
        assert!(!plain.headers.contains_key(SCHEME));
        let came = PeerRequest::decode(plain.clone(), transport).unwrap();
        let PeerRequest::Http { parts, .. } = came else {
            panic!("{transport:?}");
        };
        assert_eq!(written_target(&parts).to_string(), "/a?b", "{transport:?}");
        for scheme in ["http", "https", "ftp"] {
            let mut sent = request(Some(scheme)).encode(transport).unwrap();
            assert_eq!(sent.uri, plain.uri, "{transport:?}");
            // It does not cross the wire.
            sent.extensions.clear();
            let came = PeerRequest::decode(sent, transport).unwrap();
            let PeerRequest::Http { parts, .. } = came else {
                panic!("{transport:?}");
            };
            let whole = format!("{scheme}://h:1/a?b");
            assert_eq!(written_target(&parts).to_string(), whole, "{transport:?}");
            assert!(!parts.headers.contains_key(SCHEME));
        }
    }
}

#[test]
fn what_is_no_scheme_is_malformed() {
    let http = [("weft-port", "80"), ("weft-protocol", "http1")];
    for schemes in [
        &["http"][..],
        &["http", "http"],
        &[""],
        &["a b"],
        &["http:"],
        &["a/"],
    ] {
        let with = schemes.iter().map(|scheme| ("weft-scheme", *scheme));
        let headers: Vec<_> = http.into_iter().chain(with).collect();
        for transport in TRANSPORTS {
            let got = PeerRequest::decode(parts(("GET", "http://h/", TWO), &headers), transport);
            assert_eq!(got.is_ok(), schemes == ["http"], "{schemes:?}: {got:?}");
        }
    }
}

/// Behind an address `*` would be a part of the host.
#[test]
fn target_that_is_no_path_gets_no_address() {
    let mut parts = parts(("OPTIONS", "*", ONE), &[("host", "h")]);
    parts.extensions.insert(AbsoluteForm(Scheme::HTTP));
    assert_eq!(written_target(&parts).to_string(), "*");
}
