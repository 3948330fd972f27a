//! Finds the port of a Service by number or name, or the error message that there is none.
//!
//! Claims: observe-43

use serde_json::Value;

use super::nearest::{hint, nearest};
use crate::failure::Failure;

/// Ports of a Service that are named where it lacks one.
const SHOWN: usize = 10;

/// Ends where a Service has no port of this number.
///
/// # Errors
/// With those that it has.
pub(crate) fn must_be_of(service: &Value, name: &str, port: Option<u16>) -> Result<(), Failure> {
    let ports = of(service);
    // What stands for another name has the ports of that one, or of its pods.
    let alias = service["spec"]["type"] == "ExternalName" || is_headless(service);
    match port {
        Some(port) if !alias && ports.iter().all(|(_, known)| *known != port) => {
            Err(no_such(name, &port.to_string(), &ports))
        }
        _ => Ok(()),
    }
}

/// Whether its name leads to the addresses of its pods, where clients call the pods' own ports.
#[must_use]
pub(crate) fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}

/// The pods' own port behind a port of a Service.
///
/// # Errors
/// The name that the pods have for it, of which only they know the number.
pub(crate) fn own(service: &Value, number: u16) -> Result<u16, &str> {
    let mut tcp = tcp(service);
    let port = tcp.find(|port| port["port"] == number);
    let target = port.and_then(|port| port.get("targetPort"));
    if let Some(name) = target.and_then(Value::as_str) {
        return Err(name);
    }
    let own = target.and_then(Value::as_u64);
    let own = own.and_then(|own| u16::try_from(own).ok());
    Ok(own.filter(|own| *own > 0).unwrap_or(number))
}

fn tcp(service: &Value) -> impl Iterator<Item = &Value> {
    let all = service["spec"]["ports"].as_array();
    all.into_iter().flatten().filter(|port| {
        let protocol = port["protocol"].as_str();
        protocol.is_none_or(|protocol| protocol == "TCP")
    })
}

/// Names and numbers of a Service's TCP ports. Where it has a single one, that may have no name.
#[must_use]
pub(crate) fn of(service: &Value) -> Vec<(&str, u16)> {
    let read = tcp(service).filter_map(|port| {
        let number = u16::try_from(port["port"].as_u64()?).ok()?;
        Some((port["name"].as_str().unwrap_or_default(), number))
    });
    read.collect()
}

/// That a Service has no such port, with those that it has.
#[must_use]
pub(crate) fn no_such(service: &str, typed: &str, ports: &[(&str, u16)]) -> Failure {
    let mut shown: Vec<String> = ports
        .iter()
        .take(SHOWN)
        .map(|(name, number)| match *name {
            "" => number.to_string(),
            name => format!("{number} ({name})"),
        })
        .collect();
    match ports.len().saturating_sub(SHOWN) {
        0 => {}
        more => shown.push(format!("{more} more")),
    }
    let has = match shown.is_empty() {
        true => "none".to_owned(),
        false => shown.join(", "),
    };
    // A port without a name is near to every number of one digit.
    let names = ports.iter().map(|(name, _)| *name);
    let meant = nearest(typed, names.filter(|name| !name.is_empty()));
    let hint = hint(meant);
    Failure::usage(format!(
        "Service {service} has no TCP port {typed}; it has {has}{hint}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_port_is_target_port_or_the_same_number() {
        let ports = json!([
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 1053},
            {"name": "dns-tcp", "port": 53, "targetPort": 2053},
            {"name": "http", "port": 80},
            {"name": "web", "port": 81, "targetPort": "web"},
        ]);
        let service = json!({"spec": {"ports": ports}});
        assert_eq!(own(&service, 53), Ok(2053));
        assert_eq!(own(&service, 80), Ok(80));
        assert_eq!(own(&service, 81), Err("web"));
    }

    #[test]
    fn missing_service_port_error_lists_existing_ports() {
        let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
        let ports = [
            port("http", 80, "TCP"),
            port("grpc", 9090, "TCP"),
            port("dns", 53, "UDP"),
        ];
        let service = json!({"spec": {"ports": ports}});
        assert!(must_be_of(&service, "cart", Some(80)).is_ok());
        assert!(must_be_of(&service, "cart", None).is_ok());
        let words = must_be_of(&service, "cart", Some(81)).unwrap_err();
        assert_eq!(
            words.to_string(),
            "Service cart has no TCP port 81; it has 80 (http), 9090 (grpc)"
        );
        let alias = json!({"spec": {"type": "ExternalName"}});
        assert!(must_be_of(&alias, "cart", Some(81)).is_ok());
        let headless = json!({"spec": {"clusterIP": "None", "ports": service["spec"]["ports"]}});
        assert!(must_be_of(&headless, "cart", Some(8080)).is_ok());
        let one = json!({"spec": {"ports": [{"port": 80}]}});
        let words = no_such("cart", "htpp", &of(&one)).to_string();
        assert_eq!(words, "Service cart has no TCP port htpp; it has 80");
        let words = must_be_of(&one, "cart", Some(8)).unwrap_err().to_string();
        assert_eq!(words, "Service cart has no TCP port 8; it has 80");
        let words = no_such("cart", "htpp", &of(&service)).to_string();
        assert!(words.ends_with("; you may mean http"), "{words}");
    }
}
