//! What a change would mean, before anybody makes it: `dryruns`.
//!
//! `change` reads it and says which rights it takes to make it, `edges` compares the calls
//! that are remembered by the Model that is and by the one that would be. Nothing is stored.
//!
//! Who asks must be allowed to make the very change. Of edges between namespaces whose
//! graphs he may not read he is told how many there are, and nothing else.

mod change;
mod edges;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crds::observe::{API_VERSION, DryRun, Resource};
use http::StatusCode;
use tokio::sync::Semaphore;

use self::change::Asked;
use self::edges::Edges;
use super::scopes::Scopes;
use super::told::Told;
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;
use crate::graph::follow::seconds;
use crate::model::Model;
use crate::model::compiled::Compiled;

/// Bytes of one question.
pub(super) const MAX_BODY: usize = 1 << 20;
/// Changes that are compiled at one time: each takes what a change of the cluster takes.
const AT_ONCE: usize = 1;
/// Time for one of them. Its reader waits for 15 s, and others for their turn.
const WITHIN: Duration = Duration::from_secs(8);

/// Changes that are worked on.
#[derive(Debug)]
pub(super) struct Working(Arc<Semaphore>);

impl Default for Working {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// The question with its answer.
///
/// # Errors
/// When it cannot be read, the user may not make the change, or another one is worked on.
pub(super) async fn answer(
    (told, scopes, working): (&Told, &Scopes, &Working),
    user: &User,
    compiled: &Arc<Compiled>,
    body: &[u8],
) -> Result<DryRun, Refusal> {
    let asked: DryRun = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("the DryRun cannot be read: {error}")))?;
    if !asked.api_version.is_empty() && asked.api_version != API_VERSION {
        return Err(Refusal::bad(format!("apiVersion must be {API_VERSION}")));
    }
    let change = Asked::read(&asked.spec, &told.cluster)?;
    change.must_be_allowed(told, user, &compiled.world).await?;
    change.must_be_there(&compiled.world)?;
    if !told.graph.has_recalled() {
        let words = "which calls there were has not been read yet; try again";
        return Err(Refusal::unavailable(words));
    }
    let namespaces = compiled.world.namespaces.keys();
    let namespaces = namespaces.map(|namespace| namespace.name.to_string());
    let scope = scopes.of(user, &told.gate, namespaces.collect()).await;
    let scope = scope.map_err(Refusal::unavailable)?;
    let Ok(turn) = Arc::clone(&working.0).try_acquire_owned() else {
        let words = "another change is being tried on this replica; try again";
        let code = StatusCode::TOO_MANY_REQUESTS;
        return Err(Refusal::new(code, "TooManyRequests", words));
    };
    let edges = Edges::of(told, compiled);
    let (compiled, cluster) = (Arc::clone(compiled), told.cluster.clone());
    let warnings = change.warnings;
    let made = change.change;
    let now = i64::try_from(seconds(SystemTime::now())).unwrap_or(i64::MAX);
    let compared = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let until = Instant::now() + WITHIN;
        let world = made.over(&compiled.world, &cluster, now);
        let defaults = &compiled.model.index.defaults;
        let (after, ..) =
            Model::compile_after(&world, defaults, &compiled.model, &compiled.problems);
        edges.compared((&compiled.model, &after), &scope, until)
    });
    let mut status = compared
        .await
        .map_err(|error| Refusal::unavailable(format!("the change was not tried: {error}")))?;
    status.warnings = warnings;
    Ok(DryRun {
        api_version: API_VERSION.to_owned(),
        kind: Resource::DryRuns.kind().to_owned(),
        spec: asked.spec,
        status: Some(status),
    })
}
