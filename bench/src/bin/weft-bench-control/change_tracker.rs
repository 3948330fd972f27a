//! Which proxies have received a change, and when.
//!
//! A change is announced before it is written: which resource will show it, how to
//! tell, and which proxies must get it. Proxies report every resource that a batch
//! brought, at the moment when their acknowledgement is on its way.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use wire::v1;

/// Whether a resource shows a change.
pub(crate) type Shows = Box<dyn Fn(&v1::Resource) -> bool + Send>;

/// Clones are the same board.
#[derive(Clone, Default)]
pub(crate) struct ChangeTracker {
    state: Arc<Mutex<State>>,
    complete: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// By name of the resource; one change of a resource at a time.
    open: HashMap<String, Change>,
    done: Vec<Change>,
}

/// One change, and the proxies that have it.
pub(crate) struct Change {
    shows: Shows,
    /// When the write started.
    pub(crate) sent: Instant,
    /// When the API server had answered it.
    pub(crate) returned: Option<Instant>,
    missing: BTreeSet<usize>,
    /// When each proxy had it.
    pub(crate) seen: Vec<Instant>,
}

impl Change {
    /// Proxies that never learnt of it.
    pub(crate) fn missed(&self) -> usize {
        self.missing.len()
    }

    /// Seconds from the write's return until a proxy had it; 0 if it was first.
    pub(crate) fn delays(&self) -> Vec<f64> {
        let from = self.returned.unwrap_or(self.sent);
        let since = |at: &Instant| at.saturating_duration_since(from).as_secs_f64();
        self.seen.iter().map(since).collect()
    }

    /// Seconds from before the write until the last proxy had it.
    pub(crate) fn whole(&self) -> Option<f64> {
        let last = self.seen.iter().max()?;
        Some(last.duration_since(self.sent).as_secs_f64())
    }
}

impl ChangeTracker {
    /// Announces a change that `proxies` must learn of. One of the same resource that
    /// is still open is closed as it is.
    pub(crate) fn expect(&self, resource: &str, proxies: BTreeSet<usize>, shows: Shows) {
        let change = Change {
            shows,
            sent: Instant::now(),
            returned: None,
            missing: proxies,
            seen: Vec::new(),
        };
        let mut state = self.lock();
        if let Some(former) = state.open.insert(resource.to_owned(), change) {
            state.done.push(former);
        }
    }

    /// The API server has taken the write.
    pub(crate) fn written(&self, resource: &str) {
        if let Some(change) = self.lock().open.get_mut(resource) {
            change.returned = Some(Instant::now());
        }
        self.complete.notify_waiters();
    }

    /// A proxy has these resources.
    pub(crate) fn saw(&self, proxy: usize, resources: &[v1::Resource]) {
        let now = Instant::now();
        let mut state = self.lock();
        for resource in resources {
            let Some(change) = state.open.get_mut(&resource.name) else {
                continue;
            };
            if change.missing.contains(&proxy) && (change.shows)(resource) {
                change.missing.remove(&proxy);
                change.seen.push(now);
            }
        }
        self.complete.notify_waiters();
    }

    /// Waits until every proxy has every open change. The caller sets the limit.
    pub(crate) async fn all_seen(&self) {
        loop {
            let notified = self.complete.notified();
            let open = |change: &Change| !change.missing.is_empty() || change.returned.is_none();
            if !self.lock().open.values().any(open) {
                return;
            }
            notified.await;
        }
    }

    /// Closes all changes and hands them over.
    pub(crate) fn take(&self) -> Vec<Change> {
        let mut state = self.lock();
        let open: Vec<Change> = state.open.drain().map(|(_, change)| change).collect();
        state.done.extend(open);
        std::mem::take(&mut state.done)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(weight: u32) -> v1::Resource {
        v1::Resource {
            name: "service/shop/api:80".to_owned(),
            version: weight.to_string(),
            content: None,
        }
    }

    #[test]
    fn only_the_announced_content_counts_and_each_proxy_once() {
        let change_tracker = ChangeTracker::default();
        change_tracker.expect(
            "service/shop/api:80",
            BTreeSet::from([1, 2]),
            Box::new(|resource| resource.version == "7"),
        );
        change_tracker.written("service/shop/api:80");
        change_tracker.saw(1, &[weight(6)]);
        change_tracker.saw(1, &[weight(7)]);
        change_tracker.saw(1, &[weight(7)]);
        change_tracker.saw(3, &[weight(7)]);
        let changes = change_tracker.take();
        assert_eq!((changes[0].missed(), changes[0].seen.len()), (1, 1));
    }
}
