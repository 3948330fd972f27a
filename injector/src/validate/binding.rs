//! IdentityBinding. One that names nobody, or somebody who cannot exist, would quietly
//! take a source out of every target that refers to it.

use crds::label_syntax::is_dns_subdomain;
use crds::smi::IdentityBindingSpec;
use policy::name::SpiffeId;

use super::mistakes::{Mistakes, check_count};

/// What an id may be written without.
const SCHEME: &str = "spiffe://";

/// Most SPIFFE ids and labels; the schema says the same.
const MOST_IDS: usize = 64;
const MOST_LABELS: usize = 32;

pub(super) fn check(spec: &IdentityBindingSpec, mistakes: &mut Mistakes) {
    let schemes = &spec.schemes;
    let labels = schemes.pod_label_selector.as_ref();
    let account = schemes.service_account.as_deref();
    let ids = schemes.spiffe_identities.as_deref();
    if labels.is_none() && account.is_none() && ids.is_none_or(<[_]>::is_empty) {
        mistakes.add(
            "spec.schemes",
            "must hold podLabelSelector, serviceAccount or spiffeIdentities",
        );
    }
    if labels.is_some() && account.is_some() {
        mistakes.add(
            "spec.schemes.serviceAccount",
            "and podLabelSelector exclude each other; make two IdentityBindings",
        );
    }
    if labels.is_some_and(|labels| labels.match_labels.is_empty()) {
        mistakes.add(
            "spec.schemes.podLabelSelector.matchLabels",
            "must name at least one label; without one it would mean every pod",
        );
    }
    if account.is_some_and(|account| !is_dns_subdomain(account)) {
        mistakes.add(
            "spec.schemes.serviceAccount",
            "must be the name of a service account of this namespace",
        );
    }
    let count = labels.map_or(0, |labels| labels.match_labels.len());
    let field = "spec.schemes.podLabelSelector.matchLabels";
    check_count(field, count, MOST_LABELS, mistakes);
    let field = "spec.schemes.spiffeIdentities";
    check_count(field, ids.map_or(0, <[_]>::len), MOST_IDS, mistakes);
    if ids.is_some_and(<[_]>::is_empty) {
        mistakes.add(field, "must name at least one SPIFFE id, or be left out");
    }
    for (index, id) in ids.into_iter().flatten().enumerate() {
        let whole = if id.starts_with(SCHEME) {
            id.clone()
        } else {
            format!("{SCHEME}{id}")
        };
        if let Err(error) = SpiffeId::try_from(whole.as_str()) {
            mistakes.add(
                format!("spec.schemes.spiffeIdentities[{index}]"),
                error.to_string(),
            );
        }
    }
}
