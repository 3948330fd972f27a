//! What ExternalServices mean, and that a mistake costs all of the object.

use policy::egress::ExternalProtocol;

use super::automation::{agree, read, rows, with};
use super::*;
use crate::weft::ExternalServiceSpec;

const EXTERNAL: &str = include_str!("../../external.yaml");

fn external(written: &Value) -> (External, Vec<Mistake>) {
    spec::<ExternalServiceSpec>(Some(written), &AT)
}

#[test]
fn external_service_that_says_everything_means_what_it_says() {
    let (external, mistakes) = external(&read(EXTERNAL));
    assert_eq!(mistakes, []);
    let hosts: Vec<String> = external.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["api.pay.example", "*.pay.example"]);
    let nets: Vec<String> = external.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["203.0.113.0/24", "2001:db8::7/128"]);
    let ports = external.ports.iter();
    let ports: Vec<_> = ports
        .map(|port| (port.port, port.protocol, port.target_port))
        .collect();
    let expected = [
        (80, ExternalProtocol::Http, 443),
        (443, ExternalProtocol::Tls, 443),
        (5432, ExternalProtocol::Tcp, 5432),
    ];
    assert_eq!(ports, expected);
    let tls = external.ports[0].tls.as_ref().unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("api.pay.example"));
    assert_eq!(tls.ca.as_deref(), Some("pay-ca"));
    let source = &external.sources[0];
    assert_eq!((&*source.namespace, &*source.name), ("shop", "web"));
    let (namespace, name) = external.gateway.unwrap();
    assert_eq!((&*namespace, &*name), ("edge", "out"));
}

/// What is written where, which field is refused if it is another one, and what is said of it.
const MISTAKES: &str = r#"
/hosts/0 | "https://pay.example" | - | must be a name in small letters
/hosts/0 | "API.pay.example" | - | must be a name in small letters
/hosts/0 | "203.0.113.7" | - | belongs into addresses
/hosts/1 | "*" | - | must be a name in small letters
/addresses/0 | "203.0.113.0/33" | - | must be a network
/addresses/0 | "::ffff:203.0.113.7" | - | must be a network
/addresses/0 | "pay.example" | - | must be a network
/ports | [] | - | name a port
/ports/0/port | 0 | - | must be from 1 to 65535
/ports/0/protocol | "http" | - | you may mean HTTP
/ports/0/protocol | "TCP" | /ports/0/tls | another protocol than HTTP
/ports/0/targetPort | 65536 | - | must be from 1 to 65535
/ports/0/tls/serverName | null | - | no name that the certificate could be checked for
/ports/0/tls/serverName | "*.pay.example" | - | name of one host
/ports/0/tls/caRef/name | "Pay CA" | - | name of a ConfigMap
/ports/1/port | 80 | - | named twice
/sources | [] | - | remove the field to admit all of the namespace
/sources/0/kind | "Group" | - | must be ServiceAccount
/sources/0/name | "" | - | name of a service account
/sources/0/namespace | "other" | - | only objects of namespace
/gateway/name | "Out" | - | name of a Gateway
/gateway/namespace | "a.b" | - | name of a namespace
"#;

#[test]
fn mistake_in_external_service_costs_all_and_names_remedy() {
    for (pointer, value, field, text) in rows(MISTAKES) {
        let (external, mistakes) = external(&with(&read(EXTERNAL), &pointer, &value));
        assert_eq!(refused(&mistakes), [field], "{pointer}: {mistakes:?}");
        assert!(mistakes[0].text.contains(&text), "{mistakes:?}");
        assert!(
            mistakes[0].text.ends_with("; the object has no effect"),
            "{mistakes:?}"
        );
        assert!(external.is_empty(), "{pointer}");
    }
    let nothing = json!({"ports": [{"port": 443, "protocol": "TLS"}]});
    assert_eq!(refused(&external(&nothing).1), ["spec"]);
}

#[test]
fn mesh_namespace_alone_admits_accounts_of_others() {
    let foreign = with(&read(EXTERNAL), "/sources/0/namespace", &json!("front"));
    assert_eq!(
        refused(&external(&foreign).1),
        ["spec.sources[0].namespace"]
    );
    let at = ValidationContext {
        namespace: "weft-system",
        ..AT
    };
    let (external, mistakes) = spec::<ExternalServiceSpec>(Some(&foreign), &at);
    assert_eq!(mistakes, []);
    assert_eq!(&*external.sources[0].namespace, "front");
}

#[test]
fn schema_and_judge_of_external_services_agree_at_bounds() {
    // TLS that a proxy begins stands beside one protocol only.
    let mut written = read(EXTERNAL);
    let port = written["ports"][0].as_object_mut().unwrap();
    port.remove("tls").unwrap();
    let tried = agree::<ExternalServiceSpec>(&written);
    assert!(tried > 20, "{tried}");
    let sources = &schema::<ExternalServiceSpec>()["properties"]["sources"];
    assert_eq!(sources["minItems"], 1, "an empty list never means all");
}
