//! The examples of the documentation are applied as they are.
//!
//! Claims: calls-73, smi-12

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::harness::{
    Cluster, Namespace, Outcome, cluster::root, eventually, gateway_api, gateways, mesh,
};
use serde_json::Value;

/// What is about the whole mesh would hold in the tests beside this one: it is judged and not
/// stored. `e2e/tests/alone/policy_change.rs` stores it.
const OF_THE_MESH: &str = "targetRef: {kind: Mesh}";
/// Gateways stand in namespaces that the chart names.
const OF_A_GATEWAY: &str = "\nkind: Gateway\n";
/// Behind the kind of an object of the Gateway API, of which routes have their conditions elsewhere.
const OF_THE_GATEWAY_API: &str = ".gateway.networking.k8s.io/";
/// The mesh's entries in the status of a route.
const CONTROLLERS: [&str; 2] = ["weft.dev/mesh", "weft.dev/gateway"];

#[test]
fn every_example_is_taken_and_understood() -> Outcome {
    gateway_api::installed()?;
    let ns = Namespace::meshed("examples")?;
    // Else the experiment among them is not accepted. It runs by its schedule or by a command.
    ns.annotate("weft.dev/faults", Some("allowed"))?;
    let (mut kinds, mut judged) = (BTreeSet::new(), 0);
    let folder = root().join("docs/examples");
    let mut files: Vec<_> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file)?;
        if text.contains(OF_THE_MESH) {
            let path = file.display().to_string();
            let apply = ["apply", "--dry-run=server", "-n", mesh::NAMESPACE, "-f"];
            let output = ns
                .cluster
                .kubectl(&[&apply[..], &[path.as_str()]].concat())?;
            let taken = output.contains(" created (server dry run)");
            assert!(taken, "{path}: {output}");
            judged += 1;
            continue;
        }
        let at_edge = text.contains(OF_A_GATEWAY).then(|| AtEdge {
            cluster: ns.cluster.clone(),
            file: file.display().to_string(),
        });
        let namespace = at_edge.as_ref().map_or(&*ns.name, |_| gateways::NAMESPACE);
        let output = ns
            .cluster
            .apply(namespace, &text.replace("$NS", namespace))
            .with_context(|| file.display().to_string())?;
        for line in output.lines() {
            // Such as `traffictarget.access.smi-spec.io/name created`.
            let (object, how) = line.split_once(' ').context("not said what became of it")?;
            assert!(how == "created", "two examples share {object}");
            // A Service stands beside what is about it: the mesh says nothing of it.
            if object.starts_with("service/") {
                continue;
            }
            let kind = object.split('.').next().unwrap_or_default().to_owned();
            let accepted = accepted(&ns, namespace, object)?;
            println!("{}: {object} {}", file.display(), accepted["reason"]);
            kinds.insert(kind);
        }
    }
    assert_eq!(judged, 1, "examples for the whole mesh");
    let all = [
        "canaryrelease",
        "externalservice",
        "faultexperiment",
        "gateway",
        "httproute",
        "httproutegroup",
        "identitybinding",
        "tcproute",
        "trafficpolicy",
        "trafficsplit",
        "traffictarget",
        "udproute",
    ];
    assert_eq!(
        kinds,
        all.map(String::from).into(),
        "a kind without an example"
    );
    Ok(())
}

/// An example with a Gateway, which goes when this is dropped.
struct AtEdge {
    cluster: Cluster,
    file: String,
}

impl Drop for AtEdge {
    fn drop(&mut self) {
        let of_edge = ["-n", gateways::NAMESPACE, "delete", "--wait=false"];
        let words = [&of_edge[..], &["--ignore-not-found", "-f", &self.file]].concat();
        if let Err(error) = self.cluster.kubectl(&words) {
            eprintln!("{} stays: {error:#}", self.file);
        }
    }
}

fn accepted(ns: &Namespace, namespace: &str, object: &str) -> anyhow::Result<Value> {
    if object.contains(OF_THE_GATEWAY_API) {
        of_gateway_api(&ns.cluster, namespace, object)
    } else {
        ns.await_condition(object, "Accepted", "True")
    }
}

/// What the mesh says of a route, or of a Gateway. An example need not bring the Service that it
/// is about.
fn of_gateway_api(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Value> {
    let limit = Duration::from_secs(60);
    eventually(limit, &format!("{name} is understood"), || {
        let object = cluster.json(&["-n", namespace, "get", name])?;
        let status = &object["status"];
        let parents = status["parents"].as_array().into_iter().flatten();
        let ours = parents.filter(|parent| {
            let controller = parent["controllerName"].as_str();
            controller.is_some_and(|name| CONTROLLERS.contains(&name))
        });
        let of_parents = ours.filter_map(|parent| parent["conditions"].as_array());
        let accepted = of_parents
            .chain(status["conditions"].as_array())
            .flatten()
            .find(|condition| condition["type"] == "Accepted")
            .with_context(|| format!("nothing is said of it: {status}"))?;
        ensure!(
            accepted["status"] == "True" || accepted["reason"] == "NoMatchingParent",
            "it is {accepted}"
        );
        Ok(accepted.clone())
    })
}
