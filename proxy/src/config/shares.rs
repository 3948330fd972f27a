//! Quota shares: the part of each shared rate limit that this pod may use, as the controller sent
//! it.
//!
//! Shares outlive the configuration: a change elsewhere in a policy changes no share, and they stay
//! while no controller answers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::origin::Origin;
use policy::traffic::guard::LimitScope;
use policy::traffic::pod::PodGuard;
use wire::v1;

/// Shares of one pod: 16 limits of each of 64 policies, at one port.
const MOST: usize = 1024;

/// In thousandths of a request in the limit's time, by port of the container and limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares(Arc<Mutex<HashMap<(u16, Origin), u64>>>);

impl Shares {
    pub(super) fn of(&self, port: u16, limit: &Origin) -> Option<u64> {
        self.0.lock().get(&(port, limit.clone())).copied()
    }

    /// False where there is no room.
    pub(super) fn set(&self, port: u16, limit: Origin, thousandths: u64) -> bool {
        let mut known = self.0.lock();
        let key = (port, limit);
        if known.len() >= MOST && !known.contains_key(&key) {
            return false;
        }
        known.insert(key, thousandths);
        true
    }

    /// A pod that serves already keeps all of a new limit until its share arrives: what passed
    /// until now must not be refused because a policy came.
    pub(super) fn begin(&self, configured: &PodGuard, is_there: impl Fn(u16, &Origin) -> bool) {
        for (port, guard) in &configured.ports {
            for rule in &guard.rate_limits.rules {
                let limit = rule.then.as_ref().map(|scoped| &scoped.section);
                let Some(limit) = limit.filter(|limit| limit.scope == LimitScope::Service) else {
                    continue;
                };
                let is_received = self.of(*port, &rule.origin).is_some();
                if !is_received && !is_there(*port, &rule.origin) {
                    let whole = u64::from(limit.requests) * 1000;
                    self.set(*port, rule.origin.clone(), whole);
                }
            }
        }
    }

    /// Keeps those that are about limits which are there.
    pub(super) fn keep(&self, is_there: impl Fn(u16, &Origin) -> bool) {
        self.0
            .lock()
            .retain(|(port, limit), _| is_there(*port, limit));
    }

    /// Others may hold them by now.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }
}

/// As the controller names it.
pub(super) fn share_of(port: u16, limit: &Origin) -> v1::ShareOf {
    v1::ShareOf {
        port: port.into(),
        origin: Some(limit.into()),
        limit: limit.rule_name().unwrap_or_default().to_owned(),
    }
}

/// The port of the container, and the limit.
pub(super) fn limit_of(of: &v1::ShareOf) -> Option<(u16, Origin)> {
    let port = u16::try_from(of.port).ok()?;
    let policy = of.origin.as_ref()?;
    let (kind, namespace, name) = (&policy.kind, &*policy.namespace, &*policy.name);
    Some((port, Origin::new(kind, namespace, name).rule(&of.limit)))
}
