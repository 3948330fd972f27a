//! Counts the calls of the stable revision and of the candidate between two looks, from the sums of
//! their pods' early reports.
//!
//! A look gets the difference to the look before. A pod that is seen for the first time counts
//! nothing yet: what it counted before may have been judged already, by the holder of the Lease
//! before this one. A pod that counts anew, in another epoch, counts from there.
//!
//! Calls are counted at the ports behind the release's Service; probes and scrapes of other ports
//! say nothing of it. Copies count in mirror steps alone, and of the candidate alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use automation::judge::Counts;
use automation::judge::latency::{Recent, Sample, SlowCalls, Threshold};
use automation::release::{SetCounts, Thresholds};
use policy::latency::Histogram;
use tokio::time::Instant;

use crate::observe::early::{EarlyCounts, Group, PodSums, Sums};

/// Calls of an experiment's groups are calls all the same.
const CALLS: [Group; 3] = [Group::None, Group::Control, Group::Harmed];

/// A pod whose calls are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CountedPod {
    pub(super) uid: Arc<str>,
    pub(super) is_candidate: bool,
    /// It is beyond its warm-up: how long its calls take says something of it.
    pub(super) is_warm: bool,
}

/// How a look counts.
#[derive(Clone, Debug)]
pub(super) struct Counting<'a> {
    pub(super) early: &'a EarlyCounts,
    /// Container ports behind the Service; empty: all.
    pub(super) ports: &'a BTreeSet<u16>,
    pub(super) thresholds: Thresholds,
    /// The step sends copies to the candidate.
    pub(super) mirrors: bool,
    /// Since 1970.
    pub(super) now: Duration,
}

/// The new calls of both sets, and the stable set's latencies of the last minute.
#[derive(Clone, Debug, Default)]
pub(super) struct NewCalls {
    pub(super) stable: SetCounts,
    pub(super) candidate: SetCounts,
    pub(super) recent: Option<Histogram>,
}

/// What was counted so far in one release.
#[derive(Debug, Default)]
pub(super) struct ReleaseCounts {
    /// By uid.
    pods: HashMap<Arc<str>, CountedSums>,
    recent: Recent,
}

/// The sums of one pod at the last look.
#[derive(Debug)]
struct CountedSums {
    epoch: u64,
    sums: Sums,
    slow: SlowCalls,
    slow_max: SlowCalls,
}

impl ReleaseCounts {
    /// The calls since the look before.
    pub(super) fn look(&mut self, pods: &[CountedPod], counting: &Counting<'_>) -> NewCalls {
        let at = Instant::now();
        let mut new = NewCalls::default();
        let mut before = std::mem::take(&mut self.pods);
        for pod in pods {
            let former = before.remove(&pod.uid);
            let Some(read) = counting.early.get(&pod.uid, at) else {
                // It may be late: the next report holds its calls too.
                self.pods
                    .extend(former.map(|former| (Arc::clone(&pod.uid), former)));
                continue;
            };
            let sums = sums(&read, counting, pod.is_candidate);
            let (mut counted, calls) = follow(former, read.epoch, sums);
            let set = if pod.is_candidate {
                &mut new.candidate
            } else {
                self.recent.add(counting.now, &calls.latency);
                &mut new.stable
            };
            set.errors.add(calls.counts);
            let slow = |slow: &mut SlowCalls, sums: &Sums, threshold: Option<Threshold>| {
                let sample = Sample {
                    latency: &sums.latency,
                    cancelled: sums.cancelled,
                    waiting: &sums.waiting,
                };
                let counts = threshold.map(|threshold| slow.look(sample, threshold));
                counts.filter(|_| pod.is_warm).unwrap_or_default()
            };
            let Thresholds { tolerance, max } = counting.thresholds;
            let (slow_calls, slow_max) = (&mut counted.slow, &mut counted.slow_max);
            set.latency.add(slow(slow_calls, &counted.sums, tolerance));
            set.latency_max.add(slow(slow_max, &counted.sums, max));
            self.pods.insert(Arc::clone(&pod.uid), counted);
        }
        new.recent = self.recent.histogram(counting.now);
        new
    }
}

/// The calls since the look before of one pod.
#[derive(Debug, Default)]
struct PodCalls {
    counts: Counts,
    latency: Histogram,
}

fn follow(former: Option<CountedSums>, epoch: u64, sums: Sums) -> (CountedSums, PodCalls) {
    let Some(former) = former else {
        let first = CountedSums {
            epoch,
            sums,
            slow: SlowCalls::default(),
            slow_max: SlowCalls::default(),
        };
        return (first, PodCalls::default());
    };
    if former.epoch == epoch {
        let calls = difference(&former.sums, &sums);
        return (CountedSums { sums, ..former }, calls);
    }
    let calls = difference(&Sums::default(), &sums);
    let anew = CountedSums {
        epoch,
        sums,
        slow: SlowCalls::default(),
        slow_max: SlowCalls::default(),
    };
    (anew, calls)
}

fn difference(before: &Sums, after: &Sums) -> PodCalls {
    let mut latency = Histogram::default();
    let old = before.latency.counts().iter().copied();
    let old = old.chain(std::iter::repeat(0));
    let new = after.latency.counts().iter().zip(old);
    latency.add(new.map(|(new, old)| new.saturating_sub(old)));
    let calls = after.calls.saturating_sub(before.calls);
    PodCalls {
        counts: Counts {
            calls,
            bad: after.failed.saturating_sub(before.failed).min(calls),
        },
        latency,
    }
}

fn sums(read: &PodSums, counting: &Counting<'_>, is_candidate: bool) -> Sums {
    let is_meant = |port: u16| counting.ports.is_empty() || counting.ports.contains(&port);
    let copies = (counting.mirrors && is_candidate).then_some(Group::Copies);
    let mut all = Sums::default();
    for group in CALLS.into_iter().chain(copies) {
        all.add(&read.of(group, is_meant));
    }
    all
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use wire::v1;

    use super::*;

    /// Reports of pods, and what is counted of them.
    struct Bench {
        early: EarlyCounts,
        counts: ReleaseCounts,
        number: u64,
        mirrors: bool,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                early: EarlyCounts::new(Counter::default()),
                counts: ReleaseCounts::default(),
                number: 0,
                mirrors: false,
            }
        }

        /// The pod has counted so many calls and failures at this port since its epoch.
        fn report(&mut self, uid: &str, epoch: u64, rows: &[(u32, Group, u64, u64)]) {
            self.number += 1;
            let sums = rows
                .iter()
                .map(|(port, group, calls, failed)| v1::EarlySums {
                    port: *port,
                    group: (*group).into(),
                    calls: *calls,
                    failed: *failed,
                    latency: vec![*calls],
                    ..v1::EarlySums::default()
                });
            let report = v1::EarlyReport {
                epoch,
                number: self.number,
                sums: sums.collect(),
            };
            self.early.take(&uid.into(), report, Instant::now());
        }

        fn look(&mut self, pods: &[(&str, bool)]) -> NewCalls {
            let pods: Vec<CountedPod> = pods
                .iter()
                .map(|(uid, is_candidate)| CountedPod {
                    uid: (*uid).into(),
                    is_candidate: *is_candidate,
                    is_warm: true,
                })
                .collect();
            let counting = Counting {
                early: &self.early,
                ports: &BTreeSet::from([8080]),
                thresholds: Thresholds::default(),
                mirrors: self.mirrors,
                now: Duration::from_secs(self.number),
            };
            self.counts.look(&pods, &counting)
        }
    }

    async fn pass() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    fn counts(calls: u64, bad: u64) -> Counts {
        Counts { calls, bad }
    }

    #[tokio::test(start_paused = true)]
    async fn look_gets_calls_since_look_before() {
        let mut bench = Bench::new();
        let pods = [("old", false), ("new", true)];
        bench.report("old", 1, &[(8080, Group::None, 1000, 10)]);
        bench.report("new", 1, &[(8080, Group::None, 50, 5)]);
        let first = bench.look(&pods);
        assert_eq!(first.stable.errors, counts(0, 0), "judged before, maybe");
        pass().await;
        bench.report("old", 1, &[(8080, Group::None, 1100, 11)]);
        bench.report("new", 1, &[(8080, Group::None, 60, 9)]);
        let second = bench.look(&pods);
        assert_eq!(second.stable.errors, counts(100, 1));
        assert_eq!(second.candidate.errors, counts(10, 4));
        let third = bench.look(&pods);
        assert_eq!(third.stable.errors, counts(0, 0), "nothing twice");
    }

    #[tokio::test(start_paused = true)]
    async fn pod_that_counts_anew_counts_from_there() {
        let mut bench = Bench::new();
        let pods = [("new", true)];
        bench.report("new", 1, &[(8080, Group::None, 50, 5)]);
        bench.look(&pods);
        pass().await;
        bench.report("new", 2, &[(8080, Group::None, 7, 3)]);
        assert_eq!(bench.look(&pods).candidate.errors, counts(7, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn late_report_loses_no_calls() {
        let mut bench = Bench::new();
        let pods = [("new", true)];
        bench.report("new", 1, &[(8080, Group::None, 50, 5)]);
        bench.look(&pods);
        // Longer than a pod of which nothing comes is known.
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(bench.look(&pods).candidate.errors, counts(0, 0));
        bench.report("new", 1, &[(8080, Group::None, 58, 6)]);
        assert_eq!(bench.look(&pods).candidate.errors, counts(8, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn other_ports_and_copies_count_nothing() {
        let mut bench = Bench::new();
        let pods = [("old", false), ("new", true)];
        let rows = |calls: u64| {
            [
                (8080, Group::None, calls, 0),
                (8080, Group::Copies, 10 * calls, 0),
                (9090, Group::None, 100 * calls, 0),
            ]
        };
        let mut mirrored = false;
        for expected in [counts(1, 0), counts(11, 0)] {
            bench.counts = ReleaseCounts::default();
            bench.mirrors = mirrored;
            for calls in [1, 2] {
                pass().await;
                bench.report("old", 1, &rows(calls));
                bench.report("new", 1, &rows(calls));
                let new = bench.look(&pods);
                if calls == 2 {
                    assert_eq!(new.stable.errors, counts(1, 0));
                    assert_eq!(new.candidate.errors, expected, "mirrors: {mirrored}");
                }
            }
            mirrored = true;
        }
    }
}
