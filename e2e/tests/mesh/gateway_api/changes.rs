//! Routes that come, change and go under load: what they decide instead of splits and of routes
//! of other kinds, and what comes back by itself.

use anyhow::ensure;
use e2e::harness::{Namespace, Outcome, UNTIL_ENDED, eventually};
use serde_json::{Value, json};

use super::{
    super::{
        SOON,
        split::{all_to, in_force, of, within_5_sigma},
        url,
    },
    UNARY, await_condition, backends, object, prefix, route, says, shop, with_parent,
};

/// Calls of which the shares are counted.
const CALLS: &str = "2000";

// Claims: routes-3
#[test]
fn route_overrides_split_under_load_and_split_returns() -> Outcome {
    let ns = shop("override")?;
    all_to(&ns, "stable")?;
    let client = ns.pod("client")?;
    // No proxy sends these twice, so none that is lost is hidden.
    let post = ["-X", "POST", "--body", "x"];
    let pace = ["--rate", "50", "-c", "4", "--duration", UNTIL_ENDED];
    let load = client.start_load(&url("shop", 8080, "/"), &[&post[..], &pace].concat())?;

    weigh(&ns, &[("canary", 1)])?;
    in_force(&ns, |seen| of(seen, "canary") == seen.planned)?;
    await_condition(&ns, "httproutes", "Accepted", "True")?;
    eventually(
        SOON,
        "an Event says which route overrides the split",
        || overridden(&ns),
    )?;
    // Bytes on a port that is declared so are still the split's.
    let who = client.exec(&["tcp", "shop:9000"])?;
    assert!(who.trim_end().ends_with("stable"), "reached {who}");

    weigh(&ns, &[("stable", 3), ("canary", 1)])?;
    in_force(&ns, |seen| of(seen, "stable") > 0 && of(seen, "canary") > 0)?;
    let protocols: [(&str, &[&str]); 3] = [("/", &[]), ("/", &["--http2"]), (UNARY, &["--grpc"])];
    for (path, protocol) in protocols {
        let calls = [&["-n", CALLS, "-c", "10"], protocol].concat();
        let seen = client.get(&url("shop", 8080, path), &calls)?;
        within_5_sigma(&seen, "canary", 0.25)?;
    }

    ns.kubectl(&["delete", &object("httproutes")])?;
    in_force(&ns, |seen| of(seen, "stable") == seen.planned)?;
    let seen = load.end()?;
    assert!(
        seen.by_status.get("200") == Some(&seen.planned) && seen.by_version.len() == 2,
        "requests failed while routes changed: {seen:?}"
    );
    Ok(())
}

fn weigh(ns: &Namespace, weights: &[(&str, u32)]) -> anyhow::Result<()> {
    let rules = json!([{"backendRefs": backends(8080, weights)}]);
    ns.apply_all(&[route("HTTPRoute", &rules)])
}

/// Fails unless an Event of the split names port and route.
fn overridden(ns: &Namespace) -> anyhow::Result<()> {
    let of_split = "--field-selector=involvedObject.kind=TrafficSplit,reason=Overridden";
    let list = ns.json(&["get", "events", of_split])?;
    let events: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    let named = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        message.contains("HTTPRoute") && message.contains("8080")
    };
    ensure!(events.iter().any(|event| named(event)), "{events:?}");
    Ok(())
}

// Claims: routes-3
#[test]
fn broken_rules_answer_500_while_others_hold() -> Outcome {
    let ns = shop("broken")?;
    let canary = backends(8080, &[("canary", 1)]);
    let foreign = json!([{"type": "ExtensionRef",
        "extensionRef": {"group": "example.com", "kind": "Filter", "name": "unknown"}}]);
    ns.apply_all(&[route(
        "HTTPRoute",
        &json!([
            {"matches": prefix("/foreign"), "filters": foreign, "backendRefs": canary},
            {"matches": prefix("/unborn"), "backendRefs": backends(8080, &[("unborn", 1)])},
            {"matches": prefix("/"), "backendRefs": canary},
        ]),
    )])?;
    let partly = await_condition(&ns, "httproutes", "PartiallyInvalid", "True")?;
    says(&partly, "UnsupportedValue", "spec.rules[0]")?;
    let accepted = await_condition(&ns, "httproutes", "Accepted", "True")?;
    says(&accepted, "Accepted", "spec.rules[0].filters[0]")?;
    let resolved = await_condition(&ns, "httproutes", "ResolvedRefs", "False")?;
    says(&resolved, "BackendNotFound", "unborn")?;

    in_force(&ns, |seen| of(seen, "canary") == seen.planned)?;
    let client = ns.pod("client")?;
    client.refused(&url("shop", 8080, "/foreign/a"), &[], 500, "invalid-route")?;
    client.refused(&url("shop", 8080, "/unborn/a"), &[], 500, "invalid-backend")?;

    // Its birth heals the rule.
    let service = e2e::harness::app::service("unborn", &json!({"app": "canary"}));
    ns.apply_all(&[service])?;
    await_condition(&ns, "httproutes", "ResolvedRefs", "True")?;
    eventually(SOON, "the backend answers", || {
        let report = client.report(&url("shop", 8080, "/unborn/a"), &[])?;
        ensure!(report.version == "canary", "{report:?}");
        Ok(())
    })?;
    Ok(())
}

// Claims: routes-3
#[test]
fn grpc_route_takes_port_until_it_is_deleted() -> Outcome {
    let ns = shop("grpc-route")?;
    let port = json!({"port": 8080});
    let everything = json!([{"backendRefs": backends(8080, &[("canary", 1)])}]);
    ns.apply_all(&[with_parent("HTTPRoute", &port, &everything)])?;
    await_condition(&ns, "httproutes", "Accepted", "True")?;
    in_force(&ns, |seen| of(seen, "canary") == seen.planned)?;

    let method = json!([{"matches": [{"method": {"service": "weft.echo.Echo", "method": "Unary"}}],
        "backendRefs": backends(8080, &[("stable", 1)])}]);
    ns.apply_all(&[with_parent("GRPCRoute", &port, &method)])?;
    await_condition(&ns, "grpcroutes", "Accepted", "True")?;
    let lost = await_condition(&ns, "httproutes", "Accepted", "False")?;
    says(&lost, "Conflicted", "8080")?;
    let client = ns.pod("client")?;
    eventually(SOON, "the GRPCRoute decides about the port", || {
        let seen = client.get(&url("shop", 8080, UNARY), &["--grpc"])?;
        ensure!(of(&seen, "stable") == 1, "{seen:?}");
        client.refused(&url("shop", 8080, "/"), &[], 404, "no-route")
    })?;

    ns.kubectl(&["delete", &object("grpcroutes")])?;
    await_condition(&ns, "httproutes", "Accepted", "True")?;
    in_force(&ns, |seen| of(seen, "canary") == seen.planned)?;
    Ok(())
}

// Claims: routes-3
#[test]
fn tcp_route_decides_about_connections_of_bytes() -> Outcome {
    let ns = shop("tcp-route")?;
    let client = ns.pod("client")?;
    for version in ["canary", "stable"] {
        let weights = ["canary", "stable"].map(|name| (name, u32::from(name == version)));
        let rules = json!([{"backendRefs": backends(9000, &weights)}]);
        ns.apply_all(&[with_parent("TCPRoute", &json!({"port": 9000}), &rules)])?;
        await_condition(&ns, "tcproutes", "Accepted", "True")?;
        eventually(SOON, "connections go to one backend", || {
            for _ in 0..5 {
                let who = client.exec(&["tcp", "shop:9000"])?;
                ensure!(who.trim_end().ends_with(version), "reached {who}");
            }
            Ok(())
        })?;
    }
    Ok(())
}
