//! Names of hosts outside the mesh, and patterns of them.
//!
//! A name has one spelling here: small letters, no port, no final dot. What calls name is brought
//! to it once, so that no comparison can be had in another way.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes of a name in DNS.
const MAX_NAME: usize = 253;
/// Bytes of one part of it.
const MAX_LABEL: usize = 63;

/// Hosts that an object names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This one.
    Exact(Arc<str>),
    /// Every name that has one label or more before this one: `pay.example` of `*.pay.example`.
    Below(Arc<str>),
}

/// Why a text is no pattern of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    #[error("is an IP address, which belongs into addresses")]
    Address,
    #[error("must be a name in small letters, as in DNS and without a port, or *. and such a name")]
    NoName,
}

impl HostPattern {
    /// Whether a host is meant, as [`host_name`] reads it.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Below(suffix) => {
                let before = host.strip_suffix(&**suffix);
                let label = before.and_then(|before| before.strip_suffix('.'));
                label.is_some_and(|label| !label.is_empty())
            }
        }
    }

    /// The host, if it is one alone.
    #[must_use]
    pub const fn exact(&self) -> Option<&Arc<str>> {
        match self {
            Self::Exact(name) => Some(name),
            Self::Below(_) => None,
        }
    }
}

impl FromStr for HostPattern {
    type Err = BadHost;

    fn from_str(raw: &str) -> Result<Self, BadHost> {
        let (name, below) = match raw.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (raw, false),
        };
        if is_address(name) {
            return Err(BadHost::Address);
        }
        if !is_name(name) {
            return Err(BadHost::NoName);
        }
        Ok(if below {
            Self::Below(name.into())
        } else {
            Self::Exact(name.into())
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// The name in the `Host` of a request, or in the server name of TLS: in small letters, without
/// its port and a final dot. `None` where there is an address, or no name that DNS could have.
#[must_use]
pub fn host_name(authority: &str) -> Option<Cow<'_, str>> {
    let host = without_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    };
    (is_name(&host) && !is_address(&host)).then_some(host)
}

/// Whether the `Host` of a request is an address, which is no name. What is neither may be read as
/// a name all the same by servers that are less strict.
#[must_use]
pub fn is_address_host(authority: &str) -> bool {
    let host = without_port(authority).to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let bare = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
    is_address(bare.unwrap_or(host))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Small letters, digits, `-` and `_`, in labels with dots between them.
fn is_name(name: &str) -> bool {
    let is_inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    name.len() <= MAX_NAME
        && name.split('.').all(|label| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(is_inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Whether a reader may take it for an address: of IPv6, or, as of URLs, with a last label that is
/// a number.
fn is_address(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    let is_hex = last
        .strip_prefix("0x")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    is_number || is_hex || host.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(raw: &str) -> HostPattern {
        raw.parse().unwrap()
    }

    #[test]
    fn wildcard_stands_for_one_or_more_labels() {
        let below = pattern("*.pay.example");
        for host in ["a.pay.example", "a.b.pay.example"] {
            assert!(below.matches(host), "{host}");
        }
        for host in [
            "pay.example",
            ".pay.example",
            "xpay.example",
            "a.pay.example.evil",
            "a.pay.exampl",
        ] {
            assert!(!below.matches(host), "{host}");
        }
        let exact = pattern("pay.example");
        assert!(exact.matches("pay.example"));
        assert!(!exact.matches("a.pay.example"));
    }

    #[test]
    fn host_is_read_in_one_spelling() {
        let read = |raw| host_name(raw).map(Cow::into_owned);
        for raw in [
            "api.pay.example",
            "API.Pay.Example",
            "api.pay.example.",
            "api.pay.example:8443",
            "api.pay.example.:443",
        ] {
            assert_eq!(read(raw).as_deref(), Some("api.pay.example"), "{raw}");
        }
        for raw in [
            "",
            ".",
            "..",
            ":443",
            "a..b",
            "a.b..",
            "203.0.113.7",
            "203.0.113.7:80",
            "1",
            "0x7f.1",
            "0x7f000001",
            "[2001:db8::1]:443",
            "2001:db8::1",
            "a@b.example",
            "a b.example",
            "*.pay.example",
            "a.pay.example:44x",
            "-a.example",
            "ä.example",
        ] {
            assert_eq!(read(raw), None, "{raw:?}");
        }
        let long = format!("{}.example", "a".repeat(MAX_LABEL + 1));
        assert_eq!(read(&long), None);
        let long = vec!["a"; 128].join(".");
        assert_eq!(read(&long), None, "{} bytes", long.len());
    }

    #[test]
    fn host_is_a_name_or_address_or_neither() {
        for raw in [
            "203.0.113.7",
            "203.0.113.7:80",
            "203.0.113.7.",
            "0X7F.1",
            "[2001:db8::1]",
            "[2001:db8::1]:443",
        ] {
            assert!(is_address_host(raw), "{raw}");
            assert_eq!(host_name(raw), None, "{raw}");
        }
        for neither in ["", "web.example:80x", "web.example..", "a..b", "[web]"] {
            assert!(!is_address_host(neither), "{neither}");
            assert_eq!(host_name(neither), None, "{neither}");
        }
        assert!(!is_address_host("web.example:443"));
    }

    #[test]
    fn pattern_is_a_name_as_written() {
        for raw in ["api.pay.example", "*.pay.example", "db", "a_b.example"] {
            assert_eq!(pattern(raw).to_string(), raw);
        }
        for raw in [
            "",
            "*",
            "*.",
            "*.*.example",
            "a.*.example",
            "API.example",
            "a.example.",
            "a.example:443",
            "https://a.example",
        ] {
            assert!(raw.parse::<HostPattern>().is_err(), "{raw:?}");
        }
        for raw in ["203.0.113.7", "*.113.7", "2001:db8::1", "10"] {
            assert_eq!(raw.parse::<HostPattern>(), Err(BadHost::Address), "{raw}");
        }
    }
}
