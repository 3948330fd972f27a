//! Tracks the hosts outside the mesh whose addresses this proxy requests from the controller, which
//! resolves them.
//!
//! Controllers resolve the hosts that objects name. What a wildcard covers they learn by its first
//! call, which waits a moment for the addresses, as the first call to an address does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use policy::egress::MAX_NAMES;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// How long a call waits for the controller to send what an address is, or a name.
pub(super) const LOOKUP_WAIT: Duration = Duration::from_secs(1);

/// Names of endpoints resources, and when each was wanted last. The longest unused makes room.
#[derive(Debug, Default)]
pub(crate) struct QueriedNames(Mutex<HashMap<Arc<str>, Instant>>);

impl QueriedNames {
    /// Waits until the addresses of a host are known, no longer than for what stands at an address.
    /// `name`: of its endpoints resource. `changes`: of the configuration, since before it was
    /// asked whether `is_known`. `subscribe` is notified of a name that is new.
    pub(crate) async fn look_up(
        &self,
        name: &str,
        is_known: impl Fn() -> bool,
        mut changes: watch::Receiver<u64>,
        subscribe: &Notify,
    ) {
        if is_known() {
            return self.uses(name);
        }
        if self.want(name) {
            subscribe.notify_one();
        }
        let known = async { while !is_known() && changes.changed().await.is_ok() {} };
        let _ = timeout(LOOKUP_WAIT, known).await;
    }

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn call_waits_a_second_for_addresses_of_its_host() {
        const NAME: &str = "external/a.pay.example:443";
        let (names, subscribe) = (QueriedNames::default(), Notify::new());
        let changes = watch::Sender::new(0_u64);
        let began = Instant::now();
        let looks_up = names.look_up(NAME, || false, changes.subscribe(), &subscribe);
        looks_up.await;
        assert!(began.elapsed() >= LOOKUP_WAIT, "no controller sends them");
        assert_eq!(names.all(), HashSet::from([Arc::from(NAME)]));
        let notified = timeout(LOOKUP_WAIT, subscribe.notified()).await;
        assert!(notified.is_ok(), "it is subscribed to");
        let known = AtomicBool::new(false);
        let is_known = || known.load(Relaxed);
        let sends = async {
            sleep(LOOKUP_WAIT / 2).await;
            known.store(true, Relaxed);
            changes.send_modify(|revision| *revision += 1);
        };
        let began = Instant::now();
        let looks_up = names.look_up(NAME, is_known, changes.subscribe(), &subscribe);
        tokio::join!(looks_up, sends);
        assert!(began.elapsed() < LOOKUP_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn longest_unused_name_makes_room() {
        let names = QueriedNames::default();
        let name = |at: usize| format!("external/{at}.pay.example:443");
        for at in 0..MAX_NAMES {
            assert!(names.want(&name(at)));
            advance(Duration::from_millis(1)).await;
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
