//! What answers of the read API are made of, and who may read them.
//!
//! Every replica serves the API, so nothing in here is the leader's alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::smi::judge::Cluster;

use crate::aggregated::access::Gate;
use crate::aggregated::bodies::AnswerBudget;
use crate::aggregated::refusal::Refusal;
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

impl ObserveContext {
    /// What a controller that has just begun says of the graph would look whole, and lack all
    /// that is not called at the moment. Answers that say that they lack it are given later on
    /// where it cannot be read at all.
    ///
    /// # Errors
    /// While it is read which calls are remembered.
    pub(super) fn must_not_await_recall(&self) -> Result<(), Refusal> {
        if self.graph.awaits_recall() {
            self.must_have_recalled()
        } else {
            Ok(())
        }
    }

    /// The same of answers that are wrong without it.
    ///
    /// # Errors
    /// Until it has been read which calls are remembered.
    pub(super) fn must_have_recalled(&self) -> Result<(), Refusal> {
        if self.graph.has_recalled() {
            return Ok(());
        }
        if self.graph.lacks_recall() {
            return Err(Refusal::unavailable(self.graph.why_unread()));
        }
        let words = "this controller has just begun and has not read yet which calls there were; try \
                     again in a few seconds";
        Err(Refusal::unavailable(words))
    }
}
