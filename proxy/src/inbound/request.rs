//! One HTTP request from outside the pod: receive, authorise, forward, respond.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};

use crate::failure::{Failure, Next, StreamReset};
use crate::http::body::Body;
use crate::http::deadline::{self, Reader};
use crate::http::headers;
use crate::http::incoming::IncomingBody;
use crate::http::received::{Received, Upgrades};
use crate::http::replay::Replay;
use crate::http::upload::Upload;
use crate::inbound::connection::Connection;
use crate::inbound::guard;
use crate::inbound::path::JudgedPath;
use crate::inbound::reauthorize::Allowed;
use crate::mesh::protocol::{AppHttp, Asked, not_sent};
use crate::net::turn::Waited;
use crate::telemetry::call::Kind;

impl Connection {
    /// One HTTP request: receive, authorise, forward, respond.
    pub(super) async fn handle_request(
        self: Arc<Self>,
        request: Request<IncomingBody>,
        speak: AppHttp,
        upgrades: Upgrades,
    ) -> Response<Body> {
        let mut call = self.call(Kind::Request);
        let mut received = match Received::new(request, upgrades) {
            Ok(received) => received,
            Err(rejected) => return call.refuse(&rejected.failure, &rejected.method, false),
        };
        if let Some(Waited(long)) = received.parts.extensions.get() {
            call.waited(*long);
        }
        call.asks(&received.parts);
        call.speaks(speak == AppHttp::Http2, received.grpc);
        self.count_on_cell(&mut call);
        let snapshot = self.proxy.config.snapshot();
        let path = JudgedPath::of(&received.parts);
        let deadline = self.deadline(&snapshot, &received, &path);
        let decided = deadline::check(deadline)
            .and_then(|()| self.admit_copy(&snapshot, &received))
            .and_then(|()| self.authorise(&snapshot, &mut received.parts, &path, &mut call));
        let limited = match decided {
            Ok(_) => self.limited(&snapshot, &received.parts, &path),
            Err(_) => None,
        };
        let class = self.class(&snapshot, &received, &path);
        let let_in = match (&decided, &limited) {
            (Ok(_), None) => self.let_in(&snapshot, &received, class),
            _ => Ok(None),
        };
        drop((snapshot, path));
        let as_of = match decided {
            Ok(as_of) => as_of,
            Err(failure) => {
                let response = call.refuse(&failure, &received.parts.method, received.grpc);
                return self.proven(&failure, response);
            }
        };
        if let Some(exceeded) = limited {
            return guard::answer(&exceeded, call, &received.parts, received.grpc);
        }
        let let_in = match let_in {
            Ok(let_in) => let_in,
            Err(shed) => return call.refuse(&shed, &received.parts.method, received.grpc),
        };
        self.name_caller(&mut received);
        call.pass_on_trace(&mut received.parts.headers);
        let shadow = self.shadow(&received);
        let map = &mut received.parts.headers;
        self.proxy.lineage.arrives(shadow, map);
        let kept = self.remember(&mut received, deadline, class);
        let (map, grpc) = (&mut received.parts.headers, received.grpc);
        deadline::write(map, deadline, grpc, Reader::Application);
        let (body, upload) = Upload::watch(received.body);
        let replay = Replay::new(body).counted(&mut received.parts.extensions);
        let parts = received.parts;
        let ends = deadline::ends(deadline, &parts.method);
        let allowed = Allowed { parts, as_of, ends };
        match self.forward(&allowed, &replay, speak).await {
            Ok(answer) => {
                self.answered(let_in);
                replay.forget();
                let caller_side = received.caller_side;
                self.respond(answer, call, allowed, caller_side, kept).await
            }
            Err(failure) => {
                let failure = upload.blame(failure);
                let asked = &allowed.parts;
                let mut response = call.refuse(&failure, &asked.method, received.grpc);
                let head = (response.status(), response.headers_mut());
                self.tell_spent(&kept, &asked.headers, head);
                kept.refused(failure.reason());
                self.proven(&failure, response)
            }
        }
    }

    /// `response`, with proof that no application saw the request where that is so. Only
    /// a peer proxy knows what to do with it.
    fn proven(&self, failure: &Failure, mut response: Response<Body>) -> Response<Body> {
        if failure.next() != Next::Stop && self.peer.is_some() {
            // The stream between the proxies carries the proof, and is not refused itself.
            response.extensions_mut().remove::<StreamReset>();
            not_sent(failure, response, Asked::Http)
        } else {
            response
        }
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
