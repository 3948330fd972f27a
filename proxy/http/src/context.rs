//! The requests that the application is serving, as parents of the calls that it makes: what a call
//! inherits of its parent request, and when the parent's client has left.
//!
//! `policy` keeps the table. A request is entered here when it goes to the application and removed
//! when its response has ended in any way; a call that is made for it waits on that entry.
//!
//! Invariant: as long as no request has a deadline, this costs each request a counter that goes up
//! and down again, and each call one read. Only then is it known which traces are in flight: until
//! all requests that came before have ended, trace ids prove nothing.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Instant;

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use policy::context::{Id, Key, Lookup, Table};
use policy::deadline::Deadline;
use policy::reason::Reason;
use policy::retry::RetryExhaustedTraces;
use policy::trace::context as trace;
use policy::traffic::guard::Priority;
use tokio::sync::Notify;

use crate::deadline::{Left, now};
use crate::headers::CONTEXT;
use crate::route_override::RouteOverride;
use crate::shadow::Shadow;
use crate::watched::BodyEnd;

/// What calls take over of the request that they are made for.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    pub deadline: Deadline,
    /// It is sent again.
    pub retry: bool,
    pub priority: Option<Priority>,
    pub shadow: Option<Shadow>,
    pub route_override: Option<Arc<RouteOverride>>,
}

impl Inherited {
    /// Whether a call differs from one that is made for nothing.
    fn is_nothing(&self) -> bool {
        self.deadline == Deadline::NONE
            && !self.retry
            && self.route_override.is_none()
            && self.priority != Some(Priority::Sheddable)
            && matches!(self.shadow, None | Some(Shadow::Perhaps(_)))
    }
}

/// A request that its application has.
#[derive(Debug)]
pub struct ServedRequest {
    key: Key,
    inherited: Inherited,
    /// Its connection carries another protocol, and its end holds no longer.
    switched: AtomicBool,
    /// A call that is made for it failed in its last attempt: a retry of it would not help.
    retries_exhausted: AtomicBool,
    left: AtomicBool,
    leaves: Notify,
}

/// What a call is made for.
#[derive(Clone, Debug)]
pub enum ParentRequest {
    /// No open request has anything that the call could inherit; the table was not searched.
    NothingInherited,
    /// Nothing that is known.
    Nothing,
    Request(Arc<ServedRequest>),
    /// A request of its trace, whose ends are not later than this.
    Trace(Option<Instant>),
    /// A request whose client is gone.
    Over,
}

/// The scope of a call's failure in its last attempt: the request that it is made for, or where
/// that is not known all of its trace.
#[derive(Clone, Debug)]
pub enum RetryParent {
    Request(Arc<ServedRequest>),
    Trace(u128),
}

/// What calls of one workload are made for.
#[derive(Debug, Default)]
pub struct Contexts {
    /// A request had an end: from then on traces are followed.
    follows: AtomicBool,
    /// Requests that the application has and the table does not.
    unknown: AtomicUsize,
    table: Mutex<Table<Arc<ServedRequest>>>,
    /// A trace was marked.
    marks: AtomicBool,
    exhausted_traces: Mutex<RetryExhaustedTraces>,
}

/// Holds a request in the table until its answer has ended. Dropped before that, its caller
/// has left.
#[derive(Debug, Default)]
pub struct OpenRequest {
    contexts: Option<Arc<Contexts>>,
    /// `None`: it is only counted.
    served: Option<Arc<ServedRequest>>,
}

impl Contexts {
    /// Registers a request with these headers, which goes to the application, and writes its name
    /// into a header where there is something to inherit. False beside it: there was no room to
    /// keep it.
    pub fn register(
        self: &Arc<Self>,
        inherited: &Inherited,
        map: &mut HeaderMap,
    ) -> (OpenRequest, bool) {
        let nothing = inherited.is_nothing();
        if nothing && !self.follows.load(Relaxed) {
            let kept = self.unknown();
            // Counted before the flag is read again: a call that follows traces from now on sees
            // it.
            if !self.follows.load(SeqCst) {
                return (kept, true);
            }
            kept.forget(Table::forget);
        }
        if inherited.deadline != Deadline::NONE {
            self.follows.store(true, SeqCst);
        }
        let trace = self.follows.load(Relaxed).then(|| trace_of(map)).flatten();
        if nothing && trace.is_none() {
            return (OpenRequest::default(), true);
        }
        let key = Key {
            id: (!nothing).then(|| Id::new(rand::random())),
            trace,
        };
        let served = Arc::new(ServedRequest {
            key,
            inherited: inherited.clone(),
            switched: AtomicBool::new(false),
            retries_exhausted: AtomicBool::new(false),
            left: AtomicBool::new(false),
            leaves: Notify::new(),
        });
        let known = Arc::clone(&served);
        let room = self.table.lock().record(&key, served.until(), known);
        if room.is_err() {
            return (self.unknown(), false);
        }
        if let Some(id) = key.id
            && let Ok(name) = HeaderValue::from_str(&id.to_string())
        {
            map.insert(CONTEXT, name);
        }
        let kept = OpenRequest {
            contexts: Some(Arc::clone(self)),
            served: Some(served),
        };
        (kept, true)
    }

    fn unknown(self: &Arc<Self>) -> OpenRequest {
        self.unknown.fetch_add(1, SeqCst);
        OpenRequest {
            contexts: Some(Arc::clone(self)),
            served: None,
        }
    }

    /// What a call of the application with these headers is made for, that names a request
    /// or not.
    pub fn of_call(&self, named: Option<Id>, map: &HeaderMap) -> ParentRequest {
        let follows = self.follows.load(Relaxed);
        if named.is_none() && !follows {
            return ParentRequest::NothingInherited;
        }
        let key = Key {
            id: named,
            trace: match named {
                None if self.unknown.load(SeqCst) == 0 => trace_of(map),
                _ => None,
            },
        };
        if key == Key::default() {
            return ParentRequest::Nothing;
        }
        match self.table.lock().find(&key, now()) {
            Lookup::Named(served) => ParentRequest::Request(served),
            Lookup::Traced(until) => ParentRequest::Trace(until),
            Lookup::Over => ParentRequest::Over,
            Lookup::Nothing => ParentRequest::Nothing,
        }
    }

    /// The last attempt of a call failed: its parent request is not to be retried for that.
    pub fn mark_retries_exhausted(&self, retry_parent: &RetryParent) {
        match retry_parent {
            RetryParent::Request(served) => served.retries_exhausted.store(true, Relaxed),
            RetryParent::Trace(trace) => {
                self.exhausted_traces.lock().mark(*trace, now());
                self.marks.store(true, Relaxed);
            }
        }
    }

    /// Whether a call that a request with these headers needed failed in its last attempt.
    pub fn retries_exhausted(&self, kept: &OpenRequest, map: &HeaderMap) -> bool {
        let served = kept.served.as_ref();
        if served.is_some_and(|served| served.retries_exhausted.load(Relaxed)) {
            return true;
        }
        self.marks.load(Relaxed)
            && trace_of(map)
                .is_some_and(|trace| self.exhausted_traces.lock().is_marked(trace, now()))
    }
}

impl RetryParent {
    /// Of a call with these headers.
    pub fn of(made_for: Option<&Arc<ServedRequest>>, map: &HeaderMap) -> Option<Self> {
        match made_for {
            Some(served) => Some(Self::Request(Arc::clone(served))),
            None => trace_of(map).map(Self::Trace),
        }
    }
}

fn trace_of(map: &HeaderMap) -> Option<u128> {
    Some(trace::read(map)?.ids?.trace)
}

impl ServedRequest {
    /// When it is over.
    fn until(&self) -> Option<Instant> {
        if self.switched.load(Relaxed) {
            return None;
        }
        self.inherited.deadline.end().map(|(at, _)| at)
    }

    pub const fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    pub fn has_left(&self) -> bool {
        self.left.load(SeqCst)
    }

    /// Ends when its caller leaves.
    pub fn leaving(self: &Arc<Self>) -> Left {
        let served = Arc::clone(self);
        Left::new(async move {
            let mut leaves = pin!(served.leaves.notified());
            // Before the look: an end in between is seen by one of the two.
            leaves.as_mut().enable();
            if !served.has_left() {
                leaves.await;
            }
        })
    }

    fn leave(&self) {
        self.left.store(true, SeqCst);
        self.leaves.notify_waiters();
    }
}

impl ParentRequest {
    /// When what the call is made for is over; `None`: it has no end.
    pub fn until(&self) -> Option<Instant> {
        match self {
            Self::NothingInherited | Self::Nothing => None,
            Self::Request(served) if served.has_left() => Some(now()),
            Self::Request(served) => served.until(),
            Self::Trace(until) => *until,
            Self::Over => Some(now()),
        }
    }

    /// Label `how` of `weft_context_total`.
    pub const fn how(&self) -> Option<&'static str> {
        match self {
            Self::NothingInherited => None,
            Self::Nothing => Some("none"),
            Self::Request(_) => Some("context"),
            Self::Trace(_) => Some("trace"),
            Self::Over => Some("over"),
        }
    }

    /// The request, where it is known which one.
    pub fn request(self) -> Option<Arc<ServedRequest>> {
        match self {
            Self::Request(served) => Some(served),
            Self::NothingInherited | Self::Nothing | Self::Trace(_) | Self::Over => None,
        }
    }
}

impl OpenRequest {
    /// Its connection carries another protocol from now on. That has no end, so neither have
    /// the calls that are made for it.
    pub fn switched(&self) {
        if let (Some(contexts), Some(served)) = (&self.contexts, &self.served) {
            served.switched.store(true, Relaxed);
            contexts.table.lock().loosen(&served.key);
        }
    }

    /// Its answer has ended so.
    pub fn ended(self, end: BodyEnd) {
        match end {
            BodyEnd::Complete | BodyEnd::Failed => self.forget(Table::forget),
            BodyEnd::OutOfTime(_) | BodyEnd::Late(_) => self.forget(ended),
            // Dropped, its caller has left.
            BodyEnd::Dropped => {}
        }
    }

    /// This proxy has answered it for this reason.
    pub fn refused(self, reason: Reason) {
        if reason == Reason::Deadline {
            self.forget(ended);
        } else {
            self.forget(Table::forget);
        }
    }

    fn forget(mut self, how: fn(&mut Table<Arc<ServedRequest>>, &Key)) {
        self.take_out(how);
    }

    fn take_out(
        &mut self,
        how: fn(&mut Table<Arc<ServedRequest>>, &Key),
    ) -> Option<Arc<ServedRequest>> {
        let contexts = self.contexts.take()?;
        let served = self.served.take();
        match &served {
            Some(served) => how(&mut contexts.table.lock(), &served.key),
            None => {
                contexts.unknown.fetch_sub(1, SeqCst);
            }
        }
        served
    }
}

fn ended(table: &mut Table<Arc<ServedRequest>>, key: &Key) {
    table.end(key, now());
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if let Some(served) = self.take_out(ended) {
            served.leave();
        }
    }
}

#[cfg(test)]
mod tests;
