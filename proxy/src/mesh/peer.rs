//! Peer proxies: sends requests to each by one of its connections and reports, when that fails,
//! whether an application can have seen the request. `Peers` has all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode, Version, header};
use hyper::client::conn::http1;
use identity::tls::DEDICATED_ALPN;
use identity::verify::PeerIdentity;
use parking_lot::Mutex;
use policy::name::SpiffeId;
use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::client::dedicated::{Acquire, Connecting, Dedicated};
use crate::http::client::exchange::{self, UpstreamResponse};
use crate::http::client::multiplexed::{IDLE_MULTIPLEXED, Multiplexed, Sends, handshake};
use crate::http::head::{BUFFER, MESH_HEADER_COUNT};
use crate::http::http2::MESH;
use crate::http::http2::client::RequestSender;
use crate::http::http2::keepalive::Suspects;
use crate::http::received::host_of;
use crate::http::replay::Replay;
use crate::mesh::protocol::upgrade::is_unknown;
use crate::mesh::protocol::{Malformed, PeerRequest, PeerResponse, RequestKind, Transport};
use crate::mesh::tls::{ExpectedPeer, MeshTls, SecuredPeer, secure};
use crate::net::budget::Budget;
use crate::net::connect;

/// How often a watch checks whether a peer that owes an answer by its dedicated connection sends
/// anything. The second check after its last byte pings it, so it is abandoned two of these and
/// [`SIGN_WITHIN`] after that byte at the latest: ten seconds, as by HTTP/2.
pub(crate) const WATCH_EVERY: Duration = Duration::from_millis(2500);
/// A peer that is pinged has this long for a sign of life.
const SIGN_WITHIN: Duration = Duration::from_secs(5);
/// A new connection that fails sooner was refused, which takes a running process: a peer that ends
/// takes no more of them and still answers what it has.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// A peer's address, what its certificate must carry, and the uid of its pod.
type PeerKey = (IpAddr, SpiffeId, Arc<str>);

/// Every connection that the proxy opens to peer proxies.
#[derive(Debug)]
pub struct Peers {
    tls: MeshTls,
    budget: Arc<Budget>,
    suspects: Suspects,
    mesh: Mutex<HashMap<PeerKey, Arc<Peer>>>,
}

impl Peers {
    #[must_use]
    pub fn new(tls: MeshTls, budget: Arc<Budget>) -> Self {
        Self {
            tls,
            budget,
            suspects: Suspects::default(),
            mesh: Mutex::default(),
        }
    }

    /// TLS with them, in both directions.
    #[must_use]
    pub const fn tls(&self) -> &MeshTls {
        &self.tls
    }

    /// The proxy of the pod `pod_uid` at `ip`. Empty: of whichever pod has that identity there, as
    /// an older controller sends no more.
    pub fn mesh(&self, ip: IpAddr, identity: &SpiffeId, pod_uid: &Arc<str>) -> Arc<Peer> {
        let mut mesh = self.mesh.lock();
        let key = (ip, identity.clone(), Arc::clone(pod_uid));
        Arc::clone(mesh.entry(key).or_insert_with(|| {
            Arc::new(Peer::new(
                ip,
                ExpectedPeer {
                    identity: identity.clone(),
                    pod_uid: Arc::clone(pod_uid),
                },
                self.tls.clone(),
                Arc::clone(&self.budget),
                self.suspects.clone(),
            ))
        }))
    }

    /// Whether any connection to one of them is known to be silent.
    pub(crate) fn any_suspect(&self) -> bool {
        self.suspects.any()
    }

    /// Looks after what waits by dedicated connections. Called every `WATCH_EVERY`.
    pub fn watch_over(&self) {
        self.mesh.lock().values().for_each(Peer::watch_over);
    }

    /// Ends connections of peers that do not stay: requests begin on none of them from now on, and
    /// the next call breaks off what is left. Called every `WATCH_EVERY`.
    pub fn end_unless(&self, stays: impl Fn(&PeerIdentity) -> bool) {
        if self.tls.end_unless(&stays) {
            self.retire_unless(stays);
        }
    }

    /// Ends at once the connections of peers that end, with all that is under way.
    pub fn break_off(&self, ends: impl Fn(&PeerIdentity) -> bool) {
        self.retire_unless(|peer| !ends(peer));
        self.tls.break_off(ends);
    }

    /// Begins no request on the connections to peers that do not stay. What is under way goes on.
    pub(crate) fn retire_unless(&self, stays: impl Fn(&PeerIdentity) -> bool) {
        let mesh = self.mesh.lock();
        mesh.values().for_each(|peer| peer.retire_unless(&stays));
    }

    /// Closes what is idle. Called every few seconds.
    pub fn sweep(&self) {
        // A peer to which a connection is being opened right now is held by them too.
        self.mesh
            .lock()
            .retain(|_, peer| !peer.sweep() || Arc::strong_count(peer) > 1);
    }
}

/// One peer, with the connections to it.
#[derive(Debug)]
pub struct Peer {
    ip: IpAddr,
    expected: ExpectedPeer,
    tls: MeshTls,
    shared: Multiplexed,
    /// For requests while nothing else waits for this peer.
    pub dedicated: Arc<Dedicated>,
    /// What the peer proved on the dedicated connection.
    dedicated_by: Arc<Mutex<Option<Arc<PeerIdentity>>>>,
}

impl Peer {
    fn new(
        ip: IpAddr,
        expected: ExpectedPeer,
        tls: MeshTls,
        budget: Arc<Budget>,
        suspects: Suspects,
    ) -> Self {
        let (peer, by) = (expected.clone(), tls.clone());
        let shared = Multiplexed::new(move || {
            let opening = connect_mesh(ip, peer.clone(), by.clone(), Arc::clone(&budget));
            let suspects = suspects.clone();
            async move {
                let opened = opening.await?;
                opened.counts_in(&suspects);
                Ok(opened)
            }
        });
        Self {
            ip,
            expected,
            tls,
            shared,
            dedicated: Arc::default(),
            dedicated_by: Arc::default(),
        }
    }

    /// Opens the dedicated connection, beside whatever else goes on.
    fn open_dedicated(&self, opening: Connecting) {
        let (ip, tls) = (self.ip, self.tls.clone());
        let expected = self.expected.clone();
        let by = Arc::clone(&self.dedicated_by);
        let config = tls.dedicated_client(&expected.identity);
        #[expect(clippy::disallowed_methods, reason = "one connection to a peer")]
        tokio::spawn(async move {
            let pod_uid = &expected.pod_uid;
            match secure(ip, &tls, (config, pod_uid), connect::tune_closely).await {
                Ok(SecuredPeer { stream, peer, .. })
                    if stream.get_ref().1.alpn_protocol() == Some(DEDICATED_ALPN) =>
                {
                    let mut builder = http1::Builder::new();
                    builder.max_headers(MESH_HEADER_COUNT).max_buf_size(BUFFER);
                    *by.lock() = Some(peer);
                    opening.opened(stream, builder).await;
                }
                Ok(_) => opening.unknown(),
                Err(error) => tracing::debug!(%error, "no dedicated connection to a peer"),
            }
        });
    }

    /// Pings the peer where nothing came by its dedicated connection, in use, since the last call
    /// of this; the connection is broken off where no sign of life comes.
    pub(super) fn watch_over(self: &Arc<Self>) {
        let Some(silent) = self.dedicated.silent() else {
            return;
        };
        let peer = Arc::clone(self);
        #[expect(clippy::disallowed_methods, reason = "one for each peer, for seconds")]
        tokio::spawn(async move {
            if !peer.gives_sign().await && silent.break_off() {
                tracing::debug!(ip = %peer.ip, "a peer gave no sign of life");
            }
        });
    }

    async fn gives_sign(&self) -> bool {
        let began = Instant::now();
        self.is_there().await.is_ok() || began.elapsed() < REFUSED_WITHIN
    }

    /// Begins no request on connections where the peer does not stay.
    fn retire_unless(&self, stays: impl Fn(&PeerIdentity) -> bool) {
        let ends = |peer: Option<&Arc<PeerIdentity>>| peer.is_some_and(|one| !stays(one));
        self.shared.retire_if(|sender| ends(sender.held()));
        if ends(self.dedicated_by.lock().as_ref()) {
            self.dedicated.retire();
        }
    }

    /// Closes connections that were idle for a while; true when none is left.
    pub(super) fn sweep(&self) -> bool {
        let none_dedicated = self.dedicated.sweep(IDLE_MULTIPLEXED);
        self.shared.sweep() && none_dedicated
    }
}

/// HTTP/2 over mutual TLS.
async fn connect_mesh(
    ip: IpAddr,
    expected: ExpectedPeer,
    tls: MeshTls,
    budget: Arc<Budget>,
) -> Result<RequestSender, Failure> {
    let ExpectedPeer { identity, pod_uid } = &expected;
    let config = tls.client(identity);
    let secured = secure(ip, &tls, (config, pod_uid), |_| {}).await?;
    let sender = handshake(secured.stream, MESH, budget, Some(secured.flush)).await?;
    sender.holds(secured.peer);
    Ok(sender)
}

/// Bytes of a body that a dedicated connection carries: what every socket takes at once,
/// so that it never waits for an application that does not read.
const DEDICATED_BODY: u64 = 16 * 1024;

/// True for requests that lose nothing in HTTP/1.1 with one at a time: those that
/// came so, and are small and complete in themselves.
fn fits_dedicated(parts: &Parts, body: &Replay) -> bool {
    parts.version == Version::HTTP_11
        && host_of(parts).is_some()
        && !parts.headers.contains_key(header::EXPECT)
        && !parts.headers.contains_key(header::TE)
        && body.size().is_some_and(|size| size <= DEDICATED_BODY)
}

impl Peer {
    /// Whether a request finds a connection that is not known to be silent.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.is_connected()
    }

    /// Whether all connections to it are known to be silent.
    pub(crate) fn is_suspect(&self) -> bool {
        self.shared.is_suspect()
    }

    /// Pings it, by a new connection where there is none.
    ///
    /// # Errors
    /// When it cannot be reached, or is silent for five seconds.
    pub(crate) async fn is_there(&self) -> Result<(), Failure> {
        let stream = self.shared.stream(Sends::Nothing).await?;
        if stream.first {
            return Ok(());
        }
        let (sender, _permit) = stream.into_parts();
        if sender.gives_sign(SIGN_WITHIN).await {
            return Ok(());
        }
        let detail = "the peer proxy gave no sign of life";
        Err(Failure::not_sent(Reason::ConnectFailed, detail))
    }

    /// Sends a request by whichever connection fits.
    ///
    /// # Errors
    /// [`Failure::NotSent`] when the peer proves it or nothing was sent.
    pub async fn send(
        &self,
        request: &PeerRequest<&Parts>,
        body: &Replay,
    ) -> Result<UpstreamResponse, Failure> {
        if let PeerRequest::Http { parts, .. } = request
            && fits_dedicated(parts, body)
            && let Some(answer) = self.send_dedicated(request, body).await?
        {
            return Ok(answer);
        }
        let parts = request.encode(Transport::Http2)?;
        let waiting = self.dedicated.beside();
        let request_sent = Request::from_parts(parts, body.again()?);
        let answer = exchange::multiplexed(&self.shared, request_sent).await;
        drop(waiting);
        decoded(answer?, request.kind())
    }

    /// Sends a request that no client waits for: others may use the dedicated connection beside it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn send_aside(
        &self,
        request: &PeerRequest<&Parts>,
        body: &Replay,
    ) -> Result<UpstreamResponse, Failure> {
        let parts = request.encode(Transport::Http2)?;
        let sent = Request::from_parts(parts, body.again()?);
        decoded(
            exchange::multiplexed(&self.shared, sent).await?,
            request.kind(),
        )
    }

    /// Sends by the dedicated connection, if that is free and nothing else waits for the
    /// peer. `None`: HTTP/2 is the way.
    async fn send_dedicated(
        &self,
        request: &PeerRequest<&Parts>,
        body: &Replay,
    ) -> Result<Option<UpstreamResponse>, Failure> {
        let lease = match self.dedicated.offer() {
            Acquire::Leased(lease) => lease,
            Acquire::Open(opening) => {
                self.open_dedicated(opening);
                return Ok(None);
            }
            Acquire::No => return Ok(None),
        };
        let sent = Instant::now();
        let parts = request.encode(Transport::Http1)?;
        match lease.send(Request::from_parts(parts, body.again()?)).await {
            Ok(response) => {
                let answer = UpstreamResponse {
                    response,
                    out: None,
                    permit: None,
                    took: sent.elapsed(),
                };
                decoded(answer, request.kind()).map(Some)
            }
            // The connection was at its end, not the peer.
            Err(Failure::ConnectionClosed { .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Opens a stream for bytes both ways.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn open(
        &self,
        request: &PeerRequest<&Parts>,
    ) -> Result<UpstreamResponse, Failure> {
        let parts = request.encode(Transport::Http2)?;
        let waits_for_http = matches!(request, PeerRequest::Upgrade { .. });
        let waiting = waits_for_http.then(|| self.dedicated.beside());
        let answer = exchange::open(&self.shared, parts, None).await;
        drop(waiting);
        decoded(answer?, request.kind())
    }

    /// The same of an upgrade by POST with this body. `None`: the peer proxy is of a version that
    /// knows none, and no application has seen it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn open_by_post(
        &self,
        request: &PeerRequest<&Parts>,
        body: Bytes,
    ) -> Result<Option<UpstreamResponse>, Failure> {
        let parts = request.encode(Transport::Http2)?;
        let waiting = self.dedicated.beside();
        let begins = (!body.is_empty()).then(|| Box::new(body));
        let answer = exchange::open(&self.shared, parts, begins).await;
        drop(waiting);
        let answer = answer?;
        if is_unknown(&answer.response) {
            return Ok(None);
        }
        decoded(answer, request.kind()).map(Some)
    }
}

impl From<Malformed> for Failure {
    /// Of what this proxy was about to send.
    fn from(Malformed(detail): Malformed) -> Self {
        Self::not_sent(Reason::BadRequest, detail)
    }
}

/// Takes the verdict of a peer proxy that it did not reach the application, and gives any
/// other answer the form that it would have without the mesh.
fn decoded(answer: UpstreamResponse, kind: RequestKind) -> Result<UpstreamResponse, Failure> {
    let (parts, body) = answer.response.into_parts();
    let malformed = |Malformed(detail)| Failure::lost(detail);
    let parts = match PeerResponse::decode(parts, kind).map_err(malformed)? {
        PeerResponse::Answered(parts) => parts,
        PeerResponse::Switched { to, mut parts } => {
            parts.status = StatusCode::SWITCHING_PROTOCOLS;
            if let Some(to) = to {
                parts.headers.insert(header::UPGRADE, to);
            }
            parts
        }
        PeerResponse::NotSent { reason, .. } => {
            return Err(Failure::not_sent_by_peer(
                reason,
                "the peer proxy could not reach the application, or the application does not speak \
                 HTTP/2, where the request came in it",
            ));
        }
    };
    Ok(UpstreamResponse {
        response: Response::from_parts(parts, body),
        ..answer
    })
}
