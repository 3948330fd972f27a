//! The types of the read API `observe.weft.dev`, shared by the controller, which serves it, and by
//! every client.
//!
//! Responses are deserialized leniently, so that a client understands a newer controller; requests
//! strictly, because a misspelt field would be ignored.

mod dry_run;
mod explanation;
mod graph;
mod proxies;
mod rules;
mod tap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use dry_run::{
    AccessChange, BackendShare, Change, ChangedEdge, Deleted, DryRun, DryRunSpec, DryRunStatus,
    Trial, TriedEdge, TriedRequest,
};
pub use explanation::{
    BackendVerdict, EarlierRule, ExplainedRule, Explanation, ExplanationSpec, ExplanationStatus,
    ExplanationVerdict, Fix, From, Header, Programmed, RecentCalls, Step, To,
};
pub use graph::{
    Edge, Graph, GraphMetadata, Latency, Minute, Node, NodeKind, Protocol, RouteSums, ServerSums,
    SharedServerSums,
};
pub use proxies::{
    Certificate, Nack, Proxy, ProxyList, ProxyListMetadata, ProxyMetadata, ProxyStatus,
};
pub use rules::{RouteRules, RouteTable, RouteTableMetadata, RuleBackend, TableRule};
pub use tap::{Direction, TapLine, TapMetadata, TapRequest};

/// Group of the API.
pub const GROUP: &str = "observe.weft.dev";
/// Its only version.
pub const VERSION: &str = "v1alpha1";
/// Group and version, as objects write them.
pub const API_VERSION: &str = "observe.weft.dev/v1alpha1";
/// The one name under which facts stand that are made when they are asked for. A resource
/// without `list` is left alone by whatever mirrors, stores or draws all that a cluster
/// has.
pub const LIVE: &str = "live";

/// A resource of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Which workloads call which: `graphs/live`.
    Graphs,
    /// The proxies that are connected.
    Proxies,
    /// Why a call would pass or not.
    Explanations,
    /// Where the caller may read graphs: `scopes/live`, for the whole cluster only.
    Scopes,
    /// Requests as they end: `taps/live`, as a stream and in one namespace only.
    Taps,
    /// What a change would mean; created and answered at once, never stored.
    DryRuns,
    /// The merged rules of the routes of one Service, in its namespace only.
    RouteTables,
}

impl Resource {
    /// All of them, in the order of discovery.
    pub const ALL: [Self; 7] = [
        Self::DryRuns,
        Self::Explanations,
        Self::Graphs,
        Self::Proxies,
        Self::RouteTables,
        Self::Scopes,
        Self::Taps,
    ];

    /// The name in paths and roles.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Graphs => "graphs",
            Self::Proxies => "proxies",
            Self::Explanations => "explanations",
            Self::Scopes => "scopes",
            Self::Taps => "taps",
            Self::DryRuns => "dryruns",
            Self::RouteTables => "routetables",
        }
    }

    /// The kind of its objects.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Graphs => "Graph",
            Self::Proxies => "Proxy",
            Self::Explanations => "Explanation",
            Self::Scopes => "Scope",
            Self::Taps => "Tap",
            Self::DryRuns => "DryRun",
            Self::RouteTables => "RouteTable",
        }
    }

    /// What can be done with it. None lists and watches, and nothing is deleted.
    #[must_use]
    pub const fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Graphs | Self::RouteTables | Self::Scopes | Self::Taps => &["get"],
            Self::Proxies => &["get", "list"],
            Self::Explanations | Self::DryRuns => &["create"],
        }
    }

    /// Whether it stands below namespaces too.
    #[must_use]
    pub const fn namespaced(self) -> bool {
        !matches!(self, Self::Scopes)
    }

    /// Its path in one namespace or in all, without parameters.
    #[must_use]
    pub fn path(self, namespace: Option<&str>, name: Option<&str>) -> String {
        let scope = namespace.map_or_else(String::new, |name| format!("namespaces/{name}/"));
        let name = name.map_or_else(String::new, |name| format!("/{name}"));
        format!("/apis/{API_VERSION}/{scope}{}{name}", self.plural())
    }
}

/// Schema of what a list of them is, where there are lists.
#[must_use]
pub fn list_schema(resource: Resource) -> Option<Value> {
    let schema = match resource {
        Resource::Proxies => generator().into_root_schema_for::<ProxyList>(),
        Resource::Explanations
        | Resource::Graphs
        | Resource::Scopes
        | Resource::RouteTables
        | Resource::DryRuns
        | Resource::Taps => return None,
    };
    Some(schema.to_value())
}

fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator()
}

/// Schema of a resource's objects, without references.
#[must_use]
pub fn schema(resource: Resource) -> Value {
    let generator = generator();
    let schema = match resource {
        Resource::Explanations => generator.into_root_schema_for::<Explanation>(),
        Resource::Graphs => generator.into_root_schema_for::<Graph>(),
        Resource::Proxies => generator.into_root_schema_for::<Proxy>(),
        Resource::Scopes => generator.into_root_schema_for::<Scope>(),
        Resource::DryRuns => generator.into_root_schema_for::<DryRun>(),
        Resource::RouteTables => generator.into_root_schema_for::<RouteTable>(),
        Resource::Taps => generator.into_root_schema_for::<TapLine>(),
    };
    schema.to_value()
}

/// The answer to `scopes/live`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Scope {
    pub api_version: String,
    pub kind: String,
    /// He may read the graph of the whole cluster. Namespaces are all listed then.
    pub cluster: bool,
    /// Namespaces whose graph he may read, in order.
    pub namespaces: Vec<String>,
    /// There are more namespaces than are asked about.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Some were not checked yet, because the API server answers slowly: a later request
    /// gets more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

#[cfg(test)]
mod tests;
