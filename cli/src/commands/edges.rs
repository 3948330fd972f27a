//! `weft edges`: lists the edges of the service graph, each a caller and what it calls.
//!
//! Claims: observe-145

mod drawing;

use std::time::{Duration, SystemTime};

use clap::Args;
use crds::observe::{Edge, NodeKind};
use k8s_openapi::jiff::Timestamp;
use policy::release::ReleaseSet;

use self::drawing::Secured;
use super::ClusterCommand;
use crate::cluster::Cluster;
use crate::cluster::names::Named;
use crate::cluster::nearest::hint;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::table::{Cell, Table, Tone};
use crate::output::{self, Format, number};
use crate::traffic::select::{self, ENDS, Selected};
use crate::traffic::sums::TrafficTotals;
use crate::traffic::{IndexedGraph, Question, known};

/// The window of the numbers.
const WINDOW: Duration = Duration::from_secs(60);

/// The shortest time in which edges were seen: the last second, the resolution of the graph.
const SHORTEST: Duration = Duration::from_secs(1);

/// What is printed besides what every command prints.
const FORMATS: &[Format] = &[
    Format::Table,
    Format::Wide,
    Format::Json,
    Format::Yaml,
    Format::Dot,
    Format::Mermaid,
];

/// Arguments of `weft edges`.
#[derive(Args, Debug)]
#[command(
    about = "Show who calls whom, and how",
    long_about = "Shows each edge of the graph: caller, called, port, protocol, what secured it, \
                  success, rate and latency, of the last minute. SECURED is mtls for mutual TLS of \
                  the mesh, tls for the applications' own TLS, of which the mesh knows no \
                  identity, - where nothing was sent, else plaintext. With --since also edges that \
                  were seen earlier. Whether their calls were refused or in plaintext is known of \
                  five minutes: with --refused or --plaintext --since is from 10s to 5m, and all \
                  numbers are of this time. An undeclared PORT is - until it was served once, as \
                  that of a host outside to which no connection ever came about. -o dot draws for \
                  Graphviz, -o mermaid for Markdown.",
    after_help = "Example:\n  weft edges svc/cart -o mermaid"
)]
pub(crate) struct Edges {
    /// KIND/NAME at either end; all edges without it
    #[arg(value_name = "RES")]
    resource: Option<String>,
    /// Only edges with refused calls
    #[arg(long)]
    refused: bool,
    /// Only edges with calls that neither mutual TLS nor the applications' own secured
    #[arg(long)]
    plaintext: bool,
    /// Only edges to hosts outside the mesh
    #[arg(long)]
    external: bool,
    /// Also edges without calls now that were seen in this time; with --refused or --plaintext
    /// 10s to 5m
    #[arg(long, value_name = "TIME", value_parser = number::at_least(SHORTEST), allow_hyphen_values = true)]
    since: Option<Duration>,
}

impl ClusterCommand for Edges {
    const FORMATS: &'static [Format] = FORMATS;

    fn must_be_readable(&self, _: &Global) -> Result<(), Failure> {
        self.named()?;
        self.question().map(drop)
    }

    /// Prints the edges that were seen before the end of the graph's window, or before `now` if
    /// that is not known.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let mut traffic = IndexedGraph::fetch(cluster, &self.question()?).await?;
        let now = traffic.end().unwrap_or(now);
        let (here, named) = (cluster.scope(), self.named()?);
        known::check(cluster, &traffic, named.as_ref()).await?;
        let meant = known::host_meant(&traffic, named.as_ref());
        let selected = named.map(|named| Selected::new(named, here));
        let kept = self.kept(&traffic, selected.as_ref(), now);
        let mut at = 0;
        traffic.graph.edges.retain(|_| {
            at += 1;
            kept[at - 1]
        });
        if output::data(console, format, &traffic.graph)? {
            return Ok(Conclusion::Yes);
        }
        match format {
            Format::Dot => console.line(&drawing::dot(&traffic, here))?,
            Format::Mermaid => console.line(&drawing::mermaid(&traffic, here))?,
            _ if traffic.edges().is_empty() => {
                console.word(&format!("no such calls{}", hint(meant)))?;
            }
            _ => table(&traffic, here, format == Format::Wide, now)
                .write(console.out, console.color)?,
        }
        if let Some(word) = traffic.word() {
            console.word(&word)?;
        }
        Ok(Conclusion::Yes)
    }
}

impl Edges {
    fn named(&self) -> Result<Option<Named>, Failure> {
        let named = self.resource.as_deref();
        named.map(|text| Named::read(text, ENDS)).transpose()
    }

    /// The query of the graph. For edges without calls in the window the graph has neither refusals
    /// nor what secured them, so with these filters the window covers the whole time.
    fn question(&self) -> Result<Question, Failure> {
        let window = match self.since {
            Some(since) if self.refused || self.plaintext => since,
            _ => WINDOW,
        };
        let mut question = Question::window(window).map_err(|_| {
            let filter = if self.refused {
                "--refused"
            } else {
                "--plaintext"
            };
            Failure::usage(format!(
                "{filter} with --since {}: that is known of the last five minutes; say --since \
                 with 10s to 5m",
                number::written(window)
            ))
        })?;
        question.persisted = self.since.is_some();
        Ok(question)
    }

    /// Which edges are meant, in their order.
    fn kept(
        &self,
        traffic: &IndexedGraph,
        selected: Option<&Selected>,
        now: SystemTime,
    ) -> Vec<bool> {
        let external = |edge: &Edge| {
            let node = traffic.node(&edge.to);
            node.is_some_and(|node| node.kind == NodeKind::External)
        };
        let kept = traffic.edges().iter().map(|edge| {
            let meant = selected.is_none_or(|selected| {
                selected.is_from(traffic, edge) || selected.is_to(traffic, edge)
            });
            meant
                && (!self.refused || !edge.refused.is_empty())
                && (!self.plaintext || Secured::of(edge).is_some_and(Secured::has_plaintext))
                && (!self.external || external(edge))
                && match (self.since, since(&edge.last_seen, now)) {
                    (None, _) => !edge.quiet,
                    (Some(longest), Some(ago)) => ago <= longest,
                    (Some(_), None) => true,
                }
        });
        kept.collect()
    }
}

fn table(traffic: &IndexedGraph, here: Option<&str>, wide: bool, now: SystemTime) -> Table {
    let mut head = vec![
        "FROM", "TO", "PORT", "PROTO", "SECURED", "SUCCESS", "RPS", "P95", "OPEN", "LAST",
    ];
    if wide {
        head.extend([
            "SERVICE",
            "BACKEND",
            "SPLIT",
            "REFUSED",
            "IDENTITIES",
            "ALLOWED-BY",
        ]);
    }
    let mut table = Table::new(&head);
    for edge in traffic.edges() {
        let mut sums = TrafficTotals::default();
        sums.add(edge);
        let port = if edge.port == 0 {
            String::new()
        } else {
            edge.port.to_string()
        };
        let ago = since(&edge.last_seen, now).map(number::age);
        let mut row: Vec<Cell> = vec![
            select::shown(traffic, &edge.from, here).into(),
            called(traffic, edge, here).into(),
            port.into(),
            edge.protocol.as_str().into(),
            secured(edge),
            sums.success_cell(),
            sums.rate_cell(traffic.seconds()),
            number::millis(edge.ms.map(|ms| ms.p95)).into(),
            edge.open.to_string().into(),
            ago.unwrap_or_default().into(),
        ];
        if wide {
            let refused = edge.refused.iter();
            let refused: Vec<String> = refused
                .map(|(why, times)| format!("{why}={times}"))
                .collect();
            let texts = [
                edge.service.clone(),
                edge.backend.clone(),
                by(edge),
                refused.join(","),
                edge.identities.join(","),
                edge.allowed_by.join(","),
            ];
            row.extend(texts.map(Cell::from));
        }
        table.row(row);
    }
    table
}

/// The split or the route that chose the backend.
fn by(edge: &Edge) -> String {
    match edge.split.is_empty() {
        true => edge.rule.clone(),
        false => edge.split.clone(),
    }
}

/// The node that is called; during a release of it, which of its two sets of pods.
fn called(traffic: &IndexedGraph, edge: &Edge, here: Option<&str>) -> String {
    let node = select::shown(traffic, &edge.to, here);
    match ReleaseSet::parse(&edge.backend) {
        Some((_, set)) => format!("{node} ({set})"),
        None => node,
    }
}

/// What carried the calls.
fn secured(edge: &Edge) -> Cell {
    match Secured::of(edge) {
        None => Cell::default(),
        Some(Secured::Mtls) => Cell::toned("mtls", Tone::Good),
        Some(Secured::OwnTls) => "tls".into(),
        Some(Secured::Plaintext) => Cell::toned("plaintext", Tone::Warning),
        Some(Secured::Partly(share)) => {
            Cell::toned(format!("mtls {}", number::percent(share)), Tone::Warning)
        }
    }
}

/// How long before `now` a time of the API is.
fn since(text: &str, now: SystemTime) -> Option<Duration> {
    let then: Timestamp = text.parse().ok()?;
    Some(
        now.duration_since(SystemTime::from(then))
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use crds::observe::Graph;
    use serde_json::{Value, json};

    use super::*;
    use crate::args::{Cli, Command};

    fn edges(line: &str) -> Edges {
        let words = ["weft", "edges"].into_iter().chain(line.split_whitespace());
        let Command::Edges(edges) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{line}")
        };
        edges
    }

    fn question(line: &str) -> Result<String, Failure> {
        Ok(edges(line).question()?.query())
    }

    #[test]
    fn what_an_applications_own_tls_secures_is_no_plaintext() {
        let seen = [
            ("http1", json!(1.0), "mtls", false),
            ("http1", json!(0.5), "mtls 50.00%", true),
            ("http1", json!(0.0), "plaintext", true),
            ("tcp", json!(0.0), "plaintext", true),
            ("tls", json!(0.0), "tls", false),
            // What no mutual TLS carried was TLS all the same.
            ("tls", json!(0.5), "tls", false),
            ("tls", json!(1.0), "mtls", false),
            ("tls", json!(null), "-", false),
        ];
        let calls = seen.iter().map(|(protocol, mtls, ..)| {
            json!({"from": "shop/Deployment/web", "to": "External/api.example.com",
                "protocol": protocol, "requests": 1, "success": 1, "mtls": mtls})
        });
        let calls: Vec<_> = calls.collect();
        let graph: Graph = serde_json::from_value(json!({"edges": calls})).unwrap();
        let traffic = IndexedGraph::of(graph);
        let listed = |line: &str| edges(line).kept(&traffic, None, SystemTime::UNIX_EPOCH);
        let plain = seen.clone().map(|(.., plain)| plain);
        assert_eq!(listed("--plaintext"), plain);
        assert_eq!(listed(""), [true; 8], "all without the filter");
        let mut printed = Vec::new();
        let table = table(&traffic, None, false, SystemTime::UNIX_EPOCH);
        table.write(&mut printed, false).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        let word = |row: &str| {
            let cells = row.split("   ").map(str::trim);
            let mut cells = cells.filter(|cell| !cell.is_empty());
            cells.nth(4).unwrap().to_owned()
        };
        let words: Vec<String> = printed.lines().skip(1).map(word).collect();
        assert_eq!(words, seen.map(|(_, _, word, _)| word), "{printed}");
    }

    #[test]
    fn edges_distinguish_both_sets_of_a_release() {
        let to = |backend: &str| {
            json!({"from": "shop/Deployment/web", "to": "shop/Deployment/cart",
                "backend": backend, "protocol": "http1", "requests": 1, "success": 1})
        };
        let calls = ["shop/cart", "shop/cart@stable", "shop/cart@candidate"].map(to);
        let graph: Graph = serde_json::from_value(json!({"edges": calls})).unwrap();
        let traffic = IndexedGraph::of(graph);
        let edges = traffic.edges().iter();
        let named: Vec<String> = edges.map(|edge| called(&traffic, edge, None)).collect();
        assert!(!named[0].ends_with(')'), "{named:?}");
        assert!(named[1].ends_with(" (stable)"), "{named:?}");
        assert!(named[2].ends_with(" (candidate)"), "{named:?}");
    }

    #[test]
    fn calls_that_their_own_proxy_refused_are_no_plaintext() {
        let refused = json!({"from": "shop/Deployment/web", "to": "shop/Service/cart",
            "protocol": "http1", "requests": 3, "failure": 3, "refused": {"no-endpoint": 3},
            "mtls": 0.0});
        let with = |field: &str, value: Value| {
            let mut edge = refused.clone();
            edge[field] = value;
            edge
        };
        // A proxy of this version reports it.
        let mut unsent = with("attempts", json!(3));
        unsent["mtls"] = json!(null);
        let calls = [
            refused.clone(),
            unsent,
            // What left all the same is what it was.
            with("attempts", json!(3)),
            with("success", json!(1)),
            with("open", json!(1)),
            with("opened", json!(1)),
            with("sent", json!(1)),
            with("server", json!({"requests": 3, "failure": 3})),
            with("callerSilent", json!(true)),
        ];
        let graph: Graph = serde_json::from_value(json!({"edges": calls})).unwrap();
        let traffic = IndexedGraph::of(graph);
        let listed = edges("--plaintext").kept(&traffic, None, SystemTime::UNIX_EPOCH);
        assert_eq!(listed[..2], [false, false]);
        assert_eq!(listed[2..], [true; 7]);
        for edge in &traffic.edges()[..2] {
            assert_eq!(secured(edge), Cell::default(), "a dash");
        }
        let plaintext = Cell::toned("plaintext", Tone::Warning);
        assert_eq!(secured(&traffic.edges()[2]), plaintext, "the control");
    }

    #[test]
    fn filters_on_recent_calls_query_window_or_are_refused() {
        for (line, query) in [
            ("--refused", "window=60s"),
            ("--since 30d", "window=60s&quiet=1&gone=1"),
            ("--external --since 1h", "window=60s&quiet=1&gone=1"),
            ("--refused --since 5m", "window=300s&quiet=1&gone=1"),
            ("--plaintext --since 10s", "window=10s&quiet=1&gone=1"),
        ] {
            assert_eq!(question(line).unwrap(), query, "{line}");
        }
        for (line, filter) in [
            ("--refused --since 1h", "--refused with --since 1h:"),
            ("--plaintext --since 301s", "--plaintext with --since 301s"),
            ("--refused --since 9s", "--refused with --since 9s"),
        ] {
            let Err(Failure::Usage(words)) = question(line) else {
                panic!("{line}")
            };
            assert!(words.starts_with(filter), "{words}");
            assert!(words.ends_with("say --since with 10s to 5m"), "{words}");
        }
    }
}
