//! Sticky routing: the backend and the endpoint that a tenant keeps.
//!
//! Both are chosen by the highest of hashes over the tenant's key and the candidate, with backends
//! by weight. So nothing has to be stored: proxies agree, a restart changes nothing, and when a
//! weight grows, tenants move to that backend and none moves elsewhere or back. An endpoint that is
//! removed moves its own tenants and no others; while it is ejected they use their next one, and
//! return.
//!
//! A client with session affinity keeps its endpoint for as long as the next call comes within the
//! Service's time. After that another session begins, and with it another *epoch*. The endpoint is
//! chosen by the epoch, so nothing about endpoints needs to be stored there either.
//!
//! The hash is one that every proxy of every version agrees on: which endpoint a tenant has, and
//! where an endpoint lies on a ring, must not depend on a process, a release of the standard
//! library or a machine. It protects from nothing: a caller that chooses its key may choose its
//! endpoint.
//!
//! Invariant: time is an argument.
//!
//! In use: [`Key::of`] once per request; [`backend`] instead of [`crate::route::choose`];
//! [`endpoint`] instead of [`crate::balance::choose`], with [`seed`] made once per
//! endpoint, so that one request costs an addition and a few shifts per endpoint, and twice
//! that where its first endpoint does not take it, however many follow.

use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::balance::unit;
use crate::route::Backend;

/// A tenant, as a hash: of a header's or cookie's value, or of the calling pod's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        Self(hash(value))
    }
}

/// The backend of a tenant; `None` when no backend has a weight.
#[must_use]
pub fn backend(backends: &[Backend], key: Key) -> Option<&Backend> {
    let point = |at: usize, backend: &Backend| {
        let service = &backend.service;
        let name = mix(hash(service.namespace.as_bytes())) ^ hash(service.name.as_bytes());
        // A route may name one Service several times, at several ports or with several edits.
        let earlier = backends.iter().take(at);
        let same = earlier.filter(|earlier| earlier.service == *service);
        let name = name.wrapping_add(STEP.wrapping_mul(same.count() as u64));
        // The first of arrivals at rates that are the weights.
        -(1.0 - unit(mix(key.0 ^ name))).ln() / f64::from(backend.weight)
    };
    let all = backends.iter().enumerate();
    let weighed = all.filter(|(_, backend)| backend.weight > 0);
    let points = weighed.map(|(at, backend)| (point(at, backend), backend));
    points
        .min_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, backend)| backend)
}

/// What an endpoint contributes to its tenants' hashes.
#[must_use]
pub fn seed(addr: SocketAddr) -> u64 {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    };
    mix(ip ^ u64::from(addr.port()))
}

/// What the first endpoint of a tenant comes to that comes to anything, among those of `len`
/// that are `usable`: they were not tried.
#[must_use]
pub fn endpoint<T>(
    key: Key,
    len: usize,
    seed: impl Fn(usize) -> u64,
    usable: impl Fn(usize) -> bool,
    take: impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    highest(len, |index| mix(key.0 ^ seed(index)), usable, take)
}

/// Offers those of `len` that are `usable` to `take`, the highest `rank` first and of equal
/// ones the last, until it takes one. Most callers take the first, so the others are put in
/// order only when it was not taken, and then once: to look for each next one anew would cost
/// the square of those that fail, in an outage.
#[must_use]
pub fn highest<R: Ord, T>(
    len: usize,
    rank: impl Fn(usize) -> R,
    usable: impl Fn(usize) -> bool,
    mut take: impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    let ranked = |index| (rank(index), index);
    let left = (0..len).filter(|index| usable(*index));
    let (_, first) = left.clone().map(ranked).max()?;
    if let Some(taken) = take(first) {
        return Some(taken);
    }
    let others = left.filter(|index| *index != first);
    let mut others: BinaryHeap<(R, usize)> = others.map(ranked).collect();
    std::iter::from_fn(|| others.pop()).find_map(|(_, index)| take(index))
}

/// What one client remembers of its calls to one Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    epoch: u64,
    last: Option<Instant>,
}

impl Session {
    /// The epoch of a call at `now`: the one of the call before, unless that was longer
    /// ago than `limit`.
    pub fn call(&mut self, now: Instant, limit: Duration) -> u64 {
        let over = |last: Instant| now.saturating_duration_since(last) > limit;
        if self.last.is_some_and(over) {
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.last = Some(now);
        self.epoch
    }
}

/// FNV-1a, mixed so that neighbours lie far apart.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let fold = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// From one state of splitmix64 to the next: [`mix`] of each is the sequence of its numbers.
pub const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Every bit of the result depends on every bit of `z`: the finalizer of splitmix64.
#[must_use]
pub const fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
