//! What releases and experiments decide beside routes: the share that a candidate may get, the
//! Services whose pods send early reports, and what is reported of a release's pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::release::Limit;

use crate::world::ObjectKey;

/// What a release's route needs to know of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CandidateShare {
    /// Name of the Deployment.
    pub(crate) deployment: Arc<str>,
    /// Value of `pod-template-hash` of the candidate's pods.
    pub(crate) revision: Arc<str>,
    /// How much the candidate may get by one rule.
    pub(crate) limit: Limit,
}

/// What releases and experiments decide beside routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Releases {
    /// Services whose pods' proxies report each second.
    pub counted: BTreeSet<ObjectKey>,
    /// By Service and Deployment what reports say of their pods.
    pub(crate) watched: BTreeMap<(ObjectKey, Arc<str>), ReleasedPods>,
}

/// What is reported about the pods of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReleasedPods {
    /// Some pod of the Deployment serves the Service.
    pub(crate) some: bool,
    /// None of them does, and some are ready.
    pub(crate) unselected: bool,
    /// Some of them have no proxy.
    pub(crate) plain: bool,
    /// Other Services that they serve.
    pub(crate) others: BTreeSet<ObjectKey>,
}
