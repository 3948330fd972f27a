//! What a call tells the access log, and whoever watches requests.

use std::time::Duration;

use http::{header, request};

use super::{Call, Logged};
use crate::telemetry::access_log;
use crate::telemetry::labels::Direction;
use crate::telemetry::tap::record::Ending;
use crate::telemetry::trace;

impl Call {
    /// Notes what is asked, as far as the access log and those who watch will tell.
    pub(crate) fn asks(&mut self, parts: &request::Parts) {
        if self.telemetry.taps.any() {
            self.tapped = self.telemetry.taps.note(self.parties(), parts);
        }
        self.logged = self.telemetry.access_log.then(|| Logged {
            method: parts.method.clone(),
            host: parts
                .uri
                .authority()
                .map(|authority| authority.as_str())
                .or_else(|| {
                    parts
                        .headers
                        .get(header::HOST)
                        .and_then(|host| host.to_str().ok())
                })
                .map(|host| access_log::cut(host).to_owned())
                .unwrap_or_default(),
            path: access_log::cut(parts.uri.path()).to_owned(),
            trace: trace::id(&parts.headers),
            rule: None,
        });
    }

    /// Tells the access log and whoever watches. A status of gRPC stands beside that of HTTP.
    pub(super) fn log(
        &self,
        (status, grpc): (u16, Option<u16>),
        reason: &'static str,
        latency: Duration,
        bytes: u64,
    ) {
        if let Some(tapped) = &self.tapped {
            let ending = Ending {
                port: self.port,
                status,
                grpc,
                reason,
                latency,
                bytes,
            };
            tapped.ended(self.parties(), self.protocol, &ending);
        }
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
            latency,
            bytes,
        })
    }
}
