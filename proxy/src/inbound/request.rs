//! One HTTP request from outside the pod: authorise, forward, finish.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use policy::reason::Reason;

use crate::failure::{Failure, Next, RENEWALS};
use crate::http::body::Body;
use crate::http::client::exchange::{self, UpstreamResponse};
use crate::http::grpc::is_grpc;
use crate::http::headers;
use crate::http::http2::server::Accept;
use crate::http::incoming::IncomingBody;
use crate::http::refusal::refusal;
use crate::http::replay::Replay;
use crate::http::upgrade::Side;
use crate::http::upload::Upload;
use crate::http::watched;
use crate::http::{body, incoming};
use crate::inbound::connection::Connection;
use crate::inbound::reauthorize::{IN_FLIGHT_GRACE, Revocable};
use crate::mesh::protocol::{self, unsent};
use crate::net::chunk::ChunkIo;
use crate::net::connect::CONNECT_TIMEOUT;
use crate::net::relay;
use crate::telemetry::call::{Call, Ended};
use crate::telemetry::labels::Direction;
use crate::telemetry::trace;

impl Connection {
    /// One HTTP request: authorise, forward, finish.
    pub(super) async fn handle_request(
        self: Arc<Self>,
        request: Request<IncomingBody>,
        http2: bool,
        upgrade: Option<HeaderValue>,
    ) -> Response<Body> {
        let started = Instant::now();
        let (mut parts, incoming) = request.into_parts();
        headers::name_authority(&mut parts);
        let grpc = is_grpc(&parts.headers);
        if parts.method == Method::CONNECT {
            return refusal(Reason::BadRequest, "CONNECT is not served here", false);
        }
        let (caller_side, incoming) = match incoming {
            body if upgrade.is_none() => (None, incoming::incoming(body)),
            IncomingBody::Http2(stream) => (Some(Side::Mesh(stream)), body::empty()),
            body => (Side::of(&mut parts.extensions), incoming::incoming(body)),
        };
        headers::strip_hop_by_hop(&mut parts.headers);
        headers::strip_ours(&mut parts.headers);
        if parts.version == Version::HTTP_2 {
            headers::join_cookies(&mut parts.headers);
        }
        let trace = trace::id(&parts.headers);
        let mut call = Call::http(
            &self.proxy.telemetry,
            Direction::inbound,
            &parts,
            started,
            trace,
        )
        .to(Arc::default(), self.local.port(), "".into())
        .with_caller(self.pod.clone());
        call.peer(Arc::clone(&self.label), self.security());
        let snapshot = self.proxy.state.snapshot();
        let as_of = snapshot.policy_revision;
        let judged = self.authorise(&snapshot, &mut parts, &mut call);
        drop(snapshot);
        if let Err(failure) = judged {
            call.failed(&failure);
            return failure.response_to(&parts.method, grpc);
        }
        if let Some(peer) = &self.peer
            && let Ok(id) = HeaderValue::from_str(peer.spiffe.as_str())
        {
            parts.headers.insert(headers::CLIENT_ID, id);
        }
        let (body, upload) = Upload::watch(incoming);
        let replay = Replay::new(body);
        let clients = &self.proxy.clients;
        if let Some(upgrade) = &upgrade {
            parts
                .headers
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, upgrade.clone());
        }
        let forward = async {
            if !http2 {
                return exchange::http1(clients, self.local, CONNECT_TIMEOUT, &parts, &replay)
                    .await;
            }
            let mut renewals = 0;
            loop {
                let Some(body) = replay.take() else {
                    break Err(Failure::lost("the request's body is gone"));
                };
                match exchange::http2(clients, self.local, &self.label, &parts, body).await {
                    // The connection was at its end and took nothing; another one may do.
                    Err(failure) if failure.next() == Next::SameEndpoint && renewals < RENEWALS => {
                        renewals += 1;
                    }
                    sent => break sent,
                }
            }
        };
        let revoked = async {
            self.revoked_request(&parts, as_of).await;
            tokio::time::sleep(IN_FLIGHT_GRACE).await;
        };
        let sent = tokio::select! {
            sent = forward => sent,
            () = revoked => Err(Failure::refused(Reason::NotAllowed, "the call is no longer allowed")),
        };
        match sent {
            Ok(answer) => self.finish(answer, call, (parts, as_of), caller_side).await,
            Err(failure) => {
                let failure = upload.blame(failure);
                call.failed(&failure);
                let response = failure.response_to(&parts.method, grpc);
                // Only a peer proxy knows what to do with the proof.
                if failure.next() != Next::Stop && self.peer.is_some() {
                    unsent(response)
                } else {
                    response
                }
            }
        }
    }

    /// Passes the answer to the request `asked` on. `upgrade` holds the caller's
    /// side of an upgrade.
    async fn finish(
        self: Arc<Self>,
        answer: UpstreamResponse,
        call: Call,
        (asked, as_of): (http::request::Parts, u64),
        upgrade: Option<Side>,
    ) -> Response<Body> {
        let UpstreamResponse {
            mut response,
            place,
            ..
        } = answer;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS
            && !headers::may_switch(response.headers().get_all(header::UPGRADE))
        {
            let failure = Failure::lost("the application switched to HTTP on the connection");
            call.failed(&failure);
            return failure.response(false);
        }
        let switched_to = response.headers().get(header::UPGRADE).cloned();
        let server_side = Side::of_answer(&mut response);
        let (mut parts, incoming) = response.into_parts();
        headers::strip_hop_by_hop(&mut parts.headers);
        headers::strip_ours(&mut parts.headers);
        if self.peer.is_some() {
            // What the application spoke says nothing of the way to the peer, and
            // not every way has a place for its phrase.
            parts.version = Version::HTTP_11;
            parts.extensions.remove::<hyper::ext::ReasonPhrase>();
        }
        let ended = call.head(Ended::new(&parts, None));
        let mesh = matches!(upgrade, Some(Side::Mesh(_)));
        if mesh {
            parts
                .headers
                .insert(protocol::STATUS, HeaderValue::from(status.as_u16()));
        }
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(caller_side)) = (status, upgrade) {
            if let Some(protocol) = switched_to {
                let name = if mesh {
                    protocol::UPGRADE_TO
                } else {
                    header::UPGRADE
                };
                parts.headers.insert(name, protocol);
            }
            let (accept, out) = Accept::new();
            if mesh {
                parts.status = StatusCode::OK;
                parts.extensions.insert(accept);
            } else {
                parts
                    .headers
                    .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            #[expect(clippy::disallowed_methods, reason = "one upgraded connection")]
            tokio::spawn(async move {
                let sides = tokio::join!(caller_side.opened(out), server_side.switched());
                let (Some(mut client), Some(mut server)) = sides else {
                    return call.done(ended, watched::BodyEnd::Failed, 0, None);
                };
                let bytes = tokio::select! {
                    (copied, _) = relay::relay(&mut client, &mut server, &self.proxy.budget) => copied.received,
                    () = self.revoked_request(&asked, as_of) => {
                        client.abort();
                        server.abort();
                        0
                    }
                };
                call.done(ended, watched::BodyEnd::Complete, bytes, None);
            });
            return Response::from_parts(parts, body::empty());
        }
        if mesh {
            // A CONNECT stream answered with 2xx would become a tunnel.
            parts.status = StatusCode::MISDIRECTED_REQUEST;
        }
        let watched = watched::Watched::begun(incoming, move |end, bytes, trailers| {
            drop(place);
            call.done(ended, end, bytes, trailers);
        })
        .await;
        let body = Revocable {
            inner: watched,
            connection: self,
            asked: Some(asked),
            as_of,
            frames: 0,
            over: None,
        };
        Response::from_parts(parts, body.boxed_unsync())
    }
}
