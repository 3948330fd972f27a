//! A request on its way to an endpoint, and one attempt to send it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version, header};
use policy::deadline::Deadline;
use policy::reason::Reason;
use policy::traffic::guard::Priority;
use policy::traffic::set::is_safe;
use tokio::time::sleep;

use crate::endpoints::endpoint::Endpoint;
use crate::failure::Failure;
use crate::http::client::Clients;
use crate::http::client::exchange::{self, UpstreamResponse};
use crate::http::context::{RetryParent, ServedRequest};
use crate::http::deadline::{self, Left, NextHop, StopConditions};
use crate::http::header_names::SHADOW;
use crate::http::headers;
use crate::http::received::host_of;
use crate::http::replay::Replay;
use crate::http::route_override::ForwardedOverride;
use crate::http::shadow::Shadow;
use crate::http::upload::Upload;
use crate::mesh::peer::Peer;
use crate::mesh::protocol::{AppHttp, AppPort, PeerRequest};
use crate::net::connect::ConnectTimeout;
use crate::outbound::edits::rename;
use crate::outbound::route::{Handing, Leaving, Route};
use crate::outbound::shadow;
use crate::proxy::Proxy;
use crate::telemetry::trace::Trace;

/// A request on its way to whichever endpoint takes it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) parts: Parts,
    pub(super) replay: Replay,
    pub(super) upgrade: Option<HeaderValue>,
    pub(super) grpc: bool,
    /// The address that the application called.
    pub(super) called: SocketAddr,
    /// When it is over.
    pub(super) deadline: Deadline,
    /// The class that it may have at most, by the application.
    pub(super) priority: Option<Priority>,
    /// What it has to do with copies, for peers.
    pub(super) shadow: Option<Shadow>,
    /// The unrecorded trace that begins with it, for an endpoint without a proxy.
    pub(super) trace: Option<Box<Trace>>,
    /// The request that it is made for, where its headers name it.
    pub(super) made_for: Option<Arc<ServedRequest>>,
    /// Its parent request must not be retried because of it.
    pub(super) retries_exhausted: AtomicBool,
    /// Its time passed while an attempt was under way.
    pub(super) late: AtomicBool,
    /// Where calls that are made for it are to go, for peers.
    pub(super) forwarded_override: Option<Box<ForwardedOverride>>,
    /// Its headers name the client of a Gateway, for peers.
    pub(super) names_client: bool,
    /// No caller waits for its response.
    pub(super) no_caller_waits: bool,
}

impl Outgoing {
    /// A request to the address `called` that is made for nothing and has no end but its own.
    pub(super) fn by_itself(parts: Parts, replay: Replay, called: SocketAddr) -> Self {
        Self {
            parts,
            replay,
            upgrade: None,
            grpc: false,
            called,
            deadline: Deadline::NONE,
            priority: None,
            shadow: None,
            trace: None,
            made_for: None,
            retries_exhausted: AtomicBool::new(false),
            late: AtomicBool::new(false),
            forwarded_override: None,
            names_client: false,
            no_caller_waits: false,
        }
    }

    /// # Errors
    /// When no time is left for it, or no caller waits any more for what it is made for.
    pub(super) fn check(&self) -> Result<(), Failure> {
        deadline::check(self.deadline)?;
        if self.caller_has_left() {
            return Err(deadline::left());
        }
        Ok(())
    }

    /// Whether the caller of its parent request has left.
    pub(super) fn caller_has_left(&self) -> bool {
        let request = self.made_for.as_ref();
        request.is_some_and(|request| request.has_left())
    }

    /// What ends it under way when no caller waits any more for what it is made for. What may be
    /// half done goes on.
    pub(super) fn leaving(&self) -> Option<Left> {
        let request = self.made_for.as_ref()?;
        is_safe(&self.parts.method).then(|| request.leaving())
    }

    /// Waits before the next attempt, no longer than a caller waits for what it is made for.
    pub(super) async fn pause(&self, wait: Duration, upload: &Upload) {
        if wait.is_zero() {
            return;
        }
        let left = StopConditions::new(None, None, upload, self.leaving());
        // A caller that has left is noticed before the next attempt.
        let _ = deadline::until(left, pin!(sleep(wait))).await;
    }

    /// What it is made for is tried again already.
    pub(super) fn is_for_retry(&self) -> bool {
        let request = self.made_for.as_ref();
        request.is_some_and(|request| request.inherited().retry)
    }

    /// Notes whether its last attempt until now exhausts the retries of its parent request.
    pub(super) fn note_retries_exhausted(&self, exhausted: bool) {
        self.retries_exhausted.store(exhausted, Relaxed);
    }

    /// What was noted last.
    pub(super) fn retries_exhausted(&self) -> bool {
        self.retries_exhausted.load(Relaxed)
    }

    /// Marks the parent request as not to be retried, where this call's last attempt failed.
    pub(super) fn report_exhausted_retries(&self, proxy: &Proxy) {
        if self.retries_exhausted()
            && let Some(retry_parent) = self.retry_parent()
        {
            proxy.contexts.mark_retries_exhausted(&retry_parent);
        }
    }

    /// The request to report its failure to.
    pub(super) fn retry_parent(&self) -> Option<RetryParent> {
        RetryParent::of(self.made_for.as_ref(), &self.parts.headers)
    }

    /// Sends one attempt to one endpoint, after so many others that an application may have
    /// seen or refused. An application without a proxy accepts it within `connect_timeout`.
    pub(super) async fn send(
        &self,
        proxy: &Proxy,
        (route, endpoint): (&Route, &Endpoint),
        retries: u8,
        connect_timeout: ConnectTimeout,
    ) -> Result<UpstreamResponse, Failure> {
        let outgoing_parts;
        let classless = retries == 0 && self.priority.is_none();
        let silent = classless && self.shadow.is_none() && self.forwarded_override.is_none();
        let adds_nothing = if endpoint.meshed() {
            silent
        } else {
            self.trace.is_none() && !self.names_client
        };
        let parts = if adds_nothing && self.deadline == Deadline::NONE {
            &self.parts
        } else {
            outgoing_parts = self.outgoing_parts(endpoint.meshed(), retries);
            &*outgoing_parts
        };
        match &endpoint.identity {
            Some(identity) => {
                let peer = proxy
                    .peers
                    .mesh(endpoint.addr.ip(), identity, &endpoint.pod_uid);
                match route.handing() {
                    None => self.send_to_peer(&peer, endpoint.addr.port(), parts).await,
                    // On the heap: most calls stay inside the mesh.
                    Some(handing) => Box::pin(self.hand_over(&peer, &handing, parts)).await,
                }
            }
            None => match route.leaving() {
                _ if route.handing().is_some() => Err(Route::no_gateway()),
                None => {
                    let clients = &proxy.unmeshed;
                    self.send_plain(clients, endpoint.addr, parts, connect_timeout)
                        .await
                }
                Some(leaving) => {
                    let to = (leaving, endpoint.addr);
                    // On the heap: most calls stay inside the mesh.
                    Box::pin(self.send_out(proxy, to, parts, connect_timeout)).await
                }
            },
        }
    }

    /// Hands one attempt over to a Gateway, which lets it out. An upgrade goes without.
    async fn hand_over(
        &self,
        peer: &Peer,
        handing: &Handing,
        parts: &Parts,
    ) -> Result<UpstreamResponse, Failure> {
        if self.shadow == Some(Shadow::ReadOnly) {
            return Err(shadow::refusal());
        }
        let mut parts = match host_of(parts) {
            Some(_) => parts.clone(),
            None => self.named_by_address(parts)?,
        };
        if let Some(host) = &handing.host {
            rename(&mut parts, host).ok_or_else(|| no_host(host))?;
        }
        let written = handing.over.write(&mut parts.headers);
        written.map_err(|bad| Failure::not_sent(Reason::BadRequest, bad))?;
        let request = PeerRequest::Http {
            port: app_port(handing.port)?,
            speak: AppHttp::of(parts.version),
            parts: &parts,
        };
        peer.send(&request, &self.replay).await
    }

    /// Sends one attempt out of the mesh, as the server there needs it.
    async fn send_out(
        &self,
        proxy: &Proxy,
        (leaving, addr): (Leaving<'_>, SocketAddr),
        parts: &Parts,
        limit: ConnectTimeout,
    ) -> Result<UpstreamResponse, Failure> {
        let mut parts = parts.clone();
        if let Some(host) = leaving.host {
            rename(&mut parts, host).ok_or_else(|| no_host(host))?;
        }
        let Some((tls, name)) = leaving.tls else {
            let clients = &proxy.unmeshed;
            return self.send_plain(clients, addr, &parts, limit).await;
        };
        let clients = proxy.originators.clients(tls, name)?;
        if parts.version == Version::HTTP_2 {
            let mut uri = parts.uri.into_parts();
            uri.scheme = uri.scheme.map(|_| Scheme::HTTPS);
            parts.uri = Uri::from_parts(uri)
                .map_err(|error| Failure::not_sent(Reason::BadRequest, error.to_string()))?;
        }
        self.send_plain(&clients, addr, &parts, limit).await
    }

    /// The call as fallbacks see it.
    pub(super) fn fallback_call(&self) -> policy::fallback::Call<'_> {
        policy::fallback::Call {
            method: &self.parts.method,
            once: self.grpc || self.upgrade.is_some(),
        }
    }

    /// With what is left of its time and, for a peer, what it counts as and has to do with
    /// copies; for others, the trace that begins. On the heap, because most requests have
    /// nothing of that.
    fn outgoing_parts(&self, meshed: bool, retries: u8) -> Box<Parts> {
        let mut parts = Box::new(self.parts.clone());
        let next_hop = if meshed {
            NextHop::Peer
        } else {
            NextHop::Outside
        };
        deadline::write_headers(&mut parts, self.deadline, self.grpc, next_hop);
        if !meshed {
            parts.headers.remove(headers::CLIENT_ADDRESS);
            if let Some(trace) = &self.trace {
                trace.pass_on(&mut parts.headers);
            }
            return parts;
        }
        if let Some(shadow) = self.shadow {
            parts.headers.insert(SHADOW, shadow.to_peer());
        }
        if let Some(priority) = self.priority {
            let class = HeaderValue::from_static(priority.as_str());
            parts.headers.insert(headers::PRIORITY, class);
        }
        if let Some(forwarded_override) = &self.forwarded_override {
            forwarded_override.write(&mut parts.headers);
        }
        if retries > 0 {
            let attempt = HeaderValue::from(u16::from(retries) + 1);
            parts.headers.insert(headers::ATTEMPT, attempt);
        }
        parts
    }

    /// By these connections, to which no proxy is on the other end.
    async fn send_plain(
        &self,
        clients: &Clients,
        addr: SocketAddr,
        parts: &Parts,
        limit: ConnectTimeout,
    ) -> Result<UpstreamResponse, Failure> {
        let replay = &self.replay;
        if let Some(upgrade) = &self.upgrade {
            // On the heap: most requests are for no upgrade.
            let mut parts = Box::new(parts.clone());
            let map = &mut parts.headers;
            map.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            map.insert(header::UPGRADE, upgrade.clone());
            return exchange::http1(clients, addr, limit, &parts, replay, None).await;
        }
        if parts.version == Version::HTTP_2 {
            let server = clients.http2(addr, &Arc::default());
            return exchange::http2(&server, parts, replay.again()?, limit).await;
        }
        exchange::http1(clients, addr, limit, parts, replay, None).await
    }

    async fn send_to_peer(
        &self,
        peer: &Peer,
        port: u16,
        parts: &Parts,
    ) -> Result<UpstreamResponse, Failure> {
        let named;
        let parts = if host_of(parts).is_some() {
            parts
        } else {
            // On the heap: hardly any request names no host.
            named = Box::new(self.named_by_address(parts)?);
            &*named
        };
        let port = app_port(port)?;
        if let Some(to) = &self.upgrade {
            // On the heap: most requests are for no upgrade.
            let asked = Box::pin(self.request_upgrade(peer, port, to, parts)).await?;
            if let Some(answer) = asked {
                return Ok(answer);
            }
            tracing::info!(
                called = %self.called,
                "the called pod's proxy is of an older version, so an upgrade by POST goes without \
                 Upgrade"
            );
        }
        let speak = AppHttp::of(parts.version);
        if self.no_caller_waits {
            let request = if self.shadow == Some(Shadow::ReadOnly) {
                PeerRequest::ReadOnlyCopy { port, speak, parts }
            } else {
                PeerRequest::Http { port, speak, parts }
            };
            // On the heap: no caller waits.
            return Box::pin(peer.send_aside(&request, &self.replay)).await;
        }
        let request = PeerRequest::Http { port, speak, parts };
        peer.send(&request, &self.replay).await
    }

    /// Sends a peer an upgrade. `None`: its proxy knows none by POST, and the request is to go
    /// without.
    async fn request_upgrade(
        &self,
        peer: &Peer,
        port: AppPort,
        to: &HeaderValue,
        parts: &Parts,
    ) -> Result<Option<UpstreamResponse>, Failure> {
        let to = to.clone();
        if parts.method != Method::POST {
            let body = 0;
            let request = PeerRequest::Upgrade {
                port,
                to,
                body,
                parts,
            };
            return peer.open(&request).await.map(Some);
        }
        self.replay.fill().await?;
        let whole = self.replay.whole();
        let whole = whole.ok_or_else(|| Failure::lost("the request's body is gone"))?;
        let request = PeerRequest::Upgrade {
            port,
            to,
            body: whole.len(),
            parts,
        };
        peer.open_by_post(&request, whole).await
    }

    /// Between two proxies every request names a host: one that names none is for the
    /// address that was called.
    fn named_by_address(&self, parts: &Parts) -> Result<Parts, Failure> {
        let mut parts = parts.clone();
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Authority::try_from(self.called.to_string()).ok();
        uri.path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        parts.uri = Uri::from_parts(uri)
            .map_err(|error| Failure::not_sent(Reason::BadRequest, error.to_string()))?;
        Ok(parts)
    }
}

fn no_host(host: &str) -> Failure {
    Failure::refused(
        Reason::BadRequest,
        format!("{host} is no host of a request"),
    )
}

/// The port of an endpoint, which a peer proxy delivers to.
pub(super) fn app_port(port: u16) -> Result<AppPort, Failure> {
    AppPort::new(port).ok_or_else(|| {
        let detail = format!("{port} is no port of an application");
        Failure::refused(Reason::BadRequest, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::empty;

    #[test]
    fn request_without_host_is_named_by_called_address() {
        for (target, named) in [
            ("/a?b", "http://10.0.0.1:80/a?b"),
            ("*", "http://10.0.0.1:80*"),
        ] {
            let request = http::Request::builder().uri(target).body(()).unwrap();
            let (parts, ()) = request.into_parts();
            let called = SocketAddr::from(([10, 0, 0, 1], 80));
            let outgoing = Outgoing::by_itself(parts, Replay::new(empty()), called);
            let parts = outgoing.named_by_address(&outgoing.parts).unwrap();
            assert_eq!(parts.uri.to_string(), named);
        }
    }
}
