//! Sums of calls to the pod, and how long requests wait by looks.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Response, Version};
use policy::access_log::AccessLog;
use policy::protocol::Protocol;
use policy::reason::Reason;
use prometheus_client::registry::Registry;
use wire::v1::early_sums::Group;

use super::*;
use crate::http::watched::BodyEnd;
use crate::telemetry::Telemetry;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallCounters, CallOutcome, CellKey};
use crate::telemetry::labels::{LimitLabels, Security};

fn early() -> EarlyReports {
    let early = EarlyReports::new(Metrics::register(&mut Registry::default()));
    early.want(true);
    early
}

fn key(port: u16, protocol: Protocol, group: Group) -> CellKey {
    CellKey {
        call_ends: CallEnds::Inbound {
            port,
            caller: "shop/web".into(),
            at: None,
            security: Security::mtls,
        },
        protocol,
        route: None,
        group,
    }
}

fn ends(cell: &CallCounters, status: u16, reason: Option<Reason>) {
    let outcome = CallOutcome {
        status,
        success: status < 500 && reason.is_none(),
        reason,
    };
    cell.begin();
    if status == 0 {
        cell.outcome(outcome);
    } else {
        cell.answered(outcome, Duration::from_millis(1));
    }
    cell.leave();
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Of the first row: buckets with requests that wait, and how many.
fn waiting(early: &EarlyReports, now: Instant) -> Vec<(usize, u32)> {
    let report = early.look(now).unwrap();
    let buckets = report.sums[0].waiting.iter().copied().enumerate();
    buckets.filter(|(_, requests)| *requests > 0).collect()
}

#[test]
fn calls_are_summed_by_port_and_group() {
    let early = early();
    let cell = |key| early.metrics.cell(key);
    let web = cell(key(8080, Protocol::Http1, Group::None));
    ends(&web, 200, None);
    ends(&web, 500, None);
    ends(&web, 429, Some(Reason::Limit));
    ends(&web, 503, Some(Reason::Overload));
    web.begin();
    web.cancel();
    web.leave();
    // Another protocol at the same port.
    let tcp = cell(key(8080, Protocol::Opaque, Group::None));
    ends(&tcp, 0, None);
    ends(&tcp, 0, Some(Reason::ConnectionLost));
    ends(&cell(key(8080, Protocol::Http1, Group::Copies)), 500, None);
    ends(&cell(key(9090, Protocol::Http1, Group::None)), 200, None);
    let outbound = CellKey {
        call_ends: CallEnds::to_service("shop/web".into(), 80),
        ..key(80, Protocol::Http1, Group::None)
    };
    ends(&cell(outbound), 500, None);
    let report = early.look(Instant::now()).unwrap();
    let rows = report.sums.iter().map(|row| {
        let counts = (row.calls, row.failed, row.cancelled);
        (row.port, row.group(), counts, row.latency.clone())
    });
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [
            (8080, Group::None, (6, 3, 1), vec![0, 0, 4]),
            (8080, Group::Copies, (1, 1, 0), vec![0, 0, 1]),
            (9090, Group::None, (1, 0, 0), vec![0, 0, 1]),
        ]
    );
    ends(&web, 200, None);
    let again = early.look(Instant::now()).unwrap();
    assert_eq!(again.sums[0].calls, 7, "they are sums");
    assert_eq!((again.epoch, again.number), (report.epoch, 2));
}

/// Of the groups of a FaultExperiment.
#[test]
fn request_counts_once_in_the_group_that_it_joins() {
    use policy::fault::Group::{Control, Harmed};
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    telemetry.declare(Arc::new(BTreeSet::from([8080])));
    telemetry.early.want(true);
    for group in [None, Some(Control), Some(Harmed), Some(Harmed)] {
        let call_ends = key(8080, Protocol::Http1, Group::None).call_ends;
        let mut call = Call::begin(&telemetry, CallKind::Request, call_ends.clone());
        call.speaks(Version::HTTP_11, false);
        call.on(telemetry.cell(call_ends, Protocol::Http1));
        if let Some(group) = group {
            call.in_group(group);
        }
        let (answer, ()) = Response::new(()).into_parts();
        call.answered(&answer, None)
            .done(BodyEnd::Complete, 0, None);
    }
    let report = telemetry.early.look(Instant::now()).unwrap();
    let rows = report.sums.iter().map(|row| (row.group(), row.calls));
    assert_eq!(
        rows.collect::<Vec<_>>(),
        [(Group::None, 1), (Group::Control, 1), (Group::Harmed, 2)]
    );
}

#[test]
fn requests_that_wait_are_never_taken_for_older() {
    let (early, start) = (early(), Instant::now());
    let cell = early.metrics.cell(key(8080, Protocol::Http1, Group::None));
    let begin = |requests: usize| {
        for _ in 0..requests {
            cell.begin();
            cell.waits();
        }
    };
    let end = |requests: usize| {
        for _ in 0..requests {
            cell.waited();
            cell.leave();
        }
    };
    begin(3);
    assert_eq!(waiting(&early, start), [(0, 3)]);
    assert_eq!(waiting(&early, start + seconds(1)), [(bucket(1.0), 3)]);
    // One leaves and two come: which of them wait is not known.
    end(1);
    begin(2);
    let (new, old) = ((0, 2), (bucket(2.0), 2));
    assert_eq!(waiting(&early, start + seconds(2)), [new, old]);
    let expected = [(bucket(1.0), 2), (bucket(3.0), 2)];
    assert_eq!(waiting(&early, start + seconds(3)), expected);
    for second in 4..100 {
        waiting(&early, start + seconds(second));
    }
    assert_eq!(waiting(&early, start + seconds(100)), [(BUCKETS - 1, 4)]);
    let looks = early.epoch.lock().as_ref().unwrap().looks.len();
    assert!(looks <= LOOKS);
    // As many come as leave, for ever.
    end(4);
    for second in 101..110 {
        begin(50);
        assert_eq!(waiting(&early, start + seconds(second)), [(0, 50)]);
        end(50);
    }
    assert!(waiting(&early, start + seconds(110)).is_empty());
}

#[test]
fn request_waits_until_the_head_of_its_response() {
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    telemetry.declare(Arc::new(BTreeSet::from([8080])));
    let key = key(8080, Protocol::Http1, Group::None);
    let begin = || {
        let call_ends = key.call_ends.clone();
        let mut call = Call::begin(&telemetry, CallKind::Request, call_ends.clone());
        call.on(telemetry.cell(call_ends, Protocol::Http1));
        call
    };
    let unwatched = begin();
    telemetry.early.want(true);
    let (stream, cancelled) = (begin(), begin());
    let now = Instant::now();
    assert_eq!(waiting(&telemetry.early, now), [(0, 2)]);
    let (head, ()) = Response::new(()).into_parts();
    // The body goes on for hours.
    let counted = stream.answered(&head, None);
    assert_eq!(waiting(&telemetry.early, now), [(0, 1)]);
    drop(cancelled);
    assert!(waiting(&telemetry.early, now).is_empty());
    counted.whole(3);
    drop(unwatched);
    let row = telemetry.early.look(now).unwrap().sums.remove(0);
    assert_eq!((row.calls, row.cancelled), (1, 2));
    assert_eq!(row.waiting, Vec::<u32>::new());
}

#[test]
fn ports_beyond_all_rows_are_summed_together() {
    let early = early();
    for port in 1..=100 {
        let cell = early.metrics.cell(key(port, Protocol::Http1, Group::None));
        ends(&cell, 200, None);
        cell.begin();
        cell.waits();
    }
    for group in [Group::Control, Group::Harmed, Group::Copies] {
        ends(
            &early.metrics.cell(key(1, Protocol::Http1, group)),
            200,
            None,
        );
    }
    let report = early.look(Instant::now()).unwrap();
    assert!(report.sums.len() <= 32);
    let calls = report.sums.iter().map(|row| row.calls);
    assert_eq!(calls.sum::<u64>(), 103);
    let waiting = report.sums.iter().flat_map(|row| &row.waiting);
    assert_eq!(waiting.sum::<u32>(), 100);
    let limit = "early-ports";
    assert!(early.metrics.limits.at(&LimitLabels { limit }).get() > 0);
}
