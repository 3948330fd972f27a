//! Bytes that come as the body of a peer proxy's request.

use std::sync::Arc;

use http::{Method, Response};
use policy::reason::Reason;
use runtime::occupancy::Place;

use crate::failure::{Failure, Next};
use crate::http::body::{self, Body};
use crate::http::byte_stream::ByteStream;
use crate::http::http2::recv::RecvBody;
use crate::http::http2::server::Accept;
use crate::inbound::authorize::Expected;
use crate::inbound::connection::Connection;
use crate::inbound::detect::{Spoken, race};
use crate::mesh::protocol::{Asked, not_sent};
use crate::net::connect::{self, CONNECT_TIMEOUT};
use crate::net::prefixed::Prefixed;
use crate::telemetry::call::Kind;

impl Connection {
    /// Bytes that come as the body of a peer proxy's request: opaque, or so it says. Where
    /// they are HTTP, its requests count for the peer as any others.
    pub(super) async fn tunnel(
        self: Arc<Self>,
        incoming: RecvBody,
        place: Arc<Place>,
    ) -> Response<Body> {
        let (accept, out) = Accept::new();
        let mut response = Response::new(body::empty());
        response.extensions_mut().insert(accept);
        let (expected, by_request, admitted) = self.proxy.config.inspect(|now| {
            let expected = self.expected(now);
            let by_request = match expected {
                Expected::Http { declared, .. } => declared || self.judges_requests(now),
                Expected::Bytes | Expected::Either => false,
            };
            let admitted = if by_request {
                Ok(())
            } else {
                self.refuses_bytes(now)
                    .inspect_err(|_| self.try_on_bytes(now, false))
            };
            (expected, by_request, admitted)
        });
        // Somebody who may say nothing at all is told so before saying it.
        if let Err(failure) = admitted {
            let call = self.call(Kind::Bytes);
            let response = call.refuse(&failure, &Method::POST, false);
            return match failure.next() {
                Next::Stop => response,
                Next::SameEndpoint | Next::OtherEndpoint => {
                    not_sent(&failure, response, Asked::Tcp)
                }
            };
        }
        if by_request {
            #[expect(clippy::disallowed_methods, reason = "one byte stream")]
            tokio::spawn(async move {
                let Ok(out) = out.await else { return };
                let mut stream = Prefixed::new(ByteStream::new(out, incoming));
                let spoken = self.protocol(&mut stream, &place).await;
                self.serve(stream, spoken, &place).await;
            });
            return response;
        }
        let server = match connect::connect(self.local, CONNECT_TIMEOUT).await {
            Ok(server) => Prefixed::new(server),
            Err(error) => {
                let failure = Failure::not_sent(Reason::ConnectFailed, error.to_string());
                let call = self.call(Kind::Bytes);
                let response = call.refuse(&failure, &Method::POST, false);
                return not_sent(&failure, response, Asked::Tcp);
            }
        };
        #[expect(clippy::disallowed_methods, reason = "one byte stream")]
        tokio::spawn(async move {
            let Ok(out) = out.await else { return };
            let mut stream = Prefixed::new(ByteStream::new(out, incoming));
            let spoken = match expected {
                // What the peer calls opaque is not taken at its word: unless the port
                // is declared so, HTTP in a tunnel is judged and cleaned as HTTP.
                Expected::Either | Expected::Http { .. } => race(&mut stream, server).await,
                Expected::Bytes => Ok(Spoken::Opaque(Some(server))),
            };
            self.serve(stream, spoken, &place).await;
        });
        response
    }
}
