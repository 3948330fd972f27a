//! `weft top --paths`: shows the most frequent requests of pods, from a tap.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crds::observe::Latency;
use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::frame::Order;
use super::terminal::{Terminal, stopped};
use super::window::{Counts, RowKey, RowStats, Window, WindowView};
use crate::cluster::Cluster;
use crate::commands::tap;
use crate::commands::tap::filters::Filters;
use crate::commands::tap::follow::{Requests, TapEvent, follow};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::number;
use crate::output::table::{Cell, Table};

/// The shortest and the longest window.
pub(super) const WINDOWS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Between two drawings.
const EACH: Duration = Duration::from_secs(1);

/// Draws, or prints one table, of the requests of `of` that fit.
///
/// # Errors
/// When its requests cannot be watched.
pub(super) async fn run(
    of: &str,
    filters: &Filters,
    length: Duration,
    global: &Global,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    global.in_one_namespace(tap::IN_ONE)?;
    let (query, names) = (filters.query(of)?.finish(), filters.names(of)?);
    if let Some(caution) = filters.caution() {
        console.word(&caution)?;
    }
    let cluster = Cluster::connect(global).await?;
    let mut requests = follow(cluster, &query, names);
    let mut window = Window::new(length);
    // A missing right is reported before anything is drawn.
    if let Some(event) = requests.next().await {
        take(&mut window, event?);
    }
    match Terminal::take(global) {
        Some(terminal) => tokio::select! {
            ended = live(&terminal, of, &mut requests, &mut window, console) => ended,
            () = stopped() => Ok(Conclusion::Yes),
        },
        None => once(of, &mut requests, &mut window, console).await,
    }
}

/// Takes in an event; returns why no request is reported, if that is so.
fn take(window: &mut Window, event: TapEvent) -> Option<String> {
    let now = Instant::now();
    match event {
        TapEvent::Started => window.begins(now),
        TapEvent::Line(line) => window.line(&line, now),
        TapEvent::Word(word) => return Some(word),
    }
    None
}

/// One table, after one window. If no request was reported before its end and the tap is down then,
/// it is not known whether there was any.
async fn once(
    of: &str,
    requests: &mut Requests,
    window: &mut Window,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let (started, length) = (Instant::now(), window.length());
    let mut is_away = false;
    let telling = async {
        while let Some(event) = requests.next().await {
            let word = take(window, event?);
            is_away = word.is_some();
            if let Some(word) = word {
                console.word(&word)?;
            }
        }
        Ok::<(), Failure>(())
    };
    if let Ok(ended) = timeout(length, telling).await {
        ended?;
    }
    let look = window.look(started + length);
    let table = table(&look, Order::Rate, usize::MAX);
    let conclusion = match table.is_empty() && is_away {
        true => Conclusion::Unknown,
        false => Conclusion::Yes,
    };
    if !table.is_empty() {
        table.write(console.out, console.color)?;
    } else if is_away {
        console.word(&format!("no controller reported the requests to {of}"))?;
    } else {
        console.word(&format!("no request of {of} has ended meanwhile"))?;
    }
    console.word(&summary(&look))?;
    Ok(conclusion)
}

/// Draws until the user ends it.
async fn live(
    terminal: &Terminal,
    of: &str,
    requests: &mut Requests,
    window: &mut Window,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let mut ticks = interval(EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut order, mut word) = (Order::Rate, None);
    let mut keys = tokio::io::stdin();
    loop {
        let mut key = [0];
        tokio::select! {
            read = keys.read(&mut key) => match order.after(&read, key[0]) {
                // Of requests that have ended none is open.
                Some(Order::Open) => {}
                Some(next) => order = next,
                None => return Ok(Conclusion::Yes),
            },
            Some(event) = requests.next() => {
                word = take(window, event?);
                continue;
            }
            _ = ticks.tick() => {}
        }
        let look = window.look(Instant::now());
        let all: u64 = look.rows.values().map(|seen| seen.requests).sum();
        let title = format!(
            "{} rows of {of}, {} requests/s, by {} (keys r s l n, q ends)",
            look.rows.len(),
            number::rate(look.scaled(all), look.seconds),
            order.name()
        );
        let above = [title.as_str(), word.as_deref().unwrap_or_default()];
        // Two lines and the head above, one below, and that of the cursor.
        let (height, _) = terminal.size();
        let table = table(&look, order, height.saturating_sub(5));
        terminal.draw(console, &above, &table, &[summary(&look).as_str()])?;
    }
}

/// Characters of a method that are shown. One of a caller's own making must not move the
/// columns after it out of sight.
const METHOD: usize = 16;

/// Stands for all that have no row of their own.
const OTHERS: &str = "(others)";

/// A way, or none, and what was seen of it.
type Row<'a> = (Option<&'a RowKey>, &'a RowStats);

/// The table of requests by method, path and route: the first `most` rows.
pub(super) fn table(look: &WindowView<'_>, order: Order, most: usize) -> Table {
    let rows = look.rows.iter();
    let mut rows: Vec<Row<'_>> = rows.map(|(key, seen)| (*key, seen)).collect();
    rows.sort_by(|one, other| compare(order, *one, *other));
    // The path comes last, because it may be as long as its caller likes.
    let mut table = Table::new(&[
        "DIR", "METHOD", "SUCCESS", "RPS", "P50", "P95", "P99", "ROUTE", "PATH",
    ]);
    for (key, seen) in rows.into_iter().take(most) {
        let (direction, method, route, path) = match key {
            Some(key) => (
                key.direction,
                key.method.as_str(),
                key.route.as_str(),
                key.path.as_str(),
            ),
            None => ("", "", "", OTHERS),
        };
        let latency = seen.latency();
        let ms = |of: fn(&Latency) -> f64| Cell::from(number::millis(latency.as_ref().map(of)));
        table.row(vec![
            direction.into(),
            method.chars().take(METHOD).collect::<String>().into(),
            number::share(seen.served, seen.served + seen.failed),
            number::rate(look.scaled(seen.requests), look.seconds).into(),
            ms(|ms| ms.p50),
            ms(|ms| ms.p95),
            ms(|ms| ms.p99),
            route.into(),
            path.into(),
        ]);
    }
    table
}

/// The line below it: what keeps a sample from being taken for a count.
pub(super) fn summary(look: &WindowView<'_>) -> String {
    let Counts {
        matched,
        shown,
        dropped,
    } = look.counts;
    let (taking_part, proxies) = look.proxies;
    let mut text = format!(
        "{shown} of {matched} requests in {:.0} s were shown, {dropped} found no room",
        look.seconds
    );
    if matched > shown {
        text.push_str("; rates are scaled to all of them");
    }
    // Writing to a String does not fail.
    let _ = write!(text, "; {taking_part} of {proxies} proxies take part");
    if let Some(others) = look.rows.get(&None::<&RowKey>) {
        let _ = write!(text, "; {} of those shown are in {OTHERS}", others.requests);
    }
    if look.evicted > 0 {
        let _ = write!(text, "; {} had to leave too early", look.evicted);
    }
    text
}

/// What the user looks for comes first, and what is summed up last.
fn compare(order: Order, (key, one): Row<'_>, (other_key, other): Row<'_>) -> Ordering {
    let by = match order {
        Order::Rate => other.requests.cmp(&one.requests),
        Order::Success => success(one).total_cmp(&success(other)),
        Order::Latency => latency(other).total_cmp(&latency(one)),
        // Of requests that have ended none is open.
        Order::Open | Order::Name => Ordering::Equal,
    };
    let others = key.is_none().cmp(&other_key.is_none());
    others.then(by).then_with(|| key.cmp(&other_key))
}

/// Without a completed call none failed.
fn success(seen: &RowStats) -> f64 {
    match seen.served + seen.failed {
        0 => 1.0,
        all => seen.served as f64 / all as f64,
    }
}

fn latency(seen: &RowStats) -> f64 {
    seen.latency().map_or(0.0, |ms| ms.p95)
}

#[cfg(test)]
mod tests {
    use crds::observe::{TapLine, TapRequest};
    use futures::stream;

    use super::*;
    use crate::console::Streams;

    /// How a window of these events ends, and the messages.
    async fn ended(events: Vec<TapEvent>) -> (Conclusion, String) {
        let mut streams = Streams::default();
        let mut console = streams.console();
        let events = stream::iter(events.into_iter().map(Ok));
        let mut requests = events.chain(stream::pending()).boxed_local();
        let mut window = Window::new(Duration::from_secs(30));
        let ended = once("deploy/web", &mut requests, &mut window, &mut console).await;
        let (_, err) = streams.texts();
        (ended.unwrap(), err)
    }

    #[tokio::test(start_paused = true)]
    async fn window_without_stream_at_end_is_unknown_not_empty() {
        let away = || TapEvent::Word("no controller of Weft answers".to_owned());
        let (conclusion, words) = ended(vec![TapEvent::Started, away()]).await;
        assert_eq!(conclusion, Conclusion::Unknown, "{words}");
        assert!(
            words.contains("no controller reported the requests to deploy/web"),
            "{words}"
        );
        // The tap resumed.
        let back = vec![TapEvent::Started, away(), TapEvent::Started];
        let (conclusion, words) = ended(back).await;
        assert_eq!(conclusion, Conclusion::Yes, "{words}");
        assert!(words.contains("no request of deploy/web"), "{words}");
        // Requests reported before are shown.
        let line = Box::new(TapLine {
            request: Some(TapRequest::default()),
            ..TapLine::default()
        });
        let seen = vec![TapEvent::Started, TapEvent::Line(line), away()];
        let (conclusion, words) = ended(seen).await;
        assert_eq!(conclusion, Conclusion::Yes, "{words}");
    }
}
