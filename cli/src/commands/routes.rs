//! `weft routes`: shows the traffic of each route of a workload or a Service.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::ClusterCommand;
use crate::cluster::Cluster;
use crate::cluster::names::Named;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::table::{Cell, Table};
use crate::output::{self, COMMON, Format, number};
use crate::traffic::select::{ENDS, Selected};
use crate::traffic::sums::TrafficTotals;
use crate::traffic::{IndexedGraph, Question, WINDOWS, known};

/// Arguments of `weft routes`.
#[derive(Args, Debug)]
#[command(
    about = "Show success, rate and latency by route",
    long_about = "Shows what each route of a workload or a Service served. Routes are the matches \
                  of the HTTPRouteGroups that annotation weft.dev/routes of the Service names, or \
                  of those that protect the workload. - is what no route describes.",
    after_help = "Example:\n  weft routes svc/cart"
)]
pub(crate) struct Routes {
    /// KIND/NAME
    #[arg(value_name = "RES")]
    resource: String,
    /// Length of the window, 10s to 5m
    #[arg(short = 't', long, value_name = "TIME", default_value = "1m", value_parser = number::between(WINDOWS), allow_hyphen_values = true)]
    window: Duration,
}

impl ClusterCommand for Routes {
    const FORMATS: &'static [Format] = COMMON;

    fn must_be_readable(&self, _: &Global) -> Result<(), Failure> {
        self.named()?;
        Question::window(self.window).map(drop)
    }

    /// Prints a row per route.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        _: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let named = self.named()?;
        let mut question = Question::window(self.window)?;
        question.routes = true;
        let mut traffic = IndexedGraph::fetch(cluster, &question).await?;
        known::check(cluster, &traffic, Some(&named)).await?;
        let selected = Selected::new(named, cluster.scope());
        let nodes = &mut traffic.graph.nodes;
        nodes.retain(|node| selected.is_served_by(node));
        traffic.graph.edges.clear();
        if output::data(console, format, &traffic.graph)? {
            return Ok(Conclusion::Yes);
        }
        if let Some(word) = traffic.word() {
            console.word(&word)?;
        }
        let mut routes: BTreeMap<&str, TrafficTotals> = BTreeMap::new();
        for route in traffic.graph.nodes.iter().flat_map(|node| &node.routes) {
            let sums = routes.entry(&route.route).or_default();
            sums.add_route(route);
        }
        let mut table = Table::new(&["ROUTE", "SUCCESS", "RPS", "P50", "P95", "P99"]);
        for (route, sums) in routes {
            let mut row: Vec<Cell> = vec![
                route.into(),
                sums.success_cell(),
                sums.rate_cell(traffic.seconds()),
            ];
            row.extend(sums.latency_cells());
            table.row(row);
        }
        if table.is_empty() {
            console.word(&format!(
                "no calls of {} in the last {} s that its proxies reported by route",
                self.resource,
                question.window.as_secs()
            ))?;
        } else {
            table.write(console.out, console.color)?;
        }
        Ok(Conclusion::Yes)
    }
}

impl Routes {
    fn named(&self) -> Result<Named, Failure> {
        let named = Named::read(&self.resource, ENDS)?;
        named.without_port(&self.resource, "routes are reported for all ports")
    }
}
