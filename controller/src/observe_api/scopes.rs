//! Where a user may read graphs: the API server is asked about each namespace, and its
//! answers are kept for a minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::observe::{API_VERSION, Resource, Scope};
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::query::may;
use crate::aggregated::access::{AccessDecision, Attributes, Gate};
use crate::aggregated::front_proxy::User;

/// Namespaces that are asked about for one user.
const MAX_NAMESPACES: usize = 2000;
/// Questions about one user at one time.
const AT_ONCE: usize = 8;
/// Users about whom is asked at one time; others wait, as long as a call may take.
const USERS_AT_ONCE: usize = 2;
/// How long an answer holds.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Users whose answers are remembered, each at most 130 KB.
const MAX_USERS: usize = 64;

/// One user's answer. Who finds it locked waits for what somebody else asks for him.
type Place = Arc<tokio::sync::Mutex<Option<(Arc<Scope>, Instant)>>>;

/// Answers that are remembered, by what tells users apart: every identity of the cluster may
/// ask, each with a new token every time.
#[derive(Debug)]
pub(super) struct Scopes {
    remembered: Mutex<HashMap<[u8; 32], Place>>,
    asking: Semaphore,
}

impl Default for Scopes {
    fn default() -> Self {
        Self {
            remembered: Mutex::default(),
            asking: Semaphore::new(USERS_AT_ONCE),
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
        let place = self.place(user.digest());
        let mut held = place.lock().await;
        if let Some((scope, until)) = &*held
            && Instant::now() < *until
        {
            return Ok(Arc::clone(scope));
        }
        // Never closed.
        let _turn = self.asking.acquire().await;
        let scope = Arc::new(ask(user, gate, namespaces).await?);
        *held = Some((Arc::clone(&scope), Instant::now() + REMEMBERED));
        Ok(scope)
    }

    /// The user's place. Where there are too many, one is given up that nobody waits at: one
    /// that holds nothing any more, or the one that soonest will.
    fn place(&self, user: [u8; 32]) -> Place {
        let mut remembered = self.remembered.lock();
        if let Some(place) = remembered.get(&user) {
            return Arc::clone(place);
        }
        if remembered.len() >= MAX_USERS {
            let idle = remembered.iter().filter_map(|(user, place)| {
                let held = place.try_lock().ok()?;
                (Arc::strong_count(place) == 1).then(|| (held.as_ref().map(|held| held.1), *user))
            });
            if let Some((_, oldest)) = idle.min() {
                remembered.remove(&oldest);
            }
        }
        let place = Place::default();
        if remembered.len() < MAX_USERS {
            remembered.insert(user, Arc::clone(&place));
        }
        place
    }
}

fn graph_of(namespace: Option<&str>) -> Attributes {
    Attributes {
        name: crds::observe::LIVE.to_owned(),
        ..may("get", Resource::Graphs, namespace)
    }
}

async fn ask(user: &User, gate: &Gate, mut namespaces: Vec<String>) -> Result<Scope, String> {
    let cluster = gate.ask(user, &graph_of(None)).await? == AccessDecision::Allowed;
    let truncated = !cluster && namespaces.len() > MAX_NAMESPACES;
    if !cluster {
        namespaces.truncate(MAX_NAMESPACES);
        let questions = namespaces.into_iter().map(|namespace| async move {
            let decision = gate.ask(user, &graph_of(Some(&namespace))).await?;
            Ok((decision == AccessDecision::Allowed).then_some(namespace))
        });
        let mut answers = futures::stream::iter(questions).buffered(AT_ONCE);
        let mut readable = Vec::new();
        while let Some(answer) = answers.next().await {
            let answer: Result<Option<String>, String> = answer;
            readable.extend(answer?);
        }
        namespaces = readable;
    }
    Ok(Scope {
        api_version: API_VERSION.to_owned(),
        kind: Resource::Scopes.kind().to_owned(),
        cluster,
        namespaces,
        truncated,
    })
}

#[cfg(test)]
mod tests;
