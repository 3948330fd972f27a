//! Calls to a Service that fails, while the controllers are away: what they said last does
//! not hold for long, and what proxies decide by themselves needs none of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use e2e::harness::{
    Api, App, Cluster, Load, Namespace, Outcome, Pod, UNTIL_ENDED, eventually, everything, mesh,
};
use serde_json::json;

use super::{
    altered::{own_pods, own_ready},
    url,
};

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

/// Callers of the Service of which one instance fails, and what each asks in a second.
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
        // A machine that stands still at the end of a window takes calls out of it.
        eventually(SOON, "all calls come", || {
            let (before, begun) = (self.api.arrived(&self.ratings)?, Instant::now());
            thread::sleep(COUNTED);
            let calls = self.api.arrived(&self.ratings)? - before;
            let seconds = begun.elapsed().as_secs_f64();
            let wanted = f64::from(RATE) * self.callers.len() as f64 * seconds;
            ensure!(calls >= 0.8 * wanted, "{calls} calls came, of {wanted:.0}");
            Ok(())
        })
    }

    /// While nobody answers for our groups of the API server, tools that get everything have all
    /// the rest.
    pub(super) fn all_else_is_gotten(&self) -> anyhow::Result<()> {
        let ours = self.ns.kubectl(&["get", "proxies.observe.weft.dev"]);
        ensure!(ours.is_err(), "somebody answers: {ours:?}");
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
    for account in ACCOUNTS {
        let app = App::new(account)
            .replicas(PODS as u32)
            .calling(&[(&called, RATE)]);
        ns.apply_all(&app.objects())?;
    }
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
fn an_instance_that_fails_or_hangs_while_every_controller_is_killed_shows_to_nobody() -> Outcome {
    let ns = Namespace::meshed("killed")?;
    let clients = shop(&ns)?;
    let (broken, hung) = (ns.pod("catalog")?, ns.pod("stock")?);
    let (items, stock) = (url("catalog", 8080, "/items"), url("stock", 8080, "/items"));
    for client in &clients {
        client.report(&items, &[])?;
        client.report(&stock, &[])?;
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
    thread::sleep(LOOKED_AT);
    let probes = api.arrived(&broken)? - at_first;
    println!("{probes} probes");
    assert!(at_first > 5.0 * PROBES, "only {at_first} calls came to it");
    assert!(probes <= PROBES, "{probes} calls came to what should rest");

    in_time(loads, GOOD)?;
    in_time(hung_loads, GOOD_HUNG)?;
    let backend = format!("{}/stock", ns.name);
    let failed = [("backend", backend.as_str()), ("success", "false")];
    let given_up = api.sums(&clients, "weft_attempts_total", &failed)?;
    let given_up: f64 = given_up.iter().sum();
    assert!(given_up >= CLIENTS as f64, "{given_up} attempts hung");
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

/// Each client asks so often in a second, and waits for a second.
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
    let (mut planned, mut good) = (0, 0);
    for load in loads {
        let seen = load.end()?;
        println!("{:?}, {:?}", seen.by_status, seen.latency_ms);
        planned += seen.planned;
        good += seen.by_status.get("200").copied().unwrap_or_default();
    }
    println!("{good} of {planned} in time");
    ensure!(
        good as f64 >= least * planned as f64,
        "only {good} of {planned} were answered with 200 within {IN_TIME}"
    );
    Ok(())
}

/// What a request of the chain is asked for, and how often what is down at its end may be.
const BY_TRACE: &str = "/by-trace";
const TIMES: f64 = 1.08;

/// The other promises about instances that fail, as above: a POST comes to one application
/// whatever becomes of it, and of a chain one layer tries again.
#[test]
fn what_fails_while_every_controller_is_killed_gets_no_post_twice_and_no_storm() -> Outcome {
    let ns = Namespace::meshed("killed-writes")?;
    let (orders, down) = town(&ns)?;
    let clients = ns.pods("client")?;
    assert_eq!((clients.len(), down.len()), (CLIENTS, 3));
    let api = Api::open(&ns.cluster)?;
    let (posted, chained) = (url("orders", 8080, "/orders"), url("b", 8080, BY_TRACE));
    for client in &clients {
        client.report(&posted, &[])?;
    }
    eventually(SOON, "the chain answers", || {
        let report = ns.pod("client")?.report(&url("b", 8080, "/warm"), &[])?;
        ensure!(report.hops.len() == 2, "{report:?}");
        Ok(())
    })?;
    let before = controllers(&ns.cluster)?;
    let arrived = |pods: &[Pod]| {
        let pods = pods.iter().map(|pod| api.arrived(pod));
        pods.sum::<anyhow::Result<f64>>()
    };
    let (orders_before, down_before) = (arrived(&orders)?, arrived(&down)?);
    for pod in &down {
        api.set_fault(pod, &json!({"status": 503, "only": BY_TRACE}))?;
    }
    let args = ["--rate", EACH, "--duration", UNTIL_ENDED, "-c", "5"];
    let posts = [&args[..], &["-X", "POST"]].concat();
    let mut loads = Vec::new();
    for client in &clients {
        loads.push(client.start_load(&posted, &posts)?);
    }
    let chain = clients.first().context("no client")?;
    let chain = chain.start_load(&chained, &[&args[..], &["--trace"]].concat())?;
    thread::sleep(CALM);
    kill_controllers(&ns.cluster)?;
    let broken = orders.first().context("no instance")?;
    api.set_fault(broken, &json!({"status": 503, "only": "/orders"}))?;
    thread::sleep(EJECTED);
    let at_first = api.arrived(broken)?;
    thread::sleep(LOOKED_AT);
    let probes = api.arrived(broken)? - at_first;
    assert!(probes <= PROBES, "{probes} POSTs came to what should rest");

    let (mut answered, mut failed) = (0, 0);
    for load in loads {
        let seen = load.end()?;
        let of = |status: &str| seen.by_status.get(status).copied().unwrap_or_default();
        assert_eq!(seen.answered, of("200") + of("503"), "{seen:?}");
        assert_eq!(seen.answered, seen.planned, "{seen:?}");
        answered += seen.answered;
        failed += of("503");
    }
    let chain = chain.end()?;
    let came = arrived(&orders)? - orders_before;
    let times = (arrived(&down)? - down_before) / chain.planned as f64;
    println!(
        "{answered} POSTs, {failed} answered 503, {came} came, {probes} probes; {times:.3} at d"
    );
    assert!(failed > 0, "nothing failed");
    assert_eq!(came, answered as f64, "a POST came twice, or to nobody");
    assert_eq!(
        chain.by_status.get("503"),
        Some(&chain.planned),
        "{chain:?}"
    );
    assert!(times > 1.0 && times <= TIMES, "{times} at d for each call");
    others_ready(&ns.cluster, &before)?;
    Ok(())
}

/// Clients of `orders`, and a chain `b`, `c`, `d` whose applications pass traces on: what
/// serves the first, and what is at the end of the second.
fn town(ns: &Namespace) -> anyhow::Result<(Vec<Pod>, Vec<Pod>)> {
    let link = |name: &str, replicas: u32| {
        App::new(name)
            .replicas(replicas)
            // Not by the port that calls on: a probe would go down the chain.
            .readiness(json!({"httpGet": {"path": "/metrics", "port": 9091}, "periodSeconds": 1}))
    };
    let calls_on = |name: &str, next: &str| {
        link(name, 2)
            .env("NEXT", &format!("http://{next}:8080"))
            .env("PROPAGATE", "trace")
    };
    let apps = [
        link("client", CLIENTS as u32),
        link("orders", 3),
        calls_on("b", "c"),
        calls_on("c", "d"),
        link("d", 3),
    ];
    ns.apply_all(&apps.iter().flat_map(App::objects).collect::<Vec<_>>())?;
    ns.ready(&["client", "orders", "b", "c", "d"])?;
    Ok((ns.pods("orders")?, ns.pods("d")?))
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

/// All replicas at once, without a word to anybody. Others are started for them.
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
