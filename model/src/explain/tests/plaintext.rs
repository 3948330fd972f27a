//! What lets a caller without a proxy reach one port of a strict workload.

use super::*;

const MTLS: &str = "weft.dev/mtls";
const PORTS: &str = "weft.dev/permissive-ports";

/// The fix of a call from outside to port 8080 of pod `api-1`.
fn fix(cluster: &Cluster) -> crds::observe::Fix {
    let status = explain(cluster, &to(8080));
    assert_eq!(status.reason, "no-identity", "{status:?}");
    let fix = status.fix.unwrap();
    assert_eq!((fix.objects.len(), fix.commands.len()), (0, 1), "{fix:?}");
    fix
}

fn to(port: u16) -> ExplanationSpec {
    let mut query = outside("Pod/api-1");
    query.to.port = Some(port);
    query
}

/// What becomes of calls from outside to these ports.
fn passes(cluster: &Cluster, ports: [u16; 3]) -> [bool; 3] {
    ports.map(|port| explain(cluster, &to(port)).verdict == ExplanationVerdict::Allowed)
}

#[test]
fn plaintext_is_permitted_at_its_port_and_no_other() {
    let strict = annotate(namespace("shop"), MTLS, "strict");
    for (written, list) in [
        (None, "8080"),
        (Some("9090, 9100-9110"), "9090,9100-9110,8080"),
        // What cannot be read excepts nothing.
        (Some("9090;9091"), "8080"),
    ] {
        let namespace = match written {
            Some(written) => annotate(strict.clone(), PORTS, written),
            None => strict.clone(),
        };
        let fix = fix(&shop().with(namespace.clone()));
        let command = format!("kubectl annotate namespace shop {PORTS}={list} --overwrite");
        assert_eq!(fix.commands, [command]);
        assert!(fix.warnings[0].contains("port 8080 of all pods"), "{fix:?}");
        let after = shop().with(annotate(namespace, PORTS, list));
        let excepted = list.contains("9100");
        let expected = [true, false, excepted];
        assert_eq!(passes(&after, [8080, 8081, 9105]), expected, "{list}");
    }
}

#[test]
fn list_of_a_pod_permits_plaintext_where_enough() {
    let own = annotate(pod("api-1", "10.0.0.11", "api"), MTLS, "strict");
    let excepted = annotate(own.clone(), PORTS, "8080");
    let strict = annotate(namespace("shop"), MTLS, "strict");
    let both = annotate(strict.clone(), PORTS, "8080");
    for (before, after, names_namespace) in [
        (shop(), shop().with(excepted.clone()), false),
        (
            shop().with(strict.clone()),
            shop().with(both).with(excepted.clone()),
            true,
        ),
    ] {
        let fix = fix(&before.with(own.clone()));
        let command = &fix.commands[0];
        assert!(command.starts_with("# shop/api-1 "), "{command}");
        assert!(
            command.contains("weft.dev/permissive-ports: \"8080\""),
            "{command}"
        );
        let of_namespace = command.contains("namespace shop weft.dev/permissive-ports=8080");
        assert_eq!(of_namespace, names_namespace, "{command}");
        assert_eq!(passes(&after, [8080, 8081, 8082]), [true, false, false]);
    }
    // Its own list alone is not enough where its namespace is strict too.
    let one = shop().with(strict).with(excepted);
    assert_eq!(passes(&one, [8080, 8081, 8082]), [false; 3]);
}

#[test]
fn one_list_holds_ports_of_all_refusing_pods() {
    let strict = annotate(namespace("shop"), MTLS, "strict");
    let other = slice(
        "api-y",
        "api",
        &[("http", 8081)],
        &[endpoint("api-2", "10.0.0.12")],
    );
    let first = slice(
        "api-x",
        "api",
        &[("http", 8080)],
        &[endpoint("api-1", "10.0.0.11")],
    );
    let cluster = shop().with(strict).with(first).with(other);
    let fix = explain(&cluster, &outside("Service/api")).fix.unwrap();
    assert_eq!(fix.commands.len(), 1, "{fix:?}");
    assert!(fix.commands[0].contains("=8080,8081 "), "{fix:?}");
}
