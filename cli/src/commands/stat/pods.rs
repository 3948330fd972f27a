//! What each pod was sent. The graph counts pods under their workloads; the metrics API tells
//! them apart, so that the one that fails among many is found.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::cluster::names::Named;
use crate::cluster::nearest::{hint, nearest};
use crate::cluster::{Cluster, Refusal, existing};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{self, Format, number};

/// Where the API stands, in the version that it prefers.
const API: &str = "/apis/metrics.smi-spec.io/v1alpha2";
/// As its answers are called.
const ANSWER: &str = "TrafficMetrics of pods";

/// What was sent to one pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    resource: Object,
    /// Such as `60s`.
    window: String,
    metrics: Vec<Metric>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metric {
    name: String,
    /// A quantity: `7`, or `7250m`.
    value: String,
}

/// Prints a row per pod that something was sent to. False where the API knows no pod, and
/// where it has no answer, which is told then: the graph may have one.
pub(super) async fn print(
    cluster: &Cluster,
    resource: &Named,
    window: Duration,
    format: Format,
    console: &mut Console<'_>,
) -> Result<bool, Failure> {
    let scope = cluster.scope();
    let scope = scope.map_or_else(String::new, |name| format!("/namespaces/{name}"));
    // As callers saw it: what cannot be reached counts nothing itself.
    let path = format!("{API}{scope}/pods?t={}s&side=client", window.as_secs());
    let mut list = match cluster.try_read::<Value>(ANSWER, &path).await {
        Ok(list) => list,
        Err(refusal) => {
            console.word(&without(refusal)?)?;
            return Ok(false);
        }
    };
    let items = list.get_mut("items").and_then(Value::as_array_mut);
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(false);
    };
    if let Some(name) = &resource.name {
        let known = items.iter().filter_map(name_of);
        let hint = hint(nearest(name, known).map(|meant| format!("pod/{meant}")));
        items.retain(|item| name_of(item) == Some(name.as_str()));
        // A controller may not know the newest yet.
        let is_there = async || {
            let read = existing::try_read(cluster, resource.kind, name).await;
            matches!(read, Ok(Some(_)))
        };
        if items.is_empty() && !is_there().await {
            let scope = cluster.scope_label();
            return Err(Failure::usage(format!(
                "there is no Pod {name} {scope}{hint}"
            )));
        }
    }
    let pods: Result<Vec<Pod>, _> = items.iter().map(Pod::deserialize).collect();
    if output::data(console, format, &list)? {
        return Ok(true);
    }
    let pods = pods.map_err(|error| Failure::unknown(format!("{ANSWER}: {error}")))?;
    let table = table(&pods, scope.is_empty(), format);
    if table.is_empty() {
        console.word(&format!("no calls in the last {} s", window.as_secs()))?;
    } else {
        table.write(console.out, console.color)?;
    }
    Ok(true)
}

/// Why the graph is asked instead: the API is not served, or refuses this question or whoever
/// asks it.
///
/// # Errors
/// When the graph would have no answer either.
fn without(refusal: Refusal) -> Result<String, Failure> {
    if refusal.is_missing() {
        return Ok(
            "API group metrics.smi-spec.io is not served (value metricsApi.enabled), and \
             without it the pods of a workload are counted under it"
                .to_owned(),
        );
    }
    let refused = matches!(refusal.code(), Some(400 | 403));
    let why = refusal.into_failure();
    if refused {
        Ok(format!(
            "{why}; the pods of a workload are counted under it"
        ))
    } else {
        Err(why)
    }
}

fn name_of(item: &Value) -> Option<&str> {
    item["resource"]["name"].as_str()
}

fn table(pods: &[Pod], all: bool, format: Format) -> Table {
    let mut head = Vec::new();
    if all {
        head.push("NAMESPACE");
    }
    head.extend(["NAME", "SUCCESS", "RPS", "P50", "P90", "P99"]);
    if format == Format::Wide {
        head.extend(["TRIES", "FAILURES"]);
    }
    let mut table = Table::new(&head);
    for pod in pods {
        let count = |name: &str| pod.metric(name).and_then(|text| text.parse().ok());
        let success: u64 = count("success_count").unwrap_or_default();
        let failure: u64 = count("failure_count").unwrap_or_default();
        let tries = success + failure;
        if tries == 0 {
            continue;
        }
        let seconds = number::duration(&pod.window).unwrap_or_default();
        let mut row: Vec<Cell> = Vec::new();
        if all {
            row.push(pod.resource.namespace.clone().into());
        }
        row.push(pod.resource.name.clone().into());
        row.push(number::share(success, tries));
        row.push(number::rate(tries, seconds.as_secs_f64()).into());
        for share in ["p50", "p90", "p99"] {
            let ms = pod.metric(&format!("{share}_response_latency"));
            // Of bytes nobody tells a latency, and 0 is written.
            let ms = ms.and_then(quantity).filter(|ms| *ms > 0.0);
            row.push(number::millis(ms).into());
        }
        if format == Format::Wide {
            row.extend([tries, failure].map(|number| Cell::from(number.to_string())));
        }
        table.row(row);
    }
    table
}

impl Pod {
    fn metric(&self, name: &str) -> Option<&str> {
        let metric = self.metrics.iter().find(|metric| metric.name == name)?;
        Some(&metric.value)
    }
}

/// A quantity, which may be in thousandths.
fn quantity(text: &str) -> Option<f64> {
    match text.strip_suffix('m') {
        Some(thousandths) => Some(thousandths.parse::<f64>().ok()? / 1000.0),
        None => text.parse().ok(),
    }
}
