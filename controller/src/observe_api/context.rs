//! What handlers of the read API use: the sources of responses, and the check of rights.
//!
//! Every replica serves the API, so nothing in here depends on the Lease.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::smi::validation::Cluster;

use crate::aggregated::access::Gate;
use crate::aggregated::bodies::AnswerBudget;
use crate::aggregated::refusal::Refusal;
use crate::apiserver::events::EventRecorder;
use crate::graph::follow::Graph;
use crate::inventory::follow::Followed;
use crate::latest_model::LatestModel;
use crate::metrics::ObserveMetrics;
use crate::observe::acknowledged::Observed;
use crate::observe::live_queries::LiveQueries;

/// What responses are made of, and the check of rights.
#[derive(Clone, Debug)]
pub(crate) struct ObserveContext {
    /// Which workload calls which.
    pub graph: Graph,
    /// The newest model.
    pub latest: LatestModel,
    /// Which workload owns which pod, and whether all of that is known.
    pub followed: Followed,
    /// What proxies acknowledged.
    pub observed: Observed,
    /// Live queries to proxies.
    pub live_queries: LiveQueries,
    /// Headers that a tap may show, in small letters.
    pub tap_headers: Arc<BTreeSet<String>>,
    /// For how long proxies' certificates live that are issued now.
    pub leaf_ttl: Duration,
    /// Records Events that name the users of taps. Of every replica, whether it leads or not.
    pub events: EventRecorder,
    /// Which user may read what.
    pub gate: Gate,
    /// By which objects are evaluated.
    pub cluster: Cluster,
    /// Whether routes of the Gateway API are read.
    pub gateway_api: bool,
    /// What bodies of responses may take.
    pub answers: AnswerBudget,
    /// Counters.
    pub metrics: ObserveMetrics,
}

impl ObserveContext {
    /// The graph of a controller that is starting up would look complete, and lack all that is not
    /// called at the moment. Where the remembered calls cannot be read at all, later responses are
    /// given and report that they lack them.
    ///
    /// # Errors
    /// While the remembered calls are being read.
    pub(super) fn must_not_await_load(&self) -> Result<(), Refusal> {
        if self.graph.startup().awaits_load() {
            self.must_have_loaded()
        } else {
            Ok(())
        }
    }

    /// The same of responses that are wrong without it.
    ///
    /// # Errors
    /// Until the remembered calls have been read.
    pub(super) fn must_have_loaded(&self) -> Result<(), Refusal> {
        if self.graph.startup().has_loaded() {
            return Ok(());
        }
        if self.graph.startup().lacks_loaded() {
            return Err(Refusal::unavailable(self.graph.startup().why_unread()));
        }
        let words = "this controller is starting up and has not read yet which calls there \
                     were; try again in a few seconds";
        Err(Refusal::unavailable(words))
    }
}
