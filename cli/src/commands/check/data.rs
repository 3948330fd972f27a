//! Checks of pods and their proxies: which pods lack one, and which proxies lag behind.
//!
//! Both sides are read: the API server knows which pods request a proxy, and the controllers know
//! which proxies are connected.

use std::collections::{BTreeMap, BTreeSet};

use crds::inject::{self, DefaultLimits};
use crds::labels::{ENABLED, INJECT, PROXY_VERSION};
use crds::objects::{GATEWAY_CONTAINER, PROXY_CONTAINER};
use crds::observe::{Proxy, ProxyList, ProxyStatus};
use serde_json::Value;

use super::control::{capture_mode, injector_variable, needed, variable};
use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};
use crate::commands::lifetime::is_late;
use crate::output::number;

/// The controller's variable with the lifetime of proxies' certificates.
pub(super) const LEAF_TTL: &str = "WEFT_LEAF_TTL";
/// Milliseconds by which a clock may differ.
const MOST_AHEAD: i64 = 5_000;
/// Seconds for which a proxy may lack what is on its way: each change of an object is.
const PROPAGATION: u64 = 60;
/// Seconds for which a pod that was made, or whose proxy was started, may be without a controller.
const GRACE: u64 = 60;
/// Minor versions by which a proxy may be older than the controller, as docs/upgrade.md promises.
const MOST_BEHIND: u32 = 2;

fn names(found: &[String], outcome: CheckStatus, well: &str, wrong: &str) -> CheckResult {
    Ok(if found.is_empty() {
        (CheckStatus::Ok, well.to_owned())
    } else {
        (outcome, format!("{} {wrong}: {}", found.len(), few(found)))
    })
}

pub(super) fn without_proxy(facts: &Facts) -> CheckResult {
    let excluded = facts.excluded();
    let injected: Vec<&str> = facts
        .list("namespaces")?
        .iter()
        .filter(|namespace| namespace["metadata"]["labels"][INJECT] == ENABLED)
        .filter_map(|namespace| namespace["metadata"]["name"].as_str())
        .collect();
    let bare = facts.list("pods")?.iter().filter(|pod| {
        let metadata = &pod["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        if excluded.contains(namespace) || is_being_deleted(pod) {
            return false;
        }
        let requested = match metadata["labels"][INJECT].as_str() {
            Some(label) => label == ENABLED,
            None => injected.contains(&namespace),
        };
        // A pod of the node's network gets no proxy, even if injection is requested.
        requested && !is_over(pod) && pod["spec"]["hostNetwork"] != true && !has_proxy(pod)
    });
    let bare: Vec<String> = bare.map(name_of).collect();
    names(
        &bare,
        CheckStatus::Warning,
        "all pods that requested one have one",
        "pods requested a proxy and have none",
    )
}

/// What keeps pods out because of their proxy.
pub(super) fn admission(facts: &Facts) -> CheckResult {
    let excluded = facts.excluded();
    let (ranges, quotas) = (facts.list("limit-ranges")?, facts.list("quotas")?);
    let limit = |name: &str| injector_variable(facts, name).map(ToOwned::to_owned);
    let defaults = DefaultLimits {
        cpu: limit("WEFT_PROXY_CPU_LIMIT"),
        memory: limit("WEFT_PROXY_MEMORY_LIMIT"),
    };
    let capture = capture_mode(facts);
    // If a pod with a proxy runs there, such pods are admitted: their own annotations or requests
    // give the proxy what the namespace requires.
    let admitting: BTreeSet<&str> = facts
        .list("pods")?
        .iter()
        .filter(|pod| has_proxy(pod) && !is_over(pod))
        .filter_map(|pod| pod["metadata"]["namespace"].as_str())
        .collect();
    let mut found = Vec::new();
    for namespace in facts.list("namespaces")? {
        let metadata = &namespace["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let asks = metadata["labels"][INJECT] == ENABLED && !excluded.contains(name);
        if !asks || admitting.contains(name) {
            continue;
        }
        let map = |of: &str| serde_json::from_value(metadata[of].clone()).unwrap_or_default();
        let namespace = inject::Namespace {
            name: name.to_owned(),
            labels: map("labels"),
            annotations: map("annotations"),
            ..inject::Namespace::default()
        };
        let own = |objects: &[Value]| -> Vec<Value> {
            let own = objects
                .iter()
                .filter(|one| one["metadata"]["namespace"] == name);
            own.cloned().collect()
        };
        found.extend(inject::obstacles(
            &namespace,
            &defaults,
            capture,
            &own(ranges),
            &own(quotas),
        ));
    }
    if !found.is_empty() {
        // The limits of an injector that may not be seen could be what is lacking.
        let _ = needed(facts, "injector", "injector")?;
    }
    names(
        &found,
        CheckStatus::Error,
        "nothing keeps pods out",
        "keep pods out",
    )
}

pub(super) fn is_being_deleted(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

pub(super) fn is_over(pod: &Value) -> bool {
    ["Succeeded", "Failed"]
        .iter()
        .any(|phase| pod["status"]["phase"] == *phase)
}

/// Whether a pod, or the first run of its proxy, began so lately that the proxy may not have
/// reached a controller yet.
fn begins(facts: &Facts, pod: &Value) -> bool {
    let is_recent = |time: &Value| {
        let ago = time.as_str().and_then(|time| facts.ago(time));
        ago.is_some_and(|ago| ago.as_secs() < GRACE)
    };
    // A proxy that restarts again and again never finishes its start.
    let first =
        proxy_status(pod).filter(|one| one["restartCount"].as_u64().unwrap_or_default() == 0);
    is_recent(&pod["metadata"]["creationTimestamp"])
        || first.is_some_and(|one| is_recent(&one["state"]["running"]["startedAt"]))
}

/// The kubelet's status of a pod's proxy: of its sidecar, or of the container of a Gateway.
pub(super) fn proxy_status(pod: &Value) -> Option<&Value> {
    let of = |statuses: &str, name: &str| {
        let statuses = pod["status"][statuses].as_array();
        let mut statuses = statuses.into_iter().flatten();
        statuses.find(|one| one["name"] == name)
    };
    of("initContainerStatuses", PROXY_CONTAINER)
        .or_else(|| of("containerStatuses", GATEWAY_CONTAINER))
}

/// Whether the pod of a proxy begins or ends, as far as all pods are known: one that is not among
/// them has ended.
fn is_passing(facts: &Facts, proxy: &Proxy) -> bool {
    let Some(pods) = facts.whole("pods") else {
        return false;
    };
    let metadata = &proxy.metadata;
    let mut pods = pods.iter().map(|pod| (pod, &pod["metadata"]));
    let pod = pods.find(|(_, pod)| {
        pod["namespace"] == metadata.namespace.as_str() && pod["name"] == metadata.name.as_str()
    });
    pod.is_none_or(|(pod, _)| is_being_deleted(pod) || is_over(pod) || begins(facts, pod))
}

/// Whether a pod is one of a Gateway, which is a proxy by itself.
pub(super) fn is_gateway(pod: &Value) -> bool {
    let containers = pod["spec"]["containers"].as_array();
    let mut containers = containers.into_iter().flatten();
    containers.any(|container| container["name"] == GATEWAY_CONTAINER)
}

pub(super) fn has_proxy(pod: &Value) -> bool {
    let containers = pod["spec"]["initContainers"].as_array();
    let mut containers = containers.into_iter().flatten();
    containers.any(|container| container["name"] == PROXY_CONTAINER)
}

pub(super) fn old(facts: &Facts) -> CheckResult {
    let labels = facts.existing("controller")?;
    let labels = labels.map(|controller| &controller["metadata"]["labels"]);
    let ours = labels
        .and_then(|labels| labels["app.kubernetes.io/version"].as_str())
        .and_then(minor)
        .ok_or("the controller does not say its version")?;
    let reported = reported_versions(facts);
    let old = facts.list("pods")?.iter().filter(|pod| {
        let noted = pod["metadata"]["annotations"][PROXY_VERSION].as_str();
        let theirs = reported.get(&name_of(pod)).map(String::as_str).or(noted);
        theirs.and_then(minor).is_some_and(|(major, minor)| {
            major < ours.0 || (major == ours.0 && minor + MOST_BEHIND < ours.1)
        })
    });
    let old: Vec<String> = old.map(name_of).collect();
    names(&old, CheckStatus::Warning, "none", "proxies are too old")
}

/// The versions that proxies report, by pod. They go before the injector's note, which is the tag
/// of the image and need be no version. If no version is reported, another check says why.
fn reported_versions(facts: &Facts) -> BTreeMap<String, String> {
    let proxies = proxies(facts).unwrap_or_default();
    let version = |proxy: Proxy| {
        let pod = format!("{}/{}", proxy.metadata.namespace, proxy.metadata.name);
        Some((pod, proxy.status.version?))
    };
    proxies.into_iter().filter_map(version).collect()
}

/// Major and minor number of `1.4.2` or `v1.4`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn proxies(facts: &Facts) -> Result<Vec<Proxy>, String> {
    let items = facts.existing("proxies")?;
    let items = items.ok_or("the read API observe.weft.dev is not served")?;
    let list: Result<ProxyList, _> = serde_json::from_value(serde_json::json!({"items": items}));
    list.map(|list| list.items)
        .map_err(|error| format!("proxies: {error}"))
}

/// Proxies of revoked pods are no fault: check `revocations` names them.
fn those(facts: &Facts, wrong: impl Fn(&Proxy) -> bool) -> Result<Vec<String>, String> {
    let proxies = proxies(facts)?;
    let meant = proxies
        .iter()
        .filter(|proxy| proxy.status.revoked_by.is_none());
    let wrong = meant.filter(|proxy| wrong(proxy));
    Ok(wrong
        .map(|proxy| format!("{}/{}", proxy.metadata.namespace, proxy.metadata.name))
        .collect())
}

/// A value that no proxy reports cannot be checked, which does not make it well.
fn must_be_reported(
    facts: &Facts,
    what: &str,
    is_reported: impl Fn(&ProxyStatus) -> bool,
) -> Result<(), String> {
    let proxies = proxies(facts)?;
    if proxies.is_empty() || proxies.iter().any(|proxy| is_reported(&proxy.status)) {
        return Ok(());
    }
    Err(format!("the read API reports no proxy's {what}"))
}

pub(super) fn connected(facts: &Facts) -> CheckResult {
    let lost = those(facts, |proxy| {
        !proxy.status.connected && !is_passing(facts, proxy)
    })?;
    names(
        &lost,
        CheckStatus::Error,
        "all",
        "proxies are not connected",
    )
}

pub(super) fn acknowledged(facts: &Facts) -> CheckResult {
    let lacks = |status: &ProxyStatus| status.connected && status.acknowledged < status.needed;
    let behind = those(facts, |proxy| {
        let behind = proxy.status.behind_seconds;
        // An older controller does not report for how long.
        lacks(&proxy.status) && behind.is_none_or(|seconds| seconds > PROPAGATION)
    })?;
    let waiting = those(facts, |proxy| lacks(&proxy.status))?;
    let well = match waiting.as_slice() {
        [] => "all".to_owned(),
        waiting => format!("something is on its way to {}", few(waiting)),
    };
    names(
        &behind,
        CheckStatus::Warning,
        &well,
        "proxies lack something that concerns them",
    )
}

pub(super) fn refusals(facts: &Facts) -> CheckResult {
    let refusing = those(facts, |proxy| !proxy.status.nacks.is_empty())?;
    names(
        &refusing,
        CheckStatus::Error,
        "none",
        "proxies refused a configuration",
    )
}

pub(super) fn certificates(facts: &Facts) -> CheckResult {
    must_be_reported(facts, "certificate", |status| status.certificate.is_some())?;
    let ttl = variable(facts, LEAF_TTL).and_then(number::duration);
    let ending = those(facts, |proxy| {
        let certificate = proxy.status.certificate.as_ref();
        certificate.is_some_and(|certificate| is_late(certificate, ttl, facts.now))
            && !is_passing(facts, proxy)
    })?;
    names(
        &ending,
        CheckStatus::Error,
        "none is about to end",
        "certificates are about to end",
    )
}

pub(super) fn clocks(facts: &Facts) -> CheckResult {
    must_be_reported(facts, "clock", |status| status.clock_ahead_ms.is_some())?;
    let off = those(facts, |proxy| {
        proxy
            .status
            .clock_ahead_ms
            .is_some_and(|ahead| ahead.abs() > MOST_AHEAD)
    })?;
    names(
        &off,
        CheckStatus::Warning,
        "agree",
        "proxies' clocks are off",
    )
}
