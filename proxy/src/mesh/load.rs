//! The load of the local application as this proxy reports it to its peers, and the load that peers
//! report of theirs.
//!
//! Each port is measured by itself: how much longer calls wait for their response than in calm
//! times, or what the application reports. The load goes with a response, to a peer that has not
//! received it since it changed.
//!
//! Claims: calls-64

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use policy::balance::{FADES, LoadReporter};
use policy::overload::Limiter;
use policy::traffic::guard::{Overload, OverloadMode};

use crate::http::head::number;
use crate::http::header_names::LOAD;

/// Ports whose load is measured, each 1 KiB: more than an application serves.
const PORTS: usize = 64;

/// Measures and sheds nothing.
const MEASURE: Overload = Overload {
    mode: OverloadMode::Off,
    ..Overload::DEFAULT
};

/// Writes it for a peer.
pub(crate) fn write(map: &mut HeaderMap, percent: u8) {
    map.insert(LOAD, HeaderValue::from(u16::from(percent)));
}

/// The load of a peer; an error where the value is none.
pub(crate) fn read(map: &HeaderMap) -> Option<Result<u8, Unreadable>> {
    let value = map.get(LOAD)?;
    let only = map.get_all(LOAD).iter().nth(1).is_none();
    let read = Some(value).filter(|_| only).and_then(number::<u8>);
    let read = read.filter(|percent| *percent <= 100);
    Some(read.ok_or(Unreadable))
}

/// The value is no load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// More ports than are tracked apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyPorts;

/// How busy the own application is, port by port.
#[derive(Debug, Default)]
pub(crate) struct Loads(Mutex<Vec<PortLoad>>);

/// An answer of the application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) port: u16,
    pub(crate) now: Instant,
    /// From the request to the head of its answer.
    pub(crate) took: Duration,
    /// The load that it reports, in percent.
    pub(crate) reported: Option<u8>,
}

/// What one peer has heard, of the port that it called last. One for each connection.
#[derive(Debug, Default)]
pub(crate) struct LastReportedLoad(AtomicU64);

#[derive(Debug)]
struct PortLoad {
    port: u16,
    measured: Limiter,
    reported: Option<(Instant, u8)>,
    teller: LoadReporter,
    /// Counts changes; 0: nothing has been reported.
    news: u32,
}

impl Loads {
    /// The load that the calling peer gets with this answer.
    ///
    /// # Errors
    /// When the application serves too many ports.
    pub(crate) fn answered(
        &self,
        answered: &Answered,
        last_reported: &LastReportedLoad,
    ) -> Result<Option<u8>, TooManyPorts> {
        let mut ports = self.0.lock();
        let load = PortLoad::at(&mut ports, answered.port, answered.now)?;
        load.measured.done(answered.now, answered.took, &MEASURE);
        load.record(answered.now, answered.reported);
        let percent = load.percent(answered.now);
        if load.teller.report(answered.now, percent).is_some() {
            load.news = load.news.wrapping_add(1).max(1);
        }
        let newest = (u64::from(answered.port) << 32) | u64::from(load.news);
        drop(ports);
        let last = last_reported.0.swap(newest, Relaxed);
        // A peer that has received nothing assumes calm.
        let calm = percent < 10 && last == 0;
        Ok((last != newest && newest as u32 != 0 && !calm).then_some(percent))
    }

    /// The application reported its load after the head of an answer.
    ///
    /// # Errors
    /// As [`Self::answered`].
    pub(crate) fn report(&self, port: u16, now: Instant, percent: u8) -> Result<(), TooManyPorts> {
        PortLoad::at(&mut self.0.lock(), port, now)?.record(now, Some(percent));
        Ok(())
    }
}

impl PortLoad {
    fn at(all: &mut Vec<Self>, port: u16, now: Instant) -> Result<&mut Self, TooManyPorts> {
        if let Some(known) = all.iter().position(|load| load.port == port) {
            return Ok(&mut all[known]);
        }
        if all.len() >= PORTS {
            return Err(TooManyPorts);
        }
        all.push(Self {
            port,
            measured: Limiter::new(now),
            reported: None,
            teller: LoadReporter::default(),
            news: 0,
        });
        let last = all.len() - 1;
        Ok(&mut all[last])
    }

    fn record(&mut self, now: Instant, reported: Option<u8>) {
        if let Some(percent) = reported {
            self.reported = Some((now, percent));
        }
    }

    /// A recent report of the application counts before what was measured.
    fn percent(&self, now: Instant) -> u8 {
        match self.reported {
            Some((at, percent)) if now.saturating_duration_since(at) < FADES => percent,
            _ => self.measured.load(&MEASURE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Answers of one application after each other, each after `gap` and `took`.
    struct Application {
        loads: Loads,
        now: Instant,
    }

    impl Application {
        fn new() -> Self {
            Self {
                loads: Loads::default(),
                now: Instant::now(),
            }
        }

        fn answer(
            &mut self,
            to: &LastReportedLoad,
            took: Duration,
            reported: Option<u8>,
        ) -> Option<u8> {
            self.now += 10 * MS;
            let answered = Answered {
                port: 8080,
                now: self.now,
                took,
                reported,
            };
            self.loads.answered(&answered, to).unwrap()
        }
    }

    #[test]
    fn load_change_is_reported_once_to_each_peer() {
        let mut application = Application::new();
        let peers = [LastReportedLoad::default(), LastReportedLoad::default()];
        for _ in 0..200 {
            assert_eq!(application.answer(&peers[0], 5 * MS, None), None, "calm");
        }
        let mut sent = Vec::new();
        for _ in 0..200 {
            sent.extend(application.answer(&peers[0], 305 * MS, None));
        }
        // 300 of 400 ms it waits.
        assert!((70..=75).contains(sent.last().unwrap()), "{sent:?}");
        assert!(sent.len() < 12, "{sent:?}");
        let late = application.answer(&peers[1], 305 * MS, None);
        assert!(late.is_some_and(|load| load >= 70), "{late:?}");
        assert_eq!(application.answer(&peers[1], 305 * MS, None), None);
    }

    #[test]
    fn application_reported_load_counts_for_ten_seconds() {
        let mut application = Application::new();
        let peer = LastReportedLoad::default();
        assert_eq!(application.answer(&peer, MS, Some(88)), Some(88));
        assert_eq!(application.answer(&peer, MS, None), None);
        // It would fade where it is not reported again.
        application.now += FADES / 2;
        assert_eq!(application.answer(&peer, MS, None), Some(88));
        application.now += FADES / 2;
        assert_eq!(application.answer(&peer, MS, None), Some(0), "it is calm");
        let now = application.now;
        application.loads.report(8080, now, 35).unwrap();
        assert_eq!(application.answer(&peer, MS, None), Some(35));
    }

    #[test]
    fn loads_are_separate_per_port_and_bounded() {
        let (loads, last_reported, now) = (
            Loads::default(),
            LastReportedLoad::default(),
            Instant::now(),
        );
        let at = |port: u16, reported| Answered {
            port,
            now,
            took: MS,
            reported,
        };
        assert_eq!(
            loads.answered(&at(1, Some(50)), &last_reported),
            Ok(Some(50))
        );
        assert_eq!(loads.answered(&at(2, None), &last_reported), Ok(None));
        assert_eq!(loads.answered(&at(1, None), &last_reported), Ok(Some(50)));
        for port in 3..=64 {
            assert_eq!(loads.answered(&at(port, None), &last_reported), Ok(None));
        }
        assert_eq!(
            loads.answered(&at(65, None), &last_reported),
            Err(TooManyPorts)
        );
        assert_eq!(loads.report(65, now, 1), Err(TooManyPorts));
        assert!(loads.answered(&at(64, Some(20)), &last_reported).is_ok());
    }

    #[test]
    fn load_header_round_trips_and_rejects_anything_else() {
        let mut map = HeaderMap::new();
        assert_eq!(read(&map), None);
        for percent in [0, 9, 100] {
            write(&mut map, percent);
            assert_eq!(read(&map), Some(Ok(percent)));
        }
        for reported in [
            "101",
            "256",
            "-1",
            "+50",
            "",
            "50%",
            "1e2",
            "NaN",
            "99999999999999999999",
        ] {
            map.insert(LOAD, HeaderValue::from_str(reported).unwrap());
            assert_eq!(read(&map), Some(Err(Unreadable)), "{reported}");
        }
        write(&mut map, 50);
        map.append(LOAD, HeaderValue::from(50));
        assert_eq!(read(&map), Some(Err(Unreadable)), "twice");
    }
}
