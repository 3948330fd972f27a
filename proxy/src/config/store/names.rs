//! The names outside the mesh whose addresses the proxy queries.
//!
//! Controllers resolve the hosts that objects name. What a wildcard covers they learn by its first
//! call, which waits a moment for the addresses, as the first call to an address does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use policy::egress::MAX_NAMES;
use tokio::time::{Instant, timeout};

use crate::config::store::{LOOKUP_WAIT, Store};

/// Names of endpoints resources, and when each was wanted last. The longest unused makes room.
#[derive(Debug, Default)]
pub(crate) struct QueriedNames(Mutex<HashMap<Arc<str>, Instant>>);

impl QueriedNames {
    /// A call wants it. True where it is not queried yet.
    fn want(&self, name: &str) -> bool {
        let mut names = self.0.lock();
        let now = Instant::now();
        if let Some(last) = names.get_mut(name) {
            *last = now;
            return false;
        }
        if names.len() >= MAX_NAMES {
            let oldest = names.iter().min_by_key(|(_, last)| **last);
            let oldest = oldest.map(|(name, _)| Arc::clone(name));
            if let Some(oldest) = oldest {
                names.remove(&oldest);
            }
        }
        names.insert(name.into(), now);
        true
    }

    /// A call uses what is known of it.
    fn uses(&self, name: &str) {
        if let Some(last) = self.0.lock().get_mut(name) {
            *last = Instant::now();
        }
    }

    pub(crate) fn all(&self) -> HashSet<Arc<str>> {
        self.0.lock().keys().cloned().collect()
    }
}

impl Store {
    /// Waits until the addresses of a host are known, no longer than for what stands at an address.
    /// `name`: of its endpoints resource.
    pub(crate) async fn look_up(&self, name: &str) {
        let is_known = || self.snapshot.load().endpoints.contains_key(name);
        if is_known() {
            return self.names.uses(name);
        }
        if self.names.want(name) {
            self.subscriptions_changed.notify_one();
        }
        let mut changed = self.changed.subscribe();
        let known = async { while !is_known() && changed.changed().await.is_ok() {} };
        let _ = timeout(LOOKUP_WAIT, known).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::access_log::AccessLog;
    use prometheus_client::registry::Registry;
    use wire::v1;

    use super::*;
    use crate::telemetry::Telemetry;
    use crate::telemetry::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn call_waits_a_second_for_addresses_of_its_host() {
        let metrics = Metrics::register(&mut Registry::default());
        let store = Store::new(Arc::new(Telemetry::new(metrics, AccessLog::OFF)));
        let name = wire::names::external("a.pay.example", 443);
        let began = Instant::now();
        store.look_up(&name).await;
        assert!(began.elapsed() >= LOOKUP_WAIT, "no controller sends them");
        assert_eq!(store.names.all(), HashSet::from([Arc::from(&*name)]));
        let answered = async {
            tokio::time::sleep(LOOKUP_WAIT / 2).await;
            let content = v1::resource::Content::Endpoints(v1::Endpoints::default());
            store.apply(v1::Batch {
                set: vec![wire::version::stamp(v1::Resource {
                    name: name.clone(),
                    version: String::new(),
                    content: Some(content),
                })],
                ..v1::Batch::default()
            })
        };
        let began = Instant::now();
        let ((), nacks) = tokio::join!(store.look_up(&name), answered);
        assert!(nacks.is_empty(), "{nacks:?}");
        assert!(began.elapsed() < LOOKUP_WAIT);
        let began = Instant::now();
        store.look_up(&name).await;
        assert!(began.elapsed() < LOOKUP_WAIT / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn longest_unused_name_makes_room() {
        let names = QueriedNames::default();
        let name = |at: usize| format!("external/{at}.pay.example:443");
        for at in 0..MAX_NAMES {
            assert!(names.want(&name(at)));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        names.uses(&name(0));
        assert!(!names.want(&name(1)));
        assert!(names.want(&name(MAX_NAMES)));
        let all = names.all();
        assert_eq!(all.len(), MAX_NAMES);
        let held = |at: usize| all.contains(&*name(at));
        assert!(held(0) && held(1) && !held(2) && held(MAX_NAMES));
    }
}
