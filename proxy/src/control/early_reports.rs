//! Early reports: sends the controller what `telemetry::early` has summed of calls to the pod, once
//! a second while it wants that.
//!
//! Without change nothing is sent, but for a message now and then by which controllers know that
//! the sums are still those.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep};
use wire::v1;
use wire::v1::from_proxy::Message;

use crate::telemetry::Telemetry;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Without a change as well: a controller forgets a pod that is silent for three times as long.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What was sent on one stream.
#[derive(Debug, Default)]
struct LastSent(Option<(v1::EarlyReport, Instant)>);

impl LastSent {
    /// Whether this one is to be sent now.
    fn is_due(&self, report: &v1::EarlyReport, now: Instant) -> bool {
        self.0.as_ref().is_none_or(|(last, at)| {
            (last.epoch, &last.sums) != (report.epoch, &report.sums)
                || now.saturating_duration_since(*at) >= REPORT_EVERY
        })
    }
}

/// Sends early reports for as long as the stream takes messages.
pub(super) async fn feed(telemetry: &Telemetry, outbox: mpsc::Sender<v1::FromProxy>) {
    let mut wanted = telemetry.early.changes();
    let mut last_sent = LastSent::default();
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            // The sender lives as long as the telemetry.
            return;
        }
        sleep(EVERY).await;
        let now = Instant::now();
        let Some(report) = telemetry.early.look(now) else {
            continue;
        };
        // The last places are for messages without which a stream ends.
        let is_crowded = outbox.capacity() <= outbox.max_capacity() / 2;
        if is_crowded || !last_sent.is_due(&report, now) {
            continue;
        }
        let message = v1::FromProxy {
            message: Some(Message::EarlyReport(report.clone())),
        };
        match outbox.try_send(message) {
            Ok(()) => last_sent.0 = Some((report, now)),
            // The next one has these calls as well.
            Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Closed(_)) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::access_log::AccessLog;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn telemetry() -> Telemetry {
        let metrics = Metrics::register(&mut Registry::default());
        Telemetry::new(metrics, AccessLog::OFF)
    }

    fn early(message: v1::FromProxy) -> v1::EarlyReport {
        match message.message {
            Some(Message::EarlyReport(report)) => report,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn early_reports_are_sent_only_while_wanted() {
        let telemetry = telemetry();
        let (outbox, mut sent) = mpsc::channel(8);
        let feeding = feed(&telemetry, outbox);
        let watching = async {
            let minute = Duration::from_secs(60);
            let silent = async |sent: &mut mpsc::Receiver<v1::FromProxy>| {
                tokio::time::timeout(minute, sent.recv()).await.is_err()
            };
            assert!(silent(&mut sent).await, "none are wanted");
            telemetry.early.want(true);
            let began = Instant::now();
            let first = early(sent.recv().await.unwrap());
            assert_eq!(began.elapsed().as_secs(), 1);
            // Nothing has changed.
            let second = early(sent.recv().await.unwrap());
            assert_eq!(began.elapsed().as_secs(), 11);
            assert_eq!((first.epoch, first.number), (second.epoch, 1));
            assert!(second.number > first.number);
            telemetry.early.want(false);
            assert!(silent(&mut sent).await, "none are wanted any more");
            telemetry.early.want(true);
            let third = early(sent.recv().await.unwrap());
            assert_ne!(third.epoch, first.epoch);
        };
        tokio::select! {
            () = feeding => panic!("it ended"),
            () = watching => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_outbox_costs_no_stream_and_no_counts() {
        let telemetry = telemetry();
        let (outbox, mut sent) = mpsc::channel(1);
        telemetry.early.want(true);
        outbox.try_send(v1::FromProxy::default()).unwrap();
        let feeding = feed(&telemetry, outbox);
        let watching = async {
            sleep(5 * EVERY / 2).await;
            assert_eq!(sent.recv().await.unwrap(), v1::FromProxy::default());
            let report = early(sent.recv().await.unwrap());
            assert_eq!(report.number, 3);
        };
        tokio::select! {
            () = feeding => panic!("it ended"),
            () = watching => {}
        }
    }
}
