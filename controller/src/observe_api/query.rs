//! Parses a request of the read API: path and parameters.
//!
//! Claims: observe-17

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crds::observe::{GROUP, LIVE, Resource, VERSION};
use k8s_openapi::jiff::Timestamp;
use kube::core::{Selector, SelectorExt as _};
use model::world::ObjectKey;

use crate::aggregated::access::Attributes;
use crate::aggregated::duration;
use crate::aggregated::refusal::Refusal;
use crate::aggregated::selector;
use crate::graph::answer::Extent;
use crate::graph::follow::{GraphWindow, seconds};
use crate::observe::reports::{INTERVAL, LONGEST_WINDOW};

/// Window when none is requested.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
/// A window of a single interval would be empty half of the time.
const SHORTEST_WINDOW: Duration = Duration::from_secs(10);
/// Minutes that are kept.
const LONGEST_HISTORY: Duration = Duration::from_secs(3600);
/// Length of a query; the API server bounds it further.
const MAX_QUERY: usize = 8192;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObservePath {
    pub(super) resource: Resource,
    /// `None`: of the whole cluster.
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

/// Which graph, and how it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GraphQuery {
    pub(super) requested: GraphWindow,
    /// As a stream.
    pub(super) watch: bool,
    /// The interval before which the stream ended that this one resumes.
    pub(super) since: Option<u64>,
}

/// Which proxies, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListQuery {
    /// Max objects; as many as one response takes without it.
    pub(super) limit: Option<usize>,
    /// Those behind this one.
    pub(super) after: Option<ObjectKey>,
    /// Those of pods with such labels; all without it.
    pub(super) selector: Option<Selector>,
    /// Of a single proxy: the proxy itself is not queried.
    pub(super) without_config: bool,
}

impl ListQuery {
    /// Reads a query as Kubernetes clients write it.
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "limit" => {
                    let limit: Result<usize, _> = value.parse();
                    let bad = |_| wrong("limit", &format!("{value:?} is no number such as 500"));
                    read.limit = Some(limit.map_err(bad)?).filter(|limit| *limit > 0);
                }
                "continue" if !value.is_empty() => {
                    let after = value.split_once('/');
                    let bad = || wrong("continue", "was not made by this API");
                    let (namespace, name) = after.ok_or_else(bad)?;
                    read.after = Some(ObjectKey::new(namespace, name));
                }
                "labelSelector" if !value.is_empty() => {
                    let selector = selector::parse(&value);
                    read.selector = Some(selector.map_err(|why| wrong("labelSelector", &why))?);
                }
                "fieldSelector" if !value.is_empty() => {
                    let why = "is not offered here; select by labels of pods, or name one";
                    return Err(wrong("fieldSelector", why));
                }
                "config" => read.without_config = !flag("config", &value)?,
                _ => {}
            }
        }
        Ok(read)
    }

    /// Whether the proxy of a pod with these labels is meant.
    pub(super) fn selects(&self, labels: Option<&BTreeMap<Arc<str>, Arc<str>>>) -> bool {
        let Some(selector) = &self.selector else {
            return true;
        };
        let labels = labels.into_iter().flatten();
        let labels = labels.map(|(name, value)| (name.to_string(), value.to_string()));
        selector.matches(&labels.collect())
    }
}

impl ObservePath {
    /// Reads what follows `/apis/observe.weft.dev/`.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let [VERSION, rest @ ..] = &*parts else {
            return Err(Refusal::no_such_path());
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !namespace.is_empty() => {
                (Some((*namespace).to_owned()), rest)
            }
            rest => (None, rest),
        };
        let (plural, name) = match rest {
            [plural] => (*plural, None),
            [plural, name] if !name.is_empty() => (*plural, Some((*name).to_owned())),
            _ => return Err(Refusal::no_such_path()),
        };
        let mut all = Resource::ALL.into_iter();
        let resource = all.find(|resource| resource.plural() == plural);
        let resource = resource.ok_or_else(Refusal::no_such_path)?;
        let live = name.as_deref() == Some(LIVE);
        let known = match resource {
            Resource::Graphs => live,
            Resource::Taps => live && namespace.is_some(),
            Resource::Scopes => live && namespace.is_none(),
            Resource::Proxies => name.is_none() || namespace.is_some(),
            Resource::RouteTables => name.is_some() && namespace.is_some(),
            Resource::Explanations | Resource::DryRuns => name.is_none(),
        };
        if !known {
            return Err(Refusal::no_such_path());
        }
        Ok(Self {
            resource,
            namespace,
            name,
        })
    }

    /// What the user must be allowed to do. The API server has checked the same before its request.
    pub(super) fn attributes(&self) -> Attributes {
        let verb = match (self.resource, &self.name) {
            (Resource::Explanations | Resource::DryRuns, _) => "create",
            (_, Some(_)) => "get",
            (_, None) => "list",
        };
        Attributes {
            name: self.name.clone().unwrap_or_default(),
            ..may(verb, self.resource, self.namespace.as_deref())
        }
    }
}

/// One verb on one resource of this API.
pub(super) fn may(verb: &'static str, resource: Resource, namespace: Option<&str>) -> Attributes {
    Attributes {
        group: GROUP,
        verb,
        version: VERSION,
        resource: resource.plural(),
        subresource: "",
        namespace: namespace.unwrap_or_default().to_owned(),
        name: String::new(),
    }
}

impl GraphQuery {
    /// Reads a query whose parameters are known by their names.
    pub(super) fn parse(
        query: &str,
        namespace: Option<String>,
        now: SystemTime,
    ) -> Result<Self, Refusal> {
        if query.len() > MAX_QUERY {
            let why = format!("the query is longer than {MAX_QUERY} bytes");
            return Err(Refusal::bad(why));
        }
        let mut read = Self {
            requested: GraphWindow {
                intervals: intervals(DEFAULT_WINDOW),
                extent: Extent {
                    namespace,
                    ..Extent::default()
                },
                ..GraphWindow::default()
            },
            ..Self::default()
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let extent = &mut read.requested.extent;
            match &*name {
                "window" => {
                    let window = length("window", &value, (SHORTEST_WINDOW, LONGEST_WINDOW))?;
                    read.requested.intervals = intervals(window);
                }
                "history" => {
                    let bounds = (Duration::from_secs(60), LONGEST_HISTORY);
                    let back = length("history", &value, bounds)?.as_secs() / 60;
                    extent.history = Some((seconds(now) / 60).saturating_sub(back));
                }
                "routes" => extent.routes = flag("routes", &value)?,
                "quiet" => extent.quiet = flag("quiet", &value)?,
                "gone" => extent.gone = flag("gone", &value)?,
                "settled" => read.requested.settled = flag("settled", &value)?,
                "watch" => read.watch = flag("watch", &value)?,
                "since" => read.since = Some(end("since", &value)?),
                _ => {}
            }
        }
        if read.since.is_some() && !read.watch {
            return Err(wrong("since", "is for streams: it goes with watch=true"));
        }
        Ok(read)
    }
}

fn wrong(name: &str, why: &str) -> Refusal {
    Refusal::bad(format!("parameter {name}: {why}"))
}

fn intervals(window: Duration) -> u64 {
    window.as_secs().div_ceil(INTERVAL)
}

fn length(name: &str, text: &str, bounds: (Duration, Duration)) -> Result<Duration, Refusal> {
    let bad = |why: &str| wrong(name, &format!("{text:?} {why}"));
    let length =
        duration::parse(text).ok_or_else(|| bad("is no duration such as 30s, 1m30s or 5m"))?;
    if length < bounds.0 || length > bounds.1 {
        let (least, most) = (bounds.0.as_secs(), bounds.1.as_secs());
        let nearest = if length < bounds.0 { least } else { most };
        return Err(bad(&format!(
            "does not lie between {least}s and {most}s; the nearest is {nearest}s"
        )));
    }
    Ok(length)
}

fn flag(name: &str, text: &str) -> Result<bool, Refusal> {
    match text {
        "1" | "true" | "" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(wrong(name, &format!("{text:?} is neither 1 nor 0"))),
    }
}

/// The interval before which a window ended.
fn end(name: &str, text: &str) -> Result<u64, Refusal> {
    let bad = || wrong(name, &format!("{text:?} is no metadata.end of an answer"));
    let at: Timestamp = text.parse().map_err(|_| bad())?;
    let seconds = u64::try_from(at.as_second()).map_err(|_| bad())?;
    Ok(seconds / INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_the_api_server_authorised_them() {
        for (path, verb, namespace, name) in [
            ("v1alpha1/graphs/live", "get", "", "live"),
            (
                "v1alpha1/namespaces/shop/graphs/live",
                "get",
                "shop",
                "live",
            ),
            ("v1alpha1/proxies", "list", "", ""),
            ("v1alpha1/namespaces/shop/proxies", "list", "shop", ""),
            (
                "v1alpha1/namespaces/shop/proxies/web-1",
                "get",
                "shop",
                "web-1",
            ),
            (
                "v1alpha1/namespaces/shop/explanations",
                "create",
                "shop",
                "",
            ),
            ("v1alpha1/explanations", "create", "", ""),
            ("v1alpha1/scopes/live", "get", "", "live"),
        ] {
            let requested = ObservePath::parse(path).unwrap().attributes();
            let attributes = (
                requested.verb,
                requested.namespace.as_str(),
                requested.name.as_str(),
            );
            assert_eq!(attributes, (verb, namespace, name), "{path}");
        }
        for path in [
            "v1alpha1",
            "v1alpha2/graphs/live",
            "v1alpha1/graphs",
            "v1alpha1/graphs/other",
            "v1alpha1/proxies/web-1",
            "v1alpha1/namespaces/shop/scopes/live",
            "v1alpha1/namespaces//graphs/live",
            "v1alpha1/namespaces/shop/graphs/live/x",
            "v1alpha1/explanations/one",
            "v1alpha1/secrets",
        ] {
            assert_eq!(ObservePath::parse(path).unwrap_err().code, 404, "{path}");
        }
    }

    #[test]
    fn wrong_parameter_is_named() {
        let now = SystemTime::now();
        for (query, name) in [
            ("window=9s", "window"),
            ("window=6m", "window"),
            ("window=soon", "window"),
            ("history=2h", "history"),
            ("quiet=perhaps", "quiet"),
            ("watch=true&since=yesterday", "since"),
            ("since=2026-11-02T09:00:00Z", "since"),
        ] {
            let refusal = GraphQuery::parse(query, None, now).unwrap_err();
            assert_eq!(refusal.code, 400, "{query}");
            let words = format!("parameter {name}:");
            assert!(refusal.message.starts_with(&words), "{}", refusal.message);
        }
    }

    #[test]
    fn window_length_out_of_bounds_suggests_nearest() {
        let now = SystemTime::now();
        for (query, nearest) in [
            ("window=1s", "10s"),
            ("window=1h", "300s"),
            ("history=59s", "60s"),
            ("history=2h", "3600s"),
        ] {
            let refusal = GraphQuery::parse(query, None, now).unwrap_err();
            let words = format!("the nearest is {nearest}");
            assert!(refusal.message.ends_with(&words), "{}", refusal.message);
            let (name, _) = query.split_once('=').unwrap();
            let right = format!("{name}={nearest}");
            assert!(GraphQuery::parse(&right, None, now).is_ok(), "{right}");
        }
    }

    #[test]
    fn parameters_are_read_and_those_of_others_ignored() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(6000);
        let query = "window=61s&history=30m&routes=1&quiet=1&watch=true&\
                     since=1970-01-01T01:30:05Z&resourceVersion=0";
        let read = GraphQuery::parse(query, Some("shop".to_owned()), now).unwrap();
        assert_eq!((read.requested.intervals, read.since), (13, Some(1081)));
        let extent = &read.requested.extent;
        assert_eq!(extent.history, Some(70));
        assert!(extent.routes && extent.quiet && !extent.gone && read.watch);
        let plain = GraphQuery::parse("", None, now).unwrap();
        assert_eq!((plain.requested.intervals, plain.watch), (12, false));
    }
}
