//! New edges show soon: the first call of each kind of edge, and long calls while they are open.
//!
//! Claims: observe-144, observe-146

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use e2e::harness::{Api, App, Namespace, Outcome, beside, eventually};
use serde_json::Value;

use super::super::url;
use super::printed;

/// The promise: from a call until its edge shows. It includes an interval of 5 s, its report,
/// and the controller's next poll.
const WITHIN: Duration = Duration::from_secs(10);
/// From the start of kubectl until what it runs in a pod has called.
const STARTED: Duration = Duration::from_secs(3);
/// Longer than both together: what is held is still open when it has to be seen.
const OPEN_FOR: &str = "20s";
/// A host that is asked for by name, at an address outside the cluster.
const HOST: &str = "api.example";

/// The first edge of the last minute with these fields, in the namespace's graph.
fn found(api: &Api, ns: &Namespace, fields: &[(&str, Value)]) -> anyhow::Result<Value> {
    let path = "/apis/observe.weft.dev/v1alpha1/namespaces";
    let graph = api.read(&format!("{path}/{}/graphs/live?window=60s", ns.name))?;
    first(&graph, fields).cloned()
}

fn first<'a>(graph: &'a Value, fields: &[(&str, Value)]) -> anyhow::Result<&'a Value> {
    let edges = graph["edges"].as_array().context("no edges")?;
    let fits = |edge: &&Value| fields.iter().all(|(name, value)| edge[*name] == *value);
    let edge = edges.iter().find(fits);
    edge.with_context(|| format!("no edge with {fields:?}: {:#}", graph["edges"]))
}

// Claims: observability-1
#[test]
fn first_call_of_any_edge_shows_within_10_s() -> Outcome {
    let ns = Namespace::meshed("eyes-first")?;
    let shut = App::new("vault").annotation("weft.dev/access", "deny");
    let outsider = App::new("outsider").label("weft.dev/inject", "disabled");
    for app in [App::new("web"), App::new("cart"), shut, outsider] {
        ns.apply_all(&app.objects())?;
    }
    ns.ready(&["web", "cart", "vault", "outsider"])?;
    let (web, cart) = (&ns.pod("web")?, ns.pod("cart")?);
    let outsider = ns.pod("outsider")?;
    let api = Api::open(&ns.cluster)?;
    // The kernel completes connections to it without an accept.
    let listener = beside::listener()?;
    let address = listener.local_addr()?.to_string();
    let workload = |name: &str| Value::from(format!("{}/Deployment/{name}", ns.name));
    let edge_to = |to: Value, protocol: &str| {
        vec![
            ("from", workload("web")),
            ("to", to),
            ("protocol", Value::from(protocol)),
        ]
    };
    let host = Value::from(format!("External/{HOST}"));
    let plain = vec![
        ("from", Value::from(format!("Outside/{}", outsider.ip))),
        ("to", workload("cart")),
    ];

    web.report(&url("cart", 8080, "/"), &[])?;
    let http = edge_to(workload("cart"), "http1");
    eventually(WITHIN, "the request shows", || found(&api, &ns, &http))?;
    web.refused(&url("vault", 8080, "/"), &[], 403, "not-allowed")?;
    let refused = edge_to(workload("vault"), "http1");
    let refused = eventually(WITHIN, "the refusal shows", || found(&api, &ns, &refused))?;
    assert_eq!(refused["refused"]["not-allowed"], 1, "{refused:#}");
    outsider.report(&format!("http://{}:8080/", cart.ip), &[])?;
    let unproven = eventually(WITHIN, "the plain call shows", || found(&api, &ns, &plain))?;
    assert_eq!(unproven["mtls"], 0.0, "{unproven:#}");

    let connections = [
        ["grpc", "cart:8080", "--duration", OPEN_FOR].to_vec(),
        ["tcp", "cart:9000", "--duration", OPEN_FOR].to_vec(),
        ["tls", &address, HOST, "--duration", OPEN_FOR].to_vec(),
    ];
    let started = Instant::now();
    thread::scope(|scope| -> anyhow::Result<()> {
        let running = connections.iter();
        let running = running.map(|args| scope.spawn(move || web.exec(args)));
        let running: Vec<_> = running.collect();
        for fields in [
            edge_to(workload("cart"), "grpc"),
            edge_to(workload("cart"), "tcp"),
            edge_to(host.clone(), "tls"),
        ] {
            let left = (WITHIN + STARTED).saturating_sub(started.elapsed());
            eventually(left, "what is held shows", || {
                let edge = found(&api, &ns, &fields)?;
                ensure!(edge["open"].as_u64() >= Some(1), "{edge:#}");
                Ok(())
            })?;
        }
        for one in running {
            one.join()
                .map_err(|_| anyhow!("what was held panicked"))??;
        }
        Ok(())
    })?;

    // As a user finds them.
    first(&printed(&ns, &["--external"])?, &[("to", host)])?;
    first(&printed(&ns, &["--plaintext"])?, &plain)?;
    Ok(())
}
