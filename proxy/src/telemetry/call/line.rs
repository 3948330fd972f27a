//! A call as a line of the access log.

use std::time::Duration;

use super::Call;
use crate::telemetry::access_log;
use crate::telemetry::labels::Direction;

impl Call {
    /// Where only those that failed are written down, others have no line.
    pub(super) fn keep_line_of(&mut self, failed: bool) {
        let logged = self.logged.take();
        self.logged = logged.filter(|logged| logged.is_wanted(failed));
    }

    pub(super) fn log(&self, status: u16, reason: &str, latency: Duration, bytes: u64) {
        if let Some(line) = self.line(status, reason, latency, bytes) {
            access_log::write(&line);
        }
    }

    /// What the access log says of it, where there is one.
    pub(super) fn line<'a>(
        &'a self,
        status: u16,
        reason: &'a str,
        latency: Duration,
        bytes: u64,
    ) -> Option<access_log::Line<'a>> {
        let logged = self.logged.as_ref()?;
        Some(access_log::Line {
            direction: match self.parties().direction() {
                Direction::inbound => "inbound",
                Direction::outbound => "outbound",
            },
            method: logged.method.as_str(),
            host: &logged.host,
            path: &logged.path,
            status,
            reason,
            service: self.parties().service_name(),
            backend: self.parties().backend_name(),
            peer: self.parties().peer_name(),
            rule: logged.rule.as_ref().or(self.parties().rule()),
            trace: logged.trace.as_deref(),
            span: logged.span.as_deref(),
            latency,
            bytes,
        })
    }
}
