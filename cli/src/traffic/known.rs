//! Checks whether a named node of the graph exists, and suggests the name that was probably meant.
//!
//! The graph lists callers, called workloads, and every workload that has pods. What is not in it
//! may exist all the same, such as a Deployment without pods, and has no calls. So the API server
//! is queried before a name is rejected. If the graph knows the name, no request is sent, except
//! for a port of a Service without calls.

use std::time::Duration;

use crds::label_syntax::is_object_name;
use crds::observe::NodeKind;
use policy::release::service_of;
use serde_json::Value;

use super::select::{ENDS, Selected, account_of};
use super::{IndexedGraph, Question};
use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::nearest::nearest;
use crate::cluster::{Cluster, Refusal, existing, ports};
use crate::failure::Failure;

/// Kinds whose objects are mostly made by others, under which their calls are counted.
const OWNED: [ResourceKind; 3] = [
    ResourceKind::Pod,
    ResourceKind::ReplicaSet,
    ResourceKind::Job,
];
/// Owners above a pod: a Deployment owns ReplicaSets own pods, and nothing known goes deeper.
const DEEPEST: usize = 4;
/// The window of a query for names alone.
const LOOK: Duration = Duration::from_secs(60);

/// An object that the graph names: kind, namespace and name.
type Name<'a> = (ResourceKind, &'a str, &'a str);

/// Ends where there is nothing of this name, no such namespace, or no such port of a Service.
///
/// # Errors
/// When there is none, with the nearest that there is; when its calls are counted under
/// another name; and when the API server does not respond or refuses.
pub(crate) async fn check(
    cluster: &Cluster,
    traffic: &IndexedGraph,
    named: Option<&Named>,
) -> Result<(), Failure> {
    let found = looked_up(cluster, traffic, named).await?;
    let Some((named, name)) = named.and_then(|named| Some((named, named.name.as_deref()?))) else {
        return Ok(());
    };
    match found {
        Some((kind, object)) if OWNED.contains(&kind) => {
            counted_by_itself(cluster, (kind, name), object).await
        }
        found if named.kind == ResourceKind::Service && named.port.is_some() => {
            let service = found.map(|(_, service)| service);
            must_have_the_port(cluster, traffic, (named, name), service).await
        }
        _ => Ok(()),
    }
}

/// Ends if a Service lacks the named port. The graph names only ports with calls, so the API server
/// is queried for any other. If the user may not see the Service, or it is gone, the graph's data
/// is shown; the same applies to all namespaces, where several Services may have its name.
///
/// # Errors
/// When it has none of this number, with those that it has; and when the API server does not
/// respond.
async fn must_have_the_port(
    cluster: &Cluster,
    traffic: &IndexedGraph,
    (named, name): (&Named, &str),
    found: Option<Value>,
) -> Result<(), Failure> {
    let selected = Selected::new(named.clone(), cluster.scope());
    let mut edges = traffic.edges().iter();
    if cluster.scope().is_none() || edges.any(|edge| selected.is_to(traffic, edge)) {
        return Ok(());
    }
    let service = match found {
        Some(service) => Some(service),
        None => match existing::try_read(cluster, named.kind, name).await {
            Err(refusal) if refusal.is_forbidden() => None,
            read => read.map_err(Refusal::into_failure)?,
        },
    };
    match service {
        Some(service) => ports::must_be_of(&service, name, named.port),
        None => Ok(()),
    }
}

/// Why a query about these names was refused, if one of them does not exist. None if that is not
/// known: the refusal has a message of its own.
pub(crate) async fn wrong(cluster: &Cluster, names: &[Named]) -> Option<Failure> {
    let question = Question {
        window: LOOK,
        ..Question::default()
    };
    let traffic = IndexedGraph::fetch(cluster, &question).await.ok()?;
    for named in names {
        let found = looked_up(cluster, &traffic, Some(named)).await;
        if let Err(wrong @ Failure::Usage(_)) = found {
            return Some(wrong);
        }
    }
    None
}

/// The nearest that the graph names in the cluster's namespace, of these kinds, the first of them
/// that has it. None if that is not known.
pub(crate) async fn nearest_of(
    cluster: &Cluster,
    kinds: &[ResourceKind],
    name: &str,
) -> Option<(ResourceKind, String)> {
    let question = Question {
        window: LOOK,
        ..Question::default()
    };
    let here = cluster.about(Some(cluster.namespace()));
    let traffic = IndexedGraph::fetch(&here, &question).await.ok()?;
    let all = names(&traffic);
    let of = |wanted: ResourceKind| {
        let all = all.iter();
        let all = all.filter(move |(kind, namespace, _)| {
            *kind == wanted && *namespace == cluster.namespace()
        });
        all.map(|(.., known)| *known)
    };
    let meant = nearest(name, kinds.iter().flat_map(|kind| of(*kind)))?;
    let kind = kinds
        .iter()
        .find(|kind| of(**kind).any(|known| known == meant));
    Some((*kind?, meant.to_owned()))
}

/// The object that is named, where the graph does not know it and the API server does.
///
/// # Errors
/// When there is none, or the API server does not respond.
async fn looked_up(
    cluster: &Cluster,
    traffic: &IndexedGraph,
    named: Option<&Named>,
) -> Result<Option<(ResourceKind, Value)>, Failure> {
    let here = cluster.scope();
    let in_scope = |namespace: &str| here.is_none_or(|here| here == namespace);
    let nodes = &traffic.graph.nodes;
    if let Some(namespace) = here
        && !nodes.iter().any(|node| in_scope(&node.namespace))
    {
        existing::must_be_a_namespace(cluster, namespace).await?;
    }
    let Some((kind, name)) = named.and_then(|named| Some((named.kind, named.name.as_deref()?)))
    else {
        return Ok(None);
    };
    let all = names(traffic);
    let known = all
        .iter()
        .any(|(of, namespace, known)| *of == kind && *known == name && in_scope(namespace));
    match kind {
        // There is no list of all hosts.
        ResourceKind::External => Ok(None),
        ResourceKind::Namespace if nodes.iter().any(|node| node.namespace == name) => Ok(None),
        ResourceKind::Namespace => {
            let there = existing::must_be_a_namespace(cluster, name).await;
            there.map(|()| None)
        }
        _ if known => Ok(None),
        _ => {
            let found = at_the_api_server(cluster, &all, kind, name).await?;
            Ok(Some((kind, found)))
        }
    }
}

/// The host outside the mesh that was probably meant by a name that the graph does not know, with
/// its port. There is no list of all hosts, so the name is not rejected.
#[must_use]
pub(crate) fn host_meant(traffic: &IndexedGraph, named: Option<&Named>) -> Option<String> {
    let named = named.filter(|named| named.kind == ResourceKind::External)?;
    let name = named.name.as_deref()?;
    let nodes = traffic.graph.nodes.iter();
    let outside = nodes.filter(|node| node.kind == NodeKind::External);
    let hosts: Vec<&str> = outside.map(|node| node.name.as_str()).collect();
    if hosts.contains(&name) {
        return None;
    }
    let meant = nearest(name, hosts)?;
    let port = named.port.map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    Some(format!("{}/{meant}{port}", named.kind.short()))
}

/// Everything that the graph names.
fn names(traffic: &IndexedGraph) -> Vec<Name<'_>> {
    let mut names = Vec::new();
    for node in &traffic.graph.nodes {
        if let Some(kind) = ResourceKind::named(node.kind.as_str()) {
            names.push((kind, node.namespace.as_str(), node.name.as_str()));
        }
        for service in &node.services {
            names.extend(object(ResourceKind::Service, service));
        }
        for (namespace, name) in node.accounts.iter().filter_map(|id| account_of(id)) {
            names.push((ResourceKind::ServiceAccount, namespace, name));
        }
    }
    for edge in traffic.edges() {
        names.extend(object(ResourceKind::Service, &edge.service));
        names.extend(object(ResourceKind::Service, service_of(&edge.backend)));
        names.extend(object(ResourceKind::TrafficSplit, &edge.split));
        // Also of pods that do not run any more.
        for (namespace, name) in edge.identities.iter().filter_map(|id| account_of(id)) {
            names.push((ResourceKind::ServiceAccount, namespace, name));
        }
    }
    names
}

fn object(kind: ResourceKind, key: &str) -> Option<Name<'_>> {
    let (namespace, name) = key.split_once('/')?;
    Some((kind, namespace, name))
}

/// The object of this name, which the graph does not know.
///
/// # Errors
/// When there is none, with the nearest that the graph or else the API server has; and when the API
/// server does not respond.
async fn at_the_api_server(
    cluster: &Cluster,
    all: &[Name<'_>],
    kind: ResourceKind,
    name: &str,
) -> Result<Value, Failure> {
    if let Some(found) = existing::read(cluster, kind, name).await? {
        return Ok(found);
    }
    let meant = match meant(all, kind, name, cluster.scope()) {
        Some(meant) => Some(meant),
        None => existing::nearest_of(cluster, kind, name).await,
    };
    Err(existing::no_such(cluster, (kind, name), meant))
}

/// Whether the calls of a pod, or of the pods of a ReplicaSet or Job, are counted under its own
/// name.
///
/// # Errors
/// With what owns it, under which they are.
async fn counted_by_itself(
    cluster: &Cluster,
    (owned, name): (ResourceKind, &str),
    object: Value,
) -> Result<(), Failure> {
    match workload(cluster, object).await {
        None => Ok(()),
        Some((kind, owner, is_topmost)) => {
            let short = kind.short();
            let say = match ENDS.contains(&kind) && is_topmost {
                true => format!("; say {short}/{owner}"),
                false => String::new(),
            };
            let owned = owned.as_str().to_lowercase();
            Err(Failure::usage(format!(
                "{owned}/{name}: calls of a workload's pods are counted under it, here {kind} \
                 {owner}{say}"
            )))
        }
    }
}

/// The topmost owner of an object of the kinds that the graph has, and whether nothing can stand
/// above it that the user does not see; nothing of an object by itself.
async fn workload(cluster: &Cluster, object: Value) -> Option<(ResourceKind, String, bool)> {
    let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
    let namespace = namespace.or_else(|| cluster.scope().map(str::to_owned))?;
    let (mut top, mut at) = (None, object);
    for _ in 0..DEEPEST {
        let Some((kind, name)) = controller(&at) else {
            break;
        };
        let path = kind.path(Some(&namespace)).unwrap_or_default();
        let what = format!("{kind} {name}");
        let read = cluster.try_read(&what, &format!("{path}/{name}")).await;
        // If the user may not see it, what they see decides: what is mostly owned may be here.
        let Ok(owner) = read else {
            return Some((kind, name, !OWNED.contains(&kind)));
        };
        top = Some((kind, name, true));
        at = owner;
    }
    top
}

/// What made an object, if it is a workload.
fn controller(object: &Value) -> Option<(ResourceKind, String)> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let kind = ResourceKind::named(owner["kind"].as_str()?)?;
    // Others may have kinds of the same names.
    let group = match owner["apiVersion"].as_str()?.split_once('/') {
        Some((group, _)) => format!("/apis/{group}/"),
        None => "/api/".to_owned(),
    };
    let is_known = kind.path(None)?.starts_with(&group);
    // Anybody may write any name down; the controller too takes one for none that cannot be.
    let name = owner["name"].as_str().filter(|name| is_object_name(name))?;
    is_known.then_some((kind, name.to_owned()))
}

/// The same name of another kind, or else the nearest of the same kind.
fn meant(all: &[Name<'_>], kind: ResourceKind, name: &str, here: Option<&str>) -> Option<String> {
    let near = all
        .iter()
        .filter(|(_, namespace, _)| here.is_none_or(|here| here == *namespace));
    // They have the names of workloads and Services, and are not confused with those.
    let never = [ResourceKind::ServiceAccount, ResourceKind::TrafficSplit];
    let same_name = near
        .clone()
        .find(|(other, _, known)| *known == name && ENDS.contains(other) && !never.contains(other));
    if let Some((other, ..)) = same_name {
        return Some(format!("{}/{name}", other.short()));
    }
    let same_kind = near.filter(|(other, ..)| *other == kind);
    let meant = nearest(name, same_kind.map(|(.., known)| *known))?;
    Some(format!("{}/{meant}", kind.short()))
}
