//! The table of open requests of an application, by which the parent request of a call is found: by
//! the id that each request was given, or by its trace.
//!
//! An id is unique, so a call that carries it is made for that request and no other. A trace id is
//! not: several requests of one trace may be in flight, and only one of them may have a deadline.
//! So of a trace the latest deadline counts, and while requests of unknown trace are in flight,
//! trace ids decide nothing: a call is never ended while a caller waits for it.
//!
//! In use: [`Table::record`] when a request goes to the application; [`Table::forget`] or
//! [`Table::end`] when its answer has ended; [`Table::find`] for each call of the
//! application.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::expiring_set::ExpiringSet;

/// Requests remembered at a time. With those that are over the table takes 4 MiB at most, and
/// nothing before there is one. What is known of each lies beside it.
pub const MOST: usize = 10_000;

/// For so long it is known that a request is over. An application that goes on working for
/// it later makes calls that belong to nothing.
pub(crate) const OVER: Duration = Duration::from_secs(60);

/// The name of a request: the value of `weft-context`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

impl Id {
    /// `random` is uniform over all of `u64`.
    #[must_use]
    pub const fn new(random: u64) -> Self {
        Self(random)
    }

    /// `None`: no name of a request.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if value.len() != 16 || !value.iter().all(is_digit) {
            return None;
        }
        let text = std::str::from_utf8(value).ok()?;
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

/// 16 hex digits.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

/// By what a request is remembered: its name, if its application was given one, and its
/// trace, if it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    pub id: Option<Id>,
    pub trace: Option<u128>,
}

/// There is no room for one more request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What a call is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The request that it names.
    Named(T),
    /// One of this trace; the latest of their ends, `None` where one of them has none.
    Traced(Option<Instant>),
    /// The request that it names, for which no caller waits any more.
    Over,
    /// Nothing that is known.
    Nothing,
}

/// Requests in flight. `T` is what is known of one that was given a name.
#[derive(Debug)]
pub struct Table<T> {
    named: HashMap<Id, T>,
    traces: HashMap<u128, InFlight>,
    requests: usize,
    over: ExpiringSet<Id>,
}

/// The requests of one trace.
#[derive(Debug)]
struct InFlight {
    requests: u32,
    /// The latest end that one of them had since the first of them came: one number however
    /// many there are, and never too strict.
    until: Option<Instant>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            named: HashMap::new(),
            traces: HashMap::new(),
            requests: 0,
            over: ExpiringSet::new(OVER, MOST),
        }
    }
}

impl<T: Clone> Table<T> {
    /// A request goes to the application, to be over at `until`. `known` is kept by its
    /// name, where `key` has one.
    ///
    /// # Errors
    /// When there is no room for it, or another one has its name.
    pub fn record(&mut self, key: &Key, until: Option<Instant>, known: T) -> Result<(), Full> {
        let taken = |id: &Id| self.named.contains_key(id);
        if self.requests >= MOST || key.id.as_ref().is_some_and(taken) {
            return Err(Full);
        }
        self.requests += 1;
        if let Some(id) = key.id {
            self.named.insert(id, known);
        }
        if let Some(trace) = key.trace {
            let fresh = InFlight { requests: 0, until };
            let all = self.traces.entry(trace).or_insert(fresh);
            all.requests += 1;
            all.until = all.until.zip(until).map(|(one, other)| one.max(other));
        }
        Ok(())
    }

    /// A request that was remembered with an end has none any more.
    pub fn loosen(&mut self, key: &Key) {
        let all = key.trace.and_then(|trace| self.traces.get_mut(&trace));
        if let Some(all) = all {
            all.until = None;
        }
    }

    /// The answer to a request has ended as it should, or as its application let it.
    pub fn forget(&mut self, key: &Key) {
        self.requests = self.requests.saturating_sub(1);
        if let Some(id) = &key.id {
            self.named.remove(id);
        }
        if let Some(trace) = key.trace
            && let Some(all) = self.traces.get_mut(&trace)
        {
            all.requests -= 1;
            if all.requests == 0 {
                self.traces.remove(&trace);
            }
        }
    }

    /// The same of a request for which no caller waits any more: calls that name it do not start.
    pub fn end(&mut self, key: &Key, now: Instant) {
        self.forget(key);
        if let Some(id) = key.id {
            self.over.note(id, now);
        }
    }

    /// What a call with these headers is made for. One that names a request belongs to it or to
    /// nothing, whatever its trace.
    #[must_use]
    pub fn find(&self, key: &Key, now: Instant) -> Lookup<T> {
        if let Some(id) = key.id {
            return match self.named.get(&id) {
                Some(known) => Lookup::Named(known.clone()),
                None if self.over.has(&id, now) => Lookup::Over,
                None => Lookup::Nothing,
            };
        }
        let all = key.trace.and_then(|trace| self.traces.get(&trace));
        all.map_or(Lookup::Nothing, |all| Lookup::Traced(all.until))
    }

    /// Requests remembered.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.requests
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.requests == 0
    }
}

#[cfg(test)]
mod tests;
