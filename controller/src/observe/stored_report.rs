//! A report in its stored form: its pod, the edges that it counted, and the routes that the pod
//! served.
//!
//! A report does not name its sender: what a pod may make others believe about calls is bounded by
//! its identity, and replicas pass this on beside the report.

use std::sync::Arc;

use model::world::ObjectKey;
use wire::v1;

use super::latency_counts::LatencyCounts;

/// What a text takes besides its characters: where it is, and its two counts.
const TEXT_BYTES: usize = 40;
/// What an edge takes besides its texts and its latencies.
const EDGE_BYTES: usize = 128;

/// The pod that reported, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reporter {
    /// Uid of this incarnation.
    pub uid: Arc<str>,
    /// Namespace and name.
    pub pod: ObjectKey,
    /// The service account that its certificate names; `None` from replicas that do not say.
    pub account: Option<ObjectKey>,
}

impl Reporter {
    /// A pod whose certificate names this account.
    pub(crate) fn certified(uid: Arc<str>, pod: &ObjectKey, account: &str) -> Self {
        Self {
            uid,
            pod: pod.clone(),
            account: Some(ObjectKey::new(&pod.namespace, account)),
        }
    }

    /// As replicas tell each other: its namespace is the pod's.
    pub(crate) fn account_name(&self) -> String {
        let name = self.account.as_ref().map(|account| &*account.name);
        name.unwrap_or_default().to_owned()
    }

    /// Bytes of the account, which reports of other replicas' pods do not share.
    pub(super) fn account_bytes(&self) -> usize {
        let account = self.account.as_ref();
        account.map_or(0, |key| {
            2 * TEXT_BYTES + key.namespace.len() + key.name.len()
        })
    }
}

/// What an edge is about; shared by all intervals that have it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReportedEdgeKey {
    /// Whether the caller's proxy measured it.
    pub client: bool,
    /// Client side: the pod that was called.
    pub pod: Option<ObjectKey>,
    /// Server side: uid of the calling pod.
    pub caller: Arc<str>,
    /// Server side: namespace and service account of the caller.
    pub account: Option<ObjectKey>,
    /// The Service that was called.
    pub service: Option<ObjectKey>,
    /// Its port.
    pub port: u16,
    /// The Service whose endpoints served.
    pub backend: Option<ObjectKey>,
    /// The TrafficSplit that chose it.
    pub split: Option<ObjectKey>,
    /// The route of the Gateway API that chose it, such as `HTTPRoute shop/web`.
    pub rule: Option<Arc<str>>,
    /// What protects the connection between the two pods.
    pub security: v1::Security,
    /// What caller and callee speak.
    pub protocol: v1::Protocol,
    /// The other end where it is outside the mesh.
    pub remote: Arc<str>,
}

/// The sums of one edge in one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// What it is about.
    pub key: Arc<ReportedEdgeKey>,
    /// Calls that went well.
    pub success: u64,
    /// Calls that did not.
    pub failure: u64,
    /// HTTP requests by bucket of [`policy::latency`].
    pub latency: LatencyCounts,
    /// Bytes from and to the caller.
    pub bytes: (u64, u64),
    /// Tries at this backend, if they are counted apart: a caller's edge nearly always has them.
    pub attempts: Option<u32>,
    /// What not every edge has; absent where all of it is zero.
    pub detail: Option<Box<Detail>>,
}

/// What was counted beside success and failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    /// Requests and connections under way.
    pub open: u64,
    /// Opaque connections that began.
    pub opened: u64,
    /// Requests whose caller left.
    pub cancelled: u64,
    /// Tries that failed, of the edge's attempts.
    pub attempt_failures: u64,
    /// Answers with 4xx.
    pub client_errors: u64,
    /// What deny would have refused.
    pub audit: u64,
    /// What has names; absent where there are none, as on most edges.
    pub named: Option<Box<Named>>,
}

// Every edge has the first in each interval, and few have the second.
const _: () = assert!(size_of::<Edge>() <= 72 && size_of::<Detail>() <= 64);

/// What was counted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Failures by reason.
    pub reasons: Box<[(Arc<str>, u64)]>,
    /// Targets that allowed calls.
    pub rules: Box<[ObjectKey]>,
    /// Requests by route.
    pub routes: Box<[(Arc<str>, u64)]>,
}

impl Named {
    fn of(edge: &mut v1::Edge) -> Option<Box<Self>> {
        let named = |(name, count): (String, u64)| (Arc::from(name), count);
        let reasons = std::mem::take(&mut edge.reasons).into_iter();
        let routes = std::mem::take(&mut edge.routes).into_iter();
        let all = Self {
            reasons: reasons.map(|one| named((one.reason, one.calls))).collect(),
            rules: edge.rules.iter().filter_map(|rule| key(rule)).collect(),
            routes: routes.map(|one| named((one.route, one.requests))).collect(),
        };
        (all != Self::default()).then(|| Box::new(all))
    }

    fn bytes(&self) -> usize {
        let named = self.reasons.iter().chain(&self.routes);
        let named: usize = named.map(|(name, _)| TEXT_BYTES + name.len()).sum();
        let rules = self.rules.iter();
        let rules: usize = rules
            .map(|key| 2 * TEXT_BYTES + key.namespace.len() + key.name.len())
            .sum();
        size_of::<Self>() + named + rules
    }
}

impl Detail {
    pub(super) fn of(edge: &mut v1::Edge) -> Option<Box<Self>> {
        let detail = Self {
            open: edge.open,
            opened: edge.opened,
            cancelled: edge.cancelled,
            attempt_failures: edge.attempt_failures,
            client_errors: edge.client_errors,
            audit: edge.audit,
            named: Named::of(edge),
        };
        (detail != Self::default()).then(|| Box::new(detail))
    }

    fn bytes(&self) -> usize {
        let named = self.named.as_ref().map_or(0, |named| named.bytes());
        size_of::<Self>() + named
    }
}

impl Edge {
    /// What it takes, if no other report shares its key.
    pub(super) fn bytes_at_most(&self) -> usize {
        let key = &self.key;
        let objects = [
            &key.pod,
            &key.account,
            &key.service,
            &key.backend,
            &key.split,
        ];
        let texts = objects.into_iter().flatten();
        let texts: usize = texts.map(|key| key.namespace.len() + key.name.len()).sum();
        let detail = self.detail.as_ref().map_or(0, |detail| detail.bytes());
        let rule = key.rule.as_deref().map_or(0, str::len);
        let own = key.caller.len() + key.remote.len() + rule + self.latency.bytes();
        EDGE_BYTES + own + texts + detail
    }
}

/// Requests of one route, at the pod that serves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteCalls {
    /// Name; empty for what no route describes.
    pub route: Arc<str>,
    /// The pod's port.
    pub port: u16,
    /// Requests that went well, that did not, and whose caller left.
    pub calls: (u64, u64, u64),
    /// Answers with 4xx.
    pub client_errors: u64,
    /// Requests by bucket of [`policy::latency`].
    pub latency: Box<[u32]>,
}

impl RouteCalls {
    pub(super) fn of(calls: v1::RouteCalls) -> Self {
        Self {
            route: calls.route.into(),
            port: u16::try_from(calls.port).unwrap_or(0),
            calls: (calls.success, calls.failure, calls.cancelled),
            client_errors: calls.client_errors,
            latency: calls.latency.into(),
        }
    }

    pub(super) fn message(&self) -> v1::RouteCalls {
        v1::RouteCalls {
            port: self.port.into(),
            route: self.route.to_string(),
            success: self.calls.0,
            failure: self.calls.1,
            cancelled: self.calls.2,
            client_errors: self.client_errors,
            latency: self.latency.to_vec(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + TEXT_BYTES + self.route.len() + size_of_val(&*self.latency)
    }
}

/// `namespace/name`.
pub(super) fn key(text: &str) -> Option<ObjectKey> {
    let (namespace, name) = text.split_once('/')?;
    Some(ObjectKey::new(namespace, name))
}

fn text(key: Option<&ObjectKey>) -> String {
    key.map_or_else(String::new, |key| format!("{}/{}", key.namespace, key.name))
}

/// An edge as replicas send it to each other.
pub(super) fn message(edge: &Edge) -> v1::Edge {
    let key = &edge.key;
    let side = if key.client {
        v1::Side::Client
    } else {
        v1::Side::Server
    };
    v1::Edge {
        side: side.into(),
        pod: text(key.pod.as_ref()),
        caller: key.caller.to_string(),
        identity: text(key.account.as_ref()),
        service: text(key.service.as_ref()),
        port: u32::from(key.port),
        backend: text(key.backend.as_ref()),
        split: text(key.split.as_ref()),
        rule: key.rule.as_deref().unwrap_or_default().to_owned(),
        success: edge.success,
        failure: edge.failure,
        latency: edge.latency.iter().collect(),
        sent: edge.bytes.0,
        received: edge.bytes.1,
        security: key.security.into(),
        protocol: key.protocol.into(),
        remote: key.remote.to_string(),
        attempts: edge.attempts.map(u64::from),
        ..detail(edge.detail.as_deref())
    }
}

fn detail(detail: Option<&Detail>) -> v1::Edge {
    let Some(detail) = detail else {
        return v1::Edge::default();
    };
    let reason = |(reason, calls): &(Arc<str>, u64)| v1::ReasonCalls {
        reason: reason.to_string(),
        calls: *calls,
    };
    let route = |(route, requests): &(Arc<str>, u64)| v1::EdgeRoute {
        route: route.to_string(),
        requests: *requests,
    };
    let named = detail.named.iter();
    let reasons = named.clone().flat_map(|named| &named.reasons);
    let rules = named.clone().flat_map(|named| &named.rules);
    let routes = named.flat_map(|named| &named.routes);
    v1::Edge {
        open: detail.open,
        opened: detail.opened,
        cancelled: detail.cancelled,
        attempt_failures: detail.attempt_failures,
        client_errors: detail.client_errors,
        audit: detail.audit,
        reasons: reasons.map(reason).collect(),
        rules: rules.map(|rule| text(Some(rule))).collect(),
        routes: routes.map(route).collect(),
        ..v1::Edge::default()
    }
}
