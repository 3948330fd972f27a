//! The clients and state that the loop of CanaryReleases uses (`Releases`), and the newest Model
//! with them for one look (`Around`).

use std::time::Duration;

use crds::weft::CanaryRelease;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::ApiResource;
use model::compiled::Compiled;
use runtime::clock::Clock;

use crate::apiserver::events::EventRecorder;
use crate::fleet::Fleet;
use crate::latest_model::LatestModel;
use crate::metrics::automation::AutomationMetrics;
use crate::observe::acknowledged::Observed;
use crate::observe::early::EarlyCounts;

/// What releases are driven with.
#[derive(Clone)]
pub(crate) struct Releases {
    /// API server.
    pub client: Client,
    /// Whether releases are carried out; else each counts as suspended.
    pub enabled: bool,
    /// The newest model.
    pub latest: LatestModel,
    /// What proxies acknowledged.
    pub observed: Observed,
    /// What pods count.
    pub early: EarlyCounts,
    /// The breakers of the whole mesh.
    pub fleet: Fleet,
    /// Where Events go.
    pub events: EventRecorder,
    /// What is counted.
    pub metrics: AutomationMetrics,
    /// The wall clock.
    pub clock: Clock,
}

opaque_debug!(Releases);

/// What a look sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    pub(super) parts: &'a Releases,
    pub(super) compiled: &'a Compiled,
    /// Since 1970; never goes back while this replica leads.
    pub(super) now: Duration,
    /// The wall clock, by which commands are given.
    pub(super) wall: Timestamp,
}

/// How the API names releases.
pub(super) fn resource() -> ApiResource {
    ApiResource::erase::<CanaryRelease>(&())
}
