//! From a question to its answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use parking_lot::RwLock;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::aggregate::{Totals, View};
use super::query::{Continue, Parameters, Path, Side};
use super::render::{Backend, Frame, Item, Page, missing, reference};
use crate::aggregated::refusal::Refusal;
use crate::inventory::kind::Kind;
use crate::inventory::{Inventory, Thing};
use crate::model::compiled::Latest;
use crate::observe::reports::{Reports, SLOT};
use crate::world::{ObjectKey, SplitFacts, Store};

/// Items of one answer without a limit of the client's; a cluster of 20 000 pods
/// asked for all of them in one go.
const MAX_ITEMS: usize = 20_000;

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
    pub latest: Latest,
}

impl Sources {
    /// Answers one question, as JSON; with `table` in the form that `kubectl get`
    /// prints. Of slots that went early nothing is told: the window begins after them,
    /// so that sums and window fit together.
    ///
    /// # Errors
    /// When there is nothing to tell, or the question is wrong.
    pub(crate) fn answer(
        &self,
        path: &Path,
        parameters: &Parameters,
        table: bool,
        now: SystemTime,
    ) -> Result<MetricsAnswer, Refusal> {
        let asked = parameters.slots(now);
        let slots = (asked.0.max(self.reports.whole_from()), asked.1);
        if slots.0 >= slots.1 {
            let message = "proxies report more than this replica may hold: nothing of the window \
                 is left. Ask for a shorter one (t), or raise the controller's memory limit, \
                 which its bounds follow"
                .to_owned();
            let code = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Refusal::new(code, "ServiceUnavailable", message));
        }
        let window = (slots.1 - slots.0) * SLOT;
        let warning = (slots != asked).then(|| {
            format!(
                "only the last {window}s of the window are told: proxies report more than this \
                 replica may hold; raise the controller's memory limit, which its bounds follow"
            )
        });
        let body = self.told(path, parameters, table, slots)?;
        Ok(MetricsAnswer { body, warning })
    }

    fn told(
        &self,
        path: &Path,
        parameters: &Parameters,
        table: bool,
        slots: (u64, u64),
    ) -> Result<Value, Refusal> {
        let frame = Frame {
            version: path.version,
            timestamp: rfc3339(slots.1 * SLOT)?,
            window: (slots.1 - slots.0) * SLOT,
        };
        let inventory = self.inventory.read();
        let view = View {
            inventory: &inventory,
            reports: &self.reports,
            slots,
        };
        let asked = Asked {
            view,
            path,
            parameters,
            splits: self.splits(),
        };
        let items = asked.items()?;
        // One item for one object; a TrafficSplit has one for each backend.
        let single = path.name.is_some() && !path.edges && path.kind != Kind::TrafficSplit;
        if let ([item], true) = (items.as_slice(), single) {
            return Ok(if table {
                frame.table(&Page::default(), &items)
            } else {
                frame.object(item)
            });
        }
        let (page, items) = paged(items, parameters, slots.1)?;
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

struct Asked<'a> {
    view: View<'a>,
    path: &'a Path,
    parameters: &'a Parameters,
    splits: Store<SplitFacts>,
}

impl Asked<'_> {
    fn items(&self) -> Result<Vec<Item>, Refusal> {
        let kind = self.path.kind;
        let inventory = self.view.inventory;
        let Some(name) = &self.path.name else {
            let totals = self.view.totals(kind, self.side());
            let namespace = self.path.namespace.as_deref();
            let listed = inventory
                .list(kind, namespace)
                .filter(|(_, thing): &(&ObjectKey, &Thing)| self.parameters.selects(&thing.labels));
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
        let usual = if self.path.kind.has_pods() {
            Side::Server
        } else {
            Side::Client
        };
        self.parameters.side.unwrap_or(usual)
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
        if self.path.kind != Kind::TrafficSplit {
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
            match backends.iter_mut().find(|held| held.name == name) {
                // Named twice: its weights add up.
                Some(held) => held.weight = held.weight.saturating_add(backend.weight.into()),
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
            Kind::Deployment
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

/// The name of a Service however it is written.
fn short(service: &str) -> &str {
    service.split('.').next().unwrap_or(service)
}

/// What a list is of.
fn about(path: &Path) -> Value {
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

/// The page that was asked for. Later pages tell of the same window.
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
