//! Warns of injection labels, and of other labels and annotations of Weft, that have no effect.
//!
//! A namespace with `weft.dev/inject: "true"` gets no proxies and no message: its pods are not
//! even sent here. So objects with names of the mesh in another form are sent here for this alone.
//! They are always admitted: the object may have a meaning for other software.
//!
//! Claims: attack-114, attack-115

use crds::inject::unheard;
use crds::names;

use crate::review::{AdmissionResponse, Request};

/// The answer for one write.
pub(crate) fn check(request: &Request) -> AdmissionResponse {
    let unheard = unheard(&request.kind.kind, &request.object).into_iter();
    let unheard = unheard.map(|text| format!("weft: {text}"));
    AdmissionResponse {
        warnings: unheard.chain(unread(request)).collect(),
        ..AdmissionResponse::allow()
    }
}

/// A warning for each of the first names of ours that nothing reads in an object.
pub(crate) fn unread(request: &Request) -> impl Iterator<Item = String> {
    let kind = &request.kind;
    let unread = names::warnings(&kind.group, &kind.kind, &request.object);
    let unread = unread.into_iter();
    unread.map(|one| format!("weft: {}: {}", one.field, one.text))
}

#[cfg(test)]
mod tests {
    use crds::labels::INJECT;
    use serde_json::{Value, json};

    use super::*;

    fn warned(kind: &str, object: &Value) -> Vec<String> {
        let request = json!({
            "uid": "u", "kind": {"group": "", "kind": kind}, "namespace": "shop", "name": "x",
            "operation": "CREATE", "object": object,
        });
        let answer = check(&serde_json::from_value(request).unwrap());
        assert_eq!((answer.refusal, answer.patch), (None, None));
        answer.warnings
    }

    // Claims: C7
    #[test]
    fn ineffective_inject_label_gets_warning_with_correct_form() {
        let label = |text: &str| json!({"labels": {INJECT: text}});
        let note = |text: &str| json!({"annotations": {INJECT: text}});
        for (kind, object, warning) in [
            (
                "Namespace",
                json!({"metadata": label("true")}),
                "write weft.dev/inject=enabled",
            ),
            (
                "Namespace",
                json!({"metadata": note("enabled")}),
                "must be a label",
            ),
            (
                "Pod",
                json!({"metadata": label("true")}),
                "label weft.dev/inject is \"true\"",
            ),
            ("Pod", json!({"metadata": note("true")}), "must be a label"),
            (
                "Deployment",
                json!({"spec": {"template": {"metadata": note("true")}}}),
                "spec.template.metadata: annotation",
            ),
            (
                "StatefulSet",
                json!({"metadata": label("enabled"), "spec": {"template": {"metadata": {}}}}),
                "on a StatefulSet is not read; write weft.dev/inject: enabled under spec.template",
            ),
            (
                "Job",
                json!({"metadata": note("disabled"), "spec": {"template": {}}}),
                "weft.dev/inject: disabled under spec.template",
            ),
        ] {
            let warnings = warned(kind, &object);
            assert!(
                warnings.len() == 1 && warnings[0].contains(warning),
                "{kind} {object}: {warnings:?}"
            );
        }
    }

    #[test]
    fn misspelt_names_are_warned_beside_misspelt_inject_value() {
        let with = |name: &str| json!({"metadata": {"labels": {INJECT: "true"}, "annotations": {name: "deny"}}});
        let warnings = warned("Namespace", &with("weft.dev/acess"));
        let [asked, name] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        assert!(asked.contains("write weft.dev/inject="), "{asked}");
        assert_eq!(
            name,
            "weft: metadata.annotations[weft.dev/acess]: is no annotation of Weft; you may mean \
             weft.dev/access"
        );
        let right = warned("Namespace", &with("weft.dev/access"));
        assert_eq!(right.len(), 1, "{right:?}");
    }

    // Claims: C7
    #[test]
    fn right_spelling_is_not_talked_about() {
        let right = json!({"labels": {INJECT: "enabled"}});
        let deployment = json!({"metadata": right, "spec": {"template": {"metadata": right}}});
        for (kind, object) in [
            ("Namespace", json!({"metadata": right})),
            ("Pod", json!({"metadata": {"labels": {INJECT: "disabled"}}})),
            ("Deployment", deployment),
            ("Deployment", json!({"metadata": {"labels": {"app": "x"}}})),
            ("Namespace", json!(null)),
        ] {
            assert_eq!(warned(kind, &object), [] as [String; 0], "{kind} {object}");
        }
    }
}
