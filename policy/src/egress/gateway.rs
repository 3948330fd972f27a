//! Decides which calls an egress Gateway lets out of the mesh. The callers' proxies hand them over
//! to it, each for one ExternalService that names the Gateway.
//!
//! The caller's proxy says for which object and to which host or address a call is. None of that is
//! believed: the Gateway has the object itself, with the accounts that it admits, and the caller has
//! proved its account by its certificate.

use super::handed::{HandedCall, NotHanded, To};
use super::{Admitted, By, Egress, ExternalObject, ExternalProtocol};

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
