//! Taps (`taps/live`): streams requests to a client as they end.
//!
//! `query` parses the query, `pods` finds which proxies are queried and which pods the filters
//! mean, `stream` sends the responses. The log and an Event at the tapped object name the user.

mod pods;
mod query;
mod stream;

use std::sync::Arc;

use crds::observe::{LIVE, Resource};
use http::StatusCode;
use model::compiled::Compiled;
use tracing::info;
use wire::v1::ask::What;

use self::pods::{Pods, TapEnd};
use self::query::TapQuery;
use super::context::ObserveContext;
use super::query::may;
use super::stream::StreamPermits;
use crate::aggregated::access::{AccessDecision, Attributes};
use crate::aggregated::front_proxy::User;
use crate::aggregated::refusal::Refusal;
use crate::aggregated::server::ApiResponse;
use crate::apiserver::events::{About, Event, EventType};

/// Maximum of proxies in one tap; each may show at least one request a second.
const MAX_PROXIES: usize = 512;

/// Starts a tap of requests of a namespace.
///
/// # Errors
/// When the query is invalid, no pod with a proxy matches, or too many taps are open.
pub(super) async fn answer(
    context: &ObserveContext,
    user: &User,
    (namespace, query): (&str, &str),
    compiled: &Compiled,
    permits: StreamPermits,
) -> Result<ApiResponse, Refusal> {
    let tap_query = TapQuery::parse(query, namespace, &context.tap_headers)?;
    must_be_readable(context, user, &tap_query).await?;
    let inventory = context.followed.inventory.read();
    let pods = Pods::new(&compiled.model, &inventory);
    let of = tap_query.of.to_string();
    let mut watched = pods.of(&tap_query.of);
    // The right to tap is one of this namespace.
    watched.retain(|(_, pod)| *pod.namespace == *namespace);
    if watched.is_empty() {
        return Err(Refusal {
            about: Some((Resource::Taps.plural(), of.clone())),
            ..Refusal::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                format!("no pod with a proxy is of {of}"),
            )
        });
    }
    let proxies = watched.len();
    watched.truncate(MAX_PROXIES);
    let tap_request = tap_query.tap_request(&pods, &watched)?;
    let about = about(&tap_query.of, namespace, &pods);
    drop(inventory);
    let uids: Vec<Arc<str>> = watched.iter().map(|(uid, _)| Arc::clone(uid)).collect();
    let answers = context
        .live_queries
        .query(What::Tap(tap_request), &uids, stream::LASTS);
    let answers = answers.map_err(|full| Refusal::held(full.to_string()))?;
    info!(user = ?user.name, of, ?query, proxies, "tap started");
    context.events.record_action(Event {
        about,
        event_type: EventType::Normal,
        reason: "TapStarted",
        action: "Tap",
        text: format!("{:?} watches requests of {of}", user.name),
    });
    let inventory = Arc::clone(&context.followed.inventory);
    let watched = watched.into_iter().collect();
    Ok(stream::answer(
        answers,
        (watched, proxies),
        inventory,
        permits,
    ))
}

/// Refuses a filter by a workload of another namespace unless the user may read that namespace's
/// graph: an error would show how many pods the workload has.
async fn must_be_readable(
    context: &ObserveContext,
    user: &User,
    tap_query: &TapQuery,
) -> Result<(), Refusal> {
    for (name, end) in tap_query.workloads_elsewhere() {
        let namespace = end.namespace();
        let graph = Attributes {
            name: LIVE.to_owned(),
            ..may("get", Resource::Graphs, Some(namespace))
        };
        let decision = context.gate.admits(user, &graph).await;
        if decision.map_err(Refusal::unavailable)? != AccessDecision::Allowed {
            let one = match name {
                "to" => "Service",
                _ => "ServiceAccount",
            };
            return Err(Refusal::bad(format!(
                "parameter {name}: {end} stands for pods of namespace {namespace}, whose graph you \
                 may not read; there a Pod or a {one} can be named"
            )));
        }
    }
    Ok(())
}

/// The object of the Event. Also where all of a namespace is watched the Event stands in that
/// namespace: its users look for it there, and may not read any other.
fn about(of: &TapEnd, namespace: &str, pods: &Pods<'_>) -> About {
    let (kind, key) = of.object();
    About {
        api_version: kind.api_version().to_owned(),
        kind: kind.name().to_owned(),
        namespace: namespace.to_owned(),
        name: key.name.to_string(),
        uid: pods.uid_of(kind, &key),
    }
}
