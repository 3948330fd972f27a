//! What may be seen by one application only, and what may be tried again, while all
//! controllers are killed and what serves it answers 503, or 14 over gRPC.
//!
//! Claims: calls-84

use std::{collections::BTreeMap, thread};

use anyhow::{Context as _, ensure};
use e2e::{
    echo::request_log::Record,
    harness::{Api, Load, Namespace, Outcome, Pod, UNTIL_ENDED, app, eventually},
};
use serde_json::json;

use super::{
    CALM, CLIENTS, EACH, EJECTED, GOOD, LOOKED_AT, PROBES, SOON, controllers, kill_controllers,
    others_ready,
};
use crate::{
    chains::links::{CALLS, calls_on, link, requests},
    url,
};

const POSTS: &str = "/orders";
/// Posted with a body of which a proxy does not keep so much.
const UPLOADS: &str = "/uploads";
const BODY: &str = "102400";
/// Uploads, calls of gRPC, and calls of it by each client that may be tried again.
const FEW: &str = "25";
/// Marks the last ones, which several applications may see.
const LISTED: &str = "x-listed";
/// What a request of the chain is asked for, and how often what is down at its end may be.
const BY_TRACE: &str = "/by-trace";
const TIMES: f64 = 1.08;
/// So many of the calls that may be retried take a second at most. The slowest show how long
/// the machine stalled.
const PROMPT: f64 = 1000.0;

/// A POST and a call of gRPC of which no policy speaks come to one application whatever
/// becomes of them, a call whose code is listed is tried again, and of a chain one layer does.
#[test]
fn failures_without_controllers_cause_no_duplicate_post_or_storm() -> Outcome {
    let town = Town::new()?;
    let before = controllers(&town.ns.cluster)?;
    for pod in &town.down {
        town.api.set_fault(pod, &json!({"status": 503}))?;
    }
    let loads = town.begin()?;
    thread::sleep(CALM);
    kill_controllers(&town.ns.cluster)?;
    let broken = town.orders.first().context("no instance")?;
    town.api.set_fault(broken, &json!({"status": 503}))?;
    thread::sleep(EJECTED);
    let at_first = requests(&town.api, broken, POSTS)?.len();
    thread::sleep(LOOKED_AT);
    let probes = requests(&town.api, broken, POSTS)?.len() - at_first;
    println!("{probes} POSTs were probes");
    assert!(
        probes as f64 <= PROBES,
        "{probes} POSTs came to what should rest"
    );

    town.each_came_once(POSTS, loads.posts)?;
    town.each_came_once(UPLOADS, vec![loads.uploads])?;
    town.each_came_once(CALLS, vec![loads.calls])?;
    town.were_tried_again(loads.listed)?;
    town.one_layer_tried_again(BY_TRACE, loads.chain)?;
    town.one_layer_tried_again(CALLS, loads.grpc_chain)?;
    others_ready(&town.ns.cluster, &before)?;
    Ok(())
}

/// `orders` and its clients, and two chains to `d` whose applications pass on traces, and over
/// gRPC the mesh's name of the request. What is listed is so for Services of their own, in front
/// of the same pods: of all else no object speaks.
struct Town {
    api: Api,
    clients: Vec<Pod>,
    /// The uploader and the gRPC caller. Each ejects an instance by its own calls alone.
    uploader: Pod,
    caller: Pod,
    orders: Vec<Pod>,
    down: Vec<Pod>,
    ns: Namespace,
}

struct Loads {
    posts: Vec<Load>,
    uploads: Load,
    calls: Load,
    listed: Vec<Load>,
    chain: Load,
    grpc_chain: Load,
}

impl Town {
    fn new() -> anyhow::Result<Self> {
        let ns = Namespace::meshed("killed-writes")?;
        let apps = [
            link("client").replicas(CLIENTS as u32),
            link("uploader"),
            link("caller"),
            link("orders").replicas(3),
            calls_on("b", "c", "trace").replicas(2),
            calls_on("c", "d", "trace").replicas(2),
            calls_on("b-grpc", "c-grpc", "context").replicas(2),
            calls_on("c-grpc", "d-listed", "context").replicas(2),
            link("d").replicas(3),
        ];
        let mut objects: Vec<_> = apps.iter().flat_map(app::App::objects).collect();
        for (name, pods) in [("orders-listed", "orders"), ("d-listed", "d")] {
            objects.push(app::service(name, &json!({"app": pods})));
        }
        let listed = ["orders-listed", "b-grpc", "c-grpc", "d-listed"];
        objects.extend(listed.map(|service| {
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": service}, "spec": {
                "targetRef": {"kind": "Service", "name": service},
                "retry": {"grpcCodes": ["Unavailable"]}}})
        }));
        ns.apply_all(&objects)?;
        for service in listed {
            ns.await_condition(&format!("tp/{service}"), "Accepted", "True")?;
        }
        ns.ready(&[
            "client", "uploader", "caller", "orders", "b", "c", "b-grpc", "c-grpc", "d",
        ])?;
        let town = Self {
            api: Api::open(&ns.cluster)?,
            clients: ns.pods("client")?,
            uploader: ns.pod("uploader")?,
            caller: ns.pod("caller")?,
            orders: ns.pods("orders")?,
            down: ns.pods("d")?,
            ns,
        };
        let there = (town.clients.len(), town.down.len());
        ensure!(
            there == (CLIENTS, 3),
            "there are {there:?} clients and ends"
        );
        town.warm_up()?;
        Ok(town)
    }

    /// Every proxy has its destinations and their policies before the controllers go.
    fn warm_up(&self) -> anyhow::Result<()> {
        let callers = [&self.uploader, &self.caller];
        for caller in self.clients.iter().chain(callers) {
            for service in ["orders", "orders-listed"] {
                caller.report(&url(service, 8080, "/warm"), &[])?;
            }
        }
        for (caller, first) in [(self.first()?, "b"), (self.second()?, "b-grpc")] {
            // By both instances of the first link, and so of the others.
            eventually(SOON, "the chain answers", || {
                let seen = caller.get(&url(first, 8080, "/warm"), &["-n", "12", "-c", "2"])?;
                let good = seen.by_status.get("200") == Some(&12);
                ensure!(good && seen.by_pod.len() == 2, "{seen:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Who calls the chain that passes on traces.
    fn first(&self) -> anyhow::Result<&Pod> {
        self.clients.first().context("no client")
    }

    /// Who calls the chain over gRPC.
    fn second(&self) -> anyhow::Result<&Pod> {
        self.clients.last().context("no client")
    }

    fn begin(&self) -> anyhow::Result<Loads> {
        let load = |from: &Pod, (service, path): (&str, &str), rate: &str, kind: &[&str]| {
            let args = ["--rate", rate, "--duration", UNTIL_ENDED, "-c", "5"];
            from.start_load(&url(service, 8080, path), &[&args[..], kind].concat())
        };
        let traced = ["--trace", "-X", "POST"];
        let uploaded = [&traced[..], &["--body-size", BODY]].concat();
        let listed = format!("{LISTED}:yes");
        let listed = ["--grpc", "-H", &listed];
        let mark = ["--grpc", "-H", "weft-timeout:20000ms"];
        let each = |to: (&str, &str), rate: &str, kind: &[&str]| {
            let loads = self.clients.iter().map(|from| load(from, to, rate, kind));
            loads.collect::<anyhow::Result<Vec<Load>>>()
        };
        Ok(Loads {
            posts: each(("orders", POSTS), EACH, &traced)?,
            uploads: load(&self.uploader, ("orders", UPLOADS), FEW, &uploaded)?,
            calls: load(&self.caller, ("orders", CALLS), FEW, &["--trace", "--grpc"])?,
            listed: each(("orders-listed", CALLS), FEW, &listed)?,
            chain: load(self.first()?, ("b", BY_TRACE), EACH, &["--trace"])?,
            grpc_chain: load(self.second()?, ("b-grpc", CALLS), EACH, &mark)?,
        })
    }

    /// Each was answered, well or as what fails answers, and seen by one application.
    fn each_came_once(&self, path: &str, loads: Vec<Load>) -> anyhow::Result<()> {
        let (mut answered, mut failed) = (0, 0);
        for load in loads {
            let seen = load.end()?;
            let (answers, good, bad) = if path == CALLS {
                (&seen.by_grpc_status, "0", "14")
            } else {
                (&seen.by_status, "200", "503")
            };
            let of = |status: &str| answers.get(status).copied().unwrap_or_default();
            ensure!(of(good) + of(bad) == seen.planned, "{path}: {seen:?}");
            answered += seen.planned;
            failed += of(bad);
        }
        let mut came = BTreeMap::<String, u32>::new();
        for pod in &self.orders {
            let records = requests(&self.api, pod, path)?;
            for record in records.iter().filter(|record| !is_listed(record)) {
                let parent = record.headers.get("traceparent");
                let trace = parent.and_then(|parent| parent.split('-').nth(1));
                let trace = trace.with_context(|| format!("no trace: {record:?}"))?;
                *came.entry(trace.to_owned()).or_default() += 1;
            }
        }
        let twice = came.values().filter(|times| **times > 1).count();
        println!("{path}: {answered} answered, {failed} of them badly, {twice} came twice");
        ensure!(failed > 0, "{path}: nothing failed");
        ensure!(
            twice == 0 && came.len() as u64 == answered,
            "{path}: of {answered} {} came, {twice} of them to two applications",
            came.len()
        );
        Ok(())
    }

    /// No caller sees the instance's responses with a retried code.
    fn were_tried_again(&self, loads: Vec<Load>) -> anyhow::Result<()> {
        let (mut planned, mut good) = (0, 0);
        for load in loads {
            let seen = load.end()?;
            println!("{:?}, {:?}", seen.by_grpc_status, seen.latency_ms);
            ensure!(seen.latency_ms.p90 <= PROMPT, "{seen:?}");
            planned += seen.planned;
            good += seen.by_grpc_status.get("0").copied().unwrap_or_default();
        }
        ensure!(
            planned > 0 && good as f64 >= GOOD * planned as f64,
            "only {good} of {planned} calls whose code is listed were answered well"
        );
        let service = format!("{}/orders-listed", self.ns.name);
        let labels = [("service", service.as_str()), ("outcome", "success")];
        let retries = self
            .api
            .sums(&self.clients, "weft_retries_total", &labels)?;
        let retries: f64 = retries.iter().sum();
        println!("{good} of {planned} calls of gRPC were good, {retries} by a retry");
        ensure!(retries > 0.0, "no call met what fails");
        Ok(())
    }

    /// Ends a load of a chain, all of whose calls failed at its end.
    fn one_layer_tried_again(&self, path: &str, load: Load) -> anyhow::Result<()> {
        let seen = load.end()?;
        let failed = if path == CALLS {
            seen.by_grpc_status.get("14")
        } else {
            seen.by_status.get("503")
        };
        ensure!(failed == Some(&seen.planned), "{path}: {seen:?}");
        let mut came = 0;
        for pod in &self.down {
            came += requests(&self.api, pod, path)?.len();
        }
        let times = came as f64 / seen.planned as f64;
        println!("{path}: {times:.3} at d for each of {}", seen.planned);
        ensure!(
            times > 1.0 && times <= TIMES,
            "{path}: {times} at d for each"
        );
        Ok(())
    }
}

fn is_listed(record: &Record) -> bool {
    record.headers.contains_key(LISTED)
}
