//! Messages into the types that decide, and back.
//!
//! A message from a newer controller, or a damaged one, is refused as a whole
//! with the field that is wrong, and the proxy answers with a nack. Half a rule
//! is never used: what is missing in it might have been what narrows it.
//!
//! Enumerations are read towards the safe side instead, as the protocol says.

use crate::v1;
use policy::access::{Ports, Rule, Source};
use policy::http_match::HttpMatch;
use policy::mode::{Enforcement, MtlsMode};
use policy::name::{ObjectRef, ServiceId, SpiffeId};
use policy::origin::Origin;
use policy::protocol::{PortProtocols, PortRange, Protocol};
use policy::route::{self, Backend, Match};
use std::fmt;
use std::sync::Arc;

/// Why a resource cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BadResource {
    /// Name of the resource, where the caller knew it.
    pub name: Option<String>,
    /// Path of the field inside the message, such as `http.matches[1].pathRegex`.
    pub field: String,
    pub reason: String,
}

impl fmt::Display for BadResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl BadResource {
    pub fn new(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            name: None,
            field: field.into(),
            reason: reason.to_string(),
        }
    }

    /// Says which resource it was.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// Says in which part of the message the field stands.
    fn within(self, parent: impl fmt::Display) -> Self {
        Self {
            field: format!("{parent}.{}", self.field),
            ..self
        }
    }
}

/// Converts each element and names the one that is wrong.
fn each<'a, T, U>(field: &str, all: &'a [T]) -> Result<Vec<U>, BadResource>
where
    U: TryFrom<&'a T, Error = BadResource>,
{
    all.iter()
        .enumerate()
        .map(|(index, one)| {
            U::try_from(one).map_err(|bad| bad.within(format_args!("{field}[{index}]")))
        })
        .collect()
}

fn origin(message: Option<&v1::ObjectRef>) -> Result<Origin, BadResource> {
    let message = message.ok_or_else(|| BadResource::new("origin", "is missing"))?;
    for (field, text) in [("kind", &message.kind), ("name", &message.name)] {
        if text.is_empty() {
            return Err(BadResource::new(field, "is missing").within("origin"));
        }
    }
    Ok(Origin::from(message))
}

fn matches(
    message: Option<&v1::HttpMatches>,
    field: &str,
) -> Result<Option<Vec<HttpMatch>>, BadResource> {
    message
        .map(|list| each("matches", &list.matches).map_err(|bad| bad.within(field)))
        .transpose()
}

fn port(field: &str, raw: u32) -> Result<u16, BadResource> {
    match u16::try_from(raw) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(BadResource::new(field, format_args!("{raw} is no port"))),
    }
}

impl TryFrom<&v1::ObjectRef> for ObjectRef {
    type Error = BadResource;

    fn try_from(message: &v1::ObjectRef) -> Result<Self, BadResource> {
        let kind = message
            .kind
            .parse()
            .map_err(|bad| BadResource::new("kind", bad))?;
        Ok(Self::new(
            kind,
            message.namespace.as_str(),
            message.name.as_str(),
        ))
    }
}

/// Any kind will do: an origin is only told, and the text says enough.
impl From<&v1::ObjectRef> for Origin {
    fn from(message: &v1::ObjectRef) -> Self {
        Self::new(
            &message.kind,
            message.namespace.as_str(),
            message.name.as_str(),
        )
    }
}

impl From<&Origin> for v1::ObjectRef {
    fn from(origin: &Origin) -> Self {
        Self {
            kind: origin.kind().to_owned(),
            namespace: origin.namespace().to_string(),
            name: origin.name().to_string(),
        }
    }
}

impl From<&ObjectRef> for v1::ObjectRef {
    fn from(object: &ObjectRef) -> Self {
        Self {
            kind: object.kind.as_str().to_owned(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
        }
    }
}

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
            | None => Err(BadResource::new(
                "who",
                "is of a kind that this version does not know",
            )),
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

impl TryFrom<&v1::PortSet> for Ports {
    type Error = BadResource;

    fn try_from(message: &v1::PortSet) -> Result<Self, BadResource> {
        if message.any {
            return Ok(Self::Any);
        }
        let ports: Result<Vec<u16>, _> = message
            .ports
            .iter()
            .map(|raw| port("ports", *raw))
            .collect();
        Ok(Self::only(ports?))
    }
}

impl From<&Ports> for v1::PortSet {
    fn from(ports: &Ports) -> Self {
        match ports {
            Ports::Any => Self {
                any: true,
                ports: Vec::new(),
            },
            Ports::Only(ports) => Self {
                any: false,
                ports: ports.iter().copied().map(u32::from).collect(),
            },
        }
    }
}

impl TryFrom<&v1::HttpMatch> for HttpMatch {
    type Error = BadResource;

    fn try_from(message: &v1::HttpMatch) -> Result<Self, BadResource> {
        let headers: Vec<(&str, &str)> = message
            .headers
            .iter()
            .map(|header| (header.name.as_str(), header.regex.as_str()))
            .collect();
        Self::new(
            &message.name,
            message.path_regex.as_deref(),
            &message.methods,
            &headers,
        )
        .map_err(|bad| BadResource::new(bad.field, bad.reason))
    }
}

impl From<&HttpMatch> for v1::HttpMatch {
    fn from(one: &HttpMatch) -> Self {
        Self {
            name: one.name().to_owned(),
            path_regex: one.path_regex().map(str::to_owned),
            methods: one.methods().to_vec(),
            headers: one
                .headers()
                .iter()
                .map(|(name, regex)| v1::HeaderMatch {
                    name: name.clone(),
                    regex: regex.clone(),
                })
                .collect(),
        }
    }
}

impl From<&[HttpMatch]> for v1::HttpMatches {
    fn from(matches: &[HttpMatch]) -> Self {
        Self {
            matches: matches.iter().map(v1::HttpMatch::from).collect(),
        }
    }
}

impl TryFrom<&v1::Rule> for Rule {
    type Error = BadResource;

    fn try_from(message: &v1::Rule) -> Result<Self, BadResource> {
        let ports = |field: &str, set: &Option<v1::PortSet>| {
            set.as_ref()
                .map(|ports| Ports::try_from(ports).map_err(|bad| bad.within(field)))
                .transpose()
        };
        Ok(Self {
            origin: origin(message.origin.as_ref())?,
            sources: each("sources", &message.sources)?,
            ports: ports("ports", &message.ports)?,
            http: matches(message.http.as_ref(), "http")?,
            limit: ports("limit", &message.limit)?,
        })
    }
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

/// The resource that a rule travels in: the plain one unless it says something that
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

impl TryFrom<&v1::Split> for route::Rule<Vec<Backend>> {
    type Error = BadResource;

    fn try_from(message: &v1::Split) -> Result<Self, BadResource> {
        let origin = origin(message.origin.as_ref())?;
        let when = match matches(message.matches.as_ref(), "matches")? {
            Some(matches) => Match::AnyOf(matches),
            None => Match::Always,
        };
        let backends = message.backends.iter().map(|backend| {
            // Backends stand in the split's own namespace, so only their names are sent.
            let service = ServiceId::new(Arc::clone(origin.namespace()), backend.service.as_str());
            Backend::new(service, backend.weight, backend.endpoints.as_str())
        });
        Ok(Self {
            then: backends.collect(),
            origin,
            when,
        })
    }
}

impl From<&route::Rule<Vec<Backend>>> for v1::Split {
    fn from(split: &route::Rule<Vec<Backend>>) -> Self {
        Self {
            origin: Some((&split.origin).into()),
            matches: match &split.when {
                Match::Always => None,
                Match::AnyOf(matches) => Some(v1::HttpMatches::from(&**matches)),
            },
            backends: split
                .then
                .iter()
                .map(|backend| v1::Backend {
                    service: backend.service.name.to_string(),
                    weight: backend.weight,
                    endpoints: backend.endpoints.to_string(),
                })
                .collect(),
        }
    }
}

/// Declared protocols of ports, as a workload carries them.
pub fn port_protocols(messages: &[v1::PortProtocol]) -> Result<PortProtocols, BadResource> {
    let declared: Result<Vec<_>, BadResource> = messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            let here = |bad: BadResource| bad.within(format_args!("ports[{index}]"));
            let first = port("first", message.first).map_err(here)?;
            let last = port("last", message.last).map_err(here)?;
            let range = PortRange::new(first, last)
                .ok_or_else(|| here(BadResource::new("last", "is less than first")))?;
            Ok((range, Protocol::from(message.protocol())))
        })
        .collect();
    declared.map(PortProtocols::new)
}

/// The inverse of [`port_protocols`].
pub fn port_protocol_messages(declared: &PortProtocols) -> Vec<v1::PortProtocol> {
    declared
        .iter()
        .map(|(range, protocol)| v1::PortProtocol {
            first: range.first().into(),
            last: range.last().into(),
            protocol: v1::Protocol::from(protocol).into(),
        })
        .collect()
}

/// Reads a field of type Enforcement; an unknown value is the tightest.
pub fn enforcement(raw: i32) -> Enforcement {
    v1::Enforcement::try_from(raw).map_or(Enforcement::Enforce, Enforcement::from)
}

/// Reads a field of type MtlsMode; an unknown value is the tightest.
pub fn mtls(raw: i32) -> MtlsMode {
    v1::MtlsMode::try_from(raw).map_or(MtlsMode::Strict, MtlsMode::from)
}

/// Reads a field of type Protocol; an unknown value is detected.
pub fn protocol(raw: i32) -> Protocol {
    v1::Protocol::try_from(raw).map_or(Protocol::Detect, Protocol::from)
}

/// Both directions between two enumerations with the same variants.
macro_rules! same_variants {
    ($message:ty, $ours:ty, $($theirs:ident = $mine:ident),+) => {
        impl From<$message> for $ours {
            fn from(value: $message) -> Self {
                match value { $(<$message>::$theirs => Self::$mine),+ }
            }
        }

        impl From<$ours> for $message {
            fn from(value: $ours) -> Self {
                match value { $(<$ours>::$mine => Self::$theirs),+ }
            }
        }
    };
}

same_variants!(
    v1::Enforcement,
    Enforcement,
    Enforce = Enforce,
    Audit = Audit,
    Open = Open
);
same_variants!(
    v1::MtlsMode,
    MtlsMode,
    Strict = Strict,
    Permissive = Permissive
);
same_variants!(
    v1::Protocol,
    Protocol,
    Detect = Detect,
    Http1 = Http1,
    Http2 = Http2,
    Grpc = Grpc,
    Opaque = Opaque,
    Tls = Tls
);

#[cfg(test)]
mod tests;
