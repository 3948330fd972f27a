//! Names without effect are reported, those with one are not, and the table of them is
//! what the constants and the manual have.
//!
//! Claims: attack-115

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;

const NOTHING: [(String, String); 0] = [];

/// Field and text of each warning.
fn reported(group: &str, kind: &str, object: &Value) -> Vec<(String, String)> {
    let warnings = warnings(group, kind, object).into_iter();
    warnings.map(|one| (one.field, one.text)).collect()
}

fn annotated(name: &str) -> Value {
    json!({"metadata": {"annotations": {name: "deny"}}})
}

/// A CronJob with this as the template of its pods.
#[expect(
    clippy::needless_pass_by_value,
    reason = "keeps the tests' json! plain"
)]
fn cron_job(template: Value) -> Value {
    json!({"spec": {"jobTemplate": {"spec": {"template": template}}}})
}

fn labelled(name: &str) -> Value {
    json!({"metadata": {"labels": {name: "deny"}}})
}

/// There is only one warning, with this field and this text.
fn alone(group: &str, kind: &str, object: &Value, field: &str, text: &str) {
    let expected = [(field.to_owned(), text.to_owned())];
    assert_eq!(reported(group, kind, object), expected, "{kind} {object}");
}

#[test]
fn misspelt_name_suggests_correct_one_on_every_kind() {
    for (written, meant) in [
        ("weft.dev/acess", "; you may mean weft.dev/access"),
        ("weft.dev/mtsl", "; you may mean weft.dev/mtls"),
        ("weft.dev/Access", "; you may mean weft.dev/access"),
        ("weft.dev/mtlss", "; you may mean weft.dev/mtls"),
        ("weft.dev/shoe-size", ""),
        // Users set nothing by a name that Weft writes.
        ("weft.dev/proxy-versions", ""),
    ] {
        let text = format!("is no annotation of Weft{meant}");
        for kind in ["Namespace", "Pod", "Service", "ConfigMap"] {
            let field = format!("metadata.annotations[{written}]");
            alone("", kind, &annotated(written), &field, &text);
        }
    }
    let field = "metadata.labels[weft.dev/injct]";
    let text = "is no label of Weft; you may mean weft.dev/inject";
    let label = labelled("weft.dev/injct");
    alone("", "Namespace", &label, field, text);
    let cron = cron_job(annotated("weft.dev/acess"));
    let field = "spec.jobTemplate.spec.template.metadata.annotations[weft.dev/acess]";
    let text = "is no annotation of Weft; you may mean weft.dev/access";
    alone("batch", "CronJob", &cron, field, text);
    // Names of others are theirs, however much they look like ours.
    for other in ["acess", "example.com/acess", "weft.develop/acess"] {
        assert_eq!(
            reported("", "Namespace", &annotated(other)),
            NOTHING,
            "{other}"
        );
    }
}

#[test]
fn ineffective_name_reports_kinds_where_it_acts() {
    let access = "metadata.annotations[weft.dev/access]";
    let of_pods = "it is an annotation of Namespace and Pod";
    for (group, kind) in [
        ("", "Service"),
        ("", "ServiceAccount"),
        ("networking.k8s.io", "Ingress"),
        ("access.smi-spec.io", "TrafficTarget"),
        ("weft.dev", "TrafficPolicy"),
    ] {
        let text = format!("is not read on kind {kind}; {of_pods}");
        alone(group, kind, &annotated("weft.dev/access"), access, &text);
    }
    let routes = annotated("weft.dev/routes");
    let field = "metadata.annotations[weft.dev/routes]";
    let text = "is not read on kind Namespace; it is an annotation of Service";
    alone("", "Namespace", &routes, field, text);
    let inject = labelled("weft.dev/inject");
    let field = "metadata.labels[weft.dev/inject]";
    let text = "is not read on kind Service; it is a label of Namespace and Pod";
    alone("", "Service", &inject, field, text);
    // What makes pods, and what they are made from.
    let mut deployment = annotated("weft.dev/access");
    deployment["spec"]["template"] = json!({"spec": {}});
    let text = format!(
        "is not read on kind Deployment; {of_pods}; write it under \
         spec.template.metadata.annotations"
    );
    alone("apps", "Deployment", &deployment, access, &text);
    let template = json!({"spec": {"template": routes}});
    let field = "spec.template.metadata.annotations[weft.dev/routes]";
    let text = "is not read on kind Pod; it is an annotation of Service";
    alone("apps", "StatefulSet", &template, field, text);
}

#[test]
fn name_in_wrong_map_suggests_correct_map() {
    let text = "is not read: it is an annotation; write it under metadata.annotations";
    let field = "metadata.labels[weft.dev/access]";
    let label = labelled("weft.dev/access");
    alone("", "Namespace", &label, field, text);
    let cron = cron_job(annotated("weft.dev/inject"));
    let field = "spec.jobTemplate.spec.template.metadata.annotations[weft.dev/inject]";
    let text = "is not read: it is a label; write it under \
                spec.jobTemplate.spec.template.metadata.labels";
    alone("batch", "CronJob", &cron, field, text);
}

#[test]
fn similar_names_get_equal_advice_across_kinds() {
    let way_out = |group: &str, kind: &str, object: &Value| {
        let mut all = warnings(group, kind, object);
        let one = all.pop().unwrap();
        assert!(all.is_empty(), "{all:?}");
        let way_out = one.way_out.unwrap();
        assert!(one.text.ends_with(&way_out), "{}", one.text);
        assert!(one.text.len() > way_out.len(), "{}", one.text);
        way_out
    };
    let access = annotated("weft.dev/access");
    let mut deployment = access.clone();
    deployment["spec"]["template"] = json!({"spec": {}});
    let of_pods = way_out("", "Service", &access);
    assert_eq!(of_pods, "; it is an annotation of Namespace and Pod");
    assert_eq!(way_out("", "ConfigMap", &access), of_pods);
    // Control: what makes pods has another one, and a name without a like has none.
    assert_ne!(way_out("apps", "Deployment", &deployment), of_pods);
    let unlike = annotated("weft.dev/shoe-size");
    assert_eq!(way_out("", "Service", &unlike), "");
}

#[test]
fn what_is_read_somewhere_is_not_talked_about() {
    let both = json!({"metadata": {"labels": {"weft.dev/access": "deny"},
        "annotations": {"weft.dev/access": "deny"}}});
    let access = annotated("weft.dev/access");
    let mut deployment = access.clone();
    deployment["spec"]["template"] = access.clone();
    let list = json!({"metadata": {"annotations": ["weft.dev/acess"]}});
    for (group, kind, object) in [
        ("", "Namespace", access.clone()),
        ("", "Pod", annotated("weft.dev/drain-delay")),
        ("", "Service", annotated("weft.dev/routes")),
        ("", "Service", annotated("weft.dev/opaque-ports")),
        ("", "Namespace", labelled("weft.dev/inject")),
        ("", "Namespace", both),
        ("apps", "Deployment", deployment),
        // It has a judge of its own there.
        ("apps", "Deployment", labelled("weft.dev/inject")),
        // Another product may pass it on to where it acts.
        ("tenants.example.com", "Tenant", access.clone()),
        ("serving.knative.dev", "Service", access),
        ("", "Namespace", list),
        ("", "Namespace", Value::Null),
    ] {
        assert_eq!(reported(group, kind, &object), NOTHING, "{kind} {object}");
    }
    // Control: a name that is not passed on, because it is no name.
    let misspelt = annotated("weft.dev/acess");
    let found = reported("tenants.example.com", "Tenant", &misspelt);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn names_written_by_weft_are_never_reported() {
    let ours = ALL.iter();
    let ours: Vec<&OwnName> = ours
        .filter(|known| matches!(known.author, Author::Weft))
        .collect();
    assert_eq!(ours.len(), 5, "{ours:?}");
    for known in ours {
        for kind in ["Namespace", "Pod", "Service", "Lease", "TrafficSplit"] {
            for object in [annotated(known.name), labelled(known.name)] {
                assert_eq!(reported("", kind, &object), NOTHING, "{kind} {object}");
            }
        }
    }
}

#[test]
fn first_invalid_names_are_listed_and_rest_counted() {
    let many = |count: usize| {
        let names = (0..count).map(|i| (format!("weft.dev/x-{i}"), json!("")));
        let names: serde_json::Map<String, Value> = names.collect();
        json!({"metadata": {"annotations": names}})
    };
    let found = reported("", "Namespace", &many(MOST_SHOWN + 40));
    assert_eq!(found.len(), MOST_SHOWN + 1, "{found:?}");
    let last = found.last().unwrap();
    assert_eq!(last.0, "metadata");
    assert!(last.1.starts_with("has 40 more "), "{last:?}");
    let all = warnings("", "Namespace", &many(MOST_SHOWN + 40));
    let shown = all.iter().filter(|one| one.way_out.is_some());
    assert_eq!(shown.count(), MOST_SHOWN, "{all:?}");
    assert_eq!(
        reported("", "Namespace", &many(MOST_SHOWN)).len(),
        MOST_SHOWN
    );
    let long = annotated(&format!("weft.dev/{}", "x".repeat(5000)));
    let found = reported("", "Namespace", &long);
    assert!(found[0].0.len() < 150, "{found:?}");
}

/// Folders of what runs somewhere, and of what it is made of.
const PROGRAMS: [&str; 9] = [
    "cli",
    "controller",
    "crds",
    "identity",
    "injector",
    "policy",
    "proxy",
    "runtime",
    "wire",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names that the constants of a text have.
fn constants(text: &str) -> Vec<String> {
    let quoted = text.match_indices("\"weft.dev/");
    let declared = quoted.filter(|(at, _)| text[..*at].trim_end().ends_with(": &str ="));
    let names = declared.filter_map(|(at, _)| text[at + 1..].split('"').next());
    names
        .filter(|name| *name != PREFIX)
        .map(ToOwned::to_owned)
        .collect()
}

fn constants_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            constants_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.extend(constants(&fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn name_table_contains_every_constant_of_every_program() {
    let mut found = BTreeSet::new();
    for part in PROGRAMS {
        constants_below(&top().join(part).join("src"), &mut found);
    }
    // A type of conditions stands in no metadata.
    assert!(found.remove(labels::RELEASED_CONDITION));
    let known: BTreeSet<String> = ALL.iter().map(|known| known.name.to_owned()).collect();
    assert_eq!(known.len(), ALL.len(), "a name stands twice");
    assert_eq!(found, known);
    // Control: a constant is seen as it may be written, and other texts are not.
    let text = "const A: &str = \"weft.dev/a\";\nconst B: &str =\n    \"weft.dev/b\";\n\
                const C: &str = \"weft.dev/\";\nlet d = \"weft.dev/d\";";
    assert_eq!(constants(text), ["weft.dev/a", "weft.dev/b"]);
}

/// The kinds of each name in the table of the manual; none for what Weft writes.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(top().join("docs/reference.md")).unwrap();
    let (_, section) = page.split_once("\n## Labels and annotations\n").unwrap();
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let mut documented = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (names, on, values) = (cells[1], cells[2], cells[3]);
        let kinds: BTreeSet<String> = match values.starts_with("written by ") {
            true => BTreeSet::new(),
            false => on.split(", ").map(str::to_lowercase).collect(),
        };
        for name in names.split(", ") {
            documented.insert(name.trim_matches('`').to_owned(), kinds.clone());
        }
    }
    documented
}

#[test]
fn manual_lists_every_name_with_its_effective_kinds() {
    let known: BTreeMap<String, BTreeSet<String>> = ALL
        .iter()
        .map(|known| {
            let on = match known.author {
                Author::User(on) => on,
                Author::Weft => &[],
            };
            let kinds = on.iter().map(|kind| kind.to_lowercase()).collect();
            (known.name.to_owned(), kinds)
        })
        .collect();
    assert_eq!(documented(), known);
}

#[test]
fn first_names_are_said_and_the_others_counted() {
    let names = ["a", "b", "c", "d", "e"];
    for (named, of, text) in [
        (1, 1, "a"),
        (2, 2, "a and b"),
        (4, 4, "a, b, c and d"),
        (5, 5, "a, b, c, d and 1 more"),
        // Of more than were named.
        (1, 9, "a and 8 more"),
        (5, 9, "a, b, c, d and 5 more"),
        (0, 0, ""),
    ] {
        assert_eq!(few(&names[..named], of), text);
    }
}
