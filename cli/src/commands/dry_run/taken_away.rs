//! Finds annotations and labels of the mesh that applying the files would remove from a Namespace:
//! they were applied before, and its manifest has them no longer.
//!
//! A dry run applies modes to a Namespace and removes none, so without this check a manifest that
//! has lost `weft.dev/access: deny` would show no changed call, and open the whole namespace.

use std::collections::BTreeSet;

use serde_json::Value;

use super::collected::{CollectedChange, MAPS, decides, names};
use crate::cluster::Cluster;
use crate::console::Console;
use crate::failure::Failure;

/// Annotation in which `kubectl apply` keeps what was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Names what would be taken away, and counts what of that decides about calls.
///
/// # Errors
/// When the error stream cannot be written.
pub(super) async fn note(
    cluster: &Cluster,
    collected: &mut CollectedChange,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let mut count = 0;
    for (name, kept) in &collected.namespaces {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || !name.bytes().all(letters) {
            continue;
        }
        let (what, path) = (
            format!("Namespace {name}"),
            format!("/api/v1/namespaces/{name}"),
        );
        let namespace: Value = match cluster.try_read(&what, &path).await {
            Ok(namespace) => namespace,
            // It is yet to be made.
            Err(refusal) if refusal.is_missing() => continue,
            Err(refusal) => {
                let why = refusal.into_failure();
                console.word(&format!(
                    "whether annotations of {what} are taken away is not known: {why}"
                ))?;
                count += 1;
                continue;
            }
        };
        for key in applied(&namespace).difference(kept) {
            console.word(&format!(
                "{key} of {what} is in none of the files, so that applying them takes it away; \
                 that is not tried"
            ))?;
            count += usize::from(decides(key));
        }
    }
    collected.untried += count;
    Ok(())
}

/// Names of the mesh that an object has, and that it has because they were applied: an apply
/// without them takes them away. What `kubectl annotate` wrote stays.
fn applied(object: &Value) -> BTreeSet<String> {
    let metadata = &object["metadata"];
    let last = metadata["annotations"][LAST_APPLIED].as_str();
    let last: Option<Value> = last.and_then(|text| serde_json::from_str(text).ok());
    let last = last.unwrap_or_default();
    let managers = || metadata["managedFields"].as_array().into_iter().flatten();
    let mut found = BTreeSet::new();
    for map in MAPS {
        for key in names(&metadata[map]) {
            let by_client = !last["metadata"][map][key].is_null();
            let by_server = managers().any(|manager| {
                let owned = &manager["fieldsV1"]["f:metadata"][format!("f:{map}")];
                manager["operation"] == "Apply" && !owned[format!("f:{key}")].is_null()
            });
            if by_client || by_server {
                found.insert(key.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn applied_annotation_is_taken_away_and_other_is_not() {
        let applied_once = json!({"metadata": {"annotations": {"weft.dev/mtls": "strict"}}});
        let owned = json!({"f:metadata": {"f:annotations": {"f:weft.dev/access": {}}}});
        let by =
            |operation: &str, fields: &Value| json!({"operation": operation, "fieldsV1": fields});
        let namespace = json!({"metadata": {
            "annotations": {
                LAST_APPLIED: applied_once.to_string(), "team": "a",
                "weft.dev/access": "deny", "weft.dev/mtls": "strict",
                "weft.dev/opaque-ports": "25",
            },
            "managedFields": [by("Apply", &owned)],
        }});
        let found: Vec<String> = applied(&namespace).into_iter().collect();
        assert_eq!(found, ["weft.dev/access", "weft.dev/mtls"]);
        let mut updated = namespace;
        updated["metadata"]["managedFields"] = json!([by("Update", &owned)]);
        let found: Vec<String> = applied(&updated).into_iter().collect();
        assert_eq!(found, ["weft.dev/mtls"]);
    }
}
