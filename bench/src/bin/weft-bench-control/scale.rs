//! `make scale`: many SMI objects, and how long one change of one of them takes.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use wire::v1;
use wire::v1::resource::Content;

use crate::bench::Bench;
use crate::change_tracker::{Change, ChangeTracker, Shows};
use crate::cluster::{self, Size};
use crate::figures::{Delays, load, seconds};
use crate::fleet::{Fleet, Role};
use crate::process::Memory;

/// Proxies that stream, each of a pod whose Service has targets, groups and, every
/// second one, a split.
pub(crate) const PROXIES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the controller may take to write first statuses.
const SETTLE: Duration = Duration::from_secs(180);
/// Between two changes, so that each is one change.
const PAUSE: Duration = Duration::from_millis(150);

/// The figures of one size.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) size: Size,
    pub(crate) ready: f64,
    pub(crate) memory: Memory,
    pub(crate) changes: usize,
    pub(crate) lost: usize,
    /// From the write's return to the proxy's acknowledgement.
    pub(crate) delays: Delays,
    /// From before the write.
    pub(crate) whole: Delays,
    /// Compiling alone.
    pub(crate) compiling: Delays,
    /// CPU milliseconds of the controller per change.
    pub(crate) cpu_per_change: f64,
    pub(crate) load: f64,
}

/// The most Services for which the bounds hold.
pub(crate) const PROMISED: usize = 1000;

/// A quarter, half, all and double of what issue and page promise.
pub(crate) fn sizes(quick: bool) -> Vec<Size> {
    let size = |services: usize| Size {
        services,
        pods_per_service: 2,
        targets: 2 * services,
        groups: 2 * services,
        splits: services / 2,
    };
    let services: &[usize] = if quick {
        &[50, 100]
    } else {
        &[250, 500, 1000, 2000]
    };
    services.iter().copied().map(size).collect()
}

/// Measures one size. What of it is already there is `from`. No turn comes twice: each
/// writes what was never written before.
pub(crate) async fn measure(
    bench: &Bench,
    from: &Size,
    size: &Size,
    turns: Range<usize>,
) -> Result<Figures> {
    bench.grow(from, size).await?;
    changed(bench, size, turns, planned).await
}

/// Measures single changes, one for each turn, in the cluster as it is now.
pub(crate) async fn changed(
    bench: &Bench,
    size: &Size,
    turns: Range<usize>,
    plan: fn(usize) -> Planned,
) -> Result<Figures> {
    let mut controller = bench.program.start()?;
    let ready = seconds(controller.ready().await?);
    let roles = (0..PROXIES).map(|service| Role {
        service,
        replica: 0,
        calls: BTreeSet::from([service]),
    });
    let fleet = Fleet::start(&bench.api, &ChangeTracker::default(), roles.collect()).await?;
    if !controller.settled(SETTLE).await? {
        bench.log_progress("the controller is still busy");
    }
    bench.log_progress("changing objects");
    let load = load();
    let (cpu, logged) = (controller.cpu()?, bench.program.logged()?);
    let count = turns.len() as f64;
    for turn in turns {
        change(bench, &fleet, plan(turn)).await?;
        sleep(PAUSE).await;
    }
    let cpu_per_change = (controller.cpu()? - cpu) * 1000.0 / count;
    let memory = controller.memory()?;
    let done = fleet.change_tracker().take();
    Ok(Figures {
        size: *size,
        ready,
        memory,
        changes: done.len(),
        lost: done.iter().map(Change::missed).sum(),
        delays: Delays::of_seconds(done.iter().flat_map(Change::delays)),
        whole: Delays::of_seconds(done.iter().filter_map(Change::whole)),
        compiling: bench.program.compiled_since(logged)?,
        cpu_per_change,
        load,
    })
}

/// One change of one object, and the wait until its proxy has it.
async fn change(bench: &Bench, fleet: &Fleet, planned: Planned) -> Result<()> {
    let (path, patch, resource, proxies, shows) = planned;
    let change_tracker = fleet.change_tracker();
    change_tracker.expect(&resource, proxies, shows);
    bench.api.merge(&path, &patch).await?;
    change_tracker.written(&resource);
    // What is missing then is counted as lost.
    let _ = timeout(PATIENCE, change_tracker.all_seen()).await;
    Ok(())
}

/// Path of the object, its change, the resource that shows it, proxies that need it, and how to
/// tell.
pub(crate) type Planned = (String, Value, String, BTreeSet<usize>, Shows);

fn planned(turn: usize) -> Planned {
    let proxy = turn / 3 % PROXIES;
    match turn % 3 {
        0 => regroup(proxy, turn),
        1 => retarget(proxy, turn),
        _ => resplit(proxy, turn),
    }
}

/// A new path in a group that protects the proxy's own pod.
fn regroup(proxy: usize, turn: usize) -> Planned {
    let group = 2 * proxy;
    let wanted = format!("/orders/{turn}/.*");
    let patch = json!({"spec": {"matches": [
        {"name": "read", "methods": ["GET", "HEAD"], "pathRegex": wanted},
        {"name": "write", "methods": ["POST", "PUT"], "pathRegex": "/orders(/[0-9]+)?"},
        {"name": "report", "methods": ["GET"], "pathRegex": format!("/reports/{group}/.*")},
    ]}});
    let path = cluster::smi_path(proxy, "httproutegroups", &cluster::group_name(group));
    let shows = move |rule: &v1::Rule| {
        let mut matches = rule.http.iter().flat_map(|http| &http.matches);
        matches.any(|one| one.path_regex.as_ref() == Some(&wanted))
    };
    rule(proxy, path, patch, Box::new(shows))
}

/// Another caller in a target that protects the proxy's own pod.
fn retarget(proxy: usize, turn: usize) -> Planned {
    let target = 2 * proxy;
    let wanted = format!("caller-{turn}");
    let patch = json!({"spec": {"sources": cluster::sources(target, Some(&wanted))}});
    let path = cluster::smi_path(proxy, "traffictargets", &cluster::target_name(target));
    let shows = move |rule: &v1::Rule| {
        rule.sources.iter().any(|source| match &source.who {
            Some(v1::source::Who::SpiffeId(id)) => id.ends_with(&wanted),
            _ => false,
        })
    };
    rule(proxy, path, patch, Box::new(shows))
}

fn rule(
    proxy: usize,
    path: String,
    patch: Value,
    shows: Box<dyn Fn(&v1::Rule) -> bool + Send>,
) -> Planned {
    let resource = wire::names::rule(
        &cluster::namespace_of(proxy),
        &cluster::target_name(2 * proxy),
    );
    let shows = move |resource: &v1::Resource| match &resource.content {
        Some(Content::Rule(rule)) => shows(rule),
        _ => false,
    };
    (
        path,
        patch,
        resource,
        BTreeSet::from([proxy]),
        Box::new(shows),
    )
}

/// Another weight in a split of a Service that the proxy calls.
fn resplit(proxy: usize, turn: usize) -> Planned {
    let split = proxy / 2;
    let root = cluster::root_of(split);
    let wanted = u32::try_from(turn % 967).unwrap_or_default() + 20;
    let patch = json!({"spec": {"backends": cluster::backends(split, wanted)}});
    let path = cluster::smi_path(root, "trafficsplits", &cluster::split_name(split));
    let resource = wire::names::service(
        &cluster::namespace_of(root),
        &cluster::service_name(root),
        cluster::PORT,
    );
    let shows = move |resource: &v1::Resource| match &resource.content {
        Some(Content::Service(service)) => {
            let mut backends = service.splits.iter().flat_map(|split| &split.backends);
            backends.any(|backend| backend.weight == wanted)
        }
        _ => false,
    };
    // Roots are the Services with even numbers, and so are the proxies that call them.
    (
        path,
        patch,
        resource,
        BTreeSet::from([root]),
        Box::new(shows),
    )
}
