//! A new TrafficPolicy takes effect within a second, for a Service under load and for the
//! mesh, and costs no call.
//!
//! Claims: calls-73, calls-86

use std::{
    fmt::Debug,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use e2e::harness::{
    Api, App, Cluster, Namespace, Outcome, Pod, UNTIL_ENDED, cluster::root, eventually, mesh,
};
use serde_json::{Value, json};

use super::url;

/// The promise, from the moment that the API server says that it is written.
const IN_USE: Duration = Duration::from_secs(1);
/// From one state of the whole to the next, with patience.
const SOON: Duration = Duration::from_secs(20);
/// What does not happen for so long has ended: it happened several times in a second.
const ENDED: Duration = Duration::from_millis(1500);

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(50);
/// From one look to the next while the machine runs. A longer step counts as this, so that a
/// stall of the machine makes a change neither late nor over.
const STEP: Duration = Duration::from_millis(250);
/// A change is written so often at most until the looks show whether it came in time.
const ROUNDS: usize = 3;

/// Proxies that try calls again, and calls of each in a second.
const CALLERS: usize = 12;
const RATE: u32 = 5;

#[test]
fn policy_change_applies_within_second_without_lost_calls() -> Outcome {
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
    // Each is called by its address too, whichever of them the callers of the Service prefer.
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
    let create = || scene.api.create(&all, &new).map(drop);
    let delete = || {
        ns.kubectl(&["delete", "trafficpolicy", "watched"])
            .map(drop)
    };
    let notice = || {
        let change = json!({"spec": noticed()});
        scene.api.merge(&one, &change).map(drop)
    };
    let hide = || {
        let change = json!({"spec": unnoticed()});
        scene.api.merge(&one, &change).map(drop)
    };
    scene.begins(create, delete)?;
    scene.ends(hide, notice)?;
    scene.begins(notice, hide)?;
    scene.ends(hide, notice)?;
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

    fn begins(
        &self,
        write: impl Fn() -> anyhow::Result<()>,
        undo: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let round = || {
            let before = self.effects()?;
            write()?;
            first_success(SOON, || all_grew(&before, &self.effects()?))
        };
        in_time("the policy is in use", IN_USE, round, || {
            undo()?;
            last_change(SOON, ENDED, || self.effects()).map(drop)
        })
    }

    fn ends(
        &self,
        write: impl Fn() -> anyhow::Result<()>,
        undo: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let round = || {
            write()?;
            last_change(SOON, ENDED, || self.effects())
        };
        in_time("no proxy does so any more", IN_USE, round, || {
            let before = self.effects()?;
            undo()?;
            eventually(SOON, "every proxy does so again", || {
                all_grew(&before, &self.effects()?)
            })
        })
    }
}

/// When something came about after a write: between these two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// When the look before started, without the time in which the machine stalled.
    earliest: Duration,
    /// When the look that showed it had ended.
    latest: Duration,
}

/// Evaluates the effect of a change, which `round` writes and watches. When the looks were too
/// far apart to show whether it came in time, the change is undone and written again.
pub(crate) fn in_time(
    what: &str,
    bound: Duration,
    round: impl Fn() -> anyhow::Result<Came>,
    undo: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for number in 1..=ROUNDS {
        let Came { earliest, latest } = round()?;
        println!("{what} between {earliest:?} and {latest:?} after it was written");
        if latest <= bound {
            return Ok(());
        }
        ensure!(earliest <= bound, "{what} only after {earliest:?} or more");
        if number < ROUNDS {
            undo()?;
        }
    }
    bail!("{what}: none of {ROUNDS} rounds shows whether within {bound:?}")
}

/// The looks since a write.
struct Looks {
    written: Instant,
    /// When the last one began.
    started: Instant,
    /// The same since the write, without the time in which the machine stalled.
    ran: Duration,
}

impl Looks {
    fn begin() -> Self {
        let written = Instant::now();
        Self {
            written,
            started: written,
            ran: Duration::ZERO,
        }
    }

    /// Waits for the next one, and returns when the one before started.
    fn step(&mut self) -> Duration {
        thread::sleep(GLANCE);
        let (now, before) = (Instant::now(), self.ran);
        self.ran += now.duration_since(self.started).min(STEP);
        self.started = now;
        before
    }
}

/// Repeats `look` after a write until it succeeds, and returns from when on it would have.
fn first_success(
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Came> {
    let mut looks = Looks::begin();
    let mut earliest = Duration::ZERO;
    loop {
        let seen = look();
        let latest = looks.written.elapsed();
        match seen {
            Ok(()) => return Ok(Came { earliest, latest }),
            Err(error) if latest >= limit => {
                return Err(error.context(format!("still not true after {limit:?}")));
            }
            Err(_) => earliest = looks.step(),
        }
    }
}

/// Repeats `look` after a write until nothing has changed for `still`, and returns the time of
/// the last change; an error if it still changes after `limit`.
pub(crate) fn last_change<T: PartialEq + Debug>(
    limit: Duration,
    still: Duration,
    mut look: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Came> {
    let mut looks = Looks::begin();
    let mut seen = look()?;
    let mut changed = looks.ran;
    let mut last = Came {
        earliest: Duration::ZERO,
        latest: looks.written.elapsed(),
    };
    while looks.ran - changed < still {
        ensure!(
            looks.written.elapsed() < limit,
            "still changing after {limit:?}: {seen:?}"
        );
        let earliest = looks.step();
        let now = look()?;
        if now != seen {
            (seen, changed) = (now, looks.ran);
            last = Came {
                earliest,
                latest: looks.written.elapsed(),
            };
        }
    }
    Ok(last)
}

#[test]
fn mesh_policy_stops_retries_of_twelve_proxies_within_second() -> Outcome {
    let ns = Namespace::meshed("enforced")?;
    begin_to_call(&ns)?;
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

    let of_the_mesh = OfTheMesh::without_retries(&ns.cluster);
    let round = || {
        let calls_before = calls()?;
        of_the_mesh.write(&api)?;
        let last = last_change(SOON, ENDED, &retries)?;
        all_grew(&calls_before, &calls()?)?;
        anyhow::Ok(last)
    };
    in_time("no proxy tries again", IN_USE, round, || {
        of_the_mesh.remove()?;
        all_retry()
    })?;
    let restarts = |pods: &[Pod]| -> Vec<(String, u64)> {
        let row = |pod: &Pod| (pod.name.clone(), pod.restarts());
        pods.iter().map(row).collect()
    };
    assert_eq!(restarts(&ns.pods("callers")?), restarts(&pods));

    // What ended them was that policy.
    of_the_mesh.remove()?;
    all_retry()?;

    // The documented policy holds where no closer one sets otherwise, as here.
    let documented = OfTheMesh::documented(&ns.cluster)?;
    documented.is_accepted()?;
    all_retry()?;
    documented.remove()?;
    Ok(())
}

/// All of it runs, and each call that fails is tried again, by a policy that is closer than one
/// of the mesh.
fn begin_to_call(ns: &Namespace) -> anyhow::Result<()> {
    let called = url("catalog", 8080, "/items");
    let callers = App::new("callers")
        .replicas(CALLERS as u32)
        .calling(&[(&called, RATE)]);
    let mut objects = vec![
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "catalog"}, "spec": {
            "targetRef": {"kind": "Service", "name": "catalog"},
            "retry": {"attempts": 1, "budget": {"minPerSecond": 100}}}}),
    ];
    objects.extend(App::new("catalog").replicas(2).objects());
    // Calls that start before their destination fail, and are not counted.
    objects.extend(callers.objects());
    ns.apply_all(&objects)?;
    ns.ready(&["catalog", "callers"])
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

    /// One that beats all others, and switches retries off. Made before it is written: the
    /// answer to a write may be lost.
    fn without_retries(cluster: &Cluster) -> Self {
        Self {
            cluster: cluster.clone(),
            name: Self::NAME,
        }
    }

    fn write(&self, api: &Api) -> anyhow::Result<()> {
        let path = format!(
            "/apis/weft.dev/v1alpha1/namespaces/{}/trafficpolicies",
            mesh::NAMESPACE
        );
        let policy = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": self.name}, "spec": {
                "targetRef": {"kind": "Mesh"}, "enforce": true, "retry": {"attempts": 0}}});
        api.create(&path, &policy).map(drop)
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
