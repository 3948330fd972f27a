//! Problems of objects, with the messages that their authors read.
//!
//! Compiling never fails: it uses what it can, and reports of the rest which field is wrong and
//! why. The conditions `Accepted` and `ResolvedRefs` and the Events come from the same findings,
//! so they cannot disagree.
//!
//! May import nothing else of this crate.

use std::{collections::BTreeMap, sync::Arc};

use crds::smi::validation::Code;
use gateway_api::route::ParentRef;
use policy::name::ObjectRef;

/// The condition that a problem belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object can be understood as it is written.
    Accepted,
    /// Everything it names exists and fits.
    ResolvedRefs,
}

impl ConditionType {
    /// The name that Kubernetes shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
        }
    }
}

/// Whether a problem makes its condition false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The condition is False: something that was configured does not happen.
    Failure,
    /// The condition stays True: it happens, but maybe not as meant.
    Warning,
}

/// One thing that is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object.
    pub object: ObjectRef,
    /// Its generation; 0 where Kubernetes keeps none.
    pub generation: i64,
    /// Condition it belongs to.
    pub condition: ConditionType,
    /// Whether it makes the condition false.
    pub severity: Severity,
    /// One word, such as `RefNotFound`.
    pub reason: Reason,
    /// Path of the field, such as `spec.backends[1].service`; empty for the whole object.
    pub field: String,
    /// One sentence.
    pub message: String,
}

/// Reasons, worst first: the first one becomes its condition's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The object cannot be read at all.
    Unreadable,
    /// A field's value cannot be used.
    Invalid,
    /// A TrafficTarget that protects another namespace than its own.
    ForeignDestination,
    /// An IdentityBinding with an identity of another namespace.
    ForeignIdentity,
    /// A kind that is not served.
    UnsupportedKind,
    /// A route names a Service or port that is not there.
    NoMatchingParent,
    /// A route says what cannot be done.
    UnsupportedValue,
    /// A route names a port that does not carry what it is about.
    UnsupportedProtocol,
    /// A route names a backend of another kind than Service.
    InvalidKind,
    /// No ReferenceGrant permits a reference to another namespace.
    RefNotPermitted,
    /// A Service or port that a route names as backend is not there.
    BackendNotFound,
    /// A Service of a type that cannot do this.
    UnsupportedService,
    /// Another, older object already decides.
    Conflicted,
    /// A route of the Gateway API decides instead.
    Overridden,
    /// A mirror whose pods could do more than read.
    NotGuarded,
    /// An experiment whose namespace does not allow its share of faults.
    NotAllowed,
    /// A Revocation of what controllers need.
    ControlPlane,
    /// A Revocation of what signs certificates now.
    IssuerInUse,
    /// Older Revocations hold all places.
    TooMany,
    /// A split that sends traffic nowhere.
    NoUsableBackend,
    /// A named object or match does not exist.
    RefNotFound,
    /// A named service account does not exist.
    NoSuchAccount,
    /// A backend lacks a port of the root.
    PortNotFound,
    /// Service ports declare different protocols for one port of a pod.
    ProtocolConflict,
    /// Rules of two kinds for a port whose protocol no object declares.
    ProtocolNotDeclared,
    /// A Service port was taken for the container port behind it.
    ServicePortMapped,
    /// The pod's capture leaves this port alone, so no rule applies to it.
    PortSkipped,
    /// The rule exists but nothing enforces it.
    NotEnforced,
    /// Calls without a certificate are taken, which a Revocation does not end.
    PlaintextStillOpen,
    /// A policy leads calls to a Service without endpoints.
    NoEndpoints,
    /// Another policy decides a part of it.
    PartlyOverridden,
    /// The pods of a release serve other Services, too.
    SharedPods,
    /// A policy makes the calls that a release compares depend on each other.
    DependentCalls,
    /// A field that has no meaning where it stands.
    FieldIgnored,
    /// A method that no client is likely to send.
    UnusualMethod,
    /// An expression for paths that fits no path.
    UnusualPath,
    /// A source without a namespace was taken for one of the object's own.
    NamespaceDefaulted,
}

impl Reason {
    /// The word that Kubernetes shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "Unreadable",
            Self::Invalid => "Invalid",
            Self::ForeignDestination => "ForeignDestination",
            Self::ForeignIdentity => "ForeignIdentity",
            Self::UnsupportedKind => "UnsupportedKind",
            Self::NoMatchingParent => "NoMatchingParent",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::InvalidKind => "InvalidKind",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::BackendNotFound => "BackendNotFound",
            Self::UnsupportedService => "UnsupportedService",
            Self::Conflicted => "Conflicted",
            Self::Overridden => "Overridden",
            Self::NotGuarded => "NotGuarded",
            Self::NotAllowed => "NotAllowed",
            Self::ControlPlane => "ControlPlane",
            Self::IssuerInUse => "IssuerInUse",
            Self::TooMany => "TooMany",
            Self::NoUsableBackend => "NoUsableBackend",
            Self::RefNotFound => "RefNotFound",
            Self::NoSuchAccount => "NoSuchAccount",
            Self::PortNotFound => "PortNotFound",
            Self::ProtocolConflict => "ProtocolConflict",
            Self::ProtocolNotDeclared => "ProtocolNotDeclared",
            Self::ServicePortMapped => "ServicePortMapped",
            Self::PortSkipped => "PortSkipped",
            Self::NotEnforced => "NotEnforced",
            Self::PlaintextStillOpen => "PlaintextStillOpen",
            Self::NoEndpoints => "NoEndpoints",
            Self::PartlyOverridden => "PartlyOverridden",
            Self::SharedPods => "SharedPods",
            Self::DependentCalls => "DependentCalls",
            Self::FieldIgnored => "FieldIgnored",
            Self::UnusualMethod => "UnusualMethod",
            Self::UnusualPath => "UnusualPath",
            Self::NamespaceDefaulted => "NamespaceDefaulted",
        }
    }
}

impl From<Code> for Reason {
    fn from(code: Code) -> Self {
        match code {
            Code::Unreadable => Self::Unreadable,
            Code::Invalid => Self::Invalid,
            Code::ForeignDestination => Self::ForeignDestination,
            Code::UnsupportedKind => Self::UnsupportedKind,
            Code::FieldIgnored => Self::FieldIgnored,
            Code::UnusualMethod => Self::UnusualMethod,
            Code::UnusualPath => Self::UnusualPath,
        }
    }
}

/// One condition, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// True or False.
    pub status: bool,
    /// One word; the condition's own name when nothing is wrong.
    pub reason: &'static str,
    /// What is wrong, field by field; may be empty.
    pub message: String,
}

/// What is said about one object that has conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectReport {
    /// The generation that this is about.
    pub generation: i64,
    /// Unique id of the object.
    pub uid: Arc<str>,
    /// Can it be understood.
    pub accepted: Condition,
    /// Does everything that it names exist.
    pub resolved_refs: Condition,
    /// The object in a few words, for `kubectl get`.
    pub summary: String,
    /// What it is about, of kinds that show that apart.
    pub target: Option<String>,
    /// What is said of each `parentRef` of a route that is to a Service, in the order of the
    /// object; empty for other kinds. The two conditions above then sum them up.
    pub parents: Vec<ParentReport>,
}

/// What is said about a route as one of its parents sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentReport {
    /// As it is written.
    pub parent: ParentRef,
    /// Whether the route holds for the parent.
    pub accepted: Condition,
    /// Whether every backend exists and may be named.
    pub resolved_refs: Condition,
    /// Some of its rules cannot be served, and others hold: the condition that reports it, which
    /// is then true. `None` where all rules hold or none does.
    pub partially_invalid: Option<Condition>,
    /// Ports of the Service on which some of its rules are in force.
    pub ports: Vec<u16>,
}

/// Everything that compiling found out about objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// Of each object and condition the worst problems, as many as the condition's message
    /// lists, sorted and without repetition: what one object may earn has no other bound.
    /// Also about Services, Pods and Namespaces, which have no conditions: those become
    /// Events only.
    pub list: Vec<Problem>,
    /// One report per object that has conditions, problem or not.
    pub reports: BTreeMap<ObjectRef, ObjectReport>,
}

impl Problems {
    /// Objects about which something else is said than `before`, or that only one of the
    /// two knows.
    pub fn news<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a ObjectRef> {
        let changed = self.reports.iter().filter(|(object, report)| {
            let previous = before.reports.get(*object);
            previous != Some(*report)
        });
        let gone = before.reports.keys();
        let gone = gone.filter(|object| !self.reports.contains_key(*object));
        changed.map(|(object, _)| object).chain(gone)
    }
}

/// Names joined for one line, shortened when there are many.
pub fn few(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<String> = names
        .into_iter()
        .map(|name| name.as_ref().to_owned())
        .collect();
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" +{}", names.len() - SHOWN));
    }
    text
}
