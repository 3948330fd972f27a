//! Counts the tapped requests of the last seconds, by method, path and route. Time is an argument.
//!
//! A tap shows a sample. Its counts of all requests are kept for the same seconds, and rates are
//! computed from those.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::observe::{Direction, Latency, TapLine, TapMetadata, TapRequest};

/// Rows at a time. Requests of further ones are summed up until one is free.
pub(super) const ROWS: usize = 500;
/// Bytes of one text of a row; proxies report as many of a path.
const TEXT: usize = 1024;
/// Requests that are held. A tap of 512 proxies shows one of each in a second at least,
/// and the longest window has 60 of them.
const REQUESTS: usize = 32_768;
/// Counts that came within this time are added up.
const INTERVAL: Duration = Duration::from_secs(1);

/// The key of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey {
    pub(super) path: String,
    pub(super) method: String,
    pub(super) route: String,
    pub(super) direction: &'static str,
}

impl RowKey {
    fn of(request: &TapRequest) -> Self {
        let cut = |text: &str| text[..text.floor_char_boundary(TEXT)].to_owned();
        Self {
            path: cut(&request.path),
            method: cut(&request.method),
            route: cut(&request.route),
            direction: match request.direction {
                Direction::Outbound => "out",
                Direction::Inbound => "in",
            },
        }
    }
}

/// How a request ended, as proxies count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Served,
    Failed,
    /// Its caller left before the response, so neither its result nor its duration is known.
    Left,
}

impl Ended {
    fn of(request: &TapRequest) -> Self {
        let bad = (500..600).contains(&request.status)
            || matches!(request.grpc_status, Some(2 | 4 | 12..=15));
        match request.reason.as_str() {
            "cancelled" => Self::Left,
            "" if !bad => Self::Served,
            // A response of the mesh in place of the application is a failure too.
            _ => Self::Failed,
        }
    }
}

/// One request.
#[derive(Debug)]
struct TappedRequest {
    at: Instant,
    /// Without it, one of those that are summed up.
    key: Option<Arc<RowKey>>,
    ended: Ended,
    ms: f64,
}

/// How many requests there were by the tap's own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) matched: u64,
    pub(super) shown: u64,
    pub(super) dropped: u64,
}

impl Counts {
    fn add(&mut self, more: Self) {
        self.matched = self.matched.saturating_add(more.matched);
        self.shown = self.shown.saturating_add(more.shown);
        self.dropped = self.dropped.saturating_add(more.dropped);
    }
}

/// What was shown of one row.
#[derive(Debug, Default)]
pub(super) struct RowStats {
    pub(super) requests: u64,
    pub(super) served: u64,
    pub(super) failed: u64,
    /// Of completed requests, in order.
    ms: Vec<f64>,
}

impl RowStats {
    fn add(&mut self, request: &TappedRequest) {
        self.requests += 1;
        match request.ended {
            Ended::Served => self.served += 1,
            Ended::Failed => self.failed += 1,
            Ended::Left => return,
        }
        self.ms.push(request.ms);
    }

    /// The time that so many percent of them took at most.
    pub(super) fn latency(&self) -> Option<Latency> {
        let within = |percent: usize| {
            let rank = (self.ms.len() * percent).div_ceil(100);
            self.ms.get(rank.checked_sub(1)?).copied()
        };
        Some(Latency {
            p50: within(50)?,
            p95: within(95)?,
            p99: within(99)?,
        })
    }
}

/// What the window holds at one moment.
#[derive(Debug)]
pub(super) struct WindowView<'a> {
    /// By key; under none those that have no row of their own.
    pub(super) rows: BTreeMap<Option<&'a RowKey>, RowStats>,
    pub(super) seconds: f64,
    pub(super) counts: Counts,
    /// Proxies that take part, and that there are.
    pub(super) proxies: (u32, u32),
    /// Requests that left before their time.
    pub(super) evicted: u64,
}

impl WindowView<'_> {
    /// How many requests there were for so many that were shown.
    pub(super) fn scaled(&self, shown: u64) -> u64 {
        let Counts {
            matched, shown: of, ..
        } = self.counts;
        if of == 0 || matched <= of {
            return shown;
        }
        (shown as f64 * matched as f64 / of as f64).round() as u64
    }
}

/// See the module header.
#[derive(Debug)]
pub(super) struct Window {
    length: Duration,
    /// When the first stream began.
    started: Option<Instant>,
    requests: VecDeque<TappedRequest>,
    /// Keys that have a row, and how many requests of each are held.
    keys: BTreeMap<Arc<RowKey>, usize>,
    /// One for each `INTERVAL` of the window.
    counts: VecDeque<(Instant, Counts)>,
    /// The last counts of the stream.
    baseline: TapMetadata,
    evicted: u64,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            started: None,
            requests: VecDeque::new(),
            keys: BTreeMap::new(),
            counts: VecDeque::new(),
            baseline: TapMetadata::default(),
            evicted: 0,
        }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// A stream begins, and counts anew.
    pub(super) fn begins(&mut self, now: Instant) {
        self.started = self.started.or(Some(now));
        self.baseline = TapMetadata::default();
    }

    /// Takes in a line.
    pub(super) fn line(&mut self, line: &TapLine, now: Instant) {
        self.forget(now);
        if let Some(request) = &line.request {
            self.request(request, now);
        }
        if let Some(metadata) = &line.metadata {
            self.metadata(metadata, now);
        }
    }

    /// The requests of the window that ends now.
    pub(super) fn look(&mut self, now: Instant) -> WindowView<'_> {
        self.forget(now);
        let mut rows: BTreeMap<Option<&RowKey>, RowStats> = BTreeMap::new();
        for request in &self.requests {
            rows.entry(request.key.as_deref()).or_default().add(request);
        }
        for seen in rows.values_mut() {
            seen.ms.sort_by(f64::total_cmp);
        }
        let mut counts = Counts::default();
        for (_, more) in &self.counts {
            counts.add(*more);
        }
        let since = self.started.map_or(Duration::ZERO, |started| {
            now.saturating_duration_since(started)
        });
        WindowView {
            rows,
            // A rate of less than a second would be none.
            seconds: since.min(self.length).as_secs_f64().max(1.0),
            counts,
            proxies: (self.baseline.taking_part, self.baseline.proxies),
            evicted: self.evicted,
        }
    }

    fn request(&mut self, request: &TapRequest, now: Instant) {
        if self.requests.len() >= REQUESTS {
            self.leave();
            self.evicted += 1;
        }
        let key = self.key(RowKey::of(request));
        self.requests.push_back(TappedRequest {
            at: now,
            key,
            ended: Ended::of(request),
            ms: request.ms,
        });
    }

    /// The row of a request; none where it is summed up.
    fn key(&mut self, key: RowKey) -> Option<Arc<RowKey>> {
        let known = self.keys.get_key_value(&key);
        let known = known.map(|(known, _)| Arc::clone(known));
        let key = match known {
            Some(known) => known,
            None if self.keys.len() < ROWS => Arc::new(key),
            None => return None,
        };
        *self.keys.entry(Arc::clone(&key)).or_default() += 1;
        Some(key)
    }

    fn metadata(&mut self, metadata: &TapMetadata, now: Instant) {
        let baseline = &self.baseline;
        let more = Counts {
            matched: metadata.matched.saturating_sub(baseline.matched),
            shown: metadata.shown.saturating_sub(baseline.shown),
            dropped: metadata.dropped.saturating_sub(baseline.dropped),
        };
        // Requests that found no room at the controller are subtracted from those that proxies
        // showed, before the counts include them.
        self.baseline = TapMetadata {
            matched: metadata.matched.max(baseline.matched),
            shown: metadata.shown.max(baseline.shown),
            dropped: metadata.dropped.max(baseline.dropped),
            ..metadata.clone()
        };
        match self.counts.back_mut() {
            Some((at, counts)) if now.saturating_duration_since(*at) < INTERVAL => counts.add(more),
            _ => self.counts.push_back((now, more)),
        }
    }

    /// Lets go of what is older than the window.
    fn forget(&mut self, now: Instant) {
        let length = self.length;
        let is_old = |at: Instant| now.saturating_duration_since(at) > length;
        while self
            .requests
            .front()
            .is_some_and(|request| is_old(request.at))
        {
            self.leave();
        }
        while self.counts.front().is_some_and(|(at, _)| is_old(*at)) {
            self.counts.pop_front();
        }
    }

    /// The oldest request goes.
    fn leave(&mut self) {
        let key = self.requests.pop_front().and_then(|request| request.key);
        let Some(key) = key else { return };
        if let Some(count) = self.keys.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
