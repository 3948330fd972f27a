//! Redacts other namespaces in what a single proxy reports: users who may read their graphs see
//! names, and others only counts.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crds::observe::{Proxy, ProxyStatus};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use model::Index;
use serde_json::{Value, json};
use wire::names::{self, Name};

use super::context::ObserveContext;
use super::scopes::graph_of;
use crate::aggregated::access::AccessDecision;
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;

/// Max namespaces that are checked for one response. What is of further ones is skipped.
const MAX_CHECKED: usize = 64;
/// How many of them at a time.
const AT_A_TIME: usize = 8;
/// In the place of an unknown namespace: only a user who may read everywhere sees it.
const UNKNOWN: &str = "";

/// Removes what is of namespaces whose graphs the user may not read, and counts it.
///
/// # Errors
/// When the API server does not return the user's rights.
pub(super) async fn redact(
    context: &ObserveContext,
    user: &User,
    index: &Index,
    proxy: &mut Proxy,
) -> Result<(), Refusal> {
    let here = proxy.metadata.namespace.clone();
    let mut named: BTreeSet<String> = named_namespaces(index, &proxy.status).collect();
    named.remove(&here);
    let mut readable = readable(context, user, named).await?;
    readable.insert(here);
    let shows =
        |namespace: Option<String>| namespace.is_none_or(|namespace| readable.contains(&namespace));

    let status = &mut proxy.status;
    let all = status.destinations.len();
    status
        .destinations
        .retain(|at| shows(of_destination(index, at)));
    status.hidden_destinations = u32::try_from(all - status.destinations.len()).unwrap_or(u32::MAX);
    let Some(Value::Object(config)) = &mut status.config else {
        return Ok(());
    };
    if let Some(Value::Object(resources)) = config.get_mut("resources") {
        let all = resources.len();
        resources.retain(|name, _| shows(of_resource(index, name)));
        let hidden = all - resources.len();
        if hidden > 0 {
            config.insert("hidden".to_owned(), json!(hidden));
        }
    }
    Ok(())
}

/// The namespaces that the status names.
fn named_namespaces<'a>(
    index: &'a Index,
    status: &'a ProxyStatus,
) -> impl Iterator<Item = String> + 'a {
    let called = status.destinations.iter();
    let called = called.filter_map(move |at| of_destination(index, at));
    let resources = status.config.as_ref().map(|config| &config["resources"]);
    let resources = resources.and_then(Value::as_object).into_iter().flatten();
    called.chain(resources.filter_map(move |(name, _)| of_resource(index, name)))
}

/// Those of these whose graphs the user may read.
async fn readable(
    context: &ObserveContext,
    user: &User,
    namespaces: BTreeSet<String>,
) -> Result<BTreeSet<String>, Refusal> {
    if namespaces.is_empty() || may_read(context, user, None).await? {
        return Ok(namespaces);
    }
    let known = namespaces
        .into_iter()
        .filter(|namespace| namespace != UNKNOWN);
    let questions = known.take(MAX_CHECKED).map(|namespace| async move {
        let may = may_read(context, user, Some(&namespace)).await?;
        Ok::<_, Refusal>(may.then_some(namespace))
    });
    stream::iter(questions)
        .buffer_unordered(AT_A_TIME)
        .try_filter_map(async |namespace| Ok(namespace))
        .try_collect()
        .await
}

async fn may_read(
    context: &ObserveContext,
    user: &User,
    namespace: Option<&str>,
) -> Result<bool, Refusal> {
    let decision = context.gate.admits(user, &graph_of(namespace)).await;
    Ok(decision.map_err(Refusal::unavailable)? == AccessDecision::Allowed)
}

/// Whose a resource is by its name. `None`: the proxy's own, or of what is outside the mesh.
fn of_resource(index: &Index, name: &str) -> Option<String> {
    match names::parse(name) {
        Some(
            Name::Rule { namespace, .. }
            | Name::ExtendedRule { namespace, .. }
            | Name::Service { namespace, .. }
            | Name::Endpoints { namespace, .. }
            | Name::Policy { namespace, .. },
        ) => Some(namespace.to_owned()),
        Some(Name::Destination { ip, port }) => of_address(index, ip, port),
        Some(
            Name::Bundle
            | Name::Workload
            | Name::Guard
            | Name::Telemetry
            | Name::Routes
            | Name::Place
            | Name::Egress
            | Name::External { .. }
            | Name::Revocations,
        ) => None,
        // Of a controller that is newer than this one.
        None => Some(UNKNOWN.to_owned()),
    }
}

/// The same of an address that the proxy calls, `ip:port`.
fn of_destination(index: &Index, at: &str) -> Option<String> {
    match at.parse::<SocketAddr>() {
        Ok(at) => of_address(index, at.ip(), at.port()),
        Err(_) => of_resource(index, at),
    }
}

fn of_address(index: &Index, ip: IpAddr, port: u16) -> Option<String> {
    let ip = ip.to_canonical();
    let service = index.services_by_ip.get(&ip);
    let holder = service
        .or_else(|| index.pods_by_ip.get(&ip))
        .or_else(|| index.services_by_outer.get(&(ip, port)))?;
    Some(holder.namespace.to_string())
}
