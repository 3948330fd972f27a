//! The account of a call's caller, from the reports of either side.

use super::*;
use crate::observe::reports::Reporter;

/// A process of pod `shop/web-1` with a certificate of this account reported its calls.
fn report_by(reports: &Reports, process: u64, account: &str, edges: Vec<v1::Edge>) {
    let reporter = Reporter {
        uid: "shop-web".into(),
        pod: key("shop", "web-1"),
        account: Some(key("shop", account)),
    };
    let report = v1::Report {
        process,
        slot: INTERVAL_NOW * crate::observe::reports::INTERVAL,
        edges,
        ..v1::Report::default()
    };
    reports.take(&reporter, report, true, crate::testing::topology::now());
}

/// By account: requests, and those that the called side counted of them.
fn by_account(reports: &Reports) -> Vec<(String, u64, Option<u64>)> {
    let reported = edges(&fold(reports).0).into_iter();
    let reported = reported.map(|(edge, counted)| {
        let account = edge.key().account.as_ref().map(ToString::to_string);
        let served = counted.server.as_ref().map(EdgeTotals::requests);
        (account.unwrap_or_default(), counted.sums.requests(), served)
    });
    let mut reported: Vec<_> = reported.collect();
    reported.sort();
    reported
}

#[test]
fn server_report_cannot_claim_account_of_foreign_namespace() {
    let reports = reports();
    let lie = v1::Edge {
        identity: "bank/admin".to_owned(),
        ..seen_by_server("shop/web", 3, 0)
    };
    report(&reports, "shop/api", vec![lie]);
    assert_eq!(by_account(&reports), [(String::new(), 3, None)]);
}

#[test]
fn both_ends_separate_calls_by_callers_account() {
    let reports = reports();
    let served = |account: &str, calls| v1::Edge {
        identity: format!("shop/{account}"),
        ..seen_by_server("shop/web", calls, 0)
    };
    for (process, account, calls) in [(1, "old", 7), (2, "new", 2)] {
        let called = vec![seen_by_client("shop/api", calls, 0)];
        report_by(&reports, process, account, called);
        report(&reports, "shop/api", vec![served(account, calls)]);
    }
    // Its caller's proxy was silent.
    report(&reports, "shop/api", vec![served("silent", 4)]);
    let of = |account: &str, calls, served| (format!("shop/{account}"), calls, served);
    let expected = [
        of("new", 2, Some(2)),
        of("old", 7, Some(7)),
        of("silent", 4, None),
    ];
    assert_eq!(by_account(&reports), expected);
}

#[test]
fn peer_replica_receives_account_of_reporting_pod() {
    let (one, two) = (reports(), reports());
    report_by(&one, 1, "old", vec![seen_by_client("shop/api", 1, 0)]);
    let (now, opened) = (crate::testing::topology::now(), tokio::time::Instant::now());
    let mut reported = one.own_since(0, now).1.unwrap();
    let mut clock = ClockOffset::of_stream(0, opened);
    two.receive(reported.clone(), &mut clock, now, opened);
    assert_eq!(by_account(&two), [("shop/old".to_owned(), 1, None)]);
    // A version that does not report it is understood all the same.
    let older = reports();
    reported.reports[0].account = String::new();
    older.receive(reported, &mut clock, now, opened);
    assert_eq!(by_account(&older), [(String::new(), 1, None)]);
}
