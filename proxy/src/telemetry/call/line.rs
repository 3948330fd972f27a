//! A call as a line of the access log.

use std::time::{Duration, SystemTime};

use http::Method;

use super::Call;
use crate::telemetry::access_log;
use crate::telemetry::labels::Direction;
use crate::telemetry::trace::signal::log_record;

impl Call {
    /// Where only those that failed are written down, others have no line.
    pub(super) fn keep_line_of(&mut self, failed: bool) {
        let logged = self.logged.take();
        self.logged = logged.filter(|logged| logged.is_wanted(failed));
        if let Some(logged) = &mut self.logged {
            logged.failed = failed;
        }
    }

    pub(super) fn log(&self, status: u16, reason: &str, latency: Duration, bytes: u64) {
        let (Some(logged), Some(line)) = (&self.logged, self.line(status, reason, latency, bytes))
        else {
            return;
        };
        if logged.log.is_json() {
            access_log::write(&line);
        }
        if logged.log.is_otlp() {
            let record = log_record(&line, logged.failed, SystemTime::now());
            if let Err(why) = self.telemetry.tracer.record(record) {
                self.telemetry.metrics.telemetry_dropped(why, "logs", 1);
            }
        }
    }

    /// Its line in the access log, where there is one.
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
            method: access_log::cut(logged.method.as_ref().map_or("", Method::as_str)),
            host: &logged.host,
            path: &logged.path,
            status,
            reason,
            service: self.parties().service_name(),
            backend: self.parties().backend_name(),
            peer: self.parties().peer_name(),
            rule: logged.rule.as_ref().or(self.parties().rule()),
            route: logged.route.as_deref().unwrap_or_default(),
            trace: logged.trace.as_deref(),
            span: logged.span.as_deref(),
            latency,
            bytes,
        })
    }
}
