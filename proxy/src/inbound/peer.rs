//! Requests and tunnels of peer proxies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use identity::verify::PeerIdentity;
use policy::reason::Reason;

use crate::http::body::Body;
use crate::http::headers;
use crate::http::incoming::IncomingBody;
use crate::http::received::{Upgrades, acceptable};
use crate::http::refusal::refusal;
use crate::inbound::connection::Connection;
use crate::mesh::protocol;
use crate::ports::OWN_PORTS;
use crate::proxy::Proxy;

/// One request or tunnel from a peer proxy.
pub(crate) async fn mesh_request(
    proxy: Arc<Proxy>,
    peer: PeerIdentity,
    ip: IpAddr,
    quiet: bool,
    request: Request<IncomingBody>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    if let Err(failure) = acceptable(&parts) {
        Connection::new(proxy, Some(peer), SocketAddr::new(ip, 0))
            .turned_away(failure.reason().status());
        return failure.response_to(&parts.method, false);
    }
    let map = &parts.headers;
    let port = map
        .get(protocol::PORT)
        .and_then(|port| port.to_str().ok()?.parse::<u16>().ok());
    let Some(port) = port.filter(|port| *port != 0 && !OWN_PORTS.contains(port)) else {
        return refusal(
            Reason::BadRequest,
            "weft-port names no port of an application",
            false,
        );
    };
    let protocol = map.get(protocol::PROTOCOL).map(HeaderValue::as_bytes);
    let http2 = protocol == Some(b"http2");
    let tcp = protocol == Some(protocol::TCP.as_bytes());
    if quiet && (tcp || parts.method == Method::CONNECT) {
        return refusal(Reason::BadRequest, "tunnels are for HTTP/2", false);
    }
    let upgrade = headers::without_http(map.get_all(protocol::UPGRADE_TO));
    let target = map.get(protocol::TARGET).cloned();
    let connection = Arc::new(Connection::new(
        proxy,
        Some(peer),
        SocketAddr::new(ip, port),
    ));
    if tcp {
        return match body {
            IncomingBody::Http2(body) => connection.tunnel(body).await,
            IncomingBody::Http1(_) => refusal(Reason::BadRequest, "tunnels are for HTTP/2", false),
        };
    }
    if parts.method != Method::CONNECT {
        let request = Request::from_parts(parts, body);
        return connection
            .handle_request(request, http2, Upgrades::Told(None))
            .await;
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
    let host = parts
        .uri
        .authority()
        .and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    parts.method = Method::GET;
    parts.uri = Uri::from(target);
    if let Some(host) = host {
        parts.headers.insert(header::HOST, host);
    }
    let request = Request::from_parts(parts, body);
    connection
        .handle_request(request, false, Upgrades::Told(Some(upgrade)))
        .await
}
