//! Edits of headers and paths, and where redirects go.

use super::*;

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn named(pairs: &[(&'static str, &'static str)]) -> Vec<(HeaderName, HeaderValue)> {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

#[test]
fn header_edits_remove_then_set_then_add() {
    let edits = HeaderEdits {
        set: named(&[("x-set", "new"), ("x-removed", "set")]),
        add: named(&[("x-set", "more"), ("x-add", "b")]),
        remove: vec![
            HeaderName::from_static("x-removed"),
            HeaderName::from_static("x-gone"),
        ],
    };
    let mut headers = map(&[
        ("x-set", "old"),
        ("x-set", "older"),
        ("x-add", "a"),
        ("x-removed", "1"),
        ("x-gone", "1"),
        ("x-kept", "1"),
    ]);
    edits.apply(&mut headers);
    let expected = map(&[
        ("x-set", "new"),
        ("x-set", "more"),
        ("x-add", "a"),
        ("x-add", "b"),
        ("x-removed", "set"),
        ("x-kept", "1"),
    ]);
    assert_eq!(headers, expected);
    assert!(HeaderEdits::default().is_empty() && !edits.is_empty());
}

#[test]
fn backend_edits_requests_last() {
    let set = |value: &'static str| HeaderEdits {
        set: named(&[("x-by", value)]),
        ..HeaderEdits::default()
    };
    let edits = |by: &'static str, host: &str, with: &str| Edits {
        request: set(by),
        response: HeaderEdits::default(),
        rewrite: Some(Rewrite {
            host: Some(host.into()),
            path: Some(PathRewrite::Prefix {
                matched: "/a".to_owned(),
                with: with.to_owned(),
            }),
        }),
    };
    let actions = Actions {
        edits: vec![
            edits("rule", "rule.example", "/a/r"),
            edits("backend", "backend.example", "/b"),
        ],
        ..Actions::default()
    };
    let mut request = HeaderMap::new();
    actions.edit_request(&mut request);
    assert_eq!(request["x-by"], "backend");
    assert_eq!(actions.host().map(|host| &**host), Some("backend.example"));
    assert_eq!(actions.path_and_query("/a/x?q=1"), "/b/r/x?q=1");
    let nothing = Actions::default();
    assert_eq!(nothing.host(), None);
    assert!(matches!(nothing.path_and_query("/a"), Cow::Borrowed("/a")));
}

/// The table of the Gateway API's description of `ReplacePrefixMatch`.
#[test]
fn prefix_is_replaced_as_the_gateway_api_lists_it() {
    for (path, matched, with, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        // Of every path, and of one that the prefix does not begin.
        ("/foo", "/", "/xyz", "/xyz/foo"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/food", "/foo", "/xyz", "/food"),
    ] {
        let rewrite = Rewrite {
            host: None,
            path: Some(PathRewrite::Prefix {
                matched: matched.to_owned(),
                with: with.to_owned(),
            }),
        };
        let case = format!("{path} {matched} {with}");
        assert_eq!(rewrite.path_and_query(path), expected, "{case}");
        let queried = rewrite
            .path_and_query(&format!("{path}?a=/foo?b"))
            .into_owned();
        assert_eq!(queried, format!("{expected}?a=/foo?b"), "{case}");
    }
}

#[test]
fn full_path_replaces_the_path_and_keeps_the_query() {
    let rewrite = |with: &str| Rewrite {
        host: None,
        path: Some(PathRewrite::Full(with.to_owned())),
    };
    assert_eq!(rewrite("/one").path_and_query("/a/b?c=d"), "/one?c=d");
    assert_eq!(rewrite("one").path_and_query("/a"), "/one");
    assert_eq!(rewrite("").path_and_query("/a"), "/");
    assert_eq!(Rewrite::default().path_and_query("/a?b"), "/a?b");
}

fn redirect() -> Redirect {
    Redirect {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: StatusCode::FOUND,
        response: HeaderEdits::default(),
        cors: None,
    }
}

#[test]
fn location_keeps_what_the_redirect_does_not_name() {
    let location = |redirect: &Redirect, authority: &str, port: u16| {
        redirect.location(Scheme::Http, authority, port, "/a/b?c=d")
    };
    let same = redirect();
    assert_eq!(location(&same, "shop", 80), "http://shop/a/b?c=d");
    // The port is the one that was called, whatever the request names.
    assert_eq!(location(&same, "shop:9", 8080), "http://shop:8080/a/b?c=d");
    assert_eq!(location(&same, "[::1]:9", 80), "http://[::1]/a/b?c=d");
    assert_eq!(location(&same, "[::1]", 80), "http://[::1]/a/b?c=d");
    let secure = Redirect {
        scheme: Some(Scheme::Https),
        ..redirect()
    };
    assert_eq!(location(&secure, "shop:8080", 8080), "https://shop/a/b?c=d");
    let named = Redirect {
        scheme: Some(Scheme::Https),
        host: Some("example.org".into()),
        port: Some(8443),
        path: Some(PathRewrite::Prefix {
            matched: "/a".to_owned(),
            with: "/z".to_owned(),
        }),
        ..redirect()
    };
    assert_eq!(
        location(&named, "shop", 80),
        "https://example.org:8443/z/b?c=d"
    );
    let plain = Redirect {
        port: Some(443),
        ..redirect()
    };
    assert_eq!(location(&plain, "shop", 80), "http://shop:443/a/b?c=d");
    let usual = Redirect {
        port: Some(80),
        path: Some(PathRewrite::Full("/only".to_owned())),
        ..redirect()
    };
    assert_eq!(location(&usual, "shop", 8080), "http://shop/only?c=d");
}
