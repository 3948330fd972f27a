//! What to do about an object, by the reason of its condition: what helps one that names what is
//! missing helps none that sends calls nowhere.
//!
//! Claims: observe-46

/// Reasons of `Accepted` and `ResolvedRefs` where they are False, as docs/smi.md and
/// docs/trafficpolicy.md list them.
const ADVICE: [(&str, &str); 14] = [
    (
        "Unreadable",
        "apply it anew in the form of its kind; weft validate -f says what cannot be read",
    ),
    (
        "Invalid",
        "correct the field that the condition names; weft validate -f says the same before it is applied",
    ),
    (
        "ForeignDestination",
        "put it into the namespace that it protects",
    ),
    (
        "ForeignIdentity",
        "name identities of its own namespace, and others by a binding of theirs",
    ),
    (
        "UnsupportedKind",
        "name a kind that is served; the condition says which are",
    ),
    (
        "UnsupportedService",
        "name a Service that is not of type ExternalName: the mesh carries no calls of such a one",
    ),
    (
        "Conflicted",
        "another object decides; delete one of the two, or give them different Services or requests",
    ),
    (
        "NotGuarded",
        "mirror to meshed pods of the same namespace that nothing else leads to",
    ),
    (
        "FieldIgnored",
        "take away the field that the condition names: it means nothing there",
    ),
    (
        "NotEnforced",
        "nothing enforces it; the condition says what would",
    ),
    (
        "RefNotFound",
        "create what the condition names as missing, or correct the name",
    ),
    (
        "NoSuchAccount",
        "correct the name of the service account that the condition names, or create the account",
    ),
    (
        "PortNotFound",
        "give the Service the port that the condition names, or name one that it has",
    ),
    (
        "NoUsableBackend",
        "calls get 503: give a weight to a backend that exists and has the ports which the condition names",
    ),
];

/// What to do; nothing of a reason that controllers of other versions may have.
#[must_use]
pub(super) fn advice(reason: &str) -> Option<&'static str> {
    let mut all = ADVICE.iter();
    all.find(|(known, _)| *known == reason)
        .map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Words in backticks.
    fn words(cell: &str) -> impl Iterator<Item = &str> {
        cell.split('`').skip(1).step_by(2)
    }

    /// Reasons that the pages list for these two conditions where they are False.
    fn documented() -> BTreeSet<String> {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let mut reasons = BTreeSet::new();
        for page in ["smi.md", "trafficpolicy.md"] {
            let text = std::fs::read_to_string(docs.join(page)).unwrap();
            for row in text.lines() {
                let cells: Vec<&str> = row.split(" | ").collect();
                let listed = match *cells.as_slice() {
                    ["| `Accepted`" | "| `ResolvedRefs`", _, last] => last,
                    ["| `Accepted=False`" | "| `ResolvedRefs=False`", second, _] => second,
                    _ => continue,
                };
                let listed = listed.split("; True").next().unwrap_or_default();
                reasons.extend(words(listed).map(str::to_owned));
            }
        }
        reasons
    }

    #[test]
    fn every_documented_reason_has_distinct_advice() {
        let documented = documented();
        assert!(documented.contains("NoUsableBackend"), "{documented:?}");
        assert!(documented.contains("NotGuarded"), "{documented:?}");
        let without_advice: Vec<&String> = documented
            .iter()
            .filter(|reason| advice(reason).is_none())
            .collect();
        assert_eq!(without_advice, [""; 0]);
        let distinct: BTreeSet<&str> = ADVICE.iter().map(|(_, advice)| *advice).collect();
        assert_eq!(distinct.len(), ADVICE.len());
    }
}
