//! Builds the routing tables of Gateways' listeners: for each host the matches of all its routes,
//! in one order.
//!
//! Hosts with the same routes share a table. What a Gateway's pods hold is bounded, for each
//! listener and for all of them, since a resource that is larger than a message may be would cut the
//! pods off from the controller, and each pod holds all expressions compiled: the youngest routes
//! beyond a bound do not decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_api::route::RouteKind;
use policy::{
    egress::HostPattern,
    gateway::{HostRoutes, by_specificity},
    reason,
    route::{Forward, Table},
};

use super::{attached::Candidate, own::OwnGateway};
use crate::{
    compile::{
        routes::{MOST_BYTES, MOST_COMPILED},
        service_routes::{
            rules::Resolved,
            tables::{Ordered, Rules, connections, in_order},
        },
    },
    model::gateways::Places,
    problem::Reason,
    world::named,
};

/// Bytes that the routes of a Gateway may take together in its resource, a quarter of what a
/// message may have: a batch has other resources, too.
const MOST_OF_GATEWAY: usize = 8 * 1024 * 1024;

/// By place of the Gateway and of the listener in it.
pub(super) type ListenerTables = BTreeMap<(usize, usize), ListenerTable>;

/// What the routes of a listener say.
#[derive(Debug, Default)]
pub(super) struct ListenerTable {
    /// The most specific host first.
    pub(super) hosts: Vec<HostRoutes>,
    /// Of each host, for its table.
    pub(super) places: Vec<Places>,
    /// The routes in it, by place, the oldest first.
    pub(super) routes: Vec<usize>,
}

/// A route at a listener, with its hosts there.
struct Placed {
    nth: usize,
    /// Each once.
    hostnames: Arc<[Option<HostPattern>]>,
}

/// Bytes of routes.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    sent: usize,
    compiled: usize,
}

impl Cost {
    const fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            compiled: self.compiled + other.compiled,
        }
    }

    /// Without a part of it.
    const fn without(self, part: Self) -> Self {
        Self {
            sent: self.sent - part.sent,
            compiled: self.compiled - part.compiled,
        }
    }

    const fn is_within(self, most: Self) -> bool {
        self.sent <= most.sent && self.compiled <= most.compiled
    }
}

/// The tables of all listeners that are served, with notes at the candidates that are not in them.
pub(super) fn tables(
    own: &[OwnGateway<'_>],
    candidates: &mut [Candidate<'_>],
    resolved: &[Resolved],
) -> ListenerTables {
    let costs: Vec<Cost> = resolved.iter().map(cost).collect();
    let mut placed: BTreeMap<usize, BTreeMap<usize, Vec<Placed>>> = BTreeMap::new();
    for (nth, candidate) in candidates.iter().enumerate() {
        for (at, hostnames) in places(candidate) {
            let (gateway, listener) = at;
            let one = &own[gateway];
            if one.refused.is_none() && one.states[listener].refused.is_none() {
                let listeners = placed.entry(gateway).or_default();
                let here = listeners.entry(listener).or_default();
                here.push(Placed { nth, hostnames });
            }
        }
    }
    let mut made: BTreeMap<Vec<usize>, MadeTable> = BTreeMap::new();
    let mut tables = ListenerTables::new();
    for (gateway, mut listeners) in placed {
        for (listener, here) in &mut listeners {
            for nth in beyond_listener(here, &costs) {
                let name = &own[gateway].facts.spec.listeners[*listener].name;
                let message = format!(
                    "with its rules those at listener {name} of Gateway {} are more than {} KiB; \
                     it has no effect there",
                    own[gateway].key,
                    MOST_BYTES / 1024
                );
                candidates[nth].lose((gateway, *listener), Reason::UnsupportedValue, &message);
            }
        }
        for (listener, nth) in beyond_gateway(&mut listeners, &costs) {
            let message = format!(
                "with its rules those of Gateway {} are more than {} MiB, or their expressions \
                 more than {} MiB; it has no effect there",
                own[gateway].key,
                MOST_OF_GATEWAY / 1024 / 1024,
                MOST_COMPILED / 1024 / 1024
            );
            candidates[nth].lose((gateway, listener), Reason::UnsupportedValue, &message);
        }
        for (listener, here) in listeners {
            let table = table(&here, &*candidates, resolved, &mut made);
            tables.insert((gateway, listener), table);
        }
    }
    tables
}

/// The listeners at which a route decides so far, with its hosts there.
fn places(candidate: &Candidate<'_>) -> BTreeMap<(usize, usize), Arc<[Option<HostPattern>]>> {
    let mut places = BTreeMap::new();
    for reference in &candidate.references {
        for one in &reference.attached {
            if reference.lost.contains_key(&one.listener) {
                continue;
            }
            // By whichever reference it is there, its hosts are the same.
            places
                .entry((reference.gateway, one.listener))
                .or_insert_with(|| Arc::clone(&one.hostnames));
        }
    }
    places
}

const fn cost(resolved: &Resolved) -> Cost {
    Cost {
        sent: resolved.size.matches + resolved.size.actions,
        compiled: resolved.size.compiled,
    }
}

/// Each host of a listener with its routes, the oldest first.
fn by_host(here: &[Placed]) -> BTreeMap<&Option<HostPattern>, Vec<usize>> {
    let mut hosts: BTreeMap<&Option<HostPattern>, Vec<usize>> = BTreeMap::new();
    for one in here {
        for hostname in one.hostnames.iter() {
            hosts.entry(hostname).or_default().push(one.nth);
        }
    }
    hosts
}

/// Bytes of a host in the resource.
fn name_bytes(hostname: Option<&HostPattern>) -> usize {
    hostname.map_or(0, |hostname| hostname.to_string().len()) + 4
}

/// What a listener takes while routes are added to it, the oldest first. Hosts with the same routes
/// share a table, and a route counts once for each table that it is in.
///
/// Users make the routes, and thousands of them for each listener: what they take is not counted
/// anew for each number of them.
#[derive(Default)]
struct Growth<'a> {
    /// Place of the table of each host.
    hosts: BTreeMap<&'a Option<HostPattern>, usize>,
    tables: Vec<GrownTable>,
    cost: Cost,
}

/// A table that some hosts have, or had before their last route.
struct GrownTable {
    hosts: usize,
    cost: Cost,
}

impl<'a> Growth<'a> {
    fn add(&mut self, one: &'a Placed, costs: &[Cost]) {
        let own = costs[one.nth];
        // Hosts that had one table have one again.
        let mut next: BTreeMap<Option<usize>, usize> = BTreeMap::new();
        for hostname in one.hostnames.iter() {
            let before = self.hosts.get(hostname).copied();
            let tables = &mut self.tables;
            let after = *next.entry(before).or_insert_with(|| {
                let cost = before.map_or(own, |before| tables[before].cost.and(own));
                tables.push(GrownTable { hosts: 0, cost });
                tables.len() - 1
            });
            self.hosts.insert(hostname, after);
            self.tables[after].hosts += 1;
            if self.tables[after].hosts == 1 {
                self.cost = self.cost.and(self.tables[after].cost);
            }
            let Some(before) = before else {
                self.cost.sent += name_bytes(hostname.as_ref());
                continue;
            };
            self.tables[before].hosts -= 1;
            if self.tables[before].hosts == 0 {
                self.cost = self.cost.without(self.tables[before].cost);
            }
        }
    }
}

/// Takes the routes away with which a listener would have too much, the youngest first, and returns
/// them. One that is too large alone costs no other.
fn beyond_listener(here: &mut Vec<Placed>, costs: &[Cost]) -> Vec<usize> {
    let most = Cost {
        sent: MOST_BYTES,
        compiled: usize::MAX,
    };
    let mut beyond: Vec<usize> = Vec::new();
    here.retain(|one| {
        let mut alone = Growth::default();
        alone.add(one, costs);
        let within = alone.cost.is_within(most);
        if !within {
            beyond.push(one.nth);
        }
        within
    });
    let within = {
        let mut growth = Growth::default();
        let first = here.iter().position(|one| {
            growth.add(one, costs);
            !growth.cost.is_within(most)
        });
        first.unwrap_or(here.len())
    };
    beyond.extend(here.drain(within..).map(|one| one.nth));
    beyond
}

/// The same of all listeners of a Gateway together.
fn beyond_gateway(
    listeners: &mut BTreeMap<usize, Vec<Placed>>,
    costs: &[Cost],
) -> Vec<(usize, usize)> {
    let Some(first) = first_beyond_gateway(listeners, costs) else {
        return Vec::new();
    };
    let mut beyond = Vec::new();
    for (listener, here) in listeners.iter_mut() {
        // The routes of a listener stand in the order of their places.
        let within = here.partition_point(|one| one.nth < first);
        beyond.extend(here.drain(within..).map(|one| (*listener, one.nth)));
    }
    beyond
}

/// The oldest route with which all listeners together would have too much.
fn first_beyond_gateway(listeners: &BTreeMap<usize, Vec<Placed>>, costs: &[Cost]) -> Option<usize> {
    let most = Cost {
        sent: MOST_OF_GATEWAY,
        compiled: MOST_COMPILED,
    };
    let mut places: Vec<(usize, usize, &Placed)> = Vec::new();
    for (listener, here) in listeners {
        places.extend(here.iter().map(|one| (one.nth, *listener, one)));
    }
    places.sort_by_key(|(nth, listener, _)| (*nth, *listener));
    let mut grown: BTreeMap<usize, Growth<'_>> = BTreeMap::new();
    let mut cost = Cost::default();
    for (nth, listener, one) in places {
        let growth = grown.entry(listener).or_default();
        cost = cost.without(growth.cost);
        growth.add(one, costs);
        cost = cost.and(growth.cost);
        if !cost.is_within(most) {
            return Some(nth);
        }
    }
    None
}

/// The table of some routes, and which of their rules its rules are.
type MadeTable = (Arc<Table<Forward>>, Places);

fn table(
    here: &[Placed],
    candidates: &[Candidate<'_>],
    resolved: &[Resolved],
    made: &mut BTreeMap<Vec<usize>, MadeTable>,
) -> ListenerTable {
    let hosts = by_host(here).into_iter().map(|(hostname, routes)| {
        let (table, places) = made
            .entry(routes)
            .or_insert_with_key(|routes| table_of(routes, candidates, resolved));
        let host = HostRoutes {
            hostname: hostname.clone(),
            table: Arc::clone(table),
        };
        (host, Arc::clone(places))
    });
    let mut hosts: Vec<(HostRoutes, Places)> = hosts.collect();
    hosts.sort_by_key(|(host, _)| by_specificity(host.hostname.as_ref()));
    let (hosts, places) = hosts.into_iter().unzip();
    ListenerTable {
        hosts,
        places,
        routes: here.iter().map(|one| one.nth).collect(),
    }
}

/// The table of some routes of one kind. What fits none of its rules is for the next host.
fn table_of(routes: &[usize], candidates: &[Candidate<'_>], resolved: &[Resolved]) -> MadeTable {
    let (rules, places) = rules(routes, candidates, resolved);
    let table = Table {
        rules,
        otherwise: Forward::Refuse(reason::Reason::NoRoute),
    };
    (Arc::new(table), places.into())
}

fn rules(routes: &[usize], candidates: &[Candidate<'_>], resolved: &[Resolved]) -> Rules {
    let is_of_connections = |nth: &usize| {
        let kind = candidates[*nth].route.kind;
        matches!(kind, RouteKind::Tcp | RouteKind::Tls)
    };
    let origin = |nth: usize| named(&candidates[nth].object());
    if routes.iter().any(is_of_connections) {
        let (mut rules, mut places): Rules = (Vec::new(), Vec::new());
        for nth in routes {
            let one = Some(&resolved[*nth]);
            let (rule, place) = connections(candidates[*nth].route, origin(*nth), one);
            rules.extend(rule);
            places.extend(place);
        }
        (rules, places)
    } else {
        let ordered = routes.iter().map(|nth| Ordered {
            route: candidates[*nth].route,
            created: candidates[*nth].meta.created,
            origin: origin(*nth),
            resolved: &resolved[*nth],
        });
        in_order(&ordered.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a listener with these routes takes, counted at once.
    fn counted(here: &[Placed], costs: &[Cost]) -> Cost {
        let hosts = by_host(here);
        let names = hosts.keys().copied().map(Option::as_ref).map(name_bytes);
        let names = Cost {
            sent: names.sum(),
            compiled: 0,
        };
        let distinct: BTreeSet<Vec<usize>> = hosts.into_values().collect();
        let routes = distinct.iter().flatten().map(|nth| costs[*nth]);
        routes.fold(names, Cost::and)
    }

    /// Each set of three hosts for each of four routes.
    #[test]
    fn growth_counts_what_all_routes_take_together() {
        let hosts = [None, Some("a.example"), Some("*.b.example")];
        let hosts = hosts.map(|host| host.map(|host| host.parse::<HostPattern>().unwrap()));
        let costs = [(1, 5), (100, 50), (10_000, 500), (1_000_000, 5000)];
        let costs = costs.map(|(sent, compiled)| Cost { sent, compiled });
        for number in 0..7 * 7 * 7 * 7_usize {
            let powers = [1, 7, 49, 343].into_iter().enumerate();
            let here = powers.map(|(nth, power)| {
                let set = number / power % 7 + 1;
                let named = hosts.iter().enumerate();
                let named = named.filter(|(place, _)| (set >> place) & 1 == 1);
                Placed {
                    nth,
                    hostnames: named.map(|(_, host)| host.clone()).collect(),
                }
            });
            let here: Vec<Placed> = here.collect();
            let mut growth = Growth::default();
            for (last, one) in here.iter().enumerate() {
                growth.add(one, &costs);
                let counted = counted(&here[..=last], &costs);
                let (grown, number) = (growth.cost, (number, last));
                assert_eq!(grown.sent, counted.sent, "{number:?}");
                assert_eq!(grown.compiled, counted.compiled, "{number:?}");
            }
        }
    }
}
