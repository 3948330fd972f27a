//! Which origins may read what, and what is sent to their browsers.

use super::*;

fn origins(texts: &[&str]) -> Vec<AllowedOrigin> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn cors(texts: &[&str]) -> Cors {
    Cors {
        origins: origins(texts),
        credentials: false,
        methods: Allowed::Only(vec![Method::GET, Method::PUT]),
        headers: Allowed::Only(vec![HeaderName::from_static("x-a")]),
        expose: Allowed::Only(Vec::new()),
        max_age: 5,
    }
}

fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
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

/// The headers of an answer, one a line, sorted.
fn shown(headers: &HeaderMap) -> String {
    let lines = headers.iter().map(|(name, value)| {
        let value = value.to_str().unwrap();
        format!("{name}: {value}")
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.join("\n")
}

fn preflight(cors: &Cors, pairs: &[(&'static str, &'static str)]) -> String {
    match cors.decide(&Method::OPTIONS, &request(pairs)) {
        CorsAnswer::Preflight(headers) => shown(&headers),
        other => format!("{other:?}"),
    }
}

fn simple(cors: &Cors, pairs: &[(&'static str, &'static str)]) -> String {
    match cors.decide(&Method::GET, &request(pairs)) {
        CorsAnswer::Simple(headers) => shown(&headers),
        other => format!("{other:?}"),
    }
}

#[test]
fn origin_fits_by_scheme_host_and_port() {
    let allows = |allowed: &str, called: &str| {
        let allowed: AllowedOrigin = allowed.parse().unwrap();
        allowed.allows(Origin::parse(called).as_ref())
    };
    let cases: [(&str, &[&str], &[&str]); 4] = [
        (
            "https://www.foo.com",
            &[
                "https://www.foo.com",
                "HTTPS://WWW.FOO.COM",
                "https://www.foo.com:443",
            ],
            &[
                "http://www.foo.com",
                "https://www.foo.com:8443",
                "https://foo.com",
                "https://www.foo.com.evil.org",
                "https://www.foo.com@evil.org",
                "null",
                "",
            ],
        ),
        (
            "https://*.bar.com",
            &["https://www.bar.com", "https://a.b.bar.com"],
            &[
                "https://bar.com",
                "https://.bar.com.evil.org",
                "https://xbar.com",
                "http://www.bar.com",
                "https://evil.org/.bar.com",
                "https://evil.org?.bar.com",
            ],
        ),
        (
            "http://*:8080",
            &["http://a:8080", "http://a.b:8080"],
            &["http://a", "https://a:8080"],
        ),
        ("*", &["https://a.b:1", "null", "whatever"], &[]),
    ];
    for (allowed, fitting, others) in cases {
        for called in fitting {
            assert!(allows(allowed, called), "{allowed} {called}");
        }
        for called in others {
            assert!(!allows(allowed, called), "{allowed} {called}");
        }
    }
    for wrong in [
        "",
        "foo.com",
        "ftp://foo.com",
        "https://",
        "https://a.*.com",
        "https://*a.com",
        "https://a:0",
        "https://a:x",
        "**",
    ] {
        assert!(wrong.parse::<AllowedOrigin>().is_err(), "{wrong}");
    }
}

#[test]
fn request_without_origin_is_none_of_cors() {
    let cors = cors(&["*"]);
    let asked = request(&[("access-control-request-method", "GET")]);
    for method in [Method::GET, Method::OPTIONS] {
        assert_eq!(cors.decide(&method, &HeaderMap::new()), CorsAnswer::NotCors);
        assert_eq!(cors.decide(&method, &asked), CorsAnswer::NotCors);
    }
}

#[test]
fn preflight_of_listed_origin_lists_what_is_allowed() {
    let mut cors = cors(&["https://www.foo.com", "https://*.bar.com"]);
    cors.credentials = true;
    cors.expose = Allowed::Only(vec![HeaderName::from_static("x-b")]);
    let asked = [
        ("origin", "https://a.bar.com"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-a, x-c"),
    ];
    let expected = "access-control-allow-credentials: true\n\
        access-control-allow-headers: x-a\n\
        access-control-allow-methods: GET, PUT\n\
        access-control-allow-origin: https://a.bar.com\n\
        access-control-expose-headers: x-b\n\
        access-control-max-age: 5\n\
        vary: origin";
    assert_eq!(preflight(&cors, &asked), expected);
    // OPTIONS that asks for no method is a request like any other.
    let plain = cors.decide(&Method::OPTIONS, &request(&asked[..1]));
    assert!(matches!(plain, CorsAnswer::Simple(_)), "{plain:?}");
}

#[test]
fn other_origin_gets_a_preflight_without_permission() {
    let cors = cors(&["https://www.foo.com"]);
    let asked = [
        ("origin", "https://evil.org"),
        ("access-control-request-method", "GET"),
    ];
    assert_eq!(preflight(&cors, &asked), "vary: origin");
    assert_eq!(simple(&cors, &asked[..1]), "vary: origin");
}

#[test]
fn stars_are_named_only_without_credentials() {
    let mut cors = cors(&["*"]);
    (cors.methods, cors.headers) = (Allowed::Any, Allowed::Any);
    cors.expose = Allowed::Any;
    let asked = [
        ("origin", "https://a"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-a, x-c"),
    ];
    let stars = "access-control-allow-headers: *\n\
        access-control-allow-methods: *\n\
        access-control-allow-origin: *\n\
        access-control-expose-headers: *\n\
        access-control-max-age: 5";
    assert_eq!(preflight(&cors, &asked), stars);
    cors.credentials = true;
    let named = "access-control-allow-credentials: true\n\
        access-control-allow-headers: x-a, x-c\n\
        access-control-allow-methods: PUT\n\
        access-control-allow-origin: https://a\n\
        access-control-max-age: 5\n\
        vary: origin";
    assert_eq!(preflight(&cors, &asked), named);
    // Nothing was asked for, so nothing is named.
    let without = preflight(&cors, &asked[..2]);
    assert!(!without.contains("allow-headers"), "{without}");
}

#[test]
fn answer_replaces_permissions_of_application_and_adds_vary() {
    let cors = cors(&["https://a"]);
    let CorsAnswer::Simple(answer) =
        cors.decide(&Method::GET, &request(&[("origin", "https://a")]))
    else {
        panic!("a request with an origin");
    };
    let mut response = request(&[
        ("access-control-allow-origin", "https://other"),
        ("vary", "accept"),
        ("x-app", "1"),
    ]);
    apply(&answer, &mut response);
    let expected = "access-control-allow-origin: https://a\n\
        vary: accept\n\
        vary: origin\n\
        x-app: 1";
    assert_eq!(shown(&response), expected);
}

#[test]
fn application_permits_nothing_beyond_the_route() {
    let cors = cors(&["https://a"]);
    for (origin, expected) in [
        ("https://evil.org", "vary: origin\nx-app: 1"),
        (
            "https://a",
            "access-control-allow-origin: https://a\nvary: origin\nx-app: 1",
        ),
    ] {
        let CorsAnswer::Simple(answer) = cors.decide(&Method::GET, &request(&[("origin", origin)]))
        else {
            panic!("a request with an origin");
        };
        let mut response = request(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "DELETE"),
            ("access-control-allow-headers", "x-b"),
            ("access-control-expose-headers", "x-app"),
            ("access-control-max-age", "86400"),
            ("x-app", "1"),
        ]);
        apply(&answer, &mut response);
        assert_eq!(shown(&response), expected, "{origin}");
    }
}
