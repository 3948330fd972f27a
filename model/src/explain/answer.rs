//! Answers one query for an explanation, with the result and the facts that it was made from.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::observe::{ExplainedRule, ExplanationSpec, ExplanationStatus, ExplanationVerdict, Fix};
use policy::name::ObjectRef;
use policy::reason::Reason;

use super::call::{Called, Caller, Request};
use super::evaluate::{self, EvaluatedEndpoint};
use super::external;
use super::outcome::{BackendOutcome, Question, together};
use super::outside::Outside;
use super::question::{BadQuestion, CallerView, Callers, Owner};
use super::route::BackendRoute;
use super::{backends, fix, noticed, steps};
use crate::model::{Index, Model, PodId};

const UNKNOWN_PODS: &str = "a rule allows some pods of an IdentityBinding, and which pods the \
                           caller has is shown to users who may read them: ask with a right to get \
                           pods in the caller's namespace";

/// Routes of the caller's namespace, with their edits, are for those who may read that namespace.
const UNKNOWN_ROUTES: &str = "routes of the caller's namespace decide about this call, and they \
                              are shown to users who may read it: ask with a right to get pods in \
                              the caller's namespace";

/// The same of what they may call outside.
const UNKNOWN_EGRESS: &str = "ExternalServices or weft.dev/egress of the caller's namespace decide \
                              about this call, and they are shown to users who may read it: ask \
                              with a right to get pods in the caller's namespace";

/// The result for a query that depends on the host, which it does not name. It names no object: a
/// caller finds out as much by calling.
pub const UNKNOWN_HOST: &str = "what becomes of this call depends on its host, which every request names: say which, with \
     -H 'host: NAME' as the client sends it";

/// A port of a called Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CountedPort {
    /// By that of the query; by any where it has none.
    #[default]
    AsAsked,
    /// By this one, behind which pods of a headless Service have the port of the query.
    Of(u16),
    /// By none: the port of the query is none of the Service's.
    Past,
}

/// The answer, and what it was made of.
#[derive(Clone, Debug, Default)]
pub struct Explained {
    /// For the user.
    pub status: ExplanationStatus,
    /// Pods whose proxies judge the call.
    pub deciding_pods: BTreeSet<PodId>,
    /// Namespaces of the pods of which something is said. A Service may lead to those of
    /// another one than its own.
    pub namespaces: BTreeSet<Arc<str>>,
    /// By which port of a called Service the calls are counted.
    pub counted_at: CountedPort,
    /// By which names outside the mesh the calls are counted: none where that is not known.
    /// `None` for calls inside.
    pub counted_outside: Option<BTreeSet<Arc<str>>>,
    /// Objects that they judge by, with the generation that is compiled.
    pub origins: BTreeSet<(ObjectRef, i64)>,
}

impl Model {
    /// What becomes of a call, and why.
    ///
    /// # Errors
    /// When the query has no meaning. That an object does not exist is a result.
    pub fn explain(
        &self,
        spec: &ExplanationSpec,
        view: CallerView,
        owner: Owner<'_>,
        callers: Callers<'_>,
    ) -> Result<Explained, BadQuestion> {
        let request = Request::read(spec)?;
        let to = Called::find(self, &spec.to, owner)?;
        // Of a caller there is something to say even where nothing is called.
        let nothing = Called::External(Outside::default());
        let any = to.as_ref().unwrap_or(&nothing);
        let from = match Caller::find(self, (&spec.from, view), any, owner)? {
            Ok(from) => from,
            Err(why) => return Ok(unknown(why)),
        };
        let to = match to {
            Ok(to) => to,
            Err(why) => return Ok(unknown(why)),
        };
        if view == CallerView::AccountOnly && is_routed_for(&self.index, &to, &spec.from.namespace)
        {
            return Ok(unknown(UNKNOWN_ROUTES.to_owned()));
        }
        if view == CallerView::AccountOnly && external::decides(&self.index, &from, &to) {
            return Ok(unknown(UNKNOWN_EGRESS.to_owned()));
        }
        let question = Question {
            spec,
            request,
            from,
            to,
            view,
        };
        let mut outcomes = Vec::new();
        for caller in &question.from {
            for backend_route in BackendRoute::of(self, caller, &question.to, &question.request) {
                outcomes.push(self.follow(caller, &question.request, backend_route));
            }
        }
        let mut explained = self.put_together(&question, &outcomes, owner, callers);
        explained.status.rule = rule_of(&outcomes);
        if let Called::External(outside) = &question.to {
            let objects = outcomes.iter();
            let objects = objects.filter_map(|outcome| outcome.backend_route.split.as_ref());
            let names = external::counted_as(outside, &question.request, objects);
            explained.counted_outside = Some(names);
        }
        Ok(explained)
    }

    /// What becomes of a caller's calls that go one way.
    pub(super) fn follow<'a>(
        &self,
        caller: &'a Caller,
        request: &Request,
        backend_route: BackendRoute,
    ) -> BackendOutcome<'a> {
        // Access rules see what arrives.
        let sent = backend_route.sent.as_ref().unwrap_or(request);
        let evaluated: Vec<EvaluatedEndpoint> = backend_route
            .called_endpoints()
            .iter()
            .map(|endpoint| evaluate::endpoint(self, caller, endpoint, sent))
            .collect();
        BackendOutcome {
            caller,
            backend_route,
            evaluated,
        }
    }

    pub(super) fn put_together(
        &self,
        question: &Question<'_>,
        outcomes: &[BackendOutcome<'_>],
        owner: Owner<'_>,
        callers: Callers<'_>,
    ) -> Explained {
        let mut steps = steps::steps(self, question, outcomes);
        steps.extend(noticed::steps(&self.index, question, outcomes));
        let mut status = ExplanationStatus {
            owner: question.to.namespace().to_owned(),
            backends: backends::verdicts(outcomes),
            steps,
            ..ExplanationStatus::default()
        };
        let refusals: BTreeSet<Reason> =
            outcomes.iter().flat_map(BackendOutcome::refusals).collect();
        status.verdict = together(outcomes.iter().map(BackendOutcome::verdict));
        if refusals.contains(&Reason::NotAllowed) && depends_on_unknown_pods(question, outcomes) {
            status.verdict = ExplanationVerdict::Unknown;
            status.reason = UNKNOWN_PODS.to_owned();
        }
        if outcomes.iter().any(BackendOutcome::is_by_host) {
            status.verdict = ExplanationVerdict::Unknown;
            status.reason = UNKNOWN_HOST.to_owned();
        }
        if let (Some(reason), ExplanationVerdict::Refused) = (refusals.first(), status.verdict) {
            status.reason = reason.to_string();
            // A connection that is ended brings no answer.
            let is_answered = !question.request.tcp && *reason != Reason::ConnectionLost;
            status.http_status = is_answered.then(|| reason.status().as_u16());
        }
        if !matches!(
            status.verdict,
            ExplanationVerdict::Allowed | ExplanationVerdict::Unknown
        ) {
            status.refused_by = backends::refusing(question, outcomes, owner);
            let fix = fix::of(self, question, outcomes, owner, callers);
            status.fix = (fix != Fix::default()).then_some(fix);
        }
        let evaluated = outcomes.iter().flat_map(|outcome| &outcome.evaluated);
        let mut explained = Explained {
            status,
            counted_at: counted_at(&question.to),
            ..Explained::default()
        };
        for one in evaluated {
            let namespace = one
                .endpoint
                .pod
                .as_ref()
                .map(|pod| Arc::clone(&pod.namespace));
            explained.namespaces.extend(namespace);
            if let (Some((pod, origins)), None) = (&one.by, &one.revoked) {
                explained.deciding_pods.insert(pod.clone());
                explained.origins.extend(origins.iter().cloned());
            }
        }
        explained
    }
}

/// The rule of a route that decides. All callers are of one namespace, so it is one.
fn rule_of(outcomes: &[BackendOutcome<'_>]) -> Option<ExplainedRule> {
    let mut rules = outcomes
        .iter()
        .filter_map(|outcome| outcome.backend_route.rule.as_ref());
    rules.next().cloned()
}

/// Whether routes of a namespace decide about the calls of its own callers to a Service of another.
fn is_routed_for(index: &Index, to: &Called, namespace: &str) -> bool {
    let Called::Service(key, port) = to else {
        return false;
    };
    let entry = index.services.get(key);
    let routes = entry.and_then(|entry| entry.routes.as_ref()?.0.get(port));
    routes.is_some_and(|routes| routes.consumers.contains_key(namespace))
}

const fn counted_at(to: &Called) -> CountedPort {
    match to {
        Called::Service(_, port) => CountedPort::Of(*port),
        Called::PastService(..) => CountedPort::Past,
        Called::Pods(..) | Called::External(_) => CountedPort::AsAsked,
    }
}

/// Whether rules may allow some pods of an account, and the client has no right to learn which pods
/// the account has.
fn depends_on_unknown_pods(question: &Question<'_>, outcomes: &[BackendOutcome<'_>]) -> bool {
    let mut evaluated = outcomes.iter().flat_map(|outcome| &outcome.evaluated);
    question.view == CallerView::AccountOnly && evaluated.any(|one| one.names_pods)
}

/// Why it is not known.
pub(super) fn unknown(why: String) -> Explained {
    Explained {
        status: ExplanationStatus {
            verdict: ExplanationVerdict::Unknown,
            reason: why,
            ..ExplanationStatus::default()
        },
        ..Explained::default()
    }
}
