//! One HTTP request of the application, from its head to the end of its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use policy::http_match::RequestFacts;
use policy::reason::Reason;

use super::Connection;
use super::route::Attempts;
use crate::endpoints::endpoint::Endpoint;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::byte_stream::Stream;
use crate::http::client::exchange::{self, Answer};
use crate::http::grpc::is_grpc;
use crate::http::headers;
use crate::http::incoming::Received;
use crate::http::refusal::refusal;
use crate::http::replay::Replay;
use crate::http::upgrade::Side;
use crate::http::upload::Upload;
use crate::http::watched;
use crate::http::{body, incoming};
use crate::mesh::protocol;
use crate::net::budget::Budget;
use crate::net::connect::CONNECT_TIMEOUT;
use crate::net::relay;
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, Ended};
use crate::telemetry::labels::{Direction, Security};
use crate::telemetry::trace;

/// One request of the application, from its head to the end of its answer.
pub(super) async fn request_story(
    connection: Arc<Connection>,
    request: Request<Received>,
) -> Response<Body> {
    let started = Instant::now();
    let proxy = &connection.proxy;
    let snapshot = proxy.state.snapshot();
    let (mut parts, incoming) = request.into_parts();
    headers::name_authority(&mut parts);
    let grpc = is_grpc(&parts.headers);
    if parts.method == Method::CONNECT {
        return refusal(Reason::BadRequest, "CONNECT is not served here", false);
    }
    let upgrade = headers::upgrade_of(&parts);
    let on_upgrade = upgrade
        .as_ref()
        .and_then(|_| Side::of(&mut parts.extensions));
    let host = host_of(&parts);
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::strip_ours(&mut parts.headers);
    if parts.version == Version::HTTP_2 {
        headers::join_cookies(&mut parts.headers);
    }
    let trace = trace::id(&parts.headers);
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
                .to(service, port, Arc::default())
                .failed(&failure);
            return failure.response_to(&parts.method, grpc);
        }
    };
    let mut call = Call::http(proxy, Direction::outbound, &parts, started, trace)
        .to(
            Arc::clone(&route.service),
            route.port,
            Arc::clone(&route.backend),
        )
        .split_by(route.split.clone());
    let (body, upload) = Upload::watch(incoming::incoming(incoming));
    let replay = Replay::new(body);
    let mut attempts = Attempts::new(&route);
    while let Some(endpoint) = attempts.next(&proxy.settings.own_ip) {
        call.peer(Arc::clone(&endpoint.pod), Security::of(endpoint.meshed()));
        let in_flight = endpoint.begin();
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
                endpoint.observe(answer.took);
                let budget = Arc::clone(&proxy.budget);
                return finish(answer, call, in_flight, on_upgrade, budget).await;
            }
            Err(failure) if upload.broke() => {
                attempts.given_up(upload.blame(failure));
            }
            Err(failure) => attempts.failed(endpoint, failure),
        }
    }
    let failure = attempts.into_failure();
    call.failed(&failure);
    failure.response_to(&parts.method, grpc)
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
        // Legal where there is none, and nothing that HTTP/2 could carry.
        .filter(|host| !host.is_empty())
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
            return exchange::http1(&proxy.peers, endpoint.addr, CONNECT_TIMEOUT, &parts, replay)
                .await;
        }
        if parts.version == Version::HTTP_2 {
            return exchange::http2(&proxy.peers, endpoint.addr, &Arc::default(), parts, body()?)
                .await;
        }
        return exchange::http1(&proxy.peers, endpoint.addr, CONNECT_TIMEOUT, parts, replay).await;
    };
    let peer = proxy.peers.mesh(endpoint.addr.ip(), identity);
    if upgrade.is_none() && fits_a_line(parts, host, replay) {
        let make = || Ok(line_request(endpoint, parts, host, body()?));
        if let Some(answer) = exchange::mesh_by_line(&peer, make).await? {
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
    let bad = |what: &str| Failure::unsent(Reason::BadRequest, format!("{what} cannot be sent on"));
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
        exchange::mesh_stream(&peer, mesh).await
    } else {
        exchange::mesh(&peer, mesh, body()?).await
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

/// Hands the answer to the application and counts when its body has ended.
async fn finish(
    answer: Answer,
    call: Call,
    in_flight: crate::endpoints::endpoint::InFlight,
    on_upgrade: Option<Side>,
    budget: Arc<Budget>,
) -> Response<Body> {
    let Answer {
        mut response,
        out,
        place,
        ..
    } = answer;
    // Only a peer proxy speaks for the mesh; any server may send these headers.
    let mutual = call.is_mutual();
    let real_status = response
        .headers()
        .get(protocol::STATUS)
        .filter(|_| mutual)
        .and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    let switched_to = response
        .headers()
        .get(protocol::UPGRADE_TO)
        .filter(|_| mutual)
        .or_else(|| response.headers().get(header::UPGRADE))
        .cloned();
    let server_side = Side::of_answer(&mut response);
    let (mut parts, incoming) = response.into_parts();
    parts.version = Version::HTTP_11;
    if let Some(status) = real_status {
        parts.status = status;
    }
    let named = [&protocol::UPGRADE_TO, &header::UPGRADE];
    if parts.status == StatusCode::SWITCHING_PROTOCOLS
        && !named
            .iter()
            .all(|name| headers::may_switch(parts.headers.get_all(*name)))
    {
        let failure = Failure::lost("the server switched to HTTP on the connection");
        call.failed(&failure);
        return failure.response(false);
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
        let server_side = match (out, incoming.into_http2()) {
            (Some(out), Some(stream)) => Side::Open(Stream::new(out, stream)),
            _ => server_side,
        };
        tokio::spawn(async move {
            let _held = (place, in_flight);
            let sides = tokio::join!(client_side.switched(), server_side.switched());
            let (Some(mut client), Some(mut server)) = sides else {
                return call.done(ended, watched::End::Failed, 0, None);
            };
            let (copied, _) = relay::relay(&mut client, &mut server, &budget).await;
            let bytes = copied.received;
            call.done(ended, watched::End::Complete, bytes, None);
        });
        return Response::from_parts(parts, body::empty());
    }
    let body = watched::Watched::begun(incoming, move |end, bytes, trailers| {
        drop((place, in_flight));
        call.done(ended, end, bytes, trailers);
    })
    .await;
    Response::from_parts(parts, http_body_util::BodyExt::boxed_unsync(body))
}
