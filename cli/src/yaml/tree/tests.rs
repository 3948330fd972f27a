//! What is read, what is refused, and where everything stands.

use serde_json::json;

use super::*;

fn value(text: &str) -> Value {
    parse(text).unwrap()[0].value().unwrap()
}

#[test]
fn documents_are_read_as_kubectl_reads_them() {
    let text = "# head\na: &x {b: [1, 'two', \"3\"]}\nc: *x\nd:\n  <<: *x\n  e: yes\nf: |\n  line\n---\n---\n- 1\n";
    let documents = parse(text).unwrap();
    assert_eq!(documents.len(), 3);
    let inner = json!({"b": [1, "two", "3"]});
    assert_eq!(
        documents[0].value().unwrap(),
        json!({"a": inner, "c": inner, "d": {"b": [1, "two", "3"], "e": true}, "f": "line\n"})
    );
    assert_eq!(documents[1].value().unwrap(), json!(null));
    assert_eq!(documents[2].value().unwrap(), json!([1]));
    assert_eq!(
        value("{\"a\": 1, \"b\": [true, null]}"),
        json!({"a": 1, "b": [true, null]})
    );
    assert_eq!(value("a: !!str 12"), json!({"a": "12"}));
}

#[test]
fn json_is_read_as_what_it_is() {
    use oracle::generate::{SHOP, hostile};
    use oracle::random::Random;

    let mut read = 0;
    for seed in oracle::seeds::seeds(600) {
        let object = hostile(&mut Random::new(seed), &SHOP);
        if let Ok(documents) = parse(&object.to_string()) {
            read += 1;
            let found = documents[0].value().unwrap();
            assert!(found == object, "seed {seed}");
        }
    }
    assert!(read > 500, "{read}");
}

#[test]
fn invalid_manifest_is_reported_with_its_position() {
    for (text, line, message) in [
        ("a: 1\nb: [", 2, ""),
        ("a: 1\na: 2\n", 2, "stands twice"),
        ("a: 1\n? [x]\n: 2\n", 2, "must be a word"),
        ("a: *missing\n", 1, ""),
        ("a: {{ .Values.x }}\n", 1, ""),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.text.contains(message), "{text:?}: {error}");
    }
}

#[test]
fn multiplying_or_recursive_yaml_aliases_are_refused_quickly() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let one = format!("*a{}", i - 1);
        text.push_str(&format!("a{i}: &a{i} [{}]\n", vec![one; 10].join(", ")));
    }
    let error = parse(&text).unwrap()[0].value().unwrap_err();
    assert!(error.text.contains("too large"), "{error}");
    // Whether the parser or we refuse it: nothing turns in a circle.
    let itself = parse("a: &x [*x]\n").and_then(|all| all[0].value());
    assert!(itself.is_err(), "{itself:?}");
}

#[test]
fn field_line_is_its_key_or_nearest_written_parent() {
    let text = "kind: List\nitems:\n- kind: A\n- kind: B\n  spec:\n    backends:\n    - service: a\n    - service: b\n      weight: 1\n  metadata:\n    labels:\n      weft.dev/inject: x\n";
    let document = &parse(text).unwrap()[0];
    let object = [Step::Key("items".into()), Step::Item(1)];
    for (field, line) in [
        ("spec.backends[1].weight", 9),
        ("spec.backends[1].service", 8),
        ("spec.backends[7]", 6),
        ("spec.nothing", 5),
        ("metadata.labels[weft.dev/inject]", 12),
        ("", 4),
    ] {
        assert_eq!(document.line_of(&object, field), line, "{field}");
    }
    assert_eq!(document.line_of(&[], "kind"), 1);
}
