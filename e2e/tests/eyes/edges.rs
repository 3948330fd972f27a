//! The graph after five minutes of calls of every kind equals the callers' own counts, although
//! a controller is killed in their middle, and both replicas report the same.
//!
//! A window of the graph is five minutes at most and ends on a half minute, so two adjacent
//! ones contain the load and its remainder. The first one is queried while all long-lived
//! connections are open.

use std::{
    collections::BTreeMap,
    slice, thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use e2e::{
    eyes::Record,
    harness::{Namespace, Outcome, controllers, eventually},
};
use serde_json::{Value, json};

use super::{
    altered::own_ready,
    direct::{As, Caller},
    load::{EdgeTotals, LoadEdge, Town},
};

/// Seconds from the begin of the load: the end of the first window, the death of a
/// controller, the end of the second window.
const FIRST: u64 = 120;
const KILLED: u64 = 150;
const LAST: u64 = 330;
/// Windows over a minute end with such a part of one.
const HALF: u64 = 30;
/// A slot is settled 5 s after its end.
const SETTLED: u64 = 8;
/// What was called before the load must be over for longer than a slot.
const APART: u64 = 10;
/// An answer that is made anew; a busy machine is no fault of it.
const ANSWERED: Duration = Duration::from_secs(10);
/// Of the generator's number.
const PERCENT: u64 = 2;

/// A row, fields of an edge, and what the generator says of them.
type Claim = (
    &'static str,
    &'static [(&'static str, fn(&EdgeTotals) -> u64)],
);
const CLAIMS: [Claim; 4] = [
    ("requests", &[("requests", |seen| seen.requests)]),
    ("failures", &[("failure", |seen| seen.failures)]),
    ("cancelled", &[("cancelled", |seen| seen.cancelled)]),
    (
        "attempts",
        &[
            ("attempts", |seen| seen.attempts),
            ("attemptFailures", |seen| seen.attempt_failures),
        ],
    ),
];

/// The edges of a window, as `weft stat` shows them.
struct Window(Value);

// Claims: observability-2
#[test]
fn graph_matches_generator_over_five_minutes_of_load() -> Outcome {
    let mut rows = BTreeMap::new();
    for row in CLAIMS.map(|(row, _)| row).into_iter().chain(["open"]) {
        rows.insert(row, Record::begin(row)?);
    }
    let mut replicas = Record::begin("replicas")?;
    let town = Town::begin()?;
    let begin = next_half();
    wait_until(begin);
    let (seen, (first, killed)) = town.calls(|| {
        wait_until(begin + FIRST + SETTLED);
        let first = Window::read(&town.ns, FIRST, &mut replicas)?;
        ensure!(now() < begin + FIRST + HALF, "to ask took too long");
        wait_until(begin + KILLED);
        let killed = controllers::leader(&town.ns.cluster)?;
        controllers::kill(&town.ns.cluster, slice::from_ref(&killed))?;
        Ok((first, killed))
    })?;
    assert!(now() < begin + LAST, "the load took too long");
    own_ready(&town.ns.cluster)?;
    wait_until(begin + LAST + SETTLED);
    let second = Window::read(&town.ns, LAST - FIRST, &mut replicas)?;
    assert!(now() < begin + LAST + HALF, "to ask took too long");
    let left = controllers::all(&town.ns.cluster)?;
    assert!(left.iter().all(|pod| pod.name != killed), "{left:?}");
    replicas.holds()?;

    let mut missed = Vec::new();
    for (row, fields) in CLAIMS {
        let mut record = rows.remove(row).context(row)?;
        let mut within = true;
        for seen in &seen {
            for &(field, of) in fields {
                let shown = first.sum(&town.ns, &seen.edge, field)?
                    + second.sum(&town.ns, &seen.edge, field)?;
                within &= near(&mut record, (&seen.edge, field), shown, of(seen));
            }
        }
        end(record, within, &mut missed)?;
    }
    let mut record = rows.remove("open").context("open")?;
    let mut within = true;
    for seen in &seen {
        if let Some(open) = seen.open {
            let shown = first.sum(&town.ns, &seen.edge, "open")?;
            within &= near(&mut record, (&seen.edge, "open"), shown, open);
        }
        let shown = second.sum(&town.ns, &seen.edge, "open")?;
        within &= near(&mut record, (&seen.edge, "open afterwards"), shown, 0);
    }
    end(record, within, &mut missed)?;
    assert!(missed.is_empty(), "{missed:#?}");
    Ok(())
}

/// Notes what is shown beside what was seen, and says whether it is near enough.
fn near(record: &mut Record, (edge, what): (&LoadEdge, &str), shown: u64, seen: u64) -> bool {
    if shown > 0 || seen > 0 {
        record.saw(format!(
            "{} to {}, {}: {what} {shown} of {seen}",
            edge.from, edge.to, edge.protocol
        ));
    }
    shown.abs_diff(seen) * 100 <= seen * PERCENT
}

/// One row is over; the others are looked at all the same.
fn end(record: Record, within: bool, missed: &mut Vec<String>) -> anyhow::Result<()> {
    if within {
        return record.holds();
    }
    missed.push(format!("{record:?}"));
    Ok(())
}

impl Window {
    /// The window of so many seconds that has just ended, which both replicas report alike.
    fn read(ns: &Namespace, length: u64, replicas: &mut Record) -> anyhow::Result<Self> {
        let window = format!("{length}s");
        let shown = eventually(ANSWERED, "nothing more comes", || {
            let args = ["stat", "deploy", "-o", "json", "-t", &window];
            let scope = ["-n", &ns.name, "--request-timeout", "30s"];
            let output = ns.cluster.weft(&[&args[..], &scope].concat())?;
            let graph = output.with_status(0)?.json()?;
            let of = &graph["metadata"];
            ensure!(
                of["complete"] == true && of["windowSeconds"] == length,
                "it is of {of}"
            );
            Ok(graph)
        })?;
        let path = format!(
            "/apis/observe.weft.dev/v1alpha1/namespaces/{}/graphs/live?window={window}&settled=1",
            ns.name
        );
        let mut caller = Caller::new(&ns.cluster)?;
        let pods = controllers::all(&ns.cluster)?;
        ensure!(pods.len() == 2, "{pods:?}");
        for pod in pods {
            let (status, answer) = caller.ask(&pod, &path, As::ApiServer)?;
            ensure!(status == 200, "{} answered {status}: {answer}", pod.name);
            let ends = (&answer["metadata"]["end"], &shown["metadata"]["end"]);
            ensure!(ends.0 == ends.1, "{} reports {ends:?}", pod.name);
            // The command shows rows of Deployments.
            let own = format!("{}/Deployment/", ns.name);
            let is_row = |edge: &Value| edge["to"].as_str().is_some_and(|to| to.starts_with(&own));
            let mut answer = answer;
            if let Some(edges) = answer["edges"].as_array_mut() {
                edges.retain(is_row);
            }
            let (answer, shown) = (counted(&answer)?, counted(&shown)?);
            ensure!(
                answer == shown,
                "{} reports {answer:#?}, weft shows {shown:#?}",
                pod.name
            );
        }
        let edges = counted(&shown)?.len();
        replicas.saw(format!(
            "{length} s until {}: {edges} edges alike",
            shown["metadata"]["end"]
        ));
        Ok(Self(shown))
    }

    /// A number of the one edge of this way.
    fn sum(&self, ns: &Namespace, load_edge: &LoadEdge, field: &str) -> anyhow::Result<u64> {
        let id = |name: &str| json!(format!("{}/Deployment/{name}", ns.name));
        let (from, to) = (id(load_edge.from), id(load_edge.to));
        let edges = self.0["edges"].as_array().context("no edges")?;
        let found = edges.iter().filter(|edge| {
            (&edge["from"], &edge["to"]) == (&from, &to)
                && edge["port"] == load_edge.port
                && edge["protocol"] == load_edge.protocol
        });
        let found: Vec<&Value> = found.collect();
        let [edge] = found[..] else {
            anyhow::bail!("{} edges are {load_edge:?}: {:#}", found.len(), self.0)
        };
        let number = edge[field].as_u64();
        number.with_context(|| format!("no {field} in {edge:#}"))
    }
}

/// Edges by id, without the replica's data from before the window.
fn counted(graph: &Value) -> anyhow::Result<BTreeMap<String, Value>> {
    let edges = graph["edges"].as_array().context("no edges")?;
    let counted = edges.iter().map(|edge| {
        let mut fields = edge.as_object().context("an edge is an object")?.clone();
        fields.retain(|name, _| name != "firstSeen" && name != "lastSeen");
        let id = edge["id"].as_str().context("no id")?;
        Ok((id.to_owned(), Value::Object(fields)))
    });
    counted.collect()
}

/// All nodes of the local cluster have this clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn next_half() -> u64 {
    (now() + APART).next_multiple_of(HALF)
}

fn wait_until(moment: u64) {
    thread::sleep(Duration::from_secs(moment.saturating_sub(now())));
}
