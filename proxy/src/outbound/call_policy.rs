//! The sections of a TrafficPolicy that apply to one call, with the defaults where no policy sets
//! them.

use std::sync::Arc;
use std::time::Duration;

use policy::fallback::{Call as FallbackCall, Ended, due};
use policy::fault::Fault;
use policy::http_match::RequestFacts;
use policy::origin::Origin;
use policy::reason::Reason;
use policy::route::edits::{Actions, RuleTimeouts};
use policy::traffic::call::{Fallback, FallbackTo, Mirror, Retry, Timeouts};
use policy::traffic::endpoint::{Balance, Breaker, Ejection};
use policy::traffic::guard::Priority;
use policy::traffic::{CallerPolicy, Whole, serving_or_root, without_object};
use wire::names::Name;

use crate::config::policies::Policies;

/// The policies of one call. Made only where there is one.
#[derive(Debug)]
pub(super) struct CallPolicy {
    /// Of the Service that is called.
    root: Option<Arc<CallerPolicy>>,
    /// Of the Service whose endpoints serve, where that is another one.
    serving: Option<Arc<CallerPolicy>>,
    /// A split chose what serves.
    split: bool,
    /// Which rule of the root's decides about retries, and which about times.
    retry: Option<usize>,
    timeouts: Option<usize>,
    /// The same of what answers where nothing else does, and of copies.
    fallback: Option<usize>,
    mirror: Option<usize>,
    fault: Option<FaultRule>,
    /// The port of the Service that is called, where one of these two leads to another.
    port: u16,
    /// What the rule of a route sets instead.
    by_route: Option<Box<RouteSections>>,
}

/// The sections of the rule that decides, which hold before those of the policies.
#[derive(Debug)]
struct RouteSections {
    timeouts: Option<Timeouts>,
    /// It limits attempts.
    limits_attempts: bool,
    retry: Option<Retry>,
}

/// Which rule of a FaultExperiment a call fits.
#[derive(Clone, Copy, Debug)]
struct FaultRule {
    /// It is of the Service that serves, not of the one that was called.
    serving: bool,
    rule: usize,
}

/// The names of two resources: of the Service that is called, and of the endpoints that
/// serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) root: &'a str,
    pub(super) serving: Option<&'a str>,
}

impl CallPolicy {
    /// `None` where no policy speaks, nor the rule that has these actions, which costs one look.
    pub(super) fn of(
        policies: &Policies,
        names: Names<'_>,
        request: Option<&RequestFacts<'_>>,
        actions: Option<&Actions>,
    ) -> Option<Arc<Self>> {
        let actions = actions.filter(|rule| rule.timeouts.is_some() || rule.retry.is_some());
        if policies.is_empty() && actions.is_none() {
            return None;
        }
        let root = policies.of(names.root).cloned();
        let serving = names.serving.and_then(|name| policies.of(name)).cloned();
        if root.is_none() && serving.is_none() && actions.is_none() {
            return None;
        }
        let timeouts = root
            .as_ref()
            .and_then(|root| root.timeouts.position(request));
        let retry = root.as_ref().and_then(|root| root.retry.position(request));
        let fallback = root
            .as_ref()
            .and_then(|root| root.fallback.position(request));
        let mirror = root.as_ref().and_then(|root| root.mirror.position(request));
        let port = fallback.or(mirror).and_then(|_| port_of(names.root));
        let fault = fault_rule(serving.as_deref(), root.as_deref(), request);
        let mut policy = Self {
            root,
            serving,
            split: names.serving.is_some(),
            retry,
            timeouts,
            fallback: fallback.filter(|_| port.is_some()),
            mirror: mirror.filter(|_| port.is_some()),
            fault,
            port: port.unwrap_or_default(),
            by_route: None,
        };
        policy.by_route = actions.map(|rule| Box::new(RouteSections::of(rule, &policy)));
        Some(Arc::new(policy))
    }

    fn endpoints<'a, T>(&'a self, of: fn(&'a CallerPolicy) -> &'a Whole<T>) -> Option<&'a T> {
        let first = self.serving.as_ref().or(self.root.as_ref())?;
        let root = self.root.as_ref().unwrap_or(first);
        serving_or_root(of(first), of(root)).map(|(section, _)| section)
    }
}

impl RouteSections {
    /// Of a rule with these actions, where `policies` holds for the rest.
    fn of(rule: &Actions, policies: &CallPolicy) -> Self {
        let of_policies = timeouts(Some(policies));
        let limit = rule.timeouts.and_then(|rule| rule.backend_request);
        Self {
            timeouts: rule.timeouts.map(|rule| with_rule(of_policies, rule)),
            limits_attempts: limit.is_some_and(|limit| !limit.is_zero()),
            retry: rule.retry.as_ref().map(Retry::of_rule),
        }
    }
}

fn with_rule(of_policies: &Timeouts, rule: RuleTimeouts) -> Timeouts {
    // A rule writes 0 for no limit.
    let limit = |rule: Option<Duration>, otherwise: Option<Duration>| match rule {
        Some(limit) => (!limit.is_zero()).then_some(limit),
        None => otherwise,
    };
    Timeouts {
        request: limit(rule.request, of_policies.request),
        backend_request: limit(rule.backend_request, of_policies.backend_request),
        ..*of_policies
    }
}

/// The rule that harms a call: of the Service that serves it, else of the one that was called.
fn fault_rule(
    serving: Option<&CallerPolicy>,
    root: Option<&CallerPolicy>,
    request: Option<&RequestFacts<'_>>,
) -> Option<FaultRule> {
    let rule_of = |of: Option<&CallerPolicy>, serving| {
        let rule = of?.fault.position(request)?;
        Some(FaultRule { serving, rule })
    };
    rule_of(serving, true).or_else(|| rule_of(root, false))
}

/// The port that a Service's resource is about.
fn port_of(resource: &str) -> Option<u16> {
    match wire::names::parse(resource)? {
        Name::Service { port, .. } => Some(port),
        _ => None,
    }
}

/// How long a call and its attempts may take.
pub(super) fn timeouts(policy: Option<&CallPolicy>) -> &Timeouts {
    let decided = policy.and_then(|policy| {
        let by_route = policy.by_route.as_ref();
        if let Some(timeouts) = by_route.and_then(|route| route.timeouts.as_ref()) {
            return Some(timeouts);
        }
        let rule = policy.root.as_ref()?.timeouts.rules.get(policy.timeouts?)?;
        rule.then.as_ref()
    });
    decided.unwrap_or(&Timeouts::DEFAULT)
}

/// Whether an attempt ends when it has taken as long as one may, also where none follows: the rule
/// of a route promises that to its author.
pub(super) fn ends_attempts(policy: Option<&CallPolicy>) -> bool {
    let by_route = policy.and_then(|policy| policy.by_route.as_ref());
    by_route.is_some_and(|route| route.limits_attempts)
}

/// How a call is tried again.
pub(super) fn retry(policy: Option<&CallPolicy>) -> &Retry {
    let decided = policy.and_then(decided_retry);
    decided.unwrap_or(&without_object::RETRY)
}

/// The same where a policy or the rule of a route decides it.
fn decided_retry(policy: &CallPolicy) -> Option<&Retry> {
    if let Some(retry) = retry_of_route(policy) {
        return Some(retry);
    }
    let rule = policy.root.as_ref()?.retry.rules.get(policy.retry?)?;
    rule.then.as_ref()
}

fn retry_of_route(policy: &CallPolicy) -> Option<&Retry> {
    policy.by_route.as_ref()?.retry.as_ref()
}

/// Whether a call is tried again at an endpoint that failed it, where there is no other: the
/// author of a route's rule counts attempts and no endpoints.
pub(super) fn returns_to_endpoint(policy: Option<&CallPolicy>) -> bool {
    policy.and_then(retry_of_route).is_some()
}

/// Whether a call goes to another endpoint than the one that its client chose, where that one
/// fails or is ejected. `None`: no policy covers endpoints that fail.
pub(super) fn fails_over(policy: Option<&CallPolicy>) -> Option<bool> {
    let retries = decided_retry(policy?).is_some_and(|retry| retry.attempts > 0);
    let ejection = policy?.endpoints(|all| &all.ejection);
    let ejects = ejection.is_some_and(|ejection| ejection.consecutive_failures > 0);
    let fails_over = retries || ejects;
    (fails_over || breaker(policy).is_some()).then_some(fails_over)
}

/// The class that the Service which serves gives a request; `None`: none.
pub(super) fn priority(
    policy: Option<&CallPolicy>,
    request: &RequestFacts<'_>,
) -> Option<Priority> {
    let policy = policy?;
    let serving = policy.serving.as_ref().or(policy.root.as_ref())?;
    *serving.priority.decide(Some(request)).0
}

/// What answers where nothing else does, and the port of the Service that was called.
pub(super) fn fallback(policy: Option<&CallPolicy>) -> Option<(&Fallback, u16)> {
    let policy = policy?;
    let rule = policy.root.as_ref()?.fallback.rules.get(policy.fallback?)?;
    Some((rule.then.as_deref()?, policy.port))
}

/// Whether another Service is to answer a call whose last attempt takes too long.
pub(super) fn saves_time(policy: Option<&CallPolicy>, call: FallbackCall<'_>) -> bool {
    let Some((fallback, _)) = fallback(policy) else {
        return false;
    };
    let late = Ended::Failed(Reason::Deadline);
    matches!(fallback.to, FallbackTo::Service(_))
        && due(fallback.on, retry(policy), call, late).is_some()
}

/// Which Services get copies, and the port of the Service that was called.
pub(super) fn mirrors(policy: Option<&CallPolicy>) -> Option<(&[Mirror], u16)> {
    let policy = policy?;
    let rule = policy.root.as_ref()?.mirror.rules.get(policy.mirror?)?;
    Some((rule.then.as_deref()?, policy.port))
}

/// Which responses are failures of their endpoint, and which endpoints are ejected where any is.
pub(super) fn ejection(policy: Option<&CallPolicy>) -> &Ejection {
    let decided = policy.and_then(|policy| policy.endpoints(|all| &all.ejection));
    decided.unwrap_or(&without_object::EJECTION)
}

/// Which endpoints are ejected. `ejects`: whether any is, of those that the call may go to.
pub(super) fn ejection_if(policy: Option<&CallPolicy>, ejects: bool) -> &Ejection {
    if ejects {
        ejection(policy)
    } else {
        &without_object::EJECTION_OFF
    }
}

/// When no call may go to what serves, and which object decides that.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecidesBreaker<'a> {
    pub(super) settings: &'a Breaker,
    pub(super) origin: &'a Origin,
    /// It is of the Service that was called, and another one serves.
    pub(super) called: bool,
}

/// `None`: nothing is counted for it.
pub(super) fn breaker(policy: Option<&CallPolicy>) -> Option<DecidesBreaker<'_>> {
    let policy = policy?;
    let by_serving = policy.serving.as_deref().and_then(|serving| {
        let (settings, origin) = section_of(&serving.breaker)?;
        Some((settings, origin, false))
    });
    let (settings, origin, called) = by_serving.or_else(|| {
        let (settings, origin) = section_of(&policy.root.as_deref()?.breaker)?;
        Some((settings, origin, policy.split))
    })?;
    Some(DecidesBreaker {
        settings,
        origin,
        called,
    })
}

fn section_of<T>(whole: &Whole<T>) -> Option<(&T, &Origin)> {
    serving_or_root(whole, whole)
}

/// What a FaultExperiment would do with a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct FittingFault<'a> {
    pub(super) fault: &'a Arc<Fault>,
    /// The experiment.
    pub(super) origin: &'a Origin,
}

/// `None`: no experiment is about it.
pub(super) fn fault(policy: Option<&CallPolicy>) -> Option<FittingFault<'_>> {
    let policy = policy?;
    let FaultRule { serving, rule } = policy.fault?;
    let of = if serving {
        &policy.serving
    } else {
        &policy.root
    };
    let rule = of.as_ref()?.fault.rules.get(rule)?;
    Some(FittingFault {
        fault: rule.then.as_ref()?,
        origin: &rule.origin,
    })
}

/// How calls are shared out among endpoints.
pub(super) fn balance(policy: Option<&CallPolicy>) -> &Balance {
    let decided = policy.and_then(|policy| policy.endpoints(|all| &all.balance));
    decided.unwrap_or(&without_object::BALANCE)
}
