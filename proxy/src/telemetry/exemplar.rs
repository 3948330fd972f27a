//! Of each bucket of a histogram, the last request in it that was recorded as a span: from
//! a slow bucket to a trace that was slow.
//!
//! The library of metrics has no way to give it exemplars of a histogram that is not its
//! own, so they are added to the lines of the page once it is written.
//!
//! Claims: observe-96

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use policy::latency::{BOUNDS, BUCKETS, bucket};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    pub trace: u128,
    pub took: Duration,
    pub at: SystemTime,
}

/// One for each bucket at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exemplars(Vec<(usize, Exemplar)>);

impl Exemplars {
    /// Keeps it in place of the one before it in its bucket.
    pub(crate) fn keep(&mut self, one: Exemplar) {
        let own = bucket(one.took.as_secs_f64());
        match self.0.iter_mut().find(|(bucket, _)| *bucket == own) {
            Some((_, kept)) => *kept = one,
            None => self.0.push((own, one)),
        }
    }

    /// Takes those over, which are newer.
    pub(crate) fn add(&mut self, newer: &Self) {
        for (_, one) in &newer.0 {
            self.keep(*one);
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, bucket: usize) -> Option<&Exemplar> {
        let found = self.0.iter().find(|(own, _)| *own == bucket);
        found.map(|(_, one)| one)
    }
}

/// The page with exemplars at the buckets of the histogram `name`; `series` has those of
/// its series, by their labels as the page writes them.
pub(crate) fn annotate(page: String, name: &str, series: &HashMap<String, Exemplars>) -> String {
    if series.is_empty() {
        return page;
    }
    let begin = format!("{name}_bucket{{le=\"");
    let mut annotated = String::with_capacity(page.len() + series.len() * 512);
    for line in page.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        annotated.push_str(bare);
        if let Some(one) = bare
            .strip_prefix(begin.as_str())
            .and_then(|rest| of_line(rest, series))
        {
            write(&mut annotated, one);
        }
        if bare.len() < line.len() {
            annotated.push('\n');
        }
    }
    annotated
}

/// Of `BOUND",LABELS} COUNT`.
fn of_line<'a>(rest: &str, series: &'a HashMap<String, Exemplars>) -> Option<&'a Exemplar> {
    let (bound, rest) = rest.split_once('"')?;
    let (labels, _) = rest.strip_prefix(',')?.rsplit_once("} ")?;
    let kept = series.get(labels)?;
    let at = match bound {
        "+Inf" => BUCKETS - 1,
        bound => {
            let bound: f64 = bound.parse().ok()?;
            BOUNDS.iter().position(|one| *one == bound)?
        }
    };
    kept.of(at)
}

fn write(page: &mut String, one: &Exemplar) {
    let at = one.at.duration_since(SystemTime::UNIX_EPOCH);
    let at = at.unwrap_or_default().as_secs_f64();
    let took = one.took.as_secs_f64();
    let _ = write!(
        page,
        " # {{trace_id=\"{:032x}\"}} {took} {at:.3}",
        one.trace
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(trace: u128, milliseconds: u64) -> Exemplar {
        Exemplar {
            trace,
            took: Duration::from_millis(milliseconds),
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
        }
    }

    #[test]
    fn last_bucket_exemplar_annotates_only_its_line() {
        let mut kept = Exemplars::default();
        for (trace, milliseconds) in [(1, 2), (2, 2), (3, 40_000)] {
            kept.keep(one(trace, milliseconds));
        }
        let series = HashMap::from([("service=\"a\"".to_owned(), kept)]);
        let page = "# TYPE took histogram\n\
            took_sum{service=\"a\"} 1.0\n\
            took_bucket{le=\"0.0013\",service=\"a\"} 0\n\
            took_bucket{le=\"0.0021\",service=\"a\"} 2\n\
            took_bucket{le=\"+Inf\",service=\"a\"} 3\n\
            took_bucket{le=\"0.0021\",service=\"b\"} 2\n\
            other_bucket{le=\"0.0021\",service=\"a\"} 2\n\
            # EOF\n";
        let annotated = annotate(page.to_owned(), "took", &series);
        let id = |trace| format!(" # {{trace_id=\"{trace:032x}\"}}");
        let expected = page
            .replace(
                "took_bucket{le=\"0.0021\",service=\"a\"} 2",
                &format!(
                    "took_bucket{{le=\"0.0021\",service=\"a\"}} 2{} 0.002 1.500",
                    id(2)
                ),
            )
            .replace("\"} 3\n", &format!("\"}} 3{} 40 1.500\n", id(3)));
        assert_eq!(annotated, expected);
        // Without any the page is what it was.
        assert_eq!(annotate(page.to_owned(), "took", &HashMap::new()), page);
    }
}
