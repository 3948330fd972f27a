//! Who may use whom, checked against what Cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const ALLOWED: &[(&str, &[&str])] = &[
    ("policy", &[]),
    ("runtime", &[]),
    ("crds", &["policy", "oracle"]),
    ("wire", &["policy"]),
    ("identity", &["policy"]),
    (
        "controller",
        &["crds", "policy", "wire", "identity", "runtime", "oracle"],
    ),
    ("proxy", &["policy", "wire", "identity", "runtime"]),
    (
        "injector",
        &["crds", "policy", "identity", "runtime", "oracle"],
    ),
    ("e2e", &["crds", "policy", "wire", "identity", "oracle"]),
    // What the mesh is compared with shares no code with it.
    ("oracle", &[]),
    ("bench", &["policy", "wire", "identity"]),
];

/// The same, for tests alone: they may ask two crates and compare the answers.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[("injector", &["controller"])];

/// Crates that must not be linked, directly or through others.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "proxy",
        &["kube", "kube-client", "kube-core", "k8s-openapi"],
    ),
    ("policy", &["tokio", "hyper", "kube", "k8s-openapi"]),
];

fn metadata(extra: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .args(extra)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo must run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

#[test]
fn no_crate_uses_one_behind_a_wall() {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| package["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        ours,
        ALLOWED.iter().map(|(name, _)| *name).collect(),
        "a crate is missing from the table"
    );
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let allowed = ALLOWED.iter().find(|(known, _)| *known == name).unwrap().1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let in_tests = dependency["kind"] == "dev"
                && ALLOWED_IN_TESTS
                    .iter()
                    .any(|(known, allowed)| *known == name && allowed.contains(&used));
            assert!(
                !ours.contains(used) || allowed.contains(&used) || in_tests,
                "{name} must not use {used}"
            );
        }
    }
}

#[test]
fn the_data_plane_and_the_brain_link_no_kubernetes() {
    let metadata = metadata(&[]);
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let name = |id: &serde_json::Value| {
        metadata["packages"]
            .as_array()
            .unwrap()
            .iter()
            .find(|package| package["id"] == *id)
            .map(|package| package["name"].as_str().unwrap().to_owned())
            .unwrap()
    };
    // Arrows that end up in the binary: normal dependencies only.
    let arrows: BTreeMap<String, Vec<String>> = nodes
        .iter()
        .map(|node| {
            let uses = node["deps"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dep| {
                    dep["dep_kinds"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|kind| kind["kind"].is_null())
                })
                .map(|dep| name(&dep["pkg"]))
                .collect();
            (name(&node["id"]), uses)
        })
        .collect();
    for (start, forbidden) in FORBIDDEN {
        let mut reached = BTreeSet::new();
        let mut left = vec![(*start).to_owned()];
        while let Some(at) = left.pop() {
            for next in arrows.get(&at).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    left.push(next.clone());
                }
            }
        }
        assert!(!reached.is_empty(), "{start} is not in the graph");
        for bad in *forbidden {
            assert!(!reached.contains(*bad), "{start} links {bad}");
        }
    }
}
