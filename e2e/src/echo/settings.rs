//! The name and the addresses of this instance, read from the environment.

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use http::StatusCode;

use super::{duration, next::Propagate};

/// The server's settings. `Default` is what a pod without any environment
/// gets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `POD_NAME`, else the host's name.
    pub pod: String,
    /// `VERSION`, empty when unset.
    pub version: String,
    /// `SERVICE_NAME`, the caller's name in the conformance interface.
    pub service: String,
    /// `LISTEN`: the one address to bind; unset binds every address.
    pub listen: Option<IpAddr>,
    /// `PORT`: HTTP/1.1, h2c, gRPC and websocket.
    pub http_port: u16,
    /// `TCP_PORT`: bytes come back as they were sent.
    pub tcp_port: u16,
    /// `BANNER_PORT`: the server speaks first.
    pub banner_port: u16,
    /// `CALL_PORT`: the conformance interface.
    pub call_port: u16,
    /// `OUTSIDE_CALL_PORT`: the same again for callers outside the mesh.
    pub outside_call_port: u16,
    /// `TLS_PORT`: the HTTP port again over TLS; unset serves none.
    pub tls_port: Option<u16>,
    /// `FAIL_EVERY`: every so many requests of the HTTP port one fails, `2` for half of
    /// them; 0 never.
    pub fail_every: u32,
    /// `FAIL_STATUS`: what those are answered, 500 when unset.
    pub fail_status: StatusCode,
    /// `DELAY`, such as `200ms`: how long every answer of the HTTP port waits.
    pub delay: Duration,
    /// `NEXT`, such as `http://cart:8080`: the service that receives the same request before
    /// one of the HTTP port is answered; unset calls none.
    pub next: Option<String>,
    /// `PROPAGATE`: which headers go along, `none` (default), `trace` or `context`.
    pub propagate: Propagate,
    /// `WITNESS`, such as `http://ledger:8080`: the service to which each request of the HTTP
    /// port is reported, with its method, path and trace, as soon as its head is there; unset
    /// reports to none. It retains the requests of instances that are gone.
    pub witness: Option<String>,
    /// `FAULT`, such as `{"percent": 50, "only": "/cart"}`: the failure with which the HTTP port
    /// begins, as `POST /fault` takes it; unset begins without one.
    pub fault: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pod: "unnamed".into(),
            version: String::new(),
            service: "weft-echo".into(),
            listen: None,
            http_port: 8080,
            tcp_port: 9000,
            banner_port: 9001,
            call_port: 9091,
            outside_call_port: 9092,
            tls_port: None,
            fail_every: 0,
            fail_status: StatusCode::INTERNAL_SERVER_ERROR,
            delay: Duration::ZERO,
            next: None,
            propagate: Propagate::Nothing,
            witness: None,
            fault: None,
        }
    }
}

impl Settings {
    /// On loopback, each port a free one.
    #[cfg(test)]
    pub(super) fn on_free_ports() -> Self {
        Self {
            listen: Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            http_port: 0,
            tcp_port: 0,
            banner_port: 0,
            call_port: 0,
            outside_call_port: 0,
            ..Self::default()
        }
    }

    /// Reads the environment; a value that does not parse is an error that names
    /// its variable.
    pub fn from_env() -> anyhow::Result<Self> {
        let default = Self::default();
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let port = |name: &str, default: u16| match text(name) {
            Some(raw) => raw
                .parse()
                .with_context(|| format!("{name}={raw} is not a port")),
            None => Ok(default),
        };
        let pod = text("POD_NAME")
            .or_else(|| text("HOSTNAME"))
            .unwrap_or(default.pod);
        let listen = match text("LISTEN") {
            Some(raw) => Some(
                raw.parse()
                    .with_context(|| format!("LISTEN={raw} is not an address"))?,
            ),
            None => None,
        };
        let delay = match text("DELAY") {
            Some(raw) => duration::parse(&raw).context("DELAY")?,
            None => default.delay,
        };
        let tls_port = match text("TLS_PORT") {
            Some(_) => Some(port("TLS_PORT", 0)?),
            None => None,
        };
        let fail_every = match text("FAIL_EVERY") {
            Some(raw) => raw
                .parse()
                .with_context(|| format!("FAIL_EVERY={raw} is not a number"))?,
            None => default.fail_every,
        };
        let fail_status = match text("FAIL_STATUS") {
            Some(raw) => raw
                .parse()
                .with_context(|| format!("FAIL_STATUS={raw} is not a status"))?,
            None => default.fail_status,
        };
        let propagate = match text("PROPAGATE") {
            Some(raw) => Propagate::parse(&raw).context("PROPAGATE")?,
            None => default.propagate,
        };
        Ok(Self {
            pod,
            version: text("VERSION").unwrap_or_default(),
            service: text("SERVICE_NAME").unwrap_or(default.service),
            listen,
            http_port: port("PORT", default.http_port)?,
            tcp_port: port("TCP_PORT", default.tcp_port)?,
            banner_port: port("BANNER_PORT", default.banner_port)?,
            call_port: port("CALL_PORT", default.call_port)?,
            outside_call_port: port("OUTSIDE_CALL_PORT", default.outside_call_port)?,
            tls_port,
            fail_every,
            fail_status,
            delay,
            next: text("NEXT"),
            propagate,
            witness: text("WITNESS"),
            fault: text("FAULT"),
        })
    }
}
