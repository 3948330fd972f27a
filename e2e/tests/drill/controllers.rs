//! Controllers are killed in each phase of a rotation, and a proxy stands still.
//!
//! Claims: trust-11

use std::time::Instant;

use anyhow::{Context as _, ensure};
use e2e::harness::{
    Cluster, Outcome, Process,
    authority::{self, install_rotatable},
    controllers, eventually,
};
use serde_json::Value;

use super::{ENDED, PHASE, SETTLE, altered::Altered, sound::is_sound, town::Town};

/// Preparing goes on while a proxy stands still and goes on again.
const LONGER: &str = "identity.rotation.settle=45s";

#[test]
fn leader_killed_in_each_phase_costs_no_request() -> Outcome {
    let altered = Altered::begin()?;
    let town = Town::open("drill-leader")?;
    let cluster = town.cluster();
    install_rotatable(cluster, &[SETTLE])?;
    let former = authority::root(cluster)?;
    let loads = town.begin()?;
    cluster.weft(&["identity", "rotate"])?.with_status(0)?;
    for phase in ["Preparing", "Activating"] {
        authority::reaches(cluster, PHASE, phase)?;
        kill_leader(cluster, phase)?;
    }
    let planned = authority::ended(cluster, ENDED, "Generated", &former)?;
    town.nothing_lost("leader killed in a planned rotation", loads)?;

    // A planned Retiring is over when all have acknowledged it; that of a Compromise lasts for 5 s.
    let loads = town.begin()?;
    let rotate = ["identity", "rotate", "--compromise"];
    cluster.weft(&rotate)?.with_status(0)?;
    authority::reaches(cluster, PHASE, "Retiring")?;
    kill_leader(cluster, "Retiring")?;
    let killed = Instant::now();
    town.is_back("leader killed in Retiring of a Compromise", killed)?;
    authority::ended(cluster, ENDED, "Generated", &planned)?;
    town.lost("leader killed in Retiring of a Compromise", loads)?;
    is_sound(&town)?;
    altered.restore()?;
    Ok(())
}

/// One that runs: for some seconds the Lease names one that was killed before.
fn kill_leader(cluster: &Cluster, wanted: &str) -> anyhow::Result<()> {
    let leader = eventually(PHASE, "a controller that runs holds the Lease", || {
        let leader = controllers::leader(cluster)?;
        let all = controllers::all(cluster)?;
        let runs = all.iter().any(|pod| pod.name == leader);
        ensure!(runs, "{leader} is gone");
        Ok(leader)
    })?;
    let phase = authority::phase(cluster)?;
    ensure!(phase == wanted, "{wanted} was over: it is in {phase}");
    println!("{leader} is killed in {phase}");
    controllers::kill(cluster, &[leader])
}

/// A proxy that stands still for longer than 30 s is started again by its kubelet; this one goes on
/// before.
#[test]
fn controllers_killed_in_preparing_cost_no_request() -> Outcome {
    let altered = Altered::begin()?;
    let town = Town::open("drill-frozen")?;
    let cluster = town.cluster();
    install_rotatable(cluster, &[LONGER])?;
    let former = authority::root(cluster)?;
    let loads = town.begin()?;
    let frozen = Process::of_pod(&town.aside, "weft-proxy")?.stop()?;
    cluster.weft(&["identity", "rotate"])?.with_status(0)?;
    eventually(
        PHASE,
        "the status names the proxy that stands still",
        || {
            let status = authority::status(cluster)?;
            ensure!(status["phase"] == "Preparing", "{status:#}");
            let waits = status["proxies"]["waitingFor"].as_array();
            let waits = waits.context("it waits for none")?;
            let mut waits = waits.iter().filter_map(Value::as_str);
            let named = waits.any(|wait| wait.contains(&town.aside.name));
            ensure!(named, "{status:#}");
            Ok(())
        },
    )?;
    frozen.resume();
    town.serves("the proxy that stood still", Instant::now(), &town.aside)?;

    authority::reaches(cluster, PHASE, "Preparing")?;
    let all = controllers::all(cluster)?;
    let all: Vec<String> = all.into_iter().map(|pod| pod.name).collect();
    controllers::kill(cluster, &all)?;
    println!("{all:?} were killed in Preparing");
    authority::ended(cluster, ENDED, "Generated", &former)?;
    town.nothing_lost("all controllers killed in Preparing, a proxy frozen", loads)?;
    is_sound(&town)?;
    altered.restore()?;
    Ok(())
}
