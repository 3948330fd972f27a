//! The facts about a cluster, read once for all checks. Each part may be missing by itself: a user
//! with few rights still gets the checks that these rights allow.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use crds::weft::FAULT_EXPERIMENTS;
use futures::future::{OptionFuture, join_all};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::probes::{self, Tried};
use crate::cluster::{Cluster, Refusal};
use crate::kinds;
use crate::output::table::Tone;

/// Objects of one page of a list.
const PAGE: usize = 500;
/// Most objects of one kind. Beyond that a check of all of them is none for a terminal.
pub(super) const MOST: usize = 20_000;

/// All pages of all lists, from the begin on: one that is slow page by page must not take the other
/// checks with it.
const LISTS_WITHIN: Duration = Duration::from_secs(28);

/// What is read, by name. `{weft}` is where Weft is installed.
const READS: &[(&str, &str)] = &[
    (
        "controller",
        "/apis/apps/v1/namespaces/{weft}/deployments/weft-controller",
    ),
    (
        "injector",
        "/apis/apps/v1/namespaces/{weft}/deployments/weft-injector",
    ),
    (
        "node-agents",
        "/apis/apps/v1/namespaces/{weft}/daemonsets/weft-node",
    ),
    (
        "lease",
        "/apis/coordination.k8s.io/v1/namespaces/{weft}/leases/weft-controller",
    ),
    ("ca", "/api/v1/namespaces/{weft}/secrets/weft-ca"),
    (
        "authority",
        "/apis/weft.dev/v1alpha1/certificateauthorities/weft",
    ),
    (
        "injector-ca",
        "/api/v1/namespaces/{weft}/secrets/weft-injector-ca",
    ),
    (
        "mutating",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector",
    ),
    (
        "validating",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weft-validator",
    ),
    (
        "aggregation",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
    ),
    // Whether there is such a group, which every user may see.
    ("gateway-api", "/apis/gateway.networking.k8s.io"),
];
/// Lists of what is in no namespace.
const LISTS: &[(&str, &str)] = &[
    (
        "api-services",
        "/apis/apiregistration.k8s.io/v1/apiservices",
    ),
    (
        "definitions",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    ),
    ("revocations", "/apis/weft.dev/v1alpha1/revocations"),
    (
        "gateway-classes",
        "/apis/gateway.networking.k8s.io/v1/gatewayclasses",
    ),
];
/// Lists of what is in namespaces, beside those of the kinds that users write: API, and what is
/// read of it, in the namespace that the user names or in all.
const IN_NAMESPACES: &[(&str, &str, &str)] = &[
    (
        "autoscalers",
        "/apis/autoscaling/v2",
        "horizontalpodautoscalers",
    ),
    (
        "bundles",
        "/api/v1",
        "configmaps?fieldSelector=metadata.name%3Dweft-trust-bundle",
    ),
    ("limit-ranges", "/api/v1", "limitranges"),
    ("pods", "/api/v1", "pods"),
    ("quotas", "/api/v1", "resourcequotas"),
    ("services", "/api/v1", "services"),
    ("proxies", "/apis/observe.weft.dev/v1alpha1", "proxies"),
    ("gateways", GATEWAY_API, "gateways"),
    ("httproutes", GATEWAY_API, "httproutes"),
    ("grpcroutes", GATEWAY_API, "grpcroutes"),
    ("gateway-tcproutes", GATEWAY_API, "tcproutes"),
    (
        "gateway-tcproutes-v1alpha2",
        "/apis/gateway.networking.k8s.io/v1alpha2",
        "tcproutes",
    ),
    ("tlsroutes", GATEWAY_API, "tlsroutes"),
    (
        "tlsroutes-v1alpha3",
        "/apis/gateway.networking.k8s.io/v1alpha3",
        "tlsroutes",
    ),
    (
        "tlsroutes-v1alpha2",
        "/apis/gateway.networking.k8s.io/v1alpha2",
        "tlsroutes",
    ),
];
const GATEWAY_API: &str = "/apis/gateway.networking.k8s.io/v1";
/// The namespaces that are looked at.
const NAMESPACES: (&str, &str) = ("namespaces", "/api/v1/namespaces");
/// The label that every namespace has.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// What is read before there is a mesh.
const BEFORE: &[&str] = &["definitions", "aggregation"];

/// What is known.
#[derive(Debug)]
pub(super) struct Facts {
    /// By the API server's clock, if its responses have the time.
    pub(super) now: SystemTime,
    /// The response of `/version`; null if the user may not see it.
    pub(super) version: Value,
    /// How far this machine's clock is ahead of the API server's, in seconds.
    pub(super) clock_ahead: Option<i64>,
    pub(super) weft: String,
    /// The namespace that alone is looked at, where the user names one.
    pub(super) named: Option<String>,
    /// What came of trying things out.
    pub(super) probes: probes::Probes,
    parts: BTreeMap<&'static str, Result<Value, Missing>>,
    /// Lists that have more than [`MOST`] objects.
    cut: BTreeSet<&'static str>,
    /// Those of them that were looked at and not reported yet.
    cut_seen: RefCell<BTreeSet<&'static str>>,
}

/// Why a part is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is no such object or no such kind.
    Absent,
    /// The reason, for the check that is skipped.
    Unseen(String),
    /// The user may not see it, with the role that grants the right.
    Denied(String),
    /// The server of this part is away, with the API server's reason.
    Away(String),
    /// The server of this part has too many requests, and may have capacity later.
    Throttled(String),
}

impl Facts {
    /// Reads all of it.
    ///
    /// # Errors
    /// When the API server does not respond at all, or does not know the user.
    pub(super) async fn query(cluster: &Cluster, pre: bool) -> Result<Self, Refusal> {
        let until = Instant::now() + LISTS_WITHIN;
        // Alone and first, so that a missing API server is reported soon and once.
        let (version, clock_ahead) = probes::version(cluster).await?;
        let weft = cluster.weft_namespace().to_owned();
        let wanted = |name: &str| BEFORE.contains(&name) == pre || name == "definitions";
        let reads = READS
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, path)| {
                let path = path.replace("{weft}", &weft);
                async move { (*name, object(cluster, name, &path).await) }
            });
        let lists = listed(cluster).into_iter();
        let lists = lists
            .filter(|(name, _)| wanted(name))
            .map(|(name, path)| async move { (name, list(cluster, name, &path, until).await) });
        let named = async {
            let (name, path) = NAMESPACES;
            let own = format!("{path}/{}", cluster.namespace());
            let found = object(cluster, name, &own).await;
            (name, found.map(|found| Value::Array(vec![found])))
        };
        let named = (cluster.is_named() && !pre).then_some(named);
        let (reads, lists, named, probes) = futures::join!(
            join_all(reads),
            join_all(lists),
            OptionFuture::from(named),
            probes::all(cluster, pre)
        );
        let mut cut = BTreeSet::new();
        let lists = lists.into_iter().map(|(name, list)| {
            let items = list.map(|(items, ends)| {
                cut.extend((!ends).then_some(name));
                Value::Array(items)
            });
            (name, items)
        });
        let parts = reads.into_iter().chain(lists).chain(named).collect();
        Ok(Self {
            now: corrected(SystemTime::now(), clock_ahead),
            version,
            clock_ahead,
            weft,
            named: cluster.is_named().then(|| cluster.namespace().to_owned()),
            probes,
            parts,
            cut,
            cut_seen: RefCell::default(),
        })
    }

    /// A part, or why it is not known.
    pub(super) fn part(&self, name: &str) -> Result<&Value, Missing> {
        if let Some(cut) = self.cut.get(name) {
            self.cut_seen.borrow_mut().insert(*cut);
        }
        match self.parts.get(name) {
            Some(Ok(value)) => Ok(value),
            Some(Err(missing)) => Err(missing.clone()),
            None => Err(Missing::Unseen("was not requested".to_owned())),
        }
    }

    /// A part; `None`: there is no such object or no such kind.
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) fn existing(&self, name: &str) -> Result<Option<&Value>, String> {
        match self.part(name) {
            Ok(value) => Ok(Some(value)),
            Err(Missing::Absent) => Ok(None),
            Err(
                Missing::Unseen(why)
                | Missing::Denied(why)
                | Missing::Away(why)
                | Missing::Throttled(why),
            ) => Err(why),
        }
    }

    /// Whether this is why the user may not see a part.
    pub(super) fn is_denied(&self, why: &str) -> bool {
        let mut parts = self.parts.values();
        let tried = [&self.probes.injection, &self.probes.validation];
        parts.any(|part| matches!(part, Err(Missing::Denied(words)) if words == why))
            || tried
                .iter()
                .any(|tried| matches!(tried, Tried::Refused(403, words) if words == why))
    }

    /// The objects of a list that was read to its end. This call does not count as a use of the
    /// list.
    pub(super) fn whole(&self, name: &str) -> Option<&[Value]> {
        let found = self.parts.get(name)?.as_ref().ok()?;
        let is_whole = !self.cut.contains(name);
        is_whole.then(|| found.as_array().map(Vec::as_slice))?
    }

    /// Namespaces in which nothing is injected, as the webhook has it, and the mesh's own.
    pub(super) fn excluded(&self) -> BTreeSet<&str> {
        let mut excluded = BTreeSet::from([self.weft.as_str()]);
        if let Ok(configuration) = self.part("mutating") {
            let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
            let rules = webhooks.filter_map(|webhook| {
                let selector = &webhook["namespaceSelector"];
                selector["matchExpressions"].as_array()
            });
            let rules = rules.flatten().filter(|rule| is_exclusion(rule));
            let names = rules.filter_map(|rule| rule["values"].as_array());
            excluded.extend(names.flatten().filter_map(Value::as_str));
        }
        excluded
    }

    /// Why a part is not known that the user may see, and that may be known a moment later.
    pub(super) fn throttled(&self) -> Option<&str> {
        self.parts.values().find_map(|part| match part {
            Err(Missing::Throttled(why)) => Some(why.as_str()),
            _ => None,
        })
    }

    /// The lists that were used since the last call and not read to their ends.
    pub(super) fn take_cut(&self) -> Vec<&'static str> {
        self.cut_seen.take().into_iter().collect()
    }

    /// A list. A kind that is not served has no objects.
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) fn list(&self, name: &str) -> Result<&[Value], String> {
        let items = self.existing(name)?.and_then(Value::as_array);
        Ok(items.map(Vec::as_slice).unwrap_or_default())
    }

    /// The objects of a kind that users write. The right to experiments is apart from all others:
    /// a user without it has none to look after, and sees all else.
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) fn written(&self, plural: &str) -> Result<&[Value], String> {
        match self.part(plural) {
            Err(Missing::Denied(_)) if plural == FAULT_EXPERIMENTS => Ok(&[]),
            _ => self.list(plural),
        }
    }

    /// So long before now.
    pub(super) fn ago(&self, time: &str) -> Option<Duration> {
        let then: k8s_openapi::jiff::Timestamp = time.parse().ok()?;
        Some(self.now.duration_since(then.into()).unwrap_or_default())
    }
}

/// Names and paths of the lists, those of namespaces in the one that the user names. A namespace is
/// no list.
fn listed(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let named = cluster.is_named().then(|| cluster.namespace());
    let within = |api: &str, what: &str| match named {
        Some(namespace) => format!("{api}/namespaces/{namespace}/{what}"),
        None => format!("{api}/{what}"),
    };
    let (name, path) = NAMESPACES;
    let namespaces = named.is_none().then(|| (name, path.to_owned()));
    let in_none = LISTS.iter().map(|(name, path)| (*name, (*path).to_owned()));
    let in_namespaces = IN_NAMESPACES
        .iter()
        .map(|(name, api, what)| (*name, within(api, what)));
    let kinds = kinds::all().into_iter().map(|kind| match named {
        Some(namespace) => (kind.plural, kind.collection(namespace)),
        None => (kind.plural, kind.path()),
    });
    let lists = in_none.chain(namespaces).chain(in_namespaces).chain(kinds);
    lists.collect()
}

/// The true time, by a clock that is so many seconds ahead of it.
fn corrected(own: SystemTime, ahead: Option<i64>) -> SystemTime {
    let ahead = ahead.unwrap_or_default();
    let by = Duration::from_secs(ahead.unsigned_abs());
    let right = if ahead > 0 {
        own.checked_sub(by)
    } else {
        own.checked_add(by)
    };
    right.unwrap_or(own)
}

fn missing(refusal: Refusal) -> Missing {
    if refusal.is_missing() {
        return Missing::Absent;
    }
    let code = refusal.code();
    let why = refusal.into_failure().to_string();
    match code {
        Some(403) => Missing::Denied(why),
        Some(503) => Missing::Away(why),
        Some(429) => Missing::Throttled(why),
        _ => Missing::Unseen(why),
    }
}

async fn object(cluster: &Cluster, name: &str, path: &str) -> Result<Value, Missing> {
    cluster.try_read(name, path).await.map_err(missing)
}

/// All pages of a list, as far as they come in time.
async fn list(
    cluster: &Cluster,
    name: &str,
    path: &str,
    until: Instant,
) -> Result<(Vec<Value>, bool), Missing> {
    let all = timeout_at(until, pages(cluster, name, path)).await;
    all.unwrap_or_else(|_| Err(missing(Refusal::late(name, LISTS_WITHIN))))
}

/// All pages of a list, without what is only for the API server, and whether it ends with them.
async fn pages(cluster: &Cluster, name: &str, path: &str) -> Result<(Vec<Value>, bool), Missing> {
    let mut items = Vec::new();
    let mut next = String::new();
    loop {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut page = format!("{path}{separator}limit={PAGE}");
        if !next.is_empty() {
            page.push_str(&format!("&continue={next}"));
        }
        let mut answer: Value = cluster.try_read(name, &page).await.map_err(missing)?;
        let Some(found) = answer.get_mut("items").and_then(Value::as_array_mut) else {
            return Err(Missing::Unseen(format!("{name}: the answer is no list")));
        };
        for item in found.iter_mut() {
            if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        }
        items.append(found);
        next = answer["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if next.is_empty() || items.len() >= MOST {
            return Ok((items, next.is_empty()));
        }
    }
}

/// Whether a rule of a selector leaves namespaces out by their names.
pub(super) fn is_exclusion(rule: &Value) -> bool {
    rule["key"] == NAMESPACE_NAME && rule["operator"] == "NotIn"
}

/// `namespace/name` of an object, or its name.
pub(super) fn name_of(object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    match text("namespace") {
        "" => text("name").to_owned(),
        namespace => format!("{namespace}/{}", text("name")),
    }
}

/// The first few of many, for a message of one line.
pub(super) fn few(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// How a check comes out, from best to worst in one order.
///
/// The exit status and the colour of a line are read from it, so they cannot disagree. A
/// check that cannot be made is skipped with a reason, and is neither good nor bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckStatus {
    Ok,
    Skipped,
    Warning,
    Error,
}

/// What a check finds; an error is the reason why it is skipped.
pub(super) type CheckResult = Result<(CheckStatus, String), String>;

impl CheckStatus {
    pub(super) fn shown(self) -> (&'static str, Tone) {
        match self {
            Self::Ok => ("ok", Tone::Good),
            Self::Skipped => ("skipped", Tone::Plain),
            Self::Warning => ("warning", Tone::Warning),
            Self::Error => ("error", Tone::Bad),
        }
    }
}
