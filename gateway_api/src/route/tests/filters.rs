//! Tests of filters: what each becomes, and that anything else breaks its rule.

use http::StatusCode;
use policy::route::cors::Allowed;
use policy::route::edits::{PathRewrite, Scheme};

use super::*;

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn with(filters: Value) -> RouteRule {
    rule(json!({"matches": [{"path": {"value": "/a/"}}], "filters": filters}))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn only(filter: Value) -> RuleFilters {
    let rule = with(json!([filter]));
    assert_eq!(broken(&rule), "");
    rule.filters
}

#[test]
fn header_edits_take_the_first_of_equal_names() {
    let edits = json!({
        "set": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}],
        "add": [{"name": "x-b", "value": "a,b"}],
        "remove": ["X-C", "x-c"],
    });
    let request = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": edits});
    let response = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": edits});
    let filters = with(json!([request, response])).filters;
    for edits in [&filters.edits.request, &filters.edits.response] {
        let names = |list: &[(http::HeaderName, http::HeaderValue)]| -> Vec<String> {
            let texts = list.iter();
            let texts = texts.map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
            texts.collect()
        };
        assert_eq!(names(&edits.set), ["x-a=1"]);
        assert_eq!(names(&edits.add), ["x-b=a,b"]);
        assert_eq!(edits.remove, ["x-c"]);
    }
}

#[test]
fn rewrite_and_redirect_are_read_with_their_defaults() {
    let prefix = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"});
    let rewrite = json!({"hostname": "shop.example", "path": prefix});
    let rewrite = only(json!({"type": "URLRewrite", "urlRewrite": rewrite}))
        .edits
        .rewrite;
    let rewrite = rewrite.unwrap();
    assert_eq!(rewrite.host.as_deref(), Some("shop.example"));
    assert_eq!(
        rewrite.path,
        Some(PathRewrite::Prefix {
            matched: "/a/".to_owned(),
            with: "/b".to_owned(),
        })
    );

    let redirect = |written: Value| {
        let filter = json!({"type": "RequestRedirect", "requestRedirect": written});
        only(filter).redirect.unwrap()
    };
    let bare = redirect(json!({}));
    assert_eq!(
        (bare.status, bare.scheme, bare.port),
        (StatusCode::FOUND, None, None)
    );
    let full = json!({"type": "ReplaceFullPath", "replaceFullPath": ""});
    let all = redirect(json!({
        "scheme": "https", "hostname": "a.example", "port": 8443, "statusCode": 308, "path": full,
    }));
    assert_eq!((all.scheme, all.port), (Some(Scheme::Https), Some(8443)));
    assert_eq!(all.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(all.path, Some(PathRewrite::Full(String::new())));
}

#[test]
fn redirect_answers_with_edits_and_cors_of_its_rule() {
    let edits = json!({"set": [{"name": "x-a", "value": "1"}]});
    let rule = with(json!([
        {"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": edits},
        {"type": "CORS", "cors": {"allowOrigins": ["https://*.a.example"]}},
    ]));
    let redirect = rule.filters.redirect.unwrap();
    assert_eq!(redirect.response.set.len(), 1);
    assert_eq!(redirect.cors.unwrap().origins.len(), 1);
}

#[test]
fn mirrors_take_percent_fraction_or_everything() {
    let share = |more: Value| {
        let mut mirror = json!({"backendRef": {"name": "copy", "port": 80}});
        for (field, value) in more.as_object().unwrap() {
            mirror[field] = value.clone();
        }
        let filters = only(json!({"type": "RequestMirror", "requestMirror": mirror}));
        let (service, port) = filters.mirrors[0].target.service().unwrap();
        assert_eq!((service.to_string().as_str(), port), ("shop/copy", 80));
        filters.mirrors[0].share.to_string()
    };
    assert_eq!(share(json!({})), "100");
    assert_eq!(share(json!({"percent": 0})), "0");
    assert_eq!(share(json!({"percent": 25})), "25");
    assert_eq!(share(json!({"fraction": {"numerator": 5}})), "5");
    assert_eq!(
        share(json!({"fraction": {"numerator": 1, "denominator": 3}})),
        "33.3333"
    );
    let least = json!({"fraction": {"numerator": 1, "denominator": i32::MAX}});
    assert_eq!(share(least), "0.0001", "no share is rounded to nothing");
    let mirror = json!({
        "type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 80}},
    });
    assert_eq!(with(json!([mirror, mirror])).filters.mirrors.len(), 2);
}

#[test]
fn cors_is_read_with_its_defaults() {
    let cors = only(json!({"type": "CORS", "cors": {}})).cors.unwrap();
    assert_eq!((cors.max_age, cors.credentials), (5, false));
    assert_eq!(cors.methods, Allowed::Only(Vec::new()));
    let cors = json!({
        "allowOrigins": ["*"], "allowCredentials": true, "allowMethods": ["*"],
        "allowHeaders": ["X-A", "x-b"], "exposeHeaders": ["*"], "maxAge": 60,
    });
    let cors = only(json!({"type": "CORS", "cors": cors})).cors.unwrap();
    assert_eq!((cors.max_age, cors.credentials), (60, true));
    assert_eq!(
        (&cors.methods, &cors.expose),
        (&Allowed::Any, &Allowed::Any)
    );
    let names = ["x-a", "x-b"].map(http::HeaderName::from_static);
    assert_eq!(cors.headers, Allowed::Only(names.to_vec()));
}

#[test]
fn filter_that_cannot_be_carried_out_breaks_its_rule() {
    let edit = |name: &str| {
        let edits = json!({"set": [{"name": name, "value": "1"}]});
        json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": edits}])
    };
    let headers =
        |edits: Value| json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": edits}]);
    let redirect =
        |written: Value| json!([{"type": "RequestRedirect", "requestRedirect": written}]);
    let full = |path: &str| {
        let path = json!({"type": "ReplaceFullPath", "replaceFullPath": path});
        json!([{"type": "URLRewrite", "urlRewrite": {"path": path}}])
    };
    let mirror = |more: Value| json!([{"type": "RequestMirror", "requestMirror": more}]);
    let cors = |written: Value| json!([{"type": "CORS", "cors": written}]);
    let to = json!({"name": "copy", "port": 80});
    let half = json!({"backendRef": to, "percent": 50, "fraction": {"numerator": 1}});
    let more = json!({"backendRef": to, "fraction": {"numerator": 3, "denominator": 2}});
    let cases = [
        (json!([{"type": "ExternalAuth", "externalAuth": {}}]), ""),
        (json!([{"type": "NoSuchFilter"}]), ""),
        (json!([{}]), ".type"),
        (json!([{"type": "CORS"}]), ".cors"),
        (
            json!([{"type": "CORS", "cors": {}, "urlRewrite": {}}]),
            ".urlRewrite",
        ),
        (edit("weft-route"), ".requestHeaderModifier.set[0].name"),
        (edit("Connection"), ".requestHeaderModifier.set[0].name"),
        (
            edit("transfer-encoding"),
            ".requestHeaderModifier.set[0].name",
        ),
        (edit("content-length"), ".requestHeaderModifier.set[0].name"),
        (edit("host"), ".requestHeaderModifier.set[0].name"),
        (edit(":path"), ".requestHeaderModifier.set[0].name"),
        (
            headers(json!({"remove": ["weft-reason"]})),
            ".responseHeaderModifier.remove[0]",
        ),
        (
            headers(json!({"replace": []})),
            ".responseHeaderModifier.replace",
        ),
        (
            headers(json!({"set": [{"name": "a", "value": "b\n"}]})),
            ".responseHeaderModifier.set[0].value",
        ),
        (
            headers(json!({"set": [{"name": "a", "value": "b"}], "remove": ["A"]})),
            ".responseHeaderModifier.remove[0]",
        ),
        (
            redirect(json!({"scheme": "ftp"})),
            ".requestRedirect.scheme",
        ),
        (
            redirect(json!({"statusCode": 200})),
            ".requestRedirect.statusCode",
        ),
        (
            redirect(json!({"hostname": "10.0.0.1"})),
            ".requestRedirect.hostname",
        ),
        (
            redirect(json!({"hostname": "a.example:80"})),
            ".requestRedirect.hostname",
        ),
        (full("/a?b"), ".urlRewrite.path.replaceFullPath"),
        (full("/a/../b"), ".urlRewrite.path.replaceFullPath"),
        (full("/a\r\nb: c"), ".urlRewrite.path.replaceFullPath"),
        (mirror(json!({})), ".requestMirror.backendRef"),
        (mirror(half), ".requestMirror"),
        (mirror(more), ".requestMirror.fraction.numerator"),
        (
            cors(json!({"allowOrigins": ["a.example"]})),
            ".cors.allowOrigins[0]",
        ),
        (cors(json!({"maxAge": 0})), ".cors.maxAge"),
    ];
    for (filters, at) in cases {
        let found = with(filters.clone()).broken;
        let path = found.as_ref().map(|broken| broken.path.clone());
        assert_eq!(
            path,
            Some(format!("spec.rules[0].filters[0]{at}")),
            "{filters}"
        );
    }
}

#[test]
fn filters_that_exclude_each_other_break_their_rule() {
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {}});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {}});
    let cors = json!({"type": "CORS", "cors": {}});
    for filters in [
        json!([redirect, rewrite]),
        json!([cors, cors]),
        json!([rewrite, rewrite]),
    ] {
        let why = broken(&with(filters.clone()));
        assert!(
            why.starts_with("spec.rules[0].filters[1]: "),
            "{filters} {why}"
        );
    }
    let both = json!({"filters": [redirect], "backendRefs": [{"name": "cart", "port": 80}]});
    assert!(broken(&rule(both)).starts_with("spec.rules[0].backendRefs: "));
}

#[test]
fn prefix_is_replaced_only_beside_a_single_prefix_match() {
    let path = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"});
    let filters = json!([{"type": "URLRewrite", "urlRewrite": {"path": path}}]);
    let of = |matches: Value| rule(json!({"matches": matches, "filters": filters}));
    for matches in [
        json!([]),
        json!([{}]),
        json!([{"path": {"value": "/a"}, "method": "GET"}]),
    ] {
        assert_eq!(broken(&of(matches)), "");
    }
    let exact = json!([{"path": {"type": "Exact", "value": "/a"}}]);
    for matches in [
        exact,
        json!([{"path": {"value": "/a"}}, {"path": {"value": "/b"}}]),
    ] {
        let why = broken(&of(matches));
        assert!(why.contains("exactly one match"), "{why}");
    }
}

#[test]
fn backends_and_grpc_rules_have_fewer_filters() {
    let backend = |filter: &Value| {
        let backend = json!({"name": "cart", "port": 80, "filters": [filter]});
        rule(json!({"backendRefs": [backend]}))
    };
    let of_grpc = |filter: &Value| grpc(json!([{"filters": [filter]}])).rules.remove(0);
    let edits = json!({"add": [{"name": "x-a", "value": "1"}]});
    let headers = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": edits});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "a.example"}});
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {}});
    let cors = json!({"type": "CORS", "cors": {}});
    let edited = backend(&headers);
    assert_eq!(edited.backends[0].filters.edits.request.add.len(), 1);
    assert_eq!(broken(&backend(&rewrite)), "");
    assert_eq!(of_grpc(&headers).filters.edits.request.add.len(), 1);
    for filter in [&redirect, &cors] {
        let why = broken(&backend(filter));
        assert!(
            why.starts_with("spec.rules[0].backendRefs[0].filters[0]: "),
            "{why}"
        );
    }
    for filter in [&rewrite, &redirect, &cors] {
        let why = broken(&of_grpc(filter));
        assert!(why.starts_with("spec.rules[0].filters[0]: "), "{why}");
    }
}
