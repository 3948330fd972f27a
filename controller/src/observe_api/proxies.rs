//! The response about connected proxies.

use std::sync::Arc;
use std::time::Duration;

use crds::observe::{
    API_VERSION, Certificate, Nack, Proxy, ProxyList, ProxyListMetadata, ProxyMetadata,
    ProxyStatus, Resource,
};
use identity::authority::BACKDATE;
use k8s_openapi::jiff::Timestamp;
use model::compiled::Compiled;
use model::world::{ObjectKey, PodFacts};
use model::{Index, PodId};
use policy::name::SpiffeId;
use serde_json::{Value, json};
use tracing::info;
use wire::capability::Capability;
use wire::v1::ProxyState;

use super::context::ObserveContext;
use super::query::ListQuery;
use crate::aggregated::refusal::Refusal;
use crate::observe::live_queries::config::held_config;

/// Max proxies of one response.
const MAX_PROXIES: usize = 20_000;

/// The proxies of a namespace, or all, in order of their names; as many as are requested and fit
/// into one response, and where the others begin.
pub(super) fn list(
    context: &ObserveContext,
    compiled: &Compiled,
    namespace: Option<&str>,
    query: &ListQuery,
) -> ProxyList {
    let pods = compiled.model.meshed_pods();
    let pods = pods.filter(|pod| namespace.is_none_or(|namespace| *pod.namespace == *namespace));
    let labels = |pod: &PodId| {
        let facts = compiled.model.index.world.pods.get(pod)?;
        Some(&facts.labels)
    };
    let pods = pods.filter(|&pod| query.selects(labels(pod)));
    let mut pods = pods.filter(|pod| query.after.as_ref().is_none_or(|after| *pod > after));
    let most = query
        .limit
        .map_or(MAX_PROXIES, |limit| limit.min(MAX_PROXIES));
    let page: Vec<&PodId> = pods.by_ref().take(most).collect();
    let rest = pods.count();
    if rest > 0 && query.limit.is_none_or(|limit| limit > MAX_PROXIES) {
        context.metrics.lists_cut.inc();
    }
    let last = page.last().filter(|_| rest > 0);
    ProxyList {
        api_version: API_VERSION.to_owned(),
        kind: format!("{}List", Resource::Proxies.kind()),
        metadata: ProxyListMetadata {
            next: last.map(ToString::to_string),
            remaining_item_count: last.and(u64::try_from(rest).ok()),
        },
        items: page
            .into_iter()
            .filter_map(|pod| proxy(context, compiled, pod, false))
            .collect(),
    }
}

/// One of them, with what only a single one shows.
pub(super) fn get(
    context: &ObserveContext,
    compiled: &Compiled,
    namespace: &str,
    name: &str,
) -> Result<Proxy, Refusal> {
    let pod = ObjectKey::new(namespace, name);
    proxy(context, compiled, &pod, true).ok_or_else(|| Refusal {
        about: Some((Resource::Proxies.plural(), name.to_owned())),
        ..Refusal::new(
            http::StatusCode::NOT_FOUND,
            "NotFound",
            format!("no pod {name:?} with a proxy in namespace {namespace:?}"),
        )
    })
}

/// Adds what the proxy reports that it holds; nothing where it does not report it.
pub(super) async fn query_config(context: &ObserveContext, proxy: &mut Proxy) {
    let lacks = |one: &String| *one == Capability::Asks.as_str();
    if !proxy.status.connected || proxy.status.lacks.iter().any(lacks) {
        return;
    }
    let uid: Arc<str> = proxy.metadata.uid.as_str().into();
    match held_config(&context.live_queries, &uid).await {
        Ok(config) => proxy.status.config = Some(config),
        Err(error) => {
            let (namespace, pod) = (&proxy.metadata.namespace, &proxy.metadata.name);
            info!(namespace, pod, %error, "a proxy does not report what it holds");
        }
    }
}

fn proxy(context: &ObserveContext, compiled: &Compiled, pod: &PodId, alone: bool) -> Option<Proxy> {
    let index = &compiled.model.index;
    let facts = index.world.pods.get(pod).filter(|facts| !facts.ended)?;
    let injected = facts.proxy.as_ref()?;
    let (kind, owner) = context.followed.inventory.read().topmost(pod, &facts.uid);
    let mut status = ProxyStatus {
        workload: format!("{}/{}", kind.name(), owner.name),
        identity: index.identity(pod, facts),
        version: (!injected.version.is_empty()).then(|| injected.version.to_string()),
        ..ProxyStatus::default()
    };
    status.revoked_by = revoked_by(index, &status.identity, facts);
    if let Some((connected, state)) = context.observed.proxy(pod) {
        status.connected = connected;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        status.needed = number(state.objects.len());
        let acknowledged = state.objects.iter().filter(|object| object.acknowledged);
        status.acknowledged = number(acknowledged.count());
        if connected && status.acknowledged < status.needed {
            let behind = context.observed.behind(pod);
            status.behind_seconds = behind.map(|time| time.as_secs());
        }
        let name = |object: &wire::v1::ObjectState| {
            let object = object.object.clone().unwrap_or_default();
            format!("{} {}/{}", object.kind, object.namespace, object.name)
        };
        let nacked = state
            .objects
            .iter()
            .filter(|object| !object.nack.is_empty());
        status.nacks = nacked
            .map(|object| Nack {
                object: name(object),
                reason: object.nack.clone(),
            })
            .collect();
        let too_old = state.objects.iter().filter(|object| object.too_old);
        status.too_old_for = too_old.map(name).collect();
        add_own_words(&mut status, &state, context.leaf_ttl);
        if alone {
            status.destinations = state.destinations;
        }
    }
    Some(Proxy {
        api_version: API_VERSION.to_owned(),
        kind: Resource::Proxies.kind().to_owned(),
        metadata: ProxyMetadata {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            uid: facts.uid.to_string(),
        },
        status,
    })
}

/// The Revocation that ends a pod for good.
fn revoked_by(index: &Index, identity: &str, facts: &PodFacts) -> Option<String> {
    if !index.revocations.has_ended(&facts.uid) {
        return None;
    }
    let id = SpiffeId::try_from(identity).ok()?;
    let issuance = index
        .revocations
        .issuance(&id, Some(&facts.uid), Some(&facts.node));
    Some(issuance.err()?.name().to_string())
}

/// Adds the proxy's own report. `ttl`: of the certificates that this controller issues.
fn add_own_words(status: &mut ProxyStatus, state: &ProxyState, ttl: Duration) {
    if !state.version.is_empty() {
        status.version = Some(state.version.clone());
    }
    status.lacks.clone_from(&state.lacks);
    let Some(reported) = &state.status else {
        return;
    };
    status.certificate = reported.certificate.as_ref().and_then(|certificate| {
        let time = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).ok()?).ok();
        let begins = Some(certificate.not_before).filter(|begins| *begins > 0);
        // It is backdated for clocks that are behind, and lives from then on.
        let issued = begins.map(|begins| begins.saturating_add(BACKDATE.as_secs()));
        let issued = issued.and_then(time).map(|time| time.to_string());
        Some(Certificate {
            serial: certificate.serial.clone(),
            // Without either a reader cannot distinguish a certificate that lives for minutes from
            // one that has missed its renewal.
            ttl_seconds: issued.is_none().then_some(ttl.as_secs()),
            issued,
            not_after: time(certificate.not_after)?.to_string(),
            issuer: certificate.issuer.clone(),
            authority: Some(hex(&certificate.authority)).filter(|id| !id.is_empty()),
        })
    });
    status.trusts = reported.trusts.iter().map(|root| hex(root)).collect();
    status.memory = (reported.memory > 0).then_some(reported.memory);
    status.draining = Some(reported.draining);
    status.clock_ahead_ms = Some(state.clock_ahead);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same for people: what `kubectl get` prints.
pub(super) fn table(proxies: &[Proxy], metadata: &ProxyListMetadata) -> Value {
    let column = |name: &str, kind: &str, description: &str| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": kind, "format": format, "description": description, "priority": 0})
    };
    let rows: Vec<Value> = proxies
        .iter()
        .map(|proxy| {
            let status = &proxy.status;
            let acknowledged = format!("{}/{}", status.acknowledged, status.needed);
            json!({
                "cells": [
                    proxy.metadata.name, status.workload, status.version.as_deref().unwrap_or("-"),
                    status.connected, acknowledged, status.nacks.len(),
                ],
                "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"name": proxy.metadata.name, "namespace": proxy.metadata.namespace},
                },
            })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": [
            column("Name", "string", "Name of the pod."),
            column("Workload", "string", "Topmost owner of the pod."),
            column("Version", "string", "Of the proxy."),
            column("Connected", "boolean", "Whether it holds a stream to a controller."),
            column("Acknowledged", "string", "Objects that it has, of those that concern it."),
            column("Nacks", "integer", "Objects that it could not use."),
        ],
        "rows": rows,
    })
}
