//! Builds the two containers and two volumes that make a pod part of the mesh.

use policy::well_known::{ADMIN_PORT, PROXY_UID, TOKEN_AUDIENCE};
use serde_json::{Map, Value, json};

use super::earlier::{HOOKS_ENV, Handlers, PROBES_ENV};
use super::overrides::Overrides;
use super::pod_resources::SHARE_ENV;
use super::{CaptureMode, Settings, guaranteed, placement, pod};
use crate::labels::quantity_in_milli;
use crate::objects::{
    API_TOKEN_FOLDER, CAPTURE_CONTAINER, NO_API_TOKEN_VOLUME, PROXY_CONTAINER, TOKEN_SECONDS,
    TOKEN_VOLUME, TRUST_BUNDLE,
};

/// The one binary of the image.
const BINARY: &str = "/weft-proxy";
const TOKEN_FOLDER: &str = "/var/run/weft/token";
const BUNDLE_FOLDER: &str = "/var/run/weft/bundle";
/// Uid and gid of a process that owns nothing, and that redirection does not exempt.
const UNPRIVILEGED: u32 = 65534;

/// Puts the containers first among the init containers, so that those of the user
/// run with the network they will have later, and adds the volumes. `share`: what the
/// resources of the pod as a whole have been raised by.
pub(super) fn add(
    spec: &mut Map<String, Value>,
    settings: &Settings,
    overrides: &Overrides,
    handlers: &Handlers,
    workload: &(String, String),
    share: &Map<String, Value>,
) {
    let init = take_list(spec, "initContainers");
    let (earlier, others): (Vec<_>, Vec<_>) = init.into_iter().partition(pod::is_ours);
    let over_earlier = |ours: Value| {
        let found = earlier
            .iter()
            .find(|old| pod::name(old) == pod::name(&ours));
        let mut container = found.map_or_else(|| json!({}), kept);
        let limits = [&overrides.cpu_limit, &overrides.memory_limit];
        guaranteed::release(&mut container, limits.map(Option::as_deref));
        overlay(&mut container, ours);
        container
    };
    let mut init = vec![
        over_earlier(capture(settings, overrides)),
        over_earlier(proxy(settings, overrides, handlers, workload, share)),
    ];
    init.extend(others);
    spec.insert("initContainers".into(), init.into());

    placement::require(spec, &settings.architectures);
    let mut present = take_list(spec, "volumes");
    for volume in present.iter_mut().filter_map(Value::as_object_mut) {
        // Earlier versions had an emptyDir there, and a volume has one source.
        if volume.get("name").and_then(Value::as_str) == Some(NO_API_TOKEN_VOLUME) {
            volume.remove("emptyDir");
        }
    }
    let mut wrapped = json!({ "volumes": present });
    overlay(&mut wrapped, json!({ "volumes": volumes() }));
    spec.insert("volumes".into(), wrapped["volumes"].take());
}

/// What a container of an earlier run keeps: what the API server and other webhooks fill
/// in, and nothing that gives it more than it needs. Mounts above all: what another one
/// put in (the application's token, say) is not the proxy's business.
fn kept(earlier: &Value) -> Value {
    const MEMBERS: [&str; 4] = [
        "name",
        "resources",
        "terminationMessagePath",
        "terminationMessagePolicy",
    ];
    const CONTEXT: [&str; 2] = ["seLinuxOptions", "appArmorProfile"];
    let some = |of: &Value, names: &[&str]| -> Map<String, Value> {
        let found = names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), of.get(*name)?.clone())));
        found.collect()
    };
    let mut container = some(earlier, &MEMBERS);
    let context = some(&earlier["securityContext"], &CONTEXT);
    if !context.is_empty() {
        container.insert("securityContext".into(), context.into());
    }
    let env = earlier["env"].as_array().into_iter().flatten();
    // Ours are written anew; one that we do not write would be a user's setting for the
    // proxy that no annotation allows.
    let others = env.filter(|entry| {
        entry["name"]
            .as_str()
            .is_some_and(|name| !name.starts_with("WEFT_"))
    });
    let others: Vec<Value> = others.cloned().collect();
    if !others.is_empty() {
        container.insert("env".into(), others.into());
    }
    Value::Object(container)
}

/// The named list of the spec, which is empty where it is missing or null.
fn take_list(spec: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match spec.remove(name) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// Redirects the pod's traffic or waits until its node has, proves that it works, and ends.
fn capture(settings: &Settings, overrides: &Overrides) -> Value {
    let how = match settings.capture {
        CaptureMode::Init => "--check",
        CaptureMode::Node => "--by-node",
    };
    let mut args = vec!["capture".to_owned(), how.to_owned()];
    for (flag, list) in [
        ("--skip-inbound-ports", &overrides.skip_inbound_ports),
        ("--skip-outbound-ports", &overrides.skip_outbound_ports),
        ("--skip-outbound-cidrs", &overrides.skip_outbound_cidrs),
    ] {
        if !list.is_empty() {
            args.push(format!("{flag}={list}"));
        }
    }
    let mut env = vec![json!({ "name": "WEFT_LOG", "value": overrides.log_level })];
    if settings.capture == CaptureMode::Node {
        env.push(from_pod("WEFT_NODE_NAME", "spec.nodeName"));
    }
    json!({
        "name": CAPTURE_CONTAINER,
        "image": settings.proxy_image,
        "imagePullPolicy": settings.proxy_pull_policy,
        "command": [BINARY],
        "args": args,
        "env": env,
        "resources": resources(overrides),
        "volumeMounts": [no_api_token()],
        "securityContext": capture_context(settings.capture),
    })
}

fn capture_context(mode: CaptureMode) -> Value {
    let (user, capabilities) = match mode {
        // The pod may demand non-root; writing redirection rules needs root. Root's group, so
        // that nothing here counts as sent by the proxy.
        CaptureMode::Init => (0, json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] })),
        CaptureMode::Node => (UNPRIVILEGED, json!({ "drop": ["ALL"] })),
    };
    json!({
        "runAsUser": user,
        "runAsGroup": user,
        "runAsNonRoot": mode == CaptureMode::Node,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": capabilities,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// Carries the pod's traffic. A native sidecar: it starts before the application,
/// ends after it, and does not keep a Job alive.
fn proxy(
    settings: &Settings,
    overrides: &Overrides,
    handlers: &Handlers,
    workload: &(String, String),
    share: &Map<String, Value>,
) -> Value {
    json!({
        "name": PROXY_CONTAINER,
        "image": settings.proxy_image,
        "imagePullPolicy": settings.proxy_pull_policy,
        "restartPolicy": "Always",
        "command": [BINARY],
        "args": ["run"],
        "env": env(settings, overrides, handlers, workload, share),
        "ports": [{ "name": "weft-admin", "containerPort": ADMIN_PORT, "protocol": "TCP" }],
        "resources": resources(overrides),
        // Long enough for a controller that restarts; after that the kubelet starts
        // the proxy anew.
        "startupProbe": probe("/ready", 1, 120),
        "readinessProbe": probe("/ready", 2, 3),
        "livenessProbe": probe("/live", 10, 3),
        "lifecycle": { "preStop": { "exec": { "command": [BINARY, "drain"] } } },
        "volumeMounts": [
            { "name": TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true },
            { "name": TRUST_BUNDLE, "mountPath": BUNDLE_FOLDER, "readOnly": true },
            no_api_token(),
        ],
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

/// Keeps the API server from mounting the token of the application's service account:
/// neither container calls it, and an attacker in one of them must not be able to.
fn no_api_token() -> Value {
    json!({ "name": NO_API_TOKEN_VOLUME, "mountPath": API_TOKEN_FOLDER, "readOnly": true })
}

fn env(
    settings: &Settings,
    overrides: &Overrides,
    handlers: &Handlers,
    (kind, name): &(String, String),
    share: &Map<String, Value>,
) -> Vec<Value> {
    let fixed = |name: &str, value: &str| json!({ "name": name, "value": value });
    let map = |map: &Map<String, Value>| Value::Object(map.clone()).to_string();
    let mut all = vec![
        from_pod("WEFT_NAMESPACE", "metadata.namespace"),
        from_pod("WEFT_POD_NAME", "metadata.name"),
        from_pod("WEFT_POD_UID", "metadata.uid"),
        from_pod("WEFT_POD_IPS", "status.podIPs"),
        from_pod("WEFT_NODE_NAME", "spec.nodeName"),
        from_pod("WEFT_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        fixed("WEFT_CONTROLLER_ADDRESS", &settings.controller_address),
        fixed("WEFT_CONTROLLER_NAMESPACE", &settings.controller_namespace),
        fixed("WEFT_TRUST_DOMAIN", &settings.trust_domain),
        fixed("WEFT_TOKEN_FILE", &format!("{TOKEN_FOLDER}/token")),
        fixed("WEFT_TRUST_BUNDLE", &format!("{BUNDLE_FOLDER}/ca.crt")),
        fixed("WEFT_LOG", &overrides.log_level),
        fixed("WEFT_ACCESS_LOG", &overrides.access_log),
        fixed(PROBES_ENV, &map(&handlers.probes)),
        fixed(HOOKS_ENV, &map(&handlers.hooks)),
    ];
    if !share.is_empty() {
        all.push(fixed(SHARE_ENV, &map(share)));
    }
    if !settings.compatibility_series.is_empty() {
        all.extend([
            fixed("WEFT_COMPATIBILITY_SERIES", &settings.compatibility_series),
            fixed("WEFT_WORKLOAD_KIND", kind),
            fixed("WEFT_WORKLOAD_NAME", name),
        ]);
    }
    all
}

fn from_pod(name: &str, field: &str) -> Value {
    json!({
        "name": name,
        "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": field } },
    })
}

/// Every default is written out, so that a second run sees no difference.
fn probe(path: &str, period: u8, failures: u8) -> Value {
    json!({
        "httpGet": { "path": path, "port": ADMIN_PORT, "scheme": "HTTP" },
        "periodSeconds": period,
        "timeoutSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": failures,
    })
}

fn resources(overrides: &Overrides) -> Value {
    let mut resources = json!({
        "requests": { "cpu": overrides.cpu_request, "memory": overrides.memory_request },
    });
    for (name, limit) in [
        ("cpu", &overrides.cpu_limit),
        ("memory", &overrides.memory_limit),
    ] {
        if let Some(limit) = limit {
            resources["limits"][name] = limit.as_str().into();
        }
    }
    resources
}

fn volumes() -> Value {
    json!([
        {
            "name": TOKEN_VOLUME,
            "projected": {
                "defaultMode": 0o644,
                "sources": [{
                    "serviceAccountToken": {
                        "audience": TOKEN_AUDIENCE,
                        "expirationSeconds": TOKEN_SECONDS,
                        "path": "token",
                    },
                }],
            },
        },
        {
            // Not optional: without it the proxy could trust no peer, so a pod that comes
            // before its namespace's bundle waits.
            "name": TRUST_BUNDLE,
            "configMap": { "name": TRUST_BUNDLE, "defaultMode": 0o644, "optional": false },
        },
        {
            // Not an emptyDir: that counts as local storage, for which `kubectl drain`
            // refuses the pod and the cluster autoscaler keeps its node.
            "name": NO_API_TOKEN_VOLUME,
            "projected": { "defaultMode": 0o644, "sources": [] },
        },
    ])
}

/// Lists whose entries have a key, by the member they stand in.
const KEYS: [(&str, &str); 4] = [
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// Sets every member of `ours` in `base` and keeps what only `base` has. Entries of
/// keyed lists are laid over the entry with the same key; other lists are replaced.
pub(super) fn overlay(base: &mut Value, ours: Value) {
    overlay_member("", base, ours);
}

fn overlay_member(member: &str, base: &mut Value, ours: Value) {
    match (base, ours) {
        (Value::Object(base), Value::Object(ours)) => {
            for (name, value) in ours {
                match base.get_mut(&name) {
                    Some(old) => overlay_member(&name, old, value),
                    None => {
                        base.insert(name, value);
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(ours)) => {
            match KEYS.iter().find(|(list, _)| *list == member) {
                Some((_, key)) => overlay_list(key, member == "env", base, ours),
                None => *base = ours,
            }
        }
        // The API server stores an empty list as none.
        (Value::Null, Value::Array(ours)) if ours.is_empty() => {}
        (base, ours) if same_quantity(member, base, &ours) => {}
        (base, ours) => *base = ours,
    }
}

/// Whether both are amounts of CPU or memory and equal, however they are written.
fn same_quantity(member: &str, base: &Value, ours: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(quantity_in_milli);
    ["cpu", "memory"].contains(&member) && amount(base).is_some() && amount(base) == amount(ours)
}

fn overlay_list(key: &str, whole: bool, base: &mut Vec<Value>, ours: Vec<Value>) {
    for entry in ours {
        match base.iter_mut().find(|old| old.get(key) == entry.get(key)) {
            // An env entry has either a value or a source; a mixture is invalid.
            Some(old) if whole => *old = entry,
            Some(old) => overlay_member("", old, entry),
            None => base.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_additions_of_others_stay() {
        let mut base = json!({
            "args": ["old"],
            "terminationMessagePath": "/dev/termination-log",
            "env": [{"name": "A", "value": "old"}, {"name": "THEIRS", "value": "1"}],
        });
        overlay(
            &mut base,
            json!({"args": ["new"], "env": [{"name": "A", "value": "new"}]}),
        );
        assert_eq!(
            base,
            json!({
                "args": ["new"],
                "terminationMessagePath": "/dev/termination-log",
                "env": [{"name": "A", "value": "new"}, {"name": "THEIRS", "value": "1"}],
            })
        );
    }
}
