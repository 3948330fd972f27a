//! Names of resources, formatted and parsed in one place.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use policy::well_known::MESH_PORT;

/// The addresses of a host outside the mesh, each at a port; and what such names begin with.
pub use policy::egress::{ENDPOINTS as EXTERNAL, endpoints_name as external};

/// Trusted roots.
pub const BUNDLE: &str = "bundle";
/// Modes and ports of the receiving pod.
pub const WORKLOAD: &str = "workload";
/// What TrafficPolicies say of requests to the receiving pod.
pub const GUARD: &str = "guard";
/// The report of the receiving pod's proxy about itself.
pub const TELEMETRY: &str = "telemetry";
/// How the receiving pod's proxy names requests to it.
pub const ROUTES: &str = "routes";
/// Which of its workload's proxies the receiving pod's one is.
pub const PLACE: &str = "place";
/// What the receiving pod may call outside the mesh.
pub const EGRESS: &str = "egress";
/// Whose certificates are refused.
pub const REVOCATIONS: &str = "revocations";
/// What the receiving pod of a Gateway serves.
pub const GATEWAY: &str = "gateway";

const RULE: &str = "rule/";
const EXTENDED_RULE: &str = "extended-rule/";
/// What names of destination resources begin with.
pub const DESTINATION: &str = "destination/";
const SERVICE: &str = "service/";
const ENDPOINTS: &str = "endpoints/";
/// What stands between the name of a Gateway whose pods let calls out, and the port of these.
const OF_GATEWAY: &str = "@gateway:";
const POLICY: &str = "policy/";
/// What names of certificates of listeners begin with.
pub const CERTIFICATE: &str = "certificate/";

/// One TrafficTarget that protects the receiving pod.
pub fn rule(namespace: &str, name: &str) -> String {
    format!("{RULE}{namespace}/{name}")
}

/// The same, when it needs what came after the first version of rules; see the
/// protocol file.
pub(crate) fn extended_rule(namespace: &str, name: &str) -> String {
    format!("{EXTENDED_RULE}{namespace}/{name}")
}

/// What stands at an address. An IPv4 address in IPv6 form is the same address.
pub fn destination(ip: IpAddr, port: u16) -> String {
    format!("{DESTINATION}{}", SocketAddr::new(ip.to_canonical(), port))
}

/// One port of a Service.
pub fn service(namespace: &str, name: &str, port: u16) -> String {
    format!("{SERVICE}{namespace}/{name}:{port}")
}

/// Where a Service's port is served.
pub fn endpoints(namespace: &str, name: &str, port: u16) -> String {
    format!("{ENDPOINTS}{namespace}/{name}:{port}")
}

/// The pods of a Gateway, `namespace/name`, to which calls out of the mesh are handed over. No
/// Service has such a name.
pub fn handing_over(gateway: &str) -> String {
    format!("{ENDPOINTS}{gateway}{OF_GATEWAY}{MESH_PORT}")
}

/// Whether this is the name of such a resource.
pub fn is_handing_over(name: &str) -> bool {
    name.starts_with(ENDPOINTS) && name.contains(OF_GATEWAY)
}

/// What TrafficPolicies say of one port of a Service, to its callers.
pub fn policy(namespace: &str, name: &str, port: u16) -> String {
    format!("{POLICY}{namespace}/{name}:{port}")
}

/// A certificate of a Gateway's listeners, with its key.
pub fn certificate(namespace: &str, name: &str) -> String {
    format!("{CERTIFICATE}{namespace}/{name}")
}

/// A name taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name<'a> {
    Bundle,
    Workload,
    Guard,
    Telemetry,
    Routes,
    Place,
    Egress,
    Revocations,
    Gateway,
    Rule {
        namespace: &'a str,
        name: &'a str,
    },
    ExtendedRule {
        namespace: &'a str,
        name: &'a str,
    },
    Destination {
        ip: IpAddr,
        port: u16,
    },
    Service {
        namespace: &'a str,
        name: &'a str,
        port: u16,
    },
    Endpoints {
        namespace: &'a str,
        name: &'a str,
        port: u16,
    },
    Policy {
        namespace: &'a str,
        name: &'a str,
        port: u16,
    },
    /// In the spelling of [`policy::egress::host_name`].
    External {
        host: &'a str,
        port: u16,
    },
    Certificate {
        namespace: &'a str,
        name: &'a str,
    },
}

/// `None` for whatever the builders above do not write, so two names of one
/// thing cannot be confused.
pub fn parse(raw: &str) -> Option<Name<'_>> {
    let name = match raw {
        BUNDLE => Name::Bundle,
        WORKLOAD => Name::Workload,
        GUARD => Name::Guard,
        TELEMETRY => Name::Telemetry,
        ROUTES => Name::Routes,
        PLACE => Name::Place,
        EGRESS => Name::Egress,
        REVOCATIONS => Name::Revocations,
        GATEWAY => Name::Gateway,
        _ => {
            if let Some(rest) = raw.strip_prefix(RULE) {
                let (namespace, name) = object(rest)?;
                Name::Rule { namespace, name }
            } else if let Some(rest) = raw.strip_prefix(EXTENDED_RULE) {
                let (namespace, name) = object(rest)?;
                Name::ExtendedRule { namespace, name }
            } else if let Some(rest) = raw.strip_prefix(CERTIFICATE) {
                let (namespace, name) = object(rest)?;
                Name::Certificate { namespace, name }
            } else if let Some(rest) = raw.strip_prefix(DESTINATION) {
                let address: SocketAddr = rest.parse().ok()?;
                Name::Destination {
                    ip: address.ip(),
                    port: address.port(),
                }
            } else if let Some(rest) = raw.strip_prefix(EXTERNAL) {
                let (host, port) = rest.rsplit_once(':')?;
                let spelt = policy::egress::host_name(host)?;
                let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
                (spelt == host).then_some(Name::External { host, port })?
            } else if let Some(rest) = raw.strip_prefix(SERVICE) {
                let (namespace, name, port) = object_port(rest)?;
                Name::Service {
                    namespace,
                    name,
                    port,
                }
            } else if let Some(rest) = raw.strip_prefix(POLICY) {
                let (namespace, name, port) = object_port(rest)?;
                Name::Policy {
                    namespace,
                    name,
                    port,
                }
            } else {
                let (namespace, name, port) = object_port(raw.strip_prefix(ENDPOINTS)?)?;
                Name::Endpoints {
                    namespace,
                    name,
                    port,
                }
            }
        }
    };
    (name.to_string() == raw).then_some(name)
}

fn object(raw: &str) -> Option<(&str, &str)> {
    raw.split_once('/').filter(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    })
}

fn object_port(raw: &str) -> Option<(&str, &str, u16)> {
    let (rest, port) = raw.rsplit_once(':')?;
    let (namespace, name) = object(rest)?;
    Some((namespace, name, port.parse().ok()?))
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match *self {
            Self::Bundle => BUNDLE.to_owned(),
            Self::Workload => WORKLOAD.to_owned(),
            Self::Guard => GUARD.to_owned(),
            Self::Telemetry => TELEMETRY.to_owned(),
            Self::Routes => ROUTES.to_owned(),
            Self::Place => PLACE.to_owned(),
            Self::Egress => EGRESS.to_owned(),
            Self::Revocations => REVOCATIONS.to_owned(),
            Self::Gateway => GATEWAY.to_owned(),
            Self::Rule { namespace, name } => rule(namespace, name),
            Self::ExtendedRule { namespace, name } => extended_rule(namespace, name),
            Self::Destination { ip, port } => destination(ip, port),
            Self::Service {
                namespace,
                name,
                port,
            } => service(namespace, name, port),
            Self::Endpoints {
                namespace,
                name,
                port,
            } => endpoints(namespace, name, port),
            Self::Policy {
                namespace,
                name,
                port,
            } => policy(namespace, name, port),
            Self::External { host, port } => external(host, port),
            Self::Certificate { namespace, name } => certificate(namespace, name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_the_protocol_says() {
        assert_eq!(rule("shop", "web"), "rule/shop/web");
        assert_eq!(service("shop", "web", 80), "service/shop/web:80");
        assert_eq!(endpoints("shop", "web", 80), "endpoints/shop/web:80");
        assert_eq!(policy("shop", "web", 80), "policy/shop/web:80");
        let handing_over = handing_over("edge/out");
        assert_eq!(handing_over, "endpoints/edge/out@gateway:15108");
        assert!(is_handing_over(&handing_over));
        assert!(!is_handing_over(&endpoints("shop", "web", 80)));
        assert!(matches!(parse(&handing_over), Some(Name::Endpoints { .. })));
        assert_eq!(
            destination([10, 0, 0, 1].into(), 80),
            "destination/10.0.0.1:80"
        );
        assert_eq!(
            destination("fd00::1".parse().unwrap(), 80),
            "destination/[fd00::1]:80"
        );
        assert_eq!(
            destination("::ffff:10.0.0.1".parse().unwrap(), 80),
            "destination/10.0.0.1:80"
        );
    }

    #[test]
    fn what_is_built_can_be_read() {
        let built = [
            Name::Bundle,
            Name::Workload,
            Name::Guard,
            Name::Telemetry,
            Name::Routes,
            Name::Place,
            Name::Egress,
            Name::Gateway,
            Name::Certificate {
                namespace: "a",
                name: "b.c",
            },
            Name::External {
                host: "api.pay.example",
                port: 443,
            },
            Name::Revocations,
            Name::Rule {
                namespace: "a",
                name: "b.c",
            },
            Name::ExtendedRule {
                namespace: "a",
                name: "b.c",
            },
            Name::Destination {
                ip: [10, 0, 0, 1].into(),
                port: 1,
            },
            Name::Destination {
                ip: "fd00::1".parse().unwrap(),
                port: 65535,
            },
            Name::Service {
                namespace: "a",
                name: "b",
                port: 80,
            },
            Name::Endpoints {
                namespace: "a",
                name: "b",
                port: 80,
            },
            Name::Policy {
                namespace: "a",
                name: "b",
                port: 80,
            },
        ];
        for name in built {
            assert_eq!(parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        let wrong = [
            "",
            "bundle/",
            "rule/a",
            "rule//a",
            "rule/a/",
            "rule/a/b/c",
            "destination/10.0.0.1",
            "destination/[::ffff:10.0.0.1]:80",
            "destination/[FD00::1]:80",
            "destination/10.0.0.1:080",
            "destination/localhost:80",
            "service/a/b",
            "service/a/b:+80",
            "service/a/b:65536",
            "endpoints/b:80",
            "policy/a/b",
            "guard/",
            "other/a/b",
            "egress/",
            "gateway/",
            "certificate/a",
            "certificate/a/",
            "certificate/a/b/c",
            "external/a.example",
            "external/A.example:443",
            "external/a.example.:443",
            "external/a.example:0",
            "external/a.example:0443",
            "external/10.0.0.1:443",
            "external/*.example:443",
        ];
        for raw in wrong {
            assert_eq!(parse(raw), None, "{raw:?}");
        }
    }
}
