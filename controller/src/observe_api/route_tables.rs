//! Handles requests for the merged rules of the routes of one Service, or of one Gateway.
//!
//! A user who may get tables in the Service's namespace is shown the rules for everybody. A table
//! for the callers of another namespace is made of routes of that namespace, which the Service's
//! owner may not see otherwise: it is shown to a user who may get tables there too, and else
//! counted. So is a rule of a Gateway that a route of another namespace has.

use std::collections::BTreeMap;

use crds::observe::{API_VERSION, Resource, RouteRules, RouteTable, RouteTableMetadata, TableRule};
use http::StatusCode;
use model::compiled::Compiled;
use model::world::ObjectKey;
use policy::name::Kind;

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
    let parameter = |name: &str| {
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        let found = parameters.find(|(parameter, _)| parameter == name);
        let value = found.map(|(_, value)| value.into_owned());
        value.filter(|value| !value.is_empty())
    };
    let from = parameter("from");
    let kind = parameter("kind");
    if kind.as_deref() == Some(Kind::Gateway.word()) {
        if from.is_some() {
            let why = "parameter from: a Gateway looks at no caller's namespace; leave it out";
            return Err(Refusal::bad(why));
        }
        return of_gateway(context, user, &ObjectKey::new(namespace, name), compiled).await;
    }
    if let Some(kind) = kind.filter(|kind| *kind != Kind::Service.word()) {
        let why = format!("parameter kind: {kind:?} must be Service or Gateway");
        return Err(Refusal::bad(why));
    }
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
    let hidden = all - tables.len();
    Ok(written(&service, (tables, hidden)))
}

/// The tables of a Gateway's listeners, with the rules that the user may see.
async fn of_gateway(
    context: &ObserveContext,
    user: &User,
    gateway: &ObjectKey,
    compiled: &Compiled,
) -> Result<RouteTable, Refusal> {
    let Some(mut tables) = compiled.model.listener_rules(gateway) else {
        let message = format!(
            "no Gateway {gateway} is served; see its conditions: kubectl -n {} describe gateway {}",
            gateway.namespace, gateway.name
        );
        return Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", message));
    };
    let mut known = BTreeMap::from([(gateway.namespace.to_string(), true)]);
    for rule in tables.iter().flat_map(|table| &table.rules) {
        let of = namespace_of(&rule.object);
        if known.len() < MAX_CHECKED && !known.contains_key(of) {
            let requested = may("get", Resource::RouteTables, Some(of));
            let decision = decided(context, user, &requested).await?;
            known.insert(of.to_owned(), decision == AccessDecision::Allowed);
        }
    }
    let mut hidden = 0;
    for table in &mut tables {
        let all = table.rules.len();
        let shown = |rule: &TableRule| known.get(namespace_of(&rule.object)) == Some(&true);
        table.rules.retain(shown);
        hidden += all - table.rules.len();
    }
    Ok(written(gateway, (tables, hidden)))
}

/// The namespace in `HTTPRoute namespace/name`.
fn namespace_of(object: &str) -> &str {
    let key = object.split_once(' ').map_or(object, |(_, key)| key);
    key.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn written(of: &ObjectKey, (tables, hidden): (Vec<RouteRules>, usize)) -> RouteTable {
    RouteTable {
        api_version: API_VERSION.to_owned(),
        kind: Resource::RouteTables.kind().to_owned(),
        metadata: RouteTableMetadata {
            namespace: of.namespace.to_string(),
            name: of.name.to_string(),
        },
        hidden: u32::try_from(hidden).unwrap_or(u32::MAX),
        tables,
    }
}

async fn decided(
    context: &ObserveContext,
    user: &User,
    requested: &Attributes,
) -> Result<AccessDecision, Refusal> {
    let decision = context.gate.admits(user, requested).await;
    decision.map_err(Refusal::unavailable)
}
