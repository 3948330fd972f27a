//! Translates Revocations into facts: the spec, and of the status the pods that its subjects have
//! meant.
//!
//! Only the controller that leads may write the status. What cannot be read in it is left out: the
//! pods that are there now are found again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::smi::validation::Cluster;
use crds::weft::{RevocationSpec, RevokedSubjectStatus};
use kube::core::DynamicObject;
use serde::Deserialize as _;
use serde_json::Value;

use super::smi::validated;
use crate::world::RevocationFacts;

/// A Revocation.
pub fn revocation(object: &DynamicObject, cluster: &Cluster) -> RevocationFacts {
    let (meta, spec) = validated::<RevocationSpec>(object, cluster);
    let subjects = object.data.pointer("/status/subjects");
    RevocationFacts {
        meta,
        spec,
        kept: subjects.map(kept).unwrap_or_default(),
    }
}

fn kept(subjects: &Value) -> BTreeMap<Arc<str>, Vec<Arc<str>>> {
    let subjects = subjects.as_array().into_iter().flatten();
    let subjects = subjects.filter_map(|one| RevokedSubjectStatus::deserialize(one).ok());
    let kept = subjects.filter(|one| !one.pod_uids.is_empty());
    kept.map(|one| {
        let uids = one.pod_uids.iter();
        let uids = uids.filter(|uid| !uid.is_empty());
        (
            one.subject.as_str().into(),
            uids.map(|uid| uid.as_str().into()).collect(),
        )
    })
    .collect()
}
