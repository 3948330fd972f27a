//! Calls that leave the mesh, by names that the cluster's own DNS resolves: what ExternalServices
//! give arrives at the hosts that they name, and where deny stands nothing else leaves.

use anyhow::{Context as _, bail, ensure};
use e2e::{
    echo::load::Summary,
    harness::{
        App, Gateway, Namespace, Outcome, Outside, Pod, eventually,
        gateways::listener,
        outside::{ADDRESSES, Certificate, name},
    },
};
use serde_json::{Value, json};

use super::{
    SOON,
    split::{of, within_5_sigma},
    url,
};

/// To find a port that no other server has at the second address.
const ATTEMPTS: u32 = 10;
/// Calls of which the shares are counted.
const CALLS: &str = "2000";
/// The routing of docs/examples/staging-and-production.yaml.
const BY_ENVIRONMENT: &str = r#"
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: staging}
spec:
  matches:
  - {name: staging, headers: {x-env: "staging"}}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: ledger-by-environment}
spec:
  service: ledger
  matches:
  - {apiGroup: specs.smi-spec.io, kind: HTTPRouteGroup, name: staging}
  backends:
  - {service: ledger-staging, weight: 100}
"#;

// Claims: egress-1, egress-2, egress-6
#[test]
fn deny_refuses_all_but_named_hosts() -> Outcome {
    let ns = Namespace::meshed("egress")?;
    ns.run(&["client"])?;
    let client = ns.pod("client")?;
    let (named, other) = servers()?;
    let port = named.address.port();
    let [pay, evil] = ["pay", "evil"].map(|first| name(first, ADDRESSES[0]));
    let away = name("pay", ADDRESSES[1]);

    ns.annotate("weft.dev/egress", Some("audit"))?;
    eventually(SOON, "calls that no object gives are counted", || {
        of_version(&client, &url(&away, port, "/audit"), &[], "other")?;
        let counted = client.proxy_metrics()?.sum("weft_audit_egress_total", &[]);
        ensure!(counted > 0.0, "{counted} calls were counted");
        Ok(())
    })?;
    ns.annotate("weft.dev/egress", Some("deny"))?;
    denied(&client, &url(&away, port, "/"), &[])?;
    let before = other.connections();

    ns.apply_all(&[external(
        "pay",
        &json!({"hosts": [pay, format!("*.{}", name("api", ADDRESSES[0]))],
            "ports": [{"port": port, "protocol": "HTTP"}]}),
    )])?;
    let below = name("a.b.api", ADDRESSES[0]);
    let host = |name: &str| format!("host: {name}");
    for known in [&pay, &below] {
        arrives(&client, &url(known, port, "/"), &[], "named")?;
        // It is the name that is called, whatever address was dialled.
        let header = host(known);
        let dialled = url(ADDRESSES[1], port, "/dialled");
        arrives(&client, &dialled, &["-H", &header], "named")?;
    }
    let xs = ns.await_condition("externalservices/pay", "Programmed", "True")?;
    println!("pay: {xs}");

    let spoofed = host(&evil);
    let apex = host(&name("api", ADDRESSES[0]));
    let joined = host(&format!("x{pay}"));
    let spoofs: [(&str, &[&str]); 8] = [
        (&away, &[]),
        (&away, &["--http2"]),
        (&evil, &[]),
        (ADDRESSES[1], &[]),
        (ADDRESSES[0], &["-H", &spoofed]),
        (ADDRESSES[1], &["-H", &spoofed]),
        (ADDRESSES[1], &["-H", &apex]),
        (ADDRESSES[1], &["-H", &joined]),
    ];
    for (dialled, args) in spoofs {
        let target = url(dialled, port, "/spoof");
        client.refused(&target, args, 403, "egress-denied")?;
    }
    // Bytes have no answer to refuse with.
    let bytes = client.exec(&["tcp", &format!("{}:{port}", ADDRESSES[1])]);
    assert!(bytes.is_err(), "bytes left: {bytes:?}");
    assert_eq!(other.connections(), before, "{:?}", other.arrived());
    let spoofed = named.arrived().into_iter().find(|one| one.text == "/spoof");
    assert_eq!(spoofed, None);

    ns.kubectl(&["delete", "externalservices", "pay"])?;
    denied(&client, &url(&pay, port, "/"), &[])?;
    Ok(())
}

// Claims: egress-1, egress-2
#[test]
fn tls_leaves_to_the_host_that_it_names() -> Outcome {
    let ns = Namespace::meshed("egress-tls")?;
    ns.annotate("weft.dev/egress", Some("deny"))?;
    ns.run(&["client"])?;
    let client = ns.pod("client")?;
    let (named, other) = servers()?;
    let port = named.address.port();
    let [pay, evil] = ["pay", "evil"].map(|first| name(first, ADDRESSES[0]));
    ns.apply_all(&[external(
        "pay",
        &json!({"hosts": [pay], "ports": [{"port": port, "protocol": "TLS"}]}),
    )])?;
    let shakes = |ip: &str, server_name: &str| {
        client.exec(&["certificate", &format!("{ip}:{port}"), server_name])
    };
    for ip in ADDRESSES {
        let what = format!("TLS for {pay} by {ip} ends at the named server");
        eventually(SOON, &what, || {
            let certificate = shakes(ip, &pay)?;
            ensure!(certificate.contains("named.example"), "{certificate}");
            Ok(())
        })?;
        for server_name in [evil.as_str(), "192.0.2.1"] {
            let spoofed = shakes(ip, server_name);
            assert!(spoofed.is_err(), "{ip}, {server_name}: {spoofed:?}");
        }
    }
    assert_eq!(other.connections(), 0, "{:?}", other.arrived());
    Ok(())
}

// Claims: egress-4
#[test]
fn names_that_lead_into_the_cluster_are_not_called() -> Outcome {
    let ns = Namespace::meshed("egress-inside")?;
    ns.annotate("weft.dev/egress", Some("deny"))?;
    let victim = App::new("victim").label("weft.dev/inject", "disabled");
    ns.apply_all(&victim.objects())?;
    ns.run(&["client"])?;
    ns.ready(&["victim"])?;
    let (client, victim) = (ns.pod("client")?, ns.pod("victim")?);
    let service = ns.json(&["get", "service", "victim"])?;
    let service = service["spec"]["clusterIP"].as_str().context("clusterIP")?;
    let node = victim.object["status"]["hostIP"].as_str();
    let node = node.context("hostIP")?;
    let inside = [
        victim.ip.as_str(),
        service,
        node,
        "127.0.0.1",
        "169.254.1.1",
    ];
    let hosts = inside.map(|ip| name("inside", ip));
    // A name whose answer may be called shows that the object is in force.
    let certificate = Certificate::of(&["named.example"])?;
    let outside = Outside::start(ADDRESSES[0], 0, "outside", &certificate)?;
    let good = name("good", ADDRESSES[0]);
    let ports = json!([{"port": 8080, "protocol": "HTTP"},
        {"port": outside.address.port(), "protocol": "HTTP"}]);
    let named = [&hosts[..], std::slice::from_ref(&good)].concat();
    ns.apply_all(&[external("inside", &json!({"hosts": named, "ports": ports}))])?;
    arrives(
        &client,
        &url(&good, outside.address.port(), "/"),
        &[],
        "outside",
    )?;
    for host in &hosts {
        // Of an address outside: that of the name would be the pod's or the Service's own.
        let header = format!("host: {host}");
        let target = url(ADDRESSES[1], 8080, "/inside");
        denied(&client, &target, &["-H", &header])?;
    }
    let log = url("127.0.0.1", 9091, "/requests?only=/inside");
    let arrived = victim.get(&log, &[])?.last;
    assert!(
        arrived.status == 200 && !arrived.body.contains("/inside"),
        "{arrived:?}"
    );
    Ok(())
}

// Claims: egress-1
#[test]
fn object_admits_its_sources_and_no_other_account() -> Outcome {
    let ns = Namespace::meshed("egress-sources")?;
    ns.annotate("weft.dev/egress", Some("deny"))?;
    ns.run(&["client", "other"])?;
    let (client, other) = (ns.pod("client")?, ns.pod("other")?);
    let certificate = Certificate::of(&["named.example"])?;
    let outside = Outside::start(ADDRESSES[0], 0, "outside", &certificate)?;
    let port = outside.address.port();
    let sources = json!([{"kind": "ServiceAccount", "name": "client"}]);
    let ports = json!([{"port": port, "protocol": "TCP"}]);
    ns.apply_all(&[external(
        "by-address",
        &json!({"addresses": [ADDRESSES[0]], "ports": ports, "sources": sources}),
    )])?;
    let address = outside.address.to_string();
    eventually(SOON, "bytes of the client arrive", || {
        let answer = client.exec(&["tcp", &address])?;
        ensure!(answer.trim_end() == "outside", "{answer}");
        Ok(())
    })?;
    let before = outside.connections();
    let bytes = other.exec(&["tcp", &address]);
    assert!(bytes.is_err(), "another account was admitted: {bytes:?}");
    denied(&other, &format!("http://{address}/"), &[])?;
    assert_eq!(outside.connections(), before, "{:?}", outside.arrived());
    Ok(())
}

// Claims: egress-5, egress-6
#[test]
fn split_sends_its_share_outside_in_verified_tls() -> Outcome {
    let ns = Namespace::meshed("egress-split")?;
    ns.annotate("weft.dev/egress", Some("deny"))?;
    ns.run(&["client", "payments"])?;
    let client = ns.pod("client")?;
    let cloud = name("payments", ADDRESSES[0]);
    let certificate = Certificate::of(&[&cloud])?;
    let server = Outside::start(ADDRESSES[0], 0, "cloud", &certificate)?;
    let forged = Certificate::of(&[&cloud])?;
    let bundle = |name: &str, certificate: &Certificate| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "data": {"ca.crt": certificate.authority}})
    };
    let ports = |ca: &str| {
        json!([{"port": 8080, "protocol": "HTTP", "targetPort": server.address.port(),
            "tls": {"caRef": {"name": ca}}}])
    };
    ns.apply_all(&[
        bundle("cloud-ca", &certificate),
        bundle("forged-ca", &forged),
        external(
            "payments-cloud",
            &json!({"hosts": [cloud], "ports": ports("cloud-ca")}),
        ),
        external(
            "payments-forged",
            &json!({"hosts": [cloud], "ports": ports("forged-ca")}),
        ),
        standing_for("payments-cloud"),
        standing_for("payments-forged"),
    ])?;
    arrives(
        &client,
        &url("payments-cloud", 8080, "/cloud"),
        &[],
        "cloud",
    )?;
    let request = server
        .arrived()
        .into_iter()
        .find(|one| one.text == "/cloud");
    let request = request.context("no request arrived")?;
    assert_eq!(request.server_name.as_deref(), Some(cloud.as_str()));
    assert!(request.host.starts_with(&cloud), "{request:?}");

    let refused = client.get(&url("payments-forged", 8080, "/forged"), &["-n", "5"])?;
    assert_eq!(refused.by_status.get("200"), None, "{refused:?}");
    assert!(server.arrived().iter().all(|one| one.text != "/forged"));

    ns.apply_all(&[
        json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": "payments"}, "spec": {"service": "payments", "backends": [
            {"service": "payments", "weight": 90}, {"service": "payments-cloud", "weight": 10}]}}),
    ])?;
    let shared = |calls: &str| client.get(&url("payments", 8080, "/"), &["-n", calls, "-c", "10"]);
    eventually(SOON, "the split is in force", || {
        let seen: Summary = shared("100")?;
        ensure!(of(&seen, "cloud") > 0, "{:?}", seen.by_version);
        Ok(())
    })?;
    within_5_sigma(&shared(CALLS)?, "cloud", 0.1)?;
    Ok(())
}

// Claims: egress-6
#[test]
fn header_selects_between_two_hosts_outside() -> Outcome {
    let ns = Namespace::meshed("egress-header")?;
    ns.annotate("weft.dev/egress", Some("deny"))?;
    ns.run(&["client"])?;
    let client = ns.pod("client")?;
    let certificate = Certificate::of(&["ledger.example"])?;
    let production = Outside::start(ADDRESSES[0], 0, "production", &certificate)?;
    let staging = Outside::start(ADDRESSES[1], 0, "staging", &certificate)?;
    let object = |service: &str, host: &str, server: &Outside| {
        let ports =
            json!([{"port": 8080, "protocol": "HTTP", "targetPort": server.address.port()}]);
        external(service, &json!({"hosts": [host], "ports": ports}))
    };
    let hosts = ADDRESSES.map(|ip| name("ledger", ip));
    ns.apply_all(&[
        object("ledger", &hosts[0], &production),
        object("ledger-staging", &hosts[1], &staging),
        standing_for("ledger"),
        standing_for("ledger-staging"),
    ])?;
    let ledger = url("ledger", 8080, "/");
    arrives(&client, &ledger, &[], "production")?;
    ns.apply(BY_ENVIRONMENT)?;
    arrives(&client, &ledger, &["-H", "x-env: staging"], "staging")?;
    let other: [&[&str]; 2] = [&[], &["-H", "x-env: stage"]];
    for args in other {
        of_version(&client, &ledger, args, "production")?;
    }
    for (server, host) in [(&production, &hosts[0]), (&staging, &hosts[1])] {
        let arrived = server.arrived();
        let right = arrived.iter().all(|one| one.host.starts_with(host));
        assert!(right && !arrived.is_empty(), "{host}: {arrived:?}");
    }
    Ok(())
}

/// Before a pod of the Gateway is there, and for every other account, nothing leaves in another way.
// Claims: egress-1, egress-2
#[test]
fn named_host_is_reached_by_gateway_alone() -> Outcome {
    let gateway = Gateway::named("egress")?;
    gateway.listen(&[listener("http", 80, "HTTP", &json!({}))], &[])?;
    let ns = Namespace::meshed("egress-gateway")?;
    ns.annotate("weft.dev/egress", Some("deny"))?;
    ns.run(&["client", "stranger"])?;
    let (client, stranger) = (ns.pod("client")?, ns.pod("stranger")?);
    let (named, _other) = servers()?;
    let port = named.address.port();
    let pay = name("pay", ADDRESSES[0]);
    let called = url(&pay, port, "/");
    denied(&client, &called, &[])?;

    let parent = gateway.parent();
    let object = |name: &Value| {
        let sources = json!([{"kind": "ServiceAccount", "name": "client"}]);
        let ports = json!([{"port": port, "protocol": "HTTP"}]);
        let by = json!({"name": name, "namespace": parent["namespace"]});
        let spec = json!({"hosts": [pay], "ports": ports, "sources": sources, "gateway": by});
        external("pay", &spec)
    };
    ns.apply_all(&[object(&json!("missing"))])?;
    eventually(SOON, "without its Gateway nothing leaves", || {
        client.refused(&called, &[], 503, "no-endpoint")
    })?;
    ns.await_condition("externalservices/pay", "ResolvedRefs", "False")?;
    assert_eq!(named.connections(), 0, "{:?}", named.arrived());

    gateway.programmed()?;
    ns.apply_all(&[object(&parent["name"])])?;
    arrives(&client, &called, &[], "named")?;
    denied(&stranger, &called, &[])?;
    // What an application writes of it itself is not read.
    let forged = [
        "-H",
        "weft-external: shop/other",
        "-H",
        "weft-external-to: 127.0.0.1",
    ];
    arrives(&client, &called, &forged, "named")?;
    let arrived = format!("{:?}", named.arrived());
    assert!(!arrived.contains("weft-"), "{arrived}");
    Ok(())
}

/// Two servers at one port: the one that objects name, and one at another address.
fn servers() -> anyhow::Result<(Outside, Outside)> {
    let named = Certificate::of(&["named.example"])?;
    let other = Certificate::of(&["other.example"])?;
    for _ in 0..ATTEMPTS {
        let first = Outside::start(ADDRESSES[0], 0, "named", &named)?;
        let port = first.address.port();
        if let Ok(second) = Outside::start(ADDRESSES[1], port, "other", &other) {
            return Ok((first, second));
        }
    }
    bail!("no port was free at both of {ADDRESSES:?}")
}

fn external(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "weft.dev/v1alpha1", "kind": "ExternalService",
        "metadata": {"name": name}, "spec": spec})
}

/// A Service without selector, which an object of its name leads outside.
fn standing_for(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 8080}]}})
}

/// Waits until a request is answered by this server.
fn arrives(client: &Pod, url: &str, args: &[&str], version: &str) -> anyhow::Result<()> {
    let what = format!("{url} {args:?} is answered by {version}");
    eventually(SOON, &what, || of_version(client, url, args, version))
}

fn of_version(client: &Pod, url: &str, args: &[&str], version: &str) -> anyhow::Result<()> {
    let seen = client.get(url, args)?;
    ensure!(
        seen.by_status.get("200") == Some(&1) && of(&seen, version) == 1,
        "{:?}",
        seen.last
    );
    Ok(())
}

/// Waits until a request is refused, since no object gives it.
fn denied(client: &Pod, url: &str, args: &[&str]) -> anyhow::Result<()> {
    let what = format!("{url} {args:?} is refused");
    eventually(SOON, &what, || {
        client.refused(url, args, 403, "egress-denied")
    })
}
