//! What a Gateway lets out of the mesh: calls that proxies hand over to it, each as one of an object
//! that names the Gateway.
//!
//! The caller's proxy says for which object and to which host or address a call is. None of that is
//! believed: the Gateway has the object itself, with the accounts that it admits, and the caller has
//! proved its account by its certificate.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::{Admitted, By, Egress, ExternalObject, ExternalProtocol};

/// Stands for every account of a namespace. No account has this name.
const ALL: &str = "*";

/// Those whose calls a Gateway lets out: `namespace/account`, or `namespace/*` for all accounts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalCaller {
    pub namespace: Arc<str>,
    /// `None`: every account of the namespace.
    pub account: Option<Arc<str>>,
}

/// Why a text names no callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be namespace/account, or namespace/* for all accounts")]
pub struct BadCaller;

/// A call that a proxy has handed over.
#[derive(Clone, Copy, Debug)]
pub struct HandedCall<'a> {
    /// `namespace/name` of the object.
    pub object: &'a str,
    /// Of the caller, by its certificate.
    pub namespace: &'a str,
    pub account: &'a str,
    /// That the caller's application used.
    pub port: u16,
    pub to: To<'a>,
}

/// Where a call is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// To an address of this host, as [`super::host_name`] reads it.
    Host(&'a str),
    /// To this address.
    Address(IpAddr),
}

/// Why a Gateway does not let a call out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHanded {
    /// No object of that name names this Gateway.
    Object,
    /// The object does not admit the caller.
    Caller,
    /// The object has no such port, or gives no such host or address there.
    Destination,
}

impl ExternalCaller {
    fn is(&self, namespace: &str, account: &str) -> bool {
        let own = self.account.as_ref();
        *self.namespace == *namespace && own.is_none_or(|own| **own == *account)
    }
}

impl FromStr for ExternalCaller {
    type Err = BadCaller;

    fn from_str(raw: &str) -> Result<Self, BadCaller> {
        let (namespace, account) = raw.split_once('/').ok_or(BadCaller)?;
        if namespace.is_empty() || account.is_empty() || account.contains('/') {
            return Err(BadCaller);
        }
        Ok(Self {
            namespace: namespace.into(),
            account: (account != ALL).then(|| account.into()),
        })
    }
}

impl fmt::Display for ExternalCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = self.account.as_deref().unwrap_or(ALL);
        write!(f, "{}/{account}", self.namespace)
    }
}

impl Egress {
    /// How a Gateway lets a call out that was handed over to it.
    ///
    /// # Errors
    /// When it does not.
    pub fn lets_out<'a>(&'a self, call: &HandedCall<'a>) -> Result<Admitted<'a>, NotHanded> {
        let mut objects = self.objects.iter();
        // One that leaves by a Gateway is not let out here.
        let object =
            objects.find(|one| one.gateway.is_none() && **one.origin.label() == *call.object);
        let object = object.ok_or(NotHanded::Object)?;
        let mut callers = object.callers.iter();
        if !callers.any(|one| one.is(call.namespace, call.account)) {
            return Err(NotHanded::Caller);
        }
        object.lets_out(call).ok_or(NotHanded::Destination)
    }
}

impl ExternalObject {
    fn lets_out<'a>(&'a self, call: &HandedCall<'a>) -> Option<Admitted<'a>> {
        let mut ports = self.ports.iter();
        let port = ports.find(|port| port.port == call.port)?;
        let by = match call.to {
            To::Host(host) => {
                let mut hosts = self.hosts.iter();
                let is_given = port.is_by_name() && hosts.any(|pattern| pattern.matches(host));
                is_given.then_some(By::Host(host))?
            }
            To::Address(addr) => {
                let addr = addr.to_canonical();
                let by_tcp = port.protocol == ExternalProtocol::Tcp;
                let is_given = self.lists(addr) || by_tcp && self.resolved.contains(&addr);
                is_given.then_some(By::Address)?
            }
        };
        Some(Admitted {
            object: self,
            port,
            by,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{EgressMode, ExternalPort};
    use crate::origin::Origin;

    fn object() -> ExternalObject {
        let port = |port, protocol| ExternalPort {
            port,
            protocol,
            target_port: port,
            tls: None,
        };
        ExternalObject {
            origin: Origin::new("ExternalService", "shop", "pay"),
            hosts: vec![
                "api.pay.example".parse().unwrap(),
                "*.pay.example".parse().unwrap(),
            ],
            addresses: vec!["203.0.113.0/24".parse().unwrap()],
            resolved: vec!["198.51.100.7".parse().unwrap()],
            ports: vec![
                port(443, ExternalProtocol::Tls),
                port(5432, ExternalProtocol::Tcp),
            ],
            gateway: None,
            callers: vec!["shop/web".parse().unwrap(), "bank/*".parse().unwrap()],
        }
    }

    fn call<'a>(port: u16, to: To<'a>) -> HandedCall<'a> {
        HandedCall {
            object: "shop/pay",
            namespace: "shop",
            account: "web",
            port,
            to,
        }
    }

    fn lets_out(object: ExternalObject, call: &HandedCall<'_>) -> Result<(), NotHanded> {
        let egress = Egress {
            mode: EgressMode::Allow,
            objects: vec![object],
        };
        egress.lets_out(call).map(|_| ())
    }

    #[test]
    fn gateway_lets_out_only_accounts_that_object_admits() {
        for (namespace, account, expected) in [
            ("shop", "web", Ok(())),
            ("shop", "api", Err(NotHanded::Caller)),
            ("shop", "*", Err(NotHanded::Caller)),
            ("bank", "web", Ok(())),
            ("bank", "any", Ok(())),
            ("front", "web", Err(NotHanded::Caller)),
        ] {
            let call = HandedCall {
                namespace,
                account,
                ..call(443, To::Host("api.pay.example"))
            };
            assert_eq!(lets_out(object(), &call), expected, "{namespace}/{account}");
        }
        let unnamed = ExternalObject {
            callers: Vec::new(),
            ..object()
        };
        let call = call(443, To::Host("api.pay.example"));
        assert_eq!(lets_out(unnamed, &call), Err(NotHanded::Caller));
    }

    #[test]
    fn gateway_lets_out_only_objects_that_name_it() {
        let to = To::Host("api.pay.example");
        let other = HandedCall {
            object: "shop/other",
            ..call(443, to)
        };
        assert_eq!(lets_out(object(), &other), Err(NotHanded::Object));
        // As callers of another Gateway get it.
        let elsewhere = ExternalObject {
            gateway: Some("edge/other".into()),
            ..object()
        };
        assert_eq!(lets_out(elsewhere, &call(443, to)), Err(NotHanded::Object));
    }

    #[test]
    fn gateway_dials_only_what_object_gives_at_port() {
        let ip = |raw: &str| To::Address(raw.parse().unwrap());
        for (port, to, is_given) in [
            (443, To::Host("api.pay.example"), true),
            (443, To::Host("a.b.pay.example"), true),
            (443, To::Host("pay.example"), false),
            (443, To::Host("evil.example"), false),
            (80, To::Host("api.pay.example"), false),
            (5432, To::Host("api.pay.example"), false),
            (443, ip("203.0.113.9"), true),
            (443, ip("::ffff:203.0.113.9"), true),
            (443, ip("203.0.114.9"), false),
            (443, ip("198.51.100.7"), false),
            (5432, ip("198.51.100.7"), true),
            (5432, ip("198.51.100.8"), false),
        ] {
            let expected = is_given.then_some(()).ok_or(NotHanded::Destination);
            assert_eq!(
                lets_out(object(), &call(port, to)),
                expected,
                "{port} {to:?}"
            );
        }
    }

    #[test]
    fn callers_are_read_as_they_are_written() {
        for written in ["shop/web", "shop/*"] {
            let read: ExternalCaller = written.parse().unwrap();
            assert_eq!(read.to_string(), written);
        }
        for wrong in ["", "shop", "/web", "shop/", "shop/web/x", "*"] {
            assert_eq!(wrong.parse::<ExternalCaller>(), Err(BadCaller), "{wrong:?}");
        }
    }

    /// Its addresses are the Gateway's business: a proxy that does not dial them subscribes to none.
    #[test]
    fn caller_of_gateway_resolves_no_hosts_itself() {
        let by_gateway = Egress {
            mode: EgressMode::Deny,
            objects: vec![ExternalObject {
                gateway: Some("edge/out".into()),
                ..object()
            }],
        };
        assert_eq!(by_gateway.exact_endpoints().count(), 0);
        assert!(!by_gateway.names("api.pay.example", 443));
        let at_gateway = Egress {
            objects: vec![object()],
            ..by_gateway
        };
        assert_eq!(at_gateway.exact_endpoints().count(), 1);
        assert!(at_gateway.names("a.pay.example", 443));
    }
}
