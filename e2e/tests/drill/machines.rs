//! A node, the API server and etcd are away during a rotation.
//!
//! Claims: trust-11

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use e2e::harness::{
    Cluster, Outcome, Process,
    authority::{self, install_rotatable},
    controllers,
};

use super::{
    ENDED, PHASE, SETTLE,
    altered::Altered,
    sound::is_sound,
    town::{BACK, Town},
};

/// The node that is lost; clients are on another one.
const NODE: &str = "node3";
/// Of the node, as e2e/cluster/README.md names it.
const CABLE: &str = "weft-v3";
/// Shorter than the time after which the cluster takes its nodes for lost, counted from their last
/// report: then nothing but the mesh could lose a request.
const SHORT: Duration = Duration::from_secs(8);
/// Longer than that: endpoints may go and come back.
const LONG: Duration = Duration::from_secs(40);
/// A load that must lose nothing.
const WINDOW: Duration = Duration::from_secs(10);

/// The node's network, which comes back however the test ends.
struct Cut;

impl Cut {
    fn pull() -> anyhow::Result<Self> {
        let cut = Self;
        cable("down")?;
        Ok(cut)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Err(error) = cable("up") {
            eprintln!("{NODE} stays cut off: {error:#}");
        }
    }
}

fn cable(state: &str) -> anyhow::Result<()> {
    let words = ["link", "set", CABLE, state];
    let status = Command::new("ip").args(words).status();
    let status = status.context("start ip")?;
    ensure!(
        status.success(),
        "ip {words:?}: {status}: this must run as root on the machine of the local cluster"
    );
    Ok(())
}

#[test]
fn node_lost_in_rotation_is_back_by_itself() -> Outcome {
    let altered = Altered::begin()?;
    let town = Town::open("drill-node")?;
    let cluster = town.cluster();
    install_rotatable(cluster, &[SETTLE])?;
    let former = authority::root(cluster)?;
    let leader = controllers::leader(cluster)?;
    for pod in controllers::all(cluster)? {
        let role = if pod.name == leader { "leads" } else { "runs" };
        println!("{} {role} on {}", pod.name, pod.object["spec"]["nodeName"]);
    }
    cluster.weft(&["identity", "rotate"])?.with_status(0)?;
    authority::reaches(cluster, PHASE, "Preparing")?;
    let loads = town.begin()?;
    let cut = Cut::pull()?;
    thread::sleep(BACK);
    let (lost, _) = town.lost("from the loss of a node on", loads)?;
    println!("{lost} requests were under way to the node or came until it was missed");
    let loads = town.begin()?;
    thread::sleep(WINDOW);
    town.nothing_lost("30 s after the loss of a node", loads)?;
    // Its proxies count, and have not renewed.
    let phase = authority::phase(cluster)?;
    let waits = ["Preparing", "Activating"].contains(&phase.as_str());
    assert!(waits, "the rotation went on to {phase}");

    drop(cut);
    node_is_ready(cluster)?;
    town.node_serves(NODE, Instant::now())?;
    authority::ended(cluster, ENDED, "Generated", &former)?;
    let loads = town.begin()?;
    thread::sleep(WINDOW);
    town.nothing_lost("after the node's return and the rotation", loads)?;
    is_sound(&town)?;
    altered.restore()?;
    Ok(())
}

/// By its kubelet's own word: until then the cluster itself holds its pods back.
fn node_is_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let node = format!("node/{NODE}");
    let wait = ["wait", "--for=condition=Ready", &node, "--timeout=180s"];
    cluster.kubectl(&wait).map(drop)
}

#[test]
fn api_server_or_etcd_away_costs_no_request() -> Outcome {
    let altered = Altered::begin()?;
    let town = Town::open("drill-api")?;
    let cluster = town.cluster();
    install_rotatable(cluster, &[SETTLE])?;
    let former = authority::root(cluster)?;
    let loads = town.begin()?;
    cluster.weft(&["identity", "rotate"])?.with_status(0)?;
    authority::reaches(cluster, PHASE, "Preparing")?;
    away("kube-apiserver", SHORT)?;
    println!("then in {}", authority::phase(cluster)?);
    away("etcd", SHORT)?;
    println!("then in {}", authority::phase(cluster)?);
    authority::ended(cluster, ENDED, "Generated", &former)?;
    town.nothing_lost("API server and etcd away for seconds", loads)?;

    for program in ["kube-apiserver", "etcd"] {
        let loads = town.begin()?;
        away(program, LONG)?;
        let (what, since) = (format!("{program} away for {LONG:?}"), Instant::now());
        town.is_back(&what, since)?;
        town.lost(&what, loads)?;
        // Kubelets could not report: Kubernetes takes their pods for away until they do again.
        thread::sleep(BACK.saturating_sub(since.elapsed()));
        let loads = town.begin()?;
        thread::sleep(WINDOW);
        town.nothing_lost(&format!("{BACK:?} after {what}"), loads)?;
    }
    is_sound(&town)?;
    altered.restore()?;
    Ok(())
}

/// It stands still: connections to it stay, and nothing is answered.
fn away(program: &str, time: Duration) -> anyhow::Result<()> {
    let stopped = Process::of_control_plane(program)?.stop()?;
    thread::sleep(time);
    stopped.resume();
    println!("{program} stood still for {time:?}");
    Ok(())
}
