//! Collects the validation errors of all objects in a text. Nothing is decided here: conversion,
//! validation and spelling are those of `crds`, which the webhooks use too.

mod documents;
mod identity;
mod reader;

use crds::smi::validation::Cluster;

use self::reader::ObjectReader;
use crate::yaml::{BadYaml, tree};

pub use self::reader::{Finding, Validated};

/// Validates every object of a text as the webhook does.
///
/// # Errors
/// When it is no YAML.
pub fn validate_text(text: &str, namespace: &str, cluster: &Cluster) -> Result<Validated, BadYaml> {
    let mut validated = Validated::default();
    for document in tree::parse(text)? {
        let value = document.value()?;
        let mut reader = ObjectReader {
            document: &document,
            before: 0,
            with_schema: false,
            namespace,
            cluster,
            validated: &mut validated,
        };
        reader.object(&value, &mut Vec::new());
    }
    Ok(validated)
}

/// Validates every object of a text as the API server does by its schemas, and then the webhook. A
/// document that cannot be read hides no other.
pub(super) fn validate_each(text: &str, namespace: &str, cluster: &Cluster) -> Validated {
    let mut validated = Validated::default();
    for part in documents::read(text) {
        let read = part.read.and_then(|document| {
            let value = document.value().map_err(|mut bad| {
                bad.line += part.before;
                bad
            })?;
            Ok((document, value))
        });
        match read {
            Ok((document, value)) => {
                let mut reader = ObjectReader {
                    document: &document,
                    before: part.before,
                    with_schema: true,
                    namespace,
                    cluster,
                    validated: &mut validated,
                };
                reader.object(&value, &mut Vec::new());
            }
            Err(bad) => {
                validated.unreadable += 1;
                validated.findings.push(unreadable(part.number, &bad));
            }
        }
    }
    validated
}

fn unreadable(number: usize, bad: &BadYaml) -> Finding {
    Finding {
        line: bad.line,
        refused: true,
        object: format!("document {number}"),
        field: String::new(),
        text: format!("cannot be read at column {}: {}", bad.column, bad.text),
        group: None,
    }
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

    fn in_shop(text: &str) -> Validated {
        validate_text(text, "shop", &Cluster::default()).unwrap()
    }

    /// Of each finding its line, whether the object is refused, which one, and this part.
    fn found(validated: &Validated, part: fn(&Finding) -> &str) -> Vec<(usize, bool, &str, &str)> {
        let findings = validated.findings.iter();
        findings
            .map(|one| (one.line, one.refused, one.object.as_str(), part(one)))
            .collect()
    }

    #[test]
    fn validation_errors_have_line_field_and_webhook_message() {
        let validated = in_shop(POLICY);
        assert_eq!(validated.objects, 3);
        assert_eq!(
            found(&validated, |one| one.field.as_str()),
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
            validated.findings
        );
        assert!(
            validated.findings[2].text.contains("v9"),
            "{:?}",
            validated.findings[2]
        );
    }

    #[test]
    fn only_warnings_about_weft_names_are_grouped() {
        let secret = "\
---
apiVersion: v1
kind: Secret
metadata: {name: a, labels: {weft.dev/inject: enabled}}
";
        let validated = in_shop(&format!("{POLICY}{secret}"));
        let all = validated.findings.iter();
        let grouped = all.filter(|one| one.group.is_some());
        let grouped: Vec<&str> = grouped.map(|one| one.object.as_str()).collect();
        assert_eq!(grouped, ["Deployment shop/web", "Secret shop/a"]);
        // Control: there are others.
        assert_eq!(validated.findings.len(), 5, "{:#?}", validated.findings);
    }

    #[test]
    fn objects_of_old_versions_are_validated_as_stored() {
        let text = "apiVersion: split.smi-spec.io/v1alpha1\nkind: TrafficSplit\nmetadata: {name: a}\nspec:\n  service: a\n  backends:\n  - service: b\n    weight: lots\n";
        let validated = in_shop(text);
        let first = validated
            .findings
            .first()
            .expect("the weight is no quantity");
        assert!(first.refused, "{first:?}");
        assert!(first.line >= 5, "{first:?}");
    }

    // Claims: observe-116
    #[test]
    fn misspelt_smi_fields_and_invalid_names_are_located() {
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
        let validated = in_shop(text);
        assert_eq!(
            found(&validated, |one| one.field.as_str()),
            [
                (3, true, "TrafficTarget shop/Cart_1", "metadata.name"),
                (10, false, "TrafficTarget shop/Cart_1", "specs[0].match"),
                (17, false, "TrafficSplit shop/cart", "spec.match"),
            ],
            "{:#?}",
            validated.findings
        );
        for warning in &validated.findings[1..] {
            assert!(warning.text.ends_with("; matches is one"), "{warning:?}");
        }
    }

    // Claims: attack-115
    #[test]
    fn unread_labels_and_annotations_are_located() {
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
        let validated = in_shop(text);
        assert_eq!(
            found(&validated, |one| one.text.rsplit_once("; ").unwrap().1),
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
            validated.findings
        );
    }
}
