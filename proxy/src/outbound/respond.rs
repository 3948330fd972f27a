//! Hands the answer to the application, and counts when its body has ended.

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, Version, header};

use crate::failure::Failure;
use crate::http::body::{self, Body};
use crate::http::byte_stream::ByteStream;
use crate::http::client::exchange::UpstreamResponse;
use crate::http::headers;
use crate::http::upgrade::Side;
use crate::http::watched;
use crate::net::budget::Budget;
use crate::net::chunk::ChunkIo;
use crate::net::relay::{Copied, relay};
use crate::telemetry::call::{Call, Ended};

/// Hands the answer to the application and counts when its body has ended.
pub(crate) async fn respond(
    answer: UpstreamResponse,
    call: Call,
    in_flight: crate::endpoints::endpoint::InFlight,
    on_upgrade: Option<Side>,
    budget: Arc<Budget>,
) -> Response<Body> {
    let UpstreamResponse {
        mut response,
        out,
        place,
        ..
    } = answer;
    let switched_to = response.headers().get(header::UPGRADE).cloned();
    let server_side = Side::of_answer(&mut response);
    let (mut parts, incoming) = response.into_parts();
    parts.version = Version::HTTP_11;
    if parts.status == StatusCode::SWITCHING_PROTOCOLS
        && !headers::may_switch(parts.headers.get_all(header::UPGRADE))
    {
        let failure = Failure::lost("the server switched to HTTP on the connection");
        return call.refuse(&failure, &Method::GET, false);
    }
    let reason = call.reason_of(&parts.headers);
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::strip_ours(&mut parts.headers);
    if let Some(reason) = reason {
        parts
            .headers
            .insert(headers::REASON, HeaderValue::from_static(reason));
    }
    let ended = call.head(Ended::new(&parts, reason));
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client_side)) = (parts.status, on_upgrade) {
        if let Some(protocol) = switched_to {
            parts.headers.insert(header::UPGRADE, protocol);
        }
        parts
            .headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        let server_side = match (out, incoming.into_http2()) {
            (Some(out), Some(stream)) => Side::Open(ByteStream::new(out, stream)),
            _ => server_side,
        };
        #[expect(clippy::disallowed_methods, reason = "one upgraded connection")]
        tokio::spawn(async move {
            let _held = (place, in_flight);
            let sides = tokio::join!(client_side.switched(), server_side.switched());
            let (Some(mut client), Some(mut server)) = sides else {
                return call.done(ended, watched::BodyEnd::Failed, 0, None);
            };
            let cut = client.cut();
            let mut copied = Copied::default();
            let end = tokio::select! {
                _ = relay(&mut client, &mut server, &budget, &mut copied) => {
                    watched::BodyEnd::Complete
                }
                () = cut => {
                    client.abort();
                    server.abort();
                    watched::BodyEnd::Failed
                }
            };
            call.done(ended, end, copied.received, None);
        });
        return Response::from_parts(parts, body::empty());
    }
    let body = watched::Watched::begun(incoming, move |end, bytes, trailers| {
        drop((place, in_flight));
        call.done(ended, end, bytes, trailers);
    })
    .await;
    Response::from_parts(parts, http_body_util::BodyExt::boxed_unsync(body))
}
