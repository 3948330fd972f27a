//! Parses one HTTPRoute, GRPCRoute, TLSRoute or TCPRoute by itself: what its author means.
//!
//! A rule that cannot be served whole keeps its place and is answered with an error: what it was
//! written for must not happen half, and other rules must not get its requests. Such a rule is
//! [`broken`](RouteRule::broken).

mod backend;
mod filters;
mod matches;
mod path;
mod rule;
mod target;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy::http_match::Budget;
use serde_json::{Value, json};

pub use backend::BackendRef;
pub use filters::{MirrorRef, RuleFilters};
pub(crate) use matches::METHODS;
pub use matches::{RouteMatch, Specificity};
pub use rule::RouteRule;
pub use target::{BackendTarget, Unresolved};

use crate::kinds::{GRPCRoute, HTTPRoute, TCPRoute, TLSRoute};
pub use crate::parents::ParentRef;
pub use crate::reader::Broken;
use crate::reader::Field;

/// A kind of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
    /// TCPRoute.
    Tcp,
    /// TLSRoute.
    Tls,
}

/// One route, validated by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Of which kind it is.
    pub kind: RouteKind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What it routes for, in the order of the object. Others than Services are among them.
    pub parents: Vec<ParentRef>,
    /// Of no effect where the parent is a Service.
    pub hostnames: Vec<String>,
    /// Its rules by place. Of a TCPRoute and a TLSRoute only the first counts.
    pub rules: Vec<RouteRule>,
}

impl RouteKind {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::Grpc, Self::Tcp, Self::Tls];

    /// As Kubernetes spells it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tcp => "TCPRoute",
            Self::Tls => "TLSRoute",
        }
    }
}

impl Route {
    /// Reads an HTTPRoute.
    #[must_use]
    pub fn read_http(object: &HTTPRoute) -> Self {
        let mut route = Self::read(RouteKind::Http, &object.metadata, &object.spec);
        let namespace = route.namespace.clone();
        let mut budget = Budget::group();
        route.rules = match rules(&object.spec) {
            Ok(list) if list.is_empty() => {
                // What the schema puts there.
                let rule = json!({});
                let rule = Field::new("spec.rules[0]", &rule);
                vec![RouteRule::read_http(&rule, &namespace, &mut budget)]
            }
            Ok(list) => list
                .iter()
                .map(|rule| RouteRule::read_http(rule, &namespace, &mut budget))
                .collect(),
            Err(broken) => vec![RouteRule::broken(broken)],
        };
        route
    }

    /// Reads a GRPCRoute.
    #[must_use]
    pub fn read_grpc(object: &GRPCRoute) -> Self {
        let mut route = Self::read(RouteKind::Grpc, &object.metadata, &object.spec);
        let namespace = route.namespace.clone();
        let mut budget = Budget::group();
        route.rules = match rules(&object.spec) {
            Ok(list) => list
                .iter()
                .map(|rule| RouteRule::read_grpc(rule, &namespace, &mut budget))
                .collect(),
            Err(broken) => vec![RouteRule::broken(broken)],
        };
        route
    }

    /// Reads a TCPRoute.
    #[must_use]
    pub fn read_tcp(object: &TCPRoute) -> Self {
        Self::read_connections(RouteKind::Tcp, &object.metadata, &object.spec)
    }

    /// Reads a TLSRoute.
    #[must_use]
    pub fn read_tls(object: &TLSRoute) -> Self {
        Self::read_connections(RouteKind::Tls, &object.metadata, &object.spec)
    }

    fn read_connections(kind: RouteKind, metadata: &ObjectMeta, spec: &Value) -> Self {
        let mut route = Self::read(kind, metadata, spec);
        let namespace = route.namespace.clone();
        route.rules = match rules(spec) {
            Ok(list) => list
                .iter()
                .map(|rule| RouteRule::read_tcp(rule, &namespace))
                .collect(),
            Err(broken) => vec![RouteRule {
                broken: Some(broken),
                ..RouteRule::default()
            }],
        };
        route
    }

    /// All but the rules.
    fn read(kind: RouteKind, metadata: &ObjectMeta, spec: &Value) -> Self {
        let namespace: Arc<str> = metadata.namespace.as_deref().unwrap_or_default().into();
        let list = |field: &str| {
            spec.get(field)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let parents = list("parentRefs").filter_map(|written| ParentRef::read(written, &namespace));
        let hostnames = list("hostnames")
            .filter_map(Value::as_str)
            .map(str::to_owned);
        Self {
            kind,
            parents: parents.collect(),
            hostnames: hostnames.collect(),
            rules: Vec::new(),
            name: metadata.name.as_deref().unwrap_or_default().into(),
            namespace,
        }
    }
}

/// The rules as they are written; none where they are left out.
fn rules(spec: &Value) -> Result<Vec<Field<'_>>, Broken> {
    match spec.get("rules").filter(|rules| !rules.is_null()) {
        Some(rules) => Field::new("spec.rules", rules).list(),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests;
