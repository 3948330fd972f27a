//! What answers of the read API are made of, and who may read them.
//!
//! Every replica serves the API, so nothing in here is the leader's alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::smi::judge::Cluster;

use crate::aggregated::access::Gate;
use crate::aggregated::bodies::AnswerBudget;
use crate::apiserver::events::EventRecorder;
use crate::graph::follow::Graph;
use crate::inventory::follow::Followed;
use crate::metrics::ObserveMetrics;
use crate::model::compiled::LatestModel;
use crate::observe::acknowledged::Observed;
use crate::observe::asks::Asks;

/// What answers are made of, and who may read them.
#[derive(Clone, Debug)]
pub(crate) struct ObserveContext {
    /// Who calls whom.
    pub graph: Graph,
    /// The newest model.
    pub latest: LatestModel,
    /// Who owns which pod, and whether all of that is known.
    pub followed: Followed,
    /// What proxies acknowledged.
    pub observed: Observed,
    /// What proxies are asked.
    pub asks: Asks,
    /// Headers that a tap may show, in small letters.
    pub tap_headers: Arc<BTreeSet<String>>,
    /// For how long proxies' certificates live that are issued now.
    pub leaf_ttl: Duration,
    /// Who taps is told here. Of every replica, whether it leads or not.
    pub events: EventRecorder,
    /// Who may read what.
    pub gate: Gate,
    /// By which objects are judged.
    pub cluster: Cluster,
    /// What bodies of answers may take.
    pub answers: AnswerBudget,
    /// Counters.
    pub metrics: ObserveMetrics,
}
