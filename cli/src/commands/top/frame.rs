//! Draws one screen of `weft top`: the sorted edges, as many as fit.
//!
//! Claims: observe-130

use std::cmp::Ordering;
use std::io;

use crds::observe::Edge;

use super::terminal::Terminal;
use crate::console::Console;
use crate::failure::Failure;
use crate::output::number;
use crate::output::table::{Cell, Table};
use crate::traffic::IndexedGraph;
use crate::traffic::select::{self, Selected};
use crate::traffic::sums::TrafficTotals;

/// By what edges are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Rate,
    Success,
    Latency,
    Open,
    Name,
}

impl Order {
    /// The command of a key.
    pub(super) fn of(key: u8) -> Option<Self> {
        Some(match key {
            b'r' => Self::Rate,
            b's' => Self::Success,
            b'l' => Self::Latency,
            b'o' => Self::Open,
            b'n' => Self::Name,
            _ => return None,
        })
    }

    /// The order after what was read of the keys; `None` where that ends the drawing.
    pub(super) fn after(self, read: &io::Result<usize>, key: u8) -> Option<Self> {
        match (read, key) {
            (Ok(1), b'q' | 3 | 4) | (Ok(0) | Err(_), _) => None,
            (_, key) => Some(Self::of(key).unwrap_or(self)),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Success => "success",
            Self::Latency => "latency",
            Self::Open => "open",
            Self::Name => "name",
        }
    }

    /// What the user looks for comes first.
    fn compare(self, one: &Edge, other: &Edge) -> Ordering {
        let by = match self {
            Self::Rate => other.requests.cmp(&one.requests),
            Self::Success => success(one).total_cmp(&success(other)),
            Self::Latency => latency(other).total_cmp(&latency(one)),
            Self::Open => other.open.cmp(&one.open),
            Self::Name => Ordering::Equal,
        };
        by.then_with(|| (&one.from, &one.to, &one.id).cmp(&(&other.from, &other.to, &other.id)))
    }
}

/// Without a completed call none failed.
fn success(edge: &Edge) -> f64 {
    match edge.success + edge.failure {
        0 => 1.0,
        all => edge.success as f64 / all as f64,
    }
}

fn latency(edge: &Edge) -> f64 {
    edge.ms.map_or(0.0, |ms| ms.p95)
}

/// The edges in their order.
pub(super) struct Frame<'a> {
    traffic: &'a IndexedGraph,
    edges: Vec<&'a Edge>,
    here: Option<&'a str>,
    order: Order,
}

impl<'a> Frame<'a> {
    pub(super) fn of(
        traffic: &'a IndexedGraph,
        selected: Option<&Selected>,
        here: Option<&'a str>,
        order: Order,
    ) -> Self {
        let meant = |edge: &&Edge| {
            !edge.quiet
                && selected.is_none_or(|one| one.is_from(traffic, edge) || one.is_to(traffic, edge))
        };
        let mut edges: Vec<&Edge> = traffic.edges().iter().filter(meant).collect();
        edges.sort_by(|one, other| order.compare(one, other));
        Self {
            traffic,
            edges,
            here,
            order,
        }
    }

    /// The first `rows` edges.
    pub(super) fn table(&self, rows: usize) -> Table {
        let mut table = Table::new(&[
            "FROM", "TO", "PORT", "SUCCESS", "RPS", "P50", "P95", "P99", "OPEN", "REFUSED",
            "FAILED",
        ]);
        for edge in self.edges.iter().take(rows) {
            let mut sums = TrafficTotals::default();
            sums.add(edge);
            let mut row: Vec<Cell> = vec![
                select::shown(self.traffic, &edge.from, self.here).into(),
                select::shown(self.traffic, &edge.to, self.here).into(),
                // An undeclared port.
                match edge.port {
                    0 => Cell::default(),
                    port => port.to_string().into(),
                },
                sums.success_cell(),
                sums.rate_cell(self.traffic.seconds()),
            ];
            row.extend(sums.latency_cells());
            row.push(sums.open.to_string().into());
            row.extend([sums.refused_cell(), sums.failed_cell()]);
            table.row(row);
        }
        table
    }

    /// Draws over what was there.
    pub(super) fn draw(
        &self,
        terminal: &Terminal,
        console: &mut Console<'_>,
        word: Option<&str>,
    ) -> Result<(), Failure> {
        let requests: u64 = self.edges.iter().map(|edge| edge.requests).sum();
        let title = format!(
            "{} edges, {} requests/s, by {} (keys r s l o n, q ends)",
            self.edges.len(),
            number::rate(requests, self.traffic.seconds()),
            self.order.name()
        );
        let word = word
            .map(ToOwned::to_owned)
            .or_else(|| self.traffic.word())
            .unwrap_or_default();
        // Two lines above the table, its head, and the line of the cursor.
        let (rows, _) = terminal.size();
        let table = self.table(rows.saturating_sub(4));
        terminal.draw(console, &[title.as_str(), word.as_str()], &table, &[])
    }
}

#[cfg(test)]
mod tests {
    use crds::observe::Graph;
    use serde_json::json;

    use super::*;

    fn order(order: Order) -> String {
        let graph: Graph = serde_json::from_value(json!({"metadata": {"windowSeconds": 30}, "edges": [
            {"id": "1", "from": "a", "to": "x", "requests": 10, "success": 10, "ms": {"p50": 1.0, "p95": 9.0, "p99": 9.0}},
            {"id": "2", "from": "b", "to": "x", "requests": 30, "success": 30, "open": 4},
            {"id": "3", "from": "c", "to": "x", "requests": 20, "success": 1, "failure": 19},
            {"id": "4", "from": "d", "to": "x", "quiet": true},
        ]}))
        .unwrap();
        let traffic = IndexedGraph::of(graph);
        let frame = Frame::of(&traffic, None, None, order);
        frame.edges.iter().map(|edge| edge.from.as_str()).collect()
    }

    #[test]
    fn what_the_user_looks_for_comes_first() {
        assert_eq!(order(Order::Rate), "bca");
        assert_eq!(order(Order::Success), "cab", "the worst");
        assert_eq!(order(Order::Latency), "abc");
        assert_eq!(order(Order::Open), "bac");
        assert_eq!(order(Order::Name), "abc");
        assert_eq!(Order::of(b'x'), None);
    }

    #[test]
    fn key_changes_order_and_quit_or_closed_input_stops() {
        let after = |read: io::Result<usize>, key: u8| Order::Rate.after(&read, key);
        assert_eq!(after(Ok(1), b's'), Some(Order::Success));
        assert_eq!(after(Ok(1), b'x'), Some(Order::Rate));
        for key in [b'q', 3, 4] {
            assert_eq!(after(Ok(1), key), None, "{key}");
        }
        assert_eq!(after(Ok(0), b's'), None);
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(after(Err(broken), b's'), None);
    }
}
