//! `make bench-control`: many pods, many streaming proxies, endpoints that change all
//! the time, pods that come and go, and a controller that crashes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::time::{interval, sleep, timeout};
use wire::v1;
use wire::v1::resource::Content;

use crate::bench::Bench;
use crate::breaker_reports;
use crate::change_tracker::{Change, ChangeTracker};
use crate::cluster::{self, Size};
use crate::figures::{Delays, load, seconds};
use crate::fleet::{Fleet, Role};
use crate::graph;
use crate::moved::Moved;
use crate::probe::{Probe, Requests};
use crate::process::{Controller, Memory, cpu, metric};
use crate::revocations;

/// Endpoint changes per second.
const RATE: u32 = 50;
/// Pods that come, go or change a label, per second.
const POD_RATE: u32 = 10;
/// Rounds of five turns for which a pod is gone: longer than its change travels.
const AWAY: usize = 4;
/// Services that all pods call a share of: a login, a price list.
const CENTRAL: usize = 10;
/// Other Services that one pod calls.
const CALLS: usize = 9;
/// Every so many pods one has a proxy that streams.
const PODS_PER_PROXY: usize = 5;
/// After the last write; what has not arrived by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the controller may take to write first statuses.
const SETTLE: Duration = Duration::from_secs(60);
/// Requests that stand for one kind in the report.
const SHOWN: usize = 6;

/// The figures of one size.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) size: Size,
    pub(crate) proxies: usize,
    /// From the start to ready.
    pub(crate) ready: f64,
    /// Seconds until a fleet of new proxies was certified and connected.
    pub(crate) first_connect: f64,
    pub(crate) alone: Memory,
    pub(crate) connected: Memory,
    pub(crate) graph: graph::Figures,
    pub(crate) breaker_reports: breaker_reports::Figures,
    pub(crate) after_changes: Memory,
    pub(crate) after_restart: Memory,
    pub(crate) changes: usize,
    pub(crate) lost: usize,
    /// From the write's return to each proxy's acknowledgement.
    pub(crate) each: Delays,
    /// From before the write to the last proxy's acknowledgement.
    pub(crate) last: Delays,
    /// Compiling alone, while endpoints changed.
    pub(crate) compiling: Delays,
    /// CPU milliseconds per change, of the controller and of etcd and API server.
    pub(crate) cpu_per_change: f64,
    pub(crate) api_cpu_per_change: f64,
    /// Batches that the controller sent per change.
    pub(crate) batches_per_change: f64,
    /// Pods that came, went or changed a label.
    pub(crate) pods_moved: usize,
    pub(crate) pods_lost: usize,
    /// From the slice's write to each proxy's acknowledgement, for pods that came or went.
    pub(crate) pods_each: Delays,
    /// Compiling alone, while pods came and went.
    pub(crate) pods_compiling: Delays,
    pub(crate) cpu_per_pod: f64,
    pub(crate) revocations: revocations::Figures,
    /// Seconds from the crash until every proxy had its first batch again.
    pub(crate) reconnect: f64,
    /// CPU seconds of the controller for that.
    pub(crate) reconnect_cpu: f64,
    /// The same of etcd and API server.
    pub(crate) reconnect_api_cpu: f64,
    pub(crate) probe_before: Delays,
    pub(crate) probe_meanwhile: Delays,
    pub(crate) requests: Vec<(String, u64)>,
    pub(crate) rejected: u64,
    pub(crate) load: f64,
}

/// The sizes, with how long endpoints change at each.
pub(crate) fn sizes(quick: bool) -> Vec<Size> {
    let size = |services: usize| Size {
        services,
        pods_per_service: 10,
        targets: services / 5,
        groups: services / 5,
        splits: services / 20,
    };
    let services: &[usize] = if quick {
        &[100, 200]
    } else {
        &[100, 250, 500, 1000]
    };
    services.iter().copied().map(size).collect()
}

/// Measures one size. What of it is already there is `from`.
pub(crate) async fn measure(
    bench: &Bench,
    from: &Size,
    size: &Size,
    changing: Duration,
) -> Result<Figures> {
    bench.grow(from, size).await?;
    let mut controller = bench.program.start()?;
    let ready = seconds(controller.ready().await?);
    controller.settled(SETTLE).await?;
    let alone = controller.memory()?;
    bench.log_progress("connecting proxies");
    let started = Instant::now();
    let fleet = Fleet::start(&bench.api, &ChangeTracker::default(), roles(size)).await?;
    let first_connect = seconds(started.elapsed());
    controller.settled(SETTLE).await?;
    let (connected, load) = (controller.memory()?, load());
    let graph = graph::measure(bench, &fleet, changing).await?;
    let breaker_reports =
        breaker_reports::measure(bench, &controller, &fleet, central(size), changing).await?;

    let endpoints = change_endpoints(bench, &controller, &fleet, size, changing).await?;
    let (after_changes, changes) = (controller.memory()?, &endpoints.changes);

    let pods = move_pods(bench, &controller, &fleet, size, changing / 2).await?;
    let revocations = revocations::measure(bench, &fleet, size).await?;

    bench.log_progress("crashing the controller");
    let probe = Probe::start(&bench.api);
    sleep(Duration::from_secs(5)).await;
    let probe_before = probe.end();
    let restart = restart(bench, &fleet, controller).await?;
    Ok(Figures {
        size: *size,
        proxies: fleet.len(),
        ready,
        first_connect,
        alone,
        connected,
        graph,
        breaker_reports,
        after_changes,
        changes: changes.len(),
        lost: changes.iter().map(Change::missed).sum(),
        each: Delays::of_seconds(changes.iter().flat_map(Change::delays)),
        last: Delays::of_seconds(changes.iter().filter_map(Change::whole)),
        compiling: endpoints.compiling,
        cpu_per_change: endpoints.cpu,
        api_cpu_per_change: endpoints.api_cpu,
        batches_per_change: endpoints.batches,
        pods_moved: pods.moved,
        pods_lost: pods.changes.iter().map(Change::missed).sum(),
        pods_each: Delays::of_seconds(pods.changes.iter().flat_map(Change::delays)),
        pods_compiling: pods.compiling,
        cpu_per_pod: pods.cpu,
        revocations,
        after_restart: restart.memory,
        reconnect: restart.took,
        reconnect_cpu: restart.cpu,
        reconnect_api_cpu: restart.api_cpu,
        probe_before,
        probe_meanwhile: restart.probe,
        requests: restart.requests,
        rejected: restart.rejected,
        load,
    })
}

/// What changes of endpoints came to, and what each of them cost.
struct EndpointChanges {
    changes: Vec<Change>,
    compiling: Delays,
    cpu: f64,
    api_cpu: f64,
    batches: f64,
}

async fn change_endpoints(
    bench: &Bench,
    controller: &Controller,
    fleet: &Fleet,
    size: &Size,
    changing: Duration,
) -> Result<EndpointChanges> {
    bench.log_progress("changing endpoints");
    let (own, others) = (controller.cpu()?, bench.api_cpu()?);
    let logged = bench.program.logged()?;
    let batches = metric("weft_controller_batches_total").await?;
    let changes = change(bench, fleet, size, changing).await?;
    let count = changes.len() as f64;
    Ok(EndpointChanges {
        cpu: (controller.cpu()? - own) * 1000.0 / count,
        api_cpu: (bench.api_cpu()? - others) * 1000.0 / count,
        batches: (metric("weft_controller_batches_total").await? - batches) / count,
        compiling: bench.program.compiled_since(logged)?,
        changes,
    })
}

/// What the coming and going of pods came to, and what each of them cost.
struct PodChanges {
    moved: usize,
    changes: Vec<Change>,
    compiling: Delays,
    cpu: f64,
}

async fn move_pods(
    bench: &Bench,
    controller: &Controller,
    fleet: &Fleet,
    size: &Size,
    changing: Duration,
) -> Result<PodChanges> {
    bench.log_progress("letting pods come and go");
    let (own, logged) = (controller.cpu()?, bench.program.logged()?);
    let (moved, changes) = come_and_go(bench, fleet, size, changing).await?;
    Ok(PodChanges {
        cpu: (controller.cpu()? - own) * 1000.0 / moved as f64,
        compiling: bench.program.compiled_since(logged)?,
        moved,
        changes,
    })
}

/// The first of the central Services. They are the last ones: targets protect the first, and
/// refused callers have no voice about their breakers.
fn central(size: &Size) -> usize {
    size.services - CENTRAL
}

/// One proxy for every so many pods. Each calls the next Services after its own and
/// one of the central ones.
fn roles(size: &Size) -> Vec<Role> {
    let role = |number: usize| {
        let pod = number * PODS_PER_PROXY;
        let service = pod / size.pods_per_service;
        let spread = (0..CALLS).map(|step| (number * 37 + step * 101) % central(size));
        Role {
            service,
            replica: pod % size.pods_per_service,
            calls: spread.chain([central(size) + number % CENTRAL]).collect(),
        }
    };
    (0..size.pods() / PODS_PER_PROXY).map(role).collect()
}

/// Lets one endpoint after another become ready or not.
async fn change(
    bench: &Bench,
    fleet: &Fleet,
    size: &Size,
    changing: Duration,
) -> Result<Vec<Change>> {
    let callers: Vec<BTreeSet<usize>> = (0..size.services)
        .map(|service| fleet.callers(service))
        .collect();
    let mut ready: Vec<bool> = (0..size.services).map(cluster::first_is_ready).collect();
    let mut turns = interval(Duration::from_secs(1) / RATE);
    let mut writes = Vec::new();
    for turn in 0..RATE as usize * changing.as_secs() as usize {
        turns.tick().await;
        // A stride without common divisor visits every Service before one again.
        let service = (turn * 7919) % size.services;
        let Some(now) = ready.get_mut(service) else {
            continue;
        };
        *now = !*now;
        let resource = wire::names::endpoints(
            &cluster::namespace_of(service),
            &cluster::service_name(service),
            cluster::PORT,
        );
        let there = *now;
        let address = cluster::pod_ip(service * size.pods_per_service).to_string();
        let shows = move |resource: &v1::Resource| shows(resource, &address) == Some(there);
        let proxies = callers.get(service).cloned().unwrap_or_default();
        fleet
            .change_tracker()
            .expect(&resource, proxies, Box::new(shows));
        let (api, change_tracker) = (bench.api.clone(), fleet.change_tracker().clone());
        writes.push(tokio::spawn(async move {
            let change = json!([
                {"op": "replace", "path": "/endpoints/0/conditions/ready", "value": there},
                {"op": "replace", "path": "/endpoints/0/conditions/serving", "value": there},
            ]);
            api.patch(&cluster::slice_path(service), &change).await?;
            change_tracker.written(&resource);
            anyhow::Ok(())
        }));
    }
    for write in writes {
        write.await??;
    }
    // What is missing then is counted as lost.
    let _ = timeout(PATIENCE, fleet.change_tracker().all_seen()).await;
    restore(bench, &ready).await?;
    Ok(fleet.change_tracker().take())
}

/// Whether the endpoint of this address is among those of the resource, if it has any.
fn shows(resource: &v1::Resource, address: &str) -> Option<bool> {
    match &resource.content {
        Some(Content::Endpoints(all)) => {
            Some(all.endpoints.iter().any(|endpoint| endpoint.ip == address))
        }
        _ => None,
    }
}

/// The next size starts from what the objects say at first. `ready`: what they say now.
async fn restore(bench: &Bench, ready: &[bool]) -> Result<()> {
    for (service, now) in ready.iter().enumerate() {
        let first = cluster::first_is_ready(service);
        if *now != first {
            let change =
                json!([{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": first}]);
            bench
                .api
                .patch(&cluster::slice_path(service), &change)
                .await?;
        }
    }
    Ok(())
}

/// Lets pods come and go and change their labels: of every five turns two are a pod of
/// no Service, one is a label, and in two a meshed pod leaves its Service and one that
/// left a while ago comes back. Returns the number of turns, and what proxies had to learn.
async fn come_and_go(
    bench: &Bench,
    fleet: &Fleet,
    size: &Size,
    changing: Duration,
) -> Result<(usize, Vec<Change>)> {
    let rounds = POD_RATE as usize * changing.as_secs() as usize / 5;
    let mut turns = interval(Duration::from_secs(1) / POD_RATE);
    let service = |round: usize| (round * 7919) % size.services;
    for round in 0..rounds + AWAY {
        let leaving = Moved::new(size, service(round));
        if round < rounds {
            turns.tick().await;
            let (_, job) = cluster::job(round);
            bench.api.make([job]).await?;
            turns.tick().await;
            leaving.announce(fleet, false);
            // The controller may receive the pod's change before the slice's.
            bench.api.delete(&leaving.pod_path()).await?;
            leaving.write(bench, fleet, false).await?;
            turns.tick().await;
            let label = json!({"metadata": {"labels": {"weft-bench/round": round.to_string()}}});
            bench.api.merge(&leaving.neighbour_path(), &label).await?;
        }
        if let Some(before) = round.checked_sub(AWAY) {
            turns.tick().await;
            let coming = Moved::new(size, service(before));
            coming.announce(fleet, true);
            bench.api.make([coming.pod()]).await?;
            coming.write(bench, fleet, true).await?;
            turns.tick().await;
            bench.api.delete(&cluster::job(before).0).await?;
        }
    }
    let _ = timeout(PATIENCE, fleet.change_tracker().all_seen()).await;
    Ok((rounds * 5, fleet.change_tracker().take()))
}

struct Restart {
    took: f64,
    cpu: f64,
    api_cpu: f64,
    memory: Memory,
    probe: Delays,
    requests: Vec<(String, u64)>,
    rejected: u64,
}

async fn restart(bench: &Bench, fleet: &Fleet, controller: Controller) -> Result<Restart> {
    let before = Requests::so_far(&bench.api).await?;
    let api_cpu = bench.api_cpu()?;
    let probe = Probe::start(&bench.api);
    let started = Instant::now();
    controller.kill()?;
    let mut controller = bench.program.start()?;
    fleet.none_connected().await?;
    fleet.all_connected().await?;
    let took = seconds(started.elapsed());
    let (cpu, api_cpu) = (controller.cpu()?, bench.api_cpu()? - api_cpu);
    controller.ready().await?;
    controller.settled(SETTLE).await?;
    let probe = probe.end();
    let now = Requests::so_far(&bench.api).await?;
    let mut requests = now.since(&before);
    requests.truncate(SHOWN);
    Ok(Restart {
        took,
        cpu,
        api_cpu,
        memory: controller.memory()?,
        probe,
        requests,
        rejected: now.rejected - before.rejected,
    })
}

impl Bench {
    /// CPU seconds of etcd and the API server so far.
    pub(crate) fn api_cpu(&self) -> Result<f64> {
        Ok(cpu(self.etcd)? + cpu(self.api_server)?)
    }
}
