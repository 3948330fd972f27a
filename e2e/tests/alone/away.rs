//! Calls to a Service that fails, while the controllers are away: what they said last does
//! not hold for long, and what proxies decide by themselves needs none of them.
//!
//! Claims: calls-84, observe-127

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use e2e::harness::{
    Api, App, Cluster, Load, Namespace, Outcome, Pod, UNTIL_ENDED, eventually, everything, mesh,
};
use serde_json::json;

use super::{
    altered::{own_pods, own_ready},
    url,
};

mod lost_node;
mod writes;

/// From one state of the whole to the next, with patience.
const SOON: Duration = Duration::from_secs(30);

/// Callers of the Service with a breaker, as accounts, and pods of each.
const ACCOUNTS: [&str; 4] = ["mobile", "web", "cart", "search"];
const PODS: usize = 3;
/// Calls of each in a second: too few for a proxy to open by its own numbers, so that what
/// holds is the controllers' word.
const RATE: u32 = 4;
/// The promise: from when the Service works until its callers call it again.
const SERVED: Duration = Duration::from_secs(20);
/// How long calls are counted then, as often as it takes until a window has them.
const COUNTED: Duration = Duration::from_secs(3);
/// As `weft_breaker_state` says it.
const NONE_BUT_PROBES: f64 = 2.0;

/// Callers of the Service of which one instance fails, and the requests of each in a second.
const CLIENTS: usize = 4;
const EACH: &str = "50";
/// Before it fails.
const CALM: Duration = Duration::from_secs(3);
/// The promises: of all calls so many are answered with 200 within a second, and after two
/// seconds the instance gets nothing but probes, three from each caller in the time that
/// is looked at.
const GOOD: f64 = 0.999;
const IN_TIME: &str = "1s";
const EJECTED: Duration = Duration::from_secs(2);
const LOOKED_AT: Duration = Duration::from_secs(9);
const PROBES: f64 = 3.0 * CLIENTS as f64;
/// Calls of each client in a second to the Service of which one instance hangs, whose attempts
/// have half a second, and the promise about those.
const EACH_HUNG: &str = "12";
const GOOD_HUNG: f64 = 0.99;
/// After this all of them are good.
const ALL_GOOD: Duration = Duration::from_secs(3);
/// Windows that are tried, in case the machine stalls in the first ones.
const WINDOWS: usize = 3;

/// A breaker that the controllers opened, before they go: `restart` has the minute in which
/// they are away.
pub(super) struct OpenBreaker {
    api: Api,
    ns: Namespace,
    ratings: Pod,
    callers: Vec<Pod>,
}

impl OpenBreaker {
    /// Its Service fails, and all its callers hold back.
    pub(super) fn begin() -> anyhow::Result<Self> {
        let ns = Namespace::meshed("open-away")?;
        let ratings = served_and_called(&ns)?;
        let mut callers = Vec::new();
        for account in ACCOUNTS {
            callers.extend(ns.pods(account)?);
        }
        let all = ACCOUNTS.len() * PODS;
        ensure!(callers.len() == all, "{} callers of {all}", callers.len());
        let open = Self {
            api: Api::open(&ns.cluster)?,
            ns,
            ratings,
            callers,
        };
        let broken = json!({"status": 503, "only": "/items"});
        open.api.set_fault(&open.ratings, &broken)?;
        eventually(SOON, "all callers hold back", || open.all_open())?;
        Ok(open)
    }

    /// What each caller's breaker is.
    fn states(&self) -> anyhow::Result<Vec<f64>> {
        let backend = format!("{}/ratings", self.ns.name);
        let labels = [("backend", backend.as_str())];
        self.api.sums(&self.callers, "weft_breaker_state", &labels)
    }

    fn all_open(&self) -> anyhow::Result<()> {
        let states = self.states()?;
        let open = |state: &f64| *state == NONE_BUT_PROBES;
        ensure!(states.iter().all(open), "{states:?}");
        Ok(())
    }

    /// Mends the Service, when the last controller has just gone.
    pub(super) fn lets_calls_through_within_20_s(&self) -> anyhow::Result<()> {
        let left = controllers(&self.ns.cluster)?;
        ensure!(left.is_empty(), "there are {left:?}");
        // What they said still holds, or nothing would be shown by what follows.
        self.all_open()?;
        let mended = Instant::now();
        self.api.set_fault(&self.ratings, &json!({"percent": 0}))?;
        eventually(SERVED, "every caller calls again", || {
            let states = self.states()?;
            let open = |state: &f64| *state == NONE_BUT_PROBES;
            ensure!(!states.iter().any(open), "{states:?}");
            Ok(())
        })?;
        let took = mended.elapsed();
        println!("every caller called again {took:?} after the mend");
        ensure!(took <= SERVED, "that took {took:?}");
        // A machine that stalls at the end of a window takes calls out of it.
        eventually(SOON, "all calls come", || {
            let (before, started) = (self.api.arrived(&self.ratings)?, Instant::now());
            thread::sleep(COUNTED);
            let calls = self.api.arrived(&self.ratings)? - before;
            let seconds = started.elapsed().as_secs_f64();
            let wanted = f64::from(RATE) * self.callers.len() as f64 * seconds;
            ensure!(calls >= 0.8 * wanted, "{calls} calls came, of {wanted:.0}");
            Ok(())
        })
    }

    /// While no server answers for our API groups, tools that get everything have all the rest.
    pub(super) fn all_else_is_gotten(&self) -> anyhow::Result<()> {
        let ours = self.ns.kubectl(&["get", "proxies.observe.weft.dev"]);
        ensure!(ours.is_err(), "our group answers: {ours:?}");
        let mut names = everything::listable(&self.ns.cluster)?;
        names.retain(|name| !everything::is_ours(name));
        let here = everything::get(&self.ns.cluster, &names, &["-n", &self.ns.name])?;
        ensure!(here.contains("deployment.apps/ratings"), "{here}");
        Ok(())
    }
}

/// `ratings` with a breaker, whose callers are all served.
fn served_and_called(ns: &Namespace) -> anyhow::Result<Pod> {
    ns.run(&["ratings"])?;
    ns.apply_all(&[
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "ratings"}, "spec": {
            "targetRef": {"kind": "Service", "name": "ratings"}, "breaker": {}}}),
    ])?;
    let called = url("ratings", 8080, "/items");
    let callers = ACCOUNTS.map(|account| {
        App::new(account)
            .replicas(PODS as u32)
            .calling(&[(&called, RATE)])
    });
    ns.apply_all(&callers.iter().flat_map(App::objects).collect::<Vec<_>>())?;
    ns.ready(&ACCOUNTS)?;
    let ratings = ns.pod("ratings")?;
    eventually(SOON, "every account is served", || {
        let samples = ratings.proxy_metrics()?;
        for account in ACCOUNTS {
            let peer = format!("{}/{account}", ns.name);
            let labels = [("peer", peer.as_str()), ("status", "200")];
            let calls = samples.sum("weft_requests_total", &labels);
            ensure!(calls > f64::from(RATE), "{calls} of {account}");
        }
        Ok(())
    })?;
    Ok(ratings)
}

/// One instance answers 503, and one of another Service nothing at all.
#[test]
fn faulty_instance_stays_hidden_while_controllers_are_killed() -> Outcome {
    let ns = Namespace::meshed("killed")?;
    let clients = shop(&ns)?;
    let (broken, hung) = (ns.pod("catalog")?, ns.pod("stock")?);
    let (items, stock) = (url("catalog", 8080, "/items"), url("stock", 8080, "/items"));
    for client in &clients {
        client.report(&items, &[])?;
        client.report(&stock, &[])?;
        client.report(&url("client", 8080, "/items"), &[])?;
    }
    let api = Api::open(&ns.cluster)?;
    let before = controllers(&ns.cluster)?;
    assert!(before.len() >= 2, "there is {before:?}");

    let loads = begin(&clients, &items, EACH)?;
    let hung_loads = begin(&clients, &stock, EACH_HUNG)?;
    thread::sleep(CALM);
    kill_controllers(&ns.cluster)?;
    api.set_fault(&broken, &json!({"status": 503, "only": "/items"}))?;
    api.set_fault(&hung, &json!({"delay": "60s", "only": "/items"}))?;
    thread::sleep(EJECTED);
    let at_first = api.arrived(&broken)?;
    thread::sleep(ALL_GOOD - EJECTED);
    let late = Compared::begin(&clients, &stock)?;
    thread::sleep(LOOKED_AT - (ALL_GOOD - EJECTED));
    let probes = api.arrived(&broken)? - at_first;
    println!("{probes} probes");
    assert!(at_first > 5.0 * PROBES, "only {at_first} calls came to it");
    assert!(probes <= PROBES, "{probes} calls came to what should rest");

    in_time(loads, GOOD)?;
    in_time(hung_loads, GOOD_HUNG)?;
    all_good(late, &clients, &stock)?;
    let backend = format!("{}/stock", ns.name);
    let failed = [("backend", backend.as_str()), ("success", "false")];
    let abandoned = api.sums(&clients, "weft_attempts_total", &failed)?;
    let abandoned: f64 = abandoned.iter().sum();
    assert!(abandoned >= CLIENTS as f64, "{abandoned} attempts hung");
    others_ready(&ns.cluster, &before)?;
    Ok(())
}

/// Clients of `catalog` and of `stock`, whose attempts have half a second.
fn shop(ns: &Namespace) -> anyhow::Result<Vec<Pod>> {
    let apps = [
        App::new("catalog").replicas(3),
        App::new("stock").replicas(3),
        App::new("client").replicas(CLIENTS as u32),
    ];
    ns.apply_all(&apps.iter().flat_map(App::objects).collect::<Vec<_>>())?;
    ns.apply_all(&[
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "stock"}, "spec": {
            "targetRef": {"kind": "Service", "name": "stock"},
            "timeouts": {"backendRequest": "500ms"}}}),
    ])?;
    ns.await_condition("tp/stock", "Accepted", "True")?;
    ns.ready(&["catalog", "stock", "client"])?;
    let clients = ns.pods("client")?;
    ensure!(clients.len() == CLIENTS, "there are {clients:?}");
    Ok(clients)
}

/// Each client sends so many requests in a second, and waits for a second.
fn begin(clients: &[Pod], called: &str, rate: &str) -> anyhow::Result<Vec<Load>> {
    let rate = ["--rate", rate, "--duration", UNTIL_ENDED];
    let args = [&rate[..], &["-c", "5", "--timeout", IN_TIME]].concat();
    let loads = clients
        .iter()
        .map(|client| client.start_load(called, &args));
    loads.collect()
}

/// Ends the loads, of whose calls so many must have been answered with 200 in time.
fn in_time(loads: Vec<Load>, least: f64) -> anyhow::Result<()> {
    let seen = Tally::end(loads)?;
    println!("{seen:?} in time");
    ensure!(
        seen.good as f64 >= least * seen.planned as f64,
        "only {} of {} were answered with 200 within {IN_TIME}",
        seen.good,
        seen.planned
    );
    Ok(())
}

/// What loads came to: their calls, and those that were answered well in the time that each
/// of them had.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    planned: u64,
    good: u64,
}

impl Tally {
    /// Ends the loads; of gRPC what is good is its own status.
    fn end(loads: Vec<Load>) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for load in loads {
            let seen = load.end()?;
            println!("{:?}, {:?}", seen.by_status, seen.latency_ms);
            all.planned += seen.planned;
            let good = if seen.by_grpc_status.is_empty() {
                seen.by_status.get("200")
            } else {
                seen.by_grpc_status.get("0")
            };
            all.good += good.copied().unwrap_or_default();
        }
        Ok(all)
    }

    const fn is_whole(self) -> bool {
        self.planned > 0 && self.good == self.planned
    }
}

/// Calls that must all succeed, and at the same moments calls to a healthy Service: when those
/// are late too, the machine stalled, and the window proves nothing.
struct Compared {
    judged: Vec<Load>,
    steady: Vec<Load>,
}

impl Compared {
    fn begin(clients: &[Pod], called: &str) -> anyhow::Result<Self> {
        Ok(Self {
            judged: begin(clients, called, EACH_HUNG)?,
            steady: begin(clients, &url("client", 8080, "/items"), EACH_HUNG)?,
        })
    }
}

/// In one of a few windows, of which only those may fail in which the machine stalled.
fn all_good(mut loads: Compared, clients: &[Pod], called: &str) -> anyhow::Result<()> {
    for window in 1.. {
        let judged = Tally::end(loads.judged)?;
        let steady = Tally::end(loads.steady)?;
        println!("{judged:?} after {ALL_GOOD:?}, beside {steady:?}");
        if judged.is_whole() {
            break;
        }
        ensure!(
            !steady.is_whole() && window < WINDOWS,
            "{judged:?} of the calls after {ALL_GOOD:?}, beside {steady:?} to what works"
        );
        loads = Compared::begin(clients, called)?;
        thread::sleep(LOOKED_AT);
    }
    Ok(())
}

/// Names of the controllers' pods that are there.
fn controllers(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut pods = own_pods(cluster)?;
    pods.retain(|pod| pod.contains("weft-controller"));
    Ok(pods)
}

/// Waits until others are ready for the controllers that were there `before`.
fn others_ready(cluster: &Cluster, before: &[String]) -> anyhow::Result<()> {
    own_ready(cluster)?;
    let after = controllers(cluster)?;
    ensure!(
        !after.iter().any(|pod| before.contains(pod)),
        "not all were killed: {before:?}, then {after:?}"
    );
    Ok(())
}

/// Kills all replicas at once, without a graceful end. Others are started for them.
fn kill_controllers(cluster: &Cluster) -> anyhow::Result<()> {
    let words = [
        "-n",
        mesh::NAMESPACE,
        "delete",
        "pods",
        "-l",
        "app.kubernetes.io/component=controller",
        "--grace-period=0",
        "--force",
        "--wait=false",
    ];
    cluster.kubectl(&words).map(drop)
}
