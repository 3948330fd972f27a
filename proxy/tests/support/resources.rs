//! Resources as a controller sends them to proxies, for tests.

use std::net::IpAddr;

use wire::v1;

use super::id;

pub(crate) fn resource(name: &str, content: v1::resource::Content) -> v1::Resource {
    v1::Resource {
        name: name.to_owned(),
        version: String::new(),
        content: Some(content),
    }
}

pub(crate) fn workload(
    account: &str,
    enforcement: v1::Enforcement,
    mtls: v1::MtlsMode,
) -> v1::Resource {
    let workload = v1::Workload {
        identity: id(account).as_str().to_owned(),
        enforcement: enforcement as i32,
        mtls: mtls as i32,
        ..v1::Workload::default()
    };
    resource(
        wire::names::WORKLOAD,
        v1::resource::Content::Workload(workload),
    )
}

/// One that enforces nothing and declares that one of its ports carries bytes.
pub(crate) fn workload_of_bytes(account: &str, port: u16) -> v1::Resource {
    let workload = v1::Workload {
        identity: id(account).as_str().to_owned(),
        enforcement: v1::Enforcement::Open as i32,
        mtls: v1::MtlsMode::Permissive as i32,
        ports: vec![v1::PortProtocol {
            first: port.into(),
            last: port.into(),
            protocol: v1::Protocol::Opaque as i32,
        }],
        ..v1::Workload::default()
    };
    resource(
        wire::names::WORKLOAD,
        v1::resource::Content::Workload(workload),
    )
}

/// A TrafficTarget's rule: one source, its ports and paths.
pub(crate) fn rule(
    name: &str,
    account: &str,
    ports: Option<&[u32]>,
    paths: Option<&[&str]>,
) -> v1::Resource {
    let rule = v1::Rule {
        origin: Some(v1::ObjectRef {
            kind: "TrafficTarget".into(),
            namespace: "shop".into(),
            name: name.into(),
        }),
        sources: vec![v1::Source {
            who: Some(v1::source::Who::SpiffeId(id(account).as_str().to_owned())),
        }],
        ports: ports.map(|ports| v1::PortSet {
            any: ports.is_empty(),
            ports: ports.to_vec(),
        }),
        http: paths.map(|paths| v1::HttpMatches {
            matches: paths
                .iter()
                .map(|path| v1::HttpMatch {
                    name: "m".into(),
                    path_regex: Some((*path).to_owned()),
                    ..v1::HttpMatch::default()
                })
                .collect(),
        }),
        limit: None,
    };
    resource(
        &wire::names::rule("shop", name),
        v1::resource::Content::Rule(rule),
    )
}

/// A TrafficTarget's rule for pods by uid: any TCP, or HTTP on these paths.
pub(crate) fn rule_for_pods(name: &str, uids: &[&str], paths: Option<&[&str]>) -> v1::Resource {
    let any: &[u32] = &[];
    let ports = paths.is_none().then_some(any);
    let mut resource = rule(name, "replaced", ports, paths);
    if let Some(v1::resource::Content::Rule(rule)) = &mut resource.content {
        let uids = uids.iter().map(|uid| (*uid).to_owned()).collect();
        rule.sources = vec![v1::Source {
            who: Some(v1::source::Who::Pods(v1::PodSet { uids })),
        }];
        return wire::convert::rule_resource(rule.clone());
    }
    resource
}

pub(crate) fn endpoint(pod: IpAddr, port: u16, account: Option<&str>) -> v1::Endpoint {
    v1::Endpoint {
        ip: pod.to_string(),
        port: port.into(),
        identity: account
            .map(|account| id(account).as_str().to_owned())
            .unwrap_or_default(),
        namespace: "shop".into(),
        pod: format!("pod-{pod}"),
        ..v1::Endpoint::default()
    }
}

pub(crate) fn endpoints(name: &str, list: Vec<v1::Endpoint>) -> v1::Resource {
    resource(
        &wire::names::endpoints("shop", name, 80),
        v1::resource::Content::Endpoints(v1::Endpoints {
            endpoints: list,
            ..v1::Endpoints::default()
        }),
    )
}

/// Which traces a proxy records, in millionths of those that begin there, and where it
/// sends their spans.
pub(crate) fn tracing(collector: &str, share: u32, inject: &[&str]) -> v1::Resource {
    let attribute = |name: &str, value: &str| v1::Attribute {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let tracing = v1::Tracing {
        collector: collector.to_owned(),
        share,
        inject: inject.iter().map(|name| (*name).to_owned()).collect(),
        most_per_second: 10_000,
        paths: true,
        resource: vec![attribute("service.name", "checkout")],
    };
    telemetry(v1::Telemetry {
        tracing: Some(tracing),
        ..v1::Telemetry::default()
    })
}

fn telemetry(settings: v1::Telemetry) -> v1::Resource {
    let content = v1::resource::Content::Telemetry(settings);
    resource(wire::names::TELEMETRY, content)
}

/// Which requests a proxy writes down.
pub(crate) fn resource_of_log(log: &str) -> v1::Resource {
    telemetry(v1::Telemetry {
        access_log: log.to_owned(),
        ..v1::Telemetry::default()
    })
}

/// The same, with a collector, to which no spans go but those of traces that came.
pub(crate) fn logging(collector: &str, log: &str) -> v1::Resource {
    let mut telemetry = tracing(collector, 0, &["tracecontext"]);
    if let Some(v1::resource::Content::Telemetry(telemetry)) = &mut telemetry.content {
        telemetry.access_log = log.to_owned();
    }
    telemetry
}

/// What stands at this address is outside the mesh.
pub(crate) fn external(addr: std::net::SocketAddr) -> v1::Resource {
    let target = v1::destination::Target::External(v1::External::default());
    resource(
        &wire::names::destination(addr.ip(), addr.port()),
        v1::resource::Content::Destination(v1::Destination {
            target: Some(target),
        }),
    )
}

/// A Service on port 80 at `ip`, with whatever splits.
pub(crate) fn service(
    name: &str,
    ip: IpAddr,
    protocol: v1::Protocol,
    splits: Vec<v1::Split>,
) -> Vec<v1::Resource> {
    let key = wire::names::service("shop", name, 80);
    let service = v1::Service {
        namespace: "shop".into(),
        name: name.into(),
        port: 80,
        protocol: protocol as i32,
        splits,
        endpoints: wire::names::endpoints("shop", name, 80),
        ..v1::Service::default()
    };
    vec![
        resource(
            &wire::names::destination(ip, 80),
            v1::resource::Content::Destination(v1::Destination {
                target: Some(v1::destination::Target::Service(key.clone())),
            }),
        ),
        resource(&key, v1::resource::Content::Service(service)),
    ]
}

pub(crate) fn split(name: &str, backends: &[(&str, u32)]) -> v1::Split {
    v1::Split {
        origin: Some(v1::ObjectRef {
            kind: "TrafficSplit".into(),
            namespace: "shop".into(),
            name: name.into(),
        }),
        matches: None,
        backends: backends
            .iter()
            .map(|(name, weight)| v1::Backend {
                service: (*name).into(),
                weight: *weight,
                endpoints: wire::names::endpoints("shop", name, 80),
            })
            .collect(),
    }
}

/// What the pod may call outside the mesh.
pub(crate) fn egress(mode: v1::egress::Mode, objects: Vec<v1::ExternalObject>) -> v1::Resource {
    let egress = v1::Egress {
        mode: mode.into(),
        objects,
    };
    let content = v1::resource::Content::Egress(egress);
    resource(wire::names::EGRESS, content)
}

/// An ExternalService with one port.
pub(crate) fn external_object(
    hosts: &[&str],
    addresses: &[&str],
    port: v1::ExternalPort,
) -> v1::ExternalObject {
    let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
    v1::ExternalObject {
        origin: Some(v1::ObjectRef {
            kind: "ExternalService".to_owned(),
            namespace: "shop".to_owned(),
            name: "pay".to_owned(),
        }),
        hosts: owned(hosts),
        addresses: owned(addresses),
        resolved: Vec::new(),
        ports: vec![port],
        gateway: String::new(),
        callers: Vec::new(),
    }
}

/// What a host outside the mesh resolves to, at this port.
pub(crate) fn resolved(host: &str, port: u16, ips: &[IpAddr]) -> v1::Resource {
    let list = ips.iter().map(|ip| v1::Endpoint {
        ip: ip.to_string(),
        port: port.into(),
        ..v1::Endpoint::default()
    });
    let endpoints = v1::Endpoints {
        endpoints: list.collect(),
        ..v1::Endpoints::default()
    };
    resource(
        &wire::names::external(host, port),
        v1::resource::Content::Endpoints(endpoints),
    )
}
