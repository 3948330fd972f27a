//! Where a user may read graphs: the API server is asked about each namespace, and its
//! answers are kept for a minute.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::observe::{API_VERSION, Resource, Scope};
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::query::may;
use crate::aggregated::access::{AccessDecision, Attributes, Gate};
use crate::aggregated::front_proxy::User;

/// Namespaces that are asked about for one user.
const MAX_NAMESPACES: usize = 2000;
/// Questions at one time.
const AT_ONCE: usize = 16;
/// How long an answer holds.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Users whose answers are remembered, each at most 130 KB.
const MAX_USERS: usize = 64;

/// Answers that are remembered.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    remembered: Mutex<HashMap<User, (Arc<Scope>, Instant)>>,
}

impl Scopes {
    /// Where `user` may read graphs, of these namespaces.
    pub(super) async fn of(
        &self,
        user: &User,
        gate: &Gate,
        namespaces: Vec<String>,
    ) -> Result<Arc<Scope>, String> {
        if let Some((scope, until)) = self.remembered.lock().get(user)
            && Instant::now() < *until
        {
            return Ok(Arc::clone(scope));
        }
        let scope = Arc::new(ask(user, gate, namespaces).await?);
        let now = Instant::now();
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_USERS {
            remembered.retain(|_, (_, until)| now < *until);
        }
        if remembered.len() < MAX_USERS {
            let held = (Arc::clone(&scope), now + REMEMBERED);
            remembered.insert(user.clone(), held);
        }
        Ok(scope)
    }
}

fn graph_of(namespace: Option<&str>) -> Attributes {
    Attributes {
        name: crds::observe::LIVE.to_owned(),
        ..may("get", Resource::Graphs, namespace)
    }
}

async fn ask(user: &User, gate: &Gate, mut namespaces: Vec<String>) -> Result<Scope, String> {
    let cluster = gate.admits(user, &graph_of(None)).await? == AccessDecision::Allowed;
    let truncated = !cluster && namespaces.len() > MAX_NAMESPACES;
    if !cluster {
        namespaces.truncate(MAX_NAMESPACES);
        let questions = namespaces.into_iter().map(|namespace| async move {
            let decision = gate.admits(user, &graph_of(Some(&namespace))).await?;
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
