//! The definition, and what its schema lets in.

use serde_json::{Value, json};

use super::{authority_definition, definitions, revocation_definition};
use crate::smi::{assert_explained, assert_structural, each_node, violations};

/// A spec with every field.
const EVERYTHING: &str = include_str!("../everything.yaml");

fn version() -> Value {
    let (_, definition) = definitions().remove(0);
    definition["spec"]["versions"][0].clone()
}

fn schema() -> Value {
    version()["schema"]["openAPIV3Schema"].clone()
}

fn everything() -> Value {
    serde_yaml_ng::from_str(EVERYTHING).unwrap()
}

/// What the API server would find in a spec. It knows no rules of CEL.
fn verdict(spec: &Value) -> Vec<String> {
    violations(&schema()["properties"]["spec"], spec)
}

#[test]
fn schema_is_structural_described_and_without_defaults() {
    // A default would be stored with every object, and stay when ours changes.
    let all = definitions().into_iter();
    for (plural, definition) in all.chain([authority_definition(), revocation_definition()]) {
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        assert_structural(&plural, schema);
        assert_explained(&plural, schema);
    }
}

/// Names of the columns that are shown without `-o wide`.
fn shown(definition: &Value) -> Vec<&str> {
    let columns = &definition["spec"]["versions"][0]["additionalPrinterColumns"];
    let columns = columns.as_array().unwrap().iter();
    let shown = columns.filter(|column| column["priority"] == 0);
    shown.filter_map(|column| column["name"].as_str()).collect()
}

#[test]
fn kubectl_shows_short_names_and_columns_of_newer_kinds() {
    for (plural, short, columns) in [
        (
            "canaryreleases",
            "crel",
            vec![
                "Service",
                "Phase",
                "Step",
                "Weight",
                "Candidate",
                "Message",
                "Age",
            ],
        ),
        (
            "faultexperiments",
            "fexp",
            vec!["Target", "Share", "Phase", "Verdict", "Message", "Age"],
        ),
        (
            "externalservices",
            "xs",
            vec!["Hosts", "Ports", "Gateway", "Programmed", "Age"],
        ),
    ] {
        let mut all = definitions().into_iter();
        let (_, definition) = all.find(|(known, _)| known == plural).unwrap();
        let names = &definition["spec"]["names"];
        assert_eq!(names["shortNames"], json!([short]));
        assert_eq!(names["categories"], json!(["weft"]));
        assert_eq!(shown(&definition), columns);
    }
}

/// No client may make another object of the kind: controllers read this one alone.
#[test]
fn authority_is_one_object_in_no_namespace() {
    let (plural, definition) = authority_definition();
    assert_eq!(plural, crate::weft::CERTIFICATE_AUTHORITIES);
    let spec = &definition["spec"];
    assert_eq!(spec["scope"], "Cluster");
    assert_eq!(spec["names"]["shortNames"], json!(["wca"]));
    let columns = [
        "Phase",
        "Source",
        "Root-Ends",
        "Issuer-Ends",
        "Trusting",
        "Renewed",
        "Message",
    ];
    assert_eq!(shown(&definition), columns);
    let schema = &spec["versions"][0]["schema"]["openAPIV3Schema"];
    let rule = &schema["x-kubernetes-validations"][0]["rule"];
    assert_eq!(*rule, "self.metadata.name == 'weft'");
    let written = json!({"rotation": {"id": "audit-2026", "scope": "Root", "reason": "Planned"}});
    let spec = &schema["properties"]["spec"];
    assert_eq!(violations(spec, &written), Vec::<String>::new());
    for wrong in [
        json!({"rotation": {}}),
        json!({"rotation": {"id": "-a"}}),
        json!({"rotation": {"id": "a", "scope": "All"}}),
        json!({"rotation": {"id": "a", "reason": "Fun"}}),
    ] {
        assert_ne!(violations(spec, &wrong), Vec::<String>::new(), "{wrong}");
    }
}

#[test]
fn revocation_is_in_no_namespace_and_shows_subjects() {
    let (plural, definition) = revocation_definition();
    assert_eq!(plural, crate::weft::REVOCATIONS);
    let spec = &definition["spec"];
    assert_eq!(spec["scope"], "Cluster");
    assert_eq!(spec["names"]["shortNames"], json!(["rev"]));
    assert_eq!(spec["names"]["categories"], json!(["weft"]));
    let columns = ["Subjects", "Issued-Before", "Programmed", "Message", "Age"];
    assert_eq!(shown(&definition), columns);
    let schema = &spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let complete: Value = serde_yaml_ng::from_str(include_str!("../revocation.yaml")).unwrap();
    assert_eq!(violations(schema, &complete), Vec::<String>::new());
    for (pointer, wrong) in [
        ("/reason", json!("x".repeat(257))),
        ("/subjects", json!(vec![json!({"node": {"name": "a"}}); 65])),
        ("/subjects/0/serviceAccount/name", json!("x".repeat(254))),
        ("/subjects/3/certificate/serial", json!("0a:0b")),
        ("/subjects/4/issuer/fingerprint", json!("sha256:00")),
    ] {
        let mut spec = complete.clone();
        *spec.pointer_mut(pointer).unwrap() = wrong;
        assert_ne!(violations(schema, &spec), Vec::<String>::new(), "{pointer}");
    }
}

/// Every field of these kinds stands in the texts that tests begin with, but what excludes
/// another.
#[test]
fn complete_specs_are_accepted_without_losing_field() {
    for (plural, text, excluded) in [
        (
            "canaryreleases",
            include_str!("../release.yaml"),
            &["/steps/0/mirror"][..],
        ),
        (
            "faultexperiments",
            include_str!("../experiment.yaml"),
            &["/fault/refuse", "/fault/reset"][..],
        ),
        (
            "externalservices",
            include_str!("../external.yaml"),
            &[][..],
        ),
    ] {
        let spec: Value = serde_yaml_ng::from_str(text).unwrap();
        let mut all = definitions().into_iter();
        let (_, definition) = all.find(|(known, _)| known == plural).unwrap();
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(violations(schema, &spec), Vec::<String>::new(), "{plural}");
        each_node(schema, "", &mut |_, at| {
            let pointer = at.replace("[]", "/0").replace('.', "/");
            // Names of labels are the user's.
            let is_free = pointer == "/endpoints/labels/0";
            assert!(
                is_free || excluded.contains(&pointer.as_str()) || spec.pointer(&pointer).is_some(),
                "{plural}{pointer} is not said"
            );
        });
    }
}

#[test]
fn kubectl_knows_policy_short_name_and_relevant_columns() {
    let (plural, definition) = definitions().remove(0);
    assert_eq!(plural, "trafficpolicies");
    assert_eq!(definition["metadata"]["name"], "trafficpolicies.weft.dev");
    let names = &definition["spec"]["names"];
    assert_eq!(names["shortNames"], json!(["tp"]));
    assert_eq!(names["categories"], json!(["weft"]));
    assert_eq!(
        shown(&definition),
        ["Target", "Sections", "Breaker", "Programmed", "Age"]
    );
}

#[test]
fn complete_policy_is_accepted_without_losing_field() {
    assert_eq!(verdict(&everything()), Vec::<String>::new());
    let mut paths: Vec<String> = Vec::new();
    each_node(&schema()["properties"]["spec"], "", &mut |_, at| {
        paths.push(at.replace("[]", "/0").replace('.', "/"));
    });
    // Only what excludes each other may be missing in it.
    let lacks = paths.iter().filter(|at| everything().pointer(at).is_none());
    let lacks: Vec<&String> = lacks.collect();
    for at in &lacks {
        let excluded = [
            "/enforce",
            "/routes",
            "/sources",
            "/fallback/service",
            "/rateLimits/0/key/name",
        ];
        let deeper =
            at.contains("/namespace") || at.starts_with("/routes") || at.starts_with("/sources");
        assert!(
            excluded.contains(&at.as_str()) || deeper,
            "{at} is not said"
        );
    }
}

#[test]
fn every_bound_of_the_schema_is_one() {
    let changed = |pointer: &str, value: Value| {
        let mut spec = everything();
        *spec.pointer_mut(pointer).unwrap() = value;
        verdict(&spec)
    };
    for (pointer, good, bad) in [
        ("/targetRef/kind", json!("Mesh"), json!("Pod")),
        ("/targetRef/port", json!(65535), json!(65536)),
        ("/timeouts/share", json!(1), json!(0)),
        ("/timeouts/request", json!("1h30m"), json!("1d")),
        ("/retry/attempts", json!(5), json!(6)),
        ("/retry/codes/0", json!(400), json!(399)),
        ("/ejection/codes/0", json!(599), json!(499)),
        ("/ejection/maxPercent", json!(0), json!(101)),
        ("/breaker/minRequests", json!(100_000), json!(0)),
        ("/fallback/response/status", json!(599), json!(199)),
        ("/rateLimits/0/requests", json!(1_000_000), json!(1_000_001)),
        ("/balance/subset", json!(-1), json!(-2)),
        ("/mirror/0/percent", json!(100), json!(-1)),
        (
            "/overrides/0/tokens/0/sha256",
            json!("0".repeat(64)),
            json!("A".repeat(64)),
        ),
        ("/mirror/0/allowTcp/0", json!("db.data:5432"), json!("db")),
    ] {
        assert_eq!(changed(pointer, good), Vec::<String>::new(), "{pointer}");
        assert_ne!(changed(pointer, bad), Vec::<String>::new(), "{pointer}");
    }
    let too_many = json!(vec![json!("catalog"); 65]);
    assert_ne!(changed("/overrides/0/to", too_many), Vec::<String>::new());
}
