//! TrafficSplits as routes of the Gateway API: an HTTPRoute or a TCPRoute for each port of the
//! Service that is split.
//!
//! A TrafficSplit may say what no route can. What is lost then is reported with its field, so that
//! an author decides about it and not this program.
//!
//! Two things differ that no field shows. A split compares each value of a header that a request has
//! more than once, and a route compares them as one text; what is written for a route fits one
//! value with commas as it fits several. And a route names its backends for good, where a split
//! passes over a Service until it is there.

mod backends;
mod matches;
mod source;

use crds::{
    labels::OPAQUE_PORTS,
    smi::{
        TrafficSplit,
        validation::{Severity, Split, Validate},
    },
};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use policy::protocol::{DEFAULT_OPAQUE_PORTS, PortRange, Protocol};
use serde_json::{Value, json};

pub use source::Around;

use crate::kinds::{HTTPRoute, TCPRoute};
use source::{Nothing, Source, context, is_external, is_named, is_tcp, service};

/// Characters of the longest name of an object.
const LONGEST_NAME: usize = 253;

/// What a TrafficSplit becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Converted {
    /// HTTPRoutes and TCPRoutes, as they are applied; one for each port of the Service at most.
    pub objects: Vec<Value>,
    /// What cannot be said exactly, each as `FIELD: why`.
    pub unsaid: Vec<String>,
}

/// The routes that do what a split does.
#[must_use]
pub fn from_split(split: &TrafficSplit, around: &Around) -> Converted {
    let mut unsaid = Vec::new();
    let objects = objects(split, around, &mut unsaid).unwrap_or_default();
    Converted { objects, unsaid }
}

fn objects(
    object: &TrafficSplit,
    around: &Around,
    unsaid: &mut Vec<String>,
) -> Result<Vec<Value>, Nothing> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let (split, mistakes) = object.spec.validate(&context(namespace, around));
    let wrong = mistakes
        .iter()
        .filter(|one| one.severity == Severity::Refuse);
    unsaid.extend(wrong.map(|one| format!("{}: {}", one.field, one.text)));
    let root = root(&split, around, unsaid)?;
    if !split.weights_fit {
        return Err(Nothing);
    }
    let source = Source {
        split: &split,
        namespace,
        root,
        around,
    };
    let matches = matches::of(&source, unsaid)?;
    let backends = backends::of(&source, unsaid)?;
    rivals(object, &source, unsaid);
    owner(&object.metadata, unsaid);
    let mut routes = Vec::new();
    for (number, protocol) in ports(root) {
        let refs = backends::at(&source, &backends, number);
        let all = vec![json!({"backendRefs": refs})];
        match &matches {
            // Bytes fit no match, so the split does nothing there.
            Some(_) if protocol.is_opaque() => {}
            Some(some) => {
                let rules = matches::rules(some, &refs, &source.root_ref(number));
                routes.push((number, api::<HTTPRoute>(), rules));
            }
            None if protocol.is_opaque() => routes.push((number, api::<TCPRoute>(), all)),
            None => {
                if !protocol.is_http() {
                    unsaid.push(undeclared(number));
                }
                routes.push((number, api::<HTTPRoute>(), all));
            }
        }
    }
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Ok(named(name, &source, routes, unsaid))
}

/// A port, the `apiVersion` and `kind` of its route, and its rules.
type Rules = (u16, (String, String), Vec<Value>);

/// The routes of a split of this name. Where there are several, each has its port in its name.
fn named(
    name: &str,
    source: &Source<'_>,
    routes: Vec<Rules>,
    unsaid: &mut Vec<String>,
) -> Vec<Value> {
    let several = routes.len() > 1;
    let mut objects = Vec::with_capacity(routes.len());
    for (number, api, rules) in routes {
        let name = if several {
            format!("{name}-{number}")
        } else {
            name.to_owned()
        };
        if name.len() > LONGEST_NAME {
            unsaid.push(format!(
                "metadata.name: {name} would be too long for a route; shorten it"
            ));
            continue;
        }
        objects.push(route(source, &name, number, &api, &rules));
    }
    objects
}

/// The ports of a Service that carry TCP, and what they carry as far as the Service says.
fn ports(service: &Service) -> Vec<(u16, Protocol)> {
    let ports = service.spec.iter().filter_map(|spec| spec.ports.as_ref());
    let ports = ports.flatten().filter(|port| is_tcp(port));
    let ports = ports.filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        Some((number, protocol(service, port, number)))
    });
    ports.collect()
}

/// One route.
fn route(
    source: &Source<'_>,
    name: &str,
    port: u16,
    api: &(String, String),
    rules: &[Value],
) -> Value {
    let (api_version, kind) = api;
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": source.namespace},
        "spec": {
            "parentRefs": [
                {"group": "", "kind": "Service", "name": source.root_name(), "port": port},
            ],
            "rules": rules,
        },
    })
}

/// `apiVersion` and `kind` of a kind.
fn api<K: Resource<DynamicType = ()>>() -> (String, String) {
    (K::api_version(&()).into_owned(), K::kind(&()).into_owned())
}

/// The Service that is split.
fn root<'a>(
    split: &Split,
    around: &'a Around,
    unsaid: &mut Vec<String>,
) -> Result<&'a Service, Nothing> {
    // Else it is among the mistakes.
    let id = split.root.id.as_ref().ok_or(Nothing)?;
    let mut no = |why: &str| {
        unsaid.push(format!("spec.service: {} {why}", id.name));
        Nothing
    };
    let service = service(around, &id.namespace, &id.name);
    let service = service.ok_or_else(|| {
        no("is not given, and a route needs the ports of its Service; give its Service too")
    })?;
    let spec = service.spec.as_ref();
    if is_external(service) {
        return Err(no("is of type ExternalName, and the split has no effect"));
    }
    if spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        return Err(no(
            "is headless, and no route can be for a Service without an address of its own",
        ));
    }
    Ok(service)
}

/// Other splits of the same Service: theirs is an order by age, and that of routes is another.
fn rivals(object: &TrafficSplit, source: &Source<'_>, unsaid: &mut Vec<String>) {
    let (namespace, around) = (source.namespace, source.around);
    let others = around.splits.iter().filter(|other| {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        other.metadata.namespace.as_deref() == Some(namespace)
            && !is_named(&other.metadata, namespace, name)
            && other.spec.validate(&context(namespace, around)).0.root.id == source.split.root.id
    });
    let names: Vec<&str> = others
        .filter_map(|other| other.metadata.name.as_deref())
        .collect();
    if !names.is_empty() {
        unsaid.push(format!(
            "spec.service: {} is split by {} too, whose order routes do not keep; make one split \
             of them first",
            source.root_name(),
            names.join(", ")
        ));
    }
}

/// A tool that goes on writing the split.
fn owner(metadata: &ObjectMeta, unsaid: &mut Vec<String>) {
    let owner = metadata.owner_references.iter().flatten().next();
    if let Some(owner) = owner {
        unsaid.push(format!(
            "metadata.ownerReferences: {} {} writes this split and no route; set it up for the \
             Gateway API",
            owner.kind, owner.name
        ));
    }
}

fn undeclared(port: u16) -> String {
    format!(
        "spec.service: port {port} declares no protocol, and connections that are not HTTP are \
         split, but not routed; set its appProtocol first"
    )
}

/// What a port carries, as far as its Service says.
fn protocol(service: &Service, port: &ServicePort, number: u16) -> Protocol {
    let annotations = service.metadata.annotations.as_ref();
    let opaque = annotations.and_then(|annotations| annotations.get(OPAQUE_PORTS));
    let opaque = opaque.and_then(|list| PortRange::parse_list(list).ok());
    if opaque.is_some_and(|ranges| ranges.iter().any(|range| range.contains(number))) {
        return Protocol::Opaque;
    }
    match Protocol::declared(port.app_protocol.as_deref(), port.name.as_deref()) {
        Protocol::Detect if DEFAULT_OPAQUE_PORTS.contains(&number) => Protocol::Opaque,
        protocol => protocol,
    }
}

#[cfg(test)]
mod tests;
