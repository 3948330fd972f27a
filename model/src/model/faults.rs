//! The FaultExperiments of which proxies have rules: the target and the seed of each run, and what
//! the annotation of a namespace allows.

use std::collections::{BTreeMap, BTreeSet};

use crds::weft::{FaultLimit, parse_faults};
use policy::{share::Share, sticky::mix};

use crate::world::{NamespaceFacts, ObjectKey};

/// The experiments of which proxies have rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// By object.
    pub runs: BTreeMap<ObjectKey, FaultRun>,
    /// Services of whose pods a run harms some, by labels or zone.
    pub(crate) selective: BTreeSet<ObjectKey>,
}

impl Faults {
    /// Whether a run harms some pods only of one of these Services.
    pub(crate) fn are_selective(&self, services: &BTreeSet<ObjectKey>) -> bool {
        let mut selective = self.selective.iter();
        selective.any(|target| services.contains(target))
    }
}

/// A run that has rules. It harms nothing without a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRun {
    /// Names the run to proxies.
    pub seed: u64,
    /// The Service whose callers have its rule `fault`, and the ports of that.
    pub target: ObjectKey,
    pub ports: Vec<u16>,
}

/// The largest share of a namespace's calls that experiments may harm: none without a word of
/// it.
#[must_use]
pub fn limit(namespace: Option<&NamespaceFacts>) -> Share {
    let annotation = namespace.and_then(|namespace| namespace.annotations.faults.as_deref());
    match annotation.map(parse_faults) {
        Some(Ok(FaultLimit::UpTo(millionths))) => {
            Share::of_millionths(millionths).unwrap_or(Share::NONE)
        }
        _ => Share::NONE,
    }
}

/// Whether a namespace has the kill switch, which counts on the mesh's own. A value that cannot be
/// read is one: `stop`, written in a hurry, must not leave calls harmed.
#[must_use]
pub fn is_stopped(namespace: Option<&NamespaceFacts>) -> bool {
    let annotation = namespace.and_then(|namespace| namespace.annotations.faults.as_deref());
    annotation.is_some_and(|text| !matches!(parse_faults(text), Ok(FaultLimit::UpTo(_))))
}

/// What names a run to proxies. The same on every replica; another run, or an object that was
/// made anew under the same name, has another one and so harms other calls.
#[must_use]
pub fn seed(uid: &str, run: i64) -> u64 {
    // FNV-1a: no hash of the library, which may differ from one version to the next.
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = uid.bytes().chain(run.to_le_bytes());
    mix(bytes.fold(BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_of_each_object_has_its_seed() {
        let seeds = [seed("a", 1), seed("a", 2), seed("b", 1)];
        assert_eq!(seeds.iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(seed("a", 1), seeds[0]);
    }

    #[test]
    fn kill_switch_needs_no_correct_spelling() {
        let of = |value: Option<&str>| {
            let mut namespace = NamespaceFacts::default();
            namespace.annotations.faults = value.map(Into::into);
            is_stopped(Some(&namespace))
        };
        for on in ["stopped", "stop", "Stopped", ""] {
            assert!(of(Some(on)), "{on:?}");
        }
        for off in [None, Some("allowed"), Some("share=5%")] {
            assert!(!of(off), "{off:?}");
        }
        assert!(!is_stopped(None));
    }

    #[test]
    fn namespace_without_readable_annotation_allows_nothing() {
        let of = |value: Option<&str>| {
            let mut namespace = NamespaceFacts::default();
            namespace.annotations.faults = value.map(Into::into);
            limit(Some(&namespace)).millionths()
        };
        assert_eq!(of(Some("share=5%")), 50_000);
        for none in [None, Some(""), Some("share=5"), Some("stopped")] {
            assert_eq!(of(none), 0, "{none:?}");
        }
        assert_eq!(limit(None), Share::NONE);
    }
}
