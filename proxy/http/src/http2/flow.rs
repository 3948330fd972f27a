//! Flow control: the windows that this process advertises to its peers.
//!
//! What a window allows may lie here until it is read, so windows are memory. Three rules keep it
//! bounded and keep streams from blocking each other:
//!
//! - The window of a connection is larger than the windows of all its streams together. A stream
//!   that is not read fills its own window and nothing else.
//! - A stream begins with [`STREAM_WINDOW`], or with less where the process has many streams: all
//!   of them share one pool.
//! - A connection on which a stream was read as fast as it came gets larger windows, by doubling,
//!   while the growth of all connections fits as much again. Without such a stream for [`CALM`]
//!   they go back.
//!
//! `h2` knows one size for all streams of a connection, so growth is per connection, and bounded by
//! how many streams it has.
//!
//! An application is near, so [`STREAM_WINDOW`] is enough for it. Its connection may have started
//! with less while the process had many streams, and lives long. Larger windows are announced to it
//! once there is room, which every peer of gRPC has to expect, and never smaller ones.
//!
//! When a window becomes smaller, its sender may have used more than the small one has and waits
//! for WINDOW_UPDATE. `h2` checks whether one is due when bytes are given back, and all of them may
//! have been by then. So it checks again once the peer knows the smaller window.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use h2::{FlowControl, RecvStream, StreamId};
use parking_lot::Mutex;
use tokio::time::Instant;
use weft_proxy_net::budget::{Budget, Holder};

use super::inbox::{Inbox, Inboxes, SmallFrames};
use super::used_streams::UsedStreams;

/// Window of a stream of which little has been read yet.
pub(super) const STREAM_WINDOW: u32 = 64 * 1024;
/// Window of a stream where the process has very many.
const LEAST_STREAM_WINDOW: u32 = 16 * 1024;
/// Largest window of a stream. At 1 GiB/s two proxies that share two cores with what
/// they serve answer each other in a millisecond or two.
const LARGEST_STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// Concurrent streams on one connection.
pub const STREAMS: u32 = 128;
/// What the windows of a connection's streams may come to once they have grown.
const GROWN: usize = 8 * 1024 * 1024;
/// Window of a connection: more than its streams can use together.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const _: () = assert!((STREAMS * STREAM_WINDOW) as usize + GROWN <= CONNECTION_WINDOW as usize);
/// The window that a peer assumes for a stream until another is announced.
const ASSUMED_WINDOW: u32 = 65_535;
/// Windows stay large for this long after a stream last filled one.
const CALM: Duration = Duration::from_secs(1);

/// How the windows of a connection change after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowChanges {
    /// They grow for fast streams, and become smaller where many share the pool.
    Both,
    /// What began with less than [`STREAM_WINDOW`] gets there.
    BackToFull,
}

/// The windows of one connection.
#[derive(Debug)]
pub struct Flow {
    budget: Arc<Budget>,
    changes: WindowChanges,
    streams: AtomicUsize,
    /// Those that announced more than [`STREAM_WINDOW`].
    announced_large: AtomicUsize,
    window: AtomicU32,
    /// A stream was read as fast as its window allowed.
    wants_growth: AtomicBool,
    growth: Mutex<Growth>,
    /// The window became smaller, and the peer may not know yet.
    shrunk: AtomicBool,
    /// Streams that brought more than the smallest window.
    used: UsedStreams,
    inboxes: Arc<Inboxes>,
}

#[derive(Debug, Default)]
struct Growth {
    /// Counted in the process's budget.
    bytes: usize,
    /// When a stream last filled its window.
    last: Option<Instant>,
}

impl Flow {
    #[must_use]
    pub fn new(budget: Arc<Budget>, changes: WindowChanges) -> Arc<Self> {
        let window = base(&budget);
        Arc::new(Self {
            budget,
            changes,
            streams: AtomicUsize::new(0),
            announced_large: AtomicUsize::new(0),
            window: AtomicU32::new(window),
            wants_growth: AtomicBool::new(false),
            growth: Mutex::default(),
            shrunk: AtomicBool::new(window < ASSUMED_WINDOW),
            used: UsedStreams::default(),
            inboxes: Arc::default(),
        })
    }

    /// The window of the connection's streams, as last announced by this side.
    #[must_use]
    pub fn window(&self) -> u32 {
        self.window.load(Relaxed)
    }

    /// Whose bytes they are.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Counts what the connection's reader must count. `paced`: what begins and resets streams
    /// counts as well.
    pub(super) fn small_frames(&self, paced: bool) -> SmallFrames {
        self.inboxes.small_frames(paced)
    }

    /// To be called by the connection's task before it reads.
    pub(super) fn begin_turn(&self) {
        self.inboxes.begin_turn();
    }

    /// Whether what comes is a flood, so that the connection is to end. The connection's task
    /// checks it after it has read.
    pub(super) fn is_flooded(&self) -> bool {
        self.inboxes.is_flooded()
    }

    /// Joins small frames that wait; see [`Inboxes::look`].
    pub(super) fn join_small_frames(&self) {
        self.inboxes.look();
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.load(Relaxed)
    }

    /// Streams that are open and bring more than their sender may send ahead, so that it holds
    /// the rest: as they announced, or as they show by now.
    #[must_use]
    pub(crate) fn large_streams(&self, now: Instant) -> usize {
        let window = self.window() as usize;
        self.announced_large.load(Relaxed) + self.used.large(window, now)
    }

    /// Counts a stream until the share is dropped.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> Share {
        self.streams.fetch_add(1, Relaxed);
        Share {
            _holder: self.budget.enter(),
            flow: Arc::clone(self),
            read: 0,
            given_back: 0,
            announced_large: false,
            used: None,
        }
    }

    /// Has the connection `announce` to the peer which window its streams have from now on, if that
    /// is due. `announce` returns true when it will, which it does only once the peer has
    /// acknowledged the last one.
    pub(crate) fn adjust(&self, announce: impl FnOnce(u32) -> bool) -> bool {
        let shrunk = self.shrunk.load(Relaxed);
        let next = self.next();
        // The same window again, to learn that the peer knows it.
        let Some(window) = next.or_else(|| shrunk.then(|| self.window())) else {
            return false;
        };
        if !announce(window) {
            return false;
        }
        if shrunk {
            self.used.look_again();
        }
        self.shrunk.store(window < self.window(), Relaxed);
        self.announced(window);
        true
    }

    /// The window that streams should have from now on, if that is another one.
    /// [`Self::announced`] takes it into use.
    #[must_use]
    fn next(&self) -> Option<u32> {
        let now = self.window();
        if self.changes == WindowChanges::BackToFull && now >= STREAM_WINDOW {
            return None;
        }
        let base = base(&self.budget);
        if self.changes == WindowChanges::BackToFull {
            return (base > now).then_some(base);
        }
        let wants_growth = self.wants_growth.load(Relaxed);
        if now == base && !wants_growth {
            return None;
        }
        let growth = self.growth.lock();
        let wanted = if wants_growth {
            now.saturating_mul(2)
        } else if growth.last.is_some_and(|last| last.elapsed() < CALM) {
            now
        } else {
            base
        };
        let mut most = self.most(&growth);
        if base < STREAM_WINDOW {
            // So many streams fill what there is by what they begin with: none grows.
            most = most.min(now);
        }
        let next = wanted.min(most).max(base);
        if next == now && wants_growth {
            drop(growth);
            self.announced(now);
        }
        (next != now).then_some(next)
    }

    /// The largest window that the budget allows.
    fn most(&self, growth: &Growth) -> u32 {
        let streams = self.streams.load(Relaxed).max(1);
        let others = self.budget.grown().saturating_sub(growth.bytes);
        let left = self.budget.windows().saturating_sub(others).min(GROWN);
        let most = u32::try_from(left / streams).unwrap_or(LARGEST_STREAM_WINDOW);
        floor(most.clamp(1, LARGEST_STREAM_WINDOW))
    }

    /// `window` was announced to the peer.
    fn announced(&self, window: u32) {
        let mut growth = self.growth.lock();
        self.window.store(window, Relaxed);
        if self.wants_growth.swap(false, Relaxed) {
            growth.last = Some(Instant::now());
        }
        let streams = self.streams.load(Relaxed).max(1);
        let bytes = window.saturating_sub(base(&self.budget)) as usize * streams;
        self.budget.grow(growth.bytes, bytes);
        growth.bytes = bytes;
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let bytes = self.growth.get_mut().bytes;
        self.budget.grow(bytes, 0);
    }
}

/// One stream among those that share the budget.
#[derive(Debug)]
pub struct Share {
    _holder: Holder,
    flow: Arc<Flow>,
    /// Since the last time that a window was filled.
    read: u32,
    /// All that the peer may have sent ahead again.
    given_back: u64,
    /// It announced more than [`STREAM_WINDOW`].
    announced_large: bool,
    /// Among [`Flow::used`].
    used: Option<StreamId>,
}

impl Share {
    /// Lets the peer send as many further bytes of `stream`.
    pub(crate) fn give_back(&mut self, stream: &mut FlowControl, bytes: usize) {
        let windows = |bytes: u64| bytes.saturating_sub(1) / u64::from(STREAM_WINDOW);
        let before = windows(self.given_back);
        self.given_back += bytes as u64;
        // Before they are given back: the window may become smaller just then.
        if self.used.is_none() && self.given_back >= u64::from(LEAST_STREAM_WINDOW) {
            self.used = Some(stream.stream_id());
            self.flow.used.insert(stream);
        }
        // Only what was received is given back, so this cannot fail.
        let _ = stream.release_capacity(bytes);
        if let Some(id) = self.used
            && !self.announced_large
            && windows(self.given_back) > before
        {
            self.flow.used.filled(id, self.window());
        }
    }

    /// So many bytes are to come of the stream.
    pub(super) fn announces(&mut self, bytes: u64) {
        if !self.announced_large && bytes > u64::from(STREAM_WINDOW) {
            self.announced_large = true;
            self.flow.announced_large.fetch_add(1, Relaxed);
        }
    }

    /// Where what comes of `stream` waits.
    pub(super) fn inbox(&self, stream: RecvStream) -> Inbox {
        self.flow.inboxes.open(stream)
    }

    /// Bytes that may wait to be read.
    pub fn window(&self) -> usize {
        self.flow.window() as usize
    }

    /// Notes that `bytes` were read and are passed on.
    pub fn read(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.read = self.read.saturating_add(bytes);
        if self.read >= self.flow.window() {
            self.read = 0;
            self.flow.wants_growth.store(true, Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.flow.streams.fetch_sub(1, Relaxed);
        if self.announced_large {
            self.flow.announced_large.fetch_sub(1, Relaxed);
        }
        if let Some(id) = self.used {
            self.flow.used.remove(id);
        }
    }
}

/// The window of a stream while it has not grown.
pub(super) fn base(budget: &Budget) -> u32 {
    let share = u32::try_from(budget.window()).unwrap_or(STREAM_WINDOW);
    floor(share.clamp(LEAST_STREAM_WINDOW, STREAM_WINDOW))
}

/// The power of two below, so that windows do not follow every stream that comes
/// and goes.
const fn floor(window: u32) -> u32 {
    1 << (31 - window.leading_zeros())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{
        Budget, Flow, GROWN, LARGEST_STREAM_WINDOW, LEAST_STREAM_WINDOW, STREAM_WINDOW, Share,
        WindowChanges,
    };

    const LIMIT: usize = 512 * 1024 * 1024;
    const POOL: usize = LIMIT / 16;

    /// Reads whole windows until the window stays as it is.
    fn read_fast(flow: &Flow, share: &mut Share) -> u32 {
        loop {
            share.read(flow.window() as usize);
            match flow.next() {
                Some(window) => flow.announced(window),
                None => return flow.window(),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fast_read_stream_gets_large_window_until_calm() {
        let flow = Flow::new(Budget::new(LIMIT), WindowChanges::Both);
        let mut share = flow.open();
        assert_eq!(flow.window(), STREAM_WINDOW);
        assert_eq!(read_fast(&flow, &mut share), LARGEST_STREAM_WINDOW);
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(flow.next(), None, "given back too early");
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(flow.next(), Some(STREAM_WINDOW));
    }

    #[tokio::test(start_paused = true)]
    async fn unread_stream_gets_no_larger_window() {
        let flow = Flow::new(Budget::new(LIMIT), WindowChanges::Both);
        let mut share = flow.open();
        share.read(STREAM_WINDOW as usize - 1);
        assert_eq!(flow.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_windows_of_a_connection_fit_its_own() {
        for streams in 1..=super::STREAMS {
            let flow = Flow::new(Budget::new(LIMIT), WindowChanges::Both);
            let mut shares: Vec<Share> = (0..streams).map(|_| flow.open()).collect();
            let window = read_fast(&flow, &mut shares[0]);
            let sum = window as usize * streams as usize;
            assert!(sum <= GROWN, "{streams} streams of {window}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_comes_makes_grown_windows_smaller() {
        let flow = Flow::new(Budget::new(LIMIT), WindowChanges::Both);
        let mut shares: Vec<Share> = (0..4).map(|_| flow.open()).collect();
        assert_eq!(read_fast(&flow, &mut shares[0]), LARGEST_STREAM_WINDOW);
        shares.extend((0..4).map(|_| flow.open()));
        assert_eq!(flow.next(), Some(LARGEST_STREAM_WINDOW / 2));
    }

    /// Hundreds that come at once and are taken by kernels at first would all grow before they
    /// stall.
    #[tokio::test(start_paused = true)]
    async fn where_many_streams_share_the_pool_none_grows() {
        let budget = Budget::new(64 * 1024 * 1024);
        let flow = Flow::new(Arc::clone(&budget), WindowChanges::Both);
        let mut shares: Vec<Share> = (0..64).map(|_| flow.open()).collect();
        assert_eq!(read_fast(&flow, &mut shares[0]), STREAM_WINDOW);
        shares.push(flow.open());
        assert_eq!(read_fast(&flow, &mut shares[0]), STREAM_WINDOW / 2);
        shares.truncate(4);
        assert!(read_fast(&flow, &mut shares[0]) > STREAM_WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn growth_of_all_connections_fits_the_pool() {
        let budget = Budget::new(LIMIT);
        let mut sum = 0;
        let mut flows = Vec::new();
        for _ in 0..40 {
            let flow = Flow::new(Arc::clone(&budget), WindowChanges::Both);
            let mut share = flow.open();
            sum += read_fast(&flow, &mut share) - STREAM_WINDOW;
            flows.push((flow, share));
        }
        assert!(sum as usize <= POOL, "{sum}");
        drop(flows);
        assert_eq!((budget.grown(), budget.holders()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_streams_share_the_pool() {
        let budget = Budget::new(LIMIT);
        let flow = Flow::new(Arc::clone(&budget), WindowChanges::Both);
        let shares: Vec<Share> = (0..1000).map(|_| flow.open()).collect();
        assert_eq!(flow.next(), Some(STREAM_WINDOW / 2));
        let more: Vec<Share> = (0..100_000).map(|_| flow.open()).collect();
        assert_eq!(flow.next(), Some(LEAST_STREAM_WINDOW));
        drop((shares, more));
        flow.announced(LEAST_STREAM_WINDOW);
        assert_eq!(flow.next(), Some(STREAM_WINDOW));
    }
    /// A connection to an application lives as long as the application.
    #[tokio::test(start_paused = true)]
    async fn small_initial_application_windows_grow_to_full_and_stay() {
        let budget = Budget::new(LIMIT);
        let mut others: Vec<_> = (0..100_000).map(|_| budget.enter()).collect();
        let flow = Flow::new(Arc::clone(&budget), WindowChanges::BackToFull);
        let mut share = flow.open();
        assert_eq!(read_fast(&flow, &mut share), LEAST_STREAM_WINDOW);
        others.truncate(1000);
        assert_eq!(read_fast(&flow, &mut share), STREAM_WINDOW / 2);
        others.clear();
        assert_eq!(read_fast(&flow, &mut share), STREAM_WINDOW);
        others.extend((0..100_000).map(|_| budget.enter()));
        assert_eq!(flow.next(), None, "less was announced again");
        assert_eq!(budget.grown(), 0);
    }
}
