//! Validates the scope of a TrafficPolicy: targets, requests, callers.

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::name::ServiceId;
use policy::traffic::bounds::{ROUTES, SOURCES};
use policy::traffic::call::Token;
use policy::traffic::{Section, Sections, Target};

use super::reader::shown;
use crate::label_syntax::{is_dns_label, is_dns_subdomain};
use crate::near::hint;
use crate::smi::validation::{Code, Mistakes, Source, ValidationContext, source, valid_port};
use crate::smi::{RULE_HTTP_ROUTE_GROUP, Subject};
use crate::weft::{RouteRef, SourceRef, TargetRef};

/// A policy about a Service.
pub(super) const SERVICE: &str = "Service";
const NAMESPACE: &str = "Namespace";
const MESH: &str = "Mesh";
/// Most names of matches in one route.
const MOST_MATCHES: usize = 64;

/// What the policy is about; `None` if that cannot be read.
pub(super) fn target(
    written: &TargetRef,
    at: &ValidationContext<'_>,
    mistakes: &mut Mistakes,
) -> Option<Target> {
    let name = written.name.as_deref();
    if [NAMESPACE, MESH].contains(&written.kind.as_str()) {
        for (field, is_set) in [("name", name.is_some()), ("port", written.port.is_some())] {
            if is_set {
                let text = format!(
                    "is set, but only a Service has one; leave it out, or write kind: {SERVICE}; \
                     the policy has no effect"
                );
                mistakes.invalid(format!("spec.targetRef.{field}"), text);
            }
        }
    }
    let bare = name.is_none() && written.port.is_none();
    match written.kind.as_str() {
        SERVICE => service(written, at, mistakes),
        NAMESPACE => bare.then(|| Target::Namespace(at.namespace.into())),
        MESH if at.namespace == at.mesh_namespace => bare.then_some(Target::Mesh),
        MESH => {
            let text = format!(
                "is {MESH}, but policies for the whole mesh stand in its own namespace {:?}; \
                 create it there, or write kind: {NAMESPACE}; the policy has no effect",
                at.mesh_namespace
            );
            mistakes.invalid("spec.targetRef.kind", text);
            None
        }
        other => {
            let meant = hint(other, [SERVICE, NAMESPACE, MESH]);
            let text = format!(
                "is {:?}, but must be {SERVICE}, {NAMESPACE} or {MESH}{meant}; the policy has no \
                 effect",
                shown(other)
            );
            mistakes.refuse(Code::UnsupportedKind, "spec.targetRef.kind", text);
            None
        }
    }
}

fn service(
    written: &TargetRef,
    at: &ValidationContext<'_>,
    mistakes: &mut Mistakes,
) -> Option<Target> {
    let name = written.name.as_deref().unwrap_or_default();
    let named = is_dns_label(name);
    if !named {
        let text = format!(
            "is {:?}, but must be the name of a Service of namespace {:?}; the policy has no \
             effect",
            shown(name),
            at.namespace
        );
        mistakes.invalid("spec.targetRef.name", text);
    }
    let port = match written.port {
        None => None,
        Some(port) => Some(valid_port("spec.targetRef.port", port, mistakes)?),
    };
    let service = named.then(|| ServiceId::new(at.namespace, name))?;
    Some(match port {
        Some(port) => Target::Port(service, port),
        None => Target::Service(service),
    })
}

/// The requests that are meant. Absent and empty mean the same: all.
pub(super) fn routes(written: Option<&[RouteRef]>, mistakes: &mut Mistakes) -> Vec<Option<Route>> {
    let written = written.unwrap_or_default();
    if written.len() > ROUTES {
        too_many("spec.routes", written.len(), ROUTES, mistakes);
        return vec![None];
    }
    let mut seen = BTreeSet::new();
    let written = written.iter().enumerate();
    let routes = written.map(|(i, route)| {
        let field = format!("spec.routes[{i}]");
        let mut usable = true;
        if route.kind != RULE_HTTP_ROUTE_GROUP {
            let text = format!(
                "is {:?}, but must be {RULE_HTTP_ROUTE_GROUP}; this route fits no request",
                shown(&route.kind)
            );
            mistakes.refuse(Code::UnsupportedKind, format!("{field}.kind"), text);
            usable = false;
        }
        if !is_dns_subdomain(&route.name) {
            let text = "must be the name of an HTTPRouteGroup; this route fits no request";
            mistakes.invalid(format!("{field}.name"), text);
            usable = false;
        }
        let matches = route.matches.as_deref();
        match matches {
            Some([]) => {
                let text = "is empty, and such a route fits no request; name matches, or leave \
                            the field out to mean every match";
                mistakes.invalid(format!("{field}.matches"), text);
            }
            Some(names) if names.len() > MOST_MATCHES => {
                too_many(
                    &format!("{field}.matches"),
                    names.len(),
                    MOST_MATCHES,
                    mistakes,
                );
                usable = false;
            }
            _ => {}
        }
        if !seen.insert((&route.name, matches)) {
            let text = format!(
                "{:?} is named twice; leave one of them out",
                shown(&route.name)
            );
            mistakes.invalid(format!("{field}.name"), text);
        }
        usable.then(|| Route {
            group: route.name.as_str().into(),
            matches: matches.map(|names| names.iter().map(|name| name.as_str().into()).collect()),
        })
    });
    routes.collect()
}

/// The callers that are meant. Absent and empty mean the same: all.
pub(super) fn sources(written: Option<&[SourceRef]>, mistakes: &mut Mistakes) -> Vec<Source> {
    let written = written.unwrap_or_default();
    if written.len() > SOURCES {
        too_many("spec.sources", written.len(), SOURCES, mistakes);
        return vec![no_caller()];
    }
    let written = written.iter().enumerate();
    let sources = written.map(|(i, written)| {
        let field = format!("spec.sources[{i}]");
        caller(&field, written, mistakes)
    });
    sources.collect()
}

/// One caller, as a TrafficTarget names it.
pub(super) fn caller(field: &str, written: &SourceRef, mistakes: &mut Mistakes) -> Source {
    let subject = Subject {
        kind: written.kind.clone(),
        name: written.name.clone(),
        namespace: written.namespace.clone(),
        ..Subject::default()
    };
    source(field, &subject, mistakes)
}

/// A source that matches no caller.
fn no_caller() -> Source {
    Source {
        kind: None,
        name: "".into(),
        namespace: "".into(),
    }
}

fn too_many(field: &str, found: usize, most: usize, mistakes: &mut Mistakes) {
    let text = format!("has {found} entries, but may have {most}; it fits nothing");
    mistakes.invalid(field, text);
}

/// The content of a TrafficPolicy: parsed, and without what cannot be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What it is about; `None` when that cannot be read, and then it has no effect.
    pub target: Option<Target>,
    /// Whether it beats every other policy; only of the mesh.
    pub enforce: bool,
    /// The requests that it is about, by place; `None` for an entry that fits nothing.
    /// Without any entry, every request.
    pub routes: Vec<Option<Route>>,
    /// The callers that it is about, by place. Without any entry, every caller.
    pub sources: Vec<Source>,
    /// The sections that can be used, without `overrides`.
    pub sections: Sections,
    /// That section, whose callers other objects may name.
    pub overrides: Option<Vec<Override>>,
    /// The sections that were written, whether or not they can be used.
    pub written: Vec<Section>,
}

/// Requests that an HTTPRouteGroup of the policy's namespace names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the HTTPRouteGroup.
    pub group: Arc<str>,
    /// Names of matches. Absent means every match, and an empty list none.
    pub matches: Option<Vec<Arc<str>>>,
}

/// One entry of `overrides`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Services that may be chosen.
    pub to: Vec<ServiceId>,
    /// Callers that may choose.
    pub sources: Vec<Source>,
    /// Callers that pass a choice on.
    pub forwarders: Vec<Source>,
    /// Secrets that prove the right to choose.
    pub tokens: Vec<Token>,
}
