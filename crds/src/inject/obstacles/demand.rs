//! The properties of a pod with its proxy by which its namespace admits or refuses it.

use serde_json::Value;

use crate::inject::pod::{in_milli, is_ours};
use crate::labels;
use crate::objects::{CAPTURE_CONTAINER, PROXY_CONTAINER};

/// A resource, and the annotations that set the proxy's request and limit.
pub(super) type Resource = (&'static str, [&'static str; 2]);

pub(super) const RESOURCES: [Resource; 2] = [
    ("cpu", [labels::PROXY_CPU_REQUEST, labels::PROXY_CPU_LIMIT]),
    (
        "memory",
        [labels::PROXY_MEMORY_REQUEST, labels::PROXY_MEMORY_LIMIT],
    ),
];

/// See the module header. Pods of which this is the same are admitted or refused alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodDemand {
    /// Of cpu and memory.
    pub(super) asked: [Asked; 2],
    /// It ends by a time of its own, as Jobs with a deadline do.
    is_terminating: bool,
    priority_class: String,
    /// It is to be near or far from pods of other namespaces.
    crosses_namespaces: bool,
    /// Its own init container redirects its traffic, and not its node.
    pub(super) redirects: bool,
}

/// Its amounts of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    /// Of each of the proxy's containers.
    pub(super) request: Option<String>,
    pub(super) limit: Option<String>,
    /// The pod has the annotation for request and limit itself.
    pub(super) by_pod: [bool; 2],
    /// Request and limit of all other containers; `None` where the pod as a whole names some.
    pub(super) others: Option<[Option<i128>; 2]>,
    /// The pod as a whole has a limit.
    pub(super) is_bounded_as_whole: bool,
}

impl PodDemand {
    /// Of a pod that has its proxy.
    #[must_use]
    pub fn of(pod: &Value) -> Self {
        let spec = &pod["spec"];
        let deadline = spec["activeDeadlineSeconds"].as_i64();
        Self {
            asked: RESOURCES.map(|resource| Asked::of(pod, resource)),
            is_terminating: deadline.is_some_and(|seconds| seconds >= 0),
            priority_class: spec["priorityClassName"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            crosses_namespaces: crosses_namespaces(&spec["affinity"]),
            redirects: redirects(spec),
        }
    }

    fn is_of_class(&self, operator: &str, values: &Value) -> bool {
        let class = self.priority_class.as_str();
        let is_named = list(values).any(|value| *value == *class);
        match operator {
            "Exists" => !class.is_empty(),
            "DoesNotExist" => class.is_empty(),
            "In" => !class.is_empty() && is_named,
            "NotIn" => class.is_empty() || !is_named,
            _ => false,
        }
    }
}

fn redirects(spec: &Value) -> bool {
    let mut init = list(&spec["initContainers"]);
    let capture = init.find(|container| container["name"] == CAPTURE_CONTAINER);
    capture.is_some_and(|capture| {
        let added = &capture["securityContext"]["capabilities"]["add"];
        list(added).next().is_some()
    })
}

impl Asked {
    fn of(pod: &Value, (resource, annotations): Resource) -> Self {
        let spec = &pod["spec"];
        let mut init = list(&spec["initContainers"]);
        let proxy = init.find(|container| container["name"] == PROXY_CONTAINER);
        let amount = |kind: &str| Some(proxy?["resources"][kind][resource].as_str()?.to_owned());
        let as_a_whole = ["requests", "limits"].map(|kind| &spec["resources"][kind][resource]);
        let is_summed = as_a_whole.iter().all(|amount| amount.is_null());
        Self {
            request: amount("requests"),
            limit: amount("limits"),
            by_pod: annotations.map(|name| !pod["metadata"]["annotations"][name].is_null()),
            others: is_summed
                .then(|| ["requests", "limits"].map(|kind| others(spec, kind, resource))),
            is_bounded_as_whole: !as_a_whole[1].is_null(),
        }
    }
}

/// Whether a quota counts a pod. Without one, whether it counts those that have neither a deadline
/// nor anything else that scopes go by, which most pods with a proxy have not.
pub(super) fn covers(quota: &Value, demand: Option<&PodDemand>) -> bool {
    let spec = &quota["spec"];
    let holds = |scope: &Value, operator: &str, values: &Value| match scope.as_str() {
        Some("NotBestEffort") => true,
        Some("NotTerminating") => demand.is_none_or(|demand| !demand.is_terminating),
        Some("Terminating") => demand.is_some_and(|demand| demand.is_terminating),
        Some("PriorityClass") => demand.is_some_and(|demand| demand.is_of_class(operator, values)),
        Some("CrossNamespacePodAffinity") => demand.is_some_and(|demand| demand.crosses_namespaces),
        // A pod with a proxy has requests.
        _ => false,
    };
    let mut selected = list(&spec["scopeSelector"]["matchExpressions"]);
    list(&spec["scopes"]).all(|scope| holds(scope, "Exists", &Value::Null))
        && selected.all(|one| {
            let operator = one["operator"].as_str().unwrap_or_default();
            holds(&one["scopeName"], operator, &one["values"])
        })
}

/// As Kubernetes adds up the containers of a pod: one that begins before the others ends before
/// them, unless it is a sidecar.
fn others(spec: &Value, kind: &str, resource: &str) -> Option<i128> {
    let of = |container: &Value| in_milli(&container["resources"][kind][resource]);
    let containers = list(&spec["containers"]);
    let mut all = containers.fold(None, |all, container| sum(all, of(container)));
    let (mut sidecars, mut most): (Option<i128>, Option<i128>) = (None, None);
    let init = list(&spec["initContainers"]);
    for container in init.filter(|container| !is_ours(container)) {
        let at_once = sum(sidecars, of(container));
        if container["restartPolicy"] == "Always" {
            sidecars = at_once;
            all = sum(all, of(container));
        }
        most = most.max(at_once);
    }
    all.max(most)
}

/// Nothing where neither is named.
pub(super) fn sum(one: Option<i128>, other: Option<i128>) -> Option<i128> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let of = &affinity[*kind];
        let required = list(&of["requiredDuringSchedulingIgnoredDuringExecution"]);
        let preferred = list(&of["preferredDuringSchedulingIgnoredDuringExecution"]);
        let mut terms = required.chain(preferred.map(|one| &one["podAffinityTerm"]));
        terms.any(|term| {
            list(&term["namespaces"]).next().is_some() || !term["namespaceSelector"].is_null()
        })
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
