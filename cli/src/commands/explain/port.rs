//! The port behind what is called: its number, or the name that a Service has for it.

use serde_json::Value;

use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::nearest::{hint, nearest};
use crate::cluster::{Cluster, existing};
use crate::console::Console;
use crate::failure::Failure;

/// Letters of the name of a port, as Kubernetes has them.
const LONGEST: usize = 15;
/// Ports of a Service that are named where it lacks one.
const SHOWN: usize = 10;

/// What was typed behind the colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TypedPort<'t> {
    Number(u16),
    Name(&'t str),
}

/// Takes the port off `svc/cart:http`. What is outside the mesh keeps its own: there it may stand
/// behind an address with colons.
///
/// # Errors
/// When it is neither the number nor the name of a port.
pub(super) fn split(text: &str) -> Result<(&str, Option<TypedPort<'_>>), Failure> {
    let kind = text.split_once('/').map(|(kind, _)| kind);
    let external = ResourceKind::External.short();
    let outside = kind.is_some_and(|kind| kind.eq_ignore_ascii_case(external));
    let Some((object, port)) = text.rsplit_once(':').filter(|_| !outside) else {
        return Ok((text, None));
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number: Option<u16> = port.parse().ok();
    match number.filter(|number| digits && *number > 0) {
        Some(number) => Ok((object, Some(TypedPort::Number(number)))),
        None if is_name(port) => Ok((object, Some(TypedPort::Name(port)))),
        None => Err(Failure::usage(format!(
            "{text:?}: the port must be a number from 1 to 65535, or the name that a Service has \
             for it"
        ))),
    }
}

fn is_name(text: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= LONGEST
        && text.bytes().all(letters)
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// The object, `KIND/NAME`, with the number of its port; said is which one a name was taken for.
///
/// # Errors
/// When the object has no port of this name, with those that it has; and when nobody says.
pub(super) async fn numbered(
    cluster: &Cluster,
    object: &str,
    allowed: &[ResourceKind],
    port: Option<TypedPort<'_>>,
    console: &mut Console<'_>,
) -> Result<String, Failure> {
    let typed = match port {
        None => return Ok(object.to_owned()),
        Some(TypedPort::Number(number)) => return Ok(format!("{object}:{number}")),
        Some(TypedPort::Name(typed)) => typed,
    };
    let (named, name) = Named::read_one(object, allowed)?;
    if named.kind != ResourceKind::Service {
        return Err(Failure::usage(format!(
            "port {typed:?} of {object}: ports of a Service alone have names here; say a number \
             from 1 to 65535"
        )));
    }
    let Some(service) = existing::read(cluster, named.kind, &name).await? else {
        return Err(existing::absent(cluster, (named.kind, &name), &[]).await);
    };
    let ports = ports(&service);
    let found = ports.iter().find(|(known, _)| *known == typed);
    let (_, number) = found.ok_or_else(|| no_such(&name, typed, &ports))?;
    console.word(&format!(
        "port {typed} is taken for {number} of Service {name}"
    ))?;
    Ok(format!("{object}:{number}"))
}

/// Ends where a Service has no port of this number.
///
/// # Errors
/// With those that it has.
pub(super) fn must_be_of(service: &Value, name: &str, port: Option<u16>) -> Result<(), Failure> {
    let ports = ports(service);
    // What stands for another name has the ports of that one.
    let alias = service["spec"]["type"] == "ExternalName";
    match port {
        Some(port) if !alias && ports.iter().all(|(_, known)| *known != port) => {
            Err(no_such(name, &port.to_string(), &ports))
        }
        _ => Ok(()),
    }
}

/// Names and numbers of a Service's TCP ports. Where it has a single one, that may have no name.
fn ports(service: &Value) -> Vec<(&str, u16)> {
    let all = service["spec"]["ports"].as_array();
    let tcp = all.into_iter().flatten().filter(|port| {
        let protocol = port["protocol"].as_str();
        protocol.is_none_or(|protocol| protocol == "TCP")
    });
    let read = tcp.filter_map(|port| {
        let number = u16::try_from(port["port"].as_u64()?).ok()?;
        Some((port["name"].as_str().unwrap_or_default(), number))
    });
    read.collect()
}

fn no_such(service: &str, typed: &str, ports: &[(&str, u16)]) -> Failure {
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
    let meant = nearest(typed, ports.iter().map(|(name, _)| *name));
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
    fn port_is_a_number_or_the_name_that_a_service_has_for_it() {
        let number = |number| Some(TypedPort::Number(number));
        for (text, object, port) in [
            ("cart", "cart", None),
            ("cart:8080", "cart", number(8080)),
            ("svc/cart:65535", "svc/cart", number(65535)),
            ("svc/cart:http", "svc/cart", Some(TypedPort::Name("http"))),
            ("cart:h2-api", "cart", Some(TypedPort::Name("h2-api"))),
            ("external/fd00::1", "external/fd00::1", None),
            ("External/[fd00::1]:53", "External/[fd00::1]:53", None),
        ] {
            assert_eq!(split(text).unwrap(), (object, port), "{text}");
        }
        for text in [
            "cart:99999999",
            "cart:65536",
            "cart:0",
            "cart:",
            "cart:+80",
            "cart:-1",
            "cart:a b",
            "cart:longer-than-names",
        ] {
            let words = split(text).unwrap_err().to_string();
            assert!(words.contains("a number from 1 to 65535"), "{words}");
        }
    }

    #[test]
    fn port_that_a_service_lacks_is_told_with_those_that_it_has() {
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
        let one = json!({"spec": {"ports": [{"port": 80}]}});
        let words = no_such("cart", "htpp", &super::ports(&one)).to_string();
        assert_eq!(words, "Service cart has no TCP port htpp; it has 80");
        let words = no_such("cart", "htpp", &super::ports(&service)).to_string();
        assert!(words.ends_with("; you may mean http"), "{words}");
    }
}
