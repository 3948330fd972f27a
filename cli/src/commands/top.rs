//! `weft top`: shows the busiest edges, or the most frequent requests, live.

mod frame;
mod paths;
mod terminal;
mod window;

use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{MissedTickBehavior, interval};

use self::frame::{Frame, Order};
use self::terminal::{Terminal, stopped};
use crate::cluster::Cluster;
use crate::cluster::names::Named;
use crate::commands::tap::filters::Filters;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::{Format, number};
use crate::traffic::select::{ENDS, Selected};
use crate::traffic::{IndexedGraph, Question, known};

/// The window of the numbers.
const WINDOW: Duration = Duration::from_secs(30);
/// Between two looks: the reports' own pace.
const EACH: Duration = Duration::from_secs(5);

/// Arguments of `weft top`.
#[derive(Args, Debug)]
#[command(
    about = "Show the busiest edges, live",
    long_about = "Shows the calls between workloads, the busiest first, again every five seconds. With --paths \
                  it shows the requests that pods of RES serve and send instead, by method, path and \
                  route, again every second. That is a tap: it needs ClusterRole weft-tap in the \
                  namespace, and the controller's log and an Event at RES name who watches. It \
                  shows about 100 requests in a second, or --max-rps, of those that fit the \
                  filters, and the line below the table says how many there were: rates are scaled \
                  by that, the same for all rows, while success and latency are those of the \
                  requests that were shown. 500 rows are kept apart, the requests of further ones \
                  are one row (others). Keys: r by rate, s by success (the worst first), l by \
                  latency, o by what is open (edges only), n by name, q ends. Where the output is \
                  no terminal, or with -o table, one table is printed, with --paths after one \
                  window.",
    after_help = "Example:\n  weft top -n shop"
)]
pub(crate) struct Top {
    /// KIND/NAME at either end; all edges without it
    #[arg(value_name = "RES")]
    resource: Option<String>,
    /// The requests to and from RES, by method, path and route
    #[arg(long, requires = "resource")]
    paths: bool,
    /// Length of the window of --paths, 1s to 1m
    #[arg(short = 't', long, value_name = "TIME", default_value = "30s", value_parser = number::between(paths::WINDOWS), allow_hyphen_values = true, requires = "paths")]
    window: Duration,
    #[command(flatten)]
    filters: Filters,
}

impl Top {
    /// Draws until the user ends it.
    ///
    /// # Errors
    /// When the graph cannot be read, or neither it nor the API server knows the named object;
    /// when requests cannot be watched.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        global.format(&[Format::Table])?;
        if let (true, Some(of)) = (self.paths, &self.resource) {
            return paths::run(of, &self.filters, self.window, global, console).await;
        }
        if self.filters != Filters::default() {
            let why = "filters and --max-rps are for requests, which --paths shows";
            return Err(Failure::usage(why));
        }
        let named = self
            .resource
            .as_deref()
            .map(|text| Named::read(text, ENDS))
            .transpose()?;
        let cluster = Cluster::connect(global).await?;
        let traffic = look(&cluster).await?;
        known::check(&cluster, &traffic, named.as_ref()).await?;
        let selected = named.map(|named| Selected::new(named, cluster.scope()));
        let Some(terminal) = Terminal::take(global) else {
            return once(&traffic, selected.as_ref(), cluster.scope(), console);
        };
        let draw = |traffic: &IndexedGraph, order, word: Option<&str>| {
            let frame = Frame::of(traffic, selected.as_ref(), cluster.scope(), order);
            frame.draw(&terminal, console, word)
        };
        tokio::select! {
            ended = live(traffic, tokio::io::stdin(), || look(&cluster), draw) => ended,
            () = stopped() => Ok(Conclusion::Yes),
        }
    }
}

/// One table of all edges with calls, and what a person should know of it.
fn once(
    traffic: &IndexedGraph,
    selected: Option<&Selected>,
    here: Option<&str>,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let table = Frame::of(traffic, selected, here, Order::Rate).table(usize::MAX);
    if table.is_empty() {
        console.word(&format!("no calls in the last {} s", WINDOW.as_secs()))?;
    } else {
        table.write(console.out, console.color)?;
    }
    if let Some(word) = traffic.word() {
        console.word(&word)?;
    }
    Ok(Conclusion::Yes)
}

/// Draws until a key ends it. Keys are read while a response is awaited, too: it may be long in
/// coming, and a terminal in raw mode has no other way out.
async fn live<L: Future<Output = Result<IndexedGraph, Failure>>>(
    mut traffic: IndexedGraph,
    mut keys: impl AsyncRead + Unpin,
    look: impl Fn() -> L,
    mut draw: impl FnMut(&IndexedGraph, Order, Option<&str>) -> Result<(), Failure>,
) -> Result<Conclusion, Failure> {
    let mut ticks = interval(EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut order, mut word) = (Order::Rate, None);
    let mut pending = None;
    loop {
        draw(&traffic, order, word.as_deref())?;
        let mut key = [0];
        tokio::select! {
            read = keys.read(&mut key) => match order.after(&read, key[0]) {
                Some(next) => order = next,
                None => return Ok(Conclusion::Yes),
            },
            _ = ticks.tick(), if pending.is_none() => pending = Some(Box::pin(look())),
            answered = answer(&mut pending) => {
                pending = None;
                match answered {
                    Ok(newer) => (traffic, word) = (newer, None),
                    // The last table stays, and is marked as old.
                    Err(error) => word = Some(format!("old: {error}")),
                }
            }
        }
    }
}

/// The response to the pending request; it never comes if there is none.
async fn answer<L: Future>(pending: &mut Option<Pin<Box<L>>>) -> L::Output {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

async fn look(cluster: &Cluster) -> Result<IndexedGraph, Failure> {
    IndexedGraph::fetch(cluster, &Question::window(WINDOW)?).await
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use crds::observe::Graph;
    use serde_json::{Value, json};
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::console::Streams;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn top_once_reports_missing_calls_and_incomplete_numbers() {
        let edge = |port: u16| json!({"from": "a", "to": "b", "port": port, "requests": 1});
        let printed = |edges: &Value, complete: bool| {
            let metadata =
                json!({"windowSeconds": 30, "complete": complete, "incomplete": "no room"});
            let graph = json!({"metadata": metadata, "edges": edges});
            let traffic = IndexedGraph::of(serde_json::from_value(graph).unwrap());
            let mut streams = Streams::default();
            let mut console = streams.console();
            once(&traffic, None, None, &mut console).unwrap();
            <[String; 2]>::from(streams.texts())
        };
        let [out, err] = printed(&json!([]), true);
        assert_eq!((&*out, &*err), ("", "no calls in the last 30 s\n"));
        let [out, err] = printed(&json!([edge(0), edge(80)]), false);
        let ports = out
            .lines()
            .skip(1)
            .map(|row| row.split_whitespace().nth(2).unwrap());
        assert_eq!(ports.collect::<Vec<_>>(), ["-", "80"], "{out}");
        assert_eq!(err, "the numbers are not complete: no room\n");
        let [_, err] = printed(&json!([edge(80)]), true);
        assert_eq!(err, "");
    }

    // Claims: observe-132
    #[tokio::test(start_paused = true)]
    async fn keys_are_heard_while_an_answer_is_waited_for() {
        let (mut typed, keys) = tokio::io::duplex(8);
        let (questions, orders) = (Cell::new(0), RefCell::new(Vec::new()));
        let look = || {
            questions.set(questions.get() + 1);
            std::future::pending::<Result<IndexedGraph, Failure>>()
        };
        let draw = |_: &IndexedGraph, order: Order, _: Option<&str>| {
            orders.borrow_mut().push(order);
            Ok(())
        };
        let typing = async {
            for key in [b"n", b"q"] {
                sleep(2 * EACH).await;
                typed.write_all(key).await.unwrap();
            }
        };
        let drawing = live(IndexedGraph::of(Graph::default()), keys, look, draw);
        let both = async { tokio::join!(drawing, typing) };
        let (ended, ()) = timeout(PATIENCE, both).await.expect("deaf to its keys");
        assert_eq!(ended.unwrap(), Conclusion::Yes);
        assert_eq!(orders.borrow().last(), Some(&Order::Name));
        assert_eq!(questions.get(), 1, "one question at a time");
    }

    #[tokio::test(start_paused = true)]
    async fn top_keeps_last_graph_and_marks_it_old() {
        let (mut typed, keys) = tokio::io::duplex(8);
        let words = RefCell::new(Vec::new());
        let look = || std::future::ready(Err(Failure::unknown("away")));
        let draw = |_: &IndexedGraph, _: Order, word: Option<&str>| {
            words.borrow_mut().push(word.map(str::to_owned));
            Ok(())
        };
        let typing = async {
            sleep(EACH + Duration::from_secs(1)).await;
            typed.write_all(b"q").await.unwrap();
        };
        let drawing = live(IndexedGraph::of(Graph::default()), keys, look, draw);
        let both = async { tokio::join!(drawing, typing) };
        let (ended, ()) = timeout(PATIENCE, both).await.expect("deaf to its keys");
        assert_eq!(ended.unwrap(), Conclusion::Yes);
        let words = words.into_inner();
        assert_eq!(words.first(), Some(&None));
        assert_eq!(words.last(), Some(&Some("old: away".to_owned())));
    }
}
