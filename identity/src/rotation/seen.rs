//! The input of a decision about rotation: what users and the source of the root want, and how far
//! replicas, trust bundles and proxies are.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::state::{Reason, Source};
use crate::verify::AuthorityId;

/// All of it, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How long after the last trust bundle a kubelet may still show the former one.
    pub settle: Duration,
    /// Life of leaves.
    pub leaf_ttl: Duration,
    /// In the object, whether or not it was carried out.
    pub request: Option<Request>,
    /// Two thirds of the root's life are over.
    pub root_is_due: bool,
    /// The key of the first root is in the Secret.
    pub has_root_key: bool,
    /// Configured.
    pub source: Source,
    /// What the configured source holds, if it can be used.
    pub offered: Option<Offered>,
    /// What replicas sign with, below the first root, where each has an issuer of its own.
    pub issuers: Vec<AuthorityId>,
    /// Replicas without an issuer of their own below the next root, or where there is none, below the
    /// one that is offered.
    pub without_issuer: Vec<String>,
    /// All replicas, the one that decides among them.
    pub replicas: Vec<Replica>,
    pub bundles: Bundles,
    /// Connected ones, and those whose container runs. None: the pods are not known yet.
    pub proxies: Option<Vec<Proxy>>,
    /// The clock that decides is far from the API server's.
    pub clock_is_off: bool,
}

/// A wish of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub id: String,
    pub scope: Scope,
    pub reason: Reason,
}

/// What is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Root,
    /// Below the same root.
    Issuer,
}

/// An issuer of a Secret or of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The root that it ends at.
    pub root: AuthorityId,
    /// What signs now is this certificate, with what is above it. An issuer that its owner renewed with
    /// its key is another one: the former ends.
    pub signs: bool,
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub name: String,
    pub loaded: Loaded,
}

/// What a replica serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The content of a step, reported first at this moment. Two replicas that lead in turn may have
    /// written the same step with other roots.
    Step {
        step: u64,
        roots: Vec<AuthorityId>,
        since: SystemTime,
    },
    /// It does not report that: its version is a former one.
    Former,
    /// Nothing has been received from it.
    Unheard,
}

/// The trust bundles of all namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bundles {
    /// All hold the roots of this step, since then.
    Complete(SystemTime),
    /// These namespaces lack it.
    Behind(Vec<String>),
    /// They have not been looked at.
    Unknown,
}

/// A pod's proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Namespace and name of the pod.
    pub pod: String,
    /// By the API server's clock.
    pub created: SystemTime,
    pub stream: ProxyStream,
    /// Roots in use; none reported: an old one, or one that has just connected.
    pub trusts: Vec<AuthorityId>,
    /// What signed its leaf, if it reports that.
    pub authority: Option<AuthorityId>,
}

/// Whether some replica serves a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyStream {
    Open,
    /// None yet, on a controller that has just started; what it has is not known.
    Returning,
    /// None since then, or since before it was looked for.
    None(SystemTime),
}

/// What holds a rotation up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Too little time has passed since the one before.
    Recent(Duration),
    Clock,
    Pods,
    Replica(Replica),
    /// Its folder has no issuer below the root.
    NoIssuer(String),
    Bundle(String),
    Bundles,
    /// What is left of it.
    Settle(Duration),
    NoStream {
        pod: String,
        lasts: Duration,
    },
    Returning(String),
    NotTrusting(String),
    NotRenewed(String),
    StillTrusting(String),
    /// It does not report what it has; it counts for so long.
    Silent {
        pod: String,
        left: Duration,
    },
    /// Connections by the former roots are given this time to end.
    Connections(Duration),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recent(left) => {
                write!(
                    f,
                    "the last rotation began shortly before: {} left",
                    Span(*left)
                )
            }
            Self::Clock => f.write_str(
                "the controller's clock differs from the API server's by a minute or more",
            ),
            Self::Pods => f.write_str("the controller has not read the pods yet"),
            Self::Replica(replica) => {
                let name = &replica.name;
                match &replica.loaded {
                    Loaded::Step { step, .. } => write!(f, "controller {name}: serves step {step}"),
                    Loaded::Former => {
                        write!(
                            f,
                            "controller {name}: a former version, which reports no step"
                        )
                    }
                    Loaded::Unheard => write!(f, "controller {name}: not reached"),
                }
            }
            Self::NoIssuer(replica) => {
                write!(
                    f,
                    "controller {replica}: its folder has no issuer below the root"
                )
            }
            Self::Bundle(namespace) => {
                write!(f, "namespace {namespace}: its trust bundle lacks the root")
            }
            Self::Bundles => f.write_str("the controller has not looked at the trust bundles yet"),
            Self::Settle(left) => {
                write!(f, "kubelets show the trust bundles: {} left", Span(*left))
            }
            Self::NoStream { pod, lasts } => write!(f, "{pod}: no stream for {}", Span(*lasts)),
            Self::Returning(pod) => {
                write!(
                    f,
                    "{pod}: not back yet at the controller that has just started"
                )
            }
            Self::NotTrusting(pod) => write!(f, "{pod}: lacks the next root"),
            Self::NotRenewed(pod) => write!(f, "{pod}: has a certificate below the former root"),
            Self::StillTrusting(pod) => write!(f, "{pod}: still trusts the former root"),
            Self::Silent { pod, left } => {
                write!(
                    f,
                    "{pod}: its version reports too little; counts for {}",
                    Span(*left)
                )
            }
            Self::Connections(left) => {
                write!(
                    f,
                    "connections by the former root end: {} left",
                    Span(*left)
                )
            }
        }
    }
}

/// A time in its greatest unit.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            // Shown in a status, which is written whenever it changes.
            seconds @ 0..120 => write!(f, "{}s", seconds.div_ceil(10) * 10),
            seconds @ 120..7_200 => write!(f, "{}m", seconds / 60),
            seconds => write!(f, "{}h", seconds / 3_600),
        }
    }
}
