//! What answers are made of.

use crate::aggregated::access::Gate;
use crate::graph::follow::Graph;
use crate::inventory::follow::Followed;
use crate::metrics::ObserveMetrics;
use crate::model::compiled::Latest;
use crate::observe::acknowledged::Observed;
use crate::observe::asks::Asks;

/// What answers are made of, and who may read them.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Who calls whom.
    pub graph: Graph,
    /// The newest model.
    pub latest: Latest,
    /// Who owns which pod, and whether all of that is known.
    pub followed: Followed,
    /// What proxies acknowledged.
    pub observed: Observed,
    /// What proxies are asked.
    pub asks: Asks,
    /// Who may read what.
    pub gate: Gate,
    /// Counters.
    pub metrics: ObserveMetrics,
}
