//! The listeners that a Gateway's pod serves now: what connections to each port begin with, and the
//! TLS configuration of each listener.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use policy::egress::HostPattern;
use policy::gateway::{Listener, ListenerProtocol};
use rustls::ServerConfig;
use weft_proxy::{GatewayConfig, ServedCertificate, ServedGateway};

use crate::certificates::server_config;

/// The listeners of a Gateway, and what handshakes need.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    gateway: Option<Arc<ServedGateway>>,
    /// By name of the listener. Those without a certificate have none.
    tls: HashMap<Arc<str>, ListenerTls>,
}

struct ListenerTls {
    certificates: Vec<Arc<ServedCertificate>>,
    config: Arc<ServerConfig>,
}

/// What a connection begins with, by its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    Request,
    /// Its first message decides which listener it belongs to.
    Tls,
    /// With any bytes, which client or server may send first.
    Bytes,
}

/// What an open connection depends on: one listener, or all listeners of a port that share it. The
/// connection ends when that is no longer served.
#[derive(Clone, Debug)]
pub(crate) struct ListenerKey {
    target_port: u16,
    protocol: ListenerProtocol,
    /// `None`: to all listeners of the port.
    listener: Option<Arc<str>>,
}

/// Of a listener, what open connections depend on: its name, what it is, and whether it has a
/// certificate.
type Outline<'a> = (
    &'a str,
    [u16; 2],
    ListenerProtocol,
    Option<&'a HostPattern>,
    bool,
);

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerTls")
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}

impl Begins {
    const fn of(protocol: ListenerProtocol) -> Self {
        match protocol {
            ListenerProtocol::Http => Self::Request,
            ListenerProtocol::Https | ListenerProtocol::Tls => Self::Tls,
            ListenerProtocol::Tcp => Self::Bytes,
        }
    }
}

impl ListenerKey {
    /// For a connection that belongs to this listener alone.
    pub(crate) fn of(listener: &Listener) -> Self {
        Self {
            listener: Some(Arc::clone(&listener.name)),
            ..Self::of_port(listener)
        }
    }

    /// For a connection that all listeners on the port of this one share, as plaintext HTTP is: each
    /// request belongs to one by its host.
    pub(crate) const fn of_port(listener: &Listener) -> Self {
        Self {
            target_port: listener.target_port,
            protocol: listener.protocol,
            listener: None,
        }
    }
}

impl Serving {
    /// Made from the configuration. A listener whose certificates did not change keeps the TLS
    /// configuration of `before`, so that clients can resume sessions.
    pub(crate) fn of(config: &GatewayConfig, before: &Self) -> Self {
        let mut next = Self {
            gateway: config.served.clone(),
            tls: HashMap::new(),
        };
        let mut tls = HashMap::new();
        for listener in next.listeners() {
            let names = listener.certificates.iter();
            let certificates: Vec<_> = names
                .filter_map(|name| config.certificates.get(name).cloned())
                .collect();
            let known = before.tls.get(&listener.name);
            let known = known.filter(|known| same(&known.certificates, &certificates));
            let config = known.map(|known| Arc::clone(&known.config));
            let config = config.or_else(|| server_config(&certificates));
            if let Some(config) = config {
                let of_listener = ListenerTls {
                    certificates,
                    config,
                };
                tls.insert(Arc::clone(&listener.name), of_listener);
            }
        }
        next.tls = tls;
        next
    }

    fn listeners(&self) -> &[Listener] {
        let gateway = self.gateway.as_ref();
        gateway.map_or(&[], |served| &served.gateway.listeners)
    }

    /// The ports of the pod that listeners need.
    pub(crate) fn ports(&self) -> BTreeSet<u16> {
        self.listeners().iter().map(|one| one.target_port).collect()
    }

    /// The first listener of a port. All of them agree about what connections begin with.
    pub(crate) fn first_at(&self, target_port: u16) -> Option<(&Listener, Begins)> {
        let mut all = self.listeners().iter();
        let first = all.find(|one| one.target_port == target_port)?;
        Some((first, Begins::of(first.protocol)))
    }

    /// The listener of a connection in TLS to this server.
    pub(crate) fn by_name(&self, target_port: u16, server: Option<&str>) -> Option<&Listener> {
        let gateway = &self.gateway.as_ref()?.gateway;
        gateway.listener(target_port, server)
    }

    /// What its handshakes need; `None` without a certificate.
    pub(crate) fn tls(&self, listener: &Listener) -> Option<Arc<ServerConfig>> {
        let tls = self.tls.get(&listener.name)?;
        Some(Arc::clone(&tls.config))
    }

    /// Whether a connection that belongs here may go on.
    pub(crate) fn has(&self, key: &ListenerKey) -> bool {
        self.listeners().iter().any(|one| {
            let named = key.listener.as_ref().is_none_or(|name| *name == one.name);
            let certified =
                one.protocol != ListenerProtocol::Https || self.tls.contains_key(&one.name);
            let (port, protocol) = (one.target_port, one.protocol);
            named && certified && (port, protocol) == (key.target_port, key.protocol)
        })
    }

    /// Whether what may go on by the other one may go on: routes may differ.
    pub(crate) fn has_same_listeners(&self, other: &Self) -> bool {
        self.outlines().eq(other.outlines())
    }

    fn outlines(&self) -> impl Iterator<Item = Outline<'_>> {
        self.listeners().iter().map(|one| {
            (
                &*one.name,
                [one.port, one.target_port],
                one.protocol,
                one.hostname.as_ref(),
                self.tls.contains_key(&one.name),
            )
        })
    }
}

fn same(before: &[Arc<ServedCertificate>], now: &[Arc<ServedCertificate>]) -> bool {
    let mut pairs = before.iter().zip(now);
    before.len() == now.len() && pairs.all(|(before, now)| Arc::ptr_eq(before, now))
}
