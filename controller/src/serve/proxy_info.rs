//! What a proxy said of itself on its stream, cut to a size that can be kept and passed on,
//! and what follows from it: when its clock is wrong, its reports are dated by ours.
//!
//! A shift is whole slots and stays until the clock is more than a slot away from it, or
//! right. If it followed every measurement, reports that are told again on a new stream
//! would lie in other slots than before and count beside themselves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use wire::capability::Capabilities;
use wire::v1;

use crate::observe::reports::SLOT;

/// Characters of a proxy's version that are kept.
const VERSION_LIMIT: usize = 64;
/// Characters of the serial number: 20 bytes in hex.
const SERIAL_LIMIT: usize = 64;
/// Characters of an authority's name.
const ISSUER_LIMIT: usize = 256;
/// Length of a slot in seconds.
const SLOT_SECONDS: i64 = SLOT.cast_signed();
/// The same in milliseconds. A clock may be wrong by as much and nothing is shifted.
const SLOT_MILLIS: i64 = SLOT_SECONDS * 1000;

/// See the module header.
#[derive(Debug)]
pub(super) struct ProxyInfo {
    version: String,
    lacks: Vec<String>,
    status: Option<v1::ProxyStatus>,
    /// Milliseconds by which its clock was ahead of ours.
    clock_ahead: i64,
    /// Slots by which its reports are.
    slots_ahead: i64,
    /// When its stream opened, until its first word of itself is read.
    opened: Option<Instant>,
}

impl ProxyInfo {
    /// What it said in Hello, on a stream that opened then. `slots_ahead` is what held for
    /// this pod before.
    pub(super) fn hello(hello: &v1::Hello, slots_ahead: i64, opened: Instant) -> Self {
        let capabilities = Capabilities::named(&hello.capabilities);
        Self {
            version: cut(&hello.proxy_version, VERSION_LIMIT),
            lacks: capabilities.missing().map(str::to_owned).collect(),
            status: None,
            clock_ahead: 0,
            slots_ahead,
            opened: Some(opened),
        }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// What it says of itself, at this time of ours, which is this moment.
    pub(super) fn status(&mut self, status: v1::ProxyStatus, now: SystemTime, at: Instant) {
        self.compare(status.now, now, at);
        let certificate = status.certificate.map(|certificate| v1::Certificate {
            serial: cut(&certificate.serial, SERIAL_LIMIT),
            issuer: cut(&certificate.issuer, ISSUER_LIMIT),
            ..certificate
        });
        self.status = Some(v1::ProxyStatus {
            certificate,
            ..status
        });
    }

    /// Compares its clock with ours. What it said first may have waited here for as long as
    /// its stream is open, which makes a clock look late and never early: within that it is
    /// taken to be as it was.
    fn compare(&mut self, theirs: u64, now: SystemTime, at: Instant) {
        let ours = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ours = u64::try_from(ours.as_millis()).unwrap_or(u64::MAX);
        let ahead = i128::from(theirs) - i128::from(ours);
        let ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
        let waited = self.opened.take();
        let waited = waited.map_or(Duration::ZERO, |opened| {
            at.saturating_duration_since(opened)
        });
        let waited = i64::try_from(waited.as_millis()).unwrap_or(i64::MAX);
        let shifted = self.slots_ahead.saturating_mul(SLOT_MILLIS);
        self.clock_ahead = shifted.clamp(ahead, ahead.saturating_add(waited));
        let half = SLOT_MILLIS / 2;
        let is_right = self.clock_ahead.unsigned_abs() < half.unsigned_abs();
        if is_right || self.clock_ahead.abs_diff(shifted) > SLOT_MILLIS.unsigned_abs() {
            let nearest = self.clock_ahead.saturating_add(half);
            self.slots_ahead = nearest.div_euclid(SLOT_MILLIS);
        }
    }

    /// Its report, dated by our clock.
    pub(super) fn dated(&self, report: v1::Report) -> v1::Report {
        let ahead = self.slots_ahead.saturating_mul(SLOT_SECONDS);
        v1::Report {
            slot: report.slot.saturating_add_signed(ahead.saturating_neg()),
            ..report
        }
    }

    /// Adds it to what is told of the proxy.
    pub(super) fn add_to(&self, state: &mut v1::ProxyState) {
        state.version.clone_from(&self.version);
        state.lacks.clone_from(&self.lacks);
        state.status.clone_from(&self.status);
        state.clock_ahead = self.clock_ahead;
        state.slots_ahead = self.slots_ahead;
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy whose reports were shifted by so many slots, on a stream that opened now.
    fn proxy_info(slots_ahead: i64) -> (ProxyInfo, Instant) {
        let opened = Instant::now();
        let proxy_info = ProxyInfo::hello(&v1::Hello::default(), slots_ahead, opened);
        (proxy_info, opened)
    }

    fn status(now: u64) -> v1::ProxyStatus {
        v1::ProxyStatus {
            now,
            ..v1::ProxyStatus::default()
        }
    }

    /// Our clock.
    const OURS: u64 = 1_000_000_000;

    fn ours() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(OURS)
    }

    #[test]
    fn what_a_proxy_says_is_cut_and_its_clock_compared() {
        let long = "x".repeat(1 << 20);
        let hello = v1::Hello {
            proxy_version: long.clone(),
            capabilities: vec!["telemetry".to_owned(), long.clone()],
            ..v1::Hello::default()
        };
        let opened = Instant::now();
        let mut proxy_info = ProxyInfo::hello(&hello, 0, opened);
        let certificate = v1::Certificate {
            serial: long.clone(),
            issuer: long,
            not_after: u64::MAX,
        };
        let told = v1::ProxyStatus {
            certificate: Some(certificate),
            ..status(4_000)
        };
        let now = UNIX_EPOCH + Duration::from_millis(10_500);
        proxy_info.status(told, now, opened);
        let mut state = v1::ProxyState::default();
        proxy_info.add_to(&mut state);
        assert_eq!((state.clock_ahead, state.slots_ahead), (-6_500, -1));
        let lacks = |name: &str| state.lacks.iter().any(|one| one == name);
        assert!(lacks("extended-rule") && !lacks("telemetry"), "{state:?}");
        assert!(prost::Message::encoded_len(&state) < 1024);
        proxy_info.status(status(u64::MAX), now, opened);
        proxy_info.add_to(&mut state);
        assert_eq!(state.clock_ahead, i64::MAX);
    }

    #[test]
    fn reports_are_dated_by_our_clock_where_the_proxys_is_wrong_by_more_than_a_slot() {
        for (ahead, slots) in [
            (0, 0),
            (5_000, 0),
            (-5_000, 0),
            (5_001, 1),
            (-5_001, -1),
            (62_400, 12),
            (-62_600, -13),
        ] {
            let (mut proxy_info, opened) = proxy_info(0);
            proxy_info.status(status(OURS.saturating_add_signed(ahead)), ours(), opened);
            let report = v1::Report {
                process: 7,
                slot: 10_000,
                ..v1::Report::default()
            };
            let dated = proxy_info.dated(report.clone());
            let expected = v1::Report {
                slot: 10_000_u64.saturating_add_signed(-slots * SLOT_SECONDS),
                ..report
            };
            assert_eq!(dated, expected, "{ahead} ms ahead");
        }
    }

    #[test]
    fn a_shift_stays_until_the_clock_is_more_than_a_slot_away_from_it_or_right() {
        // Also on the next stream: what is told again there must lie where it lay.
        let mut held = 0;
        for (ahead, slots) in [
            (12_400, 2),
            (12_600, 2),
            (15_000, 2),
            (15_100, 3),
            (10_000, 3),
            (9_900, 2),
            (0, 0),
            (5_100, 1),
            (2_600, 1),
            (2_400, 0),
        ] {
            let (mut proxy_info, opened) = proxy_info(held);
            proxy_info.status(status(OURS.saturating_add_signed(ahead)), ours(), opened);
            assert_eq!(proxy_info.slots_ahead, slots, "{ahead} ms ahead");
            held = proxy_info.slots_ahead;
        }
    }

    #[test]
    fn a_first_word_that_waited_to_be_read_makes_no_clock_late() {
        let late = |waited, then| {
            let (mut proxy_info, opened) = proxy_info(0);
            let read = opened + Duration::from_secs(waited);
            proxy_info.status(status(OURS - 8_000), ours(), read);
            let first = (proxy_info.clock_ahead, proxy_info.slots_ahead);
            proxy_info.status(status(OURS - then), ours(), read);
            (first, proxy_info.slots_ahead)
        };
        assert_eq!(late(9, 100), ((0, 0), 0));
        assert_eq!(
            late(2, 100),
            ((-6_000, -1), 0),
            "it cannot have waited so long"
        );
        // What comes later has waited for nothing.
        assert_eq!(late(9, 8_000), ((0, 0), -2));
    }
}
