//! Which callers may call what, case by case.
//!
//! Claims: attack-1

use http::{HeaderMap, Method};

use super::*;

mod plain_reading;

fn id(account: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", "default", account).unwrap()
}

fn http(path: &str, methods: &[&str]) -> HttpMatch {
    HttpMatch::new("m", Some(path), methods, &[] as &[(&str, &str)]).unwrap()
}

fn rule(name: &str, accounts: &[&str]) -> Rule {
    Rule {
        origin: Origin::new("TrafficTarget", "default", name),
        sources: accounts
            .iter()
            .map(|account| Source::Identity(id(account)))
            .collect(),
        ports: None,
        http: None,
        limit: None,
    }
}

fn enforced(rules: Vec<Rule>) -> Access {
    Access {
        enforcement: Enforcement::Enforce,
        rules,
    }
}

/// Calls as service account `who`; an empty name is a caller outside the mesh.
fn ask<'a>(access: &'a Access, who: &str, port: u16, method: &Method, path: &str) -> Verdict<'a> {
    let headers = HeaderMap::new();
    let request = RequestFacts {
        method,
        path,
        query: None,
        headers: &headers,
    };
    match who {
        "" => access.decide(Caller::Outside, port, EvaluatedTraffic::Http(&request)),
        _ => access.decide(
            Caller::mesh(&id(who)),
            port,
            EvaluatedTraffic::Http(&request),
        ),
    }
}

fn allowed(access: &Access, who: &str, port: u16, method: &Method, path: &str) -> bool {
    ask(access, who, port, method, path).is_allowed()
}

fn tcp(access: &Access, who: &str, port: u16) -> bool {
    access
        .decide(Caller::mesh(&id(who)), port, EvaluatedTraffic::Opaque)
        .is_allowed()
}

fn unread(access: &Access, who: &str, port: u16) -> bool {
    access
        .decide(Caller::mesh(&id(who)), port, EvaluatedTraffic::Bytes)
        .is_allowed()
}

#[test]
fn specification_example_allows_exactly_its_stated_requests() {
    let on_8080 = |name, accounts: &[&str], one| Rule {
        ports: Some(Ports::only([8080])),
        http: Some(vec![one]),
        ..rule(name, accounts)
    };
    let access = enforced(vec![
        on_8080("metrics", &["prometheus"], http("/metrics", &["GET"])),
        on_8080(
            "api",
            &["website-service", "payments-service"],
            http("/api", &["*"]),
        ),
    ]);
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
    ];
    for who in [
        "website-service",
        "payments-service",
        "prometheus",
        "other",
        "",
    ] {
        for port in [8080, 9090] {
            for method in &methods {
                for path in ["/api", "/api/x", "/metrics", "/", "/other"] {
                    let expected = port == 8080
                        && match who {
                            "prometheus" => path == "/metrics" && method == Method::GET,
                            "website-service" | "payments-service" => path.starts_with("/api"),
                            _ => false,
                        };
                    assert_eq!(
                        allowed(&access, who, port, method, path),
                        expected,
                        "{who} {method} {path} on {port}"
                    );
                }
            }
        }
    }
}

#[test]
fn e1_overlapping_routes_of_two_targets_add_up() {
    let access = enforced(vec![
        Rule {
            http: Some(vec![http(".*", &["*"])]),
            ..rule("all", &["s1"])
        },
        Rule {
            http: Some(vec![http(".*", &["GET"])]),
            ..rule("get", &["s2"])
        },
    ]);
    assert!(allowed(&access, "s1", 80, &Method::GET, "/"));
    assert!(allowed(&access, "s1", 80, &Method::DELETE, "/"));
    assert!(allowed(&access, "s2", 80, &Method::GET, "/"));
    assert!(!allowed(&access, "s2", 80, &Method::DELETE, "/"));
}

#[test]
fn e2_all_matches_of_a_group_are_allowed() {
    let both = vec![http("/a", &[]), http("/b", &["GET"])];
    let access = enforced(vec![Rule {
        http: Some(both),
        ..rule("t", &["s"])
    }]);
    assert!(allowed(&access, "s", 80, &Method::POST, "/a"));
    assert!(allowed(&access, "s", 80, &Method::GET, "/b"));
    assert!(!allowed(&access, "s", 80, &Method::POST, "/b"));
}

#[test]
fn e7_port_limit_narrows_but_never_allows_alone() {
    let limited = |ports, http: Option<&str>, limit: &[u16]| {
        enforced(vec![Rule {
            ports,
            http: http.map(|path| vec![self::http(path, &[])]),
            limit: Some(Ports::only(limit.iter().copied())),
            ..rule("t", &["s"])
        }])
    };
    // HTTP rules alone: those requests on that port, and no raw TCP even there.
    let access = limited(None, Some("/api"), &[8080]);
    assert!(allowed(&access, "s", 8080, &Method::GET, "/api"));
    assert!(!allowed(&access, "s", 8080, &Method::GET, "/other"));
    assert!(!allowed(&access, "s", 9090, &Method::GET, "/api"));
    assert!(!tcp(&access, "s", 8080) && !tcp(&access, "s", 9090));
    assert!(access.has_http_rule(8080) && !access.has_http_rule(9090));
    // With a TCPRoute: what both name.
    for ports in [Ports::Any, Ports::only([8080, 9090])] {
        let access = limited(Some(ports), None, &[8080]);
        assert!(tcp(&access, "s", 8080) && !tcp(&access, "s", 9090));
        assert!(allowed(&access, "s", 8080, &Method::GET, "/"));
        assert!(!allowed(&access, "s", 9090, &Method::GET, "/"));
    }
    let apart = limited(Some(Ports::only([9090])), Some("/"), &[8080]);
    for port in [8080, 9090] {
        assert!(!tcp(&apart, "s", port));
        assert!(!allowed(&apart, "s", port, &Method::GET, "/"));
    }
    // No route at all, and a limit to no port.
    let alone = limited(None, None, &[8080]);
    assert!(!tcp(&alone, "s", 8080) && !allowed(&alone, "s", 8080, &Method::GET, "/"));
    let nowhere = limited(Some(Ports::Any), Some("/"), &[]);
    assert!(!tcp(&nowhere, "s", 8080) && !allowed(&nowhere, "s", 8080, &Method::GET, "/"));
}

#[test]
fn pod_is_admitted_only_by_uid_in_certificate() {
    let access = enforced(vec![Rule {
        sources: vec![Source::pods(["b", "c", "a"])],
        ports: Some(Ports::Any),
        ..rule("t", &[])
    }]);
    let web = id("web");
    let may = |pod: Option<&str>| {
        access
            .decide(Caller::Mesh { id: &web, pod }, 80, EvaluatedTraffic::Opaque)
            .is_allowed()
    };
    assert!(may(Some("a")) && may(Some("b")) && may(Some("c")));
    assert!(!may(Some("d")) && !may(Some("")) && !may(Some("B")));
    assert!(!may(None), "a certificate that names no pod");
    assert!(
        !access
            .decide(Caller::Outside, 80, EvaluatedTraffic::Opaque)
            .is_allowed()
    );
    let no_pods = enforced(vec![Rule {
        sources: vec![Source::pods([] as [&str; 0])],
        ports: Some(Ports::Any),
        ..rule("t", &[])
    }]);
    let caller = Caller::Mesh {
        id: &web,
        pod: Some("a"),
    };
    assert!(
        !no_pods
            .decide(caller, 80, EvaluatedTraffic::Opaque)
            .is_allowed()
    );
}

#[test]
fn e3_without_sources_or_without_rules_nothing_is_allowed() {
    let any_port = Some(Ports::Any);
    let any_route = Some(vec![http(".*", &[])]);
    let empty = [
        rule("no rules", &["s"]),
        Rule {
            ports: any_port.clone(),
            http: any_route,
            ..rule("no sources", &[])
        },
        Rule {
            http: Some(vec![]),
            ..rule("no match", &["s"])
        },
        Rule {
            ports: any_port,
            http: Some(vec![]),
            ..rule("no match on any port", &["s"])
        },
        Rule {
            ports: Some(Ports::only([])),
            ..rule("no port", &["s"])
        },
    ];
    for one in empty {
        let name = one.origin.to_string();
        let access = enforced(vec![one]);
        assert!(!allowed(&access, "s", 80, &Method::GET, "/"), "{name}");
        assert!(!allowed(&access, "", 80, &Method::GET, "/"), "{name}");
    }
    assert!(!allowed(&enforced(vec![]), "s", 80, &Method::GET, "/"));
}

#[test]
fn e4_parts_of_two_targets_never_mix() {
    let access = enforced(vec![
        Rule {
            ports: Some(Ports::only([8080])),
            http: Some(vec![http("/x", &[])]),
            ..rule("x on 8080", &["s"])
        },
        Rule {
            ports: Some(Ports::only([9090])),
            http: Some(vec![http("/y", &[])]),
            ..rule("y on 9090", &["s"])
        },
        Rule {
            http: Some(vec![http("/z", &[])]),
            ..rule("z for another", &["t"])
        },
    ]);
    assert!(allowed(&access, "s", 8080, &Method::GET, "/x"));
    assert!(allowed(&access, "s", 9090, &Method::GET, "/y"));
    assert!(
        !allowed(&access, "s", 8080, &Method::GET, "/y"),
        "route of the second, port of the first"
    );
    assert!(!allowed(&access, "s", 9090, &Method::GET, "/x"));
    assert!(
        !allowed(&access, "s", 8080, &Method::GET, "/z"),
        "route of one, source of another"
    );
    assert!(!allowed(&access, "t", 8080, &Method::GET, "/x"));
    assert!(allowed(&access, "t", 7070, &Method::GET, "/z"));
}

#[test]
fn e5_tcp_route_admits_http_but_groups_no_bytes() {
    let over_tcp = enforced(vec![Rule {
        ports: Some(Ports::only([80])),
        ..rule("tcp", &["s"])
    }]);
    assert!(allowed(&over_tcp, "s", 80, &Method::DELETE, "/any"));
    assert!(!allowed(&over_tcp, "s", 81, &Method::GET, "/"));
    assert!(tcp(&over_tcp, "s", 80) && !tcp(&over_tcp, "s", 81) && !tcp(&over_tcp, "t", 80));

    let over_http = enforced(vec![Rule {
        http: Some(vec![http(".*", &[])]),
        ..rule("http", &["s"])
    }]);
    assert!(!tcp(&over_http, "s", 80));
    assert!(allowed(&over_http, "s", 80, &Method::GET, "/"));
}

// Claims: A1
#[test]
fn unparsed_bytes_pass_only_targets_without_http_rules() {
    let combined = |http: Vec<HttpMatch>| Rule {
        ports: Some(Ports::Any),
        http: Some(http),
        ..rule("both kinds", &["s"])
    };
    for http in [vec![http(".*", &[])], vec![]] {
        let access = enforced(vec![combined(http)]);
        assert!(!unread(&access, "s", 80));
        assert!(tcp(&access, "s", 80), "a port that is declared opaque");
    }
    let only_ports = Rule {
        ports: Some(Ports::only([80])),
        ..rule("ports", &["s"])
    };
    let other_caller = Rule {
        sources: vec![Source::Identity(id("t"))],
        ..only_ports.clone()
    };
    let access = enforced(vec![combined(vec![]), other_caller]);
    assert!(!unread(&access, "s", 80) && unread(&access, "t", 80));
    let access = enforced(vec![combined(vec![]), only_ports]);
    assert!(unread(&access, "s", 80) && !unread(&access, "s", 81));
}

#[test]
fn caller_may_request_where_http_rule_target_admits_it() {
    let access = enforced(vec![
        Rule {
            ports: Some(Ports::only([80])),
            http: Some(vec![http("/a", &[])]),
            ..rule("both kinds", &["s"])
        },
        Rule {
            ports: Some(Ports::Any),
            ..rule("ports", &["t"])
        },
    ]);
    let may = |who: &str, port| access.may_request(Caller::mesh(&id(who)), port);
    assert!(may("s", 80) && !may("s", 81));
    assert!(!may("t", 80) && !may("u", 80));
    assert!(!access.may_request(Caller::Outside, 80));
}

#[test]
fn groups_admit_whom_they_name() {
    let from = |source| {
        enforced(vec![Rule {
            sources: vec![source],
            ports: Some(Ports::Any),
            ..rule("t", &[])
        }])
    };
    let mesh = from(Source::Authenticated);
    assert!(allowed(&mesh, "anyone", 80, &Method::GET, "/"));
    assert!(!allowed(&mesh, "", 80, &Method::GET, "/"));
    let outside = from(Source::Unauthenticated);
    assert!(!allowed(&outside, "anyone", 80, &Method::GET, "/"));
    assert!(allowed(&outside, "", 80, &Method::GET, "/"));
}

#[test]
fn verdict_names_allowing_rule_or_refusal_reason() {
    let access = enforced(vec![
        rule("nothing", &["s"]),
        Rule {
            ports: Some(Ports::Any),
            ..rule("any", &["s"])
        },
    ]);
    let yes = ask(&access, "s", 80, &Method::GET, "/");
    let by = Some(&access.rules[1].origin);
    assert_eq!((yes, yes.by()), (Verdict::Allow { by }, by));
    let refused = |reason| Verdict::Refuse { reason, by: None };
    let no = ask(&access, "t", 80, &Method::GET, "/");
    assert_eq!((no, no.by()), (refused(Reason::NotAllowed), None));
    let outside = ask(&access, "", 80, &Method::GET, "/");
    assert_eq!(outside, refused(Reason::NoIdentity));
}

#[test]
fn audit_and_open_only_report_deny_verdict() {
    let reason = Reason::NotAllowed;
    for (enforcement, reported) in [
        (Enforcement::Audit, Verdict::Audit { reason }),
        // Nothing is judged: what would be refused is what no rule is named for.
        (Enforcement::Open, Verdict::Allow { by: None }),
    ] {
        let access = Access {
            enforcement,
            rules: vec![Rule {
                ports: Some(Ports::only([80])),
                ..rule("t", &["s"])
            }],
        };
        let would = ask(&access, "t", 80, &Method::GET, "/");
        assert_eq!((would, would.is_allowed()), (reported, true));
        let really = ask(&access, "s", 80, &Method::GET, "/");
        let by = Some(&access.rules[0].origin);
        assert_eq!((really, really.is_allowed()), (Verdict::Allow { by }, true));
        assert!(
            access
                .decide(Caller::Outside, 81, EvaluatedTraffic::Opaque)
                .is_allowed()
        );
    }
}

#[test]
fn http_rule_applies_only_to_covered_ports() {
    let narrow = Rule {
        ports: Some(Ports::only([80])),
        http: Some(vec![]),
        ..rule("narrow", &["s"])
    };
    let bytes = Rule {
        ports: Some(Ports::Any),
        ..rule("bytes", &["s"])
    };
    let mut access = enforced(vec![narrow, bytes]);
    assert!(access.has_http_rule(80), "even one that matches nothing");
    assert!(!access.has_http_rule(81));
    access.enforcement = Enforcement::Audit;
    assert!(access.has_http_rule(80));
    access.enforcement = Enforcement::Open;
    assert!(!access.has_http_rule(80), "nothing is judged");
    let everywhere = Rule {
        http: Some(vec![]),
        ..rule("everywhere", &[])
    };
    assert!(enforced(vec![everywhere]).has_http_rule(1));
}
