//! Fifty pods with proxies on three nodes, and the calls between them that a drill must not lose.
//!
//! Servers are called by the address of their Service: a node that is lost may be that of the
//! cluster's DNS.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::harness::{Api, App, Cluster, Load, Namespace, Pod, eventually};
use serde_json::{Value, json};

/// Where clients run; the node that is lost is another one.
const HOME: &str = "node1";
const CLIENTS: usize = 8;
const SERVERS: usize = 41;
/// With the one that no client calls.
const PROXIES: usize = CLIENTS + SERVERS + 1;
/// Fifty pods on two processors.
const START: &str = "--timeout=300s";
/// Longer than any drill has a load.
const LOAD: &str = "600s";
/// Clients with a load, and the requests of each in a second.
const CALLERS: usize = 4;
const EACH: &str = "25";
/// The promise.
pub(crate) const BACK: Duration = Duration::from_secs(30);
const FIRST_CALLS: Duration = Duration::from_secs(60);

pub(crate) struct Town {
    pub(crate) ns: Namespace,
    pub(crate) api: Api,
    /// No client calls it.
    pub(crate) aside: Pod,
    pub(crate) pods: Vec<Pod>,
    clients: Vec<Pod>,
    target: String,
}

impl Town {
    /// Nothing is sent twice, and nothing but mTLS is taken: what would be sent in plaintext is
    /// counted.
    pub(crate) fn open(claim: &str) -> anyhow::Result<Self> {
        let ns = Namespace::meshed(claim)?.without_retries()?;
        ns.annotate("weft.dev/mtls", Some("strict"))?;
        ns.apply_all(&small("client", CLIENTS, Some(HOME)))?;
        ns.apply_all(&small("aside", 1, Some(HOME)))?;
        ns.apply_all(&small("server", SERVERS, None))?;
        for name in ["client", "aside", "server"] {
            let deployment = format!("deployment/{name}");
            ns.kubectl(&["rollout", "status", &deployment, START])?;
        }
        ns.ready(&["client", "aside", "server"])?;
        let service = ns.json(&["get", "service", "server"])?;
        let address = service["spec"]["clusterIP"].as_str();
        let target = format!("http://{}:8080/", address.context("no address")?);
        let (clients, aside) = (ns.pods("client")?, ns.pod("aside")?);
        let mut pods = ns.pods("server")?;
        pods.extend(clients.iter().cloned());
        pods.push(aside.clone());
        ensure!(pods.len() == PROXIES, "there are {} pods", pods.len());
        let town = Self {
            api: Api::open(&ns.cluster)?,
            ns,
            aside,
            pods,
            clients,
            target,
        };
        for client in town.clients.iter().chain([&town.aside]) {
            eventually(FIRST_CALLS, "a first call is answered", || {
                client.report(&town.target, &[])
            })?;
        }
        Ok(town)
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.ns.cluster
    }

    /// Requests from now on, on kept connections. All loads are under way when this returns: kubectl
    /// may take seconds to connect, and drills stop the API server next.
    pub(crate) fn begin(&self) -> anyhow::Result<Vec<Load>> {
        let words = ["--rate", EACH, "--duration", LOAD, "-c", "5"];
        let callers = self.clients.get(..CALLERS).context("too few clients")?;
        let counted = || {
            let labels = [("direction", "outbound")];
            self.api.sums(callers, "weft_requests_total", &labels)
        };
        let before = counted()?;
        let loads = callers.iter();
        let loads = loads.map(|client| client.start_load(&self.target, &words));
        let loads: Vec<Load> = loads.collect::<anyhow::Result<_>>()?;
        eventually(FIRST_CALLS, "each load calls", || {
            let now = counted()?;
            let all_call = before.iter().zip(&now).all(|(before, now)| now > before);
            ensure!(all_call, "{now:?} requests, and {before:?} before");
            Ok(())
        })?;
        Ok(loads)
    }

    /// Ends the loads, of which no request may be lost.
    pub(crate) fn nothing_lost(&self, what: &str, loads: Vec<Load>) -> anyhow::Result<()> {
        let (lost, planned) = self.lost(what, loads)?;
        ensure!(lost == 0, "{what}: {lost} of {planned} requests were lost");
        Ok(())
    }

    /// Ends the loads; how many requests were lost, of how many.
    pub(crate) fn lost(&self, what: &str, loads: Vec<Load>) -> anyhow::Result<(u64, u64)> {
        let (mut lost, mut planned) = (0, 0);
        for load in loads {
            let seen = load.end()?;
            let good = seen.by_status.get("200").copied().unwrap_or_default();
            if good < seen.planned {
                println!("{what}: {:?} {:?}", seen.by_reason, seen.errors);
            }
            lost += seen.planned - good;
            planned += seen.planned;
        }
        println!("{what}: {lost} of {planned} requests lost");
        ensure!(planned > 0, "{what}: no request was sent");
        Ok((lost, planned))
    }

    /// Every client is served again within the promise, counted from then.
    pub(crate) fn is_back(&self, what: &str, since: Instant) -> anyhow::Result<()> {
        for client in self.clients.iter().take(CALLERS) {
            self.serves(what, since, client)?;
        }
        println!("{what}: back after {:?}", since.elapsed());
        Ok(())
    }

    /// The same of one client, which may be [`Self::aside`].
    pub(crate) fn serves(&self, what: &str, since: Instant, client: &Pod) -> anyhow::Result<()> {
        let left = BACK.saturating_sub(since.elapsed());
        eventually(left, what, || {
            let seen = client.get(&self.target, &["-n", "20", "-c", "2"])?;
            ensure!(seen.by_status.get("200") == Some(&20), "{seen:?}");
            Ok(())
        })
    }

    /// Servers on a node answer again within the promise.
    pub(crate) fn node_serves(&self, node: &str, since: Instant) -> anyhow::Result<()> {
        let there = |pod: &&Pod| pod.object["spec"]["nodeName"] == node;
        let there: Vec<&Pod> = self.pods.iter().filter(there).collect();
        ensure!(!there.is_empty(), "no pod is on {node}");
        let client = self.clients.first().context("no client")?;
        let left = BACK.saturating_sub(since.elapsed());
        eventually(left, "pods of the node serve again", || {
            let seen = client.get(&self.target, &["-n", "200", "-c", "8"])?;
            let back = there.iter().any(|pod| seen.by_pod.contains_key(&pod.name));
            ensure!(back, "none of {} pods: {:?}", there.len(), seen.by_pod);
            Ok(())
        })?;
        println!("pods of {node} serve {:?} after it", since.elapsed());
        Ok(())
    }

    /// No call of the first client is answered by a server.
    pub(crate) fn none_is_served(&self) -> anyhow::Result<()> {
        let client = self.clients.first().context("no client")?;
        let seen = client.get(&self.target, &["-n", "10"])?;
        ensure!(!seen.by_status.contains_key("200"), "{seen:?}");
        Ok(())
    }
}

/// Of so many pods with little of the machine, on this node or on all.
fn small(name: &str, replicas: usize, node: Option<&str>) -> Vec<Value> {
    let mut objects = App::new(name)
        .replicas(replicas as u32)
        .annotation("weft.dev/proxy-cpu-request", "1m")
        .annotation("weft.dev/proxy-memory-request", "1Mi")
        .readiness(Value::Null)
        .container(json!({"resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}))
        .objects();
    let host = "kubernetes.io/hostname";
    for object in &mut objects {
        if object["kind"] != "Deployment" {
            continue;
        }
        let spec = &mut object["spec"]["template"]["spec"];
        match node {
            Some(node) => spec["nodeSelector"] = json!({host: node}),
            None => {
                spec["topologySpreadConstraints"] = json!([{
                    "maxSkew": 1, "topologyKey": host, "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app": name}}}]);
            }
        }
    }
    objects
}
