//! Resolves the hosts of ExternalServices by the cluster's DNS, and puts what it answers into the
//! World.
//!
//! Proxies do not resolve: they cannot know which addresses are inside, and a resolver would lie
//! in the memory of each of them. Every replica looks up the same hosts by itself: those that
//! objects name, and of wildcards those that proxies of any replica have subscribed to. The cache
//! of the cluster's DNS gives them the same answers.
//!
//! `schedule` decides when a host is looked up, `dns` queries. What an answer may not hold, such as
//! an address of a pod, is left out when the World is compiled, which knows all of them.
//!
//! May import `latest_model`, `metrics`, `observe` and `watch`.

mod dns;
mod schedule;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use model::world::ResolvedName;
use model::world::collect::Step;
use runtime::ready::Hold;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use self::dns::{Dns, LookUp};
use self::schedule::{Answer, Change, Schedule};
use self::wanted::Wants;
use crate::latest_model::LatestModel;
use crate::metrics::NameMetrics;
use crate::observe::acknowledged::ExternalNames;
use crate::watch::Feed;

/// Lookups at a time. The bound of the library for one server.
const AT_ONCE: usize = 32;
/// How long a replica that starts waits for its first answers: proxies that come to it before
/// would lose the addresses that another replica has given them.
const FIRST_ANSWERS: Duration = Duration::from_secs(10);

/// Resolves until the process ends. `hold` is released with the first answers.
pub(crate) async fn resolve(
    latest: LatestModel,
    subscribed: watch::Receiver<Arc<ExternalNames>>,
    feed: Feed,
    hold: Hold,
    metrics: NameMetrics,
) {
    match Dns::of_system() {
        Ok(dns) => resolve_by(&dns, latest, subscribed, feed, hold, metrics).await,
        Err(error) => warn!(%error, "hosts of ExternalServices are not resolved"),
    }
}

async fn resolve_by(
    dns: &impl LookUp,
    mut latest: LatestModel,
    mut subscribed: watch::Receiver<Arc<ExternalNames>>,
    feed: Feed,
    hold: Hold,
    metrics: NameMetrics,
) {
    let (mut hold, started) = (Some(hold), Instant::now());
    let (mut schedule, mut wants) = (Schedule::default(), Wants::default());
    let mut lookups = FuturesUnordered::new();
    loop {
        let names = Arc::clone(&subscribed.borrow_and_update());
        let compiled = latest.borrow_and_update().clone();
        let is_compiled = compiled.is_some();
        let wanted = compiled.and_then(|compiled| wants.changed(&compiled, &names));
        let now = Instant::now();
        if let Some(wanted) = wanted {
            for change in schedule.want(wanted, now) {
                publish(&feed, change).await;
            }
            metrics.hosts.set(schedule.hosts());
        }
        let room = AT_ONCE - lookups.len();
        for host in schedule.take_due(now, room) {
            metrics.lookups.inc();
            lookups.push(dns.look_up(host, wants.families()));
        }
        let is_known = is_compiled && schedule.knows_all();
        if hold.is_some() && (is_known || now >= started + FIRST_ANSWERS) {
            info!(is_known, "first hosts are resolved");
            hold = None;
        }
        let first = hold.is_some().then_some(started + FIRST_ANSWERS);
        let due = schedule.next_due().filter(|_| lookups.len() < AT_ONCE);
        let wake = first.into_iter().chain(due).min();
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return },
            changed = subscribed.changed() => if changed.is_err() { return },
            Some((host, answer)) = lookups.next() => {
                metrics.failed.inc_by(u64::from(answer == Answer::Failed));
                if let Some(change) = schedule.answered(&host, answer, Instant::now()) {
                    publish(&feed, change).await;
                }
            }
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
        }
    }
}

async fn publish(feed: &Feed, Change { host, addresses }: Change) {
    let key = ResolvedName::key(&host);
    let step = match addresses {
        Some(addresses) => Step::Applied(key, Some(ResolvedName { addresses })),
        None => Step::Deleted(key),
    };
    feed.take(move |collector| collector.names.take(step)).await;
}

#[cfg(test)]
mod tests;
