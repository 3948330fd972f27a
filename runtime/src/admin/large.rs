//! Bounds the pages that may be large: how many are held for their readers, and which reader loses
//! one.
//!
//! They may be a megabyte each, and their readers slow, or request again and again: a few addresses
//! would have all permits and keep every scraper out. So where all are taken, a new request takes
//! the permit of the address that has most, where that has more than its own address.
//!
//! Claims: attack-71

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

/// Pages that are read at one time, of those that the kubelet does not ask for.
pub(super) const MAX_PAGES: usize = 16;
/// The same for one address.
const MAX_PAGES_PER_ADDRESS: usize = 4;
/// One that has been read for less goes only where its address would still have as many as
/// the newcomer: an honest reader has mostly taken all by then.
const GRACE: Duration = Duration::from_secs(1);
/// A reader that lost its permit gives it back within a tick of the runtime.
const FREED_WITHIN: Duration = Duration::from_millis(20);

/// The places for pages that may be large.
#[derive(Default)]
pub(super) struct Large(Mutex<Places>);

#[derive(Default)]
struct Places {
    /// At most [`MAX_PAGES`].
    held: Vec<Place>,
    next: u64,
}

struct Place {
    id: u64,
    reader: IpAddr,
    /// Since when its reader may be slow: sends a body, or takes the page. Not while the page is
    /// being made.
    read_since: Option<Instant>,
    /// Signals the connection of the reader that another one is to get its permit.
    goes: Arc<Notify>,
    heir: Option<Heir>,
}

/// The reader that gets a permit as soon as its present reader is gone.
struct Heir {
    reader: IpAddr,
    goes: Arc<Notify>,
    waits: oneshot::Sender<Reading>,
}

enum Answer {
    Enters(Reading),
    Inherits(oneshot::Receiver<Reading>),
    Refused,
}

/// The place of one page, which is given back, or passed on, when this is dropped.
pub(super) struct Reading {
    of: Arc<Large>,
    id: u64,
}

impl Large {
    /// A permit for a page of `reader`; `None` where there is none for it. `goes` makes the
    /// connection of the reader check whether it still has it.
    pub(super) async fn enter(
        of: &Arc<Self>,
        reader: IpAddr,
        goes: &Arc<Notify>,
    ) -> Option<Reading> {
        match Self::try_enter(of, reader, goes) {
            Answer::Enters(reading) => Some(reading),
            Answer::Inherits(place) => timeout(FREED_WITHIN, place).await.ok()?.ok(),
            Answer::Refused => None,
        }
    }

    fn try_enter(of: &Arc<Self>, reader: IpAddr, goes: &Arc<Notify>) -> Answer {
        let mut places = of.0.lock();
        if places.count(reader) >= MAX_PAGES_PER_ADDRESS {
            return Answer::Refused;
        }
        let goes = Arc::clone(goes);
        if places.held.len() < MAX_PAGES {
            let id = places.enter(reader, goes);
            let of = Arc::clone(of);
            return Answer::Enters(Reading { of, id });
        }
        let Some(lost) = places.lost_to(reader) else {
            return Answer::Refused;
        };
        let (waits, place) = oneshot::channel();
        lost.heir = Some(Heir {
            reader,
            goes,
            waits,
        });
        lost.goes.notify_one();
        Answer::Inherits(place)
    }
}

impl Places {
    /// What this address has, or is about to have.
    fn count(&self, reader: IpAddr) -> usize {
        let owners = self.held.iter().map(Place::owner);
        owners.filter(|owner| *owner == reader).count()
    }

    fn enter(&mut self, reader: IpAddr, goes: Arc<Notify>) -> u64 {
        self.next += 1;
        self.held.push(Place {
            id: self.next,
            reader,
            read_since: None,
            goes,
            heir: None,
        });
        self.next
    }

    /// The place that goes for a page of `newcomer`: of the address with most, the one that has
    /// been read for longest.
    fn lost_to(&mut self, newcomer: IpAddr) -> Option<&mut Place> {
        let (now, then) = (Instant::now(), self.count(newcomer) + 1);
        let losses = self.held.iter().filter_map(|place| {
            let since = place.read_since.filter(|_| place.heir.is_none())?;
            let (has, age) = (self.count(place.reader), now.duration_since(since));
            let may = has > then || (has == then && age >= GRACE);
            may.then_some((has, age, Reverse(place.id)))
        });
        let (.., Reverse(id)) = losses.max()?;
        self.held.iter_mut().find(|place| place.id == id)
    }

    /// Gives a permit back. The next reader in line, if any, has it now: which permit that is,
    /// and the reader's waiter.
    fn leave(&mut self, id: u64) -> Option<(u64, oneshot::Sender<Reading>)> {
        let at = self.held.iter().position(|place| place.id == id)?;
        let heir = self.held.swap_remove(at).heir?;
        Some((self.enter(heir.reader, heir.goes), heir.waits))
    }
}

impl Place {
    fn owner(&self) -> IpAddr {
        let heir = self.heir.as_ref();
        heir.map_or(self.reader, |heir| heir.reader)
    }
}

impl Reading {
    /// A page is being made for it, which is never evicted.
    pub(super) fn is_made(&self) {
        self.with_place(|place| place.read_since = None);
    }

    /// Its reader may be slow from now on: the page is there, or a body is to come before.
    pub(super) fn is_read(&self) {
        self.with_place(|place| {
            place.read_since.get_or_insert_with(Instant::now);
        });
    }

    /// Whether another reader is to get its permit.
    pub(super) fn is_lost(&self) -> bool {
        self.with_place(|place| place.heir.is_some()) == Some(true)
    }

    fn with_place<T>(&self, look: impl FnOnce(&mut Place) -> T) -> Option<T> {
        let mut places = self.of.0.lock();
        let place = places.held.iter_mut().find(|place| place.id == self.id);
        place.map(look)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let passed_on = self.of.0.lock().leave(self.id);
        if let Some((id, waits)) = passed_on {
            let of = Arc::clone(&self.of);
            // Where the waiter is gone it is dropped again, and no other reader is to get it.
            let _ = waits.send(Self { of, id });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{JoinHandle, yield_now};
    use tokio::time::sleep;

    use super::*;

    async fn enter(large: &Arc<Large>, last: u8) -> Option<Reading> {
        let reader = IpAddr::from([127, 0, 9, last]);
        Large::enter(large, reader, &Arc::default()).await
    }

    async fn read(large: &Arc<Large>, last: u8) -> Reading {
        let reading = enter(large, last).await.unwrap();
        reading.is_read();
        reading
    }

    /// One that is not refused at once.
    async fn waits(large: &Arc<Large>, last: u8) -> JoinHandle<Option<Reading>> {
        let large = Arc::clone(large);
        let waits = tokio::spawn(async move { enter(&large, last).await });
        yield_now().await;
        assert!(!waits.is_finished(), "no reader has left");
        waits
    }

    fn lost(held: &[Reading]) -> Vec<usize> {
        let all = held.iter().enumerate();
        let lost = all.filter(|(_, reading)| reading.is_lost());
        lost.map(|(at, _)| at).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn newcomer_gets_released_oldest_permit_of_largest_holder() {
        let large = Arc::<Large>::default();
        let mut held = Vec::new();
        for last in [1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5] {
            held.push(read(&large, last).await);
            sleep(Duration::from_millis(1)).await;
        }
        assert!(enter(&large, 2).await.is_none(), "it has its share");
        assert!(lost(&held).is_empty());
        let first = waits(&large, 9).await;
        assert_eq!(lost(&held), [1]);
        let second = waits(&large, 9).await;
        assert_eq!(lost(&held), [1, 5]);
        drop(held.remove(5));
        drop(held.remove(1));
        let got = [first.await.unwrap(), second.await.unwrap()];
        assert!(got.iter().all(Option::is_some));
        assert_eq!(large.0.lock().held.len(), MAX_PAGES);
        drop((got, held));
        assert_eq!(large.0.lock().held.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn sole_permit_yields_only_during_slow_reading() {
        let large = Arc::<Large>::default();
        let mut held = Vec::new();
        for last in 1..=16 {
            held.push(read(&large, last).await);
        }
        assert!(enter(&large, 99).await.is_none(), "all are young");
        sleep(GRACE).await;
        assert!(enter(&large, 1).await.is_none(), "it has as many");
        held.iter().for_each(Reading::is_made);
        assert!(enter(&large, 99).await.is_none(), "all are being made");
        held[7].is_read();
        sleep(GRACE).await;
        let newcomer = waits(&large, 99).await;
        assert_eq!(lost(&held), [7]);
        drop(held.remove(7));
        assert!(newcomer.await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn permit_too_late_for_its_newcomer_is_free() {
        let large = Arc::<Large>::default();
        let mut held = Vec::new();
        for last in [1, 2, 3, 4].repeat(4) {
            held.push(read(&large, last).await);
        }
        assert!(
            enter(&large, 9).await.is_none(),
            "no reader has left in time"
        );
        assert_eq!(lost(&held), [0]);
        drop(held.remove(0));
        assert!(enter(&large, 8).await.is_some());
    }
}
