//! Finds what an earlier injection left in the pod, such as the original probes and hooks in the
//! proxy's environment.

use serde_json::{Map, Value};

use super::{Refusal, pod, pod_resources::SHARE_ENV};
use crate::objects::{CAPTURE_CONTAINER, PROXY_CONTAINER};

/// Env variable of the proxy that holds the original probes.
pub(super) const PROBES_ENV: &str = "WEFT_PROBES";
/// Env variable of the proxy that holds the original hooks.
pub(super) const HOOKS_ENV: &str = "WEFT_HOOKS";

/// The originals, by the key under which the proxy is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Handlers {
    pub(super) probes: Map<String, Value>,
    pub(super) hooks: Map<String, Value>,
}

/// What an earlier run left in the pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Earlier {
    /// Whether there was one.
    pub(super) present: bool,
    pub(super) handlers: Handlers,
    /// What it added to the resources of the pod as a whole.
    pub(super) share: Map<String, Value>,
}

impl Earlier {
    pub(super) fn read(spec: &Map<String, Value>) -> Result<Self, Refusal> {
        // Both, once each, and the proxy with what only an earlier run writes into it:
        // anything else that has one of the names is the user's own, and refused.
        let containers = spec.get("initContainers").and_then(Value::as_array);
        let named = |name: &str| {
            let mut found = containers
                .into_iter()
                .flatten()
                .filter(|container| pod::name(container) == name);
            found.next().filter(|_| found.next().is_none())
        };
        let is_known = |proxy: &&Value| {
            let env = proxy.get("env").and_then(Value::as_array);
            env.is_some_and(|env| env.iter().any(|entry| entry["name"] == PROBES_ENV))
        };
        let Some((proxy, _)) = named(PROXY_CONTAINER)
            .filter(is_known)
            .zip(named(CAPTURE_CONTAINER))
        else {
            return Ok(Self::default());
        };
        let read = |name: &str| -> Result<Map<String, Value>, Refusal> {
            let env = proxy.get("env").and_then(Value::as_array);
            let entry = env
                .into_iter()
                .flatten()
                .find(|entry| entry["name"] == name);
            let damaged = || Refusal::Damaged {
                field: format!("env {name} of container {PROXY_CONTAINER}"),
            };
            match entry.map(|entry| entry["value"].as_str()) {
                None => Ok(Map::new()),
                Some(text) => serde_json::from_str(text.ok_or_else(damaged)?)
                    .ok()
                    .filter(|map: &Map<String, Value>| map.values().all(Value::is_object))
                    .ok_or_else(damaged),
            }
        };
        let handlers = Handlers {
            probes: read(PROBES_ENV)?,
            hooks: read(HOOKS_ENV)?,
        };
        Ok(Self {
            present: true,
            handlers,
            share: read(SHARE_ENV)?,
        })
    }

    /// The token of the earlier run; changing it would change the pod.
    pub(super) fn token(&self) -> Option<&str> {
        let token = self.handlers.hooks.keys().next()?.split('/').next()?;
        let hex = token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then_some(token)
    }
}
