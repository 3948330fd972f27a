//! The commands that people wait for.
//!
//! Claims: observe-56

use std::time::Duration;

use e2e::harness::{Namespace, Outcome, eventually};

use super::super::url;
use super::{SHOWN, edge, graph, weft};

/// The promise, from the start of the process to its end.
const WITHIN: Duration = Duration::from_millis(500);
/// The median of these counts: what a user sees most often, and not the luckiest run. Another
/// test runs beside this one and may hold both cores for a while, which less than half of them meet.
const RUNS: usize = 11;

// Claims: observability-5
#[test]
fn commands_answer_within_half_a_second() -> Outcome {
    let ns = Namespace::meshed("eyes-latency")?;
    ns.run(&["web", "cart"])?;
    ns.pod("web")?.report(&url("cart", 8080, "/"), &[])?;
    eventually(SHOWN, "the call shows", || {
        edge(&ns, &graph(&ns)?, "web", "cart")
    })?;
    for args in [
        &["stat", "deploy"][..],
        &["edges"],
        &["routes", "deploy/cart"],
        &["proxies"],
        &["explain", "deploy/web", "svc/cart:8080", "GET", "/"],
    ] {
        let mut took = Vec::new();
        for _ in 0..RUNS {
            took.push(weft(&ns, args)?.with_status(0)?.took);
        }
        took.sort();
        let median = took[RUNS / 2];
        println!("{args:?}: {median:?}");
        assert!(median < WITHIN, "{args:?}: {took:?}");
    }
    Ok(())
}
