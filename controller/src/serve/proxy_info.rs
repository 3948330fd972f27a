//! The facts that a proxy reports of itself on its stream, such as version and clock, truncated to
//! a bounded size. When its clock is wrong, its reports are dated by ours.
//!
//! Claims: observe-103

use std::time::SystemTime;

use tokio::time::Instant;
use wire::capability::Capabilities;
use wire::v1;

use crate::observe::clock_offset::ClockOffset;

/// Characters of a proxy's version that are kept.
const VERSION_LIMIT: usize = 64;
/// Characters of the serial number: 20 bytes in hex.
const SERIAL_LIMIT: usize = 64;
/// Characters of an authority's name.
const ISSUER_LIMIT: usize = 256;
/// Bytes by which authorities are distinguished, and roots of one proxy.
const AUTHORITY: usize = 16;
const ROOTS_LIMIT: usize = 16;

/// See the module header.
#[derive(Debug)]
pub(super) struct ProxyInfo {
    version: String,
    lacks: Vec<String>,
    /// Apart, since it is the most of what a silent proxy's stream holds.
    status: Option<Box<v1::ProxyStatus>>,
    clock: ClockOffset,
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
            clock: ClockOffset::of_stream(slots_ahead, opened),
        }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// What it reports of itself, at this time of ours, which is this moment.
    pub(super) fn status(&mut self, status: v1::ProxyStatus, now: SystemTime, at: Instant) {
        self.clock.compare(status.now, now, at);
        // What has another length counts as what an older proxy does not send.
        let is_authority = |bytes: &Vec<u8>| bytes.len() == AUTHORITY;
        let certificate = status.certificate.map(|certificate| v1::Certificate {
            serial: cut(&certificate.serial, SERIAL_LIMIT),
            issuer: cut(&certificate.issuer, ISSUER_LIMIT),
            authority: Some(certificate.authority)
                .filter(is_authority)
                .unwrap_or_default(),
            ..certificate
        });
        let trusts = status.trusts.into_iter().filter(is_authority);
        self.status = Some(Box::new(v1::ProxyStatus {
            certificate,
            trusts: trusts.take(ROOTS_LIMIT).collect(),
            ..status
        }));
    }

    /// It reports of an interval that starts there, at this time of ours, which is this moment. True
    /// where its reports are dated otherwise from now on: it is of a version that does not say
    /// what its clock shows.
    pub(super) fn reports_of(&mut self, interval: u64, now: SystemTime, at: Instant) -> bool {
        let before = self.clock.intervals();
        self.clock.follow_ours(interval, now, at);
        if self.status.is_none() {
            self.clock.note_interval(interval, now, at);
        }
        self.clock.intervals() != before
    }

    /// Its report, dated by our clock.
    pub(super) fn dated(&self, report: v1::Report) -> v1::Report {
        self.clock.dated(report)
    }

    /// Adds it to what is reported of the proxy.
    pub(super) fn add_to(&self, state: &mut v1::ProxyState) {
        state.version.clone_from(&self.version);
        state.lacks.clone_from(&self.lacks);
        state.status = self.status.as_deref().cloned();
        state.clock_ahead = self.clock.ahead();
        state.slots_ahead = self.clock.intervals();
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn status(now: u64) -> v1::ProxyStatus {
        v1::ProxyStatus {
            now,
            ..v1::ProxyStatus::default()
        }
    }

    #[test]
    fn proxy_info_is_truncated_and_its_clock_compared() {
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
            not_before: u64::MAX,
            authority: vec![7; 1 << 20],
        };
        let mut trusts = vec![vec![7; AUTHORITY]; 1 << 10];
        trusts.insert(1, vec![7; 1 << 20]);
        let message = v1::ProxyStatus {
            certificate: Some(certificate),
            trusts,
            ..status(4_000)
        };
        let now = UNIX_EPOCH + Duration::from_millis(10_500);
        proxy_info.status(message, now, opened);
        let mut state = v1::ProxyState::default();
        proxy_info.add_to(&mut state);
        assert_eq!((state.clock_ahead, state.slots_ahead), (-6_500, -1));
        let lacks = |name: &str| state.lacks.iter().any(|one| one == name);
        assert!(lacks("extended-rule") && !lacks("telemetry"), "{state:?}");
        assert!(prost::Message::encoded_len(&state) < 2048);
        let kept = state.status.clone().unwrap();
        assert_eq!(kept.trusts, vec![vec![7; AUTHORITY]; ROOTS_LIMIT]);
        assert!(kept.certificate.unwrap().authority.is_empty());
        proxy_info.status(status(u64::MAX), now, opened);
        proxy_info.add_to(&mut state);
        assert_eq!(state.clock_ahead, i64::MAX);
    }
}
