//! Which object gives a call, and where the call goes then.

use super::*;

const CLOUD: &str = "203.0.113.7";

fn object(name: &str, hosts: &[&str], nets: &[&str], ports: Vec<ExternalPort>) -> ExternalObject {
    ExternalObject {
        origin: Origin::new("ExternalService", "shop", name),
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        addresses: nets.iter().map(|net| net.parse().unwrap()).collect(),
        resolved: Vec::new(),
        gateway: None,
        callers: Vec::new(),
        ports,
    }
}

fn port(port: u16, protocol: ExternalProtocol) -> ExternalPort {
    ExternalPort {
        port,
        protocol,
        target_port: port,
        tls: None,
    }
}

fn http() -> Vec<ExternalPort> {
    vec![port(80, ExternalProtocol::Http)]
}

fn tls() -> Vec<ExternalPort> {
    vec![port(443, ExternalProtocol::Tls)]
}

fn tcp() -> Vec<ExternalPort> {
    vec![port(5432, ExternalProtocol::Tcp)]
}

fn denied(objects: Vec<ExternalObject>) -> Egress {
    Egress {
        mode: EgressMode::Deny,
        objects,
    }
}

fn call<'a>(
    addr: &str,
    port: u16,
    host: Option<&'a str>,
    sni: Option<&'a str>,
) -> ExternalCall<'a> {
    ExternalCall {
        addr: addr.parse().unwrap(),
        port,
        host,
        sni,
    }
}

/// Name of the object that gives a call, and the endpoints that it goes to.
fn given(egress: &Egress, call: &ExternalCall<'_>) -> Option<(String, Option<String>)> {
    match egress.decide(call) {
        Decision::Object(admitted) => {
            let name = admitted.object.origin.name().to_string();
            Some((name, admitted.endpoints()))
        }
        Decision::NoObject(_) | Decision::Denied => None,
    }
}

fn by_address(name: &str) -> Option<(String, Option<String>)> {
    Some((name.to_owned(), None))
}

fn by_name(name: &str, endpoints: &str) -> Option<(String, Option<String>)> {
    Some((name.to_owned(), Some(endpoints.to_owned())))
}

#[test]
fn mode_decides_about_calls_without_an_object() {
    let of = |mode| Egress {
        mode,
        objects: Vec::new(),
    };
    let any = call(CLOUD, 443, None, Some("pay.example"));
    for (mode, decision) in [
        (EgressMode::Allow, Decision::NoObject(Unnamed::Allowed)),
        (EgressMode::Audit, Decision::NoObject(Unnamed::Audit)),
        (EgressMode::Deny, Decision::Denied),
    ] {
        assert_eq!(of(mode).decide(&any), decision, "{mode}");
    }
    assert!(of(EgressMode::Allow).is_idle() && !of(EgressMode::Audit).is_idle());
    assert!(!Egress::closed().is_idle());
    assert_eq!(Egress::closed().decide(&any), Decision::Denied);
}

#[test]
fn address_with_the_longest_prefix_decides() {
    let egress = denied(vec![
        object("wide", &[], &["203.0.113.0/24"], tls()),
        object("narrow", &[], &["203.0.113.0/28"], tls()),
        object("six", &[], &["2001:db8::/32"], tls()),
    ]);
    let to = |addr| given(&egress, &call(addr, 443, None, None));
    assert_eq!(to(CLOUD), by_address("narrow"));
    assert_eq!(to("203.0.113.99"), by_address("wide"));
    assert_eq!(to("2001:db8::7"), by_address("six"));
    // The same address in the form of IPv6.
    assert_eq!(to("::ffff:203.0.113.7"), by_address("narrow"));
    assert_eq!(to("203.0.114.1"), None);
    let other_port = call(CLOUD, 80, None, None);
    assert_eq!(given(&egress, &other_port), None, "the port is not named");
}

#[test]
fn exact_host_beats_longest_wildcard() {
    let egress = denied(vec![
        object("all", &["*.example"], &[], http()),
        object("pay", &["*.pay.example"], &[], http()),
        object("api", &["api.pay.example"], &[], http()),
    ]);
    let to = |host| given(&egress, &call(CLOUD, 80, Some(host), None));
    assert_eq!(
        to("api.pay.example"),
        by_name("api", "external/api.pay.example:80")
    );
    assert_eq!(
        to("x.api.pay.example"),
        by_name("pay", "external/x.api.pay.example:80")
    );
    assert_eq!(to("pay.example"), by_name("all", "external/pay.example:80"));
    assert_eq!(to("example"), None);
}

/// Two objects that fit as well as each other.
#[test]
fn first_object_decides_between_equals() {
    let egress = denied(vec![
        object("older", &["pay.example"], &["203.0.113.0/24"], http()),
        object("newer", &["pay.example"], &["203.0.113.0/24"], http()),
    ]);
    let addressed = call(CLOUD, 80, None, None);
    assert_eq!(given(&egress, &addressed), by_address("older"));
    let named = call("198.51.100.1", 80, Some("pay.example"), None);
    assert_eq!(
        given(&egress, &named),
        by_name("older", "external/pay.example:80")
    );
}

#[test]
fn name_of_another_protocol_is_no_name() {
    let egress = denied(vec![
        object("web", &["pay.example"], &[], http()),
        object("tls", &["pay.example"], &[], tls()),
        object("db", &["pay.example"], &[], tcp()),
    ]);
    let named = Some("pay.example");
    assert_eq!(given(&egress, &call(CLOUD, 80, None, named)), None);
    assert_eq!(given(&egress, &call(CLOUD, 443, named, None)), None);
    assert_eq!(given(&egress, &call(CLOUD, 5432, named, named)), None);
    assert_eq!(
        given(&egress, &call(CLOUD, 443, named, named)),
        by_name("tls", "external/pay.example:443")
    );
    let bytes = call(CLOUD, 80, None, None);
    assert_eq!(given(&egress, &bytes), None, "neither request nor TLS");
}

#[test]
fn tcp_is_recognised_by_resolved_addresses_alone() {
    let mut db = object("db", &["db.example"], &[], tcp());
    db.resolved = vec![CLOUD.parse().unwrap()];
    // What an exact host resolves to is as exact as an address of one machine.
    let wide = object("wide", &[], &["203.0.113.0/24"], tcp());
    let mut web = object("web", &["db.example"], &[], http());
    web.resolved = vec![CLOUD.parse().unwrap()];
    let egress = denied(vec![wide, db, web]);
    let to = |addr, port| given(&egress, &call(addr, port, None, None));
    assert_eq!(to(CLOUD, 5432), by_address("db"));
    assert_eq!(to("203.0.113.8", 5432), by_address("wide"));
    assert_eq!(to(CLOUD, 80), None, "requests are known by their host");
}

#[test]
fn objects_add_up_and_none_takes_away() {
    let mut db = object("db", &["db.example"], &[], tcp());
    db.resolved = vec![CLOUD.parse().unwrap()];
    let all = [
        object("net", &[], &["203.0.113.0/24"], tls()),
        object("pay", &["pay.example", "*.pay.example"], &[], tls()),
        object("web", &["*.example"], &[], http()),
        db,
    ];
    let (named, other) = (Some("a.pay.example"), Some("other.test"));
    let calls = [
        call(CLOUD, 443, None, None),
        call("198.51.100.1", 443, None, named),
        call("198.51.100.1", 443, None, other),
        call("198.51.100.1", 80, named, None),
        call("198.51.100.1", 80, other, None),
        call(CLOUD, 5432, None, None),
    ];
    for chosen in 0..1_u32 << all.len() {
        let is_chosen = |at: usize| (chosen >> at) & 1 == 1;
        let some = all.iter().enumerate().filter(|(at, _)| is_chosen(*at));
        let some: Vec<ExternalObject> = some.map(|(_, one)| one.clone()).collect();
        for one_call in &calls {
            let alone = |one: &ExternalObject| given(&denied(vec![one.clone()]), one_call);
            let by_any = some.iter().any(|one| alone(one).is_some());
            let together = given(&denied(some.clone()), one_call).is_some();
            assert_eq!(together, by_any, "{chosen:b} {one_call:?}");
        }
    }
}

#[test]
fn call_leaves_at_target_port_with_name_checked() {
    let originated = |server_name: Option<&str>| {
        Some(Arc::new(OriginateTls {
            server_name: server_name.map(Arc::from),
            roots: Roots::Public,
        }))
    };
    let at = |tls| {
        vec![ExternalPort {
            target_port: 443,
            tls,
            ..port(80, ExternalProtocol::Http)
        }]
    };
    let egress = denied(vec![
        object("own", &["*.pay.example"], &[], at(originated(None))),
        object(
            "set",
            &[],
            &["203.0.113.0/24"],
            at(originated(Some("set.example"))),
        ),
    ]);
    let named = call("198.51.100.1", 80, Some("a.pay.example"), None);
    let Decision::Object(own) = egress.decide(&named) else {
        panic!("no object gives it");
    };
    assert_eq!(own.server_name(), Some("a.pay.example"));
    assert_eq!(own.endpoints().unwrap(), "external/a.pay.example:443");
    let addressed = call(CLOUD, 80, Some("a.pay.example"), None);
    let Decision::Object(set) = egress.decide(&addressed) else {
        panic!("no object gives it");
    };
    assert_eq!(
        (set.server_name(), set.endpoints()),
        (Some("set.example"), None)
    );
    assert!(egress.names("a.pay.example", 443));
    assert!(
        !egress.names("a.pay.example", 80),
        "nothing is dialled there"
    );
    assert!(!egress.names("set.example", 443));
}

#[test]
fn bytes_are_read_only_where_a_name_can_decide() {
    let mut ports = http();
    ports.extend(tls());
    ports.extend(tcp());
    let egress = denied(vec![
        object("named", &["pay.example"], &[], ports),
        object(
            "addressed",
            &[],
            &["203.0.113.0/24"],
            vec![port(8080, ExternalProtocol::Http)],
        ),
    ]);
    let reads = |port| {
        let Reads { host, sni } = egress.reads(port);
        (host, sni)
    };
    assert_eq!(reads(80), (true, false));
    assert_eq!(reads(443), (false, true));
    assert_eq!(reads(5432), (false, false));
    assert_eq!(reads(8080), (false, false));
    let mut endpoints: Vec<String> = egress.exact_endpoints().collect();
    endpoints.sort();
    assert_eq!(
        endpoints,
        ["external/pay.example:443", "external/pay.example:80"]
    );
}

#[test]
fn inner_and_disguised_addresses_are_never_outside() {
    for inner in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:203.0.113.7",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::127.0.0.1",
    ] {
        assert!(!may_be_outside(inner.parse().unwrap()), "{inner}");
    }
    // Networks of companies may use private addresses.
    for outer in [
        "203.0.113.7",
        "10.1.2.3",
        "192.168.1.1",
        "2001:db8::7",
        "fec0::1",
        "fd00::1",
        "64:ff9b::203.0.113.7",
    ] {
        assert!(may_be_outside(outer.parse().unwrap()), "{outer}");
    }
}

/// Else an answer could lead to a pod of IPv4 in a spelling that no pod has.
#[test]
fn address_of_nat64_is_that_of_ipv4() {
    let behind = |raw: &str| behind_nat64(raw.parse().unwrap()).map(|ip| ip.to_string());
    assert_eq!(behind("64:ff9b::10.0.0.11").as_deref(), Some("10.0.0.11"));
    for other in [
        "10.0.0.11",
        "::ffff:10.0.0.11",
        "64:ff9b:1::a00:b",
        "2001:db8::7",
    ] {
        assert_eq!(behind(other), None, "{other}");
    }
}

#[test]
fn egress_modes_parse_exactly_and_tighten_in_order() {
    assert!(EgressMode::Allow < EgressMode::Audit && EgressMode::Audit < EgressMode::Deny);
    for mode in [EgressMode::Allow, EgressMode::Audit, EgressMode::Deny] {
        assert_eq!(mode.as_str().parse(), Ok(mode));
    }
    for raw in ["", "Deny", " deny", "open"] {
        assert!(raw.parse::<EgressMode>().is_err(), "{raw:?}");
    }
}
