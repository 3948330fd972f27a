//! Converts the egress configuration of a pod: the ExternalServices that it may call outside the
//! mesh.
//!
//! What cannot be read refuses the whole resource, and the proxy keeps the last good one: an
//! object that is left out might be the one whose calls leave in TLS. A proxy that has none yet
//! holds [`Egress::closed`].

use std::str::FromStr;
use std::sync::Arc;

use policy::egress::{
    Egress, EgressMode, ExternalObject, ExternalPort, ExternalTarget, HostPattern, OriginateTls,
    Roots,
};

use super::error::{BadResource, each};
use super::object::origin;
use super::port::port;
use crate::v1;
use crate::v1::egress::Mode;
use crate::v1::external_port::Protocol;

/// What the receiving pod may call.
///
/// # Errors
/// With the field that is wrong.
pub fn egress(message: &v1::Egress) -> Result<Egress, BadResource> {
    Ok(Egress {
        mode: Mode::try_from(message.mode).map_or(EgressMode::Deny, EgressMode::from),
        objects: each("objects", &message.objects)?,
    })
}

/// How calls of a Service leave the mesh.
///
/// # Errors
/// With the field that is wrong.
pub fn external_target(message: &v1::ExternalTarget) -> Result<ExternalTarget, BadResource> {
    ExternalTarget::try_from(message).map_err(|bad| bad.within("external"))
}

impl TryFrom<&v1::ExternalTarget> for ExternalTarget {
    type Error = BadResource;

    fn try_from(message: &v1::ExternalTarget) -> Result<Self, BadResource> {
        Ok(Self {
            object: origin(message.object.as_ref()).map_err(|bad| bad.within("object"))?,
            host: host("host", &message.host)?,
            tls: tls(message.tls.as_ref())?,
            denied: message.denied,
            gateway: gateway(&message.gateway)?,
        })
    }
}

impl From<&ExternalTarget> for v1::ExternalTarget {
    fn from(target: &ExternalTarget) -> Self {
        Self {
            object: Some((&target.object).into()),
            host: target.host.to_string(),
            tls: target.tls.as_deref().map(v1::OriginateTls::from),
            denied: target.denied,
            gateway: target.gateway.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

impl From<&Egress> for v1::Egress {
    fn from(egress: &Egress) -> Self {
        Self {
            mode: Mode::from(egress.mode).into(),
            objects: egress
                .objects
                .iter()
                .map(v1::ExternalObject::from)
                .collect(),
        }
    }
}

impl TryFrom<&v1::ExternalObject> for ExternalObject {
    type Error = BadResource;

    fn try_from(message: &v1::ExternalObject) -> Result<Self, BadResource> {
        Ok(Self {
            origin: origin(message.origin.as_ref())?,
            hosts: texts("hosts", &message.hosts)?,
            addresses: texts("addresses", &message.addresses)?,
            resolved: texts("resolved", &message.resolved)?,
            ports: each("ports", &message.ports)?,
            gateway: gateway(&message.gateway)?,
            callers: texts("callers", &message.callers)?,
        })
    }
}

impl From<&ExternalObject> for v1::ExternalObject {
    fn from(object: &ExternalObject) -> Self {
        Self {
            origin: Some((&object.origin).into()),
            hosts: object.hosts.iter().map(ToString::to_string).collect(),
            addresses: object.addresses.iter().map(ToString::to_string).collect(),
            resolved: object.resolved.iter().map(ToString::to_string).collect(),
            ports: object.ports.iter().map(v1::ExternalPort::from).collect(),
            gateway: object.gateway.as_deref().unwrap_or_default().to_owned(),
            callers: object.callers.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<&v1::ExternalPort> for ExternalPort {
    type Error = BadResource;

    fn try_from(message: &v1::ExternalPort) -> Result<Self, BadResource> {
        let protocol = Protocol::try_from(message.protocol);
        let protocol = protocol.map_err(|_| BadResource::unknown("protocol"))?;
        Ok(Self {
            port: port("port", message.port)?,
            protocol: protocol.into(),
            target_port: port("targetPort", message.target_port)?,
            tls: tls(message.tls.as_ref())?,
        })
    }
}

impl From<&ExternalPort> for v1::ExternalPort {
    fn from(port: &ExternalPort) -> Self {
        Self {
            port: port.port.into(),
            protocol: Protocol::from(port.protocol).into(),
            target_port: port.target_port.into(),
            tls: port.tls.as_deref().map(v1::OriginateTls::from),
        }
    }
}

impl From<&OriginateTls> for v1::OriginateTls {
    fn from(tls: &OriginateTls) -> Self {
        Self {
            server_name: tls.server_name.as_deref().unwrap_or_default().to_owned(),
            roots: match &tls.roots {
                Roots::Public => None,
                Roots::Pem(pem) => Some(pem.to_string()),
            },
        }
    }
}

fn tls(message: Option<&v1::OriginateTls>) -> Result<Option<Arc<OriginateTls>>, BadResource> {
    let Some(message) = message else {
        return Ok(None);
    };
    let server_name = match message.server_name.as_str() {
        "" => None,
        name => Some(host("serverName", name).map_err(|bad| bad.within("tls"))?),
    };
    Ok(Some(Arc::new(OriginateTls {
        server_name,
        roots: match &message.roots {
            None => Roots::Public,
            Some(pem) => Roots::Pem(pem.as_str().into()),
        },
    })))
}

/// `namespace/name`; `None` where it is empty.
fn gateway(raw: &str) -> Result<Option<Arc<str>>, BadResource> {
    let is_name = |(namespace, name): &(&str, &str)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    };
    match raw.split_once('/').filter(is_name) {
        _ if raw.is_empty() => Ok(None),
        Some(_) => Ok(Some(raw.into())),
        None => Err(BadResource::new("gateway", "is no namespace/name")),
    }
}

/// The name of one host.
fn host(field: &str, raw: &str) -> Result<Arc<str>, BadResource> {
    match raw.parse::<HostPattern>() {
        Ok(HostPattern::Exact(name)) => Ok(name),
        Ok(HostPattern::Below(_)) => Err(BadResource::new(field, "is no single host")),
        Err(bad) => Err(BadResource::new(field, bad)),
    }
}

fn texts<T>(field: &str, all: &[String]) -> Result<Vec<T>, BadResource>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let read = all.iter().enumerate().map(|(i, raw)| {
        let read = raw.parse::<T>();
        read.map_err(|bad| BadResource::new(format!("{field}[{i}]"), bad))
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use policy::egress::ExternalProtocol;
    use policy::origin::Origin;

    use super::*;

    fn everything() -> Egress {
        let tls = OriginateTls {
            server_name: Some("api.pay.example".into()),
            roots: Roots::Pem("-----BEGIN CERTIFICATE-----".into()),
        };
        let web = OriginateTls {
            server_name: None,
            roots: Roots::Public,
        };
        let port = |port, protocol, tls: Option<OriginateTls>| ExternalPort {
            port,
            protocol,
            target_port: 443,
            tls: tls.map(Arc::new),
        };
        Egress {
            mode: EgressMode::Audit,
            objects: vec![ExternalObject {
                origin: Origin::new("ExternalService", "shop", "pay"),
                hosts: vec![
                    "api.pay.example".parse().unwrap(),
                    "*.pay.example".parse().unwrap(),
                ],
                addresses: vec![
                    "203.0.113.0/24".parse().unwrap(),
                    "2001:db8::/32".parse().unwrap(),
                ],
                resolved: vec!["198.51.100.7".parse().unwrap()],
                ports: vec![
                    port(80, ExternalProtocol::Http, Some(tls)),
                    port(81, ExternalProtocol::Http, Some(web)),
                    port(443, ExternalProtocol::Tls, None),
                    port(5432, ExternalProtocol::Tcp, None),
                ],
                gateway: Some("edge/out".into()),
                callers: vec!["shop/web".parse().unwrap(), "bank/*".parse().unwrap()],
            }],
        }
    }

    #[test]
    fn egress_is_read_as_it_was_written() {
        let written = everything();
        assert_eq!(egress(&v1::Egress::from(&written)), Ok(written));
        for mode in [EgressMode::Allow, EgressMode::Audit, EgressMode::Deny] {
            let written = Egress {
                mode,
                objects: Vec::new(),
            };
            assert_eq!(egress(&v1::Egress::from(&written)), Ok(written));
        }
        let target = ExternalTarget {
            object: Origin::new("ExternalService", "shop", "pay"),
            host: "api.pay.example".into(),
            tls: everything().objects[0].ports[0].tls.clone(),
            denied: true,
            gateway: Some("edge/out".into()),
        };
        let message = v1::ExternalTarget::from(&target);
        assert_eq!(external_target(&message), Ok(target));
    }

    #[test]
    fn unknown_egress_mode_is_read_as_deny() {
        let message = v1::Egress {
            mode: 77,
            objects: Vec::new(),
        };
        assert_eq!(egress(&message), Ok(Egress::closed()));
        assert_eq!(egress(&v1::Egress::default()), Ok(Egress::closed()));
    }

    #[test]
    fn wrong_field_of_egress_refuses_all_of_it() {
        type Spoil = fn(&mut v1::ExternalObject);
        let wrong: [(&str, Spoil); 10] = [
            ("objects[0].origin", |object| object.origin = None),
            ("objects[0].hosts[1]", |object| {
                object.hosts[1] = "*".to_owned();
            }),
            ("objects[0].addresses[0]", |object| {
                object.addresses[0] = "203.0.113.0/33".to_owned();
            }),
            ("objects[0].resolved[0]", |object| {
                object.resolved[0] = "pay.example".to_owned();
            }),
            ("objects[0].gateway", |object| {
                object.gateway = "out".to_owned();
            }),
            ("objects[0].callers[0]", |object| {
                object.callers[0] = "web".to_owned();
            }),
            ("objects[0].ports[1].port", |object| {
                object.ports[1].port = 65_536;
            }),
            ("objects[0].ports[1].protocol", |object| {
                object.ports[1].protocol = 9;
            }),
            ("objects[0].ports[2].targetPort", |object| {
                object.ports[2].target_port = 0;
            }),
            ("objects[0].ports[0].tls.serverName", |object| {
                let tls = object.ports[0].tls.as_mut().unwrap();
                tls.server_name = "*.pay.example".to_owned();
            }),
        ];
        for (field, spoil) in wrong {
            let mut message = v1::Egress::from(&everything());
            spoil(&mut message.objects[0]);
            let bad = egress(&message).unwrap_err();
            assert_eq!(bad.field, field);
        }
    }
}
