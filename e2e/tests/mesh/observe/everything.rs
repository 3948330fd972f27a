//! Generic tools beside the read API: Argo CD watches the cluster, Velero stores it, and
//! kubectl gets whatever discovery offers.
//!
//! Claims: observe-127, smi-8

use anyhow::{Context as _, ensure};
use e2e::harness::{Api, Namespace, Outcome, eventually, everything};
use serde_json::Value;

use super::SHOWN;

/// Lists all that discovery says can be listed in the cluster, and watches what it says can be
/// watched, from there on. Returns what was listed and what was watched.
///
/// # Errors
/// When something does not do what discovery says of it.
fn mirror(api: &Api) -> anyhow::Result<[Vec<String>; 2]> {
    let mut versions = vec!["/api/v1".to_owned()];
    let groups = api.read("/apis")?;
    for group in groups["groups"].as_array().context("no groups")? {
        for version in group["versions"].as_array().context("no versions")? {
            let version = version["groupVersion"].as_str().context("no version")?;
            versions.push(format!("/apis/{version}"));
        }
    }
    let mut found = Vec::new();
    for (version, (status, text)) in versions.iter().zip(api.each(&versions)?) {
        ensure!(status == 200, "{version} answered {status}: {text}");
        let resources: Value = serde_json::from_str(&text)?;
        for resource in resources["resources"].as_array().context("no resources")? {
            let verbs = resource["verbs"].as_array().context("no verbs")?;
            let can = |verb: &str| verbs.iter().any(|one| one == verb);
            let path = format!(
                "{version}/{}",
                resource["name"].as_str().context("no name")?
            );
            if can("list") {
                found.push((path, can("watch")));
            } else {
                ensure!(!can("watch"), "{path} can be watched and not listed");
            }
        }
    }
    let lists: Vec<String> = found
        .iter()
        .map(|(path, _)| format!("{path}?limit=1"))
        .collect();
    let mut watches = Vec::new();
    for ((path, is_watched), (status, text)) in found.iter().zip(api.each(&lists)?) {
        ensure!(status == 200, "{path} answered {status}: {text}");
        if *is_watched {
            let list: Value = serde_json::from_str(&text)?;
            let from = &list["metadata"]["resourceVersion"];
            let from = from.as_str().with_context(|| format!("{path}: {text}"))?;
            watches.push(format!(
                "{path}?watch=true&resourceVersion={from}&timeoutSeconds=1"
            ));
        }
    }
    for (path, (status, text)) in watches.iter().zip(api.each(&watches)?) {
        let failed = text.contains("\"type\":\"ERROR\"");
        ensure!(status == 200 && !failed, "{path} answered {status}: {text}");
    }
    Ok([lists, watches])
}

// Claims: observability-17
#[test]
fn listing_everything_succeeds_and_offers_no_watch() -> Outcome {
    let ns = Namespace::meshed("eyes-everything")?;
    ns.run(&["web"])?;
    // Kinds of other tests come and go.
    eventually(SHOWN, "kubectl gets everything", || {
        let names = everything::listable(&ns.cluster)?;
        for group in everything::OURS {
            let known = names.iter().any(|name| name.ends_with(group));
            ensure!(known, "no {group} in {names:?}");
        }
        let here = everything::get(&ns.cluster, &names, &["-n", &ns.name])?;
        ensure!(here.contains("proxy.observe.weft.dev/web-"), "{here}");
        everything::get(&ns.cluster, &names, &["-A"])
    })?;
    let api = Api::open(&ns.cluster)?;
    let [lists, watches] = eventually(SHOWN, "everything is listed and watched", || mirror(&api))?;
    let of_ours = |all: &[String]| {
        let all = all.iter();
        let of_ours = all.filter(|path| everything::OURS.iter().any(|group| path.contains(group)));
        of_ours.count()
    };
    assert!(of_ours(&lists) > 2, "{lists:?}");
    assert_eq!(of_ours(&watches), 0, "{watches:?}");
    let pods = "/api/v1/pods?watch";
    assert!(
        watches.iter().any(|path| path.starts_with(pods)),
        "{watches:?}"
    );

    // Nothing here is offered for deletion, and a namespace goes while the API is served.
    for version in ["observe.weft.dev/v1alpha1", "metrics.smi-spec.io/v1alpha2"] {
        let found = api.read(&format!("/apis/{version}"))?;
        let resources = found["resources"].as_array().context("no resources")?;
        assert!(resources.len() >= 4, "{found:#}");
        for resource in resources {
            let verbs = resource["verbs"].as_array().context("no verbs")?;
            assert!(!verbs.iter().any(|verb| verb == "delete"), "{resource}");
        }
    }
    let words = ["delete", "namespace", &ns.name, "--timeout=240s"];
    ns.cluster.kubectl(&words)?;
    Ok(())
}
