//! Refused calls, by account and port. A rule allows whatever calls of that account come to that
//! port, by whichever workload, Service or protocol, so a refusal on one edge counts against rules
//! that follow from another.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::{Edge, RouteSums};

use super::called::{self, Account, Ports};
use super::reported::{self, Routes};
use crate::traffic::IndexedGraph;

/// Edges with calls that were refused, or may have been.
#[derive(Debug)]
pub(super) struct Refusals<'a> {
    /// The user's namespace, for names in messages.
    here: Option<&'a str>,
    /// By called account and caller.
    standing: BTreeMap<(Account, Account), Vec<Refusal<'a>>>,
}

/// One of them, at one called account.
#[derive(Debug)]
struct Refusal<'a> {
    edge: &'a Edge,
    /// Ports of the called containers; `None`: not known, so it may be any.
    ports: Option<BTreeSet<u16>>,
    why: String,
}

impl<'a> Refusals<'a> {
    /// Of all edges, also of those that nothing is suggested for.
    pub(super) fn of(traffic: &'a IndexedGraph, ports: &Ports, here: Option<&'a str>) -> Self {
        let mut standing: BTreeMap<(Account, Account), Vec<Refusal<'a>>> = BTreeMap::new();
        for edge in traffic.edges() {
            let known = earlier_refusals_are_known(traffic, edge);
            let Err(why) = known.and_then(|()| none_was_refused(traffic, edge)) else {
                continue;
            };
            let to = traffic.node(&edge.to);
            let accounts = to.map(|node| node.accounts.as_slice()).unwrap_or_default();
            for destination in accounts.iter().filter_map(|id| called::account(id)) {
                let found = called::ports_at(&destination.0, edge, ports).ok();
                for source in edge.identities.iter().filter_map(|id| called::account(id)) {
                    let key = (destination.clone(), source);
                    standing.entry(key).or_default().push(Refusal {
                        edge,
                        ports: found.clone(),
                        why: why.clone(),
                    });
                }
            }
        }
        Self { here, standing }
    }

    /// Whether no other edge has refused calls that rules for this one would let pass: by these
    /// ports, and where there are `routes` by these alone.
    ///
    /// # Errors
    /// Which one has, and what was refused.
    pub(super) fn none_stands_elsewhere(
        &self,
        traffic: &IndexedGraph,
        edge: &Edge,
        (destination, ports): (&Account, &BTreeSet<u16>),
        routes: &Routes,
    ) -> Result<(), String> {
        for source in edge.identities.iter().filter_map(|id| called::account(id)) {
            let name = format!("{}/{}", source.0, source.1);
            let standing = self.standing.get(&(destination.clone(), source));
            let mut standing = standing.into_iter().flatten();
            let stands = standing.find(|one| {
                !std::ptr::eq(one.edge, edge)
                    && one.is_at(edge, ports)
                    && (routes.is_empty() || one.is_by(traffic, routes))
            });
            let Some(one) = stands else {
                continue;
            };
            let also = called::named(traffic, one.edge, self.here);
            let by = if routes.is_empty() {
                "a rule for its port"
            } else {
                "a rule for its routes, of which one may have been refused there,"
            };
            return Err(format!(
                "{by} is for all calls of account {name}, also for those of {also} ({}): {}",
                one.edge.protocol.as_str(),
                one.why
            ));
        }
        Ok(())
    }
}

impl Refusal<'_> {
    /// Whether its calls may have come to one of these ports, which are those of this edge.
    fn is_at(&self, edge: &Edge, ports: &BTreeSet<u16>) -> bool {
        let Some(own) = &self.ports else {
            return true;
        };
        // Proxies distinguish declared ports, and the author of a Service declares them.
        let may_be_any = own.contains(&0) && edge.service.is_empty();
        may_be_any || !own.is_disjoint(ports)
    }

    /// Whether calls of the window by one of these routes may have been refused.
    fn is_by(&self, traffic: &IndexedGraph, routes: &Routes) -> bool {
        let is_among = |route: &RouteSums| {
            let named = route.route.split_once('/');
            named.is_some_and(|(group, name)| {
                routes
                    .get(group)
                    .is_some_and(|matches| matches.contains(name))
            })
        };
        // Routes beside a word that edges share are those of all of them, as is the word.
        if reported::refused_by_its_port(traffic, self.edge).is_none() {
            return false;
        }
        let server = reported::server(self.edge);
        let calls = server.map_or(self.edge.requests, |server| server.requests);
        let own = self.edge.routes.iter();
        let covered = own.map(|route| route.requests).fold(0, u64::saturating_add);
        // Calls without a reported route may have been of any.
        if calls > covered {
            return true;
        }
        let mut own = self.edge.routes.iter().filter(|route| is_among(route));
        own.any(|route| !matches!(reported::is_served(traffic, self.edge, route), Ok(true)))
    }
}

/// Of minutes that are not reported it is not known what was proven, served or refused in them.
///
/// # Errors
/// When there are such.
pub(super) fn earlier_refusals_are_known(
    traffic: &IndexedGraph,
    edge: &Edge,
) -> Result<(), String> {
    if !edge.history_left_out {
        return Ok(());
    }
    let seconds = traffic.graph.metadata.window_seconds;
    Err(format!(
        "its minutes before the last {seconds} s had no room in the answer, and some of its calls \
         may have been refused; -n asks for one namespace alone, --since {seconds}s looks at the \
         later ones alone"
    ))
}

/// A rule for a port lets all calls to it pass, also those that were refused.
///
/// # Errors
/// When some were, or may have been.
pub(super) fn none_was_refused(traffic: &IndexedGraph, edge: &Edge) -> Result<(), String> {
    if let Some(refused) = reported::refused_by_its_port(traffic, edge) {
        return Err(format!(
            "{refused} were not allowed, and a rule for its port would let them pass"
        ));
    }
    let failed: u64 = reported::earlier_minutes(traffic, edge)
        .map(|minute| minute.failure)
        .fold(0, u64::saturating_add);
    if failed > 0 {
        let seconds = traffic.graph.metadata.window_seconds;
        return Err(format!(
            "{failed} of its calls before the last {seconds} s failed, and some may \
             have been refused: a rule for its port would let them pass; --since {seconds}s looks \
             at the later ones alone, with --routes by their routes"
        ));
    }
    // Its caller counted no failure, and the called side refused all the same.
    if reported::earlier_minutes(traffic, edge).any(|minute| minute.refused) {
        let seconds = traffic.graph.metadata.window_seconds;
        return Err(format!(
            "some calls by its port before the last {seconds} s were not allowed, and a rule for \
             the port would let them pass"
        ));
    }
    Ok(())
}
