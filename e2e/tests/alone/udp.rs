//! UDPRoutes as NetworkPolicies: they appear, change and vanish with the route, and the
//! target reports what is in force. The local cluster's network plugin enforces none;
//! what the policies allow is proven in the controller's own tests. A part of what
//! `upgraded` tries.
//!
//! Claims: smi-6

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Namespace, Outcome, eventually};
use serde_json::{Value, json};

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

/// As the chart's value.
pub(super) const SWITCHED_ON: &str = "access.udpNetworkPolicies=true";

/// A namespace whose server admits its client by [`ROUTES`].
pub(super) struct Ground {
    ns: Namespace,
    /// The policy for the server.
    name: String,
}

impl Ground {
    pub(super) fn new() -> anyhow::Result<Self> {
        let ns = Namespace::meshed("udp")?;
        ns.apply_all(&App::new("server").objects())?;
        ns.apply_all(&App::new("client").objects())?;
        ns.ready(&["server", "client"])?;
        ns.apply(ROUTES)?;
        let hash = crds::labels::account_hash(&ns.name, "server");
        let name = format!("weft-udp-{hash}");
        Ok(Self { ns, name })
    }

    fn spec(&self, ports: &[u16]) -> Value {
        let hash = |account: &str| crds::labels::account_hash(&self.ns.name, account);
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
                            {"matchLabels": {"kubernetes.io/metadata.name": self.ns.name}},
                        "podSelector": {"matchLabels": {"weft.dev/account": hash("client")}},
                    }],
                    "ports": ports,
                },
            ],
        })
    }

    fn policies(&self) -> anyhow::Result<Vec<Value>> {
        let list = self.ns.json(&["get", "networkpolicies"])?;
        Ok(list["items"].as_array().context("no list")?.clone())
    }

    /// The server's policy is there, once, and admits these ports.
    fn stands(&self, ports: &[u16]) -> anyhow::Result<()> {
        eventually(SOON, "the policy stands", || {
            let found = self.policies()?;
            let ours: Vec<_> = found
                .iter()
                .filter(|policy| policy["metadata"]["name"] == json!(self.name))
                .collect();
            ensure!(
                ours.len() == 1 && ours[0]["spec"] == self.spec(ports),
                "{found:?}"
            );
            Ok(())
        })
    }

    /// The message with which the target says this.
    fn programmed(&self, status: &str, reason: &str) -> anyhow::Result<String> {
        eventually(SOON, "Programmed says it", || {
            let condition = self.ns.condition("traffictarget/server", "Programmed")?;
            ensure!(
                condition["status"] == json!(status) && condition["reason"] == json!(reason),
                "{condition}"
            );
            Ok(condition["message"].to_string())
        })
    }

    fn patch(&self, kind: &str, name: &str, patch: &str) -> anyhow::Result<()> {
        let line = ["patch", kind, name, "--type=merge", "-p", patch];
        self.ns.kubectl(&line)?;
        Ok(())
    }
}

pub(super) fn network_policies_appear_change_and_make_way_for_foreign_ones(
    ground: &Ground,
) -> Outcome {
    let Ground { ns, name } = ground;
    ground.stands(&[8301, 8302])?;
    ground.programmed("True", "Programmed")?;
    assert_eq!(
        ground.policies()?.len(),
        1,
        "in mode auto the client is open"
    );

    let ports = r#"{"spec":{"matches":{"ports":[8303]}}}"#;
    ground.patch("udproute", "dns", ports)?;
    ground.stands(&[8303])?;
    // A policy that another client edits or deletes is restored.
    ground.patch("networkpolicy", name, r#"{"spec":{"ingress":[{}]}}"#)?;
    ground.stands(&[8303])?;
    ns.kubectl(&["delete", "networkpolicy", name])?;
    ground.stands(&[8303])?;

    ns.apply(
        r"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: theirs},
           spec: {podSelector: {matchLabels: {app: server}}}}",
    )?;
    let message = ground.programmed("False", "ForeignNetworkPolicy")?;
    assert!(message.contains("theirs"), "{message}");
    let left: Vec<Value> = ground
        .policies()?
        .iter()
        .map(|p| p["metadata"]["name"].clone())
        .collect();
    assert_eq!(left, ["theirs"], "ours would widen it");
    ns.kubectl(&["delete", "networkpolicy", "theirs"])?;
    ground.stands(&[8303])?;
    ground.programmed("True", "Programmed")?;

    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SOON, "deny closes the client, too", || {
        ensure!(ground.policies()?.len() == 2);
        Ok(())
    })?;
    Ok(())
}

/// Once the value is as it was.
pub(super) fn network_policies_vanish(ground: &Ground) -> Outcome {
    eventually(COLLECTED, "all went with the role", || {
        let left = ground.policies()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    // The new controllers may still wait for the Lease.
    eventually(COLLECTED, "the target says that it is not enforced", || {
        let condition = ground.ns.condition("traffictarget/server", "Accepted")?;
        ensure!(condition["reason"] == json!("NotEnforced"), "{condition}");
        Ok(())
    })?;
    Ok(())
}
