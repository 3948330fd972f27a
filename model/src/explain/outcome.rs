//! The query of an explanation with its objects found, and the results: by kind of caller and by
//! backend, and for all of them together.

use crds::observe::{ExplanationSpec, ExplanationVerdict, Step};
use policy::reason::Reason;

use super::call::{Called, Caller, Request};
use super::evaluate::{EvaluatedEndpoint, Ruling};
use super::question::CallerView;
use super::route::BackendRoute;

/// The query, with its objects found.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) spec: &'a ExplanationSpec,
    pub(super) request: Request,
    pub(super) from: Vec<Caller>,
    pub(super) to: Called,
    pub(super) view: CallerView,
}

/// One kind of caller's calls to one backend.
#[derive(Debug)]
pub(super) struct BackendOutcome<'a> {
    pub(super) caller: &'a Caller,
    pub(super) backend_route: BackendRoute,
    /// By endpoint.
    pub(super) evaluated: Vec<EvaluatedEndpoint>,
}

impl BackendOutcome<'_> {
    pub(super) fn refusals(&self) -> impl Iterator<Item = Reason> {
        let ended = self.backend_route.refused;
        let of_pods = self.evaluated.iter().filter_map(|one| one.ruling.refusal());
        // A fallback that refuses leaves the call as it was.
        let of_pods = of_pods.map(move |reason| ended.unwrap_or(reason));
        let stands = ended.filter(|_| !self.backend_route.is_answered());
        stands.into_iter().chain(of_pods)
    }

    /// Whether it depends on the host, which was not said.
    pub(super) fn is_by_host(&self) -> bool {
        self.backend_route.by_host || self.evaluated.iter().any(|one| one.by_host)
    }

    /// What becomes of the calls that go to one of its endpoints, and why they are refused.
    pub(super) fn at(&self, one: &EvaluatedEndpoint) -> (ExplanationVerdict, Option<Reason>) {
        if self.backend_route.by_host || one.by_host {
            return (ExplanationVerdict::Unknown, None);
        }
        match one.ruling {
            Ruling::Allowed | Ruling::Audited(_) | Ruling::NotEvaluated(_) => {
                (ExplanationVerdict::Allowed, None)
            }
            // A fallback that refuses leaves the call as it was.
            Ruling::Refused(reason) => (
                ExplanationVerdict::Refused,
                Some(self.backend_route.refused.unwrap_or(reason)),
            ),
        }
    }

    pub(super) fn verdict(&self) -> ExplanationVerdict {
        if self.is_by_host() {
            return ExplanationVerdict::Unknown;
        }
        if self.backend_route.refused.is_some() && !self.backend_route.is_answered() {
            return ExplanationVerdict::Refused;
        }
        let route = &self.backend_route;
        if route.outside || route.is_held() || route.redirect.is_some() {
            return ExplanationVerdict::Allowed;
        }
        together(self.evaluated.iter().map(|one| self.at(one).0))
    }
}

/// One verdict for several.
pub(super) fn together(verdicts: impl Iterator<Item = ExplanationVerdict>) -> ExplanationVerdict {
    verdicts
        .reduce(|one, other| {
            if one == other {
                one
            } else {
                ExplanationVerdict::Mixed
            }
        })
        .unwrap_or_default()
}

/// One step of the answer.
pub(super) fn step(step: &str, text: String, objects: Vec<String>) -> Step {
    Step {
        step: step.to_owned(),
        text,
        objects,
    }
}
