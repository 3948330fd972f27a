//! A caller who may reach both servers: `server` by HTTP and `opaque` by bytes.

use e2e::harness::Namespace;

const GRANT: &str = r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: front}
spec: {matches: {ports: [8080]}}
---
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: server}
spec:
  destination: {kind: ServiceAccount, name: server, namespace: $NS}
  rules: [{kind: TCPRoute, name: front}]
  sources: [{kind: ServiceAccount, name: $CALLER, namespace: $NS}]
---
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: opaque}
spec:
  destination: {kind: ServiceAccount, name: opaque, namespace: $NS}
  rules: [{kind: TCPRoute, name: front}]
  sources: [{kind: ServiceAccount, name: $CALLER, namespace: $NS}]
";

/// Lets `caller` call them, with a target for each.
pub(crate) fn grant(ns: &Namespace, caller: &str) -> anyhow::Result<()> {
    ns.apply(&GRANT.replace("$CALLER", caller)).map(drop)
}
