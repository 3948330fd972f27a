//! One route by itself: what its author means, with everything in it parsed.
//!
//! A rule that cannot be served whole keeps its place and is answered with an error: what it was
//! written for must not happen half, and other rules must not get its requests. Such a rule is
//! [`broken`](RouteRule::broken).

mod backend;
mod filters;
mod matches;
mod rule;
mod target;

use std::sync::Arc;

pub use backend::BackendRef;
pub use filters::{MirrorRef, RuleFilters};
pub use matches::{RouteMatch, Specificity};
pub use rule::RouteRule;
pub use target::{BackendTarget, Unresolved};

use crate::kinds::{GRPCRoute, HTTPRoute, TCPRoute};
pub use crate::parents::ParentRef;
pub use crate::reader::Broken;

/// A kind of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
    /// TCPRoute.
    Tcp,
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
    /// Its rules by place. Of a TCPRoute only the first counts.
    pub rules: Vec<RouteRule>,
}

impl RouteKind {
    /// As Kubernetes spells it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

impl Route {
    /// Reads an HTTPRoute.
    #[must_use]
    pub fn read_http(object: &HTTPRoute) -> Self {
        todo!("{object:?}")
    }

    /// Reads a GRPCRoute.
    #[must_use]
    pub fn read_grpc(object: &GRPCRoute) -> Self {
        todo!("{object:?}")
    }

    /// Reads a TCPRoute.
    #[must_use]
    pub fn read_tcp(object: &TCPRoute) -> Self {
        todo!("{object:?}")
    }
}
