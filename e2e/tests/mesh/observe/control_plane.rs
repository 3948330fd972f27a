//! `weft check` and `weft diagnostics` in a real cluster.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Outcome, eventually};

use super::weft;

/// A replica that is busy for a while is no fault.
const WELL: Duration = Duration::from_secs(120);

/// Other tests have namespaces with faults in them, so only what all share is asked for.
// Claims: observability-7
#[test]
fn check_finds_the_control_plane_well() -> Outcome {
    let ns = Namespace::meshed("eyes-well")?;
    eventually(WELL, "what all namespaces share is well", || {
        let report = weft(&ns, &["check", "-o", "json"])?.json()?;
        let checks = report["checks"].as_array().context("no checks")?;
        for id in [
            "kubernetes-version",
            "clocks",
            "controller",
            "injector",
            "versions",
            "lease",
            "certificate-authority",
            "issuer",
            "issuer-source",
            "revocations",
            "definitions",
            "webhooks",
            "ca-bundles",
            "injection",
            "validation",
            "api-services",
        ] {
            let found = checks.iter().find(|check| check["id"] == id);
            let found = found.with_context(|| format!("no check {id}"))?;
            ensure!(found["result"] == "ok", "{found}");
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn diagnostics_hold_what_support_needs_without_secrets() -> Outcome {
    let ns = Namespace::meshed("eyes-bundle")?;
    let secret = ["-n", "weft-system", "get", "secret", "weft-ca"];
    let secret = ns.cluster.json(&secret)?;
    let folder = std::env::temp_dir().join(&ns.name);
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("weft.tgz").to_string_lossy().into_owned();
    let text = eventually(WELL, "the bundle is whole", || {
        weft(&ns, &["diagnostics", "-o", &file])?.with_status(0)?;
        let words = ["-xzf", &file, "-O"];
        let unpacked = std::process::Command::new("tar").args(words).output()?;
        ensure!(unpacked.status.success(), "{file} is no archive");
        let text = String::from_utf8_lossy(&unpacked.stdout).into_owned();
        for part in ["weft-controller", "\"kind\": \"Graph\"", "ProxyList"] {
            ensure!(text.contains(part), "no {part} in the bundle");
        }
        Ok(text)
    })?;
    std::fs::remove_dir_all(&folder)?;
    let data = secret["data"].as_object().context("an empty Secret")?;
    let keys = data.iter().filter(|(name, _)| name.ends_with("key"));
    let keys: Vec<&str> = keys.filter_map(|(_, value)| value.as_str()).collect();
    assert!(!keys.is_empty() && keys.iter().all(|key| key.len() > 64));
    assert!(!keys.iter().any(|key| text.contains(key)), "a key of it");
    assert!(!text.contains("PRIVATE KEY"));
    Ok(())
}
