//! The examples of the documentation are applied as they are.

use std::{collections::BTreeSet, fs};

use anyhow::Context as _;
use e2e::harness::{Namespace, Outcome, cluster::root};

#[test]
fn every_example_is_taken_and_understood() -> Outcome {
    let ns = Namespace::meshed("examples")?;
    let mut kinds = BTreeSet::new();
    let folder = root().join("docs/examples");
    let mut files: Vec<_> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let said = ns
            .apply(&text)
            .with_context(|| file.display().to_string())?;
        for line in said.lines() {
            // Such as `traffictarget.access.smi-spec.io/name created`.
            let (object, how) = line.split_once(' ').context("not said what became of it")?;
            assert!(how == "created", "two examples share {object}");
            let kind = object.split('.').next().unwrap_or_default().to_owned();
            let accepted = ns.await_condition(object, "Accepted", "True")?;
            println!("{}: {object} {}", file.display(), accepted["reason"]);
            kinds.insert(kind);
        }
    }
    let all = [
        "httproutegroup",
        "identitybinding",
        "tcproute",
        "trafficpolicy",
        "trafficsplit",
        "traffictarget",
        "udproute",
    ];
    assert_eq!(
        kinds,
        all.map(String::from).into(),
        "a kind without an example"
    );
    Ok(())
}
