//! Random rules and calls, judged as the specification is read plainly.

use proptest::prelude::*;

use super::*;

/// A rule in the words of the specification, for an evaluator that shares no
/// code with the one under test: numbers for callers, letters for paths.
#[derive(Clone, Debug)]
struct Plain {
    /// `destination.port`.
    port: Option<u16>,
    callers: Vec<PlainSource>,
    tcp_routes: Vec<Vec<u16>>,
    http_routes: Vec<Vec<(char, bool)>>,
}

#[derive(Clone, Debug, PartialEq)]
enum PlainSource {
    Number(u8),
    /// The pod of that number.
    Pod(u8),
    Everyone,
    Strangers,
}

#[derive(Clone, Debug)]
struct PlainCall {
    /// `None`: outside the mesh.
    caller: Option<u8>,
    /// Whether its certificate names its pod.
    names_pod: bool,
    port: u16,
    /// Letter of the path and whether it is a GET; `None`: opaque bytes.
    request: Option<(char, bool)>,
    /// Whether the port is declared to carry no HTTP.
    opaque: bool,
}

/// Straight from the text: a list of TCPRoutes (an empty one means all ports)
/// and a list of HTTPRouteGroups, each a list of (letter, GET only).
fn plainly_allowed(targets: &[Plain], call: &PlainCall) -> bool {
    for target in targets {
        let mut source_ok = false;
        for source in &target.callers {
            let this = match source {
                PlainSource::Number(n) => call.caller == Some(*n),
                PlainSource::Pod(n) => call.names_pod && call.caller == Some(*n),
                PlainSource::Everyone => call.caller.is_some(),
                PlainSource::Strangers => call.caller.is_none(),
            };
            if this {
                source_ok = true;
            }
        }
        if !source_ok {
            continue;
        }
        if target.port.is_some_and(|port| port != call.port) {
            continue;
        }
        let has_tcp = !target.tcp_routes.is_empty();
        let mut port_ok = false;
        for route in &target.tcp_routes {
            if route.is_empty() || route.contains(&call.port) {
                port_ok = true;
            }
        }
        let has_http = !target.http_routes.is_empty();
        let granted = match call.request {
            None => has_tcp && port_ok && (call.opaque || !has_http),
            Some((letter, is_get)) => {
                let mut route_ok = false;
                for group in &target.http_routes {
                    for (wanted, get_only) in group {
                        if *wanted == letter && (is_get || !get_only) {
                            route_ok = true;
                        }
                    }
                }
                if has_http {
                    route_ok && (!has_tcp || port_ok)
                } else {
                    has_tcp && port_ok
                }
            }
        };
        if granted {
            return true;
        }
    }
    false
}

fn as_rule(index: usize, plain: &Plain) -> Rule {
    let sources = plain.callers.iter().map(|source| match source {
        PlainSource::Number(n) => Source::Identity(id(&format!("s{n}"))),
        PlainSource::Pod(n) => Source::pods([format!("pod-{n}")]),
        PlainSource::Everyone => Source::Authenticated,
        PlainSource::Strangers => Source::Unauthenticated,
    });
    let ports = match plain.tcp_routes.as_slice() {
        [] => None,
        routes if routes.iter().any(Vec::is_empty) => Some(Ports::Any),
        routes => Some(Ports::only(routes.iter().flatten().copied())),
    };
    let matches = plain
        .http_routes
        .iter()
        .flatten()
        .map(|(letter, get_only)| {
            http(
                &format!("/{letter}"),
                if *get_only { &["GET"] } else { &["*"] },
            )
        });
    Rule {
        origin: Origin::new("TrafficTarget", "default", format!("t{index}")),
        sources: sources.collect(),
        ports,
        http: (!plain.http_routes.is_empty()).then(|| matches.collect()),
        limit: plain.port.map(|port| Ports::only([port])),
    }
}

fn a_letter() -> impl Strategy<Value = char> {
    prop_oneof![Just('a'), Just('b')]
}

fn a_target() -> impl Strategy<Value = Plain> {
    use proptest::collection::vec;
    let source = prop_oneof![
        4 => (0u8..3).prop_map(PlainSource::Number),
        2 => (0u8..3).prop_map(PlainSource::Pod),
        1 => Just(PlainSource::Everyone),
        1 => Just(PlainSource::Strangers),
    ];
    let tcp_route = vec(1u16..4, 0..3);
    let group = vec((a_letter(), any::<bool>()), 0..3);
    let port = proptest::option::weighted(0.3, 1u16..4);
    (
        vec(source, 0..3),
        port,
        vec(tcp_route, 0..3),
        vec(group, 0..3),
    )
        .prop_map(|(callers, port, tcp_routes, http_routes)| Plain {
            callers,
            port,
            tcp_routes,
            http_routes,
        })
}

fn a_call() -> impl Strategy<Value = PlainCall> {
    let request = proptest::option::weighted(0.7, (a_letter(), any::<bool>()));
    let caller = proptest::option::weighted(0.8, 0u8..3);
    let bits = (any::<bool>(), any::<bool>());
    (caller, bits, 1u16..4, request).prop_map(|(caller, (names_pod, opaque), port, request)| {
        PlainCall {
            caller,
            names_pod,
            port,
            request,
            opaque,
        }
    })
}

fn decide<'a>(access: &'a Access, call: &PlainCall) -> Verdict<'a> {
    let identity = call.caller.map(|n| id(&format!("s{n}")));
    let pod = call.caller.map(|n| format!("pod-{n}"));
    let caller = identity
        .as_ref()
        .map_or(Caller::Outside, |id| Caller::Mesh {
            id,
            pod: pod.as_deref().filter(|_| call.names_pod),
        });
    match call.request {
        None if call.opaque => access.decide(caller, call.port, EvaluatedTraffic::Opaque),
        None => access.decide(caller, call.port, EvaluatedTraffic::Bytes),
        Some((letter, is_get)) => {
            let headers = HeaderMap::new();
            let path = format!("/{letter}");
            let method = if is_get { Method::GET } else { Method::POST };
            let request = RequestFacts {
                method: &method,
                path: &path,
                query: None,
                headers: &headers,
            };
            access.decide(caller, call.port, EvaluatedTraffic::Http(&request))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decisions_match_plain_reading_of_specification(
        targets in proptest::collection::vec(a_target(), 0..4),
        call in a_call(),
    ) {
        let rules: Vec<_> = targets.iter().enumerate().map(|(i, plain)| as_rule(i, plain)).collect();
        let access = enforced(rules);
        let verdict = decide(&access, &call);
        let allowed = plainly_allowed(&targets, &call);
        prop_assert_eq!(verdict.is_allowed(), allowed);
        prop_assert_eq!(verdict.by().is_some(), allowed);
        prop_assert_eq!(matches!(verdict, Verdict::Refuse { .. }), !allowed);
    }

    #[test]
    fn added_or_reordered_rules_never_remove_permission(
        targets in proptest::collection::vec(a_target(), 1..4),
        call in a_call(),
    ) {
        let mut rules: Vec<_> = targets.iter().enumerate().map(|(i, plain)| as_rule(i, plain)).collect();
        let all = decide(&enforced(rules.clone()), &call).is_allowed();
        rules.reverse();
        prop_assert_eq!(decide(&enforced(rules.clone()), &call).is_allowed(), all);
        rules.pop();
        prop_assert!(all || !decide(&enforced(rules), &call).is_allowed());
    }
}
