//! A TrafficPolicy that is written is in use within a second, of a Service under load and of
//! the whole mesh, and costs no call.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use e2e::harness::{
    Api, App, Cluster, Namespace, Outcome, Pod, UNTIL_ENDED, cluster::root, eventually, mesh,
    settled,
};
use serde_json::{Value, json};

use super::url;

/// The promise, from the moment that the API server says that it is written.
const IN_USE: Duration = Duration::from_secs(1);
/// From one state of the whole to the next, with patience.
const SOON: Duration = Duration::from_secs(20);
/// What does not happen for so long has ended: it happened several times in a second.
const ENDED: Duration = Duration::from_millis(1500);

/// Proxies that try calls again, and calls of each in a second.
const CALLERS: usize = 12;
const RATE: u32 = 5;

#[test]
fn a_policy_that_changes_under_load_is_in_use_within_a_second_and_costs_no_call() -> Outcome {
    // A retry would hide a call that was lost.
    let ns = Namespace::meshed("policy-change")?.without_retries()?;
    ns.apply_all(&App::new("catalog").replicas(2).objects())?;
    ns.run(&["next", "client"])?;
    ns.ready(&["catalog"])?;
    let scene = Scene {
        api: Api::open(&ns.cluster)?,
        servers: ns.pods("catalog")?,
        client: ns.pod("client")?,
    };
    let called = url("catalog", 8080, "/");
    scene.client.report(&called, &[])?;
    let args = ["--rate", "200", "--duration", UNTIL_ENDED, "-c", "20"];
    let mut loads = vec![scene.client.start_load(&called, &args)?];
    // Each is called by its address too, whoever of them the callers of the Service prefer.
    for server in &scene.servers {
        let called = format!("http://{}:8080/", server.ip);
        let args = ["--rate", "20", "--duration", UNTIL_ENDED, "-c", "2"];
        loads.push(scene.client.start_load(&called, &args)?);
    }
    thread::sleep(Duration::from_secs(2));
    let without = scene.effects()?;
    assert!(without.iter().all(|count| *count == 0.0), "{without:?}");

    let all = format!(
        "/apis/weft.dev/v1alpha1/namespaces/{}/trafficpolicies",
        ns.name
    );
    let one = format!("{all}/watched");
    let new = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "watched"}, "spec": noticed()});
    scene.begins(|| scene.api.create(&all, &new))?;
    scene.ends(|| scene.api.merge(&one, &json!({"spec": unnoticed()})))?;
    scene.begins(|| scene.api.merge(&one, &json!({"spec": noticed()})))?;
    scene.ends(|| scene.api.merge(&one, &json!({"spec": unnoticed()})))?;
    for load in loads {
        let seen = load.end()?;
        println!("{:?}, latency {:?}", seen.by_status, seen.latency_ms);
        assert!(
            seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
            "calls failed while the policy changed: {seen:?}"
        );
    }
    Ok(())
}

/// A policy whose use each proxy counts, the called ones and the calling one, and which
/// changes no answer.
fn noticed() -> Value {
    spec(1, 100)
}

/// The same, by which nothing is counted.
fn unnoticed() -> Value {
    spec(1_000_000, 0)
}

fn spec(requests: u32, percent: u32) -> Value {
    json!({
        "targetRef": {"kind": "Service", "name": "catalog"},
        "rateLimits": [
            {"name": "all", "requests": requests, "scope": "Instance", "mode": "Audit"}],
        "mirror": [{"service": "next", "percent": percent, "downstream": "Any"}],
    })
}

struct Scene {
    api: Api,
    servers: Vec<Pod>,
    client: Pod,
}

impl Scene {
    /// What each proxy did by the policy: those of the servers, and last that of the client.
    fn effects(&self) -> anyhow::Result<Vec<f64>> {
        let audited = [("mode", "Audit")];
        let limited = "weft_rate_limited_total";
        let mut effects = self.api.sums(&self.servers, limited, &audited)?;
        let copies = self.api.proxy_metrics(&self.client)?;
        effects.push(copies.sum("weft_mirrored_total", &[]));
        Ok(effects)
    }

    fn begins(&self, write: impl Fn() -> anyhow::Result<Value>) -> anyhow::Result<()> {
        let before = self.effects()?;
        write()?;
        let written = Instant::now();
        eventually(IN_USE, "every proxy does as is written", || {
            all_grew(&before, &self.effects()?)
        })?;
        in_time("the policy is in use", written.elapsed())
    }

    fn ends(&self, write: impl Fn() -> anyhow::Result<Value>) -> anyhow::Result<()> {
        write()?;
        let written = Instant::now();
        let (last, _) = settled(SOON, ENDED, || self.effects())?;
        in_time("nobody does any more", last.duration_since(written))
    }
}

fn in_time(what: &str, took: Duration) -> anyhow::Result<()> {
    println!("{what} {took:?} after it was written");
    ensure!(took <= IN_USE, "{what} only after {took:?}");
    Ok(())
}

#[test]
fn a_policy_of_the_mesh_ends_the_retries_of_twelve_proxies_within_a_second() -> Outcome {
    let ns = Namespace::meshed("enforced")?;
    ns.apply_all(&App::new("catalog").replicas(2).objects())?;
    // Each call that fails is tried again, by a policy that is closer than one of the mesh.
    ns.apply_all(&[
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "catalog"}, "spec": {
            "targetRef": {"kind": "Service", "name": "catalog"},
            "retry": {"attempts": 1, "budget": {"minPerSecond": 100}}}}),
    ])?;
    ns.ready(&["catalog"])?;
    let called = url("catalog", 8080, "/items");
    let callers = App::new("callers")
        .replicas(CALLERS as u32)
        .calling(&[(&called, RATE)]);
    ns.apply_all(&callers.objects())?;
    ns.ready(&["callers"])?;
    let (api, pods) = (Api::open(&ns.cluster)?, ns.pods("callers")?);
    assert_eq!(pods.len(), CALLERS);
    for server in ns.pods("catalog")? {
        api.set_fault(&server, &json!({"status": 503, "only": "/items"}))?;
    }
    let service = format!("{}/catalog", ns.name);
    let of_service = ("service", service.as_str());
    let retries = || {
        let labels = [of_service, ("outcome", "failure")];
        api.sums(&pods, "weft_retries_total", &labels)
    };
    let calls = || {
        let labels = [of_service, ("direction", "outbound")];
        api.sums(&pods, "weft_requests_total", &labels)
    };
    let all_retry = || {
        let before = retries()?;
        eventually(SOON, "every proxy tries again", || {
            all_grew(&before, &retries()?)
        })
    };
    all_retry()?;

    let calls_before = calls()?;
    let of_the_mesh = OfTheMesh::write(&ns.cluster, &api)?;
    let written = Instant::now();
    let (last, _) = settled(SOON, ENDED, &retries)?;
    in_time("no proxy tries again", last.duration_since(written))?;
    all_grew(&calls_before, &calls()?)?;
    let restarts = |pods: &[Pod]| -> Vec<(String, u64)> {
        let row = |pod: &Pod| (pod.name.clone(), pod.restarts());
        pods.iter().map(row).collect()
    };
    assert_eq!(restarts(&ns.pods("callers")?), restarts(&pods));

    // What ended them was that policy.
    of_the_mesh.remove()?;
    all_retry()?;

    // The documented one says what holds where nobody closer says otherwise, as here.
    let documented = OfTheMesh::documented(&ns.cluster)?;
    documented.is_accepted()?;
    all_retry()?;
    documented.remove()?;
    Ok(())
}

fn all_grew(before: &[f64], now: &[f64]) -> anyhow::Result<()> {
    let mut grown = now.iter().zip(before).map(|(now, before)| now > before);
    ensure!(grown.all(|grown| grown), "{before:?}, then {now:?}");
    Ok(())
}

/// A policy about the whole mesh, which goes however the test ends.
struct OfTheMesh {
    cluster: Cluster,
    name: &'static str,
}

impl OfTheMesh {
    const NAME: &'static str = "e2e-no-retries";
    const DOCUMENTED: &'static str = "defaults-of-the-mesh";

    /// Beats all others, and switches retries off.
    fn write(cluster: &Cluster, api: &Api) -> anyhow::Result<Self> {
        let path = format!(
            "/apis/weft.dev/v1alpha1/namespaces/{}/trafficpolicies",
            mesh::NAMESPACE
        );
        let policy = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": Self::NAME}, "spec": {
                "targetRef": {"kind": "Mesh"}, "enforce": true, "retry": {"attempts": 0}}});
        // Made before the write, whose answer may be lost.
        let written = Self {
            cluster: cluster.clone(),
            name: Self::NAME,
        };
        api.create(&path, &policy)?;
        Ok(written)
    }

    /// The example of the documentation, as it is.
    fn documented(cluster: &Cluster) -> anyhow::Result<Self> {
        let file = root().join("docs/examples/traffic-policy-mesh.yaml");
        let written = Self {
            cluster: cluster.clone(),
            name: Self::DOCUMENTED,
        };
        let applied = cluster.apply(mesh::NAMESPACE, &fs::read_to_string(file)?)?;
        let expected = format!("{} created", Self::DOCUMENTED);
        ensure!(applied.contains(&expected), "{applied}");
        Ok(written)
    }

    fn is_accepted(&self) -> anyhow::Result<()> {
        let get = ["get", "trafficpolicy", self.name, "-n", mesh::NAMESPACE];
        eventually(SOON, "the policy of the mesh is accepted", || {
            let object = self.cluster.json(&get)?;
            let conditions = object["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let accepted = conditions.find(|condition| condition["type"] == "Accepted");
            let accepted = accepted.is_some_and(|condition| condition["status"] == "True");
            ensure!(accepted, "{}", object["status"]);
            Ok(())
        })
    }

    fn remove(&self) -> anyhow::Result<()> {
        let delete = ["delete", "trafficpolicy", self.name, "--ignore-not-found"];
        let namespace = ["-n", mesh::NAMESPACE];
        self.cluster
            .kubectl(&[&delete[..], &namespace].concat())
            .map(drop)
    }
}

impl Drop for OfTheMesh {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("the policy of the mesh is still there: {error:#}");
        }
    }
}
