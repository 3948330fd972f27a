//! Converts the configuration of a Gateway's pods: listeners, and the routes of each.
//!
//! What cannot be read refuses the whole resource, and the Gateway keeps the last good one: a
//! listener that is left out might be the one that keeps a host from the routes of another.

use std::sync::Arc;

use policy::egress::HostPattern;
use policy::gateway::{Gateway, HostRoutes, Listener, by_specificity};
use policy::reason::Reason;
use policy::route::{Forward, Table};

use super::error::{BadResource, each};
use super::object::origin;
use super::port::port;
use super::routed::{rules, rules_message};
use crate::names::{self, Name};
use crate::v1;
use crate::v1::gateway_listener::Protocol;

/// What the pods of a Gateway serve.
///
/// # Errors
/// With the field that is wrong.
pub fn gateway(message: &v1::Gateway) -> Result<Gateway, BadResource> {
    Ok(Gateway {
        origin: origin(message.origin.as_ref())?,
        listeners: each("listeners", &message.listeners)?,
    })
}

impl From<&Gateway> for v1::Gateway {
    fn from(gateway: &Gateway) -> Self {
        let listeners = gateway.listeners.iter();
        Self {
            origin: Some((&gateway.origin).into()),
            listeners: listeners.map(v1::GatewayListener::from).collect(),
        }
    }
}

impl TryFrom<&v1::GatewayListener> for Listener {
    type Error = BadResource;

    fn try_from(message: &v1::GatewayListener) -> Result<Self, BadResource> {
        let protocol = Protocol::try_from(message.protocol);
        let protocol = protocol.map_err(|_| BadResource::unknown("protocol"))?;
        let certificates = message.certificates.iter().enumerate().map(|(i, name)| {
            let is_certificate = matches!(names::parse(name), Some(Name::Certificate { .. }));
            let wrong = || BadResource::new(format!("certificates[{i}]"), "is no certificate");
            is_certificate
                .then(|| Arc::<str>::from(name.as_str()))
                .ok_or_else(wrong)
        });
        let mut routes = Vec::new();
        for (i, one) in message.routes.iter().enumerate() {
            let here = |bad: BadResource| bad.within(format_args!("routes[{i}]"));
            routes.extend(host_routes(one).map_err(here)?);
        }
        routes.sort_by_key(|one| by_specificity(one.hostname.as_ref()));
        Ok(Self {
            name: message.name.as_str().into(),
            port: port("port", message.port)?,
            target_port: port("targetPort", message.target_port)?,
            protocol: protocol.into(),
            hostname: hostname("hostname", &message.hostname)?,
            certificates: certificates.collect::<Result<_, _>>()?,
            routes,
        })
    }
}

impl From<&Listener> for v1::GatewayListener {
    fn from(listener: &Listener) -> Self {
        let text = |hostname: Option<&HostPattern>| match hostname {
            Some(pattern) => pattern.to_string(),
            None => String::new(),
        };
        // Hosts with the same rules share one message.
        let mut shared: Vec<(&Arc<Table<Forward>>, Vec<String>)> = Vec::new();
        for HostRoutes { hostname, table } in &listener.routes {
            let hostname = text(hostname.as_ref());
            match shared.iter_mut().find(|(one, _)| Arc::ptr_eq(one, table)) {
                Some((_, hostnames)) => hostnames.push(hostname),
                None => shared.push((table, vec![hostname])),
            }
        }
        let routes = shared.into_iter().map(|(table, hostnames)| {
            let (actions, rules) = rules_message(&table.rules);
            v1::GatewayRoutes {
                hostnames,
                actions,
                rules,
            }
        });
        Self {
            name: listener.name.to_string(),
            port: listener.port.into(),
            target_port: listener.target_port.into(),
            protocol: Protocol::from(listener.protocol).into(),
            hostname: text(listener.hostname.as_ref()),
            certificates: listener
                .certificates
                .iter()
                .map(ToString::to_string)
                .collect(),
            routes: routes.collect(),
        }
    }
}

/// The rules, for each of the hosts.
fn host_routes(message: &v1::GatewayRoutes) -> Result<Vec<HostRoutes>, BadResource> {
    let rules = rules(&message.actions, &message.rules)?;
    if rules.iter().any(|rule| rule.then == Forward::Root) {
        return Err(BadResource::new("rules", "lead to no Service"));
    }
    let table = Arc::new(Table {
        rules,
        otherwise: Forward::Refuse(Reason::NoRoute),
    });
    let every = [String::new()];
    let hostnames: &[String] = if message.hostnames.is_empty() {
        &every
    } else {
        &message.hostnames
    };
    let routes = hostnames.iter().enumerate().map(|(i, raw)| {
        Ok(HostRoutes {
            hostname: hostname(&format!("hostnames[{i}]"), raw)?,
            table: Arc::clone(&table),
        })
    });
    routes.collect()
}

/// Empty for every host.
fn hostname(field: &str, raw: &str) -> Result<Option<HostPattern>, BadResource> {
    match raw {
        "" => Ok(None),
        raw => raw
            .parse()
            .map(Some)
            .map_err(|bad: policy::egress::BadHost| BadResource::new(field, bad)),
    }
}

#[cfg(test)]
mod tests;
