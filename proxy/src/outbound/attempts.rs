//! Which endpoint a call tries next.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::reason::Reason;

use crate::endpoints::endpoint::{Endpoint, InFlight};
use crate::failure::{Failure, Next, RENEWALS};
use crate::http::client::exchange::UpstreamResponse;
use crate::http::upload::Upload;
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

/// Endpoints that one call may try. The second and third are used only when it
/// is proven that no application saw the call before.
const ATTEMPTS: usize = 3;

/// Which endpoint a call tries next. Another one is tried only while it is
/// proven that no application saw the call.
pub(crate) struct Attempts<'a> {
    route: &'a Route,
    tried: Vec<SocketAddr>,
    /// An endpoint whose connection ended, not itself.
    again: Option<Arc<Endpoint>>,
    renewals: usize,
    over: bool,
    last: Option<Failure>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(route: &'a Route) -> Self {
        Self {
            route,
            tried: Vec::new(),
            again: None,
            renewals: 0,
            over: false,
            last: None,
        }
    }

    /// The endpoint to try, which `call` is counted on from now on. Another connection to
    /// the same one is no attempt of its own.
    pub(super) fn next(&mut self, proxy: &Proxy, call: &mut Call) -> Option<Arc<Endpoint>> {
        if self.over || self.tried.len() >= ATTEMPTS {
            return None;
        }
        if let Some(endpoint) = self.again.take() {
            return Some(endpoint);
        }
        let endpoint = self.route.pick(&proxy.own.name, &self.tried)?;
        let protocol = call.protocol();
        call.attempt(self.route.cell(&proxy.telemetry, &endpoint, protocol));
        Some(endpoint)
    }

    /// Sends to one endpoint after the other until one answers.
    pub(super) async fn send(
        mut self,
        proxy: &Proxy,
        outgoing: &Outgoing,
        upload: &Upload,
        call: &mut Call,
    ) -> Result<(UpstreamResponse, InFlight), Failure> {
        while let Some(endpoint) = self.next(proxy, call) {
            let in_flight = endpoint.begin();
            match outgoing.send(proxy, &endpoint).await {
                Ok(answer) => {
                    endpoint.observe(answer.took);
                    return Ok((answer, in_flight));
                }
                // No endpoint could serve the call, and none is to blame.
                Err(failure) if upload.broke() => return Err(upload.blame(failure)),
                Err(failure) => self.failed(endpoint, failure),
            }
        }
        Err(self.into_failure(call))
    }

    /// Why the last attempt failed, or that there was nothing to attempt.
    pub(super) fn into_failure(self, call: &mut Call) -> Failure {
        self.last.unwrap_or_else(|| {
            call.unserved();
            let none = format!("no endpoint of {}", self.route.backend);
            Failure::not_sent(Reason::NoEndpoint, none)
        })
    }

    pub(super) fn failed(&mut self, endpoint: Arc<Endpoint>, failure: Failure) {
        let next = failure.next();
        if next == Next::SameEndpoint && self.renewals < RENEWALS {
            self.renewals += 1;
            self.again = Some(endpoint);
        } else {
            endpoint.observe_failure();
            self.tried.push(endpoint.addr);
        }
        self.over = next == Next::Stop;
        self.last = Some(failure);
    }
}
