//! Finds the listener and the rule of a client's call to a Gateway, or why it ends there.
//!
//! By `policy::gateway`, as the Gateway's pods find them. Why a listener is not served, and a route
//! not attached, is what their conditions say.

use crds::observe::{ExplainedRule, ExplanationStatus, ExplanationVerdict, Step};
use gateway_api::conditions::GATEWAY_CONTROLLER;
use policy::gateway::{CameBy, Gateway, Listener, ListenerProtocol};
use policy::http_match::RequestFacts;
use policy::reason::Reason;
use policy::route::{Forward, Match, Rule};

use super::answer::Explained;
use super::client_call::ClientCall;
use super::outcome::step;
use super::rules;
use crate::model::Index;
use crate::model::gateways::CompiledGateway;
use crate::problem::{Condition, ListenerReport, ObjectReport, Problems};
use crate::world::ObjectKey;

/// Routes that are not attached of which each is named.
const MOST_DETACHED: usize = 8;

/// Whether the user may know of objects of a namespace.
pub type Shows<'a> = &'a dyn Fn(&str) -> bool;

/// The Gateway, and what is said of it.
pub(super) struct Asked<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) report: Option<&'a ObjectReport>,
    pub(super) problems: &'a Problems,
    pub(super) shows: Shows<'a>,
}

/// Why a call ends at the Gateway.
pub(super) struct Ended {
    reason: Reason,
    text: String,
    /// The rules that were tried, where it came so far.
    rule: Option<Box<ExplainedRule>>,
}

/// The listener that takes a call, and the rule that decides.
pub(super) struct Entered<'a> {
    pub(super) listener: &'a Listener,
    pub(super) rule: &'a Rule<Forward>,
    pub(super) explained: ExplainedRule,
}

impl Asked<'_> {
    pub(super) fn step(&self, text: String) -> Step {
        step("gateway", text, vec![format!("Gateway {}", self.key)])
    }

    /// The answer for a call that no rule of a route gets.
    pub(super) fn ended(&self, ended: Ended) -> Explained {
        let Ended { reason, text, rule } = ended;
        let mut steps = vec![self.step(text)];
        if reason == Reason::NoRoute {
            steps.extend(self.detached());
        }
        let is_answered = reason != Reason::ConnectionLost;
        let status = ExplanationStatus {
            verdict: ExplanationVerdict::Refused,
            reason: reason.to_string(),
            http_status: is_answered.then(|| reason.status().as_u16()),
            owner: self.key.namespace.to_string(),
            refused_by: vec![format!("Gateway {}", self.key)],
            steps,
            rule: rule.map(|rule| *rule),
            ..ExplanationStatus::default()
        };
        Explained {
            status,
            ..Explained::default()
        }
    }

    /// Routes that name the Gateway and are not accepted at it.
    fn detached(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (route, report) in &self.problems.reports {
            let parents = report.parents.iter();
            let mut refused = parents.filter(|one| {
                let parent = &one.parent;
                one.controller == GATEWAY_CONTROLLER
                    && !one.accepted.status
                    && parent.namespace == self.key.namespace
                    && parent.name == self.key.name
            });
            let Some(refused) = refused.next() else {
                continue;
            };
            if steps.len() == MOST_DETACHED {
                break;
            }
            if !(self.shows)(&route.namespace) {
                continue;
            }
            let route = format!("{} {}/{}", route.kind.word(), route.namespace, route.name);
            let text = format!("{route} is not accepted: {}", why(&refused.accepted));
            steps.push(step("gateway", text, vec![route]));
        }
        steps
    }

    /// Why a listener is not served as it is written.
    fn idle(&self, listener: &str) -> Option<String> {
        let mut listeners = self.report?.listeners.iter();
        let report: &ListenerReport = listeners.find(|one| &*one.name == listener)?;
        if report.is_served {
            return None;
        }
        let condition = match report.accepted.status {
            true => &report.resolved_refs,
            false => &report.accepted,
        };
        Some(why(condition))
    }

    /// The same, as the end of a sentence.
    fn but_idle(&self, listener: &str) -> String {
        let why = self.idle(listener);
        why.map_or_else(String::new, |why| {
            format!("; the listener is not programmed: {why}")
        })
    }
}

/// Why nothing is known of a Gateway.
pub(super) fn unserved(index: &Index, key: &ObjectKey) -> Option<String> {
    if index.defaults.gateway_namespaces.is_none() {
        return Some("Gateways are off: set value gateway.enabled of the chart".to_owned());
    }
    let all = &index.world.gateways;
    let Some(facts) = all.get(key) else {
        let here = all.keys().filter(|one| one.namespace == key.namespace);
        let meant = crds::near::hint(&key.name, here.map(|one| &*one.name));
        return Some(format!("there is no Gateway {key}{meant}"));
    };
    let class = &facts.spec.class;
    (!index.world.is_own_class(class)).then(|| {
        format!(
            "Gateway {key} is of class {class}, which Weft does not serve: set \
             spec.gatewayClassName to weft, or ask its own controller"
        )
    })
}

/// A condition that does not hold, as words.
pub(super) fn why(condition: &Condition) -> String {
    match &*condition.message {
        "" => condition.reason.to_owned(),
        message => format!("{}: {message}", condition.reason),
    }
}

/// No listener answers: the client finds its connection closed.
pub(super) fn closed(text: String) -> Ended {
    Ended {
        reason: Reason::ConnectionLost,
        text,
        rule: None,
    }
}

pub(super) fn words(listener: &Listener) -> String {
    let Listener {
        name,
        protocol,
        port,
        ..
    } = listener;
    match &listener.hostname {
        Some(hostname) => format!("listener {name} ({protocol} {port}, {hostname})"),
        None => format!("listener {name} ({protocol} {port})"),
    }
}

/// The listener and the rule of a call.
pub(super) fn enter<'a>(
    asked: &Asked<'_>,
    compiled: &'a CompiledGateway,
    call: &ClientCall,
) -> Result<Entered<'a>, Ended> {
    let gateway = &compiled.gateway;
    let own = connection(asked, gateway, call)?;
    let came_by = CameBy {
        target_port: own.target_port,
        protocol: own.protocol,
        server_name: call.server_name(),
    };
    let reads_requests = matches!(
        own.protocol,
        ListenerProtocol::Http | ListenerProtocol::Https
    );
    if !reads_requests {
        let name = own.protocol.reads_server_name();
        let host = call.server_name().filter(|_| name);
        let found = decided(asked, compiled, (own, host), None);
        return found.map_err(|rule| Ended {
            rule: Some(rule),
            ..closed(format!(
                "no route of {} is for the connection{}",
                words(own),
                asked.but_idle(&own.name)
            ))
        });
    }
    if let Some(fault) = call.fault() {
        return Err(Ended {
            reason: Reason::BadRequest,
            text: format!("{} refuses the request: {fault}", words(own)),
            rule: None,
        });
    }
    let found = gateway.listener_of_request(came_by, call.host());
    let (listener, host) = found.map_err(|none| Ended {
        reason: none.reason(),
        text: format!("{}: {}", words(own), none.detail()),
        rule: None,
    })?;
    let facts = call.facts();
    let found = decided(asked, compiled, (listener, host.as_deref()), Some(&facts));
    found.map_err(|rule| Ended {
        reason: Reason::NoRoute,
        text: format!(
            "{} takes the request, and no rule of its routes fits{}",
            words(listener),
            asked.but_idle(&listener.name)
        ),
        rule: Some(rule),
    })
}

/// The listener of a connection: of one in plaintext the first of its port.
fn connection<'a>(
    asked: &Asked<'_>,
    gateway: &'a Gateway,
    call: &ClientCall,
) -> Result<&'a Listener, Ended> {
    let port = call.port;
    let mut here = gateway.listeners.iter().filter(|one| one.port == port);
    let Some(first) = here.next() else {
        return Err(no_listener(asked, gateway, port));
    };
    let other = |what: &str, scheme: &str| {
        closed(format!(
            "{} carries {what}: the URL must begin with {scheme}://",
            words(first)
        ))
    };
    match (first.protocol, call.is_tls) {
        (ListenerProtocol::Tcp, _) | (ListenerProtocol::Http, false) => return Ok(first),
        (ListenerProtocol::Http, true) => return Err(other("HTTP without TLS", "http")),
        (ListenerProtocol::Https | ListenerProtocol::Tls, false) => {
            return Err(other("TLS", "https"));
        }
        (ListenerProtocol::Https | ListenerProtocol::Tls, true) => {}
    }
    let Some(own) = gateway.listener(first.target_port, call.server_name()) else {
        let name = call.server_name().unwrap_or("none, as of an address");
        return Err(closed(format!(
            "no listener of port {port} is for the server name ({name}): the handshake is refused"
        )));
    };
    if own.protocol == ListenerProtocol::Https && own.certificates.is_empty() {
        return Err(closed(format!(
            "{} has no certificate, and refuses every handshake{}",
            words(own),
            asked.but_idle(&own.name)
        )));
    }
    Ok(own)
}

/// That nothing listens at a port.
fn no_listener(asked: &Asked<'_>, gateway: &Gateway, port: u16) -> Ended {
    let others = gateway.listeners.iter();
    let others: Vec<String> = others.map(words).collect();
    let written = asked
        .report
        .into_iter()
        .flat_map(|report| &report.listeners);
    let idle = written.filter(|one| !one.is_served);
    let idle = idle.map(|one| {
        let why = asked.idle(&one.name).unwrap_or_default();
        format!("; listener {} is not programmed: {why}", one.name)
    });
    let idle: String = idle.collect();
    closed(format!(
        "no listener is served at port {port}; served: {}{idle}",
        others.join(", ")
    ))
}

/// The rule that decides at a listener, or the rules that were tried.
fn decided<'a>(
    asked: &Asked<'_>,
    compiled: &'a CompiledGateway,
    (listener, host): (&'a Listener, Option<&str>),
    request: Option<&RequestFacts<'_>>,
) -> Result<Entered<'a>, Box<ExplainedRule>> {
    let listeners = compiled.gateway.listeners.iter();
    let mut listeners = listeners.zip(&compiled.places);
    let places = listeners.find(|(one, _)| one.name == listener.name);
    let places = places.map_or(&[][..], |(_, places)| places.as_slice());
    let at = listener.position(host, request);
    let place = |nth: usize, rule: usize| places.get(nth)?.get(rule)?.as_ref();
    let rule = at.and_then(|(nth, rule)| {
        let decides = listener.routes.get(nth)?.table.rules.get(rule)?;
        Some((decides, rules::decided(decides, place(nth, rule))))
    });
    let mut explained = match &rule {
        Some((_, explained)) => explained.clone(),
        None => ExplainedRule {
            object: format!("Gateway {}", asked.key),
            ..ExplainedRule::default()
        },
    };
    for (nth, routes) in listener.routes.iter().enumerate() {
        let last = match at {
            Some((decides, _)) if nth > decides => break,
            Some((decides, rule)) if nth == decides => rule,
            _ => routes.table.rules.len(),
        };
        let Some(request) = request.filter(|_| routes.is_for(host)) else {
            continue;
        };
        for (which, rule) in routes.table.rules.iter().take(last).enumerate() {
            if (asked.shows)(rule.origin.namespace()) {
                rules::add_earlier(&mut explained, (rule, place(nth, which)), request);
            } else if let Match::AnyOf(matches) = &rule.when {
                let more = u32::try_from(matches.len()).unwrap_or(u32::MAX);
                explained.more_earlier = explained.more_earlier.saturating_add(more);
            }
        }
    }
    match rule {
        Some((rule, _)) => Ok(Entered {
            listener,
            rule,
            explained,
        }),
        None => Err(Box::new(explained)),
    }
}
