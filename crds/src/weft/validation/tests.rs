//! What a policy means, and that a mistake costs its section and no more.
//!
//! Claims: calls-27

mod automation;
mod bounds;
mod documented;
mod external;
mod mistakes;
mod revocation;
mod scope;

use policy::{
    name::ServiceId,
    traffic::{
        call::{Causes, FallbackTo, StickyKey},
        endpoint::{Locality, Subset},
        guard::{LimitKey, Priority, RateLimit},
        set::{Methods, Statuses},
    },
};
use serde_json::{Value, json};

use super::*;
use crate::smi::validation::{Code, Severity, SourceKind, spec};
use crate::smi::{each_node, schema, violations};

/// A spec with every field.
const EVERYTHING: &str = include_str!("../everything.yaml");

const AT: ValidationContext<'_> = ValidationContext {
    namespace: "shop",
    cluster_domain: "cluster.example",
    mesh_namespace: "weft-system",
};

fn everything() -> Value {
    serde_yaml_ng::from_str(EVERYTHING).unwrap()
}

fn validated(written: &Value) -> (Policy, Vec<Mistake>) {
    spec::<TrafficPolicySpec>(Some(written), &AT)
}

fn in_mesh_namespace(written: &Value) -> (Policy, Vec<Mistake>) {
    let at = ValidationContext {
        namespace: "weft-system",
        ..AT
    };
    spec::<TrafficPolicySpec>(Some(written), &at)
}

/// About Service `catalog`, with these fields.
fn about(mut fields: Value) -> Value {
    fields["targetRef"] = json!({"kind": "Service", "name": "catalog"});
    fields
}

/// The whole spec with one field changed.
fn changed(pointer: &str, value: &Value) -> Value {
    let mut spec = everything();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match spec.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[field.parse::<usize>().unwrap()] = value.clone(),
        parent => parent[field] = value.clone(),
    }
    spec
}

fn refused(mistakes: &[Mistake]) -> Vec<&str> {
    let refused = mistakes
        .iter()
        .filter(|one| one.severity == Severity::Refuse);
    refused.map(|one| one.field.as_str()).collect()
}

#[test]
fn a_policy_that_says_everything_means_what_it_says() {
    let (policy, mistakes) = validated(&everything());
    assert_eq!(mistakes, []);
    let catalog = ServiceId::new("shop", "catalog");
    assert_eq!(policy.target, Some(Target::Port(catalog, 8080)));
    assert_eq!(policy.written, Section::ALL);
    let sections = &policy.sections;
    for section in Section::ALL {
        assert_eq!(
            sections.has(section),
            section != Section::Overrides,
            "{section}"
        );
    }
    assert_eq!(sections.priority, Some(Priority::Normal));
    assert_eq!(sections.rate_limits[0].key, LimitKey::Caller);
    assert_eq!(
        sections.rate_limits[1].burst, 16,
        "1000 a minute are 16 in a second"
    );
    assert_eq!(
        sections.balance.unwrap().locality,
        Some(Locality::PreferSameZone)
    );
    let mirror = &sections.mirror.as_deref().unwrap()[0];
    assert_eq!(mirror.service, ServiceId::new("shop", "catalog-next"));
    assert_eq!(mirror.allow_tcp[0].port, 5432);
    let StickyKey::Cookie(name) = &sections.sticky.as_ref().unwrap().key else {
        panic!("no cookie");
    };
    assert_eq!(&**name, "tenant");
    let overrides = policy.overrides.unwrap();
    assert_eq!(
        overrides[0].sources[0].kind,
        Some(SourceKind::ServiceAccount)
    );
    assert_eq!(overrides[0].tokens[0].expires, 1_801_353_600);
    assert_eq!(overrides[0].tokens[0].sha256[..2], [0x9f, 0x86]);
}

#[test]
fn an_empty_section_has_the_defaults_that_are_documented() {
    use policy::traffic::{call, endpoint, guard};
    let empty = about(json!({
        "timeouts": {}, "retry": {}, "ejection": {}, "breaker": {}, "overload": {}, "balance": {},
        "rateLimits": [{"name": "all", "requests": 7}], "fallback": {"service": "static"},
        "mirror": [{"service": "next", "percent": 1}], "sticky": {"type": "Caller"},
    }));
    let (policy, mistakes) = validated(&empty);
    assert_eq!(mistakes, []);
    let sections = policy.sections;
    assert_eq!(sections.timeouts, Some(call::Timeouts::DEFAULT));
    assert_eq!(sections.retry, Some(call::Retry::DEFAULT));
    assert_eq!(sections.ejection, Some(endpoint::Ejection::DEFAULT));
    assert_eq!(sections.breaker, Some(endpoint::Breaker::DEFAULT));
    assert_eq!(sections.overload, Some(guard::Overload::DEFAULT));
    assert_eq!(sections.balance, Some(endpoint::Balance::DEFAULT));
    let limit = RateLimit {
        name: "all".into(),
        requests: 7,
        per: std::time::Duration::from_secs(1),
        burst: 7,
        key: LimitKey::None,
        scope: guard::LimitScope::Service,
        mode: guard::LimitMode::Enforce,
    };
    assert_eq!(*sections.rate_limits[0], limit);
    let fallback = sections.fallback.unwrap();
    assert_eq!(
        fallback.to,
        FallbackTo::Service(ServiceId::new("shop", "static"))
    );
    assert_eq!(fallback.on, Causes::ALL);
    let mirror = &sections.mirror.unwrap()[0];
    assert_eq!(
        (&mirror.methods, mirror.downstream),
        (&Methods::SAFE, call::Downstream::ReadOnly)
    );
    assert_eq!(sections.sticky.unwrap().scope, call::StickyScope::Endpoint);
}

#[test]
fn off_values_are_valid_and_lists_may_be_empty() {
    let (policy, mistakes) = validated(&about(json!({
        "retry": {"attempts": 0, "codes": [], "methods": ["*"]},
        "ejection": {"consecutiveFailures": 0, "baseTime": "2m"},
        "balance": {"subset": -1, "warmup": "0s"}, "mirror": [], "overrides": [],
    })));
    assert_eq!(mistakes, []);
    let sections = policy.sections;
    let retry = sections.retry.unwrap();
    assert_eq!(
        (retry.attempts, retry.codes, retry.methods),
        (0, Statuses::EMPTY, Methods::Any)
    );
    let ejection = sections.ejection.unwrap();
    assert_eq!(
        ejection.max_time, ejection.base_time,
        "no rest is shorter than the first"
    );
    assert_eq!(sections.balance.unwrap().subset, Subset::Automatic);
    assert_eq!(sections.mirror.as_deref(), Some(&[][..]));
    assert_eq!(policy.overrides, Some(vec![]));
}
