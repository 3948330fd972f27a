//! What a Gateway serves, there and back, and what refuses all of it.

use policy::gateway::ListenerProtocol;
use policy::http_match::{Description, HttpMatch};
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::route::{Backend, Match, Rule};

use super::*;

fn table(route: &str) -> Arc<Table<Forward>> {
    let backend = Backend::new(
        ServiceId::new("shop", "web"),
        80,
        1,
        "endpoints/shop/web:80",
    );
    let rule = |when, then| Rule {
        origin: Origin::new("HTTPRoute", "shop", route),
        when,
        then,
    };
    let one = HttpMatch::as_described("", Description::default());
    Arc::new(Table {
        rules: vec![
            rule(Match::AnyOf(vec![one]), Forward::split(vec![backend])),
            rule(Match::Always, Forward::Refuse(Reason::InvalidRoute)),
        ],
        otherwise: Forward::Refuse(Reason::NoRoute),
    })
}

fn everything() -> Gateway {
    let shared = table("shared");
    let host = |raw: &str, table: &Arc<Table<Forward>>| HostRoutes {
        hostname: (!raw.is_empty()).then(|| raw.parse().unwrap()),
        table: Arc::clone(table),
    };
    let listener = |name: &str, port, protocol| Listener {
        name: name.into(),
        port,
        target_port: 20_000 + port,
        protocol,
        hostname: None,
        certificates: Vec::new(),
        routes: Vec::new(),
    };
    Gateway {
        origin: Origin::new("Gateway", "infra", "edge"),
        listeners: vec![
            Listener {
                hostname: Some("*.example.com".parse().unwrap()),
                certificates: vec!["certificate/infra/edge".into()],
                routes: vec![
                    host("a.example.com", &shared),
                    host("b.example.com", &table("own")),
                    host("*.a.example.com", &shared),
                    host("", &table("every")),
                ],
                ..listener("https", 443, ListenerProtocol::Https)
            },
            listener("http", 80, ListenerProtocol::Http),
            listener("tls", 444, ListenerProtocol::Tls),
            listener("tcp", 25, ListenerProtocol::Tcp),
        ],
    }
}

#[test]
fn gateway_is_read_as_it_was_written() {
    let written = everything();
    let message = v1::Gateway::from(&written);
    assert_eq!(gateway(&message), Ok(written));
    let hosts = message.listeners[0].routes.iter();
    let hosts: Vec<usize> = hosts.map(|one| one.hostnames.len()).collect();
    assert_eq!(hosts, [2, 1, 1], "hosts with the same rules share them");
}

#[test]
fn routes_without_hostnames_are_for_every_host() {
    let mut message = v1::Gateway::from(&everything());
    message.listeners[0].routes.truncate(1);
    message.listeners[0].routes[0].hostnames.clear();
    let read = gateway(&message).unwrap();
    let hosts = read.listeners[0].routes.iter();
    assert_eq!(hosts.map(|one| &one.hostname).collect::<Vec<_>>(), [&None]);
}

#[test]
fn wrong_field_of_a_gateway_refuses_all_of_it() {
    type Spoil = fn(&mut v1::Gateway);
    let wrong: [(&str, Spoil); 9] = [
        ("origin", |all| all.origin = None),
        ("listeners[1].port", |all| all.listeners[1].port = 0),
        ("listeners[1].targetPort", |all| {
            all.listeners[1].target_port = 65_536;
        }),
        ("listeners[1].protocol", |all| all.listeners[1].protocol = 9),
        ("listeners[0].hostname", |all| {
            all.listeners[0].hostname = "*".to_owned();
        }),
        ("listeners[0].certificates[0]", |all| {
            all.listeners[0].certificates[0] = "bundle".to_owned();
        }),
        ("listeners[0].routes[1].hostnames[0]", |all| {
            all.listeners[0].routes[1].hostnames[0] = "10.0.0.1".to_owned();
        }),
        ("listeners[0].routes[0].rules[0].action", |all| {
            all.listeners[0].routes[0].rules[0].action = 7;
        }),
        // Nothing at a Gateway is the Service itself.
        ("listeners[0].routes[0].rules", |all| {
            all.listeners[0].routes[0].actions[0] = v1::RouteAction::from(&Forward::Root);
        }),
    ];
    for (field, spoil) in wrong {
        let mut message = v1::Gateway::from(&everything());
        spoil(&mut message);
        assert_eq!(gateway(&message).unwrap_err().field, field);
    }
}

#[test]
fn key_of_a_certificate_is_not_shown() {
    let secret = v1::ListenerCertificate {
        chain: vec![b"chain".to_vec()],
        key: b"key".to_vec(),
    };
    let resource = v1::Resource {
        content: Some(v1::resource::Content::ListenerCertificate(secret)),
        ..v1::Resource::default()
    };
    let shown = format!("{resource:?}");
    let bytes = ["107", "99, 104", "key:", "chain:"];
    assert!(bytes.iter().all(|bytes| !shown.contains(bytes)), "{shown}");
}
