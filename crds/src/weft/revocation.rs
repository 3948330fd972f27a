//! Revocation: identities that the whole mesh refuses from now on.
//!
//! It ends identities and no network: what takes plaintext is still reached. Deleting the object
//! lifts it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GROUP, REVOCATIONS, VERSION};
use crate::{
    kind::kind,
    smi::{conditions_schema, without_defaults},
};

kind! {
    /// Identities that every proxy and controller of the mesh refuses while the object is there.
    Revocation, spec RevocationSpec, status RevocationStatus,
    group GROUP, version VERSION, plural REVOCATIONS,
    scope kube::core::ClusterResourceScope
}

/// What is revoked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["reason", "subjects"]), transform = without_defaults)]
pub struct RevocationSpec {
    /// Why, in a sentence: Events and the log repeat it, and nothing else reads it.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
    /// What is revoked, 1 to 64, each one thing.
    #[schemars(length(min = 1, max = 64))]
    pub subjects: Vec<RevokedSubject>,
    /// Certificates that were issued before this time alone, RFC 3339, at most 5 minutes after the
    /// object was made: the workload gets new ones and goes on. All certificates when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub issued_before: Option<String>,
}

/// One thing that is revoked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "[has(self.serviceAccount), has(self.pod), has(self.node), has(self.certificate), has(self.issuer)].filter(set, set).size() == 1", "message": "must hold one of serviceAccount, pod, node, certificate and issuer" },
    ]),
    transform = without_defaults
)]
pub struct RevokedSubject {
    /// All pods of a service account. Left out for another subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<RevokedAccount>,
    /// One pod. Left out for another subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<RevokedPod>,
    /// All meshed pods of a node, those that come later, too. Left out for another subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<RevokedNode>,
    /// One certificate; its pod gets another one. Left out for another subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<RevokedCertificate>,
    /// All certificates of an issuer that signs no more; their pods get others. Left out for another
    /// subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<RevokedIssuer>,
}

/// A service account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["namespace", "name"]), transform = without_defaults)]
pub struct RevokedAccount {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["namespace", "name"]), transform = without_defaults)]
pub struct RevokedPod {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its uid. The first pod of the name that the mesh sees when left out or empty, which the
    /// status keeps: a later pod of the name is not revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub uid: Option<String>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]), transform = without_defaults)]
pub struct RevokedNode {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["serial"]), transform = without_defaults)]
pub struct RevokedCertificate {
    /// Its serial number, 2 to 40 hex digits, as the controller logs it: `certificate issued`.
    #[schemars(regex(pattern = "^[0-9a-fA-F]{2,40}$"))]
    pub serial: String,
}

/// What signed certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["fingerprint"]), transform = without_defaults)]
pub struct RevokedIssuer {
    /// `sha256:` and 32 hex digits, by its name and key: `authority` of the issuers of the
    /// CertificateAuthority, and `signer` of what `weft identity -o json` shows.
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{32}$"))]
    pub fingerprint: String,
}

/// What the mesh says about a Revocation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-preserve-unknown-fields" = true),
    transform = without_defaults
)]
pub struct RevocationStatus {
    /// Its subjects in a few words, for the columns of `kubectl get`. Left out until Weft has seen
    /// the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The pods that subjects mean. Empty where none means pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub subjects: Vec<RevokedSubjectStatus>,
    /// `Accepted`, `ResolvedRefs` and `Programmed`, each with its reason. Empty until Weft has seen
    /// the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// The pods that one subject means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct RevokedSubjectStatus {
    /// The subject, such as `pod shop/db-0` or `node node-2`. Never left out.
    pub subject: String,
    /// Uids of the pods, of a node also of those that are gone: their certificates have not ended.
    /// Empty without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub pod_uids: Vec<String>,
}
