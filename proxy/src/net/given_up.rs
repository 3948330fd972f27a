//! Connections to applications that their callers give up as soon as they are begun.
//!
//! Each lies in the queue of its application until that accepts it, and costs its caller a head
//! and a reset: a few batches of them over HTTP/2 fill the queue, and everybody else waits. So
//! whoever has given up more than an allowance has further ones begun one after the other, at a
//! pace that applications accept. What is kept and used again waits for no turn, and nobody waits
//! for another holder's.
//!
//! Only what its caller left counts, and only in the first moments: a call that ends for its time
//! or for a change of policy tells nothing of its caller. A caller whose connection to this proxy
//! ends has left its calls as well. Our own time-outs of connections are longer than what counts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Whoever waited longer for an application has waited for it.
const SOON: Duration = Duration::from_millis(100);
/// From one turn of a holder to the next: 200 in a second, which one thread accepts. As many are
/// forgotten in that time.
const APART: Duration = Duration::from_millis(5);
/// So many may be given up at once, by a client that leaves with all that it has asked.
const ALLOWED: Duration = APART.saturating_mul(64);
/// Whoever gives up no more begins as everybody else this long after the last one.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Calls of one holder that wait for their turn. The last one waits for 1.28 s, less than an
/// application has to accept a connection. What they hold counts as of every call in flight.
const WAITING: usize = 256;
/// Holders of which something is remembered. Who owes least goes.
const HOLDERS: usize = 256;

/// Too many calls of the same holder wait for their turn.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many calls of this caller wait, since it gives up connections that it has begun")]
pub(crate) struct TooManyWait;

/// Who gives up connections to the applications of one workload, and how many.
pub(crate) struct GivenUp {
    paces: Mutex<HashMap<Arc<str>, Arc<Pace>>>,
    on_wait: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenUp").finish_non_exhaustive()
    }
}

/// How fast one holder may begin connections.
#[derive(Debug)]
struct Pace {
    /// When all that it has given up is forgotten.
    forgotten_at: Mutex<Instant>,
    /// When the next one may be begun. The first in the queue holds it, and changes nothing where
    /// it leaves.
    next: tokio::sync::Mutex<Instant>,
    waiting: AtomicUsize,
}

/// A call that may begin connections. Dropped before it has [ended](Self::ended), its caller has
/// left it.
#[derive(Debug)]
pub(crate) struct Beginning<'a> {
    given_up: &'a GivenUp,
    holder: &'a Arc<str>,
    began: Mutex<Option<Instant>>,
}

impl GivenUp {
    /// Calls `on_wait` for each connection that has to wait for its turn.
    #[must_use]
    pub(crate) fn new(on_wait: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            paces: Mutex::default(),
            on_wait: Box::new(on_wait),
        }
    }

    /// A call of `holder` begins, or goes on that began a connection at this moment.
    pub(crate) fn begun<'a>(
        &'a self,
        holder: &'a Arc<str>,
        began: Option<Instant>,
    ) -> Beginning<'a> {
        Beginning {
            given_up: self,
            holder,
            began: Mutex::new(began),
        }
    }

    /// How fast `holder` may begin connections, where it has given up too many.
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
        *forgotten_at = later.min(now + ALLOWED + REMEMBERED);
    }

    /// How long it takes until all is forgotten.
    fn owed(&self, now: Instant) -> Duration {
        self.forgotten_at.lock().saturating_duration_since(now)
    }

    /// Returns when it is the caller's turn.
    async fn turn(&self) -> Result<(), TooManyWait> {
        let _waiting = Waiting::enter(&self.waiting).ok_or(TooManyWait)?;
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        *next = Instant::now() + APART;
        Ok(())
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

impl Beginning<'_> {
    /// Returns when the call may begin a connection, which nearly all may at once.
    ///
    /// # Errors
    /// When too many of the same holder wait.
    pub(crate) async fn begins(&self) -> Result<(), TooManyWait> {
        if let Some(pace) = self.given_up.pace_of(self.holder) {
            (self.given_up.on_wait)();
            // On the heap: hardly any call waits here.
            Box::pin(pace.turn()).await?;
        }
        *self.began.lock() = Some(Instant::now());
        Ok(())
    }

    /// The call has come to something, whatever it is. Tells when it began a connection, if it
    /// did.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.began.lock().take()
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        let Some(began) = self.ended() else { return };
        let now = Instant::now();
        if now.saturating_duration_since(began) < SOON {
            self.given_up.note(self.holder, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn given_up() -> GivenUp {
        GivenUp::new(|| {})
    }

    fn holder() -> Arc<str> {
        "shop/web".into()
    }

    /// `holder` begins so many at once and leaves them `after` that.
    async fn give_up(given_up: &GivenUp, holder: &Arc<str>, many: usize, after: Duration) {
        let mut begun = Vec::new();
        for _ in 0..many {
            let beginning = given_up.begun(holder, None);
            beginning.begins().await.unwrap();
            begun.push(beginning);
        }
        sleep(after).await;
        drop(begun);
    }

    /// How long `holder` waits until it has begun so many, which come to something.
    async fn waits(given_up: &GivenUp, holder: &Arc<str>, many: usize) -> Duration {
        let from = Instant::now();
        let calls = (0..many).map(|_| async {
            let beginning = given_up.begun(holder, None);
            beginning.begins().await.unwrap();
            beginning.ended();
        });
        join_all(calls).await;
        from.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_many_begins_further_ones_apart_and_nobody_else_does() {
        for (many, after, is_spaced) in [
            (128, MOMENT, true),
            // Control: an allowance, and what was waited for.
            (64, MOMENT, false),
            (128, SOON, false),
        ] {
            let (given_up, holder) = (given_up(), holder());
            give_up(&given_up, &holder, many, after).await;
            let other = waits(&given_up, &"shop/cart".into(), 11).await;
            assert_eq!(other, Duration::ZERO, "{many}, {after:?}");
            let spaced = waits(&given_up, &holder, 11).await;
            let least = APART * if is_spaced { 10 } else { 0 };
            // Timers have whole milliseconds.
            let expected = least..=least + 2 * APART;
            assert!(expected.contains(&spaced), "{many}, {after:?}: {spaced:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_to_something_was_not_given_up() {
        let (given_up, holder) = (given_up(), holder());
        assert_eq!(waits(&given_up, &holder, 1000).await, Duration::ZERO);
        assert_eq!(waits(&given_up, &holder, 11).await, Duration::ZERO);
        assert!(given_up.paces.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_while_it_waits_takes_no_turn_and_has_begun_nothing() {
        let (given_up, holder) = (given_up(), holder());
        give_up(&given_up, &holder, 128, MOMENT).await;
        let owed = || given_up.pace_of(&holder).unwrap().owed(Instant::now());
        let before = owed();
        // Further ones have to wait from here on.
        assert!(waits(&given_up, &holder, 1).await <= MOMENT);
        let left = (0..200).map(|_| timeout(MOMENT, waits(&given_up, &holder, 1)));
        assert!(join_all(left).await.iter().all(Result::is_err));
        assert!(waits(&given_up, &holder, 1).await <= APART);
        assert!(owed() < before, "{:?}", owed());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_are_bounded_and_counted() {
        let counted = Arc::<AtomicUsize>::default();
        let given_up = GivenUp::new({
            let counted = Arc::clone(&counted);
            move || {
                counted.fetch_add(1, Relaxed);
            }
        });
        let holder = holder();
        give_up(&given_up, &holder, 128, MOMENT).await;
        let calls = (0..WAITING + 10).map(|_| async {
            let beginning = given_up.begun(&holder, None);
            let outcome = beginning.begins().await;
            beginning.ended();
            outcome
        });
        let outcomes = join_all(calls).await;
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        // The first one does not wait, and has its turn while the others come.
        assert!((9..=10).contains(&refused), "{refused}");
        assert_eq!(counted.load(Relaxed), WAITING + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn all_is_forgotten_soon_after_the_last_one_however_many_there_were() {
        let (given_up, holder) = (given_up(), holder());
        give_up(&given_up, &holder, 20_000, MOMENT).await;
        sleep(REMEMBERED - MOMENT).await;
        assert!(given_up.pace_of(&holder).is_some());
        sleep(2 * MOMENT).await;
        assert!(given_up.pace_of(&holder).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn holders_are_bounded_and_the_one_that_gave_up_most_is_remembered() {
        let (given_up, holder) = (given_up(), holder());
        give_up(&given_up, &holder, 128, MOMENT).await;
        for other in 0..4 * HOLDERS {
            given_up.note(&other.to_string().into(), Instant::now());
        }
        assert_eq!(given_up.paces.lock().len(), HOLDERS);
        assert!(given_up.pace_of(&holder).is_some());
    }
}
