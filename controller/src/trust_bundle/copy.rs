//! One copy of the trust bundle: its current and its wanted content, and whether another client
//! caused the difference.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crds::labels::INSTALL;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::ObjectMeta;

/// Name of the ConfigMap in each namespace.
pub(crate) const NAME: &str = "weft-trust-bundle";
/// Key of the trusted roots, PEM.
pub(crate) const ROOTS_KEY: &str = "ca.crt";
/// Key of the mark that shows proxies that the mesh is being removed.
pub(crate) const LEAVING_KEY: &str = "leaving";
/// Field manager of the copies.
pub(crate) const MANAGER: &str = policy::well_known::CONTROLLER;
/// Field manager of the mark.
pub(crate) const LEAVE_MANAGER: &str = "weft-leave";

/// A copy as it stands in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BundleCopy {
    pub(super) uid: String,
    /// Resource version: says which write this is the outcome of.
    pub(super) version: String,
    pub(super) roots: String,
    pub(super) leaving: bool,
    /// Files in base64, which could stand in for the roots or the mark.
    pub(super) binary: bool,
    /// Cannot be changed any more, only deleted.
    pub(super) immutable: bool,
    pub(super) install: String,
    /// Field managers of the roots.
    pub(super) root_managers: BTreeSet<String>,
    /// Field managers of the mark.
    pub(super) mark_managers: BTreeSet<String>,
}

/// What this process knows to be its own in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Last {
    /// Roots that it last wrote or found right.
    pub(super) roots: String,
    /// Resource versions that it wrote, the newest last.
    pub(super) versions: VecDeque<String>,
}

/// What has to be done in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    Create,
    /// `foreign`: another client made it necessary.
    Write {
        keep_mark: bool,
        foreign: bool,
    },
    /// Nothing but a new one helps; the watch creates it once this is gone.
    Delete {
        foreign: bool,
    },
}

impl From<ConfigMap> for BundleCopy {
    fn from(map: ConfigMap) -> Self {
        let root_managers = managers(&map, ROOTS_KEY);
        let mark_managers = managers(&map, LEAVING_KEY);
        let mut data = map.data.unwrap_or_default();
        let binary = map.binary_data.unwrap_or_default();
        let mut annotations = map.metadata.annotations.unwrap_or_default();
        Self {
            uid: map.metadata.uid.unwrap_or_default(),
            version: map.metadata.resource_version.unwrap_or_default(),
            roots: data.remove(ROOTS_KEY).unwrap_or_default(),
            leaving: data.contains_key(LEAVING_KEY) || binary.contains_key(LEAVING_KEY),
            binary: !binary.is_empty(),
            immutable: map.immutable == Some(true),
            install: annotations.remove(INSTALL).unwrap_or_default(),
            root_managers,
            mark_managers,
        }
    }
}

/// The managers that, by the API server, have written a key of the data.
fn managers(map: &ConfigMap, key: &str) -> BTreeSet<String> {
    let entries = map.metadata.managed_fields.iter().flatten();
    let wrote = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        let field = format!("f:{key}");
        fields.is_some_and(|fields| fields["f:data"].get(&field).is_some())
    };
    let names = entries.filter(wrote);
    names.filter_map(|entry| entry.manager.clone()).collect()
}

impl BundleCopy {
    /// For people: which other managers wrote, as far as the copy says.
    pub(super) fn managers(&self) -> String {
        let all = self.root_managers.union(&self.mark_managers);
        let others: Vec<&str> = all
            .map(String::as_str)
            .filter(|name| ![MANAGER, LEAVE_MANAGER].contains(name))
            .collect();
        match others.as_slice() {
            [] => String::new(),
            others => format!(" (field manager {})", others.join(", ")),
        }
    }
}

/// How a copy should be.
pub(super) struct DesiredCopy<'a> {
    pub(super) roots: &'a str,
    pub(super) install: &'a str,
    /// Whether it may carry the mark.
    pub(super) leaving: bool,
}

pub(super) fn need(
    existing: Option<&BundleCopy>,
    wanted: &DesiredCopy<'_>,
    last: Option<&Last>,
) -> Need {
    let Some(existing) = existing else {
        return Need::Create;
    };
    let marked = existing.leaving && !wanted.leaving;
    let right = existing.roots == wanted.roots && existing.install == wanted.install;
    if right && !marked && !existing.binary && !existing.immutable {
        return Need::Nothing;
    }
    let foreign = is_foreign(existing, wanted, last);
    if existing.immutable {
        return Need::Delete { foreign };
    }
    Need::Write {
        keep_mark: wanted.leaving,
        foreign,
    }
}

/// Whether another client than this controller and its job wrote what stands in a copy that is not
/// right.
fn is_foreign(existing: &BundleCopy, wanted: &DesiredCopy<'_>, last: Option<&Last>) -> bool {
    if existing.binary || existing.immutable {
        return true;
    }
    let marked = existing.leaving && !wanted.leaving;
    match last {
        Some(last) if last.versions.contains(&existing.version) => false,
        Some(last) => marked || ![&*last.roots, wanted.roots].contains(&&*existing.roots),
        // From before this process: an earlier holder of the Lease, an earlier installation or
        // another client wrote it.
        None => {
            let only = |managers: &BTreeSet<String>, who: &str| {
                managers.len() == 1 && managers.contains(who)
            };
            let roots_ours =
                existing.roots == wanted.roots || only(&existing.root_managers, MANAGER);
            !roots_ours || (marked && !only(&existing.mark_managers, LEAVE_MANAGER))
        }
    }
}

pub(super) fn copy(roots: &str, install: &str) -> ConfigMap {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(BTreeMap::from([
                pair("app.kubernetes.io/managed-by", "weft-controller"),
                pair("app.kubernetes.io/part-of", "weft"),
            ])),
            annotations: Some(BTreeMap::from([pair(INSTALL, install)])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([pair(ROOTS_KEY, roots)])),
        ..ConfigMap::default()
    }
}
