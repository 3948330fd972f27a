//! Finds the namespaces whose graphs a user may read. It takes one query to the API server for
//! each namespace, so results are cached for a minute.
//!
//! A call waits a few seconds for them and is served by what is known by then; what was learned
//! stays, and the next call continues from there. Every user has a few queries under way, and all
//! wait in one line for the few that go to the API server at one time, so a user with many
//! namespaces delays a user with one by a few queries only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::observe::{API_VERSION, Resource, Scope};
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::query::may;
use crate::aggregated::access::{AccessDecision, Attributes, Gate};
use crate::aggregated::front_proxy::User;

/// Max namespaces that are checked for one user.
const MAX_NAMESPACES: usize = 2000;
/// Queries about one user that run, or wait to, at one time.
const USER_AT_ONCE: usize = 8;
/// Queries that run at one time; others wait in the order in which they came.
const AT_ONCE: usize = 16;
/// How long a call waits. With the query whether it may be served at all it is shorter than the
/// time that a call has, and short enough to give back its place to other users.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a result holds, and how long the parts of one are collected at most: longer than 2000
/// queries of 100 ms take.
const CACHED_FOR: Duration = Duration::from_secs(60);
/// Max users whose results are kept, each at most 130 KB.
const MAX_USERS: usize = 64;

/// Results that are kept, by what distinguishes users: every identity of the cluster may query,
/// each with a new token every time.
#[derive(Debug)]
pub(super) struct Scopes {
    cached: Mutex<HashMap<[u8; 32], Arc<UserEntry>>>,
    checks: Semaphore,
}

/// What is known of one user.
#[derive(Debug, Default)]
struct UserEntry {
    /// The call that queries. Others wait for its results, no longer than for their own queries.
    turn: tokio::sync::Mutex<()>,
    learned: Mutex<Learned>,
}

/// What the API server returned so far, and until when it holds.
#[derive(Debug, Default)]
struct Learned {
    until: Option<Instant>,
    cluster: Option<bool>,
    /// In order, and how many of them were checked.
    namespaces: Vec<String>,
    checked: usize,
    /// The last one that was checked.
    up_to: Option<String>,
    whole: Option<Arc<Scope>>,
}

impl Default for Scopes {
    fn default() -> Self {
        Self {
            cached: Mutex::default(),
            checks: Semaphore::new(AT_ONCE),
        }
    }
}

impl Scopes {
    /// Where `user` may read graphs, of these namespaces.
    pub(super) async fn of(
        &self,
        user: &User,
        gate: &Gate,
        namespaces: Vec<String>,
    ) -> Result<Arc<Scope>, String> {
        let patience = Instant::now() + PATIENCE;
        let entry = self.entry(user.digest());
        let check = async {
            let _turn = entry.turn.lock().await;
            entry.learned.lock().forget_what_is_old();
            self.check(user, gate, namespaces, &entry.learned).await
        };
        match timeout_at(patience, check).await {
            Ok(Err(message)) => Err(message),
            Ok(Ok(())) | Err(_) => {
                let learned = entry.learned.lock();
                learned.scope().ok_or_else(|| {
                    "the API server did not answer in time where graphs may be read; try again"
                        .to_owned()
                })
            }
        }
    }

    /// The user's place. Where there are too many, one without waiters is evicted: one that holds
    /// nothing any more, or the one that soonest will.
    fn entry(&self, user: [u8; 32]) -> Arc<UserEntry> {
        let mut cached = self.cached.lock();
        if let Some(entry) = cached.get(&user) {
            return Arc::clone(entry);
        }
        if cached.len() >= MAX_USERS {
            let idle = cached.iter().filter_map(|(user, entry)| {
                let until = entry.learned.lock().until;
                (Arc::strong_count(entry) == 1).then_some((until, *user))
            });
            if let Some((_, oldest)) = idle.min() {
                cached.remove(&oldest);
            }
        }
        let entry = Arc::<UserEntry>::default();
        if cached.len() < MAX_USERS {
            cached.insert(user, Arc::clone(&entry));
        }
        entry
    }

    async fn may_read(
        &self,
        user: &User,
        gate: &Gate,
        namespace: Option<&str>,
    ) -> Result<bool, String> {
        // Never closed.
        let _turn = self.checks.acquire().await;
        let decision = gate.check(user, &graph_of(namespace)).await?;
        Ok(decision == AccessDecision::Allowed)
    }

    /// Learns what is not known yet. May be dropped at any await: what was returned stays known.
    async fn check(
        &self,
        user: &User,
        gate: &Gate,
        mut namespaces: Vec<String>,
        learned: &Mutex<Learned>,
    ) -> Result<(), String> {
        if learned.lock().whole.is_some() {
            return Ok(());
        }
        let known = learned.lock().cluster;
        let cluster = match known {
            Some(cluster) => cluster,
            None => self.may_read(user, gate, None).await?,
        };
        learned.lock().cluster = Some(cluster);
        namespaces.sort_unstable();
        if cluster {
            learned.lock().finish(namespaces, false);
            return Ok(());
        }
        let (checked, up_to) = {
            let learned = learned.lock();
            (learned.checked, learned.up_to.clone())
        };
        namespaces.retain(|namespace| Some(namespace) > up_to.as_ref());
        let room = MAX_NAMESPACES.saturating_sub(checked);
        let truncated = namespaces.len() > room;
        namespaces.truncate(room);
        let questions = namespaces.into_iter().map(|namespace| async move {
            let allowed = self.may_read(user, gate, Some(&namespace)).await?;
            Ok::<_, String>((namespace, allowed))
        });
        let mut answers = std::pin::pin!(futures::stream::iter(questions).buffered(USER_AT_ONCE));
        while let Some(answer) = answers.next().await {
            let (namespace, allowed) = answer?;
            learned.lock().note(namespace, allowed);
        }
        let mut learned = learned.lock();
        let namespaces = std::mem::take(&mut learned.namespaces);
        learned.finish(namespaces, truncated);
        Ok(())
    }
}

impl Learned {
    fn forget_what_is_old(&mut self) {
        let now = Instant::now();
        if self.until.is_none_or(|until| until <= now) {
            *self = Self {
                until: Some(now + CACHED_FOR),
                ..Self::default()
            };
        }
    }

    fn note(&mut self, namespace: String, allowed: bool) {
        self.checked += 1;
        if allowed {
            self.namespaces.push(namespace.clone());
        }
        self.up_to = Some(namespace);
    }

    fn finish(&mut self, namespaces: Vec<String>, truncated: bool) {
        let scope = Scope {
            truncated,
            ..scope(self.cluster == Some(true), namespaces)
        };
        self.whole = Some(Arc::new(scope));
        self.until = Some(Instant::now() + CACHED_FOR);
    }

    /// All that is known; nothing where even that is not.
    fn scope(&self) -> Option<Arc<Scope>> {
        if let Some(whole) = &self.whole {
            return Some(Arc::clone(whole));
        }
        let known = Scope {
            incomplete: true,
            ..scope(self.cluster?, self.namespaces.clone())
        };
        Some(Arc::new(known))
    }
}

fn scope(cluster: bool, namespaces: Vec<String>) -> Scope {
    Scope {
        api_version: API_VERSION.to_owned(),
        kind: Resource::Scopes.kind().to_owned(),
        cluster,
        namespaces,
        ..Scope::default()
    }
}

/// Reading the graph of a namespace, or of all.
pub(super) fn graph_of(namespace: Option<&str>) -> Attributes {
    Attributes {
        name: crds::observe::LIVE.to_owned(),
        ..may("get", Resource::Graphs, namespace)
    }
}

#[cfg(test)]
mod tests;
