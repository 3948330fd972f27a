//! The mesh's own way from objects to a decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crds::{
    observe::{ExplanationSpec, From, Header, To},
    smi::validation::Cluster,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use kube::core::DynamicObject;
use model::{
    Defaults, Model, PodId,
    explain::{CallerView, Explained, SeenCallers},
    translate,
    world::{self, ObjectKey},
};
use oracle::{Call, Caller, Shares, Traffic, World};
use policy::{
    access::{Access, Caller as Proven, EvaluatedTraffic as Sent, Rule},
    http_match::RequestFacts,
    mode::MtlsMode,
    name::SpiffeId,
    path::PathForms,
    protocol::{PortProtocols, Protocol},
    route::Table,
};
use prost::Message;
use serde_json::{Value, json};
use wire::capability::Capabilities;
use wire::v1::{self, resource::Content};

/// A compiled cluster.
pub(crate) struct Mesh {
    model: Model,
    objects: Vec<Value>,
}

/// What the proxy of a pod holds for its inbound side.
struct Inbound {
    access: Access,
    mtls: MtlsMode,
    ports: PortProtocols,
}

impl Mesh {
    /// Takes every object the way that the API server and the controller take it.
    pub(crate) fn new(world: &World) -> Self {
        let mut facts = world::World::default();
        for object in &world.objects {
            take(&mut facts, object);
        }
        for slice in slices(world) {
            take(&mut facts, &slice);
        }
        let defaults = Defaults {
            access: world.chart.access.parse().unwrap(),
            mtls: world.chart.mtls.parse().unwrap(),
            access_pods_may_loosen: world.chart.pods_may_loosen,
            mtls_pods_may_loosen: world.chart.pods_may_loosen,
            ..Defaults::default()
        };
        Self {
            model: Model::compile(&facts, &defaults).0,
            objects: world.objects.clone(),
        }
    }

    /// What is made of its objects.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Whether the called port is declared to carry HTTP, so that nothing else is served there.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn carries_http(&self, call: &Call) -> bool {
        let inbound = self.inbound(&PodId::new(&call.namespace, &call.pod));
        inbound.is_some_and(|inbound| inbound.ports.lookup(call.port).is_http())
    }

    /// Whether the proxy of the called pod lets the call pass.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn allows(&self, call: &Call) -> bool {
        let pod = PodId::new(&call.namespace, &call.pod);
        let Some(inbound) = self.inbound(&pod) else {
            return false;
        };
        let identity = match &call.caller {
            Caller::Outside => None,
            Caller::Pod { namespace, name } => {
                let Some(record) = self.model.pod(&PodId::new(namespace, name)) else {
                    return false;
                };
                let account = &record.service_account;
                let id = SpiffeId::of("cluster.local", namespace, account).unwrap();
                Some((id, record.uid))
            }
        };
        if identity.is_none() && inbound.mtls == MtlsMode::Strict {
            return false;
        }
        let caller = match &identity {
            Some((id, uid)) => Proven::Mesh { id, pod: Some(uid) },
            None => Proven::Outside,
        };
        let declared = inbound.ports.lookup(call.port);
        let access = &inbound.access;
        match &call.traffic {
            Traffic::Bytes if declared.is_http() => false,
            Traffic::Http(request) if !matches!(declared, Protocol::Opaque | Protocol::Tls) => {
                let (method, headers) = (method(request), headers(request));
                let facts = RequestFacts {
                    method: &method,
                    path: &request.path,
                    query: None,
                    headers: &headers,
                };
                let path = PathForms::of(&request.path);
                let judged = access.decide_request(caller, call.port, &facts, &path);
                judged.is_ok_and(|judged| judged.verdict.is_allowed())
            }
            _ if declared.is_opaque() => {
                access.decide(caller, call.port, Sent::Opaque).is_allowed()
            }
            _ => access.decide(caller, call.port, Sent::Bytes).is_allowed(),
        }
    }

    /// The same by explanation; `None` where that covers more than a proxy decides: no proxy
    /// evaluates a caller without one.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn explains(&self, call: &Call) -> Option<Explained> {
        let from = match &call.caller {
            Caller::Outside => From {
                outside: true,
                ..From::default()
            },
            Caller::Pod { namespace, name } => {
                let record = self.model.pod(&PodId::new(namespace, name))?;
                if !record.meshed {
                    return None;
                }
                From {
                    kind: "Pod".to_owned(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    ..From::default()
                }
            }
        };
        let mut spec = ExplanationSpec {
            from,
            to: To {
                kind: "Pod".to_owned(),
                namespace: call.namespace.clone(),
                name: call.pod.clone(),
                port: Some(call.port),
            },
            ..ExplanationSpec::default()
        };
        match &call.traffic {
            Traffic::Bytes => spec.tcp = true,
            Traffic::Http(request) => {
                if request.path.contains(['?', '#']) {
                    return None;
                }
                spec.method = Some(request.method.clone());
                spec.path = Some(request.path.clone());
                for (name, value) in &request.headers {
                    let value = String::from_utf8(value.clone()).ok()?;
                    spec.headers.push(Header {
                        name: name.clone(),
                        value,
                    });
                }
            }
        }
        let owner = |pod: &PodId| ("Pod".to_owned(), pod.clone());
        let explained = self
            .model
            .explain(&spec, CallerView::Known, &owner, &|_| {
                SeenCallers::default()
            })
            .ok()?;
        (!explained.deciding_pods.is_empty()).then_some(explained)
    }

    /// How a client's proxy shares out what is sent to a Service's address; `None` if
    /// there is no such Service or port.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn shares(
        &self,
        namespace: &str,
        service: &str,
        port: u16,
        traffic: &Traffic,
    ) -> Option<Shares> {
        let service = self.objects.iter().find(|object| {
            object["kind"] == "Service"
                && object["metadata"]["namespace"] == namespace
                && object["metadata"]["name"] == service
        })?;
        let ip: IpAddr = service["spec"]["clusterIP"].as_str()?.parse().ok()?;
        let client = self.model.meshed_pods().next()?.clone();
        let subscribed = BTreeSet::from([wire::names::destination(ip, port)]);
        let resources = self.resources(&client, &subscribed)?;
        let service = resources.into_values().find_map(|content| match content {
            Content::Service(service) => Some(service),
            _ => None,
        })?;
        let splits = service.splits.iter().map(|split| {
            let rule = wire::convert::split(split, port).unwrap();
            rule.map(Some)
        });
        let table = Table {
            rules: splits.collect(),
            otherwise: None,
        };
        let parts = match traffic {
            Traffic::Http(request) => Some((method(request), headers(request), &request.path)),
            Traffic::Bytes => None,
        };
        let facts = parts.as_ref().map(|(method, headers, path)| RequestFacts {
            method,
            path,
            query: None,
            headers,
        });
        let (Some(backends), _) = table.decide(facts.as_ref()) else {
            return Some(Shares::Root);
        };
        let mut shares = BTreeMap::new();
        for backend in backends {
            *shares.entry(backend.service.name.to_string()).or_default() +=
                f64::from(backend.weight);
        }
        Some(Shares::Split(shares))
    }

    /// All that the proxies of a namespace could get, as bytes, by pod and name: their own policy,
    /// and every address of Services and pods of the namespace.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn everything(&self, namespace: &str) -> BTreeMap<String, Vec<u8>> {
        let here = |object: &&Value| object["metadata"]["namespace"] == namespace;
        let objects: Vec<&Value> = self.objects.iter().filter(here).collect();
        let ips = objects.iter().flat_map(|object| {
            [&object["spec"]["clusterIP"], &object["status"]["podIP"]]
                .into_iter()
                .filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok())
        });
        let subscribed: BTreeSet<String> = ips
            .flat_map(|ip| [80, 8080, 9090].map(|port| wire::names::destination(ip, port)))
            .collect();
        let mut all = BTreeMap::new();
        for pod in objects.iter().filter(|object| object["kind"] == "Pod") {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let resources = self
                .model
                .resolve(
                    &PodId::new(namespace, name),
                    &subscribed,
                    &Capabilities::default(),
                )
                .unwrap();
            for (resource, published) in resources.resources {
                let bytes = published.resource.encode_to_vec();
                all.insert(format!("{namespace}/{name} {resource}"), bytes);
            }
        }
        all
    }

    /// Reads everything as the proxies of a namespace would, and counts rules and splits.
    #[allow(dead_code, reason = "not every test program asks for it")]
    pub(crate) fn readable_by_proxies(&self, namespace: &str) -> usize {
        let mut read = 0;
        for (name, bytes) in self.everything(namespace) {
            let resource = v1::Resource::decode(bytes.as_slice()).unwrap();
            match resource.content.unwrap() {
                Content::Rule(rule) | Content::ExtendedRule(rule) => {
                    Rule::try_from(&rule).unwrap_or_else(|error| panic!("{name}: {error}"));
                    read += 1;
                }
                Content::Service(service) => {
                    for split in &service.splits {
                        wire::convert::split(split, 80)
                            .unwrap_or_else(|error| panic!("{name}: {error}"));
                        read += 1;
                    }
                }
                _ => {}
            }
        }
        read
    }

    fn inbound(&self, pod: &PodId) -> Option<Inbound> {
        let mut workload = None;
        let mut rules = Vec::new();
        for (name, content) in self.resources(pod, &BTreeSet::new())? {
            match content {
                Content::Workload(content) => workload = Some(content),
                Content::Rule(rule) | Content::ExtendedRule(rule) => rules
                    .push(Rule::try_from(&rule).unwrap_or_else(|error| panic!("{name}: {error}"))),
                _ => {}
            }
        }
        let workload = workload?;
        Some(Inbound {
            access: Access {
                enforcement: wire::convert::enforcement(workload.enforcement),
                rules,
            },
            mtls: wire::convert::mtls(workload.mtls),
            ports: wire::convert::port_protocols(&workload.ports).unwrap(),
        })
    }

    /// What a pod's proxy reads from the wire.
    fn resources(
        &self,
        pod: &PodId,
        destinations: &BTreeSet<String>,
    ) -> Option<BTreeMap<String, Content>> {
        let capabilities = Capabilities::default();
        let set = self.model.resolve(pod, destinations, &capabilities)?;
        let read = set.resources.into_iter().map(|(name, published)| {
            let bytes = published.resource.encode_to_vec();
            let read = v1::Resource::decode(bytes.as_slice()).unwrap();
            (name, read.content.unwrap())
        });
        Some(read.collect())
    }
}

fn method(request: &oracle::Request) -> Method {
    Method::from_bytes(request.method.as_bytes()).unwrap()
}

fn headers(request: &oracle::Request) -> HeaderMap {
    let lines = request.headers.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        (name, HeaderValue::from_bytes(value).unwrap())
    });
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, value);
    }
    headers
}

fn take(facts: &mut world::World, object: &Value) {
    let kind = object["kind"].as_str().unwrap();
    let api_version = object["apiVersion"].as_str().unwrap();
    let object = match api_version.split_once("/v1alpha") {
        Some((group, _)) => {
            match crds::convert::convert(object, &format!("{group}/v1alpha4")) {
                Ok(stored) => stored,
                // The API server refuses such a write.
                Err(_) if object["metadata"]["namespace"] == "evil" => return,
                Err(error) => panic!("{error}: {object}"),
            }
        }
        None => object.clone(),
    };
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let key = translate::key(&object.metadata);
    let cluster = Cluster {
        domain: oracle::CLUSTER_DOMAIN.into(),
        ..Cluster::default()
    };
    macro_rules! put {
        ($store:ident, $fact:expr) => {{
            Arc::make_mut(&mut facts.$store).insert(key, Arc::new($fact));
        }};
    }
    match kind {
        "Pod" => put!(pods, translate::pod(object).unwrap()),
        "Service" => put!(services, translate::service(object).unwrap()),
        "EndpointSlice" => put!(slices, translate::slice(object).unwrap()),
        "Namespace" => {
            let key = ObjectKey::new("", &key.name);
            let fact = translate::namespace(object).unwrap();
            Arc::make_mut(&mut facts.namespaces).insert(key, Arc::new(fact));
        }
        "TrafficTarget" => put!(targets, translate::target(&object, &cluster)),
        "TrafficSplit" => put!(splits, translate::split(&object, &cluster)),
        "HTTPRouteGroup" => put!(groups, translate::group(&object, &cluster)),
        "TCPRoute" => put!(tcp_routes, translate::tcp_route(&object, &cluster)),
        "IdentityBinding" => put!(bindings, translate::binding(&object, &cluster)),
        "UDPRoute" => put!(udp_routes, translate::udp_route(&object, &cluster)),
        other => panic!("no such kind: {other}"),
    }
}

/// What the EndpointSlice controller makes of Services and pods.
fn slices(world: &World) -> Vec<Value> {
    let of = |kind: &'static str| world.objects.iter().filter(move |o| o["kind"] == kind);
    let mut slices = Vec::new();
    for service in of("Service") {
        let (meta, spec) = (&service["metadata"], &service["spec"]);
        let Some(selector) = spec["selector"].as_object() else {
            continue;
        };
        let chosen = of("Pod").filter(|pod| {
            let labels = &pod["metadata"]["labels"];
            pod["metadata"]["namespace"] == meta["namespace"]
                && selector.iter().all(|(key, value)| labels[key] == *value)
        });
        let endpoints: Vec<Value> = chosen
            .map(|pod| {
                json!({
                    "addresses": [pod["status"]["podIP"]],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "targetRef": {
                        "kind": "Pod",
                        "namespace": pod["metadata"]["namespace"],
                        "name": pod["metadata"]["name"],
                    },
                })
            })
            .collect();
        let ports = spec["ports"].as_array().unwrap().iter();
        let ports: Vec<Value> = ports
            .map(|port| {
                let own = port.get("targetPort").unwrap_or(&port["port"]);
                json!({"name": port["name"], "port": own, "protocol": "TCP"})
            })
            .collect();
        slices.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": meta["name"], "namespace": meta["namespace"],
                "labels": {"kubernetes.io/service-name": meta["name"]},
            },
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        }));
    }
    slices
}
