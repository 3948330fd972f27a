//! Serves a connection or tunnel once it is known what it speaks.

use std::sync::Arc;

use http::{Request, Version};
use runtime::occupancy::Place;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http::headers;
use crate::http::incoming::Received;
use crate::http::server::{From, serve as serve_http};
use crate::inbound::connection::Visit;
use crate::inbound::detect::Spoken;
use crate::net::abort::MayAbort;
use crate::net::chunk::Pieces;
use crate::net::prefixed::Prefixed;
use crate::telemetry::labels::Direction;

impl Visit {
    /// Serves HTTP on a connection or tunnel.
    pub(super) async fn http<S>(self: Arc<Self>, stream: S, version: Version, place: &Arc<Place>)
    where
        S: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    {
        let http2 = version == Version::HTTP_2;
        let budget = Arc::clone(&self.proxy.budget);
        self.proxy.count_connection(
            Direction::inbound,
            if http2 { "http2" } else { "http1" },
            self.security(),
        );
        let close = {
            let visit = Arc::clone(&self);
            async move {
                tokio::select! {
                    () = visit.proxy.lifecycle.time_to_go() => {}
                    () = visit.plaintext_forbidden() => {}
                }
            }
        };
        let refused = {
            let visit = Arc::clone(&self);
            move |status| visit.turned_away(status)
        };
        let handler = move |request: Request<Received>| {
            let visit = Arc::clone(&self);
            async move {
                let (parts, body) = request.into_parts();
                let upgrade = headers::upgrade_of(&parts);
                let request = Request::from_parts(parts, body);
                visit.request(request, http2, upgrade).await
            }
        };
        let place = Arc::clone(place);
        serve_http(
            stream,
            version,
            From::Network,
            budget,
            place,
            close,
            refused,
            handler,
        )
        .await;
    }

    /// Serves a connection or tunnel once it is known what it speaks.
    pub(super) async fn converse<S>(
        self: Arc<Self>,
        stream: Prefixed<S>,
        spoken: std::io::Result<Spoken>,
        place: &Arc<Place>,
    ) where
        S: AsyncRead + AsyncWrite + Pieces + MayAbort + Unpin + Send + 'static,
    {
        match spoken {
            Ok(Spoken::Http(version)) => self.http(stream, version, place).await,
            Ok(Spoken::Opaque(server)) => {
                place.busy();
                self.opaque(stream, server).await;
            }
            Err(error) => tracing::debug!(%error, "a caller left before it said anything"),
        }
    }
}
