//! What one proxy says on its stream.

use std::time::SystemTime;

use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::{debug, warn};
use wire::v1;
use wire::v1::from_proxy::Message;

use super::stream::{ProxyStream, StreamEnd, Unsent, keep_names};

/// Resources of an answer after which other streams have their turn: it takes about a
/// millisecond.
const LARGE: usize = 512;

impl ProxyStream<'_> {
    /// One message, or the end of them.
    pub(super) fn handle_message(
        &mut self,
        message: Option<Result<v1::FromProxy, Status>>,
    ) -> Result<(), StreamEnd> {
        let message = match message {
            Some(Ok(message)) => message,
            // Ours, see `buffers`: the proxy gets the reason.
            Some(Err(status))
                if matches!(
                    status.code(),
                    Code::DeadlineExceeded | Code::ResourceExhausted
                ) =>
            {
                return Err(StreamEnd::Refused(status));
            }
            Some(Err(status)) => {
                debug!(pod = %self.pod, %status, "stream broke");
                return Err(StreamEnd::Over);
            }
            None => return Err(StreamEnd::Over),
        };
        let now = Instant::now();
        let (allowances, uid) = (&self.shared.allowances, &self.caller.uid);
        let wait = allowances.message(uid, &message, now);
        // Not an end: a proxy that really has so much to send is only slowed down.
        if !wait.is_zero() && self.paused.replace(now + wait).is_none() {
            self.shared.limits.counter("stream-messages").inc();
        }
        self.take(message)
    }

    /// The conditions of the objects tell which and why.
    fn refused(&self, resources: usize) {
        self.shared.metrics.nacks.inc_by(resources as u64);
        let allowances = &self.shared.allowances;
        if allowances.may_log(self.pod, "could not use", Instant::now()) {
            warn!(pod = %self.pod, resources, "proxy could not use resources");
        }
    }

    fn take(&mut self, message: v1::FromProxy) -> Result<(), StreamEnd> {
        match message.message {
            Some(Message::Ack(ack)) => {
                let answered = self.session.answer(ack, Instant::now());
                if answered.unknown {
                    return Err(StreamEnd::Refused(Status::invalid_argument(
                        "answer to a batch that was not sent",
                    )));
                }
                if let Some(after) = answered.after {
                    self.shared
                        .metrics
                        .answer_seconds
                        .observe(after.as_secs_f64());
                }
                if answered.refused > 0 {
                    self.refused(answered.refused);
                }
                if answered.objects {
                    self.note();
                }
                self.must_yield |= answered.carried > LARGE;
                Ok(())
            }
            Some(Message::Subscribe(mut change)) => {
                let unnamed = keep_names(&mut change.add);
                for name in &change.remove {
                    self.asks.remove(name);
                }
                self.asks.extend(change.add.iter().cloned());
                let left_out = self.session.subscribe(change);
                self.shared.left_out(self.pod, unnamed + left_out);
                self.asks
                    .retain(|name| self.session.destinations().contains(name));
                self.unsent = Unsent::Urgent;
                self.must_look = true;
                Ok(())
            }
            Some(Message::Hello(_)) => Err(StreamEnd::Refused(Status::invalid_argument(
                "a second Hello",
            ))),
            Some(Message::Report(report)) => {
                let (reports, now) = (&self.shared.reports, SystemTime::now());
                let slot = report.slot;
                if self.proxy_info.reports_of(slot, now, Instant::now()) {
                    self.note();
                }
                let report = self.proxy_info.dated(report);
                reports.take(&self.reporter, report, true, now);
                Ok(())
            }
            Some(Message::Pulse(pulse)) => {
                self.pulse(pulse);
                Ok(())
            }
            Some(Message::SharesTaken(taken)) => {
                self.shared.board.taken(&self.caller.uid, &taken);
                Ok(())
            }
            Some(Message::OfferedLoads(offered)) => {
                self.shared.board.offered(&self.caller.uid, &offered);
                Ok(())
            }
            Some(Message::Status(status)) => {
                self.proxy_info
                    .status(status, SystemTime::now(), Instant::now());
                self.note();
                Ok(())
            }
            // A newer proxy may say more than this controller knows.
            None => Ok(()),
        }
    }
}
