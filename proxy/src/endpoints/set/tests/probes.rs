//! Probes whose end comes late or shows nothing.
//!
//! Claims: calls-2

use policy::balance::Candidate;
use tokio::time::advance;

use super::*;
use crate::endpoints::learned::now;

/// Three endpoints, of which the first is ejected because it failed, and may be probed.
async fn rested() -> Fleet {
    let fleet = Fleet::new();
    for _ in 0..20 {
        let mut answered = fleet.set.endpoints[1].begin();
        assert_eq!(shows(&fleet, &mut answered, HealthSignal::Good), None);
    }
    let fail = |_| {
        let mut failed = fleet.dead().begin();
        shows(&fleet, &mut failed, HealthSignal::Failed)
    };
    let rests: Vec<EjectedFor> = (0..EJECTION.consecutive_failures)
        .filter_map(fail)
        .collect();
    assert_eq!(rests, [EjectedFor::Failures]);
    advance(Duration::from_millis(6100)).await;
    assert_eq!(fleet.ejected.get(), 1);
    fleet
}

fn shows(fleet: &Fleet, attempt: &mut InFlight, signal: HealthSignal) -> Option<EjectedFor> {
    let signal = Some(signal);
    fleet
        .set
        .record(attempt, Latency::Recorded, signal, &EJECTION)
}

fn probe(fleet: &Fleet) -> Option<InFlight> {
    let probe = fleet.set.at(fleet.dead(), &READER);
    probe.filter(InFlight::probes)
}

fn works(fleet: &Fleet) -> bool {
    matches!(fleet.dead().look(now(), &READER), Candidate::Works { .. })
}

#[tokio::test(start_paused = true)]
async fn lasting_probe_stream_returns_its_endpoint_while_running() {
    let fleet = rested().await;
    let mut stream = probe(&fleet).unwrap();
    assert_eq!(shows(&fleet, &mut stream, HealthSignal::Reached), None);
    advance(Duration::from_millis(999)).await;
    assert!(!works(&fleet) && probe(&fleet).is_none(), "it is probed");
    assert_eq!(fleet.ejected.get(), 1);
    advance(Duration::from_millis(1)).await;
    assert!(works(&fleet));
    assert_eq!(fleet.ejected.get(), 0);
    // It breaks with its server, as any call may.
    assert_eq!(shows(&fleet, &mut stream, HealthSignal::Failed), None);
    drop(stream);
    assert!(works(&fleet));
    assert_eq!(fleet.ejected.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn abandoned_probe_stream_counts_after_lasting_one_second() {
    for (lasted, ejected) in [(999, 1), (1000, 0)] {
        let fleet = rested().await;
        let mut stream = probe(&fleet).unwrap();
        assert_eq!(shows(&fleet, &mut stream, HealthSignal::Reached), None);
        advance(Duration::from_millis(lasted)).await;
        drop(stream);
        assert_eq!(fleet.ejected.get(), ejected, "{lasted}");
        assert_eq!(probe(&fleet).is_some(), ejected == 1, "{lasted}");
    }
}

#[tokio::test(start_paused = true)]
async fn probe_showing_nothing_makes_room_for_next_probe() {
    let fleet = rested().await;
    let mut silent = probe(&fleet).unwrap();
    assert!(probe(&fleet).is_none(), "one at a time");
    silent.shows_nothing();
    let next = probe(&fleet);
    assert!(next.is_some());
    // What it shows all the same, and that it ends, is not taken for the next one's.
    assert_eq!(shows(&fleet, &mut silent, HealthSignal::Good), None);
    drop(silent);
    assert!(!works(&fleet) && probe(&fleet).is_none());
    assert_eq!(fleet.ejected.get(), 1);
}

/// Calls that hung end by their time limit, one after the other, behind the probe.
#[tokio::test(start_paused = true)]
async fn calls_sent_before_endpoint_return_do_not_eject_again() {
    let fleet = rested().await;
    let mut hung: Vec<InFlight> = (0..20).map(|_| fleet.dead().begin()).collect();
    let mut own = probe(&fleet).unwrap();
    assert_eq!(shows(&fleet, &mut own, HealthSignal::Good), None);
    assert!(works(&fleet));
    for one in &mut hung {
        assert_eq!(shows(&fleet, one, HealthSignal::Failed), None);
    }
    assert!(works(&fleet));
    // Control: what was sent since does, and the probe's own call is among that.
    let fail = |_| shows(&fleet, &mut fleet.dead().begin(), HealthSignal::Failed);
    assert_eq!(shows(&fleet, &mut own, HealthSignal::Failed), None);
    let rests: Vec<EjectedFor> = (1..EJECTION.consecutive_failures)
        .filter_map(fail)
        .collect();
    assert_eq!(rests, [EjectedFor::Failures]);
}
