//! Checks of policy objects' conditions, and of labels and annotations of the mesh.
//!
//! Conditions come from the controller, which alone sees an object beside all others. A label or an
//! annotation has no status, so it is validated here by the rules of the webhook.

use std::collections::BTreeSet;

use crds::names::{self, Place};
use crds::smi::{ACCEPTED, RESOLVED_REFS};
use crds::{inject, labels};
use policy::egress::EgressMode;
use policy::mode::{AccessMode, MtlsMode};
use policy::protocol::PortRange;
use serde_json::Value;

use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};
use crate::kinds;

pub(super) fn accepted(facts: &Facts) -> CheckResult {
    with_condition(facts, ACCEPTED, CheckStatus::Error, "are not accepted")
}

pub(super) fn resolved(facts: &Facts) -> CheckResult {
    with_condition(
        facts,
        RESOLVED_REFS,
        CheckStatus::Warning,
        "refer to what is missing or does not fit",
    )
}

/// Objects whose condition is False, and what to do by its reasons.
fn with_condition(
    facts: &Facts,
    condition: &str,
    outcome: CheckStatus,
    wrong: &str,
) -> CheckResult {
    let mut found = Vec::new();
    let mut reasons = BTreeSet::new();
    let mut all = 0;
    for kind in kinds::all() {
        let kind = kind.plural;
        for object in facts.written(kind)? {
            all += 1;
            let conditions = object["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let is_false =
                conditions.find(|one| one["type"] == condition && one["status"] == "False");
            if let Some(one) = is_false {
                let reason = one["reason"].as_str().unwrap_or_default();
                reasons.insert(reason);
                found.push(format!("{kind} {} {reason}", name_of(object)));
            }
        }
    }
    Ok(if found.is_empty() {
        (CheckStatus::Ok, format!("{all} objects"))
    } else {
        let mut message = format!("{} {wrong}: {}", found.len(), few(&found));
        let advised = reasons.into_iter();
        for (reason, advice) in advised.filter_map(|reason| Some((reason, advice(reason)?))) {
            message.push_str(&format!("; {reason}: {advice}"));
        }
        (outcome, message)
    })
}

/// What is wrong with the values of one annotation, if it is one of ours that has rules.
fn unusable_value(name: &str, value: &str) -> Option<String> {
    let bad = |found: Result<(), String>| found.err();
    match name {
        labels::ACCESS => bad(value
            .parse::<AccessMode>()
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::MTLS => bad(value
            .parse::<MtlsMode>()
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::EGRESS => bad(value
            .parse::<EgressMode>()
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::PERMISSIVE_PORTS => bad(PortRange::parse_list(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::OPAQUE_PORTS | labels::SKIP_INBOUND_PORTS | labels::SKIP_OUTBOUND_PORTS => {
            bad(labels::parse_ports(value)
                .map(drop)
                .map_err(|error| error.to_string()))
        }
        labels::SKIP_OUTBOUND_CIDRS => bad(labels::parse_cidrs(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::LOG_LEVEL => bad(labels::parse_log_level(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::TRACE_SAMPLING => bad(labels::parse_trace_sampling(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::ACCESS_LOG => bad(labels::parse_access_log(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::ROUTES => bad(labels::parse_routes(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::FAULTS => bad(crds::weft::parse_faults(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::DRAIN_DELAY => bad(labels::parse_drain_delay(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::PROXY_GUARANTEED => bad(labels::parse_inject(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        labels::PROXY_CPU_REQUEST
        | labels::PROXY_CPU_LIMIT
        | labels::PROXY_MEMORY_REQUEST
        | labels::PROXY_MEMORY_LIMIT => bad(labels::parse_quantity(value)
            .map(drop)
            .map_err(|error| error.to_string())),
        _ => None,
    }
}

/// Names of ours in this map of objects' metadata that no part of Weft reads there.
fn unread(facts: &Facts, place: Place) -> Result<Vec<String>, String> {
    let core = [
        ("", "Namespace", "namespaces"),
        ("", "Pod", "pods"),
        ("", "Service", "services"),
    ];
    let excluded = facts.excluded();
    let written = kinds::all().into_iter();
    let written = written.map(|kind| (kind.group, kind.kind, kind.plural));
    let mut found = Vec::new();
    for (group, kind, list) in core.into_iter().chain(written) {
        let objects = facts.written(list)?.iter();
        // Policies of the whole mesh are in its own namespace.
        for object in objects.filter(|one| !group.is_empty() || is_in(&excluded, one)) {
            let unread = names::unread(group, kind, object);
            let unread = unread.filter(|one| one.place == place);
            found.extend(unread.map(|one| {
                let name = name_of(object);
                format!("{} of {kind} {name} {}", one.name, one.text())
            }));
        }
    }
    Ok(found)
}

/// Adds those names. What was found before is reported also if some kind may not be listed.
fn add_unread(found: &mut Vec<String>, facts: &Facts, place: Place) -> Result<(), String> {
    match unread(facts, place) {
        Ok(more) => found.extend(more),
        Err(why) if found.is_empty() => return Err(why),
        Err(_) => {}
    }
    Ok(())
}

/// Whether an object is in a namespace, or is one, in which the mesh does anything.
fn is_in(excluded: &BTreeSet<&str>, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str();
    let namespace = namespace.or_else(|| metadata["name"].as_str());
    !namespace.is_some_and(|namespace| excluded.contains(namespace))
}

pub(super) fn annotations(facts: &Facts) -> CheckResult {
    let excluded = facts.excluded();
    let in_mesh = |object: &Value| is_in(&excluded, object);
    let mut found = Vec::new();
    for (kind, list) in [
        ("Namespace", "namespaces"),
        ("Pod", "pods"),
        ("Service", "services"),
    ] {
        for object in facts.list(list)?.iter().filter(|one| in_mesh(one)) {
            let annotations = object["metadata"]["annotations"].as_object();
            for (name, value) in annotations.into_iter().flatten() {
                let value = value.as_str().unwrap_or_default();
                if let Some(why) = unusable_value(name, value) {
                    found.push(format!("{name} of {kind} {} {why}", name_of(object)));
                }
            }
        }
    }
    add_unread(&mut found, facts, Place::Annotations)?;
    Ok(if found.is_empty() {
        (CheckStatus::Ok, "all can be read".to_owned())
    } else {
        (
            CheckStatus::Warning,
            format!("{} are not understood: {}", found.len(), few(&found)),
        )
    })
}

pub(super) fn labels(facts: &Facts) -> CheckResult {
    let excluded = facts.excluded();
    let mut found = Vec::new();
    for (kind, list) in [("Namespace", "namespaces"), ("Pod", "pods")] {
        let unheard = |object: &Value| {
            Some(format!(
                "{kind} {}: {}",
                name_of(object),
                inject::unheard(kind, object)?
            ))
        };
        let objects = facts.list(list)?.iter().filter(|one| is_in(&excluded, one));
        found.extend(objects.filter_map(unheard));
    }
    add_unread(&mut found, facts, Place::Labels)?;
    Ok(if found.is_empty() {
        (CheckStatus::Ok, "all have an effect".to_owned())
    } else {
        (
            CheckStatus::Warning,
            format!("{} have no effect: {}", found.len(), few(&found)),
        )
    })
}

/// Reasons of `Accepted` and `ResolvedRefs` where they are False, as docs/smi.md and
/// docs/trafficpolicy.md list them.
const ADVICE: [(&str, &str); 16] = [
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
        "Overridden",
        "a route of the Gateway API decides at every port; delete this, or the parent from the route that the condition names",
    ),
    (
        "NotGuarded",
        "mirror to meshed pods of the same namespace that nothing else leads to",
    ),
    (
        "NotAllowed",
        "annotate the Namespace with weft.dev/faults, or lower the share: weft fault allow writes it",
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
