//! Injects the proxy into a pod, and removes it.
//!
//! A pure function from a pod to a changed pod, so that the webhook and a command decide alike. It
//! works on the JSON, not on a typed pod: fields that are newer than our types must stay
//! unchanged.
//!
//! Injection is idempotent: values of an earlier injection are kept below the new ones, so the
//! defaults that the API server filled in, and what other webhooks added, stay, and a second run
//! changes nothing.

mod checks;
mod containers;
mod drain;
mod earlier;
mod gate;
mod guaranteed;
mod handlers;
mod obstacles;
mod overrides;
mod placement;
mod pod;
mod pod_resources;
mod refusal;
mod spelling;
mod workload;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation};
use serde_json::{Map, Value};

use crate::labels::{
    self, ACCOUNT, DEFAULT_CONTAINER, DRAIN_DELAY, PROXY_VERSION, account_hash, account_of,
    parse_drain_delay,
};
use crate::objects::VOLUMES;
use earlier::Earlier;
use overrides::Overrides;
use pod::object;

pub use checks::check_ephemeral;
pub use gate::{Releases, StableRevision};
pub use guaranteed::is_guaranteed;
pub use obstacles::{PodDemand, obstacles, obstacles_of};
pub use overrides::{CaptureMode, DefaultLimits, HookToken, Namespace, NoCaptureMode, Settings};
pub use placement::{Architectures, NotAnArchitecture};
pub use refusal::Refusal;
pub use spelling::{SPELLED, misspelled, unheard};

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum InjectionOutcome {
    /// The pod gets a proxy.
    Injected(Box<Injected>),
    /// The pod stays as it is.
    Skipped {
        /// Why.
        reason: Skip,
        /// A warning for the user.
        warning: Option<String>,
    },
}

/// A pod with its proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The whole pod.
    pub pod: Value,
    /// From the old pod to the new one; empty when nothing changed.
    pub patch: Patch,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Why a pod stays without a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// Neither pod nor namespace asked for one, or the pod asked for none.
    NotRequested,
    /// The pod uses the node's network, which is not the pod's to redirect.
    HostNetwork,
    /// The pod runs on Windows.
    Windows,
}

impl Skip {
    /// The reason in one word, from a closed list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRequested => "not-asked",
            Self::HostNetwork => "host-network",
            Self::Windows => "windows",
        }
    }
}

/// Adds the proxy to `pod`, unless it must not get one.
///
/// `token` is used when the pod has no token from an earlier run.
///
/// # Errors
/// A [`Refusal`] when the pod asked for a proxy but cannot have one; it names the
/// field, the reason and the way out.
pub fn inject(
    pod: &Value,
    namespace: &Namespace,
    settings: &Settings,
    token: HookToken,
) -> Result<InjectionOutcome, Refusal> {
    if !is_requested(pod, namespace)? {
        return Ok(InjectionOutcome::Skipped {
            reason: Skip::NotRequested,
            warning: None,
        });
    }
    let spec = pod
        .get("spec")
        .and_then(Value::as_object)
        .ok_or(Refusal::NotAPod)?;
    if let Some((reason, warning)) = cannot_be_meshed(spec) {
        return Ok(InjectionOutcome::Skipped {
            reason,
            warning: Some(warning),
        });
    }
    let overrides = Overrides::read(pod, namespace, settings)?.limited(&settings.limits);
    let earlier = Earlier::read(spec)?;
    checks::check(spec, &earlier)?;
    placement::check(spec, &settings.architectures)?;
    let warning = checks::check_dns(spec, &settings.controller_address)?;

    let mut changed = pod.clone();
    let mut warnings: Vec<String> = warning.into_iter().collect();
    warnings.extend(checks::check_runtime(spec, settings.capture));
    stamp(&mut changed, settings, &overrides);
    let workload = workload::workload(pod);
    stamp_account(&mut changed, namespace, earlier.present)?;
    let spec = changed
        .get_mut("spec")
        .and_then(Value::as_object_mut)
        .ok_or(Refusal::NotAPod)?;
    let handlers = handlers::rewrite(spec, &earlier, token)?;
    drain::add_delay(spec, overrides.drain_delay, &mut warnings);
    if gate::is_due(pod, &namespace.releases) {
        gate::add(spec);
    }
    let share = pod_resources::add(spec, &overrides, &earlier.share);
    containers::add(spec, settings, &overrides, &handlers, &workload, &share);

    let patch = patch(pod, &changed);
    Ok(InjectionOutcome::Injected(Box::new(Injected {
        pod: changed,
        patch,
        warnings,
    })))
}

fn is_requested(pod: &Value, namespace: &Namespace) -> Result<bool, Refusal> {
    let label = pod
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(labels::INJECT));
    let (text, field) = match label {
        Some(text) => (
            text.as_str().unwrap_or_default(),
            format!("metadata.labels[{}]", labels::INJECT),
        ),
        None => match namespace.labels.get(labels::INJECT) {
            Some(text) => (
                text.as_str(),
                format!("label {} of namespace {}", labels::INJECT, namespace.name),
            ),
            None => return Ok(false),
        },
    };
    labels::parse_inject(text).map_err(|reason| Refusal::BadValue { field, reason })
}

fn cannot_be_meshed(spec: &Map<String, Value>) -> Option<(Skip, String)> {
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Some((
            Skip::HostNetwork,
            format!(
                "weft: this pod gets no proxy, because it uses the node's network \
                 (spec.hostNetwork); label it {}={} to say that this is meant",
                labels::INJECT,
                labels::DISABLED
            ),
        ));
    }
    let field = placement::on_windows(spec)?;
    Some((
        Skip::Windows,
        format!("weft: this pod gets no proxy, because it runs on Windows ({field})"),
    ))
}

/// Writes the annotations that say what was done.
fn stamp(pod: &mut Value, settings: &Settings, overrides: &Overrides) {
    let first = pod
        .pointer("/spec/containers/0/name")
        .and_then(Value::as_str)
        .map(ToOwned::to_owned);
    let Some(metadata) = pod.as_object_mut().and_then(|pod| object(pod, "metadata")) else {
        return;
    };
    let Some(annotations) = object(metadata, "annotations") else {
        return;
    };
    annotations.insert(
        labels::PROXY_VERSION.into(),
        settings.version.clone().into(),
    );
    if let Some(first) = first {
        annotations
            .entry(labels::DEFAULT_CONTAINER)
            .or_insert_with(|| first.into());
    }
    // The controller publishes skipped ports as plaintext and knows them from the pod
    // alone, so what the namespace asked for at this moment has to be on the pod.
    for (name, list) in overrides.skip_lists() {
        if !list.is_empty() {
            annotations.entry(name).or_insert_with(|| list.into());
        }
    }
    // Removal knows by it how long the hooks sleep that are not the user's own.
    if let Some(seconds) = overrides.drain_delay {
        annotations
            .entry(labels::DRAIN_DELAY)
            .or_insert_with(|| seconds.to_string().into());
    }
}

/// Writes the label by which NetworkPolicies know a pod's service account. `again`: the pod
/// carries a proxy already, so a label that is there is an earlier run's, and another webhook has
/// changed the account since.
///
/// # Errors
/// When the pod already has another value. It is not put right silently: a controller
/// whose selector holds that value would not know its own pod and make the next one.
fn stamp_account(pod: &mut Value, namespace: &Namespace, again: bool) -> Result<(), Refusal> {
    let account = pod.get("spec").map_or("default", account_of).to_owned();
    let right = account_hash(&namespace.name, &account);
    let metadata = pod.as_object_mut().and_then(|pod| object(pod, "metadata"));
    let Some(labels) = metadata.and_then(|metadata| object(metadata, "labels")) else {
        return Err(Refusal::NotAPod);
    };
    if let Some(found) = labels.get(ACCOUNT).filter(|found| **found != *right)
        && !again
    {
        return Err(Refusal::FalseAccount {
            found: found
                .as_str()
                .unwrap_or_default()
                .chars()
                .take(80)
                .collect(),
            account,
            right,
        });
    }
    labels.insert(ACCOUNT.into(), right.into());
    Ok(())
}

/// The JSON patch from a pod to the one with a proxy.
///
/// Replaces whole members of `spec`, of the annotations and of the labels. Finer differences would move
/// list entries about, and a difference by position can mix two containers.
fn patch(old: &Value, new: &Value) -> Patch {
    let mut operations = Vec::new();
    if old.get("metadata").is_some() {
        for map in ["annotations", "labels"] {
            let path = ["metadata", map];
            let current = old.get("metadata").and_then(|metadata| metadata.get(map));
            if current.is_some_and(Value::is_object) {
                members(old, new, &path, &mut operations);
            } else if let Some(map) = new["metadata"].get(map).filter(|map| Some(*map) != current) {
                operations.push(add(&path, map));
            }
        }
    } else if let Some(metadata) = new.get("metadata") {
        operations.push(add(&["metadata"], metadata));
    }
    members(old, new, &["spec"], &mut operations);
    Patch(operations)
}

fn members(old: &Value, new: &Value, path: &[&str], operations: &mut Vec<PatchOperation>) {
    let empty = Value::Object(Map::new());
    let (old, new) = (
        at(old, path).unwrap_or(&empty),
        at(new, path).unwrap_or(&empty),
    );
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return;
    };
    for (key, value) in new {
        if old.get(key) != Some(value) {
            // "add" replaces an existing member, and needs no test for one.
            operations.push(add(&[path, &[key]].concat(), value));
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        let path = PointerBuf::from_tokens([path, &[key.as_str()]].concat());
        operations.push(PatchOperation::Remove(RemoveOperation { path }));
    }
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

fn add(path: &[&str], value: &Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
        value: value.clone(),
    })
}

/// The pod without its proxy, without what `inject` wrote and nothing else; nothing where it has
/// no proxy that `inject` gave it.
///
/// What the user may have written in the same words goes too. Where a pod means something else
/// without it, as without a sleep of just that length, the command line reports it. Probes and
/// hooks come back as the proxy got them, a port that had a name as its number. What a
/// namespace's annotations gave the pod stays: it has no effect without a proxy. So does the
/// processor that its nodes must have: a user may have set it for the application, and any other
/// pod can run there.
///
/// # Errors
/// When it cannot be read what the pod's probes and hooks were.
pub fn remove(pod: &Value) -> Result<Option<Value>, Refusal> {
    let Some(spec) = pod.get("spec").and_then(Value::as_object) else {
        return Ok(None);
    };
    let earlier = Earlier::read(spec)?;
    if !earlier.present {
        return Ok(None);
    }
    let annotations = pod.pointer("/metadata/annotations");
    let requested = annotations.and_then(|all| all.get(DRAIN_DELAY)?.as_str());
    let requested = requested.and_then(|text| parse_drain_delay(text).ok());
    let delay = drain::seconds(spec, requested);
    let first = pod::list(spec, "containers").next().map(pod::name);

    let mut without = pod.clone();
    let Some(members) = without.as_object_mut() else {
        return Err(Refusal::NotAPod);
    };
    if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
        take_members(metadata, "labels", |name, _| name == ACCOUNT);
        take_members(metadata, "annotations", |name, value| {
            // kubectl takes the first container by itself.
            name == PROXY_VERSION || (name == DEFAULT_CONTAINER && value.as_str() == first)
        });
    }
    let metadata = members.get("metadata").and_then(Value::as_object);
    if metadata.is_some_and(Map::is_empty) {
        members.remove("metadata");
    }
    if let Some(spec) = members.get_mut("spec").and_then(Value::as_object_mut) {
        handlers::restore(spec, &earlier)?;
        drain::take_delay(spec, delay);
        pod_resources::take(spec, &earlier.share);
        take_items(spec, gate::GATES, gate::is_ours);
        take_items(spec, "initContainers", pod::is_ours);
        take_items(spec, "volumes", |volume| {
            VOLUMES.contains(&pod::name(volume))
        });
    }
    Ok(Some(without))
}

/// Takes members out of a map, and the map itself where it held nothing else.
fn take_members(
    parent: &mut Map<String, Value>,
    member: &str,
    is_ours: impl Fn(&str, &Value) -> bool,
) {
    let Some(map) = parent.get_mut(member).and_then(Value::as_object_mut) else {
        return;
    };
    let before = map.len();
    map.retain(|name, value| !is_ours(name, value));
    if map.is_empty() && before > 0 {
        parent.remove(member);
    }
}

/// The same of a list.
fn take_items(spec: &mut Map<String, Value>, member: &str, is_ours: impl Fn(&Value) -> bool) {
    let Some(list) = spec.get_mut(member).and_then(Value::as_array_mut) else {
        return;
    };
    let before = list.len();
    list.retain(|item| !is_ours(item));
    if list.is_empty() && before > 0 {
        spec.remove(member);
    }
}

#[cfg(test)]
mod tests;
