//! Validates a TrafficTarget: callers, destination and rules. Whatever is unclear allows less: an
//! invalid part matches no caller and no request, never all.

use std::sync::Arc;

use serde_json::Value;

use super::port_routes::valid_port;
use super::{Code, Mistake, Mistakes, Validate, ValidationContext};
use crate::label_syntax::{is_dns_label, is_dns_subdomain};
use crate::smi::{
    GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, RULE_HTTP_ROUTE_GROUP, RULE_TCP_ROUTE, RuleRef,
    SUBJECT_GROUP, SUBJECT_IDENTITY_BINDING, SUBJECT_SERVICE_ACCOUNT, Subject, TrafficTargetSpec,
};

/// A rule about UDP.
const RULE_UDP_ROUTE: &str = "UDPRoute";

/// The content of a TrafficTarget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The workloads that it protects; `None` when it names none of its own namespace.
    pub destination: Option<Destination>,
    /// The allowed callers, by place.
    pub sources: Vec<Source>,
    /// With what, by place. Without any, nothing is allowed.
    pub rules: Vec<Rule>,
}

/// A workload of the target's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What it is.
    pub kind: DestinationKind,
    /// Its name.
    pub name: Arc<str>,
    /// The ports that the target is about.
    pub limit: PortLimit,
}

/// What a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationKind {
    /// The pods of a service account.
    ServiceAccount,
    /// Each workload of an IdentityBinding.
    IdentityBinding,
    /// A validation error: taken for the service account of that name, which is protected, and
    /// which no caller may call by this target.
    Unknown,
}

/// `destination.port` of the oldest versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortLimit {
    /// Every port.
    #[default]
    Any,
    /// This one.
    Only(u16),
    /// None: what was written is no port.
    Nothing,
}

/// An allowed caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is; `None` for a validation error, which matches no caller.
    pub kind: Option<SourceKind>,
    /// Name as written.
    pub name: Arc<str>,
    /// Namespace as written; empty means the target's own.
    pub namespace: Arc<str>,
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The pods of a service account.
    ServiceAccount,
    /// Each workload of an IdentityBinding.
    IdentityBinding,
    /// Every identity of the mesh.
    Authenticated,
    /// Callers outside the mesh.
    Unauthenticated,
}

/// What may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Kind of the route object.
    pub kind: RuleKind,
    /// Name of the route object in the target's namespace, as written.
    pub name: Arc<str>,
    /// Names of matches of an HTTPRouteGroup. Absent means every match, and an empty list
    /// none.
    pub matches: Option<Vec<Arc<str>>>,
}

/// Kind of a route object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Requests.
    HttpRouteGroup,
    /// TCP ports.
    TcpRoute,
    /// UDP ports.
    UdpRoute,
    /// A mistake: such a rule is ignored.
    Unknown,
}

impl Validate for TrafficTargetSpec {
    type Validated = Target;

    const UNREADABLE: &'static str = "the target allows nothing";

    fn validate(&self, at: &ValidationContext<'_>) -> (Target, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let destination = destination(&self.destination, at, &mut mistakes);
        if self.sources.is_empty() {
            let text = "must name at least one source; without one nothing is allowed";
            mistakes.invalid("spec.sources", text);
        }
        let sources = self.sources.iter().enumerate();
        let sources = sources.map(|(i, written)| {
            let field = format!("spec.sources[{i}]");
            source(&field, written, &mut mistakes)
        });
        let sources = sources.collect();
        if self.rules.is_empty() {
            let text = "must name at least one rule; without one nothing is allowed";
            mistakes.invalid("spec.rules", text);
        }
        let rules = self.rules.iter().enumerate();
        let rules = rules.map(|(i, written)| rule(i, written, &mut mistakes));
        let target = Target {
            destination,
            sources,
            rules: rules.collect(),
        };
        (target, mistakes.0)
    }

    fn unreadable(written: &Value, at: &ValidationContext<'_>) -> Target {
        let field = |name: &str| {
            let value = written.get("destination")?.get(name)?;
            value.as_str().map(str::to_owned)
        };
        let named = Subject {
            kind: field("kind").unwrap_or_default(),
            name: field("name").unwrap_or_default(),
            namespace: field("namespace"),
            ..Subject::default()
        };
        Target {
            destination: destination(&named, at, &mut Mistakes::default()),
            ..Target::default()
        }
    }
}

fn destination(
    written: &Subject,
    at: &ValidationContext<'_>,
    mistakes: &mut Mistakes,
) -> Option<Destination> {
    let kind = match written.kind.as_str() {
        SUBJECT_SERVICE_ACCOUNT => DestinationKind::ServiceAccount,
        SUBJECT_IDENTITY_BINDING => DestinationKind::IdentityBinding,
        other => {
            let text = format!(
                "is {other:?}, but must be ServiceAccount or IdentityBinding; nothing is allowed"
            );
            mistakes.refuse(Code::UnsupportedKind, "spec.destination.kind", text);
            DestinationKind::Unknown
        }
    };
    let named = is_dns_subdomain(&written.name);
    if !named {
        let text =
            "must be the name of a service account or IdentityBinding; no workload is protected";
        mistakes.invalid("spec.destination.name", text);
    }
    let namespace = written.namespace.as_deref().unwrap_or_default();
    let own = namespace.is_empty() || namespace == at.namespace;
    if !own {
        // Else any user could grant access to other people's namespaces.
        let text = format!(
            "is {namespace:?}, but a TrafficTarget protects its own namespace {:?}; create it in \
             {namespace:?} or leave the field out",
            at.namespace
        );
        let field = "spec.destination.namespace";
        mistakes.refuse(Code::ForeignDestination, field, text);
    }
    let limit = match written.port {
        None => PortLimit::Any,
        Some(port) => valid_port("spec.destination.port", port, mistakes)
            .map_or(PortLimit::Nothing, PortLimit::Only),
    };
    (named && own).then(|| Destination {
        kind,
        name: written.name.as_str().into(),
        limit,
    })
}

pub(crate) fn source(field: &str, written: &Subject, mistakes: &mut Mistakes) -> Source {
    let (name, namespace) = (written.name.as_str(), written.namespace.as_deref());
    let namespace = namespace.unwrap_or_default();
    let mut kind = match written.kind.as_str() {
        SUBJECT_SERVICE_ACCOUNT => Some(SourceKind::ServiceAccount),
        SUBJECT_IDENTITY_BINDING => Some(SourceKind::IdentityBinding),
        SUBJECT_GROUP => match name {
            GROUP_AUTHENTICATED => Some(SourceKind::Authenticated),
            GROUP_UNAUTHENTICATED => Some(SourceKind::Unauthenticated),
            other => {
                let text = format!(
                    "is {other:?}, but the groups are {GROUP_AUTHENTICATED:?} and \
                     {GROUP_UNAUTHENTICATED:?}; this source is ignored"
                );
                mistakes.invalid(format!("{field}.name"), text);
                None
            }
        },
        other => {
            let text = format!(
                "is {other:?}, but must be ServiceAccount, IdentityBinding or Group; this source \
                 is ignored"
            );
            mistakes.refuse(Code::UnsupportedKind, format!("{field}.kind"), text);
            None
        }
    };
    let of_objects = [SUBJECT_SERVICE_ACCOUNT, SUBJECT_IDENTITY_BINDING];
    if of_objects.contains(&written.kind.as_str()) && !is_dns_subdomain(name) {
        let text = "must be the name of a service account or IdentityBinding; this source is \
                    ignored";
        mistakes.invalid(format!("{field}.name"), text);
        kind = None;
    }
    if !namespace.is_empty() && !is_dns_label(namespace) {
        let text = "must be the name of a namespace; this source is ignored";
        mistakes.invalid(format!("{field}.namespace"), text);
        kind = None;
    }
    Source {
        kind,
        name: name.into(),
        namespace: namespace.into(),
    }
}

fn rule(index: usize, written: &RuleRef, mistakes: &mut Mistakes) -> Rule {
    let field = format!("spec.rules[{index}]");
    let kind = match written.kind.as_str() {
        RULE_HTTP_ROUTE_GROUP => RuleKind::HttpRouteGroup,
        RULE_TCP_ROUTE => RuleKind::TcpRoute,
        RULE_UDP_ROUTE => RuleKind::UdpRoute,
        other => {
            let text = format!(
                "is {other:?}, but must be HTTPRouteGroup, TCPRoute or UDPRoute; this rule is \
                 ignored"
            );
            mistakes.refuse(Code::UnsupportedKind, format!("{field}.kind"), text);
            RuleKind::Unknown
        }
    };
    if !is_dns_subdomain(&written.name) {
        let text = "must be the name of a route object; this rule stands for nothing";
        mistakes.invalid(format!("{field}.name"), text);
    }
    let of_ports = [RuleKind::TcpRoute, RuleKind::UdpRoute].contains(&kind);
    if of_ports && written.matches.is_some() {
        let text = format!(
            "is set, but a {} has none: leave the field out, and limit the ports in the route",
            written.kind
        );
        mistakes.refuse(Code::FieldIgnored, format!("{field}.matches"), text);
    } else if written.matches.as_ref().is_some_and(Vec::is_empty) {
        let text = "is empty, and such a rule allows nothing; name matches, or leave the field \
                    out to mean every match";
        mistakes.invalid(format!("{field}.matches"), text);
    }
    let matches = written.matches.as_ref();
    Rule {
        kind,
        name: written.name.as_str().into(),
        matches: matches.map(|names| names.iter().map(|name| name.as_str().into()).collect()),
    }
}
