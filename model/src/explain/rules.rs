//! Describes routing tables for users: which rule decides about a call, which ones before it do not
//! fit, and the whole table of a Service.

use crds::observe::{EarlierRule, ExplainedRule, RouteRules, RuleBackend, TableRule};
use http::StatusCode;
use policy::egress::HostPattern;
use policy::http_match::{HttpMatch, MatchPart, PathMatch, RequestFacts, ValueMatch};
use policy::name::Kind;
use policy::origin::Origin;
use policy::route::edits::{Actions, HeaderEdits, PathRewrite, Redirect};
use policy::route::{Backend, Forward, Match, Rule, shares};

use crate::model::service_routes::{RoutedTable, RulePlace};
use crate::model::{Audience, Index, Model, ServiceEntry};
use crate::world::ObjectKey;

/// Rules before the one that decides of which each is described.
const MOST_EARLIER: usize = 64;
/// Where calls go for which no rule is.
const ROOT: &str = "to the Service itself";
/// The same at a Gateway.
const NEXT_HOST: &str = "by the next host that fits, else refused: no-route";

impl Model {
    /// The tables of a Service, by port: for callers of one namespace, or of every audience that
    /// has one of its own. `None` if there is no such Service.
    #[must_use]
    pub fn route_rules(&self, service: &ObjectKey, from: Option<&str>) -> Option<Vec<RouteRules>> {
        let index = &*self.index;
        let entry = index.services.get(service)?;
        let mut tables = Vec::new();
        for port in entry.ports.keys() {
            let at = entry.routes.as_ref().and_then(|routes| routes.0.get(port));
            let audiences: Vec<Audience<'_>> = match from {
                Some(namespace) => vec![Audience::Namespace(namespace)],
                None => {
                    let consumers = at.into_iter().flat_map(|at| at.consumers.keys());
                    let consumers = consumers.map(|namespace| Audience::Namespace(namespace));
                    std::iter::once(Audience::Everyone)
                        .chain(consumers)
                        .collect()
                }
            };
            for audience in audiences {
                let of = at.and_then(|at| at.of(audience));
                let of = of.map_or("", |(namespace, _)| namespace);
                let table = table(index, entry, *port, audience);
                tables.push(RouteRules {
                    service: service.to_string(),
                    port: *port,
                    audience: of.to_owned(),
                    ..table
                });
            }
        }
        Some(tables)
    }

    /// The tables of a Gateway's listeners, by host. `None` if no such Gateway is served.
    #[must_use]
    pub fn listener_rules(&self, gateway: &ObjectKey) -> Option<Vec<RouteRules>> {
        let compiled = self.index.gateways.0.get(gateway)?;
        let mut tables = Vec::new();
        for (listener, places) in compiled.gateway.listeners.iter().zip(&compiled.places) {
            let of_host = |host: Option<&HostPattern>| RouteRules {
                service: gateway.to_string(),
                port: listener.port,
                listener: listener.name.to_string(),
                host: host.map_or_else(|| "*".to_owned(), ToString::to_string),
                otherwise: NEXT_HOST.to_owned(),
                ..RouteRules::default()
            };
            if listener.routes.is_empty() {
                tables.push(of_host(listener.hostname.as_ref()));
            }
            for (routes, places) in listener.routes.iter().zip(places) {
                let rules = routes.table.rules.iter().zip(places.iter());
                let rules = rules.flat_map(|(rule, place)| rows(rule, place.as_ref()));
                tables.push(RouteRules {
                    rules: rules.collect(),
                    ..of_host(routes.hostname.as_ref())
                });
            }
        }
        Some(tables)
    }
}

/// The rules of a table, and what becomes of calls that fit none.
fn table(index: &Index, entry: &ServiceEntry, port: u16, audience: Audience<'_>) -> RouteRules {
    let routed = entry.routed(port, audience);
    let table = index.routes_at(entry, port, audience);
    let mut described = RouteRules {
        otherwise: ROOT.to_owned(),
        ..RouteRules::default()
    };
    for (nth, rule) in table.rules.iter().enumerate() {
        let place = routed.map(|routed| routed.places.get(nth).and_then(Option::as_ref));
        match place {
            // The rule that stands for requests which fit no other.
            Some(None) => {
                let answer = answer(&rule.then);
                described.otherwise = format!("{answer}; bytes: {ROOT}");
            }
            Some(Some(place)) => described.rules.extend(rows(rule, Some(place))),
            None => described.rules.extend(rows(rule, None)),
        }
    }
    described
}

/// A line for each match of a rule.
fn rows(rule: &Rule<Forward>, place: Option<&RulePlace>) -> Vec<TableRule> {
    let backends = match &rule.then {
        Forward::Split(backends) => shares(backends)
            .map(|(backend, share)| RuleBackend {
                service: backend.label.to_string(),
                port: backend.port,
                share,
                invalid: backend.invalid,
            })
            .collect(),
        Forward::Root | Forward::Refuse(_) | Forward::Redirect(_) => Vec::new(),
    };
    let row = TableRule {
        object: object(&rule.origin),
        rule: place.map(|place| place.rule),
        name: name(place),
        matches: String::new(),
        backends,
        answer: answer(&rule.then),
        edits: edits(&rule.then),
    };
    let with = |matches: String| TableRule {
        matches,
        ..row.clone()
    };
    match &rule.when {
        Match::Always => vec![with("every call".to_owned())],
        Match::AnyOf(all) => all.iter().map(|one| with(wants(one))).collect(),
    }
}

/// The rule of a route that decides about a request, if one does.
pub(super) fn explained(
    routed: Option<(&str, &RoutedTable)>,
    request: Option<&RequestFacts<'_>>,
) -> Option<ExplainedRule> {
    let (audience, routed) = routed?;
    let at = routed.table.position(request)?;
    let rule = routed.table.rules.get(at)?;
    let place = routed.places.get(at).and_then(Option::as_ref);
    let mut explained = ExplainedRule {
        audience: audience.to_owned(),
        ..decided(rule, place)
    };
    if let Some(request) = request {
        let before = routed.table.rules.iter().zip(&routed.places).take(at);
        for (rule, place) in before {
            add_earlier(&mut explained, (rule, place.as_ref()), request);
        }
    }
    Some(explained)
}

/// A rule that decides.
pub(super) fn decided(rule: &Rule<Forward>, place: Option<&RulePlace>) -> ExplainedRule {
    ExplainedRule {
        object: object(&rule.origin),
        rule: place.map(|place| place.rule),
        name: name(place),
        edits: edits(&rule.then),
        ..ExplainedRule::default()
    }
}

/// Adds a rule that was tried before, and why the request does not fit.
pub(super) fn add_earlier(
    explained: &mut ExplainedRule,
    (rule, place): (&Rule<Forward>, Option<&RulePlace>),
    request: &RequestFacts<'_>,
) {
    let (Some(place), Match::AnyOf(matches)) = (place, &rule.when) else {
        return;
    };
    for one in matches {
        if explained.earlier.len() == MOST_EARLIER {
            explained.more_earlier += 1;
            continue;
        }
        explained.earlier.push(EarlierRule {
            object: object(&rule.origin),
            rule: place.rule,
            name: name(Some(place)),
            wants: wants(one),
            fails: one.fails(request).map_or_else(String::new, part),
        });
    }
}

fn name(place: Option<&RulePlace>) -> String {
    let name = place.and_then(|place| place.name.as_deref());
    name.unwrap_or_default().to_owned()
}

/// As users write it: without the group by which two kinds of one name differ.
fn object(origin: &Origin) -> String {
    let kind = match origin.kind().parse::<Kind>() {
        Ok(kind) => kind.word(),
        Err(_) => origin.kind(),
    };
    format!("{kind} {}", origin.label())
}

/// What a request has to be to fit.
fn wants(one: &HttpMatch) -> String {
    let description = one.description();
    let mut wants = Vec::new();
    wants.extend(description.path.as_ref().map(|path| match path {
        PathMatch::Open(regex) => format!("path begins like {regex}"),
        PathMatch::Exact(path) => format!("path {path}"),
        PathMatch::Prefix(path) => format!("path below {path}"),
        PathMatch::Regex(regex) => format!("path like {regex}"),
    }));
    if !description.methods.is_empty() {
        wants.push(format!("method {}", description.methods.join(" or ")));
    }
    for (what, values) in [
        ("header", &description.headers),
        ("query", &description.query),
    ] {
        wants.extend(values.iter().map(|(name, value)| match value {
            ValueMatch::Exact(text) => format!("{what} {name}: {text}"),
            ValueMatch::Each(regex) | ValueMatch::Regex(regex) => {
                format!("{what} {name} like {regex}")
            }
        }));
    }
    if wants.is_empty() {
        return "every request".to_owned();
    }
    wants.join(", ")
}

fn part(part: MatchPart<'_>) -> String {
    match part {
        MatchPart::Unusable => "it cannot be used".to_owned(),
        MatchPart::Path => "the path does not fit".to_owned(),
        MatchPart::Method => "the method does not fit".to_owned(),
        MatchPart::Header(name) => format!("header {name} does not fit"),
        MatchPart::Query(name) => format!("query parameter {name} does not fit"),
    }
}

/// What becomes of calls that go to no backend; empty for others.
fn answer(then: &Forward) -> String {
    match then {
        Forward::Split(_) => String::new(),
        Forward::Root => ROOT.to_owned(),
        Forward::Refuse(reason) => format!("refused: {reason}"),
        Forward::Redirect(redirect) => redirect_words(redirect),
    }
}

/// A redirect in a few words.
pub(super) fn redirect_words(redirect: &Redirect) -> String {
    let Redirect {
        scheme,
        host,
        port,
        path,
        status,
        ..
    } = redirect;
    let mut to = Vec::new();
    to.extend(scheme.map(|scheme| format!("scheme {}", scheme.as_str())));
    to.extend(host.as_ref().map(|host| format!("host {host}")));
    to.extend(port.map(|port| format!("port {port}")));
    to.extend(path.as_ref().map(path_words));
    let status = StatusCode::as_u16(status);
    format!("redirect {status} to {}", to.join(", "))
}

fn path_words(path: &PathRewrite) -> String {
    match path {
        PathRewrite::Full(path) => format!("path {path}"),
        PathRewrite::Prefix { matched, with } => {
            format!("path with {with:?} in place of {matched:?}")
        }
    }
}

/// What is changed of calls, a line each; of one backend alone with its name before it.
fn edits(then: &Forward) -> Vec<String> {
    let Forward::Split(backends) = then else {
        return Vec::new();
    };
    let of = |backend: &Backend| {
        let actions = backend.actions.as_deref();
        actions.map_or_else(Vec::new, actions_words)
    };
    let mut all = backends.iter().map(of);
    let first = all.next().unwrap_or_default();
    if all.all(|other| other == first) {
        return first;
    }
    let lines = backends.iter().flat_map(|backend| {
        let lines = of(backend).into_iter();
        lines.map(move |line| format!("{}: {line}", backend.label))
    });
    lines.collect()
}

fn actions_words(actions: &Actions) -> Vec<String> {
    let mut lines = Vec::new();
    for edits in &actions.edits {
        header_words("request", &edits.request, &mut lines);
        if let Some(rewrite) = &edits.rewrite {
            let host = rewrite.host.as_ref();
            lines.extend(host.map(|host| format!("request: host {host}")));
            let path = rewrite.path.as_ref();
            lines.extend(path.map(|path| format!("request: {}", path_words(path))));
        }
        header_words("response", &edits.response, &mut lines);
    }
    if actions.cors.is_some() {
        lines.push("CORS is answered by the caller's proxy".to_owned());
    }
    lines.extend(actions.mirrors.iter().map(|mirror| {
        let (service, port, share) = (&mirror.service, mirror.port, mirror.share);
        format!("{share} % are copied to {service}:{port}")
    }));
    if let Some(timeouts) = &actions.timeouts {
        for (what, time) in [
            ("request", timeouts.request),
            ("each attempt", timeouts.backend_request),
        ] {
            lines.extend(time.map(|time| {
                if time.is_zero() {
                    format!("no timeout of {what}")
                } else {
                    format!("timeout of {what}: {time:?}")
                }
            }));
        }
    }
    if let Some(retry) = &actions.retry {
        lines.push(format!("up to {} retries", retry.attempts));
    }
    lines
}

fn header_words(of: &str, edits: &HeaderEdits, lines: &mut Vec<String>) {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let removed = edits.remove.iter();
    lines.extend(removed.map(|name| format!("{of}: header {name} is removed")));
    for (done, values) in [("is set to", &edits.set), ("gets also", &edits.add)] {
        let changed = values.iter();
        lines.extend(
            changed.map(|(name, value)| format!("{of}: header {name} {done} {}", text(value))),
        );
    }
}
