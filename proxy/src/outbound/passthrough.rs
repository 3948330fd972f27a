//! Addresses that the mesh does not serve: unknown ones, and those outside.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Version};
use policy::mode::MtlsMode;
use policy::reason::Reason;
use runtime::occupancy::Place;
use tokio::net::TcpStream;

use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::incoming::IncomingBody;
use crate::http::received::{Received, Upgrades};
use crate::http::server::{Profile, serve as serve_http};
use crate::net::connect::CONNECT_TIMEOUT_EXTERNAL;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{DETECT_WITHIN, Seen, sniff};
use crate::net::{connect, relay};
use crate::proxy::Proxy;
use crate::telemetry::call::Call;
use crate::telemetry::labels::{Direction, Security};

/// The controller did not say in time what the address is. In plaintext it is called
/// only if it was never seen as meshed.
pub(crate) async fn unknown(
    proxy: &Arc<Proxy>,
    stream: TcpStream,
    addr: SocketAddr,
    place: Arc<Place>,
) {
    let meshed = proxy.state.registry.was_meshed(addr);
    let permissive = || proxy.state.inspect(Snapshot::mtls) == MtlsMode::Permissive;
    if !meshed && permissive() {
        let strict = async {
            let mut changes = proxy.state.policy_changes();
            while permissive() {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        return pass_through(proxy, stream, addr, strict).await;
    }
    let mut stream = Prefixed::new(stream);
    let seen = stream
        .look(tokio::time::Instant::now() + DETECT_WITHIN, sniff)
        .await;
    let version = match seen {
        Ok(Seen::Http1) => Version::HTTP_11,
        Ok(Seen::Http2) => Version::HTTP_2,
        _ => return,
    };
    let budget = Arc::clone(&proxy.budget);
    let handler = |request: Request<IncomingBody>| {
        let response = match Received::new(request, Upgrades::Own) {
            Ok(received) => {
                let detail = "the mesh does not know this address yet";
                Failure::not_sent(Reason::UnknownDestination, detail)
                    .response_to(&received.parts.method, received.grpc)
            }
            Err(rejected) => rejected.response(),
        };
        std::future::ready(response)
    };
    serve_http(
        stream,
        version,
        Profile::OwnApplication,
        budget,
        place,
        std::future::pending(),
        // As what the handler refuses: the address is of no Service that could be named.
        |_| {},
        handler,
    )
    .await;
}

/// Relays to an address outside the mesh as if no proxy were there, until that is
/// `forbidden`.
pub(crate) async fn pass_through(
    proxy: &Arc<Proxy>,
    mut stream: TcpStream,
    addr: SocketAddr,
    forbidden: impl Future<Output = ()>,
) {
    let call = Call::tcp(
        &proxy.telemetry,
        Direction::outbound,
        Arc::default(),
        addr.port(),
        Arc::default(),
        "external".into(),
        Security::plaintext,
    );
    match connect::connect(addr, CONNECT_TIMEOUT_EXTERNAL).await {
        Ok(mut server) => tokio::select! {
            outcome = relay::relay(&mut stream, &mut server, &proxy.budget) => call.relayed(outcome),
            () = forbidden => {
                connect::reset(&stream);
                connect::reset(&server);
            }
        },
        Err(error) => {
            connect::reset(&stream);
            call.refused(&Failure::not_sent(Reason::ConnectFailed, error.to_string()));
        }
    }
}
