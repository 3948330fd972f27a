//! The cluster that the stand-in serves to proxies, read from JSON:
//!
//! ```text
//! { "listen": "0.0.0.0:8443",       where proxies find the stand-in
//!   "root": "root.pem",             written: what they trust
//!   "service": "10.96.0.10",        a Service with every port, which the pod
//!   "serves": "server",             of this name serves on the same port
//!   "pods": [ { "name": "server", "ip": "10.78.0.2",
//!               "access": "open",   or audit, enforce
//!               "mtls": "permissive",              or strict
//!               "ports": { "8080": "http1" },      declared; others are detected
//!               "sees": "opaque",   optional: to its proxy every port carries bytes
//!               "admitted": false,  optional: it has an identity, and no rule lets it in
//!               "rules": [ { "name": "a", "ports": [8080], "paths": ["/public.*"] } ]
//!   } ] }
//! ```
//! Every rule lets in the other pods, by identity, but those that are not admitted. A rule
//! with `"ports": "any"` is a TCPRoute without ports; one without `ports` or `paths` has no
//! such route.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use policy::name::SpiffeId;
use policy::traffic::part::Parts;
use serde_json::Value;
use wire::v1::resource::Content;
use wire::{names, v1};

use crate::standing_in::{ClusterView, resource};

const TRUST_DOMAIN: &str = "cluster.local";
const NAMESPACE: &str = "interop";
const SERVICE: &str = "app";

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) listen: SocketAddr,
    pub(crate) root: PathBuf,
    service: IpAddr,
    serves: String,
    pods: Vec<Pod>,
}

#[derive(Clone, Debug)]
struct Pod {
    name: String,
    ip: IpAddr,
    access: v1::Enforcement,
    mtls: v1::MtlsMode,
    ports: BTreeMap<u16, v1::Protocol>,
    /// Instead of what is declared, so that its proxy opens tunnels.
    sees: Option<v1::Protocol>,
    /// Whether rules let it in.
    admitted: bool,
    rules: Vec<Value>,
}

impl Pod {
    fn identity(&self) -> Result<SpiffeId> {
        Ok(SpiffeId::of(TRUST_DOMAIN, NAMESPACE, &self.name)?)
    }

    /// What a port of this pod carries, as sent to `asker`.
    fn protocol(&self, asker: &Self, port: u16) -> v1::Protocol {
        let declared = self.ports.get(&port).copied();
        asker.sees.or(declared).unwrap_or(v1::Protocol::Detect)
    }

    fn endpoint(&self, asker: &Self, port: u16) -> Result<v1::Endpoint> {
        Ok(v1::Endpoint {
            ip: self.ip.to_string(),
            port: port.into(),
            identity: self.identity()?.as_str().to_owned(),
            namespace: NAMESPACE.to_owned(),
            pod: self.name.clone(),
            opaque: self.protocol(asker, port) == v1::Protocol::Opaque,
            ..v1::Endpoint::default()
        })
    }
}

impl Cluster {
    pub(crate) fn read(text: &str) -> Result<Self> {
        let all: Value = serde_json::from_str(text)?;
        let pods = all["pods"].as_array().context("field pods is no list")?;
        Ok(Self {
            listen: text_of(&all, "listen")?.parse().context("listen")?,
            root: text_of(&all, "root")?.into(),
            service: text_of(&all, "service")?.parse().context("service")?,
            serves: text_of(&all, "serves")?.to_owned(),
            pods: pods.iter().map(pod).collect::<Result<_>>()?,
        })
    }

    fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.name == name)
    }

    fn resources_of(&self, pod: &Pod) -> Result<Vec<v1::Resource>> {
        let ports = pod.ports.iter().map(|(port, protocol)| v1::PortProtocol {
            first: (*port).into(),
            last: (*port).into(),
            protocol: (*protocol).into(),
        });
        let workload = v1::Workload {
            namespace: NAMESPACE.to_owned(),
            pod: pod.name.clone(),
            identity: pod.identity()?.as_str().to_owned(),
            enforcement: pod.access.into(),
            mtls: pod.mtls.into(),
            ports: ports.collect(),
            ips: vec![pod.ip.to_string()],
            ..v1::Workload::default()
        };
        let mut all = vec![resource(names::WORKLOAD, Content::Workload(workload))];
        for rule in &pod.rules {
            all.push(self.rule(pod, rule)?);
        }
        Ok(all)
    }

    fn rule(&self, pod: &Pod, rule: &Value) -> Result<v1::Resource> {
        let name = text_of(rule, "name")?;
        let mut sources = Vec::new();
        let others = self.pods.iter().filter(|other| other.name != pod.name);
        for other in others.filter(|other| other.admitted) {
            let id = other.identity()?.as_str().to_owned();
            sources.push(v1::Source {
                who: Some(v1::source::Who::SpiffeId(id)),
            });
        }
        let ports = match &rule["ports"] {
            Value::Null => None,
            Value::String(any) if any == "any" => Some(v1::PortSet {
                any: true,
                ports: Vec::new(),
            }),
            Value::Array(list) => Some(v1::PortSet {
                any: false,
                ports: list.iter().map(number).collect::<Result<_>>()?,
            }),
            other => bail!("rule {name}: ports are a list or \"any\", not {other}"),
        };
        let http = match &rule["paths"] {
            Value::Null => None,
            Value::Array(paths) => {
                let matches = paths.iter().enumerate().map(|(at, path)| v1::HttpMatch {
                    name: format!("route-{at}"),
                    path_regex: path.as_str().map(str::to_owned),
                    ..v1::HttpMatch::default()
                });
                Some(v1::HttpMatches {
                    matches: matches.collect(),
                })
            }
            other => bail!("rule {name}: paths are a list, not {other}"),
        };
        let content = v1::Rule {
            origin: Some(v1::ObjectRef {
                kind: "TrafficTarget".to_owned(),
                namespace: NAMESPACE.to_owned(),
                name: name.to_owned(),
            }),
            sources,
            ports,
            http,
            limit: None,
        };
        Ok(resource(
            &names::rule(NAMESPACE, name),
            Content::Rule(content),
        ))
    }

    fn stands_at(&self, asker: &Pod, addr: SocketAddr) -> Result<Vec<v1::Resource>> {
        let name = names::destination(addr.ip(), addr.port());
        let mut all = Vec::new();
        let target = if addr.ip() == self.service {
            let pod = self
                .pod(&self.serves)
                .context("field serves: no such pod")?;
            let key = names::service(NAMESPACE, SERVICE, addr.port());
            let endpoints = names::endpoints(NAMESPACE, SERVICE, addr.port());
            let service = v1::Service {
                namespace: NAMESPACE.to_owned(),
                name: SERVICE.to_owned(),
                port: addr.port().into(),
                protocol: pod.protocol(asker, addr.port()).into(),
                endpoints: endpoints.clone(),
                ..v1::Service::default()
            };
            let served = v1::Endpoints {
                endpoints: vec![pod.endpoint(asker, addr.port())?],
                ..v1::Endpoints::default()
            };
            all.push(resource(&endpoints, Content::Endpoints(served)));
            all.push(resource(&key, Content::Service(service)));
            v1::destination::Target::Service(key)
        } else if let Some(pod) = self.pods.iter().find(|pod| pod.ip == addr.ip()) {
            v1::destination::Target::Pod(v1::PodTarget {
                endpoint: Some(pod.endpoint(asker, addr.port())?),
                protocol: pod.protocol(asker, addr.port()).into(),
                headless: Vec::new(),
            })
        } else {
            v1::destination::Target::External(v1::External::default())
        };
        let target = Some(target);
        all.push(resource(
            &name,
            Content::Destination(v1::Destination { target }),
        ));
        Ok(all)
    }
}

impl ClusterView for Cluster {
    const NAMESPACE: &'static str = NAMESPACE;
    const TRUST_DOMAIN: &'static str = TRUST_DOMAIN;

    fn identity(&self, pod: &str) -> Option<SpiffeId> {
        self.pod(pod)?.identity().ok()
    }

    fn own(&self, pod: &str, _: Parts) -> Result<Vec<v1::Resource>> {
        self.resources_of(self.pod(pod).context("no such pod")?)
    }

    fn destination(&self, pod: &str, _: Parts, addr: SocketAddr) -> Result<Vec<v1::Resource>> {
        self.stands_at(self.pod(pod).context("no such pod")?, addr)
    }

    fn refused(&self, _: &str, nack: &v1::Nack) {
        eprintln!("refused {}: {}", nack.name, nack.reason);
    }
}

fn pod(value: &Value) -> Result<Pod> {
    let name = text_of(value, "name")?.to_owned();
    let mut ports = BTreeMap::new();
    for (port, protocol) in value["ports"].as_object().into_iter().flatten() {
        ports.insert(port.parse().context("ports")?, protocol_of(protocol)?);
    }
    Ok(Pod {
        ip: text_of(value, "ip")?.parse().context("ip")?,
        access: match text_of(value, "access")? {
            "open" => v1::Enforcement::Open,
            "audit" => v1::Enforcement::Audit,
            "enforce" => v1::Enforcement::Enforce,
            other => bail!("pod {name}: access is open, audit or enforce, not {other}"),
        },
        mtls: match text_of(value, "mtls")? {
            "permissive" => v1::MtlsMode::Permissive,
            "strict" => v1::MtlsMode::Strict,
            other => bail!("pod {name}: mtls is permissive or strict, not {other}"),
        },
        ports,
        sees: match &value["sees"] {
            Value::Null => None,
            protocol => Some(protocol_of(protocol)?),
        },
        admitted: value["admitted"].as_bool().unwrap_or(true),
        rules: value["rules"].as_array().cloned().unwrap_or_default(),
        name,
    })
}

fn protocol_of(value: &Value) -> Result<v1::Protocol> {
    Ok(match value.as_str() {
        Some("http1") => v1::Protocol::Http1,
        Some("http2") => v1::Protocol::Http2,
        Some("grpc") => v1::Protocol::Grpc,
        Some("opaque") => v1::Protocol::Opaque,
        Some("tls") => v1::Protocol::Tls,
        _ => bail!("a port is http1, http2, grpc, opaque or tls, not {value}"),
    })
}

fn text_of<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    let text = value[field].as_str();
    text.with_context(|| format!("field {field} is missing or no text"))
}

fn number(value: &Value) -> Result<u32> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.with_context(|| format!("{value} is no port"))
}

#[cfg(test)]
mod tests {
    use policy::traffic::part::Parts;
    use wire::v1;
    use wire::v1::resource::Content;

    use super::Cluster;
    use crate::standing_in::ClusterView as _;

    const TEXT: &str = r#"{"listen": "0.0.0.0:8443", "root": "root.pem", "service": "10.96.0.10",
        "serves": "server", "pods": [
          {"name": "server", "ip": "10.78.0.2", "access": "open", "mtls": "strict",
           "ports": {"8080": "http1"}, "rules": [{"name": "a", "paths": ["/public"]}]}]}"#;

    #[test]
    fn a_pod_gets_its_workload_and_its_rules() {
        let cluster = Cluster::read(TEXT).unwrap();
        let own = cluster.own("server", Parts::NONE).unwrap();
        let names: Vec<_> = own.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["workload", "rule/interop/a"]);
    }

    #[test]
    fn stand_in_rule_admits_all_pods_except_unadmitted() {
        let further = r#"{"name": "a", "ip": "10.78.0.3", "access": "open", "mtls": "strict"},
            {"name": "b", "ip": "10.78.0.4", "access": "open", "mtls": "strict", "admitted": false},
            {"name": "server""#;
        let cluster = Cluster::read(&TEXT.replacen(r#"{"name": "server""#, further, 1)).unwrap();
        let own = cluster.own("server", Parts::NONE).unwrap();
        let Some(Content::Rule(rule)) = &own[1].content else {
            panic!("{own:?}");
        };
        let let_in = rule.sources.iter().filter_map(|one| match &one.who {
            Some(v1::source::Who::SpiffeId(id)) => Some(id.as_str()),
            _ => None,
        });
        let let_in: Vec<_> = let_in.collect();
        assert_eq!(let_in, ["spiffe://cluster.local/ns/interop/sa/a"]);
    }

    #[test]
    fn misspelt_pod_mode_is_refused_with_pod_name() {
        let error = Cluster::read(&TEXT.replace("open", "opne")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pod server: access is open, audit or enforce, not opne"
        );
    }
}
