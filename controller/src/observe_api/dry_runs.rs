//! What a change would mean, before anybody makes it: `dryruns`.
//!
//! `change` reads it, `rights` asks whether the user may make it, `edges` compares the calls
//! that are remembered by the Model that is and by the one that would be, `live` lets the
//! proxies of called pods judge calls as they come by both, `headers` says which headers that
//! may look at, `seen` adds up what they say.
//! Nothing is stored, and nothing of a change is enforced.
//!
//! Who asks must be allowed to make the very change. Of edges between namespaces whose
//! graphs he may not read he is told how many there are, and nothing else.

mod change;
mod edges;
mod headers;
mod live;
mod rights;
mod seen;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crds::observe::{API_VERSION, DryRun, DryRunSpec, Resource, Scope};
use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::change::TriedChange;
use self::edges::Edges;
use self::rights::Author;
use super::context::ObserveContext;
use super::scopes::Scopes;
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;
use crate::graph::follow::seconds;
use crate::model::Model;
use crate::model::compiled::Compiled;
use crate::translate::change::Change;

/// Bytes of one question.
pub(super) const MAX_BODY: usize = 1 << 20;
/// Changes that are compiled at one time: each takes what a change of the cluster takes.
const AT_ONCE: usize = 1;
/// Time for one of them. Its reader waits for 15 s, and others for their turn.
const WITHIN: Duration = Duration::from_secs(8);
/// Changes that proxies try at one time: each is a dozen questions of the 64 of a replica, and
/// one of the eight of a proxy. Of one user's one, so none keeps others out alone.
const TRIALS: usize = 2;

/// Changes that are worked on.
#[derive(Debug)]
pub(super) struct Working {
    compiled: Arc<Semaphore>,
    /// Names of the users whose changes proxies try, one change of each.
    trying: Arc<Mutex<BTreeSet<String>>>,
}

impl Default for Working {
    fn default() -> Self {
        Self {
            compiled: Arc::new(Semaphore::new(AT_ONCE)),
            trying: Arc::default(),
        }
    }
}

impl Working {
    fn permit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let words = "another change is being tried on this replica; try again";
        let permit = Arc::clone(&self.compiled).try_acquire_owned();
        permit.map_err(|_| too_many(words))
    }

    fn trial(&self, user: &User) -> Result<TrialPermit, Refusal> {
        let mut trying = self.trying.lock();
        if trying.contains(&user.name) {
            let words = "proxies try a change of this user's already; end it or try again later";
            return Err(too_many(words));
        }
        if trying.len() >= TRIALS {
            let words = "proxies try as many changes for this replica as they may; try again later";
            return Err(too_many(words));
        }
        trying.insert(user.name.clone());
        Ok(TrialPermit {
            user: user.name.clone(),
            trying: Arc::clone(&self.trying),
        })
    }
}

/// A permit of all that are tried, and the user's only one.
#[derive(Debug)]
struct TrialPermit {
    user: String,
    trying: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for TrialPermit {
    fn drop(&mut self) {
        self.trying.lock().remove(&self.user);
    }
}

fn too_many(words: &str) -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", words)
}

/// Reads a question.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(body: &[u8]) -> Result<DryRun, Refusal> {
    let requested: DryRun = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("the DryRun cannot be read: {error}")))?;
    if !requested.api_version.is_empty() && requested.api_version != API_VERSION {
        return Err(Refusal::bad(format!("apiVersion must be {API_VERSION}")));
    }
    Ok(requested)
}

/// Who asks, and what an answer is made of.
#[derive(Debug)]
pub(super) struct QueryContext<'a> {
    pub(super) context: &'a ObserveContext,
    pub(super) scopes: &'a Scopes,
    pub(super) working: &'a Working,
    pub(super) user: &'a User,
    pub(super) compiled: &'a Arc<Compiled>,
}

impl QueryContext<'_> {
    /// The question with its answer, of the calls that are remembered.
    ///
    /// # Errors
    /// When it cannot be read, the user may not make the change, or another one is worked on.
    pub(super) async fn answer(&self, requested: DryRun) -> Result<DryRun, Refusal> {
        let change = self.change(&requested.spec).await?;
        if !self.context.graph.has_recalled() {
            let words = "which calls there were has not been read yet; try again";
            return Err(Refusal::unavailable(words));
        }
        let scope = self.scope().await?;
        let permit = self.working.permit()?;
        let (context, compiled) = (self.context.clone(), Arc::clone(self.compiled));
        let compared = self.compare(permit, change.change, move |models, until| {
            Edges::of(&context, &compiled).compared(models, &scope, until)
        });
        let mut status = compared.await?;
        status.warnings = change.warnings;
        Ok(DryRun {
            api_version: API_VERSION.to_owned(),
            kind: Resource::DryRuns.kind().to_owned(),
            spec: requested.spec,
            status: Some(status),
        })
    }

    /// The change, which the user may make.
    async fn change(&self, spec: &DryRunSpec) -> Result<TriedChange, Refusal> {
        let mut change = TriedChange::read(spec, &self.context.cluster)?;
        let world = &self.compiled.world;
        let author = Author {
            user: self.user,
            gate: &self.context.gate,
        };
        author.must_be_allowed(&change.change, world).await?;
        change.must_be_there(world)?;
        change.warn_of_new_namespaces(world);
        Ok(change)
    }

    /// Where he may read graphs.
    async fn scope(&self) -> Result<Arc<Scope>, Refusal> {
        let namespaces = self.compiled.world.namespaces.keys();
        let namespaces = namespaces.map(|namespace| namespace.name.to_string());
        let scope = self
            .scopes
            .of(self.user, &self.context.gate, namespaces.collect());
        scope.await.map_err(Refusal::unavailable)
    }

    /// What `look` makes of the Models before and after a change, and of the time until which
    /// it may take.
    async fn compare<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        change: Change,
        look: impl FnOnce((&Model, &Model), Instant) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (compiled, cluster) = (Arc::clone(self.compiled), self.context.cluster.clone());
        let now = i64::try_from(seconds(SystemTime::now())).unwrap_or(i64::MAX);
        let compared = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let until = Instant::now() + WITHIN;
            let world = change.over(&compiled.world, &cluster, now);
            let defaults = &compiled.model.index.defaults;
            let (after, ..) =
                Model::compile_after(&world, defaults, &compiled.model, &compiled.problems);
            look((&compiled.model, &after), until)
        });
        compared
            .await
            .map_err(|error| Refusal::unavailable(format!("the change was not tried: {error}")))
    }
}
