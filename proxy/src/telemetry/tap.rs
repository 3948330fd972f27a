//! Taps: requests that a client watches, reported one by one as they end.
//!
//! Without a tap a request reads one flag and nothing else. With taps its head is compared with
//! their filters when it arrives, and only what fits is recorded, to be compared with the remaining
//! filters when it has ended. A request never waits for a reader: a record for which there is no
//! room on its way is dropped and counted.
//!
//! No body and no query is ever reported, and of headers those that the tap names. The controller
//! checks those; the ones that hold secrets are skipped here too, whatever a controller requests.

pub(crate) mod record;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderName, Method};
use policy::well_known::SECRET_HEADERS;
use tokio::sync::{Notify, mpsc};
use wire::v1;

use crate::http::head::ReportedHead;
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::labels::Direction;

/// Records of one tap that wait to be sent.
const QUEUE: usize = 256;
/// Headers of one tap.
const MAX_HEADERS: usize = 8;

/// All taps of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// Whether there is any. Stale for a moment, which costs a look or a record.
    any: AtomicBool,
    open: ArcSwap<Vec<Arc<Tap>>>,
}

impl Taps {
    /// The only thing that a request reads without a tap.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Begins to watch. Ends when what is returned is dropped.
    pub(crate) fn watch(
        self: &Arc<Self>,
        request: v1::TapAsk,
    ) -> (Watch, mpsc::Receiver<v1::TapRecord>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let tap = Arc::new(Tap {
            most: request.max_per_second.max(1),
            filter: Filter::of(request),
            started: Instant::now(),
            window: AtomicU64::new(0),
            counts: Counts::default(),
            queue,
            half_full: Notify::new(),
        });
        self.change(|open| open.push(Arc::clone(&tap)));
        let taps = Arc::clone(self);
        (Watch { taps, tap }, records)
    }

    fn change(&self, change: impl Fn(&mut Vec<Arc<Tap>>)) {
        self.open.rcu(|open| {
            let mut open = Vec::clone(open);
            change(&mut open);
            open
        });
        self.any
            .store(!self.open.load().is_empty(), Ordering::Relaxed);
    }
}

/// What a client wants to see.
#[derive(Debug)]
pub(crate) struct Tap {
    filter: Filter,
    /// Records in one second.
    most: u32,
    started: Instant,
    /// Second since the begin, and records in it.
    window: AtomicU64,
    counts: Counts,
    queue: mpsc::Sender<v1::TapRecord>,
    /// Of those who let records collect.
    half_full: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    matched: AtomicU64,
    shown: AtomicU64,
    dropped: AtomicU64,
}

impl Tap {
    /// Shows what `record` makes, if there is room and not too much was shown.
    fn show(&self, record: impl FnOnce() -> v1::TapRecord) {
        let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        count(&self.counts.matched);
        if !self.may_show() {
            return;
        }
        // Checked first: making one costs more than this.
        let sent = match self.queue.try_reserve() {
            Ok(room) => {
                room.send(record());
                if self.queue.capacity() <= QUEUE / 2 {
                    self.half_full.notify_one();
                }
                true
            }
            Err(_) => false,
        };
        count(if sent {
            &self.counts.shown
        } else {
            &self.counts.dropped
        });
    }

    fn may_show(&self) -> bool {
        let second = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        let mut current = self.window.load(Ordering::Relaxed);
        loop {
            let (at, shown) = ((current >> 32) as u32, current as u32);
            let shown = if at == second { shown } else { 0 };
            if shown >= self.most {
                return false;
            }
            let next = (u64::from(second) << 32) | u64::from(shown + 1);
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self
                .window
                .compare_exchange_weak(current, next, success, failure)
            {
                Ok(_) => return true,
                Err(now) => current = now,
            }
        }
    }
}

/// A tap for as long as this lives.
#[derive(Debug)]
pub(crate) struct Watch {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
}

impl Watch {
    /// Until so many records wait that more of them may soon find no place.
    pub(crate) async fn half_full(&self) {
        self.tap.half_full.notified().await;
    }

    /// Since it began.
    pub(crate) fn summary(&self) -> v1::TapSummary {
        let counts = &self.tap.counts;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        v1::TapSummary {
            matched: count(&counts.matched),
            shown: count(&counts.shown),
            dropped: count(&counts.dropped),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let own = &self.tap;
        self.taps
            .change(|open| open.retain(|tap| !Arc::ptr_eq(tap, own)));
    }
}

/// Which requests a tap wants, by what is known of them at each moment. What is empty fits
/// everything.
///
/// Evaluated twice: when the head of a request is there, which spares all others the work, and
/// when it has ended, which is when its status and its time are known.
#[derive(Debug)]
struct Filter {
    to_services: HashSet<String>,
    to_pods: HashSet<String>,
    from_pods: HashSet<String>,
    from_accounts: HashSet<String>,
    method: Option<Method>,
    path_prefix: String,
    /// Inclusive.
    status: Option<(u16, u16)>,
    slower: Duration,
    /// What no route describes, and all that the own application calls, has none.
    route: String,
    headers: Vec<HeaderName>,
}

impl Filter {
    /// As the controller requests. A method or header that is none fits nothing, or is not
    /// reported.
    fn of(request: v1::TapAsk) -> Self {
        let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let bounded = request.status_first > 0 || request.status_last > 0;
        let method = (!request.method.is_empty()).then(|| {
            // No request has this one.
            let none = || Method::from_bytes(b"-").unwrap_or_default();
            Method::from_bytes(request.method.as_bytes()).unwrap_or_else(|_| none())
        });
        let headers = request.headers.iter();
        let headers = headers.filter_map(|name| name.parse::<HeaderName>().ok());
        Self {
            to_services: request.to_services.into_iter().collect(),
            to_pods: request.to_pods.into_iter().collect(),
            from_pods: request.from_pods.into_iter().collect(),
            from_accounts: request.from_accounts.into_iter().collect(),
            method,
            path_prefix: request.path_prefix,
            status: bounded.then(|| (small(request.status_first), small(request.status_last))),
            slower: Duration::from_micros(request.slower),
            route: request.route,
            headers: headers
                .filter(|name| !SECRET_HEADERS.contains(&name.as_str()))
                .take(MAX_HEADERS)
                .collect(),
        }
    }

    fn is_for_ends(&self) -> (bool, bool) {
        let to = !self.to_services.is_empty() || !self.to_pods.is_empty();
        let from = !self.from_pods.is_empty() || !self.from_accounts.is_empty();
        (to, from)
    }

    /// Whether a request with this head may be wanted.
    fn wants_head(&self, direction: Direction, asked: ReportedHead<'_>) -> bool {
        let side = match (self.is_for_ends(), direction) {
            ((false, false), _) => true,
            ((to, _), Direction::outbound) => to,
            ((_, from), Direction::inbound) => from,
        };
        side && self
            .method
            .as_ref()
            .is_none_or(|wanted| asked.method == Some(wanted))
            && asked.path.starts_with(&self.path_prefix)
    }

    /// Whether it is, now that it has ended: with this status, after this time, and by this
    /// route of the own workload.
    fn wants(
        &self,
        call_ends: &CallEnds,
        (status, latency, route): (u16, Duration, Option<&str>),
    ) -> bool {
        self.status
            .is_none_or(|(first, last)| (first..=last).contains(&status))
            && latency >= self.slower
            && (self.route.is_empty() || route == Some(&*self.route))
            && self.wants_end(call_ends)
    }

    /// Whether its ends are wanted.
    fn wants_end(&self, call_ends: &CallEnds) -> bool {
        if self.is_for_ends() == (false, false) {
            return true;
        }
        match call_ends {
            CallEnds::Outbound {
                service,
                backend,
                pod,
                ..
            } => {
                self.to_services.contains(&**service)
                    || self.to_services.contains(&**backend)
                    || self.to_pods.contains(&**pod)
            }
            CallEnds::Inbound { caller, .. } => {
                let uid = call_ends.caller();
                uid.is_some_and(|uid| self.from_pods.contains(&**uid))
                    || self.from_accounts.contains(&**caller)
            }
            CallEnds::Unserved { service, .. } => self.to_services.contains(&**service),
            CallEnds::External { .. } | CallEnds::Rest(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
