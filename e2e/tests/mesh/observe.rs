//! Observability: `weft` as a user runs it, and the read API that it queries, through the
//! cluster's own API server.
//!
//! Claims: observe-153

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{CommandOutput, Namespace, Outcome, eventually};
use serde_json::{Value, json};

use super::{split, url};

mod control_plane;
mod dry_run_rights;
mod dry_runs;
mod everything;
mod first_calls;
mod latency;
mod page;
mod proxies;
mod refusals;
mod rights;
mod routes;
mod taps;

/// A slot of 5 s, its report, the half minute that a long window ends with, and as much
/// again for a busy machine.
const SHOWN: Duration = Duration::from_secs(240);

/// A busy machine is no fault of the command.
const PATIENT: [&str; 2] = ["--request-timeout", "30s"];

/// `weft -n NAMESPACE ARGS`.
fn weft(ns: &Namespace, args: &[&str]) -> anyhow::Result<CommandOutput> {
    let scope = ["-n", &ns.name];
    ns.cluster.weft(&[args, &scope, &PATIENT].concat())
}

/// The graph of the last five minutes: of a test that is held up no call leaves the window.
fn graph(ns: &Namespace) -> anyhow::Result<Value> {
    let args = ["stat", "deploy", "-t", "5m", "-o", "json"];
    weft(ns, &args)?.with_status(0)?.json()
}

/// What `weft edges` prints, which is of the last minute and what is remembered.
fn printed(ns: &Namespace, args: &[&str]) -> anyhow::Result<Value> {
    let args = [&["edges", "-o", "json"], args].concat();
    weft(ns, &args)?.with_status(0)?.json()
}

/// The edges from one Deployment of the namespace to another.
fn edges<'a>(ns: &Namespace, graph: &'a Value, from: &str, to: &str) -> Vec<&'a Value> {
    let id = |name: &str| format!("{}/Deployment/{name}", ns.name);
    let (from, to) = (id(from), id(to));
    let all = graph["edges"].as_array().into_iter().flatten();
    all.filter(|edge| edge["from"] == from && edge["to"] == to)
        .collect()
}

/// The only one of them.
fn edge(ns: &Namespace, graph: &Value, from: &str, to: &str) -> anyhow::Result<Value> {
    match edges(ns, graph, from, to)[..] {
        [edge] => Ok(edge.clone()),
        _ => anyhow::bail!("not one edge from {from} to {to}: {graph:#}"),
    }
}

/// One column of the row of a table whose first column is `name`. Empty cells show `-`.
fn cell<'a>(table: &'a str, name: &str, column: &str) -> anyhow::Result<&'a str> {
    let head = table.lines().next().unwrap_or_default();
    let at = head.split_whitespace().position(|one| one == column);
    let at = at.with_context(|| format!("no column {column} in\n{table}"))?;
    let mut rows = table.lines().map(|line| line.split_whitespace());
    let row = rows.find(|row| row.clone().next() == Some(name));
    let mut row = row.with_context(|| format!("no row {name} in\n{table}"))?;
    row.nth(at)
        .with_context(|| format!("no {column} of {name} in\n{table}"))
}

// Claims: observability-2
#[test]
fn graph_and_tables_match_calls_of_load_generator() -> Outcome {
    let ns = Namespace::meshed("eyes-edge")?;
    ns.run(&["web", "cart"])?;
    let web = ns.pod("web")?;
    for (path, number) in [
        ("/", "300"),
        ("/?status=500", "100"),
        ("/?status=404", "50"),
    ] {
        let seen = web.get(&url("cart", 8080, path), &["-n", number, "-c", "4"])?;
        assert!(seen.answered.to_string() == number, "{seen:?}");
    }
    let found = eventually(SHOWN, "the edge has all calls", || {
        let found = edge(&ns, &graph(&ns)?, "web", "cart")?;
        ensure!(found["requests"] == 450, "{found:#}");
        // The other end counted the same calls, and they are not added.
        ensure!(found["server"]["requests"] == 450, "{found:#}");
        Ok(found)
    })?;
    let service = format!("{}/cart", ns.name);
    let caller = format!("spiffe://cluster.local/ns/{}/sa/web", ns.name);
    for (field, expected) in [
        ("success", json!(350)),
        ("failure", json!(100)),
        ("clientErrors", json!(50)),
        ("cancelled", json!(0)),
        ("protocol", json!("http1")),
        ("mtls", json!(1.0)),
        ("port", json!(8080)),
        ("service", json!(service)),
        ("identities", json!([caller])),
    ] {
        assert_eq!(found[field], expected, "{field} of {found:#}");
    }

    // Any replica answers, and the other one may learn of these calls a moment later.
    eventually(SHOWN, "the tables have all calls", || {
        let stat = weft(&ns, &["stat", "deploy", "-o", "wide", "-t", "5m"])?.with_status(0)?;
        for (column, expected) in [
            ("MESHED", "1/1"),
            ("SUCCESS", "77.78%"),
            ("REQUESTS", "450"),
            ("FAILURES", "100"),
        ] {
            let found = cell(&stat.out, "cart", column)?;
            ensure!(
                found == expected,
                "{column} is not {expected}\n{}",
                stat.out
            );
        }
        let made = ["stat", "deploy", "--to", "deploy/cart", "-o", "wide"];
        let made = weft(&ns, &[&made[..], &["-t", "5m"]].concat())?.with_status(0)?;
        ensure!(cell(&made.out, "web", "REQUESTS")? == "450", "{}", made.out);
        Ok(())
    })?;
    eventually(SHOWN, "the edge is drawn and written", || {
        let table = weft(&ns, &["edges", "deploy/web", "--since", "24h"])?.with_status(0)?;
        ensure!(
            cell(&table.out, "deploy/web", "TO")? == "deploy/cart",
            "{}",
            table.out
        );
        let drawn = weft(&ns, &["edges", "--since", "24h", "-o", "mermaid"])?.with_status(0)?;
        let whole = drawn.out.starts_with("flowchart") && drawn.out.contains("cart");
        ensure!(whole, "{}", drawn.out);
        Ok(())
    })?;
    Ok(())
}

// Claims: observability-2
#[test]
fn each_port_and_protocol_is_edge_showing_open_requests() -> Outcome {
    let ns = Namespace::meshed("eyes-ports")?;
    ns.run(&["web", "cart"])?;
    let web = ns.pod("web")?;
    web.report(&url("cart", 8080, "/"), &[])?;
    let answer = web.exec(&["tcp", "cart:9000"])?;
    assert!(answer.starts_with("cart"), "{answer}");
    web.grpc(&["cart:8080"])?;
    eventually(SHOWN, "every way has its edge", || {
        let graph = graph(&ns)?;
        let protocols: Vec<(&Value, &Value)> = edges(&ns, &graph, "web", "cart")
            .iter()
            .map(|edge| (&edge["port"], &edge["protocol"]))
            .collect();
        for protocol in [(8080, "http1"), (8080, "grpc"), (9000, "tcp")] {
            ensure!(
                protocols.contains(&(&json!(protocol.0), &json!(protocol.1))),
                "{protocol:?} is not in {protocols:?}"
            );
        }
        Ok(())
    })?;
    // Not over yet when it has to be seen.
    let slow = url("cart", 8080, "/?delay=55s");
    let slow_load = web.start_load(&slow, &["-n", "1", "--timeout", "90s"])?;
    eventually(Duration::from_secs(50), "the open request shows", || {
        let now = printed(&ns, &[])?;
        let open = edges(&ns, &now, "web", "cart");
        ensure!(
            open.iter()
                .any(|edge| edge["protocol"] == "http1" && edge["open"] == 1),
            "{now:#}"
        );
        Ok(())
    })?;
    drop(slow_load);
    Ok(())
}

#[test]
fn split_stat_shows_desired_weights_and_observed_shares() -> Outcome {
    let ns = split::shop("eyes-split")?;
    // What is called before a split is in force shows at none of its backends.
    split::all_to(&ns, "stable")?;
    split::weigh(&ns, &[("stable", 3), ("canary", 1)])?;
    split::in_force(&ns, |seen| split::of(seen, "canary") > 5)?;
    let client = ns.pod("client")?;
    client.get(&url("shop", 8080, "/"), &["-n", "400", "-c", "4"])?;
    let backends = ["stable", "canary"].map(|name| format!("{}/{name}", ns.name));
    let rows = eventually(SHOWN, "the split has its calls", || {
        let output = weft(&ns, &["stat", "ts", "-t", "5m", "-o", "wide"])?.with_status(0)?;
        let mut all = 0;
        let mut rows = Vec::new();
        for backend in &backends {
            let words = output.out.lines().map(|line| line.split_whitespace());
            let mut words = words.map(Iterator::collect::<Vec<&str>>);
            let row = words.find(|row| row.get(1) == Some(&backend.as_str()));
            let row = row.with_context(|| format!("no {backend} in\n{}", output.out))?;
            // REQUESTS, before FAILURES and ATTEMPTS.
            all += row[row.len() - 3].parse::<u64>()?;
            rows.push(row[..4].join(" "));
        }
        ensure!(all >= 400, "{}", output.out);
        Ok(rows)
    })?;
    for (row, backend, weight, least) in [
        (&rows[0], &backends[0], 3, 60.0),
        (&rows[1], &backends[1], 1, 10.0),
    ] {
        let share = row.strip_prefix(&format!("shop {backend} {weight} "));
        let share = share.with_context(|| format!("{rows:?}"))?;
        let share: f64 = share.trim_end_matches('%').parse()?;
        assert!((least..least + 30.0).contains(&share), "{rows:?}");
    }
    Ok(())
}

// Claims: observability-3
#[test]
fn edges_are_persisted_after_their_caller_is_gone() -> Outcome {
    let ns = Namespace::meshed("eyes-memory")?;
    ns.run(&["web", "cart"])?;
    ns.pod("web")?.report(&url("cart", 8080, "/"), &[])?;
    eventually(SHOWN, "the call shows", || {
        edge(&ns, &graph(&ns)?, "web", "cart")
    })?;
    ns.kubectl(&["delete", "deployment", "web"])?;
    let limit = Duration::from_secs(240);
    eventually(limit, "the edge is quiet and remembered", || {
        let now = printed(&ns, &[])?;
        ensure!(edges(&ns, &now, "web", "cart").is_empty(), "{now:#}");
        let persisted = printed(&ns, &["--since", "24h"])?;
        let found = edge(&ns, &persisted, "web", "cart")?;
        let seen = found["lastSeen"].as_str().unwrap_or_default();
        ensure!(found["quiet"] == true && !seen.is_empty(), "{found:#}");
        Ok(())
    })?;
    Ok(())
}
