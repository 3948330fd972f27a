//! Admits the requests of an HTTP/1.1 connection where there is memory for them: by the first bytes
//! of their head, by all of it before hyper reads it, or after hyper has read it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use runtime::occupancy::{InFlight, Permit, ReservedBytes};
use tokio::io::AsyncRead;
use tokio::time::Instant;
use weft_proxy_net::admission::AdmissionClass;
use weft_proxy_net::budget::{Budget, Promise};
use weft_proxy_net::prefixed::Prefixed;
use weft_proxy_net::ticket::{AdmissionTicket, NotAdmitted, Reservation, Waited, admit};

use super::phases::{AtomicPhase, Queue};
use crate::deadline::{self, GRPC_TIMEOUT, PreviousHop};
use crate::headers::{REST, TIMEOUT};
use crate::server::refused_head::skip_blank_lines;

/// So much is read of what lies behind a head that waits, to see whether its caller leaves.
pub(super) const AHEAD: usize = 4 * 1024;

/// A client that is admitted with the first bytes of a head sends the rest within this. Later its
/// room is free again.
const MOMENT: Duration = Duration::from_millis(250);

/// A request that was let in, by the first bytes of its head or by all of it, and counts
/// though it is not on its way.
#[derive(Debug)]
pub(in super::super) struct AdmittedHead {
    since: Instant,
    /// All of its head had come.
    whole: bool,
    /// By a reserved permit.
    reserved: bool,
    pub(super) in_flight: InFlight,
    _promise: Promise,
}

impl AdmittedHead {
    /// Otherwise it queues once more.
    fn is_still_admitted(&self) -> bool {
        self.whole || self.since.elapsed() < MOMENT
    }
}

/// How the requests of one connection are let in.
#[derive(Debug)]
pub(in super::super) struct RequestAdmission {
    permit: Arc<Permit>,
    budget: Arc<Budget>,
    /// The class by which a request waits where there is no room for it.
    class: AdmissionClass,
    /// Where its requests come from.
    pub(super) from: PreviousHop,
    /// The next request was let in before hyper has its head.
    comes_admitted: AtomicBool,
    /// A request that was admitted, until it goes on its way. hyper may take long to read its head:
    /// while memory is full it is not read.
    head: Mutex<Option<Box<AdmittedHead>>>,
    /// Whether a request whose head hyper has waits to be admitted.
    pub(super) queue: AtomicPhase<Queue>,
    /// For how many milliseconds it waited; 0: it did not.
    waited: AtomicU64,
}

impl RequestAdmission {
    pub(super) fn new(
        budget: Arc<Budget>,
        permit: Arc<Permit>,
        class: AdmissionClass,
        from: PreviousHop,
    ) -> Self {
        Self {
            permit,
            budget,
            class,
            from,
            comes_admitted: AtomicBool::default(),
            head: Mutex::default(),
            queue: AtomicPhase::new(Queue::Empty),
            waited: AtomicU64::default(),
        }
    }

    /// Lets a request in of whose head only the first bytes have come, where there is room.
    /// It counts from here on, or a thousand such beginnings would be let in as one.
    pub(in super::super) fn lets_in(&self) -> Option<Box<AdmittedHead>> {
        let lets_in = self.budget.lets_in(&self.permit, self.class);
        lets_in.then(|| self.admit_with(None))
    }

    /// A request that counts from now on.
    fn admit_with(&self, reservation: Reservation) -> Box<AdmittedHead> {
        let mut promise = self.budget.promise(0);
        promise.begins();
        Box::new(AdmittedHead {
            since: Instant::now(),
            whole: false,
            reserved: reservation.is_some(),
            in_flight: self.permit.begin_request_by(reservation),
            _promise: promise,
        })
    }

    /// Waits until the request may begin whose head has come, as far as it is waited for
    /// before hyper reads it.
    ///
    /// # Errors
    /// When it was not admitted.
    pub(in super::super) async fn admits<I>(
        &self,
        io: &mut Prefixed<I>,
        early: Option<Box<AdmittedHead>>,
    ) -> Result<(), NotAdmitted>
    where
        I: AsyncRead + Unpin,
    {
        self.forgets();
        let mut admitted_head = match early.filter(|early| early.is_still_admitted()) {
            Some(early) => early,
            None => match admit(&self.budget, &self.permit, self.class) {
                Ok(at_once) => self.admit_with(at_once),
                // Boxed: an idle connection has no room for it.
                Err(ticket) => Box::pin(self.queues(io, ticket)).await?,
            },
        };
        admitted_head.whole = io.has_head();
        // Of a head that is too large the rest may never come.
        if admitted_head.whole || !admitted_head.reserved {
            *self.head.lock() = Some(admitted_head);
        }
        self.comes_admitted.store(true, Relaxed);
        Ok(())
    }

    /// What was admitted does not come.
    pub(in super::super) fn forgets(&self) {
        drop(self.take());
    }

    /// The request goes on its way.
    pub(super) fn take(&self) -> Option<Box<AdmittedHead>> {
        self.head.lock().take()
    }

    /// Waits with a request of which nothing but the head, or its beginning, was read.
    async fn queues<I>(
        &self,
        io: &mut Prefixed<I>,
        ticket: AdmissionTicket,
    ) -> Result<Box<AdmittedHead>, NotAdmitted>
    where
        I: AsyncRead + Unpin,
    {
        let reserved = self.permit.reserve_bytes(io.ahead());
        let until = self.until(&times(io.read_ahead()));
        let most = io.ahead() + AHEAD;
        // No client is to blame for the time that passes.
        self.permit.busy();
        let since = Instant::now();
        let left = poll_fn(|cx| {
            let left = io.poll_left(cx, most);
            reserved.set(io.ahead());
            left
        });
        let admitted_head = self.admit_with(ticket.admitted_before(left, until).await?);
        self.notes_wait(since);
        self.permit.idle();
        self.permit.head_begins();
        Ok(admitted_head)
    }

    /// What a request waits for whose head hyper has.
    pub(in super::super) fn ticket(&self) -> Option<AdmissionTicket> {
        let admitted = self.comes_admitted.swap(false, Relaxed);
        let admitted_head = self.take();
        if let Some(admitted_head) =
            admitted_head.filter(|admitted_head| admitted && admitted_head.is_still_admitted())
        {
            *self.head.lock() = Some(admitted_head);
            return None;
        }
        match admit(&self.budget, &self.permit, self.class) {
            Ok(reservation) => {
                *self.head.lock() = Some(self.admit_with(reservation));
                None
            }
            Err(ticket) => Some(ticket),
        }
    }

    /// When a request with these headers is over, by its head.
    pub(in super::super) fn until(&self, map: &HeaderMap) -> Option<Instant> {
        deadline::announced_end(map, self.from).map(Instant::from)
    }

    /// Waits until the request may begin, `until` at most. `reserved` counts what comes of the next
    /// one meanwhile.
    ///
    /// # Errors
    /// When it was late before that, or its sender left.
    pub(super) async fn admitted(
        &self,
        ticket: AdmissionTicket,
        until: Option<Instant>,
        reserved: &ReservedBytes,
    ) -> Result<(), NotAdmitted> {
        let since = Instant::now();
        self.queue.set(Queue::Waits);
        // The part that notes it wakes this connection.
        let left = poll_fn(|_| {
            if self.queue.is(Queue::Left) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let admitted = ticket.admitted_before(left, until).await;
        self.queue.set(Queue::Empty);
        reserved.set(0);
        *self.head.lock() = Some(self.admit_with(admitted?));
        self.notes_wait(since);
        Ok(())
    }

    fn notes_wait(&self, since: Instant) {
        let waited = since.elapsed().as_millis().max(1);
        self.waited
            .store(u64::try_from(waited).unwrap_or(u64::MAX), Relaxed);
    }

    /// For how long the request waited that begins now.
    pub(in super::super) fn waited(&self) -> Option<Waited> {
        if self.waited.load(Relaxed) == 0 {
            return None;
        }
        let waited = self.waited.swap(0, Relaxed);
        Some(Waited(Duration::from_millis(waited)))
    }

    /// Whether a head that begins now would wait.
    pub(super) fn holds_back(&self) -> bool {
        !self.comes_admitted.load(Relaxed) && self.budget.holds_back(&self.permit, self.class)
    }
}

/// The headers of `head` that [`crate::deadline::announced_end`] reads. An incomplete line
/// does not count, nor does one that hyper will refuse.
fn times(head: &[u8]) -> HeaderMap {
    let wanted = [header::CONTENT_TYPE, GRPC_TIMEOUT, TIMEOUT, REST];
    let lines = skip_blank_lines(head).split_inclusive(|byte| *byte == b'\n');
    let mut map = HeaderMap::new();
    for line in lines.skip(1) {
        if !line.ends_with(b"\n") || line.trim_ascii().is_empty() {
            break;
        }
        if let Some((name, value)) = field(line)
            && wanted.contains(&name)
        {
            // Of several the first counts, as everywhere.
            map.entry(name).or_insert(value);
        }
    }
    map
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::times;

    #[test]
    fn timeouts_are_read_from_partially_received_head() {
        for (head, timeout) in [
            (
                &b"GET / HTTP/1.1\r\nWeft-Timeout: 5ms \r\n\r\n"[..],
                Some("5ms"),
            ),
            (
                b"\r\nGET / HTTP/1.1\nhost: a\nweft-timeout:7ms\n\n",
                Some("7ms"),
            ),
            (
                b"GET / HTTP/1.1\r\nweft-timeout: 1ms\r\nweft-timeout: 2ms\r\n\r\n",
                Some("1ms"),
            ),
            // Half a line, a body, and no field at all.
            (b"GET / HTTP/1.1\r\nweft-timeout: 5ms", None),
            (
                b"GET / HTTP/1.1\r\nhost: a\r\n\r\nweft-timeout: 5ms\r\n",
                None,
            ),
            (
                b"GET / HTTP/1.1\r\nweft-timeout\r\nweft-timeout : 5ms\r\n\r\n",
                None,
            ),
            (b"", None),
        ] {
            let map = times(head);
            let read = map.get("weft-timeout").map(|value| value.to_str().unwrap());
            assert_eq!(read, timeout, "{}", String::from_utf8_lossy(head));
            assert!(map.len() <= 1);
        }
    }
}
