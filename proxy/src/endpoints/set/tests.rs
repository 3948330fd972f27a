//! Which endpoint a call gets, and when one is ejected.
//!
//! Claims: calls-24, calls-53, calls-57

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use policy::health::{EjectedFor, HealthSignal};
use policy::sticky::Key;
use policy::traffic::without_object::EJECTION;
use prometheus_client::metrics::gauge::Gauge;

use super::EndpointSet;
use crate::endpoints::endpoint::{Endpoint, InFlight};
use crate::endpoints::learned::{Draw, Fallback, Latency};
use crate::endpoints::registry::{PodRef, Registry};

mod limited;
mod near;
mod probes;

fn set(registry: &Registry, addrs: &[&str]) -> EndpointSet {
    let endpoints = addrs
        .iter()
        .map(|addr| registry.at(addr.parse().unwrap(), None, PodRef::default(), false))
        .collect();
    EndpointSet {
        endpoints,
        ..EndpointSet::default()
    }
}

fn after(tried: &[SocketAddr]) -> Draw<'_> {
    Draw {
        tried,
        ..Draw::DEFAULT
    }
}

fn addr(picked: Option<InFlight>) -> SocketAddr {
    picked.unwrap().endpoint().addr
}

#[test]
fn failed_endpoint_is_not_retried_while_another_remains() {
    let registry = Registry::default();
    let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80"]);
    let first = set.endpoints[0].addr;
    for _ in 0..20 {
        let draw = after(std::slice::from_ref(&first));
        assert_eq!(addr(set.pick(&draw)), set.endpoints[1].addr);
    }
    let both = [first, set.endpoints[1].addr];
    assert!(set.pick(&after(&both)).is_none());
}

#[test]
fn the_slow_endpoint_is_avoided() {
    let registry = Registry::default();
    let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80"]);
    let took = |at: usize, ms| {
        let mut answer = set.endpoints[at].begin();
        answer.learn(Latency::Head(Duration::from_millis(ms)));
    };
    took(0, 200);
    took(1, 1);
    for _ in 0..20 {
        assert_eq!(addr(set.pick(&Draw::DEFAULT)), set.endpoints[1].addr);
    }
}

/// One hangs since it came, and its callers leave after two seconds.
#[tokio::test(start_paused = true)]
async fn endpoint_with_abandoned_calls_is_not_cheapest_again() {
    let registry = Registry::default();
    let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80"]);
    let hung = set.endpoints[0].addr;
    let (mut there, mut answered) = (0, 0);
    for _ in 0..100 {
        let mut call = set.pick(&Draw::DEFAULT).unwrap();
        if call.endpoint().addr == hung {
            let waited = Duration::from_secs(2);
            tokio::time::advance(waited).await;
            call.endpoint().attempt_abandoned(waited);
            there += 1;
        } else {
            call.learn(Latency::Head(Duration::from_millis(1)));
            answered += 1;
        }
    }
    assert!((1..=2).contains(&there), "{there} of 100 hung");
    assert_eq!(there + answered, 100);
}

/// Whatever gave it, an application or a proxy.
#[tokio::test(start_paused = true)]
async fn fast_bad_responses_attract_no_calls() {
    for (good, least, most) in [(false, 0, 50), (true, 90, 100)] {
        let registry = Registry::default();
        let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80"]);
        let fast = set.endpoints[0].addr;
        let mut there = 0;
        for _ in 0..100 {
            let mut call = set.pick(&Draw::DEFAULT).unwrap();
            let latency = if call.endpoint().addr == fast {
                there += 1;
                Latency::of_head(Duration::from_micros(300), good)
            } else {
                Latency::of_head(Duration::from_millis(50), true)
            };
            let rests = set.record(&mut call, latency, Some(HealthSignal::Good), &EJECTION);
            assert_eq!(rests, None);
        }
        assert!((least..=most).contains(&there), "{good}: {there} of 100");
    }
}

#[test]
fn a_sticky_caller_keeps_its_endpoint_when_others_leave() {
    let registry = Registry::default();
    let all = set(&registry, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let chosen = addr(all.of_session("10.1.0.7", 0, &Draw::DEFAULT));
    let fewer = EndpointSet {
        endpoints: all
            .endpoints
            .iter()
            .enumerate()
            .filter(|(at, endpoint)| endpoint.addr == chosen || *at == 0)
            .map(|(_, endpoint)| Arc::clone(endpoint))
            .collect(),
        ..EndpointSet::default()
    };
    assert_eq!(
        addr(fewer.of_session("10.1.0.7", 0, &Draw::DEFAULT)),
        chosen
    );
}

#[test]
fn sticky_caller_moves_only_after_its_session_expires() {
    let registry = Registry::default();
    let all = set(&registry, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let affinity = registry.affinity("service/shop/api:80", 30).unwrap();
    let start = Instant::now();
    let at = |seconds: u64| {
        let epoch = affinity.epoch(start + Duration::from_secs(seconds));
        addr(all.of_session("10.1.0.7", epoch, &Draw::DEFAULT))
    };
    let first = at(0);
    assert!((1..40).all(|i| at(i * 30) == first), "every call in time");
    let later: BTreeSet<SocketAddr> = (1..40).map(|i| at(10_000 + i * 31)).collect();
    assert_eq!(later.len(), 3, "none in time");
}

/// Three endpoints, of which the first cannot be connected since a moment.
struct Fleet {
    set: EndpointSet,
    ejected: Gauge,
}

impl Fleet {
    fn new() -> Self {
        let ejected = Gauge::default();
        let registry = Registry::with_gauge(ejected.clone());
        let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        Self { set, ejected }
    }

    fn dead(&self) -> &Arc<Endpoint> {
        &self.set.endpoints[0]
    }

    fn fails(&self, attempt: &mut InFlight) -> Option<EjectedFor> {
        let signal = Some(HealthSignal::Unreachable);
        self.set.record(attempt, Latency::Failed, signal, &EJECTION)
    }

    /// As many failures as the default needs.
    fn eject(&self) {
        for row in 1..=EJECTION.consecutive_failures {
            let cause = self.fails(&mut self.dead().begin());
            let full = row == EJECTION.consecutive_failures;
            assert_eq!(cause, full.then_some(EjectedFor::Unreachable), "{row}");
        }
        assert_eq!(self.ejected.get(), 1);
    }

    /// How many of a hundred calls get the endpoint that failed.
    fn sent_there(&self, draw: &Draw<'_>) -> usize {
        let picks = (0..100).map(|_| addr(self.set.pick(draw)));
        picks.filter(|addr| *addr == self.dead().addr).count()
    }
}

const READER: Draw<'static> = Draw {
    may_retry: true,
    ..Draw::DEFAULT
};

#[tokio::test(start_paused = true)]
async fn ejected_endpoint_gets_no_calls_then_one_probe() {
    let fleet = Fleet::new();
    fleet.eject();
    tokio::time::advance(Duration::from_millis(3900)).await;
    assert_eq!(fleet.sent_there(&READER), 0, "5 s, less a fifth at most");
    tokio::time::advance(Duration::from_millis(2200)).await;
    let mut probe = fleet.set.pick(&READER).unwrap();
    while probe.endpoint().addr != fleet.dead().addr {
        probe = fleet.set.pick(&READER).unwrap();
    }
    assert_eq!(fleet.sent_there(&READER), 0, "one probe at a time");
    assert_eq!(fleet.fails(&mut probe), Some(EjectedFor::Unreachable));
    tokio::time::advance(Duration::from_millis(7900)).await;
    assert_eq!(fleet.sent_there(&READER), 0, "twice as long");
    assert_eq!(fleet.ejected.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn successful_probe_returns_endpoint_gradually() {
    let fleet = Fleet::new();
    fleet.eject();
    tokio::time::advance(Duration::from_millis(6100)).await;
    let probe = (0..1000).find_map(|_| {
        let picked = fleet.set.pick(&READER)?;
        (picked.endpoint().addr == fleet.dead().addr).then_some(picked)
    });
    let (mut probe, head) = (probe.unwrap(), Latency::Head(Duration::from_millis(1)));
    let signal = Some(HealthSignal::Good);
    assert_eq!(fleet.set.record(&mut probe, head, signal, &EJECTION), None);
    drop(probe);
    assert_eq!(fleet.ejected.get(), 0);
    // Its estimate is as bad as an unreachable endpoint's for a while; here the share
    // alone is looked at.
    let works = |endpoint: &Arc<Endpoint>| {
        let now = crate::endpoints::learned::now();
        match endpoint.look(now, &READER) {
            policy::balance::Candidate::Works { share, .. } => share,
            other => panic!("{other:?}"),
        }
    };
    assert!(works(fleet.dead()) < 0.11, "{}", works(fleet.dead()));
    tokio::time::advance(Duration::from_secs(5)).await;
    let half = works(fleet.dead());
    assert!((0.5..0.6).contains(&half), "{half}");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(works(fleet.dead()) >= 1.0);
}

#[tokio::test(start_paused = true)]
async fn abandoned_probe_passes_to_next_caller() {
    let fleet = Fleet::new();
    fleet.eject();
    tokio::time::advance(Duration::from_millis(6100)).await;
    // Each of these is dropped at once, as by a caller that leaves.
    assert!(fleet.sent_there(&READER) > 1);
}

#[tokio::test(start_paused = true)]
async fn abandoned_late_probe_frees_no_second_probe() {
    let fleet = Fleet::new();
    fleet.eject();
    tokio::time::advance(Duration::from_millis(6100)).await;
    let probe = || {
        let picks = (0..1000).filter_map(|_| fleet.set.pick(&READER));
        let mut there = picks.filter(|picked| picked.endpoint().addr == fleet.dead().addr);
        there.next()
    };
    let late = probe().unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    let next = probe().unwrap();
    drop(late);
    assert_eq!(fleet.sent_there(&READER), 0, "one probe at a time");
    drop(next);
    assert!(fleet.sent_there(&READER) > 0);
}

#[tokio::test(start_paused = true)]
async fn late_probe_result_is_not_taken_for_next_probe() {
    let fleet = Fleet::new();
    fleet.eject();
    tokio::time::advance(Duration::from_millis(6100)).await;
    let probe = || {
        let picks = (0..1000).filter_map(|_| fleet.set.pick(&READER));
        let mut there = picks.filter(|picked| picked.endpoint().addr == fleet.dead().addr);
        there.next()
    };
    let mut late = probe().unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    let mut next = probe().unwrap();
    let good = |probe: &mut InFlight| {
        let head = Latency::Head(Duration::from_millis(1));
        fleet
            .set
            .record(probe, head, Some(HealthSignal::Good), &EJECTION)
    };
    assert_eq!(good(&mut late), None);
    assert_eq!(fleet.ejected.get(), 1);
    assert_eq!(good(&mut next), None);
    assert_eq!(fleet.ejected.get(), 0);
}

/// It has an answer, which would be lost with an endpoint that is not there.
#[tokio::test(start_paused = true)]
async fn retried_call_avoids_ejected_endpoints_and_never_probes() {
    let fleet = Fleet::new();
    fleet.eject();
    let others: Vec<SocketAddr> = fleet.set.endpoints[1..].iter().map(|e| e.addr).collect();
    let again = |tried| Draw {
        tried,
        fallback: Fallback::NoEndpoint,
        ..READER
    };
    for rested in [0, 7] {
        tokio::time::advance(Duration::from_secs(rested)).await;
        assert_eq!(fleet.sent_there(&again(&[])), 0, "others work");
        assert!(fleet.set.pick(&again(&others)).is_none());
        let caller = |draw: &Draw<'_>| fleet.set.of_session("10.1.0.7", 0, draw);
        assert!(caller(&again(&others)).is_none());
        assert!(others.contains(&addr(caller(&again(&[])))));
        // What was not sent has no answer to lose.
        let moved = Draw {
            tried: &others,
            ..READER
        };
        assert_eq!(addr(fleet.set.pick(&moved)), fleet.dead().addr);
        assert_eq!(addr(caller(&moved)), fleet.dead().addr);
    }
}

#[tokio::test(start_paused = true)]
async fn unretriable_call_probes_only_if_no_retriable_one_comes() {
    let fleet = Fleet::new();
    fleet.eject();
    let mut rested = Duration::ZERO;
    while fleet.sent_there(&READER) == 0 {
        tokio::time::advance(Duration::from_millis(100)).await;
        rested += Duration::from_millis(100);
        assert!(rested < Duration::from_secs(7));
    }
    // The last reader left, and its place is free since now.
    assert_eq!(fleet.sent_there(&Draw::DEFAULT), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(fleet.sent_there(&Draw::DEFAULT) > 0);
}

/// Of two Services with the same endpoints one ejects them, and one does not.
#[tokio::test(start_paused = true)]
async fn service_without_ejection_ends_no_ejection_for_others() {
    let fleet = Fleet::new();
    fleet.eject();
    let off = policy::traffic::endpoint::Ejection {
        consecutive_failures: 0,
        ..EJECTION
    };
    let others: Vec<SocketAddr> = fleet.set.endpoints[1..].iter().map(|e| e.addr).collect();
    let draw = Draw {
        ejection: &off,
        tried: &others,
        fallback: Fallback::NoEndpoint,
        ..Draw::DEFAULT
    };
    let answered = || {
        let mut call = fleet.set.pick(&draw).unwrap();
        let head = Latency::Head(Duration::from_millis(1));
        let rests = fleet
            .set
            .record(&mut call, head, Some(HealthSignal::Good), &off);
        assert_eq!(rests, None);
        call.endpoint().addr
    };
    assert_eq!(answered(), fleet.dead().addr);
    assert_eq!(fleet.sent_there(&READER), 0);
    assert_eq!(fleet.ejected.get(), 1);
    // Its ejection is over, and it answers.
    tokio::time::advance(Duration::from_millis(6100)).await;
    assert_eq!(answered(), fleet.dead().addr);
    assert_eq!(fleet.ejected.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn disabled_ejection_returns_all_ejected_endpoints() {
    let fleet = Fleet::new();
    fleet.eject();
    let off = policy::traffic::endpoint::Ejection {
        consecutive_failures: 0,
        ..EJECTION
    };
    let draw = Draw {
        ejection: &off,
        ..Draw::DEFAULT
    };
    // By the estimate it still cannot be reached.
    let others: Vec<SocketAddr> = fleet.set.endpoints[1..].iter().map(|e| e.addr).collect();
    let draw = Draw {
        tried: &others,
        fallback: Fallback::NoEndpoint,
        ..draw
    };
    assert_eq!(addr(fleet.set.pick(&draw)), fleet.dead().addr);
    for _ in 0..20 {
        let attempt = &mut fleet.dead().begin();
        let signal = Some(HealthSignal::Unreachable);
        let rests = fleet.set.record(attempt, Latency::Failed, signal, &off);
        assert_eq!(rests, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sticky_callers_endpoint_rests_and_gets_it_back() {
    let fleet = Fleet::new();
    let caller = (0..100).map(|n| format!("10.1.0.{n}")).find(|caller| {
        let chosen = addr(fleet.set.of_session(caller, 0, &READER));
        chosen == fleet.dead().addr
    });
    let caller = caller.unwrap();
    fleet.eject();
    let next = addr(fleet.set.of_session(&caller, 0, &READER));
    assert_ne!(next, fleet.dead().addr);
    tokio::time::advance(Duration::from_millis(6100)).await;
    let back = addr(fleet.set.of_session(&caller, 0, &READER));
    assert_eq!(back, fleet.dead().addr);
}

#[tokio::test(start_paused = true)]
async fn ejected_tenant_endpoint_is_restored_and_others_stay() {
    let fleet = Fleet::new();
    let of = |key: usize, draw: &Draw<'_>| {
        let key = Key::of(format!("tenant-{key}").as_bytes());
        addr(fleet.set.of_tenant(key, draw))
    };
    let all = || (0..30).map(|key| of(key, &READER)).collect::<Vec<_>>();
    let before = all();
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(all(), before);
    let mine = before.iter().position(|addr| *addr == fleet.dead().addr);
    let mine = mine.unwrap();
    fleet.eject();
    for (before, now) in before.iter().zip(all()) {
        assert_ne!(now, fleet.dead().addr);
        assert!(*before == fleet.dead().addr || *before == now);
    }
    let next = of(mine, &READER);
    // What failed it is not tried again, though no endpoint is ejected there.
    let tried = [next];
    let third = of(mine, &after(&tried));
    assert!(third != next && third != fleet.dead().addr);
    tokio::time::advance(Duration::from_millis(6100)).await;
    assert_eq!(of(mine, &READER), fleet.dead().addr);
}

#[tokio::test(start_paused = true)]
async fn dropped_endpoint_set_is_not_counted_as_ejected() {
    let fleet = Fleet::new();
    fleet.eject();
    drop(fleet.set);
    assert_eq!(fleet.ejected.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn side_call_is_not_counted_and_takes_no_probe() {
    let fleet = Fleet::new();
    fleet.eject();
    tokio::time::advance(Duration::from_secs(7)).await;
    for _ in 0..50 {
        let aside = fleet.set.aside().unwrap();
        assert_ne!(aside.addr, fleet.dead().addr);
        assert_eq!(aside.in_flight.load(Relaxed), 0);
    }
    assert!(fleet.sent_there(&READER) > 0, "one is due");
}
