//! Checks of controller and injector, and of what the API server stores of them.

use std::collections::BTreeSet;

use crds::inject::CaptureMode;
use k8s_openapi::ByteString;
use serde_json::Value;

use super::facts::{CheckResult, CheckStatus, Facts, Missing, few, name_of};
use crate::commands::lifetime::{Days, days_left};
use crate::kinds;
use crate::output::number;

/// Days before the root's end that leave time for changing it everywhere.
const ROOT_DAYS: i64 = 60;
/// The issuer is renewed long before.
const ISSUER_DAYS: i64 = 7;
/// A Lease that was not renewed for this many seconds has no holder.
const LEASE_SECONDS: u64 = 60;
/// Our aggregated APIs: the group, the controller's variable that switches it on, and the
/// APIServices that the chart writes then.
pub(super) const APIS: &[(&str, &str, &[&str])] = &[
    (
        "metrics.smi-spec.io",
        "WEFT_METRICS_API",
        &[
            "v1alpha1.metrics.smi-spec.io",
            "v1alpha2.metrics.smi-spec.io",
        ],
    ),
    (
        "observe.weft.dev",
        "WEFT_OBSERVE",
        &["v1alpha1.observe.weft.dev"],
    ),
];
/// The webhooks' configurations: as they are read, and as they are named in messages.
pub(super) const WEBHOOKS: [(&str, &str); 2] = [
    ("mutating", "MutatingWebhookConfiguration weft-injector"),
    (
        "validating",
        "ValidatingWebhookConfiguration weft-validator",
    ),
];
/// The container whose variables these are.
const CONTROLLER_CONTAINER: &str = "controller";

/// A part that must be there.
pub(super) fn needed<'a>(
    facts: &'a Facts,
    part: &str,
    what: &str,
) -> Result<Result<&'a Value, String>, String> {
    let found = facts.existing(part)?;
    Ok(found.ok_or_else(|| format!("{what} is missing")))
}

pub(super) fn controller(facts: &Facts) -> CheckResult {
    replicas(facts, "controller")
}

pub(super) fn injector(facts: &Facts) -> CheckResult {
    replicas(facts, "injector")
}

fn replicas(facts: &Facts, part: &str) -> CheckResult {
    let name = format!("Deployment {}/weft-{part}", facts.weft);
    Ok(match needed(facts, part, &name)? {
        Err(missing) => (CheckStatus::Error, missing),
        Ok(deployment) => {
            let wanted = wanted(deployment);
            let ready = deployment["status"]["readyReplicas"]
                .as_u64()
                .unwrap_or_default();
            let message = format!("{ready} of {wanted} replicas are ready");
            match ready {
                0 => (CheckStatus::Error, message),
                ready if ready < wanted => (CheckStatus::Warning, message),
                _ => (CheckStatus::Ok, message),
            }
        }
    })
}

fn wanted(deployment: &Value) -> u64 {
    deployment["spec"]["replicas"].as_u64().unwrap_or(1)
}

pub(super) fn single_replicas(facts: &Facts) -> CheckResult {
    let mut few = Vec::new();
    for part in ["controller", "injector"] {
        match facts.existing(part)?.map(wanted) {
            Some(0) => few.push(format!("{part} has no replica")),
            Some(1) => few.push(format!("{part} has one replica")),
            _ => {}
        }
    }
    Ok(if few.is_empty() {
        (CheckStatus::Ok, "none".to_owned())
    } else {
        (CheckStatus::Warning, few.join(" and "))
    })
}

pub(super) fn versions(facts: &Facts) -> CheckResult {
    let ours = env!("CARGO_PKG_VERSION");
    let mut others = Vec::new();
    for part in ["controller", "injector"] {
        let Some(deployment) = facts.existing(part)? else {
            continue;
        };
        let version = deployment["metadata"]["labels"]["app.kubernetes.io/version"].as_str();
        let version = version.unwrap_or("unknown");
        if version != ours {
            others.push(format!("{part} is {version}"));
        }
    }
    Ok(if others.is_empty() {
        (CheckStatus::Ok, ours.to_owned())
    } else {
        (
            CheckStatus::Warning,
            format!("{}, this command is {ours}", others.join(", ")),
        )
    })
}

pub(super) fn lease(facts: &Facts) -> CheckResult {
    let lease = match needed(facts, "lease", "Lease weft-controller")? {
        Ok(lease) => &lease["spec"],
        Err(missing) => return Ok((CheckStatus::Error, missing)),
    };
    let holder = lease["holderIdentity"].as_str().unwrap_or_default();
    let renewed = lease["renewTime"].as_str().and_then(|time| facts.ago(time));
    Ok(match (holder, renewed) {
        ("", _) => (CheckStatus::Error, "no replica holds it".to_owned()),
        (holder, Some(ago)) if ago.as_secs() <= LEASE_SECONDS => {
            (CheckStatus::Ok, format!("held by {holder}"))
        }
        (holder, Some(ago)) => (
            CheckStatus::Error,
            format!("{holder} renewed it {} ago", number::age(ago)),
        ),
        (holder, None) => (CheckStatus::Error, format!("{holder} never renewed it")),
    })
}

/// So many days are left of a certificate that should have `least`. What is renewed at two thirds
/// of a short life never has those: two ninths of it do then.
pub(super) fn remaining(
    days: Result<Days, String>,
    what: &str,
    least: i64,
) -> (CheckStatus, String) {
    let Days { left, life } = match days {
        Ok(days) => days,
        Err(why) => return (CheckStatus::Error, format!("{what} {why}")),
    };
    if left < 0 {
        let message = format!("{what} ended {} days ago", left.abs());
        (CheckStatus::Error, message)
    } else if left < least.min(life / 9 * 2) {
        (CheckStatus::Warning, format!("{what} ends in {left} days"))
    } else {
        (CheckStatus::Ok, format!("{left} days left"))
    }
}

pub(super) fn root(facts: &Facts) -> CheckResult {
    let bundles = facts.list("bundles")?;
    let roots = bundles
        .iter()
        .find_map(|map| map["data"][crds::objects::TRUST_BUNDLE_KEY].as_str());
    match roots {
        Some(pem) => Ok(remaining(
            days_left(pem.as_bytes(), facts.now),
            "the root",
            ROOT_DAYS,
        )),
        None => {
            let named = facts.named.as_deref();
            if let Some(namespace) = named.filter(|namespace| facts.excluded().contains(namespace))
            {
                return Err(format!(
                    "namespace {namespace} is left out and has no roots"
                ));
            }
            let place = named.map_or_else(
                || "any namespace".to_owned(),
                |namespace| format!("namespace {namespace}"),
            );
            let missing = format!("there is no ConfigMap weft-trust-bundle with roots in {place}");
            Ok((CheckStatus::Error, missing))
        }
    }
}

pub(super) fn issuer(facts: &Facts) -> CheckResult {
    match needed(facts, "ca", "Secret weft-ca")? {
        Err(missing) => Ok((CheckStatus::Error, missing)),
        Ok(secret) => {
            let pem = bytes(&secret["data"]["issuer.crt"]);
            Ok(match pem {
                None => (
                    CheckStatus::Error,
                    "Secret weft-ca has no issuer.crt".to_owned(),
                ),
                Some(pem) => remaining(days_left(&pem, facts.now), "the issuer", ISSUER_DAYS),
            })
        }
    }
}

pub(super) fn bytes(value: &Value) -> Option<Vec<u8>> {
    let read: ByteString = serde_json::from_value(value.clone()).ok()?;
    Some(read.0)
}

/// Of a certificate in PEM. Where there is one namespace, its bundle is what most have, whatever
/// it is.
const FIRST_LINE: &str = "-----BEGIN CERTIFICATE-----";

pub(super) fn bundles(facts: &Facts) -> CheckResult {
    let maps = facts.list("bundles")?;
    let roots = |map: &Value| {
        map["data"][crds::objects::TRUST_BUNDLE_KEY]
            .as_str()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    // What most have is what the controller writes.
    let most = maps
        .iter()
        .map(roots)
        .max_by_key(|one| maps.iter().filter(|map| roots(map) == *one).count());
    let other: Vec<String> = maps
        .iter()
        .filter(|map| Some(roots(map)) != most || !roots(map).contains(FIRST_LINE))
        .map(|map| {
            map["metadata"]["namespace"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    let leaving = maps
        .iter()
        .filter(|map| !map["data"][crds::objects::TRUST_BUNDLE_LEAVING].is_null())
        .count();
    Ok(if !other.is_empty() {
        (
            CheckStatus::Error,
            format!("other roots in namespace {}", few(&other)),
        )
    } else if leaving > 0 {
        (
            CheckStatus::Warning,
            format!("{leaving} say that the mesh is being removed"),
        )
    } else {
        (
            CheckStatus::Ok,
            format!("the same in {} namespaces", maps.len()),
        )
    })
}

pub(super) fn definitions(facts: &Facts) -> CheckResult {
    let found = facts.list("definitions")?;
    let mut wrong = Vec::new();
    let kinds = kinds::all();
    for kind in &kinds {
        let name = kind.definition();
        let definition = found
            .iter()
            .find(|one| one["metadata"]["name"] == name.as_str());
        let served = definition.is_some_and(|definition| {
            let versions = definition["spec"]["versions"].as_array();
            let mut versions = versions.into_iter().flatten();
            versions.any(|one| one["name"] == kind.version && one["served"] == true)
        });
        if !served {
            wrong.push(format!("{name} {}", kind.version));
        }
    }
    Ok(if wrong.is_empty() {
        (CheckStatus::Ok, format!("{} kinds", kinds.len()))
    } else {
        (CheckStatus::Error, format!("not served: {}", few(&wrong)))
    })
}

pub(super) fn api_services(facts: &Facts) -> CheckResult {
    // Kubernetes calls an API available that it may reach and cannot verify yet.
    if let Err(Missing::Away(why)) = facts.part("proxies") {
        return Ok((CheckStatus::Error, why));
    }
    let ours = our_api_services(facts)?;
    let mut wrong = Vec::new();
    let missing: Vec<String> = switched_on(facts)
        .filter(|name| !ours.iter().any(|service| name_of(service) == *name))
        .map(ToOwned::to_owned)
        .collect();
    if !missing.is_empty() {
        wrong.push(format!("missing: {}", few(&missing)));
    }
    let away: Vec<String> = ours
        .iter()
        .filter(|service| !is_available(service))
        .map(|service| name_of(service))
        .collect();
    if !away.is_empty() {
        wrong.push(format!("not available: {}", few(&away)));
    }
    if !wrong.is_empty() {
        return Ok((CheckStatus::Error, wrong.join("; ")));
    }
    if ours.is_empty() {
        return Err("neither metrics API nor read API is installed".to_owned());
    }
    Ok((CheckStatus::Ok, format!("{} answer", ours.len())))
}

/// APIServices of our groups.
fn our_api_services(facts: &Facts) -> Result<Vec<&Value>, String> {
    let services = facts.list("api-services")?.iter();
    let ours = services.filter(|service| {
        let group = &service["spec"]["group"];
        APIS.iter().any(|(ours, ..)| group == ours)
    });
    Ok(ours.collect())
}

/// What outlived controller and injector: pods of labelled namespaces are refused because of it,
/// and deleted namespaces wait.
pub(super) fn left_over(facts: &Facts) -> CheckResult {
    for part in ["controller", "injector"] {
        if needed(facts, part, part)?.is_ok() {
            return Ok((CheckStatus::Ok, "none".to_owned()));
        }
    }
    let mut left = Vec::new();
    let mut leads_to: BTreeSet<&str> = BTreeSet::new();
    for (part, name) in WEBHOOKS {
        if let Ok(configuration) = needed(facts, part, name)? {
            left.push(name.to_owned());
            let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
            let namespaces = webhooks.filter_map(|one| {
                let service = &one["clientConfig"]["service"];
                service["namespace"].as_str()
            });
            leads_to.extend(namespaces);
        }
    }
    // Another product may serve the metrics of SMI.
    let leads_to_us = |service: &&&Value| {
        let name = service["spec"]["service"]["name"].as_str();
        name.is_none_or(|name| name.starts_with("weft-"))
    };
    for service in our_api_services(facts)?.iter().filter(leads_to_us) {
        left.push(format!("APIService {}", name_of(service)));
        leads_to.extend(service["spec"]["service"]["namespace"].as_str());
    }
    // A mesh that is installed elsewhere is none that is gone.
    let mut leads_to = leads_to.into_iter();
    if let Some(namespace) = leads_to.find(|namespace| *namespace != facts.weft) {
        return Err(format!(
            "a mesh is installed in namespace {namespace}: say --weft-namespace {namespace}"
        ));
    }
    Ok(match left.len() {
        0 => (CheckStatus::Ok, "none".to_owned()),
        all => (
            CheckStatus::Error,
            format!(
                "{all} lead to namespace {}, which has no controller and no injector: {}",
                facts.weft,
                few(&left)
            ),
        ),
    })
}

fn is_available(service: &Value) -> bool {
    let conditions = service["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Available" && one["status"] == "True")
}

/// The APIServices that the controller is configured to serve, as far as the user may see its
/// settings.
fn switched_on(facts: &Facts) -> impl Iterator<Item = &'static str> {
    let on = APIS
        .iter()
        .filter(move |(_, name, _)| variable(facts, name) == Some("true"));
    on.flat_map(|(.., names)| names.iter().copied())
}

/// A variable of the controller, as far as the user may see its settings.
pub(super) fn variable<'a>(facts: &'a Facts, name: &str) -> Option<&'a str> {
    let controller = facts.part("controller").ok()?;
    let containers = controller["spec"]["template"]["spec"]["containers"].as_array()?;
    let mut containers = containers.iter();
    let ours = containers.find(|container| container["name"] == CONTROLLER_CONTAINER)?;
    let mut variables = ours["env"].as_array()?.iter();
    variables.find(|one| one["name"] == name)?["value"].as_str()
}

/// A variable of the injector, as far as the user may see it.
pub(super) fn injector_variable<'a>(facts: &'a Facts, name: &str) -> Option<&'a str> {
    let injector = facts.part("injector").ok()?;
    let containers = injector["spec"]["template"]["spec"]["containers"].as_array()?;
    let variables = containers.iter().filter_map(|one| one["env"].as_array());
    let mut variables = variables.flatten();
    variables.find(|one| one["name"] == name)?["value"].as_str()
}

/// What redirects the traffic of new pods, as far as the user may see it. A mode that this command
/// does not know is that of a later version.
pub(super) fn capture_mode(facts: &Facts) -> CaptureMode {
    let mode = injector_variable(facts, "WEFT_CAPTURE_MODE");
    mode.and_then(|mode| mode.parse().ok()).unwrap_or_default()
}

/// Nodes on which nothing redirects the traffic of new pods. They wait there.
pub(super) fn node_agents(facts: &Facts) -> CheckResult {
    // The mode could be that of an injector that may not be seen.
    let injector = needed(facts, "injector", "injector")?;
    if injector.is_err() || capture_mode(facts) == CaptureMode::Init {
        let message = "none is needed: pods redirect their traffic themselves";
        return Ok((CheckStatus::Ok, message.to_owned()));
    }
    let name = format!("DaemonSet {}/weft-node", facts.weft);
    let status = match needed(facts, "node-agents", &name)? {
        Ok(agents) => &agents["status"],
        Err(missing) => return Ok((CheckStatus::Error, missing)),
    };
    let number = |of: &str| status[of].as_u64().unwrap_or_default();
    let (wanted, ready) = (number("desiredNumberScheduled"), number("numberReady"));
    let message = format!("an agent is ready on {ready} of {wanted} nodes");
    Ok(match ready {
        0 => (CheckStatus::Error, message),
        ready if ready < wanted => (CheckStatus::Warning, message),
        _ => (CheckStatus::Ok, message),
    })
}
