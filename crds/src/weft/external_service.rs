//! ExternalService: hosts and addresses outside the mesh, and which callers may call them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EXTERNAL_SERVICES, GROUP, VERSION};
use crate::{
    kind::kind,
    smi::{conditions_schema, without_defaults},
};

kind! {
    /// Names what pods may call outside the mesh, and how these calls leave.
    ExternalService, spec ExternalServiceSpec, status ExternalServiceStatus,
    group GROUP, version VERSION, plural EXTERNAL_SERVICES
}

/// A name in DNS, in small letters.
const NAME: &str = r"^[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*$";
/// The same, or `*.` and such a name.
const HOST: &str =
    r"^(\*\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*$";

/// What an ExternalService names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["ports"]),
    extend("x-kubernetes-validations" = [
        {
            "rule": "has(self.hosts) && self.hosts.size() > 0 || \
                     has(self.addresses) && self.addresses.size() > 0",
            "message": "must hold hosts, addresses or both",
        },
        {
            "rule": "!has(self.addresses) || self.addresses.size() == 0 || \
                     !self.ports.exists(port, has(port.tls) && !has(port.tls.serverName))",
            "message": "tls needs a serverName beside addresses",
        },
    ]),
    transform = without_defaults
)]
pub struct ExternalServiceSpec {
    /// Names of hosts, at most 32: one host, or `*.` and a name for every host with one label or
    /// more before that name. None when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 253), regex(pattern = HOST))
    )]
    pub hosts: Option<Vec<String>>,
    /// Networks or single addresses, such as `203.0.113.0/24`, at most 64. None when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 43)))]
    pub addresses: Option<Vec<String>>,
    /// Ports that may be called there, 1 to 16, each number once.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"])
    )]
    pub ports: Vec<ExternalServicePort>,
    /// Limits the object to these callers, 1 to 64. All callers of this namespace when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub sources: Option<Vec<ExternalSource>>,
    /// The Gateway by which calls leave the mesh. Each caller's own proxy sends them out when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<ExternalGatewayRef>,
}

/// A port outside the mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["port", "protocol"]),
    extend("x-kubernetes-validations" = [
        {
            "rule": "!has(self.tls) || self.protocol == 'HTTP'",
            "message": "tls is for protocol HTTP only",
        },
    ]),
    transform = without_defaults
)]
pub struct ExternalServicePort {
    /// Number that callers use.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i64,
    /// What callers send: `HTTP` (requests in plaintext, recognised by their host), `TLS` (their
    /// own TLS, recognised by its server name) or `TCP` (anything, recognised by the address).
    #[schemars(extend("enum" = ["HTTP", "TLS", "TCP"]))]
    pub protocol: String,
    /// Number that is dialled. The same as `port` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: Option<i64>,
    /// Requests leave inside TLS that the caller's proxy begins. They leave as they come when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTls>,
}

/// TLS that the caller's proxy begins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct ExternalTls {
    /// Name that the server's certificate must have. The host that was called when left out;
    /// needed beside addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub server_name: Option<String>,
    /// The authorities that the server is believed by. Those of the public web when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
}

/// A ConfigMap of the object's namespace with certificates of authorities under the key `ca.crt`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]), transform = without_defaults)]
pub struct CaRef {
    /// Name of the ConfigMap, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]), transform = without_defaults)]
pub struct ExternalSource {
    /// `ServiceAccount`.
    #[schemars(extend("enum" = ["ServiceAccount"]))]
    pub kind: String,
    /// Name of the service account.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the service account; the object's own when left out. Another one only in an
    /// object of the namespace of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A Gateway of Weft.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]), transform = without_defaults)]
pub struct ExternalGatewayRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Gateway; the object's own when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What the mesh says about an ExternalService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-preserve-unknown-fields" = true),
    transform = without_defaults
)]
pub struct ExternalServiceStatus {
    /// The hosts and addresses, for the columns of `kubectl get`. Left out until Weft has seen the
    /// object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The ports, for the columns of `kubectl get`. Left out until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `Accepted`, `ResolvedRefs` and `Programmed`, each with its reason. Empty until Weft has
    /// seen the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}
