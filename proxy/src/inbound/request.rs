//! One HTTP request from outside the pod: receive, authorise, forward, respond.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Request, Response, header};

use crate::failure::Next;
use crate::http::body::Body;
use crate::http::headers;
use crate::http::incoming::IncomingBody;
use crate::http::received::{Received, Upgrades};
use crate::http::replay::Replay;
use crate::http::upload::Upload;
use crate::inbound::connection::Connection;
use crate::inbound::reauthorize::Allowed;
use crate::mesh::protocol::{AppHttp, Asked, not_sent};
use crate::telemetry::call::Call;
use crate::telemetry::labels::Direction;
use crate::telemetry::trace;

impl Connection {
    /// One HTTP request: receive, authorise, forward, respond.
    pub(super) async fn handle_request(
        self: Arc<Self>,
        request: Request<IncomingBody>,
        speak: AppHttp,
        upgrades: Upgrades,
    ) -> Response<Body> {
        let started = Instant::now();
        let mut received = match Received::new(request, upgrades) {
            Ok(received) => received,
            Err(rejected) => {
                self.turned_away(rejected.failure.reason().status());
                return rejected.response();
            }
        };
        let mut call = self.http_call(&received, started);
        let snapshot = self.proxy.state.snapshot();
        let decided = self.authorise(&snapshot, &mut received.parts, &mut call);
        drop(snapshot);
        let as_of = match decided {
            Ok(as_of) => as_of,
            Err(failure) => {
                call.failed(&failure);
                return failure.response_to(&received.parts.method, received.grpc);
            }
        };
        self.name_caller(&mut received);
        let (body, upload) = Upload::watch(received.body);
        let replay = Replay::new(body);
        let parts = received.parts;
        let allowed = Allowed { parts, as_of };
        match self.forward(&allowed, &replay, speak).await {
            Ok(answer) => {
                let caller_side = received.caller_side;
                self.respond(answer, call, allowed, caller_side).await
            }
            Err(failure) => {
                let failure = upload.blame(failure);
                call.failed(&failure);
                let response = failure.response_to(&allowed.parts.method, received.grpc);
                // Only a peer proxy knows what to do with the proof.
                if failure.next() != Next::Stop && self.peer.is_some() {
                    not_sent(&failure, response, Asked::Http)
                } else {
                    response
                }
            }
        }
    }

    fn http_call(&self, received: &Received, started: Instant) -> Call {
        let parts = &received.parts;
        let trace = trace::id(&parts.headers);
        let telemetry = &self.proxy.telemetry;
        let mut call = Call::http(telemetry, Direction::inbound, parts, started, trace)
            .to(Arc::default(), self.local.port(), "".into())
            .with_caller(self.pod.clone());
        call.peer(Arc::clone(&self.label), self.security());
        call
    }

    /// Adds what the application is told: who calls, and what the caller asks to upgrade
    /// to, which is not judged.
    fn name_caller(&self, received: &mut Received) {
        let map = &mut received.parts.headers;
        if let Some(peer) = &self.peer
            && let Ok(id) = HeaderValue::from_str(peer.spiffe.as_str())
        {
            map.insert(headers::CLIENT_ID, id);
        }
        if let Some(upgrade) = &received.upgrade {
            map.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            map.insert(header::UPGRADE, upgrade.clone());
        }
    }
}
