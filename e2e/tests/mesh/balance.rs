//! Calls stay in their zone where a policy sets it, in a cluster of several zones.
//!
//! Claims: calls-83

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use e2e::{
    echo::load::Summary,
    harness::{App, Namespace, Outcome, Pod, app},
};
use serde_json::{Value, json};

use super::url;

const ZONE: &str = "topology.kubernetes.io/zone";
/// One in each zone of the local cluster.
const PODS: usize = 3;
/// The promise, for all callers together.
const OWN_ZONE: f64 = 0.95;
/// Below this share calls leave their zone, as they do without a policy: the share is a third
/// where all endpoints are alike.
const ANY_ZONE: f64 = 0.8;

#[test]
fn calm_calls_stay_in_zone_by_policy_or_service() -> Outcome {
    let ns = Namespace::meshed("zones")?;
    for name in ["server", "client"] {
        ns.apply_all(&spread(name))?;
    }
    // The same pods again, by a Service that says itself what is near.
    let mut close = app::service("close", &json!({"app": "server"}));
    close["spec"]["trafficDistribution"] = json!("PreferClose");
    ns.apply_all(&[close])?;
    ns.ready(&["server", "client"])?;
    let scene = Scene {
        zones: zones(&ns)?,
        servers: ns.pods("server")?,
        clients: ns.pods("client")?,
    };
    scene.every_zone_has_both()?;

    let anywhere = scene.own_share("server")?;
    assert!(
        anywhere < ANY_ZONE,
        "{anywhere:.3} of the calls stay in their zone without a policy"
    );
    ns.apply_all(&[
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "near"}, "spec": {
            "targetRef": {"kind": "Service", "name": "server"},
            "balance": {"locality": "PreferSameZone"}}}),
    ])?;
    ns.await_condition("tp/near", "Programmed", "True")?;
    for service in ["server", "close"] {
        let near = scene.own_share(service)?;
        assert!(
            near >= OWN_ZONE,
            "only {near:.3} of the calls to {service} stay in their zone"
        );
    }
    Ok(())
}

/// A Deployment with as many pods in each zone.
fn spread(name: &str) -> Vec<Value> {
    let mut objects = App::new(name).replicas(PODS as u32).objects();
    for object in &mut objects {
        if object["kind"] == "Deployment" {
            object["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
                "maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": name}}}]);
        }
    }
    objects
}

/// The zone of each node.
fn zones(ns: &Namespace) -> anyhow::Result<BTreeMap<String, String>> {
    let nodes = ns.cluster.json(&["get", "nodes"])?;
    let nodes = nodes["items"].as_array().context("no list of nodes")?;
    let zone = |node: &Value| {
        let name = node["metadata"]["name"].as_str()?;
        let zone = node["metadata"]["labels"][ZONE].as_str()?;
        Some((name.to_owned(), zone.to_owned()))
    };
    Ok(nodes.iter().filter_map(zone).collect())
}

struct Scene {
    zones: BTreeMap<String, String>,
    servers: Vec<Pod>,
    clients: Vec<Pod>,
}

impl Scene {
    fn zone(&self, pod: &Pod) -> Option<&str> {
        let node = pod.object["spec"]["nodeName"].as_str()?;
        self.zones.get(node).map(String::as_str)
    }

    /// Else nothing could stay, or nothing could leave.
    fn every_zone_has_both(&self) -> anyhow::Result<()> {
        for pods in [&self.servers, &self.clients] {
            let mut zones: Vec<Option<&str>> = pods.iter().map(|pod| self.zone(pod)).collect();
            zones.sort_unstable();
            zones.dedup();
            ensure!(
                zones.len() == PODS && zones.iter().all(Option::is_some),
                "the cluster must have {PODS} zones of nodes with the label {ZONE}, and the \
                 pods run in {zones:?}"
            );
        }
        Ok(())
    }

    /// Of the calls of all clients, the part that was answered in the own zone.
    fn own_share(&self, service: &str) -> anyhow::Result<f64> {
        let target = url(service, 8080, "/");
        let args = ["--rate", "100", "--duration", "5s", "-c", "4"];
        let loads = self.clients.iter().map(|client| {
            // What a proxy needs once, such as the Service's endpoints.
            client.report(&target, &[])?;
            client.start_load(&target, &args)
        });
        let loads = loads.collect::<anyhow::Result<Vec<_>>>()?;
        let (mut own, mut all) = (0, 0);
        for (client, load) in self.clients.iter().zip(loads) {
            let seen = load.finish()?;
            ensure!(
                seen.by_status.get("200") == Some(&seen.planned),
                "not all were answered with 200: {seen:?}"
            );
            own += self.answered_near(client, &seen);
            all += seen.answered;
            println!("{} to {service}: {:?}", client.name, seen.by_pod);
        }
        Ok(own as f64 / all as f64)
    }

    fn answered_near(&self, client: &Pod, seen: &Summary) -> u64 {
        let near = self
            .servers
            .iter()
            .filter(|server| self.zone(server) == self.zone(client));
        let counts = near.filter_map(|server| seen.by_pod.get(&server.name));
        counts.sum()
    }
}
