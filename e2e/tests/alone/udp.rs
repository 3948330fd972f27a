//! UDPRoutes as NetworkPolicies: they appear, change and vanish as asked, and the
//! target says what is in force. The local cluster's network plugin enforces none;
//! what the policies allow is proven in the controller's own tests.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Namespace, Outcome, eventually, mesh};
use serde_json::{Value, json};

use super::altered::Altered;

/// A change, seen through kubectl on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Kubernetes removes what is owned by something that is gone.
const COLLECTED: Duration = Duration::from_secs(60);

const ROUTES: &str = r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: UDPRoute
metadata: {name: dns}
spec: {matches: {ports: [8301, 8302]}}
---
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: server}
spec:
  destination: {kind: ServiceAccount, name: server}
  rules: [{kind: UDPRoute, name: dns}]
  sources: [{kind: ServiceAccount, name: client}]
";

#[test]
fn network_policies_appear_change_and_vanish_and_make_way_for_foreign_ones() -> Outcome {
    let altered = Altered::begin()?;
    mesh::install(&["access.udpNetworkPolicies=true"])?;
    let ns = Namespace::meshed("udp")?;
    ns.apply_all(&App::new("server").objects())?;
    ns.apply_all(&App::new("client").objects())?;
    ns.ready(&["server", "client"])?;
    ns.apply(ROUTES)?;
    let hash = |account: &str| crds::labels::account_hash(&ns.name, account);
    let name = format!("weft-udp-{}", hash("server"));
    let wanted = |ports: &[u16]| {
        let ports: Vec<Value> = ports
            .iter()
            .map(|port| json!({"protocol": "UDP", "port": port}))
            .collect();
        json!({
            "podSelector": {"matchLabels": {"weft.dev/account": hash("server")}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"protocol": "TCP"}, {"protocol": "SCTP"}]},
                {
                    "from": [{
                        "namespaceSelector":
                            {"matchLabels": {"kubernetes.io/metadata.name": ns.name}},
                        "podSelector": {"matchLabels": {"weft.dev/account": hash("client")}},
                    }],
                    "ports": ports,
                },
            ],
        })
    };
    let policies = || -> anyhow::Result<Vec<Value>> {
        let list = ns.json(&["get", "networkpolicies"])?;
        Ok(list["items"].as_array().context("no list")?.clone())
    };
    let stands = |ports: &[u16]| {
        eventually(SOON, "the policy stands", || {
            let found = policies()?;
            let ours: Vec<_> = found
                .iter()
                .filter(|policy| policy["metadata"]["name"] == json!(name))
                .collect();
            ensure!(
                ours.len() == 1 && ours[0]["spec"] == wanted(ports),
                "{found:?}"
            );
            Ok(())
        })
    };
    let programmed = |status: &str, reason: &str| {
        eventually(SOON, "Programmed says it", || {
            let condition = ns.condition("traffictarget/server", "Programmed")?;
            ensure!(
                condition["status"] == json!(status) && condition["reason"] == json!(reason),
                "{condition}"
            );
            Ok(condition["message"].to_string())
        })
    };

    stands(&[8301, 8302])?;
    programmed("True", "Programmed")?;
    assert_eq!(policies()?.len(), 1, "in mode auto the client is open");

    ns.kubectl(&[
        "patch",
        "udproute",
        "dns",
        "--type=merge",
        "-p",
        r#"{"spec":{"matches":{"ports":[8303]}}}"#,
    ])?;
    stands(&[8303])?;
    // What somebody edits or deletes is put back.
    let object = format!("networkpolicy/{name}");
    ns.kubectl(&[
        "patch",
        &object,
        "--type=merge",
        "-p",
        r#"{"spec":{"ingress":[{}]}}"#,
    ])?;
    stands(&[8303])?;
    ns.kubectl(&["delete", &object])?;
    stands(&[8303])?;

    ns.apply(
        r"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: theirs},
           spec: {podSelector: {matchLabels: {app: server}}}}",
    )?;
    let message = programmed("False", "ForeignNetworkPolicy")?;
    assert!(message.contains("theirs"), "{message}");
    let left: Vec<Value> = policies()?
        .iter()
        .map(|p| p["metadata"]["name"].clone())
        .collect();
    assert_eq!(left, ["theirs"], "ours would widen it");
    ns.kubectl(&["delete", "networkpolicy", "theirs"])?;
    stands(&[8303])?;
    programmed("True", "Programmed")?;

    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SOON, "deny closes the client, too", || {
        ensure!(policies()?.len() == 2);
        Ok(())
    })?;
    altered.restore()?;
    eventually(COLLECTED, "all went with the role", || {
        let left = policies()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    // The new controllers may still wait for the Lease.
    eventually(COLLECTED, "the target says that nobody enforces it", || {
        let condition = ns.condition("traffictarget/server", "Accepted")?;
        ensure!(condition["reason"] == json!("NotEnforced"), "{condition}");
        Ok(())
    })?;
    Ok(())
}
