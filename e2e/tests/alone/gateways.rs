//! A Gateway rolls, and its certificate changes, under load from outside the mesh.

use std::{thread, time::Duration};

use anyhow::ensure;
use e2e::{
    echo::load::Summary,
    harness::{
        App, Gateway, Load, Namespace, Outcome, Pod, eventually,
        gateways::{NAMESPACE, listener},
    },
};
use serde_json::{Value, json};

/// A route is served, and a changed Secret read.
const SERVED: Duration = Duration::from_secs(60);
/// Of each protocol.
const LOAD: [&str; 6] = ["--rate", "250", "--duration", "60s", "-c", "20"];
/// Of both protocols together.
const REQUESTS: u64 = 30_000;
/// Before the Gateway rolls: the load is steady then.
const BEFORE: Duration = Duration::from_secs(5);

// Claims: gateways-4
#[test]
fn rolling_gateway_with_new_certificate_loses_no_request() -> Outcome {
    let gateway = Gateway::named("roll")?;
    gateway.certify(NAMESPACE, &["first.example"])?;
    let secret = json!({"tls": {"certificateRefs": [{"name": gateway.name}]}});
    let listeners = [listener("https", 443, "HTTPS", &secret)];
    gateway.listen(&listeners, &[("replicas", "2")])?;
    let ns = Namespace::meshed("gateway-roll")?.without_retries()?;
    ns.apply_all(&App::new("server").replicas(2).objects())?;
    let visitor = App::new("visitor").label("weft.dev/inject", "disabled");
    ns.apply_all(&visitor.objects())?;
    ns.apply_all(&[route(&gateway)])?;
    ns.ready(&["server", "visitor"])?;
    gateway.programmed()?;
    gateway.rollout("status")?;
    let visitor = ns.pod("visitor")?;
    let secured = gateway.url("https", 443, "/");
    eventually(SERVED, "the Gateway routes", || {
        visitor.report(&secured, &[])
    })?;
    shows(&visitor, &gateway, "first.example")?;

    let http1 = visitor.start_load(&secured, &LOAD)?;
    let http2 = visitor.start_load(&secured, &[&LOAD[..], &["--http2"]].concat())?;
    thread::sleep(BEFORE);
    gateway.rollout("restart")?;
    gateway.rollout("status")?;
    gateway.certify(NAMESPACE, &["second.example"])?;
    shows(&visitor, &gateway, "second.example")?;
    let seen = [finished(http1)?, finished(http2)?];
    let planned: u64 = seen.iter().map(|seen| seen.planned).sum();
    assert_eq!(planned, REQUESTS, "{seen:?}");
    Ok(())
}

/// Everything to `server`.
fn route(gateway: &Gateway) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "server"}, "spec": {"parentRefs": [gateway.parent()],
            "rules": [{"backendRefs": [{"name": "server", "port": 8080}]}]}})
}

/// Waits until a new connection is shown a certificate of this name.
fn shows(visitor: &Pod, gateway: &Gateway, name: &str) -> anyhow::Result<()> {
    let address = gateway.address(443);
    eventually(SERVED, &format!("the certificate is {name}'s"), || {
        let shown = visitor.exec(&["certificate", &address, "shop.example"])?;
        ensure!(shown.contains(name), "{shown}");
        Ok(())
    })
}

/// Fails unless each request that was planned got an answer of the application.
fn finished(load: Load) -> anyhow::Result<Summary> {
    let seen = load.finish()?;
    println!(
        "{} planned, {} sent, {:?}, {} connections, {:?}",
        seen.planned, seen.sent, seen.by_status, seen.connects, seen.latency_ms
    );
    ensure!(
        seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
        "planned = sent = answered with 200 does not hold: {seen:?}"
    );
    Ok(seen)
}
