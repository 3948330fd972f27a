//! What older versions say and newer ones do not: rows E7, E8 and E17.

use anyhow::ensure;
use e2e::{
    conformance::Record,
    harness::{Outcome, eventually},
};
use serde_json::{Value, json};

use super::super::{
    SOON,
    additive::{allowed, group, refused, shop as shop_in_deny, target},
    split::{shop, within_5_sigma},
    url,
};

#[test]
fn older_target_port_still_limits_in_newer_version() -> Outcome {
    let mut row = Record::begin("E7")?;
    let (ns, one, _two) = shop_in_deny("old-port")?;
    let any = group("any", "[{name: any, pathRegex: '.*', methods: ['*']}]");
    ns.apply(&format!(
        r"{any}
---
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {{name: old}}
spec:
  destination: {{kind: ServiceAccount, name: server, namespace: $NS, port: 8080}}
  rules: [{{kind: HTTPRouteGroup, name: any}}]
  sources: [{{kind: ServiceAccount, name: one, namespace: $NS}}]
"
    ))?;
    allowed(&mut row, &one, &url("server", 8080, "/x"), "GET")?;
    refused(&mut row, &one, &url("server", 9091, "/echo"), "GET")?;
    // A client of a newer version reads it, sees no port, and writes it back.
    for version in ["v1alpha3", "v1alpha4"] {
        let kind = format!("traffictargets.{version}.access.smi-spec.io");
        let mut read = ns.json(&["get", &kind, "old"])?;
        let spec = read["spec"].to_string().replace(&ns.name, "NS");
        row.saw(format!("read as {version}"), spec);
        read["metadata"]["labels"] = json!({"touched-by": version});
        let text = read.to_string();
        ns.cluster.apply(&ns.name, &text)?;
        refused(&mut row, &one, &url("server", 9091, "/echo"), "GET")?;
        allowed(&mut row, &one, &url("server", 8080, "/x"), "GET")?;
    }
    // Control: the port is what refused.
    let whole = target("whole", "one", "[{kind: HTTPRouteGroup, name: any}]");
    ns.apply(&whole)?;
    allowed(&mut row, &one, &url("server", 9091, "/echo"), "GET")?;
    row.passed()?;
    Ok(())
}

#[test]
fn v1alpha1_weights_1_and_500m_are_two_to_one() -> Outcome {
    let mut row = Record::begin("E8")?;
    let ns = shop("fractions")?;
    ns.apply(
        r"
apiVersion: split.smi-spec.io/v1alpha1
kind: TrafficSplit
metadata: {name: shop}
spec:
  service: shop
  backends: [{service: stable, weight: 1}, {service: canary, weight: 500m}]
",
    )?;
    let read = ns.json(&["get", "trafficsplits.v1alpha1.split.smi-spec.io", "shop"])?;
    assert_eq!(
        read["spec"]["backends"],
        json!([{"service": "stable", "weight": 1}, {"service": "canary", "weight": "500m"}])
    );
    row.saw(
        "TrafficSplit v1alpha1, weights 1 and 500m",
        format!("read back {}", read["spec"]["backends"]),
    );
    let client = ns.pod("client")?;
    let seen = eventually(SOON, "the weights are in force", || {
        let seen = client.get(&url("shop", 8080, "/"), &["-n", "3000", "-c", "10"])?;
        within_5_sigma(&seen, "canary", 1.0 / 3.0)?;
        Ok(seen)
    })?;
    row.saw(
        "3000 x GET http://shop:8080/",
        format!("{:?} by {:?}", seen.by_status, seen.by_version),
    );
    row.passed()?;
    Ok(())
}

#[test]
fn header_list_equals_map_and_both_return_unchanged() -> Outcome {
    let mut row = Record::begin("E17")?;
    let (ns, one, _two) = shop_in_deny("headers")?;
    let address = url("server", 8080, "/x");
    for (shape, headers) in [
        ("map", json!({"x-team": "blue|green", "x-stage": "test"})),
        (
            "list",
            json!([{"x-team": "blue|green"}, {"x-stage": "test"}]),
        ),
    ] {
        let name = format!("by-{shape}");
        let group = json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
            "metadata": {"name": name},
            "spec": {"matches": [{"name": "m", "methods": ["GET"], "headers": headers}]}});
        ns.apply_all(&[group])?;
        let rules = format!("[{{kind: HTTPRouteGroup, name: {name}}}]");
        ns.apply(&target(&name, "one", &rules))?;
        for version in ["v1alpha4", "v1alpha3"] {
            let kind = format!("httproutegroups.{version}.specs.smi-spec.io");
            let read = ns.json(&["get", &kind, &name])?;
            let back = &read["spec"]["matches"][0]["headers"];
            assert_eq!(*back, headers, "{version}: {read}");
            row.saw(format!("headers {headers}, read as {version}"), back);
        }
        let asks = |headers: &[&str]| -> anyhow::Result<u16> {
            let words: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
            Ok(one.get(&address, &words)?.last.status)
        };
        let verdicts: [(&[&str], u16); 4] = [
            (&["x-team: green", "x-stage: test"], 200),
            (&["x-team: green"], 403),
            (&["x-team: greenish", "x-stage: test"], 403),
            (&["X-Team: blue", "X-Stage: test"], 200),
        ];
        for (headers, expected) in verdicts {
            eventually(SOON, &format!("{shape}: {headers:?}"), || {
                let status = asks(headers)?;
                ensure!(status == expected, "answered {status}");
                Ok(())
            })?;
            row.saw(format!("{shape}: GET /x with {headers:?}"), expected);
        }
        ns.kubectl(&["delete", "traffictarget", &name])?;
        eventually(SOON, "the target is gone", || {
            let status = asks(&["x-team: green", "x-stage: test"])?;
            ensure!(status == 403, "answered {status}");
            Ok(Value::Null)
        })?;
    }
    row.passed()?;
    Ok(())
}
