//! Finds what makes a namespace refuse every pod with a proxy: ResourceQuotas and LimitRanges that
//! the resources of the proxy's containers do not fit, and a level of Pod Security at which
//! nothing may redirect traffic.
//!
//! Kubernetes refuses such a pod after it was given its proxy, and reports that to the controller
//! that creates the pod. Annotations of the Namespace or its level are the way out, so these are
//! named.
//!
//! Claims: observe-113

mod amounts;
mod demand;

use serde_json::Value;

use self::amounts::Amounts;
pub use self::demand::PodDemand;
use super::{CaptureMode, DefaultLimits, Namespace};

/// Label of a Namespace: the level of Pod Security below which no pod is admitted.
const LEVEL: &str = "pod-security.kubernetes.io/enforce";
/// The only one that admits a container which redirects traffic.
const PRIVILEGED: &str = "privileged";

/// One sentence for each obstacle to a pod without annotations or limits of its own, by the
/// LimitRanges and ResourceQuotas of the namespace.
#[must_use]
pub fn obstacles(
    namespace: &Namespace,
    defaults: &DefaultLimits,
    capture: CaptureMode,
    ranges: &[Value],
    quotas: &[Value],
) -> Vec<String> {
    let amounts = Amounts::of_namespace(namespace, defaults);
    let level = level(namespace).filter(|_| capture == CaptureMode::Init);
    let found = find_obstacles(amounts, None, ranges, quotas);
    level.into_iter().chain(found).collect()
}

/// One sentence for each obstacle to a pod with these amounts and scopes.
#[must_use]
pub fn obstacles_of(
    demand: &PodDemand,
    namespace: &Namespace,
    ranges: &[Value],
    quotas: &[Value],
) -> Vec<String> {
    let amounts = Amounts::of_pod(namespace, demand);
    let level = level(namespace).filter(|_| demand.redirects);
    let found = find_obstacles(amounts, Some(demand), ranges, quotas);
    level.into_iter().chain(found).collect()
}

fn find_obstacles(
    of_proxy: [Amounts; 2],
    demand: Option<&PodDemand>,
    ranges: &[Value],
    quotas: &[Value],
) -> Vec<String> {
    let of_containers = entries(ranges, "Container");
    let of_pods = entries(ranges, "Pod");
    let mut found = Vec::new();
    for mut amounts in of_proxy {
        amounts.fill(&of_containers);
        let before = found.len();
        for (range, item) in &of_containers {
            found.extend(amounts.against(range, item));
        }
        // A request that no range allows is reported as that.
        if found.len() == before {
            found.extend(amounts.above_limit());
        }
        for (range, item) in &of_pods {
            found.extend(amounts.in_pod(range, item));
        }
        for quota in quotas.iter().filter(|quota| demand::covers(quota, demand)) {
            found.extend(amounts.within(name(quota), quota));
        }
    }
    found
}

/// The entries of LimitRanges about this, with the name of each range.
fn entries<'a>(ranges: &'a [Value], about: &str) -> Vec<(&'a str, &'a Value)> {
    let mut found = Vec::new();
    for range in ranges {
        let items = range["spec"]["limits"].as_array().into_iter().flatten();
        let items = items.filter(|item| item["type"] == about);
        found.extend(items.map(|item| (name(range), item)));
    }
    found
}

fn level(namespace: &Namespace) -> Option<String> {
    let level = namespace.labels.get(LEVEL)?;
    (level != PRIVILEGED).then(|| {
        format!(
            "label {LEVEL}={level} admits no container that redirects traffic: set it to \
             {PRIVILEGED} on Namespace {}, or capture.mode=node in the chart's values",
            namespace.name
        )
    })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
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

    fn found_by_default(namespace: &Namespace, ranges: &[Value]) -> Vec<String> {
        let defaults = DefaultLimits::default();
        obstacles(namespace, &defaults, CaptureMode::Init, ranges, &[])
    }

    /// What a LimitRange with this entry keeps out.
    fn ranged(annotations: &[(&str, &str)], mut item: Value) -> Vec<String> {
        item["type"] = json!("Container");
        let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [item]}});
        found_by_default(&shop(annotations), &[range])
    }

    fn counted(namespace: &Namespace, defaults: &DefaultLimits, spec: &Value) -> Vec<String> {
        let quota = json!({"metadata": {"name": "q"}, "spec": spec});
        obstacles(namespace, defaults, CaptureMode::Init, &[], &[quota])
    }

    #[test]
    fn limit_quota_names_annotations_until_limits_are_set() {
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
            json!({"hard": {"limits.cpu": "4"}, "scopes": ["Terminating"]}),
            json!({"hard": {"limits.cpu": "4"}, "scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": "NotIn", "values": ["low"]},
            ]}}),
        ] {
            assert!(counted(&shop(&[]), &none, &spec).is_empty(), "{spec}");
        }
        for scoped in [
            json!({"scopes": ["NotTerminating", "NotBestEffort"]}),
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "NotTerminating", "operator": "Exists"},
            ]}}),
        ] {
            let mut spec = scoped;
            spec["hard"] = json!({"limits.cpu": "4"});
            assert_eq!(counted(&shop(&[]), &none, &spec).len(), 1, "{spec}");
        }
    }

    #[test]
    fn limit_range_refusing_proxy_names_helpful_annotation() {
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
        let of_pods = |item: Value| {
            let mut range = json!({"metadata": {"name": "r"}, "spec": {"limits": [item]}});
            range["spec"]["limits"][0]["type"] = json!("Pod");
            found_by_default(&shop(&[]), &[range])
        };
        // The amounts of other containers are not known.
        for item in [
            json!({"min": {"cpu": "1"}}),
            json!({"max": {"cpu": "1"}}),
            json!({"maxLimitRequestRatio": {"cpu": "2"}}),
        ] {
            assert!(of_pods(item.clone()).is_empty(), "{item}");
        }
        let found = of_pods(json!({"max": {"memory": "10Mi"}}));
        assert!(
            found[0].contains("allows a pod memory of 10Mi at most"),
            "{found:?}"
        );
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
            let found = found_by_default(&namespace, &[]);
            assert_eq!(!found.is_empty(), keeps_out, "{level}: {found:?}");
            if let Some(sentence) = found.first() {
                let words = format!("label {LEVEL}={level} admits no container");
                assert!(sentence.starts_with(&words), "{sentence}");
                assert!(sentence.contains("set it to privileged"), "{sentence}");
                assert!(sentence.contains("capture.mode=node"), "{sentence}");
            }
            // Where the node redirects traffic the proxy's containers are admitted at each level.
            let defaults = DefaultLimits::default();
            let by_node = obstacles(&namespace, &defaults, CaptureMode::Node, &[], &[]);
            assert!(by_node.is_empty(), "{by_node:?}");
            for add in [json!(["NET_ADMIN"]), json!([]), json!(null)] {
                let context = json!({"capabilities": {"drop": ["ALL"], "add": add}});
                let capture = json!({"name": "weft-capture", "securityContext": context});
                let pod = json!({"spec": {"initContainers": [capture, {"name": "weft-proxy"}]}});
                let found = obstacles_of(&PodDemand::of(&pod), &namespace, &[], &[]);
                let redirects = add == json!(["NET_ADMIN"]);
                assert_eq!(!found.is_empty(), keeps_out && redirects, "{found:?}");
            }
        }
    }

    /// A pod with its proxy, and an application of these amounts.
    fn pod(proxy: &Value, application: &Value) -> Value {
        json!({
            "metadata": {"annotations": {}},
            "spec": {
                "initContainers": [
                    {"name": "weft-capture", "resources": proxy},
                    {"name": "weft-proxy", "restartPolicy": "Always", "resources": proxy},
                ],
                "containers": [{"name": "app", "resources": application}],
            },
        })
    }

    fn amounts(request: &str, limit: Option<&str>) -> Value {
        let mut amounts = json!({"requests": {"cpu": request, "memory": "20Mi"}});
        if let Some(limit) = limit {
            amounts["limits"] = json!({"cpu": limit, "memory": "64Mi"});
        }
        amounts
    }

    #[test]
    fn own_resource_amounts_of_pod_decide_admission() {
        let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"limits.cpu": "4"}}});
        let found_for = |pod: &Value| {
            let quotas = std::slice::from_ref(&quota);
            obstacles_of(&PodDemand::of(pod), &shop(&[]), &[], quotas)
        };
        let app = amounts("1", Some("1"));
        assert!(found_for(&pod(&amounts("10m", Some("1")), &app)).is_empty());
        let mut lacking = pod(&amounts("10m", None), &app);
        let found = found_for(&lacking);
        assert!(
            found[0].ends_with("weft.dev/proxy-cpu-limit of Namespace shop"),
            "{found:?}"
        );
        // An annotation of the pod goes before that of the Namespace.
        lacking["metadata"]["annotations"]["weft.dev/proxy-cpu-limit"] = json!("");
        let found = found_for(&lacking);
        assert!(
            found[0].ends_with("weft.dev/proxy-cpu-limit of the pod"),
            "{found:?}"
        );
    }

    #[test]
    fn quota_counts_the_pods_of_its_scopes_alone() {
        let counts = |scopes: Value, change: fn(&mut Value)| {
            let mut spec = scopes;
            spec["hard"] = json!({"limits.cpu": "4"});
            let quota = json!({"metadata": {"name": "q"}, "spec": spec});
            let mut pod = pod(&amounts("10m", None), &json!({}));
            change(&mut pod["spec"]);
            !obstacles_of(&PodDemand::of(&pod), &shop(&[]), &[], &[quota]).is_empty()
        };
        let job = |spec: &mut Value| spec["activeDeadlineSeconds"] = json!(60);
        let urgent = |spec: &mut Value| spec["priorityClassName"] = json!("high");
        let plain = |_: &mut Value| {};
        let class = |operator: &str, values: &[&str]| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values},
            ]}})
        };
        assert!(counts(json!({"scopes": ["Terminating"]}), job));
        assert!(!counts(json!({"scopes": ["Terminating"]}), plain));
        assert!(!counts(json!({"scopes": ["NotTerminating"]}), job));
        assert!(!counts(json!({"scopes": ["BestEffort"]}), plain));
        assert!(counts(class("In", &["low", "high"]), urgent));
        assert!(!counts(class("In", &["low"]), urgent));
        assert!(!counts(class("In", &["high"]), plain));
        assert!(counts(class("NotIn", &["low"]), plain));
        assert!(counts(class("DoesNotExist", &[]), plain));
        assert!(counts(json!({"scopes": ["PriorityClass"]}), urgent));
        let beside = |spec: &mut Value| {
            spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!([{"topologyKey": "zone", "namespaces": ["bank"]}]);
        };
        assert!(counts(
            json!({"scopes": ["CrossNamespacePodAffinity"]}),
            beside
        ));
        assert!(!counts(
            json!({"scopes": ["CrossNamespacePodAffinity"]}),
            plain
        ));
    }

    #[test]
    fn pod_limit_range_that_proxy_breaks_is_reported() {
        let found = |item: Value, proxy: &Value, application: &Value| {
            let mut range = json!({"metadata": {"name": "r"}, "spec": {"limits": [item]}});
            range["spec"]["limits"][0]["type"] = json!("Pod");
            let demand = PodDemand::of(&pod(proxy, application));
            obstacles_of(&demand, &shop(&[]), &[range], &[])
        };
        let (small, app) = (amounts("10m", None), amounts("1", Some("2")));
        let limited = amounts("10m", Some("200m"));
        let max = || json!({"max": {"cpu": "2"}});
        // Without a limit of its own it adds none.
        assert!(found(max(), &small, &app).is_empty());
        let sentences = found(max(), &limited, &app);
        assert_eq!(sentences.len(), 1, "{sentences:?}");
        for words in [
            "LimitRange r allows a pod cpu of 2 at most",
            "request of 10m and limit of 200m",
            "weft.dev/proxy-cpu-request and weft.dev/proxy-cpu-limit of Namespace shop",
        ] {
            assert!(sentences[0].contains(words), "{words}: {sentences:?}");
        }
        // What is refused without the proxy as well is not its doing.
        let large = amounts("3", Some("3"));
        assert!(found(max(), &limited, &large).is_empty());
        let min = || json!({"min": {"cpu": "1"}});
        assert!(found(min(), &small, &app).is_empty());
        // The only limit of the pod is the proxy's, and too small.
        assert_eq!(found(min(), &limited, &amounts("1", None)).len(), 1);
        let ratio = || json!({"maxLimitRequestRatio": {"cpu": "2"}});
        assert!(found(ratio(), &small, &app).is_empty());
        assert_eq!(found(ratio(), &limited, &app).len(), 1);
    }
}
