//! Limits connections to applications that callers abandon as soon as they are open.
//!
//! Each lies in the queue of its application until that accepts it, and costs its caller a head and
//! a reset: a few batches of them over HTTP/2 fill the queue, and all other callers wait. So a
//! caller that has abandoned more than an allowance gets further ones opened one after the other,
//! at a pace that applications accept. Reused connections are not limited, and no caller waits for
//! another holder's.
//!
//! A connection by which the application has answered makes up for an abandoned one: a pod that
//! calls for many clients, or gives its calls little time, waits only where most of what it opens
//! comes to nothing. Nothing is saved for later.
//!
//! Only a connection that its caller left counts, and only in the first moments: a call that ends
//! at its deadline or by a change of policy shows nothing of its caller. A caller whose connection
//! to this proxy ends has left its calls as well. The proxy's own time-outs of connections are
//! longer than those moments (docs/decisions/0041).
//!
//! Claims: calls-13

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// A caller that waited longer for an application has waited for it.
pub const SOON: Duration = Duration::from_millis(100);
/// From one turn of a holder to the next: 200 in a second, which one thread accepts. As many are
/// forgotten in that time.
const APART: Duration = Duration::from_millis(5);
/// So many may be abandoned at once, by a client that leaves with all its requests.
const ALLOWED: Duration = APART.saturating_mul(64);
/// A caller without abandoned connections for so long opens them as all others.
const RETAINED_FOR: Duration = Duration::from_secs(1);
/// Calls of one holder that wait for their turn. The last one waits for 1.28 s, less than an
/// application has to accept a connection. What they hold counts as of every call in flight.
const WAITING: usize = 256;
/// Holders with a record. The one of least debt goes.
const HOLDERS: usize = 256;

/// Too many calls of the same holder wait for their turn.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many calls of this caller wait, since it abandons connections to the application")]
pub struct TooManyWait;

/// The call may begin no connection before its [turn](Beginning::turn).
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "it is not the turn of this call, since its caller abandons connections to the application"
)]
pub struct NotItsTurn;

/// Which holders abandon connections to the applications of one workload, and how many.
pub struct AbandonLimiter {
    paces: Mutex<HashMap<Arc<str>, Arc<Pace>>>,
    on_wait: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for AbandonLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbandonLimiter").finish_non_exhaustive()
    }
}

/// How fast one holder may begin connections.
#[derive(Debug)]
struct Pace {
    /// When its abandoned connections are forgotten.
    forgotten_at: Mutex<Instant>,
    /// When the next one may be opened. The first in the queue holds it, and changes nothing
    /// where it leaves.
    next: tokio::sync::Mutex<Instant>,
    waiting: AtomicUsize,
}

/// A call that may begin connections. Dropped before it was [answered](Self::answered) or has
/// [ended](Self::ended), its caller has left it.
#[derive(Debug)]
pub struct ConnectGuard<'a> {
    abandon_limiter: &'a AbandonLimiter,
    holder: &'a Arc<str>,
    progress: Mutex<Progress>,
}

/// How far a call is with its connection.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// It has opened none, or nothing more is to be learned of it.
    Idle,
    HasToWait,
    HasTurn,
    Began(Instant),
}

impl AbandonLimiter {
    /// Calls `on_wait` for each connection that waits for its turn.
    #[must_use]
    pub fn new(on_wait: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            paces: Mutex::default(),
            on_wait: Box::new(on_wait),
        }
    }

    /// A call of `holder` begins, or goes on that began a connection at this moment.
    pub fn connect_guard<'a>(
        &'a self,
        holder: &'a Arc<str>,
        began: Option<Instant>,
    ) -> ConnectGuard<'a> {
        ConnectGuard {
            abandon_limiter: self,
            holder,
            progress: Mutex::new(began.map_or(Progress::Idle, Progress::Began)),
        }
    }

    /// How fast `holder` may open connections, where it has abandoned too many.
    fn pace_of(&self, holder: &Arc<str>) -> Option<Arc<Pace>> {
        let paces = self.paces.lock();
        let pace = paces.get(holder)?;
        (pace.owed(Instant::now()) > ALLOWED).then(|| Arc::clone(pace))
    }

    fn note(&self, holder: &Arc<str>, now: Instant) {
        let mut paces = self.paces.lock();
        if paces.len() >= HOLDERS && !paces.contains_key(holder) {
            make_room(&mut paces, now);
        }
        let new = || Arc::new(Pace::new(now));
        let pace = paces.entry(Arc::clone(holder)).or_insert_with(new);
        pace.gave_up(now);
    }

    fn forgive(&self, holder: &Arc<str>) {
        if let Some(pace) = self.paces.lock().get(holder) {
            pace.made_up_for_one();
        }
    }
}

fn make_room(paces: &mut HashMap<Arc<str>, Arc<Pace>>, now: Instant) {
    paces.retain(|_, pace| !pace.owed(now).is_zero());
    if paces.len() < HOLDERS {
        return;
    }
    let least = paces.iter().min_by_key(|(_, pace)| pace.owed(now));
    if let Some(least) = least.map(|(holder, _)| Arc::clone(holder)) {
        paces.remove(&least);
    }
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            forgotten_at: Mutex::new(now),
            next: tokio::sync::Mutex::new(now),
            waiting: AtomicUsize::new(0),
        }
    }

    fn gave_up(&self, now: Instant) {
        let mut forgotten_at = self.forgotten_at.lock();
        let later = (*forgotten_at).max(now) + APART;
        *forgotten_at = later.min(now + ALLOWED + RETAINED_FOR);
    }

    /// What is forgotten already stays so.
    fn made_up_for_one(&self) {
        let mut forgotten_at = self.forgotten_at.lock();
        if let Some(sooner) = forgotten_at.checked_sub(APART) {
            *forgotten_at = sooner;
        }
    }

    /// How long it takes until all is forgotten.
    fn owed(&self, now: Instant) -> Duration {
        self.forgotten_at.lock().saturating_duration_since(now)
    }

    /// Returns when it is the turn of a call that waits.
    async fn turn(&self) {
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + APART;
    }
}

/// Counts one that waits until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// `None` where there are too many.
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let before = count.fetch_add(1, Relaxed);
        // Counts down again where it is not taken.
        let waiting = Self(count);
        (before < WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl ConnectGuard<'_> {
    /// The call begins a connection now, as nearly all may.
    ///
    /// # Errors
    /// When its holder begins them in turn, and it has not waited for [its own](Self::turn).
    pub fn begins(&self) -> Result<(), NotItsTurn> {
        let mut progress = self.progress.lock();
        let has_turn = matches!(*progress, Progress::HasTurn);
        if !has_turn && self.abandon_limiter.pace_of(self.holder).is_some() {
            *progress = Progress::HasToWait;
            return Err(NotItsTurn);
        }
        *progress = Progress::Began(Instant::now());
        Ok(())
    }

    /// Whether it is to wait for its turn before anything else is tried.
    pub fn has_to_wait(&self) -> bool {
        matches!(*self.progress.lock(), Progress::HasToWait)
    }

    /// Whether it has waited for its turn, and has not used it.
    pub fn has_turn(&self) -> bool {
        matches!(*self.progress.lock(), Progress::HasTurn)
    }

    /// Returns when the call may begin a connection.
    ///
    /// # Errors
    /// When too many of the same holder wait.
    pub async fn turn(&self) -> Result<(), TooManyWait> {
        if let Some(pace) = self.abandon_limiter.pace_of(self.holder) {
            let _waiting = Waiting::enter(&pace.waiting).ok_or(TooManyWait)?;
            (self.abandon_limiter.on_wait)();
            // On the heap: hardly any call waits here.
            Box::pin(pace.turn()).await;
        }
        *self.progress.lock() = Progress::HasTurn;
        Ok(())
    }

    /// The call begins a connection when it may.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub async fn begins_in_turn(&self) -> Result<(), TooManyWait> {
        self.turn().await?;
        *self.progress.lock() = Progress::Began(Instant::now());
        Ok(())
    }

    /// The application has answered, or sent anything at all.
    pub fn answered(&self) {
        if self.handed_on().is_some() {
            self.abandon_limiter.forgive(self.holder);
        }
    }

    /// The call has ended without an answer, and its caller has not left it.
    pub fn ended(&self) {
        self.handed_on();
    }

    /// When it opened a connection, if it did, for the call that goes on with it.
    pub fn handed_on(&self) -> Option<Instant> {
        let progress = std::mem::replace(&mut *self.progress.lock(), Progress::Idle);
        match progress {
            Progress::Began(began) => Some(began),
            Progress::Idle | Progress::HasToWait | Progress::HasTurn => None,
        }
    }
}

impl Drop for ConnectGuard<'_> {
    fn drop(&mut self) {
        let Some(began) = self.handed_on() else {
            return;
        };
        let now = Instant::now();
        if now.saturating_duration_since(began) < SOON {
            self.abandon_limiter.note(self.holder, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn abandon_limiter() -> AbandonLimiter {
        AbandonLimiter::new(|| {})
    }

    fn holder() -> Arc<str> {
        "shop/web".into()
    }

    /// `holder` begins so many at once and leaves them `after` that.
    async fn give_up(
        abandon_limiter: &AbandonLimiter,
        holder: &Arc<str>,
        many: usize,
        after: Duration,
    ) {
        let mut guards = Vec::new();
        for _ in 0..many {
            let beginning = abandon_limiter.connect_guard(holder, None);
            beginning.begins_in_turn().await.unwrap();
            guards.push(beginning);
        }
        sleep(after).await;
        drop(guards);
    }

    /// How long `holder` waits until it has opened so many, which end.
    async fn waits(abandon_limiter: &AbandonLimiter, holder: &Arc<str>, many: usize) -> Duration {
        let from = Instant::now();
        let calls = (0..many).map(|_| async {
            let beginning = abandon_limiter.connect_guard(holder, None);
            beginning.begins_in_turn().await.unwrap();
            beginning.ended();
        });
        join_all(calls).await;
        from.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn only_callers_abandoning_many_connections_are_spaced_out() {
        for (many, after, is_spaced) in [
            (128, MOMENT, true),
            // Control: an allowance, and what was waited for.
            (64, MOMENT, false),
            (128, SOON, false),
        ] {
            let (abandon_limiter, holder) = (abandon_limiter(), holder());
            give_up(&abandon_limiter, &holder, many, after).await;
            let other = waits(&abandon_limiter, &"shop/cart".into(), 11).await;
            assert_eq!(other, Duration::ZERO, "{many}, {after:?}");
            let spaced = waits(&abandon_limiter, &holder, 11).await;
            let least = APART * if is_spaced { 10 } else { 0 };
            // Timers have whole milliseconds.
            let expected = least..=least + 2 * APART;
            assert!(expected.contains(&spaced), "{many}, {after:?}: {spaced:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn successful_connection_counts_as_not_abandoned() {
        let (abandon_limiter, holder) = (abandon_limiter(), holder());
        assert_eq!(waits(&abandon_limiter, &holder, 1000).await, Duration::ZERO);
        assert_eq!(waits(&abandon_limiter, &holder, 11).await, Duration::ZERO);
        assert!(abandon_limiter.paces.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn caller_abandoning_no_more_than_answered_is_not_spaced() {
        // Control: what ends without an answer makes up for nothing.
        for (is_answered, is_spaced) in [(true, false), (false, true)] {
            let (abandon_limiter, holder) = (abandon_limiter(), holder());
            let from = Instant::now();
            for _ in 0..4 * WAITING {
                let left = abandon_limiter.connect_guard(&holder, None);
                left.begins_in_turn().await.unwrap();
                drop(left);
                let stays = abandon_limiter.connect_guard(&holder, None);
                stays.begins_in_turn().await.unwrap();
                if is_answered {
                    stays.answered();
                } else {
                    stays.ended();
                }
            }
            let waited = from.elapsed();
            assert_eq!(waited > ALLOWED, is_spaced, "{waited:?}");
            // Nothing is saved for those that are abandoned later.
            give_up(&abandon_limiter, &holder, 128, MOMENT).await;
            assert!(waits(&abandon_limiter, &holder, 11).await >= 10 * APART);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_call_opens_nothing_before_its_turn() {
        let (abandon_limiter, holder) = (abandon_limiter(), holder());
        let call = abandon_limiter.connect_guard(&holder, None);
        // Control: nothing was abandoned.
        assert!(call.begins().is_ok() && !call.has_to_wait());
        call.ended();
        give_up(&abandon_limiter, &holder, 128, MOMENT).await;
        assert!(call.begins().is_err() && call.has_to_wait() && !call.has_turn());
        assert_eq!(call.handed_on(), None);
        call.turn().await.unwrap();
        assert!(!call.has_to_wait() && call.has_turn());
        assert!(call.begins().is_ok() && !call.has_turn());
        assert!(call.begins().is_err(), "one for each turn");
    }

    #[tokio::test(start_paused = true)]
    async fn caller_cancelling_while_waiting_uses_no_turn() {
        let (abandon_limiter, holder) = (abandon_limiter(), holder());
        give_up(&abandon_limiter, &holder, 128, MOMENT).await;
        let owed = || {
            abandon_limiter
                .pace_of(&holder)
                .unwrap()
                .owed(Instant::now())
        };
        let before = owed();
        // Further ones have to wait from here on.
        assert!(waits(&abandon_limiter, &holder, 1).await <= MOMENT);
        let left = (0..200).map(|_| timeout(MOMENT, waits(&abandon_limiter, &holder, 1)));
        assert!(join_all(left).await.iter().all(Result::is_err));
        assert!(waits(&abandon_limiter, &holder, 1).await <= APART);
        assert!(owed() < before, "{:?}", owed());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_are_bounded_and_counted() {
        let counted = Arc::<AtomicUsize>::default();
        let abandon_limiter = AbandonLimiter::new({
            let counted = Arc::clone(&counted);
            move || {
                counted.fetch_add(1, Relaxed);
            }
        });
        let holder = holder();
        give_up(&abandon_limiter, &holder, 128, MOMENT).await;
        let calls = (0..WAITING + 10).map(|_| async {
            let beginning = abandon_limiter.connect_guard(&holder, None);
            let outcome = beginning.begins_in_turn().await;
            beginning.ended();
            outcome
        });
        let outcomes = join_all(calls).await;
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        // The first one does not wait, and has its turn while the others come.
        assert!((9..=10).contains(&refused), "{refused}");
        // Those that were refused have not waited.
        assert_eq!(counted.load(Relaxed) + refused, WAITING + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn abandonments_are_forgotten_soon_regardless_of_count() {
        let (abandon_limiter, holder) = (abandon_limiter(), holder());
        give_up(&abandon_limiter, &holder, 20_000, MOMENT).await;
        sleep(RETAINED_FOR - MOMENT).await;
        assert!(abandon_limiter.pace_of(&holder).is_some());
        sleep(2 * MOMENT).await;
        assert!(abandon_limiter.pace_of(&holder).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn holders_are_bounded_and_worst_abandoner_is_kept() {
        let (abandon_limiter, holder) = (abandon_limiter(), holder());
        give_up(&abandon_limiter, &holder, 128, MOMENT).await;
        for other in 0..4 * HOLDERS {
            abandon_limiter.note(&other.to_string().into(), Instant::now());
        }
        assert_eq!(abandon_limiter.paces.lock().len(), HOLDERS);
        assert!(abandon_limiter.pace_of(&holder).is_some());
    }
}
