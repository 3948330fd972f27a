//! Which container ports a number means, and what a port carries.

use serde_json::Value;

use crate::{
    World,
    object::{annotation, created, has_labels, list, name, namespace, spec, text},
    shape::readable,
};

/// Ports on which servers are known to speak first.
const OPAQUE: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// What a port is declared to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Whatever the bytes look like.
    Unknown,
    /// HTTP.
    Http,
    /// Opaque bytes.
    Bytes,
}

impl World {
    /// Whether a TCPRoute holds the container port of this pod. A route that does not
    /// exist holds none.
    pub(crate) fn route_holds(&self, namespace: &str, route: &str, pod: &Value, port: u16) -> bool {
        let Some(route) = self.find("TCPRoute", namespace, route) else {
            return false;
        };
        if !readable(route) {
            return false;
        }
        let ports = list(&spec(route)["matches"]["ports"]);
        let mut ports_in_range = ports.iter().filter_map(Value::as_i64);
        ports.is_empty()
            || ports_in_range.any(|number| self.container_ports(pod, number).contains(&port))
    }

    /// The container ports that a number means on a pod (A11).
    pub(crate) fn container_ports(&self, pod: &Value, number: i64) -> Vec<u16> {
        let Some(number) = u16::try_from(number).ok().filter(|number| *number > 0) else {
            return Vec::new();
        };
        let pairs = self.service_ports(pod);
        let declared = declares(pod, number) || pairs.iter().any(|(_, own)| *own == number);
        let behind: Vec<u16> = pairs
            .iter()
            .filter(|(at, _)| *at == number)
            .map(|(_, own)| *own)
            .collect();
        if declared || behind.is_empty() {
            vec![number]
        } else {
            behind
        }
    }

    /// Ports of the namespace's Services in front of the pod, each with the container
    /// port behind it.
    fn service_ports(&self, pod: &Value) -> Vec<(u16, u16)> {
        let services = self.services_of(pod);
        let ports = services
            .iter()
            .flat_map(|service| list(&service["spec"]["ports"]));
        ports.filter_map(numbers).collect()
    }

    fn services_of(&self, pod: &Value) -> Vec<&Value> {
        self.all("Service")
            .filter(|service| namespace(service) == namespace(pod))
            .filter(|service| has_labels(pod, &service["spec"]["selector"]))
            .collect()
    }

    /// What the port of a pod carries, by its declarations: the pod's list of opaque
    /// ports, the oldest Service with a known `appProtocol`, the lists of the namespace
    /// and of the mesh.
    pub(crate) fn carries(&self, pod: &Value, port: u16) -> Carries {
        let listed = |object: &Value| {
            let ports = annotation(object, "weft.dev/opaque-ports").unwrap_or_default();
            ports.split(',').any(|one| one.trim() == port.to_string())
        };
        if listed(pod) {
            return Carries::Bytes;
        }
        let mut services = self.services_of(pod);
        services.sort_by_key(|service| (created(service), name(service)));
        for service in services {
            let ports = list(&service["spec"]["ports"]);
            let behind = ports
                .iter()
                .filter(|declared| numbers(declared).is_some_and(|(_, own)| own == port));
            for declared in behind {
                match text(&declared["appProtocol"]) {
                    "http" => return Carries::Http,
                    "tcp" | "opaque" => return Carries::Bytes,
                    _ => {}
                }
            }
        }
        let around = self.find("Namespace", "", namespace(pod));
        if OPAQUE.contains(&port) || around.is_some_and(listed) {
            Carries::Bytes
        } else {
            Carries::Unknown
        }
    }
}

/// The number of a Service's port and of the container port behind it.
fn numbers(port: &Value) -> Option<(u16, u16)> {
    let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok());
    let own = number(&port["port"])?;
    Some((own, number(&port["targetPort"]).unwrap_or(own)))
}

fn declares(pod: &Value, number: u16) -> bool {
    list(&pod["spec"]["containers"])
        .iter()
        .flat_map(|container| list(&container["ports"]))
        .any(|port| port["containerPort"] == number)
}
