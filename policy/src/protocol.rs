//! The protocol of a port, as far as it is declared.
//!
//! A declaration comes before looking at bytes: detection waits for a client that may be slow, and
//! a server that speaks first never gets to. Only undeclared ports are detected.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Nothing is declared: look at the first bytes.
    #[default]
    Detect,
    Http1,
    Http2,
    Grpc,
    /// Relay bytes without looking at them.
    Opaque,
    /// The application's own TLS: relayed as opaque bytes.
    Tls,
}

/// Why a proxy answers CONNECT with 400 wherever it reads requests, and the way out.
pub const CONNECT_REFUSED: &str = "CONNECT is not served on a port that carries HTTP: name the \
                                   port of the Service tcp-..., or set its appProtocol to tcp";

/// Ports on which servers are known to speak first or to upgrade in place:
/// SMTP (25, 587), MySQL (3306, 4444 for Galera), PostgreSQL (5432), Redis
/// (6379), Elasticsearch's transport (9300) and memcached (11211). Opaque unless
/// declared otherwise.
pub const DEFAULT_OPAQUE_PORTS: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// Values of `appProtocol`, compared without regard to case.
const APP_PROTOCOLS: &[(&str, Protocol)] = &[
    ("http", Protocol::Http1),
    ("http1", Protocol::Http1),
    ("kubernetes.io/ws", Protocol::Http1),
    ("http2", Protocol::Http2),
    ("h2c", Protocol::Http2),
    ("kubernetes.io/h2c", Protocol::Http2),
    ("grpc", Protocol::Grpc),
    ("https", Protocol::Tls),
    ("tls", Protocol::Tls),
    ("kubernetes.io/wss", Protocol::Tls),
    ("tcp", Protocol::Opaque),
    ("opaque", Protocol::Opaque),
    ("mongo", Protocol::Opaque),
    ("mysql", Protocol::Opaque),
    ("postgres", Protocol::Opaque),
    ("postgresql", Protocol::Opaque),
    ("redis", Protocol::Opaque),
];

/// Port names, alone or followed by a dash and anything. The longest that fits
/// counts. gRPC-Web runs over either version of HTTP, so that one is detected. A
/// `-tls` right behind one that is not opaque anyway means that protocol inside the
/// application's own TLS, as in `grpc-tls`.
const PORT_NAMES: &[(&str, Protocol)] = &[
    ("grpc-web", Protocol::Detect),
    ("http", Protocol::Http1),
    ("http1", Protocol::Http1),
    ("http2", Protocol::Http2),
    ("h2c", Protocol::Http2),
    ("grpc", Protocol::Grpc),
    ("grpcs", Protocol::Tls),
    ("https", Protocol::Tls),
    ("tls", Protocol::Tls),
    ("tcp", Protocol::Opaque),
    ("mongo", Protocol::Opaque),
    ("mysql", Protocol::Opaque),
    ("postgres", Protocol::Opaque),
    ("postgresql", Protocol::Opaque),
    ("redis", Protocol::Opaque),
];

impl Protocol {
    /// What a Service port declares. `appProtocol` wins over the port's name,
    /// even with a value that is not known here: that means detect.
    pub fn declared(app_protocol: Option<&str>, port_name: Option<&str>) -> Self {
        match (app_protocol, port_name) {
            (Some(value), _) => Self::of_app_protocol(value),
            (None, Some(name)) => Self::of_port_name(name),
            (None, None) => Self::Detect,
        }
    }

    fn of_app_protocol(value: &str) -> Self {
        APP_PROTOCOLS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(value))
            .map_or(Self::Detect, |(_, protocol)| *protocol)
    }

    fn of_port_name(name: &str) -> Self {
        let found = PORT_NAMES
            .iter()
            .filter_map(|(known, protocol)| {
                let rest = name.strip_prefix(known)?;
                let fits = rest.is_empty() || rest.starts_with('-');
                fits.then_some((known.len(), rest, *protocol))
            })
            .max_by_key(|(length, ..)| *length);
        match found {
            Some((_, rest, protocol)) if !protocol.is_opaque() && says_tls(rest) => Self::Tls,
            Some((_, _, protocol)) => protocol,
            None => Self::Detect,
        }
    }

    /// True when single requests can be seen.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }

    /// True when bytes are relayed without looking at them.
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Opaque | Self::Tls)
    }
}

/// Whether what follows in a port's name begins with the word `tls`.
fn says_tls(rest: &str) -> bool {
    rest.strip_prefix("-tls")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Most ranges in one list: an annotation with more is a mistake, and every new
/// connection walks through them.
pub const MAX_PORT_RANGES: usize = 128;

/// Ports from `first` to `last`, both included. Holding one proves that they
/// are in order and not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no list of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPorts {
    #[error("{0:?} is neither a port from 1 to 65535 nor a range of them")]
    NotARange(String),
    #[error("has more than {MAX_PORT_RANGES} entries")]
    TooMany,
}

impl PortRange {
    /// `None` when `first` is 0 or greater than `last`.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first != 0 && first <= last).then_some(Self { first, last })
    }

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Reads a list such as `25,587,3000-3010`. Blanks around entries do not
    /// matter; an empty text is an empty list.
    pub fn parse_list(raw: &str) -> Result<Vec<Self>, BadPorts> {
        if raw.trim().is_empty() {
            return Ok(Vec::new());
        }
        let mut ranges = Vec::new();
        for entry in raw.split(',') {
            if ranges.len() == MAX_PORT_RANGES {
                return Err(BadPorts::TooMany);
            }
            ranges.push(entry.parse()?);
        }
        Ok(ranges)
    }
}

impl FromStr for PortRange {
    type Err = BadPorts;

    fn from_str(raw: &str) -> Result<Self, BadPorts> {
        let entry = raw.trim();
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        match (port(first), port(last)) {
            (Some(first), Some(last)) => Self::new(first, last),
            _ => None,
        }
        // The text may be as long as an annotation, the message may not.
        .ok_or_else(|| BadPorts::NotARange(entry.chars().take(32).collect()))
    }
}

/// Digits only: `parse` alone would take a sign too.
fn port(raw: &str) -> Option<u16> {
    let raw = raw.trim();
    raw.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| raw.parse().ok())
        .flatten()
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Declared protocols of a pod's ports, in order of precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortProtocols(Vec<(PortRange, Protocol)>);

impl PortProtocols {
    /// The first range that holds a port decides.
    pub fn new(declared: impl IntoIterator<Item = (PortRange, Protocol)>) -> Self {
        Self(declared.into_iter().collect())
    }

    /// `Detect` for an undeclared port.
    pub fn lookup(&self, port: u16) -> Protocol {
        self.0
            .iter()
            .find(|(range, _)| range.contains(port))
            .map_or(Protocol::Detect, |(_, protocol)| *protocol)
    }

    pub fn iter(&self) -> impl Iterator<Item = (PortRange, Protocol)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_decides_alone_where_it_is_set() {
        assert_eq!(
            Protocol::declared(Some("http"), Some("tcp-x")),
            Protocol::Http1
        );
        assert_eq!(
            Protocol::declared(Some("kubernetes.io/h2c"), None),
            Protocol::Http2
        );
        assert_eq!(Protocol::declared(Some("GRPC"), None), Protocol::Grpc);
        assert_eq!(
            Protocol::declared(Some("https"), Some("http")),
            Protocol::Tls
        );
        assert_eq!(
            Protocol::declared(Some("example.com/own"), Some("http")),
            Protocol::Detect
        );
        assert_eq!(Protocol::declared(Some(""), Some("http")), Protocol::Detect);
    }

    // Claims: R6
    #[test]
    fn a_port_name_declares_by_its_first_words() {
        let table = [
            ("http", Protocol::Http1),
            ("http-web", Protocol::Http1),
            ("http2-web", Protocol::Http2),
            ("https", Protocol::Tls),
            ("grpc", Protocol::Grpc),
            ("grpc-api", Protocol::Grpc),
            ("grpc-web", Protocol::Detect),
            ("grpc-web-x", Protocol::Detect),
            ("grpc-webx", Protocol::Grpc),
            ("tcp-server-first-x", Protocol::Opaque),
            ("redis-0", Protocol::Opaque),
            ("grpc-tls", Protocol::Tls),
            ("grpc-tls-x", Protocol::Tls),
            ("grpc-web-tls", Protocol::Tls),
            ("http-tls", Protocol::Tls),
            ("http1-tls", Protocol::Tls),
            ("http2-tls", Protocol::Tls),
            ("h2c-tls", Protocol::Tls),
            ("grpcs", Protocol::Tls),
            ("grpcs-api", Protocol::Tls),
            ("https-alt", Protocol::Tls),
            ("tls-grpc", Protocol::Tls),
            ("tcp-tls", Protocol::Opaque),
            ("grpc-tlsx", Protocol::Grpc),
            ("grpc-api-tls", Protocol::Grpc),
            ("httpbin", Protocol::Detect),
            ("web-http", Protocol::Detect),
            ("", Protocol::Detect),
        ];
        for (name, expected) in table {
            assert_eq!(Protocol::declared(None, Some(name)), expected, "{name:?}");
        }
        assert_eq!(Protocol::declared(None, None), Protocol::Detect);
    }

    #[test]
    fn a_list_of_ports_holds_single_ports_and_ranges() {
        let list = PortRange::parse_list("25, 587 ,3000-3010").unwrap();
        let text: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["25", "587", "3000-3010"]);
        assert!(list[2].contains(3000) && list[2].contains(3010) && !list[2].contains(3011));
        assert_eq!(PortRange::parse_list(" "), Ok(vec![]));
    }

    #[test]
    fn a_wrong_entry_spoils_the_list_and_is_named() {
        for raw in [
            "0", "65536", "a", "1-", "-1", "3-2", "1,,2", "1,", "+5", "1-2-3", "80/tcp",
        ] {
            assert!(
                matches!(PortRange::parse_list(raw), Err(BadPorts::NotARange(_))),
                "{raw:?}"
            );
        }
        assert_eq!(
            PortRange::parse_list("1,b"),
            Err(BadPorts::NotARange("b".to_owned()))
        );
        let many = vec!["1"; MAX_PORT_RANGES + 1].join(",");
        assert_eq!(PortRange::parse_list(&many), Err(BadPorts::TooMany));
    }

    #[test]
    fn the_first_declaration_of_a_port_counts() {
        let range = |a, b| PortRange::new(a, b).unwrap();
        let ports = PortProtocols::new([
            (range(80, 80), Protocol::Http1),
            (range(1, 100), Protocol::Opaque),
        ]);
        assert_eq!(ports.lookup(80), Protocol::Http1);
        assert_eq!(ports.lookup(100), Protocol::Opaque);
        assert_eq!(ports.lookup(101), Protocol::Detect);
    }
}
