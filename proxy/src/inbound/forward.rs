//! Sends an authorized request to the application, for as long as it is allowed.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use policy::reason::Reason;

use crate::config::overload::AdmittedRequest;
use crate::failure::{Failure, Next};
use crate::http::client::exchange::{self, UpstreamResponse};
use crate::http::deadline::{self, StopConditions};
use crate::http::replay::Replay;
use crate::inbound::connection::Connection;
use crate::inbound::guard::wait_for_turn;
use crate::inbound::reauthorize::{Allowed, no_longer_allowed, over, unless_over};
use crate::mesh::protocol::AppHttp;
use crate::net::connect::ConnectTimeout;

/// The connect timeout to the application. It leaves time for another endpoint only where the
/// caller's proxy can try one.
fn connect_timeout(allowed: &Allowed) -> ConnectTimeout {
    let left = |ends: Instant| ends.saturating_duration_since(deadline::now());
    let ends = allowed.ends.filter(|_| allowed.replaceable);
    ConnectTimeout::of_application(ends.map(left))
}

/// Returns the head of the application's response, unless a policy change revokes the request
/// first. After a wait for a connection `admitted` is a new admission.
pub(super) async fn forward(
    connection: &Connection,
    allowed: &Allowed,
    replay: &Replay,
    app_http: AppHttp,
    admitted: &mut Option<Box<AdmittedRequest>>,
) -> Result<UpstreamResponse, Failure> {
    let parts = &allowed.parts;
    // Created outside of `sent`: if this future is dropped, the caller has left.
    let connect_guard = connection.connect_guard(None);
    let sent = async {
        if app_http == AppHttp::Http2 {
            return forward_http2(connection, allowed, replay).await;
        }
        let clients = &connection.proxy.clients;
        loop {
            // Computed after the wait, which uses the same time.
            let limit = connect_timeout(allowed);
            let guard = Some(&connect_guard);
            match exchange::http1(clients, connection.local, limit, parts, replay, guard).await {
                Err(_) if connect_guard.has_to_wait() => {}
                sent => return sent,
            }
            // On the heap: hardly any call waits here.
            Box::pin(wait_for_turn(connection, &connect_guard, admitted)).await?;
        }
    };
    let sent = pin!(sent);
    let sent = deadline::until(StopConditions::at(allowed.ends), sent);
    let over = pin!(over(connection, allowed));
    let sent = unless_over(sent, over).await;
    if matches!(&sent, Some(Ok(Ok(_)))) {
        connect_guard.answered();
    } else {
        connect_guard.ended();
    }
    match sent {
        Some(sent) => sent.unwrap_or_else(|_| Err(deadline::passed())),
        None => Err(no_longer_allowed(connection)),
    }
}

/// What the connection in use did not take goes by an unshared one, once: the calling proxy
/// may try three endpoints, each of which does so. Where the application serves others and
/// takes no further connection, it goes by one of those first.
async fn forward_http2(
    connection: &Connection,
    allowed: &Allowed,
    replay: &Replay,
) -> Result<UpstreamResponse, Failure> {
    let clients = &connection.proxy.clients;
    let shared = clients.http2(connection.local, &connection.label);
    let mut application = Arc::clone(&shared);
    let (mut by_others, mut renewed) = (false, false);
    loop {
        let Some(body) = replay.take() else {
            return Err(Failure::lost("the request's body is gone"));
        };
        let (parts, limit) = (&allowed.parts, connect_timeout(allowed));
        match exchange::http2(&application, parts, body, limit).await {
            // The connection was at its end and took nothing; another one may do.
            Err(failure) if failure.next() == Next::SameEndpoint => {
                if renewed {
                    let detail = format!("no connection takes requests: {}", failure.detail());
                    return Err(Failure::not_sent(Reason::ConnectFailed, detail));
                }
                if !by_others && shared.takes_no_further() {
                    // May be at its end as well.
                    by_others = true;
                    continue;
                }
                renewed = true;
                application = clients.http2_exclusive(connection.local, &connection.label);
            }
            sent => {
                if sent.is_ok() {
                    shared.answered();
                }
                return sent;
            }
        }
    }
}
