//! By which route of the own workload a call is counted and reported.

use std::sync::Arc;

use super::{At, Call};
use crate::telemetry::cell::CellKey;
use crate::telemetry::parties::CallEnds;

impl Call {
    /// The way that it goes, to the port that was called.
    pub(super) fn cell_key(&self) -> CellKey {
        let (parties, route) = match &self.at {
            At::Nowhere(parties) => (parties, None),
            At::Counters(cell) => (&cell.key().parties, cell.key().route.clone()),
        };
        CellKey {
            parties: parties.clone().at_port(self.port),
            protocol: self.protocol,
            route,
        }
    }

    /// A route of this name describes it, or, where the name is empty, none does. Counts it
    /// by that from now on, where its way has a cell of its own. The access log and the span
    /// report it wherever that counts.
    pub(crate) fn takes_route(&mut self, route: &Arc<str>) {
        if let Some(span) = self.span() {
            span.takes_route(route);
        }
        if let Some(logged) = &mut self.logged {
            logged.route = Some(Arc::clone(route));
        }
        let At::Counters(cell) = &self.at else {
            return;
        };
        if matches!(cell.key().parties, CallEnds::Rest(_)) {
            return;
        }
        let by_route = cell.of_route(route).unwrap_or_else(|| {
            let key = CellKey {
                route: Some(Arc::clone(route)),
                ..self.cell_key()
            };
            let by_route = self.telemetry.cell_of(key);
            if by_route.key().route.is_none() {
                self.telemetry.metrics.limit("routes");
            }
            // A cell of undistinguished ports is no way to one that is distinguished by now.
            if by_route.key().parties.port() == cell.key().parties.port() {
                cell.keep_route(route, &by_route);
            }
            by_route
        });
        // It counts once, and where it is now.
        if std::mem::take(&mut self.arrived)
            && let At::Counters(current) = &self.at
        {
            current.moves();
        }
        self.on(by_route);
    }
}
