//! Converts the routes of one Service port: rules that share actions.
//!
//! What cannot be read refuses the whole resource, and the proxy keeps the last good one: a rule
//! that is left out would let its requests fall to a later rule, and an action without one of its
//! parts would do something else.

mod actions;

use std::collections::HashMap;
use std::sync::Arc;

use policy::name::ServiceId;
use policy::reason::Reason;
use policy::route::edits::Redirect;
use policy::route::{Backend, Forward, Rule, Table};

use super::error::{BadResource, each};
use super::object::origin;
use super::port::port;
use super::route::{when, when_message};
use crate::v1;
use crate::v1::route_action::What;

/// The table of a Service port for which routes hold. Its Service is not read here.
///
/// # Errors
/// With the field that is wrong.
pub fn routed_service(message: &v1::RoutedService) -> Result<Table<Forward>, BadResource> {
    Ok(Table {
        rules: rules(&message.actions, &message.rules)?,
        otherwise: Forward::Root,
    })
}

/// Rules in order, each with what is done.
pub(super) fn rules(
    actions: &[v1::RouteAction],
    rules: &[v1::RouteRule],
) -> Result<Vec<Rule<Forward>>, BadResource> {
    let actions = actions.iter().enumerate().map(|(i, one)| {
        let here = |bad: BadResource| bad.within(format_args!("actions[{i}]"));
        action(one).map_err(here)
    });
    let actions = actions.collect::<Result<Vec<Forward>, _>>()?;
    let rules = rules.iter().enumerate().map(|(i, one)| {
        let here = |bad: BadResource| bad.within(format_args!("rules[{i}]"));
        rule(one, &actions).map_err(here)
    });
    rules.collect()
}

/// The inverse of [`routed_service`], around the Service that it belongs to, whose splits are
/// left out: they are among the rules, or do not hold. What the table does otherwise is not
/// sent: proxies know that these calls go to the Service itself.
#[must_use]
pub fn routed_service_message(service: v1::Service, table: &Table<Forward>) -> v1::RoutedService {
    let (actions, rules) = rules_message(&table.rules);
    v1::RoutedService {
        service: Some(v1::Service {
            splits: Vec::new(),
            ..service
        }),
        actions,
        rules,
    }
}

/// The inverse of [`rules`].
pub(super) fn rules_message(
    written: &[Rule<Forward>],
) -> (Vec<v1::RouteAction>, Vec<v1::RouteRule>) {
    let mut places: HashMap<&Forward, u32> = HashMap::new();
    let mut actions = Vec::new();
    let mut rules = Vec::with_capacity(written.len());
    for Rule { origin, when, then } in written {
        let place = *places.entry(then).or_insert_with(|| {
            actions.push(v1::RouteAction::from(then));
            u32::try_from(actions.len() - 1).unwrap_or(u32::MAX)
        });
        rules.push(v1::RouteRule {
            origin: Some(origin.into()),
            rule: origin.rule_name().unwrap_or_default().to_owned(),
            matches: when_message(when),
            action: place,
        });
    }
    (actions, rules)
}

fn rule(message: &v1::RouteRule, actions: &[Forward]) -> Result<Rule<Forward>, BadResource> {
    let origin = origin(message.origin.as_ref())?;
    let place = usize::try_from(message.action).ok();
    let then = place.and_then(|place| actions.get(place));
    Ok(Rule {
        origin: match message.rule.as_str() {
            "" => origin,
            rule => origin.rule(rule),
        },
        when: when(message.matches.as_ref())?,
        then: then
            .ok_or_else(|| BadResource::new("action", "is none of the actions"))?
            .clone(),
    })
}

fn action(message: &v1::RouteAction) -> Result<Forward, BadResource> {
    match &message.what {
        Some(What::Root(true)) => Ok(Forward::Root),
        Some(What::Backends(list)) => each("backends", &list.backends).map(Forward::split),
        Some(What::Refuse(word)) => {
            let mut known = Reason::ALL.into_iter();
            let reason = known.find(|reason| reason.as_str() == word);
            reason
                .map(Forward::Refuse)
                .ok_or_else(|| BadResource::unknown("refuse"))
        }
        Some(What::Redirect(one)) => Redirect::try_from(one)
            .map(|redirect| Forward::Redirect(Arc::new(redirect)))
            .map_err(|bad| bad.within("redirect")),
        Some(What::Root(false)) | None => Err(BadResource::unknown("what")),
    }
}

impl From<&Forward> for v1::RouteAction {
    fn from(forward: &Forward) -> Self {
        let what = match forward {
            Forward::Root => What::Root(true),
            Forward::Split(backends) => What::Backends(v1::RouteBackends {
                backends: backends.iter().map(v1::RouteBackend::from).collect(),
            }),
            Forward::Refuse(reason) => What::Refuse(reason.as_str().to_owned()),
            Forward::Redirect(redirect) => What::Redirect((&**redirect).into()),
        };
        Self { what: Some(what) }
    }
}

impl TryFrom<&v1::RouteBackend> for Backend {
    type Error = BadResource;

    fn try_from(message: &v1::RouteBackend) -> Result<Self, BadResource> {
        let v1::RouteBackend {
            namespace,
            service,
            weight,
            endpoints,
            ..
        } = message;
        let id = ServiceId::new(namespace.as_str(), service.as_str());
        let actions = message.actions.as_ref().map(actions::actions);
        let actions = actions
            .transpose()
            .map_err(|bad| bad.within("actions"))?
            .map(Arc::new);
        if message.invalid {
            // What is wrong with it may be that it has no port.
            let port = match message.port {
                0 => 0,
                raw => port("port", raw)?,
            };
            return Ok(Self::invalid(id, port, *weight).with_actions(actions));
        }
        for (field, text) in [("service", service), ("endpoints", endpoints)] {
            if text.is_empty() {
                return Err(BadResource::new(field, "is missing"));
            }
        }
        let port = port("port", message.port)?;
        Ok(Self::new(id, port, *weight, endpoints.as_str()).with_actions(actions))
    }
}

impl From<&Backend> for v1::RouteBackend {
    fn from(backend: &Backend) -> Self {
        Self {
            namespace: backend.service.namespace.to_string(),
            service: backend.service.name.to_string(),
            port: backend.port.into(),
            weight: backend.weight,
            endpoints: backend.endpoints.to_string(),
            invalid: backend.invalid,
            actions: backend.actions.as_deref().map(actions::message),
        }
    }
}

#[cfg(test)]
mod tests;
