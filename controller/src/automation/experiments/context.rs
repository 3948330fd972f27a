//! The clients and state that the loop of FaultExperiments uses (`Experiments`), and the newest
//! Model with them for one look (`Around`).

use std::sync::Arc;
use std::time::Duration;

use crds::weft::FaultExperiment;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::ApiResource;
use model::compiled::Compiled;
use model::world::ObjectKey;
use runtime::clock::Clock;

use crate::apiserver::events::EventRecorder;
use crate::latest_model::LatestModel;
use crate::observe::acknowledged::Observed;
use crate::observe::early::EarlyCounts;
use crate::observe::reports::Reports;

/// What experiments are driven with.
#[derive(Clone)]
pub(crate) struct Experiments {
    /// API server.
    pub client: Client,
    /// Whether any may run.
    pub enabled: bool,
    /// The newest model.
    pub latest: LatestModel,
    /// What proxies acknowledged.
    pub observed: Observed,
    /// What pods count.
    pub early: EarlyCounts,
    /// What callers' proxies did with calls.
    pub reports: Reports,
    /// Where Events go.
    pub events: EventRecorder,
    /// The mesh's own namespace, whose annotation stops all.
    pub namespace: Arc<str>,
    /// The wall clock.
    pub clock: Clock,
}

opaque_debug!(Experiments);

/// What a look sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    pub(super) parts: &'a Experiments,
    pub(super) compiled: &'a Compiled,
    /// Since 1970; never goes back while this replica leads.
    pub(super) now: Duration,
    /// The wall clock, by which commands are given.
    pub(super) wall: Timestamp,
    /// The experiment whose run is under way in the namespace.
    pub(super) taken: Option<&'a ObjectKey>,
}

/// How the API names experiments.
pub(super) fn resource() -> ApiResource {
    ApiResource::erase::<FaultExperiment>(&())
}
