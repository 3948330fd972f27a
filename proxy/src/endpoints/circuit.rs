//! When this proxy sends nobody to a Service port any more.
//!
//! `policy::breaker` decides; here its state is kept, for the port that serves, from one
//! configuration to the next. The section is that of the Service that serves, else of the
//! one that was called, so several may decide about one port, each about the calls that came
//! its way. Each of them counts those and no others: two policies may disagree.

use std::sync::Arc;

use parking_lot::Mutex;
use policy::breaker::own::{Admit, Breaker, State};
use policy::traffic::endpoint::Breaker as Settings;

use crate::endpoints::learned::now;

/// Service ports whose policies decide about one port that serves: its own, and those of
/// Services whose splits lead to it. Of more, the one that came first begins anew.
const DECIDING: usize = 16;

/// The Service port whose policy decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedBy {
    /// `namespace/name`.
    pub service: Arc<str>,
    pub port: u16,
}

/// The breakers of calls to one Service port.
#[derive(Debug, Default)]
pub struct Circuits {
    held: Mutex<Vec<Circuit>>,
}

#[derive(Debug)]
struct Circuit {
    by: DecidedBy,
    breaker: Breaker,
    /// What the metric says.
    shown: State,
}

impl Circuits {
    /// Whether a call is sent, and what the breaker is now, if that is to be shown.
    pub fn admit(&self, by: &DecidedBy, settings: &Settings) -> (Admit, Option<State>) {
        let now = now();
        self.with(by, |circuit| {
            let admit = circuit.breaker.admit(now, settings, rand::random());
            let news = circuit.news(settings);
            // A series that is not touched for long is forgotten.
            let open = (admit == Admit::Refuse).then_some(circuit.shown);
            (admit, news.or(open))
        })
    }

    /// An attempt has ended. What the breaker is now, if that is another state.
    pub fn record(
        &self,
        by: &DecidedBy,
        settings: &Settings,
        failed: bool,
        probe: bool,
    ) -> Option<State> {
        let now = now();
        self.with(by, |circuit| {
            circuit.breaker.record(now, failed, probe, settings);
            circuit.news(settings)
        })
    }

    fn with<T>(&self, by: &DecidedBy, ask: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut held = self.held.lock();
        if let Some(at) = held.iter().position(|circuit| circuit.by == *by) {
            return ask(&mut held[at]);
        }
        if held.len() >= DECIDING {
            held.remove(0);
        }
        let mut new = Circuit {
            by: by.clone(),
            breaker: Breaker::new(now()),
            shown: State::Closed,
        };
        let answer = ask(&mut new);
        held.push(new);
        answer
    }
}

impl Circuit {
    fn news(&mut self, settings: &Settings) -> Option<State> {
        let state = self.breaker.state(settings);
        let before = std::mem::replace(&mut self.shown, state);
        (before != state).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const SETTINGS: Settings = Settings::DEFAULT;

    fn by(service: &str) -> DecidedBy {
        DecidedBy {
            service: service.into(),
            port: 80,
        }
    }

    fn fails(circuits: &Circuits, by: &DecidedBy, times: u32) -> Option<State> {
        let ends = (0..times).map(|_| circuits.record(by, &SETTINGS, true, false));
        ends.fold(None, Option::or)
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_by_its_own_numbers_probes_and_comes_back_little_by_little() {
        let (circuits, by) = (Circuits::default(), by("shop/api"));
        assert_eq!(circuits.admit(&by, &SETTINGS), (Admit::Pass, None));
        assert_eq!(fails(&circuits, &by, 49), None);
        assert_eq!(fails(&circuits, &by, 1), Some(State::Open));
        let refused = (Admit::Refuse, Some(State::Open));
        assert_eq!(circuits.admit(&by, &SETTINGS), refused);
        advance(Duration::from_millis(4999)).await;
        assert_eq!(circuits.admit(&by, &SETTINGS), refused);
        advance(Duration::from_millis(1)).await;
        for probe in 0..5 {
            assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Probe, "{probe}");
            assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Refuse, "{probe}");
            let shown = circuits.record(&by, &SETTINGS, false, true);
            assert_eq!(shown.is_some(), probe == 4);
            advance(Duration::from_secs(1)).await;
        }
        let mut passed = [0; 2];
        for of in &mut passed {
            for _ in 0..1000 {
                let (admit, _) = circuits.admit(&by, &SETTINGS);
                *of += u32::from(admit == Admit::Pass);
            }
            advance(Duration::from_secs(9)).await;
        }
        let [first, last] = passed;
        // A tenth and a second's worth of the ramp; then all of it.
        assert!((120..270).contains(&first), "{first}");
        assert_eq!(last, 1000);
        assert_eq!(circuits.record(&by, &SETTINGS, false, false), None);
    }

    #[test]
    fn each_policy_counts_the_calls_that_it_decides_about_and_there_are_not_many() {
        let circuits = Circuits::default();
        let (own, root) = (by("shop/v2"), by("shop/api"));
        fails(&circuits, &root, 50);
        assert_eq!(circuits.admit(&root, &SETTINGS).0, Admit::Refuse);
        assert_eq!(circuits.admit(&own, &SETTINGS).0, Admit::Pass);
        let port = DecidedBy {
            port: 81,
            ..root.clone()
        };
        assert_eq!(circuits.admit(&port, &SETTINGS).0, Admit::Pass);
        for other in 0..100 {
            circuits.admit(&by(&other.to_string()), &SETTINGS);
        }
        assert_eq!(circuits.held.lock().len(), DECIDING);
    }
}
