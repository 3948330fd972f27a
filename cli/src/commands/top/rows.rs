//! The table of requests by method, path and route, and the line below it.

use std::cmp::Ordering;
use std::fmt::Write as _;

use crds::observe::Latency;

use super::frame::Order;
use super::window::{Counts, RowKey, RowStats, WindowView};
use crate::output::number;
use crate::output::table::{Cell, Table};

/// Characters of a method that are shown. One of a caller's own making must not move the
/// columns after it out of sight.
const METHOD: usize = 16;

/// Stands for all that have no row of their own.
const OTHERS: &str = "(others)";

/// A way, or none, and what was seen of it.
type Row<'a> = (Option<&'a RowKey>, &'a RowStats);

/// The first `most` rows.
pub(super) fn table(look: &WindowView<'_>, order: Order, most: usize) -> Table {
    let rows = look.rows.iter();
    let mut rows: Vec<Row<'_>> = rows.map(|(key, seen)| (*key, seen)).collect();
    rows.sort_by(|one, other| compare(order, *one, *other));
    // The path comes last, because it may be as long as its caller likes.
    let mut table = Table::new(&[
        "DIR", "METHOD", "SUCCESS", "RPS", "P50", "P95", "P99", "ROUTE", "PATH",
    ]);
    for (key, seen) in rows.into_iter().take(most) {
        let (direction, method, route, path) = match key {
            Some(key) => (
                key.direction,
                key.method.as_str(),
                key.route.as_str(),
                key.path.as_str(),
            ),
            None => ("", "", "", OTHERS),
        };
        let latency = seen.latency();
        let ms = |of: fn(&Latency) -> f64| Cell::from(number::millis(latency.as_ref().map(of)));
        table.row(vec![
            direction.into(),
            method.chars().take(METHOD).collect::<String>().into(),
            number::share(seen.served, seen.served + seen.failed),
            number::rate(look.scaled(seen.requests), look.seconds).into(),
            ms(|ms| ms.p50),
            ms(|ms| ms.p95),
            ms(|ms| ms.p99),
            route.into(),
            path.into(),
        ]);
    }
    table
}

/// What keeps a sample from being taken for a count.
pub(super) fn summary(look: &WindowView<'_>) -> String {
    let Counts {
        matched,
        shown,
        dropped,
    } = look.counts;
    let (taking_part, proxies) = look.proxies;
    let mut text = format!(
        "{shown} of {matched} requests in {:.0} s were shown, {dropped} found no room",
        look.seconds
    );
    if matched > shown {
        text.push_str("; rates are scaled to all of them");
    }
    // Writing to a String does not fail.
    let _ = write!(text, "; {taking_part} of {proxies} proxies take part");
    if let Some(others) = look.rows.get(&None::<&RowKey>) {
        let _ = write!(text, "; {} of those shown are in {OTHERS}", others.requests);
    }
    if look.evicted > 0 {
        let _ = write!(text, "; {} had to leave too early", look.evicted);
    }
    text
}

/// What the user looks for comes first, and what is summed up last.
fn compare(order: Order, (key, one): Row<'_>, (other_key, other): Row<'_>) -> Ordering {
    let by = match order {
        Order::Rate => other.requests.cmp(&one.requests),
        Order::Success => success(one).total_cmp(&success(other)),
        Order::Latency => latency(other).total_cmp(&latency(one)),
        // Of requests that have ended none is open.
        Order::Open | Order::Name => Ordering::Equal,
    };
    let others = key.is_none().cmp(&other_key.is_none());
    others.then(by).then_with(|| key.cmp(&other_key))
}

/// Without a completed call none failed.
fn success(seen: &RowStats) -> f64 {
    match seen.served + seen.failed {
        0 => 1.0,
        all => seen.served as f64 / all as f64,
    }
}

fn latency(seen: &RowStats) -> f64 {
    seen.latency().map_or(0.0, |ms| ms.p95)
}
