//! `weft stat`: shows success rate, request rate and latency of objects, as called or as callers.

mod groups;
mod listed;
mod pods;

use std::time::{Duration, SystemTime};

use clap::Args;
use kube::core::{DynamicObject, ObjectList};

use self::groups::{Asked, Group, Weights};
use super::ClusterCommand;
use crate::cluster::Cluster;
use crate::cluster::names::{Named, ResourceKind, counted_kinds};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::table::{Cell, Table};
use crate::output::{self, COMMON, Format, number};
use crate::traffic::select::ENDS;
use crate::traffic::{IndexedGraph, Question, WINDOWS, known};

/// Kinds that have numbers.
pub(super) const KINDS: &[ResourceKind] = counted_kinds!(TrafficSplit);
/// Why a port of a caller is refused.
const CALLER: &str = "a caller has no port";
/// Between two tables of a watch: the reports' own pace.
const EACH: Duration = Duration::from_secs(5);
/// The same after looks without a response: controllers may be away for long, and a terminal left
/// open then costs nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Arguments of `weft stat`.
#[derive(Args, Debug)]
#[command(
    about = "Show success, rate and latency of objects",
    long_about = "Shows what objects served in the last window: share of success, requests per \
                  second, latency, what is open, what policies refused, and what failed besides. \
                  What has pods and was not called has a row too, unless --from or --to asks for \
                  the calls between some ends. With --to what they called. Of a TrafficSplit each \
                  backend with its wanted weight and its observed share, called or not. Of pods \
                  the metrics API reports what was sent to each, every try by itself, as their \
                  callers saw it, with p90 for p95 and nothing of what is open or refused; with \
                  --from and --to, and without an answer of that API, the pods of a workload are \
                  counted under it. Where several edges are one row, latency is estimated from \
                  theirs. -o json and yaml print the edges of these rows, the nodes at their ends \
                  and those of the other rows.",
    after_help = "Example:\n  weft stat deploy -n shop"
)]
pub(crate) struct Stat {
    /// KIND or KIND/NAME: deploy, sts, ds, job, cj, ro, rs, rc, pod, svc, ns, ts
    #[arg(value_name = "KIND[/NAME]")]
    resource: String,
    /// Only calls from this
    #[arg(long, value_name = "KIND/NAME")]
    from: Option<String>,
    /// Only calls to this; rows are then the callers
    #[arg(long, value_name = "KIND/NAME")]
    to: Option<String>,
    /// Length of the window, 10s to 5m
    #[arg(short = 't', long, value_name = "TIME", default_value = "1m", value_parser = number::between(WINDOWS), allow_hyphen_values = true)]
    window: Duration,
    /// Again every five seconds, later without a response, until it is stopped or refused
    #[arg(short, long)]
    watch: bool,
}

impl ClusterCommand for Stat {
    const FORMATS: &'static [Format] = COMMON;

    fn must_be_readable(&self, _: &Global) -> Result<(), Failure> {
        self.requested()?;
        self.ends().map(drop)
    }

    /// Prints a row per object.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        _: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        self.follow(cluster, format, console).await
    }
}

impl Stat {
    /// One table, or one after the other. After the first one the controllers may be away for a
    /// moment, as while they are replaced: the watch reports that and goes on, with longer pauses.
    /// A user who loses the right to query gets one message.
    ///
    /// # Errors
    /// When the first one cannot be made, or no further one can, or the output is closed.
    pub(crate) async fn follow(
        &self,
        cluster: &Cluster,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        self.one_table(cluster, format, console).await?;
        if !self.watch {
            return Ok(Conclusion::Yes);
        }
        let mut pause = EACH;
        loop {
            tokio::time::sleep(pause).await;
            console.line("")?;
            match self.one_table(cluster, format, console).await {
                Ok(_) => pause = EACH,
                Err(last @ (Failure::Closed | Failure::Denied(_))) => return Err(last),
                Err(failure) => {
                    console.word(&failure.to_string())?;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The queried object, and the window.
    fn requested(&self) -> Result<(Named, Question), Failure> {
        let mut resource = Named::read(&self.resource, KINDS)?;
        if self.to.is_some() {
            resource = resource.without_port(&self.resource, CALLER)?;
        } else if resource.kind != ResourceKind::Service {
            let why = "only a Service has calls by port";
            resource = resource.without_port(&self.resource, why)?;
        }
        Ok((resource, Question::window(self.window)?))
    }

    /// What `--from` and `--to` name.
    fn ends(&self) -> Result<[Option<Named>; 2], Failure> {
        let read = |text: &Option<String>| {
            let named = text.as_deref().map(|text| Named::read(text, ENDS));
            named.transpose()
        };
        let from = match (read(&self.from)?, &self.from) {
            (Some(from), Some(text)) => Some(from.without_port(text, CALLER)?),
            _ => None,
        };
        Ok([from, read(&self.to)?])
    }

    /// One table.
    ///
    /// # Errors
    /// When the graph cannot be read, or neither the graph nor the API server knows the object.
    async fn one_table(
        &self,
        cluster: &Cluster,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let ((resource, question), ends) = (self.requested()?, self.ends()?);
        let alone = resource.kind == ResourceKind::Pod && ends.iter().all(Option::is_none);
        if alone && pods::print(cluster, &resource, question.window, format, console).await? {
            return Ok(Conclusion::Yes);
        }
        // A namespace is queried where it is, and all of them everywhere.
        let requested = match resource.kind {
            ResourceKind::Namespace => &cluster.about(resource.name.as_deref()),
            _ => cluster,
        };
        let traffic = IndexedGraph::fetch(requested, &question).await?;
        known::check(requested, &traffic, Some(&resource)).await?;
        for end in ends.iter().flatten() {
            known::check(cluster, &traffic, Some(end)).await?;
        }
        let asked = Asked::new(resource, ends, cluster.scope());
        if matches!(format, Format::Json | Format::Yaml) {
            output::data(console, format, &asked.part_of(traffic))?;
            return Ok(Conclusion::Yes);
        }
        let weights = match asked.kind() {
            ResourceKind::TrafficSplit => weights(cluster, console).await?,
            _ => Weights::default(),
        };
        let groups = asked.rows(&traffic, &weights);
        let all = cluster.scope().is_none() && asked.kind() != ResourceKind::Namespace;
        let seconds = traffic.seconds();
        let table = table(&groups, asked.kind(), all, &weights, seconds, format);
        if table.is_empty() {
            console.word(&format!(
                "no calls in the last {} s",
                question.window.as_secs()
            ))?;
        } else {
            table.write(console.out, console.color)?;
        }
        if let Some(word) = traffic.word() {
            console.word(&word)?;
        }
        Ok(Conclusion::Yes)
    }
}

fn table(
    groups: &[Group],
    kind: ResourceKind,
    all: bool,
    weights: &Weights,
    seconds: f64,
    format: Format,
) -> Table {
    let split = kind == ResourceKind::TrafficSplit;
    let mut head = Vec::new();
    if all {
        head.push("NAMESPACE");
    }
    head.push("NAME");
    head.extend(if split {
        ["BACKEND", "WEIGHT", "SHARE"].as_slice()
    } else {
        &["MESHED"]
    });
    head.extend(["SUCCESS", "RPS", "P50", "P95", "P99"]);
    head.extend(["OPEN", "REFUSED", "FAILED"]);
    if format == Format::Wide {
        head.extend(["REQUESTS", "FAILURES", "ATTEMPTS"]);
    }
    let mut table = Table::new(&head);
    for group in groups {
        let sums = &group.sums;
        let mut row: Vec<Cell> = Vec::new();
        if all {
            row.push(group.namespace.clone().into());
        }
        row.push(group.name.clone().into());
        if split {
            let weight = weights.of(&group.namespace, &group.name, &group.backend);
            row.push(group.backend.clone().into());
            row.push(
                weight
                    .map(|weight| weight.to_string())
                    .unwrap_or_default()
                    .into(),
            );
            row.push(
                group
                    .share(groups)
                    .map(number::percent)
                    .unwrap_or_default()
                    .into(),
            );
        } else {
            row.push(group.meshed_cell());
        }
        row.push(sums.success_cell());
        row.push(sums.rate_cell(seconds));
        row.extend(sums.latency_cells());
        row.push(sums.open.to_string().into());
        row.extend([sums.refused_cell(), sums.failed_cell()]);
        if format == Format::Wide {
            let more = [sums.requests, sums.failure, sums.attempts];
            row.extend(more.map(|number| Cell::from(number.to_string())));
        }
        table.row(row);
    }
    table
}

/// The weights of the TrafficSplits. Without the right to read them the column stays empty, and the
/// reason is printed.
async fn weights(cluster: &Cluster, console: &mut Console<'_>) -> Result<Weights, Failure> {
    let path = ResourceKind::TrafficSplit.path(cluster.scope());
    let path = path.unwrap_or_default();
    match cluster
        .read::<ObjectList<DynamicObject>>("TrafficSplits", &path)
        .await
    {
        Ok(list) => Ok(Weights::read(list.items.iter())),
        Err(error) => {
            console.word(&error.to_string())?;
            Ok(Weights::default())
        }
    }
}
