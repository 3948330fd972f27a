//! What is kept of SMI objects.
//!
//! Values are kept as written, right or wrong: judging them is `compile`'s, so
//! that every verdict carries the field it is about.

use std::{collections::BTreeMap, sync::Arc};

/// What every SMI object has. Not its resource version: that changes with every write
/// of the status, which is no news.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Counts changes of the spec.
    pub generation: i64,
    /// Creation time, seconds since 1970.
    pub created: i64,
    /// Unique id.
    pub uid: Arc<str>,
    /// Set when the object could not be read: why, in the reader's words. The
    /// other facts are then empty, except whom a TrafficTarget protects.
    pub unreadable: Option<Arc<str>>,
}

/// A service account, group or binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectFacts {
    /// `ServiceAccount`, `Group` or `IdentityBinding`; may be empty.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Namespace; empty when not given.
    pub namespace: Arc<str>,
    /// `destination.port` of the oldest versions: an extra condition on the port.
    pub port: Option<i64>,
}

/// One rule of a TrafficTarget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFacts {
    /// Kind of the route object.
    pub kind: Arc<str>,
    /// Name of the route object in the target's namespace.
    pub name: Arc<str>,
    /// Names of matches. Absent means every match, and an empty list none.
    pub matches: Option<Vec<Arc<str>>>,
}

/// A TrafficTarget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// Metadata.
    pub meta: Meta,
    /// Whom it protects; absent when it names nobody.
    pub destination: Option<SubjectFacts>,
    /// Who may call.
    pub sources: Vec<SubjectFacts>,
    /// What they may call.
    pub rules: Vec<RuleFacts>,
}

/// One backend of a split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendFacts {
    /// Service as written.
    pub service: Arc<str>,
    /// Weight as written.
    pub weight: i64,
}

/// A reference to an object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefFacts {
    /// API group, may be empty.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// A TrafficSplit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitFacts {
    /// Metadata.
    pub meta: Meta,
    /// Root service as written.
    pub service: Arc<str>,
    /// Backends.
    pub backends: Vec<BackendFacts>,
    /// Conditions; empty means none.
    pub matches: Vec<RefFacts>,
}

/// A header condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Name as written.
    pub name: Arc<str>,
    /// Regular expression for the value.
    pub regex: Arc<str>,
}

/// One match of an HTTPRouteGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchFacts {
    /// Name, the key within its group.
    pub name: Arc<str>,
    /// Path expression.
    pub path_regex: Option<Arc<str>>,
    /// Methods; empty means any.
    pub methods: Vec<Arc<str>>,
    /// Header conditions.
    pub headers: Vec<Header>,
    /// Why it cannot be used: the field and the reason. Found out when the object
    /// is read, because compiling a regular expression is too dear to be repeated
    /// for every World.
    pub bad: Option<(Arc<str>, Arc<str>)>,
}

/// An HTTPRouteGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// Metadata.
    pub meta: Meta,
    /// Matches in order.
    pub matches: Vec<MatchFacts>,
}

/// A UDPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpRouteFacts {
    /// Metadata.
    pub meta: Meta,
    /// Ports as written. Absent and empty mean all; of a route that cannot be read
    /// nothing is known, and it stands for no port.
    pub ports: Option<Vec<i64>>,
}

/// An IdentityBinding. What is absent is not a way to belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingFacts {
    /// Metadata.
    pub meta: Meta,
    /// Labels that pods must have, all of them. Empty fits nobody.
    pub labels: Option<BTreeMap<Arc<str>, Arc<str>>>,
    /// SPIFFE ids as written.
    pub spiffe_ids: Option<Vec<Arc<str>>>,
    /// Service account of the binding's namespace.
    pub service_account: Option<Arc<str>>,
}

/// A TCPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpRouteFacts {
    /// Metadata.
    pub meta: Meta,
    /// Ports as written. Empty means all.
    pub ports: Vec<i64>,
}
