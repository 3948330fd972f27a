//! Which requests a match is about.

use std::time::{Duration, Instant};

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::*;

mod described;

fn http(path: Option<&str>, methods: &[&str], headers: &[(&str, &str)]) -> HttpMatch {
    HttpMatch::new("m", path, methods, headers).unwrap()
}

fn bad(path: Option<&str>, methods: &[&str], headers: &[(&str, &str)]) -> BadMatch {
    HttpMatch::new("m", path, methods, headers).unwrap_err()
}

fn takes(one: &HttpMatch, method: &str, path: &str, headers: &[(&str, &[u8])]) -> bool {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    one.matches(&RequestFacts {
        method: &method,
        path,
        query: None,
        headers: &map,
    })
}

#[test]
fn path_regex_is_anchored_at_start_only() {
    let table = [
        ("/api", "/api", true),
        ("/api", "/api/x", true),
        ("/api", "/apix", true),
        ("/api", "/x/api", false),
        ("/api$", "/api/x", false),
        ("^/api", "/api", true),
        ("/a|/b", "/b/x", true),
        ("/a|/b", "/x/b", false),
        ("/a|b", "/x/b", false),
        ("/v[12]/", "/v2/x", true),
        ("/v[12]/", "/v3/x", false),
        ("/v[12]/", "/x/v1/", false),
        ("(?i)/API", "/api", true),
        ("/API", "/api", false),
        (r"/\d+$", "/123", true),
        (r"/\d+$", "/123a", false),
        ("(?m)^/b", "/a", false),
        (".*", "*", true),
        ("", "/x", true),
    ];
    for (regex, path, expected) in table {
        assert_eq!(
            takes(&http(Some(regex), &[], &[]), "GET", path, &[]),
            expected,
            "{regex} on {path}"
        );
    }
}

#[test]
fn without_path_and_methods_any_request_matches() {
    let any = http(None, &[], &[]);
    assert!(takes(&any, "GET", "/", &[]));
    assert!(takes(&any, "PURGE", "*", &[]));
}

#[test]
fn methods_are_compared_as_they_are_written() {
    let get = http(None, &["GET", "HEAD"], &[]);
    assert!(takes(&get, "GET", "/", &[]) && takes(&get, "HEAD", "/", &[]));
    for method in ["get", "POST", "TRACE", "CONNECT", "GETX"] {
        assert!(!takes(&get, method, "/", &[]), "{method}");
    }
    let star = http(None, &["GET", "*"], &[]);
    assert!(
        takes(&star, "PURGE", "/", &[]),
        "a star covers unregistered methods"
    );
}

#[test]
fn path_method_and_every_header_must_hold() {
    let all = http(Some("/a"), &["GET"], &[("x", "1"), ("y", "2")]);
    assert!(takes(&all, "GET", "/a", &[("x", b"1"), ("y", b"2")]));
    assert!(!takes(&all, "PUT", "/a", &[("x", b"1"), ("y", b"2")]));
    assert!(!takes(&all, "GET", "/b", &[("x", b"1"), ("y", b"2")]));
    assert!(!takes(&all, "GET", "/a", &[("x", b"1")]));
    let twice = http(None, &[], &[("x", "a.*"), ("X", ".*b")]);
    assert!(takes(&twice, "GET", "/", &[("x", b"ab")]));
    assert!(!takes(&twice, "GET", "/", &[("x", b"ac")]));
}

#[test]
fn a_header_value_is_matched_in_full() {
    let table: &[(&str, &str, bool)] = &[
        ("gold", "gold", true),
        ("gold", "golden", false),
        ("gold", "my gold", false),
        ("^gold$", "gold", true),
        (".*gold.*", "my golden", true),
        ("a|b", "b", true),
        ("a|b", "ab", false),
        ("a|bc", "xbc", false),
        ("(?m)^a$", "a", true),
        ("", "", true),
        ("", "x", false),
        (".*", "", true),
    ];
    for (regex, value, expected) in table {
        let one = http(None, &[], &[("x-tier", regex)]);
        assert_eq!(
            takes(&one, "GET", "/", &[("x-tier", value.as_bytes())]),
            *expected,
            "{regex} on {value}"
        );
    }
}

#[test]
fn header_names_ignore_case_but_nothing_else() {
    let one = http(None, &[], &[("X-Tier", "gold")]);
    assert!(takes(&one, "GET", "/", &[("x-tier", b"gold")]));
    assert!(!takes(&one, "GET", "/", &[("x_tier", b"gold")]));
}

#[test]
fn absent_header_does_not_match_even_empty_regex() {
    for regex in [".*", "", "^$"] {
        assert!(
            !takes(&http(None, &[], &[("x", regex)]), "GET", "/", &[]),
            "{regex}"
        );
        assert!(
            !takes(&http(None, &[], &[("cookie", regex)]), "GET", "/", &[]),
            "{regex}"
        );
    }
}

#[test]
fn every_single_value_must_match() {
    let one = http(None, &[], &[("x", "good")]);
    assert!(takes(&one, "GET", "/", &[("x", b"good"), ("x", b"good")]));
    for values in [[&b"good"[..], b"evil"], [b"evil", b"good"]] {
        assert!(!takes(
            &one,
            "GET",
            "/",
            &[("x", values[0]), ("x", values[1])]
        ));
    }
    assert!(
        !takes(&one, "GET", "/", &[("x", b"good,good")]),
        "a list is one value"
    );
}

#[test]
fn a_value_that_is_no_utf8_never_matches() {
    for name in ["x", "cookie"] {
        for regex in [".*", "(?s).*", r"[^a]*", "a"] {
            let one = http(None, &[], &[(name, regex)]);
            assert!(
                !takes(&one, "GET", "/", &[(name, b"\xff")]),
                "{name} {regex}"
            );
            assert!(
                !takes(&one, "GET", "/", &[(name, b"a"), (name, b"\xff")]),
                "{name} {regex}"
            );
        }
    }
    let utf8 = http(None, &[], &[("x", "ä")]);
    assert!(takes(&utf8, "GET", "/", &[("x", "ä".as_bytes())]));
}

#[test]
fn cookie_crumbs_are_one_value() {
    let one = http(None, &[], &[("Cookie", ".*user=a.*; tier=gold")]);
    assert!(takes(&one, "GET", "/", &[("cookie", b"user=a; tier=gold")]));
    assert!(takes(
        &one,
        "GET",
        "/",
        &[("cookie", b"user=a"), ("cookie", b"tier=gold")]
    ));
    assert!(!takes(
        &one,
        "GET",
        "/",
        &[("cookie", b"tier=gold"), ("cookie", b"user=a")]
    ));
}

#[test]
fn what_cannot_be_used_is_refused_with_its_field() {
    assert_eq!(bad(Some("("), &[], &[]).field, "pathRegex");
    assert_eq!(bad(None, &["GET", "G T"], &[]).field, "methods[1]");
    assert_eq!(bad(None, &[""], &[]).field, "methods[0]");
    assert_eq!(
        bad(None, &[], &[(":authority", "a")]).field,
        "headers.:authority"
    );
    assert_eq!(bad(None, &[], &[("a b", "a")]).field, "headers.a b");
    assert_eq!(bad(None, &[], &[("x", "[")]).field, "headers.x");
    let unclosed = bad(Some("/a("), &[], &[]);
    assert_eq!(
        unclosed.to_string(),
        "pathRegex: is no regular expression: unclosed group"
    );
}

#[test]
fn a_pattern_cannot_escape_its_anchors() {
    for regex in ["a)|(?:b", "a)|.*(?:", ")", "(?x) a # comment"] {
        assert_eq!(bad(Some(regex), &[], &[]).field, "pathRegex", "{regex}");
        assert_eq!(
            bad(None, &[], &[("x", regex)]).field,
            "headers.x",
            "{regex}"
        );
    }
}

#[test]
fn patterns_have_a_limit_in_text_and_in_size() {
    let longest = "a".repeat(MAX_REGEX_LEN);
    assert!(HttpMatch::new("m", Some(&longest), &["*"], &[("x", "a")]).is_ok());
    let longer = "a".repeat(MAX_REGEX_LEN + 1);
    assert_eq!(
        bad(Some(&longer), &[], &[]).reason,
        "is longer than 1024 bytes"
    );
    let nested = bad(Some("(a{500}){500}"), &[], &[]);
    assert_eq!(nested.reason, "needs more than 256 KiB when compiled");
    assert_eq!(
        bad(None, &[], &[("x", "(a{500}){500}")]).reason,
        nested.reason
    );
    let empty_loop = bad(Some("(?:){4294967295}(?:a{1000}){1000}"), &[], &[]);
    assert_eq!(empty_loop.field, "pathRegex");
}

#[test]
fn group_regexes_share_one_budget_and_plain_are_free() {
    let mut budget = Budget::group();
    let mut add = |path: &str| {
        let none: &[(&str, &str)] = &[];
        HttpMatch::within(&mut budget, "m", Some(path), &["*"], none).map_err(|bad| bad.reason)
    };
    for _ in 0..1000 {
        assert!(add("/api/.*").is_ok());
    }
    // Sixteen of the largest class are four MiB.
    let heavy = r"/\w{3}";
    let fit = (0..1000).take_while(|_| add(heavy).is_ok()).count();
    assert!((16..=64).contains(&fit), "{fit} fit");
    let refused = add(heavy).unwrap_err();
    assert!(refused.contains("more than 4096 KiB"), "{refused}");
    assert!(add("/api/.*").is_ok(), "what costs nothing still fits");
    // One that is refused was compiled too.
    let mut budget = Budget::group();
    for _ in 0..16 {
        let path = Some("(a{500}){500}");
        let none: &[(&str, &str)] = &[];
        let bad = HttpMatch::within(&mut budget, "m", path, &["*"], none).unwrap_err();
        assert_eq!(bad.reason, "needs more than 256 KiB when compiled");
    }
    assert_eq!(budget.left, 0);
}

#[test]
fn no_pattern_makes_matching_slow() {
    let value = vec![b'a'; 60 * 1024];
    let mut hostile = value.clone();
    hostile.push(b'b');
    for regex in ["(a+)+$", "(a|aa)+$", "(a*)*$", r"(\w+\s?)+$"] {
        let one = http(None, &[], &[("x", regex)]);
        let start = Instant::now();
        assert!(takes(&one, "GET", "/", &[("x", &value)]), "{regex}");
        let _ = takes(&one, "GET", "/", &[("x", &hostile)]);
        // Milliseconds in truth; exponential would not end today.
        assert!(start.elapsed() < Duration::from_secs(5), "{regex}");
    }
}

#[test]
fn what_was_written_can_be_read_back() {
    let one = http(Some("/a"), &["GET", "*"], &[("X-Tier", "gold")]);
    assert_eq!(one.name(), "m");
    let path = Some(PathMatch::Open("/a".to_owned()));
    assert_eq!(one.description().path, path);
    assert_eq!(one.methods(), ["GET", "*"]);
    let gold = ValueMatch::Each("gold".to_owned());
    assert_eq!(one.description().headers, [("X-Tier".to_owned(), gold)]);
    assert!(one.header_names().eq(["X-Tier"]));
    assert_eq!(one, one.clone());
    assert_ne!(one, http(Some("/a"), &["GET"], &[("X-Tier", "gold")]));
}

#[test]
fn text_match_accepts_same_requests_as_compiled_match() {
    let headers = [("x-tier", "gold|silver")];
    for (path, methods) in [(None, &["*"][..]), (Some("/items/[0-9]+"), &["GET", "PUT"])] {
        let compiled = HttpMatch::new("m", path, methods, &headers).unwrap();
        let text = HttpMatch::as_written("m", path, methods, &headers);
        assert_eq!(text, compiled);
        for method in ["GET", "POST"] {
            for path in ["/items/7", "/items/x", "/"] {
                for value in [&b"gold"[..], b"tin"] {
                    let headers = [("x-tier", value)];
                    assert_eq!(
                        takes(&text, method, path, &headers),
                        takes(&compiled, method, path, &headers),
                        "{method} {path}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_text_that_cannot_be_compiled_fits_nothing() {
    let long = "a".repeat(MAX_REGEX_LEN + 1);
    let none: [(&str, &str); 0] = [];
    let wrong = [
        HttpMatch::as_written("m", Some("("), &["GET"], &none),
        HttpMatch::as_written("m", Some(&long), &["*"], &none),
        HttpMatch::as_written("m", None, &["no method"], &none),
        HttpMatch::as_written("m", None, &[] as &[&str], &[("no name", ".*")]),
        HttpMatch::as_written("m", None, &[] as &[&str], &[("x", "[")]),
    ];
    for one in wrong {
        assert!(!takes(&one, "GET", "(", &[("x", b"[")]), "{one:?}");
    }
}

/// What a hash walks through.
#[derive(Default)]
struct Walked(Vec<u8>);

impl Hasher for Walked {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// One port may have thousands of matches of kilobytes each, which are looked up at every change.
#[test]
fn match_hash_has_constant_cost_and_distinguishes_contents() {
    let walked = |one: &HttpMatch| {
        let mut walked = Walked::default();
        one.hash(&mut walked);
        walked.0
    };
    let long = format!("/{}", "x".repeat(1000));
    let as_written = |path: &str, headers: &[(&str, &str)]| {
        HttpMatch::as_written("m", Some(path), &["GET"], headers)
    };
    let one = as_written(&long, &[]);
    assert_eq!(walked(&one).len(), size_of::<u64>());
    let compiled = http(Some(&long), &["GET"], &[]);
    assert_eq!((walked(&compiled), &compiled), (walked(&one), &one));
    for other in [as_written("/", &[]), as_written(&long, &[("a", "b")])] {
        assert_ne!(walked(&other), walked(&one));
        assert_ne!(other, one);
    }
}
