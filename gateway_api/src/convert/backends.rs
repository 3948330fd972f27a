//! The backends of a TrafficSplit as those of a route.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::source::{Nothing, Source, is_external, is_tcp, service};

/// Backends that the API lets a rule have.
const MOST_BACKENDS: usize = 16;
/// The largest weight of the API.
const MOST_WEIGHT: u64 = 1_000_000;

/// A Service that takes a share.
pub(super) struct Backend<'a> {
    name: &'a str,
    weight: u64,
    /// Whether the Service is there. Without a share it may come later.
    exists: bool,
}

/// The backends of a split, each Service once.
pub(super) fn of<'a>(
    source: &Source<'a>,
    unsaid: &mut Vec<String>,
) -> Result<Vec<Backend<'a>>, Nothing> {
    let mut backends: Vec<Backend<'a>> = Vec::new();
    let split = source.split;
    for (i, backend) in split.backends.iter().enumerate() {
        // What names no Service is among the mistakes of the split.
        let Some(id) = &backend.service.id else {
            continue;
        };
        let weight = u64::from(backend.weight);
        if let Some(known) = backends.iter_mut().find(|known| *known.name == *id.name) {
            known.weight += weight;
            continue;
        }
        let service = service(source.around, &id.namespace, &id.name);
        let exists = service.is_some_and(|service| !is_external(service));
        if !exists && weight > 0 {
            unsaid.push(format!(
                "spec.backends[{i}].service: {} is not given, and is left out as the split leaves \
                 it out; give its Service too if there is one",
                id.name
            ));
        }
        backends.push(Backend {
            name: &id.name,
            weight,
            exists,
        });
    }
    backends.retain(|backend| backend.exists || backend.weight == 0);
    if backends.len() > MOST_BACKENDS {
        unsaid.push(format!(
            "spec.backends: are {}, and a rule of a route can have {MOST_BACKENDS}; leave out those \
             without a share",
            backends.len()
        ));
        return Err(Nothing);
    }
    scale(&mut backends, unsaid);
    Ok(backends)
}

/// Brings weights into the range of the API.
fn scale(backends: &mut [Backend<'_>], unsaid: &mut Vec<String>) {
    let weights = || backends.iter().map(|backend| backend.weight);
    let most = weights().max().unwrap_or(0);
    if most <= MOST_WEIGHT {
        return;
    }
    let divisor = weights().fold(0, greatest_divisor);
    if most / divisor <= MOST_WEIGHT {
        for backend in backends {
            backend.weight /= divisor;
        }
        return;
    }
    unsaid.push(format!(
        "spec.backends: have weights up to {most}, and a route can have {MOST_WEIGHT}; they are \
         rounded"
    ));
    for backend in backends {
        let least = u64::from(backend.weight > 0);
        backend.weight = (backend.weight * MOST_WEIGHT / most).max(least);
    }
}

fn greatest_divisor(one: u64, other: u64) -> u64 {
    match other {
        0 => one,
        other => greatest_divisor(other, one % other),
    }
}

/// The references of a rule for one port of the Service that is split. A backend without the port
/// has no share there.
pub(super) fn at(source: &Source<'_>, backends: &[Backend<'_>], port: u16) -> Vec<Value> {
    let here = backends.iter().filter(|backend| {
        let service = service(source.around, source.namespace, backend.name);
        !backend.exists || service.is_some_and(|service| has_port(service, port))
    });
    let refs =
        here.map(|backend| json!({"name": backend.name, "port": port, "weight": backend.weight}));
    let mut refs: Vec<Value> = refs.collect();
    if refs.is_empty() {
        // A rule without backends is answered 500, one without a share 503, as the split is.
        refs.push(json!({"name": source.root_name(), "port": port, "weight": 0}));
    }
    refs
}

fn has_port(service: &Service, number: u16) -> bool {
    let mut ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    ports.any(|port| is_tcp(port) && port.port == i32::from(number))
}
