//! Responses of the metrics API, as Kubernetes clients read them: objects, lists, tables,
//! refusals.

use http::StatusCode;
use model::world::ObjectKey;
use serde_json::{Value, json};

use super::aggregate::{Direction, EdgeEnd, EdgeOf, ItemTotals};
use super::query::{GROUP, Mistake, Side};
use crate::aggregated::refusal::Refusal;
use crate::inventory::kind::MetricsKind;

/// One item of an answer, before it has a shape.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Kind of the object.
    pub kind: MetricsKind,
    /// The object.
    pub object: ObjectKey,
    /// The edge; `None` for everything that the object receives.
    pub edge: Option<EdgeOf>,
    /// Where everything was measured.
    pub side: Side,
    /// Of a TrafficSplit.
    pub backend: Option<Backend>,
    /// What was counted.
    pub sums: ItemTotals,
}

/// One backend of a TrafficSplit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// Root Service.
    pub apex: String,
    /// Backend.
    pub name: String,
    /// Its weight now.
    pub weight: i64,
}

/// What all items of an answer share.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// `v1alpha1` or `v1alpha2`.
    pub version: &'static str,
    /// End of the window, RFC 3339.
    pub timestamp: String,
    /// Length of the window in seconds.
    pub window: u64,
}

/// Quantiles by name, in the order that clients know.
const LATENCIES: [(&str, f64); 3] = [
    ("p99_response_latency", 0.99),
    ("p90_response_latency", 0.90),
    ("p50_response_latency", 0.50),
];

impl Frame {
    fn api_version(&self) -> String {
        format!("{GROUP}/{}", self.version)
    }

    /// One object.
    pub(crate) fn object(&self, item: &Item) -> Value {
        let mut metrics: Vec<Value> = LATENCIES
            .iter()
            .map(|(name, share)| json!({"name": name, "unit": "ms", "value": millis(&item.sums, *share)}))
            .collect();
        for (name, count) in [
            ("success_count", item.sums.success),
            ("failure_count", item.sums.failure),
        ] {
            metrics.push(json!({"name": name, "value": count.to_string()}));
        }
        let mut object = json!({
            "kind": "TrafficMetrics",
            "apiVersion": self.api_version(),
            "metadata": self.metadata(item),
            "timestamp": self.timestamp,
            "window": format!("{}s", self.window),
            "resource": reference(item.kind, &item.object),
            "edge": edge(item),
            "metrics": metrics,
        });
        if let Some(backend) = &item.backend {
            object["backend"] = json!({
                "apex": backend.apex, "name": backend.name, "weight": backend.weight,
            });
        }
        object
    }

    fn metadata(&self, item: &Item) -> Value {
        let mut metadata = json!({
            "name": &*item.object.name,
            "creationTimestamp": self.timestamp,
            "selfLink": self.link(item),
        });
        if item.kind.namespaced() {
            metadata["namespace"] = json!(&*item.object.namespace);
        }
        metadata
    }

    fn link(&self, item: &Item) -> String {
        let (plural, name) = (item.kind.plural(), &item.object.name);
        let edges = if item.edge.is_some() { "/edges" } else { "" };
        let namespace = if item.kind.namespaced() {
            format!("namespaces/{}/", item.object.namespace)
        } else {
            String::new()
        };
        format!(
            "/apis/{}/{namespace}{plural}/{name}{edges}",
            self.api_version()
        )
    }

    /// A list of `items`; `about` names what the list is of.
    pub(crate) fn list(
        &self,
        about: &Value,
        selector: Option<Value>,
        page: &Page,
        items: &[Item],
    ) -> Value {
        let mut list = json!({
            "kind": "TrafficMetricsList",
            "apiVersion": self.api_version(),
            "metadata": page.metadata(),
            "resource": about,
            "items": items.iter().map(|item| self.object(item)).collect::<Vec<_>>(),
        });
        if let Some(selector) = selector {
            list["selector"] = selector;
        }
        list
    }

    /// The same for people: what `kubectl get` prints.
    pub(crate) fn table(&self, page: &Page, items: &[Item]) -> Value {
        let columns = [
            ("Name", "string", 0, "Name of the object."),
            ("Backend", "string", 0, "Backend that a TrafficSplit chose."),
            (
                "Direction",
                "string",
                1,
                "from: calls that the object receives; to: calls that it makes.",
            ),
            (
                "Other End",
                "string",
                0,
                "The caller or the called object; * for all.",
            ),
            ("Success", "integer", 0, "Calls that went well."),
            ("Failure", "integer", 0, "Calls that did not."),
            (
                "P50",
                "string",
                0,
                "Half of the requests took at most this long.",
            ),
            (
                "P90",
                "string",
                1,
                "Nine of ten requests took at most this long.",
            ),
            (
                "P99",
                "string",
                0,
                "99 of 100 requests took at most this long.",
            ),
            (
                "Side",
                "string",
                1,
                "Where it was measured: client or server.",
            ),
            (
                "Window",
                "string",
                1,
                "Length of the window that is counted.",
            ),
        ];
        let backends = items.iter().any(|item| item.backend.is_some());
        let edges = items.iter().any(|item| item.edge.is_some());
        // A column that can only be empty helps no reader.
        let shown = |name: &str| match name {
            "Backend" => backends,
            "Other End" => edges,
            _ => true,
        };
        let definitions: Vec<Value> = columns
            .iter()
            .filter(|(name, ..)| shown(name))
            .map(|(name, kind, priority, description)| {
                let format = if *name == "Name" { "name" } else { "" };
                let priority = if *name == "Direction" && edges { 0 } else { *priority };
                json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
            })
            .collect();
        let rows: Vec<Value> = items
            .iter()
            .map(|item| {
                let cells: Vec<Value> = columns
                    .iter()
                    .filter(|(name, ..)| shown(name))
                    .map(|(name, ..)| self.cell(name, item))
                    .collect();
                let object = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": self.metadata(item),
                });
                json!({"cells": cells, "object": object})
            })
            .collect();
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": page.metadata(),
            "columnDefinitions": definitions, "rows": rows,
        })
    }

    fn cell(&self, column: &str, item: &Item) -> Value {
        let quantile = |share| match item.sums.latency.quantile(share) {
            Some(seconds) => json!(human(seconds)),
            None => json!("-"),
        };
        match column {
            "Name" => json!(&*item.object.name),
            "Backend" => json!(item.backend.as_ref().map(|backend| &backend.name)),
            "Direction" => json!(direction(item).as_str()),
            "Other End" => json!(
                item.edge
                    .as_ref()
                    .map_or("*".to_owned(), |edge| words(&edge.end))
            ),
            "Success" => json!(item.sums.success),
            "Failure" => json!(item.sums.failure),
            "P50" => quantile(0.5),
            "P90" => quantile(0.9),
            "P99" => quantile(0.99),
            "Side" => json!(side(item).as_str()),
            _ => json!(format!("{}s", self.window)),
        }
    }
}

/// Where a list stops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    /// Token for the rest.
    pub next: Option<String>,
    /// Items in the rest.
    pub remaining: usize,
}

impl Page {
    fn metadata(&self) -> Value {
        match &self.next {
            Some(next) => json!({"continue": next, "remainingItemCount": self.remaining}),
            None => json!({}),
        }
    }
}

/// An ObjectReference.
pub(crate) fn reference(kind: MetricsKind, key: &ObjectKey) -> Value {
    let mut reference = json!({"kind": kind.name()});
    if kind.namespaced() {
        reference["namespace"] = json!(&*key.namespace);
    }
    reference["name"] = json!(&*key.name);
    reference
}

fn direction(item: &Item) -> Direction {
    item.edge
        .as_ref()
        .map_or(Direction::From, |edge| edge.direction)
}

fn side(item: &Item) -> Side {
    item.edge.as_ref().map_or(item.side, |edge| edge.side)
}

fn edge(item: &Item) -> Value {
    let other = match item.edge.as_ref().map(|edge| &edge.end) {
        None => json!({}),
        Some(EdgeEnd::Object(kind, key)) => reference(*kind, key),
        Some(EdgeEnd::Namespace(namespace)) => json!({"namespace": namespace}),
        Some(EdgeEnd::External) => json!({"kind": "External"}),
    };
    json!({"direction": direction(item).as_str(), "side": side(item).as_str(), "resource": other})
}

fn words(end: &EdgeEnd) -> String {
    match end {
        EdgeEnd::Object(kind, key) if key.namespace.is_empty() => {
            format!("{}/{}", kind.name().to_lowercase(), key.name)
        }
        EdgeEnd::Object(kind, key) => {
            format!(
                "{}/{}.{}",
                kind.name().to_lowercase(),
                key.name,
                key.namespace
            )
        }
        EdgeEnd::Namespace(namespace) => format!("namespace/{namespace}"),
        EdgeEnd::External => "external".to_owned(),
    }
}

/// Milliseconds as a quantity: whole ones as they are, others in thousandths.
fn millis(sums: &ItemTotals, share: f64) -> String {
    let micros = sums.latency.quantile(share).unwrap_or(0.0) * 1e6;
    // At most 30 s, so that neither sign nor size can be lost.
    let micros = std::time::Duration::from_secs_f64(micros.round()).as_secs();
    if micros.is_multiple_of(1000) {
        (micros / 1000).to_string()
    } else {
        format!("{micros}m")
    }
}

fn human(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.1}ms", seconds * 1e3)
    } else {
        format!("{seconds:.2}s")
    }
}

/// No object of that name.
pub(crate) fn missing(kind: MetricsKind, name: &str) -> Refusal {
    let message = format!("{} {name:?} not found", kind.plural());
    Refusal {
        about: Some((kind.plural(), name.to_owned())),
        ..Refusal::new(StatusCode::NOT_FOUND, "NotFound", message)
    }
}

impl From<Mistake> for Refusal {
    fn from(mistake: Mistake) -> Self {
        match mistake {
            Mistake::NotFound => Self::no_such_path(),
            Mistake::BadParameter(name, why) => Self::bad(format!("parameter {name}: {why}")),
            Mistake::Expired(name, why) => {
                let message = format!("parameter {name}: {why}");
                Self::new(StatusCode::GONE, "Expired", message)
            }
        }
    }
}
