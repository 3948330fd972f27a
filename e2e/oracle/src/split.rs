//! TrafficSplits: which share of the traffic to a Service goes where.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    CLUSTER_DOMAIN, Traffic, World,
    object::{created, list, name, namespace, spec, text, version},
    quantity::quantity,
    shape::readable,
};

/// Where traffic to a Service's address goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Shares {
    /// To the Service's own endpoints.
    Root,
    /// Shared out by weight, by name of the Service. No entry, or no weight in any,
    /// means 503.
    Split(BTreeMap<String, f64>),
}

impl World {
    /// Where traffic to a port of a Service goes.
    pub fn shares(
        &self,
        service_namespace: &str,
        service: &str,
        port: u16,
        traffic: &Traffic,
    ) -> Shares {
        let mut splits: Vec<&Value> = self
            .all("TrafficSplit")
            .filter(|split| namespace(split) == service_namespace && self.is_in_force(split))
            .filter(|split| service_name(split, &spec(split)["service"]) == Some(service))
            .collect();
        // Those with conditions first, then the oldest.
        splits.sort_by_key(|split| (!is_conditional(split), created(split), name(split)));
        for split in splits {
            if !is_conditional(split) || self.fits(split, traffic) {
                return Shares::Split(self.backends(split, port));
            }
        }
        Shares::Root
    }

    /// Whether the split has any effect.
    fn is_in_force(&self, split: &Value) -> bool {
        let spec = spec(split);
        let service = |name: &str| self.find("Service", namespace(split), name);
        let root = service_name(split, &spec["service"]).and_then(service);
        let references = list(&spec["matches"]).iter().all(|reference| {
            reference["kind"] == "HTTPRouteGroup"
                && ["", "specs.smi-spec.io"].contains(&text(&reference["apiGroup"]))
                && self
                    .find("HTTPRouteGroup", namespace(split), text(&reference["name"]))
                    .is_some()
        });
        let weights = list(&spec["backends"]).iter().all(|backend| {
            let weight = weight(split, backend);
            (0.0..=f64::from(i32::MAX)).contains(&weight)
        });
        readable(split) && root.is_some_and(is_real) && references && weights
    }

    fn fits(&self, split: &Value, traffic: &Traffic) -> bool {
        let Traffic::Http(request) = traffic else {
            return false;
        };
        list(&spec(split)["matches"]).iter().any(|reference| {
            let group = text(&reference["name"]);
            self.group_fits(namespace(split), group, None, request, &request.path)
        })
    }

    /// The weights of the backends that have the port.
    fn backends(&self, split: &Value, port: u16) -> BTreeMap<String, f64> {
        let mut shares = BTreeMap::new();
        for backend in list(&spec(split)["backends"]) {
            let Some(name) = service_name(split, &backend["service"]) else {
                continue;
            };
            let Some(service) = self.find("Service", namespace(split), name) else {
                continue;
            };
            let ports = list(&service["spec"]["ports"]);
            if is_real(service) && ports.iter().any(|own| own["port"] == port) {
                *shares.entry(name.to_owned()).or_default() += weight(split, backend);
            }
        }
        shares
    }
}

fn is_conditional(split: &Value) -> bool {
    !list(&spec(split)["matches"]).is_empty()
}

/// Whether the Service has addresses in this cluster.
fn is_real(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName"
}

/// The name in the split's namespace that a text means (S1).
fn service_name<'a>(split: &Value, written: &'a Value) -> Option<&'a str> {
    let written = text(written);
    let written = written.strip_suffix('.').unwrap_or(written);
    let name = written.split('.').next().filter(|name| !name.is_empty())?;
    let split_namespace = namespace(split);
    let spellings = [
        name.to_owned(),
        format!("{name}.{split_namespace}"),
        format!("{name}.{split_namespace}.svc"),
        format!("{name}.{split_namespace}.svc.{CLUSTER_DOMAIN}"),
    ];
    spellings.iter().any(|one| one == written).then_some(name)
}

fn weight(split: &Value, backend: &Value) -> f64 {
    match &backend["weight"] {
        Value::Null => 0.0,
        weight if version(split) == 1 => quantity(weight).unwrap_or(f64::NAN),
        weight => weight.as_f64().unwrap_or(f64::NAN),
    }
}
