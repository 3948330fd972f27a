//! What `weft validate` prints of a text, and how it ends.
//!
//! Claims: observe-62

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::console::Streams;
use crate::failure::{Failure, status};

/// Exit status, output and messages for what is read from the standard input.
fn validate(text: &str, format: &str) -> (u8, String, String) {
    validate_all(&["-"], text, format)
}

/// The same of several files.
fn validate_all(files: &[&str], text: &str, format: &str) -> (u8, String, String) {
    let arguments = ["weft", "validate", "-n", "shop", "-o", format, "-f"];
    let cli = Cli::try_parse_from(arguments.iter().chain(files)).unwrap();
    let Command::Validate(command) = cli.command else {
        panic!("another command");
    };
    let mut streams = Streams::of(text);
    let mut console = streams.console();
    let ended = command.run(&cli.global, &mut console);
    if let Some(text) = ended.as_ref().err().and_then(Failure::words) {
        console.word(text).unwrap();
    }
    let code = status(&ended);
    let (out, err) = streams.texts();
    (code, out, err)
}

const BROKEN: &str = "\
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: cart}
spec:
  service: cart
  backends:
  - {service: cart-v1, weight: many}
  - {service: cart-v2}
---
apiVersion: {{ .Values.version }}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTargetList
items:
- metadata: {name: cart}
  spec:
    destination: {kind: ServiceAccount, name: cart, port: 80}
    sources: [{kind: ServiceAccount, name: web}]
    rules: [{kind: TCPRoute, name: cart}]
";

#[test]
fn unreadable_document_is_reported_beside_errors_of_others() {
    let (code, out, err) = validate(BROKEN, "table");
    assert_eq!(code, 2, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    let [weight, missing, unreadable, port] = &*lines else {
        panic!("{out}");
    };
    assert_eq!(
        *weight,
        "-:7: error: TrafficSplit shop/cart: spec.backends[0].weight: is the text \"many\", but \
         must be a whole number"
    );
    assert_eq!(
        *missing,
        "-:8: error: TrafficSplit shop/cart: spec.backends[1].weight: is missing, but must be \
         written"
    );
    assert!(
        unreadable.starts_with("-:10: error: document 2: cannot be read at column "),
        "{unreadable}"
    );
    assert_eq!(
        *port,
        "-:17: error: TrafficTarget shop/cart: spec.destination.port: port is no field of \
         v1alpha3: name the port in a TCPRoute, or use v1alpha2"
    );
    assert!(err.contains("1 of the documents cannot be read"), "{err}");
}

#[test]
fn unreadable_file_does_not_hide_findings_of_others() {
    let split = |weight: &str| {
        format!(
            "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {{name: cart}}\n\
             spec: {{service: cart, backends: [{{service: cart-v1, weight: {weight}}}]}}\n"
        )
    };
    let missing = "no-such-folder/missing.yaml";
    for files in [["-", missing], [missing, "-"]] {
        let (code, out, err) = validate_all(&files, &split("many"), "table");
        assert_eq!((code, out.lines().count()), (2, 1), "{out}{err}");
        assert!(out.contains("spec.backends[0].weight"), "{out}");
        let last = err.lines().last().unwrap();
        assert!(last.starts_with(missing), "{err}");
        // What could be read is well, and yet not all is.
        let (code, out, _) = validate_all(&files, &split("1"), "json");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &report["success"]), (2, &false.into()), "{out}");
        assert_eq!(report["objects"], 1, "{out}");
    }
    // Control: without it.
    assert_eq!(validate(&split("many"), "table").0, 1);
    assert_eq!(validate(&split("1"), "table").0, 0);
}

#[test]
fn rejected_object_is_no_and_accepted_yes_in_json() {
    let split = |weight: &str| {
        format!(
            "{{\"apiVersion\": \"split.smi-spec.io/v1alpha4\", \"kind\": \"TrafficSplit\", \
             \"metadata\": {{\"name\": \"cart\"}}, \"spec\": {{\"service\": \"cart\", \
             \"backends\": [{{\"service\": \"cart-v1\", \"weight\": {weight}}}]}}}}"
        )
    };
    for (weight, code) in [("1", 0), ("-1", 1), ("[", 2)] {
        let (ended, out, err) = validate(&split(weight), "json");
        assert_eq!(ended, code, "{weight}: {out}{err}");
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["success"], code == 0, "{weight}: {out}");
        let count = report["findings"].as_array().unwrap().len();
        assert_eq!(count, usize::from(code != 0), "{weight}: {out}");
    }
}

#[test]
fn null_dropped_by_api_server_is_not_refused() {
    for (matches, code) in [("null", 0), ("[null]", 1)] {
        let text = format!(
            "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
             metadata: {{name: cart}}\nspec: {{matches: {matches}}}\n"
        );
        let (ended, out, err) = validate(&text, "table");
        assert_eq!(ended, code, "{matches}: {out}{err}");
    }
}

#[test]
fn no_example_of_the_manual_is_refused() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let (code, out, err) = validate(&text, "table");
        assert_eq!(code, 0, "{}: {out}{err}", path.display());
        read += 1;
    }
    assert!(read > 15, "{read}");
}

#[test]
fn route_that_cannot_be_served_is_an_error() {
    let route = |version: &str, filters: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/{version}\n\
             kind: HTTPRoute\n\
             metadata: {{name: cart}}\n\
             spec:\n  \
               parentRefs: [{{group: \"\", kind: Service, name: cart}}]\n  \
               rules:\n  \
               - backendRefs: [{{name: cart, port: 80}}]\n    \
                 filters: {filters}\n"
        )
    };
    let (code, out, err) = validate(&route("v1", "[{type: Teleport}]"), "table");
    assert_eq!(code, 1, "{out}{err}");
    let line = "-:8: error: HTTPRoute shop/cart: spec.rules[0].filters[0]: ";
    assert!(out.starts_with(line), "{out}");
    assert_eq!(validate(&route("v1", "[]"), "table").0, 0);
    let (code, out, _) = validate(&route("v1alpha1", "[]"), "table");
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("apiVersion: is read in version v1, v1beta1, not in"),
        "{out}"
    );
    // The API server serves it as v1 too.
    assert_eq!(validate(&route("v1beta1", "[]"), "table").0, 0);
    // A route of a Gateway is another controller's, whatever is wrong with it.
    for version in ["v1", "v1alpha1"] {
        let route = route(version, "[{type: Teleport}]");
        let of_gateway = route.replace("group: \"\", kind: Service", "kind: Gateway");
        assert_ne!(of_gateway, route);
        let (code, out, _) = validate(&of_gateway, "table");
        assert_eq!(code, 0, "{out}");
    }
}
