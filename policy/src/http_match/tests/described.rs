//! Matches of Gateway API routes.

use super::*;

struct Sent<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a [(&'a str, &'a [u8])],
}

const PLAIN: Sent<'_> = Sent {
    method: "GET",
    path: "/",
    query: None,
    headers: &[],
};

fn compiled(description: Description) -> HttpMatch {
    HttpMatch::described(&mut Budget::group(), "m", description).unwrap()
}

fn fails(one: &HttpMatch, sent: &Sent<'_>) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in sent.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    let method = Method::from_bytes(sent.method.as_bytes()).unwrap();
    let facts = RequestFacts {
        method: &method,
        path: sent.path,
        query: sent.query,
        headers: &headers,
    };
    let part = one.fails(&facts);
    assert_eq!(one.matches(&facts), part.is_none(), "{part:?}");
    part.map(|part| format!("{part:?}"))
}

fn path(path: PathMatch) -> HttpMatch {
    compiled(Description {
        path: Some(path),
        ..Description::default()
    })
}

fn fits_path(one: &HttpMatch, path: &str) -> bool {
    let sent = Sent { path, ..PLAIN };
    fails(one, &sent).is_none()
}

#[test]
fn prefix_fits_by_segments_and_ignores_final_slash() {
    for written in ["/shop", "/shop/"] {
        let one = path(PathMatch::Prefix(written.to_owned()));
        for fitting in ["/shop", "/shop/", "/shop/a", "/shop//"] {
            assert!(fits_path(&one, fitting), "{written} {fitting}");
        }
        for other in ["/shops", "/sho", "/", "/a/shop", "/Shop", "/shop%2Fa", "*"] {
            assert!(!fits_path(&one, other), "{written} {other}");
        }
    }
    for written in ["", "/"] {
        let one = path(PathMatch::Prefix(written.to_owned()));
        for fitting in ["/", "/a", "*"] {
            assert!(fits_path(&one, fitting), "{written:?} {fitting}");
        }
        assert!(one.is_every_request());
    }
}

#[test]
fn exact_and_regex_paths_fit_in_full() {
    let exact = path(PathMatch::Exact("/a.b/*".to_owned()));
    assert!(fits_path(&exact, "/a.b/*"));
    for other in ["/axb/*", "/a.b/", "/a.b/*/", "/a.b/*c"] {
        assert!(!fits_path(&exact, other), "{other}");
    }
    for written in ["/v[0-9]+", "/v[0-9]+$", "^/v[0-9]+"] {
        let regex = path(PathMatch::Regex(written.to_owned()));
        assert!(fits_path(&regex, "/v12"), "{written}");
        for other in ["/v", "/v1/", "/v1/x", "x/v1"] {
            assert!(!fits_path(&regex, other), "{written} {other}");
        }
    }
    let either = path(PathMatch::Regex("/a|/b".to_owned()));
    assert!(fits_path(&either, "/a") && fits_path(&either, "/b"));
    assert!(!fits_path(&either, "/ab") && !fits_path(&either, "/a/b"));
    // A literal needs no engine, and is tied to both ends too.
    let literal = path(PathMatch::Regex("/shop".to_owned()));
    assert!(fits_path(&literal, "/shop") && !fits_path(&literal, "/shop/a"));
}

fn header(name: &str, value: ValueMatch) -> HttpMatch {
    compiled(Description {
        headers: vec![(name.to_owned(), value)],
        ..Description::default()
    })
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch::Exact(text.to_owned())
}

fn regex(text: &str) -> ValueMatch {
    ValueMatch::Regex(text.to_owned())
}

fn fits_values(one: &HttpMatch, name: &str, values: &[&[u8]]) -> bool {
    let headers: Vec<(&str, &[u8])> = values.iter().map(|value| (name, *value)).collect();
    let sent = Sent {
        headers: &headers,
        ..PLAIN
    };
    fails(one, &sent).is_none()
}

#[test]
fn values_of_a_header_are_joined_by_commas() {
    let one = header("X-Tier", exact("gold"));
    assert!(fits_values(&one, "x-tier", &[b"gold"]));
    assert!(!fits_values(&one, "x-tier", &[]));
    let others: [&[&[u8]]; 3] = [&[b"Gold"], &[b"gold", b"gold"], &[b"gold", b""]];
    for other in others {
        assert!(!fits_values(&one, "x-tier", other), "{other:?}");
    }
    let both = header("x-tier", exact("gold,silver"));
    assert!(fits_values(&both, "x-tier", &[b"gold", b"silver"]));
    assert!(fits_values(&both, "x-tier", &[b"gold,silver"]));
    assert!(!fits_values(&both, "x-tier", &[b"silver", b"gold"]));
    let either = header("x-tier", regex("gold(,.*)?"));
    assert!(fits_values(&either, "x-tier", &[b"gold", b"silver"]));
    assert!(!fits_values(&either, "x-tier", &[b"silver", b"gold"]));
    // What is no text fits nothing, whatever stands beside it.
    assert!(!fits_values(
        &header("x", regex(".*")),
        "x",
        &[b"a", b"\xff"]
    ));
}

#[test]
fn cookie_crumbs_are_one_cookie_whatever_the_kind() {
    for one in [
        header("cookie", exact("a=1; b=2")),
        header("cookie", regex("a=1; b=2")),
        header("cookie", ValueMatch::Each("a=1; b=2".to_owned())),
    ] {
        assert!(fits_values(&one, "cookie", &[b"a=1", b"b=2"]), "{one:?}");
        assert!(fits_values(&one, "cookie", &[b"a=1; b=2"]), "{one:?}");
        assert!(!fits_values(&one, "cookie", &[b"a=1"]), "{one:?}");
    }
}

#[test]
fn parameter_fits_by_its_first_decoded_value() {
    let of = |name: &str, value: ValueMatch| {
        compiled(Description {
            query: vec![(name.to_owned(), value)],
            ..Description::default()
        })
    };
    let fits = |one: &HttpMatch, query: Option<&str>| {
        let sent = Sent { query, ..PLAIN };
        fails(one, &sent).is_none()
    };
    let one = of("user name", exact("Ann Lee"));
    for fitting in [
        "user+name=Ann%20Lee",
        "a=b&user%20name=Ann+Lee&user+name=other",
    ] {
        assert!(fits(&one, Some(fitting)), "{fitting}");
    }
    for other in [
        "user+name=other&user+name=Ann+Lee",
        "user=Ann+Lee",
        "",
        "user+name",
    ] {
        assert!(!fits(&one, Some(other)), "{other}");
    }
    assert!(!fits(&one, None));
    // An expression sees what was decoded, line feeds included.
    let any = of("a", regex(".*"));
    assert!(fits(&any, Some("a=x")) && fits(&any, Some("a")));
    assert!(!fits(&any, Some("a=x%0Ay")));
    let digits = of("a", regex("[0-9]+"));
    assert!(fits(&digits, Some("a=%312")) && !fits(&digits, Some("a=1x")));
}

#[test]
fn part_that_does_not_fit_is_named_in_order() {
    let one = compiled(Description {
        path: Some(PathMatch::Exact("/a".to_owned())),
        methods: vec!["GET".to_owned()],
        headers: vec![("x".to_owned(), exact("1"))],
        query: vec![("q".to_owned(), exact("1"))],
    });
    let mut sent = Sent {
        method: "PUT",
        path: "/b",
        query: None,
        headers: &[],
    };
    let failed = |sent: &Sent<'_>| fails(&one, sent);
    assert_eq!(failed(&sent).as_deref(), Some("Path"));
    sent.path = "/a";
    assert_eq!(failed(&sent).as_deref(), Some("Method"));
    sent.method = "GET";
    assert_eq!(failed(&sent).as_deref(), Some("Header(\"x\")"));
    sent.headers = &[("x", b"1")];
    assert_eq!(failed(&sent).as_deref(), Some("Query(\"q\")"));
    sent.query = Some("q=1");
    assert_eq!(failed(&sent), None);
}

#[test]
fn unusable_part_is_refused_naming_its_field() {
    let bad = |description: Description| {
        let read = HttpMatch::described(&mut Budget::group(), "m", description.clone());
        // One that was not compiled before fits nothing.
        let unread = HttpMatch::as_described("m", description);
        assert_eq!(fails(&unread, &PLAIN).as_deref(), Some("Unusable"));
        read.unwrap_err().field
    };
    let with_path = |path: PathMatch| {
        bad(Description {
            path: Some(path),
            ..Description::default()
        })
    };
    let long = "a".repeat(MAX_EXACT_LEN + 1);
    assert_eq!(with_path(PathMatch::Regex("(".to_owned())), "path.value");
    assert_eq!(with_path(PathMatch::Exact(long.clone())), "path.value");
    assert_eq!(with_path(PathMatch::Prefix(long.clone())), "path.value");
    let with_header = |name: &str, value: ValueMatch| {
        bad(Description {
            headers: vec![(name.to_owned(), value)],
            ..Description::default()
        })
    };
    assert_eq!(with_header("no name", exact("a")), "headers.no name");
    assert_eq!(with_header("x", exact(&long)), "headers.x");
    assert_eq!(with_header("x", regex("[")), "headers.x");
    let query = bad(Description {
        query: vec![("q".to_owned(), regex("["))],
        ..Description::default()
    });
    assert_eq!(query, "queryParams.q");
}

#[test]
fn descriptions_of_other_kinds_are_other_matches() {
    let texts: [fn(String) -> PathMatch; 4] = [
        PathMatch::Open,
        PathMatch::Exact,
        PathMatch::Prefix,
        PathMatch::Regex,
    ];
    let all = texts.map(|make| path(make("/a".to_owned())));
    for (at, one) in all.iter().enumerate() {
        for (other_at, other) in all.iter().enumerate() {
            assert_eq!(one == other, at == other_at);
            assert_eq!(one.describes_what(other), at == other_at);
        }
        assert!(!one.is_every_request());
    }
}

/// One budget bounds one object; a table of the matches of many is bounded by their sum.
#[test]
fn compiled_size_is_what_the_budget_was_charged() {
    let mut budget = Budget::group();
    let mut size = |path: PathMatch| {
        let before = budget.left;
        let description = Description {
            path: Some(path),
            ..Description::default()
        };
        let one = HttpMatch::described(&mut budget, "m", description).unwrap();
        assert_eq!(one.compiled_size(), before - budget.left);
        one.compiled_size()
    };
    let text = "/v[0-9]+".to_owned();
    assert_eq!(size(PathMatch::Exact(text.clone())), 0);
    assert_eq!(size(PathMatch::Prefix(text.clone())), 0);
    assert_eq!(size(PathMatch::Regex("/v.*".to_owned())), 0);
    assert!(size(PathMatch::Regex(text.clone())) > 0);
    let unread = Description {
        path: Some(PathMatch::Regex(text)),
        ..Description::default()
    };
    let unread = HttpMatch::as_described("m", unread);
    assert!(fits_path(&unread, "/v1"), "compiled by now");
    assert_eq!(unread.compiled_size(), 0);
    let none: &[(&str, &str)] = &[];
    let elsewhere = HttpMatch::as_charged(7, "m", Some("/v1"), &["GET"], none);
    let same = HttpMatch::as_written("m", Some("/v1"), &["GET"], none);
    assert_eq!((&elsewhere, elsewhere.compiled_size()), (&same, 7));
}
