//! Rewrites probes and lifecycle hooks so that the kubelet calls the proxy instead of the
//! application.
//!
//! The kubelet is not in the mesh: in strict and deny modes its requests would be refused, and a
//! TCP probe would always succeed because the proxy accepts for a dead application too. So it
//! calls the proxy's admin port, and the proxy makes the original probe inside the pod, where it
//! has the same meaning as without a mesh.

use policy::well_known::ADMIN_PORT;
use serde_json::{Map, Value, json};

use super::{
    HookToken, Refusal,
    earlier::{Earlier, HOOKS_ENV, Handlers, PROBES_ENV},
    pod,
};
use crate::objects::PROXY_CONTAINER;

const PROBES: [(&str, &str); 3] = [
    ("livenessProbe", "liveness"),
    ("readinessProbe", "readiness"),
    ("startupProbe", "startup"),
];
const HOOKS: [&str; 2] = ["postStart", "preStop"];

/// Rewrites the handlers of all containers that run beside the proxy, and returns
/// the originals.
pub(super) fn rewrite(
    spec: &mut Map<String, Value>,
    earlier: &Earlier,
    token: HookToken,
) -> Result<Handlers, Refusal> {
    let token = earlier
        .token()
        .map_or_else(|| token.to_string(), ToOwned::to_owned);
    let mut originals = Handlers::default();
    for group in ["initContainers", "containers"] {
        let containers = spec.get_mut(group).and_then(Value::as_array_mut);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let sidecar = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            // An ordinary init container has no handlers.
            if group == "initContainers" && (!sidecar || pod::is_ours(container)) {
                continue;
            }
            let mut rewriting = Rewriting {
                field: format!("spec.{group}[{index}]"),
                name: pod::name(container).to_owned(),
                ports: container.get("ports").cloned().unwrap_or_default(),
                earlier,
                token: &token,
                originals: &mut originals,
            };
            rewriting.probes(container)?;
            rewriting.hooks(container)?;
        }
    }
    Ok(originals)
}

/// Puts the originals back where [`rewrite`] turned handlers towards the proxy.
pub(super) fn restore(spec: &mut Map<String, Value>, earlier: &Earlier) -> Result<(), Refusal> {
    for group in ["initContainers", "containers"] {
        let containers = spec.get_mut(group).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if pod::is_ours(container) {
                continue;
            }
            for (member, _) in PROBES {
                let originals = (PROBES_ENV, &earlier.handlers.probes);
                put_back(container.get_mut(member), "/probe/", originals)?;
            }
            for member in HOOKS {
                let hooks = container.get_mut("lifecycle");
                let hook = hooks.and_then(|hooks| hooks.get_mut(member));
                put_back(hook, "/hook/", (HOOKS_ENV, &earlier.handlers.hooks))?;
            }
        }
    }
    Ok(())
}

/// Puts back what stands in the proxy's variable of this name for a handler whose path at the
/// proxy begins so.
fn put_back(
    handler: Option<&mut Value>,
    prefix: &str,
    (variable, originals): (&str, &Map<String, Value>),
) -> Result<(), Refusal> {
    let Some(handler) = handler.and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let towards_proxy = handler
        .get("httpGet")
        .filter(|http| http["port"].as_i64() == Some(i64::from(ADMIN_PORT)))
        .and_then(|http| http["path"].as_str());
    let Some(key) = towards_proxy.and_then(|path| path.strip_prefix(prefix)) else {
        return Ok(());
    };
    let Some(original) = originals.get(key).and_then(Value::as_object) else {
        return Err(Refusal::Damaged {
            field: format!("env {variable} of container {PROXY_CONTAINER}"),
        });
    };
    handler.remove("httpGet");
    for (name, value) in original {
        // The handler still has its own, and the scheme is what it is without a word.
        if name == "timeoutSeconds" {
            continue;
        }
        let mut value = value.clone();
        if let Some(members) = value.as_object_mut()
            && members.get("scheme").is_some_and(|scheme| scheme == "HTTP")
        {
            members.remove("scheme");
        }
        handler.insert(name.clone(), value);
    }
    Ok(())
}

struct Rewriting<'a> {
    field: String,
    name: String,
    ports: Value,
    earlier: &'a Earlier,
    token: &'a str,
    originals: &'a mut Handlers,
}

impl Rewriting<'_> {
    fn probes(&mut self, container: &mut Value) -> Result<(), Refusal> {
        for (member, kind) in PROBES {
            let Some(probe) = container.get_mut(member).and_then(Value::as_object_mut) else {
                continue;
            };
            let key = format!("{}/{kind}", self.name);
            let path = format!("/probe/{key}");
            if is_rewritten(probe, &path)
                && let Some(original) = self.earlier.handlers.probes.get(&key)
            {
                self.originals
                    .probes
                    .insert(key, with_timeout(original.clone(), probe));
                continue;
            }
            let field = format!("{}.{member}", self.field);
            if let Some(original) = self.original(probe, &field)? {
                self.originals
                    .probes
                    .insert(key, with_timeout(original, probe));
                for handler in ["httpGet", "tcpSocket", "grpc"] {
                    probe.remove(handler);
                }
                probe.insert("httpGet".into(), towards_the_proxy(&path));
            }
        }
        Ok(())
    }

    fn hooks(&mut self, container: &mut Value) -> Result<(), Refusal> {
        for member in HOOKS {
            let hook = container
                .get_mut("lifecycle")
                .and_then(|hooks| hooks.get_mut(member));
            let Some(hook) = hook.and_then(Value::as_object_mut) else {
                continue;
            };
            let key = format!("{}/{}/{member}", self.token, self.name);
            let path = format!("/hook/{key}");
            if is_rewritten(hook, &path)
                && let Some(original) = self.earlier.handlers.hooks.get(&key)
            {
                self.originals.hooks.insert(key, original.clone());
                continue;
            }
            let field = format!("{}.lifecycle.{member}", self.field);
            if hook.get("httpGet").is_none_or(Value::is_null) {
                continue;
            }
            if let Some(original) = self.original(hook, &field)? {
                self.originals.hooks.insert(key, original);
                hook.insert("httpGet".into(), towards_the_proxy(&path));
            }
        }
        Ok(())
    }

    /// The handler as the proxy will carry it out, with its port as a number; None
    /// for exec and sleep, which need no network.
    fn original(
        &self,
        handler: &Map<String, Value>,
        field: &str,
    ) -> Result<Option<Value>, Refusal> {
        let member = |name: &str| handler.get(name).filter(|value| value.is_object());
        if let Some(http) = member("httpGet") {
            let port = self.port(&http["port"], &format!("{field}.httpGet.port"))?;
            let mut original = json!({
                "port": port,
                "path": text(http, "path").unwrap_or("/"),
                "scheme": text(http, "scheme").unwrap_or("HTTP"),
            });
            if let Some(host) = text(http, "host") {
                original["host"] = host.into();
            }
            if let Some(headers) = http.get("httpHeaders").filter(|value| value.is_array()) {
                original["httpHeaders"] = headers.clone();
            }
            return Ok(Some(json!({ "httpGet": original })));
        }
        if let Some(tcp) = member("tcpSocket") {
            let port = self.port(&tcp["port"], &format!("{field}.tcpSocket.port"))?;
            let mut original = json!({ "port": port });
            if let Some(host) = text(tcp, "host") {
                original["host"] = host.into();
            }
            return Ok(Some(json!({ "tcpSocket": original })));
        }
        if let Some(grpc) = member("grpc") {
            let port = self.port(&grpc["port"], &format!("{field}.grpc.port"))?;
            let mut original = json!({ "port": port });
            if let Some(service) = text(grpc, "service") {
                original["service"] = service.into();
            }
            return Ok(Some(json!({ "grpc": original })));
        }
        Ok(None)
    }

    fn port(&self, port: &Value, field: &str) -> Result<u16, Refusal> {
        let number = match port {
            Value::String(name) => match name.parse() {
                // The kubelet, too, takes a number in quotes for a number.
                Ok(number) => number,
                Err(_) => self.named_port(name, field)?,
            },
            port => port.as_i64().unwrap_or_default(),
        };
        if pod::is_proxy_port(number) {
            return Err(Refusal::ProxyPort {
                field: field.to_owned(),
                port: number,
            });
        }
        match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(Refusal::BadPort {
                field: field.to_owned(),
            }),
        }
    }

    fn named_port(&self, name: &str, field: &str) -> Result<i64, Refusal> {
        let ports = self.ports.as_array();
        let port = ports
            .into_iter()
            .flatten()
            .find(|port| port["name"] == name);
        port.and_then(|port| port["containerPort"].as_i64())
            .ok_or_else(|| Refusal::UnknownPort {
                field: field.to_owned(),
                name: name.to_owned(),
                container: self.name.clone(),
            })
    }
}

/// A member that is a text and not empty.
fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value
        .get(name)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

fn is_rewritten(handler: &Map<String, Value>, path: &str) -> bool {
    handler.get("httpGet").is_some_and(|http| {
        http["port"].as_i64() == Some(i64::from(ADMIN_PORT)) && http["path"].as_str() == Some(path)
    })
}

/// The proxy must give up before the kubelet does, so it has to know the timeout.
fn with_timeout(mut original: Value, probe: &Map<String, Value>) -> Value {
    let seconds = probe
        .get("timeoutSeconds")
        .and_then(Value::as_i64)
        .filter(|s| *s > 0);
    original["timeoutSeconds"] = seconds.unwrap_or(1).into();
    original
}

/// The scheme is written out because the API server would fill it in, and a second
/// run would see a difference.
fn towards_the_proxy(path: &str) -> Value {
    json!({ "path": path, "port": ADMIN_PORT, "scheme": "HTTP" })
}
