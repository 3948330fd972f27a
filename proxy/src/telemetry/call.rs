//! Counts how calls end. One `Call` per request or opaque connection, filled
//! in while it is served, and consumed exactly once. A request that is dropped
//! instead had a caller who left before there was an answer: it counts as cancelled,
//! so that successes, failures and cancelled ones are all requests there were. Opaque
//! bytes that are dropped while they are relayed were cut off, and count as lost.

pub(crate) mod counted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, StatusCode, header, request, response};
use policy::origin::Origin;
use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::body::Body;
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
use crate::telemetry::parties::Parties;
use crate::telemetry::report::{CallResult, Edge};
use crate::telemetry::trace;

/// What the access log shows beyond the metrics. Only made when it is on.
#[derive(Debug)]
struct Logged {
    method: Method,
    host: String,
    path: String,
    trace: Option<String>,
    /// What allowed or refused the call.
    rule: Option<Origin>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    /// A connection of opaque bytes.
    Bytes,
}

/// Begins before anything can refuse it. Whoever refuses it does so by [`Call::refuse`]
/// or [`Call::reset`], which count it.
#[derive(Debug)]
pub(crate) struct Call {
    telemetry: Arc<Telemetry>,
    kind: Kind,
    parties: Parties,
    started: Instant,
    logged: Option<Logged>,
    /// A request, or bytes that are relayed, that nothing has counted yet.
    awaited: bool,
    copied: Copied,
}

/// What the access log says where the caller left before the answer, as other proxies
/// do.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The head of an answer, as far as it is counted.
#[derive(Clone, Copy, Debug)]
struct Ended {
    status: StatusCode,
    grpc: Option<u16>,
    reason: Option<&'static str>,
    /// Time from the request to this head.
    after: Option<Duration>,
}

impl Ended {
    fn new(parts: &response::Parts, reason: Option<&'static str>) -> Self {
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
    pub(crate) fn begin(telemetry: &Arc<Telemetry>, kind: Kind, parties: Parties) -> Self {
        Self {
            telemetry: Arc::clone(telemetry),
            kind,
            parties,
            started: Instant::now(),
            logged: None,
            awaited: kind == Kind::Request,
            copied: Copied::default(),
        }
    }

    /// Notes what is asked, as far as the access log will tell.
    pub(crate) fn asks(&mut self, parts: &request::Parts) {
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

    /// Notes between whom it is.
    pub(crate) fn between(&mut self, parties: Parties) {
        self.parties = parties;
    }

    /// Notes which pod gets it now.
    pub(crate) fn attempt(&mut self, to: Arc<str>, by: Security) {
        if let Parties::Outbound { pod, security, .. } = &mut self.parties {
            (*pod, *security) = (to, by);
        }
    }

    /// Notes what allowed or refused the call, for the access log.
    pub(crate) fn decided_by(&mut self, rule: Option<&Origin>) {
        if let Some(logged) = &mut self.logged {
            logged.rule = rule.cloned();
        }
    }

    /// The port as it is counted; `served` when the other end itself has answered.
    fn port_label(&self, served: bool) -> Port {
        let parties = &self.parties;
        self.telemetry.port_label(
            parties.direction(),
            parties.service_name(),
            parties.port(),
            served,
        )
    }

    /// True when the other end has proved that it is a proxy of the mesh: only then do
    /// headers of the mesh in its answer mean anything.
    #[must_use]
    pub(crate) fn is_mutual(&self) -> bool {
        self.parties.security() == Security::mtls
    }

    /// What the controller is told of it.
    fn report(&self, port: Port, outcome: CallResult) {
        let parties = &self.parties;
        let peer = parties.peer();
        let known = !matches!(&*peer, "outside" | "external");
        let edge = Edge {
            direction: parties.direction(),
            peer: if known { peer } else { Arc::default() },
            caller: parties.caller().cloned(),
            service: parties.service(),
            port: port.number(),
            backend: parties.backend(),
            split: parties.rule().map(|split| Arc::clone(split.label())),
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

    /// The caller got an answer of this status, because no request could be made out, or
    /// because there was no room for one.
    pub(crate) fn turned_away(self, status: StatusCode) {
        let reason = if status == Reason::Overload.status() {
            Reason::Overload
        } else {
            Reason::BadRequest
        };
        self.count(status, None, Some(reason.as_str()), None, 0);
    }

    /// Refuses it by an answer of this proxy: to a request of this method, whose caller
    /// may want to be told as gRPC tells it.
    #[must_use]
    pub(crate) fn refuse(
        mut self,
        failure: &Failure,
        method: &Method,
        grpc: bool,
    ) -> Response<Body> {
        if let Failure::Refused { by: Some(by), .. } = failure {
            self.decided_by(Some(by));
        }
        let reason = failure.reason();
        match self.kind {
            Kind::Request => self.count(reason.status(), None, Some(reason.as_str()), None, 0),
            Kind::Bytes => self.count_tcp(reason.as_str()),
        }
        failure.response_to(method, grpc)
    }

    /// Refuses it, or ends it, without an answer: `abort` is how.
    pub(crate) fn reset(self, failure: &Failure, abort: impl FnOnce()) {
        abort();
        self.count_tcp(failure.reason().as_str());
    }

    /// The caller got an answer with this head, and its body has ended.
    fn done(self, ended: Ended, end: BodyEnd, bytes: u64, trailers: Option<&HeaderMap>) {
        let grpc = trailers.and_then(grpc_status).or(ended.grpc);
        let reason = match end {
            BodyEnd::Failed => Some(Reason::ConnectionLost.as_str()),
            BodyEnd::Complete | BodyEnd::Dropped => ended.reason,
        };
        self.count(ended.status, grpc, reason, ended.after, bytes);
    }

    /// Notes when the head of the answer came.
    fn head(&self, mut ended: Ended) -> Ended {
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
                direction: self.parties.direction(),
                service: self.parties.service(),
                port,
                backend: self.parties.backend(),
            })
            .observe(latency.as_secs_f64());
        self.log(status.as_u16(), own, latency, bytes);
        if let Some(compatibility) = &metrics.compatibility
            && self.parties.direction() == Direction::inbound
        {
            compatibility.arrived(status, success, latency);
        }
        metrics
            .requests
            .at(&RequestLabels {
                direction: self.parties.direction(),
                service: self.parties.service(),
                port,
                backend: self.parties.backend(),
                peer: self.parties.peer(),
                security: self.parties.security(),
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
            direction: self.parties.direction(),
            service: self.parties.service(),
            port: self.port_label(false),
            backend: self.parties.backend(),
            peer: self.parties.peer(),
            security: self.parties.security(),
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
            direction: match self.parties.direction() {
                Direction::inbound => "inbound",
                Direction::outbound => "outbound",
            },
            method: logged.method.as_str(),
            host: &logged.host,
            path: &logged.path,
            status,
            reason,
            service: self.parties.service_name(),
            backend: self.parties.backend_name(),
            peer: self.parties.peer_name(),
            rule: logged.rule.as_ref().or(self.parties.rule()),
            trace: logged.trace.as_deref(),
            latency,
            bytes,
        })
    }

    /// Bytes are relayed from now on: where they are counted.
    pub(crate) fn relays(&mut self) -> &mut Copied {
        self.awaited = true;
        &mut self.copied
    }

    /// An opaque connection that was served, and has ended.
    pub(crate) fn relayed(self, outcome: &std::io::Result<()>) {
        let reason = if outcome.is_ok() {
            ""
        } else {
            Reason::ConnectionLost.as_str()
        };
        self.count_tcp(reason);
    }

    fn count_tcp(mut self, reason: &'static str) {
        let relayed = std::mem::take(&mut self.awaited);
        self.bytes_ended(reason, relayed);
    }

    fn bytes_ended(&self, reason: &'static str, relayed: bool) {
        let (metrics, copied) = (&self.telemetry.metrics, self.copied);
        for (flow, bytes) in [("sent", copied.sent), ("received", copied.received)] {
            let labels = ByteLabels {
                direction: self.parties.direction(),
                flow,
                security: self.parties.security(),
            };
            if relayed {
                metrics.bytes.at(&labels).inc_by(bytes);
            }
        }
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
            direction: self.parties.direction(),
            service: self.parties.service(),
            port,
            backend: self.parties.backend(),
            peer: self.parties.peer(),
            security: self.parties.security(),
            reason,
        };
        metrics.tcp.at(&labels).inc();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        match self.kind {
            _ if !self.awaited => {}
            Kind::Request => self.cancelled(),
            Kind::Bytes => self.bytes_ended(Reason::ConnectionLost.as_str(), true),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    /// A call of either side, of which `rule` decides.
    fn decided(direction: Direction, access_log: bool, rule: &Origin) -> Call {
        let metrics = Metrics::register(&mut Registry::default());
        let telemetry = Arc::new(Telemetry::new(metrics, access_log));
        let (parts, ()) = Request::new(()).into_parts();
        let (security, port) = (Security::mtls, 80);
        let parties = match direction {
            Direction::outbound => Parties::Outbound {
                service: "shop/web".into(),
                port,
                backend: "shop/web-2".into(),
                rule: Some(rule.clone()),
                pod: Arc::default(),
                security,
            },
            Direction::inbound => Parties::Inbound {
                port,
                caller: "shop/web".into(),
                pod: None,
                security,
            },
        };
        let mut call = Call::begin(&telemetry, Kind::Request, parties);
        call.asks(&parts);
        if direction == Direction::inbound {
            call.decided_by(Some(rule));
        }
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
        }
    }
}
