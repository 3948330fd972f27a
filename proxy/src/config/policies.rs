//! What TrafficPolicies say to this proxy of the calls that its application makes.
//!
//! Kept by Service port, as its own workload may see it, so that a call asks nobody who
//! is calling. Where no object says anything, a call costs one look at an empty map.

use std::collections::HashMap;
use std::sync::Arc;

use policy::access::Caller;
use policy::name::SpiffeId;
use policy::traffic::{CallerTraffic, Traffic};
use wire::v1;

#[derive(Clone, Debug)]
struct Held {
    /// For every caller, as it came.
    all: Arc<Traffic>,
    own: Arc<CallerTraffic>,
}

/// By `namespace/name:port`, which is the same in the names of a Service's resources.
#[derive(Clone, Debug, Default)]
pub struct Policies(HashMap<Arc<str>, Held>);

impl Policies {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is said of the Service port that a resource is about, by that one's name.
    pub(crate) fn of(&self, resource: &str) -> Option<&Arc<CallerTraffic>> {
        self.0.get(subject(resource)).map(|held| &held.own)
    }

    /// # Errors
    /// With the field that is wrong; what was said before stays.
    pub(super) fn set(
        &mut self,
        name: &str,
        message: &v1::Policy,
        own: Option<&SpiffeId>,
    ) -> Result<(), String> {
        let all = wire::convert::traffic(message).map_err(|bad| bad.to_string())?;
        let held = Held {
            own: Arc::new(all.seen_by(caller(own))),
            all: Arc::new(all),
        };
        self.0.insert(subject(name).into(), held);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(subject(name));
    }

    /// The own identity is known, or is another one.
    pub(super) fn look_as(&mut self, own: Option<&SpiffeId>) {
        for held in self.0.values_mut() {
            held.own = Arc::new(held.all.seen_by(caller(own)));
        }
    }
}

/// The name of a resource without its kind.
fn subject(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, subject)| subject)
}

/// Of its own pod this proxy knows the identity and not the uid: a rule for pods by uid
/// is for others.
fn caller(own: Option<&SpiffeId>) -> Caller<'_> {
    own.map_or(Caller::Outside, Caller::mesh)
}
