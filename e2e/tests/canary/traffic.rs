//! Traffic to a canary until the rollout ends, whose duration is not known beforehand.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use e2e::harness::Pod;

/// Length of one period of load; the most that goes on after the end.
const PERIOD: &str = "5s";
/// Requests per second, unless fewer are asked for.
pub(crate) const RATE: &str = "15";

/// What came back so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrafficResult {
    pub(crate) planned: u64,
    pub(crate) by_status: BTreeMap<String, u64>,
    pub(crate) by_version: BTreeMap<String, u64>,
    pub(crate) errors: BTreeMap<String, u64>,
}

/// So many requests a second in periods, until it is finished or dropped.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<TrafficResult>>>,
}

impl Traffic {
    pub(crate) fn start(from: Pod, url: String, rate: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut seen = TrafficResult::default();
            while !stopped.load(Ordering::Relaxed) {
                let result = from.get(&url, &["--rate", rate, "--duration", PERIOD, "-c", "2"]);
                // Seen at once: the client of a release reports only that it finds no values.
                let result =
                    result.inspect_err(|error| eprintln!("load of {url} ended: {error:#}"))?;
                seen.planned += result.planned;
                add(&mut seen.by_status, result.by_status);
                add(&mut seen.by_version, result.by_version);
                add(&mut seen.errors, result.errors);
            }
            Ok(seen)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it and returns the results.
    pub(crate) fn finish(mut self) -> anyhow::Result<TrafficResult> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(seen)) => seen,
            _ => anyhow::bail!("the thread that makes traffic panicked"),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn add(sum: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>) {
    for (key, count) in more {
        *sum.entry(key).or_default() += count;
    }
}
