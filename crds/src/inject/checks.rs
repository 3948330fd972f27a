//! Refuses pods whose ids, ports, names or DNS settings conflict with the proxy.

use policy::well_known::PROXY_UID;
use serde_json::{Map, Value};

use super::earlier::Earlier;
use super::pod::{is_ours, is_proxy_port, list, name};
use super::{CaptureMode, Refusal};
use crate::labels::{DISABLED, INJECT};
use crate::objects::{CAPTURE_CONTAINER, PROXY_CONTAINER, VOLUMES};

/// Refuses ids, ports and names that belong to the proxy.
pub(super) fn check(spec: &Map<String, Value>, earlier: &Earlier) -> Result<(), Refusal> {
    for group in ["initContainers", "containers"] {
        for (index, container) in list(spec, group).enumerate() {
            let field = format!("spec.{group}[{index}]");
            if earlier.present && group == "initContainers" && is_ours(container) {
                continue;
            }
            names(&field, container)?;
            ids(&field, container, spec)?;
            ports(&field, container)?;
        }
    }
    groups(spec)?;
    if !earlier.present {
        for (index, volume) in list(spec, "volumes").enumerate() {
            for name in VOLUMES {
                if volume.get("name").and_then(Value::as_str) == Some(name) {
                    let field = format!("spec.volumes[{index}].name");
                    return Err(Refusal::NameTaken { field, name });
                }
            }
        }
    }
    Ok(())
}

/// Refuses ephemeral containers that conflict with the proxy of a running pod: [`check`] does not
/// see them.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn check_ephemeral(pod: &Value, before: &Value) -> Result<(), Refusal> {
    let Some(spec) = pod.get("spec").and_then(Value::as_object) else {
        return Err(Refusal::NotAPod);
    };
    if !list(spec, "initContainers").any(|container| name(container) == PROXY_CONTAINER) {
        return Ok(());
    }
    let known = before.pointer("/spec/ephemeralContainers");
    let known = known
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    for (index, container) in list(spec, "ephemeralContainers").enumerate() {
        // An existing ephemeral container cannot be removed, so it is not checked again.
        if !known.contains(container) {
            let field = format!("spec.ephemeralContainers[{index}]");
            names(&field, container)?;
            ids(&field, container, spec)?;
        }
    }
    Ok(())
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

fn ids(field: &str, container: &Value, spec: &Map<String, Value>) -> Result<(), Refusal> {
    for id in ["runAsUser", "runAsGroup"] {
        let own = container
            .get("securityContext")
            .and_then(|context| context.get(id));
        let pods = spec
            .get("securityContext")
            .and_then(|context| context.get(id));
        let (value, location) = match own.filter(|id| !id.is_null()) {
            Some(own) => (Some(own), field),
            None => (pods, "spec"),
        };
        if value.and_then(Value::as_i64) == Some(i64::from(PROXY_UID)) {
            return Err(Refusal::ProxyId {
                field: format!("{location}.securityContext.{id}"),
                container: name(container).to_owned(),
            });
        }
    }
    Ok(())
}

/// A process in the proxy's group can run a setgid program of that group.
fn groups(spec: &Map<String, Value>) -> Result<(), Refusal> {
    let context = |name: &str| spec.get("securityContext").and_then(|own| own.get(name));
    let is_proxys = |id: &Value| id.as_i64() == Some(i64::from(PROXY_UID));
    if context("fsGroup").is_some_and(is_proxys) {
        let field = "spec.securityContext.fsGroup".to_owned();
        return Err(Refusal::ProxyGroup { field });
    }
    let more = context("supplementalGroups").and_then(Value::as_array);
    match more.and_then(|groups| groups.iter().position(is_proxys)) {
        Some(index) => Err(Refusal::ProxyGroup {
            field: format!("spec.securityContext.supplementalGroups[{index}]"),
        }),
        None => Ok(()),
    }
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

/// Refuses a pod that queries the node's name servers, which do not know Services. Returns a
/// warning where the pod names servers of its own, which may know them.
///
/// The proxy resolves its controller by a cluster DNS name. A proxy that cannot resolve that name
/// waits for its certificate for ever, and the pod stays in `Init` and Kubernetes reports no
/// reason.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub(super) fn check_dns(
    spec: &Map<String, Value>,
    controller: &str,
) -> Result<Option<String>, Refusal> {
    // `ClusterFirstWithHostNet` means the same as the default without the node's network.
    match spec.get("dnsPolicy").and_then(Value::as_str) {
        Some("Default") => Err(Refusal::NodeDns),
        Some("None") => Ok(Some(format!(
            "weft: spec.dnsPolicy is None: the pod starts only if spec.dnsConfig.nameservers \
             resolve {controller}, where its proxy gets its certificate"
        ))),
        _ => Ok(None),
    }
}

/// Warns of a runtime that may have a kernel of its own, in which the node's agent finds no socket.
/// Such a pod would wait for it for ever.
pub(super) fn check_runtime(spec: &Map<String, Value>, capture: CaptureMode) -> Option<String> {
    let class = spec.get("runtimeClassName").and_then(Value::as_str)?;
    (capture == CaptureMode::Node && !class.is_empty()).then(|| {
        format!(
            "weft: spec.runtimeClassName is {class}: if pods of it have a kernel of their own, as \
             with gVisor and Kata, weft-node cannot redirect their traffic and the pod waits in \
             weft-capture; take a class that runs on the node's kernel, or label the pod \
             {INJECT}={DISABLED}"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn debugged(meshed: bool, debugger: &Value) -> Value {
        let proxy = if meshed { "weft-proxy" } else { "other" };
        json!({"spec": {
            "initContainers": [{"name": "weft-capture"}, {"name": proxy}],
            "containers": [{"name": "app"}],
            "ephemeralContainers": [debugger],
        }})
    }

    #[test]
    fn debugger_in_meshed_pod_cannot_run_as_proxy() {
        let before = json!({"spec": {}});
        for (debugger, field) in [
            (
                json!({"name": "d", "securityContext": {"runAsUser": 15190}}),
                "runAsUser is 15190",
            ),
            (
                json!({"name": "d", "securityContext": {"runAsGroup": 15190}}),
                "runAsGroup is 15190",
            ),
            (json!({"name": "weft-proxy"}), "name \"weft-proxy\""),
        ] {
            let refusal = check_ephemeral(&debugged(true, &debugger), &before).unwrap_err();
            let refusal = refusal.to_string();
            assert!(
                refusal.starts_with("spec.ephemeralContainers[0].") && refusal.contains(field),
                "{refusal}"
            );
            assert_eq!(
                check_ephemeral(&debugged(false, &debugger), &before),
                Ok(())
            );
            // One that is there already cannot be taken away, and must not hold up others.
            let there = debugged(true, &debugger);
            assert_eq!(check_ephemeral(&there, &there), Ok(()));
        }
        let honest = json!({"name": "d", "image": "shell", "securityContext": {"runAsUser": 0}});
        assert_eq!(check_ephemeral(&debugged(true, &honest), &before), Ok(()));
    }
}
