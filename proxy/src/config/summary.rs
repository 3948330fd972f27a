//! A summary of the configuration: the pod, its modes, and the names and versions of all
//! resources. The admin port shows it, and a controller may query it.

use policy::name::SpiffeId;

use crate::config::snapshot::Snapshot;

/// See the module header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) identity: String,
    pub(crate) enforcement: String,
    pub(crate) mtls: String,
    pub(crate) draining: bool,
    /// Name and version of each resource, by name.
    pub(crate) resources: Vec<(String, String)>,
}

impl Summary {
    pub(crate) fn of(snapshot: &Snapshot, identity: &SpiffeId, draining: bool) -> Self {
        let mut resources: Vec<(String, String)> =
            snapshot.resource_versions().into_iter().collect();
        resources.sort();
        Self {
            identity: identity.as_str().to_owned(),
            enforcement: format!("{:?}", snapshot.access.enforcement).to_lowercase(),
            mtls: format!("{:?}", snapshot.mtls()).to_lowercase(),
            draining,
            resources,
        }
    }
}
