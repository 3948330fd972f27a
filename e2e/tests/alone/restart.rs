//! Nothing is lost while pods come and go.

use e2e::harness::{App, Namespace, Outcome};

use super::url;

#[test]
fn rolling_restart_under_load_loses_no_request() -> Outcome {
    let ns = Namespace::meshed("rolling")?;
    ns.apply_all(&App::new("server").replicas(3).objects())?;
    ns.apply_all(&App::new("client").objects())?;
    ns.ready(&["server", "client"])?;
    let client = ns.pod("client")?;
    client.report(&url("server", 8080, "/"), &[])?;
    let before: Vec<String> = ns.pods("server")?.into_iter().map(|pod| pod.name).collect();
    let load = client.start_load(
        &url("server", 8080, "/"),
        &["--rate", "200", "--duration", "60s", "-c", "20"],
    )?;
    ns.kubectl(&["rollout", "restart", "deployment/server"])?;
    ns.ready(&["server"])?;
    let seen = load.finish()?;
    println!(
        "{} requests, by pod {:?}, latency {:?}",
        seen.answered, seen.by_pod, seen.latency_ms
    );
    assert!(
        seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
        "planned = sent = answered with 200 does not hold: {seen:?}"
    );
    assert!(
        seen.by_pod.keys().any(|pod| !before.contains(pod))
            && before.iter().any(|pod| seen.by_pod.contains_key(pod)),
        "the load did not span the restart: {:?}, before {before:?}",
        seen.by_pod
    );
    Ok(())
}
