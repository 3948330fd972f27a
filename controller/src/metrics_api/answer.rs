//! Evaluates a query of the metrics API to its result.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use model::world::{ObjectKey, SplitFacts, Store};
use parking_lot::RwLock;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::aggregate::{Totals, View};
use super::query::{Continue, MetricsPath, Parameters, Side};
use super::render::{Backend, Frame, Item, Page, missing, reference};
use crate::aggregated::refusal::Refusal;
use crate::inventory::kind::MetricsKind;
use crate::inventory::{Inventory, InventoryObject};
use crate::latest_model::LatestModel;
use crate::observe::reports::{INTERVAL, Reports};

/// Items of one answer without a limit of the client's; a cluster of 20 000 pods sends all of them
/// in one go.
const MAX_ITEMS: usize = 20_000;

/// Why a part of the window is missing, and what to do about it.
type Shortage = (&'static str, &'static str);

/// All pods together are too many.
const FULL: Shortage = (
    "proxies report more than this replica may hold",
    "raise the controller's memory limit, which its bounds follow",
);
/// Pods of what is queried have more than their share.
const HOARDS: Shortage = (
    "its pods report more than their share of what this replica may hold",
    "the controller's log names them; if they are honest, raise its memory limit",
);

/// An answer, and what has to be said beside it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsAnswer {
    /// As Kubernetes clients read it.
    pub body: Value,
    /// For the header `Warning`, which kubectl prints.
    pub warning: Option<String>,
}

impl From<Value> for MetricsAnswer {
    fn from(body: Value) -> Self {
        Self {
            body,
            warning: None,
        }
    }
}

/// Everything that answers are made of. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// Which objects there are.
    pub inventory: Arc<RwLock<Inventory>>,
    /// What proxies reported.
    pub reports: Reports,
    /// Backends of TrafficSplits.
    pub latest: LatestModel,
}

impl Sources {
    /// Answers one query, as JSON; with `table` in the form that `kubectl get` prints. Intervals
    /// that were dropped early are not shown: the window begins after them, so that sums and window
    /// fit together. What a pod lost that hoards shortens the window of its own workload only;
    /// elsewhere it is a warning.
    ///
    /// # Errors
    /// When there is nothing to show, or the query is wrong.
    pub(crate) fn answer(
        &self,
        path: &MetricsPath,
        parameters: &Parameters,
        table: bool,
        now: SystemTime,
    ) -> Result<MetricsAnswer, Refusal> {
        let requested = parameters.intervals(now);
        let first = requested.0.max(self.reports.whole_from());
        let gaps = self.gaps(path, parameters, first);
        let intervals = (first.max(gaps.own), requested.1);
        let (why, way_out) = if gaps.own > first { HOARDS } else { FULL };
        if intervals.0 >= intervals.1 {
            let message = format!("{why}: nothing of the window is left; {way_out}");
            let code = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Refusal::new(code, "ServiceUnavailable", message));
        }
        let window = (intervals.1 - intervals.0) * INTERVAL;
        let cut = (intervals != requested)
            .then(|| format!("only the last {window}s of the window are shown: {why}; {way_out}"));
        let warnings: Vec<String> = cut.into_iter().chain(gaps.warning()).collect();
        let body = self.body_of(path, parameters, table, intervals)?;
        Ok(MetricsAnswer {
            body,
            warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
        })
    }

    /// What hoarders lost, from interval `first` on, of what is queried.
    fn gaps(&self, path: &MetricsPath, parameters: &Parameters, first: u64) -> Gaps {
        let inventory = self.inventory.read();
        let mut gaps = Gaps::default();
        let by_callers = side(path, parameters) == Side::Client;
        // A node or a namespace is shared by many: one pod must not take its window.
        let alone = path.name.is_some() && path.kind.namespaced();
        for (reporter, whole_from) in self.reports.hoarders(first) {
            let of = inventory.of(path.kind, &reporter.pod, &reporter.uid);
            let own = of.is_some_and(|of| path.is_about(&of)) && (path.edges || !by_callers);
            if own && alone {
                gaps.own = gaps.own.max(whole_from);
            } else if own || path.edges || by_callers {
                // Any pod may be a caller, and alone knows what it called.
                gaps.pods += 1;
            }
        }
        gaps
    }

    fn body_of(
        &self,
        path: &MetricsPath,
        parameters: &Parameters,
        table: bool,
        intervals: (u64, u64),
    ) -> Result<Value, Refusal> {
        let frame = Frame {
            version: path.version,
            timestamp: rfc3339(intervals.1 * INTERVAL)?,
            window: (intervals.1 - intervals.0) * INTERVAL,
        };
        let inventory = self.inventory.read();
        let view = View {
            inventory: &inventory,
            reports: &self.reports,
            intervals,
        };
        let requested = MetricsRequest {
            view,
            path,
            parameters,
            splits: self.splits(),
        };
        let items = requested.items()?;
        // One item for one object; a TrafficSplit has one for each backend.
        let single = path.name.is_some() && !path.edges && path.kind != MetricsKind::TrafficSplit;
        if let ([item], true) = (items.as_slice(), single) {
            return Ok(if table {
                frame.table(&Page::default(), &items)
            } else {
                frame.object(item)
            });
        }
        let (page, items) = paged(items, parameters, intervals.1)?;
        if table {
            return Ok(frame.table(&page, &items));
        }
        let selector = parameters.label_selector();
        let selector = selector.and_then(|selector| serde_json::to_value(selector).ok());
        Ok(frame.list(&about(path), selector, &page, &items))
    }

    fn splits(&self) -> Store<SplitFacts> {
        let latest = self.latest.borrow();
        let splits = latest.as_ref().map(|compiled| &compiled.world.splits);
        splits.map(Arc::clone).unwrap_or_default()
    }
}

/// What is missing because pods reported more than their share.
#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    /// The first interval from which on the pods of the one object that is queried are complete.
    own: u64,
    /// Other pods of whose reports something would be in the answer.
    pods: usize,
}

impl Gaps {
    fn warning(self) -> Option<String> {
        let pods = self.pods;
        (pods > 0).then(|| {
            format!(
                "some calls of pods are missing that report more than their share of what this \
                 replica may hold, {pods} in number; the controller's log names them"
            )
        })
    }
}

struct MetricsRequest<'a> {
    view: View<'a>,
    path: &'a MetricsPath,
    parameters: &'a Parameters,
    splits: Store<SplitFacts>,
}

impl MetricsRequest<'_> {
    fn items(&self) -> Result<Vec<Item>, Refusal> {
        let kind = self.path.kind;
        let inventory = self.view.inventory;
        let Some(name) = &self.path.name else {
            let totals = self.view.totals(kind, self.side());
            let namespace = self.path.namespace.as_deref();
            let listed = inventory.list(kind, namespace).filter(
                |(_, thing): &(&ObjectKey, &InventoryObject)| {
                    self.parameters.selects(&thing.labels)
                },
            );
            return Ok(listed.flat_map(|(key, _)| self.of(key, &totals)).collect());
        };
        let key = ObjectKey::new(self.path.namespace.as_deref().unwrap_or_default(), name);
        if inventory.get(kind, &key).is_none() {
            return Err(missing(kind, name));
        }
        if self.path.edges {
            return Ok(self.edges(&key));
        }
        Ok(self.of(&key, &self.view.totals(kind, self.side())))
    }

    fn side(&self) -> Side {
        side(self.path, self.parameters)
    }

    /// The items of one object.
    fn of(&self, key: &ObjectKey, totals: &Totals) -> Vec<Item> {
        let item = |backend: Option<Backend>, in_totals: &str| Item {
            kind: self.path.kind,
            object: key.clone(),
            edge: None,
            side: self.side(),
            backend,
            sums: totals
                .get(&(key.clone(), in_totals.to_owned()))
                .cloned()
                .unwrap_or_default(),
        };
        if self.path.kind != MetricsKind::TrafficSplit {
            return vec![item(None, "")];
        }
        let backends = self.backends(key).into_iter();
        backends
            .map(|backend| {
                let name = backend.name.clone();
                item(Some(backend), &name)
            })
            .collect()
    }

    fn backends(&self, split: &ObjectKey) -> Vec<Backend> {
        let Some(split) = self.splits.get(split) else {
            return Vec::new();
        };
        let mut backends: Vec<Backend> = Vec::new();
        for backend in &split.spec.backends {
            let name = short(&backend.service.written).to_owned();
            match backends.iter_mut().find(|known| known.name == name) {
                // Named twice: its weights add up.
                Some(known) => known.weight = known.weight.saturating_add(backend.weight.into()),
                None => backends.push(Backend {
                    apex: short(&split.spec.root.written).to_owned(),
                    name,
                    weight: backend.weight.into(),
                }),
            }
        }
        backends
    }

    fn edges(&self, key: &ObjectKey) -> Vec<Item> {
        let kind = self.path.kind;
        // What has no pods itself is called by workloads.
        let usual = if kind.has_pods() {
            kind
        } else {
            MetricsKind::Deployment
        };
        let ends = self.parameters.edge_kind.unwrap_or(usual);
        let backends = self.backends(key);
        let edges = self
            .view
            .edges(&(kind, key.clone()), self.parameters.side, ends);
        edges
            .into_iter()
            .map(|(edge, sums)| Item {
                kind,
                object: key.clone(),
                side: edge.side,
                backend: backends
                    .iter()
                    .find(|backend| backend.name == edge.backend)
                    .cloned(),
                edge: Some(edge),
                sums,
            })
            .collect()
    }
}

/// Where what is queried was measured.
fn side(path: &MetricsPath, parameters: &Parameters) -> Side {
    let usual = if path.kind.has_pods() {
        Side::Server
    } else {
        Side::Client
    };
    parameters.side.unwrap_or(usual)
}

/// The name of a Service however it is written.
fn short(service: &str) -> &str {
    service.split('.').next().unwrap_or(service)
}

/// What a list is of.
fn about(path: &MetricsPath) -> Value {
    let kind = path.kind;
    let mut about = match &path.name {
        Some(name) => {
            let namespace = path.namespace.as_deref().unwrap_or_default();
            reference(kind, &ObjectKey::new(namespace, name))
        }
        None => json!({"kind": kind.name()}),
    };
    about["apiVersion"] = json!(kind.api_version());
    if let Some(namespace) = &path.namespace {
        about["namespace"] = json!(namespace);
    }
    about
}

/// The page that was requested. Later pages show the same window.
fn paged(
    mut items: Vec<Item>,
    parameters: &Parameters,
    end: u64,
) -> Result<(Page, Vec<Item>), Refusal> {
    let seen = parameters.from.map_or(0, |from| from.seen).min(items.len());
    items.drain(..seen);
    let limit = match parameters.limit {
        0 if items.len() > MAX_ITEMS => {
            let message = format!("more than {MAX_ITEMS} items: ask for pages with limit");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", message));
        }
        0 => items.len(),
        limit => limit,
    };
    let remaining = items.len().saturating_sub(limit);
    items.truncate(limit);
    let next = (remaining > 0).then(|| {
        let seen = seen + limit;
        Continue { end, seen }.token()
    });
    Ok((Page { next, remaining }, items))
}

fn rfc3339(seconds: u64) -> Result<String, Refusal> {
    let at = OffsetDateTime::from(UNIX_EPOCH + Duration::from_secs(seconds.min(u32::MAX.into())));
    at.format(&Rfc3339).map_err(|error| {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("the time cannot be written: {error}"),
        )
    })
}
