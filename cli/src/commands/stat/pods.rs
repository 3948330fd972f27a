//! Traffic of each single pod, from the metrics API. The graph counts pods under their workloads;
//! this finds the one that fails among many.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::groups::meshed_cell;
use super::listed::ListedPods;
use crate::cluster::existing::PAGE;
use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::nearest::nearest;
use crate::cluster::{Cluster, Refusal, existing};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{self, Format, number};

/// Where the API stands, in the version that it prefers.
const API: &str = "/apis/metrics.smi-spec.io/v1alpha2";
/// The name of its responses.
const ANSWER: &str = "TrafficMetrics of pods";

/// By namespace and name.
type Rows = BTreeMap<(String, String), Row>;

/// A pod as it is shown.
#[derive(Debug)]
struct Row {
    sent: Pod,
    /// Whether it has a proxy, where that is known.
    meshed: Option<bool>,
}

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

/// Prints a row per pod, called or not. False if the API knows no pod, and if it has no result,
/// which is reported then: the graph may have one.
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
    let (answer, listed) = futures::join!(
        cluster.try_read::<Value>(ANSWER, &path),
        ListedPods::fetch(cluster, resource.name.as_deref()),
    );
    let mut list = match answer {
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
    let (listed, unlisted) = match listed {
        Ok(listed) => (listed, None),
        Err(why) => (None, Some(why)),
    };
    if let Some(name) = &resource.name {
        let wanted = (resource.kind, name.as_str());
        retain(cluster, wanted, items, listed.as_ref()).await?;
    }
    let pods: Result<Vec<Pod>, _> = items.iter().map(Pod::deserialize).collect();
    if output::data(console, format, &list)? {
        return Ok(true);
    }
    let pods = pods.map_err(|error| Failure::unknown(format!("{ANSWER}: {error}")))?;
    let rows = rows(pods, listed.as_ref(), cluster.namespace(), window);
    let table = table(&rows, scope.is_empty(), format);
    if table.is_empty() {
        console.word(&format!("no calls in the last {} s", window.as_secs()))?;
    } else {
        table.write(console.out, console.color)?;
    }
    if let Some(why) = unlisted {
        console.word(&format!(
            "{why}; without it MESHED is not known, nor pods that no controller knows"
        ))?;
    }
    if listed.is_some_and(|listed| listed.is_cut) {
        console.word(&format!(
            "there are more than {PAGE} pods: of the others MESHED is not known, and those that no \
             controller knows are left out; pod/NAME shows one"
        ))?;
    }
    Ok(true)
}

/// Leaves the data of one pod.
///
/// # Errors
/// When there is no such pod, with the nearest that has data, or else that exists.
async fn retain(
    cluster: &Cluster,
    (kind, name): (ResourceKind, &str),
    items: &mut Vec<Value>,
    listed: Option<&ListedPods>,
) -> Result<(), Failure> {
    let known = items.iter().filter_map(name_of);
    let meant = nearest(name, known).map(|meant| format!("pod/{meant}"));
    items.retain(|item| name_of(item) == Some(name));
    // A controller may not know the newest yet.
    if !items.is_empty() || listed.is_some_and(|listed| listed.meshed.contains_key(name)) {
        return Ok(());
    }
    if let Ok(Some(_)) = existing::try_read(cluster, kind, name).await {
        return Ok(());
    }
    let meant = match meant {
        Some(meant) => Some(meant),
        None => existing::nearest_of(cluster, kind, name).await,
    };
    Err(existing::no_such(cluster, (kind, name), meant))
}

/// Why the graph is queried instead: the API is not served, or refuses this query or its user.
///
/// # Errors
/// When the graph would have no result either.
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

/// The rows: the pods that have data, and in `namespace` those that are listed.
/// One that has gone has a row as long as there are calls to it in the window.
fn rows(pods: Vec<Pod>, listed: Option<&ListedPods>, namespace: &str, window: Duration) -> Rows {
    let mut rows = Rows::new();
    for sent in pods {
        let Object { namespace, name } = &sent.resource;
        let meshed = listed.and_then(|listed| listed.meshed.get(name).copied());
        let is_gone = meshed.is_none() && listed.is_some_and(|listed| !listed.is_cut);
        if !is_gone || sent.tries() > 0 {
            let key = (namespace.clone(), name.clone());
            rows.insert(key, Row { sent, meshed });
        }
    }
    for (name, meshed) in listed.into_iter().flat_map(|listed| &listed.meshed) {
        let key = (namespace.to_owned(), name.clone());
        rows.entry(key).or_insert_with(|| Row {
            sent: Pod {
                window: format!("{}s", window.as_secs()),
                ..Pod::default()
            },
            meshed: Some(*meshed),
        });
    }
    rows
}

/// With the columns of other kinds, but for what the API does not know of a pod: it has p90 in
/// place of p95, and neither what is open nor which of its failures were refusals.
fn table(rows: &Rows, all: bool, format: Format) -> Table {
    let mut head = Vec::new();
    if all {
        head.push("NAMESPACE");
    }
    head.extend(["NAME", "MESHED", "SUCCESS", "RPS", "P50", "P90", "P99"]);
    head.extend(["OPEN", "REFUSED", "FAILED"]);
    if format == Format::Wide {
        head.extend(["TRIES", "FAILURES"]);
    }
    let mut table = Table::new(&head);
    for ((namespace, name), Row { sent, meshed }) in rows {
        let seconds = number::duration(&sent.window).unwrap_or_default();
        let mut row: Vec<Cell> = Vec::new();
        if all {
            row.push(namespace.clone().into());
        }
        row.push(name.clone().into());
        let meshed = meshed.map(|meshed| meshed_cell(u32::from(meshed), 1));
        row.push(meshed.unwrap_or_default());
        row.push(number::share(sent.count("success_count"), sent.tries()));
        row.push(number::rate(sent.tries(), seconds.as_secs_f64()).into());
        for share in ["p50", "p90", "p99"] {
            let ms = sent.metric(&format!("{share}_response_latency"));
            // Bytes have no latency, and 0 is written.
            let ms = ms.and_then(quantity).filter(|ms| *ms > 0.0);
            row.push(number::millis(ms).into());
        }
        row.extend([Cell::default(), Cell::default(), Cell::default()]);
        if format == Format::Wide {
            let counts = [sent.tries(), sent.count("failure_count")];
            row.extend(counts.map(|number| Cell::from(number.to_string())));
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

    /// 0 if it is not reported.
    fn count(&self, name: &str) -> u64 {
        let parsed = self.metric(name).and_then(|text| text.parse().ok());
        parsed.unwrap_or_default()
    }

    fn tries(&self) -> u64 {
        self.count("success_count")
            .saturating_add(self.count("failure_count"))
    }
}

/// A quantity, which may be in thousandths.
fn quantity(text: &str) -> Option<f64> {
    match text.strip_suffix('m') {
        Some(thousandths) => Some(thousandths.parse::<f64>().ok()? / 1000.0),
        None => text.parse().ok(),
    }
}
