//! Which calls are facts: proven by mutual TLS and served, as the called side says. Whatever
//! else was seen is left out, each with the reason, because a suggestion that allows more than
//! was seen is none.
//!
//! By routes only where those of all these calls are known: a rule for some of them would
//! refuse what was proven and served. Elsewhere the port is all that limits an edge, and
//! the reason is said.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::{Edge, Minute, NodeKind, Protocol};

use super::earlier;
use super::ports::Ports;
use super::routes::{self, Routes};
use super::told;
use crate::traffic::IndexedGraph;
use crate::traffic::select::{self, account_of};

/// Namespace and name of a service account.
pub(super) type Account = (String, String);

/// What one account called of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Traffics {
    /// Ports of the called containers.
    pub(super) ports: BTreeSet<u16>,
    /// Groups and their matches, if the calls are allowed by these alone.
    pub(super) routes: Routes,
}

/// The facts, and what is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    /// By called account, by caller, and where routes limit them by the ports that these were
    /// seen on: routes and ports of several edges as one would allow each on every port.
    pub(super) facts: BTreeMap<(Account, Account, Option<BTreeSet<u16>>), Traffics>,
    /// What was left out, and why.
    pub(super) left: Vec<String>,
    /// What is allowed by its port although routes were asked for, and why.
    pub(super) by_port: Vec<String>,
    /// What no rule allowed, and how often.
    pub(super) refused: Vec<String>,
    /// How many of those that were left out might have been facts by the word of a newer controller.
    pub(super) untold: usize,
}

impl Calls {
    pub(super) fn of<'a>(
        traffic: &IndexedGraph,
        edges: impl Iterator<Item = &'a Edge>,
        ports: &Ports,
        here: Option<&str>,
        by_route: bool,
    ) -> Self {
        let mut calls = Self::default();
        // What callers say comes last: it may be what called pods say of another edge.
        let (first, last): (Vec<_>, Vec<_>) = edges.partition(|edge| told::served(edge).is_ok());
        for edge in first.into_iter().chain(last) {
            let Some(to) = traffic.node(&edge.to) else {
                continue;
            };
            let elsewhere = here.is_some_and(|here| here != to.namespace);
            if elsewhere || [NodeKind::External, NodeKind::Outside].contains(&to.kind) {
                continue;
            }
            let (from, to) = (
                select::shown(traffic, &edge.from, here),
                select::shown(traffic, &edge.to, here),
            );
            let named = format!("{from} to {to} port {}", edge.port);
            let refused = told::refusals(traffic, edge);
            calls
                .refused
                .extend(refused.map(|what| format!("{named}: {what}")));
            if let Err(why) = calls.add(traffic, edge, ports, by_route, &named) {
                calls.left.push(format!("{named}: {why}"));
            }
        }
        calls
    }

    fn add(
        &mut self,
        traffic: &IndexedGraph,
        edge: &Edge,
        ports: &Ports,
        by_route: bool,
        named: &str,
    ) -> Result<(), String> {
        are_earlier_ones_told(traffic, edge)?;
        if !served(edge) {
            return Err(match edge.requests {
                0 => format!("is only remembered, last seen {}", edge.last_seen),
                _ => "was not served".to_owned(),
            });
        }
        let share = proven(edge);
        if share <= 0.0 {
            return Err("no mutual TLS proves who calls".to_owned());
        }
        // Where no proxy says whose calls these were, the accounts are those of the pods that there
        // are, and calls outlive a Job's.
        if edge.identities.is_empty() {
            return Err(
                "no meshed pod of the caller is known now, so its account is not".to_owned(),
            );
        }
        let (destination, found) = called(traffic, edge, ports)?;
        if let Err(why) = told::served(edge) {
            return match self.has(&destination, edge, &found) {
                true => Ok(()),
                false => Err(self.unserved(traffic, edge, why)),
            };
        }
        let mut by_port = None;
        let routes = if by_route && is_http(edge.protocol) {
            routes::of(traffic, edge).unwrap_or_else(|why| {
                by_port = Some(format!("{named}: {why}"));
                Routes::new()
            })
        } else {
            Routes::new()
        };
        if routes.is_empty() {
            none_was_refused(traffic, edge)?;
        }
        self.by_port.extend(by_port);
        self.take(&destination, &edge.identities, &found, &routes)?;
        if share < 1.0 {
            return Err(
                "a part of the calls came in plaintext; that part is not suggested".to_owned(),
            );
        }
        Ok(())
    }

    /// Why an edge is left out of which the called side is not known to have served calls.
    fn unserved(&mut self, traffic: &IndexedGraph, edge: &Edge, why: &str) -> String {
        // What it told of the window is known; of minutes before, an older controller says nothing.
        let has_untold =
            told::server(edge).is_none() || earlier::minutes(traffic, edge).any(Minute::served);
        if has_untold && !traffic.tells_sides() {
            self.untold += 1;
            return told::UNTOLD.to_owned();
        }
        // What is missing may be the called side's word.
        if traffic.is_lossy() {
            return format!("{why}, as far as was told by now");
        }
        why.to_owned()
    }

    /// Calls of these callers to these ports, or of these routes there, are facts.
    fn take(
        &mut self,
        destination: &Account,
        callers: &[String],
        ports: &BTreeSet<u16>,
        routes: &Routes,
    ) -> Result<(), String> {
        for caller in callers {
            let (namespace, name) =
                account_of(caller).ok_or("an identity of the callers is no account")?;
            let source = (namespace.to_owned(), name.to_owned());
            let limited = (!routes.is_empty()).then(|| ports.clone());
            let key = (destination.clone(), source, limited);
            let traffics = self.facts.entry(key).or_default();
            traffics.ports.extend(ports);
            for (group, matches) in routes {
                let known = traffics.routes.entry(group.clone()).or_default();
                known.extend(matches.iter().cloned());
            }
        }
        Ok(())
    }

    /// Whether calls of all its callers to these ports are facts by what was told of other edges:
    /// two Services may lead to one port, of whose calls the called side tells once.
    fn has(&self, destination: &Account, edge: &Edge, ports: &BTreeSet<u16>) -> bool {
        edge.identities.iter().all(|caller| {
            let Some((namespace, name)) = account_of(caller) else {
                return false;
            };
            let source = (namespace.to_owned(), name.to_owned());
            let first = (destination.clone(), source.clone(), None::<BTreeSet<u16>>);
            let known = self.facts.range(first..);
            let mut known =
                known.take_while(|((to, from, _), _)| to == destination && *from == source);
            known.any(|(_, traffics)| ports.is_subset(&traffics.ports))
        })
    }

    /// What of it a reader has to know, a line each.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        let by_port = self.by_port.iter().map(|one| format!("by port: {one}"));
        let left = self.left.iter().map(|one| format!("left out: {one}"));
        let refused = self.refused.iter().map(|one| format!("refused: {one}"));
        by_port.chain(left).chain(refused)
    }

    /// Accounts that no workload has for itself.
    pub(super) fn shared(&self) -> BTreeSet<String> {
        let accounts = self.facts.keys().flat_map(|(to, from, _)| [to, from]);
        let shared = accounts.filter(|(_, name)| name == "default");
        shared
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect()
    }
}

/// Of minutes that are not told nobody knows what was proven, served or refused in them.
///
/// # Errors
/// When there are such.
fn are_earlier_ones_told(traffic: &IndexedGraph, edge: &Edge) -> Result<(), String> {
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
fn none_was_refused(traffic: &IndexedGraph, edge: &Edge) -> Result<(), String> {
    if let Some(refused) = told::refused_by_its_port(traffic, edge) {
        return Err(format!(
            "{refused} were not allowed, and a rule for its port would let them pass"
        ));
    }
    let failed: u64 = earlier::minutes(traffic, edge)
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
    if earlier::minutes(traffic, edge).any(|minute| minute.refused) {
        let seconds = traffic.graph.metadata.window_seconds;
        return Err(format!(
            "some calls by its port before the last {seconds} s were not allowed, and a rule for \
             the port would let them pass"
        ));
    }
    Ok(())
}

/// Whose pods are called, and on which of their own ports.
fn called(
    traffic: &IndexedGraph,
    edge: &Edge,
    ports: &Ports,
) -> Result<(Account, BTreeSet<u16>), String> {
    let to = traffic.node(&edge.to);
    let accounts = to.map(|node| node.accounts.as_slice()).unwrap_or_default();
    let account = match accounts {
        [account] => account,
        [] => {
            return Err(
                "no meshed pod of the called is known now, so its account is not".to_owned(),
            );
        }
        several => {
            return Err(format!(
                "the called pods have {} service accounts",
                several.len()
            ));
        }
    };
    let (namespace, name) = account_of(account).ok_or("its identity is no service account")?;
    let service = if edge.backend.is_empty() {
        &edge.service
    } else {
        &edge.backend
    };
    // Whoever may write Services elsewhere could have one lead to any port.
    let there = service.split_once('/').map(|(there, _)| there);
    if there.is_some_and(|there| there != namespace) {
        return Err(format!(
            "{service} is of another namespace and does not say which port of the called pods \
             this is"
        ));
    }
    // A pod that was called by its own address was called on its own port.
    let found = if service.is_empty() {
        BTreeSet::from([edge.port])
    } else {
        ports.behind(service, edge.port)
    };
    if found.is_empty() {
        return Err(format!(
            "no endpoint of {service} says which container port this is"
        ));
    }
    Ok(((namespace.to_owned(), name.to_owned()), found))
}

/// Now, or in one of the minutes that are known.
fn served(edge: &Edge) -> bool {
    edge.success > 0 || edge.open > 0 || edge.history.iter().any(Minute::served)
}

/// The share of the calls that mutual TLS proved, now and in the minutes that are known.
/// A part of which nobody says counts as none.
fn proven(edge: &Edge) -> f64 {
    let (mut calls, mut secured) = (0.0, 0.0);
    let mut add = |count: u64, share: Option<f64>| {
        calls += count as f64;
        secured += count as f64 * share.unwrap_or_default();
    };
    // What is open has ended nowhere, and has a security all the same.
    add(edge.requests.max(edge.open), edge.mtls);
    for minute in &edge.history {
        add(minute.requests, minute.mtls);
    }
    if calls > 0.0 { secured / calls } else { 0.0 }
}

fn is_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http1 | Protocol::Http2 | Protocol::Grpc)
}
