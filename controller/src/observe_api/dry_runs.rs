//! Dry runs: the effect of a change before it is made (`dryruns`).
//!
//! `change` reads the change, `rights` checks that the user may make it, `edges` evaluates
//! recorded calls by the current Model and by the changed one, `live` lets the proxies of called
//! pods evaluate live calls by both, as far as the user may see the headers that they look at,
//! `seen` adds up their results. Nothing is stored, and nothing of a change is enforced.
//!
//! The user must be allowed to make the very change. Of edges between namespaces whose graphs the
//! user may not read the response has the number, and nothing else.
//!
//! Claims: observe-119

mod change;
mod edges;
mod live;
mod rights;
mod seen;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crds::observe::{API_VERSION, DryRun, DryRunSpec, Resource, Scope};
use http::StatusCode;
use model::Model;
use model::compiled::Compiled;
use model::translate::change::Change;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, timeout};

use self::change::TriedChange;
use self::edges::Edges;
pub(super) use self::live::watch;
use self::rights::Author;
use super::context::ObserveContext;
use super::scopes::Scopes;
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;
use crate::graph::follow::seconds;

/// Max bytes of one request.
pub(super) const MAX_BODY: usize = 1 << 20;
/// Changes that are compiled at one time: each takes what a change of the cluster takes.
const AT_ONCE: usize = 1;
/// Those that wait for their turn, in the order in which they came. Each keeps one of the 16 places
/// of calls, of which one user has four, so no user takes all of these alone.
const WAITING: usize = 6;
/// Time for one of them, waiting for its turn included: a call has 15 s, and `weft` waits for 10 s.
const WITHIN: Duration = Duration::from_secs(8);
/// What it has of that at least, once it is its turn.
const LEAST: Duration = Duration::from_secs(1);
/// Changes that proxies try at one time: each is a dozen queries of the 64 of a replica, and one of
/// the eight of a proxy. Of one user's one, so none keeps others out alone.
const MAX_LIVE_DRY_RUNS: usize = 2;

/// Changes that are worked on.
#[derive(Debug)]
pub(super) struct Working {
    /// Of those that are compiled and of those that wait for it.
    places: Arc<Semaphore>,
    compiled: Arc<Semaphore>,
    /// Names of the users whose changes proxies try, one change of each.
    trying: Arc<Mutex<BTreeSet<String>>>,
}

impl Default for Working {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
            compiled: Arc::new(Semaphore::new(AT_ONCE)),
            trying: Arc::default(),
        }
    }
}

impl Working {
    /// Waits for the turn of one more change. May be dropped at any time: those behind move up.
    async fn turn(&self) -> Result<Turn, Refusal> {
        let started = time::Instant::now();
        let place = Arc::clone(&self.places).try_acquire_owned();
        let words = "as many changes wait to be tried on this replica as may; try again";
        let place = place.map_err(|_| too_many(words))?;
        let permit = timeout(WITHIN, Arc::clone(&self.compiled).acquire_owned()).await;
        // Never closed, so it is time that ran out.
        let Ok(Ok(permit)) = permit else {
            let words = "other changes are being tried on this replica; try again";
            return Err(too_many(words));
        };
        let until = (started + WITHIN).max(time::Instant::now() + LEAST);
        Ok(Turn {
            until: until.into_std(),
            _permits: [place, permit],
        })
    }

    fn live_dry_run(&self, user: &User) -> Result<LiveDryRunPermit, Refusal> {
        let mut trying = self.trying.lock();
        if trying.contains(&user.name) {
            let words = "proxies try a change of this user's already; end it or try again later";
            return Err(too_many(words));
        }
        if trying.len() >= MAX_LIVE_DRY_RUNS {
            let words = "proxies try as many changes for this replica as they may; try again later";
            return Err(too_many(words));
        }
        trying.insert(user.name.clone());
        Ok(LiveDryRunPermit {
            user: user.name.clone(),
            trying: Arc::clone(&self.trying),
        })
    }
}

/// The right to compile a change. It is kept by the work itself, which goes on where its reader
/// has gone.
#[derive(Debug)]
struct Turn {
    /// When its response is due.
    until: Instant,
    _permits: [OwnedSemaphorePermit; 2],
}

/// A permit of all that are tried, and the user's only one.
#[derive(Debug)]
struct LiveDryRunPermit {
    user: String,
    trying: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for LiveDryRunPermit {
    fn drop(&mut self) {
        self.trying.lock().remove(&self.user);
    }
}

fn too_many(words: &str) -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", words)
}

/// Reads a request.
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

/// The user, and what a response is made of.
#[derive(Debug)]
pub(super) struct QueryContext<'a> {
    pub(super) context: &'a ObserveContext,
    pub(super) scopes: &'a Scopes,
    pub(super) working: &'a Working,
    pub(super) user: &'a User,
    pub(super) compiled: &'a Arc<Compiled>,
}

impl QueryContext<'_> {
    /// The dry run with its result, for the remembered calls.
    ///
    /// # Errors
    /// When it cannot be read, the user may not make the change, or its turn does not come.
    pub(super) async fn answer(&self, requested: DryRun) -> Result<DryRun, Refusal> {
        let change = self.change(&requested.spec).await?;
        self.context.must_have_loaded()?;
        let scope = self.scope().await?;
        let turn = self.working.turn().await?;
        let (context, compiled) = (self.context.clone(), Arc::clone(self.compiled));
        let compared = self.compare(turn, change.change, move |models, until| {
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
        if !self.context.gateway_api {
            change.leave_out_gateway_api();
        }
        change.must_be_there(world)?;
        change.warn_of_new_namespaces(world);
        if self.compiled.model.index.defaults.udp_network_policies {
            change.warn_of_udp(world);
        }
        Ok(change)
    }

    /// Where the user may read graphs.
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
        turn: Turn,
        change: Change,
        look: impl FnOnce((&Model, &Model), Instant) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (compiled, cluster) = (Arc::clone(self.compiled), self.context.cluster.clone());
        let now = i64::try_from(seconds(SystemTime::now())).unwrap_or(i64::MAX);
        let compared = tokio::task::spawn_blocking(move || {
            let Turn { until, _permits } = turn;
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

#[cfg(test)]
mod tests {
    use futures::future::{join, join3};
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn dry_runs_queue_in_order_with_remaining_time() {
        let working = Working::default();
        let started = time::Instant::now();
        let first = working.turn().await.unwrap();
        assert_eq!(first.until, (started + WITHIN).into_std());
        let seen = Mutex::new(Vec::new());
        let waits = async |number: u64| {
            let turn = working.turn().await.unwrap();
            let left = turn.until - time::Instant::now().into_std();
            let left = left.as_millis().div_ceil(1000);
            seen.lock()
                .push((number, started.elapsed().as_secs(), left));
            sleep(SECOND).await;
            drop(turn);
        };
        let ends = async {
            sleep(5 * SECOND).await;
            drop(first);
        };
        join3(ends, waits(2), waits(3)).await;
        assert_eq!(*seen.lock(), [(2, 5, 3), (3, 6, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn late_dry_run_still_gets_one_second() {
        let working = Working::default();
        let first = working.turn().await.unwrap();
        let ends = async {
            sleep(WITHIN - SECOND / 4).await;
            drop(first);
        };
        let late = async {
            let turn = working.turn().await.unwrap();
            turn.until - time::Instant::now().into_std()
        };
        let ((), left) = join(ends, late).await;
        assert_eq!(left, LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn dry_run_queue_is_bounded_and_frees_abandoned_places() {
        let working = Working::default();
        let first = working.turn().await.unwrap();
        let started = time::Instant::now();
        let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(working.turn())).collect();
        for turn in &mut waiting {
            assert!(timeout(Duration::ZERO, turn).await.is_err(), "not waiting");
        }
        let refused = working.turn().await.unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(started.elapsed().as_secs(), 0, "not at once");

        // One that leaves makes room for another.
        drop(waiting.pop());
        let mut another = Box::pin(working.turn());
        assert!(timeout(Duration::ZERO, &mut another).await.is_err());
        // One that leaves at its turn passes it to the next.
        drop(first);
        drop(waiting.remove(0));
        let next = timeout(SECOND, &mut waiting[0]).await;
        let turn = next.expect("the turn is lost").unwrap();
        // And those behind it are refused when their time is over.
        let refused = waiting[1].as_mut().await.unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(started.elapsed().as_secs(), WITHIN.as_secs());
        drop(turn);
    }
}
