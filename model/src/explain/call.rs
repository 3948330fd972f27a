//! Finds the call to explain: its caller, the called Service or pod, and the request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::observe::{ExplanationSpec, From, To};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use policy::host::named_once;
use policy::name::SpiffeId;
use policy::path::MAX_TARGET;
use policy::protocol::CONNECT_REFUSED;
use policy::route::edits::Actions;
use policy::well_known::PROXY_PORTS;

use super::outside::{self, Outside};
use super::question::{BadQuestion, CallerView, Owner};
use super::service_names::{HeadlessPort, headless_port, stands_for};
use crate::model::revoked::EndedBy;
use crate::model::{Index, Model, PodId};
use crate::world::{ObjectKey, PodFacts, Proxy};

/// Headers of one query.
const MAX_HEADERS: usize = 64;
/// Kinds that own pods.
const OWNERS: [&str; 8] = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "ReplicaSet",
    "ReplicationController",
    "Rollout",
    "StatefulSet",
];

/// The request, or that there is none.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) tcp: bool,
    pub(super) method: Method,
    /// Without query string, as it was given.
    pub(super) path: String,
    /// The query string, which decides in routes of the Gateway API alone.
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    /// Why a proxy that reads it as HTTP answers 400, regardless of the rules.
    pub(super) malformed: Option<&'static str>,
}

impl Request {
    pub(super) fn read(spec: &ExplanationSpec) -> Result<Self, BadQuestion> {
        let method = spec.method.as_deref().unwrap_or("GET");
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| BadQuestion::new("method", format!("{method:?} is no HTTP method")))?;
        // A legal one, but it stands for all in rules.
        if method == "*" {
            let reason = format!("{method} is no method that clients send; name one such as GET");
            return Err(BadQuestion::new("method", reason));
        }
        let path = spec.path.as_deref().unwrap_or("/");
        if path.len() > MAX_TARGET {
            let reason = format!(
                "has {} bytes, and {MAX_TARGET} are the most: a call with a longer one, its query \
                 counted, is answered 414",
                path.len()
            );
            return Err(BadQuestion::new("path", reason));
        }
        if !path.starts_with(['/', '*']) {
            return Err(BadQuestion::new("path", "must begin with a slash"));
        }
        let target = path.split('#').next().unwrap_or("/");
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target.to_owned(), None),
        };
        if spec.headers.len() > MAX_HEADERS {
            let reason = format!("has more than {MAX_HEADERS} entries");
            return Err(BadQuestion::new("headers", reason));
        }
        let mut headers = HeaderMap::new();
        for header in &spec.headers {
            let bad = |what: &str| {
                let name: String = header.name.chars().take(64).collect();
                BadQuestion::new("headers", format!("{name:?}: is no header {what}"))
            };
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| bad("name"))?;
            let value = HeaderValue::from_str(&header.value).map_err(|_| bad("value"))?;
            headers.append(name, value);
        }
        let described = spec.method.is_some() || spec.path.is_some() || !spec.headers.is_empty();
        if spec.tcp && described {
            let reason = "a connection of bytes has no method, path or header";
            return Err(BadQuestion::new("tcp", reason));
        }
        Ok(Self {
            tcp: spec.tcp,
            path,
            query,
            malformed: malformed(&method, &headers),
            method,
            headers,
        })
    }

    /// The request as it is sent on by a rule that does this with it.
    pub(super) fn edited(&self, actions: &Actions) -> Self {
        let mut headers = self.headers.clone();
        actions.edit_request(&mut headers);
        let host = actions.host().map(|host| HeaderValue::from_str(host));
        if let Some(Ok(host)) = host {
            headers.insert(HOST, host);
        }
        let target = match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        };
        let target = actions.path_and_query(&target);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (&*target, None),
        };
        Self {
            tcp: self.tcp,
            method: self.method.clone(),
            path: path.to_owned(),
            query,
            headers,
            malformed: self.malformed,
        }
    }
}

/// Why no proxy sends such a request on.
fn malformed(method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let connects = (*method == Method::CONNECT).then_some(CONNECT_REFUSED);
    named_once(headers).err().or(connects)
}

/// Callers that no rule distinguishes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Caller {
    /// `None`: without a proxy, so its identity is not known.
    pub(super) identity: Option<SpiffeId>,
    /// Uid of one of them; rules may name pods.
    pub(super) uid: Option<Arc<str>>,
    /// How many pods that are, and the name of one.
    pub(super) pods: usize,
    pub(super) example: Option<PodId>,
    /// They have a proxy, and their traffic capture leaves this call out.
    pub(super) past: bool,
    /// Node of that one.
    pub(super) node: Arc<str>,
    /// What revokes them for good.
    pub(super) revoked: Option<EndedBy>,
}

impl Caller {
    fn outside() -> Self {
        Self {
            identity: None,
            uid: None,
            pods: 0,
            example: None,
            past: false,
            node: "".into(),
            revoked: None,
        }
    }

    /// The callers that are meant, each kind once; or why there are none.
    pub(super) fn find(
        model: &Model,
        (from, view): (&From, CallerView),
        to: &Called,
        owner: Owner<'_>,
    ) -> Result<Result<Vec<Self>, String>, BadQuestion> {
        if from.outside {
            if !from.kind.is_empty() || !from.name.is_empty() {
                let reason = "a caller outside the mesh has no kind and no name";
                return Err(BadQuestion::new("from.outside", reason));
            }
            return Ok(Ok(vec![Self::outside()]));
        }
        let key = named("from.name", &from.namespace, &from.name)?;
        let index = &model.index;
        let account = from.kind == "ServiceAccount";
        let belongs = |pod: &PodId, account_of: &Arc<str>| match &*from.kind {
            "ServiceAccount" => pod.namespace == key.namespace && *account_of == key.name,
            "Pod" => *pod == key,
            kind => owner(pod) == (kind.to_owned(), key.clone()),
        };
        if !account && from.kind != "Pod" && !OWNERS.contains(&&*from.kind) {
            return Err(no_caller(&from.kind));
        }
        let pods = index.world.pods.iter().filter(|(_, facts)| !facts.ended);
        let pods = pods.filter(|_| view == CallerView::Known);
        let pods = pods.filter(|(pod, facts)| belongs(pod, &facts.service_account));
        let callers = alike(index, pods, to);
        if callers.is_empty() && account {
            // An account without pods can still be queried: its first pod will come.
            let domain = &index.defaults.trust_domain;
            let identity = SpiffeId::of(domain, &key.namespace, &key.name);
            let identity =
                identity.map_err(|error| BadQuestion::new("from.name", error.to_string()))?;
            return Ok(Ok(vec![Self {
                revoked: index.revocations.ended_by(&identity, None),
                identity: Some(identity),
                ..Self::outside()
            }]));
        }
        if callers.is_empty() {
            let meant = match view {
                CallerView::Known => meant(index, &from.kind, &key, owner),
                CallerView::AccountOnly => String::new(),
            };
            return Ok(Err(format!(
                "{} {key} has no pods that could call{meant}",
                from.kind
            )));
        }
        Ok(Ok(callers))
    }
}

/// The end of a sentence about pods that are not there: what may have been meant. One that
/// has ended is not there either, by its own name or by another.
fn meant(index: &Index, kind: &str, key: &ObjectKey, owner: Owner<'_>) -> String {
    let pods = index.world.pods.iter().filter(|(_, facts)| !facts.ended);
    let known = pods.filter_map(|(pod, _)| match kind {
        "Pod" => Some(pod.clone()),
        kind => {
            let (owned_by, owner) = owner(pod);
            (owned_by == kind).then_some(owner)
        }
    });
    let known = known.filter(|known| known.namespace == key.namespace);
    let known: BTreeSet<Arc<str>> = known.map(|known| known.name).collect();
    crds::near::hint(&key.name, known.iter().map(|name| &**name))
}

/// Pods that no rule distinguishes, each kind once.
fn alike<'a>(
    index: &Index,
    pods: impl Iterator<Item = (&'a PodId, &'a Arc<PodFacts>)>,
    to: &Called,
) -> Vec<Caller> {
    let by_node = to.is_local(index);
    // Rules may name pods by uid, so those that the same rules name are alike.
    let mut callers: BTreeMap<_, Caller> = BTreeMap::new();
    for (pod, facts) in pods {
        let proxy = facts.proxy.as_ref();
        let past = proxy.is_some_and(|proxy| to.is_left_out(index, proxy));
        let meshed = proxy.is_some() && !past;
        let identity = meshed.then(|| index.identity(pod, facts));
        let named_by = if meshed {
            index.targets.naming(&facts.uid)
        } else {
            Vec::new()
        };
        let proven = identity
            .as_deref()
            .and_then(|id| SpiffeId::try_from(id).ok());
        let revoked = proven
            .as_ref()
            .and_then(|id| index.revocations.ended_by(id, Some((pod, &**facts))));
        let node = by_node.then(|| facts.node.clone());
        let mode = matches!(to, Called::External(_)).then(|| outside::mode(index, pod, facts));
        let caller = callers
            .entry((identity, named_by, revoked.clone(), past, node, mode))
            .or_insert_with(|| Caller {
                identity: proven,
                uid: meshed.then(|| facts.uid.clone()),
                pods: 0,
                example: Some(pod.clone()),
                past,
                node: facts.node.clone(),
                revoked,
            });
        caller.pods += 1;
    }
    callers.into_values().collect()
}

fn no_caller(kind: &str) -> BadQuestion {
    let kinds = OWNERS.join(", ");
    let reason = format!("{kind:?} is none of Pod, ServiceAccount, {kinds}");
    BadQuestion::new("from.kind", reason)
}

pub(super) fn named(
    field: &'static str,
    namespace: &str,
    name: &str,
) -> Result<ObjectKey, BadQuestion> {
    if namespace.is_empty() || name.is_empty() {
        return Err(BadQuestion::new(field, "needs a namespace and a name"));
    }
    Ok(ObjectKey::new(namespace, name))
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// A port of a Service.
    Service(ObjectKey, u16),
    /// A port of these pods, by their own addresses.
    Pods(ObjectKey, BTreeSet<PodId>, u16),
    /// The same by the name of a headless Service that leads to another port of them.
    PastService(ObjectKey, BTreeSet<PodId>, u16),
    /// Outside the cluster.
    External(Outside),
}

impl Called {
    /// What is meant, or why there is no such thing.
    pub(super) fn find(
        model: &Model,
        to: &To,
        owner: Owner<'_>,
    ) -> Result<Result<Self, String>, BadQuestion> {
        if to.kind == "External" {
            return Ok(Ok(Self::External(Outside::of(to))));
        }
        let key = named("to.name", &to.namespace, &to.name)?;
        let index = &model.index;
        if to.kind == "Service" {
            return Self::service(index, key, to.port);
        }
        if to.kind != "Pod" && !OWNERS.contains(&&*to.kind) {
            let reason = format!(
                "{:?} is none of Service, Pod, External, {}",
                to.kind,
                OWNERS.join(", ")
            );
            return Err(BadQuestion::new("to.kind", reason));
        }
        let belongs = |pod: &PodId| match &*to.kind {
            "Pod" => *pod == key,
            kind => owner(pod) == (kind.to_owned(), key.clone()),
        };
        let pods = index.world.pods.iter().filter(|(_, facts)| !facts.ended);
        let pods: BTreeMap<_, _> = pods.filter(|(pod, _)| belongs(pod)).collect();
        if pods.is_empty() {
            let meant = meant(index, &to.kind, &key, owner);
            return Ok(Err(format!(
                "{} {key} has no pods that could be called{meant}",
                to.kind
            )));
        }
        let ports: BTreeSet<u16> = pods
            .values()
            .flat_map(|facts| facts.ports.keys().copied())
            .filter(|port| !PROXY_PORTS.contains(port))
            .collect();
        let port = match (to.port, ports.len()) {
            (Some(port), _) => port,
            (None, 1) => ports.first().copied().unwrap_or_default(),
            (None, _) => return Err(BadQuestion::new("to.port", which(ports.iter()))),
        };
        let pods = pods.into_keys().cloned().collect();
        Ok(Ok(Self::Pods(key, pods, port)))
    }

    fn service(
        index: &Index,
        key: ObjectKey,
        requested: Option<u16>,
    ) -> Result<Result<Self, String>, BadQuestion> {
        let Some(entry) = index.services.get(&key) else {
            let known = index.services.keys();
            let known = known.filter(|known| known.namespace == key.namespace);
            let meant = crds::near::hint(&key.name, known.map(|known| &*known.name));
            return Ok(Err(format!("there is no Service {key}{meant}")));
        };
        let mut ports = entry.ports.keys().copied();
        let only = match (ports.next(), ports.next()) {
            (Some(port), None) => Some(port),
            _ => None,
        };
        if let Some(name) = &entry.facts.external_name {
            return match stands_for(index, &key, name) {
                Ok(Some(service)) => Self::service(index, service, requested.or(only)),
                Ok(None) => Ok(Ok(Self::External(Outside::at(name, requested.or(only))))),
                Err(why) => Ok(Err(format!("Service {key} stands for {name}, {why}"))),
            };
        }
        if entry.facts.headless
            && let Some(port) = requested
        {
            match headless_port(entry, port) {
                Some(HeadlessPort::Served(number)) => return Ok(Ok(Self::Service(key, number))),
                Some(HeadlessPort::Past(pods)) => {
                    return Ok(Ok(Self::PastService(key, pods, port)));
                }
                None => {}
            }
        }
        let Some(port) = requested.or(only) else {
            return Err(BadQuestion::new("to.port", which(entry.ports.keys())));
        };
        if !entry.ports.contains_key(&port) {
            let has = declared(entry.ports.keys());
            return Ok(Err(format!(
                "Service {key} has no TCP port {port}; it has {has}"
            )));
        }
        Ok(Ok(Self::Service(key, port)))
    }

    /// Whether a pod's traffic capture leaves calls to it out. Where it does for some of the
    /// addresses it is taken as if for all: a caller that is refused at one of them notices.
    fn is_left_out(&self, index: &Index, proxy: &Proxy) -> bool {
        let of_pod = |pod: &PodId| {
            let facts = index.world.pods.get(pod);
            facts
                .into_iter()
                .flat_map(|facts| facts.ips.iter().copied())
        };
        match self {
            Self::Service(key, port) => index.services.get(key).is_some_and(|entry| {
                if !entry.facts.headless {
                    return proxy.leaves_out(entry.facts.cluster_ips.iter().copied(), *port);
                }
                let at = entry.ports.get(port);
                let mut pods = at.into_iter().flat_map(|at| &at.candidates);
                pods.any(|one| {
                    let ip = std::iter::once(one.endpoint.ip);
                    proxy.leaves_out(ip, one.endpoint.port)
                })
            }),
            Self::Pods(_, pods, port) | Self::PastService(_, pods, port) => {
                proxy.leaves_out(pods.iter().flat_map(of_pod), *port)
            }
            Self::External(outside) => outside.is_left_out(proxy),
        }
    }

    /// Whether it matters on which node a caller is.
    fn is_local(&self, index: &Index) -> bool {
        let Self::Service(key, _) = self else {
            return false;
        };
        let Some(entry) = index.services.get(key) else {
            return false;
        };
        let split = entry.splits.iter().flat_map(|split| &split.backends);
        let split = split.map(|(backend, _)| backend);
        let routed = entry.all_routed().flat_map(|(_, table)| &table.leads_to);
        let routed = routed.map(|(backend, _)| backend);
        let mut backends = split
            .chain(routed)
            .filter_map(|backend| index.backend(backend));
        entry.facts.internal_local || backends.any(|backend| backend.facts.internal_local)
    }

    /// Whose it is.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Service(key, _) | Self::Pods(key, ..) | Self::PastService(key, ..) => {
                &key.namespace
            }
            Self::External(_) => "",
        }
    }
}

fn which<'a>(ports: impl Iterator<Item = &'a u16>) -> String {
    format!("say which one: it has {}", declared(ports))
}

fn declared<'a>(ports: impl Iterator<Item = &'a u16>) -> String {
    let ports: Vec<String> = ports.map(ToString::to_string).collect();
    if ports.is_empty() {
        return "none that is declared".to_owned();
    }
    ports.join(", ")
}
