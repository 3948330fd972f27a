//! Edits the head of each request of a client, before a route is looked for.
//!
//! Its path has one reading from here on, which rules see and applications get: a proxy that sends
//! another one on lets clients past its routes. And what its headers say of its client is what this
//! Gateway believes: as many proxies before it as its owner named, and no client.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderMap, HeaderName};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri};
use policy::path::normalise;
use policy::reason::Reason;
use weft_proxy_http::failure::Failure;

const FORWARDED: &str = "forwarded";
const REAL_IP: &str = "x-real-ip";
/// What these begin with says what proxies have seen, whatever follows.
const FORWARDED_PREFIX: &str = "x-forwarded-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Where the requests of one connection came in, and how much of their headers is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entrance {
    /// The other end of it.
    pub(crate) client: IpAddr,
    /// Whether it is TLS.
    pub(crate) is_tls: bool,
    /// So many proxies before this Gateway are believed.
    pub(crate) trusted_hops: u8,
}

impl Entrance {
    /// Edits the head of a request, and returns the address of the client that is believed.
    ///
    /// # Errors
    /// When the target can be read in several ways.
    pub(crate) fn enter(self, parts: &mut Parts) -> Result<IpAddr, Failure> {
        if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
            let detail = "the target * is for OPTIONS alone; send a path";
            return Err(Failure::refused(Reason::BadRequest, detail));
        }
        let changed = match normalise(parts.uri.path()) {
            Ok(path) if path == parts.uri.path() => None,
            Ok(path) => Some(with_path(&parts.uri, &path)),
            Err(bad) => Some(Err(format!("the path {bad}; send it in another spelling"))),
        };
        if let Some(changed) = changed {
            let refuse = |detail: String| Failure::refused(Reason::BadRequest, detail);
            parts.uri = changed.map_err(refuse)?;
        }
        Ok(self.name_client(&mut parts.headers))
    }

    /// Writes anew what proxies say of clients.
    fn name_client(self, headers: &mut HeaderMap) -> IpAddr {
        let hops = usize::from(self.trusted_hops);
        let before = {
            let lines = headers.get_all(&FORWARDED_FOR).into_iter();
            let entries = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
            let entries = entries.map(<[u8]>::trim_ascii);
            let all: Vec<_> = entries.filter(|entry| !entry.is_empty()).collect();
            let trusted = &all[all.len().saturating_sub(hops)..];
            trusted
                .iter()
                .map(|entry| entry.to_vec())
                .collect::<Vec<_>>()
        };
        let proto = self.proto(headers);
        let gone: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_of_proxy(name))
            .cloned()
            .collect();
        for name in gone {
            headers.remove(name);
        }
        let believed = before.first().and_then(|first| address(first));
        let own = self.client.to_string().into_bytes();
        let entries = [before, vec![own]].concat();
        if let Ok(entries) = HeaderValue::from_bytes(&entries.join(&b", "[..])) {
            headers.insert(FORWARDED_FOR, entries);
        }
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
        if let Some(host) = headers.get(HOST).cloned() {
            headers.insert(FORWARDED_HOST, host);
        }
        believed.unwrap_or(self.client)
    }

    /// What the client speaks, as far as this Gateway or one that it believes knows.
    fn proto(self, headers: &HeaderMap) -> &'static str {
        let sent = headers
            .get(&FORWARDED_PROTO)
            .filter(|_| self.trusted_hops > 0);
        match sent.map(HeaderValue::as_bytes) {
            Some(b"https") => "https",
            Some(b"http") => "http",
            _ if self.is_tls => "https",
            _ => "http",
        }
    }
}

/// Whether a header is one by which proxies say what they have seen. Many servers read whatever in a
/// name is neither letter nor digit as `_`, as CGI did.
fn is_of_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    let begins_as = |known: &str| {
        let reads_as = |(read, known): (u8, u8)| {
            read == known || (known == b'-' && !read.is_ascii_alphanumeric())
        };
        name.len() >= known.len() && name.bytes().zip(known.bytes()).all(reads_as)
    };
    let is = |known: &str| name.len() == known.len() && begins_as(known);
    begins_as(FORWARDED_PREFIX) || is(FORWARDED) || is(REAL_IP)
}

/// An address as proxies write it, some with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?;
    let ip: Option<IpAddr> = entry.parse().ok();
    let ip = ip.or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
    let ip = ip.or_else(|| entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    ip.map(|ip| ip.to_canonical())
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri, String> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    let target = PathAndQuery::try_from(target).map_err(|error| error.to_string())?;
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

    /// What a request with these headers has behind a Gateway that believes so many proxies.
    fn entered(hops: u8, headers: &[(&str, &str)]) -> (IpAddr, HeaderMap) {
        let mut request = Request::get("/").header("host", "web.example:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        let entrance = Entrance {
            client: CLIENT,
            is_tls: true,
            trusted_hops: hops,
        };
        let client = entrance.enter(&mut parts).unwrap();
        (client, parts.headers)
    }

    // Claims: gateways-3
    #[test]
    fn client_says_nothing_of_itself() {
        let spoofed = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2, 10.0.0.3"),
            ("x_forwarded_for", "10.0.0.4"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "admin.example"),
            ("x-forwarded-client-cert", "By=me"),
            ("x-real_ip", "10.0.0.5"),
            ("forwarded", "for=10.0.0.6"),
            ("x.forwarded.for", "10.0.0.7"),
            ("x~forwarded!proto", "http"),
            ("x-real.ip", "10.0.0.8"),
            ("accept", "text/html"),
        ];
        let (client, headers) = entered(0, &spoofed);
        assert_eq!(client, CLIENT);
        let mut all: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        all.sort_unstable();
        let expected = [
            ("accept", "text/html"),
            ("host", "web.example:8080"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-host", "web.example:8080"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn as_many_entries_are_believed_as_there_are_proxies() {
        let lines = [
            ("x-forwarded-for", "spoofed, 198.51.100.1:4711"),
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-proto", "http"),
        ];
        for (hops, client, sent) in [
            (1, "192.0.2.9", "192.0.2.9, 203.0.113.7"),
            (
                2,
                "198.51.100.1",
                "198.51.100.1:4711, 192.0.2.9, 203.0.113.7",
            ),
            // What is no address is none that could be believed.
            (
                3,
                "203.0.113.7",
                "spoofed, 198.51.100.1:4711, 192.0.2.9, 203.0.113.7",
            ),
        ] {
            let (believed, headers) = entered(hops, &lines);
            assert_eq!(believed.to_string(), client, "{hops}");
            assert_eq!(headers[&FORWARDED_FOR], sent, "{hops}");
            assert_eq!(headers.get_all(&FORWARDED_FOR).iter().count(), 1);
            assert_eq!(headers[&FORWARDED_PROTO], "http");
            assert_eq!(headers[&FORWARDED_HOST], "web.example:8080");
        }
        let (believed, headers) = entered(2, &[("x-forwarded-for", "[2001:db8::1]")]);
        assert_eq!(believed.to_string(), "2001:db8::1");
        assert_eq!(headers[&FORWARDED_PROTO], "https", "no proxy wrote another");
    }

    // Claims: gateways-3
    #[test]
    fn path_has_one_reading_or_is_refused() {
        let enter_by = |method: Method, target: &str| {
            let request = Request::builder().method(method).uri(target);
            let mut parts = request.body(()).unwrap().into_parts().0;
            let entrance = Entrance {
                client: CLIENT,
                is_tls: false,
                trusted_hops: 0,
            };
            entrance.enter(&mut parts).map(|_| parts.uri.to_string())
        };
        let enter = |target: &str| enter_by(Method::GET, target);
        for (sent, goes_on) in [
            ("/a/b?c=%2f..", "/a/b?c=%2f.."),
            ("/a/", "/a/"),
            ("/a/../admin?x", "/admin?x"),
            ("//a//b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/a/%2e%2e/admin", "/admin"),
            ("http://web.example/a/./b", "http://web.example/a/b"),
        ] {
            assert_eq!(enter(sent).unwrap(), goes_on, "{sent}");
        }
        assert_eq!(enter_by(Method::OPTIONS, "*").unwrap(), "*");
        for refused in ["/a%2fb", "/a/%2e%2e%2fadmin", "/a%00", "/..%5cadmin", "*"] {
            let failure = enter(refused).unwrap_err();
            assert_eq!(failure.reason(), Reason::BadRequest, "{refused}");
        }
    }
}
