//! Serves one connection of a client at a Gateway: finds its listener, by the server name where it is
//! TLS, ends TLS where the listener says so, and hands requests or bytes to the crate `proxy`.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Version};
use policy::egress::host_name;
use policy::gateway::{Listener, ListenerProtocol};
use runtime::occupancy::Permit;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use weft_proxy::{Direction, Edge, ListenerConnection, Proxy};
use weft_proxy_http::head::ReportedHead;
use weft_proxy_http::incoming::IncomingBody;
use weft_proxy_http::server::{Accepted, Profile, serve as serve_http};
use weft_proxy_net::abort::MayAbort;
use weft_proxy_net::chunk::TLS_BUFFER;
use weft_proxy_net::coalesce::Coalescing;
use weft_proxy_net::connect;
use weft_proxy_net::idle::scheduled_within;
use weft_proxy_net::prefixed::{HEAD_WITHIN, Prefixed};
use weft_proxy_net::server_name::{Hello, LONGEST_HELLO, hello};
use weft_proxy_net::sniff::{Sniffed, sniff_declared};

use crate::certificates::HTTP2;
use crate::entrance::Entrance;
use crate::serving::{Begins, ListenerKey, Serving};

/// A client may say nothing for this long at the beginning, as browsers do that connect ahead.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// The same where connections begin to end.
const UNUSED_FOR: Duration = Duration::from_secs(5);
/// A client has this long to finish the TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// What all connections of a Gateway share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) trusted_hops: u8,
    pub(crate) serving: watch::Sender<Arc<Serving>>,
}

/// A connection that came in.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) addr: SocketAddr,
    pub(crate) target_port: u16,
    pub(crate) permit: Arc<Permit>,
}

/// Serves the requests of one connection, for as long as its listener exists.
struct Server<'a> {
    shared: &'a Shared,
    connection: ListenerConnection,
    key: ListenerKey,
    permit: Arc<Permit>,
}

impl Shared {
    /// The newest listeners. A connection finds its listener in one version of them.
    fn now(&self) -> Arc<Serving> {
        Arc::clone(&self.serving.borrow())
    }

    /// Returns when the listener that a connection belongs to is no longer served.
    fn gone(&self, key: ListenerKey) -> impl Future<Output = ()> + Send + use<> {
        let mut serving = self.serving.subscribe();
        async move {
            let _ = serving.wait_for(|now| !now.has(&key)).await;
        }
    }

    fn failed_handshake(&self, reason: &'static str) {
        let metrics = &self.proxy.telemetry.metrics;
        metrics.tls_failed(Direction::inbound, reason);
    }

    /// A connection that came in at this listener, with this server name. Its `enters` is the
    /// entrance of each request: the crate `proxy` calls it before it looks for a route.
    fn connection(
        &self,
        listener: &Listener,
        server_name: Option<String>,
        client: SocketAddr,
    ) -> ListenerConnection {
        let client = client.ip().to_canonical();
        let entrance = Entrance {
            client,
            is_tls: listener.protocol == ListenerProtocol::Https,
            trusted_hops: self.trusted_hops,
        };
        let edge = Edge {
            addr: SocketAddr::new(self.proxy.own.ip, listener.port),
            target_port: listener.target_port,
            protocol: listener.protocol,
            server_name: server_name.map(String::into_boxed_str),
            client,
            enters: Arc::new(move |parts: &mut Parts| entrance.enter(parts)),
            continues_traces: self.trusted_hops > 0,
        };
        ListenerConnection::new(Arc::clone(&self.proxy), edge)
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(shared: &Shared, client: Client) {
    let serving = shared.now();
    let Some((listener, begins)) = serving.first_at(client.target_port) else {
        // The port is being closed.
        return connect::reset(&client.stream);
    };
    match begins {
        Begins::Request => {
            let connection = shared.connection(listener, None, client.addr);
            let key = ListenerKey::of_port(listener);
            drop(serving);
            Box::pin(plaintext(shared, connection, key, client)).await;
        }
        Begins::Tls => {
            drop(serving);
            Box::pin(tls(shared, client)).await;
        }
        Begins::Bytes => {
            let connection = shared.connection(listener, None, client.addr);
            let key = ListenerKey::of_port(listener);
            drop(serving);
            let stream = Prefixed::new(client.stream);
            Box::pin(bytes(shared, connection, key, (stream, client.permit))).await;
        }
    }
}

/// Serves requests in plaintext.
async fn plaintext(
    shared: &Shared,
    connection: ListenerConnection,
    key: ListenerKey,
    client: Client,
) {
    let permit = client.permit;
    let mut stream = Prefixed::new(client.stream);
    permit.silent();
    let looked = tokio::select! {
        looked = stream.look_at_head(SILENT_FOR, sniff_declared, &permit) => looked,
        () = ends_unused(shared, key.clone()) => return,
    };
    let Ok(sniffed) = looked else { return };
    let version = match sniffed {
        Sniffed::Http2 => Version::HTTP_2,
        Sniffed::Http1 => Version::HTTP_11,
        Sniffed::Unsure => {
            // As of any head that does not come whole.
            if stream.has_bytes() {
                permit.head_is_overdue(HEAD_WITHIN);
            }
            return;
        }
        Sniffed::Opaque if sniff_declared(stream.read_ahead()) == Sniffed::Opaque => {
            return connection.reset_no_request(&stream);
        }
        // The strict parser refuses it.
        Sniffed::Opaque => Version::HTTP_11,
    };
    let server = Server {
        shared,
        connection,
        key,
        permit,
    };
    server.requests(stream, version).await;
}

/// Serves TLS that ends here, or passes it through.
async fn tls(shared: &Shared, client: Client) {
    let mut stream = Prefixed::new(client.stream);
    // A client that does not finish a handshake is the first to lose its permit.
    client.permit.silent();
    client.permit.head_begins();
    let until = Instant::now() + HEAD_WITHIN;
    let read = stream.look_for(until, LONGEST_HELLO, hello).await;
    let server_name = match read {
        Ok(Some(Hello::Named(name))) => host_name(&name).map(Cow::into_owned),
        Ok(Some(Hello::Nameless)) => None,
        Ok(None) if stream.has_bytes() => return shared.failed_handshake("timeout"),
        // One that only looks whether it can connect.
        Ok(None) | Err(_) => return,
    };
    let serving = shared.now();
    let Some(listener) = serving.by_name(client.target_port, server_name.as_deref()) else {
        return refuse(shared, &stream);
    };
    let connection = shared.connection(listener, server_name, client.addr);
    let key = ListenerKey::of(listener);
    match listener.protocol {
        ListenerProtocol::Tls => {
            drop(serving);
            bytes(shared, connection, key, (stream, client.permit)).await;
        }
        ListenerProtocol::Https => {
            let Some(config) = serving.tls(listener) else {
                return refuse(shared, &stream);
            };
            drop(serving);
            let server = Server {
                shared,
                connection,
                key,
                permit: client.permit,
            };
            server.decrypted(stream, config).await;
        }
        // The port has become another while this came.
        ListenerProtocol::Http | ListenerProtocol::Tcp => connect::reset(&stream.inner),
    }
}

/// Nothing answers to the server name that a client sent.
fn refuse(shared: &Shared, stream: &Prefixed<TcpStream>) {
    shared.failed_handshake("handshake");
    connect::reset(&stream.inner);
}

/// Relays bytes, whichever side sends them first.
async fn bytes(
    shared: &Shared,
    connection: ListenerConnection,
    key: ListenerKey,
    (stream, permit): (Prefixed<TcpStream>, Arc<Permit>),
) {
    permit.busy();
    tokio::select! {
        () = connection.relay(stream) => {}
        () = shared.gone(key) => {}
    }
}

/// Returns when a connection has to end on which nothing was ever sent.
async fn ends_unused(shared: &Shared, key: ListenerKey) {
    let drained = async {
        shared.proxy.drain.time_to_go().await;
        // Its first request may be on the way, as that of any idle one.
        sleep(UNUSED_FOR).await;
    };
    tokio::select! {
        () = shared.gone(key) => {}
        () = drained => {}
    }
}

impl Server<'_> {
    /// Serves requests in TLS.
    async fn decrypted(self, stream: Prefixed<TcpStream>, config: Arc<ServerConfig>) {
        let stream = stream.map(|stream| Coalescing::new(stream).0);
        let handshake = TlsAcceptor::from(config).accept_with(stream, |tls| {
            tls.set_buffer_limit(Some(TLS_BUFFER));
        });
        let secured = match scheduled_within(HANDSHAKE_WITHIN, handshake).await {
            Some(Ok(secured)) => secured,
            Some(Err(error)) => {
                tracing::debug!(%error, "refused a client");
                return self.shared.failed_handshake("handshake");
            }
            None => return self.shared.failed_handshake("timeout"),
        };
        self.permit.busy();
        let is_http2 = secured.get_ref().1.alpn_protocol() == Some(HTTP2);
        let version = if is_http2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        self.requests(secured, version).await;
    }

    /// Serves requests until the connection ends, or what it belongs to.
    async fn requests<I>(self, io: I, version: Version)
    where
        I: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    {
        let proxy = &self.shared.proxy;
        let connection = self.connection;
        connection.carries(version);
        let (drain, gone) = (proxy.drain.clone(), self.shared.gone(self.key));
        let close = async move {
            tokio::select! {
                () = drain.time_to_go() => {}
                () = gone => {}
            }
        };
        let refused = {
            let connection = connection.clone();
            move |how, head: ReportedHead<'_>| connection.turned_away(how, head)
        };
        let handler = move |request: Request<IncomingBody>| connection.handle(request);
        let accepted = Accepted {
            version,
            profile: Profile::Edge,
            budget: Arc::clone(proxy.budget()),
            permit: self.permit,
        };
        serve_http(io, accepted, close, refused, handler).await;
    }
}
