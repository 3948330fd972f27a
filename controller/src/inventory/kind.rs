//! The kinds of objects for which traffic metrics are served.

use model::world::{self, Owner};

/// A kind whose objects traffic belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum MetricsKind {
    /// Everything in a namespace.
    Namespace,
    /// Everything on a node.
    Node,
    /// One pod.
    Pod,
    /// The pods of a ReplicationController.
    ReplicationController,
    /// Calls to a Service, wherever they are served.
    Service,
    /// The pods of a DaemonSet.
    DaemonSet,
    /// The pods of a Deployment, through its ReplicaSets.
    Deployment,
    /// The pods of a ReplicaSet.
    ReplicaSet,
    /// The pods of a StatefulSet.
    StatefulSet,
    /// The pods of a Job.
    Job,
    /// The pods of a CronJob, through its Jobs.
    CronJob,
    /// The pods of a Rollout of Argo, through its ReplicaSets.
    Rollout,
    /// Calls that a TrafficSplit shared out, by backend.
    TrafficSplit,
}

/// Those whose objects are watched and have metrics, in the order of discovery.
pub(crate) const KINDS: [MetricsKind; 11] = [
    MetricsKind::DaemonSet,
    MetricsKind::Deployment,
    MetricsKind::Job,
    MetricsKind::Namespace,
    MetricsKind::Node,
    MetricsKind::Pod,
    MetricsKind::ReplicaSet,
    MetricsKind::ReplicationController,
    MetricsKind::Service,
    MetricsKind::StatefulSet,
    MetricsKind::TrafficSplit,
];

/// Those of which only is known that what is watched names them as its owner, and no reader needs
/// more: each has a new Job for each time, or a new ReplicaSet for each release.
const ABOVE: [MetricsKind; 2] = [MetricsKind::CronJob, MetricsKind::Rollout];

impl MetricsKind {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        KINDS.into_iter().chain(ABOVE)
    }

    /// The kind by whose objects those of this one are known, where it is not watched itself.
    pub(crate) const fn known_by(self) -> Option<Self> {
        match self {
            Self::CronJob => Some(Self::Job),
            Self::Rollout => Some(Self::ReplicaSet),
            _ => None,
        }
    }

    /// As Kubernetes writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::ReplicationController => "ReplicationController",
            Self::Service => "Service",
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::Rollout => "Rollout",
            Self::TrafficSplit => "TrafficSplit",
        }
    }

    /// Name in paths.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::ReplicationController => "replicationcontrollers",
            Self::Service => "services",
            Self::DaemonSet => "daemonsets",
            Self::Deployment => "deployments",
            Self::ReplicaSet => "replicasets",
            Self::StatefulSet => "statefulsets",
            Self::Job => "jobs",
            Self::CronJob => "cronjobs",
            Self::Rollout => "rollouts",
            Self::TrafficSplit => "trafficsplits",
        }
    }

    /// Group and version of the object itself.
    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::CronJob
            | Self::DaemonSet
            | Self::Deployment
            | Self::Job
            | Self::ReplicaSet
            | Self::ReplicationController
            | Self::Rollout
            | Self::StatefulSet => world::workload_version(self.name()).unwrap_or_default(),
            Self::TrafficSplit => "split.smi-spec.io/v1alpha4",
            Self::Namespace | Self::Node | Self::Pod | Self::Service => "v1",
        }
    }

    /// Whether its objects live in namespaces.
    pub(crate) const fn namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// Whether its traffic is that of pods, so that both ends can be of it.
    pub(crate) const fn has_pods(self) -> bool {
        !matches!(self, Self::Service | Self::TrafficSplit)
    }

    /// The kind with this name in paths, if it is watched.
    pub(crate) fn from_plural(plural: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.plural() == plural)
    }

    /// The kind of an owner.
    pub(crate) fn of_owner(owner: &Owner) -> Option<Self> {
        Self::owner_named(owner.known_kind()?)
    }

    /// The kind of this name, if its objects own pods.
    pub(crate) fn owner_named(name: &str) -> Option<Self> {
        let known = Self::all().filter(|known| known.has_pods());
        known
            .filter(|known| known.namespaced() && *known != Self::Pod)
            .find(|known| known.name() == name)
    }
}
