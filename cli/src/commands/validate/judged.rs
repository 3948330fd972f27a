//! What is wrong with the objects of a text. Nothing is decided here: conversion,
//! judgement and spelling are those of `crds`, which the webhooks ask too.

use crds::convert::{SmiKind, convert};
use crds::inject::{self, SPELLED};
use crds::names;
use crds::shallow::Authored;
use crds::smi::judge::{Cluster, Mistake, Severity};
use crds::smi::{ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP, STORAGE_VERSION};
use crds::weft;
use policy::name::Kind;
use serde::Deserialize as _;
use serde_json::Value;

use crate::yaml::BadYaml;
use crate::yaml::tree::{self, Document, Step};

/// The kind of Weft's own group.
const TRAFFIC_POLICY: &str = Kind::TrafficPolicy.as_str();

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of the field, from 1.
    pub line: usize,
    /// Whether the object would be refused; else it is a warning.
    pub refused: bool,
    /// Kind, namespace and name.
    pub object: String,
    /// Path of the field: of one that has no meaning, and of the name, as it was written, else in
    /// the version that is stored; empty for the whole object.
    pub field: String,
    /// What is wrong, and the way out.
    pub text: String,
    /// Of a warning about a name of ours, which all objects of a chart may have: what others with
    /// this field have in common with it, so that one of them tells of all. What makes pods has
    /// another way out than the rest.
    pub group: Option<String>,
}

/// A text, judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Objects of SMI and of Weft in it.
    pub objects: usize,
    /// In the order of the text.
    pub findings: Vec<Finding>,
}

/// Judges every object of a text.
///
/// # Errors
/// When it is no YAML.
pub fn judge(text: &str, namespace: &str, cluster: &Cluster) -> Result<Judged, BadYaml> {
    let mut judged = Judged::default();
    for document in tree::parse(text)? {
        let value = document.value()?;
        let mut reader = ObjectReader {
            document: &document,
            namespace,
            cluster,
            judged: &mut judged,
        };
        reader.object(&value, &mut Vec::new());
    }
    Ok(judged)
}

struct ObjectReader<'a> {
    document: &'a Document,
    namespace: &'a str,
    cluster: &'a Cluster,
    judged: &'a mut Judged,
}

impl ObjectReader<'_> {
    fn object(&mut self, object: &Value, at: &mut Vec<Step>) {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if kind.ends_with("List")
            && let Some(items) = object.get("items").and_then(Value::as_array)
        {
            for (number, item) in items.iter().enumerate() {
                at.extend([Step::Key("items".to_owned()), Step::Item(number)]);
                self.object(item, at);
                at.truncate(at.len() - 2);
            }
            return;
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if [ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP].contains(&group) {
            self.judged.objects += 1;
            self.smi(object, group, version, at);
        } else if group == weft::GROUP {
            self.judged.objects += 1;
            self.ours(object, (group, version), kind, at);
        } else if SPELLED.contains(&kind)
            && let Some(text) = inject::unheard(kind, object)
        {
            // It has no field, and is told in its text.
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
        let stored = format!("{group}/{STORAGE_VERSION}");
        let converted = match convert(object, &stored) {
            Ok(converted) => converted,
            Err(error) => {
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
        for mistake in self.mistakes(object, converted, (group, kind), at) {
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
        if kind != TRAFFIC_POLICY || version != weft::VERSION {
            let text = format!(
                "{group}/{version} has no kind {kind:?}; {group}/{} has {TRAFFIC_POLICY}",
                weft::VERSION
            );
            self.found(object, at, true, String::new(), text);
            return;
        }
        self.as_written(object, at);
        for mistake in self.mistakes(object, object.clone(), (group, kind), at) {
            let refused = mistake.severity == Severity::Refuse;
            self.found(object, at, refused, mistake.field, mistake.text);
        }
    }

    /// What conversion and the API server would pass over or take away.
    fn as_written(&mut self, object: &Value, at: &[Step]) {
        for mistake in crds::validate::as_written(object) {
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
        self.judged.findings.push(Finding { refused, ..finding });
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
        self.judged.findings.push(Finding { group, ..finding });
    }

    /// A warning that is told of each object.
    fn finding(&self, object: &Value, at: &[Step], field: String, text: String) -> Finding {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("?");
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or("(without a name)");
        let namespace = match kind {
            "Namespace" => String::new(),
            _ => format!("{}/", namespace(object).unwrap_or(self.namespace)),
        };
        Finding {
            line: self.document.line_of(at, &field),
            refused: false,
            object: format!("{kind} {namespace}{name}"),
            field,
            text,
            group: None,
        }
    }
}

fn namespace(object: &Value) -> Option<&str> {
    object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "\
# who may call what
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: cart, namespace: shop}
spec:
  matches:
  - name: read
    methods: [GET]
    pathRegex: \"(\"
---
apiVersion: v1
kind: List
items:
- apiVersion: split.smi-spec.io/v1alpha4
  kind: TrafficSplit
  metadata: {name: cart}
  spec:
    service: cart
    backends:
    - {service: cart-v1, weight: 90}
    - service: \"not a name\"
      weight: 10
- apiVersion: split.smi-spec.io/v9
  kind: TrafficSplit
  metadata: {name: late}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, labels: {weft.dev/inject: \"true\"}}
";

    fn in_shop(text: &str) -> Judged {
        judge(text, "shop", &Cluster::default()).unwrap()
    }

    /// Of each finding its line, whether the object is refused, which one, and this part.
    fn found(judged: &Judged, part: fn(&Finding) -> &str) -> Vec<(usize, bool, &str, &str)> {
        let findings = judged.findings.iter();
        findings
            .map(|one| (one.line, one.refused, one.object.as_str(), part(one)))
            .collect()
    }

    #[test]
    fn every_mistake_has_its_line_its_field_and_the_words_of_the_webhook() {
        let judged = in_shop(POLICY);
        assert_eq!(judged.objects, 3);
        assert_eq!(
            found(&judged, |one| one.field.as_str()),
            [
                (
                    9,
                    true,
                    "HTTPRouteGroup shop/cart",
                    "spec.matches[0].pathRegex"
                ),
                (
                    21,
                    true,
                    "TrafficSplit shop/cart",
                    "spec.backends[1].service"
                ),
                (23, true, "TrafficSplit shop/late", ""),
                (26, false, "Deployment shop/web", ""),
            ],
            "{:#?}",
            judged.findings
        );
        assert!(
            judged.findings[2].text.contains("v9"),
            "{:?}",
            judged.findings[2]
        );
    }

    #[test]
    fn only_warnings_about_names_of_ours_belong_to_a_group() {
        let secret = "\
---
apiVersion: v1
kind: Secret
metadata: {name: a, labels: {weft.dev/inject: enabled}}
";
        let judged = in_shop(&format!("{POLICY}{secret}"));
        let all = judged.findings.iter();
        let grouped = all.filter(|one| one.group.is_some());
        let grouped: Vec<&str> = grouped.map(|one| one.object.as_str()).collect();
        assert_eq!(grouped, ["Deployment shop/web", "Secret shop/a"]);
        // Control: there are others.
        assert_eq!(judged.findings.len(), 5, "{:#?}", judged.findings);
    }

    #[test]
    fn objects_of_every_version_are_judged_as_what_would_be_stored() {
        let text = "apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {name: a}\nspec:\n  service: a\n  backends:\n  - service: b\n    weight: lots\n";
        let judged = in_shop(text);
        let first = judged.findings.first().expect("the weight is no quantity");
        assert!(first.refused, "{first:?}");
        assert!(first.line >= 5, "{first:?}");
    }

    #[test]
    fn misspelt_fields_of_smi_and_names_of_no_object_are_told_where_they_stand() {
        let text = "\
apiVersion: access.smi-spec.io/v1alpha1
kind: TrafficTarget
metadata: {name: Cart_1}
destination: {kind: ServiceAccount, name: cart}
sources:
- {kind: ServiceAccount, name: web}
specs:
- kind: HTTPRouteGroup
  name: cart
  match: [read]
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: cart}
spec:
  service: cart
  match:
  - {kind: HTTPRouteGroup, name: blue}
  backends:
  - {service: cart-v1, weight: 90}
";
        let judged = in_shop(text);
        assert_eq!(
            found(&judged, |one| one.field.as_str()),
            [
                (3, true, "TrafficTarget shop/Cart_1", "metadata.name"),
                (10, false, "TrafficTarget shop/Cart_1", "specs[0].match"),
                (17, false, "TrafficSplit shop/cart", "spec.match"),
            ],
            "{:#?}",
            judged.findings
        );
        for warning in &judged.findings[1..] {
            assert!(warning.text.ends_with("; matches is one"), "{warning:?}");
        }
    }

    #[test]
    fn labels_and_annotations_that_nobody_reads_are_told_where_they_stand() {
        let text = "\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  annotations:
    weft.dev/mtls: strict
    weft.dev/acess: deny
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations:
    weft.dev/access: deny
spec:
  template:
    metadata:
      labels: {app: web}
      annotations:
        weft.dev/drain-delay: \"5\"
        weft.dev/acces-log: json
---
apiVersion: v1
kind: List
items:
- apiVersion: split.smi-spec.io/v1alpha4
  kind: TrafficSplit
  metadata:
    name: cart
    labels:
      weft.dev/inject: enabled
  spec: {service: cart, backends: [{service: cart-v1, weight: 1}]}
";
        let judged = in_shop(text);
        assert_eq!(
            found(&judged, |one| one.text.rsplit_once("; ").unwrap().1),
            [
                (7, false, "Namespace shop", "you may mean weft.dev/access"),
                (
                    14,
                    false,
                    "Deployment shop/web",
                    "write it under spec.template.metadata.annotations"
                ),
                (
                    21,
                    false,
                    "Deployment shop/web",
                    "you may mean weft.dev/access-log"
                ),
                (
                    31,
                    false,
                    "TrafficSplit shop/cart",
                    "it is a label of Namespace and Pod"
                ),
            ],
            "{:#?}",
            judged.findings
        );
    }
}
