//! A mistake costs what holds it and no more, and is reported.
//!
//! Claims: calls-27

use super::*;

/// What is wrong where, in which section, and what is said of it.
const MISTAKES: &str = r#"
/timeouts/request | "10" | timeouts | must be a duration such as
/timeouts/request | "25h" | timeouts | must be from 0s to 24h
/timeouts/backendRequest | "11s" | timeouts | is longer than request
/timeouts/share | 0 | timeouts | is 0, but must be from 1 to 100
/retry/attempts | 6 | retry | is 6, but must be from 0 to 5
/retry/codes/0 | 200 | retry | must be from 400 to 599
/retry/grpcCodes/0 | "UNAVAILABLE" | retry | you may mean Unavailable
/retry/methods/0 | "GE T" | retry | no method of HTTP
/retry/backoff | "11s" | retry | must be from 0s to 10s
/retry/budget/interval | "500ms" | retry | must be from 1s to 1m
/ejection/codes/0 | 404 | ejection | must be from 500 to 599
/ejection/maxTime | "4s" | ejection | is shorter than baseTime
/breaker/state | "open" | breaker | you may mean Open
/breaker/failurePercent | 0 | breaker | must be from 1 to 100
/fallback/when/4 | "5XX" | fallback | you may mean 5xx
/fallback/response/status | 100 | fallback | must be from 200 to 599
/fallback/response/headers/0/name | "weft-x" | fallback | proxy itself
/fallback/response/headers/0/name | "Weft.x" | fallback | proxy itself
/fallback/response/headers/0/name | "a b" | fallback | no name of a header
/fallback/response/headers/0/value | "a\nb" | fallback | no header may hold
/priority | "Sheddabel" | priority | you may mean Sheddable
/overload/queueTime | "4ms" | overload | must be from 5ms to 10s
/mirror/0/service | "catalog" | mirror | cannot be its own mirror
/mirror/0/service | "catalog.other" | mirror | name of a Service
/mirror/0/allowTcp/0 | "db:0" | mirror | such as "catalog-db:5432"
/balance/locality | "PreferSameZones" | balance | mean PreferSameZone
/sticky/name | "a;b" | sticky | not a valid cookie name
/overrides/0/to | [] | overrides | must name at least one Service
/overrides/0/to/0 | "Catalog" | overrides | name of a Service
/overrides/0/tokens/0/sha256 | "hunter2" | overrides | never the secret
/overrides/0/tokens/0/expires | "soon" | overrides | must be a time
"#;

#[test]
fn validation_error_disables_section_and_names_remedy() {
    for row in MISTAKES.trim().lines() {
        let [pointer, value, section, text] = row.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let value: Value = serde_json::from_str(value).unwrap();
        let section = Section::ALL.into_iter().find(|one| one.as_str() == section);
        let section = section.unwrap();
        let (policy, mistakes) = validated(&changed(pointer, &value));
        let field = pointer.strip_prefix('/').unwrap().split('/');
        let mut path = "spec".to_owned();
        for part in field {
            match part.parse::<usize>() {
                Ok(index) => path.push_str(&format!("[{index}]")),
                Err(_) => path.push_str(&format!(".{part}")),
            }
        }
        assert_eq!(refused(&mistakes), [path], "{mistakes:?}");
        assert!(mistakes[0].text.contains(text), "{mistakes:?}");
        assert!(
            mistakes[0].text.ends_with("; this section is ignored"),
            "{mistakes:?}"
        );
        for other in Section::ALL {
            let there = match other {
                Section::Overrides => policy.overrides.is_some(),
                other => policy.sections.has(other),
            };
            assert_eq!(there, other != section, "{pointer}: {other}");
        }
    }
}

/// A response with a header of five bytes and a body of so many.
fn with_header(body: usize) -> Value {
    let header = json!({"name": "x-a", "value": "12"});
    json!({"response": {"status": 200, "headers": [header], "body": "x".repeat(body)}})
}

#[test]
fn fallback_has_exactly_one_form_within_byte_limit() {
    for (fallback, text) in [
        (json!({}), "holds neither of service and response"),
        (
            json!({"service": "a", "response": {"status": 200}}),
            "holds both of service and",
        ),
        (json!({"service": "catalog"}), "cannot be its own fallback"),
        (
            json!({"response": {"status": 200, "body": "x".repeat(4097)}}),
            "may have 4096",
        ),
        (with_header(4092), "has 4097 bytes of headers and body"),
        (
            json!({"response": {"status": 204, "body": "x"}}),
            "is set, but a response with status 204 has no body",
        ),
    ] {
        let (policy, mistakes) = validated(&about(json!({"fallback": fallback})));
        assert_eq!(policy.sections.fallback, None);
        assert!(mistakes[0].text.contains(text), "{mistakes:?}");
    }
    let (_, mistakes) = validated(&about(json!({"fallback": with_header(4091)})));
    assert_eq!(mistakes, []);
}

#[test]
fn a_wrong_limit_takes_no_other_limit_away() {
    let limits = json!([
        {"name": "a", "requests": 1},
        {"name": "b", "requests": 0},
        {"name": "a", "requests": 2},
        {"name": "C", "requests": 3},
        {"name": "d", "requests": 4, "key": {"type": "Header"}},
        {"name": "e", "requests": 5, "key": {"type": "Caller", "name": "x"}},
        {"name": "f", "requests": 6, "mode": "Enforced"},
        {"name": "g", "requests": 7, "burst": 0},
        {"name": "h", "requests": 8, "per": "2h"},
        {"name": "i", "requests": 9},
    ]);
    let (policy, mistakes) = validated(&about(json!({"rateLimits": limits})));
    let names: Vec<&str> = policy
        .sections
        .rate_limits
        .iter()
        .map(|one| &*one.name)
        .collect();
    assert_eq!(names, ["a", "i"]);
    let fields = [
        "[1].requests",
        "[2].name",
        "[3].name",
        "[4].key.name",
        "[5].key.name",
        "[6].mode",
        "[7].burst",
        "[8].per",
    ];
    assert_eq!(
        refused(&mistakes),
        fields.map(|field| format!("spec.rateLimits{field}"))
    );
    assert!(
        mistakes
            .iter()
            .all(|one| one.text.ends_with("this limit is ignored"))
    );
    let many: Vec<Value> = (0..17)
        .map(|n| json!({"name": format!("l{n}"), "requests": 1}))
        .collect();
    let (policy, mistakes) = validated(&about(json!({"rateLimits": many})));
    assert_eq!(policy.sections.rate_limits.len(), 16, "the first ones hold");
    assert_eq!(refused(&mistakes), ["spec.rateLimits"]);
}

#[test]
fn no_service_gets_the_copy_of_a_request_twice() {
    let mirror = json!([
        {"service": "next", "percent": 100, "methods": ["*"], "downstream": "Any"},
        {"service": "other", "percent": 1},
        {"service": "next", "percent": 1},
    ]);
    let (policy, mistakes) = validated(&about(json!({"mirror": mirror})));
    assert!(policy.sections.mirror.is_none(), "which is unknown");
    assert_eq!(refused(&mistakes), ["spec.mirror[2].service"]);
}

/// A fallback or a mirror to itself is refused: there it could mean nothing.
#[test]
fn self_override_of_service_is_accepted_with_warning() {
    let overrides = |to: &str| json!([{"to": ["next", to]}]);
    for port in [None, Some(8080)] {
        let mut spec = about(json!({"overrides": overrides("catalog")}));
        if let Some(port) = port {
            spec["targetRef"]["port"] = json!(port);
        }
        let (policy, mistakes) = validated(&spec);
        assert_eq!(policy.overrides.unwrap()[0].to.len(), 2);
        let [warning] = &mistakes[..] else {
            panic!("{mistakes:?}");
        };
        assert_eq!(warning.field, "spec.overrides[0].to[1]");
        let how = (warning.severity, warning.code);
        assert_eq!(how, (Severity::Warn, Code::FieldIgnored));
        assert!(warning.text.contains("name another one"), "{warning:?}");
    }
    // Of a namespace all but one are others.
    let mut spec = json!({"overrides": overrides("catalog")});
    spec["targetRef"] = json!({"kind": "Namespace"});
    assert_eq!(validated(&spec).1, []);
    assert_eq!(
        validated(&about(json!({"overrides": overrides("other")}))).1,
        []
    );
}

#[test]
fn unknown_policy_field_suggests_correct_one() {
    let spec = about(json!({
        "retries": {}, "retry": {"attempt": 3, "budget": {"percentage": 1}},
        "rateLimits": [{"name": "a", "requests": 1, "bust": 3}],
    }));
    let (policy, mistakes) = validated(&spec);
    assert!(policy.sections.retry.is_some());
    let fields: Vec<(&str, bool)> = mistakes
        .iter()
        .map(|one| (one.field.as_str(), one.text.contains("is one")))
        .collect();
    assert_eq!(
        fields,
        [
            ("spec.rateLimits[0].bust", true),
            ("spec.retries", false),
            ("spec.retry.attempt", true),
            ("spec.retry.budget.percentage", true),
        ]
    );
    assert!(
        mistakes
            .iter()
            .all(|one| { (one.severity, one.code) == (Severity::Warn, Code::FieldIgnored) })
    );
}

#[test]
fn reserved_header_key_distinguishes_no_caller_and_warns() {
    let limit = |name: &str, header: &str| {
        let key = json!({"type": "Header", "name": header});
        json!({"name": name, "requests": 1, "key": key})
    };
    let spec = about(json!({
        "rateLimits": [
            limit("own", "weft-client-id"), limit("tenant", "x-tenant"),
            limit("own-by-marks", "weft.client~id"), limit("other", "wefts"),
        ],
        "sticky": {"type": "Header", "name": "Weft-Context"},
    }));
    let (policy, mistakes) = validated(&spec);
    assert!(policy.sections.sticky.is_some(), "it is taken");
    assert_eq!(policy.sections.rate_limits.len(), 4);
    let mut mistaken: Vec<&str> = mistakes.iter().map(|one| one.field.as_str()).collect();
    mistaken.sort_unstable();
    let fields = [
        "spec.rateLimits[0].key.name",
        "spec.rateLimits[2].key.name",
        "spec.sticky.name",
    ];
    assert_eq!(mistaken, fields);
    let warns = |one: &Mistake| {
        (one.severity, one.code) == (Severity::Warn, Code::FieldIgnored)
            && one.text.contains("Type Caller")
    };
    assert!(mistakes.iter().all(warns), "{mistakes:?}");
}

#[test]
fn lists_matching_nothing_and_redundant_entries_warn() {
    let spec = |retry: &Value, when: &Value| {
        let fallback = json!({"response": {"status": 200}, "when": when});
        about(json!({"retry": {"methods": retry}, "fallback": fallback}))
    };
    let reported: [(Value, Value, &[&str]); 4] = [
        (
            json!([]),
            json!([]),
            &["spec.fallback.when", "spec.retry.methods"],
        ),
        (
            json!(["*", "GET"]),
            json!(["Timeout"]),
            &["spec.retry.methods[1]"],
        ),
        (json!(["*"]), json!(["Timeout"]), &[]),
        (json!(["GET", "PUT"]), json!(["Timeout"]), &[]),
    ];
    for (retry, when, fields) in reported {
        let (policy, mistakes) = validated(&spec(&retry, &when));
        assert!(policy.sections.retry.is_some() && policy.sections.fallback.is_some());
        let mut warned: Vec<&str> = mistakes.iter().map(|one| one.field.as_str()).collect();
        warned.sort_unstable();
        assert_eq!(warned, fields);
        let warns =
            |one: &Mistake| (one.severity, one.code) == (Severity::Warn, Code::FieldIgnored);
        assert!(mistakes.iter().all(warns), "{mistakes:?}");
    }
}

#[test]
fn sectionless_or_wrongly_shaped_policy_has_no_effect() {
    let (_, mistakes) = validated(&about(json!({})));
    assert_eq!(refused(&mistakes), ["spec"]);
    assert!(
        mistakes[0].text.contains("holds no section"),
        "{mistakes:?}"
    );
    for spec in [
        about(json!({"retry": [3]})),
        about(json!({"retry": {"budget": [20]}})),
        about(json!({"retry": "three"})),
        json!({"targetRef": ["Service", "catalog"], "retry": {}}),
    ] {
        let (policy, mistakes) = validated(&spec);
        assert_eq!(policy, Policy::default());
        assert_eq!(mistakes[0].code, Code::Unreadable);
        assert!(
            mistakes[0].text.ends_with("the policy has no effect"),
            "{mistakes:?}"
        );
    }
}
