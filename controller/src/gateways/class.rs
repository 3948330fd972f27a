//! Writes the status of a GatewayClass.

use crds::item::Item;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use model::problem::ObjectReport;
use model::world::kinds;
use policy::name::Kind;
use serde_json::{Value, json};

use super::status::{now, of_class};

/// The definition whose version is that of the Gateway API in the cluster.
const DEFINITION: &str = "gatewayclasses.gateway.networking.k8s.io";
/// Its version.
const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// One class of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class<'a> {
    pub(super) name: &'a str,
    pub(super) report: &'a ObjectReport,
}

/// Writes the status, where it is not what it should be.
///
/// # Errors
/// When something cannot be read or written, also where another client writes at the same time.
pub(super) async fn write(client: &Client, class: Class<'_>) -> Result<(), kube::Error> {
    let Class { name, report } = class;
    let Some(resource) = resource(Kind::GatewayClass) else {
        return Ok(());
    };
    let api: Api<Item<DynamicObject>> = Api::all_with(client.clone(), &resource);
    let Some(live) = api.get_opt(name).await?.and_then(current) else {
        return Ok(());
    };
    if !is_about(&live, report) {
        return Ok(());
    }
    let installed = installed(client).await?;
    let status = of_class(
        &live,
        report.generation,
        &report.accepted,
        installed.as_deref(),
        &now(),
    );
    if let Some(status) = status {
        put(&api, name, &live, &status).await?;
    }
    Ok(())
}

/// The version of the Gateway API in the cluster; none where it is not said.
async fn installed(client: &Client) -> Result<Option<String>, kube::Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = api.get_metadata_opt(DEFINITION).await?;
    let annotations = definition.and_then(|found| found.metadata.annotations);
    Ok(annotations.and_then(|mut all| all.remove(BUNDLE_VERSION)))
}

/// Writes a status for the version of the object that was read.
///
/// # Errors
/// A conflict when it is another version meanwhile.
pub(super) async fn put(
    api: &Api<Item<DynamicObject>>,
    name: &str,
    live: &Value,
    status: &Value,
) -> Result<(), kube::Error> {
    let version = &live["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    api.patch_status(name, &params, &patch).await?;
    Ok(())
}

/// An object as it is now, if it can be read.
pub(super) fn current(Item(object): Item<DynamicObject>) -> Option<Value> {
    serde_json::to_value(object.ok()?).ok()
}

/// Whether a report is about the object as it is now: what is said of an older generation is not
/// written over what may be said of a newer one.
pub(super) fn is_about(live: &Value, report: &ObjectReport) -> bool {
    let metadata = &live["metadata"];
    let generation = metadata["generation"].as_i64().unwrap_or_default();
    metadata["uid"].as_str().unwrap_or_default() == &*report.uid && generation == report.generation
}

/// How the API names a kind.
pub(super) fn resource(kind: Kind) -> Option<ApiResource> {
    kinds::row(kind).map(|row| (row.resource)())
}
