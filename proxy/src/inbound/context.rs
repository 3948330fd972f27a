//! What a request leaves to the calls that its application makes for it, and what its own caller
//! learns of them.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use policy::access::Caller;
use policy::deadline::Deadline;
use policy::traffic::guard::Priority;

use crate::http::context::{Inherited, OpenRequest};
use crate::http::grpc::grpc_status;
use crate::http::headers::SPENT;
use crate::http::received::Received;
use crate::http::route_override::{OverrideAuthor, RouteOverride};
use crate::inbound::connection::Connection;
use crate::telemetry::labels::OverrideLabels;

impl Connection {
    /// A request goes to the application, as one of this class where that is known here. Headers
    /// about it count only from peer proxies.
    pub(super) fn remember(
        &self,
        received: &mut Received,
        deadline: Deadline,
        class: Option<Priority>,
    ) -> OpenRequest {
        let is_proxy = self.is_of_proxy();
        let inherited = Inherited {
            deadline,
            retry: received.retry && is_proxy,
            priority: class.or_else(|| self.requested_class(received)),
            shadow: self.shadow(received),
            route_override: self.route_override(received),
        };
        let map = &mut received.parts.headers;
        let (kept, room) = self.proxy.contexts.arrives(&inherited, map);
        if !room {
            self.proxy.telemetry.metrics.limit("contexts");
        }
        kept
    }

    /// Where the calls that are made for a request are to go. What no proxy wrote has the
    /// right of a token, as from outside the mesh, and no proof.
    fn route_override(&self, received: &Received) -> Option<Arc<RouteOverride>> {
        let headers = received.route_override.as_ref()?;
        let caller = if self.is_of_proxy() {
            self.caller()
        } else {
            Caller::Outside
        };
        match headers.read(OverrideAuthor::Caller(caller), &self.proxy.own.namespace) {
            Ok(route_override) => route_override.map(Arc::new),
            Err(()) => {
                let outcome = "unreadable";
                let metrics = &self.proxy.telemetry.metrics;
                metrics.overrides.at(&OverrideLabels { outcome }).inc();
                None
            }
        }
    }

    /// Reports to a peer proxy a call that the application made for this request, with these
    /// headers, and that failed in its last attempt: a retry here would be a retry there.
    pub(super) fn write_spent(
        &self,
        kept: &OpenRequest,
        request_headers: &HeaderMap,
        (status, answer): (StatusCode, &mut HeaderMap),
    ) {
        if self.is_of_proxy()
            && is_failing(status, answer)
            && self.proxy.contexts.is_spent(kept, request_headers)
        {
            answer.insert(SPENT, HeaderValue::from_static("true"));
        }
    }
}

/// Whether a policy may list it.
fn is_failing(status: StatusCode, map: &HeaderMap) -> bool {
    status.as_u16() >= 400 || grpc_status(map).is_some_and(|code| code != 0)
}
