//! Compares an object of a Gateway with what it should be.
//!
//! [`covers`] decides whether all that is wanted is there. What others have added stays: labels and
//! annotations, an autoscaler's number of pods, what load balancers write.
//!
//! [`additions`] finds those that change what the object means: a further label in a Service's
//! selector leaves it without endpoints, and a further port may open the proxy's own. An apply takes
//! nothing away that another manager has added, so they come with a merge patch that does.
//!
//! Invariant: a field is compared exactly only where the API server adds nothing but what is named
//! here. Else each look would write.

use crds::labels::quantity_in_milli;
use serde_json::{Map, Value, json};

use super::objects::Part;

const OF_SERVICES: &[(&str, Exact)] = &[
    ("selector", Exact::Keys),
    // The API server gives ports the first, and users may give them the second.
    ("ports", Exact::Entries(&["nodePort", "appProtocol"])),
    ("externalIPs", Exact::Unset),
];
const OF_PODS: &[(&str, Exact)] = &[
    ("nodeSelector", Exact::Keys),
    ("containers", Exact::Containers),
    ("initContainers", Exact::Unset),
    ("volumes", Exact::Entries(&["defaultMode"])),
    ("hostNetwork", Exact::Unset),
    ("hostPID", Exact::Unset),
    ("hostIPC", Exact::Unset),
];
/// What is left out here may be added, such as limits of resources. A mount goes with its volume.
const OF_CONTAINERS: &[(&str, Exact)] = &[
    ("env", Exact::Entries(&["apiVersion"])),
    ("envFrom", Exact::Unset),
    ("ports", Exact::Entries(&["protocol"])),
    ("volumeMounts", Exact::Entries(&[])),
    ("volumeDevices", Exact::Unset),
];

/// How a field is compared exactly.
#[derive(Clone, Copy)]
enum Exact {
    /// A map: no other keys.
    Keys,
    /// A list: no other entries, and in an entry no other fields than these.
    Entries(&'static [&'static str]),
    /// A list of containers: no others, and in each `OF_CONTAINERS` holds.
    Containers,
    /// It is not set.
    Unset,
}

/// What others have added to an object where nothing may be added.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Additions {
    /// A merge patch of the object that removes them.
    pub(super) patch: Value,
    /// Paths of the fields.
    pub(super) fields: Vec<String>,
}

/// Whether an object holds all that is wanted of it. What the API server and others have added
/// counts as little as how an amount is written.
pub(super) fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(name, value)| {
            let found = live.get(name);
            found.is_some_and(|found| covers(found, value) || is_same_amount(name, found, value))
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            if wanted.iter().all(|one| one["name"].is_string()) && !wanted.is_empty() {
                // The API server merges such lists by name.
                let is_there = |one: &Value| live.iter().any(|found| covers(found, one));
                return wanted.iter().all(is_there);
            }
            let mut pairs = live.iter().zip(wanted);
            live.len() == wanted.len() && pairs.all(|(live, wanted)| covers(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

fn is_same_amount(name: &str, live: &Value, wanted: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(quantity_in_milli);
    ["cpu", "memory"].contains(&name) && amount(live).is_some() && amount(live) == amount(wanted)
}

/// What others have added to an object, as far as it must go; none where that is nothing.
pub(super) fn additions(part: Part, live: &Value, wanted: &Value) -> Option<Additions> {
    let (path, fields) = match part {
        Part::ServiceAccount => return None,
        Part::Service => ("spec", OF_SERVICES),
        Part::Deployment => ("spec.template.spec", OF_PODS),
    };
    let found = without_additions(at(live, path), at(wanted, path), fields);
    if found.is_empty() {
        return None;
    }
    let fields = found.keys().map(|name| format!("{path}.{name}")).collect();
    let inside = Value::Object(found);
    let patch = path
        .rsplit('.')
        .fold(inside, |inside, name| json!({name: inside}));
    Some(Additions { patch, fields })
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |object, name| &object[name])
}

/// The fields to which something was added, each with what a merge patch has to hold for it.
fn without_additions(live: &Value, wanted: &Value, fields: &[(&str, Exact)]) -> Map<String, Value> {
    let found = fields.iter().filter_map(|(name, exact)| {
        let value = exact.without_additions(&live[*name], &wanted[*name])?;
        Some(((*name).to_owned(), value))
    });
    found.collect()
}

impl Exact {
    /// What a merge patch has to hold for a field; none where nothing was added to it.
    fn without_additions(self, live: &Value, wanted: &Value) -> Option<Value> {
        match self {
            Self::Keys => {
                let keys = live.as_object()?.keys();
                let added = keys.filter(|key| wanted.get(key.as_str()).is_none());
                let gone: Map<String, Value> =
                    added.map(|key| (key.clone(), Value::Null)).collect();
                (!gone.is_empty()).then_some(Value::Object(gone))
            }
            Self::Entries(more) => entries(list(live), list(wanted), more),
            Self::Containers => containers(list(live), list(wanted)),
            Self::Unset => {
                let is_unset = matches!(live, Value::Null | Value::Bool(false));
                let is_empty = live.as_array().is_some_and(Vec::is_empty);
                (!is_unset && !is_empty).then_some(Value::Null)
            }
        }
    }
}

fn entries(live: &[Value], wanted: &[Value], more: &[&str]) -> Option<Value> {
    let is_wanted = |found: &Value| wanted.iter().any(|one| is_exactly(found, one, more));
    if live.iter().all(is_wanted) {
        return None;
    }
    let kept = wanted.iter().map(|one| {
        let mut kept = one.clone();
        // Else a port would get another node port.
        if let Some(found) = live.iter().find(|found| covers(found, one)) {
            for field in more {
                if let Some(value) = found.get(*field) {
                    kept[*field] = value.clone();
                }
            }
        }
        kept
    });
    Some(Value::Array(kept.collect()))
}

fn containers(live: &[Value], wanted: &[Value]) -> Option<Value> {
    let kept = wanted.iter().map(|one| {
        let found = live.iter().find(|found| found["name"] == one["name"]);
        found.map_or_else(|| one.clone(), |found| container(found, one))
    });
    let kept: Vec<Value> = kept.collect();
    let is_same = live.iter().all(|found| kept.contains(found));
    (!is_same).then_some(Value::Array(kept))
}

fn container(live: &Value, wanted: &Value) -> Value {
    let mut kept = live.clone();
    if let Some(fields) = kept.as_object_mut() {
        for (name, value) in without_additions(live, wanted, OF_CONTAINERS) {
            if value.is_null() {
                fields.remove(&name);
            } else {
                fields.insert(name, value);
            }
        }
    }
    kept
}

fn is_exactly(live: &Value, wanted: &Value, more: &[&str]) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| {
                let found = live.get(name);
                found.is_some_and(|found| is_exactly(found, value, more))
            }) && live
                .keys()
                .all(|name| wanted.contains_key(name) || more.contains(&name.as_str()))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            let mut pairs = live.iter().zip(wanted);
            live.len() == wanted.len() && pairs.all(|(live, wanted)| is_exactly(live, wanted, more))
        }
        (live, wanted) => live == wanted,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[][..], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_additions_of_others_are_no_difference() {
        let wanted = json!({"spec": {
            "ports": [{"name": "port-80", "port": 80}],
            "resources": {"cpu": "0.5", "memory": "1Gi"},
            "args": ["run"],
        }});
        let live = json!({"metadata": {"uid": "u"}, "spec": {
            "type": "LoadBalancer",
            "ports": [{"name": "theirs", "port": 1}, {"name": "port-80", "port": 80, "nodePort": 30080}],
            "resources": {"cpu": "500m", "memory": "1024Mi"},
            "args": ["run"],
        }});
        assert!(covers(&live, &wanted));
        for (pointer, value) in [
            ("/spec/ports/1/port", json!(81)),
            ("/spec/ports", json!([])),
            ("/spec/resources/cpu", json!("501m")),
            ("/spec/args", json!(["run", "more"])),
            ("/spec/args", Value::Null),
        ] {
            let mut other = live.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            assert!(!covers(&other, &wanted), "{pointer}");
        }
    }

    /// A Service as it is wanted, and as the API server keeps it.
    fn service() -> (Value, Value) {
        let wanted = json!({"spec": {
            "selector": {"app": "gateway"},
            "ports": [{"name": "port-80", "port": 80, "targetPort": 20080, "protocol": "TCP"}],
        }});
        let mut live = wanted.clone();
        live["metadata"] = json!({"labels": {"theirs": "x"}});
        live["spec"]["ports"][0]["nodePort"] = json!(30080);
        live["spec"]["clusterIP"] = json!("10.96.0.9");
        live["spec"]["loadBalancerClass"] = json!("theirs");
        (live, wanted)
    }

    /// The same of a Deployment.
    fn deployment() -> (Value, Value) {
        let pod = json!({
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "containers": [{
                "name": "weft-gateway",
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "ports": [{"name": "weft-admin", "containerPort": 15190}],
                "volumeMounts": [{"name": "bundle", "mountPath": "/bundle", "readOnly": true}],
            }],
            "volumes": [{"name": "bundle", "configMap": {"name": "bundle"}}],
        });
        let wanted = json!({"spec": {"template": {"spec": pod}}});
        let mut live = wanted.clone();
        live["spec"]["replicas"] = json!(7);
        let pod = &mut live["spec"]["template"]["spec"];
        pod["dnsPolicy"] = json!("ClusterFirst");
        pod["volumes"][0]["configMap"]["defaultMode"] = json!(420);
        let container = &mut pod["containers"][0];
        container["terminationMessagePath"] = json!("/dev/termination-log");
        container["env"][1]["valueFrom"]["fieldRef"]["apiVersion"] = json!("v1");
        container["ports"][0]["protocol"] = json!("TCP");
        (live, wanted)
    }

    #[test]
    fn additions_that_change_meaning_are_found_and_others_stay() {
        let (service, wanted_service) = service();
        let (deployment, wanted_deployment) = deployment();
        let (port, env) = (
            &service["spec"]["ports"][0],
            "/spec/template/spec/containers/0/env",
        );
        let theirs = json!({"name": "theirs", "image": "x"});
        for (part, live, wanted, added) in [
            (
                Part::Service,
                &service,
                &wanted_service,
                vec![
                    ("/spec/selector", json!({"app": "gateway", "more": "x"})),
                    (
                        "/spec/ports",
                        json!([port, {"name": "x", "port": 7777, "targetPort": 15190}]),
                    ),
                    ("/spec/externalIPs", json!(["192.0.2.1"])),
                ],
            ),
            (
                Part::Deployment,
                &deployment,
                &wanted_deployment,
                vec![
                    ("/spec/template/spec/nodeSelector/disk", json!("none")),
                    ("/spec/template/spec/containers/1", theirs.clone()),
                    ("/spec/template/spec/initContainers", json!([theirs])),
                    ("/spec/template/spec/volumes/0/configMap/items", json!([])),
                    ("/spec/template/spec/hostNetwork", json!(true)),
                    (
                        env,
                        json!([{"name": "A", "value": "1"}, {"name": "C", "value": "2"}]),
                    ),
                ],
            ),
        ] {
            assert_eq!(
                additions(part, live, wanted),
                None,
                "what the API server adds"
            );
            for (pointer, value) in added {
                let (parent, last) = pointer.rsplit_once('/').unwrap();
                let mut changed = live.clone();
                match changed.pointer_mut(parent).unwrap() {
                    Value::Array(entries) => entries.push(value),
                    other => other[last] = value,
                }
                let found = additions(part, &changed, wanted).unwrap();
                let field = found.fields[0].replace('.', "/");
                assert!(pointer[1..].starts_with(&field), "{pointer}: {found:?}");
                assert_eq!(found.fields.len(), 1, "{found:?}");
                // Lists are written whole, as they were before.
                let patched = found.patch.pointer(&format!("/{field}")).unwrap();
                if patched.is_array() {
                    let mut kept = live.clone();
                    *kept.pointer_mut(&format!("/{field}")).unwrap() = patched.clone();
                    assert_eq!(additions(part, &kept, wanted), None, "{pointer}");
                    assert!(covers(&kept, wanted), "{pointer}");
                }
            }
        }
    }
}
