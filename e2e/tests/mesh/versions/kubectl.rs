//! What kubectl knows of the kinds by itself.
//!
//! Claims: smi-11

use std::collections::BTreeMap;

use e2e::harness::{Namespace, Outcome};

const KINDS: [(&str, &str, usize); 6] = [
    ("traffictargets.access.smi-spec.io", "tt", 1),
    ("identitybindings.access.smi-spec.io", "ib", 4),
    ("httproutegroups.specs.smi-spec.io", "htr", 1),
    ("tcproutes.specs.smi-spec.io", "tr", 1),
    ("udproutes.specs.smi-spec.io", "ur", 4),
    ("trafficsplits.split.smi-spec.io", "ts", 1),
];

/// Weft's own kinds, which have one version, each with an object deep in it.
const OURS: [(&str, &str, &str); 6] = [
    ("trafficpolicies.weft.dev", "tp", "spec.retry.budget"),
    ("canaryreleases.weft.dev", "crel", "spec.steps"),
    ("faultexperiments.weft.dev", "fexp", "spec.fault.abort"),
    ("externalservices.weft.dev", "xs", "spec.ports.tls.caRef"),
    ("certificateauthorities.weft.dev", "wca", "spec.rotation"),
    ("revocations.weft.dev", "rev", "spec.subjects.pod"),
];

#[test]
fn kubectl_finds_every_kind_by_short_name_and_category() -> Outcome {
    let ns = Namespace::meshed("short-names")?;
    let table = ns.kubectl(&["api-resources", "--categories=weft", "--no-headers"])?;
    let rows = table.lines().map(|line| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (plural, short, api_version) = (word(), word(), word());
        let group = api_version.split('/').next().unwrap_or_default();
        (format!("{plural}.{group}"), short)
    });
    let seen: BTreeMap<String, String> = rows.collect();
    let smi = KINDS.map(|(name, short, _)| (name, short));
    let ours = OURS.map(|(name, short, _)| (name, short));
    let kinds = || smi.into_iter().chain(ours);
    let wanted = kinds().map(|(name, short)| (name.to_owned(), short.to_owned()));
    assert_eq!(seen, wanted.collect());
    for (_, short) in kinds() {
        ns.kubectl(&["get", short])?;
    }
    Ok(())
}

#[test]
fn kubectl_explains_every_version_of_every_kind() -> Outcome {
    let ns = Namespace::meshed("explain")?;
    for (name, _, oldest) in KINDS {
        let (plural, group) = name.split_once('.').unwrap_or_default();
        for version in oldest..=4 {
            let version = format!("--api-version={group}/v1alpha{version}");
            let text = ns.kubectl(&["explain", plural, &version])?;
            assert!(!text.contains("<no description>"), "{text}");
        }
    }
    for (field, version, words) in [
        (
            "traffictargets.destination.port",
            "access.smi-spec.io/v1alpha1",
            "only port",
        ),
        (
            "traffictargets.specs.matches",
            "access.smi-spec.io/v1alpha1",
            "every match",
        ),
        (
            "traffictargets.spec.sources.name",
            "access.smi-spec.io/v1alpha3",
            "system:authenticated",
        ),
        (
            "httproutegroups.matches.headers",
            "specs.smi-spec.io/v1alpha2",
            "at most 32",
        ),
        (
            "httproutegroups.matches.headers",
            "specs.smi-spec.io/v1alpha1",
            "v1alpha2 or later",
        ),
        (
            "tcproutes.spec.matches.ports",
            "specs.smi-spec.io/v1alpha4",
            "every port",
        ),
        (
            "trafficsplits.spec.backends.weight",
            "split.smi-spec.io/v1alpha1",
            "500m",
        ),
        (
            "trafficsplits.spec.backends.weight",
            "split.smi-spec.io/v1alpha2",
            "two thirds",
        ),
        (
            "identitybindings.spec.schemes.spiffeIdentities",
            "access.smi-spec.io/v1alpha4",
            "SPIFFE",
        ),
        (
            "udproutes.spec.matches.ports",
            "specs.smi-spec.io/v1alpha4",
            "65535",
        ),
    ] {
        let text = ns.kubectl(&["explain", field, &format!("--api-version={version}")])?;
        // kubectl breaks lines where it likes.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{field} of {version}: {text}");
    }
    Ok(())
}

/// The fields that have fields themselves, in what `kubectl explain --recursive` prints: two
/// spaces for each level, and a tab before the type.
fn objects(tree: &str) -> Vec<String> {
    let (mut path, mut found) = (Vec::new(), Vec::new());
    for line in tree.lines() {
        let Some((field, kind)) = line.split_once("\t<") else {
            continue;
        };
        let name = field.trim_start();
        let level = (field.len() - name.len()) / 2;
        path.truncate(level.saturating_sub(1));
        path.push(name);
        if kind.starts_with("Object>") || kind.starts_with("[]Object>") {
            found.push(path.join("."));
        }
    }
    found
}

/// With `--recursive` it prints names and types alone, so each object is asked for.
#[test]
fn kubectl_explains_every_field_of_our_own_kinds() -> Outcome {
    let ns = Namespace::meshed("explain-ours")?;
    for (name, _, deep) in OURS {
        let (plural, group) = name.split_once('.').unwrap_or_default();
        let version = format!("--api-version={group}/v1alpha1");
        let tree = ns.kubectl(&["explain", plural, &version, "--recursive"])?;
        let objects = objects(&tree);
        for part in ["spec", deep, "status"] {
            assert!(
                objects.iter().any(|object| object == part),
                "{part}: {tree}"
            );
        }
        let fields = objects.iter().map(|object| format!("{plural}.{object}"));
        for field in [plural.to_owned()].into_iter().chain(fields) {
            let text = ns.kubectl(&["explain", &field, &version])?;
            for nothing in ["<no description>", "<empty>"] {
                assert!(!text.contains(nothing), "{field}: {text}");
            }
            let (_, described) = text.split_once("DESCRIPTION:").unwrap_or_default();
            let described = described.split("FIELDS:").next().unwrap_or_default();
            assert!(!described.trim().is_empty(), "{field}: {text}");
        }
    }
    Ok(())
}

#[test]
fn every_version_has_the_columns_of_its_kind() -> Outcome {
    let ns = Namespace::meshed("columns-of-versions")?;
    ns.apply(
        r#"
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: one}
spec:
  destination: {kind: ServiceAccount, name: web}
  sources: [{kind: ServiceAccount, name: prometheus}]
  rules: [{kind: TCPRoute, name: any}]
"#,
    )?;
    ns.await_condition("traffictarget/one", "Accepted", "True")?;
    for version in 1..=4 {
        let resource = format!("traffictargets.v1alpha{version}.access.smi-spec.io");
        let table = ns.kubectl(&["get", &resource])?;
        let words: Vec<&str> = table.split_whitespace().collect();
        let begin =
            "NAME DESTINATION SOURCES ACCEPTED RESOLVEDREFS PROGRAMMED AGE one web prometheus True";
        assert!(
            words.join(" ").starts_with(begin),
            "v1alpha{version}: {table}"
        );
    }
    Ok(())
}
