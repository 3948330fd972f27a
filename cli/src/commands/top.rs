//! `weft top`: the busiest edges, live.

mod frame;
mod terminal;

use std::time::Duration;

use clap::Args;
use tokio::io::AsyncReadExt as _;
use tokio::time::{MissedTickBehavior, interval};

use self::frame::{Frame, Order};
use self::terminal::Terminal;
use crate::cluster::Cluster;
use crate::cluster::names::Named;
use crate::console::Console;
use crate::failure::{Failure, Verdict};
use crate::global::Global;
use crate::traffic::select::{ENDS, Selected};
use crate::traffic::{Question, Traffic};

/// The window of the numbers.
const WINDOW: Duration = Duration::from_secs(30);
/// Between two looks: the reports' own pace.
const EACH: Duration = Duration::from_secs(5);

/// Arguments of `weft top`.
#[derive(Args, Debug)]
#[command(
    about = "Show the busiest edges, live",
    long_about = "Shows who calls whom, the busiest first, again every five seconds. Keys: r by \
                  rate, s by success (the worst first), l by latency, o by what is open, n by \
                  name, q ends. Where the output is no terminal one table is printed.",
    after_help = "Example:\n  weft top -n shop"
)]
pub struct Top {
    /// KIND/NAME at either end; all edges without it
    #[arg(value_name = "RES")]
    resource: Option<String>,
}

impl Top {
    /// Draws until the user ends it.
    ///
    /// # Errors
    /// When the graph cannot be read.
    pub async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Verdict, Failure> {
        let named = self
            .resource
            .as_deref()
            .map(|text| Named::read(text, ENDS))
            .transpose()?;
        let cluster = Cluster::connect(global).await?;
        let selected = named.map(|named| Selected::new(named, cluster.scope()));
        let mut traffic = look(&cluster).await?;
        let Some(terminal) = Terminal::take() else {
            let frame = Frame::of(&traffic, selected.as_ref(), cluster.scope(), Order::Rate);
            frame.table(usize::MAX).write(console.out, console.color)?;
            return Ok(Verdict::Yes);
        };
        let mut ticks = interval(EACH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let (mut order, mut word) = (Order::Rate, None);
        let mut keys = tokio::io::stdin();
        loop {
            let frame = Frame::of(&traffic, selected.as_ref(), cluster.scope(), order);
            frame.draw(&terminal, console, word.as_deref())?;
            let mut key = [0];
            tokio::select! {
                read = keys.read(&mut key) => match (read, key[0]) {
                    (Ok(1), b'q' | 3 | 4) | (Ok(0) | Err(_), _) => return Ok(Verdict::Yes),
                    (_, key) => order = Order::of(key).unwrap_or(order),
                },
                _ = ticks.tick() => match look(&cluster).await {
                    Ok(newer) => (traffic, word) = (newer, None),
                    // What was seen stays, and is told to be old.
                    Err(error) => word = Some(format!("old: {error}")),
                },
            }
        }
    }
}

async fn look(cluster: &Cluster) -> Result<Traffic, Failure> {
    Traffic::ask(cluster, &Question::window(WINDOW)?).await
}
