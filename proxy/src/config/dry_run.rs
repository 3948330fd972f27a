//! Dry runs of rules: evaluates them for each call beside the rules in force, while a client reads
//! the result.
//!
//! Without a dry run a call reads one flag. With dry runs, each of them also evaluates the call
//! until its time is over, and counts whether its result differs. The result of the call is decided
//! before and does not change. The rows of counters are bounded; a call without a row of its own is
//! counted all the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use policy::access::Access;
use policy::access::dry_run::{EvaluationBudget, Tried};
use policy::http_match::RequestFacts;
use prost::Message as _;
use tokio::sync::mpsc;
use wire::v1;

use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::CellKey;
use crate::telemetry::labels::Direction;
use crate::telemetry::report::ends;

/// Ways that one dry run distinguishes, about 1 KiB each with their names. Calls of others are
/// counted together.
const ROWS: usize = 128;
/// Requests that one dry run reports one by one.
const EXAMPLES: u32 = 20;
/// Bytes of a method, and of a path, that are reported.
const METHOD: usize = 32;
const PATH: usize = 256;
/// Bytes that the patterns of a dry run are matched against, more than most requests have. An
/// evaluation is not broken off, and the time that it takes grows with these.
const MATCHED: usize = 4 * 1024;
/// Bytes of the rows in one part of what is counted. The controller takes messages of
/// 32 KiB.
const PART: usize = 24 * 1024;

/// A call that the rules in force have decided.
#[derive(Debug)]
pub(crate) struct EvaluatedCall<'a> {
    /// Where it is counted.
    pub(crate) key: CellKey,
    pub(crate) passes: bool,
    /// As rules see it; `None` for a connection of opaque bytes.
    pub(crate) request: Option<&'a RequestFacts<'a>>,
    /// How often patterns are run over it: once for each way in which its path can be read.
    pub(crate) runs: usize,
}

/// All dry runs of a proxy.
#[derive(Debug, Default)]
pub struct DryRuns {
    /// Whether there is any. Stale for a moment, which costs a look or a call that is not
    /// counted.
    any: AtomicBool,
    open: ArcSwap<Vec<Arc<DryRun>>>,
    /// Held while these two change, so that the flag is that of the last change.
    changing: Mutex<()>,
    /// Of all of them.
    spending: Mutex<EvaluationBudget>,
}

impl DryRuns {
    /// The only thing that a call reads without a dry run.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Begins to try rules; gives the examples of what they judge otherwise. Ends when what
    /// is returned is dropped.
    ///
    /// # Errors
    /// When they cannot be read, or are more than a proxy tries.
    pub fn begin(
        self: &Arc<Self>,
        request: &v1::TrialAsk,
    ) -> Result<(Running, mpsc::Receiver<v1::TrialExample>), String> {
        let candidate = wire::convert::candidate(request).map_err(|bad| bad.to_string())?;
        // There is room for all examples of a dry run.
        let (queue, examples) = mpsc::channel(EXAMPLES as usize);
        let dry_run = Arc::new(DryRun {
            headers: candidate.header_names(),
            candidate,
            queue,
            counts: Mutex::new(Counts {
                examples: request.examples.min(EXAMPLES),
                ..Counts::default()
            }),
        });
        self.change(|open| open.push(Arc::clone(&dry_run)));
        let dry_runs = Arc::clone(self);
        Ok((Running { dry_runs, dry_run }, examples))
    }

    /// Counts a call by what each of them would do with it, by `would_pass`.
    pub(crate) fn evaluate(
        &self,
        evaluated: &EvaluatedCall<'_>,
        would_pass: impl Fn(&Access) -> bool,
        clock: impl Fn() -> Instant,
    ) {
        let open = self.open.load();
        for dry_run in open.iter() {
            let started = clock();
            if !dry_run.is_short(evaluated) || !self.spending.lock().is_left(started) {
                dry_run.counts.lock().skipped += 1;
                continue;
            }
            let tried = Tried::of(evaluated.passes, would_pass(&dry_run.candidate));
            dry_run.note(evaluated, tried);
            let took = clock().saturating_duration_since(started);
            self.spending.lock().spend(took);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<DryRun>>)) {
        let _changing = self.changing.lock();
        let mut open = Vec::clone(&self.open.load());
        change(&mut open);
        self.any.store(!open.is_empty(), Ordering::Relaxed);
        self.open.store(Arc::new(open));
    }
}

/// One set of rules.
#[derive(Debug)]
struct DryRun {
    candidate: Access,
    /// That it looks at.
    headers: BTreeSet<String>,
    queue: mpsc::Sender<v1::TrialExample>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    rows: HashMap<CellKey, Row>,
    /// Calls that it skipped: they are too long, or there was no time.
    skipped: u64,
    /// Examples that may still be reported.
    examples: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    kept: u64,
    would_refuse: u64,
    would_allow: u64,
}

impl Counts {
    /// The row of a way: its own, or, where there are too many, that of all others. An empty
    /// route is written as none is, so both have one row: a reader takes the second of two equal
    /// rows for the newer one.
    fn row(&mut self, key: &CellKey) -> &mut Row {
        let mut key = key.clone();
        key.route = key.route.filter(|route| !route.is_empty());
        if self.rows.len() >= ROWS && !self.rows.contains_key(&key) {
            key.call_ends = CallEnds::Rest(Direction::inbound);
            key.route = None;
        }
        self.rows.entry(key).or_default()
    }
}

impl DryRun {
    /// Whether what patterns are run over is within the bound.
    fn is_short(&self, evaluated: &EvaluatedCall<'_>) -> bool {
        let Some(request) = evaluated.request else {
            return true;
        };
        let headers = self.headers.iter();
        let values = headers.flat_map(|name| request.headers.get_all(name));
        let values: usize = values.map(HeaderValue::len).sum();
        (request.path.len() + values) * evaluated.runs <= MATCHED
    }

    fn note(&self, evaluated: &EvaluatedCall<'_>, tried: Tried) {
        let mut counts = self.counts.lock();
        let row = counts.row(&evaluated.key);
        match tried {
            Tried::Kept => return row.kept += 1,
            Tried::WouldRefuse => row.would_refuse += 1,
            Tried::WouldAllow => row.would_allow += 1,
        }
        if let Some(request) = evaluated.request
            && counts.examples > 0
        {
            counts.examples -= 1;
            // The client may have left.
            let _ = self.queue.try_send(example(&evaluated.key, request, tried));
        }
    }
}

/// A dry run for as long as this lives.
#[derive(Debug)]
pub struct Running {
    dry_runs: Arc<DryRuns>,
    dry_run: Arc<DryRun>,
}

impl Running {
    /// What it came to so far, in parts that messages take.
    #[must_use]
    pub fn counts(&self) -> Vec<v1::TrialCounts> {
        let (rows, skipped) = {
            let counts = self.dry_run.counts.lock();
            let rows = counts.rows.iter().map(|(key, row)| (key.clone(), *row));
            (rows.collect::<Vec<(CellKey, Row)>>(), counts.skipped)
        };
        let part = || v1::TrialCounts {
            rows: Vec::new(),
            skipped,
        };
        let (mut parts, mut bytes) = (vec![part()], 0);
        for (key, row) in rows {
            let row = message(&key, row);
            // With the field's own head.
            let size = row.encoded_len() + 8;
            bytes += size;
            if bytes > PART {
                bytes = size;
                parts.push(part());
            }
            if let Some(part) = parts.last_mut() {
                part.rows.push(row);
            }
        }
        parts
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let own = &self.dry_run;
        self.dry_runs
            .change(|open| open.retain(|dry_run| !Arc::ptr_eq(dry_run, own)));
    }
}

fn message(key: &CellKey, row: Row) -> v1::TrialRow {
    v1::TrialRow {
        edge: Some(ends(&key.call_ends, key.protocol)),
        route: route(key),
        kept: row.kept,
        would_refuse: row.would_refuse,
        would_allow: row.would_allow,
    }
}

fn example(key: &CellKey, request: &RequestFacts<'_>, tried: Tried) -> v1::TrialExample {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    v1::TrialExample {
        at: u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
        edge: Some(ends(&key.call_ends, key.protocol)),
        route: route(key),
        method: cut(request.method.as_str(), METHOD),
        path: cut(request.path, PATH),
        would_allow: tried == Tried::WouldAllow,
    }
}

fn route(key: &CellKey) -> String {
    key.route.as_deref().unwrap_or_default().to_owned()
}

/// At most so many bytes, whole characters.
fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}

#[cfg(test)]
mod tests;
