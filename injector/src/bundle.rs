//! Keeps `caBundle` equal to the trusted authority certificates, in the webhook configurations and
//! in the SMI definitions whose versions the injector converts.
//!
//! A helm upgrade may empty it, and without it the API server refuses to call us
//! and, with failure policy Fail, to create meshed pods; and objects can be read and
//! written in their storage version only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crds::convert::SmiKind;
use crds::objects::VALIDATOR;
use crds::smi::CONVERSION_SERVICE;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch as Change, PatchParams};
use kube::{Api, Client};
use policy::well_known::INJECTOR;
use serde_json::Value;

/// An object that names the roots by which the API server verifies us when it calls.
#[derive(Clone)]
pub(crate) struct Configuration {
    pub(crate) api: Api<DynamicObject>,
    pub(crate) resource: ApiResource,
    pub(crate) name: String,
    location: BundleLocation,
}

/// Where in it the bundle stands.
#[derive(Clone)]
enum BundleLocation {
    /// In every webhook of a list.
    Webhooks,
    /// In a definition's conversion, as long as that calls the injector of this
    /// namespace: a definition may be another product's.
    Conversion { namespace: String },
}

/// Why a configuration does not carry the bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("{kind} {name} could not be read or patched")]
    Api {
        kind: String,
        name: String,
        source: kube::Error,
    },
    #[error("{kind} {name} does not exist")]
    Missing { kind: String, name: String },
}

/// Everything that has to carry the bundle of an injector in `namespace`.
pub(crate) fn configurations(client: &Client, namespace: &str) -> Vec<Configuration> {
    let mutating = ApiResource::erase::<MutatingWebhookConfiguration>(&());
    let validating = ApiResource::erase::<ValidatingWebhookConfiguration>(&());
    let definition = ApiResource::erase::<CustomResourceDefinition>(&());
    let webhooks = [(mutating, INJECTOR), (validating, VALIDATOR)];
    let webhooks =
        webhooks.map(|(resource, name)| (resource, name.to_owned(), BundleLocation::Webhooks));
    // The others have one version, so nothing converts them.
    let converted = SmiKind::ALL
        .into_iter()
        .filter(|kind| kind.versions().len() > 1);
    let definitions = converted.map(|kind| {
        let namespace = namespace.to_owned();
        let location = BundleLocation::Conversion { namespace };
        (definition.clone(), kind.definition(), location)
    });
    webhooks
        .into_iter()
        .chain(definitions)
        .map(|(resource, name, location)| Configuration {
            api: Api::all_with(client.clone(), &resource),
            resource,
            name,
            location,
        })
        .collect()
}

impl Configuration {
    /// Writes `bundle` (PEM) where it is not yet; true when something was written.
    pub(crate) async fn repair(&self, bundle: &str) -> Result<bool, BundleError> {
        let failed = |source| BundleError::Api {
            kind: self.resource.kind.clone(),
            name: self.name.clone(),
            source,
        };
        let patch = match (
            self.api.get_opt(&self.name).await.map_err(failed)?,
            &self.location,
        ) {
            (Some(found), BundleLocation::Webhooks) => in_webhooks(&found.data, bundle),
            (Some(found), BundleLocation::Conversion { namespace }) => {
                in_conversion(&found.data, namespace, bundle)
            }
            (None, BundleLocation::Webhooks) => {
                return Err(BundleError::Missing {
                    kind: self.resource.kind.clone(),
                    name: self.name.clone(),
                });
            }
            // The chart may be configured not to bring the definitions.
            (None, BundleLocation::Conversion { .. }) => return Ok(false),
        };
        if patch.0.is_empty() {
            return Ok(false);
        }
        let change: Change<()> = Change::Json(patch);
        self.api
            .patch(&self.name, &PatchParams::default(), &change)
            .await
            .map_err(failed)?;
        Ok(true)
    }
}

/// From the configuration as it is to one with the bundle in every webhook. The name of
/// each webhook is tested, so that a list that changed meanwhile is left alone.
fn in_webhooks(configuration: &Value, bundle: &str) -> Patch {
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

/// From the definition as it is to one with the bundle in its conversion. The Service that it calls
/// is tested, so that one that changed hands meanwhile is left alone.
fn in_conversion(definition: &Value, namespace: &str, bundle: &str) -> Patch {
    const CLIENT: [&str; 4] = ["spec", "conversion", "webhook", "clientConfig"];
    let at = |tail: &[&'static str]| PointerBuf::from_tokens(CLIENT.iter().chain(tail).copied());
    let found = |tail: &[&'static str]| definition.pointer(at(tail).as_str());
    let encoded = Value::from(STANDARD.encode(bundle));
    let service = found(&["service"]);
    let text = |field: &str| service.and_then(|service| service.get(field)?.as_str());
    let ours = text("name") == Some(CONVERSION_SERVICE) && text("namespace") == Some(namespace);
    if !ours || found(&["caBundle"]) == Some(&encoded) {
        return Patch(Vec::new());
    }
    Patch(vec![
        PatchOperation::Test(TestOperation {
            path: at(&["service"]),
            value: service.cloned().unwrap_or_default(),
        }),
        PatchOperation::Add(AddOperation {
            path: at(&["caBundle"]),
            value: encoded,
        }),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_definition_that_calls_this_injector_is_patched() {
        let mut definition = json!({"spec": {"conversion": {"strategy": "Webhook", "webhook": {
            "clientConfig": {"service": {
                "name": "weft-injector", "namespace": "mesh", "path": "/convert", "port": 443,
            }},
        }}}});
        assert_eq!(in_conversion(&definition, "other", "PEM"), Patch(vec![]));
        let change = in_conversion(&definition, "mesh", "PEM");
        json_patch::patch(&mut definition, &change).unwrap();
        assert_eq!(
            definition["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"],
            "UEVN"
        );
        assert_eq!(in_conversion(&definition, "mesh", "PEM"), Patch(vec![]));
        assert_eq!(in_conversion(&definition, "mesh", "NEW").0.len(), 2);
        let none = json!({"spec": {"conversion": {"strategy": "None"}}});
        assert_eq!(in_conversion(&none, "mesh", "PEM"), Patch(vec![]));
        let foreign = json!({"spec": {"conversion": {"strategy": "Webhook", "webhook": {
            "clientConfig": {"service": {"name": "smi-webhook", "namespace": "mesh"}},
        }}}});
        assert_eq!(in_conversion(&foreign, "mesh", "PEM"), Patch(vec![]));
    }

    #[test]
    fn only_webhooks_without_this_bundle_are_patched() {
        let bundle = "PEM";
        let mut configuration = json!({ "webhooks": [
            { "name": "a", "clientConfig": { "caBundle": STANDARD.encode(bundle) } },
            { "name": "b", "clientConfig": {} },
            { "name": "c", "clientConfig": { "caBundle": "b2xk" } },
        ]});
        let change = in_webhooks(&configuration, bundle);
        assert_eq!(change.0.len(), 4);
        json_patch::patch(&mut configuration, &change).unwrap();
        assert_eq!(in_webhooks(&configuration, bundle), Patch(vec![]));
        assert_eq!(
            configuration["webhooks"][1]["clientConfig"]["caBundle"],
            "UEVN"
        );
    }
}
