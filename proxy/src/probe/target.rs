//! The targets of probes and hooks, parsed from the JSON that the injector wrote.

use std::collections::HashMap;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A probe as the pod's author wrote it, with its port as a number.
#[derive(Debug)]
pub(crate) struct Probe {
    pub check: Check,
    pub timeout: Duration,
}

#[derive(Debug)]
pub(crate) enum Check {
    Http(HttpGet),
    Tcp(TcpSocket),
    Grpc(Grpc),
}

#[derive(Debug)]
pub(crate) struct HttpGet {
    pub port: u16,
    pub path: PathAndQuery,
    pub tls: bool,
    /// The pod's own address when absent.
    pub host: Option<String>,
    /// As written, `Host` included, which replaces the address there.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TcpSocket {
    pub port: u16,
    /// The pod's own address when absent.
    #[serde(default)]
    pub host: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Grpc {
    pub port: u16,
    #[serde(default)]
    pub service: Option<String>,
}

/// Why an environment variable does not describe probes or hooks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadTargets {
    #[error("{variable} is no JSON object: {source}")]
    NotAnObject {
        variable: &'static str,
        source: serde_json::Error,
    },
    #[error("{variable}, entry {key:?}: {reason}")]
    Entry {
        variable: &'static str,
        key: String,
        reason: String,
    },
}

const PROBES: &str = "WEFT_PROBES";
const HOOKS: &str = "WEFT_HOOKS";

/// What Kubernetes takes when nothing is written.
const DEFAULT_TIMEOUT_SECONDS: u64 = 1;

pub(super) fn probes(json: &str) -> Result<HashMap<String, Probe>, BadTargets> {
    entries(PROBES, json, |key, written: Written| {
        let known = |kind| ["liveness", "readiness", "startup"].contains(&kind);
        if !key
            .split_once('/')
            .is_some_and(|(container, kind)| !container.is_empty() && known(kind))
        {
            return Err("the key must be <container>/<liveness, readiness or startup>".into());
        }
        let seconds = written
            .timeout_seconds
            .unwrap_or(DEFAULT_TIMEOUT_SECONDS)
            .max(1);
        let check = match (written.http_get, written.tcp_socket, written.grpc) {
            (Some(get), None, None) => Check::Http(get.try_into()?),
            (None, Some(socket), None) => Check::Tcp(socket),
            (None, None, Some(grpc)) => Check::Grpc(grpc),
            _ => return Err("exactly one of httpGet, tcpSocket and grpc must be there".into()),
        };
        Ok(Probe {
            check,
            timeout: Duration::from_secs(seconds),
        })
    })
}

pub(super) fn hooks(json: &str) -> Result<HashMap<String, HttpGet>, BadTargets> {
    entries(HOOKS, json, |key, written: Written| {
        let parts: Vec<_> = key.split('/').collect();
        match parts.as_slice() {
            // A client that reaches the admin port must not be able to guess it.
            [token, container, "postStart" | "preStop"]
                if token.len() >= 32 && !container.is_empty() => {}
            _ => {
                return Err(
                    "the key must be <128-bit token>/<container>/<postStart or preStop>".into(),
                );
            }
        }
        written.http_get.ok_or("httpGet must be there")?.try_into()
    })
}

fn entries<Raw: DeserializeOwned, T>(
    variable: &'static str,
    json: &str,
    read: impl Fn(&str, Raw) -> Result<T, String>,
) -> Result<HashMap<String, T>, BadTargets> {
    if json.trim().is_empty() {
        return Ok(HashMap::new());
    }
    let object: Map<String, Value> = serde_json::from_str(json)
        .map_err(|source| BadTargets::NotAnObject { variable, source })?;
    let entry = |(key, value): (String, Value)| {
        let raw = Raw::deserialize(value).map_err(|error| error.to_string());
        match raw.and_then(|raw| read(&key, raw)) {
            Ok(target) => Ok((key, target)),
            // A hook's token is a secret, and errors are logged.
            Err(reason) => {
                let shown = key.split_once('/').filter(|_| variable == HOOKS);
                let key = shown.map_or(key.clone(), |(_, rest)| format!(".../{rest}"));
                Err(BadTargets::Entry {
                    variable,
                    key,
                    reason,
                })
            }
        }
    };
    object.into_iter().map(entry).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    http_get: Option<WrittenGet>,
    #[serde(default)]
    tcp_socket: Option<TcpSocket>,
    #[serde(default)]
    grpc: Option<Grpc>,
    #[serde(default)]
    timeout_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenGet {
    port: u16,
    #[serde(default)]
    path: String,
    #[serde(default)]
    scheme: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    http_headers: Vec<WrittenHeader>,
}

#[derive(Deserialize)]
struct WrittenHeader {
    name: String,
    value: String,
}

impl TryFrom<WrittenGet> for HttpGet {
    type Error = String;

    fn try_from(written: WrittenGet) -> Result<Self, String> {
        let header = |header: WrittenHeader| {
            let bad = |_| format!("httpHeaders: {:?} cannot be a header", header.name);
            let name = HeaderName::try_from(&header.name).map_err(|_| bad(()))?;
            let value = HeaderValue::try_from(&header.value).map_err(|_| bad(()))?;
            Ok::<_, String>((name, value))
        };
        Ok(Self {
            port: written.port,
            path: path(&written.path)?,
            tls: match written.scheme.as_deref() {
                None | Some("" | "HTTP") => false,
                Some("HTTPS") => true,
                Some(other) => return Err(format!("scheme: {other:?} is neither HTTP nor HTTPS")),
            },
            host: written.host.filter(|host| !host.is_empty()),
            headers: written
                .http_headers
                .into_iter()
                .map(header)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// A path with its query as the kubelet would send it: rooted, and with what
/// cannot stand in a request line escaped.
pub(super) fn path(written: &str) -> Result<PathAndQuery, String> {
    let mut escaped = String::with_capacity(written.len() + 1);
    if !written.starts_with('/') {
        escaped.push('/');
    }
    for byte in written.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | ..=0x20 | 0x7f.. => {
                escaped.push_str(&format!("%{byte:02X}"));
            }
            _ => escaped.push(char::from(byte)),
        }
    }
    PathAndQuery::try_from(escaped).map_err(|error| format!("path: {written:?}: {error}"))
}
