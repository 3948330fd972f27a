//! Validates a TrafficPolicy by itself, section by section, and converts it to types of `policy`.
//!
//! A section with a validation error has no effect, so that the next policy decides; half of it
//! would be a section without an author. The other sections of the object stay in force. An error
//! in what restricts a policy restricts it further: a route or a caller that cannot be parsed
//! matches nothing, never all.
//!
//! Each limit is validated by itself, as limits add up: an error in one removes no other.

mod call;
mod cron;
mod endpoints;
mod experiment;
mod external;
mod limits;
mod overrides;
mod reader;
mod release;
mod revocation;
mod scope;

use std::sync::LazyLock;

use policy::{
    name::ServiceId,
    traffic::{Section, Sections, Target},
};
use serde_json::Value;

use self::reader::FieldReader;
use super::TrafficPolicySpec;
use crate::smi::schema;
use crate::smi::validation::{
    Mistake, Mistakes, Validate, ValidationContext, check_object, unknown_fields,
};

pub use self::experiment::{
    Experiment, ExperimentEndpoints, ExperimentFault, FaultEnding, Schedule, ServiceCheck,
};
pub use self::external::{External, ExternalPort, Tls};
pub use self::release::{LatencyCheck, RateCheck, Release, ReleaseChecks, ReleaseStep};
pub use self::revocation::{RevocationSubject, Revoked};
pub use self::scope::{Override, Policy, Route};

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::<TrafficPolicySpec>);

/// Fields of the kind that hold objects wherever they stand.
const OBJECTS: [&str; 13] = [
    "targetRef",
    "timeouts",
    "retry",
    "budget",
    "ejection",
    "breaker",
    "fallback",
    "response",
    "key",
    "overload",
    "balance",
    "sticky",
    "spec",
];

impl Validate for TrafficPolicySpec {
    type Validated = Policy;

    const UNREADABLE: &'static str = "the policy has no effect";

    fn validate(&self, at: &ValidationContext<'_>) -> (Policy, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let target = scope::target(&self.target_ref, at, &mut mistakes);
        let enforce = self.enforce.unwrap_or(false);
        if enforce
            && target
                .as_ref()
                .is_some_and(|target| *target != Target::Mesh)
        {
            let text = "is true, but only a policy whose targetRef.kind is Mesh can be enforced; \
                        it counts as false";
            mistakes.invalid("spec.enforce", text);
        }
        let routes = scope::routes(self.routes.as_deref(), &mut mistakes);
        let sources = scope::sources(self.sources.as_deref(), &mut mistakes);
        let own = self.own_service(at);
        let mut reader = FieldReader::new(at.namespace, own.as_ref(), &mut mistakes);
        let mut policy = Policy {
            enforce: enforce && target == Some(Target::Mesh),
            target,
            written: self.written(),
            sections: Sections {
                timeouts: self
                    .timeouts
                    .as_ref()
                    .and_then(|s| call::timeouts(s, &mut reader)),
                retry: self
                    .retry
                    .as_ref()
                    .and_then(|s| call::retry(s, &mut reader)),
                ejection: self
                    .ejection
                    .as_ref()
                    .and_then(|s| endpoints::ejection(s, &mut reader)),
                breaker: self
                    .breaker
                    .as_ref()
                    .and_then(|s| endpoints::breaker(s, &mut reader)),
                fallback: self
                    .fallback
                    .as_ref()
                    .and_then(|s| call::fallback(s, &mut reader)),
                rate_limits: limits::rate_limits(self.rate_limits.as_deref(), &mut reader),
                priority: self
                    .priority
                    .as_ref()
                    .and_then(|s| limits::priority(s, &mut reader)),
                overload: self
                    .overload
                    .as_ref()
                    .and_then(|s| limits::overload(s, &mut reader)),
                mirror: self
                    .mirror
                    .as_ref()
                    .and_then(|s| call::mirror(s, &mut reader)),
                balance: self
                    .balance
                    .as_ref()
                    .and_then(|s| endpoints::balance(s, &mut reader)),
                sticky: self
                    .sticky
                    .as_ref()
                    .and_then(|s| call::sticky(s, &mut reader)),
                overrides: None,
            },
            overrides: self
                .overrides
                .as_ref()
                .and_then(|s| overrides::overrides(s, &mut reader)),
            routes,
            sources,
        };
        if !policy.routes.is_empty() || !policy.sources.is_empty() {
            without_unlimited(&mut policy, &mut mistakes);
        }
        if policy.written.is_empty() {
            let text = "holds no section, so the policy says nothing; add one, such as timeouts";
            mistakes.invalid("spec", text);
        }
        (policy, mistakes.into_vec())
    }

    fn unreadable(_: &Value, _: &ValidationContext<'_>) -> Policy {
        Policy::default()
    }

    fn misshapen(written: &Value, mistakes: &mut Mistakes) {
        objects("spec", written, &OBJECTS, mistakes);
    }

    fn besides(written: &Value, mistakes: &mut Mistakes) {
        unknown_fields("this kind", "spec", written, &SCHEMA, mistakes);
    }
}

impl TrafficPolicySpec {
    /// The sections that stand in the object, in their order.
    fn written(&self) -> Vec<Section> {
        let there = |section: &Section| match section {
            Section::Timeouts => self.timeouts.is_some(),
            Section::Retry => self.retry.is_some(),
            Section::Ejection => self.ejection.is_some(),
            Section::Breaker => self.breaker.is_some(),
            Section::Fallback => self.fallback.is_some(),
            Section::RateLimits => self.rate_limits.as_ref().is_some_and(|l| !l.is_empty()),
            Section::Priority => self.priority.is_some(),
            Section::Overload => self.overload.is_some(),
            Section::Mirror => self.mirror.is_some(),
            Section::Balance => self.balance.is_some(),
            Section::Sticky => self.sticky.is_some(),
            Section::Overrides => self.overrides.is_some(),
        };
        Section::ALL.into_iter().filter(there).collect()
    }

    /// The Service that the policy is about, if it is about one.
    fn own_service(&self, at: &ValidationContext<'_>) -> Option<ServiceId> {
        let name = self.target_ref.name.as_deref()?;
        (self.target_ref.kind == scope::SERVICE).then(|| ServiceId::new(at.namespace, name))
    }
}

/// Takes away what cannot be limited to some requests or callers, and reports it.
fn without_unlimited(policy: &mut Policy, mistakes: &mut Mistakes) {
    let limited = policy
        .written
        .iter()
        .filter(|section| !section.may_be_limited());
    for section in limited {
        let text = "cannot be limited by routes or sources: put it into a policy of its own; \
                    this section is ignored";
        mistakes.invalid(format!("spec.{section}"), text);
    }
    let sections = &mut policy.sections;
    sections.ejection = None;
    sections.breaker = None;
    sections.overload = None;
    sections.balance = None;
    sections.sticky = None;
    policy.overrides = None;
}

/// Reports where a list stands in the place of an object, which would be read by position.
/// `known`: fields of the kind that hold objects wherever they stand.
fn objects(at: &str, value: &Value, known: &[&str], mistakes: &mut Mistakes) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}.{}", reader::shown(name));
                if known.contains(&name.as_str()) {
                    check_object(&at, value, mistakes);
                }
                objects(&at, value, known, mistakes);
            }
        }
        Value::Array(entries) => {
            for (i, entry) in entries.iter().enumerate() {
                objects(&format!("{at}[{i}]"), entry, known, mistakes);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;
