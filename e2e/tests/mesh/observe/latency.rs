//! The commands that people wait for.

use std::time::Duration;

use e2e::harness::{Namespace, Outcome, eventually};

use super::super::url;
use super::{SHOWN, edge, graph, weft};

/// The promise, from the start of the process to its end.
const WITHIN: Duration = Duration::from_millis(500);
/// Another test runs beside this one and may hold both cores for a while, so the fastest of
/// some runs counts.
const RUNS: usize = 10;

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
        let mut fastest = Duration::MAX;
        for _ in 0..RUNS {
            let output = weft(&ns, args)?.with_status(0)?;
            fastest = fastest.min(output.took);
        }
        println!("{args:?}: {fastest:?}");
        assert!(fastest < WITHIN, "{args:?} takes {fastest:?}");
    }
    Ok(())
}
