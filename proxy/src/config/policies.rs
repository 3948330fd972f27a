//! The TrafficPolicies for the calls that the own application makes.
//!
//! Indexed by Service port, with only what applies to the own workload, so that a call needs no
//! look-up of its caller. Where no object configures anything, a call looks once at an empty map.

use std::collections::HashMap;
use std::sync::Arc;

use policy::access::Caller;
use policy::name::{ServiceId, SpiffeId};
use policy::traffic::call::FallbackTo;
use policy::traffic::{CallerPolicy, EffectivePolicy};
use wire::v1;

#[derive(Clone, Debug)]
struct ServicePolicy {
    /// For every caller, as it came.
    all: Arc<EffectivePolicy>,
    own: Arc<CallerPolicy>,
}

/// By `namespace/name:port`, which is the same in the names of a Service's resources.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    policies: HashMap<Arc<str>, ServicePolicy>,
    /// Uid of the own pod, from its certificate.
    pod: Option<Arc<str>>,
}

impl Policies {
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The policy of the Service port that a resource is about, by that one's name.
    pub(crate) fn of(&self, resource: &str) -> Option<&Arc<CallerPolicy>> {
        self.policies.get(subject(resource)).map(|entry| &entry.own)
    }

    /// Service ports with a policy, as `namespace/name:port`.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &str> {
        self.policies.keys().map(|subject| &**subject)
    }

    /// Uid of the own pod, from its certificate.
    pub(crate) fn pod(&self) -> Option<&str> {
        self.pod.as_deref()
    }

    /// Services that calls to it, or copies of them, may come to instead.
    pub(super) fn leads_to(&self, resource: &str) -> impl Iterator<Item = &ServiceId> {
        let configured = self.of(resource);
        let fallbacks = configured
            .into_iter()
            .flat_map(|configured| &configured.fallback.rules);
        let fallbacks = fallbacks.filter_map(|rule| match &rule.then.as_ref()?.to {
            FallbackTo::Service(service) => Some(service),
            FallbackTo::Response(_) => None,
        });
        let mirrors = configured
            .into_iter()
            .flat_map(|configured| &configured.mirror.rules);
        let mirrors = mirrors.flat_map(|rule| rule.then.iter().flat_map(|all| all.iter()));
        let overrides = configured
            .into_iter()
            .flat_map(|configured| &configured.overrides.rules);
        let overrides = overrides.flat_map(|rule| rule.then.iter().flat_map(|all| all.iter()));
        fallbacks
            .chain(mirrors.map(|mirror| &mirror.service))
            .chain(overrides.flat_map(|one| &one.to))
    }

    /// # Errors
    /// With the field that is wrong; the former policy stays.
    pub(super) fn set(
        &mut self,
        name: &str,
        message: &v1::Policy,
        own: Option<&SpiffeId>,
    ) -> Result<(), String> {
        let all = wire::convert::traffic(message).map_err(|bad| bad.to_string())?;
        let entry = ServicePolicy {
            own: Arc::new(all.seen_by(caller(own, self.pod.as_deref()))),
            all: Arc::new(all),
        };
        self.policies.insert(subject(name).into(), entry);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.policies.remove(subject(name));
    }

    /// The own identity is known, or is another one.
    pub(super) fn look_as(&mut self, own: Option<&SpiffeId>) {
        let caller = caller(own, self.pod.as_deref());
        for entry in self.policies.values_mut() {
            entry.own = Arc::new(entry.all.seen_by(caller));
        }
    }

    /// The own certificate names its pod.
    pub(super) fn look_as_pod(&mut self, uid: Option<&str>, own: Option<&SpiffeId>) {
        if self.pod.as_deref() != uid {
            self.pod = uid.map(Arc::from);
            self.look_as(own);
        }
    }
}

/// The name of a resource without its kind.
fn subject(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, subject)| subject)
}

/// The own application as its peers see it. Without a uid a rule for pods by uid is for
/// others.
fn caller<'a>(own: Option<&'a SpiffeId>, pod: Option<&'a str>) -> Caller<'a> {
    own.map_or(Caller::Outside, |id| Caller::Mesh { id, pod })
}
