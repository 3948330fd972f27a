//! Keeps `caBundle` of the webhook configurations equal to what is trusted.
//!
//! A helm upgrade may empty it, and without it the API server refuses to call us
//! and, with failure policy Fail, to create meshed pods.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation};
use kube::api::{ApiResource, DynamicObject, Patch as Change, PatchParams};
use kube::{Api, Client};
use serde_json::Value;

/// A configuration with webhooks in it; both kinds have the same shape here.
#[derive(Clone)]
pub(crate) struct Configuration {
    pub(crate) api: Api<DynamicObject>,
    pub(crate) resource: ApiResource,
    pub(crate) name: &'static str,
}

/// Why a configuration does not carry the bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("{kind} {name} could not be read or patched")]
    Api {
        kind: String,
        name: &'static str,
        source: kube::Error,
    },
    #[error("{kind} {name} does not exist")]
    Missing { kind: String, name: &'static str },
}

impl Configuration {
    pub(crate) fn new(client: Client, resource: ApiResource, name: &'static str) -> Self {
        Self {
            api: Api::all_with(client, &resource),
            resource,
            name,
        }
    }

    /// Writes `bundle` (PEM) where it is not yet; true when something was written.
    pub(crate) async fn repair(&self, bundle: &str) -> Result<bool, BundleError> {
        let failed = |source| BundleError::Api {
            kind: self.resource.kind.clone(),
            name: self.name,
            source,
        };
        let found = self.api.get_opt(self.name).await.map_err(failed)?;
        let found = found.ok_or_else(|| BundleError::Missing {
            kind: self.resource.kind.clone(),
            name: self.name,
        })?;
        let patch = patch(&found.data, bundle);
        if patch.0.is_empty() {
            return Ok(false);
        }
        let change: Change<()> = Change::Json(patch);
        self.api
            .patch(self.name, &PatchParams::default(), &change)
            .await
            .map_err(failed)?;
        Ok(true)
    }
}

/// From the configuration as it is to one with the bundle in every webhook. The name of
/// each webhook is tested, so that a list that changed meanwhile is left alone.
fn patch(configuration: &Value, bundle: &str) -> Patch {
    let encoded = Value::from(STANDARD.encode(bundle));
    let mut operations = Vec::new();
    let webhooks = configuration.get("webhooks").and_then(Value::as_array);
    for (index, webhook) in webhooks.into_iter().flatten().enumerate() {
        if webhook.pointer("/clientConfig/caBundle") == Some(&encoded) {
            continue;
        }
        let at = |tail: &[&str]| {
            let index = index.to_string();
            let tokens = ["webhooks", index.as_str()]
                .into_iter()
                .chain(tail.iter().copied());
            PointerBuf::from_tokens(tokens)
        };
        operations.push(PatchOperation::Test(TestOperation {
            path: at(&["name"]),
            value: webhook.get("name").cloned().unwrap_or_default(),
        }));
        operations.push(PatchOperation::Add(AddOperation {
            path: at(&["clientConfig", "caBundle"]),
            value: encoded.clone(),
        }));
    }
    Patch(operations)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_webhooks_without_this_bundle_are_patched() {
        let bundle = "PEM";
        let mut configuration = json!({ "webhooks": [
            { "name": "a", "clientConfig": { "caBundle": STANDARD.encode(bundle) } },
            { "name": "b", "clientConfig": {} },
            { "name": "c", "clientConfig": { "caBundle": "b2xk" } },
        ]});
        let change = patch(&configuration, bundle);
        assert_eq!(change.0.len(), 4);
        json_patch::patch(&mut configuration, &change).unwrap();
        assert_eq!(patch(&configuration, bundle), Patch(vec![]));
        assert_eq!(
            configuration["webhooks"][1]["clientConfig"]["caBundle"],
            "UEVN"
        );
    }
}
