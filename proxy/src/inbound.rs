//! What happens to a connection from outside the pod: accept, tls (or
//! plaintext where permitted), detect, then per request or connection
//! authorise, forward to the application, and count how it ended.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use identity::tls::QUIET_ALPN;
use identity::verify::{PeerIdentity, peer_identity};
use policy::access::Caller;
use policy::reason::Reason;
use runtime::occupancy::Place;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

mod judge;
mod opaque;
mod request;

use self::judge::Expected;
use crate::app::{OWN_PORTS, Proxy};
use crate::body::{Body, Received};
use crate::detect::{BEGUN_WITHIN, DETECT_WITHIN, Prefixed, SILENCE, Seen, judge_leniently};
use crate::failure::refusal;
use crate::headers;
use crate::http::{From, serve as serve_http};
use crate::mesh::tls_failure;
use crate::metrics::{ConnectionLabels, Direction, Security};
use crate::peer::TLS_BUFFER;
use crate::pieces::Pieces;
use crate::switched::MayAbort;
use crate::tcp::{self, CONNECT_TIMEOUT};
use crate::tunnel;
use crate::wide::Wide;

/// A caller has this long to finish the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

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
pub async fn serve_mesh(proxy: Arc<Proxy>, stream: TcpStream, place: Arc<Place>) {
    let Ok(own) = stream.local_addr() else { return };
    if !proxy.settings.is_own(own.ip()) {
        return tunnel::reset(&stream);
    }
    let acceptor = tokio_rustls::TlsAcceptor::from(proxy.tls.server());
    let (wide, outlet) = Wide::new(stream);
    // Whoever does not finish a handshake is the first to lose its place.
    place.silent();
    place.head_begins();
    let secured = match timeout(
        HANDSHAKE_TIMEOUT,
        acceptor.accept_with(wide, |tls| tls.set_buffer_limit(Some(TLS_BUFFER))),
    )
    .await
    {
        Ok(Ok(secured)) => secured,
        Ok(Err(error)) => {
            tracing::debug!(%error, "refused a caller on the mesh port");
            return proxy
                .state
                .metrics
                .tls_failed(Direction::inbound, tls_failure(&error));
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
                .tls_failed(Direction::inbound, error.label());
        }
    };
    place.busy();
    place.prove(peer.spiffe.as_str());
    let quiet = secured.get_ref().1.alpn_protocol() == Some(QUIET_ALPN);
    let (version, label) = if quiet {
        (Version::HTTP_11, "http1")
    } else {
        (Version::HTTP_2, "http2")
    };
    proxy.count_connection(Direction::inbound, label, Security::mtls);
    let lifecycle = proxy.lifecycle.clone();
    let budget = Arc::clone(&proxy.budget);
    let handler =
        move |request| mesh_request(Arc::clone(&proxy), peer.clone(), own.ip(), quiet, request);
    let close = async move { lifecycle.time_to_go().await };
    let from = From::Mesh(outlet);
    serve_http(secured, version, from, budget, place, close, handler).await;
}

/// One request or tunnel from a peer proxy.
async fn mesh_request(
    proxy: Arc<Proxy>,
    peer: PeerIdentity,
    ip: IpAddr,
    quiet: bool,
    mut request: Request<Received>,
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
    let protocol = map.get(headers::PROTOCOL).map(HeaderValue::as_bytes);
    let http2 = protocol == Some(b"http2");
    let tcp = protocol == Some(headers::TCP.as_bytes());
    if quiet && (tcp || request.method() == Method::CONNECT) {
        return refusal(Reason::BadRequest, "tunnels are for HTTP/2", false);
    }
    let upgrade = headers::without_http(map.get_all(headers::UPGRADE_TO));
    let target = map.get(headers::TARGET).cloned();
    let visit = Arc::new(Visit::new(proxy, Some(peer), SocketAddr::new(ip, port)));
    if tcp {
        return match request.into_body() {
            Received::Http2(body) => visit.tunnel(body).await,
            Received::Http1(_) => refusal(Reason::BadRequest, "tunnels are for HTTP/2", false),
        };
    }
    if request.method() != Method::CONNECT {
        return visit.request(request, http2, None).await;
    }
    let (Some(upgrade), Some(target)) = (upgrade, target) else {
        return refusal(
            Reason::BadRequest,
            "CONNECT without weft-target, or without a weft-upgrade to another protocol than HTTP",
            false,
        );
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
pub async fn serve_plain(
    proxy: Arc<Proxy>,
    stream: TcpStream,
    original: SocketAddr,
    place: Arc<Place>,
) {
    if !proxy.settings.is_own(original.ip()) || OWN_PORTS.contains(&original.port()) {
        return tunnel::reset(&stream);
    }
    let visit = Arc::new(Visit::new(proxy, None, original));
    let mut stream = Prefixed::new(stream);
    place.silent();
    let spoken = visit.protocol(&mut stream, &place).await;
    visit.converse(stream, spoken, &place).await;
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

    /// Finds out what is spoken.
    async fn protocol<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut Prefixed<S>,
        place: &Place,
    ) -> std::io::Result<Spoken> {
        let mut changes = self.proxy.state.policy_changes();
        let came = tokio::time::Instant::now();
        loop {
            let (declared, silence, judge) = match self.expected() {
                Expected::Bytes => return Ok(Spoken::Opaque(None)),
                Expected::Either => return self.whoever_speaks_first(stream).await,
                Expected::Http {
                    declared,
                    silence,
                    judge,
                } => (declared, silence, judge),
            };
            // Nothing is delivered until the protocol is known, so a caller that waits
            // costs nothing else. It may be allowed more by then.
            tokio::select! {
                begun = stream.first_bytes() => begun?,
                changed = changes.changed() => {
                    if changed.is_ok() {
                        continue;
                    }
                    false
                }
                () = tokio::time::sleep_until(came + silence) => {
                    if declared {
                        return Err(std::io::ErrorKind::TimedOut.into());
                    }
                    return Ok(Spoken::Opaque(None));
                }
            };
            place.head_begins();
            let until = tokio::time::Instant::now() + BEGUN_WITHIN;
            return Ok(match stream.look(until, judge).await? {
                Seen::Http2 => Spoken::Http(Version::HTTP_2),
                Seen::Http1 => Spoken::Http(Version::HTTP_11),
                // The strict parser refuses what is no HTTP.
                Seen::Opaque | Seen::Unsure if declared => Spoken::Http(Version::HTTP_11),
                Seen::Opaque | Seen::Unsure => Spoken::Opaque(None),
            });
        }
    }

    /// For callers that may say anything on a port that nobody declared.
    async fn whoever_speaks_first<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut Prefixed<S>,
    ) -> std::io::Result<Spoken> {
        let now = tokio::time::Instant::now();
        let mut seen = stream.look(now + SILENCE, judge_leniently).await?;
        if seen == Seen::Unsure
            && !stream.has_bytes()
            && let Ok(server) = tcp::connect(self.local, CONNECT_TIMEOUT).await
        {
            return race(stream, Prefixed::new(server)).await;
        }
        if seen == Seen::Unsure {
            seen = stream.look(now + DETECT_WITHIN, judge_leniently).await?;
        }
        Ok(spoken(seen, stream.begins_as_http(), None))
    }

    /// Serves HTTP on a connection or tunnel.
    async fn http<S>(self: Arc<Self>, stream: S, version: Version, place: &Arc<Place>)
    where
        S: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    {
        let http2 = version == Version::HTTP_2;
        let budget = Arc::clone(&self.proxy.budget);
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
        let handler = move |request: Request<Received>| {
            let visit = Arc::clone(&self);
            async move {
                let (parts, body) = request.into_parts();
                let upgrade = headers::upgrade_of(&parts);
                let request = Request::from_parts(parts, body);
                visit.request(request, http2, upgrade).await
            }
        };
        let place = Arc::clone(place);
        serve_http(
            stream,
            version,
            From::Network,
            budget,
            place,
            close,
            handler,
        )
        .await;
    }

    /// Serves a connection or tunnel once it is known what it speaks.
    async fn converse<S>(
        self: Arc<Self>,
        stream: Prefixed<S>,
        spoken: std::io::Result<Spoken>,
        place: &Arc<Place>,
    ) where
        S: AsyncRead + AsyncWrite + Pieces + MayAbort + Unpin + Send + 'static,
    {
        match spoken {
            Ok(Spoken::Http(version)) => self.http(stream, version, place).await,
            Ok(Spoken::Opaque(server)) => {
                place.busy();
                self.opaque(stream, server).await;
            }
            Err(error) => tracing::debug!(%error, "a caller left before it said anything"),
        }
    }
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
        _ = server.first_bytes() => {
            if !server.greets_in_http2().await {
                return Ok(Spoken::Opaque(Some(server)));
            }
            stream.first_bytes().await?;
        }
    }
    let seen = stream
        .look(tokio::time::Instant::now() + DETECT_WITHIN, judge_leniently)
        .await?;
    Ok(spoken(seen, stream.begins_as_http(), Some(server)))
}

/// The beginning of a request, sent too slowly to be sure, counts as HTTP.
fn spoken(seen: Seen, begins_as_http: bool, server: Option<Prefixed<TcpStream>>) -> Spoken {
    match seen {
        Seen::Http2 => Spoken::Http(Version::HTTP_2),
        Seen::Http1 => Spoken::Http(Version::HTTP_11),
        Seen::Unsure if begins_as_http => Spoken::Http(Version::HTTP_11),
        Seen::Opaque | Seen::Unsure => Spoken::Opaque(server),
    }
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
