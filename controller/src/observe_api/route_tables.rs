//! Handles requests for the merged rules of one Service's routes.
//!
//! A user who may get tables in the Service's namespace is shown the rules for everybody. A table
//! for the callers of another namespace is made of routes of that namespace, which the Service's
//! owner may not see otherwise: it is shown to a user who may get tables there too, and else
//! counted.

use std::collections::BTreeMap;

use crds::observe::{API_VERSION, Resource, RouteTable, RouteTableMetadata};
use http::StatusCode;
use model::compiled::Compiled;
use model::world::ObjectKey;

use super::context::ObserveContext;
use super::query::{ObservePath, may};
use crate::aggregated::access::{AccessDecision, Attributes, refusal};
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;

/// Max namespaces of callers that one response checks with the API server.
const MAX_CHECKED: usize = 64;

/// The tables of the Service that the path names, or with parameter `from` those for callers of
/// that namespace.
///
/// # Errors
/// When there is no such Service, or the user may not see tables for the callers' namespace.
pub(super) async fn answer(
    context: &ObserveContext,
    user: &User,
    (path, query): (&ObservePath, &str),
    compiled: &Compiled,
) -> Result<RouteTable, Refusal> {
    let namespace = path.namespace.as_deref().unwrap_or_default();
    let name = path.name.as_deref().unwrap_or_default();
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    let from = parameters.find(|(parameter, _)| parameter == "from");
    let from = from.map(|(_, from)| from).filter(|from| !from.is_empty());
    if let Some(from) = from.as_deref().filter(|from| *from != namespace) {
        let requested = may("get", Resource::RouteTables, Some(from));
        if let AccessDecision::Denied(reason) = decided(context, user, &requested).await? {
            let message = refusal(user, &requested, &reason);
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", message));
        }
    }
    let service = ObjectKey::new(namespace, name);
    let Some(mut tables) = compiled.model.route_rules(&service, from.as_deref()) else {
        let message = format!("there is no Service {namespace}/{name}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", message));
    };
    let mut known = BTreeMap::from([(String::new(), true), (namespace.to_owned(), true)]);
    for table in &tables {
        if known.len() < MAX_CHECKED && !known.contains_key(&table.audience) {
            let requested = may("get", Resource::RouteTables, Some(&table.audience));
            let decision = decided(context, user, &requested).await?;
            known.insert(table.audience.clone(), decision == AccessDecision::Allowed);
        }
    }
    let all = tables.len();
    tables.retain(|table| known.get(&table.audience) == Some(&true));
    Ok(RouteTable {
        api_version: API_VERSION.to_owned(),
        kind: Resource::RouteTables.kind().to_owned(),
        metadata: RouteTableMetadata {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        hidden: u32::try_from(all - tables.len()).unwrap_or(u32::MAX),
        tables,
    })
}

async fn decided(
    context: &ObserveContext,
    user: &User,
    requested: &Attributes,
) -> Result<AccessDecision, Refusal> {
    let decision = context.gate.admits(user, requested).await;
    decision.map_err(Refusal::unavailable)
}
