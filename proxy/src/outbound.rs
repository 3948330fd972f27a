//! What happens to a connection that the application opens:
//! accept, target, detect, then per request or connection route, split,
//! balance, connect, send; and count how it ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use policy::http_match::RequestFacts;
use policy::mode::MtlsMode;
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::split::first_match;
use tokio::net::TcpStream;

use crate::app::Proxy;
use crate::body::{self, Body, Replay};
use crate::detect::{DETECT_WITHIN, Prefixed, SILENCE, Seen, judge};
use crate::endpoint::{Endpoint, EndpointSet};
use crate::failure::{Failure, is_grpc, refusal};
use crate::finish::{Call, Ended};
use crate::headers;
use crate::http::{From, serve as serve_http};
use crate::metrics::{ConnectionLabels, Direction, Security};
use crate::snapshot::{Destination, Snapshot};
use crate::tcp::{self, CONNECT_TIMEOUT, CONNECT_TIMEOUT_EXTERNAL};
use crate::trace;
use crate::tunnel::{self, Tunnel};
use crate::upstream::{self, Answer};

/// Endpoints that one call may try. The second and third are used only when it
/// is proven that no application saw the call before.
const ATTEMPTS: usize = 3;

/// New connections to the same endpoint that one call may need, because the
/// one in use ended just then.
const RENEWALS: usize = 2;

/// One connection of the application.
struct Connection {
    proxy: Arc<Proxy>,
    /// The address that the application called.
    addr: SocketAddr,
    destination: Arc<Destination>,
}

/// Serves one redirected connection until it ends.
pub async fn serve(proxy: Arc<Proxy>, stream: TcpStream, addr: SocketAddr) {
    let (found, _usage) = proxy.state.find(addr).await;
    let Some(destination) = found else {
        return unknown(&proxy, stream, addr).await;
    };
    let protocol = match &*destination {
        Destination::External => return pass_through(&proxy, stream, addr).await,
        Destination::Refused(reason) => {
            tracing::debug!(%addr, reason, "refused a connection");
            tunnel::reset(&stream);
            return Call::tcp(
                &proxy,
                Direction::outbound,
                "".into(),
                addr.port(),
                "".into(),
                "".into(),
                Security::plaintext,
            )
            .refused(&Failure::unsent(Reason::NoEndpoint, reason.as_str()));
        }
        Destination::Service(name) => proxy
            .state
            .snapshot()
            .services
            .get(name)
            .map_or(Protocol::Detect, |service| service.protocol),
        Destination::Pod(pod) => pod.protocol,
    };
    let connection = Arc::new(Connection {
        proxy,
        addr,
        destination,
    });
    let mut stream = Prefixed::new(stream);
    let (protocol, tunnel) = match protocol {
        Protocol::Detect => match connection.detect(&mut stream).await {
            Ok(found) => found,
            Err(failure) => return connection.failed_tcp(&failure),
        },
        declared => (declared, None),
    };
    let version = match protocol {
        Protocol::Http1 => Version::HTTP_11,
        Protocol::Http2 | Protocol::Grpc => Version::HTTP_2,
        Protocol::Detect | Protocol::Opaque | Protocol::Tls => {
            return connection.relay(stream, tunnel).await;
        }
    };
    // A declaration names the family; the bytes say which version it is.
    let version = match stream
        .look(tokio::time::Instant::now() + HEAD_PATIENCE, judge)
        .await
    {
        Ok(Seen::Http2) => Version::HTTP_2,
        Ok(Seen::Http1) => Version::HTTP_11,
        Ok(_) => version,
        Err(_) => return,
    };
    connection.count("http1", "http2", version);
    let handler = {
        let connection = Arc::clone(&connection);
        move |request| request_story(Arc::clone(&connection), request)
    };
    serve_http(
        stream,
        version,
        From::OwnApplication,
        std::future::pending(),
        handler,
    )
    .await;
}

/// An idle connection of a declared port may stay silent for this long before
/// the declared version is assumed.
const HEAD_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3600);

/// The controller did not say in time what the address is.
async fn unknown(proxy: &Arc<Proxy>, stream: TcpStream, addr: SocketAddr) {
    if proxy.state.snapshot().mtls() == MtlsMode::Permissive {
        let strict = async {
            let mut changes = proxy.state.policy_changes();
            while proxy.state.snapshot().mtls() == MtlsMode::Permissive {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        return tokio::select! {
            () = pass_through(proxy, stream, addr) => {}
            () = strict => {}
        };
    }
    let mut stream = Prefixed::new(stream);
    let seen = stream
        .look(tokio::time::Instant::now() + DETECT_WITHIN, judge)
        .await;
    let version = match seen {
        Ok(Seen::Http1) => Version::HTTP_11,
        Ok(Seen::Http2) => Version::HTTP_2,
        _ => return,
    };
    let handler = |request: Request<Incoming>| {
        let grpc = is_grpc(request.headers());
        async move {
            refusal(
                Reason::UnknownDestination,
                "the mesh does not know this address yet",
                grpc,
            )
        }
    };
    serve_http(
        stream,
        version,
        From::OwnApplication,
        std::future::pending(),
        handler,
    )
    .await;
}

/// Relays to an address outside the mesh as if no proxy were there.
async fn pass_through(proxy: &Arc<Proxy>, mut stream: TcpStream, addr: SocketAddr) {
    let call = Call::tcp(
        proxy,
        Direction::outbound,
        "".into(),
        addr.port(),
        "".into(),
        "external".into(),
        Security::plaintext,
    );
    match tcp::connect(addr, CONNECT_TIMEOUT_EXTERNAL).await {
        Ok(mut server) => call.relayed(tcp::relay(&mut stream, &mut server).await),
        Err(error) => {
            tunnel::reset(&stream);
            call.refused(&Failure::unsent(Reason::ConnectFailed, error.to_string()));
        }
    }
}

/// Where one call goes.
struct Route {
    service: Arc<str>,
    port: u16,
    backend: Arc<str>,
    /// `namespace/name` of the split that chose the backend.
    split: Option<Arc<str>>,
    choice: Choice,
}

enum Choice {
    One(Arc<Endpoint>),
    Any(Arc<EndpointSet>),
    /// Session affinity: every call of this pod in this turn to the same endpoint.
    Sticky(Arc<EndpointSet>, u64),
}

impl Route {
    fn pick(&self, own_ip: &str, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        match &self.choice {
            Choice::One(endpoint) => {
                (!tried.contains(&endpoint.addr)).then(|| Arc::clone(endpoint))
            }
            Choice::Any(set) => set.pick(tried),
            Choice::Sticky(set, turn) => set.sticky(own_ip, *turn, tried),
        }
    }
}

/// Which endpoint a call tries next. Another one is tried only while it is
/// proven that no application saw the call.
struct Attempts<'a> {
    route: &'a Route,
    tried: Vec<SocketAddr>,
    /// An endpoint whose connection ended, not itself.
    again: Option<Arc<Endpoint>>,
    renewals: usize,
    over: bool,
    last: Failure,
}

impl<'a> Attempts<'a> {
    fn new(route: &'a Route) -> Self {
        let none = format!("no endpoint of {}", route.backend);
        Self {
            route,
            tried: Vec::new(),
            again: None,
            renewals: 0,
            over: false,
            last: Failure::unsent(Reason::NoEndpoint, none),
        }
    }

    fn next(&mut self, own_ip: &str) -> Option<Arc<Endpoint>> {
        if self.over || self.tried.len() >= ATTEMPTS {
            return None;
        }
        self.again
            .take()
            .or_else(|| self.route.pick(own_ip, &self.tried))
    }

    fn failed(&mut self, endpoint: Arc<Endpoint>, failure: Failure) {
        if failure.stale && self.renewals < RENEWALS {
            self.renewals += 1;
            self.again = Some(endpoint);
        } else {
            endpoint.observe_failure();
            self.tried.push(endpoint.addr);
        }
        self.over = !failure.never_reached;
        self.last = failure;
    }
}

impl Connection {
    fn count(&self, http1: &'static str, http2: &'static str, version: Version) {
        let protocol = if version == Version::HTTP_2 {
            http2
        } else {
            http1
        };
        let labels = ConnectionLabels {
            direction: Direction::outbound,
            protocol,
            security: Security::plaintext,
        };
        self.proxy.state.metrics.connections.at(&labels).inc();
    }

    /// Finds out what is spoken; a server that speaks first decides as well.
    async fn detect(
        &self,
        stream: &mut Prefixed<TcpStream>,
    ) -> Result<(Protocol, Option<Tunnel>), Failure> {
        let lost = |error: std::io::Error| Failure::unsent(Reason::BadRequest, error.to_string());
        let now = tokio::time::Instant::now();
        let seen = stream.look(now + SILENCE, judge).await.map_err(lost)?;
        if seen != Seen::Unsure || stream.has_bytes() {
            let seen = if seen == Seen::Unsure {
                stream
                    .look(now + DETECT_WITHIN, judge)
                    .await
                    .map_err(lost)?
            } else {
                seen
            };
            return Ok((seen.protocol(), None));
        }
        let Ok(mut tunnel) = self.open("detect").await else {
            // What cannot be reached cannot speak first. The client's bytes
            // decide how it is told.
            let seen = stream
                .look(now + DETECT_WITHIN, judge)
                .await
                .map_err(lost)?;
            return Ok((seen.protocol(), None));
        };
        // No limit: while both are silent nothing is withheld from anybody.
        tokio::select! {
            _ = stream.first_bytes() => {}
            _ = tunnel.io.first_bytes() => return Ok((Protocol::Opaque, Some(tunnel))),
        }
        let until = tokio::time::Instant::now() + DETECT_WITHIN;
        match stream.look(until, judge).await.map_err(lost)? {
            Seen::Opaque | Seen::Unsure => Ok((Protocol::Opaque, Some(tunnel))),
            http => Ok((http.protocol(), None)),
        }
    }

    fn route(
        &self,
        snapshot: &Snapshot,
        request: Option<(&RequestFacts<'_>, Option<&str>)>,
    ) -> Result<Route, Failure> {
        let destination = snapshot
            .destinations
            .get(&self.addr)
            .unwrap_or(&self.destination);
        match &**destination {
            Destination::Service(name) => {
                Self::route_service(snapshot, name, request.map(|(facts, _)| facts))
            }
            Destination::Pod(pod) => {
                let host = request.and_then(|(_, host)| host).map(canonical_host);
                let headless = host
                    .and_then(|host| pod.headless.iter().find(|(hosts, _)| hosts.contains(&host)));
                if let Some((_, service)) = headless {
                    // Only a split moves a call away from the pod that it names.
                    let facts = request.map(|(facts, _)| facts);
                    if let Some(route) = Self::split(snapshot, service, facts)? {
                        return Ok(route);
                    }
                }
                Ok(Route {
                    service: "".into(),
                    port: self.addr.port(),
                    backend: "".into(),
                    split: None,
                    choice: Choice::One(Arc::clone(&pod.endpoint)),
                })
            }
            Destination::External | Destination::Refused(_) => Err(Failure::unsent(
                Reason::UnknownDestination,
                "the address has left the mesh",
            )),
        }
    }

    fn route_service(
        snapshot: &Snapshot,
        name: &str,
        facts: Option<&RequestFacts<'_>>,
    ) -> Result<Route, Failure> {
        if let Some(route) = Self::split(snapshot, name, facts)? {
            return Ok(route);
        }
        let service = known(snapshot, name)?;
        let set = endpoints(snapshot, &service.endpoints);
        let choice = match &service.affinity {
            Some(affinity) => Choice::Sticky(set, affinity.turn(Instant::now())),
            None => Choice::Any(set),
        };
        Ok(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::clone(&service.label),
            split: None,
            choice,
        })
    }

    /// The backend that a split chooses, if a split applies.
    fn split(
        snapshot: &Snapshot,
        name: &str,
        facts: Option<&RequestFacts<'_>>,
    ) -> Result<Option<Route>, Failure> {
        let service = known(snapshot, name)?;
        let Some(split) = first_match(&service.splits, facts) else {
            return Ok(None);
        };
        let backend = split.choose(rand::random()).ok_or_else(|| {
            Failure::unsent(
                Reason::NoBackend,
                format!("{} has no backend that may take traffic", split.origin),
            )
        })?;
        Ok(Some(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: backend.service.to_string().into(),
            split: Some(service.split_label(split)),
            choice: Choice::Any(endpoints(snapshot, &backend.endpoints)),
        }))
    }

    /// Opens a byte stream to an endpoint, trying others while none was reached.
    async fn open(&self, protocol: &'static str) -> Result<Tunnel, Failure> {
        let snapshot = self.proxy.state.snapshot();
        let route = self.route(&snapshot, None)?;
        let mut attempts = Attempts::new(&route);
        while let Some(endpoint) = attempts.next(&self.proxy.settings.own_ip) {
            let call = Call::tcp(
                &self.proxy,
                Direction::outbound,
                Arc::clone(&route.service),
                route.port,
                Arc::clone(&route.backend),
                Arc::clone(&endpoint.pod),
                Security::of(endpoint.meshed()),
            )
            .split_by(route.split.clone());
            match tunnel::open(&self.proxy, &endpoint, protocol, call).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(failure) => attempts.failed(endpoint, failure),
            }
        }
        Err(attempts.last)
    }

    async fn relay(&self, mut stream: Prefixed<TcpStream>, tunnel: Option<Tunnel>) {
        let tunnel = match tunnel {
            Some(tunnel) => tunnel,
            None => match self.open("tcp").await {
                Ok(tunnel) => tunnel,
                Err(failure) => {
                    tunnel::reset(&stream.inner);
                    return self.failed_tcp(&failure);
                }
            },
        };
        self.count("opaque", "opaque", Version::HTTP_11);
        tunnel.relay(&mut stream).await;
    }

    /// The Service port that was called, as far as it is known.
    fn called(&self, snapshot: &Snapshot) -> (Arc<str>, u16) {
        if let Destination::Service(name) = &*self.destination
            && let Some(service) = snapshot.services.get(name)
        {
            return (Arc::clone(&service.label), service.port);
        }
        ("".into(), self.addr.port())
    }

    fn failed_tcp(&self, failure: &Failure) {
        tracing::debug!(addr = %self.addr, %failure, "could not serve a connection");
        let (service, port) = self.called(&self.proxy.state.snapshot());
        Call::tcp(
            &self.proxy,
            Direction::outbound,
            service,
            port,
            "".into(),
            "".into(),
            Security::plaintext,
        )
        .refused(failure);
    }
}

fn known<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a crate::snapshot::Service, Failure> {
    snapshot
        .services
        .get(name)
        .map(|service| &**service)
        .ok_or_else(|| Failure::unsent(Reason::UnknownDestination, format!("{name} is not known")))
}

fn endpoints(snapshot: &Snapshot, name: &str) -> Arc<EndpointSet> {
    snapshot
        .endpoints_of(name)
        .map(Arc::clone)
        .unwrap_or_default()
}

/// Host without port and trailing dot, in lower case.
fn canonical_host(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// One request of the application, from its head to the end of its answer.
async fn request_story(connection: Arc<Connection>, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let proxy = &connection.proxy;
    let snapshot = proxy.state.snapshot();
    let (mut parts, incoming) = request.into_parts();
    let grpc = is_grpc(&parts.headers);
    if parts.method == Method::CONNECT {
        return refusal(Reason::BadRequest, "CONNECT is not served here", false);
    }
    let upgrade = headers::upgrade_of(&parts);
    let on_upgrade = upgrade
        .as_ref()
        .and_then(|_| parts.extensions.remove::<hyper::upgrade::OnUpgrade>());
    let host = host_of(&parts);
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::strip_ours(&mut parts.headers);
    if parts.version == Version::HTTP_2 {
        headers::join_cookies(&mut parts.headers);
    }
    let trace = trace::pass_on(&mut parts.headers);
    if parts.version == Version::HTTP_2
        && let Some(host) = &host
        && let Ok(host) = HeaderValue::from_str(host)
    {
        // Matches may name the host, whatever the version of HTTP.
        parts.headers.insert(header::HOST, host);
    }
    let facts = RequestFacts {
        method: &parts.method,
        path: parts.uri.path(),
        headers: &parts.headers,
    };
    let route = match connection.route(&snapshot, Some((&facts, host.as_deref()))) {
        Ok(route) => route,
        Err(failure) => {
            let (service, port) = connection.called(&snapshot);
            Call::http(proxy, Direction::outbound, &parts, started, trace)
                .to(service, port, "".into())
                .failed(&failure);
            return failure.response(grpc);
        }
    };
    let mut call = Call::http(proxy, Direction::outbound, &parts, started, trace)
        .to(
            Arc::clone(&route.service),
            route.port,
            Arc::clone(&route.backend),
        )
        .split_by(route.split.clone());
    let replay = Replay::new(body::incoming(incoming));
    let mut attempts = Attempts::new(&route);
    while let Some(endpoint) = attempts.next(&proxy.settings.own_ip) {
        call.peer(Arc::clone(&endpoint.pod), Security::of(endpoint.meshed()));
        let in_flight = endpoint.begin();
        let sent = Instant::now();
        match send(
            proxy,
            &endpoint,
            &parts,
            host.as_deref(),
            connection.addr,
            &replay,
            upgrade.as_ref(),
        )
        .await
        {
            Ok(answer) => {
                endpoint.observe(sent.elapsed());
                return finish(answer, call, in_flight, on_upgrade);
            }
            Err(failure) => attempts.failed(endpoint, failure),
        }
    }
    call.failed(&attempts.last);
    attempts.last.response(grpc)
}

/// Authority of the request: the URI's before the Host header, as HTTP wants it.
fn host_of(parts: &Parts) -> Option<String> {
    if let Some(authority) = parts.uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    parts
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned)
}

/// Sends one attempt to one endpoint.
async fn send(
    proxy: &Proxy,
    endpoint: &Endpoint,
    parts: &Parts,
    host: Option<&str>,
    called: SocketAddr,
    replay: &Replay,
    upgrade: Option<&HeaderValue>,
) -> Result<Answer, Failure> {
    let body = || {
        replay
            .take()
            .ok_or_else(|| Failure::lost("the request's body is too large to be sent again"))
    };
    let Some(identity) = &endpoint.identity else {
        if let Some(upgrade) = upgrade {
            let mut parts = parts.clone();
            parts
                .headers
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, upgrade.clone());
            return upstream::http1(&proxy.peers, endpoint.addr, CONNECT_TIMEOUT, &parts, replay)
                .await;
        }
        if parts.version == Version::HTTP_2 {
            return upstream::http2(&proxy.peers, endpoint.addr, parts, body()?).await;
        }
        return upstream::http1(&proxy.peers, endpoint.addr, CONNECT_TIMEOUT, parts, replay).await;
    };
    let mut mesh = parts.clone();
    let protocol = if parts.version == Version::HTTP_2 {
        "http2"
    } else {
        "http1"
    };
    let authority = host.map_or_else(|| called.to_string(), str::to_owned);
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    mesh.version = Version::HTTP_2;
    mesh.headers.remove(header::HOST);
    mesh.headers
        .insert(headers::PORT, HeaderValue::from(endpoint.addr.port()));
    mesh.headers
        .insert(headers::PROTOCOL, HeaderValue::from_static(protocol));
    let bad = |what: &str| Failure::unsent(Reason::BadRequest, format!("{what} cannot be sent on"));
    if let Some(upgrade) = upgrade {
        mesh.headers.insert(headers::UPGRADE_TO, upgrade.clone());
        mesh.headers.insert(
            headers::TARGET,
            HeaderValue::from_str(target).map_err(|_| bad("the request target"))?,
        );
        mesh.method = Method::CONNECT;
        mesh.uri = authority.parse().map_err(|_| bad("the Host header"))?;
    } else {
        mesh.uri = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(target)
            .build()
            .map_err(|_| bad("the Host header"))?;
    }
    upstream::mesh(&proxy.peers, endpoint.addr, identity, mesh, body()?).await
}

/// Hands the answer to the application and counts when its body has ended.
fn finish(
    answer: Answer,
    call: Call,
    in_flight: crate::endpoint::InFlight,
    on_upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Response<Body> {
    let Answer {
        mut response,
        place,
    } = answer;
    let real_status = response
        .headers()
        .get(headers::STATUS)
        .and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    let switched_to = response
        .headers()
        .get(headers::UPGRADE_TO)
        .or_else(|| response.headers().get(header::UPGRADE))
        .cloned();
    let server_side = hyper::upgrade::on(&mut response);
    let (mut parts, incoming) = response.into_parts();
    parts.version = Version::HTTP_11;
    if let Some(status) = real_status {
        parts.status = status;
    }
    let reason = call.reason_of(&parts.headers);
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::strip_ours(&mut parts.headers);
    if let Some(reason) = reason {
        parts
            .headers
            .insert(headers::REASON, HeaderValue::from_static(reason));
    }
    let ended = call.head(Ended::new(&parts, reason));
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client_side)) = (parts.status, on_upgrade) {
        if let Some(protocol) = switched_to {
            parts.headers.insert(header::UPGRADE, protocol);
        }
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        tokio::spawn(async move {
            let _held = (place, in_flight);
            let (Ok(client), Ok(server)) = tokio::join!(client_side, server_side) else {
                return call.done(ended, body::End::Failed, 0, None);
            };
            let (copied, _) =
                tcp::relay(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
            let bytes = copied.received;
            call.done(ended, body::End::Complete, bytes, None);
        });
        return Response::from_parts(parts, body::empty());
    }
    let body = body::Watched::new(body::incoming(incoming), move |end, bytes, trailers| {
        drop((place, in_flight));
        call.done(ended, end, bytes, trailers);
    });
    Response::from_parts(parts, http_body_util::BodyExt::boxed_unsync(body))
}

#[cfg(test)]
mod tests {
    use super::canonical_host;

    #[test]
    fn a_host_is_compared_without_port_dot_and_case() {
        for host in [
            "Web.shop.svc",
            "web.shop.svc.",
            "web.shop.svc:8080",
            "WEB.shop.svc.:80",
        ] {
            assert_eq!(canonical_host(host), "web.shop.svc", "{host}");
        }
    }
}
