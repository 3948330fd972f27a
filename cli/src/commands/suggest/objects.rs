//! Calls as TrafficTargets and TCPRoutes. Sources stand in one target only if they made
//! the same calls: a target allows each of its sources all of its rules.

use std::collections::{BTreeMap, BTreeSet};

use crds::labels::short_hash;
use serde_json::{Value, json};

use super::called::Account;
use super::calls::{Calls, Traffics};

/// The longest name that stays readable.
const LONGEST_NAME: usize = 63;

/// The objects, routes before the targets that name them.
pub(super) fn of(calls: &Calls) -> Vec<Value> {
    let mut targets: BTreeMap<(&Account, &Traffics), BTreeSet<&Account>> = BTreeMap::new();
    for ((destination, source, _), traffics) in &calls.facts {
        targets
            .entry((destination, traffics))
            .or_default()
            .insert(source);
    }
    let mut objects = BTreeMap::new();
    let mut last = Vec::new();
    for (((namespace, account), traffics), sources) in targets {
        let route = route_name(account, &traffics.ports);
        let ports: Vec<u16> = traffics.ports.iter().copied().collect();
        let tcp = json!({
            "apiVersion": "specs.smi-spec.io/v1alpha4",
            "kind": "TCPRoute",
            "metadata": {"name": route, "namespace": namespace},
            "spec": {"matches": {"ports": ports}},
        });
        objects.insert((namespace.clone(), route.clone()), tcp);
        let mut rules = vec![json!({"kind": "TCPRoute", "name": route})];
        for (group, matches) in &traffics.routes {
            let matches: Vec<&String> = matches.iter().collect();
            rules.push(json!({"kind": "HTTPRouteGroup", "name": group, "matches": matches}));
        }
        let sources: Vec<Value> = sources
            .into_iter()
            .map(|(namespace, name)| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
            .collect();
        let spec = json!({
            "destination": {"kind": "ServiceAccount", "name": account, "namespace": namespace},
            "sources": sources,
            "rules": rules,
        });
        last.push(json!({
            "apiVersion": "access.smi-spec.io/v1alpha4",
            "kind": "TrafficTarget",
            "metadata": {"name": target_name(account, &spec), "namespace": namespace},
            "spec": spec,
        }));
    }
    objects.into_values().chain(last).collect()
}

/// The same ports have the same name in every run. The hash distinguishes account `web` with port
/// 80 and 8080 from account `web-80` with port 8080.
fn route_name(account: &str, ports: &BTreeSet<u16>) -> String {
    let hash = short_hash(&json!([account, ports]).to_string());
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    shortened(format!("{account}-{}-{}", ports.join("-"), &hash[..8]))
}

/// The name is made of the content, so that a second run changes what is there and adds no twin.
fn target_name(account: &str, spec: &Value) -> String {
    let what = json!([spec["destination"], spec["rules"]]).to_string();
    let hash = short_hash(&what);
    shortened(format!("{account}-{}", &hash[..8]))
}

fn shortened(name: String) -> String {
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let hash = short_hash(&name);
    let kept: String = name.chars().take(LONGEST_NAME - 1 - hash.len()).collect();
    format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
}
