//! The chart is upgraded, removed and installed again around
//! applications that run.
//!
//! Claims: attack-96, mesh-20, smi-8

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use e2e::{
    echo::load::Summary,
    harness::{
        App, Cluster, Load, Namespace, Outcome, Pod, UNTIL_ENDED, cluster::root, eventually,
        everything, mesh,
    },
};
use serde_json::{Value, json};

use super::{altered::Altered, unmeasured, url};

/// How long a new mesh may take to configure every proxy.
const SETTLED: Duration = Duration::from_secs(90);
/// Kubernetes looks at a namespace that could not go after up to a minute again.
const GONE_WITHIN: Duration = Duration::from_secs(150);
/// The group for which a replica of the controller has to answer.
const OBSERVE: &str = "v1alpha1.observe.weft.dev";

/// Of all that the chart makes, and of what the mesh writes besides. What a `helm test` that failed
/// leaves to be looked at is no part of the mesh.
const LABELS: [&str; 2] = [
    "app.kubernetes.io/name=weft,app.kubernetes.io/component!=test",
    "app.kubernetes.io/part-of=weft,app.kubernetes.io/component!=test",
];
/// Of that what the manual says is left behind. The SMI definitions and the Leases have no such
/// labels.
const LEFT_BEHIND: [&str; 3] = [
    "secret/weft-ca",
    "secret/weft-injector-ca",
    "configmap/weft-trust-bundle",
];

/// One of the values switches two APIs off, and what is deleted meanwhile goes.
#[test]
fn upgrade_with_new_values_reaches_pods_without_disruption() -> Outcome {
    let ns = pair("upgrade", &[])?;
    let server = ns.pod("server")?;
    let altered = Altered::begin()?;
    unmeasured::apis_are_served(&ns.cluster)?;
    let started = Instant::now();
    let load = load(&ns.pod("client")?)?;
    mesh::install(&[&["access.default=audit"], &unmeasured::OFF[..]].concat())?;
    println!("upgraded after {:?}", started.elapsed());
    eventually(SETTLED, "audit is the new default", || {
        let metrics = server.proxy_metrics()?;
        ensure!(
            metrics.sum("weft_audit_refusals_total", &[]) > 0.0,
            "nothing is counted"
        );
        Ok(())
    })?;
    unmeasured::apis_are_gone_and_hold_up_no_namespace(&ns.cluster)?;
    altered.restore()?;
    println!("back after {:?}", started.elapsed());
    nothing_lost(&load.end()?);
    assert_eq!(ns.pod("server")?.restarts(), 0);
    unmeasured::apis_are_served_again(&ns.cluster)?;
    Ok(())
}

// Claims: C4, observability-17
#[test]
fn uninstall_keeps_traffic_and_objects_and_allows_reinstall() -> Outcome {
    // Starts while the others do.
    let vault = vault()?;
    let ns = pair("uninstall", &["leaver"])?;
    let template = App::new("server").template();
    ns.apply_all(&[json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "alone", "labels": {"app": "alone"}}, "spec": template["spec"]})])?;
    ns.apply(SPLIT)?;

    let altered = Altered::begin()?;
    has_what_is_to_go(&ns.cluster)?;
    let guarded = Guarded::begin(vault, &ns)?;
    ns.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/alone",
        "--timeout=60s",
    ])?;
    let client = ns.pod("client")?;
    client.report(&url("server", 8080, "/"), &[])?;
    let deleted = Namespace::unmeshed("uninstalled")?;
    let started = Instant::now();
    let load = load(&client)?;
    let output = uninstall(&ns.cluster)?;
    println!("uninstalled after {:?}:\n{output}", started.elapsed());
    names_what_is_left(&output, &ns)?;
    let bundle = ns.json(&["get", "configmap", "weft-trust-bundle"])?;
    assert_eq!(bundle["data"]["leaving"], "true", "{bundle}");
    ns.kubectl(&["get", "trafficsplit", "shop"])?;
    delete(&deleted)?;
    // Who holds a certificate and a configuration goes on with them.
    let report = client.report(&url("server", 8080, "/"), &[])?;
    assert!(report.client_id.is_some(), "in plaintext: {report:?}");

    comes_back_without_a_proxy(&ns)?;
    vanishes(&deleted)?;
    // Kubernetes has taken away by now what belonged to it; loads do not last for ever.
    nothing_else_is_left(&ns.cluster)?;

    altered.restore()?;
    println!("installed again after {:?}", started.elapsed());
    guarded.takes_a_newcomer(&ns)?;
    ns.kubectl(&["get", "trafficsplit", "shop"])?;
    eventually(SETTLED, "the mark is taken away", || {
        let bundle = ns.json(&["get", "configmap", "weft-trust-bundle"])?;
        ensure!(bundle["data"]["leaving"].is_null(), "{bundle}");
        Ok(())
    })?;
    comes_back_with_a_proxy(&ns)?;
    nothing_lost(&load.end()?);
    guarded.end(&ns)?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SETTLED, "running pods follow the new installation", || {
        client.refused(&url("server", 8080, "/"), &[], 403, "not-allowed")
    })?;
    Ok(())
}

/// What helm shows after the uninstall says what is to be done with the pods.
fn names_what_is_left(output: &str, ns: &Namespace) -> anyhow::Result<()> {
    let restart = "rollout restart deployment/client deployment/leaver deployment/server";
    for word in [
        "pods still carry a proxy".to_owned(),
        "4 SMI definitions serve".to_owned(),
        format!("kubectl -n {} {restart}", ns.name),
        format!("in {}, to be deleted or to finish: alone", ns.name),
    ] {
        ensure!(output.contains(&word), "{word} is not in: {output}");
    }
    Ok(())
}

/// Everything that is labelled as the mesh's and is to go with it, as `kubectl get -o name` has it.
fn labelled(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut names = everything::listable(cluster)?;
    // What controllers only answer is no object.
    names.retain(|name| !everything::is_ours(name));
    let mut found = Vec::new();
    for label in LABELS {
        let scope = ["-A", "-l", label, "-o", "name"];
        let text = everything::get(cluster, &names, &scope)?;
        let to_go = text.lines().filter(|name| !LEFT_BEHIND.contains(name));
        found.extend(to_go.map(str::to_owned));
    }
    Ok(found)
}

/// Control: what is looked for after the uninstall is found before it.
fn has_what_is_to_go(cluster: &Cluster) -> anyhow::Result<()> {
    let api_service = format!("apiservice.apiregistration.k8s.io/{OBSERVE}");
    let known = [
        api_service.as_str(),
        "clusterrole.rbac.authorization.k8s.io/weft-tap",
        "role.rbac.authorization.k8s.io/weft-observe",
        "deployment.apps/weft-controller",
    ];
    eventually(SETTLED, "what the chart made is found", || {
        let found = labelled(cluster)?;
        for known in known {
            ensure!(found.iter().any(|name| name == known), "{known}: {found:?}");
        }
        Ok(())
    })
}

fn nothing_else_is_left(cluster: &Cluster) -> anyhow::Result<()> {
    eventually(GONE_WITHIN, "what the chart made is gone", || {
        let left = labelled(cluster)?;
        ensure!(left.is_empty(), "{left:?} is left");
        Ok(())
    })
}

/// A pod that is started while there is no mesh.
fn comes_back_without_a_proxy(ns: &Namespace) -> anyhow::Result<()> {
    ns.kubectl(&["rollout", "restart", "deployment/leaver"])?;
    ns.ready(&["leaver"])?;
    let leaver = eventually(SETTLED, "only the new pod is left", || {
        let mut pods = ns.pods("leaver")?;
        ensure!(pods.len() == 1, "there are {}", pods.len());
        Ok(pods.remove(0))
    })?;
    let init = leaver.init_containers();
    ensure!(init.is_empty(), "it has {init:?}");
    let report = leaver.report(&url("server", 8080, "/"), &[])?;
    ensure!(report.client_id.is_none(), "{report:?}");
    Ok(())
}

/// The same once there is one again.
fn comes_back_with_a_proxy(ns: &Namespace) -> anyhow::Result<()> {
    ns.kubectl(&["rollout", "restart", "deployment/leaver"])?;
    ns.ready(&["leaver"])?;
    eventually(SETTLED, "new pods have a proxy again", || {
        let pods = ns.pods("leaver")?;
        ensure!(
            pods.iter()
                .all(|pod| pod.init_containers() == ["weft-capture", "weft-proxy"]),
            "not all have one"
        );
        Ok(())
    })
}

/// The API server queries every group before it deletes a namespace, so one group without a
/// server holds up every deletion. `restart` has the minute in which no controller is there.
// Claims: observability-17
pub(super) fn namespaces_that_wait_for_controllers_go_when_their_apiservices_went_by_hand(
    namespace: &Namespace,
) -> anyhow::Result<()> {
    let cluster = &namespace.cluster;
    eventually(SETTLED, "no server answers for the group", || {
        let service = cluster.json(&["get", "apiservice", OBSERVE])?;
        let available = condition(&service, "Available")?;
        ensure!(available["status"] == "False", "{available}");
        Ok(())
    })?;
    delete(namespace)?;
    eventually(SETTLED, "the namespace waits", || {
        let object = cluster.json(&["get", "namespace", &namespace.name])?;
        let failure = condition(&object, "NamespaceDeletionDiscoveryFailure")?;
        ensure!(failure["status"] == "True", "{failure}");
        Ok(())
    })?;
    let command = command_against_a_group_without_answer()?;
    let words: Vec<&str> = command.split_whitespace().collect();
    ensure!(words.contains(&OBSERVE), "{command}");
    let before = cluster.json(&["get", "apiservices"])?;
    cluster.kubectl(&words)?;
    vanishes(namespace)?;
    put_back(cluster, &before, &words)
}

/// Restores the APIServices of these names, so that returning controllers are called at once:
/// they write the CA bundle into a new one only at their next check.
fn put_back(cluster: &Cluster, before: &Value, names: &[&str]) -> anyhow::Result<()> {
    let services = before["items"].as_array().into_iter().flatten();
    let gone = services.filter(|service| {
        let name = service["metadata"]["name"].as_str();
        name.is_some_and(|name| names.contains(&name))
    });
    let again = gone.map(|service| {
        let metadata = &service["metadata"];
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": metadata["name"], "labels": metadata["labels"],
                "annotations": metadata["annotations"]},
            "spec": service["spec"],
        })
    });
    let again: Vec<Value> = again.collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": again});
    cluster.apply("default", &list.to_string()).map(drop)
}

/// What the manual says after `kubectl`.
fn command_against_a_group_without_answer() -> anyhow::Result<String> {
    let manual = fs::read_to_string(root().join("docs/upgrade.md"))?;
    let mut lines = manual.lines().map(str::trim);
    let command = lines.find_map(|line| {
        let words = line.strip_prefix("kubectl ")?;
        words.starts_with("delete apiservice ").then_some(words)
    });
    Ok(command
        .context("the manual has no such command")?
        .to_owned())
}

fn condition<'a>(object: &'a Value, kind: &str) -> anyhow::Result<&'a Value> {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind);
    found.with_context(|| format!("no condition {kind}: {}", object["status"]))
}

fn delete(ns: &Namespace) -> anyhow::Result<()> {
    let words = ["delete", "namespace", &ns.name, "--wait=false"];
    ns.cluster.kubectl(&words).map(drop)
}

fn vanishes(ns: &Namespace) -> anyhow::Result<()> {
    eventually(GONE_WITHIN, "the namespace is gone", || {
        let words = ["get", "namespace", &ns.name, "--ignore-not-found"];
        let left = ns.cluster.kubectl(&words)?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

const SPLIT: &str = r"
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: shop}
spec:
  service: leaver
  backends: [{service: server, weight: 1}]
";

/// All that it shows: what hooks log goes to standard error.
pub(crate) fn uninstall(cluster: &Cluster) -> anyhow::Result<String> {
    let words = ["uninstall", "weft", "-n", mesh::NAMESPACE, "--wait"];
    let words = [&words[..], &["--timeout", "3m"]].concat();
    let output = cluster.command("helm", &words).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(output.status.success(), "helm uninstall failed: {text}");
    Ok(text)
}

/// A namespace that admits some accounts of another one, by who they prove to be, and a load
/// of one of those.
struct Guarded {
    _ns: Namespace,
    url: String,
    load: Load,
}

impl Guarded {
    fn begin(ns: Namespace, callers: &Namespace) -> anyhow::Result<Self> {
        ns.ready(&["vault"])?;
        ns.annotate("weft.dev/access", Some("deny"))?;
        ns.apply(&TARGET.replace("$CALLERS", &callers.name))?;
        let url = url(&format!("vault.{}", ns.name), 8080, "/");
        let (client, stranger) = (callers.pod("client")?, callers.pod("server")?);
        eventually(SETTLED, "the target admits whom it names", || {
            client.report(&url, &[])?;
            stranger.refused(&url, &[], 403, "not-allowed")
        })?;
        let load = client.start_load(&url, &["--rate", "50", "--duration", UNTIL_ENDED])?;
        Ok(Self { _ns: ns, url, load })
    }

    /// A pod that is started while a mark of the old installation may be left comes with its
    /// identity as soon as it is ready.
    fn takes_a_newcomer(&self, callers: &Namespace) -> anyhow::Result<()> {
        callers.run(&["newcomer"])?;
        let report = callers.pod("newcomer")?.report(&self.url, &[])?;
        ensure!(report.client_id.is_some(), "in plaintext: {report:?}");
        Ok(())
    }

    fn end(self, callers: &Namespace) -> anyhow::Result<()> {
        let stranger = callers.pod("server")?;
        stranger.refused(&self.url, &[], 403, "not-allowed")?;
        nothing_lost(&self.load.end()?);
        Ok(())
    }
}

/// Where the one stands that is guarded, as soon as its pod is ready.
fn vault() -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed("guarded")?.without_retries()?;
    ns.apply_all(&App::new("vault").objects())?;
    Ok(ns)
}

const TARGET: &str = r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: all}
spec:
  matches: [{name: all, pathRegex: '.*', methods: ['*']}]
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: callers}
spec:
  destination: {kind: ServiceAccount, name: vault, namespace: $NS}
  rules: [{kind: HTTPRouteGroup, name: all}]
  sources:
    - {kind: ServiceAccount, name: client, namespace: $CALLERS}
    - {kind: ServiceAccount, name: newcomer, namespace: $CALLERS}
";

/// A client that has called its server, and what else is to run `beside` them.
fn pair(claim: &str, beside: &[&str]) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?.without_retries()?;
    ns.run(&[&["client", "server"][..], beside].concat())?;
    ns.pod("client")?.report(&url("server", 8080, "/"), &[])?;
    Ok(ns)
}

fn load(client: &Pod) -> anyhow::Result<Load> {
    client.start_load(
        &url("server", 8080, "/"),
        &["--rate", "100", "--duration", UNTIL_ENDED, "-c", "10"],
    )
}

#[track_caller]
fn nothing_lost(seen: &Summary) {
    println!(
        "{} planned, {} sent, {:?}, latency {:?}",
        seen.planned, seen.sent, seen.by_status, seen.latency_ms
    );
    assert!(
        seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
        "requests were lost: {seen:?}"
    );
}
