//! Passes the application's answer on, and counts when its body has ended.

use std::sync::Arc;

use http::response::Parts;
use http::{HeaderValue, Response, StatusCode, Version, header};
use http_body_util::BodyExt;

use crate::failure::Failure;
use crate::http::body::{self, Body};
use crate::http::client::exchange::UpstreamResponse;
use crate::http::context::OpenRequest;
use crate::http::deadline::{self, StopConditions};
use crate::http::ending_body::EndingBody;
use crate::http::grpc::is_grpc;
use crate::http::headers;
use crate::http::http2::server::Accept;
use crate::http::upgrade::Side;
use crate::http::watched::{BodyEnd, Watched};
use crate::inbound::connection::Connection;
use crate::inbound::reauthorize::{Allowed, Revocable};
use crate::mesh::protocol::{PeerResponse, RequestKind};
use crate::net::relay::{Flows, relay};
use crate::telemetry::call::{Call, Counted};

/// The two sides of an upgraded connection, before they carry the other protocol.
struct Upgraded {
    caller: Side,
    server: Side,
    /// What the application switched to.
    to: Option<HeaderValue>,
    /// The request that it was for.
    kept: OpenRequest,
}

impl Connection {
    /// Passes the answer to a request on that was `allowed`. `caller_side` is there where the
    /// request may switch protocols.
    pub(super) async fn respond(
        self: Arc<Self>,
        answer: UpstreamResponse,
        call: Call,
        allowed: Allowed,
        caller_side: Option<Side>,
        kept: OpenRequest,
    ) -> Response<Body> {
        let UpstreamResponse {
            mut response,
            permit,
            took,
            ..
        } = answer;
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !headers::may_switch(response.headers().get_all(header::UPGRADE)) {
            let failure = Failure::lost("the application switched to HTTP on the connection");
            kept.refused(failure.reason());
            return call.refuse(&failure, &allowed.parts.method, false);
        }
        let to = response.headers().get(header::UPGRADE).cloned();
        let server = Side::of_answer(&mut response);
        let (mut parts, incoming) = response.into_parts();
        self.clean_answer(&mut parts);
        if caller_side.is_none() {
            self.write_load(&mut parts, took);
        }
        let head = (parts.status, &mut parts.headers);
        self.write_spent(&kept, &allowed.parts.headers, head);
        let mut counted = call.answered(&parts, None);
        let by_mesh = matches!(caller_side, Some(Side::Mesh(_)));
        if let (true, Some(caller)) = (switches, caller_side) {
            let upgraded = Upgraded {
                caller,
                server,
                to,
                kept,
            };
            return self.switch(parts, upgraded, allowed, counted);
        }
        if by_mesh {
            parts = PeerResponse::Answered(parts).encode(RequestKind::Upgrade);
        }
        let incoming = EndingBody::new(incoming, StopConditions::at(allowed.ends), &parts.headers);
        let flows = counted.flows();
        let mut watched = Watched::start(incoming, flows, move |end, bytes, trailers| {
            drop(permit);
            kept.ended(end);
            counted.done(end, bytes, trailers);
        })
        .await;
        if watched.is_late() {
            let request_parts = &allowed.parts;
            return deadline::passed()
                .response_to(&request_parts.method, is_grpc(&request_parts.headers));
        }
        let body = Revocable {
            inner: watched,
            connection: self,
            allowed: Some(allowed),
            frames: 0,
            over: None,
        };
        Response::from_parts(parts, body.boxed_unsync())
    }

    fn clean_answer(&self, parts: &mut Parts) {
        headers::strip_hop_by_hop(&mut parts.headers);
        headers::strip_ours(&mut parts.headers);
        if self.is_of_proxy() {
            // The application's protocol shows nothing of the way to the peer, and not every way
            // has a place for its phrase.
            parts.version = Version::HTTP_11;
            parts.extensions.remove::<hyper::ext::ReasonPhrase>();
        }
    }

    /// Answers that the connection carries another protocol from now on, and relays it
    /// for as long as the request is `allowed`.
    fn switch(
        self: Arc<Self>,
        mut parts: Parts,
        upgraded: Upgraded,
        allowed: Allowed,
        mut counted: Counted,
    ) -> Response<Body> {
        let Upgraded {
            caller,
            server,
            to,
            kept,
        } = upgraded;
        kept.switched();
        let (accept, out) = Accept::new();
        if matches!(caller, Side::Mesh(_)) {
            parts = PeerResponse::Switched { to, parts }.encode(RequestKind::Upgrade);
            parts.extensions.insert(accept);
        } else {
            if let Some(to) = to {
                parts.headers.insert(header::UPGRADE, to);
            }
            let upgrade = HeaderValue::from_static("upgrade");
            parts.headers.insert(header::CONNECTION, upgrade);
        }
        #[expect(clippy::disallowed_methods, reason = "one upgraded connection")]
        tokio::spawn(async move {
            let sides = tokio::join!(caller.opened(out), server.switched());
            let (Some(mut client), Some(mut server)) = sides else {
                return counted.done(BodyEnd::Failed, 0, None);
            };
            let cut = client.cut();
            let (flows, own) = (counted.flows(), Flows::default());
            let mut metered = client.metered(&own);
            let end = tokio::select! {
                // Dropped before its end, it aborts each side that has not received its end.
                _ = relay(&mut metered, &mut server, self.proxy.budget(), &flows) => {
                    BodyEnd::Complete
                }
                () = self.revoked_request(&allowed) => BodyEnd::Complete,
                () = cut => BodyEnd::Failed,
            };
            if end == BodyEnd::Complete {
                kept.ended(end);
            }
            counted.done(end, own.received(), None);
        });
        Response::from_parts(parts, body::empty())
    }
}
