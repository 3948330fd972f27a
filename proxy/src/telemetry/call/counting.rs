//! Counts one call, on the cell (the set of counters) of its caller, callee, route and protocol.
//!
//! A call counts once, on the cell of its last attempt; each attempt counts on the cell of its own
//! endpoint. Until the route of a call is known it counts nowhere, and it may move from one cell to
//! another before it ends. Its end is counted on the cell where it is under way.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;

use crate::http::upload::Upload;
use crate::telemetry::Telemetry;
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallCounters, CallGroup, CallOutcome, CellKey};
use crate::telemetry::histogram::Exemplar;
use crate::telemetry::labels::Direction;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    Request,
    /// A connection of opaque bytes.
    Bytes,
}

/// Where a call is counted.
#[derive(Debug)]
enum At {
    /// Nowhere yet: it may be refused before it is known where it goes.
    Nowhere(CallEnds),
    Counters(Arc<CallCounters>),
}

/// Where a call was counted that something else is to answer.
#[derive(Debug)]
pub(crate) struct Before {
    at: At,
    port: u16,
}

/// Whether early reports count a request among those that wait for the head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// They do not: none are wanted, or it has the head.
    Uncounted,
    /// From when it is under way on a cell.
    Begins,
    /// On the cell where it is under way.
    Counted,
}

impl Wait {
    fn of(telemetry: &Telemetry, kind: CallKind, call_ends: &CallEnds) -> Self {
        let is_counted = telemetry.early.is_wanted()
            && kind == CallKind::Request
            && call_ends.direction() == Direction::inbound;
        if is_counted {
            Self::Begins
        } else {
            Self::Uncounted
        }
    }
}

/// See the module header.
#[derive(Debug)]
pub(super) struct Counting {
    kind: CallKind,
    at: At,
    protocol: Protocol,
    /// The port that was called, also where its cell does not distinguish it.
    port: u16,
    /// A request, or bytes that are relayed, that nothing has counted yet.
    awaited: bool,
    /// The cell counts it as under way.
    arrived: bool,
    wait: Wait,
    /// What allowed it, where it may go on to the cell of its port.
    allowed: Option<Box<Origin>>,
    /// An attempt is under way, or none was possible, and that is not counted yet.
    trying: bool,
    /// The body of the request, where it has one.
    upload: Option<Upload>,
}

impl Counting {
    pub(super) fn new(telemetry: &Telemetry, kind: CallKind, call_ends: CallEnds) -> Self {
        Self {
            wait: Wait::of(telemetry, kind, &call_ends),
            kind,
            port: call_ends.port(),
            at: At::Nowhere(call_ends),
            protocol: match kind {
                CallKind::Request => Protocol::Detect,
                CallKind::Bytes => Protocol::Opaque,
            },
            awaited: kind == CallKind::Request,
            arrived: false,
            allowed: None,
            trying: false,
            upload: None,
        }
    }

    pub(super) const fn kind(&self) -> CallKind {
        self.kind
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) const fn is_awaited(&self) -> bool {
        self.awaited
    }

    pub(super) fn call_ends(&self) -> &CallEnds {
        match &self.at {
            At::Nowhere(call_ends) => call_ends,
            At::Counters(cell) => &cell.key().call_ends,
        }
    }

    pub(super) fn route(&self) -> Option<&str> {
        match &self.at {
            At::Nowhere(_) => None,
            At::Counters(cell) => cell.key().route.as_deref(),
        }
    }

    pub(super) fn uploads(&mut self, upload: &Upload) {
        self.upload = upload.comes().then(|| upload.clone());
        self.count_upload();
    }

    fn count_upload(&self) {
        if let (Some(upload), At::Counters(cell)) = (&self.upload, &self.at) {
            upload.counts_on(cell.flows());
        }
    }

    pub(super) const fn speaks(&mut self, version: Version, grpc: bool) {
        self.protocol = match version {
            Version::HTTP_2 if grpc => Protocol::Grpc,
            Version::HTTP_2 => Protocol::Http2,
            _ => Protocol::Http1,
        };
    }

    pub(super) fn carries_tls(&mut self) {
        self.protocol = Protocol::Tls;
        // The way of a connection that was opened ahead is one of whatever bytes.
        if let At::Counters(cell) = &self.at
            && !matches!(cell.key().call_ends, CallEnds::Rest(_))
        {
            self.at = At::Nowhere(cell.key().call_ends.clone());
        }
    }

    pub(super) fn set_ends(&mut self, call_ends: CallEnds) {
        self.port = call_ends.port();
        self.at = At::Nowhere(call_ends);
    }

    /// Counts it on this cell from now on.
    pub(super) fn on(&mut self, cell: Arc<CallCounters>) {
        self.leave();
        self.at = At::Counters(cell);
        self.count_upload();
        if self.kind == CallKind::Request {
            self.arrive();
        }
    }

    /// The same, where it goes by this route, if its way has a cell of its own for that.
    pub(super) fn takes_route(&mut self, telemetry: &Telemetry, route: &Arc<str>) {
        let At::Counters(cell) = &self.at else {
            return;
        };
        if matches!(cell.key().call_ends, CallEnds::Rest(_)) {
            return;
        }
        let by_route = cell.of_route(route).unwrap_or_else(|| {
            let key = CellKey {
                route: Some(Arc::clone(route)),
                ..self.cell_key()
            };
            let by_route = telemetry.cell_of(key);
            if by_route.key().route.is_none() {
                telemetry.metrics.limit("routes");
            }
            // A cell of undistinguished ports is no way to one that is distinguished by now.
            if by_route.key().call_ends.port() == cell.key().call_ends.port() {
                cell.keep_route(route, &by_route);
            }
            by_route
        });
        self.moves();
        self.on(by_route);
    }

    /// It counts in this group from now on, if its way has a cell of its own for that.
    pub(super) fn in_group(&mut self, telemetry: &Telemetry, group: CallGroup) {
        let At::Counters(cell) = &self.at else {
            return;
        };
        let key = cell.key();
        if matches!(key.call_ends, CallEnds::Rest(_)) || key.group != CallGroup::None {
            return;
        }
        let of_group = telemetry.cell_of(CellKey {
            group,
            ..self.cell_key()
        });
        self.moves();
        self.on(of_group);
    }

    /// It goes to the endpoint of this cell now: another one failed it before, or none did.
    pub(super) fn attempt(&mut self, cell: Arc<CallCounters>) {
        self.attempt_failed();
        self.trying = true;
        self.on(cell);
    }

    pub(super) fn attempt_failed(&mut self) {
        if mem::take(&mut self.trying)
            && let At::Counters(failed) = &self.at
        {
            failed.attempted(false);
        }
    }

    pub(super) const fn unserved(&mut self) {
        self.trying = true;
    }

    pub(super) fn open(&mut self, telemetry: &Telemetry) -> Arc<CallCounters> {
        self.awaited = true;
        self.settle(telemetry, true)
    }

    /// What was tried has failed, and from now on it goes between these.
    pub(super) fn falls_back(&mut self, telemetry: &Telemetry, to: CallEnds) -> Before {
        self.gives_up(telemetry);
        let port = mem::replace(&mut self.port, to.port());
        let at = mem::replace(&mut self.at, At::Nowhere(to));
        Before { at, port }
    }

    /// That has failed as well, and it ends as it did before.
    pub(super) fn returns(&mut self, telemetry: &Telemetry, before: Before) {
        self.gives_up(telemetry);
        self.at = before.at;
        self.port = before.port;
    }

    /// The last attempt, and the want of an endpoint, are counted where they were made.
    fn gives_up(&mut self, telemetry: &Telemetry) {
        if mem::take(&mut self.trying) {
            self.settle(telemetry, false).attempted(false);
        }
        self.leave();
    }

    /// Deny would have refused it.
    pub(super) fn audited(&mut self, telemetry: &Telemetry) {
        // Not settled: a connection may go on to the cell of its port yet.
        self.cell(telemetry, false).audited();
    }

    /// This rule allows it.
    pub(super) fn allowed_by(&mut self, rule: &Origin) {
        let At::Counters(cell) = &self.at else {
            return;
        };
        cell.allowed_by(rule);
        // It is reported where the call counts in the end, too.
        if cell.key().call_ends.port() == 0 {
            self.allowed = Some(Box::new(rule.clone()));
        }
    }

    /// It has ended so. `answered`: after the time to the head of its answer, which may be the
    /// exemplar of such times.
    pub(super) fn end(
        &mut self,
        telemetry: &Telemetry,
        outcome: CallOutcome,
        answered: Option<(Duration, Option<Exemplar>)>,
    ) {
        self.awaited = false;
        let cell = self.settle(telemetry, outcome.reason.is_none());
        match answered {
            Some((latency, exemplar)) => {
                cell.answered(outcome, latency);
                if let Some(exemplar) = exemplar {
                    cell.recorded(exemplar);
                }
            }
            None => cell.outcome(outcome),
        }
        if mem::take(&mut self.trying) {
            // Beyond a limit nothing has shown that the backend fails.
            cell.attempted(outcome.success || outcome.reason == Some(Reason::Limit));
        }
        self.leave();
    }

    /// Its caller left before there was a response.
    pub(super) fn cancel(&mut self, telemetry: &Telemetry) {
        let tried = mem::take(&mut self.trying);
        let cell = self.settle(telemetry, false);
        cell.cancel();
        if tried {
            cell.left();
        }
        self.leave();
    }

    /// Its caller has the head of the response now.
    pub(super) fn has_head(&mut self) {
        self.stops_waiting();
        self.wait = Wait::Uncounted;
    }

    fn arrive(&mut self) {
        if let At::Counters(cell) = &self.at
            && !mem::replace(&mut self.arrived, true)
        {
            cell.begin();
            if self.wait == Wait::Begins {
                cell.waits();
                self.wait = Wait::Counted;
            }
        }
    }

    pub(super) fn leave(&mut self) {
        self.stops_waiting();
        if let At::Counters(cell) = &self.at
            && mem::take(&mut self.arrived)
        {
            cell.leave();
        }
    }

    /// It counts once, and not where it was until now.
    fn moves(&mut self) {
        self.stops_waiting();
        if let At::Counters(current) = &self.at
            && mem::take(&mut self.arrived)
        {
            current.moves();
        }
    }

    fn stops_waiting(&mut self) {
        if self.wait == Wait::Counted
            && let At::Counters(cell) = &self.at
        {
            cell.waited();
            self.wait = Wait::Begins;
        }
    }

    /// The cell that counts it, on which it is under way from now on.
    pub(super) fn settle(&mut self, telemetry: &Telemetry, served: bool) -> Arc<CallCounters> {
        let cell = self.cell(telemetry, served);
        if let Some(rule) = self.allowed.take()
            && cell.key().call_ends.port() != 0
        {
            cell.allowed_by(&rule);
        }
        self.arrive();
        cell
    }

    /// The cell that counts it; `served` when the other end itself has answered, which makes the
    /// port a distinguished one.
    fn cell(&mut self, telemetry: &Telemetry, served: bool) -> Arc<CallCounters> {
        let call_ends = self.call_ends();
        let news = served && call_ends.port() == 0 && !matches!(call_ends, CallEnds::Rest(_));
        match &self.at {
            At::Counters(cell) if !news => Arc::clone(cell),
            _ => {
                if served {
                    let (direction, service) = (call_ends.direction(), call_ends.service_name());
                    let _ = telemetry.port_label(direction, service, self.port, true);
                }
                let cell = telemetry.cell_of(self.cell_key());
                let moved =
                    matches!(&self.at, At::Counters(current) if !Arc::ptr_eq(current, &cell));
                if moved {
                    self.moves();
                }
                self.at = At::Counters(Arc::clone(&cell));
                self.count_upload();
                cell
            }
        }
    }

    /// The way that it goes, to the port that was called.
    fn cell_key(&self) -> CellKey {
        let (call_ends, route, group) = match &self.at {
            At::Nowhere(call_ends) => (call_ends, None, CallGroup::None),
            At::Counters(cell) => {
                let key = cell.key();
                (&key.call_ends, key.route.clone(), key.group)
            }
        };
        CellKey {
            call_ends: call_ends.clone().at_port(self.port),
            protocol: self.protocol,
            route,
            group,
        }
    }
}
