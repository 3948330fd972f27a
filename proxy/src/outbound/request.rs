//! One HTTP request of the application, from its head to the end of its answer: receive,
//! route, attempt, respond.

use std::sync::Arc;

use http::{Request, Response, Version};
use policy::http_match::RequestFacts;

use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::deadline::{self, Timed};
use crate::http::incoming::IncomingBody;
use crate::http::received::{Received, Upgrades, host_of};
use crate::http::replay::Replay;
use crate::http::upload::Upload;
use crate::net::turn::Waited;
use crate::outbound::attempts::Attempts;
use crate::outbound::connection::Connection;
use crate::outbound::respond::respond;
use crate::outbound::route::Route;
use crate::outbound::said;
use crate::outbound::send::Outgoing;
use crate::telemetry::call::{Call, Kind};
use crate::telemetry::parties::Parties;

/// One request of the application, from its head to the end of its answer.
pub(super) async fn handle_request(
    connection: Arc<Connection>,
    request: Request<IncomingBody>,
) -> Response<Body> {
    let proxy = &connection.proxy;
    let called = Parties::to_service(Arc::default(), connection.addr.port());
    let mut call = Call::begin(&proxy.telemetry, Kind::Request, called);
    let mut received = match Received::new(request, Upgrades::Own) {
        Ok(received) => received,
        Err(rejected) => {
            call.between(proxy.config.inspect(|now| connection.called(now)));
            return call.refuse(&rejected.failure, &rejected.method, false);
        }
    };
    if let Some(Waited(long)) = received.parts.extensions.get() {
        call.waited(*long);
    }
    call.asks(&received.parts);
    call.speaks(received.parts.version == Version::HTTP_2, received.grpc);
    let snapshot = proxy.config.snapshot();
    let route = connection.route_request(&snapshot, &received);
    call.between(match &route {
        Ok(route) => route.parties(),
        Err(_) => connection.called(&snapshot),
    });
    drop(snapshot);
    let route = match route {
        Ok(route) => route,
        Err(failure) => return call.refuse(&failure, &received.parts.method, received.grpc),
    };
    call.pass_on_trace(&mut received.parts.headers);
    let (map, grpc) = (&received.parts.headers, received.grpc);
    let timed = Timed::read(map, grpc, received.timeout.as_ref());
    proxy.telemetry.metrics.read_time(timed.unreadable);
    let timeouts = said::timeouts(route.said.as_deref());
    let deadline = deadline::outgoing(&received.parts, timed, timeouts);
    let (body, upload) = Upload::watch(received.body);
    let replay = Replay::new(body).counted(&mut received.parts.extensions);
    let outgoing = Outgoing {
        parts: received.parts,
        replay,
        upgrade: received.upgrade,
        grpc: received.grpc,
        called: connection.addr,
        deadline,
    };
    let attempts = Attempts::of(&route, &outgoing);
    match attempts.send(proxy, &outgoing, &upload, &mut call).await {
        Ok((answer, served)) => {
            outgoing.replay.forget();
            let budget = Arc::clone(proxy.budget());
            respond(answer, call, served, received.caller_side, budget).await
        }
        Err(failure) => call.refuse(&failure, &outgoing.parts.method, received.grpc),
    }
}

impl Connection {
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
