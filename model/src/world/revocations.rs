//! Facts of Revocations, from their spec and status.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::weft::validation::Revoked;

use super::{fact::Fact, smi::Meta};

/// A Revocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// What is revoked.
    pub spec: Revoked,
    /// Of its status: uids of the pods that a subject has meant so far, by the subject's text. They
    /// stay revoked when the pods are gone, since their certificates have not ended.
    pub kept: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

impl Fact for RevocationFacts {
    fn urgent(_: Option<&Self>, _: Option<&Self>) -> bool {
        true
    }
}
