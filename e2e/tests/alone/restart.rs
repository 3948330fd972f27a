//! No call is lost while pods restart, those of the mesh included.
//!
//! Claims: calls-84, observability-17, smi-8

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use e2e::{
    echo::load::Summary,
    harness::{App, Load, Namespace, Outcome, Pod, UNTIL_ENDED, app, eventually, mesh},
};
use serde_json::json;

use super::{
    altered::{Altered, own_pods, own_ready, scale},
    away::OpenBreaker,
    lifecycle::namespaces_that_wait_for_controllers_go_when_their_apiservices_went_by_hand,
    unmeasured, url,
};

const CONTROL_PLANE: [&str; 2] = ["deployment/weft-controller", "deployment/weft-injector"];
/// How long the whole control plane is away.
const AWAY: Duration = Duration::from_secs(60);
/// Proxies find the new replicas within their longest backoff, 10 s.
const CAUGHT_UP: Duration = Duration::from_secs(60);

// Claims: mesh-5a
#[test]
fn rolling_restart_under_load_loses_no_request() -> Outcome {
    let ns = members("rolling", &[App::new("server").replicas(3)])?;
    let before: Vec<String> = ns.pods("server")?.into_iter().map(|pod| pod.name).collect();
    let started = Instant::now();
    let load = load(&ns.pod("client")?, "server")?;
    ns.kubectl(&["rollout", "restart", "deployment/server"])?;
    ns.ready(&["server"])?;
    println!("restarted within {:?}", started.elapsed());
    let seen = load.end()?;
    nothing_lost(&seen)?;
    assert!(
        seen.by_pod.keys().any(|pod| !before.contains(pod))
            && before.iter().any(|pod| seen.by_pod.contains_key(pod)),
        "the load did not span the restart: {:?}, before {before:?}",
        seen.by_pod
    );
    Ok(())
}

// Claims: mesh-5b
#[test]
fn restart_of_every_controller_and_injector_loses_no_request() -> Outcome {
    let ns = members("own-restart", &[App::new("server").replicas(2)])?;
    let altered = Altered::begin()?;
    let client = ns.pod("client")?;
    let before = own_pods(&ns.cluster)?;
    let started = Instant::now();
    let load = load(&client, "server")?;
    ns.cluster.kubectl(&[
        "-n",
        mesh::NAMESPACE,
        "rollout",
        "restart",
        "deployment/weft-controller",
        "deployment/weft-injector",
    ])?;
    own_ready(&ns.cluster)?;
    eventually(CAUGHT_UP, "the old replicas are gone", || {
        let now = own_pods(&ns.cluster)?;
        ensure!(!now.iter().any(|pod| before.contains(pod)), "{now:?}");
        Ok(())
    })?;
    println!("restarted within {:?}", started.elapsed());
    nothing_lost(&load.end()?)?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(CAUGHT_UP, "the new replicas are heard", || {
        client.refused(&url("server", 8080, "/"), &[], 403, "not-allowed")
    })?;
    altered.nothing_to_restore();
    Ok(())
}

/// What a breaker does that was open when they went is looked at in the same minute, and so is
/// a namespace that is deleted then.
// Claims: mesh-5c
#[test]
fn mesh_survives_minute_without_control_plane_then_catches_up() -> Outcome {
    let servers = [
        App::new("server").replicas(2).label("tier", "web"),
        App::new("spare"),
    ];
    // Most of the time both wait for pods.
    let (ns, breaker) = thread::scope(|scope| {
        let breaker = scope.spawn(OpenBreaker::begin);
        (members("away", &servers), breaker.join())
    });
    let (ns, breaker) = (ns?, breaker.map_err(|_| anyhow!("its thread panicked"))??);
    ns.apply_all(&[
        app::service("web", &json!({"tier": "web"})),
        app::service("shop", &json!({"app": "server"})),
    ])?;
    split(&ns, 100, 0)?;
    ns.await_condition("trafficsplit/shop", "Programmed", "True")?;
    let (client, spare) = (ns.pod("client")?, ns.pod("spare")?);
    client.report(&url("web", 8080, "/"), &[])?;
    client.report(&url("shop", 8080, "/"), &[])?;
    let held_up = Namespace::unmeshed("held-up")?;

    let altered = Altered::begin()?;
    let load = load(&client, "web")?;
    scale(&ns.cluster, &CONTROL_PLANE, 0)?;
    eventually(Duration::from_secs(30), "all replicas are gone", || {
        let left = own_pods(&ns.cluster)?;
        ensure!(left.is_empty(), "there are {left:?}");
        Ok(())
    })?;
    let gone = Instant::now();
    breaker.lets_calls_through_within_20_s()?;
    breaker.all_else_is_gotten()?;
    changes_wait(&ns, &client, &spare)?;
    namespaces_that_wait_for_controllers_go_when_their_apiservices_went_by_hand(&held_up)?;
    thread::sleep(AWAY.saturating_sub(gone.elapsed()));

    scale(&ns.cluster, &CONTROL_PLANE, 2)?;
    own_ready(&ns.cluster)?;
    let back = Instant::now();
    println!("away for {:?} until ready again", gone.elapsed());
    eventually(CAUGHT_UP, "the endpoint that was added serves", || {
        let seen = client.get(&url("web", 8080, "/"), &["-n", "60", "-c", "6"])?;
        ensure!(seen.by_pod.contains_key(&spare.name), "{:?}", seen.by_pod);
        Ok(())
    })?;
    println!("added endpoint used {:?} after the return", back.elapsed());
    eventually(CAUGHT_UP, "the changed split holds", || {
        let seen = client.get(&url("shop", 8080, "/"), &["-n", "50"])?;
        ensure!(
            seen.by_pod.get(&spare.name) == Some(&50),
            "{:?}",
            seen.by_pod
        );
        Ok(())
    })?;
    println!("changed split seen {:?} after the return", back.elapsed());
    nothing_lost(&load.end()?)?;
    altered.restore()?;
    // Those that were taken away and put back, too.
    unmeasured::apis_are_served_again(&ns.cluster)?;
    Ok(())
}

/// A write while no controller runs changes nothing yet.
fn changes_wait(ns: &Namespace, client: &Pod, spare: &Pod) -> anyhow::Result<()> {
    ns.kubectl(&["label", "pod", &spare.name, "tier=web"])?;
    split(ns, 0, 100)?;
    let answers = client.get(&url("shop", 8080, "/"), &["-n", "50"])?;
    ensure!(
        answers.by_status.get("200") == Some(&50) && !answers.by_pod.contains_key(&spare.name),
        "the last configuration must serve on: {answers:?}"
    );
    Ok(())
}

/// These servers and a client that has called the first of them.
fn members(claim: &str, servers: &[App]) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?.without_retries()?;
    let mut objects = App::new("client").objects();
    objects.extend(servers.iter().flat_map(App::objects));
    ns.apply_all(&objects)?;
    ns.ready(&["client", "server"])?;
    if servers.len() > 1 {
        ns.ready(&["spare"])?;
    }
    ns.pod("client")?.report(&url("server", 8080, "/"), &[])?;
    Ok(ns)
}

/// 200 requests a second, the load that the promise speaks of.
fn load(client: &Pod, service: &str) -> anyhow::Result<Load> {
    client.start_load(
        &url(service, 8080, "/"),
        &["--rate", "200", "--duration", UNTIL_ENDED, "-c", "20"],
    )
}

/// Connect errors count as failures, so do answers other than 200.
fn nothing_lost(seen: &Summary) -> anyhow::Result<()> {
    println!(
        "{} planned, {} sent, {:?}, by pod {:?}, latency {:?}",
        seen.planned, seen.sent, seen.by_status, seen.by_pod, seen.latency_ms
    );
    ensure!(
        seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
        "planned = sent = answered with 200 does not hold: {seen:?}"
    );
    Ok(())
}

fn split(ns: &Namespace, server: u32, spare: u32) -> anyhow::Result<()> {
    ns.apply_all(&[
        json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": "shop"}, "spec": {"service": "shop", "backends": [
            {"service": "server", "weight": server}, {"service": "spare", "weight": spare}]}}),
    ])
}
