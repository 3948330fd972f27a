//! Counts how calls end. One `Call` per request or opaque connection, filled
//! in while it is served, and consumed exactly once. A request that is dropped
//! instead had a caller who left before there was an answer: it counts as cancelled,
//! so that successes, failures and cancelled ones are all requests there were.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode, header, request, response};
use policy::origin::Origin;
use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::grpc::{grpc_status, is_success};
use crate::http::refusal::reason_in;
use crate::http::watched::BodyEnd;
use crate::net::relay::Copied;
use crate::telemetry::Telemetry;
use crate::telemetry::access_log;
use crate::telemetry::labels::Port;
use crate::telemetry::labels::{
    ByteLabels, CancelledLabels, Direction, LatencyLabels, RequestLabels, Security, TcpLabels,
};
use crate::telemetry::report::{CallResult, Edge};

/// What the access log shows beyond the metrics. Only made when it is on.
#[derive(Debug)]
struct Logged {
    method: Method,
    host: String,
    path: String,
    trace: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Call {
    telemetry: Arc<Telemetry>,
    direction: Direction,
    service: Arc<str>,
    port: u16,
    backend: Arc<str>,
    peer: Arc<str>,
    /// Uid of the calling pod.
    caller: Option<Arc<str>>,
    /// What decided about the call, where somebody will ask.
    rule: Option<Origin>,
    security: Security,
    started: Instant,
    logged: Option<Logged>,
    /// A request that nothing has counted yet.
    awaited: bool,
}

/// What the access log says where the caller left before the answer, as other proxies
/// do.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The head of an answer, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    status: StatusCode,
    grpc: Option<u16>,
    reason: Option<&'static str>,
    /// Time from the request to this head.
    after: Option<Duration>,
}

impl Ended {
    #[must_use]
    pub(crate) fn new(parts: &response::Parts, reason: Option<&'static str>) -> Self {
        Self {
            status: parts.status,
            grpc: grpc_status(&parts.headers),
            reason,
            after: None,
        }
    }
}

impl Call {
    #[must_use]
    pub(crate) fn http(
        telemetry: &Arc<Telemetry>,
        direction: Direction,
        parts: &request::Parts,
        started: Instant,
        trace: Option<String>,
    ) -> Self {
        let logged = telemetry.access_log.then(|| Logged {
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
            trace,
        });
        Self {
            telemetry: Arc::clone(telemetry),
            direction,
            service: Arc::default(),
            port: 0,
            backend: Arc::default(),
            peer: Arc::default(),
            caller: None,
            rule: None,
            security: Security::plaintext,
            started,
            logged,
            awaited: true,
        }
    }

    /// A request that was refused before anybody saw what it asks for.
    #[must_use]
    pub(crate) fn unread(telemetry: &Arc<Telemetry>, direction: Direction) -> Self {
        let mut call = Self::tcp(
            telemetry,
            direction,
            Arc::default(),
            0,
            Arc::default(),
            Arc::default(),
            Security::plaintext,
        );
        call.awaited = true;
        call
    }

    #[must_use]
    pub(crate) fn tcp(
        telemetry: &Arc<Telemetry>,
        direction: Direction,
        service: Arc<str>,
        port: u16,
        backend: Arc<str>,
        peer: Arc<str>,
        security: Security,
    ) -> Self {
        let started = Instant::now();
        Self {
            telemetry: Arc::clone(telemetry),
            direction,
            service,
            port,
            backend,
            peer,
            caller: None,
            rule: None,
            security,
            started,
            logged: None,
            awaited: false,
        }
    }

    #[must_use]
    pub(crate) fn to(mut self, service: Arc<str>, port: u16, backend: Arc<str>) -> Self {
        (self.service, self.port, self.backend) = (service, port, backend);
        self
    }

    pub(crate) fn peer(&mut self, peer: Arc<str>, security: Security) {
        (self.peer, self.security) = (peer, security);
    }

    /// Which pod calls, where its certificate says so.
    #[must_use]
    pub(crate) fn with_caller(mut self, uid: Option<Arc<str>>) -> Self {
        self.caller = uid;
        self
    }

    /// What chose the backend of the call, or allowed or refused it. Reports name the
    /// first, the access log names both.
    pub(crate) fn decided_by(&mut self, rule: Option<&Origin>) {
        if self.direction == Direction::outbound || self.logged.is_some() {
            self.rule = rule.cloned();
        }
    }

    /// The port as it is counted; `served` when the other end itself has answered.
    fn port_label(&self, served: bool) -> Port {
        let (direction, service) = (self.direction, &self.service);
        self.telemetry
            .port_label(direction, service, self.port, served)
    }

    /// True when the other end has proved that it is a proxy of the mesh: only then do
    /// headers of the mesh in its answer mean anything.
    #[must_use]
    pub(crate) fn is_mutual(&self) -> bool {
        self.security == Security::mtls
    }

    /// What the controller is told of it.
    fn report(&self, port: Port, outcome: CallResult) {
        let known = !matches!(&*self.peer, "outside" | "external");
        let edge = Edge {
            direction: self.direction,
            peer: if known {
                Arc::clone(&self.peer)
            } else {
                Arc::default()
            },
            caller: self.caller.clone(),
            service: Arc::clone(&self.service),
            port: port.number(),
            backend: Arc::clone(&self.backend),
            split: match (self.direction, &self.rule) {
                (Direction::outbound, Some(split)) if !self.backend.is_empty() => {
                    Some(Arc::clone(split.label()))
                }
                _ => None,
            },
        };
        self.telemetry.reports.count(edge, outcome);
    }

    /// Why the peer proxy answered instead of the application. An application's
    /// own header of that name means nothing.
    #[must_use]
    pub(crate) fn reason_of(&self, map: &HeaderMap) -> Option<&'static str> {
        if !self.is_mutual() {
            return None;
        }
        reason_in(map).map(Reason::as_str)
    }

    /// The caller got an answer of this status, because no request could be made out.
    pub(crate) fn turned_away(self, status: StatusCode) {
        self.count(status, None, Some(Reason::BadRequest.as_str()), None, 0);
    }

    /// The caller got an answer that this proxy made.
    pub(crate) fn failed(mut self, failure: &Failure) {
        if let Failure::Refused { by: Some(by), .. } = failure {
            self.decided_by(Some(by));
        }
        self.count(
            failure.reason().status(),
            None,
            Some(failure.reason().as_str()),
            None,
            0,
        );
    }

    /// The caller got an answer with this head, and its body has ended.
    pub(crate) fn done(self, ended: Ended, end: BodyEnd, bytes: u64, trailers: Option<&HeaderMap>) {
        let grpc = trailers.and_then(grpc_status).or(ended.grpc);
        let reason = match end {
            BodyEnd::Failed => Some(Reason::ConnectionLost.as_str()),
            BodyEnd::Complete | BodyEnd::Dropped => ended.reason,
        };
        self.count(ended.status, grpc, reason, ended.after, bytes);
    }

    /// Notes when the head of the answer came.
    #[must_use]
    pub(crate) fn head(&self, mut ended: Ended) -> Ended {
        ended.after = Some(self.started.elapsed());
        ended
    }

    fn count(
        mut self,
        status: StatusCode,
        grpc: Option<u16>,
        reason: Option<&'static str>,
        after: Option<Duration>,
        bytes: u64,
    ) {
        self.awaited = false;
        let metrics = &self.telemetry.metrics;
        let latency = after.unwrap_or_else(|| self.started.elapsed());
        let own = reason.unwrap_or("");
        // An answer of the mesh instead of the application's is a failure, whatever
        // its status.
        let success = own.is_empty() && is_success(status, grpc);
        let port = self.port_label(own.is_empty());
        self.report(
            port,
            CallResult {
                success,
                latency: Some(latency.as_secs_f64()),
                sent: 0,
                received: bytes,
            },
        );
        metrics
            .latency
            .at(&LatencyLabels {
                direction: self.direction,
                service: Arc::clone(&self.service),
                port,
                backend: Arc::clone(&self.backend),
            })
            .observe(latency.as_secs_f64());
        self.log(status.as_u16(), own, latency, bytes);
        if let Some(compatibility) = &metrics.compatibility
            && self.direction == Direction::inbound
        {
            compatibility.arrived(status, success, latency);
        }
        metrics
            .requests
            .at(&RequestLabels {
                direction: self.direction,
                service: Arc::clone(&self.service),
                port,
                backend: Arc::clone(&self.backend),
                peer: Arc::clone(&self.peer),
                security: self.security,
                status: status.as_u16(),
                success,
                reason: own,
            })
            .inc();
    }

    /// The caller left before there was an answer. That says nothing of how good the
    /// answer would have been, so it is neither a success nor a failure, and no latency.
    fn cancelled(&self) {
        self.log(
            CLIENT_CLOSED_REQUEST,
            "cancelled",
            self.started.elapsed(),
            0,
        );
        let labels = CancelledLabels {
            direction: self.direction,
            service: Arc::clone(&self.service),
            port: self.port_label(false),
            backend: Arc::clone(&self.backend),
            peer: Arc::clone(&self.peer),
            security: self.security,
        };
        self.telemetry.metrics.cancelled.at(&labels).inc();
    }

    fn log(&self, status: u16, reason: &str, latency: Duration, bytes: u64) {
        if let Some(line) = self.line(status, reason, latency, bytes) {
            access_log::write(&line);
        }
    }

    /// What the access log says of it, where there is one.
    fn line<'a>(
        &'a self,
        status: u16,
        reason: &'a str,
        latency: Duration,
        bytes: u64,
    ) -> Option<access_log::Line<'a>> {
        let logged = self.logged.as_ref()?;
        Some(access_log::Line {
            direction: match self.direction {
                Direction::inbound => "inbound",
                Direction::outbound => "outbound",
            },
            method: logged.method.as_str(),
            host: &logged.host,
            path: &logged.path,
            status,
            reason,
            service: &self.service,
            backend: &self.backend,
            peer: &self.peer,
            rule: self.rule.as_ref(),
            trace: logged.trace.as_deref(),
            latency,
            bytes,
        })
    }

    /// An opaque connection that was not served.
    pub(crate) fn refused(self, failure: &Failure) {
        self.count_tcp(failure.reason().as_str(), Copied::default());
    }

    /// An opaque connection that was served, and has ended.
    pub(crate) fn relayed(self, (copied, outcome): (Copied, std::io::Result<()>)) {
        let metrics = &self.telemetry.metrics;
        for (flow, bytes) in [("sent", copied.sent), ("received", copied.received)] {
            let labels = ByteLabels {
                direction: self.direction,
                flow,
                security: self.security,
            };
            metrics.bytes.at(&labels).inc_by(bytes);
        }
        let reason = if outcome.is_ok() {
            ""
        } else {
            Reason::ConnectionLost.as_str()
        };
        self.count_tcp(reason, copied);
    }

    fn count_tcp(self, reason: &'static str, copied: Copied) {
        let port = self.port_label(reason.is_empty());
        self.report(
            port,
            CallResult {
                success: reason.is_empty(),
                latency: None,
                sent: copied.sent,
                received: copied.received,
            },
        );
        let labels = TcpLabels {
            direction: self.direction,
            service: Arc::clone(&self.service),
            port,
            backend: Arc::clone(&self.backend),
            peer: Arc::clone(&self.peer),
            security: self.security,
            reason,
        };
        self.telemetry.metrics.tcp.at(&labels).inc();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.awaited {
            self.cancelled();
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    /// A call of which `rule` decides.
    fn decided(direction: Direction, access_log: bool, rule: &Origin) -> Call {
        let metrics = Metrics::register(&mut Registry::default());
        let telemetry = Arc::new(Telemetry::new(metrics, access_log));
        let (parts, ()) = Request::new(()).into_parts();
        let mut call = Call::http(&telemetry, direction, &parts, Instant::now(), None);
        call.decided_by(Some(rule));
        call
    }

    #[test]
    fn the_access_log_names_what_decided_on_either_side() {
        for (direction, kind) in [
            (Direction::inbound, "TrafficTarget"),
            (Direction::outbound, "TrafficSplit"),
        ] {
            let rule = Origin::new(kind, "shop", "web");
            let call = decided(direction, true, &rule);
            let line = call.line(200, "", Duration::ZERO, 0).unwrap();
            assert_eq!(line.rule, Some(&rule));
            let silent = decided(direction, false, &rule);
            assert!(silent.line(200, "", Duration::ZERO, 0).is_none());
            // Reports need what chose a backend, with a log and without; nobody asks for
            // what allowed a call when nothing is logged.
            let kept = direction == Direction::outbound;
            assert_eq!(silent.rule.is_some(), kept);
        }
    }
}
