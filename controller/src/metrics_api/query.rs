//! Parses a query of the metrics API: path and parameters.

use std::time::{Duration, SystemTime};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use model::world::ObjectKey;

use crate::aggregated::access::Attributes;
use crate::aggregated::duration;
use crate::aggregated::selector;
use crate::inventory::Labels;
use crate::inventory::kind::MetricsKind;
use crate::observe::reports::{INTERVAL, LONGEST_WINDOW, SETTLED, interval_of};

/// Group of the API.
pub(crate) const GROUP: &str = "metrics.smi-spec.io";
/// Its versions, the preferred one first.
pub(crate) const VERSIONS: [&str; 2] = ["v1alpha2", "v1alpha1"];
/// Window when the query names none.
const DEFAULT_WINDOW: Duration = Duration::from_secs(30);
/// Length of a query; the API server bounds it further.
const MAX_QUERY: usize = 8192;
/// Items of one page at most: as many as one answer has without pages.
const MAX_LIMIT: usize = 20_000;
/// Names of all parameters.
pub(super) const PARAMETERS: [&str; 7] = [
    "continue",
    "edge-kind",
    "labelSelector",
    "limit",
    "side",
    "t",
    "window",
];

/// Where something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// By the caller's proxy.
    Client,
    /// By the proxy of the pod that was called.
    Server,
}

impl Side {
    /// As the API writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// The object or objects that a path names, as the API server reads it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetricsPath {
    /// One of [`VERSIONS`].
    pub version: &'static str,
    /// Kind.
    pub kind: MetricsKind,
    /// Namespace, where the path has one.
    pub namespace: Option<String>,
    /// Name, where the path has one.
    pub name: Option<String>,
    /// Whether its edges are queried.
    pub edges: bool,
}

/// Why a query has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// No such path.
    NotFound,
    /// A parameter is wrong: its name and why.
    BadParameter(&'static str, String),
    /// A list cannot go on where it ended: the same.
    Expired(&'static str, String),
}

/// Everything beside the path.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    /// Length.
    pub window: Duration,
    /// Items that appear.
    pub selector: Selector,
    /// The selector as the client wrote it.
    pub written: String,
    /// Where to look, if not where it is usual.
    pub side: Option<Side>,
    /// Kind of the other ends.
    pub edge_kind: Option<MetricsKind>,
    /// Items of one page; 0 for all.
    pub limit: usize,
    /// Where a former page ended.
    pub from: Option<Continue>,
}

/// A page's end: the window's end in seconds, so that pages fit together, and
/// the number of items before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Continue {
    /// End of the window of the first page, in intervals.
    pub end: u64,
    /// Items that were sent.
    pub seen: usize,
}

impl MetricsPath {
    /// Reads what follows `/apis/metrics.smi-spec.io/`.
    ///
    /// # Errors
    /// When there is no such path.
    pub(crate) fn parse(path: &str) -> Result<Self, Mistake> {
        let mut parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let requested = parts.remove(0);
        let version = VERSIONS.into_iter().find(|version| *version == requested);
        let version = version.ok_or(Mistake::NotFound)?;
        let kind = |plural: &str| MetricsKind::from_plural(plural).ok_or(Mistake::NotFound);
        let whole = |kind, namespace: Option<&str>, name: Option<&str>, edges| {
            let text = |text: &str| text.to_owned();
            Ok(Self {
                version,
                kind,
                namespace: namespace.map(text),
                name: name.map(text),
                edges,
            })
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(Mistake::NotFound);
        }
        match *parts {
            ["namespaces"] => whole(MetricsKind::Namespace, None, None, false),
            ["namespaces", name] => whole(MetricsKind::Namespace, None, Some(name), false),
            ["namespaces", name, "edges"] => whole(MetricsKind::Namespace, None, Some(name), true),
            ["namespaces", namespace, plural] => namespaced(kind(plural)?, |kind| {
                whole(kind, Some(namespace), None, false)
            }),
            ["namespaces", namespace, plural, name] => namespaced(kind(plural)?, |kind| {
                whole(kind, Some(namespace), Some(name), false)
            }),
            ["namespaces", namespace, plural, name, "edges"] => namespaced(kind(plural)?, |kind| {
                whole(kind, Some(namespace), Some(name), true)
            }),
            [plural] => whole(kind(plural)?, None, None, false),
            [plural, name] if kind(plural)? == MetricsKind::Node => {
                whole(MetricsKind::Node, None, Some(name), false)
            }
            [plural, name, "edges"] if kind(plural)? == MetricsKind::Node => {
                whole(MetricsKind::Node, None, Some(name), true)
            }
            _ => Err(Mistake::NotFound),
        }
    }

    /// Whether the object with this key is meant, alone or in a list. A selector may leave
    /// it out.
    pub(crate) fn is_about(&self, key: &ObjectKey) -> bool {
        let (namespace, name) = (self.namespace.as_deref(), self.name.as_deref());
        namespace.is_none_or(|namespace| *key.namespace == *namespace)
            && name.is_none_or(|name| *key.name == *name)
    }

    /// What the user must be allowed to do. The API server has checked the same before it called;
    /// it reads `/namespaces/x/edges` as the list of `edges` in namespace x, and so does this.
    pub(crate) fn attributes(&self) -> Attributes {
        let name = self.name.clone().unwrap_or_default();
        if self.kind == MetricsKind::Namespace && self.edges {
            return Attributes {
                group: GROUP,
                verb: "list",
                version: self.version,
                resource: "edges",
                subresource: "",
                namespace: name,
                name: String::new(),
            };
        }
        let namespace = match self.kind {
            MetricsKind::Namespace => name.clone(),
            _ => self.namespace.clone().unwrap_or_default(),
        };
        Attributes {
            group: GROUP,
            verb: if self.name.is_some() { "get" } else { "list" },
            version: self.version,
            resource: self.kind.plural(),
            subresource: if self.edges { "edges" } else { "" },
            namespace,
            name,
        }
    }
}

fn namespaced(
    kind: MetricsKind,
    whole: impl FnOnce(MetricsKind) -> Result<MetricsPath, Mistake>,
) -> Result<MetricsPath, Mistake> {
    if kind.namespaced() {
        whole(kind)
    } else {
        Err(Mistake::NotFound)
    }
}

impl Parameters {
    /// Reads a query whose parameters are known by their names.
    ///
    /// # Errors
    /// When one that counts is wrong.
    pub(crate) fn parse(query: &str, path: &MetricsPath) -> Result<Self, Mistake> {
        if query.len() > MAX_QUERY {
            let why = format!("the query is longer than {MAX_QUERY} bytes");
            return Err(Mistake::BadParameter("query", why));
        }
        let mut parameters = Self {
            window: DEFAULT_WINDOW,
            selector: Selector::default(),
            written: String::new(),
            side: None,
            edge_kind: None,
            limit: 0,
            from: None,
        };
        let mut given_as = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let bad = |name, why: &str| Mistake::BadParameter(name, format!("{value:?} {why}"));
            match &*name {
                _ if value.is_empty() => {}
                "t" => parameters.window = window("t", &value, &mut given_as)?,
                "window" => parameters.window = window("window", &value, &mut given_as)?,
                "labelSelector" => {
                    parameters.selector = selector::parse(&value)
                        .map_err(|why| Mistake::BadParameter("labelSelector", why))?;
                    parameters.written = value.clone().into_owned();
                }
                "fieldSelector" => return Err(bad("fieldSelector", "is not supported")),
                "side" => {
                    let side = match &*value {
                        "client" => Side::Client,
                        "server" => Side::Server,
                        _ => return Err(bad("side", "is neither client nor server")),
                    };
                    if side == Side::Server && !path.kind.has_pods() {
                        let why = "cannot be: callers alone know what they called";
                        return Err(bad("side", why));
                    }
                    parameters.side = Some(side);
                }
                "edge-kind" => {
                    let kind = MetricsKind::from_plural(&value).filter(|kind| kind.has_pods());
                    let why = "is no kind that has pods, such as deployments";
                    parameters.edge_kind = Some(kind.ok_or_else(|| bad("edge-kind", why))?);
                }
                "limit" => {
                    let limit: usize = value.parse().map_err(|_| bad("limit", "is no number"))?;
                    parameters.limit = limit.min(MAX_LIMIT);
                }
                "continue" => {
                    let from = Continue::parse(&value);
                    let why = "was not made by this API";
                    let from = from.ok_or_else(|| bad("continue", why))?;
                    if !from.is_kept() {
                        let why = "belongs to no window that is kept; ask again without it";
                        // No error of the reader's: clients begin such a list anew.
                        return Err(Mistake::Expired("continue", format!("{value:?} {why}")));
                    }
                    parameters.from = Some(from);
                }
                _ => {}
            }
        }
        Ok(parameters)
    }

    /// Whether an object with these labels appears.
    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        self.selector.matches(labels)
    }

    /// The selector as Kubernetes writes it in objects.
    pub(crate) fn label_selector(&self) -> Option<LabelSelector> {
        (!self.written.is_empty()).then(|| self.selector.clone().into())
    }

    /// The intervals of the window: from the first up to but without the second. It
    /// ends on the last boundary that is at least [`SETTLED`] in the past.
    pub(crate) fn intervals(&self, now: SystemTime) -> (u64, u64) {
        let end = match self.from {
            Some(from) => from.end,
            None => interval_of(now - SETTLED),
        };
        (end.saturating_sub(self.window.as_secs() / INTERVAL), end)
    }
}

impl Continue {
    /// As a client gets it.
    pub(crate) fn token(self) -> String {
        format!("{}-{}", self.end, self.seen)
    }

    /// Whether its window ended when there may still be numbers of it. Of another one there would
    /// be zeros.
    fn is_kept(self) -> bool {
        let now = interval_of(SystemTime::now());
        let oldest = now.saturating_sub(LONGEST_WINDOW.as_secs() / INTERVAL);
        (oldest..=now).contains(&self.end)
    }

    fn parse(token: &str) -> Option<Self> {
        let (end, seen) = token.split_once('-')?;
        Some(Self {
            end: end.parse().ok()?,
            seen: seen.parse().ok()?,
        })
    }
}

/// A window, rounded up to whole intervals; `said` is the name by which the query has one already.
fn window(
    parameter: &'static str,
    text: &str,
    given_as: &mut Option<&'static str>,
) -> Result<Duration, Mistake> {
    let bad = |why: &str| Mistake::BadParameter(parameter, format!("{text:?} {why}"));
    if let Some(other) = given_as.replace(parameter) {
        return Err(bad(&format!("is a second window beside {other}; say one")));
    }
    let length =
        duration::parse(text).ok_or_else(|| bad("is no duration such as 30s, 1m30s or 5m"))?;
    if length.is_zero() {
        return Err(bad("is no time at all; the shortest window is 5s"));
    }
    if length > LONGEST_WINDOW {
        return Err(bad("is too long; the longest window is 5m"));
    }
    let intervals = length.as_millis().div_ceil(u128::from(INTERVAL) * 1000);
    Ok(Duration::from_secs(
        u64::try_from(intervals).unwrap_or(1) * INTERVAL,
    ))
}

#[cfg(test)]
mod tests;
