//! A Revocation of one account, which concerns no other namespace; the other subjects stand in the
//! program for the mesh alone.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Cluster, Namespace, Outcome, eventually};
use serde_json::json;

use super::{SOON, url};

/// Five times the promise.
const REVOKED_WITHIN: Duration = Duration::from_secs(5 * 5);

/// Takes a Revocation away with the test.
struct Lifted<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Drop for Lifted<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "revocation", &self.name, "--ignore-not-found"];
        if let Err(error) = self.cluster.kubectl(&delete) {
            eprintln!("Revocation {} stays: {error:#}", self.name);
        }
    }
}

// Claims: trust-5a
#[test]
fn revoked_account_is_refused_until_deletion_and_others_not() -> Outcome {
    let ns = Namespace::meshed("revocation")?;
    ns.run(&["client", "other", "server"])?;
    let (client, other) = (ns.pod("client")?, ns.pod("other")?);
    let target = url("server", 8080, "/");
    for pod in [&client, &other] {
        pod.report(&target, &[])?;
    }
    let cluster = &ns.cluster;
    let lifted = Lifted {
        cluster,
        name: ns.name.clone(),
    };
    let revoke = ["identity", "revoke", "sa/client", "-n", &ns.name];
    let named = ["--reason", "a test", "--id", &ns.name];
    let words = [&revoke[..], &named].concat();
    let tried = [&words[..], &["--dry-run"]].concat();
    cluster.weft(&tried)?.with_status(0)?;
    client.report(&target, &[])?;
    cluster.weft(&words)?.with_status(0)?;
    eventually(REVOKED_WITHIN, "the client is refused", || {
        client.refused(&target, &[], 403, "revoked")
    })?;
    other.report(&target, &[])?;
    eventually(SOON, "the status shows it", || {
        let found = cluster.json(&["get", "rev", &ns.name])?;
        let summary = format!("sa {}/client", ns.name);
        ensure!(found["status"]["summary"] == summary, "{found:#}");
        Ok(())
    })?;
    drop(lifted);
    eventually(REVOKED_WITHIN, "the client is served again", || {
        client.report(&target, &[]).map(drop)
    })?;
    Ok(())
}

/// The API server's own rules refuse it, whether or not the webhook answers.
#[test]
fn subject_of_two_kinds_is_refused_by_schema() -> Outcome {
    let ns = Namespace::meshed("two-subjects")?;
    let subject = json!({"node": {"name": "a"}, "certificate": {"serial": "5f3a90"}});
    let object = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "Revocation",
        "metadata": {"name": ns.name}, "spec": {"reason": "a test", "subjects": [subject]}});
    let flags = ["--dry-run=server"];
    let taken = ns
        .cluster
        .apply_with("default", &flags, &object.to_string());
    let error = taken.err().context("it was taken")?;
    let words = "must hold one of serviceAccount, pod, node, certificate and issuer";
    assert!(format!("{error:#}").contains(words), "{error:#}");
    Ok(())
}
