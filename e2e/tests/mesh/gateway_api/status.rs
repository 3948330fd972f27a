//! `status.parents` belongs to many controllers: the mesh writes its own entry and no other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use e2e::harness::{Api, Namespace, Outcome, Watch, eventually, settled};
use serde_json::{Value, json};

use super::{
    super::{
        SOON,
        split::{in_force, of},
    },
    CONTROLLER, await_condition, backends, entry, object, route, shop,
};

/// Changes of the route, each of which changes the mesh's entry.
const FLIPS: u32 = 60;
/// Between two of them.
const FLIP: Duration = Duration::from_millis(250);
/// Between two writes of the other controller: 20 a second.
const WRITE: Duration = Duration::from_millis(50);
/// Of one write, when others were quicker.
const ATTEMPTS: u32 = 20;
/// What the mesh may write meanwhile.
const MOST_WRITES: usize = 200;
/// Without a write, so long, after the last change.
const QUIET: Duration = Duration::from_secs(3);
/// The other controller's entries: before and behind the mesh's.
const BEFORE: &str = "example.com/before";
const BEHIND: &str = "example.com/behind";

// Claims: routes-4
#[test]
fn foreign_parents_status_is_never_older_nor_moved() -> Outcome {
    let ns = shop("parents")?;
    ns.apply_all(&[route("HTTPRoute", &rules("canary"))])?;
    await_condition(&ns, "httproutes", "ResolvedRefs", "True")?;
    in_force(&ns, |seen| of(seen, "canary") == seen.planned)?;
    let watch = Watch::start(&ns, "httproutes.v1.gateway.networking.k8s.io")?;
    eventually(SOON, "the watch has started", || {
        ensure!(!watch.states("shop").is_empty(), "nothing was seen");
        Ok(())
    })?;

    let api = Api::open(&ns.cluster)?;
    let path = path(&ns);
    let foreign = Foreign::start(&ns)?;
    for flip in 1..=FLIPS {
        let due = Instant::now() + FLIP;
        let backend = if flip % 2 == 0 { "canary" } else { "unborn" };
        api.merge(&path, &json!({"spec": {"rules": rules(backend)}}))?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let written = foreign.finish()?;
    await_condition(&ns, "httproutes", "ResolvedRefs", "True")?;
    // A controller that sees its own write as a change would write for ever.
    settled(SOON, QUIET, || {
        Ok(api.read(&path)?["metadata"]["resourceVersion"].clone())
    })?;

    let states = watch.states("shop");
    let writes = own_writes(&states, written)?;
    println!(
        "{} states, {written} foreign writes, {writes} of the mesh",
        states.len()
    );
    assert!(
        (1..=MOST_WRITES).contains(&writes),
        "the mesh wrote {writes} times"
    );
    Ok(())
}

fn rules(backend: &str) -> Value {
    json!([{"backendRefs": backends(8080, &[(backend, 1)])}])
}

fn path(ns: &Namespace) -> String {
    let resource = "apis/gateway.networking.k8s.io/v1/namespaces";
    format!("/{resource}/{}/httproutes/shop", ns.name)
}

/// How often the mesh's entry changed. Fails where an entry of the other controller became
/// older, was lost or twice there, or changed its place, and where the last is not there.
fn own_writes(states: &[Value], written: u32) -> anyhow::Result<usize> {
    let (mut count, mut writes) = (0, 0);
    let mut ours: Option<&Value> = None;
    for state in states {
        let now = entry(state)?;
        if ours.replace(now).is_some_and(|before| before != now) {
            writes += 1;
        }
        let names = controllers(state);
        if count == 0 && names == [CONTROLLER] {
            continue;
        }
        ensure!(
            names == [BEFORE, CONTROLLER, BEHIND],
            "entries were lost or moved: {}",
            state["status"]
        );
        let parents = &state["status"]["parents"];
        let (first, last) = (counted(&parents[0])?, counted(&parents[2])?);
        ensure!(
            first == last && first >= count,
            "{count} were written and {first} and {last} are there: {}",
            state["status"]
        );
        count = first;
    }
    ensure!(
        count == written,
        "the last of {written} foreign writes was {count}"
    );
    Ok(writes)
}

fn controllers(state: &Value) -> Vec<&str> {
    let parents = state["status"]["parents"].as_array();
    parents
        .into_iter()
        .flatten()
        .filter_map(|parent| parent["controllerName"].as_str())
        .collect()
}

/// The number of the write that an entry of the other controller is of.
fn counted(parent: &Value) -> anyhow::Result<u32> {
    let message = parent["conditions"][0]["message"].as_str();
    let message = message.with_context(|| format!("no message: {parent}"))?;
    message.parse().with_context(|| parent.to_string())
}

/// Another controller, which writes its two entries until it is finished or dropped.
#[derive(Debug)]
struct Foreign {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<u32>>>,
}

impl Foreign {
    fn start(ns: &Namespace) -> anyhow::Result<Self> {
        let (api, path) = (Api::open(&ns.cluster)?, path(ns));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = Instant::now() + WRITE;
                count += 1;
                write(&api, &path, count)?;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(count)
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it, and returns how often it wrote.
    fn finish(mut self) -> anyhow::Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(written)) => written,
            _ => bail!("the other controller panicked"),
        }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Reads the route, puts both entries into what was read, and writes that; again where the
/// route has changed meanwhile.
fn write(api: &Api, path: &str, count: u32) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS {
        let mut route = api.read(path)?;
        let parents = route["status"]["parents"].as_array_mut();
        let parents = parents.context("a route without parents")?;
        put(parents, parent(BEFORE, count), 0);
        let last = parents.len();
        put(parents, parent(BEHIND, count), last);
        match api.replace(&format!("{path}/status"), &route) {
            Ok(_) => return Ok(()),
            Err(error) if format!("{error:#}").contains("answered 409") => {}
            Err(error) => return Err(error),
        }
    }
    bail!(
        "{} was changed by others {ATTEMPTS} times in a row",
        object("httproutes")
    )
}

/// In the place of the entry of the same controller, or else at this one.
fn put(parents: &mut Vec<Value>, entry: Value, otherwise: usize) {
    let is_same = |parent: &Value| parent["controllerName"] == entry["controllerName"];
    match parents.iter().position(is_same) {
        Some(at) => parents[at] = entry,
        None => parents.insert(otherwise, entry),
    }
}

/// An entry with the mesh's own parentRef: an entry is known by controller and parentRef.
fn parent(controller: &str, count: u32) -> Value {
    json!({"controllerName": controller,
        "parentRef": {"group": "", "kind": "Service", "name": "shop"},
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted",
            "message": count.to_string(), "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}
