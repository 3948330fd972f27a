//! Validates a TrafficSplit: its Service, its backends, their weights and its matches.

use std::{collections::BTreeSet, sync::Arc};

use policy::name::ServiceId;
use serde_json::Value;

use super::{Code, Mistake, Mistakes, Validate, ValidationContext, shape};
use crate::label_syntax::{is_dns_label, is_dns_subdomain};
use crate::smi::{RULE_HTTP_ROUTE_GROUP, SPECS_GROUP, SplitMatch, TrafficSplitSpec};

/// Most that one weight may be; their sum has to fit into 64 bits with ease.
const MOST_WEIGHT: u32 = i32::MAX.unsigned_abs();
/// Most groups, as in the schema. Other lists of this name may have more.
const MOST_GROUPS: usize = 16;

/// The content of a TrafficSplit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// The Service that is split.
    pub root: ServiceRef,
    /// The backends with their shares, in the order in which they were written.
    pub backends: Vec<Backend>,
    /// Whether every weight can be used. The split has no effect if not: any other
    /// reading would give a backend a share without an author.
    pub weights_fit: bool,
    /// Names of the HTTPRouteGroups whose requests are split, by place; `None` for what is
    /// no HTTPRouteGroup, and takes all effect from the split. Without any, everything is
    /// split.
    pub groups: Vec<Option<Arc<str>>>,
}

/// A Service as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRef {
    /// In the words of the object.
    pub written: Arc<str>,
    /// Which Service it is; `None` if it can be none of this namespace.
    pub id: Option<ServiceId>,
}

/// One Service that takes a share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// The Service.
    pub service: ServiceRef,
    /// Its share, relative to the sum of all; 0 if what was written is no weight.
    pub weight: u32,
}

impl Validate for TrafficSplitSpec {
    type Validated = Split;

    const UNREADABLE: &'static str = "the split has no effect";

    fn validate(&self, at: &ValidationContext<'_>) -> (Split, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let root = service("spec.service", &self.service, at, &mut mistakes);
        if self.backends.is_empty() {
            let text = "must name at least one Service; without one every call is answered 503";
            mistakes.invalid("spec.backends", text);
        }
        let mut weights_fit = true;
        let mut backends = Vec::with_capacity(self.backends.len());
        for (i, backend) in self.backends.iter().enumerate() {
            let field = format!("spec.backends[{i}]");
            let written = &backend.service;
            let service = service(&format!("{field}.service"), written, at, &mut mistakes);
            let weight = u32::try_from(backend.weight).ok();
            let weight = weight.filter(|weight| *weight <= MOST_WEIGHT);
            if weight.is_none() {
                let text = format!(
                    "is {}, but must be from 0 to {MOST_WEIGHT}; the split has no effect",
                    backend.weight
                );
                mistakes.invalid(format!("{field}.weight"), text);
                weights_fit = false;
            }
            let weight = weight.unwrap_or(0);
            backends.push(Backend { service, weight });
        }
        let groups = groups(self.matches.as_deref(), &mut mistakes);
        let split = Split {
            root,
            backends,
            weights_fit,
            groups,
        };
        (split, mistakes.0)
    }

    fn unreadable(_: &Value, _: &ValidationContext<'_>) -> Split {
        Split::default()
    }

    fn misshapen(written: &Value, mistakes: &mut Mistakes) {
        // Conversion leaves weights as text that are no quantity, or that cannot stand
        // side by side as whole numbers.
        let backends = written.get("backends").and_then(Value::as_array);
        for (i, backend) in backends.into_iter().flatten().enumerate() {
            if let Some(text) = backend.get("weight").and_then(Value::as_str) {
                let text = format!(
                    "is {text:?}: all weights of this object must be quantities that whole \
                     numbers from 0 to {MOST_WEIGHT} can express side by side"
                );
                let field = format!("spec.backends[{i}].weight");
                mistakes.refuse(Code::Unreadable, field, text);
            }
        }
        let groups = written.get("matches").and_then(Value::as_array);
        let groups = groups.map_or(0, Vec::len);
        shape::check_count("spec.matches", groups, MOST_GROUPS, mistakes);
    }
}

/// A Service of this namespace: `name`, `name.namespace`, `name.namespace.svc` or the full
/// name with the cluster's domain, each with or without a dot at its end.
fn service(
    field: &str,
    written: &str,
    at: &ValidationContext<'_>,
    mistakes: &mut Mistakes,
) -> ServiceRef {
    let ValidationContext {
        namespace,
        cluster_domain,
        ..
    } = at;
    let name = written.strip_suffix('.').unwrap_or(written);
    let mut parts = name.splitn(3, '.');
    let service = parts.next().unwrap_or_default();
    let stated = parts.next().unwrap_or(namespace);
    let here = parts.next().is_none_or(|rest| {
        rest == "svc"
            || rest
                .strip_prefix("svc.")
                .is_some_and(|d| d == *cluster_domain)
    });
    let id = if !is_dns_subdomain(name) || !is_dns_label(service) || !here {
        let text = format!(
            "is {written:?}, but must be the name of a Service: \"name\", \"name.{namespace}\" or \
             \"name.{namespace}.svc.{cluster_domain}\""
        );
        mistakes.invalid(field, text);
        None
    } else if stated != *namespace {
        let text = format!("is {written:?}, but must be a Service of namespace {namespace:?}");
        mistakes.invalid(field, text);
        None
    } else {
        Some(ServiceId::new(*namespace, service))
    };
    ServiceRef {
        written: written.into(),
        id,
    }
}

/// The HTTPRouteGroups that are named. Absent and empty mean the same: everything is split.
fn groups(written: Option<&[SplitMatch]>, mistakes: &mut Mistakes) -> Vec<Option<Arc<str>>> {
    let mut seen = BTreeSet::new();
    let written = written.into_iter().flatten().enumerate();
    let groups = written.map(|(i, group)| {
        let field = format!("spec.matches[{i}]");
        let mut usable = true;
        if group.kind != RULE_HTTP_ROUTE_GROUP {
            let text = format!(
                "is {:?}, but only HTTPRouteGroup can be matched; the split has no effect",
                group.kind
            );
            mistakes.refuse(Code::UnsupportedKind, format!("{field}.kind"), text);
            usable = false;
        }
        let api_group = group.api_group.as_deref().unwrap_or_default();
        if !["", SPECS_GROUP].contains(&api_group) {
            let text = format!(
                "is {api_group:?}, but must be {SPECS_GROUP:?} or left out; the split has no effect"
            );
            mistakes.refuse(Code::UnsupportedKind, format!("{field}.apiGroup"), text);
            usable = false;
        }
        if !is_dns_subdomain(&group.name) {
            let text = "must be the name of an HTTPRouteGroup; the split has no effect";
            mistakes.invalid(format!("{field}.name"), text);
        } else if !seen.insert(&group.name) {
            let text = format!("{:?} is named twice; leave one of them out", group.name);
            mistakes.invalid(format!("{field}.name"), text);
        }
        usable.then(|| group.name.as_str().into())
    });
    groups.collect()
}
