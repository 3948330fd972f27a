//! Finds the route of a call to a Service: by the rules that hold for it, else to the Service
//! itself or to the pod of the client's choice.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use policy::http_match::RequestFacts;
use policy::origin::Origin;
use policy::reason::Reason;
use policy::route::edits::Actions;
use policy::route::{Forward, choose};
use policy::sticky;

use crate::config::snapshot::{PodTarget, Service, Snapshot};
use crate::failure::Failure;
use crate::outbound::call_policy::{self, CallPolicy, Names};
use crate::outbound::choice::{Choice, RoutedEndpoints};
use crate::outbound::edits::{Unsent, cross_origin};
use crate::outbound::route::Route;
use crate::outbound::tenant::Tenant;

/// A call to a Service that looks for its way.
#[derive(Clone, Copy)]
pub(super) struct RouteQuery<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Of the Service's resource.
    pub(super) name: &'a str,
    /// `None` for opaque bytes.
    pub(super) facts: Option<&'a RequestFacts<'a>>,
    pub(super) tenant: Option<&'a Tenant>,
    /// Of the rule of a Gateway that leads to the Service.
    pub(super) actions: Option<&'a Actions>,
}

impl RouteQuery<'_> {
    /// `actions`: of the rule that decides, where it is one of the Service's.
    fn policy(&self, serving: Option<&str>, actions: Option<&Actions>) -> Option<Arc<CallPolicy>> {
        let names = Names {
            root: self.name,
            serving,
        };
        let actions = actions.or(self.actions);
        CallPolicy::of(&self.snapshot.policies, names, self.facts, actions)
    }

    fn cookie(&self) -> Option<Box<HeaderValue>> {
        self.tenant.and_then(|tenant| tenant.cookie.clone())
    }

    /// To the Service itself.
    pub(super) fn service(&self) -> Result<Route, Failure> {
        let service = known_service(self.snapshot, self.name)?;
        let among = RoutedEndpoints::of(self.snapshot, &service.endpoints);
        let choice = match (self.tenant, &service.affinity) {
            (Some(tenant), _) if tenant.endpoint => Choice::Tenant(among, tenant.key),
            (_, Some(affinity)) => Choice::Session(among, affinity.epoch(Instant::now())),
            (_, None) => Choice::Any(among),
        };
        Ok(Route {
            policy: self.policy(None, None),
            cookie: self.cookie(),
            ..Route::to(&service.label, service.port, choice)
        })
    }

    /// To that pod of it, which the client chose, and it alone knows why. So without a policy what
    /// fails stays there, and what cannot be connected as well, unless endpoints are interchangeable.
    /// `may_call`: whether that pod may be called. `may_move`: whether another one may be.
    pub(super) fn pod(
        &self,
        pod: &PodTarget,
        may_call: Result<(), Failure>,
        may_move: bool,
    ) -> Result<Route, Failure> {
        let service = known_service(self.snapshot, self.name)?;
        let policy = self.policy(None, None);
        let endpoint = Arc::clone(&pod.endpoint);
        let choice = match call_policy::fails_over(policy.as_deref()) {
            None => {
                may_call?;
                let others =
                    may_move.then(|| RoutedEndpoints::of(self.snapshot, &service.endpoints));
                match others.filter(RoutedEndpoints::are_interchangeable) {
                    Some(others) => Choice::OneOfInterchangeable { endpoint, others },
                    None => Choice::One(endpoint),
                }
            }
            Some(_) if may_call.is_err() => {
                Choice::Any(RoutedEndpoints::of(self.snapshot, &service.endpoints))
            }
            Some(fails_over) => Choice::Named {
                endpoint,
                among: RoutedEndpoints::of(self.snapshot, &service.endpoints),
                fails_over,
            },
        };
        Ok(Route {
            policy,
            ..Route::to(&service.label, service.port, choice)
        })
    }

    /// To the backend that a rule chooses, if a rule applies.
    ///
    /// # Errors
    /// When the rule leads nowhere, or answers the request itself.
    pub(super) fn by_rule(&self) -> Result<Option<Route>, Unsent> {
        let service = known_service(self.snapshot, self.name)?;
        let at = service.routes.position(self.facts);
        let rule = at.and_then(|at| service.routes.rules.get(at));
        let (forward, origin) = match rule {
            Some(rule) => (&rule.then, Some(&rule.origin)),
            None => (&service.routes.otherwise, None),
        };
        let refusal = |reason| -> Result<Option<Route>, Unsent> {
            Ok(Some(self.refusal(service, reason, origin)?))
        };
        let chosen = match (forward, self.tenant) {
            (Forward::Root, _) => return Ok(None),
            (Forward::Split(backends), Some(tenant)) => sticky::backend(backends, tenant.key),
            (Forward::Split(backends), None) => choose(backends, rand::random()),
            (Forward::Refuse(reason), _) => return refusal(*reason),
            (Forward::Redirect(redirect), _) => {
                return Err(Unsent::Redirected {
                    redirect: Arc::clone(redirect),
                    by: origin.cloned(),
                });
            }
        };
        let Some(backend) = chosen else {
            return refusal(Reason::NoBackend);
        };
        let cors = match (&backend.actions, self.facts) {
            (Some(actions), Some(facts)) => cross_origin(actions, facts, origin)?,
            (None, _) | (_, None) => None,
        };
        if backend.invalid {
            return refusal(Reason::InvalidBackend);
        }
        let among = RoutedEndpoints::of(self.snapshot, &backend.endpoints);
        let choice = match self.tenant {
            Some(tenant) if tenant.endpoint => Choice::Tenant(among, tenant.key),
            _ => Choice::Any(among),
        };
        Ok(Some(Route {
            backend: Arc::clone(&backend.label),
            backend_port: backend.port,
            rule: at.and_then(|at| service.objects.get(at)).cloned(),
            policy: self.policy(Some(&backend.endpoints), backend.actions.as_deref()),
            cookie: self.cookie(),
            actions: backend.actions.clone(),
            cors,
            ..Route::to(&service.label, service.port, choice)
        }))
    }

    /// Where a rule has no backend: nowhere, unless something else may answer.
    fn refusal(
        &self,
        service: &Service,
        reason: Reason,
        origin: Option<&Origin>,
    ) -> Result<Route, Failure> {
        let failure = refused(reason, origin);
        // A route that is wrong is not hidden behind a fallback.
        if reason != Reason::NoBackend {
            return Err(failure);
        }
        let policy = self.policy(None, None);
        if call_policy::fallback(policy.as_deref()).is_none() {
            return Err(failure);
        }
        let choice = Choice::NoEndpoint(Box::new(failure));
        Ok(Route {
            backend: Arc::default(),
            policy,
            ..Route::to(&service.label, service.port, choice)
        })
    }
}

/// Why a rule sends a call nowhere. Its object's status has more.
pub(super) fn refused(reason: Reason, origin: Option<&Origin>) -> Failure {
    let named = origin.map(ToString::to_string).unwrap_or_default();
    let detail = match reason {
        Reason::NoRoute => format!(
            "no rule of {named}, nor of the other routes of this Service, matches the request; \
             `weft routes svc/SERVICE --rules` lists them"
        ),
        Reason::InvalidBackend => format!(
            "{named} has no backend for this share of its requests that exists and may be used; \
             the condition ResolvedRefs of the route names the field"
        ),
        Reason::InvalidRoute => format!(
            "{named} matches the request and cannot be carried out; the condition Accepted of the \
             route names the field"
        ),
        _ => format!("{named} has no backend that may take traffic"),
    };
    Failure::Refused {
        reason,
        by: origin.cloned(),
        detail: detail.into(),
    }
}

pub(super) fn known_service<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Result<&'a Service, Failure> {
    let known = snapshot.services.get(name).map(|service| &**service);
    known.ok_or_else(|| {
        Failure::not_sent(Reason::UnknownDestination, format!("{name} is not known"))
    })
}
