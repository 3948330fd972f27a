//! TrafficTargets add up, each evaluated on its own: the port of one target never
//! widens the routes or sources of another.

use anyhow::ensure;
use e2e::{
    conformance::Record,
    harness::{Namespace, Outcome, Pod, eventually},
};

use super::{SOON, url};

/// A namespace in deny with a server and two callers.
pub(crate) fn shop(claim: &str) -> anyhow::Result<(Namespace, Pod, Pod)> {
    let ns = Namespace::meshed(claim)?;
    ns.run(&["server", "one", "two"])?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    let (one, two) = (ns.pod("one")?, ns.pod("two")?);
    eventually(SOON, "deny refuses", || {
        one.refused(&url("server", 8080, "/"), &[], 403, "not-allowed")
    })?;
    Ok((ns, one, two))
}

pub(crate) fn target(name: &str, source: &str, rules: &str) -> String {
    format!(
        r"
---
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {{name: {name}}}
spec:
  destination: {{kind: ServiceAccount, name: server, namespace: $NS}}
  rules: {rules}
  sources: [{{kind: ServiceAccount, name: {source}, namespace: $NS}}]
"
    )
}

pub(crate) fn group(name: &str, matches: &str) -> String {
    format!(
        r"
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {{name: {name}}}
spec: {{matches: {matches}}}
"
    )
}

pub(crate) fn ports(name: &str, ports: &str) -> String {
    format!(
        r"
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {{name: {name}}}
spec: {{matches: {{ports: {ports}}}}}
"
    )
}

pub(crate) fn allowed(row: &mut Record, pod: &Pod, target: &str, method: &str) -> Outcome {
    let name = format!("{} {method} {target} passes", pod.name);
    eventually(SOON, &name, || {
        let seen = pod.get(target, &["-X", method])?;
        ensure!(seen.by_status.get("200") == Some(&1), "it was {seen:?}");
        Ok(())
    })?;
    row.saw(in_words(pod, target, method), "200");
    Ok(())
}

pub(crate) fn refused(row: &mut Record, pod: &Pod, target: &str, method: &str) -> Outcome {
    let name = format!("{} {method} {target} is refused", pod.name);
    eventually(SOON, &name, || {
        pod.refused(target, &["-X", method], 403, "not-allowed")
    })?;
    row.saw(in_words(pod, target, method), "403 not-allowed");
    Ok(())
}

/// `one: GET http://server:8080/a`.
fn in_words(pod: &Pod, target: &str, method: &str) -> String {
    let app = pod.object["metadata"]["labels"]["app"].as_str();
    let app = app.unwrap_or_default();
    // A name with the namespace of this run in it says nothing to a reader.
    let target = target.replace(&pod.namespace, "NS");
    format!("{app}: {method} {target}")
}

// Claims: mesh-2b
#[test]
fn overlapping_routes_give_each_source_its_own_methods() -> Outcome {
    let mut row = Record::begin("E1")?;
    let (ns, one, two) = shop("overlap")?;
    let all = group("all", "[{name: all, pathRegex: '.*', methods: ['*']}]");
    let read = group("read", "[{name: read, pathRegex: '.*', methods: [GET]}]");
    let by_one = target("one", "one", "[{kind: HTTPRouteGroup, name: all}]");
    let by_two = target("two", "two", "[{kind: HTTPRouteGroup, name: read}]");
    ns.apply(&format!("{all}{read}{by_one}{by_two}"))?;
    let address = url("server", 8080, "/x");
    allowed(&mut row, &one, &address, "DELETE")?;
    allowed(&mut row, &two, &address, "GET")?;
    allowed(&mut row, &one, &address, "GET")?;
    refused(&mut row, &two, &address, "DELETE")?;
    row.passed()?;
    Ok(())
}

// Claims: mesh-2b
#[test]
fn rule_without_matches_means_all_matches_of_group() -> Outcome {
    let mut row = Record::begin("E2")?;
    let (ns, one, two) = shop("all-matches")?;
    let routes = group(
        "routes",
        "[{name: a, pathRegex: /a}, {name: b, pathRegex: /b}]",
    );
    let by_one = target("one", "one", "[{kind: HTTPRouteGroup, name: routes}]");
    let by_two = target(
        "two",
        "two",
        "[{kind: HTTPRouteGroup, name: routes, matches: [b]}]",
    );
    ns.apply(&format!("{routes}{by_one}{by_two}"))?;
    allowed(&mut row, &one, &url("server", 8080, "/a"), "GET")?;
    allowed(&mut row, &one, &url("server", 8080, "/b"), "GET")?;
    allowed(&mut row, &two, &url("server", 8080, "/b"), "GET")?;
    refused(&mut row, &two, &url("server", 8080, "/a"), "GET")?;
    refused(&mut row, &one, &url("server", 8080, "/c"), "GET")?;
    row.passed()?;
    Ok(())
}

// Claims: mesh-2b
#[test]
fn ports_of_one_target_never_widen_routes_of_another() -> Outcome {
    let mut row = Record::begin("E4")?;
    let (ns, one, two) = shop("no-mixing")?;
    let routes = group(
        "routes",
        "[{name: echo, pathRegex: /echo}, {name: metrics, pathRegex: /metrics}]",
    );
    let (first, second) = (ports("first", "[8080, 9091]"), ports("second", "[9092]"));
    // One may call /echo on 9091 and /metrics on 9092, nothing else.
    let echo =
        "[{kind: HTTPRouteGroup, name: routes, matches: [echo]}, {kind: TCPRoute, name: first}]";
    let metrics = "[{kind: HTTPRouteGroup, name: routes, matches: [metrics]}, {kind: TCPRoute, name: second}]";
    let targets = format!(
        "{}{}",
        target("echo", "one", echo),
        target("metrics", "one", metrics)
    );
    ns.apply(&format!("{routes}{first}{second}{targets}"))?;
    allowed(&mut row, &one, &url("server", 9091, "/echo"), "GET")?;
    allowed(&mut row, &one, &url("server", 9092, "/metrics"), "GET")?;
    refused(&mut row, &one, &url("server", 9091, "/metrics"), "GET")?;
    refused(&mut row, &one, &url("server", 9092, "/echo"), "GET")?;
    refused(&mut row, &two, &url("server", 9091, "/echo"), "GET")?;
    row.passed()?;
    Ok(())
}

// Claims: mesh-2b
#[test]
fn tcp_route_admits_http_but_http_route_no_bytes() -> Outcome {
    let mut row = Record::begin("E5")?;
    let (ns, one, two) = shop("kinds")?;
    let http = ports("http", "[8080]");
    let routes = group("routes", "[{name: any, pathRegex: '.*'}]");
    let by_one = target("one", "one", "[{kind: TCPRoute, name: http}]");
    let by_two = target("two", "two", "[{kind: HTTPRouteGroup, name: routes}]");
    ns.apply(&format!("{http}{routes}{by_one}{by_two}"))?;
    allowed(&mut row, &one, &url("server", 8080, "/x"), "GET")?;
    allowed(&mut row, &two, &url("server", 8080, "/x"), "GET")?;
    // 9000 echoes bytes; the HTTP rule of `two` covers every port, and opens none.
    for pod in [&one, &two] {
        ensure_refused(&mut row, pod)?;
    }
    ns.apply(&format!(
        "{}{}",
        ports("bytes", "[9000]"),
        target("bytes", "one", "[{kind: TCPRoute, name: bytes}]")
    ))?;
    // Control: the same call passes once a TCPRoute allows it.
    eventually(SOON, "bytes pass", || one.exec(&["tcp", "server:9000"]))?;
    row.saw(
        "one: bytes to server:9000, with a TCPRoute",
        "they come back",
    );
    ensure_refused(&mut row, &two)?;
    row.passed()?;
    Ok(())
}

fn ensure_refused(row: &mut Record, pod: &Pod) -> anyhow::Result<()> {
    let answer = pod.exec(&["tcp", "server:9000"]);
    ensure!(answer.is_err(), "raw bytes were answered: {answer:?}");
    row.saw(
        in_words(pod, "server:9000", "bytes to"),
        "closed without an answer",
    );
    Ok(())
}

// Claims: mesh-8
#[test]
fn a_target_grants_nothing_in_another_namespace() -> Outcome {
    let mut row = Record::begin("E15")?;
    let (ns, one, _two) = shop("protects")?;
    let tenant = Namespace::meshed("tenant")?;
    // The tenant tries to grant its own account access to the other namespace.
    let grant = format!(
        r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {{name: any}}
spec: {{matches: {{ports: []}}}}
---
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {{name: grab}}
spec:
  destination: {{kind: ServiceAccount, name: server, namespace: {0}}}
  rules: [{{kind: TCPRoute, name: any}}]
  sources: [{{kind: ServiceAccount, name: one, namespace: {0}}}]
",
        ns.name
    );
    match tenant.apply(&grant) {
        Err(error) => {
            let error = format!("{error:#}");
            assert!(
                error.contains("destination.namespace"),
                "the refusal names no field: {error}"
            );
        }
        Ok(_) => {
            tenant.await_condition("traffictarget/grab", "Accepted", "False")?;
        }
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    refused(&mut row, &one, &url("server", 8080, "/"), "GET")?;
    row.passed()?;
    Ok(())
}
