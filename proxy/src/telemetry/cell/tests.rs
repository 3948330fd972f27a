//! What a cell counts, and that nothing of it gets lost or counts twice.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;

use super::counts::RULES;
use super::{CallCounters, CallGroup, CallOutcome, CellCache, CellKey, KEPT, MORE_OUTCOMES};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::labels::Security;

fn cell_key(port: u16) -> CellKey {
    CellKey {
        call_ends: CallEnds::External {
            port,
            remote: Arc::default(),
            security: Security::plaintext,
        },
        protocol: Protocol::Http1,
        route: None,
        group: CallGroup::None,
    }
}

fn answer(cell: &CallCounters, status: u16, reason: Option<Reason>) {
    cell.begin();
    let success = reason.is_none() && status < 500;
    let outcome = CallOutcome {
        status,
        success,
        reason,
    };
    cell.answered(outcome, Duration::from_millis(1));
    cell.flows().received.fetch_add(3, Relaxed);
    cell.leave();
}

#[test]
fn every_outcome_comes_out_as_it_went_in() {
    for reason in std::iter::once(None).chain(Reason::ALL.map(Some)) {
        for (status, success) in [(0, false), (200, true), (999, false)] {
            let outcome = CallOutcome {
                status,
                success,
                reason,
            };
            assert_eq!(CallOutcome::unpacked(outcome.packed()), outcome);
        }
    }
}

#[test]
fn cell_counts_drain_once_and_open_calls_remain() {
    let (cell, mut seen) = (CallCounters::new(cell_key(80)), (0, 0));
    assert!(cell.take(&mut seen).is_none());
    answer(&cell, 200, None);
    answer(&cell, 200, None);
    answer(&cell, 503, Some(Reason::NoEndpoint));
    cell.begin();
    let counts = cell.take(&mut seen).unwrap();
    assert_eq!(counts.calls(|outcome| outcome.success), 2);
    assert_eq!(
        counts.calls(|outcome| outcome.reason == Some(Reason::NoEndpoint)),
        1
    );
    assert_eq!((counts.started, counts.received), (4, 9));
    assert_eq!(counts.latency.total(), 3);
    assert_eq!(counts.nanoseconds, 3_000_000);
    assert_eq!(cell.open(), 1);
    assert!(cell.take(&mut seen).is_none(), "nothing new");
    cell.cancel();
    cell.leave();
    assert_eq!(cell.take(&mut seen).unwrap().cancelled, 1);
    assert_eq!(cell.open(), 0);
}

#[test]
fn server_with_every_status_loses_statuses_not_calls() {
    let (cell, mut seen) = (CallCounters::new(cell_key(80)), (0, 0));
    for status in 100..600 {
        answer(&cell, status, None);
    }
    let counts = cell.take(&mut seen).unwrap();
    assert_eq!(counts.calls(|_| true), 500);
    assert_eq!(counts.calls(|outcome| outcome.success), 400);
    assert!(counts.outcomes.len() <= MORE_OUTCOMES + 8, "{counts:?}");
    assert!(counts.calls(|outcome| outcome.status == 0) > 400);
}

#[test]
fn concurrent_calls_add_up_while_cell_is_drained() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 5_000;
    let cell = Arc::new(CallCounters::new(cell_key(80)));
    let calling: Vec<_> = (0..THREADS)
        .map(|thread| {
            let cell = Arc::clone(&cell);
            std::thread::spawn(move || {
                for _ in 0..CALLS {
                    answer(&cell, 200 + u16::try_from(thread).unwrap() * 3, None);
                }
            })
        })
        .collect();
    let (mut seen, mut calls, mut timed) = ((0, 0), 0, 0);
    loop {
        let over = calling.iter().all(std::thread::JoinHandle::is_finished);
        if let Some(counts) = cell.take(&mut seen) {
            calls += counts.calls(|outcome| outcome.success);
            timed += counts.latency.total();
        }
        if over {
            break;
        }
    }
    assert_eq!((calls, timed), (THREADS * CALLS, THREADS * CALLS));
}

#[test]
fn cached_cell_is_found_only_while_held() {
    let kept = CellCache::default();
    let of = |port| move |cell_key: &CellKey| cell_key.call_ends.port() == port;
    assert!(kept.find(of(1)).is_none());
    let cells: Vec<_> = (1..=20)
        .map(|port| Arc::new(CallCounters::new(cell_key(port))))
        .collect();
    for cell in &cells {
        kept.keep(cell);
    }
    let last = kept.find(of(20)).unwrap();
    assert!(Arc::ptr_eq(&last, &cells[19]));
    assert!(
        kept.find(of(20 - KEPT as u16)).is_none(),
        "the oldest made room"
    );
    drop((cells, last));
    assert!(kept.find(of(20)).is_none(), "it has no holder");
}

/// The caller of one left, and what that shows of its attempt comes a moment later.
#[test]
fn an_attempt_whose_caller_left_is_never_a_success() {
    let (cell, mut seen) = (CallCounters::new(cell_key(80)), (0, 0));
    cell.begin();
    cell.cancel();
    let first = cell.take(&mut seen).unwrap();
    cell.left();
    let second = cell.take(&mut seen).unwrap();
    assert_eq!(first.attempts + second.attempts, 1);
    for counts in [first, second] {
        assert_eq!(counts.attempts_by_success(), (0, 0));
    }
}

#[test]
fn allowing_rules_are_reported_while_active_and_bounded() {
    let (cell, mut seen) = (CallCounters::new(cell_key(80)), (0, 0));
    let rule = |at: usize| Origin::new("TrafficTarget", "shop", format!("t{at}"));
    let mut reported = |rules: &[usize]| {
        for at in rules {
            cell.begin();
            cell.allowed_by(&rule(*at));
            cell.leave();
        }
        cell.take(&mut seen).unwrap().rules
    };
    assert_eq!(reported(&[1, 2, 1]), [rule(1), rule(2)]);
    assert_eq!(
        reported(&[2, 2]),
        [rule(2)],
        "the other allowed nothing since"
    );
    let many: Vec<usize> = (10..10 + 3 * RULES).collect();
    assert_eq!(reported(&many).len(), RULES);
    // Those of before do not keep the place of new ones.
    assert_eq!(reported(&[1]), [rule(1)]);
}

#[test]
fn cell_caches_routes_up_to_name_limit() {
    let cell = CallCounters::new(cell_key(80));
    let name = |number: usize| Arc::<str>::from(format!("cart/{number}"));
    let routed: Vec<Arc<CallCounters>> = (0..100)
        .map(|_| Arc::new(CallCounters::new(cell_key(80))))
        .collect();
    for (number, routed) in routed.iter().enumerate() {
        cell.keep_route(&name(number), routed);
    }
    let found = |number: usize| cell.of_route(&name(number));
    assert!(found(99).is_some_and(|found| Arc::ptr_eq(&found, &routed[99])));
    let kept = (0..100).filter(|number| found(*number).is_some()).count();
    assert_eq!(kept, 65, "64 names, and none");
    assert!(cell.of_route(&"cart".into()).is_none());
    // Once it has no holder any more it is looked up anew.
    drop(routed);
    assert!(found(99).is_none());
}
