//! Validates an SMI object by itself, and parses its meaning.
//!
//! The webhook calls this while the author waits, and the controller calls it again for stored
//! objects, because the webhook may have been unreachable and objects may be older than it. There
//! is one validation and not two, so that both report the same errors in the same words.
//!
//! It validates one object, its namespace and the cluster's domain: only the controller reports
//! whether the objects that it names exist, or whether another object conflicts with it. It is
//! pure, so that both sides may call it at any time.
//!
//! A validation error costs the part that holds it as little as is safe. The other parts are
//! returned parsed; a wrong part matches nothing, never everything.

mod http_route_group;
mod identity_binding;
mod port_routes;
mod shape;
mod traffic_split;
mod traffic_target;
mod unknown;

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use http_route_group::{Criteria, RouteGroup, RouteGroupMatch, unusual_method};
pub use identity_binding::{Binding, BindingId};
pub use port_routes::RoutePorts;
pub(crate) use port_routes::valid_port;
pub(crate) use shape::check_object;
pub use shape::spec;
pub use traffic_split::{Backend, ServiceRef, Split};
pub(crate) use traffic_target::source;
pub use traffic_target::{
    Destination, DestinationKind, PortLimit, Rule, RuleKind, Source, SourceKind, Target,
};
pub(crate) use unknown::unknown_fields;

/// Characters of one field or text that are kept: both may quote values of any length.
const LONGEST_TEXT: usize = 400;
/// Validation errors of one object that are kept, many times what a user reads. Unknown
/// entries of lists may be as many as fit into an object.
const MOST_MISTAKES: usize = 100;

/// What one object may be judged by besides itself.
#[derive(Clone, Copy, Debug)]
pub struct ValidationContext<'a> {
    /// Namespace of the object.
    pub namespace: &'a str,
    /// DNS domain of the cluster, without dots at its ends.
    pub cluster_domain: &'a str,
    /// Namespace of the mesh itself, where policies for all of it stand.
    pub mesh_namespace: &'a str,
}

/// What the objects of one cluster are judged by.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its DNS domain, without dots at its ends.
    pub domain: Arc<str>,
    /// Namespace of the mesh itself.
    pub mesh_namespace: Arc<str>,
}

impl Default for Cluster {
    /// As the chart has it when its values are left alone.
    fn default() -> Self {
        Self {
            domain: "cluster.local".into(),
            mesh_namespace: "weft-system".into(),
        }
    }
}

impl Cluster {
    /// What an object of this namespace is judged by.
    pub fn around<'a>(&'a self, namespace: &'a str) -> ValidationContext<'a> {
        ValidationContext {
            namespace,
            cluster_domain: &self.domain,
            mesh_namespace: &self.mesh_namespace,
        }
    }
}

/// A spec that can be judged.
pub trait Validate: Default + DeserializeOwned {
    /// What is meant, with everything in it parsed.
    type Validated;

    /// What an object of this kind does that cannot be read, for its author.
    const UNREADABLE: &'static str;

    /// What is meant, and every mistake in the order of the fields.
    fn validate(&self, at: &ValidationContext<'_>) -> (Self::Validated, Vec<Mistake>);

    /// What is known of a spec that cannot be read: it never allows anything, and still
    /// protects the workloads that it names.
    fn unreadable(written: &Value, at: &ValidationContext<'_>) -> Self::Validated;

    /// Adds what stands against reading the spec and only this kind can have.
    fn misshapen(_written: &Value, _mistakes: &mut Mistakes) {}

    /// Adds what is to be said of a spec that can be read, besides what it means.
    fn besides(_written: &Value, _mistakes: &mut Mistakes) {}
}

/// What follows from a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The webhook refuses the object, and the controller does not accept it.
    Refuse,
    /// It is taken, with a word of warning.
    Warn,
}

/// The kind of a mistake. Conditions have reasons of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The object has another shape than its kind.
    Unreadable,
    /// A field's value cannot be used.
    Invalid,
    /// A TrafficTarget that protects another namespace than its own.
    ForeignDestination,
    /// A kind that is not served.
    UnsupportedKind,
    /// A field that has no meaning where it stands.
    FieldIgnored,
    /// A method that no client is likely to send.
    UnusualMethod,
    /// An expression for paths that fits no path.
    UnusualPath,
}

/// One thing that is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Path of the field, such as `spec.backends[1].service`.
    pub field: String,
    /// What follows from it.
    pub severity: Severity,
    /// Its kind.
    pub code: Code,
    /// What is wrong, and the way out.
    pub text: String,
}

/// Collects the mistakes of one object.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// All of them, in the order in which they were found.
    pub(crate) fn into_vec(self) -> Vec<Mistake> {
        self.0
    }

    fn add(&mut self, severity: Severity, code: Code, field: &str, text: &str) {
        if self.0.len() == MOST_MISTAKES {
            return;
        }
        self.0.push(Mistake {
            field: short(field),
            severity,
            code,
            text: short(text),
        });
    }

    pub(crate) fn refuse(&mut self, code: Code, field: impl AsRef<str>, text: impl AsRef<str>) {
        self.add(Severity::Refuse, code, field.as_ref(), text.as_ref());
    }

    pub(crate) fn invalid(&mut self, field: impl AsRef<str>, text: impl AsRef<str>) {
        self.refuse(Code::Invalid, field, text);
    }

    pub(crate) fn warn(&mut self, code: Code, field: impl AsRef<str>, text: impl AsRef<str>) {
        self.add(Severity::Warn, code, field.as_ref(), text.as_ref());
    }
}

/// The beginning of a long text.
fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests;
