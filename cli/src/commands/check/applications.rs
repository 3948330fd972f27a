//! Checks of pods that meet a line of the manual's page "What changes for applications".
//!
//! None of them is a fault: the pods run as they should. The message names those that surprise
//! users, with the line that says why it is so and what to do. Only pods, their namespaces and
//! autoscalers are read for it.

use std::collections::BTreeSet;

use crds::applications::ChangeLine;
use crds::inject::is_guaranteed;
use crds::labels;
use policy::well_known::ADMIN_PORT;
use serde_json::Value;

use super::data::{has_proxy, is_being_deleted, is_over, proxy_status};
use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};

/// Of handlers that the proxy carries out for the kubelet, at its own port.
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const PROBE_PATH: &str = "/probe/";
/// Annotation by which Multus gives a pod more interfaces.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// Annotations by which traffic of another interface passes.
const PASSES: [&str; 2] = [labels::SKIP_INBOUND_PORTS, labels::SKIP_OUTBOUND_CIDRS];
/// Labels with the hash behind the name of what made a pod's ReplicaSet, and what that is.
const HASHES: [(&str, &str); 2] = [
    (labels::POD_TEMPLATE_HASH, "Deployment"),
    ("rollouts-pod-template-hash", "Rollout"),
];

pub(super) fn applications(facts: &Facts) -> CheckResult {
    let pods = meshed(facts)?;
    let names = |meets: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let pods = pods.iter().filter(|pod| meets(pod));
        pods.map(|pod| name_of(pod)).collect()
    };
    let passing = passing(facts)?;
    let met = [
        (
            ChangeLine::BarePodProbes,
            "bare pods with probes cannot be applied again",
            names(&is_bare_with_probes),
        ),
        (
            ChangeLine::LivenessByProxy,
            "pods have a liveness probe that failed while their proxy restarted",
            names(&is_restarted_with_liveness),
        ),
        (
            ChangeLine::GuaranteedPod,
            "Guaranteed pods ask for the limits of their proxy too",
            names(&|pod| pod["status"]["qosClass"] == "Guaranteed"),
        ),
        (
            ChangeLine::GuaranteedPod,
            "pods are Burstable by their proxy, and would be Guaranteed without",
            names(&|pod| pod["status"]["qosClass"] == "Burstable" && is_guaranteed(&pod["spec"])),
        ),
        (
            ChangeLine::SecondInterface,
            "pods have a second interface, at which their proxy delivers nothing",
            names(&|pod| {
                let annotations = &pod["metadata"]["annotations"];
                let namespace = text(&pod["metadata"]["namespace"]);
                !text(&annotations[NETWORKS]).is_empty()
                    && !passing.contains(namespace)
                    && !passes(annotations)
            }),
        ),
        (
            ChangeLine::AutoscalerByCpu,
            "HorizontalPodAutoscalers count the CPU of proxies",
            by_cpu(facts, &pods)?,
        ),
    ];
    let lines = met.iter().filter(|(.., names)| !names.is_empty());
    let lines: Vec<String> = lines
        .map(|(line, what, names)| {
            format!("{} {what}: {} ({})", names.len(), few(names), line.link())
        })
        .collect();
    let message = match lines.as_slice() {
        [] => "none".to_owned(),
        lines => lines.join("; "),
    };
    Ok((CheckStatus::Ok, message))
}

/// Pods with a proxy that run, or are about to.
fn meshed(facts: &Facts) -> Result<Vec<&Value>, String> {
    let excluded = facts.excluded();
    let pods = facts.list("pods")?.iter().filter(|pod| {
        let namespace = text(&pod["metadata"]["namespace"]);
        has_proxy(pod) && !is_being_deleted(pod) && !is_over(pod) && !excluded.contains(namespace)
    });
    Ok(pods.collect())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether the proxy carries out one of these probes of the application.
fn has_carried(pod: &Value, probes: &[&str]) -> bool {
    let spec = &pod["spec"];
    let mut containers = each(&spec["initContainers"]).chain(each(&spec["containers"]));
    containers.any(|container| {
        probes.iter().any(|probe| {
            let http = &container[*probe]["httpGet"];
            http["port"] == ADMIN_PORT && text(&http["path"]).starts_with(PROBE_PATH)
        })
    })
}

fn is_bare_with_probes(pod: &Value) -> bool {
    let mut owners = each(&pod["metadata"]["ownerReferences"]);
    owners.next().is_none() && has_carried(pod, &PROBES)
}

fn is_restarted_with_liveness(pod: &Value) -> bool {
    let restarts = proxy_status(pod).and_then(|status| status["restartCount"].as_u64());
    restarts.is_some_and(|restarts| restarts > 0) && has_carried(pod, &["livenessProbe"])
}

fn passes(annotations: &Value) -> bool {
    PASSES
        .iter()
        .any(|annotation| !text(&annotations[*annotation]).is_empty())
}

/// Namespaces whose annotations let traffic of another interface pass.
fn passing(facts: &Facts) -> Result<BTreeSet<&str>, String> {
    let namespaces = facts.list("namespaces")?.iter();
    let namespaces = namespaces.map(|namespace| &namespace["metadata"]);
    let passing = namespaces.filter(|metadata| passes(&metadata["annotations"]));
    Ok(passing.map(|metadata| text(&metadata["name"])).collect())
}

/// Autoscalers of these pods that go by the CPU of all of a pod's containers.
fn by_cpu(facts: &Facts, pods: &[&Value]) -> Result<Vec<String>, String> {
    let scaled: BTreeSet<(&str, String)> = pods.iter().flat_map(|pod| owners(pod)).collect();
    let autoscalers = facts.list("autoscalers")?.iter();
    let found = autoscalers.filter(|autoscaler| {
        let spec = &autoscaler["spec"];
        let target = &spec["scaleTargetRef"];
        let namespace = text(&autoscaler["metadata"]["namespace"]);
        let of = format!("{} {}", text(&target["kind"]), text(&target["name"]));
        let by_cpu =
            |metric: &Value| metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
        scaled.contains(&(namespace, of)) && each(&spec["metrics"]).any(by_cpu)
    });
    Ok(found.map(name_of).collect())
}

/// What an autoscaler may name to scale a pod: its namespace, and the kind and name of its owner
/// or of what made that.
fn owners(pod: &Value) -> Vec<(&str, String)> {
    let metadata = &pod["metadata"];
    let namespace = text(&metadata["namespace"]);
    let mut all = Vec::new();
    for owner in each(&metadata["ownerReferences"]) {
        let name = text(&owner["name"]);
        all.push((namespace, format!("{} {name}", text(&owner["kind"]))));
        for (label, kind) in HASHES {
            let hash = text(&metadata["labels"][label]);
            let made_by = name.strip_suffix(hash);
            if let Some(made_by) = made_by.and_then(|name| name.strip_suffix('-')) {
                all.push((namespace, format!("{kind} {made_by}")));
            }
        }
    }
    all
}
