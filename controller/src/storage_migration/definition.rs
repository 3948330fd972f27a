//! Reads and updates one SMI definition: stored versions and conversion.

use crds::convert::SmiKind;
use crds::smi::{CONVERSION_SERVICE, STORAGE_VERSION};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// A definition as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    name: String,
    definition: CustomResourceDefinition,
}

/// A definition that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("definition {name}: {source}")]
pub struct DefinitionError {
    /// Such as `traffictargets.access.smi-spec.io`.
    pub name: String,
    /// What the API server said.
    pub source: Box<kube::Error>,
}

impl DefinitionError {
    /// Whether another client wrote at the same time.
    pub fn is_conflict(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.is_conflict())
    }
}

impl Definition {
    /// The definition of a kind, if the cluster has it.
    ///
    /// # Errors
    /// When the API server does not answer or does not allow it.
    pub(crate) async fn read(
        client: &Client,
        kind: SmiKind,
    ) -> Result<Option<Self>, DefinitionError> {
        // Kinds with one version were never stored in another.
        if kind.versions().len() < 2 {
            return Ok(None);
        }
        let name = kind.definition();
        match api(client).get_opt(&name).await {
            Ok(definition) => Ok(definition.map(|definition| Self { name, definition })),
            Err(source) => Err(DefinitionError {
                name,
                source: Box::new(source),
            }),
        }
    }

    /// Such as `traffictargets.access.smi-spec.io`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the injector in `namespace` converts its objects.
    pub(crate) fn converts_here(&self, namespace: &str) -> bool {
        let conversion = self.definition.spec.conversion.as_ref();
        let webhook = conversion.and_then(|conversion| conversion.webhook.as_ref());
        webhook
            .and_then(|webhook| webhook.client_config.as_ref()?.service.as_ref())
            .is_some_and(|service| {
                service.name == CONVERSION_SERVICE && service.namespace == namespace
            })
    }

    /// The versions in which objects may be stored.
    pub(crate) fn stored_versions(&self) -> &[String] {
        let status = self.definition.status.as_ref();
        status
            .and_then(|status| status.stored_versions.as_deref())
            .unwrap_or_default()
    }

    /// Whether every object is stored in the storage version.
    pub(crate) fn settled(&self) -> bool {
        self.stored_versions().iter().all(|v| v == STORAGE_VERSION)
    }

    /// Says that every object is stored in the storage version.
    ///
    /// # Errors
    /// A conflict when the definition is not what was read any more.
    pub(crate) async fn set_stored_versions(&self, client: &Client) -> Result<(), DefinitionError> {
        let patch = json!({
            "metadata": {"resourceVersion": self.definition.metadata.resource_version},
            "status": {"storedVersions": [STORAGE_VERSION]},
        });
        let outcome = api(client)
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        self.written(outcome)
    }

    /// Serves nothing but the storage version, so that nothing has to be converted.
    ///
    /// # Errors
    /// A conflict when the definition is not what was read any more.
    pub(crate) async fn serve_storage_only(&self, client: &Client) -> Result<(), DefinitionError> {
        let mut versions = self.definition.spec.versions.clone();
        for version in &mut versions {
            version.served = version.name == STORAGE_VERSION;
        }
        let patch = json!({
            "metadata": {"resourceVersion": self.definition.metadata.resource_version},
            "spec": {
                "conversion": {"strategy": "None", "webhook": Value::Null},
                "versions": versions,
            },
        });
        let outcome = api(client)
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        self.written(outcome)
    }

    /// Whether it serves nothing but the storage version of several, and converts nothing.
    pub(crate) fn serves_storage_only(&self) -> bool {
        let conversion = self.definition.spec.conversion.as_ref();
        let converts = conversion.is_some_and(|conversion| conversion.strategy != "None");
        let versions = &self.definition.spec.versions;
        !converts && versions.iter().any(|version| !version.served)
    }

    /// Serves and converts again as when it was read, whatever was written since.
    ///
    /// # Errors
    /// When the API server does not answer or does not allow it.
    pub(crate) async fn restore(&self, client: &Client) -> Result<(), DefinitionError> {
        let spec = &self.definition.spec;
        let patch = json!({
            "spec": {"conversion": spec.conversion, "versions": spec.versions},
        });
        let outcome = api(client)
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        self.written(outcome)
    }

    fn written<T>(&self, outcome: Result<T, kube::Error>) -> Result<(), DefinitionError> {
        outcome.map(drop).map_err(|source| DefinitionError {
            name: self.name.clone(),
            source: Box::new(source),
        })
    }
}

fn api(client: &Client) -> Api<CustomResourceDefinition> {
    Api::all(client.clone())
}
