//! `weft dry-run --watch`: has proxies evaluate live calls by the change as well.
//!
//! A stream of the API lasts 50 s at most. So the next one is requested until the time is over, and
//! the results are added up: each stream counts anew.
//!
//! Claims: observe-124

use std::collections::BTreeMap;
use std::time::Duration;

use crds::observe::{
    API_VERSION, Change, DryRun, DryRunSpec, Protocol, Resource, Trial, TriedEdge, TriedRequest,
};
use http::Request;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::cluster::response::Lines;
use crate::cluster::{Cluster, Refusal};
use crate::console::Console;
use crate::escape;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};

/// The longest stream of the API.
const EACH: Duration = Duration::from_secs(50);
/// After a stream that did not start, or broke: the controller may need a moment.
const PAUSE: Duration = Duration::from_secs(1);
/// How much longer than it should a stream is waited for.
const LATE: Duration = Duration::from_secs(15);
/// Requests that are shown one by one.
const EXAMPLES: usize = 20;
/// Edges and routes with a sum of their own, for any length of time.
const EDGES: usize = 10_000;

/// What there was in so long a time.
///
/// # Errors
/// When it cannot be watched.
pub(super) async fn watch(
    cluster: &Cluster,
    spec: &DryRunSpec,
    long: Duration,
    console: &mut Console<'_>,
) -> Result<Trial, Failure> {
    let until = Instant::now() + long;
    let mut sum = Sum::default();
    let mut failed = None;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let in_order = match begin(cluster, spec, left).await {
            Ok(lines) => {
                let limit = Instant::now() + left.min(EACH) + LATE;
                let (part, in_order) = follow((lines, limit), &mut sum.printed, console).await?;
                if let Some(part) = part {
                    sum.add(part);
                    // There is no proxy to wait for.
                    if sum.all.proxies == 0 {
                        break;
                    }
                }
                in_order
            }
            Err(refusal) if refusal.may_pass() => {
                let failure = refusal.into_failure();
                console.word(&failure.to_string())?;
                failed = Some(failure);
                false
            }
            Err(refusal) => return Err(refusal.into_failure()),
        };
        if !in_order {
            sleep_until((Instant::now() + PAUSE).min(until)).await;
        }
    }
    match failed {
        Some(failure) if sum.parts == 0 => Err(failure),
        _ => Ok(sum.trial()),
    }
}

async fn begin(cluster: &Cluster, spec: &DryRunSpec, left: Duration) -> Result<Lines, Refusal> {
    // Whole seconds, one at least.
    let seconds = left.min(EACH).as_millis().div_ceil(1_000);
    let spec = DryRunSpec {
        watch_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        ..spec.clone()
    };
    let request = request(cluster, spec)?;
    cluster.lines_of(WHAT, request).await
}

/// The last line of one stream, and whether it ended in order.
async fn follow(
    (mut lines, limit): (Lines, Instant),
    printed: &mut Option<(u32, u32)>,
    console: &mut Console<'_>,
) -> Result<(Option<Trial>, bool), Failure> {
    let mut newest: Option<Trial> = None;
    loop {
        let line = match timeout_at(limit, lines.next()).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => {
                let last = newest.as_ref().is_some_and(|newest| newest.last);
                return Ok((newest, last));
            }
            // This controller is gone, and another one may respond.
            Ok(Err(cut)) => {
                console.word(&cut.to_string())?;
                return Ok((newest, false));
            }
            Err(_) => {
                console.word(&format!("{WHAT}: no controller reports calls any more"))?;
                return Ok((newest, false));
            }
        };
        let trial: Trial = serde_json::from_slice(&line)
            .map_err(|error| Failure::unknown(format!("a line of the dry run: {error}")))?;
        // The first look comes before any proxy can have responded.
        let taking_part = (trial.taking_part, trial.proxies);
        if (newest.is_some() || trial.last) && *printed != Some(taking_part) && trial.proxies > 0 {
            console.word(&format!("{} of {} take part", taking_part.0, taking_part.1))?;
            *printed = Some(taking_part);
        }
        newest = Some(trial);
    }
}

/// The key of calls that are summed up.
type TriedEdgeKey = (String, String, u16, Protocol, String);

/// The sum of all streams.
#[derive(Debug, Default)]
struct Sum {
    /// How many streams had a line.
    parts: usize,
    /// How many take part, as it was printed.
    printed: Option<(u32, u32)>,
    all: Trial,
    edges: BTreeMap<TriedEdgeKey, TriedEdge>,
}

impl Sum {
    fn add(&mut self, part: Trial) {
        self.parts += 1;
        let all = &mut self.all;
        (all.proxies, all.taking_part) = (part.proxies, part.taking_part);
        for (count, more) in [
            (&mut all.judged, part.judged),
            (&mut all.refused, part.refused),
            (&mut all.allowed, part.allowed),
            (&mut all.skipped, part.skipped),
            (&mut all.hidden, part.hidden),
        ] {
            *count = count.saturating_add(more);
        }
        all.truncated |= part.truncated;
        all.examples.extend(part.examples);
        all.examples.truncate(EXAMPLES);
        all.reasons = part.reasons;
        for edge in part.edges {
            let key = (
                edge.from.clone(),
                edge.to.clone(),
                edge.port,
                edge.protocol,
                edge.route.clone(),
            );
            if let Some(total) = self.edges.get_mut(&key) {
                total.kept = total.kept.saturating_add(edge.kept);
                total.refused = total.refused.saturating_add(edge.refused);
                total.allowed = total.allowed.saturating_add(edge.allowed);
            } else if self.edges.len() < EDGES {
                self.edges.insert(key, edge);
            } else {
                self.all.truncated = true;
            }
        }
    }

    /// All of it, those edges first of which most would be refused.
    fn trial(self) -> Trial {
        let mut edges: Vec<TriedEdge> = self.edges.into_values().collect();
        edges.sort_by_key(|edge| std::cmp::Reverse((edge.refused, edge.allowed)));
        Trial { edges, ..self.all }
    }
}

/// Prints what live calls there were.
///
/// # Errors
/// When the output is closed.
pub(super) fn print(trial: &Trial, console: &mut Console<'_>) -> Result<(), Failure> {
    if trial.proxies == 0 && trial.reasons.is_empty() {
        console
            .word("the change gives no proxy other rules, so no live call is evaluated by it")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        "LIVE", "FROM", "TO", "PORT", "ROUTE", "REFUSED", "ALLOWED", "KEPT",
    ]);
    for edge in &trial.edges {
        let change = match (edge.refused, edge.allowed) {
            (0, 0) => continue,
            (0, _) => Change::Allowed,
            _ => Change::Refused,
        };
        let port = match edge.port {
            0 => "-".to_owned(),
            port => port.to_string(),
        };
        let row: Vec<Cell> = vec![
            change.as_str().into(),
            edge.from.as_str().into(),
            edge.to.as_str().into(),
            port.into(),
            edge.route.as_str().into(),
            edge.refused.to_string().into(),
            edge.allowed.to_string().into(),
            edge.kept.to_string().into(),
        ];
        table.row(row);
    }
    if table.is_empty() {
        console.line("no live call that is reported has another verdict")?;
    } else {
        table.write(console.out, console.color)?;
    }
    for example in &trial.examples {
        console.line(&escape::plain(&words(example)))?;
    }
    if trial.truncated {
        console.word("there are more edges; these are the worst")?;
    }
    if trial.hidden > 0 {
        console.word(&format!(
            "{} of the calls are in namespaces whose graphs you may not read",
            trial.hidden
        ))?;
    }
    for reason in &trial.reasons {
        console.word(&format!("some proxies take no part: {reason}"))?;
    }
    console.word(&format!(
        "{} live calls were evaluated by the change: {} of them pass and would be refused, {} would \
         be let in; {} more were not evaluated by it",
        trial.judged, trial.refused, trial.allowed, trial.skipped
    ))?;
    Ok(())
}

/// One request on one line.
fn words(example: &TriedRequest) -> String {
    let time = example.time.split_once('T').map_or("", |(_, time)| time);
    let mut line = format!(
        "{time} {} {} {} {} -> {}:{}",
        example.change.as_str(),
        example.method,
        example.path,
        example.from,
        example.to,
        example.port,
    );
    if !example.route.is_empty() {
        line.push_str(" route=");
        line.push_str(&example.route);
    }
    line
}

/// The name of the resource in messages.
pub(super) const WHAT: &str = Resource::DryRuns.plural();

/// The request for this spec.
///
/// # Errors
/// When it cannot be written.
pub(super) fn request(cluster: &Cluster, spec: DryRunSpec) -> Result<Request<Vec<u8>>, Refusal> {
    let question = DryRun {
        api_version: API_VERSION.to_owned(),
        kind: Resource::DryRuns.kind().to_owned(),
        spec,
        status: None,
    };
    let body = serde_json::to_vec(&question);
    let body = body.map_err(|error| Refusal::of(WHAT, kube::Error::SerdeError(error)))?;
    let path = Resource::DryRuns.path(Some(cluster.namespace()), None);
    Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| Refusal::of(WHAT, kube::Error::HttpError(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Streams;

    fn part(refused: u64, route: &str) -> Trial {
        let edge = TriedEdge {
            from: "shop/Deployment/web".to_owned(),
            to: "shop/Deployment/cart".to_owned(),
            port: 8080,
            protocol: Protocol::Http1,
            route: route.to_owned(),
            kept: 10,
            refused,
            allowed: 0,
        };
        let example = TriedRequest {
            time: "2026-11-02T09:00:00Z".to_owned(),
            change: Change::Refused,
            from: edge.from.clone(),
            to: edge.to.clone(),
            port: 8080,
            route: route.to_owned(),
            method: "GET".to_owned(),
            path: "/items\u{1b}[2J\n/forged".to_owned(),
        };
        Trial {
            proxies: 3,
            taking_part: 2,
            judged: 10 + refused,
            refused,
            skipped: 4,
            hidden: 1,
            examples: vec![example; 15],
            edges: vec![edge],
            reasons: vec!["older".to_owned()],
            last: true,
            ..Trial::default()
        }
    }

    fn together() -> Trial {
        let mut sum = Sum::default();
        for (refused, route) in [(1, "cart/read"), (5, "cart/write"), (2, "cart/read")] {
            sum.add(part(refused, route));
        }
        sum.trial()
    }

    #[test]
    fn watch_results_of_streams_are_summed_per_edge() {
        let all = together();
        assert_eq!((all.judged, all.refused, all.skipped), (38, 8, 12));
        assert_eq!((all.proxies, all.taking_part, all.hidden), (3, 2, 3));
        let edges: Vec<(&str, u64, u64)> = all
            .edges
            .iter()
            .map(|edge| (edge.route.as_str(), edge.refused, edge.kept))
            .collect();
        assert_eq!(edges, [("cart/write", 5, 10), ("cart/read", 3, 20)]);
        assert_eq!(all.examples.len(), EXAMPLES);
        assert!(!all.last, "that was of one stream");
    }

    #[test]
    fn hidden_port_is_printed_as_dash() {
        for (port, shown) in [(0, "-"), (8080, "8080")] {
            let mut trial = part(1, "cart/read");
            trial.edges[0].port = port;
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut console = Console {
                input: &mut std::io::empty(),
                out: &mut out,
                err: &mut err,
                color: false,
            };
            print(&trial, &mut console).unwrap();
            let out = String::from_utf8(out).unwrap();
            let row = out.lines().nth(1).unwrap_or_default();
            assert_eq!(row.split_whitespace().nth(3), Some(shown), "{out}");
        }
    }

    #[test]
    fn watched_calls_are_printed_without_terminal_escapes() {
        let printed = |trial: &Trial| {
            let mut streams = Streams::default();
            let mut console = streams.console();
            print(trial, &mut console).unwrap();
            streams.texts()
        };
        let (out, err) = printed(&together());
        assert_eq!(out.lines().count(), 1 + 2 + EXAMPLES, "{out}");
        assert!(!out.contains('\u{1b}'), "{out:?}");
        let row = out.lines().nth(1).unwrap_or_default();
        let row: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(row[..2], ["refused", "shop/Deployment/web"], "{out}");
        assert_eq!(row[4..], ["cart/write", "5", "0", "10"], "{out}");
        assert!(out.contains("09:00:00Z refused GET /items"), "{out}");
        for word in [
            "38 live calls",
            "8 of them pass",
            "12 more",
            "older",
            "3 of the calls",
        ] {
            assert!(err.contains(word), "{word}: {err}");
        }
        let (out, err) = printed(&Trial::default());
        assert!(
            out.is_empty() && err.contains("no proxy other rules"),
            "{err}"
        );
    }
}
