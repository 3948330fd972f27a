//! Checks of the injector's webhooks: the configurations, their CA bundles, and whether the API
//! server calls them.

use crds::objects::{INJECTOR_CA_SECRET, PROXY_CONTAINER};
use serde_json::Value;

use super::control::{WEBHOOKS, bytes, needed, remaining};
use super::facts::{CheckResult, CheckStatus, Facts, is_exclusion, name_of};
use super::probes::Tried;
use crate::commands::lifetime::{days_left, first_is_among};

/// The Service that the API server calls.
const SERVICE: &str = "weft-injector";

pub(super) fn webhooks(facts: &Facts) -> CheckResult {
    let mut missing = Vec::new();
    for (part, name) in WEBHOOKS {
        if let Err(why) = needed(facts, part, name)? {
            missing.push(why);
        }
    }
    Ok(if missing.is_empty() {
        (CheckStatus::Ok, "both are there".to_owned())
    } else {
        (CheckStatus::Error, missing.join(", "))
    })
}

/// What the API server trusts, wherever it calls the injector.
fn trusted(facts: &Facts) -> Result<Vec<(String, Vec<u8>)>, String> {
    let bundle = |config: &Value| bytes(&config["caBundle"]).unwrap_or_default();
    let mut trusted = Vec::new();
    for part in ["mutating", "validating"] {
        let Some(configuration) = facts.existing(part)? else {
            continue;
        };
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            let name = webhook["name"].as_str().unwrap_or_default();
            trusted.push((format!("webhook {name}"), bundle(&webhook["clientConfig"])));
        }
    }
    for definition in facts.list("definitions")? {
        let config = &definition["spec"]["conversion"]["webhook"]["clientConfig"];
        let service = &config["service"];
        if service["name"] == SERVICE && service["namespace"] == facts.weft.as_str() {
            let name = format!("definition {}", name_of(definition));
            trusted.push((name, bundle(config)));
        }
    }
    Ok(trusted)
}

pub(super) fn ca_bundles(facts: &Facts) -> CheckResult {
    let trusted = trusted(facts)?;
    let Some((first, most)) = trusted.first() else {
        return Err("there are no webhooks".to_owned());
    };
    // Without the right to read the Secret, bundles that differ are still reported.
    let signer = facts.part("injector-ca").ok();
    let signer = signer.and_then(|secret| bytes(&secret["data"]["ca.crt"]));
    for (what, bundle) in &trusted {
        if bundle.is_empty() {
            return Ok((CheckStatus::Error, format!("{what} has no caBundle")));
        }
        let about = format!("the caBundle of {what}");
        let (outcome, message) = remaining(days_left(bundle, facts.now), &about, 1);
        if outcome != CheckStatus::Ok {
            return Ok((CheckStatus::Error, message));
        }
        if let Some(signer) = &signer
            && !first_is_among(signer, bundle)
        {
            let message = format!("{about} does not hold the certificate of {INJECTOR_CA_SECRET}");
            return Ok((CheckStatus::Error, message));
        }
        if bundle != most {
            let message = format!("{about} is another one than that of {first}");
            return Ok((CheckStatus::Error, message));
        }
    }
    Ok((
        CheckStatus::Ok,
        format!("the same in {} places", trusted.len()),
    ))
}

/// Why a webhook is not called for objects of the namespace in which it is tried.
fn passed_over(facts: &Facts, part: &str) -> Result<(), String> {
    let namespace = &facts.probes.namespace;
    let Ok(configuration) = facts.part(part) else {
        return Ok(());
    };
    let mut webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    let leaves_out = |webhook: &Value| {
        let rules = webhook["namespaceSelector"]["matchExpressions"].as_array();
        rules.into_iter().flatten().any(|rule| {
            let names = rule["values"].as_array();
            is_exclusion(rule)
                && names.is_some_and(|names| names.iter().any(|name| name == namespace.as_str()))
        })
    };
    if webhooks.any(leaves_out) {
        return Err(format!(
            "namespace {namespace} is left out (value excludedNamespaces); try it in another with -n"
        ));
    }
    Ok(())
}

pub(super) fn injection(facts: &Facts) -> CheckResult {
    passed_over(facts, "mutating")?;
    let namespace = &facts.probes.namespace;
    match &facts.probes.injection {
        Tried::Not(why) => Err(why.clone()),
        Tried::Taken(pod) => {
            let containers = pod["spec"]["initContainers"].as_array();
            let mut containers = containers.into_iter().flatten();
            let injected = containers.any(|container| container["name"] == PROXY_CONTAINER);
            Ok(if injected {
                (CheckStatus::Ok, format!("works in namespace {namespace}"))
            } else {
                (
                    CheckStatus::Error,
                    format!("a pod of namespace {namespace} with the label got no proxy"),
                )
            })
        }
        // The proxy was added, and the namespace does not admit it.
        Tried::Refused(_, why) if why.contains("PodSecurity") => Ok((
            CheckStatus::Warning,
            format!("namespace {namespace} does not admit meshed pods: {why}"),
        )),
        Tried::Refused(403 | 404, why) if !why.contains("webhook") => Err(why.clone()),
        Tried::Refused(_, why) => Ok((CheckStatus::Error, why.clone())),
    }
}

pub(super) fn validation(facts: &Facts) -> CheckResult {
    passed_over(facts, "validating")?;
    match &facts.probes.validation {
        Tried::Not(why) => Err(why.clone()),
        Tried::Taken(_) => Ok((
            CheckStatus::Error,
            "nonsense was accepted: the webhook was not called or did not answer".to_owned(),
        )),
        Tried::Refused(_, why) if why.contains("is invalid") => {
            Ok((CheckStatus::Ok, "works".to_owned()))
        }
        Tried::Refused(403 | 404, why) => Err(why.clone()),
        Tried::Refused(_, why) => Ok((CheckStatus::Error, why.clone())),
    }
}
