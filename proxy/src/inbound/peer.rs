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
    mut request: Request<IncomingBody>,
) -> Response<Body> {
    let map = request.headers();
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
    if quiet && (tcp || request.method() == Method::CONNECT) {
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
        return match request.into_body() {
            IncomingBody::Http2(body) => connection.tunnel(body).await,
            IncomingBody::Http1(_) => refusal(Reason::BadRequest, "tunnels are for HTTP/2", false),
        };
    }
    if request.method() != Method::CONNECT {
        return connection.handle_request(request, http2, None).await;
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
    connection
        .handle_request(request, false, Some(upgrade))
        .await
}
