//! TrafficTargets: exactly the calls that they list pass, and refused calls never
//! reach the application.

use anyhow::ensure;
use e2e::{
    echo::seen::EchoMetrics,
    harness::{App, Namespace, Outcome, Pod, eventually},
};

use super::{SOON, url};

/// The spec's worked example: prometheus may read `/metrics`, website may do
/// anything under `/api`.
const EXAMPLE: &str = r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: routes}
spec:
  matches:
    - {name: api, pathRegex: /api, methods: ['*']}
    - {name: metrics, pathRegex: /metrics, methods: [GET]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: metrics}
spec:
  destination: {kind: ServiceAccount, name: server, namespace: $NS}
  rules: [{kind: HTTPRouteGroup, name: routes, matches: [metrics]}]
  sources: [{kind: ServiceAccount, name: prometheus, namespace: $NS}]
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: api}
spec:
  destination: {kind: ServiceAccount, name: server, namespace: $NS}
  rules: [{kind: HTTPRouteGroup, name: routes, matches: [api]}]
  sources: [{kind: ServiceAccount, name: website, namespace: $NS}]
";

// Claims: mesh-2a
#[test]
fn spec_example_allows_exactly_what_it_lists() -> Outcome {
    let ns = Namespace::meshed("example")?;
    ns.run(&["server", "prometheus", "website", "stranger"])?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    ns.apply(EXAMPLE)?;
    let [prometheus, website, stranger] = [
        ns.pod("prometheus")?,
        ns.pod("website")?,
        ns.pod("stranger")?,
    ];
    let allowed = |pod: &Pod, path: &str, method: &str| {
        let name = format!("{} {method} {path}", pod.name);
        eventually(SOON, &name, || {
            pod.report(&url("server", 8080, path), &["-X", method])
        })
        .map(drop)
    };
    let refused = |pod: &Pod, path: &str, method: &str| {
        let name = format!("{} {method} {path}", pod.name);
        eventually(SOON, &name, || {
            pod.refused(
                &url("server", 8080, path),
                &["-X", method],
                403,
                "not-allowed",
            )
        })
    };
    allowed(&prometheus, "/metrics", "GET")?;
    allowed(&website, "/api", "GET")?;
    allowed(&website, "/api/orders", "DELETE")?;
    refused(&prometheus, "/metrics", "POST")?;
    refused(&prometheus, "/api", "GET")?;
    refused(&website, "/metrics", "GET")?;
    refused(&website, "/%2e%2e/metrics", "GET")?;
    refused(&website, "/api/../metrics", "GET")?;
    refused(&website, "/", "GET")?;
    refused(&stranger, "/api", "GET")?;
    refused(&stranger, "/metrics", "GET")?;
    Ok(())
}

// Claims: mesh-2d
#[test]
fn refused_call_never_reaches_the_application() -> Outcome {
    let ns = Namespace::meshed("refused")?;
    ns.run(&["client", "server"])?;
    let (client, server) = (ns.pod("client")?, ns.pod("server")?);
    let target = url("server", 9091, "/echo");
    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SOON, "deny refuses", || {
        client.refused(&target, &[], 403, "not-allowed")
    })?;
    // Calls before deny took effect may have arrived.
    server.get("http://127.0.0.1:9091/metrics", &["-X", "DELETE"])?;
    let seen = client.get(&target, &["-n", "200", "-c", "4"])?;
    assert_eq!(seen.by_status.get("403"), Some(&200), "{seen:?}");
    assert_eq!(seen.by_reason.get("not-allowed"), Some(&200), "{seen:?}");
    let body = server.get("http://127.0.0.1:9091/metrics", &[])?.last.body;
    let received: EchoMetrics = serde_json::from_str(&body)?;
    assert_eq!(
        received.req_received,
        [] as [String; 0],
        "refused calls arrived"
    );
    Ok(())
}

#[test]
fn auto_protects_only_what_a_target_names() -> Outcome {
    let ns = Namespace::meshed("auto")?;
    ns.run(&["client", "server", "other"])?;
    let client = ns.pod("client")?;
    let (server, other) = (url("server", 8080, "/"), url("other", 8080, "/"));
    client.report(&server, &[])?;
    ns.apply(EXAMPLE)?;
    eventually(SOON, "the named workload is protected", || {
        client.refused(&server, &[], 403, "not-allowed")
    })?;
    client.report(&other, &[])?;
    ns.kubectl(&["delete", "traffictarget", "metrics", "api"])?;
    eventually(SOON, "without a target it is open again", || {
        client.report(&server, &[])
    })?;
    Ok(())
}

// Claims: mesh-2d
#[test]
fn tcp_passes_with_tcp_route_and_closes_without() -> Outcome {
    let ns = Namespace::meshed("tcp-route")?;
    ns.run(&["client", "server"])?;
    let client = ns.pod("client")?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SOON, "bytes are refused", || {
        let answer = client.exec(&["tcp", "server:9000"]);
        ensure!(answer.is_err(), "answered {answer:?}");
        Ok(())
    })?;
    ns.apply(
        r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: bytes}
spec: {matches: {ports: [9000]}}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: bytes}
spec:
  destination: {kind: ServiceAccount, name: server, namespace: $NS}
  rules: [{kind: TCPRoute, name: bytes}]
  sources: [{kind: ServiceAccount, name: client, namespace: $NS}]
",
    )?;
    eventually(SOON, "bytes pass on the listed port", || {
        client.exec(&["tcp", "server:9000"])
    })?;
    client.refused(&url("server", 8080, "/"), &[], 403, "not-allowed")?;
    let banner = client.exec(&["banner", "server:9001"]);
    assert!(
        banner.is_err(),
        "a port that is not listed answered {banner:?}"
    );
    Ok(())
}

// Claims: mesh-2d
#[test]
fn refused_grpc_call_has_status_7() -> Outcome {
    let ns = Namespace::meshed("grpc-refused")?;
    ns.run(&["client", "server"])?;
    let client = ns.pod("client")?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SOON, "the call is refused", || {
        let seen = client.grpc(&["server:8080"])?;
        ensure!(
            seen.grpc_status.as_deref() == Some("7") && seen.received == 0,
            "it was {seen:?}"
        );
        ensure!(
            seen.reason.as_deref() == Some("not-allowed"),
            "it was {seen:?}"
        );
        Ok(())
    })?;
    Ok(())
}

#[test]
fn group_sources_stand_for_the_mesh_and_for_outside() -> Outcome {
    let ns = Namespace::meshed("groups")?;
    ns.apply_all(&App::new("server").objects())?;
    ns.apply_all(&App::new("client").objects())?;
    ns.apply_all(
        &App::new("outsider")
            .label("weft.dev/inject", "disabled")
            .objects(),
    )?;
    ns.ready(&["server", "client", "outsider"])?;
    let (client, outsider) = (ns.pod("client")?, ns.pod("outsider")?);
    let target = url("server", 8080, "/");
    let with = |group: &str| {
        ns.apply(&format!(
            r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {{name: any}}
spec: {{matches: {{ports: []}}}}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: group}}
spec:
  destination: {{kind: ServiceAccount, name: server, namespace: $NS}}
  rules: [{{kind: TCPRoute, name: any}}]
  sources: [{{kind: Group, name: '{group}'}}]
"
        ))
    };
    with("system:authenticated")?;
    eventually(SOON, "outsiders are refused", || {
        outsider.refused(&target, &[], 403, "no-identity")
    })?;
    client.report(&target, &[])?;
    with("system:unauthenticated")?;
    eventually(SOON, "outsiders pass", || outsider.report(&target, &[]))?;
    eventually(SOON, "members are refused", || {
        client.refused(&target, &[], 403, "not-allowed")
    })?;
    Ok(())
}
