//! Admits only requests of the page that this run of `weft dashboard` has served.
//!
//! Any page of the web may send requests to a loopback port, and by a name that it lets resolve to
//! 127.0.0.1 it may even read the responses. So the host must be ours by its letters, requests of
//! a foreign origin are rejected, and data of the cluster needs a key that only the address
//! printed in the terminal holds. A browser never sends the part of that address with the key.
//!
//! Claims: observe-81

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, Method, Request};

/// Header that carries the key.
pub(super) const KEY: HeaderName = HeaderName::from_static("weft-dashboard");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("only GET is answered: this page reads")]
    Method,
    #[error("this host is not the dashboard's: open the address that weft dashboard printed")]
    Host,
    #[error("the request comes from another page")]
    Origin,
    #[error(
        "the key of this start is missing: open the address that weft dashboard printed, with \
         all that follows #"
    )]
    Key,
}

/// What is compared with.
pub(super) struct Guard {
    hosts: [String; 2],
    key: String,
}

/// A new key: 256 bits, of the kernel's randomness.
pub(super) fn key() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Guard {
    pub(super) fn new(port: u16, key: String) -> Self {
        let hosts = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        Self { hosts, key }
    }

    /// Whether a request is admitted at all.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        if request.method() != Method::GET {
            return Err(Refused::Method);
        }
        let headers = request.headers();
        let host = only(headers, &HOST).ok_or(Refused::Host)?;
        let authority = request.uri().authority();
        let same = authority.is_none_or(|authority| authority.as_str() == host);
        if !self.hosts.iter().any(|ours| ours == host) || !same {
            return Err(Refused::Host);
        }
        let ours = |origin: &str| origin.strip_prefix("http://") == Some(host);
        if headers.contains_key(ORIGIN) && !only(headers, &ORIGIN).is_some_and(ours) {
            return Err(Refused::Origin);
        }
        // `none`: the person typed the address.
        let near = |site: &str| site == "same-origin" || site == "none";
        if headers.contains_key(FETCH_SITE) && !only(headers, &FETCH_SITE).is_some_and(near) {
            return Err(Refused::Origin);
        }
        Ok(())
    }

    /// Whether it may read data of the cluster.
    pub(super) fn admit_to_cluster<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        let sent = only(request.headers(), &KEY).unwrap_or_default();
        if same(sent.as_bytes(), self.key.as_bytes()) {
            Ok(())
        } else {
            Err(Refused::Key)
        }
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Takes the same time for a key whose first byte is wrong and for one whose last is.
fn same(sent: &[u8], wanted: &[u8]) -> bool {
    let pairs = sent.iter().zip(wanted);
    let differing = pairs.fold(0, |all, (one, other)| all | (one ^ other));
    sent.len() == wanted.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<(), Refused> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let guard = Guard::new(4000, "k".to_owned());
        guard.admit(&request.body(()).unwrap())
    }

    #[test]
    fn only_reading_is_answered() {
        let host = [("host", "127.0.0.1:4000")];
        assert_eq!(admitted("GET", "/", &host), Ok(()));
        for method in [
            "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "CONNECT",
        ] {
            assert_eq!(
                admitted(method, "/", &host),
                Err(Refused::Method),
                "{method}"
            );
        }
    }

    #[test]
    fn a_name_that_resolves_to_loopback_is_not_ours() {
        for host in [
            "evil.example",
            "evil.example:4000",
            "127.0.0.1",
            "127.0.0.1:4001",
            "localhost.:4000",
        ] {
            assert_eq!(
                admitted("GET", "/", &[("host", host)]),
                Err(Refused::Host),
                "{host}"
            );
        }
        let both = [("host", "localhost:4000"), ("host", "evil.example")];
        assert_eq!(admitted("GET", "/", &both), Err(Refused::Host));
        assert_eq!(admitted("GET", "/", &[]), Err(Refused::Host));
        let ours = [("host", "localhost:4000")];
        assert_eq!(
            admitted("GET", "http://evil.example/", &ours),
            Err(Refused::Host)
        );
        assert_eq!(admitted("GET", "http://localhost:4000/", &ours), Ok(()));
    }

    #[test]
    fn cross_origin_page_is_refused_by_either_header() {
        let with = |name, value| admitted("GET", "/", &[("host", "localhost:4000"), (name, value)]);
        assert_eq!(with("origin", "http://localhost:4000"), Ok(()));
        for origin in [
            "http://evil.example",
            "null",
            "https://localhost:4000",
            "http://127.0.0.1:4000",
        ] {
            assert_eq!(with("origin", origin), Err(Refused::Origin), "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
        assert_eq!(with("sec-fetch-site", "none"), Ok(()));
        for site in ["cross-site", "same-site", ""] {
            assert_eq!(with("sec-fetch-site", site), Err(Refused::Origin), "{site}");
        }
    }

    #[test]
    fn cluster_data_requires_key_of_this_start() {
        let key = key();
        assert_eq!(key.len(), 64);
        assert_ne!(key, super::key());
        let guard = Guard::new(1, key.clone());
        let with = |value: &str| {
            let request = Request::builder().header(KEY, value).body(()).unwrap();
            guard.admit_to_cluster(&request)
        };
        assert_eq!(with(&key), Ok(()));
        for wrong in [
            "",
            &key[1..],
            &format!("{key}0"),
            &key.replace('a', "b").replace('0', "1"),
        ] {
            assert_eq!(with(wrong), Err(Refused::Key), "{wrong}");
        }
        let without = Request::builder().body(()).unwrap();
        assert_eq!(guard.admit_to_cluster(&without), Err(Refused::Key));
    }
}
