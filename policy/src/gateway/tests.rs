//! Which listener a call belongs to, and which of its rules decides.

use http::{HeaderMap, Method};

use super::*;
use crate::http_match::{Description, HttpMatch, PathMatch};
use crate::reason::Reason;
use crate::route::{Match, Table};

fn pattern(raw: &str) -> Option<HostPattern> {
    (!raw.is_empty()).then(|| raw.parse().unwrap())
}

fn listener(name: &str, port: u16, hostname: &str) -> Listener {
    Listener {
        name: name.into(),
        port,
        target_port: target_port(port).unwrap(),
        protocol: ListenerProtocol::Http,
        hostname: pattern(hostname),
        certificates: Vec::new(),
        routes: Vec::new(),
    }
}

fn gateway(listeners: Vec<Listener>) -> Gateway {
    Gateway {
        origin: Origin::new("Gateway", "infra", "edge"),
        listeners,
    }
}

/// Requests below a path, by a route of this name.
fn routes(hostname: &str, all: &[(&str, &str)]) -> HostRoutes {
    let rules = all.iter().map(|(route, prefix)| {
        let path = PathMatch::Prefix((*prefix).to_owned());
        let description = Description {
            path: Some(path),
            ..Description::default()
        };
        Rule {
            origin: Origin::new("HTTPRoute", "shop", *route),
            when: Match::AnyOf(vec![HttpMatch::as_described("", description)]),
            then: Forward::Refuse(Reason::NoBackend),
        }
    });
    HostRoutes {
        hostname: pattern(hostname),
        table: Arc::new(Table {
            rules: rules.collect(),
            otherwise: Forward::Refuse(Reason::NoRoute),
        }),
    }
}

/// The route that decides; empty where none does.
fn decided<'a>(listener: &'a Listener, host: &str, path: &str) -> &'a str {
    let headers = HeaderMap::new();
    let facts = RequestFacts {
        method: &Method::GET,
        path,
        query: None,
        headers: &headers,
    };
    let rule = listener.decide(Some(host).filter(|host| !host.is_empty()), Some(&facts));
    rule.map_or("", |rule| &**rule.origin.name())
}

#[test]
fn listener_with_most_specific_hostname_gets_the_call() {
    let gateway = gateway(vec![
        listener("every", 80, ""),
        listener("wide", 80, "*.example.com"),
        listener("narrow", 80, "*.foo.example.com"),
        listener("exact", 80, "abc.foo.example.com"),
        listener("other-port", 81, "bar.com"),
    ]);
    for (host, name) in [
        ("bar.com", "every"),
        ("example.com", "every"),
        ("bar.example.com", "wide"),
        ("bar.foo.example.com", "narrow"),
        ("abc.foo.example.com", "exact"),
    ] {
        let found = gateway.listener(20_080, Some(host)).unwrap();
        assert_eq!(&*found.name, name, "{host}");
    }
    // An address, or no name.
    assert_eq!(&*gateway.listener(20_080, None).unwrap().name, "every");
    assert_eq!(gateway.listener(20_081, None), None);
    assert_eq!(gateway.listener(20_081, Some("foo.com")), None);
    assert_eq!(gateway.listener(80, Some("bar.com")), None);
}

#[test]
fn request_of_another_listener_is_misdirected_in_tls_alone() {
    let all = |protocol: ListenerProtocol| {
        let of = |name: &str| Listener {
            protocol,
            ..listener(name, 443, name)
        };
        gateway(vec![of("a.example"), of("b.example")])
    };
    for (protocol, sent, found) in [
        (ListenerProtocol::Https, "A.example:443", Ok("a.example")),
        (
            ListenerProtocol::Https,
            "b.example",
            Err(NoListener::Misdirected),
        ),
        (
            ListenerProtocol::Https,
            "c.example",
            Err(NoListener::OfHost),
        ),
        (
            ListenerProtocol::Https,
            "192.0.2.1",
            Err(NoListener::OfHost),
        ),
        (ListenerProtocol::Https, "a_.$", Err(NoListener::BadHost)),
        (ListenerProtocol::Http, "b.example", Ok("b.example")),
    ] {
        let gateway = all(protocol);
        let came_by = CameBy {
            target_port: 20_443,
            protocol,
            server_name: Some("a.example"),
        };
        let listener = gateway.listener_of_request(came_by, Some(sent));
        let name = listener.as_ref().map(|(listener, _)| &*listener.name);
        assert_eq!(name.map_err(|none| *none), found, "{protocol} {sent}");
    }
}

#[test]
fn rule_of_the_most_specific_host_decides_first() {
    let listener = Listener {
        routes: vec![
            routes("a.example.com", &[("exact", "/a")]),
            routes("*.example.com", &[("wide", "/a"), ("wide", "/b")]),
            routes("", &[("every", "/")]),
        ],
        ..listener("http", 80, "")
    };
    for (host, path, route) in [
        ("a.example.com", "/a/x", "exact"),
        // Where none of its rules fits the next host's do.
        ("a.example.com", "/b", "wide"),
        ("a.example.com", "/c", "every"),
        ("b.example.com", "/a", "wide"),
        ("example.org", "/a", "every"),
        ("", "/a", "every"),
    ] {
        assert_eq!(decided(&listener, host, path), route, "{host} {path}");
    }
    let only = Listener {
        routes: vec![routes("a.example.com", &[("exact", "/a")])],
        ..listener
    };
    assert_eq!(decided(&only, "a.example.com", "/b"), "");
    assert_eq!(decided(&only, "b.example.com", "/a"), "");
    assert_eq!(decided(&only, "", "/a"), "");
}

#[test]
fn hostnames_are_sorted_from_exact_to_every() {
    let mut all = [
        "",
        "*.com",
        "*.example.com",
        "a.com",
        "long.example.com",
        "*.a.example.com",
    ];
    all.sort_by_key(|raw| by_specificity(pattern(raw).as_ref()));
    let sorted = [
        "long.example.com",
        "a.com",
        "*.a.example.com",
        "*.example.com",
        "*.com",
        "",
    ];
    assert_eq!(all, sorted);
}

#[test]
fn privileged_ports_are_served_on_higher_ones() {
    for (port, target) in [
        (0, None),
        (1, Some(20_001)),
        (443, Some(20_443)),
        (1023, Some(21_023)),
        (1024, Some(1024)),
        (8080, Some(8080)),
        (65_535, Some(65_535)),
    ] {
        assert_eq!(target_port(port), target);
    }
}

#[test]
fn client_of_ipv6_is_its_network() {
    for (address, network) in [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fd00:1:2:3::4", "fd00:1:2:3::4"),
        ("fe80::1", "fe80::1"),
        ("::1", "::1"),
    ] {
        let network: IpAddr = network.parse().unwrap();
        assert_eq!(
            client_network(address.parse().unwrap()),
            network,
            "{address}"
        );
    }
}
