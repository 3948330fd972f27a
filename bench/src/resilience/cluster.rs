//! The pods and Services of a scenario, and what Weft's proxies get of them, as the controller
//! would send it: policies are cut to what a proxy reports to carry out.
//!
//! Service number n is 10.96.0.n, with port 80 for HTTP/1.1 and 84 for gRPC. Every pod is
//! open to every other, with mutual TLS only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use policy::access::Source;
use policy::name::SpiffeId;
use policy::traffic::call::{Retry, Timeouts};
use policy::traffic::endpoint::{Balance, Locality};
use policy::traffic::guard::{Overload, Priority};
use policy::traffic::part::Parts;
use policy::traffic::pod::PodGuard;
use policy::traffic::set::{GrpcCode, GrpcCodes};
use policy::traffic::{EffectivePolicy, Sources};
use wire::v1::resource::Content;
use wire::{convert, names, v1};

use super::application::{Behaviour, GRPC, HTTP};
use super::network;
use crate::sections::{limited, whole};
use crate::standing_in::{ClusterView, resource};

const NAMESPACE: &str = "bench";
/// Ports of every Service.
pub(super) const HTTP_PORT: u16 = 80;
pub(super) const GRPC_PORT: u16 = 84;

/// A pod; its place in the list is its number in the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pod {
    /// Also its service account's.
    pub(super) name: &'static str,
    /// `None`: it only calls.
    pub(super) service: Option<&'static str>,
    pub(super) behaviour: Behaviour,
    /// Where it runs; empty: unknown.
    zone: &'static str,
}

impl Pod {
    pub(super) const fn caller(name: &'static str) -> Self {
        Self {
            name,
            service: None,
            behaviour: Behaviour::Answers,
            zone: "",
        }
    }

    pub(super) const fn of(
        service: &'static str,
        name: &'static str,
        behaviour: Behaviour,
    ) -> Self {
        Self {
            name,
            service: Some(service),
            behaviour,
            zone: "",
        }
    }

    pub(super) const fn in_zone(self, zone: &'static str) -> Self {
        Self { zone, ..self }
    }

    pub(super) fn identity(&self) -> Result<SpiffeId> {
        Ok(SpiffeId::of(Cluster::TRUST_DOMAIN, NAMESPACE, self.name)?)
    }
}

/// What the bench sets in a mesh, beyond the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// `timeouts.backendRequest`.
    pub(super) attempt: Option<Duration>,
    /// `retry.grpcCodes: [Unavailable]`.
    pub(super) grpc_unavailable: bool,
    /// `overload`, and `priority: Critical` for this account.
    pub(super) overload: Option<&'static str>,
    /// `balance.locality: PreferSameZone`.
    pub(super) near: bool,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pods: Vec<Pod>,
    requested: Asked,
    /// What proxies could not use; must stay empty.
    refused: Mutex<Vec<String>>,
    /// What the proxies say that they carry out.
    carried: Mutex<Option<Parts>>,
}

impl Cluster {
    pub(super) fn new(pods: &[Pod], requested: Asked) -> Self {
        Self {
            pods: pods.to_vec(),
            requested,
            refused: Mutex::default(),
            carried: Mutex::default(),
        }
    }

    pub(super) fn refusals(&self) -> Vec<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }

    /// Nothing where no proxy has said anything.
    pub(super) fn carried(&self) -> Parts {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.unwrap_or(Parts::NONE)
    }

    fn pod(&self, name: &str) -> Option<(usize, &Pod)> {
        let mut pods = self.pods.iter().enumerate();
        pods.find(|(_, pod)| pod.name == name)
    }

    fn traffic(&self) -> Result<EffectivePolicy> {
        let mut traffic = EffectivePolicy::default();
        if let Some(attempt) = self.requested.attempt {
            let timeouts = Timeouts {
                backend_request: Some(attempt),
                ..Timeouts::DEFAULT
            };
            traffic.timeouts = limited(Sources::Everyone, timeouts);
        }
        if self.requested.grpc_unavailable {
            let retry = Retry {
                grpc_codes: GrpcCodes::of(&[GrpcCode::Unavailable]),
                ..Retry::DEFAULT
            };
            traffic.retry = limited(Sources::Everyone, retry);
        }
        if let Some(critical) = self.requested.overload {
            let critical = SpiffeId::of(Self::TRUST_DOMAIN, NAMESPACE, critical)?;
            let critical = Sources::Only(vec![Source::Identity(critical)]);
            traffic.overload = whole(Overload::DEFAULT);
            traffic.priority = limited(critical, Priority::Critical);
        }
        if self.requested.near {
            traffic.balance = whole(Balance {
                locality: Some(Locality::PreferSameZone),
                ..Balance::DEFAULT
            });
        }
        Ok(traffic)
    }

    fn endpoints(&self, service: &str, port: u16) -> Result<v1::Endpoints> {
        let pods = self.pods.iter().enumerate();
        let served = pods.filter(|(_, pod)| pod.service == Some(service));
        let endpoints = served.map(|(at, pod)| {
            Ok(v1::Endpoint {
                ip: network::ip(at).to_string(),
                port: port.into(),
                identity: pod.identity()?.as_str().to_owned(),
                namespace: NAMESPACE.to_owned(),
                pod: pod.name.to_owned(),
                zone: pod.zone.to_owned(),
                ..v1::Endpoint::default()
            })
        });
        Ok(v1::Endpoints {
            endpoints: endpoints.collect::<Result<_>>()?,
            ..v1::Endpoints::default()
        })
    }

    /// A Service's port: its name as a resource, and all that belongs to it.
    fn service(&self, name: &str, port: u16, parts: Parts) -> Result<Vec<v1::Resource>> {
        let (protocol, target) = match port {
            GRPC_PORT => (v1::Protocol::Grpc, GRPC),
            _ => (v1::Protocol::Http1, HTTP),
        };
        let endpoints = names::endpoints(NAMESPACE, name, port);
        let service = v1::Service {
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            port: port.into(),
            protocol: protocol.into(),
            endpoints: endpoints.clone(),
            ..v1::Service::default()
        };
        let mut all = vec![
            resource(
                &endpoints,
                Content::Endpoints(self.endpoints(name, target)?),
            ),
            resource(
                &names::service(NAMESPACE, name, port),
                Content::Service(service),
            ),
        ];
        let policy = convert::policy_message(&self.traffic()?.for_callers());
        // A proxy that names no part is older than policies.
        if !parts.is_empty() && !policy.rules.is_empty() {
            all.push(resource(
                &names::policy(NAMESPACE, name, port),
                Content::Policy(policy),
            ));
        }
        Ok(all)
    }
}

impl ClusterView for Cluster {
    const NAMESPACE: &'static str = NAMESPACE;
    const TRUST_DOMAIN: &'static str = "cluster.local";

    fn identity(&self, pod: &str) -> Option<SpiffeId> {
        self.pod(pod)?.1.identity().ok()
    }

    fn own(&self, pod: &str, parts: Parts) -> Result<Vec<v1::Resource>> {
        *self.carried.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
        let (at, pod) = self.pod(pod).context("no such pod")?;
        let port = |number: u16, protocol: v1::Protocol| v1::PortProtocol {
            first: number.into(),
            last: number.into(),
            protocol: protocol.into(),
        };
        let workload = v1::Workload {
            namespace: NAMESPACE.to_owned(),
            pod: pod.name.to_owned(),
            identity: pod.identity()?.as_str().to_owned(),
            enforcement: v1::Enforcement::Open.into(),
            mtls: v1::MtlsMode::Strict.into(),
            ports: vec![
                port(HTTP, v1::Protocol::Http1),
                port(GRPC, v1::Protocol::Grpc),
            ],
            ips: vec![network::ip(at).to_string()],
            zone: pod.zone.to_owned(),
            ..v1::Workload::default()
        };
        let mut own = vec![resource(names::WORKLOAD, Content::Workload(workload))];
        let traffic = self.traffic()?.for_pods();
        if !parts.is_empty() && pod.service.is_some() && traffic != EffectivePolicy::default() {
            let ports = [(HTTP, traffic.clone()), (GRPC, traffic)];
            let guard = PodGuard {
                ports: ports.into(),
                read_only: None,
            };
            own.push(resource(names::GUARD, Content::Guard((&guard).into())));
        }
        Ok(own)
    }

    fn destination(&self, _: &str, parts: Parts, addr: SocketAddr) -> Result<Vec<v1::Resource>> {
        let known = service_at(&self.pods, addr);
        let mut all = Vec::new();
        let target = match known {
            Some(name) => {
                all = self.service(name, addr.port(), parts)?;
                let key = names::service(NAMESPACE, name, addr.port());
                v1::destination::Target::Service(key)
            }
            None => v1::destination::Target::External(v1::External::default()),
        };
        let name = names::destination(addr.ip(), addr.port());
        let target = Some(target);
        all.push(resource(
            &name,
            Content::Destination(v1::Destination { target }),
        ));
        Ok(all)
    }

    fn refused(&self, pod: &str, nack: &v1::Nack) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push(format!("{pod} {}: {}", nack.name, nack.reason));
    }
}

/// Every Service, in the order of their numbers.
pub(super) fn services(pods: &[Pod]) -> Vec<&'static str> {
    let mut names: Vec<_> = pods.iter().filter_map(|pod| pod.service).collect();
    names.dedup();
    names
}

/// Where a Service is called: its number begins with 1.
pub(super) fn address(number: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 96, 0, number), port))
}

fn service_at(pods: &[Pod], addr: SocketAddr) -> Option<&'static str> {
    let IpAddr::V4(ip) = addr.ip() else {
        return None;
    };
    let [10, 96, 0, number] = ip.octets() else {
        return None;
    };
    let served = addr.port() == HTTP_PORT || addr.port() == GRPC_PORT;
    let at = usize::from(number).checked_sub(1)?;
    services(pods).get(at).copied().filter(|_| served)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::traffic::part::{Part, Parts};
    use wire::v1::resource::Content;

    use super::{Asked, Behaviour, Cluster, GRPC_PORT, HTTP_PORT, Pod, address};
    use crate::standing_in::ClusterView as _;

    const PODS: [Pod; 3] = [
        Pod::caller("caller"),
        Pod::of("web", "web-1", Behaviour::Answers),
        Pod::of("web", "web-2", Behaviour::Answers),
    ];

    fn names(cluster: &Cluster, parts: Parts, port: u16) -> Vec<String> {
        let all = cluster.destination("caller", parts, address(1, port));
        all.unwrap().into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn without_a_policy_none_is_sent() {
        let cluster = Cluster::new(&PODS, Asked::default());
        assert_eq!(
            names(&cluster, Parts::ALL, HTTP_PORT),
            [
                "endpoints/bench/web:80",
                "service/bench/web:80",
                "destination/10.96.0.1:80"
            ]
        );
        assert_eq!(
            names(&cluster, Parts::ALL, 81),
            ["destination/10.96.0.1:81"]
        );
        assert_eq!(cluster.own("web-1", Parts::ALL).unwrap().len(), 1);
    }

    #[test]
    fn zones_are_set_for_callers_and_endpoints() {
        let zoned = PODS.map(|pod| pod.in_zone("a"));
        for (pods, zone) in [(zoned, "a"), (PODS, "")] {
            let cluster = Cluster::new(&pods, Asked::default());
            let endpoints = cluster.endpoints("web", HTTP_PORT).unwrap().endpoints;
            assert!(endpoints.iter().all(|one| one.zone == zone));
            let own = cluster.own("caller", Parts::ALL).unwrap();
            let Some(Content::Workload(workload)) = &own[0].content else {
                panic!("{own:?}")
            };
            assert_eq!(workload.zone, zone);
        }
        let near = Asked {
            near: true,
            ..Asked::default()
        };
        let cluster = Cluster::new(&PODS, near);
        let policy = "policy/bench/web:80".to_owned();
        let named = names(&cluster, Parts::of(&[Part::Locality]), HTTP_PORT);
        assert!(named.contains(&policy), "{named:?}");
    }

    #[test]
    fn proxy_older_than_policies_is_sent_none() {
        let requested = Asked {
            attempt: Some(Duration::from_millis(500)),
            overload: Some("caller"),
            ..Asked::default()
        };
        let cluster = Cluster::new(&PODS, requested);
        let policy = "policy/bench/web:84".to_owned();
        let attempts = Parts::of(&[Part::AttemptTimeout]);
        assert!(names(&cluster, attempts, GRPC_PORT).contains(&policy));
        assert!(!names(&cluster, Parts::NONE, GRPC_PORT).contains(&policy));

        let own = |parts| cluster.own("web-1", parts).unwrap();
        assert_eq!(own(Parts::NONE).len(), 1);
        let guarded = own(attempts);
        assert_eq!(cluster.carried(), attempts);
        let Some(Content::Guard(guard)) = &guarded[1].content else {
            panic!("{guarded:?}")
        };
        assert_eq!(guard.ports.len(), 2);
        assert_eq!(guard.ports[0].rules.len(), 2);
    }
}
