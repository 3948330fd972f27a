//! Resolves the called port, a number or a Service's name for it, to a number.
//!
//! Claims: observe-43

use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::{Cluster, existing, ports};
use crate::console::Console;
use crate::failure::Failure;

/// Letters of the name of a port, as Kubernetes has them.
const LONGEST: usize = 15;

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

/// The object, `KIND/NAME`, with the number of its port; for a name the chosen number is printed.
///
/// # Errors
/// When the object has no port of this name, with those that it has; and when the cluster does not
/// respond.
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
    let all = ports::of(&service);
    let found = all.iter().find(|(known, _)| *known == typed);
    let (_, number) = found.ok_or_else(|| ports::no_such(&name, typed, &all))?;
    if ports::is_headless(&service) {
        let own = ports::own(&service, *number).map_err(|pods| {
            Failure::usage(format!(
                "port {typed} of headless Service {name}: its clients call the pods' own port, \
                 which the pods name {pods}; say its number"
            ))
        })?;
        console.word(&format!(
            "port {typed} is taken for {own}, which clients of headless Service {name} call"
        ))?;
        return Ok(format!("{object}:{own}"));
    }
    console.word(&format!(
        "port {typed} is taken for {number} of Service {name}"
    ))?;
    Ok(format!("{object}:{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_number_or_service_port_name() {
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
}
