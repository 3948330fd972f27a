//! Tests of matches: which requests they describe, and which cannot be understood.

use super::*;

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn path(path: Value) -> RouteRule {
    rule(json!({"matches": [{"path": path}]}))
}

#[test]
fn paths_are_compared_as_their_type_says() {
    let table = [
        (
            json!({"value": "/a"}),
            ["/a", "/a/", "/a/b"],
            ["/ab", "/", "/b/a"],
        ),
        (
            json!({"type": "PathPrefix", "value": "/a/"}),
            ["/a", "/a/", "/a/b"],
            ["/ab", "/", "/A"],
        ),
        (
            json!({"type": "Exact", "value": "/a"}),
            ["/a", "/a", "/a"],
            ["/a/", "/a/b", "/A"],
        ),
        (
            json!({"type": "RegularExpression", "value": "/a[0-9]+"}),
            ["/a1", "/a22", "/a0"],
            ["/a", "/a1/", "/b/a1"],
        ),
        (json!({}), ["/", "/a", "*"], ["", "", ""]),
    ];
    for (written, fit, other) in table {
        let rule = path(written.clone());
        assert_eq!(broken(&rule), "");
        for target in fit {
            assert!(fits(&rule, &Method::GET, target), "{written} {target}");
        }
        for target in other.into_iter().filter(|target| !target.is_empty()) {
            assert!(!fits(&rule, &Method::GET, target), "{written} {target}");
        }
    }
}

#[test]
fn methods_headers_and_parameters_all_have_to_fit() {
    let rule = rule(json!({"matches": [{
        "method": "PUT",
        "headers": [
            {"name": "X-Tier", "value": "gold"},
            {"name": "x-tier", "value": "silver"},
            {"name": "x-user", "type": "RegularExpression", "value": "[0-9]+"},
        ],
        "queryParams": [
            {"name": "q", "value": "a b"},
            {"name": "q", "value": "c"},
            {"name": "Q", "type": "RegularExpression", "value": ".+"},
        ],
    }]}));
    assert_eq!(broken(&rule), "");
    let fits = |method: Method, query: Option<&str>, user: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("x-tier", "gold".parse().unwrap());
        headers.insert("x-user", user.parse().unwrap());
        let facts = RequestFacts {
            method: &method,
            path: "/",
            query,
            headers: &headers,
        };
        rule.matches[0].http.matches(&facts)
    };
    assert!(fits(Method::PUT, Some("q=a%20b&Q=1&q=c"), "17"));
    assert!(!fits(Method::GET, Some("q=a%20b&Q=1"), "17"));
    assert!(!fits(Method::PUT, Some("q=a%20b&Q=1"), "17x"));
    assert!(!fits(Method::PUT, Some("q=c&Q=1"), "17"));
    assert!(!fits(Method::PUT, None, "17"));
}

#[test]
fn match_that_cannot_be_understood_fits_nothing_and_breaks_its_rule() {
    for (one, at) in [
        (
            json!({"path": {"type": "Glob", "value": "/*"}}),
            "path.type",
        ),
        (json!({"path": {"value": "a"}}), "path.value"),
        (json!({"path": {"value": "/a//b"}}), "path.value"),
        (json!({"path": {"value": "/a/../b"}}), "path.value"),
        (json!({"path": {"value": "/a/."}}), "path.value"),
        (json!({"path": {"value": "/a%2Fb"}}), "path.value"),
        (json!({"path": {"value": "/a%zz"}}), "path.value"),
        (json!({"path": {"value": "/a?b"}}), "path.value"),
        (
            json!({"path": {"type": "Exact", "value": "/a b"}}),
            "path.value",
        ),
        (
            json!({"path": {"type": "RegularExpression", "value": "("}}),
            "path.value",
        ),
        (json!({"path": {"value": "/a", "case": "any"}}), "path.case"),
        (json!({"method": "get"}), "method"),
        (json!({"method": "BREW"}), "method"),
        (
            json!({"headers": [{"name": "a b", "value": "c"}]}),
            "headers.a b",
        ),
        (json!({"headers": [{"name": "a"}]}), "headers[0].value"),
        (
            json!({"headers": [{"name": "a", "value": "c", "type": "Suffix"}]}),
            "headers[0].type",
        ),
        (
            json!({"headers": [{"name": "a", "value": "c", "invert": true}]}),
            "headers[0].invert",
        ),
        (
            json!({"queryParams": [{"name": "", "value": "c"}]}),
            "queryParams[0].name",
        ),
        (json!({"cookies": [{"name": "a", "value": "b"}]}), "cookies"),
    ] {
        let rule = rule(json!({"matches": [{"path": {"value": "/good"}}, one]}));
        let found = &rule.broken.as_ref().unwrap().path;
        assert_eq!(*found, format!("spec.rules[0].matches[1].{at}"), "{one}");
        assert_eq!(rule.matches.len(), 1, "{one}");
        assert!(fits(&rule, &Method::GET, "/good"));
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn grpc_match(one: Value) -> RouteRule {
    grpc(json!([{"matches": [one]}])).rules.remove(0)
}

#[test]
fn grpc_methods_become_paths() {
    let names = |service: Option<&str>, method: Option<&str>| {
        grpc_match(json!({"method": {"service": service, "method": method}}))
    };
    let calls = [
        "/shop.Cart/Get",
        "/shop.Cart/Put",
        "/shop.CartX/Get",
        "/a/b/Get",
    ];
    let table = [
        (
            names(Some("shop.Cart"), Some("Get")),
            [true, false, false, false],
        ),
        (names(Some("shop.Cart"), None), [true, true, false, false]),
        (names(None, Some("Get")), [true, false, true, false]),
        (names(Some(""), Some("")), [true, true, true, true]),
        (grpc_match(json!({})), [true, true, true, true]),
    ];
    let expression = |service: Option<&str>, method: Option<&str>| {
        let method = json!({"type": "RegularExpression", "service": service, "method": method});
        grpc_match(json!({"method": method}))
    };
    let expressions = [
        (
            expression(Some(r"shop\..*"), None),
            [true, true, true, false],
        ),
        (expression(None, Some("G.t|P.t")), [true, true, true, false]),
        (
            expression(Some(".*CartX?"), Some("Get")),
            [true, false, true, false],
        ),
    ];
    for (rule, fit) in table.into_iter().chain(expressions) {
        assert_eq!(broken(&rule), "");
        for (call, fit) in calls.into_iter().zip(fit) {
            assert_eq!(fits(&rule, &Method::POST, call), fit, "{rule:?} {call}");
            assert!(!fits(&rule, &Method::GET, call), "{rule:?} {call}");
        }
    }
}

#[test]
fn grpc_names_that_are_none_break_their_rule() {
    for (method, at) in [
        (json!({"service": "a/b"}), "service"),
        (json!({"service": "a..b"}), "service"),
        (json!({"service": "1a"}), "service"),
        (json!({"method": "a.b"}), "method"),
        (
            json!({"type": "RegularExpression", "service": "a)|(b"}),
            "service",
        ),
        (
            json!({"type": "RegularExpression", "method": "("}),
            "method",
        ),
        (json!({"type": "Prefix", "service": "a"}), "type"),
    ] {
        let rule = grpc_match(json!({"method": method}));
        let found = &rule.broken.as_ref().unwrap().path;
        assert_eq!(*found, format!("spec.rules[0].matches[0].method.{at}"));
        assert!(rule.matches.is_empty());
    }
    assert!(broken(&grpc_match(json!({"method": {"service": ".shop.Cart"}}))).is_empty());
}

#[test]
fn grpc_names_share_the_budget_of_their_route() {
    let name = "[a-c]+x";
    let method = json!({"type": "RegularExpression", "service": name, "method": name});
    let matches = vec![json!({"method": method}); 128];
    let rule = grpc(json!([{"matches": matches}])).rules.remove(0);
    // 4 MiB are 256 of the smallest expressions: two names and the path of both for each match.
    assert_eq!(rule.matches.len(), 256 / 3);
    let broken = broken(&rule);
    assert!(broken.contains("matches[85].method.method: "), "{broken}");
    assert!(broken.contains("more than 4096 KiB"), "{broken}");
}
