//! Reads the objects of one document, and runs every validation on them.

use crds::convert::{SmiKind, convert};
use crds::inject::{self, SPELLED};
use crds::shallow::Authored;
use crds::smi::validation::{Cluster, Code, Mistake, Severity};
use crds::smi::{ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP, STORAGE_VERSION};
use crds::{names, weft};
use gateway_api::findings;
use serde::Deserialize as _;
use serde_json::Value;

use super::identity;
use crate::kinds::{self, UserKind};
use crate::yaml::tree::{Document, Step};

/// Validates the objects of one document.
pub(super) struct ObjectReader<'a> {
    pub(super) document: &'a Document,
    /// Lines of the text that the document does not count.
    pub(super) before: usize,
    /// Whether the API server's schema is checked too.
    pub(super) with_schema: bool,
    pub(super) namespace: &'a str,
    pub(super) cluster: &'a Cluster,
    pub(super) validated: &'a mut Validated,
}

impl ObjectReader<'_> {
    /// Validates an object, or those of a list, at this place of the document.
    pub(super) fn object(&mut self, object: &Value, at: &mut Vec<Step>) {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if kind.ends_with("List")
            && let Some(items) = object.get("items").and_then(Value::as_array)
        {
            for (number, item) in items.iter().enumerate() {
                at.extend([Step::Key("items".to_owned()), Step::Item(number)]);
                let named = identity::by_list(item, (api_version, kind));
                self.object(named.as_ref().unwrap_or(item), at);
                at.truncate(at.len() - 2);
            }
            return;
        }
        if self.with_schema {
            for missed in identity::missed(object) {
                let field = missed.field.to_owned();
                self.found(object, at, true, field, missed.text);
            }
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if [ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP].contains(&group) {
            self.validated.objects += 1;
            self.smi(object, group, version, at);
        } else if group == weft::GROUP {
            self.validated.objects += 1;
            self.ours(object, (group, version), kind, at);
        } else if let Some(read) = of_gateway_api(group, kind) {
            self.validated.objects += 1;
            self.route(object, version, &read, at);
        } else if SPELLED.contains(&kind)
            && let Some(text) = inject::unheard(kind, object)
        {
            // It has no field, and is named in its text.
            self.unread(object, at, String::new(), text.clone(), Some(text));
        }
        for unread in names::warnings(group, kind, object) {
            self.unread(object, at, unread.field, unread.text, unread.way_out);
        }
    }

    fn smi(&mut self, object: &Value, group: &str, version: &str, at: &[Step]) {
        self.as_written(object, at);
        let kind = object
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let mut by_schema = self.by_schema(object);
        let stored = format!("{group}/{STORAGE_VERSION}");
        let converted = match convert(&self.handed_on(object), &stored) {
            Ok(converted) => converted,
            Err(error) => {
                self.all_found(object, at, by_schema);
                let known = SmiKind::ALL.into_iter();
                let of_group: Vec<&str> = known
                    .filter(|kind| kind.group() == group)
                    .map(SmiKind::name)
                    .collect();
                let mut text = error.to_string();
                if !of_group.contains(&kind) {
                    text = format!("{text}; {group} has {}", of_group.join(", "));
                }
                self.found(object, at, true, String::new(), text);
                return;
            }
        };
        let mut validated = self.mistakes(object, converted, (group, kind), at);
        each_once(&mut by_schema, &mut validated);
        self.all_found(object, at, by_schema);
        for mistake in validated {
            let mut text = mistake.text;
            if version != STORAGE_VERSION {
                text = format!("{text} (fields are named as in {STORAGE_VERSION})");
            }
            let refused = mistake.severity == Severity::Refuse;
            self.found(object, at, refused, mistake.field, text);
        }
    }

    /// Weft's own kinds have one version.
    fn ours(&mut self, object: &Value, (group, version): (&str, &str), kind: &str, at: &[Step]) {
        if kind == kinds::AUTHORITY && version == weft::VERSION {
            // The API server alone refuses what is wrong with it, by its rules.
            return;
        }
        let mut own = kinds::of_group(weft::GROUP);
        own.push(kinds::REVOCATION);
        if !own.contains(&kind) || version != weft::VERSION {
            let text = format!(
                "{group}/{version} has no kind {kind:?}; {group}/{} has {}",
                weft::VERSION,
                own.join(", ")
            );
            self.found(object, at, true, String::new(), text);
            return;
        }
        self.as_written(object, at);
        let mut by_schema = self.by_schema(object);
        let handed_on = self.handed_on(object);
        let mut validated = self.mistakes(object, handed_on, (group, kind), at);
        each_once(&mut by_schema, &mut validated);
        self.all_found(object, at, by_schema);
        self.all_found(object, at, validated);
    }

    /// Kinds of the Gateway API have schemas of their own, of whatever release is installed. What
    /// Weft cannot carry out of an object is no less an error.
    fn route(&mut self, object: &Value, version: &str, read: &UserKind, at: &[Step]) {
        if !read.versions().contains(&version) {
            if !findings::concerns(object) {
                return;
            }
            let versions = read.versions().join(", ");
            let text = format!("is read in version {versions}, not in {version:?}");
            self.found(object, at, true, "apiVersion".to_owned(), text);
            return;
        }
        let mut object = object.clone();
        if namespace(&object).is_none()
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("namespace".to_owned(), self.namespace.into());
        }
        for finding in findings::of(read.known, &object) {
            self.found(&object, at, finding.refuses, finding.path, finding.message);
        }
    }

    /// What conversion and the API server would pass over or take away.
    fn as_written(&mut self, object: &Value, at: &[Step]) {
        self.all_found(object, at, crds::validate::as_written(object));
    }

    /// Errors by which the API server refuses an object before it calls the webhook.
    fn by_schema(&self, object: &Value) -> Vec<Mistake> {
        if self.with_schema {
            crds::validate::by_schema(object)
        } else {
            Vec::new()
        }
    }

    /// The object as the API server hands it on.
    fn handed_on(&self, object: &Value) -> Value {
        let mut object = object.clone();
        if self.with_schema {
            crds::validate::drop_nulls(&mut object);
        }
        object
    }

    fn all_found(&mut self, object: &Value, at: &[Step], mistakes: Vec<Mistake>) {
        for mistake in mistakes {
            let refused = mistake.severity == Severity::Refuse;
            self.found(object, at, refused, mistake.field, mistake.text);
        }
    }

    fn mistakes(
        &mut self,
        object: &Value,
        stored: Value,
        (group, kind): (&str, &str),
        at: &[Step],
    ) -> Vec<Mistake> {
        let namespace = namespace(object).unwrap_or(self.namespace);
        // As the webhook reads it: what is nested without end is cut off.
        let stored = match Authored::deserialize(stored) {
            Ok(Authored(stored)) => stored,
            Err(error) => {
                self.found(object, at, true, String::new(), error.to_string());
                return Vec::new();
            }
        };
        let around = self.cluster.around(namespace);
        let mistakes = crds::validate::object(group, kind, stored.get("spec"), &around);
        mistakes.unwrap_or_default()
    }

    fn found(&mut self, object: &Value, at: &[Step], refused: bool, field: String, text: String) {
        let finding = self.finding(object, at, field, text);
        self.validated.findings.push(Finding { refused, ..finding });
    }

    /// A warning about a name of ours.
    fn unread(
        &mut self,
        object: &Value,
        at: &[Step],
        field: String,
        text: String,
        group: Option<String>,
    ) {
        let finding = self.finding(object, at, field, text);
        self.validated.findings.push(Finding { group, ..finding });
    }

    /// A warning that is printed for each object.
    fn finding(&self, object: &Value, at: &[Step], field: String, text: String) -> Finding {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("?");
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or("(without a name)");
        let namespace = match kind {
            "Namespace" | kinds::REVOCATION => String::new(),
            _ => format!("{}/", namespace(object).unwrap_or(self.namespace)),
        };
        Finding {
            line: self.before + self.document.line_of(at, &field),
            refused: false,
            object: format!("{kind} {namespace}{name}"),
            field,
            text,
            group: None,
        }
    }
}

/// The kind of the Gateway API that is read.
fn of_gateway_api(group: &str, kind: &str) -> Option<UserKind> {
    let mut all = kinds::of_gateway_api().into_iter();
    all.find(|known| known.group == group && known.kind == kind)
}

fn namespace(object: &Value) -> Option<&str> {
    object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of the field, from 1.
    pub line: usize,
    /// Whether the object would be refused; else it is a warning.
    pub refused: bool,
    /// Kind, namespace and name; of a document that cannot be read its number.
    pub object: String,
    /// Path of the field: as it was written if only the API server reports it, else in the version
    /// that is stored; empty for the whole object.
    pub field: String,
    /// What is wrong, and the way out.
    pub text: String,
    /// Set for a warning about a name of ours, which all objects of a chart may have: the key of
    /// those that one line covers. Objects that create pods have another way out than the rest.
    pub group: Option<String>,
}

/// A validated text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validated {
    /// Objects of SMI and of Weft in it.
    pub objects: usize,
    /// Documents that could not be read; each has a finding.
    pub unreadable: usize,
    /// In the order of the text.
    pub findings: Vec<Finding>,
}

/// Removes from each what the other reports better. About a shape the schema has the plainer
/// message; about everything else the webhook knows what follows from it.
pub(super) fn each_once(by_schema: &mut Vec<Mistake>, validated: &mut Vec<Mistake>) {
    validated.retain(|one| {
        let is_reported = |other: &Mistake| is_of_shape(other) && stored(&other.field) == one.field;
        !is_of_shape(one) || !by_schema.iter().any(is_reported)
    });
    by_schema.retain(|one| {
        let field = stored(&one.field);
        let is_reported =
            |other: &Mistake| other.severity == Severity::Refuse && is_within(&other.field, &field);
        !validated.iter().any(is_reported)
    });
}

fn is_of_shape(mistake: &Mistake) -> bool {
    mistake.code == Code::Unreadable
}

/// Whether one is the other, or a part of it.
fn is_within(field: &str, whole: &str) -> bool {
    let rest = field.strip_prefix(whole);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A field as it is named where it is stored: the oldest versions have it at the top of the
/// object.
fn stored(field: &str) -> String {
    if let Some(rest) = field.strip_prefix("specs") {
        return format!("spec.rules{rest}");
    }
    let is_at_top = ["destination", "sources", "matches"];
    if is_at_top.iter().any(|top| is_within(field, top)) {
        return format!("spec.{field}");
    }
    field.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(field: &str, code: Code, text: &str) -> Mistake {
        Mistake {
            field: field.to_owned(),
            severity: Severity::Refuse,
            code,
            text: text.to_owned(),
        }
    }

    /// The fields that are left of the schema's errors, and of the webhook's.
    fn left(by_schema: (&str, Code), validated: (&str, Code)) -> (Vec<String>, Vec<String>) {
        let mut by_schema = vec![mistake(by_schema.0, by_schema.1, "by schema")];
        let mut validated = vec![mistake(validated.0, validated.1, "judged")];
        each_once(&mut by_schema, &mut validated);
        let fields = |all: Vec<Mistake>| all.into_iter().map(|one| one.field).collect();
        (fields(by_schema), fields(validated))
    }

    #[test]
    fn error_found_by_schema_and_webhook_is_reported_once() {
        const WEIGHT: &str = "spec.backends[0].weight";
        let (shape, value) = (Code::Unreadable, Code::Invalid);
        let (first, second) = ((true, false), (false, true));
        for (by_schema, validated, left_over) in [
            ((WEIGHT, shape), (WEIGHT, shape), first),
            ((WEIGHT, value), (WEIGHT, shape), second),
            ((WEIGHT, value), (WEIGHT, value), second),
            (
                ("destination", shape),
                ("spec.destination.name", value),
                second,
            ),
            (
                ("specs[0].name", value),
                ("spec.rules[0].name", value),
                second,
            ),
            // Control: other fields, if only by the end of a name.
            (
                (WEIGHT, value),
                ("spec.backends[1].weight", value),
                (true, true),
            ),
            (
                ("spec.matches", value),
                ("spec.matchesOf", value),
                (true, true),
            ),
        ] {
            let (of_schema, of_webhook) = left(by_schema, validated);
            let found = (!of_schema.is_empty(), !of_webhook.is_empty());
            assert_eq!(found, left_over, "{by_schema:?} {validated:?}");
        }
    }
}
