//! Changes the SMI definitions so that they need no conversion, before the chart is deleted.
//!
//! The injector goes with the chart, and without it the API server could neither read nor write
//! older versions; every list of them would fail, and with it every client that waits for all kinds
//! of a namespace. Serving them without conversion would be worse: the text of one version read as
//! another means something else, or nothing.

use crds::convert::SmiKind;
use crds::smi::STORAGE_VERSION;
use kube::Client;
use tracing::warn;

use crate::storage_migration::{Definition, DefinitionError};

/// Tries per definition: others write it too, the injector for one.
const TRIES: usize = 5;

/// Why the definitions stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Without conversion, stored objects would be misread.
    #[error(
        "objects of {name} are stored in {} too, which no client could read without this mesh. Its \
         controller rewrites them by itself within a minute; try again then. `kubectl get crd \
         {name} -o jsonpath={{.status.storedVersions}}` shows when it has, and its log what \
         keeps it from it", .versions.join(", ")
    )]
    Older {
        /// The definition.
        name: String,
        /// The versions other than storage.
        versions: Vec<String>,
    },
    /// What is stored is not known, or could not be secured.
    #[error(
        "{0}. Without this step older versions of SMI objects cannot be read after the chart is \
         gone; `helm uninstall --no-hooks` removes it all the same"
    )]
    Definition(#[from] DefinitionError),
}

/// Leaves only the storage version served and no conversion, in all definitions that the
/// injector in `namespace` converts for. Either all of them allow it or none is touched,
/// and where one cannot be written those before it become what they were. Returns how many
/// were changed.
///
/// # Errors
/// See [`Refusal`].
pub(crate) async fn serve_storage_only(client: &Client, namespace: &str) -> Result<usize, Refusal> {
    let mut kinds = Vec::new();
    for kind in SmiKind::ALL {
        if ready(client, namespace, kind).await?.is_some() {
            kinds.push(kind);
        }
    }
    let mut secured = Vec::new();
    for kind in &kinds {
        match secure(client, namespace, *kind).await {
            Ok(before) => secured.extend(before),
            Err(refusal) => {
                give_back(client, &secured).await;
                return Err(refusal);
            }
        }
    }
    Ok(kinds.len())
}

/// Puts definitions back as they were read.
async fn give_back(client: &Client, secured: &[Definition]) {
    for before in secured {
        if let Err(error) = before.restore(client).await {
            warn!(%error, "older versions are not served again");
        }
    }
}

/// Names of the definitions that serve their storage version only and convert nothing.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn serving_storage_only(client: &Client) -> Result<Vec<String>, DefinitionError> {
    let mut names = Vec::new();
    for kind in SmiKind::ALL {
        let found = Definition::read(client, kind).await?;
        names.extend(
            found
                .filter(Definition::serves_storage_only)
                .map(|found| found.name().to_owned()),
        );
    }
    Ok(names)
}

/// The definition of a kind, if we convert for it and nothing is stored in an older
/// version.
async fn ready(
    client: &Client,
    namespace: &str,
    kind: SmiKind,
) -> Result<Option<Definition>, Refusal> {
    let Some(found) = Definition::read(client, kind).await? else {
        return Ok(None);
    };
    if !found.converts_here(namespace) {
        return Ok(None);
    }
    if !found.settled() {
        let versions = found.stored_versions().iter();
        return Err(Refusal::Older {
            name: found.name().to_owned(),
            versions: versions
                .filter(|version| *version != STORAGE_VERSION)
                .cloned()
                .collect(),
        });
    }
    Ok(Some(found))
}

/// Returns what the definition was before, if it was changed.
async fn secure(
    client: &Client,
    namespace: &str,
    kind: SmiKind,
) -> Result<Option<Definition>, Refusal> {
    let mut tries = 0;
    loop {
        tries += 1;
        let Some(found) = ready(client, namespace, kind).await? else {
            return Ok(None);
        };
        match found.serve_storage_only(client).await {
            Ok(()) => return Ok(Some(found)),
            Err(error) if error.is_conflict() && tries < TRIES => {}
            Err(error) => {
                // It may have been written all the same.
                give_back(client, &[found]).await;
                return Err(error.into());
            }
        }
    }
}

#[cfg(test)]
mod tests;
