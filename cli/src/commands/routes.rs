//! `weft routes`: shows the traffic of each route of a workload or a Service, or the rules by which
//! calls to a Service are routed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::Args;
use crds::observe::{Resource, RouteRules, RouteTable, RuleBackend, TableRule};

use super::ClusterCommand;
use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::{Cluster, existing};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::{Global, namespace};
use crate::output::table::{Cell, Table};
use crate::output::{self, COMMON, Format, number};
use crate::traffic::select::{ENDS, Selected};
use crate::traffic::sums::TrafficTotals;
use crate::traffic::{IndexedGraph, Question, WINDOWS, known};

/// What has rules of its own.
const RULED: &[ResourceKind] = &[ResourceKind::Service, ResourceKind::Gateway];

/// Arguments of `weft routes`.
#[derive(Args, Debug)]
#[command(
    about = "Show success, rate and latency by route",
    long_about = "Shows what each route of a workload or a Service served. Routes are the matches \
                  of the HTTPRouteGroups that annotation weft.dev/routes of the Service names, or \
                  of those that protect the workload. - is what no route describes. With --rules \
                  instead the rules of a Service, of splits and of routes of the Gateway API, as \
                  they are tried: where its calls go, from which namespaces; or those of \
                  gateway/NAME, by listener and host.",
    after_help = "Example:\n  weft routes svc/cart"
)]
pub(crate) struct Routes {
    /// KIND/NAME
    #[arg(value_name = "RES")]
    resource: String,
    /// Length of the window, 10s to 5m
    #[arg(short = 't', long, value_name = "TIME", default_value = "1m", value_parser = number::between(WINDOWS), allow_hyphen_values = true)]
    window: Duration,
    /// Show the rules by which calls to a Service or Gateway are routed
    #[arg(long, conflicts_with = "window")]
    rules: bool,
    /// With --rules: those for callers of this namespace
    #[arg(long, value_name = "NAMESPACE", requires = "rules", value_parser = namespace)]
    from: Option<String>,
}

impl ClusterCommand for Routes {
    const FORMATS: &'static [Format] = COMMON;

    fn must_be_readable(&self, global: &Global) -> Result<(), Failure> {
        if self.ruled()?.is_some() {
            global.in_one_namespace("rules are those of one Service or Gateway")?;
        } else {
            self.named()?;
        }
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
        if let Some((kind, name)) = self.ruled()? {
            let of = (kind, name.as_str());
            return self.print_rules(cluster, of, format, console).await;
        }
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
        if Named::read(&self.resource, &[ResourceKind::Gateway]).is_ok() {
            return Err(Failure::usage(format!(
                "{}: no proxy counts calls of a Gateway by route; add --rules for the rules of its \
                 listeners",
                self.resource
            )));
        }
        let named = Named::read(&self.resource, ENDS)?;
        named.without_port(&self.resource, "routes are reported for all ports")
    }

    /// Of what the rules are shown; `None`: traffic is shown.
    fn ruled(&self) -> Result<Option<(ResourceKind, String)>, Failure> {
        if !self.rules {
            return Ok(None);
        }
        let (named, name) = Named::read_one(&self.resource, RULED)?;
        let named = named.without_port(&self.resource, "rules are shown for all ports")?;
        match (named.kind, &self.from) {
            (ResourceKind::Gateway, Some(from)) => Err(Failure::usage(format!(
                "--from {from}: a Gateway looks at no caller's namespace; leave --from out"
            ))),
            (kind, _) => Ok(Some((kind, name))),
        }
    }

    /// Prints a row per rule, in the order in which they are tried.
    async fn print_rules(
        &self,
        cluster: &Cluster,
        (kind, name): (ResourceKind, &str),
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let namespace = cluster.namespace();
        let is_gateway = kind == ResourceKind::Gateway;
        let query = match &self.from {
            Some(from) => format!("from={from}"),
            None if is_gateway => format!("kind={kind}"),
            None => String::new(),
        };
        let (what, place) = (Resource::RouteTables, Some(namespace));
        let answer = cluster.try_observe(what, place, Some(name), &query);
        let table: RouteTable = match answer.await {
            Ok(table) => table,
            Err(refusal) => {
                // A controller of an older version has no such resource either.
                if refusal.is_missing()
                    && let Ok(None) = existing::read(cluster, kind, name).await
                {
                    return Err(existing::absent(cluster, (kind, name), &[]).await);
                }
                return Err(refusal.into_failure());
            }
        };
        if output::data(console, format, &table)? {
            return Ok(Conclusion::Yes);
        }
        if table.hidden > 0 {
            let more = match is_gateway {
                true => "rules are of routes",
                false => "tables are for callers",
            };
            console.word(&format!(
                "{} more {more} of namespaces whose routetables you may not get",
                table.hidden
            ))?;
        }
        let columns = match is_gateway {
            true => ["LISTENER", "HOST"],
            false => ["PORT", "CALLERS"],
        };
        rules_of(&table, namespace, (columns, format == Format::Wide))
            .write(console.out, console.color)?;
        Ok(Conclusion::Yes)
    }
}

/// A row per rule, and one for what no rule fits.
fn rules_of(
    shown: &RouteTable,
    namespace: &str,
    (columns, wide): ([&'static str; 2], bool),
) -> Table {
    let mut head = columns.to_vec();
    head.extend(["RULE", "MATCHES", "GOES TO"]);
    head.extend(wide.then_some("EDITS"));
    let mut table = Table::new(&head);
    for rules in &shown.tables {
        for rule in &rules.rules {
            let mut row = start(rules);
            row.extend([place(rule).into(), rule.matches.as_str().into()]);
            row.push(goes_to(rule, namespace).into());
            row.extend(wide.then(|| Cell::from(rule.edits.join("; "))));
            table.row(row);
        }
        let mut row = start(rules);
        row.extend(["-".into(), "all else".into()]);
        row.push(near(&rules.otherwise, namespace).into());
        row.extend(wide.then(|| Cell::from("")));
        table.row(row);
    }
    table
}

fn start(rules: &RouteRules) -> Vec<Cell> {
    if !rules.listener.is_empty() {
        let listener = format!("{}:{}", rules.listener, rules.port);
        return vec![listener.into(), rules.host.as_str().into()];
    }
    let callers = match rules.audience.as_str() {
        "" => "all",
        namespace => namespace,
    };
    vec![rules.port.to_string().into(), callers.into()]
}

/// The object, and which of its rules.
fn place(rule: &TableRule) -> String {
    let mut place = rule.object.clone();
    if let Some(number) = rule.rule {
        place.push_str(&format!(" rules[{number}]"));
    }
    if !rule.name.is_empty() {
        place.push_str(&format!(" {}", rule.name));
    }
    place
}

fn goes_to(rule: &TableRule, namespace: &str) -> String {
    let backend = |backend: &RuleBackend| {
        let service = near(&backend.service, namespace);
        let invalid = if backend.invalid { " (refused)" } else { "" };
        let share = number::percent(backend.share);
        format!("{service}:{} {share}{invalid}", backend.port)
    };
    let backends: Vec<String> = rule.backends.iter().map(backend).collect();
    match backends.is_empty() {
        true => rule.answer.clone(),
        false => backends.join(", "),
    }
}

/// `namespace/name`, without the namespace where it is this one.
fn near<'n>(key: &'n str, namespace: &str) -> &'n str {
    match key.split_once('/') {
        Some((of, name)) if of == namespace => name,
        _ => key,
    }
}
