//! One attempt: sends a request to one endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use http::request::Parts;
use http::{HeaderValue, Method, Uri, Version, header};
use policy::reason::Reason;

use crate::endpoints::endpoint::Endpoint;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::client::exchange::{self, UpstreamResponse};
use crate::http::replay::Replay;
use crate::mesh::peer;
use crate::mesh::protocol;
use crate::net::connect::CONNECT_TIMEOUT;
use crate::proxy::Proxy;

/// Sends one attempt to one endpoint.
pub(crate) async fn send(
    proxy: &Proxy,
    endpoint: &Endpoint,
    parts: &Parts,
    host: Option<&str>,
    called: SocketAddr,
    replay: &Replay,
    upgrade: Option<&HeaderValue>,
) -> Result<UpstreamResponse, Failure> {
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
            return exchange::http1(
                &proxy.clients,
                endpoint.addr,
                CONNECT_TIMEOUT,
                &parts,
                replay,
            )
            .await;
        }
        if parts.version == Version::HTTP_2 {
            return exchange::http2(
                &proxy.clients,
                endpoint.addr,
                &Arc::default(),
                parts,
                body()?,
            )
            .await;
        }
        return exchange::http1(
            &proxy.clients,
            endpoint.addr,
            CONNECT_TIMEOUT,
            parts,
            replay,
        )
        .await;
    };
    let peer = proxy.peers.mesh(endpoint.addr.ip(), identity);
    if upgrade.is_none() && fits_a_line(parts, host, replay) {
        let make = || Ok(line_request(endpoint, parts, host, body()?));
        if let Some(answer) = peer::send_by_line(&peer, make).await? {
            return Ok(answer);
        }
    }
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
        .insert(protocol::PORT, HeaderValue::from(endpoint.addr.port()));
    mesh.headers
        .insert(protocol::PROTOCOL, HeaderValue::from_static(protocol));
    let bad =
        |what: &str| Failure::not_sent(Reason::BadRequest, format!("{what} cannot be sent on"));
    if let Some(upgrade) = upgrade {
        mesh.headers.insert(protocol::UPGRADE_TO, upgrade.clone());
        mesh.headers.insert(
            protocol::TARGET,
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
    let waiting = peer.lines.beside();
    let answer = if upgrade.is_some() {
        peer::open(&peer, mesh).await
    } else {
        peer::send(&peer, mesh, body()?).await
    };
    drop(waiting);
    answer
}

/// Bytes of a body that a quiet line carries: what every socket takes at once, so
/// that a line never waits for an application that does not read.
const LINE_BODY: u64 = 16 * 1024;

/// True for requests that lose nothing in HTTP/1.1 with one at a time: those that
/// came so, and are small and complete in themselves.
fn fits_a_line(parts: &Parts, host: Option<&str>, replay: &Replay) -> bool {
    parts.version == Version::HTTP_11
        && host.is_some_and(|host| !host.is_empty())
        && !parts.headers.contains_key(header::EXPECT)
        && !parts.headers.contains_key(header::TE)
        && replay.size().is_some_and(|size| size <= LINE_BODY)
}

/// The same request for a quiet line: origin form, Host, and what the peer must
/// know.
fn line_request(
    endpoint: &Endpoint,
    parts: &Parts,
    host: Option<&str>,
    body: Body,
) -> Request<Body> {
    let mut parts = parts.clone();
    if parts.uri.authority().is_some() {
        // A target with an authority beats the header.
        if let Some(Ok(host)) = host.map(HeaderValue::from_str) {
            parts.headers.insert(header::HOST, host);
        }
        let target = parts.uri.path_and_query().cloned();
        parts.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    let says_so = [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
    if says_so && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        // As by HTTP/2; some servers insist on it.
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    parts
        .headers
        .insert(protocol::PORT, HeaderValue::from(endpoint.addr.port()));
    parts
        .headers
        .insert(protocol::PROTOCOL, HeaderValue::from_static("http1"));
    Request::from_parts(parts, body)
}
