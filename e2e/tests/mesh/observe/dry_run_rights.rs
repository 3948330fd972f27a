//! Rights of a dry run: which users may run one and which parts it shows them, as the
//! cluster's own authorizer decides.
//!
//! Claims: observe-117

use std::{fs, path::PathBuf};

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Outcome, eventually};
use serde_json::{Value, json};

use super::dry_runs::{all_answered, load};
use super::rights::{ask, reader, two};
use super::{SHOWN, weft};

/// Tries changes and reads graphs, and may write none of their objects.
const AUTHOR: &str = "[{apiGroups: [observe.weft.dev], resources: [dryruns], verbs: [create]}, \
     {apiGroups: [observe.weft.dev], resources: [graphs], verbs: [get]}]";
/// May make the change and try it, and reads no graph.
const BLIND: &str = "[{apiGroups: [observe.weft.dev], resources: [dryruns], verbs: [create]}, \
     {apiGroups: [access.smi-spec.io], resources: [traffictargets], verbs: [create, update]}, \
     {apiGroups: [specs.smi-spec.io], resources: [httproutegroups], verbs: [create, update]}]";

/// A file of a change, removed when this is dropped.
struct ChangeFile(PathBuf);

impl ChangeFile {
    /// A target of `cart` that allows only an account without any calls.
    fn closing_cart(ns: &Namespace) -> anyhow::Result<Self> {
        let change = format!(
            "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
             metadata: {{name: cart}}\nspec: {{matches: [{{name: read, methods: [GET]}}]}}\n---\n\
             apiVersion: access.smi-spec.io/v1alpha4\nkind: TrafficTarget\n\
             metadata: {{name: cart-read}}\nspec:\n  \
             destination: {{kind: ServiceAccount, name: cart, namespace: {0}}}\n  \
             rules: [{{kind: HTTPRouteGroup, name: cart, matches: [read]}}]\n  \
             sources: [{{kind: ServiceAccount, name: unused, namespace: {0}}}]\n",
            ns.name
        );
        let file = std::env::temp_dir().join(format!("{}.yaml", ns.name));
        fs::write(&file, change)?;
        Ok(Self(file))
    }

    fn path(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

impl Drop for ChangeFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds an account of this name, which is made if need be, to a role of the namespace or of
/// the cluster. Returns it as a user name.
fn account(ns: &Namespace, name: &str, kind: &str, role: &str) -> anyhow::Result<String> {
    ns.apply(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n\
         metadata: {{name: {name}-{role}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: {kind}, name: {role}}}\n\
         subjects: [{{kind: ServiceAccount, name: {name}, namespace: $NS}}]\n"
    ))?;
    Ok(format!("system:serviceaccount:{}:{name}", ns.name))
}

/// The same with these rules in the namespace.
fn account_with(ns: &Namespace, name: &str, rules: &str) -> anyhow::Result<String> {
    ns.apply(&format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}}}\n\
         rules: {rules}\n"
    ))?;
    account(ns, name, "Role", name)
}

/// The response has an error and no status, and the message names what is missing.
fn refused(ns: &Namespace, user: &str, change: &[&str], words: &[&str]) -> anyhow::Result<()> {
    // Until a right counts that was just given, another one is missing.
    eventually(SHOWN, "the missing right is named", || {
        let output = ask(ns, user, change)?.with_status(3)?;
        for part in words {
            ensure!(output.err.contains(part), "no {part:?}: {output:?}");
        }
        let response = output.json()?;
        ensure!(
            response["error"].is_string() && response["status"].is_null(),
            "{response}"
        );
        Ok(())
    })
}

// Claims: observability-10
#[test]
fn dry_run_needs_change_permission_and_hides_unreadable_parts() -> Outcome {
    let (shop, bank) = two("eyes-tries")?;
    let file = ChangeFile::closing_cart(&bank)?;
    let path = file.path();
    let change = ["dry-run", "-f", &path, "-o", "json", "-n", &bank.name];
    let mode = [
        "dry-run", "--access", "deny", "-o", "json", "-n", &bank.name,
    ];
    let viewer = reader(&bank)?;
    let author = account_with(&bank, "author", AUTHOR)?;
    let blind = account_with(&bank, "blind", BLIND)?;
    let editor = account(&bank, "editor", "ClusterRole", "edit")?;

    let may_not_try = [
        "cannot create resource \"dryruns\"",
        "ClusterRole edit grants this",
    ];
    refused(&bank, &viewer, &change, &may_not_try)?;
    // A user may dry-run only what that user may create.
    let may_not_make = ["cannot create resource \"httproutegroups\""];
    refused(&bank, &author, &change, &may_not_make)?;
    let may_not_annotate = ["cannot update resource \"namespaces\""];
    refused(&bank, &editor, &mode, &may_not_annotate)?;
    eventually(SHOWN, "who may annotate the namespace is answered", || {
        let status = weft(&bank, &mode[..5])?.with_status(1)?.json()?["status"].clone();
        let changed = status["changed"].as_array().map_or(0, Vec::len);
        ensure!(changed >= 2, "{status:#}");
        Ok(())
    })?;

    let (from, to) = (
        format!("{}/Deployment/web", shop.name),
        format!("{}/Deployment/cart", bank.name),
    );
    eventually(SHOWN, "the editor sees whose calls end", || {
        let output = ask(&bank, &editor, &change)?.with_status(1)?;
        let status = output.json()?["status"].clone();
        let mut changed = status["changed"].as_array().into_iter().flatten();
        let edge = changed.find(|edge| edge["from"] == from.as_str() && edge["to"] == to.as_str());
        let edge = edge.with_context(|| format!("no such edge: {status:#}"))?;
        ensure!(edge["change"] == "refused", "{status:#}");
        ensure!(status["hidden"] == 0, "{status:#}");
        Ok(())
    })?;
    eventually(SHOWN, "a user without graph rights sees a number", || {
        let output = ask(&bank, &blind, &change)?.with_status(1)?;
        let status = output.json()?["status"].clone();
        ensure!(status["changed"] == json!([]), "{status:#}");
        ensure!(status["kept"] == 0, "{status:#}");
        for field in ["hidden", "hiddenRefused"] {
            ensure!(status[field].as_u64() >= Some(1), "{field}: {status:#}");
        }
        for name in [&from, &to] {
            let printed = [&output.out, &output.err];
            let named = printed.iter().any(|text| text.contains(name.as_str()));
            ensure!(!named, "{name} is shown: {output:?}");
        }
        Ok(())
    })?;
    Ok(())
}

// Claims: observability-10
#[test]
fn dry_run_without_tap_permission_shows_counts_only() -> Outcome {
    let ns = Namespace::meshed("eyes-counts")?;
    ns.run(&["web", "cart"])?;
    let web = ns.pod("web")?;
    let editor = account(&ns, "editor", "ClusterRole", "edit")?;
    let file = ChangeFile::closing_cart(&ns)?;
    let path = file.path();
    let watch = [
        "dry-run", "-f", &path, "--watch", "8s", "-o", "json", "-n", &ns.name,
    ];
    let counted = || -> anyhow::Result<Value> {
        let calls = load(&web, "GET")?;
        let output = ask(&ns, &editor, &watch)?;
        all_answered(calls, "200")?;
        let answer = output.json().with_context(|| format!("{output:?}"))?;
        let trial = answer["status"]["trial"].clone();
        ensure!(trial["refused"].as_u64() >= Some(20), "{trial:#}");
        Ok(trial)
    };
    let counts = eventually(SHOWN, "live calls are counted", counted)?;
    assert!(counts["examples"].is_null(), "{counts:#}");

    account(&ns, "editor", "ClusterRole", "weft-tap")?;
    eventually(SHOWN, "who may tap is shown some of them", || {
        let trial = counted()?;
        let examples = trial["examples"].as_array().map_or(0, Vec::len);
        ensure!(examples > 0, "{trial:#}");
        Ok(())
    })?;
    Ok(())
}
