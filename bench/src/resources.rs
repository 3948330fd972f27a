//! The configuration that the stand-in controller sends to the two proxies: one Service as
//! users have it, under rules as users have them, and many others.
//!
//! bench/web at 10.96.0.10
//!   :80    HTTP/1.1, split evenly between web-a (port 8080) and web-b (8081)
//!   :81    HTTP/2 without TLS, port 8082
//!   :82    opaque, port 8083
//!   :83    HTTP/2 without TLS, port 8085
//!   :84    gRPC, port 8084
//!   :85    HTTP/1.1, port 8080 of a server without a proxy
//!   :5201  opaque, port 5201
//! many/many-N at 10.97.0.0 + N, port 80, with ten endpoints each; those with N
//! below [`SERVED`] lead to port 8080.
//!
//! The server enforces two TrafficTargets: one of ten routes, of which the last
//! lets the bench in, and one for the opaque ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use policy::name::SpiffeId;
use wire::v1::resource::Content;
use wire::{names, v1};

use crate::namespaces::{CLIENT_IP, CONTROL_FOR_CLIENT, SERVER_IP};
use crate::standing_in::resource;

pub(crate) const TRUST_DOMAIN: &str = "cluster.local";
pub(crate) const NAMESPACE: &str = "bench";
const MANY_NAMESPACE: &str = "many";
/// The Service, its port for HTTP/1.1, and where its two backends serve that.
pub(crate) const WEB: &str = "web";
pub(crate) const HTTP_PORT: u16 = 80;
pub(crate) const HTTP_TARGETS: [u16; 2] = [8080, 8081];
const PLAIN_PORT: u16 = 85;
pub(crate) const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Of the many Services, those that answer.
pub(crate) const SERVED: u16 = 50;
const ENDPOINTS_EACH: u16 = 10;
/// Endpoints that one change of [`changed`] moves.
pub(crate) const CHANGED: u16 = 1000;
const RULES: usize = 10;

/// A pod of the bench, which is also the name of its service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pod {
    Client,
    Server,
}

impl Pod {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    pub(crate) const fn ip(self) -> Ipv4Addr {
        match self {
            Self::Client => CLIENT_IP,
            Self::Server => SERVER_IP,
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        [Self::Client, Self::Server]
            .into_iter()
            .find(|pod| pod.name() == name)
    }

    pub(crate) fn identity(self) -> SpiffeId {
        SpiffeId::of(TRUST_DOMAIN, NAMESPACE, self.name())
            .expect("the constants above must make a SPIFFE id")
    }
}

/// The address of many/many-`n`.
pub(crate) fn many_address(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    SocketAddr::from(([10, 97, high, low], 80))
}

/// What a pod gets without asking, but for the trusted roots.
pub(crate) fn own(pod: Pod) -> Vec<v1::Resource> {
    let port = |number, protocol: v1::Protocol| v1::PortProtocol {
        first: number,
        last: number,
        protocol: protocol.into(),
    };
    let ports = match pod {
        Pod::Client => Vec::new(),
        Pod::Server => vec![
            port(8080, v1::Protocol::Http1),
            port(8081, v1::Protocol::Http1),
            port(8082, v1::Protocol::Http2),
            port(8083, v1::Protocol::Opaque),
            port(8084, v1::Protocol::Grpc),
            port(8085, v1::Protocol::Http2),
            port(5201, v1::Protocol::Opaque),
        ],
    };
    let workload = v1::Workload {
        namespace: NAMESPACE.to_owned(),
        pod: pod.name().to_owned(),
        identity: pod.identity().as_str().to_owned(),
        enforcement: v1::Enforcement::Enforce.into(),
        mtls: v1::MtlsMode::Strict.into(),
        ports,
        ips: vec![pod.ip().to_string()],
        ..v1::Workload::default()
    };
    let mut resources = vec![resource(names::WORKLOAD, Content::Workload(workload))];
    if pod == Pod::Server {
        resources.extend([routes(), opaque_ports()]);
    }
    resources
}

/// What stands at an address, with everything that this refers to.
pub(crate) fn destination(addr: SocketAddr) -> Vec<v1::Resource> {
    let name = names::destination(addr.ip(), addr.port());
    let described = match addr.ip() {
        IpAddr::V4(ip) if ip == SERVICE_IP => web(addr.port()),
        IpAddr::V4(ip) if ip.octets()[..2] == [10, 97] && addr.port() == 80 => {
            Some(many_service(u16::from_be_bytes([
                ip.octets()[2],
                ip.octets()[3],
            ])))
        }
        _ => None,
    };
    let Some((service, mut resources)) = described else {
        let target = v1::destination::Target::External(v1::External::default());
        return vec![resource(
            &name,
            Content::Destination(v1::Destination {
                target: Some(target),
            }),
        )];
    };
    let target = Some(v1::destination::Target::Service(service));
    resources.push(resource(
        &name,
        Content::Destination(v1::Destination { target }),
    ));
    resources
}

/// The name of a Service resource, and the resources.
pub(crate) type Described = (String, Vec<v1::Resource>);

/// One port of the Service.
pub(crate) fn web(port: u16) -> Option<Described> {
    let (protocol, target) = match port {
        HTTP_PORT => (v1::Protocol::Http1, 8080),
        81 => (v1::Protocol::Http2, 8082),
        82 => (v1::Protocol::Opaque, 8083),
        83 => (v1::Protocol::Http2, 8085),
        84 => (v1::Protocol::Grpc, 8084),
        PLAIN_PORT => (v1::Protocol::Http1, 8080),
        5201 => (v1::Protocol::Opaque, 5201),
        _ => return None,
    };
    let served = |name: &str, target| {
        let endpoint = match port {
            PLAIN_PORT => plain_server(target),
            _ => server(target),
        };
        let endpoint = v1::Endpoint {
            opaque: protocol == v1::Protocol::Opaque,
            ..endpoint
        };
        let endpoints = v1::Endpoints {
            endpoints: vec![endpoint],
            ..v1::Endpoints::default()
        };
        resource(
            &names::endpoints(NAMESPACE, name, port),
            Content::Endpoints(endpoints),
        )
    };
    let mut resources = vec![served(WEB, target)];
    let mut splits = Vec::new();
    if port == HTTP_PORT {
        resources.extend([served("web-a", 8080), served("web-b", 8081)]);
        let backend = |name: &str| v1::Backend {
            service: name.to_owned(),
            weight: 50,
            endpoints: names::endpoints(NAMESPACE, name, port),
        };
        splits.push(v1::Split {
            origin: Some(origin("TrafficSplit", "web")),
            matches: None,
            backends: vec![backend("web-a"), backend("web-b")],
        });
    }
    Some(service(NAMESPACE, WEB, port, protocol, splits, resources))
}

fn many_service(n: u16) -> Described {
    let name = format!("many-{n}");
    let resources = vec![many_endpoints(n, 8080)];
    service(
        MANY_NAMESPACE,
        &name,
        80,
        v1::Protocol::Http1,
        Vec::new(),
        resources,
    )
}

fn many_endpoints(n: u16, port: u32) -> v1::Resource {
    let name = format!("many-{n}");
    let endpoints = if n < SERVED {
        vec![server(port)]
    } else {
        let [high, low] = n.to_be_bytes();
        (0..ENDPOINTS_EACH)
            .map(|at| v1::Endpoint {
                ip: Ipv4Addr::new(10, 100 + at as u8, high, low).to_string(),
                pod: format!("{name}-{at}"),
                ..server(port)
            })
            .collect()
    };
    let endpoints = Content::Endpoints(v1::Endpoints {
        endpoints,
        ..v1::Endpoints::default()
    });
    resource(&names::endpoints(MANY_NAMESPACE, &name, 80), endpoints)
}

/// Every endpoint of some Services at another port than in the generation before.
pub(crate) fn changed(generation: u32) -> Vec<v1::Resource> {
    (SERVED..SERVED + CHANGED / ENDPOINTS_EACH)
        .map(|n| many_endpoints(n, 8080 + generation % 2))
        .collect()
}

fn service(
    namespace: &str,
    name: &str,
    port: u16,
    protocol: v1::Protocol,
    splits: Vec<v1::Split>,
    mut resources: Vec<v1::Resource>,
) -> Described {
    let service = v1::Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port: port.into(),
        protocol: protocol.into(),
        splits,
        endpoints: names::endpoints(namespace, name, port),
        ..v1::Service::default()
    };
    let key = names::service(namespace, name, port);
    resources.push(resource(&key, Content::Service(service)));
    (key, resources)
}

fn server(port: u32) -> v1::Endpoint {
    v1::Endpoint {
        ip: SERVER_IP.to_string(),
        port,
        identity: Pod::Server.identity().as_str().to_owned(),
        namespace: NAMESPACE.to_owned(),
        pod: Pod::Server.name().to_owned(),
        ..v1::Endpoint::default()
    }
}

/// The one beside the stand-in controller, which has no proxy and therefore no identity.
fn plain_server(port: u32) -> v1::Endpoint {
    v1::Endpoint {
        ip: CONTROL_FOR_CLIENT.to_string(),
        identity: String::new(),
        pod: "plain".to_owned(),
        ..server(port)
    }
}

/// Ten routes; the bench is let in by the last.
fn routes() -> v1::Resource {
    let matches = (1..=RULES)
        .map(|n| {
            let path = if n == RULES {
                "/bench".to_owned()
            } else {
                format!("/shop/shelf-{n}/.*")
            };
            v1::HttpMatch {
                name: format!("route-{n}"),
                path_regex: Some(path),
                methods: vec!["GET".to_owned(), "POST".to_owned()],
                ..v1::HttpMatch::default()
            }
        })
        .collect();
    rule("web", None, Some(v1::HttpMatches { matches }))
}

fn opaque_ports() -> v1::Resource {
    let ports = v1::PortSet {
        any: false,
        ports: vec![5201, 8083],
    };
    rule("bytes", Some(ports), None)
}

fn rule(name: &str, ports: Option<v1::PortSet>, http: Option<v1::HttpMatches>) -> v1::Resource {
    let client = Pod::Client.identity().as_str().to_owned();
    let rule = v1::Rule {
        origin: Some(origin("TrafficTarget", name)),
        sources: vec![v1::Source {
            who: Some(v1::source::Who::SpiffeId(client)),
        }],
        ports,
        http,
        limit: None,
    };
    resource(&names::rule(NAMESPACE, name), Content::Rule(rule))
}

pub(crate) fn origin(kind: &str, name: &str) -> v1::ObjectRef {
    v1::ObjectRef {
        kind: kind.to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use policy::access::Rule;
    use policy::route;
    use wire::v1::resource::Content;

    use super::{HTTP_PORT, PLAIN_PORT, Pod, RULES, SERVICE_IP, destination, many_address, own};

    #[test]
    fn bench_server_has_ten_routes_and_two_backends() {
        let rules: Vec<Rule> = own(Pod::Server)
            .into_iter()
            .filter_map(|resource| match resource.content {
                Some(Content::Rule(rule)) => Some(Rule::try_from(&rule).unwrap()),
                _ => None,
            })
            .collect();
        assert_eq!(rules[0].http.as_ref().unwrap().len(), RULES);
        let splits: Vec<route::Rule<_>> = destination((SERVICE_IP, 80).into())
            .into_iter()
            .filter_map(|resource| match resource.content {
                Some(Content::Service(service)) => Some(service),
                _ => None,
            })
            .flat_map(|service| service.splits)
            .map(|split| wire::convert::split(&split, 80).unwrap())
            .collect();
        assert_eq!(splits.len(), 1);
        assert_eq!(splits[0].then.len(), 2);
    }

    #[test]
    fn only_one_bench_port_leads_to_unmeshed_server() {
        let are_meshed = |port: u16| -> Vec<bool> {
            let resources = destination((SERVICE_IP, port).into());
            let contents = resources
                .into_iter()
                .filter_map(|resource| resource.content);
            let endpoints = contents.filter_map(|content| match content {
                Content::Endpoints(endpoints) => Some(endpoints.endpoints),
                _ => None,
            });
            let meshed = endpoints.flatten().map(|one| !one.identity.is_empty());
            meshed.collect()
        };
        assert_eq!(are_meshed(PLAIN_PORT), [false]);
        // The Service itself and both backends of its split.
        assert_eq!(are_meshed(HTTP_PORT), [true; 3]);
        assert_eq!(are_meshed(84), [true]);
    }

    #[test]
    fn one_of_the_crowd_has_ten_distinct_endpoints() {
        let resources = destination(many_address(700));
        let Some(Content::Endpoints(endpoints)) = &resources[0].content else {
            panic!("{resources:?}")
        };
        let ips: std::collections::BTreeSet<_> =
            endpoints.endpoints.iter().map(|one| &one.ip).collect();
        assert_eq!(ips.len(), 10);
    }
}
