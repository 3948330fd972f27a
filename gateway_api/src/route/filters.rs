//! The filters of a rule or of a backend: what is done to requests and their answers.

use policy::{
    route::{
        cors::Cors,
        edits::{Edits, Redirect},
    },
    share::Share,
};

use super::target::BackendTarget;

/// What is done to requests and their answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleFilters {
    /// Headers, host and path.
    pub edits: Edits,
    /// Who may read the answers from pages of other origins.
    pub cors: Option<Cors>,
    /// The answer in place of the backends'. It holds the edits of answers and `cors`, too.
    pub redirect: Option<Redirect>,
    /// Who gets copies.
    pub mirrors: Vec<MirrorRef>,
}

/// A Service that gets copies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorRef {
    /// What it refers to.
    pub target: BackendTarget,
    /// Which part of the requests.
    pub share: Share,
}
