//! Converts access rules: which callers may call what.

use policy::access::{Ports, Rule, Source};
use policy::http_match::{Budget, HttpMatch};
use policy::name::SpiffeId;

use super::error::{BadResource, each};
use super::object::origin;
use super::route::within;
use crate::v1;

impl TryFrom<&v1::Source> for Source {
    type Error = BadResource;

    fn try_from(message: &v1::Source) -> Result<Self, BadResource> {
        match &message.who {
            Some(v1::source::Who::SpiffeId(id)) => SpiffeId::try_from(id.as_str())
                .map(Self::Identity)
                .map_err(|bad| BadResource::new("spiffe_id", bad)),
            Some(v1::source::Who::Pods(pods)) => {
                Ok(Self::pods(pods.uids.iter().map(String::as_str)))
            }
            Some(v1::source::Who::Authenticated(true)) => Ok(Self::Authenticated),
            Some(v1::source::Who::Unauthenticated(true)) => Ok(Self::Unauthenticated),
            Some(
                v1::source::Who::Authenticated(false) | v1::source::Who::Unauthenticated(false),
            )
            | None => Err(BadResource::unknown("who")),
        }
    }
}

impl From<&Source> for v1::Source {
    fn from(source: &Source) -> Self {
        let who = match source {
            Source::Identity(id) => v1::source::Who::SpiffeId(id.to_string()),
            Source::Pods(uids) => v1::source::Who::Pods(v1::PodSet {
                uids: uids.iter().map(ToString::to_string).collect(),
            }),
            Source::Authenticated => v1::source::Who::Authenticated(true),
            Source::Unauthenticated => v1::source::Who::Unauthenticated(true),
        };
        Self { who: Some(who) }
    }
}

impl TryFrom<&v1::Rule> for Rule {
    type Error = BadResource;

    fn try_from(message: &v1::Rule) -> Result<Self, BadResource> {
        read(message, |one| within(&mut Budget::group(), one))
    }
}

/// One of several rules that share what their expressions may take.
pub(super) fn rule_within(budget: &mut Budget, message: &v1::Rule) -> Result<Rule, BadResource> {
    read(message, |one| within(budget, one))
}

fn read(
    message: &v1::Rule,
    mut read_match: impl FnMut(&v1::HttpMatch) -> Result<HttpMatch, BadResource>,
) -> Result<Rule, BadResource> {
    let ports = |field: &str, set: &Option<v1::PortSet>| {
        set.as_ref()
            .map(|ports| Ports::try_from(ports).map_err(|bad| bad.within(field)))
            .transpose()
    };
    let mut rule = Rule {
        origin: origin(message.origin.as_ref())?,
        sources: each("sources", &message.sources)?,
        ports: ports("ports", &message.ports)?,
        http: None,
        limit: ports("limit", &message.limit)?,
    };
    if let Some(list) = &message.http {
        let mut matches = Vec::with_capacity(list.matches.len());
        for (index, one) in list.matches.iter().enumerate() {
            let here = |bad: BadResource| bad.within(format_args!("http.matches[{index}]"));
            matches.push(read_match(one).map_err(here)?);
        }
        rule.http = Some(matches);
    }
    Ok(rule)
}

impl From<&Rule> for v1::Rule {
    fn from(rule: &Rule) -> Self {
        Self {
            origin: Some((&rule.origin).into()),
            sources: rule.sources.iter().map(v1::Source::from).collect(),
            ports: rule.ports.as_ref().map(v1::PortSet::from),
            http: rule.http.as_deref().map(v1::HttpMatches::from),
            limit: rule.limit.as_ref().map(v1::PortSet::from),
        }
    }
}

/// The resource that a rule travels in: the plain one unless it holds something that
/// the first version of rules cannot; see the protocol file.
pub fn rule_resource(rule: v1::Rule) -> v1::Resource {
    let (namespace, name) = rule
        .origin
        .as_ref()
        .map_or_else(Default::default, |origin| {
            (origin.namespace.as_str(), origin.name.as_str())
        });
    let extended = rule.limit.is_some()
        || rule
            .sources
            .iter()
            .any(|source| matches!(source.who, Some(v1::source::Who::Pods(_))));
    let (name, content) = if extended {
        let name = crate::names::extended_rule(namespace, name);
        (name, v1::resource::Content::ExtendedRule(rule))
    } else {
        let name = crate::names::rule(namespace, name);
        (name, v1::resource::Content::Rule(rule))
    };
    v1::Resource {
        name,
        version: String::new(),
        content: Some(content),
    }
}

/// The rule in a resource, whichever of the two kinds it travels in; `None` if the
/// resource is something else.
pub fn rule_in(resource: &v1::Resource) -> Option<&v1::Rule> {
    match &resource.content {
        Some(v1::resource::Content::Rule(rule) | v1::resource::Content::ExtendedRule(rule)) => {
            Some(rule)
        }
        _ => None,
    }
}
