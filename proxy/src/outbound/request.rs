//! One HTTP request of the application, from its head to the end of its answer: receive,
//! route, attempt, respond.

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use policy::http_match::RequestFacts;

use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::incoming::IncomingBody;
use crate::http::received::{Received, Upgrades, host_of};
use crate::http::replay::Replay;
use crate::http::upload::Upload;
use crate::outbound::attempts::Attempts;
use crate::outbound::connection::Connection;
use crate::outbound::respond::respond;
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;
use crate::telemetry::call::Call;
use crate::telemetry::labels::Direction;
use crate::telemetry::trace;

/// One request of the application, from its head to the end of its answer.
pub(super) async fn handle_request(
    connection: Arc<Connection>,
    request: Request<IncomingBody>,
) -> Response<Body> {
    let started = Instant::now();
    let proxy = &connection.proxy;
    let received = match Received::new(request, Upgrades::Own) {
        Ok(received) => received,
        Err(rejected) => {
            connection.turned_away(rejected.failure.reason().status());
            return rejected.response();
        }
    };
    let call = connection.http_call(&received, started);
    let snapshot = proxy.state.snapshot();
    let route = connection
        .route_request(&snapshot, &received)
        .map_err(|failure| (failure, connection.called(&snapshot)));
    drop(snapshot);
    let route = match route {
        Ok(route) => route,
        Err((failure, (service, port))) => {
            call.to(service, port, Arc::default()).failed(&failure);
            return failure.response_to(&received.parts.method, received.grpc);
        }
    };
    let (service, backend) = (Arc::clone(&route.service), Arc::clone(&route.backend));
    let mut call = call.to(service, route.port, backend);
    call.decided_by(route.rule.as_ref());
    let (body, upload) = Upload::watch(received.body);
    let outgoing = Outgoing {
        parts: received.parts,
        replay: Replay::new(body),
        upgrade: received.upgrade,
        called: connection.addr,
    };
    let attempts = Attempts::new(&route);
    match attempts.send(proxy, &outgoing, &upload, &mut call).await {
        Ok((answer, in_flight)) => {
            let budget = Arc::clone(&proxy.budget);
            respond(answer, call, in_flight, received.caller_side, budget).await
        }
        Err(failure) => {
            call.failed(&failure);
            failure.response_to(&outgoing.parts.method, received.grpc)
        }
    }
}

impl Connection {
    fn http_call(&self, received: &Received, started: Instant) -> Call {
        let parts = &received.parts;
        let trace = trace::id(&parts.headers);
        let telemetry = &self.proxy.telemetry;
        Call::http(telemetry, Direction::outbound, parts, started, trace)
    }

    fn route_request(&self, snapshot: &Snapshot, received: &Received) -> Result<Route, Failure> {
        let parts = &received.parts;
        let facts = RequestFacts {
            method: &parts.method,
            path: parts.uri.path(),
            headers: &parts.headers,
        };
        self.route(snapshot, Some((&facts, host_of(parts))))
    }
}
