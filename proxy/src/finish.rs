//! Counts how calls end. One `Call` per request or opaque connection, filled
//! in while its story is told, and consumed exactly once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode, header, request, response};
use policy::reason::Reason;

use crate::access_log;
use crate::app::Proxy;
use crate::body::End;
use crate::failure::{Failure, grpc_status, is_success, reason_in};
use crate::metrics::{ByteLabels, Direction, LatencyLabels, RequestLabels, Security, TcpLabels};
use crate::tcp::Copied;

/// What the access log shows beyond the metrics. Only made when it is on.
#[derive(Debug)]
struct Logged {
    method: Method,
    host: String,
    path: String,
    trace: Option<String>,
}

#[derive(Debug)]
pub struct Call {
    proxy: Arc<Proxy>,
    direction: Direction,
    service: Arc<str>,
    port: u16,
    backend: Arc<str>,
    peer: Arc<str>,
    security: Security,
    started: Instant,
    logged: Option<Logged>,
}

/// The head of an answer, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    status: StatusCode,
    grpc: Option<u16>,
    reason: Option<&'static str>,
    /// Time from the request to this head.
    after: Option<Duration>,
}

impl Ended {
    #[must_use]
    pub fn new(parts: &response::Parts, reason: Option<&'static str>) -> Self {
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
    pub fn http(
        proxy: &Arc<Proxy>,
        direction: Direction,
        parts: &request::Parts,
        started: Instant,
        trace: Option<String>,
    ) -> Self {
        let logged = proxy.settings.access_log.then(|| Logged {
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
            proxy: Arc::clone(proxy),
            direction,
            service: "".into(),
            port: 0,
            backend: "".into(),
            peer: "".into(),
            security: Security::plaintext,
            started,
            logged,
        }
    }

    #[must_use]
    pub fn tcp(
        proxy: &Arc<Proxy>,
        direction: Direction,
        service: Arc<str>,
        port: u16,
        backend: Arc<str>,
        peer: Arc<str>,
        security: Security,
    ) -> Self {
        let started = Instant::now();
        Self {
            proxy: Arc::clone(proxy),
            direction,
            service,
            port,
            backend,
            peer,
            security,
            started,
            logged: None,
        }
    }

    #[must_use]
    pub fn to(mut self, service: Arc<str>, port: u16, backend: Arc<str>) -> Self {
        (self.service, self.port, self.backend) = (service, port, backend);
        self
    }

    pub fn peer(&mut self, peer: Arc<str>, security: Security) {
        (self.peer, self.security) = (peer, security);
    }

    /// Why the peer proxy answered instead of the application. An application's
    /// own header of that name means nothing.
    #[must_use]
    pub fn reason_of(&self, map: &HeaderMap) -> Option<&'static str> {
        if self.security != Security::mtls {
            return None;
        }
        reason_in(map).map(Reason::as_str)
    }

    /// The caller got an answer that this proxy made.
    pub fn failed(self, failure: &Failure) {
        self.count(
            failure.reason.status(),
            None,
            Some(failure.reason.as_str()),
            None,
            0,
        );
    }

    /// The caller got an answer with this head, and its body has ended.
    pub fn done(self, ended: Ended, end: End, bytes: u64, trailers: Option<&HeaderMap>) {
        let grpc = trailers.and_then(grpc_status).or(ended.grpc);
        let reason = match end {
            End::Failed => Some(Reason::ConnectionLost.as_str()),
            End::Complete | End::Dropped => ended.reason,
        };
        self.count(ended.status, grpc, reason, ended.after, bytes);
    }

    /// Notes when the head of the answer came.
    #[must_use]
    pub fn head(&self, mut ended: Ended) -> Ended {
        ended.after = Some(self.started.elapsed());
        ended
    }

    fn count(
        self,
        status: StatusCode,
        grpc: Option<u16>,
        reason: Option<&'static str>,
        after: Option<Duration>,
        bytes: u64,
    ) {
        let metrics = &self.proxy.state.metrics;
        let latency = after.unwrap_or_else(|| self.started.elapsed());
        let own = reason.unwrap_or("");
        let lost = own == Reason::ConnectionLost.as_str();
        metrics
            .latency
            .at(&LatencyLabels {
                direction: self.direction,
                service: Arc::clone(&self.service),
                port: self.port,
                backend: Arc::clone(&self.backend),
            })
            .observe(latency.as_secs_f64());
        if let Some(logged) = &self.logged {
            access_log::write(&access_log::Line {
                direction: match self.direction {
                    Direction::inbound => "inbound",
                    Direction::outbound => "outbound",
                },
                method: logged.method.as_str(),
                host: &logged.host,
                path: &logged.path,
                status: status.as_u16(),
                reason: own,
                service: &self.service,
                backend: &self.backend,
                peer: &self.peer,
                trace: logged.trace.as_deref(),
                latency,
                bytes,
            });
        }
        metrics
            .requests
            .at(&RequestLabels {
                direction: self.direction,
                service: self.service,
                port: self.port,
                backend: self.backend,
                peer: self.peer,
                security: self.security,
                status: status.as_u16(),
                success: !lost && is_success(status, grpc),
                reason: own,
            })
            .inc();
    }

    /// An opaque connection that was not served.
    pub fn refused(self, failure: &Failure) {
        self.count_tcp(failure.reason.as_str());
    }

    /// An opaque connection that was served, and has ended.
    pub fn relayed(self, (copied, outcome): (Copied, std::io::Result<()>)) {
        let metrics = &self.proxy.state.metrics;
        for (flow, bytes) in [("sent", copied.sent), ("received", copied.received)] {
            let labels = ByteLabels {
                direction: self.direction,
                flow,
                security: self.security,
            };
            metrics.bytes.at(&labels).inc_by(bytes);
        }
        self.count_tcp(if outcome.is_ok() {
            ""
        } else {
            Reason::ConnectionLost.as_str()
        });
    }

    fn count_tcp(self, reason: &'static str) {
        let labels = TcpLabels {
            direction: self.direction,
            service: self.service,
            port: self.port,
            backend: self.backend,
            peer: self.peer,
            security: self.security,
            reason,
        };
        self.proxy.state.metrics.tcp.at(&labels).inc();
    }
}
