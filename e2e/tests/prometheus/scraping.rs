//! Prometheus' own relabelling makes `workload` of what Kubernetes says of a pod, for the
//! PodMonitor and for the configuration on the page alike.
//!
//! Claims: observe-84

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use e2e::harness::{Outcome, mesh};
use serde_json::{Map, Value, json};

use crate::programs::{folder, output, rendered, write};
use crate::sources;

/// Kind and name of what made a pod.
type Maker = (&'static str, &'static str);

/// Pods with what made them, and the workload that they are.
const PODS: [(&str, Option<Maker>, &str); 7] = [
    (
        "web-7d9f5c6b8-x2x4z",
        Some(("ReplicaSet", "web-7d9f5c6b8")),
        "web",
    ),
    ("db-0", Some(("StatefulSet", "my-db")), "my-db"),
    (
        "agent-x2x4z",
        Some(("DaemonSet", "agent-20260101")),
        "agent-20260101",
    ),
    (
        "nightly-28391823-abcde",
        Some(("Job", "nightly-28391823")),
        "nightly",
    ),
    // A date is no minute since 1970.
    (
        "dump-20260101-abcde",
        Some(("Job", "dump-20260101")),
        "dump-20260101",
    ),
    ("once-1-abcde", Some(("Job", "once-1")), "once-1"),
    ("bare", None, "bare"),
];

/// Targets as the discovery of Kubernetes labels them; the last is no port of a proxy.
fn targets() -> Vec<Value> {
    let target = |pod: &str, port: &str, maker: Option<Maker>| {
        let mut labels = Map::new();
        let mut label = |name: &str, value: &str| {
            labels.insert(format!("__meta_kubernetes_{name}"), json!(value));
        };
        label("namespace", "shop");
        label("pod_name", pod);
        label("pod_container_port_name", port);
        if let Some((kind, name)) = maker {
            label("pod_controller_kind", kind);
            label("pod_controller_name", name);
        }
        json!({"targets": [format!("{pod}:15190")], "labels": labels})
    };
    let mut targets: Vec<Value> = PODS
        .iter()
        .map(|(pod, maker, _)| target(pod, "weft-admin", *maker))
        .collect();
    targets.push(target("application", "http", None));
    targets
}

/// Labels by address, of the targets that are left.
fn relabelled(name: &str, rules: &Value) -> anyhow::Result<BTreeMap<String, Value>> {
    let folder = folder(name)?;
    let discovered = write(&folder, "targets.json", &json!(targets()))?;
    let config = json!({"scrape_configs": [{
        "job_name": "weft-proxies",
        "file_sd_configs": [{"files": [discovered]}],
        "relabel_configs": rules,
    }]});
    let config = write(&folder, "prometheus.json", &config)?;
    let args = [
        "check",
        "service-discovery",
        "--timeout=2s",
        &config,
        "weft-proxies",
    ];
    let labels: Vec<Value> = serde_json::from_str(&output("promtool", &args)?)?;
    ensure!(labels.len() == PODS.len() + 1, "{labels:?}");
    let kept = labels
        .into_iter()
        .filter(|target| target["labels"]["__address__"].is_string());
    kept.map(|target| {
        let address = target["labels"]["__address__"]
            .as_str()
            .context("no address")?;
        Ok((address.to_owned(), target["labels"].clone()))
    })
    .collect()
}

fn assert_workloads(labels: &BTreeMap<String, Value>) {
    for (pod, _, workload) in PODS {
        let of = &labels[&format!("{pod}:15190")];
        assert_eq!(of["workload"], workload, "{pod}");
    }
}

/// `sourceLabels` as Prometheus spells it.
fn spelled(rule: &Value) -> Value {
    let fields = rule.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| {
        let name = match name.as_str() {
            "sourceLabels" => "source_labels",
            "targetLabel" => "target_label",
            other => other,
        };
        (name.to_owned(), value.clone())
    });
    Value::Object(fields.collect())
}

#[test]
fn the_pod_monitor_names_the_workload_of_every_pod() -> Outcome {
    let objects = rendered(&mesh::chart(), &["monitoring.podMonitor=true"], &[])?;
    let monitor = objects.iter().find(|object| object["kind"] == "PodMonitor");
    let endpoint = &monitor.context("no PodMonitor")?["spec"]["podMetricsEndpoints"][0];
    let rules = endpoint["relabelings"]
        .as_array()
        .context("no relabelings")?;
    let rules: Vec<Value> = rules.iter().map(spelled).collect();
    assert_workloads(&relabelled("pod-monitor", &json!(rules))?);
    // Control: without the rules there is no such label.
    let bare = relabelled("no-rules", &json!([]))?;
    assert!(bare.values().all(|labels| labels["workload"].is_null()));
    Ok(())
}

#[test]
fn documented_scrape_config_labels_and_keeps_only_proxies() -> Outcome {
    let page = sources::read("docs/monitoring.md")?;
    let block = page
        .split_once("```yaml\n")
        .and_then(|(_, rest)| rest.split_once("```"));
    let config: Value = serde_yaml_ng::from_str(block.context("no configuration")?.0)?;
    let labels = relabelled("page", &config["scrape_configs"][0]["relabel_configs"])?;
    assert_workloads(&labels);
    assert_eq!(labels.len(), PODS.len(), "{labels:?}");
    for labels in labels.values() {
        assert_eq!(labels["namespace"], "shop");
        assert!(labels["pod"].is_string(), "{labels}");
    }
    Ok(())
}
