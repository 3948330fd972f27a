//! Gateways: calls from outside the mesh meet the splits and the rules of access of the Services
//! that they are routed to, as calls of one more client, whose identity is the Gateway's.

use std::time::Duration;

use anyhow::ensure;
use e2e::{
    echo::load::Summary,
    harness::{
        App, Gateway, Namespace, Outcome, Pod, eventually,
        gateways::{NAMESPACE, OF_OTHERS, condition, listener},
    },
};
use serde_json::{Value, json};

use super::{
    SOON,
    split::{of, shop, weigh},
    url,
};

/// A Gateway that is programmed has its routes within moments; on a busy machine it takes longer.
const ROUTED: Duration = Duration::from_secs(60);
/// Secrets are read every 10 s.
const READ: Duration = Duration::from_secs(40);

/// A pod without a proxy, as clients outside are.
fn visitor(ns: &Namespace) -> anyhow::Result<()> {
    let app = App::new("visitor").label("weft.dev/inject", "disabled");
    ns.apply_all(&app.objects())
}

fn plain() -> Value {
    listener("http", 80, "HTTP", &json!({}))
}

/// A route of the test's namespace that leads all calls of the Gateway to this Service.
fn route(gateway: &Gateway, service: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": service}, "spec": {"parentRefs": [gateway.parent()],
            "rules": [{"backendRefs": [{"name": service, "port": 8080}]}]}})
}

/// Waits until a short load through the Gateway looks as expected.
fn in_force(
    visitor: &Pod,
    gateway: &Gateway,
    expected: impl Fn(&Summary) -> bool,
) -> anyhow::Result<()> {
    eventually(ROUTED, "the Gateway routes as it should", || {
        let seen = visitor.get(&gateway.url("http", 80, "/"), &["-n", "60", "-c", "2"])?;
        ensure!(expected(&seen), "{seen:?}");
        Ok(())
    })
}

// Claims: gateways-2
#[test]
fn split_behind_gateway_holds_for_10000_requests() -> Outcome {
    let gateway = Gateway::named("split")?;
    gateway.listen(&[plain()], &[])?;
    let ns = shop("gateway-split")?;
    visitor(&ns)?;
    ns.apply_all(&[route(&gateway, "shop")])?;
    weigh(&ns, &[("stable", 90), ("canary", 10)])?;
    ns.ready(&["visitor"])?;
    gateway.programmed()?;
    let visitor = ns.pod("visitor")?;
    in_force(&visitor, &gateway, |seen| {
        of(seen, "stable") > 40 && of(seen, "canary") > 0
    })?;
    let seen = visitor.get(&gateway.url("http", 80, "/"), &["-n", "10000", "-c", "20"])?;
    println!("{:?}, {:?}", seen.by_version, seen.latency_ms);
    assert_eq!(seen.by_status.get("200"), Some(&10_000), "{seen:?}");
    // 5 sigma on both sides.
    let canary = of(&seen, "canary");
    assert!((850..=1150).contains(&canary), "{canary}: {seen:?}");
    Ok(())
}

// Claims: gateways-2
#[test]
fn target_admits_gateway_and_no_other_client() -> Outcome {
    let gateway = Gateway::named("target")?;
    gateway.listen(&[plain()], &[])?;
    let ns = Namespace::meshed("gateway-target")?;
    visitor(&ns)?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    ns.apply_all(&[route(&gateway, "server")])?;
    ns.run(&["server", "client"])?;
    ns.ready(&["visitor"])?;
    gateway.programmed()?;
    let (visitor, client) = (ns.pod("visitor")?, ns.pod("client")?);
    let all_refused = |seen: &Summary| seen.by_status.get("403") == Some(&60);
    let all_served = |seen: &Summary| seen.by_status.get("200") == Some(&60);

    in_force(&visitor, &gateway, all_refused)?;
    let account = gateway.account();
    ns.apply_all(&[everything(), target(&ns, &account, NAMESPACE)])?;
    in_force(&visitor, &gateway, all_served)?;
    let direct = url("server", 8080, "/");
    client.refused(&direct, &[], 403, "not-allowed")?;
    // The application sees who called it: the Gateway, and none of its clients.
    let report = visitor.report(
        &gateway.url("http", 80, "/"),
        &[
            "-H",
            "weft-client-id: spiffe://cluster.local/ns/x/sa/forged",
        ],
    )?;
    let id = report.client_id.unwrap_or_default();
    assert!(id.ends_with(&format!("/sa/{account}")), "{id}");
    // Pods of the mesh call its listeners as pods outside do.
    let report = client.report(&gateway.url("http", 80, "/"), &[])?;
    let id = report.client_id.unwrap_or_default();
    assert!(id.ends_with(&format!("/sa/{account}")), "{id}");

    // An account of that name in another namespace is another client.
    ns.apply_all(&[target(&ns, &account, &ns.name)])?;
    in_force(&visitor, &gateway, all_refused)?;
    ns.apply_all(&[target(&ns, "client", &ns.name)])?;
    eventually(SOON, "the client that is named now is served", || {
        client.report(&direct, &[])
    })?;
    in_force(&visitor, &gateway, all_refused)?;
    Ok(())
}

fn everything() -> Value {
    json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
        "metadata": {"name": "everything"}, "spec": {"matches": [{"name": "all", "methods": ["*"]}]}})
}

/// A TrafficTarget that admits this account to `server`.
fn target(ns: &Namespace, account: &str, namespace: &str) -> Value {
    json!({"apiVersion": "access.smi-spec.io/v1alpha3", "kind": "TrafficTarget",
        "metadata": {"name": "server"}, "spec": {
            "destination": {"kind": "ServiceAccount", "name": "server", "namespace": ns.name},
            "rules": [{"kind": "HTTPRouteGroup", "name": "everything"}],
            "sources": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]}})
}

// Claims: gateways-3
#[test]
fn changed_certificate_is_served_and_ungranted_one_refused() -> Outcome {
    let gateway = Gateway::named("certificate")?;
    gateway.certify(OF_OTHERS, &["first.example"])?;
    gateway.grant(OF_OTHERS)?;
    let secret = json!({"tls": {"certificateRefs":
        [{"name": gateway.name, "namespace": OF_OTHERS}]}});
    gateway.listen(&[listener("https", 443, "HTTPS", &secret)], &[])?;
    let ns = Namespace::meshed("gateway-certificate")?;
    visitor(&ns)?;
    ns.apply_all(&[route(&gateway, "server")])?;
    ns.run(&["server"])?;
    ns.ready(&["visitor"])?;
    gateway.programmed()?;
    let visitor = ns.pod("visitor")?;
    let address = gateway.address(443);
    let shown = |name: &str| {
        let shown = visitor.exec(&["certificate", &address, "shop.example"])?;
        ensure!(shown.contains(name), "{shown}");
        Ok(())
    };
    eventually(ROUTED, "the first certificate is shown", || {
        shown("first.example")
    })?;
    let protocols: [&[&str]; 2] = [&[], &["--http2"]];
    for args in protocols {
        let secured = gateway.url("https", 443, "/");
        eventually(ROUTED, "a request over TLS is routed", || {
            visitor.report(&secured, args)
        })?;
    }

    gateway.certify(OF_OTHERS, &["second.example"])?;
    eventually(READ, "the second certificate is shown", || {
        shown("second.example")
    })?;

    gateway.revoke(OF_OTHERS)?;
    eventually(SOON, "handshakes are refused", || {
        let shown = visitor.exec(&["certificate", &address, "shop.example"]);
        ensure!(shown.is_err(), "{shown:?}");
        Ok(())
    })?;
    eventually(ROUTED, "the listener says why", || {
        let object = gateway.object()?;
        let resolved = condition(
            &object["status"]["listeners"][0]["conditions"],
            "ResolvedRefs",
        )?;
        ensure!(
            resolved["status"] == "False" && resolved["reason"] == "RefNotPermitted",
            "{resolved}"
        );
        Ok(())
    })?;
    Ok(())
}
