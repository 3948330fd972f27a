//! `weft dry-run`: shows what a change would mean for recorded calls and, with `--watch`, for live
//! ones.

mod absent;
mod collected;
mod conclusion;
mod taken_away;
mod watch;

pub(super) use conclusion::{Advice, conclude};

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::Args;
use crds::labels;
use crds::observe::{
    AccessChange, BackendShare, Change, ChangedEdge, DryRun as DryRunObject, DryRunSpec,
    DryRunStatus,
};

use self::collected::{CollectedChange, caution, deleted};
use self::conclusion::{is_of_nothing, tried};
use super::ClusterCommand;
use crate::cluster::{Cluster, Refusal};
use crate::console::Console;
use crate::escape;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::table::{Cell, Table};
use crate::output::{self, Format, NARROW, number};

/// In less than a report's pace hardly a call is seen, and in no time none.
const SHORTEST: Duration = Duration::from_secs(1);
const ADVICE: Advice = Advice {
    live: "--watch 60s evaluates live calls",
    less: "try a smaller change",
};

/// Arguments of `weft dry-run`.
#[derive(Args, Debug)]
#[command(
    about = "Say which calls a change would refuse, allow or lead elsewhere",
    long_about = "Lays a change over the cluster without making it, and compares what becomes of \
                  every call that the mesh has recorded. depends: that is decided by each request's \
                  method, path or headers, which are not recorded. With --watch the proxies of \
                  called pods evaluate live calls by the change too, for so long, and enforce nothing \
                  of it. The user must be allowed to make the change. An object of a namespace \
                  that is neither there nor in the files is bad input, and so is a kind or a \
                  version that a group of SMI or of Weft does not have. Exit status 1 if a call \
                  that was seen would be refused, or a workload that refuses calls now would be \
                  open to every caller. Else 3 if the mesh has recorded no call that can be evaluated, or \
                  could not compare them all; if calls depend, and none of the same caller to the \
                  same port was evaluated live; if calls depend in namespaces whose graphs the user \
                  may not read, or the controller is older and does not say whether they do; if \
                  with --watch not every proxy that the change concerns evaluated live calls, or some \
                  were skipped for want of time; or if the files hold what decides about calls and \
                  is not tried, such as weft.dev/mtls of a Namespace or weft.dev/opaque-ports of a \
                  pod template, or if a Namespace in them lacks such an annotation or label that \
                  was applied to it.",
    after_help = "Example:\n  weft dry-run -f policy.yaml -n shop"
)]
pub(crate) struct DryRun {
    /// Manifests that would be applied; - is the standard input
    #[arg(short, long = "filename", value_name = "FILE", num_args = 1..)]
    files: Vec<String>,
    /// An object that would be deleted, such as TrafficTarget/read or tt/read
    #[arg(long, value_name = "KIND/NAME")]
    delete: Vec<String>,
    /// Access mode that the namespace would have: deny, auto, open or audit
    #[arg(long, value_name = "MODE")]
    access: Option<String>,
    /// Judge live calls by the change too, for so long, such as 60s
    #[arg(long, value_name = "TIME", value_parser = number::at_least(SHORTEST), allow_hyphen_values = true)]
    watch: Option<Duration>,
}

impl ClusterCommand for DryRun {
    const FORMATS: &'static [Format] = NARROW;

    fn must_be_readable(&self, global: &Global) -> Result<(), Failure> {
        global.in_one_namespace("a change is made in one namespace")
    }

    /// Prints what would change in this cluster.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let mut collected = self.collected(cluster.namespace(), console)?;
        taken_away::note(cluster, &mut collected, console).await?;
        let mut answer = submit(cluster, &mut collected, console).await?;
        let Some(mut status) = answer.status.take() else {
            return Err(Failure::unknown("the dry run has no status"));
        };
        absent::must_have_namespaces(cluster, &collected, &status).await?;
        if is_of_nothing(&status) && self.watch.is_none() {
            let why = "the mesh has recorded no call, so nothing is known of this change";
            return Err(Failure::unknown(why));
        }
        if format == Format::Table {
            print(&status, cluster.now(now), console)?;
        }
        if let Some(long) = self.watch {
            let trial = watch::watch(cluster, &collected.spec, long, console).await?;
            if format == Format::Table {
                watch::print(&trial, console)?;
            }
            status.trial = Some(trial);
        }
        let conclusion = tried(conclude(&status, ADVICE), collected.untried);
        answer.status = Some(status);
        output::data(console, format, &answer)?;
        conclusion
    }
}

impl DryRun {
    fn collected(
        &self,
        namespace: &str,
        console: &mut Console<'_>,
    ) -> Result<CollectedChange, Failure> {
        let mut collected = CollectedChange::default();
        for name in &self.files {
            collected.read(name, namespace, console)?;
        }
        let spec = &mut collected.spec;
        for text in &self.delete {
            let gone = deleted(text, namespace)?;
            caution(&gone.kind, &gone.name, console)?;
            spec.delete.push(gone);
        }
        spec.access
            .extend(self.access.iter().map(|mode| AccessChange {
                namespace: namespace.to_owned(),
                mode: mode.clone(),
            }));
        collected.must_try_something()?;
        Ok(collected)
    }
}

/// Submits a change to the API. The API refuses modes of namespaces that do not exist: those that
/// the files themselves create are skipped, and the rest is tried.
///
/// # Errors
/// When the API does not respond, the change is refused, or nothing of it is left.
async fn submit(
    cluster: &Cluster,
    collected: &mut CollectedChange,
    console: &mut Console<'_>,
) -> Result<DryRunObject, Failure> {
    loop {
        let refusal = match submit_to(cluster, collected.spec.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(refusal) => refusal,
        };
        let new = absent::yet_to_be_made(cluster, collected, &refusal).await;
        if new.is_empty() {
            return Err(absent::or_refused(cluster, &collected.spec, refusal).await);
        }
        collected.leave_out(&new, console)?;
    }
}

pub(super) async fn submit_to(
    cluster: &Cluster,
    spec: DryRunSpec,
) -> Result<DryRunObject, Refusal> {
    let request = watch::request(cluster, spec)?;
    cluster.try_request(watch::WHAT, request).await
}

pub(super) fn print(
    status: &DryRunStatus,
    now: SystemTime,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    for warning in &status.warnings {
        console.word(&format!("warning: {warning}"))?;
    }
    for node in &status.opened {
        console.line(&escape::plain(&opened(node)))?;
    }
    if status.hidden_opened > 0 {
        console.word(&format!(
            "{} more workloads are opened to every caller in namespaces whose graphs you may not read",
            status.hidden_opened
        ))?;
    }
    if !status.opened.is_empty() || status.hidden_opened > 0 {
        console.word(&format!(
            "to keep it closed, leave a TrafficTarget that names its account, or annotate the \
             Namespace {}: deny",
            labels::ACCESS
        ))?;
    }
    let mut table = Table::new(&["CHANGE", "FROM", "TO", "SERVICE", "PORT", "LAST", "WHY"]);
    for edge in merged(&status.changed) {
        let row: Vec<Cell> = vec![
            edge.change.as_str().into(),
            edge.from.as_str().into(),
            edge.to.as_str().into(),
            edge.service.as_str().into(),
            edge.port.to_string().into(),
            last(&edge, now).into(),
            why(&edge).into(),
        ];
        table.row(row);
    }
    let mut listed = status.changed.iter();
    if listed.all(|edge| edge.change == Change::Unknown) {
        console.line("no call that can be evaluated changes")?;
    }
    if !table.is_empty() {
        table.write(console.out, console.color)?;
    }
    if status.truncated {
        console.word("there are more; these are the worst")?;
    }
    if status.hidden > 0 {
        let depend = match status.hidden_depends {
            Some(edges) => format!("{edges} depend"),
            None => "it is not known how many depend".to_owned(),
        };
        console.word(&format!(
            "{} more edges change in namespaces whose graphs you may not read: {} are refused, and \
             {depend} on the request",
            status.hidden, status.hidden_refused
        ))?;
    }
    console.word(&format!(
        "{} edges stay as they are; of {} nothing is known, since no pod of one end runs now, it \
         is outside the cluster or its port is not known",
        status.kept, status.unknown
    ))?;
    Ok(())
}

/// Edges that a row distinguishes, each with when it was last seen. Those that differ by protocol or
/// backend alone are one row.
fn merged(edges: &[ChangedEdge]) -> Vec<ChangedEdge> {
    let mut rows: Vec<ChangedEdge> = Vec::new();
    let mut numbers = BTreeMap::new();
    for edge in edges {
        let ends = (edge.from.as_str(), edge.to.as_str());
        let called = (edge.service.as_str(), edge.port);
        let number = numbers
            .entry((edge.change, ends, called, why(edge)))
            .or_insert(rows.len());
        match rows.get_mut(*number) {
            // RFC 3339 of one zone sorts by time.
            Some(row) if row.last_seen < edge.last_seen => {
                row.last_seen.clone_from(&edge.last_seen);
            }
            Some(_) => {}
            None => rows.push(edge.clone()),
        }
    }
    rows
}

/// What becomes of a workload, by its id in the graph.
fn opened(node: &str) -> String {
    let mut parts = node.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(namespace), Some(kind), Some(name)) => format!(
            "opens {kind} {name} to every caller in namespace {namespace}: calls that no rule \
             allows are refused there now, and would pass"
        ),
        _ => format!("opens {node} to every caller"),
    }
}

fn last(edge: &ChangedEdge, now: SystemTime) -> String {
    let last = edge.last_seen.parse::<k8s_openapi::jiff::Timestamp>().ok();
    // The cluster's clock has whole seconds.
    let ago = last.map(|last| now.duration_since(last.into()).unwrap_or_default());
    ago.map(number::age).unwrap_or_default()
}

fn why(edge: &ChangedEdge) -> String {
    let mut words = Vec::new();
    if !edge.reason.is_empty() {
        words.push(edge.reason.clone());
    }
    match edge.change {
        Change::Depends => words.push("depends on the request".to_owned()),
        Change::Unknown => words.push("no pod of one end runs now".to_owned()),
        Change::Refused | Change::Rerouted | Change::Allowed => {}
    }
    if edge.before != edge.after {
        words.push(format!(
            "{} -> {}",
            shares(&edge.before),
            shares(&edge.after)
        ));
    }
    escape::plain(&words.join("; "))
}

fn shares(shares: &[BackendShare]) -> String {
    let shares = shares.iter();
    let shares: Vec<String> = shares
        .map(|one| format!("{} {}", one.service, number::percent(one.share)))
        .collect();
    if shares.is_empty() {
        "nowhere".to_owned()
    } else {
        shares.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use crds::observe::Protocol;

    use super::*;
    use crate::console::Streams;

    // Claims: observe-110
    #[test]
    fn opened_workload_is_printed_before_calls() {
        let mut streams = Streams::default();
        let status = DryRunStatus {
            kept: 1,
            opened: vec!["shop/Deployment/cart".to_owned()],
            hidden_opened: 2,
            ..DryRunStatus::default()
        };
        print(&status, SystemTime::now(), &mut streams.console()).unwrap();
        let (out, err) = streams.texts();
        let line = "opens Deployment cart to every caller in namespace shop";
        assert!(out.starts_with(line), "{out}");
        assert!(err.contains("2 more workloads are opened"), "{err}");
        assert!(err.contains("weft.dev/access: deny"), "{err}");
    }

    #[test]
    fn edges_that_differ_by_protocol_are_one_row() {
        let edge = |protocol: Protocol, port: u16, last_seen: &str| ChangedEdge {
            change: Change::Refused,
            from: "shop/Deployment/web".to_owned(),
            to: "shop/Deployment/cart".to_owned(),
            port,
            protocol,
            last_seen: last_seen.to_owned(),
            ..ChangedEdge::default()
        };
        let edges = [
            edge(Protocol::Http1, 80, "2026-01-01T00:00:00Z"),
            edge(Protocol::Http2, 80, "2026-01-01T00:09:00Z"),
            edge(Protocol::Http1, 81, "2026-01-01T00:00:00Z"),
        ];
        let rows = merged(&edges);
        let shown: Vec<(u16, &str)> = rows.iter().map(|row| (row.port, &*row.last_seen)).collect();
        let expected = [(80, "2026-01-01T00:09:00Z"), (81, "2026-01-01T00:00:00Z")];
        assert_eq!(shown, expected);
    }

    #[test]
    fn caller_that_does_not_run_now_is_named() {
        let mut streams = Streams::default();
        let mut console = streams.console();
        let gone = ChangedEdge {
            change: Change::Unknown,
            from: "shop/Job/nightly".to_owned(),
            ..ChangedEdge::default()
        };
        let status = DryRunStatus {
            unknown: 1,
            changed: vec![gone],
            ..DryRunStatus::default()
        };
        print(&status, SystemTime::now(), &mut console).unwrap();
        let (out, err) = streams.texts();
        for word in [
            "no call that can be evaluated changes",
            "unknown",
            "shop/Job/nightly",
        ] {
            assert!(out.contains(word), "{word}: {out}");
        }
        assert!(err.contains("of 1 nothing is known"), "{err}");
    }
}
