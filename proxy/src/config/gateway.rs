//! The configuration of the own Gateway, in the proxy of one of its pods: listeners with their
//! routes, and the certificates of listeners.
//!
//! Private keys lie in here, in the form in which handshakes use them, and nowhere else in the
//! proxy. Nothing prints them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Once};
use std::time::SystemTime;

use policy::gateway::Gateway;
use policy::origin::Origin;
use rustls::sign::CertifiedKey;

/// What a controller has sent of it.
#[derive(Clone, Default)]
pub struct GatewayConfig {
    /// `None`: nothing is served.
    pub served: Option<Arc<ServedGateway>>,
    /// By the names of their resources.
    pub certificates: BTreeMap<Arc<str>, Arc<ServedCertificate>>,
}

/// A certificate of listeners.
pub struct ServedCertificate {
    /// Of its resource, which names the Secret.
    pub(crate) name: Arc<str>,
    pub certified: Arc<CertifiedKey>,
    pub(crate) ends: SystemTime,
    pub(crate) end_logged: Once,
}

impl ServedCertificate {
    /// Whether it may be served. Controllers withdraw one that has ended, but may be away; the first
    /// call that finds it ended logs so.
    pub fn lasts_at(&self, now: SystemTime) -> bool {
        let lasts = now < self.ends;
        if !lasts {
            let log = || {
                tracing::warn!(
                    "{} has ended and is not served: renew its Secret",
                    self.name
                )
            };
            self.end_logged.call_once(log);
        }
        lasts
    }
}

impl fmt::Debug for ServedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedCertificate")
            .field("name", &self.name)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// A Gateway that is served.
#[derive(Debug)]
pub struct ServedGateway {
    pub gateway: Gateway,
    /// Of each rule, by which calls are counted: a route may have so many rules that they would be
    /// too many.
    objects: HashMap<Origin, Origin>,
}

impl fmt::Debug for GatewayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayConfig")
            .field("served", &self.served)
            .field("certificates", &self.certificates.keys())
            .finish()
    }
}

impl From<Gateway> for ServedGateway {
    fn from(gateway: Gateway) -> Self {
        let routes = gateway.listeners.iter().flat_map(|one| &one.routes);
        let rules = routes.flat_map(|routes| &routes.table.rules);
        let objects = rules.map(|rule| {
            let origin = &rule.origin;
            let (namespace, name) = (Arc::clone(origin.namespace()), Arc::clone(origin.name()));
            (origin.clone(), Origin::new(origin.kind(), namespace, name))
        });
        Self {
            objects: objects.collect(),
            gateway,
        }
    }
}

impl ServedGateway {
    /// The object that sets a rule.
    pub(crate) fn object(&self, rule: &Origin) -> Option<&Origin> {
        self.objects.get(rule)
    }
}
