//! What happens to a connection from outside the pod: accept, tls (or
//! plaintext where permitted), detect, then per request or connection
//! authorise, forward to the application, and count how it ended.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use identity::verify::{PeerIdentity, peer_identity};
use policy::access::{Caller, Verdict};
use policy::http_match::RequestFacts;
use policy::mode::{Enforcement, MtlsMode};
use policy::protocol::Protocol;
use policy::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::{OWN_PORTS, Proxy};
use crate::body::{self, Body, Replay};
use crate::detect::{DETECT_WITHIN, Prefixed, SILENCE, Seen, judge, judge_strictly};
use crate::failure::{Failure, is_grpc, refusal};
use crate::finish::{Call, Ended};
use crate::headers;
use crate::http::{From, serve as serve_http};
use crate::metrics::{AuditLabels, ConnectionLabels, Direction, Security};
use crate::peer::TLS_BUFFER;
use crate::snapshot::Snapshot;
use crate::tcp::{self, CONNECT_TIMEOUT};
use crate::trace;
use crate::tunnel;
use crate::upstream::{self, Answer};
use crate::wide::Wide;

/// A caller has this long to finish the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A request in flight that a change no longer allows may go on for this long.
const IN_FLIGHT_GRACE: Duration = Duration::from_secs(30);

/// Parts of an answer that pass before anybody looks whether it may go on: most
/// answers have fewer, and need no watch.
const FREE_FRAMES: u32 = 32;

/// Who calls, and which port of the application.
struct Visit {
    proxy: Arc<Proxy>,
    peer: Option<PeerIdentity>,
    /// `namespace/service-account`, or `outside`.
    label: Arc<str>,
    /// Uid of the calling pod, where its certificate says so.
    pod: Option<Arc<str>>,
    /// The application's address: always one of the pod's own.
    local: SocketAddr,
}

/// Serves one connection to the mesh port.
pub async fn serve_mesh(proxy: Arc<Proxy>, stream: TcpStream) {
    let Ok(own) = stream.local_addr() else { return };
    if !proxy.settings.is_own(own.ip()) {
        return tunnel::reset(&stream);
    }
    let acceptor = tokio_rustls::TlsAcceptor::from(proxy.tls.server());
    let secured = match timeout(
        HANDSHAKE_TIMEOUT,
        acceptor.accept_with(Wide::new(stream), |tls| {
            tls.set_buffer_limit(Some(TLS_BUFFER))
        }),
    )
    .await
    {
        Ok(Ok(secured)) => secured,
        Ok(Err(error)) => {
            tracing::debug!(%error, "refused a caller on the mesh port");
            return proxy
                .state
                .metrics
                .tls_failed(Direction::inbound, "handshake");
        }
        Err(_) => {
            return proxy
                .state
                .metrics
                .tls_failed(Direction::inbound, "timeout");
        }
    };
    let certs = secured.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = match peer_identity(certs) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::debug!(%error, "refused a caller on the mesh port");
            return proxy
                .state
                .metrics
                .tls_failed(Direction::inbound, "identity");
        }
    };
    proxy.count_connection(Direction::inbound, "http2", Security::mtls);
    let lifecycle = proxy.lifecycle.clone();
    let handler = move |request| mesh_request(Arc::clone(&proxy), peer.clone(), own.ip(), request);
    let close = async move { lifecycle.time_to_go().await };
    serve_http(secured, Version::HTTP_2, From::Mesh, close, handler).await;
}

/// One request or tunnel from a peer proxy.
async fn mesh_request(
    proxy: Arc<Proxy>,
    peer: PeerIdentity,
    ip: IpAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let map = request.headers();
    let port = map
        .get(headers::PORT)
        .and_then(|port| port.to_str().ok()?.parse::<u16>().ok());
    let Some(port) = port.filter(|port| *port != 0 && !OWN_PORTS.contains(port)) else {
        return refusal(
            Reason::BadRequest,
            "weft-port names no port of an application",
            false,
        );
    };
    let http2 = map
        .get(headers::PROTOCOL)
        .is_some_and(|protocol| protocol == "http2");
    let upgrade = map.get(headers::UPGRADE_TO).cloned();
    let target = map.get(headers::TARGET).cloned();
    let visit = Arc::new(Visit::new(proxy, Some(peer), SocketAddr::new(ip, port)));
    if request.method() != Method::CONNECT {
        return visit.request(request, http2, None).await;
    }
    let (Some(upgrade), Some(target)) = (upgrade, target) else {
        return visit.tunnel(request).await;
    };
    // Back to the request that the application on the other side made.
    let Ok(target) = PathAndQuery::try_from(target.as_bytes()) else {
        return refusal(
            Reason::BadRequest,
            "weft-target is no request target",
            false,
        );
    };
    let host = request
        .uri()
        .authority()
        .and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from(target);
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    visit.request(request, false, Some(upgrade)).await
}

/// Serves one connection that came in plaintext, redirected from `original`.
pub async fn serve_plain(proxy: Arc<Proxy>, stream: TcpStream, original: SocketAddr) {
    if !proxy.settings.is_own(original.ip()) || OWN_PORTS.contains(&original.port()) {
        return tunnel::reset(&stream);
    }
    let snapshot = proxy.state.snapshot();
    let declared = snapshot
        .workload
        .as_ref()
        .map_or(Protocol::Detect, |workload| {
            workload.protocol(original.port())
        });
    let strict = snapshot.mtls() == MtlsMode::Strict;
    let guarded = guards(&snapshot, original.port());
    drop(snapshot);
    let visit = Arc::new(Visit::new(proxy, None, original));
    let mut stream = Prefixed::new(stream);
    let spoken = visit
        .protocol(&mut stream, declared, guarded || strict)
        .await;
    visit.converse(stream, spoken).await;
}

/// What a connection turned out to speak.
enum Spoken {
    Http(Version),
    /// With the connection to the application, if it spoke first.
    Opaque(Option<Prefixed<TcpStream>>),
}

impl Visit {
    fn new(proxy: Arc<Proxy>, peer: Option<PeerIdentity>, local: SocketAddr) -> Self {
        let label = peer.as_ref().map_or_else(
            || "outside".into(),
            |peer| {
                let part = |part: Option<&str>| part.unwrap_or("?").to_owned();
                format!(
                    "{}/{}",
                    part(peer.spiffe.namespace()),
                    part(peer.spiffe.service_account())
                )
                .into()
            },
        );
        let pod = peer.as_ref().and_then(PeerIdentity::pod_uid).map(Arc::from);
        Self {
            proxy,
            peer,
            pod,
            label,
            local,
        }
    }

    fn caller(&self) -> Caller<'_> {
        self.peer
            .as_ref()
            .map_or(Caller::Outside, |peer| Caller::Mesh {
                id: &peer.spiffe,
                pod: peer.pod_uid(),
            })
    }

    const fn security(&self) -> Security {
        Security::of(self.peer.is_some())
    }

    /// True when plaintext is refused altogether, whatever the rules say.
    fn needs_identity(&self) -> bool {
        self.peer.is_none() && self.proxy.state.snapshot().mtls() == MtlsMode::Strict
    }

    /// May this caller use the port for opaque bytes, as of now? Counts for audit.
    fn admits_tcp(&self) -> Result<(), Failure> {
        let snapshot = self.proxy.state.snapshot();
        self.audit(&snapshot.access.decide_tcp(self.caller(), self.local.port()));
        self.judge_tcp()
    }

    fn judge_tcp(&self) -> Result<(), Failure> {
        self.identified()?;
        let snapshot = self.proxy.state.snapshot();
        refused_by(&snapshot.access.decide_tcp(self.caller(), self.local.port()))
    }

    fn identified(&self) -> Result<(), Failure> {
        if self.needs_identity() {
            return Err(Failure::verdict(
                Reason::NoIdentity,
                "plaintext is not accepted here",
            ));
        }
        Ok(())
    }

    fn audit(&self, verdict: &Verdict<'_>) {
        let audit = self.proxy.state.snapshot().access.enforcement == Enforcement::Audit;
        if audit && verdict.allowed && !verdict.would_allow {
            let labels = AuditLabels {
                direction: Direction::inbound,
                peer: Arc::clone(&self.label),
                port: self.local.port(),
            };
            self.proxy.state.metrics.audit.at(&labels).inc();
            tracing::info!(peer = %self.label, port = self.local.port(), "deny would refuse this call");
        }
    }

    /// Finds out what is spoken. Where HTTP rules apply (`guarded`) only the
    /// caller's bytes count, and everything that may be HTTP is taken as HTTP.
    async fn protocol<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut Prefixed<S>,
        declared: Protocol,
        guarded: bool,
    ) -> std::io::Result<Spoken> {
        if matches!(declared, Protocol::Opaque | Protocol::Tls) {
            return Ok(Spoken::Opaque(None));
        }
        let declared_http = matches!(declared, Protocol::Http1 | Protocol::Http2 | Protocol::Grpc);
        let judge = if guarded || declared_http {
            judge_strictly
        } else {
            judge
        };
        if guarded || declared_http {
            // Nothing is delivered until the protocol is known, so patience
            // costs nothing but the connection.
            let patience = if declared_http {
                crate::http::HEAD_WITHIN
            } else {
                DETECT_WITHIN
            };
            let seen = stream
                .look(tokio::time::Instant::now() + patience, judge)
                .await?;
            return Ok(match seen {
                Seen::Http2 => Spoken::Http(Version::HTTP_2),
                Seen::Http1 => Spoken::Http(Version::HTTP_11),
                // The strict parser refuses what is no HTTP.
                Seen::Opaque | Seen::Unsure if declared_http => Spoken::Http(Version::HTTP_11),
                Seen::Opaque | Seen::Unsure => Spoken::Opaque(None),
            });
        }
        let now = tokio::time::Instant::now();
        let mut seen = stream.look(now + SILENCE, judge).await?;
        if seen == Seen::Unsure
            && !stream.has_bytes()
            && self.judge_tcp().is_ok()
            && let Ok(server) = tcp::connect(self.local, CONNECT_TIMEOUT).await
        {
            return race(stream, Prefixed::new(server)).await;
        }
        if seen == Seen::Unsure {
            seen = stream.look(now + DETECT_WITHIN, judge).await?;
        }
        Ok(spoken(seen, stream.has_bytes(), None))
    }

    /// Serves HTTP on a connection or tunnel.
    async fn http<S>(self: Arc<Self>, stream: S, version: Version)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let http2 = version == Version::HTTP_2;
        self.proxy.count_connection(
            Direction::inbound,
            if http2 { "http2" } else { "http1" },
            self.security(),
        );
        let close = {
            let visit = Arc::clone(&self);
            async move {
                tokio::select! {
                    () = visit.proxy.lifecycle.time_to_go() => {}
                    () = visit.plaintext_forbidden() => {}
                }
            }
        };
        let handler = move |request: Request<Incoming>| {
            let visit = Arc::clone(&self);
            async move {
                let (parts, body) = request.into_parts();
                let upgrade = headers::upgrade_of(&parts);
                let request = Request::from_parts(parts, body);
                visit.request(request, http2, upgrade).await
            }
        };
        serve_http(stream, version, From::Network, close, handler).await;
    }

    /// Returns when this plaintext connection is no longer wanted. One that was
    /// never wanted stays, so that each of its requests is told why.
    async fn plaintext_forbidden(&self) {
        let mut changes = self.proxy.state.policy_changes();
        if self.needs_identity() {
            std::future::pending::<()>().await;
        }
        while !self.needs_identity() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Serves opaque bytes, for as long as they are allowed.
    async fn opaque<S>(&self, mut stream: Prefixed<S>, server: Option<Prefixed<TcpStream>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Resettable,
    {
        let call = self.tcp_call();
        if let Err(failure) = self.admits_tcp() {
            stream.inner.reset();
            return call.refused(&failure);
        }
        let server = match server {
            Some(server) => Ok(server),
            None => tcp::connect(self.local, CONNECT_TIMEOUT)
                .await
                .map(Prefixed::new),
        };
        let mut server = match server {
            Ok(server) => server,
            Err(error) => {
                stream.inner.reset();
                return call.refused(&Failure::unsent(Reason::ConnectFailed, error.to_string()));
            }
        };
        self.proxy
            .count_connection(Direction::inbound, "opaque", self.security());
        tokio::select! {
            outcome = tcp::relay(&mut stream, &mut server) => call.relayed(outcome),
            failure = self.revoked() => {
                stream.inner.reset();
                call.refused(&failure);
            }
        }
    }

    /// Returns when a policy change takes away what was allowed.
    async fn revoked(&self) -> Failure {
        let mut changes = self.proxy.state.policy_changes();
        loop {
            // Looked at before the first wait: the change may have come while
            // the way to the application was being opened.
            if let Err(failure) = self.judge_tcp() {
                return failure;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A CONNECT stream of a peer proxy: opaque bytes, or so it says.
    async fn tunnel(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let snapshot = self.proxy.state.snapshot();
        let port = self.local.port();
        let declared = snapshot
            .workload
            .as_ref()
            .map_or(Protocol::Detect, |workload| workload.protocol(port));
        let guarded =
            guards(&snapshot, port) && declared != Protocol::Opaque && declared != Protocol::Tls;
        drop(snapshot);
        let on_upgrade = hyper::upgrade::on(&mut request);
        // What the peer calls opaque is not taken at its word: unless the port
        // is declared so, HTTP in a tunnel is judged and cleaned as HTTP.
        let looked_at = !matches!(declared, Protocol::Opaque | Protocol::Tls);
        if guarded {
            tokio::spawn(async move {
                let Ok(upgraded) = on_upgrade.await else {
                    return;
                };
                let mut stream = Prefixed::new(TokioIo::new(upgraded));
                let spoken = self.protocol(&mut stream, Protocol::Detect, true).await;
                self.converse(stream, spoken).await;
            });
            return Response::new(body::empty());
        }
        if let Err(failure) = self.judge_tcp() {
            self.tcp_call().refused(&failure);
            return failure.response(false);
        }
        let server = match tcp::connect(self.local, CONNECT_TIMEOUT).await {
            Ok(server) => Prefixed::new(server),
            Err(error) => {
                let failure = Failure::unsent(Reason::ConnectFailed, error.to_string());
                return unsent(failure.response(false));
            }
        };
        tokio::spawn(async move {
            let Ok(upgraded) = on_upgrade.await else {
                return;
            };
            let mut stream = Prefixed::new(TokioIo::new(upgraded));
            let spoken = if looked_at {
                race(&mut stream, server).await
            } else {
                Ok(Spoken::Opaque(Some(server)))
            };
            self.converse(stream, spoken).await;
        });
        Response::new(body::empty())
    }

    /// Serves a connection or tunnel once it is known what it speaks.
    async fn converse<S>(self: Arc<Self>, stream: Prefixed<S>, spoken: std::io::Result<Spoken>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + Resettable + 'static,
    {
        match spoken {
            Ok(Spoken::Http(version)) => self.http(stream, version).await,
            Ok(Spoken::Opaque(server)) => self.opaque(stream, server).await,
            Err(error) => tracing::debug!(%error, "a caller left before it said anything"),
        }
    }

    fn tcp_call(&self) -> Call {
        Call::tcp(
            &self.proxy,
            Direction::inbound,
            "".into(),
            self.local.port(),
            "".into(),
            Arc::clone(&self.label),
            self.security(),
        )
        .from_pod(self.pod.clone())
    }

    /// One HTTP request: authorise, forward, finish.
    async fn request(
        self: Arc<Self>,
        request: Request<Incoming>,
        http2: bool,
        upgrade: Option<HeaderValue>,
    ) -> Response<Body> {
        let started = Instant::now();
        let (mut parts, incoming) = request.into_parts();
        let grpc = is_grpc(&parts.headers);
        if parts.method == Method::CONNECT {
            return refusal(Reason::BadRequest, "CONNECT is not served here", false);
        }
        let on_upgrade = upgrade
            .as_ref()
            .and_then(|_| parts.extensions.remove::<hyper::upgrade::OnUpgrade>());
        headers::strip_hop_by_hop(&mut parts.headers);
        headers::strip_ours(&mut parts.headers);
        if parts.version == Version::HTTP_2 {
            headers::join_cookies(&mut parts.headers);
        }
        let trace = trace::pass_on(&mut parts.headers);
        let mut call = Call::http(&self.proxy, Direction::inbound, &parts, started, trace)
            .to("".into(), self.local.port(), "".into())
            .from_pod(self.pod.clone());
        call.peer(Arc::clone(&self.label), self.security());
        if let Err(failure) = self.authorise(&mut parts) {
            call.failed(&failure);
            return failure.response(grpc);
        }
        if let Some(peer) = &self.peer
            && let Ok(id) = HeaderValue::from_str(peer.spiffe.as_str())
        {
            parts.headers.insert(headers::CLIENT_ID, id);
        }
        let replay = Replay::new(body::incoming(incoming));
        let peers = &self.proxy.peers;
        if let Some(upgrade) = &upgrade {
            parts
                .headers
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, upgrade.clone());
        }
        let forward = async {
            if !http2 {
                return upstream::http1(peers, self.local, CONNECT_TIMEOUT, &parts, &replay).await;
            }
            match replay.take() {
                Some(body) => upstream::http2(peers, self.local, &parts, body).await,
                None => Err(Failure::lost("the request's body is gone")),
            }
        };
        let revoked = async {
            self.revoked_request(&parts).await;
            tokio::time::sleep(IN_FLIGHT_GRACE).await;
        };
        let sent = tokio::select! {
            sent = forward => sent,
            () = revoked => Err(Failure::verdict(Reason::NotAllowed, "the call is no longer allowed")),
        };
        match sent {
            Ok(answer) => self.finish(answer, call, parts, upgrade.map(|_| on_upgrade)),
            Err(failure) => {
                call.failed(&failure);
                let response = failure.response(grpc);
                // Only a peer proxy knows what to do with the proof.
                if failure.never_reached && self.peer.is_some() {
                    unsent(response)
                } else {
                    response
                }
            }
        }
    }

    /// Decides, on the path that will be forwarded and on no other.
    fn authorise(&self, parts: &mut http::request::Parts) -> Result<(), Failure> {
        if let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            // Rules may name the host, whatever the version of HTTP; a target
            // with an authority beats the header.
            parts.headers.insert(header::HOST, host);
        }
        let snapshot = self.proxy.state.snapshot();
        let mut path = parts.uri.path().to_owned();
        if snapshot.access.has_http_rule(self.local.port()) {
            let normal = policy::path::normalise(&path).map(std::borrow::Cow::into_owned);
            match (normal, snapshot.access.enforcement) {
                (Ok(normal), Enforcement::Enforce) if normal != path => {
                    parts.uri = with_path(&parts.uri, &normal).ok_or_else(|| {
                        Failure::verdict(Reason::BadRequest, "the path cannot be sent on")
                    })?;
                    path = normal;
                }
                // Audit judges the same path, and changes nothing.
                (Ok(normal), _) => path = normal,
                (Err(error), Enforcement::Enforce) => {
                    return Err(Failure::verdict(Reason::BadRequest, error.to_string()));
                }
                (Err(_), _) => {}
            }
        }
        let facts = RequestFacts {
            method: &parts.method,
            path: &path,
            headers: &parts.headers,
        };
        self.audit(
            &snapshot
                .access
                .decide_http(self.caller(), self.local.port(), &facts),
        );
        self.judge(parts, &path)
    }

    /// Judges a request by the normal form of its path.
    fn judge(&self, parts: &http::request::Parts, path: &str) -> Result<(), Failure> {
        self.identified()?;
        let snapshot = self.proxy.state.snapshot();
        let facts = RequestFacts {
            method: &parts.method,
            path,
            headers: &parts.headers,
        };
        refused_by(
            &snapshot
                .access
                .decide_http(self.caller(), self.local.port(), &facts),
        )
    }

    /// Returns when a request that was allowed would be refused by now.
    async fn revoked_request(&self, parts: &http::request::Parts) {
        let mut changes = self.proxy.state.policy_changes();
        while self.judge(parts, parts.uri.path()).is_ok() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Passes the answer to the request `asked` on. `upgrade` holds the caller's
    /// side of an upgrade.
    fn finish(
        self: Arc<Self>,
        answer: Answer,
        call: Call,
        asked: http::request::Parts,
        upgrade: Option<Option<hyper::upgrade::OnUpgrade>>,
    ) -> Response<Body> {
        let Answer {
            mut response,
            place,
        } = answer;
        let status = response.status();
        let switched_to = response.headers().get(header::UPGRADE).cloned();
        let server_side = hyper::upgrade::on(&mut response);
        let (mut parts, incoming) = response.into_parts();
        headers::strip_hop_by_hop(&mut parts.headers);
        headers::strip_ours(&mut parts.headers);
        let ended = call.head(Ended::new(&parts, None));
        let mesh = self.peer.is_some() && upgrade.is_some();
        if mesh {
            parts
                .headers
                .insert(headers::STATUS, HeaderValue::from(status.as_u16()));
        }
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(Some(client_side))) = (status, upgrade) {
            if let Some(protocol) = switched_to {
                let name = if mesh {
                    headers::UPGRADE_TO
                } else {
                    header::UPGRADE
                };
                parts.headers.insert(name, protocol);
            }
            if mesh {
                parts.status = StatusCode::OK;
            } else {
                parts
                    .headers
                    .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            tokio::spawn(async move {
                let (Ok(client), Ok(server)) = tokio::join!(client_side, server_side) else {
                    return call.done(ended, body::End::Failed, 0, None);
                };
                let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                let bytes = tokio::select! {
                    (copied, _) = tcp::relay(&mut client, &mut server) => copied.received,
                    () = self.revoked_request(&asked) => 0,
                };
                call.done(ended, body::End::Complete, bytes, None);
            });
            return Response::from_parts(parts, body::empty());
        }
        if mesh {
            // A CONNECT stream answered with 2xx would become a tunnel.
            parts.status = StatusCode::MISDIRECTED_REQUEST;
        }
        let watched = body::Watched::new(body::incoming(incoming), move |end, bytes, trailers| {
            drop(place);
            call.done(ended, end, bytes, trailers);
        });
        let body = Revocable {
            inner: watched.boxed_unsync(),
            visit: self,
            asked: Some(asked),
            frames: 0,
            over: None,
        };
        Response::from_parts(parts, body.boxed_unsync())
    }
}

/// True where HTTP rules decide, so that nothing may pass as opaque bytes that
/// an application might read as HTTP. Audit refuses nothing, this neither.
fn guards(snapshot: &Snapshot, port: u16) -> bool {
    snapshot.access.enforcement == Enforcement::Enforce && snapshot.access.has_http_rule(port)
}

/// Waits for whoever speaks first. There is no limit: while both are silent
/// nothing is withheld from anybody, and giving up would let a caller that
/// waits long enough send HTTP past everything that HTTP is checked for.
async fn race<S: AsyncRead + Unpin>(
    stream: &mut Prefixed<S>,
    mut server: Prefixed<TcpStream>,
) -> std::io::Result<Spoken> {
    tokio::select! {
        _ = stream.first_bytes() => {}
        _ = server.first_bytes() => return Ok(Spoken::Opaque(Some(server))),
    }
    let seen = stream
        .look(tokio::time::Instant::now() + DETECT_WITHIN, judge)
        .await?;
    Ok(spoken(seen, stream.has_bytes(), Some(server)))
}

/// A beginning that HTTP may have, sent too slowly to be sure, counts as HTTP.
fn spoken(seen: Seen, has_bytes: bool, server: Option<Prefixed<TcpStream>>) -> Spoken {
    match seen {
        Seen::Http2 => Spoken::Http(Version::HTTP_2),
        Seen::Http1 => Spoken::Http(Version::HTTP_11),
        Seen::Unsure if has_bytes => Spoken::Http(Version::HTTP_11),
        Seen::Opaque | Seen::Unsure => Spoken::Opaque(server),
    }
}

/// An answer that ends early when its request is no longer allowed. The wait is
/// set up only when the body makes its reader wait, which most never do.
struct Revocable {
    inner: Body,
    visit: Arc<Visit>,
    asked: Option<http::request::Parts>,
    frames: u32,
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Revocable {
    type Data = bytes::Bytes;
    type Error = body::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, body::BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        this.frames += 1;
        if (polled.is_pending() || this.frames > FREE_FRAMES)
            && let Some(asked) = this.asked.take()
        {
            let visit = Arc::clone(&this.visit);
            this.over = Some(Box::pin(async move {
                visit.revoked_request(&asked).await;
                tokio::time::sleep(IN_FLIGHT_GRACE).await;
            }));
        }
        let Some(over) = &mut this.over else {
            return polled;
        };
        if over.as_mut().poll(cx).is_pending() {
            return polled;
        }
        this.over = None;
        Poll::Ready(Some(Err("the call is no longer allowed".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

fn refused_by(verdict: &Verdict<'_>) -> Result<(), Failure> {
    if verdict.allowed {
        return Ok(());
    }
    let reason = verdict.reason.unwrap_or(Reason::NotAllowed);
    Err(Failure::verdict(
        reason,
        "no TrafficTarget allows this call",
    ))
}

/// Marks an answer as proof that no application saw the request.
fn unsent(mut response: Response<Body>) -> Response<Body> {
    response
        .headers_mut()
        .insert(headers::UNSENT, HeaderValue::from_static("1"));
    response
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Streams whose close can be made a reset.
trait Resettable {
    fn reset(&self);
}

impl Resettable for TcpStream {
    fn reset(&self) {
        tunnel::reset(self);
    }
}

impl Resettable for TokioIo<hyper::upgrade::Upgraded> {
    /// Dropping a stream before its end resets it.
    fn reset(&self) {}
}

impl Proxy {
    pub(crate) fn count_connection(
        &self,
        direction: Direction,
        protocol: &'static str,
        security: Security,
    ) {
        self.state
            .metrics
            .connections
            .at(&ConnectionLabels {
                direction,
                protocol,
                security,
            })
            .inc();
    }
}
