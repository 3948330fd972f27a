//! Serves a connection or tunnel once it is known what it speaks.

use std::sync::Arc;

use http::{Request, Version};
use policy::reason::Reason;
use runtime::occupancy::Permit;

use crate::failure::Failure;
use crate::http::head::Asked;
use crate::http::incoming::IncomingBody;
use crate::http::plain_stream::PlainStream;
use crate::http::received::Upgrades;
use crate::http::refusal::NO_REQUEST;
use crate::http::server::{Accepted, Profile, serve as serve_http};
use crate::inbound::connection::Connection;
use crate::inbound::detect::Detected;
use crate::mesh::protocol::AppHttp;
use crate::net::chunk::ChunkIo;
use crate::net::given_up::ConnectGuard;
use crate::net::prefixed::Prefixed;
use crate::telemetry::call::CallKind;
use crate::telemetry::labels::Direction;

impl Connection {
    /// Serves HTTP on a connection or tunnel.
    pub(super) async fn http(
        self: Arc<Self>,
        stream: Prefixed<PlainStream>,
        version: Version,
        permit: &Arc<Permit>,
    ) {
        let speak = AppHttp::of(version);
        let budget = Arc::clone(self.proxy.budget());
        self.proxy
            .count_connection(Direction::inbound, speak.label(), self.security());
        let close = {
            let connection = Arc::clone(&self);
            async move {
                tokio::select! {
                    () = connection.proxy.drain.time_to_go() => {}
                    () = connection.plaintext_forbidden() => {}
                    () = connection.certificate_ended() => {}
                }
            }
        };
        let refused = {
            let connection = Arc::clone(&self);
            move |how, asked: Asked<'_>| connection.turned_away(how, asked)
        };
        let handler = move |request: Request<IncomingBody>| {
            let connection = Arc::clone(&self);
            connection.handle_request(request, speak, Upgrades::Own)
        };
        let accepted = Accepted {
            version,
            profile: Profile::Network,
            budget,
            permit: Arc::clone(permit),
        };
        serve_http(stream, accepted, close, refused, handler).await;
    }

    /// Serves a connection or tunnel once it is known what it speaks. `beginning`: of the
    /// connection to the application that was opened for it, where that counts.
    pub(super) async fn serve<S>(
        self: Arc<Self>,
        stream: Prefixed<S>,
        spoken: std::io::Result<Detected>,
        permit: &Arc<Permit>,
        beginning: Option<&ConnectGuard<'_>>,
    ) where
        S: ChunkIo + Into<PlainStream>,
    {
        match spoken {
            Ok(Detected::Http(version)) => {
                self.http(stream.map(Into::into), version, permit).await;
            }
            Ok(Detected::NoRequest) => self.reset_no_request(stream),
            Ok(Detected::Opaque(server)) => {
                permit.busy();
                let begins_as_tls = stream.begins_as_tls();
                let decided = self.admit_bytes(&self.proxy.config.snapshot(), begins_as_tls);
                self.opaque(stream, server, decided, beginning).await;
            }
            Err(error) => tracing::debug!(%error, "a caller left before it said anything"),
        }
    }

    /// Resets a connection on which no request can begin, to a port that carries requests.
    fn reset_no_request<S: ChunkIo>(&self, mut stream: Prefixed<S>) {
        let mut call = self.call(CallKind::Bytes);
        if stream.begins_as_tls() {
            call.carries_tls();
        }
        self.count_on_cell(&mut call);
        let failure = Failure::refused(Reason::BadRequest, NO_REQUEST);
        tracing::debug!(
            caller = %self.label,
            port = self.local.port(),
            %failure,
            "reset a connection"
        );
        call.reset(&failure, || stream.abort());
    }
}
