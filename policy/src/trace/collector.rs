//! The address of a trace collector, as users write it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::PathAndQuery;

/// Longest address in bytes.
const LONGEST: usize = 256;
/// Where collectors listen for OTLP over gRPC, and over HTTP.
const GRPC_PORT: u16 = 4317;
const HTTP_PORT: u16 = 4318;
/// Where OTLP over HTTP is posted unless the address has a path.
const HTTP_PATH: &str = "/v1/traces";

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otlp {
    Grpc,
    /// Protobuf in the body of a POST.
    Http,
}

/// Such as `http://collector.observability:4317`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    text: Arc<str>,
    host: Arc<str>,
    port: u16,
    protocol: Otlp,
    path: Arc<str>,
}

/// Why a text is no [`Collector`]; a clause that follows the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACollector {
    /// It is longer than any address may be.
    #[error("has {0} bytes, but must have at most {LONGEST}")]
    TooLong(usize),
    /// What the text holds, cut to a readable length.
    #[error("is {0:?}, but must be {expected}", expected = Collector::EXPECTED)]
    Other(String),
}

impl Collector {
    /// What may be written.
    pub const EXPECTED: &str = "http://HOST:4317 for gRPC or http://HOST:4318 for HTTP; the \
        mesh encrypts the way to a collector that is in it";

    /// Name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// As `Host` and `:authority` name it.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How it is spoken to: HTTP on port 4318 and wherever a path is given, else gRPC.
    #[must_use]
    pub const fn protocol(&self) -> Otlp {
        self.protocol
    }

    /// Where spans are posted by OTLP over HTTP.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where another signal is, such as `logs`: an address names the place of spans, and the
    /// others lie beside it.
    #[must_use]
    pub fn path_of(&self, signal: &str) -> Cow<'_, str> {
        match self.path.strip_suffix(HTTP_PATH) {
            Some(base) => format!("{base}/v1/{signal}").into(),
            None => self.path().into(),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Collector {
    type Err = NotACollector;

    fn from_str(text: &str) -> Result<Self, NotACollector> {
        if text.len() > LONGEST {
            return Err(NotACollector::TooLong(text.len()));
        }
        let bad = || NotACollector::Other(text.chars().take(80).collect());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        let http = uri.scheme_str() == Some("http");
        if !http || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(bad());
        }
        // A port that is none, such as `:` or `:70000`, is left out by the parser.
        let port = match authority.port_u16() {
            Some(0) => return Err(bad()),
            None if authority.as_str() != authority.host() => return Err(bad()),
            port => port.unwrap_or(GRPC_PORT),
        };
        if authority.host().is_empty() || text.contains('#') {
            return Err(bad());
        }
        let path = uri.path_and_query().map_or("/", PathAndQuery::path);
        let (protocol, path) = match path {
            "" | "/" if port == HTTP_PORT => (Otlp::Http, HTTP_PATH),
            "" | "/" => (Otlp::Grpc, ""),
            path => (Otlp::Http, path),
        };
        Ok(Self {
            text: text.into(),
            host: authority.host().into(),
            port,
            protocol,
            path: path.into(),
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collector_protocol_follows_port_and_path() {
        for (text, host, port, protocol, path) in [
            ("http://c.obs:4317", "c.obs", 4317, Otlp::Grpc, ""),
            ("http://c.obs:4318", "c.obs", 4318, Otlp::Http, "/v1/traces"),
            (
                "http://c.obs:4318/",
                "c.obs",
                4318,
                Otlp::Http,
                "/v1/traces",
            ),
            ("http://c", "c", 4317, Otlp::Grpc, ""),
            ("http://10.0.0.9:55680", "10.0.0.9", 55680, Otlp::Grpc, ""),
            (
                "http://[fd00::9]:4318",
                "fd00::9",
                4318,
                Otlp::Http,
                "/v1/traces",
            ),
            (
                "http://c:80/otlp/v1/traces",
                "c",
                80,
                Otlp::Http,
                "/otlp/v1/traces",
            ),
        ] {
            let collector: Collector = text.parse().unwrap();
            assert_eq!(collector.host(), host, "{text}");
            assert_eq!(collector.port(), port, "{text}");
            assert_eq!(collector.protocol(), protocol, "{text}");
            assert_eq!(collector.path(), path, "{text}");
            assert_eq!(collector.to_string(), text);
        }
        let six: Collector = "http://[fd00::9]:4318".parse().unwrap();
        assert_eq!(six.authority(), "[fd00::9]:4318");
    }

    #[test]
    fn other_signals_lie_beside_the_spans() {
        for (text, path) in [
            ("http://c:4318", "/v1/metrics"),
            ("http://c/otlp/v1/traces", "/otlp/v1/metrics"),
            ("http://c/all", "/all"),
        ] {
            let collector: Collector = text.parse().unwrap();
            assert_eq!(collector.path_of("metrics"), path, "{text}");
        }
    }

    #[test]
    fn unusable_collector_address_is_refused_with_allowed_form() {
        let long = format!("http://{}", "c".repeat(300));
        for text in [
            "",
            "c:4317",
            "https://c:4317",
            "grpc://c:4317",
            "http://",
            "http://:4317",
            "http://c:0",
            "http://c:70000",
            "http://c:",
            "http://user:secret@c:4317",
            "http://c:4318/v1/traces?key=1",
            "http://c:4318/#a",
            "http://c d:4317",
            "/v1/traces",
            &long,
        ] {
            let error = text.parse::<Collector>().unwrap_err().to_string();
            assert!(error.contains("must "), "{text}: {error}");
            assert!(error.len() < 300, "{error}");
        }
    }
}
