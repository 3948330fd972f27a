//! A rotation of the root during which the mesh is rolled back and upgraded, in each of its phases.
//!
//! Claims: trust-12a

use std::thread;

use anyhow::{anyhow, ensure};
use e2e::harness::{
    Cluster, Outcome, Pod, Process, Stopped, authority, controllers, eventually, mesh,
    namespace::Failed,
};
use serde_json::Value;

use super::{
    SOON,
    altered::Altered,
    previous::Previous,
    shop::{Shop, nothing_lost},
};

/// Bundles reach pods later than the kubelet of a busy machine, and no pod starts meanwhile.
const SETTINGS: [&str; 1] = ["identity.rotation.settle=15s"];
/// Of a proxy that does not report which roots it has.
const SILENT: &str = "its version reports too little";

#[test]
fn rotation_survives_rollback_and_upgrade_in_each_phase() -> Outcome {
    let previous = Previous::prepared()?;
    let altered = Altered::begin()?;
    let cluster = Cluster::connect()?;
    previous.install(&cluster)?;
    let shop = Shop::open("skew-rotation")?;
    let (client, stranger) = (shop.ns.pod("client")?, shop.ns.pod("stranger")?);
    shop.works(&client, &stranger)?;

    let load = shop.load(&client)?;
    upgrade(&previous, &cluster)?;
    let former = eventually(SOON, "the status names a root", || {
        authority::root(&cluster)
    })?;
    cluster.weft(&["identity", "rotate"])?.with_status(0)?;
    authority::reaches(&cluster, SOON, "Preparing")?;
    // Proxies that do not report their roots hold the phase up by themselves.
    previous.roll_back(&cluster)?;
    is_in(&cluster, "Preparing")?;
    shop.works(&client, &stranger)?;
    shop.renew("second")?;
    shop.works(&client, &stranger)?;
    upgrade(&previous, &cluster)?;
    is_in(&cluster, "Preparing")?;
    waits_for_silent(&previous, &cluster, &client)?;
    shop.works(&client, &stranger)?;
    nothing_lost(&load.end()?)?;

    shop.renew("first")?;
    shop.renew("second")?;
    let client = shop.renew("client")?;
    let load = shop.load(&client)?;
    let stopped = held(&cluster, "Activating", || shop.renew("stranger").map(drop))?;
    let stranger = shop.ns.pod("stranger")?;
    previous.roll_back(&cluster)?;
    drop(stopped);
    is_in(&cluster, "Activating")?;
    shop.works(&client, &stranger)?;
    // The older proxy that is made now has its certificate below the new root.
    shop.renew("second")?;
    shop.works(&client, &stranger)?;
    upgrade(&previous, &cluster)?;
    shop.works(&client, &stranger)?;
    nothing_lost(&load.end()?)?;

    let load = shop.load(&client)?;
    // Activating waits for the older proxy, and Retiring would be over at the next look but for one
    // that stands still.
    let mut frozen = None;
    let stopped = held(&cluster, "Retiring", || {
        let renewal = shop.begin_renewal("second")?;
        frozen = Some(Process::of_pod(&stranger, "weft-proxy")?.stop()?);
        shop.end_renewal(renewal).map(drop)
    })?;
    drop(frozen);
    previous.roll_back(&cluster)?;
    drop(stopped);
    is_in(&cluster, "Retiring")?;
    shop.works(&client, &stranger)?;
    upgrade(&previous, &cluster)?;
    authority::ended(&cluster, SOON, "Generated", &former)?;
    shop.works(&client, &stranger)?;
    nothing_lost(&load.end()?)?;
    altered.restore()?;
    Ok(())
}

fn upgrade(previous: &Previous, cluster: &Cluster) -> anyhow::Result<()> {
    mesh::install(&SETTINGS)?;
    previous.is_gone(cluster)
}

/// What is stored, which the version that runs may not read.
fn is_in(cluster: &Cluster, wanted: &str) -> anyhow::Result<()> {
    let phase = authority::phase(cluster)?;
    ensure!(phase == wanted, "the rotation is in {phase}, not {wanted}");
    Ok(())
}

/// Controllers stand still from when this phase is stored, which is after `begin` at the latest: it
/// is as if all had been killed in it, and lasts until others come.
fn held(
    cluster: &Cluster,
    wanted: &str,
    begin: impl FnOnce() -> anyhow::Result<()> + Send,
) -> Result<Vec<Stopped>, Failed> {
    let pods = controllers::all(cluster)?;
    let programs = pods
        .iter()
        .map(|pod| Process::of_pod(pod, "weft-controller"));
    let programs: Vec<Process> = programs.collect::<anyhow::Result<_>>()?;
    let stopped = thread::scope(|scope| -> Result<_, Failed> {
        let renewed = scope.spawn(begin);
        authority::reaches(cluster, SOON + SOON, wanted)?;
        let stopped = programs.into_iter().map(Process::stop);
        let stopped: Vec<Stopped> = stopped.collect::<anyhow::Result<_>>()?;
        renewed.join().map_err(|_| anyhow!("it panicked"))??;
        Ok(stopped)
    })?;
    is_in(cluster, wanted)?;
    println!("rolled back in {wanted}");
    Ok(stopped)
}

/// The status names the proxies that cannot report which roots they have, and for how long.
fn waits_for_silent(previous: &Previous, cluster: &Cluster, older: &Pod) -> anyhow::Result<()> {
    if previous.knows_rotations {
        return Ok(());
    }
    let message = eventually(SOON, "the status names the older proxy", || {
        let status = authority::status(cluster)?;
        let waits = status["proxies"]["waitingFor"].as_array();
        let waits = waits.into_iter().flatten().filter_map(Value::as_str);
        let named = waits
            .filter(|wait| wait.contains(SILENT))
            .find(|wait| wait.contains(&older.name));
        let named = named.map(str::to_owned);
        named.ok_or_else(|| anyhow!("{} is not named: {status:#}", older.name))
    })?;
    println!("waits for {message}");
    Ok(())
}
