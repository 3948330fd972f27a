//! Adds the requests per route of the own workload to a report.
//!
//! Cells are distinguished by route and group, and edges are not. So an edge here sums the cells of
//! all its routes and groups, with the number of requests by each route, and what each route served
//! is in a row of its own, for all callers.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use policy::latency::Histogram;
use wire::v1;

use crate::telemetry::cell::{CallGroup, CellKey, Counts};
use crate::telemetry::cells::CellReading;

/// Routes of one edge; a controller takes no report with more.
const OF_AN_EDGE: usize = 16;
/// Rows of one report: 64 names on each of four ports. A controller takes twice as many.
const ROWS: usize = 256;
/// Bytes of the names beside the edges of one report, of which a controller takes
/// 512 KiB in all.
const EDGE_BYTES: usize = 64 * 1024;

/// Requests by route.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// By port and name.
    rows: BTreeMap<(u16, Arc<str>), Counts>,
    /// By edge, as the way without its route.
    edges: HashMap<CellKey, BTreeMap<Arc<str>, u64>>,
    /// Bytes of names that edges were given.
    given: usize,
    /// Something found no place.
    cut: bool,
}

/// Edges, and the routes that were taken out of them.
pub(super) fn apart(readings: Vec<CellReading>) -> (Vec<CellReading>, Routes) {
    let mut routes = Routes::default();
    let is_edge = |key: &CellKey| key.route.is_none() && key.group == CallGroup::None;
    if readings.iter().all(|one| is_edge(&one.key)) {
        return (readings, routes);
    }
    let mut edges: HashMap<CellKey, CellReading> = HashMap::new();
    for mut one in readings {
        one.key.group = CallGroup::None;
        if let Some(route) = one.key.route.take() {
            routes.add(&one, route);
        }
        match edges.entry(one.key.clone()) {
            Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                entry.counts.add(one.counts);
                entry.open += one.open;
            }
            Entry::Vacant(free) => {
                free.insert(one);
            }
        }
    }
    (edges.into_values().collect(), routes)
}

impl Routes {
    fn add(&mut self, reading: &CellReading, route: Arc<str>) {
        let requests = requests(&reading.counts);
        // A stream may stay for hours: what it is has to be known before it ends.
        if requests > 0 || reading.open > 0 {
            let edge = self.edges.entry(reading.key.clone()).or_default();
            *edge.entry(Arc::clone(&route)).or_default() += requests;
        }
        if requests == 0 {
            return;
        }
        let row = self.rows.entry((reading.key.call_ends.port(), route));
        row.or_default().add(reading.counts.clone());
    }

    /// How many requests of an edge took which route; 0 of one that is under way alone.
    /// What finds no place stands with what no route describes, so that the others do not pass
    /// for all there are.
    pub(super) fn of_edge(&mut self, key: &CellKey) -> Vec<v1::EdgeRoute> {
        let Some(mut named) = self.edges.remove(key) else {
            return Vec::new();
        };
        let bytes: usize = named.keys().map(|name| name.len()).sum();
        if self.given + bytes > EDGE_BYTES {
            self.cut = true;
            return Vec::new();
        }
        self.given += bytes;
        let mut unnamed = named.remove("");
        let mut named: Vec<(Arc<str>, u64)> = named.into_iter().collect();
        if named.len() >= OF_AN_EDGE {
            self.cut = true;
            named.sort_by_key(|(_, requests)| Reverse(*requests));
            let others = named.drain(OF_AN_EDGE - 1..);
            *unnamed.get_or_insert_default() += others.map(|(_, requests)| requests).sum::<u64>();
        }
        let unnamed = unnamed.map(|requests| (Arc::default(), requests));
        let all = named.into_iter().chain(unnamed);
        all.map(|(route, requests)| v1::EdgeRoute {
            route: route.to_string(),
            requests,
        })
        .collect()
    }

    /// What each route served, the most used ones where they are too many.
    pub(super) fn rows(&mut self) -> Vec<v1::RouteCalls> {
        let mut rows: Vec<_> = std::mem::take(&mut self.rows).into_iter().collect();
        if rows.len() > ROWS {
            self.cut = true;
            rows.sort_by_key(|(_, counts)| Reverse(requests(counts)));
            rows.truncate(ROWS);
        }
        let rows = rows.into_iter();
        rows.map(|((port, route), counts)| v1::RouteCalls {
            port: port.into(),
            route: route.to_string(),
            success: counts.calls(|outcome| outcome.success),
            failure: counts.calls(|outcome| !outcome.success),
            cancelled: counts.cancelled,
            client_errors: counts.calls(|outcome| outcome.is_client_error()),
            latency: buckets(&counts.latency),
        })
        .collect()
    }

    /// Whether something found no place so far.
    pub(super) const fn is_cut(&self) -> bool {
        self.cut
    }
}

fn requests(counts: &Counts) -> u64 {
    counts.calls(|_| true) + counts.cancelled
}

/// How long requests took, in the buckets of reports.
pub(super) fn buckets(latency: &Histogram) -> Vec<u32> {
    let counts = latency.counts().iter();
    counts
        .map(|count| u32::try_from(*count).unwrap_or(u32::MAX))
        .collect()
}
