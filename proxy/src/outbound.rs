//! What happens to a connection that the application opens:
//! accept, target, detect, then per request or connection route, split,
//! balance, connect, send; and count how it ended.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Version};
use policy::mode::MtlsMode;
use policy::protocol::Protocol;
use policy::reason::Reason;
use runtime::occupancy::Place;
use tokio::net::TcpStream;

mod request;
mod route;

use self::request::request_story;
use self::route::Attempts;
use crate::app::Proxy;
use crate::body::Received;
use crate::detect::{DETECT_WITHIN, Prefixed, SILENCE, Seen, judge};
use crate::failure::{Failure, answer_to, is_grpc, refusal};
use crate::finish::Call;
use crate::http::{From, serve as serve_http};
use crate::metrics::{ConnectionLabels, Direction, Security};
use crate::snapshot::Destination;
use crate::tcp::{self, CONNECT_TIMEOUT_EXTERNAL};
use crate::tunnel::{self, Tunnel};

/// One connection of the application.
struct Connection {
    proxy: Arc<Proxy>,
    /// The address that the application called.
    addr: SocketAddr,
    destination: Arc<Destination>,
}

/// Serves one redirected connection until it ends.
pub async fn serve(proxy: Arc<Proxy>, stream: TcpStream, addr: SocketAddr, place: Arc<Place>) {
    let (found, _usage) = proxy.state.find(addr).await;
    let Some(destination) = found else {
        return Box::pin(unknown(&proxy, stream, addr, place)).await;
    };
    let protocol = match &*destination {
        Destination::External => {
            return Box::pin(pass_through(&proxy, stream, addr, std::future::pending())).await;
        }
        Destination::Refused(reason) => {
            tracing::debug!(%addr, reason, "refused a connection");
            tunnel::reset(&stream);
            return Call::tcp(
                &proxy,
                Direction::outbound,
                Arc::default(),
                addr.port(),
                Arc::default(),
                Arc::default(),
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
    place.silent();
    let (protocol, tunnel) = match protocol {
        Protocol::Detect => match Box::pin(connection.detect(&mut stream)).await {
            Ok(found) => found,
            Err(failure) => return connection.failed_tcp(&failure),
        },
        declared => (declared, None),
    };
    let version = match protocol {
        Protocol::Http1 => Version::HTTP_11,
        Protocol::Http2 | Protocol::Grpc => Version::HTTP_2,
        Protocol::Detect | Protocol::Opaque | Protocol::Tls => {
            place.busy();
            return Box::pin(connection.relay(stream, tunnel)).await;
        }
    };
    // A declaration names the family; the bytes say which version it is.
    let version = match stream.look_at_head(HEAD_PATIENCE, judge, &place).await {
        Ok(Seen::Http2) => Version::HTTP_2,
        Ok(Seen::Http1) => Version::HTTP_11,
        Ok(_) => version,
        Err(_) => return,
    };
    connection.count("http1", "http2", version);
    let budget = Arc::clone(&connection.proxy.budget);
    let handler = {
        let connection = Arc::clone(&connection);
        move |request| request_story(Arc::clone(&connection), request)
    };
    serve_http(
        stream,
        version,
        From::OwnApplication,
        budget,
        place,
        std::future::pending(),
        handler,
    )
    .await;
}

/// An idle connection of a declared port may stay silent for this long before
/// the declared version is assumed.
const HEAD_PATIENCE: std::time::Duration = std::time::Duration::from_secs(3600);

/// The controller did not say in time what the address is. In plaintext it is called
/// only if it was never seen as meshed.
async fn unknown(proxy: &Arc<Proxy>, stream: TcpStream, addr: SocketAddr, place: Arc<Place>) {
    let meshed = proxy.state.registry.was_meshed(addr);
    if !meshed && proxy.state.snapshot().mtls() == MtlsMode::Permissive {
        let strict = async {
            let mut changes = proxy.state.policy_changes();
            while proxy.state.snapshot().mtls() == MtlsMode::Permissive {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        return pass_through(proxy, stream, addr, strict).await;
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
    let budget = Arc::clone(&proxy.budget);
    let handler = |request: Request<Received>| {
        let grpc = is_grpc(request.headers());
        let refused = refusal(
            Reason::UnknownDestination,
            "the mesh does not know this address yet",
            grpc,
        );
        std::future::ready(answer_to(request.method(), refused))
    };
    serve_http(
        stream,
        version,
        From::OwnApplication,
        budget,
        place,
        std::future::pending(),
        handler,
    )
    .await;
}

/// Relays to an address outside the mesh as if no proxy were there, until that is
/// `forbidden`.
async fn pass_through(
    proxy: &Arc<Proxy>,
    mut stream: TcpStream,
    addr: SocketAddr,
    forbidden: impl Future<Output = ()>,
) {
    let call = Call::tcp(
        proxy,
        Direction::outbound,
        Arc::default(),
        addr.port(),
        Arc::default(),
        "external".into(),
        Security::plaintext,
    );
    match tcp::connect(addr, CONNECT_TIMEOUT_EXTERNAL).await {
        Ok(mut server) => tokio::select! {
            outcome = tcp::relay(&mut stream, &mut server, &proxy.budget) => call.relayed(outcome),
            () = forbidden => {
                tunnel::reset(&stream);
                tunnel::reset(&server);
            }
        },
        Err(error) => {
            tunnel::reset(&stream);
            call.refused(&Failure::unsent(Reason::ConnectFailed, error.to_string()));
        }
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
        let Ok(mut tunnel) = self.open().await else {
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
            _ = tunnel.io.first_bytes() => {
                if !tunnel.io.greets_in_http2().await {
                    return Ok((Protocol::Opaque, Some(tunnel)));
                }
                stream.first_bytes().await.map_err(lost)?;
            }
        }
        let until = tokio::time::Instant::now() + DETECT_WITHIN;
        match stream.look(until, judge).await.map_err(lost)? {
            Seen::Opaque | Seen::Unsure => Ok((Protocol::Opaque, Some(tunnel))),
            http => Ok((http.protocol(), None)),
        }
    }

    /// Opens a byte stream to an endpoint, trying others while none was reached.
    async fn open(&self) -> Result<Tunnel, Failure> {
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
            match tunnel::open(&self.proxy, &endpoint, call).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(failure) => attempts.failed(endpoint, failure),
            }
        }
        Err(attempts.into_failure())
    }

    async fn relay(&self, mut stream: Prefixed<TcpStream>, tunnel: Option<Tunnel>) {
        let tunnel = match tunnel {
            Some(tunnel) => tunnel,
            None => match self.open().await {
                Ok(tunnel) => tunnel,
                Err(failure) => {
                    tunnel::reset(&stream.inner);
                    return self.failed_tcp(&failure);
                }
            },
        };
        self.count("opaque", "opaque", Version::HTTP_11);
        tunnel.relay(&mut stream, &self.proxy.budget).await;
    }

    fn failed_tcp(&self, failure: &Failure) {
        tracing::debug!(addr = %self.addr, %failure, "could not serve a connection");
        let (service, port) = self.called(&self.proxy.state.snapshot());
        Call::tcp(
            &self.proxy,
            Direction::outbound,
            service,
            port,
            Arc::default(),
            Arc::default(),
            Security::plaintext,
        )
        .refused(failure);
    }
}
