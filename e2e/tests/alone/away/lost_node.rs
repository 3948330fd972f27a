//! A node that is lost while all controllers are killed: no proxy is notified, and requests to
//! its pods are never answered.
//!
//! One pod is cut off from all but its own kubelet. As with a lost node, its endpoint stays
//! ready until the cluster misses its node, which takes longer than this test.
//!
//! Claims: calls-85

use std::{
    fs,
    net::Ipv4Addr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use e2e::harness::{App, Load, Namespace, Outcome, Pod, UNTIL_ENDED, app, eventually};
use serde_json::json;

use super::{CALM, IN_TIME, Tally, begin, controllers, kill_controllers, others_ready};
use crate::{chains::links::CALLS, url};

/// What begins so long after the fall is good, and what waited is over.
const NOTICED: Duration = Duration::from_secs(8);
const ABANDONED_WITHIN: Duration = Duration::from_secs(13);
/// So long is looked. A call that finds out anew does so by then.
const WATCHED: Duration = Duration::from_secs(20);
/// In milliseconds: a call that was sent to the lost pod waited at least so long.
const WAITED: f64 = 1000.0;
/// Until what was lost is called again.
const BACK: Duration = Duration::from_secs(90);
const INSTANCES: usize = 3;
/// Calls of each client in a second, to each of the two Services.
const EACH: &str = "25";

#[test]
fn node_loss_without_controllers_costs_only_ongoing_calls() -> Outcome {
    let scene = Scene::new()?;
    let mut seen = scene.lose(0)?;
    // A machine that stalls delays calls to healthy pods as well: then once more.
    if let Err(error) = seen.kept()
        && !seen.steady.is_whole()
    {
        println!("the machine stood still, {seen:?}: {error:#}");
        seen = scene.lose(1)?;
    }
    seen.kept()?;
    Ok(())
}

/// `catalog`, of which no object speaks, and the same pods as a Service whose calls of gRPC
/// may be sent again where a server was not available.
struct Scene {
    clients: Vec<Pod>,
    instances: Vec<Pod>,
    ns: Namespace,
}

/// What calls saw of a lost node.
#[derive(Debug)]
struct Seen {
    /// From the fall until all that began in the first seconds was over.
    over: Duration,
    /// Milliseconds of the slowest of these.
    slowest: f64,
    /// What began when it had to be noticed.
    late: Tally,
    /// At all these moments, to what works.
    steady: Tally,
}

impl Seen {
    fn kept(&self) -> anyhow::Result<()> {
        ensure!(
            self.slowest >= WAITED,
            "control: no call waited for the lost pod: {self:?}"
        );
        ensure!(
            self.over <= ABANDONED_WITHIN,
            "what waited was not over after {ABANDONED_WITHIN:?}: {self:?}"
        );
        ensure!(
            self.late.is_whole(),
            "not all that began {NOTICED:?} after was answered well within {IN_TIME}: {self:?}"
        );
        Ok(())
    }
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let ns = Namespace::meshed("killed-node")?;
        let apps = [
            App::new("catalog").replicas(INSTANCES as u32),
            App::new("client").replicas(2),
        ];
        let mut objects: Vec<_> = apps.iter().flat_map(App::objects).collect();
        objects.push(app::service("catalog-grpc", &json!({"app": "catalog"})));
        objects.push(
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": "catalog-grpc"}, "spec": {
                "targetRef": {"kind": "Service", "name": "catalog-grpc"},
                "retry": {"grpcCodes": ["Unavailable"]}}}),
        );
        ns.apply_all(&objects)?;
        ns.await_condition("tp/catalog-grpc", "Accepted", "True")?;
        ns.ready(&["catalog", "client"])?;
        Ok(Self {
            clients: ns.pods("client")?,
            instances: ns.pods("catalog")?,
            ns,
        })
    }

    /// Cuts off one of the instances when all controllers have just been killed.
    fn lose(&self, at: usize) -> anyhow::Result<Seen> {
        let lost = self.instances.get(at).context("no instance")?;
        let network = PodNetwork::of(lost)?;
        self.each_instance_serves()?;
        let before = controllers(&self.ns.cluster)?;
        let steady = begin(&self.clients, &url("client", 8080, "/"), EACH)?;
        let mut early = self.begin("40", "60s")?;
        thread::sleep(CALM);
        kill_controllers(&self.ns.cluster)?;
        let cut = network.cut()?;
        let fell = Instant::now();
        thread::sleep(NOTICED);
        early.iter_mut().for_each(Load::stop);
        let late = self.begin("5", IN_TIME)?;
        let mut slowest = 0.0_f64;
        for load in early {
            let seen = load.finish()?;
            println!("{:?}, {:?}", seen.by_reason, seen.latency_ms);
            slowest = slowest.max(seen.latency_ms.max);
        }
        let over = fell.elapsed();
        thread::sleep(WATCHED.saturating_sub(fell.elapsed()));
        let late = Tally::end(late)?;
        let steady = Tally::end(steady)?;
        drop(cut);
        others_ready(&self.ns.cluster, &before)?;
        let seen = Seen {
            over,
            slowest,
            late,
            steady,
        };
        println!("{seen:?}");
        Ok(seen)
    }

    /// Readers without any object, and calls of gRPC.
    fn begin(&self, connections: &str, patience: &str) -> anyhow::Result<Vec<Load>> {
        let rate = ["--rate", EACH, "--duration", UNTIL_ENDED];
        let args = [&rate[..], &["-c", connections, "--timeout", patience]].concat();
        let grpc = [&args[..], &["--grpc"]].concat();
        let mut loads = Vec::new();
        for client in &self.clients {
            loads.push(client.start_load(&url("catalog", 8080, "/items"), &args)?);
            loads.push(client.start_load(&url("catalog-grpc", 8080, CALLS), &grpc)?);
        }
        Ok(loads)
    }

    fn each_instance_serves(&self) -> anyhow::Result<()> {
        let count = ["-n", "60", "-c", "6"];
        let grpc = [&count[..], &["--grpc"]].concat();
        let (readers, calls) = (url("catalog", 8080, "/"), url("catalog-grpc", 8080, CALLS));
        for client in &self.clients {
            client.report(&url("client", 8080, "/"), &[])?;
            eventually(BACK, "each instance serves", || {
                for (called, args) in [(&readers, &count[..]), (&calls, &grpc[..])] {
                    let seen = client.get(called, args)?;
                    ensure!(seen.by_pod.len() == INSTANCES, "{:?}", seen.by_pod);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The network of a pod of the local cluster, as its machine sees it.
struct PodNetwork {
    namespace: String,
    /// Its node, from which the kubelet probes it.
    node: Ipv4Addr,
}

impl PodNetwork {
    fn of(pod: &Pod) -> anyhow::Result<Self> {
        let ip = pod.ip.parse::<Ipv4Addr>();
        let ip = ip.with_context(|| format!("{} has address {}", pod.name, pod.ip))?;
        let [a, b, c, _] = ip.octets();
        let local = "this test must run as root on the machine of the local cluster";
        // Nodes of the local cluster have a network of pods each, by their number.
        let all = format!("/var/lib/weft/cluster/node{c}/netns");
        let shown = format!("inet {ip}/");
        for entry in fs::read_dir(&all).context(local)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with("cni-") {
                continue;
            }
            let network = Self {
                namespace: format!("{all}/{name}"),
                node: Ipv4Addr::new(a, b, c, 1),
            };
            // One may go at this moment, with its pod.
            let addresses = network.run(&["ip", "-o", "-4", "address", "show"]);
            if addresses.is_ok_and(|all| all.contains(&shown)) {
                return Ok(network);
            }
        }
        bail!(
            "no network namespace in {all} has {ip} of {}: {local}",
            pod.name
        )
    }

    /// All packets of the pod are dropped without a reset until the value is dropped.
    fn cut(&self) -> anyhow::Result<Cut<'_>> {
        let node = self.node;
        let rules = format!(
            "add table inet lost; \
             add chain inet lost input {{ type filter hook input priority 0; }}; \
             add rule inet lost input iifname eth0 ip saddr != {node} drop; \
             add chain inet lost output {{ type filter hook output priority 0; }}; \
             add rule inet lost output oifname eth0 ip daddr != {node} drop"
        );
        // Made first, so that a part of it goes as well.
        let cut = Cut(self);
        self.run(&["nft", &rules])?;
        Ok(cut)
    }

    fn run(&self, command: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.namespace))
            .args(command)
            .output()
            .context("start nsenter")?;
        ensure!(
            output.status.success(),
            "{command:?} in {}: {}",
            self.namespace,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Ends when it goes, however the test ends.
struct Cut<'a>(&'a PodNetwork);

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.run(&["nft", "delete table inet lost"]) {
            eprintln!("the pod stays cut off: {error:#}");
        }
    }
}
