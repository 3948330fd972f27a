//! What of a namespace keeps out every pod that has a proxy: ResourceQuotas and LimitRanges that
//! the resources of the proxy's containers do not fit, and a level of Pod Security at which
//! nothing may redirect traffic.
//!
//! Kubernetes refuses such a pod after it was given its proxy, and reports that to whatever makes
//! the pod. What helps is annotations of the Namespace, or its level, so these are named.

use serde_json::Value;

use super::{DefaultLimits, Namespace, overrides};
use crate::labels::{self, quantity_in_milli};

/// Label of a Namespace: the level of Pod Security below which no pod is admitted.
const LEVEL: &str = "pod-security.kubernetes.io/enforce";
/// The only one that admits the container which redirects traffic.
const PRIVILEGED: &str = "privileged";
/// Scopes of a ResourceQuota that cover most pods with a proxy.
const SCOPES: [&str; 2] = ["NotBestEffort", "NotTerminating"];

/// One sentence for each obstacle, by the LimitRanges and ResourceQuotas of the namespace.
#[must_use]
pub fn obstacles(
    namespace: &Namespace,
    defaults: &DefaultLimits,
    ranges: &[Value],
    quotas: &[Value],
) -> Vec<String> {
    let mut found: Vec<String> = level(namespace).into_iter().collect();
    for mut amounts in Amounts::all(namespace, defaults) {
        let mut items: Vec<(&str, &Value)> = Vec::new();
        for range in ranges {
            let of_containers = range["spec"]["limits"].as_array().into_iter().flatten();
            let of_containers = of_containers.filter(|item| item["type"] == "Container");
            items.extend(of_containers.map(|item| (name(range), item)));
        }
        amounts.fill(&items);
        let before = found.len();
        for (range, item) in &items {
            found.extend(amounts.against(range, item));
        }
        // A request that no range allows is reported as that.
        if found.len() == before {
            found.extend(amounts.above_limit());
        }
        for quota in quotas.iter().filter(|quota| covers_proxies(quota)) {
            found.extend(amounts.within(quota));
        }
    }
    found
}

fn level(namespace: &Namespace) -> Option<String> {
    let level = namespace.labels.get(LEVEL)?;
    (level != PRIVILEGED).then(|| {
        format!(
            "label {LEVEL}={level} admits no container that redirects traffic: set it to \
             {PRIVILEGED} on Namespace {}",
            namespace.name
        )
    })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn covers_proxies(quota: &Value) -> bool {
    let scopes = quota["spec"]["scopes"].as_array().into_iter().flatten();
    quota["spec"]["scopeSelector"].is_null()
        && scopes
            .filter_map(Value::as_str)
            .all(|scope| SCOPES.contains(&scope))
}

/// What each of the proxy's containers asks for of one resource.
struct Amounts {
    resource: &'static str,
    namespace: String,
    request: String,
    limit: Option<String>,
    /// Annotations that set request and limit.
    annotations: [&'static str; 2],
}

impl Amounts {
    fn all(namespace: &Namespace, defaults: &DefaultLimits) -> [Self; 2] {
        let of = |resource, annotations: [&'static str; 2], request: &str, limit| {
            let [own_request, own_limit] =
                annotations.map(|name| namespace.annotations.get(name).cloned());
            let request = own_request.unwrap_or_else(|| request.to_owned());
            let limit = overrides::limited(own_limit, limit, &request);
            Self {
                resource,
                namespace: namespace.name.clone(),
                request,
                limit,
                annotations,
            }
        };
        [
            of(
                "cpu",
                [labels::PROXY_CPU_REQUEST, labels::PROXY_CPU_LIMIT],
                overrides::CPU_REQUEST,
                defaults.cpu.as_deref(),
            ),
            of(
                "memory",
                [labels::PROXY_MEMORY_REQUEST, labels::PROXY_MEMORY_LIMIT],
                overrides::MEMORY_REQUEST,
                defaults.memory.as_deref(),
            ),
        ]
    }

    /// A LimitRange gives a container that has no limit its default, or its maximum.
    fn fill(&mut self, items: &[(&str, &Value)]) {
        if self.limit.is_some() {
            return;
        }
        let defaults = items.iter().map(|(_, item)| *item);
        let defaults = defaults.flat_map(|item| [&item["default"], &item["max"]]);
        let resource = self.resource;
        let mut limits = defaults.filter_map(|of| of[resource].as_str());
        self.limit = limits.next().map(ToOwned::to_owned);
    }

    /// The way out, of request or limit.
    fn annotate(&self, which: usize, amount: &str) -> String {
        let (annotation, namespace) = (self.annotations[which], &self.namespace);
        format!("set annotation {annotation} of Namespace {namespace} to {amount}")
    }

    /// What one entry of a LimitRange refuses.
    fn against(&self, range: &str, item: &Value) -> Vec<String> {
        let Self {
            resource, request, ..
        } = self;
        let bound = |of: &str| item[of][*resource].as_str();
        let is_less = |one: &str, other: &str| {
            matches!(
                (quantity_in_milli(one), quantity_in_milli(other)),
                (Some(one), Some(other)) if one < other
            )
        };
        let mut found = Vec::new();
        if let Some(min) = bound("min").filter(|min| is_less(request, min)) {
            found.push(format!(
                "LimitRange {range} asks for {resource} of {min} at least, and the proxy's request \
                 is {request}: {}",
                self.annotate(0, &format!("{min} or more"))
            ));
        }
        let limit = self.limit.as_deref().unwrap_or(request);
        let max = bound("max").filter(|max| is_less(max, limit) || is_less(max, request));
        if let Some(max) = max {
            let (which, what, amount) = if is_less(max, request) {
                (0, "request", request.as_str())
            } else {
                (1, "limit", limit)
            };
            found.push(format!(
                "LimitRange {range} allows {resource} of {max} at most, and the proxy's {what} is \
                 {amount}: {}",
                self.annotate(which, &format!("{max} or less"))
            ));
        }
        if let Some(ratio) = bound("maxLimitRequestRatio")
            && self.is_beyond(ratio)
        {
            let limit = self.limit.as_deref().unwrap_or("none");
            let [request_annotation, limit_annotation] = self.annotations;
            found.push(format!(
                "LimitRange {range} allows a limit of {resource} of {ratio} times the request, and \
                 the proxy's request is {request} and its limit {limit}: set annotations \
                 {request_annotation} and {limit_annotation} of Namespace {}",
                self.namespace
            ));
        }
        found
    }

    /// Whether the limit is more than so many times the request, or there is none.
    fn is_beyond(&self, ratio: &str) -> bool {
        let Some(limit) = self.limit.as_deref() else {
            return true;
        };
        let read = [limit, &self.request, ratio].map(quantity_in_milli);
        let [Some(limit), Some(request), Some(ratio)] = read else {
            return false;
        };
        let most = request.checked_mul(ratio);
        let limit = limit.checked_mul(1000);
        matches!((limit, most), (Some(limit), Some(most)) if limit > most)
    }

    /// A default limit below the request makes the pod invalid.
    fn above_limit(&self) -> Option<String> {
        let limit = self.limit.as_deref()?;
        let (Some(request), Some(most)) =
            (quantity_in_milli(&self.request), quantity_in_milli(limit))
        else {
            return None;
        };
        (request > most).then(|| {
            format!(
                "the proxy's request of {} is {}, above its limit {limit}: {}",
                self.resource,
                self.request,
                self.annotate(1, &format!("{} or more", self.request))
            )
        })
    }

    /// A quota on limits admits no container without one.
    fn within(&self, quota: &Value) -> Option<String> {
        let counted = format!("limits.{}", self.resource);
        if self.limit.is_some() || quota["spec"]["hard"][&counted].is_null() {
            return None;
        }
        Some(format!(
            "ResourceQuota {} counts {counted}, and the proxy has no such limit: set annotation {} \
             of Namespace {}",
            name(quota),
            self.annotations[1],
            self.namespace
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shop(annotations: &[(&str, &str)]) -> Namespace {
        let annotations = annotations.iter();
        Namespace {
            name: "shop".to_owned(),
            annotations: annotations
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Namespace::default()
        }
    }

    /// What a LimitRange with this entry keeps out.
    fn ranged(annotations: &[(&str, &str)], mut item: Value) -> Vec<String> {
        item["type"] = json!("Container");
        let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [item]}});
        obstacles(&shop(annotations), &DefaultLimits::default(), &[range], &[])
    }

    fn counted(namespace: &Namespace, defaults: &DefaultLimits, spec: &Value) -> Vec<String> {
        let quota = json!({"metadata": {"name": "q"}, "spec": spec});
        obstacles(namespace, defaults, &[], &[quota])
    }

    #[test]
    fn quota_on_limits_names_the_annotations_until_there_are_limits() {
        let none = DefaultLimits::default();
        let hard = json!({"hard": {"limits.cpu": "4", "limits.memory": "4Gi", "pods": "10"}});
        let found = counted(&shop(&[]), &none, &hard);
        let [cpu, memory] = found.as_slice() else {
            panic!("{found:?}");
        };
        let words = "ResourceQuota q counts limits.cpu, and the proxy has no such limit: set \
                     annotation weft.dev/proxy-cpu-limit of Namespace shop";
        assert_eq!(cpu, words);
        assert!(memory.contains("weft.dev/proxy-memory-limit"), "{memory}");
        let annotated = shop(&[
            ("weft.dev/proxy-cpu-limit", "1"),
            ("weft.dev/proxy-memory-limit", "128Mi"),
        ]);
        assert!(counted(&annotated, &none, &hard).is_empty());
        let installed = DefaultLimits {
            cpu: Some("1".to_owned()),
            memory: Some("128Mi".to_owned()),
        };
        assert!(counted(&shop(&[]), &installed, &hard).is_empty());
        // Of requests the proxy has both, and other pods' quotas are none of it.
        for spec in [
            json!({"hard": {"requests.cpu": "4"}}),
            json!({"hard": {"limits.cpu": "4"}, "scopes": ["BestEffort"]}),
            json!({"hard": {"limits.cpu": "4"}, "scopeSelector": {"matchExpressions": []}}),
        ] {
            assert!(counted(&shop(&[]), &none, &spec).is_empty(), "{spec}");
        }
        let scoped = json!({"hard": {"limits.cpu": "4"}, "scopes": ["NotTerminating"]});
        assert_eq!(counted(&shop(&[]), &none, &scoped).len(), 1);
    }

    #[test]
    fn range_that_refuses_the_proxy_names_the_annotation_that_helps() {
        for (item, annotations, helps) in [
            (
                json!({"min": {"memory": "64Mi"}}),
                &[("weft.dev/proxy-memory-request", "64Mi")][..],
                "weft.dev/proxy-memory-request",
            ),
            (
                json!({"max": {"cpu": "5m"}}),
                &[
                    ("weft.dev/proxy-cpu-request", "5m"),
                    ("weft.dev/proxy-cpu-limit", "5m"),
                ],
                "weft.dev/proxy-cpu-request",
            ),
            (
                json!({"maxLimitRequestRatio": {"cpu": "2"}, "default": {"cpu": "500m"}}),
                &[("weft.dev/proxy-cpu-request", "250m")],
                "weft.dev/proxy-cpu-request and weft.dev/proxy-cpu-limit",
            ),
            (
                json!({"maxLimitRequestRatio": {"memory": "2"}}),
                &[("weft.dev/proxy-memory-limit", "40Mi")],
                "weft.dev/proxy-memory-limit",
            ),
            (
                json!({"default": {"memory": "16Mi"}}),
                &[("weft.dev/proxy-memory-limit", "32Mi")],
                "weft.dev/proxy-memory-limit",
            ),
        ] {
            let found = ranged(&[], item.clone());
            assert!(!found.is_empty(), "{item}");
            for sentence in &found {
                assert!(sentence.contains("of Namespace shop"), "{sentence}");
            }
            assert!(found.iter().any(|one| one.contains(helps)), "{found:?}");
            assert!(ranged(annotations, item.clone()).is_empty(), "{item}");
        }
        // What fits, and what is about pods as a whole or is no amount.
        for item in [
            json!({"min": {"cpu": "10m"}, "max": {"cpu": "1"}}),
            json!({"default": {"cpu": "1", "memory": "1Gi"}}),
            json!({"min": {"cpu": 7}}),
        ] {
            assert!(ranged(&[], item.clone()).is_empty(), "{item}");
        }
        let pods = json!({"metadata": {"name": "r"},
            "spec": {"limits": [{"type": "Pod", "min": {"cpu": "1"}}]}});
        let found = obstacles(&shop(&[]), &DefaultLimits::default(), &[pods], &[]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn level_below_privileged_is_named() {
        for (level, keeps_out) in [
            ("privileged", false),
            ("baseline", true),
            ("restricted", true),
        ] {
            let mut namespace = shop(&[]);
            namespace.labels.insert(LEVEL.to_owned(), level.to_owned());
            let found = obstacles(&namespace, &DefaultLimits::default(), &[], &[]);
            assert_eq!(!found.is_empty(), keeps_out, "{level}: {found:?}");
            if let Some(sentence) = found.first() {
                let words = format!("label {LEVEL}={level} admits no container");
                assert!(sentence.starts_with(&words), "{sentence}");
                assert!(sentence.contains("set it to privileged"), "{sentence}");
            }
        }
    }
}
