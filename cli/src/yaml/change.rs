//! Applies a change to a document and verifies it: the new text, parsed again, must be the old
//! value with exactly this change. Whatever anchors, tags or odd layouts there are, no other field
//! moves, or the change is refused and nothing is written.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::BadYaml;
use super::edit;
use super::tree::parse;

/// Why a change cannot be made in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotChange {
    /// The text is no YAML, or not before the change.
    #[error("{0}")]
    Bad(BadYaml),
    /// No way of writing it changes this field alone.
    #[error("{line}:1: {field} cannot be changed in place: {why}")]
    InPlace {
        /// Line of the field, or of what is written of it.
        line: usize,
        /// JSON pointer of the field.
        field: String,
        /// What stands against it.
        why: &'static str,
    },
}

impl From<BadYaml> for CannotChange {
    fn from(bad: BadYaml) -> Self {
        Self::Bad(bad)
    }
}

/// The text with `patch` applied to document `number`, one operation after the other.
///
/// # Errors
/// When an operation would change more than its field in every way of writing it.
pub(crate) fn apply(text: &str, number: usize, patch: &Patch) -> Result<String, CannotChange> {
    let mut text = text.to_owned();
    for operation in &patch.0 {
        text = one(&text, number, operation)?;
    }
    Ok(text)
}

fn one(text: &str, number: usize, operation: &PatchOperation) -> Result<String, CannotChange> {
    let documents = parse(text)?;
    let mut wanted = values(text)?;
    let field = operation.path().to_string();
    let Some(document) = documents.get(number) else {
        return Err(refused(1, field, "there is no such document"));
    };
    let line = edit::line(document, &field);
    let Some(value) = wanted.get_mut(number) else {
        return Err(refused(line, field, "there is no such document"));
    };
    if json_patch::patch(value, &Patch(vec![operation.clone()])).is_err() {
        return Err(refused(line, field, "there is no such field"));
    }
    for candidate in edit::candidates(text, document, operation) {
        if values(&candidate).is_ok_and(|found| found == wanted) {
            return Ok(candidate);
        }
    }
    Err(refused(
        line,
        field,
        "an anchor, a merge or an unusual layout ties it to other fields; write it by hand",
    ))
}

fn refused(line: usize, field: String, why: &'static str) -> CannotChange {
    CannotChange::InPlace { line, field, why }
}

fn values(text: &str) -> Result<Vec<Value>, BadYaml> {
    parse(text)?
        .iter()
        .map(super::tree::Document::value)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(text: &str, patch: Value) -> Result<String, CannotChange> {
        apply(text, 0, &serde_json::from_value(patch).unwrap())
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "keeps the tests' json! plain"
    )]
    fn add(path: &str, value: Value) -> Value {
        json!([{"op": "add", "path": path, "value": value}])
    }

    #[test]
    fn members_are_added_where_a_person_would_write_them() {
        for (text, path, value, wanted) in [
            (
                "a:\n  b: 1 # one\n# end\n",
                "/a/c",
                json!("x"),
                "a:\n  b: 1 # one\n  c: x\n# end\n",
            ),
            (
                "a:\r\n  b: 1\r\n",
                "/a/c",
                json!(2),
                "a:\r\n  b: 1\r\n  c: 2\r\n",
            ),
            ("a:\n  b: 1", "/a/c", json!(2), "a:\n  b: 1\n  c: 2"),
            ("a: {b: 1}\n", "/a/c", json!(2), "a: {b: 1, \"c\": 2}\n"),
            ("a: {}\n", "/a/c", json!(2), "a: {\"c\": 2}\n"),
            ("a:\nb: 1\n", "/a/c", json!(2), ""),
            (
                "- x: 1\n- y: 2\n",
                "/0/z",
                json!(3),
                "- x: 1\n  z: 3\n- y: 2\n",
            ),
            (
                "a:\n  b: |\n    text\nz: 1\n",
                "/a/c",
                json!(2),
                "a:\n  b: |\n    text\n  c: 2\nz: 1\n",
            ),
            (
                "a:\n- 1 # one\nz: 1\n",
                "/a/1",
                json!(2),
                "a:\n- 1 # one\n- 2\nz: 1\n",
            ),
            ("a: [1]\n", "/a/1", json!(2), "a: [1, 2]\n"),
            ("a: [1]\n", "/a/0", json!(0), "a: [0, 1]\n"),
            ("a: []\n", "/a/0", json!(0), "a: [0]\n"),
            (
                "a: 1\n",
                "/b",
                json!({"c": {"d": "e"}}),
                "a: 1\nb:\n  c:\n    d: e\n",
            ),
            (
                "{\n  \"a\": 1\n}\n",
                "/b",
                json!("x"),
                "{\n  \"a\": 1,\n  \"b\": \"x\"\n}\n",
            ),
        ] {
            let changed_text = changed(text, add(path, value));
            match wanted {
                "" => assert!(changed_text.is_err(), "{text:?}: {changed_text:?}"),
                wanted => assert_eq!(changed_text.unwrap(), wanted, "{text:?}"),
            }
        }
    }

    #[test]
    fn values_are_replaced_or_removed_line_exactly() {
        let replace =
            |path: &str, value: Value| json!([{"op": "replace", "path": path, "value": value}]);
        let remove = |path: &str| json!([{"op": "remove", "path": path}]);
        for (text, patch, wanted) in [
            (
                "a: \"x\" # why\n",
                replace("/a", json!("z")),
                "a: z # why\n",
            ),
            ("a: ~\n", replace("/a", json!({"b": 1})), "a: {\"b\":1}\n"),
            ("a:\n", replace("/a", json!({"b": 1})), "a:\n  b: 1\n"),
            (
                "a: # empty\nz: 1\n",
                replace("/a", json!({"b": 1})),
                "a: # empty\n  b: 1\nz: 1\n",
            ),
            (
                "a:\n  b: 1\n  c: 2\nz: 1\n",
                replace("/a", json!([1])),
                "a:\n  - 1\nz: 1\n",
            ),
            (
                "a: 1\n# of b\nb: 2\nc: 3\n",
                remove("/b"),
                "a: 1\n# of b\nc: 3\n",
            ),
            ("a:\n  b: 1\nz: 1\n", remove("/a"), "z: 1\n"),
            ("- a: 1\n  b: 2\n", remove("/0/a"), "- b: 2\n"),
            ("{\"a\": 1, \"b\": 2}\n", remove("/a"), "{\"b\": 2}\n"),
            ("{\"a\": 1, \"b\": 2}\n", remove("/b"), "{\"a\": 1}\n"),
            ("a: [1, 2, 3]\n", remove("/a/1"), "a: [1, 3]\n"),
            ("a:\n- 1\n- 2\n- 3\n", remove("/a/1"), "a:\n- 1\n- 3\n"),
            ("a:\n  b: 1\n", remove("/a/b"), "a: {}\n"),
        ] {
            assert_eq!(changed(text, patch).unwrap(), wanted, "{text:?}");
        }
    }

    #[test]
    fn change_that_anchor_would_propagate_is_refused() {
        let text = "labels: &l\n  app: x\nselector: *l\n";
        let error = changed(text, add("/labels/b", json!("c"))).unwrap_err();
        assert!(error.to_string().contains("anchor"), "{error}");
        let error = changed(text, add("/selector/b", json!("c"))).unwrap_err();
        assert!(error.to_string().starts_with("3:1: /selector"), "{error}");
    }

    #[test]
    fn other_documents_keep_every_byte() {
        let text = "# one\na: 1\n---\nb:   2   # odd\n...\n---\n{c: 3}\n";
        let patch = serde_json::from_value(add("/x", json!(1))).unwrap();
        assert_eq!(
            apply(text, 1, &patch).unwrap(),
            "# one\na: 1\n---\nb:   2   # odd\nx: 1\n...\n---\n{c: 3}\n"
        );
    }
}
