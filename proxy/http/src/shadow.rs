//! Tracks which requests are copies or made for copies, so that none of them is copied again. Two
//! Services whose requests are copied to each other would send copies without end, long after their
//! callers have left.
//!
//! An application shows what its own calls are made for by the headers that it passes on,
//! `weft-shadow` or the trace: while it receives copies, its proxy marks in the trace of each
//! request whether it is one. Where the application passes nothing on, this cannot be known, so
//! calls of a workload that received copies are not copied for [`AFTER_A_COPY`]. A peer receives
//! how much of that time is left, and treats its own calls in the same way.
//!
//! [`Copies`] bounds the memory of all copies of a workload's requests.
//!
//! Invariant: where no copies arrive this costs one read of a number.
//!
//! Claims: calls-53, calls-55

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::head::number;
use crate::header_names::SHADOW;

/// Work that starts later than this after its copy is no longer counted as the copy's. Twenty times
/// what a copy may take until its answer has ended.
const AFTER_A_COPY: Duration = Duration::from_secs(600);

const TRACE: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");
/// Of the mesh, in a trace's state.
const KEY: &[u8] = b"weft";
const COPY: &str = "weft=copy";
const CALL: &str = "weft=call";
/// Members that a trace's state may have.
const MEMBERS: usize = 32;

/// What a request has to do with copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shadow {
    /// It is one, or made for one. Its receiver may do what it likes.
    Any,
    /// It is only for pods that their own proxy lets change nothing.
    ReadOnly,
    /// It may be made for one, and so may be what its receiver sends within so many seconds.
    Perhaps(u32),
}

impl Shadow {
    /// Whether it surely is one, or made for one.
    #[must_use]
    pub const fn is_copy(self) -> bool {
        matches!(self, Self::Any | Self::ReadOnly)
    }

    /// The value for a peer proxy.
    pub fn to_peer(self) -> HeaderValue {
        match self {
            Self::Any => HeaderValue::from_static("true"),
            Self::ReadOnly => HeaderValue::from_static("read-only"),
            Self::Perhaps(seconds) => HeaderValue::from(seconds),
        }
    }

    /// The value of a peer proxy; an unknown one means the tighter.
    pub fn of_peer(value: &HeaderValue) -> Self {
        if value == "true" {
            return Self::Any;
        }
        number(value).map_or(Self::ReadOnly, Self::Perhaps)
    }
}

/// What copies have to do with the calls of one workload.
#[derive(Debug)]
pub struct ShadowTracker {
    began: Instant,
    /// Until when calls may be made for a copy; milliseconds, 0 where none came.
    until: AtomicU64,
}

impl Default for ShadowTracker {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            until: AtomicU64::new(0),
        }
    }
}

impl ShadowTracker {
    /// A request goes to the application: notes what it is, and lets the application know and pass
    /// on. `shadow`: the value of a peer proxy.
    pub fn request_arrives(&self, shadow: Option<Shadow>, map: &mut HeaderMap) {
        match shadow {
            Some(Shadow::Any | Shadow::ReadOnly) => {
                self.note(AFTER_A_COPY);
                map.insert(SHADOW, HeaderValue::from_static("true"));
                mark(map, Some(COPY));
            }
            Some(Shadow::Perhaps(seconds)) => {
                self.note(Duration::from_secs(seconds.into()).min(AFTER_A_COPY));
                mark(map, None);
            }
            None if self.left().is_some() => mark(map, Some(CALL)),
            None => {}
        }
    }

    /// The application makes a call: how that relates to copies. `claimed`: its value in a header
    /// of ours. What stands in the trace for this proxy is taken out.
    pub fn call_begins(&self, claimed: Option<Shadow>, map: &mut HeaderMap) -> Option<Shadow> {
        let left = self.left()?;
        let marked = marked(map);
        if marked.is_some() {
            mark(map, None);
        }
        match (claimed, marked) {
            (Some(_), _) | (None, Some(Mark::Copy)) => Some(Shadow::Any),
            (None, Some(Mark::Call)) => None,
            (None, None) => Some(Shadow::Perhaps(left)),
        }
    }

    fn note(&self, long: Duration) {
        let until = (self.began.elapsed() + long).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.until.fetch_max(until, Relaxed);
    }

    /// For so many seconds from now calls may be made for a copy.
    fn left(&self) -> Option<u32> {
        let until = self.until.load(Relaxed);
        if until == 0 {
            return None;
        }
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let seconds = until.saturating_sub(now) / 1000;
        u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
    }
}

/// What an application passed on of the request that it makes a call for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Copy,
    Call,
}

fn members(map: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = map.get_all(STATE).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members
        .map(<[u8]>::trim_ascii)
        .filter(|one| !one.is_empty())
}

fn is_ours(member: &[u8]) -> bool {
    let key = member.split(|byte| *byte == b'=').next();
    key.is_some_and(|key| key.trim_ascii() == KEY)
}

fn marked(map: &HeaderMap) -> Option<Mark> {
    let own = members(map).find(|member| is_ours(member))?;
    // What is neither was written by another program, and proves nothing.
    if own == COPY.as_bytes() {
        return Some(Mark::Copy);
    }
    (own == CALL.as_bytes()).then_some(Mark::Call)
}

/// Writes `what` into the trace's state in place of what stands there for us. Without a trace no
/// application would pass it on.
fn mark(map: &mut HeaderMap, what: Option<&'static str>) {
    let what = what.filter(|_| map.contains_key(TRACE));
    if what.is_none() && !members(map).any(is_ours) {
        return;
    }
    let others = members(map).filter(|member| !is_ours(member));
    let own = what.iter().map(|what| what.as_bytes());
    let all: Vec<&[u8]> = own.chain(others).take(MEMBERS).collect();
    let written = HeaderValue::from_bytes(&all.join(&b","[..]));
    map.remove(STATE);
    if let Ok(written) = written
        && !written.is_empty()
    {
        map.insert(STATE, written);
    }
}

/// Copies of one workload at a time: a receiver that takes a second for each gets as many
/// in a second.
const AT_ONCE: usize = 64;

/// Bytes of all their heads and bodies, each of which is held twice while it is sent. Most
/// requests have a few KiB; 15 of the largest bodies that are copied fit.
const BYTES: usize = 2 * 1024 * 1024;

/// The memory that copies of one workload's requests may use. Copies are extra work that no client
/// waits for, so they hold a known part of the memory whatever is copied, and however long their
/// receivers hang; beyond, no copy is made.
#[derive(Clone, Debug)]
pub struct Copies {
    permits: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// What a copy holds of it until it is dropped.
#[derive(Debug)]
pub struct CopyPermit {
    _permit: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            bytes: Arc::new(Semaphore::new(BYTES)),
        }
    }
}

impl Copies {
    /// Room for one of so many bytes, if there is any now.
    pub fn admit(&self, bytes: usize) -> Option<CopyPermit> {
        let bytes = u32::try_from(bytes).ok()?;
        let (permits, all) = (Arc::clone(&self.permits), Arc::clone(&self.bytes));
        Some(CopyPermit {
            _permit: permits.try_acquire_owned().ok()?,
            _bytes: all.try_acquire_many_owned(bytes).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    const PARENT: (&str, &str) = ("traceparent", "00-1-2-01");

    /// What a call has to do with copies that passes on these headers of a request.
    fn call_for(shadow_tracker: &ShadowTracker, mut headers: HeaderMap) -> Option<Shadow> {
        let claimed = headers.remove(SHADOW);
        let shadow =
            shadow_tracker.call_begins(claimed.as_ref().map(Shadow::of_peer), &mut headers);
        assert!(!members(&headers).any(is_ours), "{headers:?}");
        shadow
    }

    #[test]
    fn shadow_state_round_trips_between_peers() {
        for shadow in [Shadow::Any, Shadow::ReadOnly, Shadow::Perhaps(599)] {
            assert_eq!(Shadow::of_peer(&shadow.to_peer()), shadow);
        }
        for other in ["of a later version", "", "-1", "+1", "99999999999"] {
            let other = HeaderValue::from_static(other);
            assert_eq!(Shadow::of_peer(&other), Shadow::ReadOnly);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn forwarded_headers_show_which_calls_are_copies() {
        let shadow_tracker = ShadowTracker::default();
        let mut before = map(&[PARENT, ("tracestate", "weft=call")]);
        assert_eq!(
            shadow_tracker.call_begins(Some(Shadow::Any), &mut before),
            None,
            "no copy came"
        );
        let mut copy = map(&[
            PARENT,
            ("tracestate", "a=b, weft=call"),
            ("tracestate", "c=d"),
        ]);
        shadow_tracker.request_arrives(Some(Shadow::ReadOnly), &mut copy);
        assert_eq!(copy["weft-shadow"], "true");
        assert_eq!(copy["tracestate"], "weft=copy,a=b,c=d");
        let mut original = map(&[PARENT, ("tracestate", "weft=copy")]);
        shadow_tracker.request_arrives(None, &mut original);
        assert_eq!(original["tracestate"], "weft=call");
        assert!(!original.contains_key("weft-shadow"));
        let mut untraced = map(&[("x", "1")]);
        shadow_tracker.request_arrives(None, &mut untraced);
        assert_eq!(untraced, map(&[("x", "1")]));
        assert_eq!(call_for(&shadow_tracker, original), None);
        assert_eq!(call_for(&shadow_tracker, copy.clone()), Some(Shadow::Any));
        copy.remove("weft-shadow");
        assert_eq!(call_for(&shadow_tracker, copy), Some(Shadow::Any));
        let shadow = map(&[("weft-shadow", "true")]);
        assert_eq!(call_for(&shadow_tracker, shadow), Some(Shadow::Any));
        for nothing in [map(&[PARENT]), map(&[PARENT, ("tracestate", "weft=x")])] {
            let perhaps = Some(Shadow::Perhaps(600));
            assert_eq!(
                shadow_tracker.call_begins(None, &mut nothing.clone()),
                perhaps
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn copy_suspicion_ends_ten_minutes_after_last_copy() {
        let (receiver, next) = (ShadowTracker::default(), ShadowTracker::default());
        let call = |shadow_tracker: &ShadowTracker| {
            shadow_tracker.call_begins(None, &mut HeaderMap::new())
        };
        assert_eq!(call(&receiver), None);
        receiver.request_arrives(Some(Shadow::Any), &mut HeaderMap::new());
        tokio::time::advance(Duration::from_secs(200)).await;
        assert_eq!(call(&receiver), Some(Shadow::Perhaps(400)));
        next.request_arrives(call(&receiver), &mut HeaderMap::new());
        tokio::time::advance(Duration::from_secs(399)).await;
        assert_eq!(call(&receiver), Some(Shadow::Perhaps(1)));
        assert_eq!(call(&next), Some(Shadow::Perhaps(1)), "it does not grow");
        receiver.request_arrives(call(&next), &mut HeaderMap::new());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((call(&receiver), call(&next)), (None, None));
        next.request_arrives(Some(Shadow::Perhaps(u32::MAX)), &mut HeaderMap::new());
        assert_eq!(call(&next), Some(Shadow::Perhaps(600)), "nor beyond that");
    }

    #[test]
    fn a_trace_of_many_hands_stays_one() {
        let mut full = map(&[PARENT]);
        for at in 0..40 {
            let member = HeaderValue::from_str(&format!("k{at}=v")).unwrap();
            full.append(STATE, member);
        }
        mark(&mut full, Some(COPY));
        let state = full["tracestate"].to_str().unwrap();
        assert_eq!(state.split(',').count(), MEMBERS);
        assert!(state.starts_with("weft=copy,k0=v"), "{state}");
        assert!(!state.contains("k31"), "{state}");
    }

    #[test]
    fn copies_are_bounded_in_number_and_bytes() {
        let copies = Copies::default();
        let mut admitted: Vec<_> = (0..AT_ONCE).map(|_| copies.admit(1).unwrap()).collect();
        assert!(copies.admit(1).is_none(), "no permit is left");
        admitted.pop();
        assert!(copies.admit(BYTES).is_none(), "others hold some");
        assert!(copies.admit(BYTES - admitted.len()).is_some());
        admitted.clear();
        assert!(copies.admit(BYTES + 1).is_none());
        assert!(copies.admit(usize::MAX).is_none());
        assert!(copies.admit(BYTES).is_some(), "all that was held is back");
    }
}
