//! The label by which NetworkPolicies know a pod's service account.

use serde_json::Value;

use super::{Namespace, Refusal, pod::object};
use crate::labels::{ACCOUNT, account_hash, account_of};

/// Writes the label. `again`: the pod carries a proxy already, so a label that is
/// there is an earlier run's, and another webhook has changed the account since.
///
/// # Errors
/// When the pod already has another value. It is not put right silently: a controller
/// whose selector holds that value would not know its own pod and make the next one.
pub(super) fn stamp(pod: &mut Value, namespace: &Namespace, again: bool) -> Result<(), Refusal> {
    let account = pod.get("spec").map_or("default", account_of).to_owned();
    let right = account_hash(&namespace.name, &account);
    let metadata = pod.as_object_mut().and_then(|pod| object(pod, "metadata"));
    let Some(labels) = metadata.and_then(|metadata| object(metadata, "labels")) else {
        return Err(Refusal::NotAPod);
    };
    if let Some(found) = labels.get(ACCOUNT).filter(|found| **found != *right)
        && !again
    {
        return Err(Refusal::FalseAccount {
            found: found
                .as_str()
                .unwrap_or_default()
                .chars()
                .take(80)
                .collect(),
            account,
            right,
        });
    }
    labels.insert(ACCOUNT.into(), right.into());
    Ok(())
}
