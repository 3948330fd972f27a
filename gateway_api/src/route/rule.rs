//! One rule of a route: which requests, and what becomes of them.

use policy::route::edits::{RuleRetry, RuleTimeouts};

use super::{backend::BackendRef, filters::RuleFilters, matches::RouteMatch};
use crate::reader::Broken;

/// One rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteRule {
    /// Its name, which need not be there.
    pub name: Option<String>,
    /// Which requests, one of these; those of a rule without any are written as one match of every
    /// request. A match that cannot be understood is left out, and makes the rule broken. Empty in
    /// a TCPRoute, whose rule is for every connection.
    pub matches: Vec<RouteMatch>,
    /// What is done to the requests and their answers.
    pub filters: RuleFilters,
    /// Where they go.
    pub backends: Vec<BackendRef>,
    /// How long they may take.
    pub timeouts: Option<RuleTimeouts>,
    /// How often failed ones are sent again.
    pub retry: Option<RuleRetry>,
    /// Why the rule cannot be served: what is wrong first. Requests that fit it are answered 500,
    /// and nothing else of it counts.
    pub broken: Option<Broken>,
}
