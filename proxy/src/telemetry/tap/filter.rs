//! Which requests a tap wants, by what is known of them at each moment.
//!
//! Evaluated twice: when the head of a request is there, which spares all others the work, and
//! when it has ended, which is when its status and its time are known.

use std::collections::HashSet;
use std::time::Duration;

use http::{HeaderName, Method};
use policy::well_known::SECRET_HEADERS;
use wire::v1;

use crate::http::head::Asked;
use crate::telemetry::labels::Direction;
use crate::telemetry::parties::CallEnds;

/// Headers of one tap.
const MAX_HEADERS: usize = 8;

/// See the module header. What is empty fits everything.
#[derive(Debug)]
pub(crate) struct Filter {
    to_services: HashSet<String>,
    to_pods: HashSet<String>,
    from_pods: HashSet<String>,
    from_accounts: HashSet<String>,
    method: Option<Method>,
    path_prefix: String,
    /// Inclusive.
    status: Option<(u16, u16)>,
    slower: Duration,
    /// What no route describes, and all that the own application calls, has none.
    route: String,
    pub(super) headers: Vec<HeaderName>,
}

impl Filter {
    /// As the controller requests. A method or header that is none fits nothing, or is not
    /// reported.
    pub(super) fn of(request: v1::TapAsk) -> Self {
        let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let bounded = request.status_first > 0 || request.status_last > 0;
        let method = (!request.method.is_empty()).then(|| {
            // No request has this one.
            let none = || Method::from_bytes(b"-").unwrap_or_default();
            Method::from_bytes(request.method.as_bytes()).unwrap_or_else(|_| none())
        });
        let headers = request.headers.iter();
        let headers = headers.filter_map(|name| name.parse::<HeaderName>().ok());
        Self {
            to_services: request.to_services.into_iter().collect(),
            to_pods: request.to_pods.into_iter().collect(),
            from_pods: request.from_pods.into_iter().collect(),
            from_accounts: request.from_accounts.into_iter().collect(),
            method,
            path_prefix: request.path_prefix,
            status: bounded.then(|| (small(request.status_first), small(request.status_last))),
            slower: Duration::from_micros(request.slower),
            route: request.route,
            headers: headers
                .filter(|name| !SECRET_HEADERS.contains(&name.as_str()))
                .take(MAX_HEADERS)
                .collect(),
        }
    }

    fn is_for_ends(&self) -> (bool, bool) {
        let to = !self.to_services.is_empty() || !self.to_pods.is_empty();
        let from = !self.from_pods.is_empty() || !self.from_accounts.is_empty();
        (to, from)
    }

    /// Whether a request with this head may be wanted.
    pub(super) fn wants_head(&self, direction: Direction, asked: Asked<'_>) -> bool {
        let side = match (self.is_for_ends(), direction) {
            ((false, false), _) => true,
            ((to, _), Direction::outbound) => to,
            ((_, from), Direction::inbound) => from,
        };
        side && self
            .method
            .as_ref()
            .is_none_or(|wanted| asked.method == Some(wanted))
            && asked.path.starts_with(&self.path_prefix)
    }

    /// Whether it is, now that it has ended: with this status, after this time, and by this
    /// route of the own workload.
    pub(super) fn wants(
        &self,
        parties: &CallEnds,
        (status, latency, route): (u16, Duration, Option<&str>),
    ) -> bool {
        self.status
            .is_none_or(|(first, last)| (first..=last).contains(&status))
            && latency >= self.slower
            && (self.route.is_empty() || route == Some(&*self.route))
            && self.wants_end(parties)
    }

    /// Whether its ends are wanted.
    pub(super) fn wants_end(&self, parties: &CallEnds) -> bool {
        if self.is_for_ends() == (false, false) {
            return true;
        }
        match parties {
            CallEnds::Outbound {
                service,
                backend,
                pod,
                ..
            } => {
                self.to_services.contains(&**service)
                    || self.to_services.contains(&**backend)
                    || self.to_pods.contains(&**pod)
            }
            CallEnds::Inbound { caller, .. } => {
                let uid = parties.caller();
                uid.is_some_and(|uid| self.from_pods.contains(&**uid))
                    || self.from_accounts.contains(&**caller)
            }
            CallEnds::Unserved { service, .. } => self.to_services.contains(&**service),
            CallEnds::External { .. } | CallEnds::Rest(_) => false,
        }
    }
}
