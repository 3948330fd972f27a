//! One port, from one configuration to the next; what holds over time is in
//! `policy/tests/simulate`.
//!
//! Claims: calls-13, calls-69

use std::time::Duration;

use policy::route::{Match, Rule, Table};

use super::*;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn rule<T>(then: T) -> Rule<Option<T>> {
    Rule {
        origin: Origin::new("TrafficPolicy", "shop", "p"),
        when: Match::Always,
        then: Some(then),
    }
}

fn guard_port(settings: Overload) -> GuardPort {
    GuardPort {
        overload: Table {
            rules: vec![rule(settings)],
            otherwise: None,
        },
        ..GuardPort::default()
    }
}

fn port(settings: Overload, now: Instant) -> PortOverload {
    PortOverload::after(None, &guard_port(settings), now).unwrap()
}

const NORMAL: PendingRequest = PendingRequest {
    priority: Priority::Normal,
    retry: false,
    audited: false,
};

fn of(priority: Priority) -> PendingRequest {
    PendingRequest { priority, ..NORMAL }
}

/// An application with these workers, each request taking 10 ms of one; so many arrive a second,
/// of the classes by turns. How many of each were shed, and reported limits.
struct Load {
    port: PortOverload,
    now: Instant,
    /// When each worker is free.
    free: Vec<Instant>,
    waiting: Vec<(Instant, Box<AdmittedRequest>)>,
    limits: Vec<i64>,
}

impl Load {
    fn new(settings: Overload, workers: usize) -> Self {
        let now = Instant::now();
        Self {
            port: port(settings, now),
            now,
            free: vec![now; workers],
            waiting: Vec::new(),
            limits: Vec::new(),
        }
    }

    fn end(&mut self) {
        self.waiting.sort_by_key(|(at, _)| *at);
        while self.waiting.first().is_some_and(|(at, _)| *at <= self.now) {
            let (at, let_in) = self.waiting.remove(0);
            let_in.answered(at, |limit| self.limits.push(limit));
        }
    }

    /// Arrived and shed, by class in the order of [`Priority::ALL`].
    fn run(&mut self, seconds: u32, per_second: u32) -> [(u32, u32); 3] {
        let mut seen = [(0, 0); 3];
        for n in 0..seconds * per_second {
            self.now += Duration::from_secs(1) / per_second;
            self.end();
            let class = Priority::ALL[n as usize % 3];
            let limits = &mut self.limits;
            let decided = self
                .port
                .arrive(self.now, of(class), |limit| limits.push(limit));
            let (offered, shed) = &mut seen[class as usize];
            *offered += 1;
            *shed += u32::from(decided.admit != Admit::Pass);
            if let Some(let_in) = decided.let_in {
                let worker = self.free.iter_mut().min().unwrap();
                *worker = (*worker).max(self.now) + ms(10);
                let done = *worker;
                self.waiting.push((done, let_in));
            }
        }
        seen
    }
}

#[test]
fn overload_sheds_nothing_below_capacity_and_lowest_class_first() {
    // Four workers of 10 ms answer 400 a second.
    let mut load = Load::new(Overload::DEFAULT, 4);
    let calm = load.run(20, 340);
    assert_eq!(calm.map(|(_, shed)| shed), [0, 0, 0]);
    assert!(load.limits.is_empty(), "{:?}", load.limits);
    load.run(5, 1200);
    let seen = load.run(20, 1200);
    let [sheddable, normal, critical] =
        seen.map(|(offered, shed)| f64::from(shed) / f64::from(offered));
    assert!(
        sheddable > 0.95 && normal > 0.6 && critical < 0.05,
        "{seen:?}"
    );
    assert!(load.limits.iter().any(|limit| *limit > 0));
    // And when it is over it is over.
    load.run(5, 200);
    let after = load.run(10, 340);
    assert_eq!(after.map(|(_, shed)| shed), [0, 0, 0]);
    assert_eq!(load.limits.last(), Some(&0));
}

#[test]
fn audit_counts_shed_requests_but_passes_all() {
    let audit = Overload {
        mode: OverloadMode::Audit,
        max_concurrency: Some(1),
        ..Overload::DEFAULT
    };
    let now = Instant::now();
    let port = port(audit, now);
    let first = port.arrive(now, NORMAL, drop);
    let second = port.arrive(now, NORMAL, drop);
    assert_eq!((first.admit, second.admit), (Admit::Pass, Admit::Audit));
    assert!(second.let_in.is_some());
}

#[test]
fn what_is_switched_off_asks_nothing() {
    let off = Overload {
        mode: OverloadMode::Off,
        max_concurrency: Some(1),
        ..Overload::DEFAULT
    };
    let now = Instant::now();
    assert!(PortOverload::after(None, &guard_port(off), now).is_none());
    assert!(PortOverload::after(None, &GuardPort::default(), now).is_none());
}

#[test]
fn policy_change_keeps_in_flight_requests_counted() {
    let now = Instant::now();
    let two = Overload {
        max_concurrency: Some(2),
        ..Overload::DEFAULT
    };
    let first = port(two, now);
    let in_flight: Vec<_> = (0..2)
        .map(|_| first.arrive(now, NORMAL, drop).let_in)
        .collect();
    assert!(in_flight.iter().all(Option::is_some));
    let later = Overload {
        queue_time: ms(500),
        ..two
    };
    let second = PortOverload::after(Some(&first), &guard_port(later), now).unwrap();
    assert!(!PortOverload::same(Some(&first), Some(&second)));
    assert_eq!(second.arrive(now, NORMAL, drop).admit, Admit::Shed);
    drop(in_flight);
    assert_eq!(second.arrive(now, NORMAL, drop).admit, Admit::Pass);
    let same = PortOverload::after(Some(&second), &guard_port(later), now);
    assert!(PortOverload::same(Some(&second), same.as_ref()));
}

#[test]
fn deferred_request_frees_room_and_must_reacquire_it() {
    let now = Instant::now();
    let one = Overload {
        max_concurrency: Some(1),
        ..Overload::DEFAULT
    };
    let port = port(one, now);
    let high = of(Priority::Critical);
    let put_off = port.arrive(now, high, drop).let_in.unwrap();
    // Control: it is in flight until then.
    assert!(port.arrive(now, high, drop).let_in.is_none());
    let (again, pending) = put_off.put_off();
    assert_eq!(pending.priority, Priority::Critical);
    let other = port.arrive(now, high, drop).let_in.unwrap();
    assert!(again.arrive(now, pending, drop).let_in.is_none());
    drop(other);
    assert!(again.arrive(now, pending, drop).let_in.is_some());
}

#[test]
fn deferred_request_keeps_its_audit_result() {
    let now = Instant::now();
    // Control: there is room at first.
    for (most, is_audited) in [(1, true), (2, false)] {
        let audit = Overload {
            mode: OverloadMode::Audit,
            max_concurrency: Some(most),
            ..Overload::DEFAULT
        };
        let port = port(audit, now);
        let high = of(Priority::Critical);
        let in_flight = port.arrive(now, high, drop).let_in.unwrap();
        let put_off = port.arrive(now, high, drop).let_in.unwrap();
        let (again, pending) = put_off.put_off();
        assert_eq!(pending.audited, is_audited);
        // However it passes then.
        drop(in_flight);
        let (_, pending) = again.arrive(now, pending, drop).let_in.unwrap().put_off();
        assert_eq!(pending.audited, is_audited);
    }
}

#[test]
fn cancelled_or_answered_request_frees_room() {
    let now = Instant::now();
    let one = Overload {
        max_concurrency: Some(1),
        ..Overload::DEFAULT
    };
    let port = port(one, now);
    let left = port.arrive(now, NORMAL, drop).let_in;
    assert!(port.arrive(now, NORMAL, drop).let_in.is_none());
    drop(left);
    let answered = port.arrive(now, NORMAL, drop).let_in.unwrap();
    assert!(port.arrive(now, NORMAL, drop).let_in.is_none());
    answered.answered(now + ms(5), drop);
    assert!(port.arrive(now, NORMAL, drop).let_in.is_some());
}
