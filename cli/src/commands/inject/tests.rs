//! Manifests of many makes: each gets the label, nothing else of it moves, and a second
//! run changes no byte.
//!
//! Claims: observe-53

use std::ffi::OsString;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::template;
use crate::console::Streams;
use crate::failure::Failure;
use crate::yaml::tree;

const DEPLOYMENT: &str = "\
# the shop's front
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web          # its name
  labels: {app: web}
spec:
  replicas: 2
  template:
    metadata:
      labels:
        # selected by the Service
        app: web # keep

    spec:
      containers:
      - name: web
        image: shop/web
        args: [\"--listen\", ':80']
        env:
        - {name: TEXT, value: \"a # b\"}
---
# nothing for the mesh
kind: ConfigMap
apiVersion: v1
metadata: {name: c}
data:
  text: |
    kind: Deployment
    spec: {}
";

/// Manifests whose first template has no label of the mesh.
fn corpus() -> Vec<String> {
    let mut corpus: Vec<String> = vec![DEPLOYMENT.to_owned()];
    corpus.extend(
        [
            // No labels, no metadata, empty ones.
            "kind: Deployment\nspec:\n  template:\n    spec: {containers: []}\n",
            "kind: Deployment\nspec:\n  template:\n    metadata:\n      annotations:\n        a: b\n    spec: {}\n",
            "kind: Deployment\nspec:\n  template:\n    metadata: {annotations: {a: b}}\n    spec: {}\n",
            "kind: DaemonSet\nspec: {template: {metadata: {labels: {a: b}}, spec: {}}}\n",
            // A List, a CronJob in it, and what is not ours.
            "apiVersion: v1\nkind: List\nitems:\n- kind: Service\n  spec: {}\n- kind: CronJob\n  spec:\n    jobTemplate:\n      spec:\n        template:\n          metadata:\n            labels:\n              a: b\n",
            // A pod, with labels as its last word and without an end of the line.
            "kind: Pod\nmetadata:\n  name: x\n  labels:\n    a: b",
            // JSON, on one line and on many.
            "{\"kind\":\"Job\",\"spec\":{\"template\":{\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec\":{}}}}",
            "{\n  \"kind\": \"StatefulSet\",\n  \"spec\": {\n    \"template\": {\n      \"metadata\": {\n        \"labels\": {\n          \"a\": \"b\"\n        }\n      }\n    }\n  }\n}\n",
            // Values that end in odd ways.
            "kind: Deployment\nspec:\n  template:\n    metadata:\n      labels:\n        a: >-\n          folded\n          text\n    spec: {}\n",
            "kind: Deployment\nspec:\n  template:\n    metadata:\n      labels:\n        a: 'quoted'   # why\n        b:\n    spec: {}\n...\n---\nkind: Secret\n",
            // Keys that look like numbers and words; tabs and wide letters in comments.
            "kind: Deployment\nspec:\n  template:\n    metadata:\n      labels:\n        \"1\": \"yes\"\t# \u{1f980}\n        y: \"no\"\n    spec: {}\n",
            "%YAML 1.2\n---\nkind: ReplicaSet\nspec:\n  template:\n    metadata:\n      labels: &l\n        a: b\n    spec: {}\n",
        ]
        .map(ToOwned::to_owned),
    );
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in [
        "demo/shop.yaml",
        "demo/cart.yaml",
        "demo/web.yaml",
        "cluster/smoke.yaml",
        "cluster/coredns.yaml",
    ] {
        corpus.push(std::fs::read_to_string(top.join("e2e").join(file)).unwrap());
    }
    let windows: Vec<String> = corpus
        .iter()
        .map(|text| text.replace('\n', "\r\n"))
        .collect();
    corpus.extend(windows);
    corpus
}

/// Output and messages.
fn run(arguments: &[&str], input: &str) -> (Result<(), Failure>, String, String) {
    let arguments = std::iter::once("weft").chain(arguments.iter().copied());
    let arguments: Vec<OsString> = arguments.map(OsString::from).collect();
    let mut streams = Streams::of(input);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let mut console = streams.console();
    let ended = runtime
        .unwrap()
        .block_on(crate::run(arguments, &mut console));
    let (out, err) = streams.texts();
    (ended.map(|_| ()), out, err)
}

fn injected(text: &str) -> String {
    let (ended, out, err) = run(&["inject", "-"], text);
    ended.unwrap_or_else(|error| panic!("{error}\n{err}\n{text}"));
    out
}

/// The documents, with the label taken out of every template again.
fn without_label(text: &str) -> Vec<Value> {
    let documents = tree::parse(text).unwrap();
    let values = documents.iter().map(|document| document.value().unwrap());
    values
        .map(|mut value| {
            for template in template::all(&value) {
                let mut taken = super::take_label(&template, &mut Vec::new());
                // Labels that are null or empty are none.
                if let Some(metadata) = taken["metadata"].as_object_mut() {
                    let empty = |labels: &Value| labels.is_null() || *labels == json!({});
                    if metadata.get("labels").is_some_and(empty) {
                        metadata.remove("labels");
                    }
                }
                let pointer: String = template.path.iter().map(|key| format!("/{key}")).collect();
                *value.pointer_mut(&pointer).unwrap() = taken;
            }
            value
        })
        .collect()
}

fn labels(text: &str) -> Vec<Value> {
    let documents = tree::parse(text).unwrap();
    let values = documents.iter().map(|document| document.value().unwrap());
    values
        .flat_map(|value| template::all(&value))
        .map(|template| template.value["metadata"]["labels"]["weft.dev/inject"].clone())
        .collect()
}

// Claims: observability-8
#[test]
fn injection_labels_every_template_once_and_is_idempotent() {
    let mut templates = 0;
    for text in corpus() {
        let once = injected(&text);
        let found = labels(&once);
        templates += found.len();
        assert!(!found.is_empty(), "{text}");
        assert!(found.iter().all(|label| label == "enabled"), "{once}");
        assert_eq!(without_label(&once), without_label(&text), "{once}");
        // What was written is there, in its order: the new text is the old one with
        // pieces put in.
        let mut letters = once.chars();
        assert!(
            text.chars()
                .all(|letter| letters.any(|other| other == letter)),
            "{text}\nbecame\n{once}"
        );
        assert_eq!(injected(&once), once, "the second run");
        // Every line ends as all others do.
        let odd = if text.contains("\r\n") { '\n' } else { '\r' };
        assert!(!once.replace("\r\n", "").contains(odd), "{once:?}");
    }
    assert!(templates > 24, "{templates}");
}

// Claims: observability-8
#[test]
fn uninject_reverts_inject_byte_for_byte() {
    for text in corpus() {
        let once = injected(&text);
        let (ended, back, _) = run(&["uninject", "-"], &once);
        ended.unwrap();
        if labels(&text).iter().all(Value::is_null) {
            assert_eq!(without_label(&back), without_label(&text));
            assert!(labels(&back).iter().all(Value::is_null), "{back}");
        }
        let (_, again, _) = run(&["uninject", "-"], &back);
        assert_eq!(again, back);
    }
    let (_, back, _) = run(&["uninject", "-"], &injected(DEPLOYMENT));
    assert_eq!(back, DEPLOYMENT);
}

#[test]
fn bad_yaml_is_refused_with_position_only() {
    for (text, location) in [
        ("kind: Deployment\nspec: [\n", "-:2:"),
        ("a: 1\nb: {{ .Values.x }}\n", "-:2:"),
        (&format!("{DEPLOYMENT}---\na: 1\na: 2\n"), "stands twice"),
        (
            "kind: Deployment\nspec:\n  selector: {matchLabels: &l {a: b}}\n  template:\n    metadata: {labels: *l}\n",
            "-:5:",
        ),
        (
            "kind: Deployment\nspec:\n  template:\n    metadata: {labels: [a]}\n",
            "-:3:",
        ),
    ] {
        let (ended, out, _) = run(&["inject", "-"], text);
        let Err(Failure::Usage(words)) = ended else {
            panic!("{text}: {ended:?}");
        };
        assert!(words.contains(location), "{words}");
        assert_eq!(out, "", "{text}");
    }
}

#[test]
fn inject_keeps_disabled_pods_and_corrects_misspelt_label() {
    let text = |label: &str| {
        format!(
            "kind: Deployment\nmetadata: {{name: web}}\nspec:\n  template:\n    metadata:\n      labels:\n        weft.dev/inject: {label} # why\n"
        )
    };
    let (ended, out, err) = run(&["inject", "-"], &text("disabled"));
    ended.unwrap();
    assert_eq!(out, text("disabled"));
    assert!(
        err.contains("Deployment web") && err.contains("disabled"),
        "{err}"
    );
    let (ended, out, err) = run(&["uninject", "-"], &text("disabled"));
    ended.unwrap();
    assert_eq!(out, text("disabled"));
    assert!(err.contains("stays as it is"), "{err}");
    let (_, out, err) = run(&["inject", "-"], &text("\"true\""));
    assert_eq!(out, text("enabled"));
    assert!(err.contains("means nothing"), "{err}");
    let (_, out, err) = run(&["inject", "-"], "kind: ConfigMap\n");
    assert_eq!(out, "kind: ConfigMap\n");
    assert!(err.contains("no pod template"), "{err}");
}

#[test]
fn several_files_come_out_as_documents_of_one_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let one = path("one", "\u{feff}kind: Pod\nmetadata: {labels: {a: b}}");
    let two = path("two", "# two\nkind: Pod\nmetadata: {labels: {a: b}}\n");
    let (ended, out, _) = run(&["inject", &one, &two], "");
    ended.unwrap();
    assert!(out.starts_with('\u{feff}'), "the mark stays");
    assert!(out.contains("}}\n---\n# two\n"), "{out}");
    assert_eq!(
        labels(out.trim_start_matches('\u{feff}')),
        [json!("enabled"), json!("enabled")]
    );
    let (ended, ..) = run(&["inject", "/nowhere"], "");
    assert!(matches!(ended, Err(Failure::Usage(_))), "{ended:?}");
}

// Claims: observability-8
#[test]
fn whole_sidecar_is_added_once_and_comments_stay() {
    let arguments = [
        "inject",
        "--manual",
        "--proxy-image",
        "registry.example/weft/proxy:1",
        "-n",
        "shop",
        "-",
    ];
    // Each run draws a token for its hooks anew.
    let hook = "        lifecycle:\n          preStop:\n            httpGet: {path: /bye, port: 8080} # last words\n";
    let deployment = DEPLOYMENT.replace("        env:\n", &format!("{hook}        env:\n"));
    assert!(deployment.contains(hook));
    let (ended, once, err) = run(&arguments, &deployment);
    ended.unwrap_or_else(|error| panic!("{error} {err}"));
    for comment in [
        "# last words",
        "# the shop's front",
        "# its name",
        "# selected by the Service",
        "# keep",
    ] {
        assert!(once.contains(comment), "{once}");
    }
    let value = tree::parse(&once).unwrap()[0].value().unwrap();
    let pod = &value["spec"]["template"];
    let names: Vec<&str> = pod["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["weft-capture", "weft-proxy"]);
    assert_eq!(
        pod["spec"]["initContainers"][1]["image"],
        "registry.example/weft/proxy:1"
    );
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "shop/web");
    let path = &container["lifecycle"]["preStop"]["httpGet"]["path"];
    let path = path.as_str().unwrap();
    let token = path.strip_prefix("/hook/").unwrap();
    assert!(token.ends_with("/web/preStop"), "{path}");
    assert_eq!(value["spec"]["replicas"], 2);
    assert!(once.ends_with(&DEPLOYMENT[DEPLOYMENT.find("---").unwrap()..]));
    let (_, twice, _) = run(&arguments, &once);
    assert_eq!(twice, once);
    // Control: another run from the manifest has another token.
    let (_, anew, _) = run(&arguments, &deployment);
    assert!(!anew.contains(path), "{anew}");
}

#[test]
fn sidecar_that_inject_put_in_uninject_takes_out_again() {
    let manual = |command: &str, text: &str| {
        let mut arguments = vec![command, "--manual"];
        if command == "inject" {
            arguments.extend([
                "--proxy-image",
                "registry.example/weft/proxy:1",
                "-n",
                "shop",
            ]);
        }
        arguments.push("-");
        let (ended, out, err) = run(&arguments, text);
        ended.unwrap_or_else(|error| panic!("{error} {err}\n{text}"));
        (out, err)
    };
    let values = |text: &str| {
        let documents = tree::parse(text).unwrap();
        let values = documents.iter().map(|document| document.value().unwrap());
        values.collect::<Vec<Value>>()
    };
    // The author of the node architecture is not known, so it stays.
    let pinned = |text: &str| {
        let mut values = values(text);
        for value in &mut values {
            for template in template::all(value) {
                let pointer: String = template.path.iter().map(|key| format!("/{key}")).collect();
                let selector = json!({"kubernetes.io/arch": "amd64"});
                value.pointer_mut(&pointer).unwrap()["spec"]["nodeSelector"] = selector;
            }
        }
        values
    };
    let probed = "kind: Pod\nmetadata:\n  name: a # its name\n  labels: {app: a}\nspec:\n  initContainers:\n  - name: first # before all\n  containers:\n  - name: a\n    livenessProbe:\n      httpGet: {path: /live, port: 8080} # alive\n";
    for text in [DEPLOYMENT, probed] {
        let (once, _) = manual("inject", text);
        assert_ne!(values(&once), values(text));
        let (back, words) = manual("uninject", &once);
        assert_eq!(values(&back), pinned(text), "{back}");
        for doubt in [
            "keeps nodeSelector kubernetes.io/arch: amd64;",
            "loses its preStop hook, a sleep of 3 s;",
        ] {
            assert!(words.contains(doubt), "{words}");
        }
        for comment in text.split('#').skip(1) {
            let comment = comment.lines().next().unwrap();
            assert!(back.contains(comment), "{comment}: {back}");
        }
        let (again, err) = manual("uninject", &back);
        assert_eq!(again, back);
        assert!(err.contains("no sidecar"), "{err}");
        // The label is another matter.
        let labelled = injected(text);
        assert_eq!(manual("uninject", &labelled).0, labelled);
    }
}

#[test]
fn template_unfit_for_sidecar_is_refused_with_line() {
    let text = "kind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      containers:\n      - name: a\n        ports: [{containerPort: 15108}]\n";
    let (ended, out, _) = run(&["inject", "--manual", "--proxy-image", "i", "-"], text);
    let Err(Failure::Usage(words)) = ended else {
        panic!("{ended:?}");
    };
    assert!(words.starts_with("-:4:1: Deployment web: "), "{words}");
    assert!(words.contains("15108"), "{words}");
    assert_eq!(out, "");
}

proptest! {
    /// Layouts that no other test has: whatever is accepted is changed rightly or refused.
    #[test]
    fn any_labels_in_any_layout_keep_their_meaning(
        indent in 1..5_usize,
        flow in any::<bool>(),
        labels in proptest::collection::btree_map("[a-z][a-z0-9./-]{0,8}[a-z0-9]", "[ -~]{0,12}", 0..4),
        comment in "[ -~]{0,10}",
        windows in any::<bool>(),
    ) {
        let pad = " ".repeat(indent);
        let quoted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {}", json!(value))).collect();
        let written = if flow {
            format!(" {{{}}}", quoted.join(", "))
        } else {
            quoted.iter().map(|line| format!("\n{pad}{pad}{pad}{line} # {comment}")).collect()
        };
        let mut text = format!("kind: Pod\nmetadata:\n{pad}# {comment}\n{pad}labels:{written}\n{pad}name: x\n");
        if windows {
            text = text.replace('\n', "\r\n");
        }
        let once = injected(&text);
        prop_assert_eq!(self::labels(&once), vec![json!("enabled")]);
        prop_assert_eq!(without_label(&once), without_label(&text));
        prop_assert_eq!(injected(&once), once);
    }
}
