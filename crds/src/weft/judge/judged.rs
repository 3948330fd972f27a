//! What is made of a TrafficPolicy: parsed, and without what cannot be used.

use std::sync::Arc;

use policy::{
    name::ServiceId,
    traffic::{Section, Sections, Target, call::Token},
};

use crate::smi::judge::Source;

/// The content of a TrafficPolicy.
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
