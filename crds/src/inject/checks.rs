//! What a pod must not have when it is to get a proxy.

use serde_json::{Map, Value};

use super::{Refusal, handlers::Earlier};
use crate::labels::{
    CAPTURE_CONTAINER, PROXY_CONTAINER, PROXY_ID, PROXY_PORTS, TOKEN_VOLUME, TRUST_BUNDLE,
};

/// Refuses ids, ports and names that belong to the proxy.
pub(super) fn check(spec: &Map<String, Value>, earlier: &Earlier) -> Result<(), Refusal> {
    for (field, container) in others(spec) {
        names(&field, container)?;
        for id in ["runAsUser", "runAsGroup"] {
            ids(&field, container, spec, id)?;
        }
        ports(&field, container)?;
    }
    if !earlier.present {
        for (index, volume) in list(spec, "volumes").enumerate() {
            for name in [TOKEN_VOLUME, TRUST_BUNDLE] {
                if volume.get("name").and_then(Value::as_str) == Some(name) {
                    let field = format!("spec.volumes[{index}].name");
                    return Err(Refusal::NameTaken { field, name });
                }
            }
        }
    }
    Ok(())
}

fn list<'a>(spec: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    spec.get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Every container but the two of Weft, with its field path.
fn others(spec: &Map<String, Value>) -> impl Iterator<Item = (String, &Value)> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|group| {
            list(spec, group)
                .enumerate()
                .map(move |(index, container)| (format!("spec.{group}[{index}]"), container))
                .filter(move |(_, container)| group == "containers" || !is_ours(container))
        })
}

/// An init container with one of Weft's two names.
pub(super) fn is_ours(container: &Value) -> bool {
    [CAPTURE_CONTAINER, PROXY_CONTAINER].contains(&name(container))
}

pub(super) fn name(container: &Value) -> &str {
    container
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn names(field: &str, container: &Value) -> Result<(), Refusal> {
    for ours in [CAPTURE_CONTAINER, PROXY_CONTAINER] {
        if name(container) == ours {
            return Err(Refusal::NameTaken {
                field: format!("{field}.name"),
                name: ours,
            });
        }
    }
    Ok(())
}

fn ids(field: &str, container: &Value, spec: &Map<String, Value>, id: &str) -> Result<(), Refusal> {
    let own = container
        .get("securityContext")
        .and_then(|context| context.get(id));
    let pods = spec
        .get("securityContext")
        .and_then(|context| context.get(id));
    let (value, place) = match own.filter(|id| !id.is_null()) {
        Some(own) => (Some(own), field),
        None => (pods, "spec"),
    };
    if value.and_then(Value::as_i64) == Some(PROXY_ID) {
        return Err(Refusal::ProxyId {
            field: format!("{place}.securityContext.{id}"),
            container: name(container).to_owned(),
        });
    }
    Ok(())
}

fn ports(field: &str, container: &Value) -> Result<(), Refusal> {
    let ports = container.get("ports").and_then(Value::as_array);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        for kind in ["containerPort", "hostPort"] {
            let number = port.get(kind).and_then(Value::as_i64);
            if let Some(port) = number.filter(|port| is_proxy_port(*port)) {
                let field = format!("{field}.ports[{index}].{kind}");
                return Err(Refusal::ProxyPort { field, port });
            }
        }
    }
    Ok(())
}

pub(super) fn is_proxy_port(port: i64) -> bool {
    PROXY_PORTS.iter().any(|own| i64::from(*own) == port)
}
