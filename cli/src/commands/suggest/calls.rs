//! Which calls are facts: proven by mutual TLS and served. Whatever else was seen is left
//! out, each with the reason, because a suggestion that allows more than was seen is none.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::{Edge, NodeKind, Protocol};

use super::ports::Ports;
use crate::traffic::Traffic;
use crate::traffic::select::{self, account_of};

/// Namespace and name of a service account.
pub(super) type Account = (String, String);

/// What one account called of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Traffics {
    /// Ports of the called containers.
    pub(super) ports: BTreeSet<u16>,
    /// Groups and their matches, if the calls are allowed by these alone.
    pub(super) routes: BTreeMap<String, BTreeSet<String>>,
}

/// The facts, and what is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    /// By called account, by caller, by whether routes limit them.
    pub(super) facts: BTreeMap<(Account, Account, bool), Traffics>,
    /// What was left out, and why.
    pub(super) left: Vec<String>,
}

impl Calls {
    pub(super) fn of<'a>(
        traffic: &Traffic,
        edges: impl Iterator<Item = &'a Edge>,
        ports: &Ports,
        here: Option<&str>,
        by_route: bool,
    ) -> Self {
        let mut calls = Self::default();
        for edge in edges {
            let Some(to) = traffic.node(&edge.to) else {
                continue;
            };
            let elsewhere = here.is_some_and(|here| here != to.namespace);
            if elsewhere || [NodeKind::External, NodeKind::Outside].contains(&to.kind) {
                continue;
            }
            if let Err(why) = calls.add(traffic, edge, ports, by_route) {
                let (from, to) = (
                    select::shown(traffic, &edge.from, here),
                    select::shown(traffic, &edge.to, here),
                );
                calls
                    .left
                    .push(format!("{from} to {to} port {}: {why}", edge.port));
            }
        }
        calls
    }

    fn add(
        &mut self,
        traffic: &Traffic,
        edge: &Edge,
        ports: &Ports,
        by_route: bool,
    ) -> Result<(), String> {
        if !served(edge) {
            return Err(match (edge.quiet, edge.failure) {
                (_, 1..) => "was not served".to_owned(),
                _ => format!("is only remembered, last seen {}", edge.last_seen),
            });
        }
        let share = proven(edge);
        if share <= 0.0 || edge.identities.is_empty() {
            return Err("no mutual TLS proves who calls".to_owned());
        }
        let to = traffic.node(&edge.to);
        let accounts = to.map(|node| node.accounts.as_slice()).unwrap_or_default();
        let [account] = accounts else {
            return Err(format!(
                "the called pods have {} service accounts",
                accounts.len()
            ));
        };
        let destination = account_of(account).ok_or("its identity is no service account")?;
        let service = if edge.backend.is_empty() {
            &edge.service
        } else {
            &edge.backend
        };
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
        let routes = if by_route && is_http(edge.protocol) {
            routes(edge)?
        } else {
            BTreeMap::new()
        };
        for caller in &edge.identities {
            let source = account_of(caller).ok_or("an identity of the callers is no account")?;
            let owned = |(namespace, name): (&str, &str)| (namespace.to_owned(), name.to_owned());
            let key = (owned(destination), owned(source), !routes.is_empty());
            let traffics = self.facts.entry(key).or_default();
            traffics.ports.extend(&found);
            for (group, matches) in &routes {
                let held = traffics.routes.entry(group.clone()).or_default();
                held.extend(matches.iter().cloned());
            }
        }
        if share < 1.0 {
            return Err(
                "a part of the calls came in plaintext; that part is not suggested".to_owned(),
            );
        }
        Ok(())
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

/// Now, or in one of the minutes that are known.
fn served(edge: &Edge) -> bool {
    edge.success > 0
        || edge.open > 0
        || edge
            .history
            .iter()
            .any(|minute| minute.requests > minute.failure)
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

/// The routes of the calls that were served. One without a name would be refused.
fn routes(edge: &Edge) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let told = edge.routes.iter().any(|route| route.failure > 0);
    if edge.failure > 0 && !told {
        return Err("some of its calls failed, and nobody says of which route".to_owned());
    }
    let mut routes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in edge
        .routes
        .iter()
        .filter(|route| route.requests > route.failure)
    {
        let Some((group, name)) = route.route.split_once('/') else {
            return Err(
                "some of its calls have no route; without --routes it is suggested by port"
                    .to_owned(),
            );
        };
        routes
            .entry(group.to_owned())
            .or_default()
            .insert(name.to_owned());
    }
    if routes.is_empty() {
        return Err(
            "its routes are not known; without --routes it is suggested by port".to_owned(),
        );
    }
    Ok(routes)
}
