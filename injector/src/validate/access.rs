//! TrafficTarget. Whatever is refused here would allow nothing or, read
//! otherwise, too much.

use crds::label_syntax::{is_dns_label, is_dns_subdomain};
use crds::smi::{
    GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, RULE_HTTP_ROUTE_GROUP, RULE_TCP_ROUTE, RuleRef,
    SUBJECT_GROUP, SUBJECT_IDENTITY_BINDING, SUBJECT_SERVICE_ACCOUNT, Subject, TrafficTargetSpec,
};

use super::mistakes::{Mistakes, check_count, check_port};

/// A rule about UDP.
const RULE_UDP_ROUTE: &str = "UDPRoute";
/// Most sources, rules, and matches that one rule names; the schema says the same.
const MOST_SOURCES: usize = 256;
const MOST_RULES: usize = 64;
const MOST_MATCHES: usize = 64;

pub(super) fn check(spec: &TrafficTargetSpec, namespace: &str, mistakes: &mut Mistakes) {
    check_destination(&spec.destination, namespace, mistakes);
    if spec.sources.is_empty() {
        mistakes.add(
            "spec.sources",
            "must name at least one source; without one nothing is allowed",
        );
    }
    check_count("spec.sources", spec.sources.len(), MOST_SOURCES, mistakes);
    for (index, source) in spec.sources.iter().enumerate() {
        check_source(&format!("spec.sources[{index}]"), source, mistakes);
    }
    if spec.rules.is_empty() {
        mistakes.add(
            "spec.rules",
            "must name at least one rule; without one nothing is allowed",
        );
    }
    check_count("spec.rules", spec.rules.len(), MOST_RULES, mistakes);
    for (index, rule) in spec.rules.iter().enumerate() {
        check_rule(&format!("spec.rules[{index}]"), rule, mistakes);
    }
}

fn check_destination(destination: &Subject, namespace: &str, mistakes: &mut Mistakes) {
    match destination.kind.as_str() {
        SUBJECT_SERVICE_ACCOUNT | SUBJECT_IDENTITY_BINDING => {}
        kind => mistakes.add(
            "spec.destination.kind",
            format!("is {kind:?}, but must be ServiceAccount or IdentityBinding"),
        ),
    }
    if !is_dns_subdomain(&destination.name) {
        mistakes.add(
            "spec.destination.name",
            "must be the name of a service account or IdentityBinding",
        );
    }
    if let Some(other) = destination
        .namespace
        .as_deref()
        .filter(|n| !n.is_empty() && *n != namespace)
    {
        // Else anybody could grant himself access to other people's namespaces.
        mistakes.add(
            "spec.destination.namespace",
            format!(
                "is {other:?}, but a TrafficTarget protects its own namespace {namespace:?}; \
                 create it in {other:?} or leave the field out"
            ),
        );
    }
    if let Some(port) = destination.port {
        check_port("spec.destination.port".into(), port, mistakes);
    }
}

fn check_source(field: &str, source: &Subject, mistakes: &mut Mistakes) {
    match source.kind.as_str() {
        SUBJECT_SERVICE_ACCOUNT | SUBJECT_IDENTITY_BINDING => {
            if !is_dns_subdomain(&source.name) {
                mistakes.add(
                    format!("{field}.name"),
                    "must be the name of a service account or IdentityBinding",
                );
            }
        }
        SUBJECT_GROUP => {
            if ![GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED].contains(&source.name.as_str()) {
                mistakes.add(
                    format!("{field}.name"),
                    format!(
                        "is {:?}, but the groups are {GROUP_AUTHENTICATED:?} and \
                         {GROUP_UNAUTHENTICATED:?}",
                        source.name
                    ),
                );
            }
        }
        kind => mistakes.add(
            format!("{field}.kind"),
            format!("is {kind:?}, but must be ServiceAccount, IdentityBinding or Group"),
        ),
    }
    if source
        .namespace
        .as_deref()
        .is_some_and(|n| !n.is_empty() && !is_dns_label(n))
    {
        mistakes.add(
            format!("{field}.namespace"),
            "must be the name of a namespace",
        );
    }
}

fn check_rule(field: &str, rule: &RuleRef, mistakes: &mut Mistakes) {
    match rule.kind.as_str() {
        RULE_HTTP_ROUTE_GROUP | RULE_TCP_ROUTE | RULE_UDP_ROUTE => {}
        kind => mistakes.add(
            format!("{field}.kind"),
            format!("is {kind:?}, but must be HTTPRouteGroup, TCPRoute or UDPRoute"),
        ),
    }
    if !is_dns_subdomain(&rule.name) {
        mistakes.add(
            format!("{field}.name"),
            "must be the name of a route object",
        );
    }
    let named = rule.matches.as_ref().map_or(0, Vec::len);
    check_count(&format!("{field}.matches"), named, MOST_MATCHES, mistakes);
    if named > 0 && [RULE_TCP_ROUTE, RULE_UDP_ROUTE].contains(&rule.kind.as_str()) {
        mistakes.add(
            format!("{field}.matches"),
            format!(
                "names matches, but a {} has none: leave the field out, and limit the ports in \
                 the route",
                rule.kind
            ),
        );
    }
    if rule.matches.as_ref().is_some_and(Vec::is_empty) {
        mistakes.add(
            format!("{field}.matches"),
            "is empty; name matches, or leave the field out to mean every match",
        );
    }
}
