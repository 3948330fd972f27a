//! One HTTP request from outside the pod: receive, authorize, admit by
//! guard and overload, prepare, forward, respond.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, header};
use policy::deadline::Deadline;
use policy::traffic::guard::Priority;

use crate::config::guard::Exceeded;
use crate::config::overload::AdmittedRequest;
use crate::config::snapshot::Snapshot;
use crate::failure::{Failure, Next, StreamReset};
use crate::http::body::Body;
use crate::http::context::OpenRequest;
use crate::http::deadline::{self, NextHop};
use crate::http::headers;
use crate::http::incoming::IncomingBody;
use crate::http::received::{AbsoluteForm, Received, Upgrades};
use crate::http::replay::Replay;
use crate::http::upgrade::Side;
use crate::http::upload::Upload;
use crate::inbound::connection::Connection;
use crate::inbound::guard;
use crate::inbound::path::JudgedPath;
use crate::inbound::reauthorize::Allowed;
use crate::mesh::protocol::{AppHttp, RequestKind, not_sent};
use crate::net::ticket::Waited;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::trace::CameFrom;

/// The result of the evaluation for a request that passes.
struct AuthorizedRequest {
    deadline: Deadline,
    /// Revision of the policy that allowed it.
    as_of: u64,
    class: Option<Priority>,
    let_in: Option<Box<AdmittedRequest>>,
}

/// Why a request does not pass. Each is answered in a way of its own.
enum Refused {
    /// Its time is over, it is a copy for others, or its caller may not send it.
    Judged(Failure),
    Limited(Box<Exceeded>),
    Shed(Failure),
}

/// A request that is ready to be forwarded, and what is kept of it until its answer.
struct Prepared {
    allowed: Allowed,
    replay: Replay,
    upload: Upload,
    kept: OpenRequest,
    let_in: Option<Box<AdmittedRequest>>,
    caller_side: Option<Side>,
    grpc: bool,
}

impl Connection {
    /// One HTTP request, step by step.
    pub(super) async fn handle_request(
        self: Arc<Self>,
        request: Request<IncomingBody>,
        speak: AppHttp,
        upgrades: Upgrades,
    ) -> Response<Body> {
        let mut call = self.call(CallKind::Request);
        let from = match upgrades {
            Upgrades::FromPeer(_) => CameFrom::Peer,
            Upgrades::Own => CameFrom::Application,
        };
        let mut received = match Received::new(request, upgrades) {
            Ok(received) => received,
            Err(rejected) => return call.reject(&rejected),
        };
        self.note(&received, from, speak, &mut call);
        let snapshot = self.proxy.config.snapshot();
        let passed = self.decide(&snapshot, &mut received, &mut call);
        drop(snapshot);
        let passed = match passed {
            Ok(passed) => passed,
            Err(refused) => return self.refuse(refused, call, &received),
        };
        let Prepared {
            allowed,
            replay,
            upload,
            kept,
            mut let_in,
            caller_side,
            grpc,
        } = self.prepare(received, passed, &mut call);
        match self.forward(&allowed, &replay, speak, &mut let_in).await {
            Ok(answer) => {
                self.note_answer();
                self.answered(let_in);
                replay.forget();
                self.respond(answer, call, allowed, caller_side, kept).await
            }
            Err(failure) => {
                let failure = upload.blame(failure);
                let request_parts = &allowed.parts;
                let mut response = call.refuse(&failure, &request_parts.method, grpc);
                let head = (response.status(), response.headers_mut());
                self.write_spent(&kept, &request_parts.headers, head);
                kept.refused(failure.reason());
                self.proven(&failure, response)
            }
        }
    }

    /// Notes the request in its call, and counts it from now on.
    fn note(&self, received: &Received, from: CameFrom, speak: AppHttp, call: &mut Call) {
        if let Some(Waited(long)) = received.parts.extensions.get() {
            call.waited(*long);
        }
        call.asks(&received.parts, from);
        call.speaks(speak.version(), received.grpc);
        self.count_on_cell(call);
    }

    /// Evaluates a request by everything that stands before the application, all of it by one
    /// snapshot.
    fn decide(
        &self,
        snapshot: &Snapshot,
        received: &mut Received,
        call: &mut Call,
    ) -> Result<AuthorizedRequest, Refused> {
        let path = JudgedPath::of(&received.parts);
        let deadline = self.deadline(snapshot, received, &path);
        let as_of = deadline::check(deadline)
            .and_then(|()| self.authorize(snapshot, &mut received.parts, &path, call))
            // A caller without access gets that reason, and learns nothing of this pod's limits.
            .and_then(|as_of| self.admit_copy(snapshot, received).map(|()| as_of))
            .map_err(Refused::Judged)?;
        if let Some(exceeded) = self.limited(snapshot, &received.parts, &path) {
            return Err(Refused::Limited(exceeded));
        }
        let class = self.class(snapshot, received, &path);
        let let_in = self.let_in(snapshot, received, class);
        Ok(AuthorizedRequest {
            deadline,
            as_of,
            class,
            let_in: let_in.map_err(Refused::Shed)?,
        })
    }

    /// The answer to a request that does not pass.
    fn refuse(&self, refused: Refused, call: Call, received: &Received) -> Response<Body> {
        let (parts, grpc) = (&received.parts, received.grpc);
        match refused {
            Refused::Judged(failure) => {
                let response = call.refuse(&failure, &parts.method, grpc);
                self.proven(&failure, response)
            }
            Refused::Limited(exceeded) => guard::answer(&exceeded, call, parts, grpc),
            Refused::Shed(failure) => call.refuse(&failure, &parts.method, grpc),
        }
    }

    /// The request as it goes to the application: with the headers that it gets, registered for
    /// calls that are made for it, and with a body that can be sent again.
    fn prepare(
        &self,
        mut received: Received,
        passed: AuthorizedRequest,
        call: &mut Call,
    ) -> Prepared {
        let AuthorizedRequest {
            deadline,
            as_of,
            class,
            let_in,
        } = passed;
        let ends = deadline::ends(deadline, &received.parts.method);
        // Decided only where there is time to keep.
        let replaceable = ends.is_some() && self.is_called_as_service(&received);
        let leaves = AbsoluteForm::is_of(&received.parts);
        self.name_caller(&mut received);
        let shadow = self.shadow(&received);
        self.count_shadow(shadow);
        let (tracker, map) = (&self.proxy.shadow_tracker, &mut received.parts.headers);
        if leaves {
            // The host of that address would get what is added to it.
            tracker.arrives(shadow, &mut HeaderMap::new());
        } else {
            call.pass_on_trace(map);
            tracker.arrives(shadow, map);
        }
        let kept = self.remember(&mut received, deadline, class);
        let Received {
            mut parts,
            body,
            caller_side,
            grpc,
            ..
        } = received;
        if leaves {
            headers::strip_ours(&mut parts.headers);
        } else {
            deadline::write_headers(&mut parts, deadline, grpc, NextHop::Application);
        }
        let (body, upload) = Upload::watch(body);
        call.uploads(&upload);
        let replay = Replay::new(body).counted(&mut parts.extensions);
        Prepared {
            allowed: Allowed {
                parts,
                as_of,
                ends,
                replaceable,
            },
            replay,
            upload,
            kept,
            let_in,
            caller_side,
            grpc,
        }
    }

    /// `response`, with proof that no application saw the request where that is so. Only
    /// a peer proxy knows what to do with it.
    fn proven(&self, failure: &Failure, mut response: Response<Body>) -> Response<Body> {
        if failure.next() != Next::Stop && self.is_of_proxy() {
            // The stream between the proxies carries the proof, and is not refused itself.
            response.extensions_mut().remove::<StreamReset>();
            not_sent(failure, response, RequestKind::Http)
        } else {
            response
        }
    }

    /// Adds what the application gets to know: who calls, and which upgrade the caller requests,
    /// which is not evaluated.
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
