//! One HTTP request of the application, from its head to the end of its answer.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version, header};
use policy::http_match::RequestFacts;
use policy::reason::Reason;

use crate::http::body::Body;
use crate::http::grpc::is_grpc;
use crate::http::headers;
use crate::http::incoming::{self, IncomingBody};
use crate::http::refusal::refusal;
use crate::http::replay::Replay;
use crate::http::upgrade::Side;
use crate::http::upload::Upload;
use crate::outbound::attempts::Attempts;
use crate::outbound::connection::Connection;
use crate::outbound::respond::finish;
use crate::outbound::send::send;
use crate::telemetry::call::Call;
use crate::telemetry::labels::{Direction, Security};
use crate::telemetry::trace;

/// One request of the application, from its head to the end of its answer.
pub(super) async fn handle_request(
    connection: Arc<Connection>,
    request: Request<IncomingBody>,
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
            Call::http(
                &proxy.telemetry,
                Direction::outbound,
                &parts,
                started,
                trace,
            )
            .to(service, port, Arc::default())
            .failed(&failure);
            return failure.response_to(&parts.method, grpc);
        }
    };
    let mut call = Call::http(
        &proxy.telemetry,
        Direction::outbound,
        &parts,
        started,
        trace,
    )
    .to(
        Arc::clone(&route.service),
        route.port,
        Arc::clone(&route.backend),
    );
    call.decided_by(route.rule.as_ref());
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
