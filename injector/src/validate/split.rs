//! TrafficSplit.

use std::collections::BTreeSet;

use crds::label_syntax::{is_dns_label, is_dns_subdomain};
use crds::smi::{RULE_HTTP_ROUTE_GROUP, SPECS_GROUP, TrafficSplitSpec};
use serde_json::Value;

use super::mistakes::{Mistakes, check_count};

/// Most that one weight may be; their sum has to fit into 64 bits with ease.
const MOST_WEIGHT: i64 = i32::MAX as i64;
/// Most backends and groups; the schema says the same.
const MOST_BACKENDS: usize = 64;
const MOST_GROUPS: usize = 16;

/// A weight that conversion left as text: it is no quantity, or the weights of the object
/// cannot stand side by side as whole numbers.
pub(super) fn check_weights(spec: &Value, mistakes: &mut Mistakes) {
    let backends = spec.get("backends").and_then(Value::as_array);
    for (index, backend) in backends.into_iter().flatten().enumerate() {
        if let Some(text) = backend.get("weight").and_then(Value::as_str) {
            let reason = format!(
                "is {text:?}: all weights of this object must be quantities that whole numbers \
                 from 0 to {MOST_WEIGHT} can express side by side"
            );
            mistakes.add(format!("spec.backends[{index}].weight"), reason);
        }
    }
}

pub(super) fn check(spec: &TrafficSplitSpec, namespace: &str, mistakes: &mut Mistakes) {
    check_service("spec.service", &spec.service, namespace, mistakes);
    if spec.backends.is_empty() {
        mistakes.add("spec.backends", "must name at least one Service");
    }
    check_count(
        "spec.backends",
        spec.backends.len(),
        MOST_BACKENDS,
        mistakes,
    );
    let groups = spec.matches.as_ref().map_or(0, Vec::len);
    check_count("spec.matches", groups, MOST_GROUPS, mistakes);
    for (index, backend) in spec.backends.iter().enumerate() {
        let field = format!("spec.backends[{index}]");
        check_service(
            &format!("{field}.service"),
            &backend.service,
            namespace,
            mistakes,
        );
        if !(0..=MOST_WEIGHT).contains(&backend.weight) {
            mistakes.add(
                format!("{field}.weight"),
                format!("is {}, but must be from 0 to {MOST_WEIGHT}", backend.weight),
            );
        }
    }
    let mut seen = BTreeSet::new();
    for (index, group) in spec.matches.iter().flatten().enumerate() {
        let field = format!("spec.matches[{index}]");
        if group.kind != RULE_HTTP_ROUTE_GROUP {
            mistakes.add(
                format!("{field}.kind"),
                format!(
                    "is {:?}, but only HTTPRouteGroup can be matched",
                    group.kind
                ),
            );
        }
        let api_group = group.api_group.as_deref().unwrap_or_default();
        if !["", SPECS_GROUP].contains(&api_group) {
            mistakes.add(
                format!("{field}.apiGroup"),
                format!("is {api_group:?}, but must be {SPECS_GROUP:?} or left out"),
            );
        }
        if !is_dns_subdomain(&group.name) {
            mistakes.add(
                format!("{field}.name"),
                "must be the name of an HTTPRouteGroup",
            );
        } else if !seen.insert(&group.name) {
            mistakes.add(
                format!("{field}.name"),
                format!("{:?} is named twice", group.name),
            );
        }
    }
}

/// A Service of this namespace: `name`, `name.namespace`, `name.namespace.svc` or the
/// full name with the cluster's domain, each with or without a dot at its end.
fn check_service(field: &str, service: &str, namespace: &str, mistakes: &mut Mistakes) {
    let name = service.strip_suffix('.').unwrap_or(service);
    let mut labels = name.split('.');
    let first = labels.next().unwrap_or_default();
    let (second, third) = (labels.next(), labels.next());
    if !is_dns_subdomain(name) || !is_dns_label(first) || third.is_some_and(|label| label != "svc")
    {
        mistakes.add(
            field,
            format!(
                "is {service:?}, but must be the name of a Service: \"name\", \
                 \"name.{namespace}\" or \"name.{namespace}.svc.<cluster domain>\""
            ),
        );
    } else if second.is_some_and(|second| second != namespace) {
        mistakes.add(
            field,
            format!("is {service:?}, but must be a Service of namespace {namespace:?}"),
        );
    }
}
