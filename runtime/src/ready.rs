//! Readiness: whether this process may take work, and if not, what it waits for.
//!
//! Each part that must be ready first takes a [`Hold`]; the process is ready when none is left.
//! None can be forgotten, since a dropped hold is released.

use std::sync::Arc;

use tokio::sync::watch;

/// Shared readiness of the process. Clones are the same readiness.
#[derive(Clone, Debug)]
pub struct Ready {
    state: Arc<watch::Sender<ReadyState>>,
}

#[derive(Debug, Default)]
struct ReadyState {
    /// Names in the order in which they were taken; a name may stand twice.
    holds: Vec<&'static str>,
    note: Option<&'static str>,
}

/// Keeps the process unready until it is released or dropped.
#[derive(Debug)]
#[must_use = "a hold that is dropped at once holds nothing"]
pub struct Hold {
    name: &'static str,
    state: Arc<watch::Sender<ReadyState>>,
}

impl Default for Ready {
    fn default() -> Self {
        Self::new()
    }
}

impl Ready {
    /// Ready, until a hold is taken: take the holds before the admin port opens.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(ReadyState::default())),
        }
    }

    /// Makes the process unready until the returned hold is gone. `name` is what
    /// `/ready` shows.
    pub fn hold(&self, name: &'static str) -> Hold {
        self.state.send_modify(|state| state.holds.push(name));
        Hold {
            name,
            state: Arc::clone(&self.state),
        }
    }

    /// Names that are held, sorted, each once. Empty means ready.
    #[must_use]
    pub fn waiting(&self) -> Vec<&'static str> {
        let mut names = self.state.borrow().holds.clone();
        names.sort_unstable();
        names.dedup();
        names
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state.borrow().holds.is_empty()
    }

    /// Returns when no hold is left.
    pub async fn wait(&self) {
        let mut changes = self.state.subscribe();
        // Fails only when the sender is gone, and `self` owns it.
        let _ = changes.wait_for(|state| state.holds.is_empty()).await;
    }

    /// Shows `note` on `/ready` beside the answer, for a process that works in
    /// an unusual way. None takes it back.
    pub fn note(&self, note: Option<&'static str>) {
        self.state.send_modify(|state| state.note = note);
    }

    /// What `/ready` shows beside the answer.
    #[must_use]
    pub fn noted(&self) -> Option<&'static str> {
        self.state.borrow().note
    }
}

impl Hold {
    /// Releases: what was held for is there.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            if let Some(index) = state.holds.iter().position(|name| *name == self.name) {
                state.holds.remove(index);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ready_only_when_the_last_hold_is_gone() {
        let ready = Ready::new();
        let certificate = ready.hold("certificate");
        let policy = ready.hold("policy");
        assert_eq!(ready.waiting(), ["certificate", "policy"]);

        certificate.release();
        assert_eq!(ready.waiting(), ["policy"]);
        drop(policy);
        assert!(ready.is_ready());
    }

    #[test]
    fn same_name_held_twice_needs_both_released() {
        let ready = Ready::new();
        let first = ready.hold("store");
        let second = ready.hold("store");
        assert_eq!(ready.waiting(), ["store"]);
        first.release();
        assert!(!ready.is_ready());
        second.release();
        assert!(ready.is_ready());
    }

    #[test]
    fn process_may_become_unready_again() {
        let ready = Ready::new();
        assert!(ready.is_ready());
        let _draining = ready.hold("draining");
        assert!(!ready.is_ready());
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_hold() {
        let ready = Ready::new();
        let hold = ready.hold("certificate");
        let waiter = tokio::spawn({
            let ready = ready.clone();
            async move { ready.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        hold.release();
        tokio::time::timeout(Duration::from_secs(5), waiter)
            .await
            .unwrap()
            .unwrap();
    }
}
