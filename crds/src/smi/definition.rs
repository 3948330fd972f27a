//! Builds the CustomResourceDefinitions of SMI from the Rust types, with the columns of `kubectl
//! get`.

use kube::Resource;
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{
    HTTPRouteGroup, HttpRouteGroupSpec, IdentityBinding, IdentityBindingSpec, SmiKind, SmiVersion,
    Status, TCPRoute, TcpRouteSpec, TrafficSplit, TrafficSplitSpec, TrafficTarget,
    TrafficTargetSpec, UDPRoute, UdpRouteSpec, schema, versions,
};

#[cfg(test)]
pub(super) mod tests;

/// The Service that answers the API server's conversion reviews, in the namespace of
/// the mesh.
pub const CONVERSION_SERVICE: &str = policy::well_known::INJECTOR;
/// Where it answers them.
pub(crate) const CONVERSION_PATH: &str = "/convert";

/// What a kind's definition needs beyond its types.
struct Kind {
    kind: SmiKind,
    plural: String,
    short_name: &'static str,
    description: &'static str,
    spec_description: &'static str,
    spec: Value,
    columns: fn(SmiVersion) -> Vec<Column>,
}

/// The CustomResourceDefinitions of all SMI kinds in all their versions, each with
/// its plural, converted by the webhook in `namespace`. The webhook's own CA is not
/// in them; its server writes `spec.conversion.webhook.clientConfig.caBundle`.
pub fn definitions(namespace: &str) -> Vec<(String, Value)> {
    let kinds = [
        kind::<HTTPRouteGroup, HttpRouteGroupSpec>(
            SmiKind::HttpRouteGroup,
            "htr",
            "Names sets of HTTP requests, for TrafficTargets and TrafficSplits to refer to.",
            "Which requests belong to the group.",
            |_| vec![column("Matches", SUMMARY_PATH, "Names of the matches.")],
        ),
        kind::<IdentityBinding, IdentityBindingSpec>(
            SmiKind::IdentityBinding,
            "ib",
            "Gives workloads of its namespace a name that TrafficTargets refer to.",
            "Which workloads it means.",
            |_| vec![column("Workloads", SUMMARY_PATH, "Whom it means.")],
        ),
        kind::<TCPRoute, TcpRouteSpec>(
            SmiKind::TcpRoute,
            "tr",
            "Names TCP ports, for TrafficTargets to refer to.",
            "Which ports belong to the route; all of them when left out.",
            ports_column,
        ),
        kind::<TrafficSplit, TrafficSplitSpec>(
            SmiKind::TrafficSplit,
            "ts",
            "Shares the traffic of one Service out among several, by weight.",
            "The root Service and who shares its traffic.",
            |_| {
                vec![
                    column(
                        "Service",
                        ".spec.service",
                        "The root Service, which clients call.",
                    ),
                    column(
                        "Backends",
                        SUMMARY_PATH,
                        "The Services that share it, with their weights.",
                    ),
                ]
            },
        ),
        kind::<TrafficTarget, TrafficTargetSpec>(
            SmiKind::TrafficTarget,
            "tt",
            "Allows some callers to reach one destination with some traffic.",
            "Who may call whom, and with what.",
            target_columns,
        ),
        kind::<UDPRoute, UdpRouteSpec>(
            SmiKind::UdpRoute,
            "ur",
            "Names UDP ports, for TrafficTargets to refer to.",
            "Which ports belong to the route; all of them when left out.",
            ports_column,
        ),
    ];
    kinds
        .into_iter()
        .map(|kind| (kind.plural.clone(), kind.definition(namespace)))
        .collect()
}

fn ports_column(version: SmiVersion) -> Vec<Column> {
    let ports = column(
        "Ports",
        ".spec.matches.ports",
        "Allowed ports; empty means all.",
    );
    if version < SmiVersion::STORAGE {
        vec![]
    } else {
        vec![ports]
    }
}

fn target_columns(version: SmiVersion) -> Vec<Column> {
    let path = match version {
        SmiVersion::V1alpha1 => ".destination.name",
        _ => ".spec.destination.name",
    };
    vec![
        column("Destination", path, "Whose pods may be called."),
        column("Sources", SUMMARY_PATH, "Who may call."),
    ]
}

fn kind<K, S>(
    kind: SmiKind,
    short_name: &'static str,
    description: &'static str,
    spec_description: &'static str,
    columns: fn(SmiVersion) -> Vec<Column>,
) -> Kind
where
    K: Resource<DynamicType = ()>,
    S: JsonSchema,
{
    Kind {
        kind,
        plural: K::plural(&()).into_owned(),
        short_name,
        description,
        spec_description,
        spec: schema::<S>(),
        columns,
    }
}

impl Kind {
    fn definition(&self, namespace: &str) -> Value {
        let (kind, group, plural) = (self.kind.name(), self.kind.group(), &self.plural);
        let versions = self.kind.versions();
        let conversion = if versions.len() == 1 {
            json!({ "strategy": "None" })
        } else {
            json!({
                "strategy": "Webhook",
                "webhook": {
                    "conversionReviewVersions": ["v1"],
                    "clientConfig": {
                        "service": {
                            "name": CONVERSION_SERVICE,
                            "namespace": namespace,
                            "path": CONVERSION_PATH,
                            "port": 443,
                        },
                    },
                },
            })
        };
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.{group}") },
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {
                    "kind": kind,
                    "listKind": format!("{kind}List"),
                    "plural": plural,
                    "singular": kind.to_lowercase(),
                    "shortNames": [self.short_name],
                    "categories": ["weft", "smi"],
                },
                "conversion": conversion,
                "versions": versions.iter().map(|v| self.version(*v)).collect::<Vec<_>>(),
            },
        })
    }

    fn version(&self, version: SmiVersion) -> Value {
        let mut status = schema::<Status>();
        status["description"] =
            "What the mesh says about it; left out until then. Written by Weft only.".into();
        let mut spec = self.spec.clone();
        spec["description"] = self.spec_description.into();
        let mut whole = json!({
            "type": "object",
            "description": self.description,
            "required": ["spec"],
            "properties": { "spec": spec, "status": status },
        });
        versions::narrow(self.kind, version, &mut whole);
        json!({
            "name": version.name(),
            "served": true,
            "storage": version == SmiVersion::STORAGE,
            "additionalPrinterColumns": printer_columns(&(self.columns)(version)),
            "schema": { "openAPIV3Schema": whole },
            "subresources": { "status": {} },
        })
    }
}

/// One column of `kubectl get`.
#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    path: &'static str,
    description: &'static str,
}

/// Where the message of the first condition that is False stands.
pub(crate) const FAILING_PATH: &str = r#".status.conditions[?(@.status=="False")].message"#;

const SUMMARY_PATH: &str = ".status.summary";

const fn column(name: &'static str, path: &'static str, description: &'static str) -> Column {
    Column {
        name,
        path,
        description,
    }
}

fn printer_columns(own: &[Column]) -> Vec<Value> {
    let json = |name: &str, path: &str, kind: &str, description: &str, priority: u8| {
        json!({
            "name": name,
            "type": kind,
            "jsonPath": path,
            "description": description,
            "priority": priority,
        })
    };
    let condition = |name: &str, of: &str, field: &str, description: &str, priority: u8| {
        let path = format!(r#".status.conditions[?(@.type=="{of}")].{field}"#);
        json(name, &path, "string", description, priority)
    };
    let state = |of: &str, description: &str| condition(of, of, "status", description, 0);
    own.iter()
        .map(|column| json(column.name, column.path, "string", column.description, 0))
        .chain([
            state("Accepted", "Whether it can be understood as it is written."),
            state(
                "ResolvedRefs",
                "Whether everything that it names exists and fits.",
            ),
            state("Programmed", "Whether the proxies that need it serve it."),
            // Only -o wide shows what has a priority above 0.
            json(
                "Message",
                FAILING_PATH,
                "string",
                "What is wrong, by the first condition that is False.",
                1,
            ),
            condition(
                "Proxies",
                "Programmed",
                "message",
                "How many proxies serve it.",
                1,
            ),
            json(
                "Age",
                ".metadata.creationTimestamp",
                "date",
                "Time since it was made.",
                0,
            ),
        ])
        .collect()
}
