//! Gives a pod its proxy.
//!
//! A pure function from a pod to a changed pod, so that the webhook and a command
//! line decide alike. It works on the JSON, not on a typed pod: fields that are
//! younger than our types must come through untouched.
//!
//! Idempotent: what it finds of an earlier run is laid under what it wants, so
//! the defaults that the API server filled in, and what other webhooks added,
//! stay, and a second run changes nothing.

mod account;
mod checks;
mod containers;
mod dns;
mod drain;
mod earlier;
mod guaranteed;
mod handlers;
mod merge;
mod obstacles;
mod overrides;
mod patch;
mod placement;
mod pod;
mod pod_resources;
mod refusal;
mod remove;
mod request;
mod spelling;
mod workload;

use json_patch::Patch;
use serde_json::{Map, Value};

pub use checks::ephemeral;
pub use guaranteed::is_guaranteed;
pub use obstacles::{PodDemand, obstacles, obstacles_of};
pub use refusal::Refusal;
pub use remove::remove;
pub use request::{DefaultLimits, HookToken, Namespace, Settings};
pub use spelling::{SPELLED, misspelled, unheard};

use crate::labels;
use earlier::Earlier;
use overrides::Overrides;
use pod::object;

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
    placement::check(spec)?;
    let warning = dns::check(spec, &settings.controller_address)?;

    let mut changed = pod.clone();
    let mut warnings: Vec<String> = warning.into_iter().collect();
    stamp(&mut changed, settings, &overrides);
    let workload = workload::workload(pod);
    account::stamp(&mut changed, namespace, earlier.present)?;
    let spec = changed
        .get_mut("spec")
        .and_then(Value::as_object_mut)
        .ok_or(Refusal::NotAPod)?;
    let handlers = handlers::rewrite(spec, &earlier, token)?;
    drain::add_delay(spec, overrides.drain_delay, &mut warnings);
    let share = pod_resources::add(spec, &overrides, &earlier.share);
    containers::add(spec, settings, &overrides, &handlers, &workload, &share);

    let patch = patch::patch(pod, &changed);
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

#[cfg(test)]
mod tests;
