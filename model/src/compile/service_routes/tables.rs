//! Builds the routing tables of Service ports: which kind of route decides at a port for which
//! callers, and the order of all its matches.
//!
//! Matches of several routes are one list, the most specific first. A request that fits none is
//! refused: it never goes to the Service itself, which some rule may keep it from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_api::{
    order::{self, Key},
    route::{Route, RouteMatch},
};
use policy::{
    name::{Kind, ObjectRef},
    origin::Origin,
    reason,
    route::{Forward, Match, Rule, Table},
};

use super::{
    parents::{Candidate, Lost, Place},
    rules::{Resolved, ResolvedByParent, RouteSize},
};
use crate::{
    compile::routes::{MOST_BYTES, MOST_COMPILED},
    model::service_routes::{PortRoutes, RoutedTable, RulePlace, ServiceRoutes},
    problem::Reason,
    world::{ObjectKey, named},
};

/// The tables of all Services, with notes at the candidates where they do not decide.
pub(super) fn tables(
    candidates: &mut [Candidate<'_>],
    resolved: &ResolvedByParent,
) -> BTreeMap<ObjectKey, ServiceRoutes> {
    // The routes of each place, the oldest first.
    let mut places: BTreeMap<Place, BTreeSet<usize>> = BTreeMap::new();
    for (nth, candidate) in candidates.iter().enumerate() {
        for parent in &candidate.parents {
            for port in &parent.ports {
                let place = Place {
                    service: parent.service.clone(),
                    port: *port,
                    audience: Arc::clone(&parent.audience),
                };
                places.entry(place).or_default().insert(nth);
            }
        }
    }
    let mut tables: BTreeMap<ObjectKey, ServiceRoutes> = BTreeMap::new();
    // A route may have many parents, and these many ports, which get the same.
    let mut made: BTreeMap<Deciding, Option<Arc<RoutedTable>>> = BTreeMap::new();
    for (place, all) in places {
        let deciding = deciding(&place, &all, candidates, resolved);
        let namespace = Arc::clone(&place.service.namespace);
        let made = made.entry((namespace, deciding));
        let made = made.or_insert_with_key(|(namespace, deciding)| {
            table(namespace, deciding, candidates, resolved).map(Arc::new)
        });
        let Some(table) = made.clone() else {
            continue;
        };
        let ServiceRoutes(ports) = tables.entry(place.service).or_default();
        let at: &mut PortRoutes = ports.entry(place.port).or_default();
        if place.audience.is_empty() {
            at.everyone = Some(table);
        } else {
            at.consumers.insert(place.audience, table);
        }
    }
    tables
}

/// A namespace of parents, and which routes decide at a place in it.
type Deciding = (Arc<str>, Vec<usize>);

/// The routes that decide at a place, among all that are for it. The others learn why they do not.
fn deciding(
    place: &Place,
    all: &BTreeSet<usize>,
    candidates: &mut [Candidate<'_>],
    resolved: &ResolvedByParent,
) -> Vec<usize> {
    let is_there = |kind: &Kind| all.iter().any(|nth| candidates[*nth].kind == *kind);
    let Some(kind) = Kind::GATEWAY_ROUTES.into_iter().find(is_there) else {
        return Vec::new();
    };
    let (mut deciding, others): (Vec<usize>, Vec<usize>) =
        all.iter().partition(|nth| candidates[**nth].kind == kind);
    let Some(first) = deciding.first() else {
        return Vec::new();
    };
    let Place { service, port, .. } = place;
    let winner = candidates[*first].words();
    for nth in others {
        let message = format!(
            "{winner} decides at port {port} of Service {service}: a {} comes before a {} there; \
             delete one of them, or name another port",
            kind.word(),
            candidates[nth].kind.word(),
        );
        candidates[nth].lose(place, &conflicted(message));
    }
    if kind == Kind::GatewayTcpRoute {
        for nth in deciding.drain(1..) {
            let message = format!(
                "{winner} decides at port {port} of Service {service}: it is older, or as old and \
                 the first by name, and connections have nothing to tell routes apart by; delete \
                 one of them"
            );
            candidates[nth].lose(place, &conflicted(message));
        }
    }
    within_bounds(place, deciding, candidates, resolved)
}

const fn conflicted(message: String) -> Lost {
    Lost {
        reason: Reason::Conflicted,
        message,
    }
}

/// Leaves out the routes with which a table would become too large, the youngest first: a resource
/// that is larger than a message may be would cut every caller off from the controller, and each
/// caller's proxy holds all expressions compiled.
fn within_bounds(
    place: &Place,
    deciding: Vec<usize>,
    candidates: &mut [Candidate<'_>],
    resolved: &ResolvedByParent,
) -> Vec<usize> {
    let namespace = &place.service.namespace;
    let mut taken = RouteSize::default();
    let mut within = Vec::new();
    for nth in deciding {
        let own = resolved.get(&(nth, Arc::clone(namespace)));
        let own = own.map_or_else(RouteSize::default, |own| own.size);
        let together = RouteSize {
            matches: taken.matches + own.matches,
            actions: taken.actions + own.actions,
            compiled: taken.compiled + own.compiled,
        };
        let Some(message) = excess(together, &candidates[nth], place) else {
            taken = together;
            within.push(nth);
            continue;
        };
        let reason = Reason::UnsupportedValue;
        candidates[nth].lose(place, &Lost { reason, message });
    }
    within
}

/// Why a route has no effect at a place where those before it and itself take so much; `None` if
/// there is room.
fn excess(together: RouteSize, route: &Candidate<'_>, place: &Place) -> Option<String> {
    let Place { service, port, .. } = place;
    let too_many = if together.matches > MOST_BYTES {
        "matches"
    } else if together.actions > MOST_BYTES {
        "filters and backends"
    } else if together.compiled > MOST_COMPILED {
        return Some(format!(
            "with the expressions of {} those at port {port} of Service {service} take more than \
             {} MiB when compiled; it has no effect there: write exact values or prefixes in place \
             of expressions, here or in the older routes",
            route.words(),
            MOST_COMPILED / (1024 * 1024)
        ));
    } else {
        return None;
    };
    Some(format!(
        "with its {too_many} those at port {port} of Service {service} are more than {} KiB; it \
         has no effect there",
        MOST_BYTES / 1024
    ))
}

/// A route whose rules are brought into one order with those of others.
pub(in crate::compile) struct Ordered<'a> {
    pub(in crate::compile) route: &'a Route,
    /// In seconds since 1970.
    pub(in crate::compile) created: i64,
    pub(in crate::compile) origin: Origin,
    pub(in crate::compile) resolved: &'a Resolved,
}

/// One match, with what becomes of requests that fit it.
struct Row<'a> {
    key: Key,
    one: &'a RouteMatch,
    nth: usize,
    rule: usize,
}

/// The table of Services of a namespace at which these routes decide; `None` without any.
fn table(
    namespace: &Arc<str>,
    deciding: &[usize],
    candidates: &[Candidate<'_>],
    resolved: &ResolvedByParent,
) -> Option<RoutedTable> {
    let first = &candidates[*deciding.first()?];
    let rules_of = |nth: usize| resolved.get(&(nth, Arc::clone(namespace)));
    let origin = |candidate: &Candidate<'_>| (candidate.object(), candidate.meta.generation);
    let mut origins: Vec<(ObjectRef, i64)> = deciding
        .iter()
        .map(|nth| origin(&candidates[*nth]))
        .collect();
    origins.sort();
    let all: BTreeMap<usize, &Resolved> = deciding
        .iter()
        .filter_map(|nth| Some((*nth, rules_of(*nth)?)))
        .collect();
    let (rules, places) = if first.kind == Kind::GatewayTcpRoute {
        let resolved = all.values().next().copied();
        connections(first.route, named(&first.object()), resolved)
    } else {
        requests(first, &all, candidates)
    };
    let only_first = first.kind == Kind::GatewayTcpRoute;
    let leads_to = all.values().flat_map(|resolved| {
        let counting = if only_first { 1 } else { resolved.rules.len() };
        resolved.rules.iter().take(counting)
    });
    let leads_to = leads_to.flat_map(|rule| rule.leads_to.iter().cloned());
    Some(RoutedTable {
        leads_to: leads_to.collect(),
        table: Table {
            rules,
            otherwise: Forward::Root,
        },
        places,
        origins,
    })
}

pub(in crate::compile) type Rules = (Vec<Rule<Forward>>, Vec<Option<RulePlace>>);

/// A route's first rule, for all connections and requests.
pub(in crate::compile) fn connections(
    route: &Route,
    origin: Origin,
    resolved: Option<&Resolved>,
) -> Rules {
    let first = resolved.and_then(|resolved| resolved.rules.first());
    let nowhere = Forward::Refuse(reason::Reason::InvalidBackend);
    let rule = Rule {
        origin,
        when: Match::Always,
        then: first.map_or(nowhere, |rule| rule.then.clone()),
    };
    (vec![rule], vec![Some(place_of(route, 0))])
}

/// All matches in order. What fits none is refused, in the name of the oldest route.
fn requests(
    oldest: &Candidate<'_>,
    all: &BTreeMap<usize, &Resolved>,
    candidates: &[Candidate<'_>],
) -> Rules {
    let ordered = all.iter().map(|(nth, resolved)| {
        let candidate = &candidates[*nth];
        Ordered {
            route: candidate.route,
            created: candidate.meta.created,
            origin: named(&candidate.object()),
            resolved,
        }
    });
    let (mut rules, mut places) = in_order(&ordered.collect::<Vec<_>>());
    rules.push(Rule {
        origin: named(&oldest.object()),
        when: Match::every_request(),
        then: Forward::Refuse(reason::Reason::NoRoute),
    });
    places.push(None);
    (rules, places)
}

/// All matches of some routes in the order in which they are tried, those of one rule that follow
/// each other as one.
pub(in crate::compile) fn in_order(all: &[Ordered<'_>]) -> Rules {
    let mut rows = Vec::new();
    for (nth, one) in all.iter().enumerate() {
        for (rule, written) in one.route.rules.iter().enumerate() {
            for (place, a_match) in written.matches.iter().enumerate() {
                rows.push(Row {
                    key: Key::new(one.route, one.created, rule, place, a_match),
                    one: a_match,
                    nth,
                    rule,
                });
            }
        }
    }
    order::sort(&mut rows, |row| &row.key);
    let (mut rules, mut places): Rules = (Vec::new(), Vec::new());
    let mut last = None;
    for row in rows {
        let at = (row.nth, row.rule);
        if last == Some(at)
            && let Some(Rule {
                when: Match::AnyOf(matches),
                ..
            }) = rules.last_mut()
        {
            matches.push(row.one.http.clone());
            continue;
        }
        let ordered = &all[row.nth];
        let Some(resolved) = ordered.resolved.rules.get(row.rule) else {
            continue;
        };
        last = Some(at);
        rules.push(Rule {
            origin: ordered.origin.clone(),
            when: Match::AnyOf(vec![row.one.http.clone()]),
            then: resolved.then.clone(),
        });
        places.push(Some(place_of(ordered.route, row.rule)));
    }
    (rules, places)
}

fn place_of(route: &Route, rule: usize) -> RulePlace {
    let written = route.rules.get(rule);
    let name = written.and_then(|rule| rule.name.as_deref());
    RulePlace {
        rule: u32::try_from(rule).unwrap_or(u32::MAX),
        name: name.map(Arc::from),
    }
}
