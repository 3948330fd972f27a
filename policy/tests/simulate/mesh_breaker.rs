//! Point 7, as far as it is decided without a network: twelve callers of four accounts.
//!
//! Claims: calls-67, calls-68

use std::time::{Duration, Instant};

use policy::breaker::FleetBreakerState;
use policy::breaker::fleet::Fleet;
use policy::breaker::own::{Admit, Breaker, ShownState};
use policy::traffic::endpoint::Breaker as Settings;

use crate::engine::{Dice, Events, ms, secs, with_every_seed};

const SETTINGS: Settings = Settings::DEFAULT;
const CALLERS: usize = 12;
/// From the first to the last caller.
const RATES: [f64; 2] = [4.0, 48.0];

enum Event {
    Arrival(usize),
    Ended(usize, bool),
    /// Each second a proxy reports what it did,
    Report(usize),
    /// and the controller's command comes to it a little later.
    FleetState(usize, FleetBreakerState),
    Tick,
}

struct Scene {
    events: Events<Event>,
    dice: Dice,
    breakers: Vec<Breaker>,
    fleet: Fleet<usize, usize>,
    /// Since the beginning: when the Service fails.
    sick: std::ops::Range<Duration>,
    /// Accounts that see it.
    seen_by: fn(usize) -> bool,
    controller_until: Duration,
    opened: Vec<Option<Duration>>,
    serves: Vec<Option<Duration>>,
    probes: Vec<u32>,
    last_fleet_state: FleetBreakerState,
    /// What the Service answers well are streams, which never end.
    streams: bool,
}

const fn account(caller: usize) -> usize {
    caller % 4
}

impl Scene {
    fn new(seed: u64, sick: std::ops::Range<Duration>, seen_by: fn(usize) -> bool) -> Self {
        let (mut events, mut dice) = (Events::new(), Dice::new(seed));
        let start = events.now();
        for caller in 0..CALLERS {
            events.after(dice.gap(1.0), Event::Arrival(caller));
            events.after(secs(1).mul_f64(dice.unit()), Event::Report(caller));
        }
        events.after(secs(1).mul_f64(dice.unit()), Event::Tick);
        Self {
            breakers: (0..CALLERS).map(|_| Breaker::new(start)).collect(),
            fleet: Fleet::new(start),
            events,
            dice,
            sick,
            seen_by,
            controller_until: Duration::MAX,
            opened: vec![None; CALLERS],
            serves: vec![None; CALLERS],
            probes: vec![0; 200],
            last_fleet_state: FleetBreakerState::Closed,
            streams: false,
        }
    }

    fn run(&mut self, until: Duration) {
        while self.events.since() < until {
            let event = self.events.next().unwrap();
            let now = self.events.now();
            match event {
                Event::Arrival(caller) => self.arrival(now, caller),
                Event::Ended(caller, probe) => {
                    let sick = self.sick.contains(&self.events.since());
                    let failed = sick && (self.seen_by)(account(caller));
                    let breaker = &mut self.breakers[caller];
                    if self.streams && !failed {
                        let _goes_on = breaker.begin_stream(now, probe, &SETTINGS);
                    } else if probe {
                        breaker.record_probe(now, failed, &SETTINGS);
                    } else {
                        breaker.record(now, failed, &SETTINGS);
                    }
                }
                Event::Report(caller) => self.report(now, caller),
                Event::FleetState(caller, fleet_state) => {
                    self.breakers[caller].set_fleet_state(now, fleet_state)
                }
                Event::Tick => {
                    self.events.after(secs(1), Event::Tick);
                    self.decide(now);
                }
            }
        }
    }

    fn arrival(&mut self, now: Instant, caller: usize) {
        let part = caller as f64 / (CALLERS - 1) as f64;
        let rate = RATES[0] + (RATES[1] - RATES[0]) * part;
        self.events
            .after(self.dice.gap(rate), Event::Arrival(caller));
        let since = self.events.since();
        match self.breakers[caller].admit(now, &SETTINGS, self.dice.roll()) {
            Admit::Refuse => {}
            Admit::Pass => self.events.after(ms(10), Event::Ended(caller, false)),
            Admit::Probe => {
                self.probes[since.as_secs() as usize] += 1;
                self.events.after(ms(10), Event::Ended(caller, true));
            }
        }
        let state = self.breakers[caller].state(&SETTINGS);
        if state == ShownState::Open {
            self.opened[caller].get_or_insert(since);
            self.serves[caller] = None;
        } else if self.opened[caller].is_some() {
            self.serves[caller].get_or_insert(since);
        }
    }

    fn report(&mut self, now: Instant, caller: usize) {
        self.events.after(secs(1), Event::Report(caller));
        if self.events.since() >= self.controller_until {
            return self.breakers[caller].controller_lost(now);
        }
        self.breakers[caller].settle(now, &SETTINGS);
        if let Some(counts) = self.breakers[caller].take_counts() {
            self.fleet
                .add_counts(now, &account(caller), &caller, counts, &SETTINGS);
            self.decide(now);
        }
    }

    fn decide(&mut self, now: Instant) {
        if self.events.since() >= self.controller_until {
            return;
        }
        self.fleet.tick(now, &SETTINGS);
        let fleet_state = self.fleet.fleet_state(now);
        let news = match (fleet_state, self.last_fleet_state) {
            (FleetBreakerState::Closing { .. }, FleetBreakerState::Closing { .. }) => false,
            (fleet_state, before) => fleet_state != before,
        };
        if news {
            self.last_fleet_state = fleet_state;
            for caller in 0..CALLERS {
                let wait = ms(50).mul_f64(1.0 + self.dice.unit());
                self.events
                    .after(wait, Event::FleetState(caller, fleet_state));
            }
        }
    }
}

#[derive(Debug)]
struct Result {
    opened: Vec<Option<Duration>>,
    serves: Vec<Option<Duration>>,
    most_probes: u32,
}

fn result(scene: &Scene) -> Result {
    Result {
        opened: scene.opened.clone(),
        serves: scene.serves.clone(),
        most_probes: scene.probes.iter().copied().max().unwrap_or(0),
    }
}

/// All of them, before this.
fn all_by(times: &[Option<Duration>], latest: Duration) -> bool {
    times
        .iter()
        .all(|time| time.is_some_and(|time| time <= latest))
}

#[test]
fn all_callers_open_within_seven_seconds_close_within_fifteen() {
    let run = |seed| {
        let mut scene = Scene::new(seed, secs(30)..secs(60), |_| true);
        scene.run(secs(90));
        result(&scene)
    };
    with_every_seed(run, |result| {
        all_by(&result.opened, secs(37))
            && all_by(&result.serves, secs(75))
            && result.most_probes <= 12
    });
}

/// As a mesh of watches, whose answers begin and do not end.
#[test]
fn mesh_breaker_opens_and_closes_with_endless_streams() {
    let run = |seed| {
        let mut scene = Scene::new(seed, secs(30)..secs(60), |_| true);
        scene.streams = true;
        scene.run(secs(90));
        result(&scene)
    };
    with_every_seed(run, |result| {
        all_by(&result.opened, secs(39))
            && all_by(&result.serves, secs(78))
            && result.most_probes <= 12
    });
}

#[test]
fn what_one_account_alone_sees_opens_for_no_other() {
    let run = |seed| {
        let mut scene = Scene::new(seed, secs(30)..secs(60), |account| account == 3);
        scene.run(secs(60));
        result(&scene)
    };
    with_every_seed(run, |result| {
        let open = |caller: usize| result.opened[caller].is_some();
        (0..CALLERS).all(|caller| account(caller) == 3 || !open(caller)) && open(CALLERS - 1)
    });
}

#[test]
fn controllers_lost_while_open_delay_callers_briefly() {
    let run = |seed| {
        let mut scene = Scene::new(seed, secs(30)..secs(42), |_| true);
        scene.controller_until = secs(42);
        scene.run(secs(70));
        result(&scene)
    };
    with_every_seed(run, |result| {
        all_by(&result.opened, secs(37)) && all_by(&result.serves, secs(62))
    });
}
