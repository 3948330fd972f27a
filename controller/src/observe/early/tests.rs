//! Sums of pods, by whichever way they come.

use super::*;

fn row(port: u32, group: Group, calls: u64) -> v1::EarlySums {
    v1::EarlySums {
        port,
        group: group.into(),
        calls,
        ..v1::EarlySums::default()
    }
}

fn report(epoch: u64, number: u64, sums: Vec<v1::EarlySums>) -> v1::EarlyReport {
    v1::EarlyReport {
        epoch,
        number,
        sums,
    }
}

fn calls(counts: &EarlyCounts, uid: &str, now: Instant) -> Option<(u64, u64)> {
    let pod = counts.get(uid, now)?;
    Some((pod.epoch, pod.of(Group::None, |_| true).calls))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn groups_and_ports_are_summed_apart() {
    let (counts, now) = (EarlyCounts::new(Counter::default()), Instant::now());
    let slow = v1::EarlySums {
        failed: 2,
        cancelled: 1,
        latency: vec![0, 3, 4],
        waiting: vec![1, 0, 0, 5],
        ..row(8080, Group::None, 10)
    };
    let newer = v1::EarlySums {
        group: 9,
        ..row(8080, Group::None, 1000)
    };
    let rows = vec![
        slow,
        row(9090, Group::None, 7),
        row(8080, Group::Copies, 100),
        row(65_536, Group::None, 1000),
        newer,
    ];
    counts.take(&"a".into(), report(1, 1, rows), now);
    let pod = counts.get("a", now).unwrap();
    let web = pod.of(Group::None, |port| port == 8080);
    assert_eq!((web.calls, web.failed, web.cancelled), (10, 2, 1));
    assert_eq!(web.latency.counts(), [0, 3, 4]);
    assert_eq!(web.waiting.counts(), [1, 0, 0, 5]);
    assert_eq!(pod.of(Group::None, |_| true).calls, 17);
    assert_eq!(pod.of(Group::Copies, |_| true).calls, 100);
    assert_eq!(pod.of(Group::Harmed, |_| true), Sums::default());
}

#[test]
fn earlier_report_never_replaces_a_later_one() {
    let (counts, start) = (EarlyCounts::new(Counter::default()), Instant::now());
    let passed_on = |epoch, number, calls, ago| v1::PodEarlyReport {
        uid: "a".to_owned(),
        report: Some(report(epoch, number, vec![row(80, Group::None, calls)])),
        ago,
    };
    let own = report(7, 3, vec![row(80, Group::None, 30)]);
    counts.take(&"a".into(), own, start);
    counts.receive(vec![passed_on(7, 2, 20, 0)], start + seconds(1));
    assert_eq!(calls(&counts, "a", start), Some((7, 30)), "it was late");
    counts.receive(vec![passed_on(7, 4, 40, 0)], start + seconds(1));
    assert_eq!(calls(&counts, "a", start), Some((7, 40)), "it moved");
    assert_eq!(counts.own_since(0, start).1, None, "it streams elsewhere");
    // The proxy has started anew before, and since.
    let later = start + seconds(2);
    counts.receive(vec![passed_on(5, 9, 90, 1500)], later);
    assert_eq!(calls(&counts, "a", later), Some((7, 40)));
    counts.receive(vec![passed_on(8, 1, 2, 500)], later);
    assert_eq!(calls(&counts, "a", later), Some((8, 2)));
}

#[test]
fn silent_pod_is_forgotten_with_what_it_took() {
    let (counts, start) = (EarlyCounts::new(Counter::default()), Instant::now());
    let one = || report(1, 1, vec![row(80, Group::None, 1)]);
    counts.take(&"a".into(), one(), start);
    let last = start + SILENCE;
    assert!(counts.get("a", last).is_some());
    let after = last + seconds(1);
    assert!(counts.get("a", after).is_none());
    counts.take(&"b".into(), one(), after);
    let state = counts.inner.state.lock();
    let held: Vec<&str> = state.pods.keys().map(|uid| &**uid).collect();
    assert_eq!(held, ["b"]);
    assert_eq!(state.own.len(), 1);
    assert_eq!(state.bytes, state.pods["b"].bytes);
}

#[test]
fn early_reports_beyond_bounds_are_counted_and_dropped() {
    const PODS: usize = 2000;
    let reached = Counter::default();
    let (counts, now) = (EarlyCounts::new(reached.clone()), Instant::now());
    let wide = v1::EarlySums {
        latency: vec![1; BUCKETS + 1],
        ..v1::EarlySums::default()
    };
    let many = vec![v1::EarlySums::default(); MAX_SUMS + 1];
    for hostile in [report(1, 1, many), report(1, 1, vec![wide])] {
        counts.take(&"a".into(), hostile, now);
    }
    assert!(counts.get("a", now).is_none());
    assert_eq!(reached.get(), 2);
    // Two in one moment.
    for number in [1, 2] {
        counts.take(&"a".into(), report(1, number, Vec::new()), now);
    }
    assert_eq!(reached.get(), 3);
    let largest = v1::EarlySums {
        latency: vec![u64::MAX; BUCKETS],
        waiting: vec![u32::MAX; BUCKETS],
        ..v1::EarlySums::default()
    };
    let largest = report(1, 9, vec![largest; MAX_SUMS]);
    for pod in 0..PODS {
        counts.take(&format!("pod-{pod}").into(), largest.clone(), now);
    }
    let state = counts.inner.state.lock();
    assert!(state.bytes <= MAX_BYTES && state.pods.len() > MAX_BYTES / (16 * 1024));
    let refused = PODS + 1 - state.pods.len();
    assert_eq!(reached.get(), 3 + refused as u64);
}

#[test]
fn own_pods_pass_in_messages_of_bounded_size() {
    let (there, here) = (
        EarlyCounts::new(Counter::default()),
        EarlyCounts::new(Counter::default()),
    );
    let start = Instant::now();
    let full = v1::EarlySums {
        latency: vec![u64::MAX; BUCKETS],
        ..row(80, Group::None, 1)
    };
    let full = report(1, 1, vec![full; MAX_SUMS]);
    for pod in 0..300 {
        there.take(&format!("pod-{pod}").into(), full.clone(), start);
    }
    let later = start + seconds(20);
    let (mut since, mut messages) = (0, 0);
    while let (next, Some(news)) = there.own_since(since, later) {
        assert!(news.encoded_len() < CHUNK + CHUNK / 8);
        here.receive(news.early, later);
        (since, messages) = (next, messages + 1);
    }
    assert!(messages > 1);
    assert_eq!(here.inner.state.lock().pods.len(), 300);
    assert_eq!(here.inner.state.lock().pods["pod-7"].at, start);
    // What comes later goes alone.
    there.take(&"pod-7".into(), report(1, 2, Vec::new()), later);
    let (_, news) = there.own_since(since, later);
    assert_eq!(news.unwrap().early[0].uid, "pod-7");
}
