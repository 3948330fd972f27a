//! What breakers of the whole mesh cost while every proxy reports each second how its calls
//! went, and how soon the callers of a Service that fails get the open breaker.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, interval};

use crate::bench::Bench;
use crate::cluster;
use crate::figures::seconds;
use crate::fleet::Fleet;
use crate::process::Controller;

/// Between two breaker reports of one proxy.
const EVERY: Duration = Duration::from_secs(1);
/// How long its callers may take to receive it; the bound of the page is lower.
const REPORTED_WITHIN: Duration = Duration::from_secs(30);

/// The figures of one size.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Services that all proxies together tell of each second, each as often as it has callers.
    pub(crate) calls: usize,
    /// Share of a core that the whole controller takes, without breaker reports and with them.
    pub(crate) idle: f64,
    pub(crate) percent: f64,
    pub(crate) callers: usize,
    /// Seconds from the first failure until the breaker is open at every caller.
    pub(crate) open: f64,
}

/// Lets every proxy breaker report for so long; then the calls to the Service `failing` fail.
pub(crate) async fn measure(
    bench: &Bench,
    controller: &Controller,
    fleet: &Fleet,
    failing: usize,
    time: Duration,
) -> Result<Figures> {
    bench.log_progress("telling how calls went");
    let before = controller.cpu()?;
    tokio::time::sleep(time / 4).await;
    let idle = (controller.cpu()? - before) / seconds(time / 4);

    let mut turns = interval(EVERY);
    turns.tick().await;
    let (before, started) = (controller.cpu()?, Instant::now());
    while started.elapsed() < time {
        fleet.send_breaker_reports(None)?;
        turns.tick().await;
    }
    let used = (controller.cpu()? - before) / seconds(started.elapsed());
    let callers = fleet.callers(failing).len();
    ensure!(
        fleet.held_back() == 0,
        "a breaker opened though nothing failed"
    );

    let since = Instant::now();
    while fleet.held_back() < callers {
        ensure!(
            since.elapsed() < REPORTED_WITHIN,
            "{} of {callers} callers got an open breaker for {}",
            fleet.held_back(),
            cluster::service_name(failing)
        );
        fleet.send_breaker_reports(Some(failing))?;
        // What a proxy receives shows at once, not with its next breaker report.
        let next = Instant::now() + EVERY;
        while Instant::now() < next && fleet.held_back() < callers {
            tokio::time::sleep(EVERY / 50).await;
        }
    }
    Ok(Figures {
        calls: fleet.calls(),
        idle: idle * 100.0,
        percent: used * 100.0,
        callers,
        open: seconds(since.elapsed()),
    })
}
