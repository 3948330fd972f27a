//! Admits requests to one port of the own application: how many at once, and which class first.
//!
//! `policy` decides. This file keeps the state of one port across configurations, so that a change
//! of a policy loses nothing that was measured of the application.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use policy::origin::Origin;
use policy::overload::{Admit, Limiter};
use policy::traffic::guard::{Overload, OverloadMode, Priority};
use policy::traffic::pod::GuardPort;

/// What holds at one port where a policy has an `overload` that is not switched off.
#[derive(Clone, Debug)]
pub(crate) struct PortOverload {
    settings: Overload,
    origin: Origin,
    application: Arc<Mutex<Application>>,
}

/// The application behind one port, as measured.
#[derive(Debug)]
struct Application {
    limiter: Limiter,
    /// The limit that was reported last.
    shown_limit: i64,
    /// No limit is reported any more.
    over: bool,
}

/// A request that may be let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingRequest {
    pub(crate) priority: Priority,
    /// It counts one class lower.
    pub(crate) retry: bool,
    /// It passed before it was put off, as mode Audit let it, and is counted as that once.
    pub(crate) audited: bool,
}

impl PendingRequest {
    /// What it counts as.
    pub(crate) const fn class(self) -> Priority {
        if self.retry {
            self.priority.lower()
        } else {
            self.priority
        }
    }
}

/// What was decided of a request.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) admit: Admit,
    /// `None`: it is shed.
    pub(crate) let_in: Option<Box<AdmittedRequest>>,
}

/// A request that was let in, until the head of its answer. Dropped before, it has none.
#[derive(Debug)]
pub(crate) struct AdmittedRequest {
    by: PortOverload,
    pending: PendingRequest,
    since: Instant,
    /// It is no longer in flight.
    over: bool,
}

impl PortOverload {
    /// What `configured` makes of what was before; `None`: requests are admitted without it.
    pub(super) fn after(
        before: Option<&Self>,
        configured: &GuardPort,
        now: Instant,
    ) -> Option<Self> {
        let (Some(settings), Some(origin)) = configured.overload.decide(None) else {
            return None;
        };
        if settings.mode == OverloadMode::Off {
            return None;
        }
        let application = match before {
            Some(before) => Arc::clone(&before.application),
            None => Arc::new(Mutex::new(Application {
                limiter: Limiter::new(now),
                shown_limit: 0,
                over: false,
            })),
        };
        Some(Self {
            settings: *settings,
            origin: origin.clone(),
            application,
        })
    }

    /// Whether both are the same.
    pub(super) fn same(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => {
                one.settings == other.settings && one.origin == other.origin
            }
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// Ends admission by this section. `show` gets that where a limit was, and requests in flight
    /// report no limit any more.
    pub(super) fn end(&self, show: impl FnOnce(i64)) {
        let mut application = self.application.lock();
        application.over = true;
        if std::mem::take(&mut application.shown_limit) != 0 {
            show(0);
        }
    }

    /// Whose `overload` it is.
    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether a request goes to the application. `show` gets how many may be in flight from now
    /// on, if that changed; 0: any number, and no caller holds back.
    pub(crate) fn arrive(
        &self,
        now: Instant,
        pending: PendingRequest,
        show: impl FnOnce(i64),
    ) -> Decided {
        let mut application = self.application.lock();
        let PendingRequest {
            priority,
            retry,
            audited,
        } = pending;
        let limiter = &mut application.limiter;
        let admit = limiter.arrive(now, priority, retry, &self.settings);
        application.show_limit(now, show);
        drop(application);
        let let_in = admit.passes().then(|| {
            Box::new(AdmittedRequest {
                by: self.clone(),
                pending: PendingRequest {
                    audited: audited || admit == Admit::Audit,
                    ..pending
                },
                since: now,
                over: false,
            })
        });
        Decided { admit, let_in }
    }
}

impl AdmittedRequest {
    /// It waits for something else before it goes to the application, and then arrives again,
    /// where and as this returns: one configuration decides about one call.
    pub(crate) fn put_off(mut self) -> (PortOverload, PendingRequest) {
        self.over = true;
        self.by.application.lock().limiter.put_off();
        (self.by.clone(), self.pending)
    }

    /// The head of its response is there. `show` gets the limit, if that changed.
    pub(crate) fn answered(mut self, now: Instant, show: impl FnOnce(i64)) {
        self.over = true;
        let took = now.saturating_duration_since(self.since);
        let mut application = self.by.application.lock();
        application.limiter.done(now, took, &self.by.settings);
        application.show_limit(now, show);
    }
}

impl Drop for AdmittedRequest {
    fn drop(&mut self) {
        if !self.over {
            self.by.application.lock().limiter.left();
        }
    }
}

impl Application {
    /// The limit in whole requests, if it differs from the one reported last. Under its lock, so
    /// that no report follows the end.
    fn show_limit(&mut self, now: Instant, show: impl FnOnce(i64)) {
        if self.over {
            return;
        }
        let shown = self.limiter.shown_limit(now);
        let limit = shown.map_or(0, |limit| limit as i64);
        if std::mem::replace(&mut self.shown_limit, limit) != limit {
            show(limit);
        }
    }
}

#[cfg(test)]
mod tests;
