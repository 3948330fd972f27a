//! Writes what is reported of a route of the Gateway API into its list `status.parents`.
//!
//! Other controllers have entries in the same list, and the API server replaces a list as a whole.
//! So the object is read, our entries are put beside the others' as `gateway_api` merges them, and
//! the list is written for the resource version that was read: what another controller writes
//! meanwhile is a conflict, and then all of that happens again.
//!
//! A controller that writes the list without looking drops our entries. So the lists are compared
//! every [`RECHECK`] with what was written.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crds::item::Item;
use gateway_api::conditions::{
    Condition as ParentCondition, ConditionType, GATEWAY_CONTROLLER, MESH_CONTROLLER, Owner,
    ParentStatus, merge,
};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use model::compiled::Compiled;
use model::problem::{Condition, ObjectReport, ParentReport};
use model::world::{ObjectKey, kinds};
use policy::name::{Kind, ObjectRef};
use serde_json::{Value, json};
use tracing::warn;

use super::conditions::{self, Status, Written, rfc3339, word};
use crate::settings::gateways::GatewayApi;

/// Between two looks at whether our entries are still there.
pub(super) const RECHECK: Duration = Duration::from_secs(60);
/// Routes in one page of a list: a few megabytes of JSON.
const PAGE: u32 = 500;
/// Writes of one list in a row that may meet another controller's. After that the pause of a
/// failed write comes first.
const ATTEMPTS: usize = 5;

/// Whether a kind has parents instead of conditions of its own.
pub(super) fn is_route(kind: Kind) -> bool {
    kind == Kind::TlsRoute || Kind::GATEWAY_ROUTES.contains(&kind)
}

/// The kinds of routes whose statuses may be read.
fn kinds_read(gateway_api: GatewayApi) -> impl Iterator<Item = Kind> {
    let routes = (gateway_api != GatewayApi::Off).then_some(Kind::GATEWAY_ROUTES);
    let tls = (gateway_api == GatewayApi::Gateways).then_some(Kind::TlsRoute);
    routes.into_iter().flatten().chain(tls)
}

/// Routes that have entries of ours and no Service or Gateway of ours as parent any more, each with what is reported
/// of it: nothing.
pub(super) fn left(
    compiled: &Compiled,
    written: &BTreeMap<ObjectRef, Written>,
) -> Vec<(ObjectRef, ObjectReport)> {
    let reports = &compiled.problems.reports;
    let routes = written.keys().filter(|object| is_route(object.kind));
    let gone = routes.filter(|object| !reports.contains_key(*object));
    gone.filter_map(|object| {
        let key = ObjectKey {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        let world = &compiled.world;
        let routes = match object.kind {
            Kind::GrpcRoute => &world.grpc_routes,
            Kind::GatewayTcpRoute => &world.gateway_tcp_routes,
            Kind::TlsRoute => &world.tls_routes,
            _ => &world.http_routes,
        };
        let meta = &routes.get(&key)?.meta;
        let nothing = Condition {
            status: false,
            reason: "",
            message: String::new(),
        };
        let report = ObjectReport {
            generation: meta.generation,
            uid: meta.uid.clone(),
            accepted: nothing.clone(),
            resolved_refs: nothing,
            summary: String::new(),
            target: None,
            parents: Vec::new(),
            listeners: Vec::new(),
        };
        Some((object.clone(), report))
    })
    .collect()
}

/// Writes our entries of a route; false if they stand there already, or the object is another one
/// of its name.
///
/// # Errors
/// When it cannot be read or written, or others write it all the time.
pub(super) async fn put(
    client: &Client,
    object: &ObjectRef,
    status: &Status,
) -> Result<bool, kube::Error> {
    let mut missing = None;
    for version in versions(object.kind) {
        let api: Api<Item<DynamicObject>> =
            Api::namespaced_with(client.clone(), &object.namespace, &version);
        match put_at(&api, object, status).await {
            // The version is not served, or the object is gone.
            Err(kube::Error::Api(error)) if error.is_not_found() => missing = Some(error),
            outcome => return outcome,
        }
    }
    missing.map_or(Ok(false), |error| Err(kube::Error::Api(error)))
}

async fn put_at(
    api: &Api<Item<DynamicObject>>,
    object: &ObjectRef,
    status: &Status,
) -> Result<bool, kube::Error> {
    let mut conflict = None;
    for _ in 0..ATTEMPTS {
        let Item(found) = api.get(&object.name).await?;
        let Ok(found) = found else { return Ok(false) };
        if found.metadata.uid.as_deref().unwrap_or_default() != status.uid {
            return Ok(false);
        }
        let Some(parents) = merged(&found, status) else {
            return Ok(false);
        };
        let patch = json!({
            "metadata": {"resourceVersion": found.metadata.resource_version},
            "status": {"parents": parents},
        });
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        match api.patch_status(&object.name, &params, &patch).await {
            Err(kube::Error::Api(error)) if error.is_conflict() => conflict = Some(error),
            outcome => return outcome.map(|_| true),
        }
    }
    conflict.map_or(Ok(false), |error| Err(kube::Error::Api(error)))
}

/// The list as it should be; none if it is.
fn merged(object: &DynamicObject, status: &Status) -> Option<Vec<Value>> {
    let meta = &object.metadata;
    let owner = Owner {
        namespace: meta.namespace.as_deref().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
    };
    let time = rfc3339(SystemTime::now());
    let ours: Vec<ParentStatus> = status
        .parents
        .iter()
        .map(|parent| entry(parent, status))
        .collect();
    merge(stored(object), owner, &ours, status.generation, &time)
}

/// Our entry of one parent.
fn entry(report: &ParentReport, status: &Status) -> ParentStatus {
    let written = |kind: ConditionType, condition: &Condition| ParentCondition {
        kind,
        status: word(condition),
        reason: condition.reason.to_owned(),
        message: condition.message.clone(),
    };
    let mut all = vec![
        written(ConditionType::Accepted, &report.accepted),
        written(ConditionType::ResolvedRefs, &report.resolved_refs),
    ];
    let partly = report.partially_invalid.iter();
    all.extend(partly.map(|partly| written(ConditionType::PartiallyInvalid, partly)));
    let [.., (_, programmed)] = &status.conditions;
    let mut programmed = written(ConditionType::Programmed, programmed);
    let unserved = if !report.accepted.status {
        Some("it is not accepted for this parent")
    } else if report.controller == GATEWAY_CONTROLLER
        && ["NoProxies", "NotMeshed"].contains(&programmed.reason.as_str())
    {
        Some("no pod of the Gateway has connected yet")
    } else {
        None
    };
    if let Some(why) = unserved {
        programmed.status = "False";
        programmed.reason = "Pending".to_owned();
        programmed.message = why.to_owned();
    }
    all.push(programmed);
    ParentStatus {
        controller: report.controller,
        parent: report.parent.clone(),
        conditions: all,
    }
}

/// The routes that have entries of ours, so that those stay as they are for a new holder of the
/// Lease, and go where they are of no use any more.
pub(super) async fn read_all(
    client: &Client,
    gateway_api: GatewayApi,
) -> BTreeMap<ObjectRef, Written> {
    let mut written = BTreeMap::new();
    for kind in kinds_read(gateway_api) {
        let take = |object: DynamicObject| written.extend(read(kind, &object));
        each(client, kind, take).await;
    }
    written
}

/// What is known of a route that has entries of ours.
fn read(kind: Kind, object: &DynamicObject) -> Option<(ObjectRef, Written)> {
    let ours = |entry: &&Value| {
        let controller = entry["controllerName"].as_str().unwrap_or_default();
        [MESH_CONTROLLER, GATEWAY_CONTROLLER].contains(&controller)
    };
    let ours: Vec<&Value> = stored(object).iter().filter(ours).collect();
    let programmed = |entry: &&Value| -> Option<i64> {
        let mut conditions = entry["conditions"].as_array()?.iter();
        let name = ConditionType::Programmed.as_str();
        let programmed = conditions.find(|one| one["type"] == name && one["status"] == "True")?;
        programmed["observedGeneration"].as_i64()
    };
    let generations: Option<Vec<i64>> = ours.iter().map(programmed).collect();
    let (name, written) = conditions::read(kind, object);
    let written = Written {
        programmed: generations.and_then(|all| all.into_iter().min()),
        ..written
    };
    (!ours.is_empty()).then_some((name, written))
}

/// Forgets that entries were written where they are not there any more, so that they are written
/// again. Returns whether there are any.
pub(super) async fn forget_dropped(
    client: &Client,
    gateway_api: GatewayApi,
    written: &mut BTreeMap<ObjectRef, Written>,
) -> bool {
    let mut dropped = false;
    for kind in kinds_read(gateway_api) {
        if !written.keys().any(|object| object.kind == kind) {
            continue;
        }
        let take = |object: DynamicObject| {
            let (name, _) = conditions::read(kind, &object);
            if let Some(known) = written.get_mut(&name)
                && let Some(status) = &known.status
                && merged(&object, status).is_some()
            {
                known.status = None;
                dropped = true;
            }
        };
        each(client, kind, take).await;
    }
    dropped
}

/// Hands over all routes of a kind, page by page, in the newest version that is served. Where they
/// cannot be listed, what is compiled is written all the same.
async fn each(client: &Client, kind: Kind, mut take: impl FnMut(DynamicObject)) {
    for version in versions(kind) {
        let api: Api<Item<DynamicObject>> = Api::all_with(client.clone(), &version);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = match api.list(&params).await {
                Ok(page) => page,
                Err(kube::Error::Api(error)) if error.is_not_found() => break,
                Err(error) => {
                    warn!(kind = kind.as_str(), %error, "statuses could not be read");
                    return;
                }
            };
            let objects = page.items.into_iter().filter_map(|Item(one)| one.ok());
            objects.for_each(&mut take);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return,
            }
        }
    }
}

fn stored(object: &DynamicObject) -> &[Value] {
    let parents = object.data["status"]["parents"].as_array();
    parents.map_or(&[], Vec::as_slice)
}

fn versions(kind: Kind) -> Vec<ApiResource> {
    kinds::row(kind).map_or_else(Vec::new, |row| {
        kinds::in_versions(&(row.resource)(), row.versions)
    })
}
