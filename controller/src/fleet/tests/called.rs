//! When the statuses of policies are evaluated, because their breakers get callers or lose them.

use super::*;

/// Whether it notified since the last look.
fn was_notified(changes: &mut watch::Receiver<u64>) -> bool {
    let changed = changes.has_changed().unwrap();
    changes.mark_unchanged();
    changed
}

#[test]
fn only_first_call_and_end_of_calls_notify_watchers() {
    let mut bench = Bench::new(&with_breaker(&json!({})));
    let mut called = bench.fleet.called_changes();
    let announced = bench.fleet.changes();
    bench.passes(SECOND);
    assert!(!was_notified(&mut called), "there is no caller");
    bench.send_report("web", seen(10, 0));
    assert!(!was_notified(&mut called), "they are looked at together");
    bench.passes(SECOND);
    assert!(was_notified(&mut called));
    // It goes on, and others begin.
    for account in ["web", "other", "web"] {
        bench.send_report(account, seen(10, 0));
        bench.passes(SECOND);
        assert!(!was_notified(&mut called), "{account}");
    }
    bench.passes(5 * SECOND);
    assert!(!was_notified(&mut called), "its interval is not over");
    bench.passes(6 * SECOND);
    assert!(was_notified(&mut called), "the callers are gone");
    bench.passes(SECOND);
    assert!(!was_notified(&mut called));
    assert!(!announced.has_changed().unwrap(), "proxies hear nothing");
}

#[test]
fn policy_removal_notifies_but_its_second_breaker_does_not() {
    let cluster = with_v2(with_breaker(&json!({})));
    let cluster = cluster.with(cluster::split("s", "api", &[("v2", 1)]));
    let mut bench = Bench::new(&cluster);
    let mut called = bench.fleet.called_changes();
    bench.send_report("web", seen(10, 0));
    bench.passes(SECOND);
    assert!(was_notified(&mut called));
    bench.send_report_of("web", "shop/api", "shop/v2", seen(10, 0));
    bench.passes(SECOND);
    assert!(
        !was_notified(&mut called),
        "its status is looked at already"
    );
    bench.models.send_replace(Some(compiled(&cluster::shop())));
    bench.passes(SECOND);
    assert!(was_notified(&mut called));
}
