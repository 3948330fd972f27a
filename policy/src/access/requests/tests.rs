//! Which spellings of a path pass, and what of them arrives.
//!
//! Claims: attack-9

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::method::Method;

use super::super::{Ports, Source};
use super::*;
use crate::name::SpiffeId;
use crate::origin::Origin;
use crate::path::BadPath::*;
use crate::reason::Reason;

const PORT: u16 = 8080;

/// Spellings of which more than the slashes can be read in several ways, and why they are refused
/// where rules judge; `None`: they have a normal form.
const NEVER_KEPT: [(&str, Option<BadPath>); 19] = [
    ("/public/..%2Fprivate", Some(EscapedSlashAndMore)),
    ("/public%2f%2e%2e%2fprivate", Some(EscapedSlashAndMore)),
    ("/public/../a%2Fb", Some(EscapedSlashAndMore)),
    ("/public%2F.", Some(EscapedSlashAndMore)),
    ("/public%2F..;x/private", Some(EscapedSlashAndMore)),
    ("/public%2F..%3bx/private", Some(EscapedSlashAndMore)),
    ("/public\\a%2Fb", Some(EscapedSlashAndMore)),
    ("/a%2Fb%00", Some(EscapedSlashAndMore)),
    ("/a%2F%5Cb", Some(EscapedSlashAndMore)),
    ("/a%2F%c0%af", Some(EscapedSlashAndMore)),
    ("/a%2Fb%", Some(EscapedSlashAndMore)),
    ("/public/..%5cprivate", Some(EscapedBackslash)),
    ("/public//a%00", Some(EscapedNul)),
    ("/public//%c0%ae%c0%ae/private", Some(Overlong)),
    ("/public//%zz", Some(BadEscape)),
    ("/public//..;/private", Some(DotParameter)),
    ("/public//../private", None),
    ("/public//%2e%2e/private", None),
    ("/public//..\\private", None),
];

fn id(account: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", account).unwrap()
}

fn a_match(path: Option<&str>, methods: &[&str], headers: &[(&str, &str)]) -> HttpMatch {
    HttpMatch::new("m", path, methods, headers).unwrap()
}

fn any_path() -> HttpMatch {
    a_match(None, &[], &[])
}

fn rule(account: &str, ports: Option<Ports>, http: Option<Vec<HttpMatch>>) -> Rule {
    Rule {
        origin: Origin::new("TrafficTarget", "shop", account),
        sources: vec![Source::Identity(id(account))],
        ports,
        http,
        limit: None,
    }
}

fn enforced(rules: Vec<Rule>) -> Access {
    Access {
        enforcement: Enforcement::Enforce,
        rules,
    }
}

/// What becomes of a request by `web`, and the path that the application gets.
#[derive(Debug, PartialEq, Eq)]
enum Ends {
    Arrives(String),
    Refused,
    BadPath(BadPath),
}

fn ask_with(access: &Access, method: &Method, path: &str, headers: &HeaderMap) -> Ends {
    let (web, forms) = (id("web"), PathForms::of(path));
    let request = RequestFacts {
        method,
        path,
        query: None,
        headers,
    };
    match access.decide_request(Caller::mesh(&web), PORT, &request, &forms) {
        Err(error) => Ends::BadPath(error),
        Ok(evaluated) if evaluated.verdict.is_allowed() => {
            Ends::Arrives(evaluated.replaced.unwrap_or(path).to_owned())
        }
        Ok(_) => Ends::Refused,
    }
}

fn ask(access: &Access, path: &str) -> Ends {
    ask_with(access, &Method::GET, path, &HeaderMap::new())
}

fn arrives(path: &str) -> Ends {
    Ends::Arrives(path.to_owned())
}

#[test]
fn open_rule_of_another_caller_frees_no_path() {
    let ports = Some(Ports::only([PORT]));
    let elsewhere = Rule {
        limit: Some(Ports::only([PORT + 1])),
        ..rule("web", None, Some(vec![any_path()]))
    };
    let of_header = a_match(None, &[], &[("x-role", "admin")]);
    for beside in [
        rule("other", None, Some(vec![any_path()])),
        rule("other", ports.clone(), None),
        elsewhere,
        rule("web", Some(Ports::only([PORT + 1])), None),
        rule("web", Some(Ports::only([PORT + 1])), Some(vec![any_path()])),
        rule("web", None, Some(vec![a_match(None, &["POST"], &[])])),
        rule("web", None, Some(vec![of_header])),
        rule("web", None, Some(Vec::new())),
    ] {
        let public = a_match(Some("^/public$"), &[], &[]);
        let access = enforced(vec![rule("web", None, Some(vec![public])), beside]);
        assert_eq!(ask(&access, "/a%2Fb"), Ends::BadPath(EscapedSlash));
        assert_eq!(ask(&access, "//private"), Ends::Refused);
        assert_eq!(ask(&access, "//public"), arrives("/public"));
    }
}

#[test]
fn spelling_of_more_than_slashes_never_arrives_as_sent() {
    let all = enforced(vec![rule("web", None, Some(vec![any_path()]))]);
    let public = vec![a_match(Some("/public"), &[], &[])];
    let public = enforced(vec![rule("web", None, Some(public))]);
    for (path, error) in NEVER_KEPT {
        match error {
            Some(error) => {
                assert_eq!(ask(&all, path), Ends::BadPath(error), "{path}");
                assert_eq!(ask(&public, path), Ends::BadPath(error), "{path}");
            }
            None => {
                assert_eq!(ask(&all, path), arrives("/private"), "{path}");
                assert_eq!(ask(&public, path), Ends::Refused, "{path}");
            }
        }
    }
}

#[test]
fn path_that_decided_nothing_arrives_as_sent() {
    let paths = ["/api/q/%2F/x", "/@s%2fname", "/b//k//", "//x", "/%41//%e4"];
    let every_path =
        ["", ".*", "^.*", "/", "/.*", "^/.*"].map(|path| a_match(Some(path), &[], &[]));
    let open = every_path.into_iter().chain([any_path()]).map(|one| {
        let other = a_match(Some("/other"), &[], &[]);
        rule("web", None, Some(vec![other, one]))
    });
    // A TCPRoute alone admits whatever runs over the port.
    let bytes = rule("web", Some(Ports::only([PORT])), None);
    for open in open.chain([bytes]) {
        let closed = rule("other", None, Some(vec![a_match(Some("/x"), &[], &[])]));
        let access = enforced(vec![closed, open]);
        for path in paths {
            assert_eq!(ask(&access, path), arrives(path), "{access:?}");
        }
    }
}

#[test]
fn match_by_method_and_header_decides_for_those_alone() {
    let reads = a_match(None, &["GET"], &[("x-role", "admin")]);
    let access = enforced(vec![rule("web", None, Some(vec![reads]))]);
    let mut headers = HeaderMap::new();
    let name = HeaderName::from_static("x-role");
    headers.insert(name, HeaderValue::from_static("admin"));
    let asked = |method: Method| ask_with(&access, &method, "/a%2Fb", &headers);
    assert_eq!(asked(Method::GET), arrives("/a%2Fb"));
    assert_eq!(asked(Method::POST), Ends::BadPath(EscapedSlash));
    assert_eq!(ask(&access, "/a%2Fb"), Ends::BadPath(EscapedSlash));
}

/// `new URL(path, base)` reads `//private/x` as the path `/x` of the host `private`.
#[test]
fn host_that_decides_lets_no_path_name_another() {
    let mut headers = HeaderMap::new();
    let name = HeaderName::from_static("host");
    headers.insert(name, HeaderValue::from_static("public"));
    let by_host = |path| a_match(path, &[], &[("Host", "public")]);
    let of = |matches| enforced(vec![rule("web", None, Some(matches))]);
    let get = |access: &Access, path| ask_with(access, &Method::GET, path, &headers);
    for path in [None, Some("^[/%2Fa-z]*$")] {
        let access = of(vec![by_host(path)]);
        for named in ["//private/x", "///private/x"] {
            assert_eq!(get(&access, named), arrives("/private/x"), "{path:?}");
        }
        let named = get(&access, "/%2fprivate/x");
        assert_eq!(named, Ends::BadPath(EscapedSlash), "{path:?}");
        for sent in ["/private//x", "/private%2Fx"] {
            assert_eq!(get(&access, sent), arrives(sent), "{path:?}");
        }
    }
    let access = of(vec![by_host(None), any_path()]);
    assert_eq!(get(&access, "//private/x"), arrives("//private/x"));
}

#[test]
fn nothing_is_replaced_where_nothing_is_enforced() {
    let public = || vec![a_match(Some("/public"), &[], &[])];
    let audit = Access {
        enforcement: Enforcement::Audit,
        rules: vec![rule("web", None, Some(public()))],
    };
    let bytes = enforced(vec![rule("web", Some(Ports::only([PORT])), None)]);
    let paths = NEVER_KEPT.map(|(path, _)| path);
    for path in paths.into_iter().chain(["//public", "/a%2Fb"]) {
        assert_eq!(ask(&audit, path), arrives(path));
        assert_eq!(ask(&bytes, path), arrives(path));
    }
    // Audit judges the normal form, where there is one.
    let (web, forms) = (id("web"), PathForms::of("//public"));
    let request = RequestFacts {
        method: &Method::GET,
        path: "//public",
        query: None,
        headers: &HeaderMap::new(),
    };
    let evaluated = audit.decide_request(Caller::mesh(&web), PORT, &request, &forms);
    assert!(matches!(evaluated.unwrap().verdict, Verdict::Allow { .. }));
    let outside = audit.decide_request(Caller::Outside, PORT, &request, &forms);
    let reason = Reason::NoIdentity;
    assert_eq!(outside.unwrap().verdict, Verdict::Audit { reason });
}

#[test]
fn one_reading_that_is_refused_keeps_no_slash() {
    let of = |account, path, method| {
        rule(
            account,
            None,
            Some(vec![a_match(Some(path), &[method], &[])]),
        )
    };
    let flat = || of("web", "^/[^/]*$", "GET");
    let refused = || Ends::BadPath(EscapedSlash);
    for (rules, path, ends) in [
        (vec![flat()], "/private%2Fx", refused()),
        (vec![of("web", "^/a/b$", "GET")], "/a%2Fb", refused()),
        (vec![of("web", "^/a%2Fb$", "GET")], "/a%2fb", refused()),
        (vec![flat()], "/%2Fprivate", refused()),
        // The readings of one request are those of one caller and method.
        (
            vec![flat(), of("other", "/", "GET")],
            "/private%2Fx",
            refused(),
        ),
        (
            vec![flat(), of("web", "/", "POST")],
            "/private%2Fx",
            refused(),
        ),
        (
            vec![of("web", "^/a(%2F|/)b", "GET")],
            "/a%2F%2Fb",
            refused(),
        ),
        // Some merge slashes before they decode, which gives `/a///b` here.
        (
            vec![of("web", "^/a(/%2F//|/%2F/|////|/)b$", "GET")],
            "/a/%2F//b",
            refused(),
        ),
        // A host and a path to parsers of whole addresses.
        (
            vec![of("web", ".*/public/", "GET")],
            "//public/x",
            arrives("/public/x"),
        ),
        (
            vec![of("web", ".*/public/", "GET")],
            "///public/x",
            arrives("/public/x"),
        ),
        (
            vec![of("web", "^//private$", "GET")],
            "//private",
            Ends::Refused,
        ),
        (
            vec![of("web", "^/private$", "GET")],
            "//private",
            arrives("/private"),
        ),
    ] {
        assert_eq!(ask(&enforced(rules), path), ends, "{path}");
    }
}

#[test]
fn slashes_arrive_as_sent_where_every_reading_is_allowed() {
    let of = |path| rule("web", None, Some(vec![a_match(Some(path), &["GET"], &[])]));
    for (rules, path) in [
        (vec![of("/public")], "/public%2fx"),
        (vec![of("/public")], "/public//x"),
        (vec![of("/public/")], "/public/a%2F%2F//b/"),
        (vec![of("^/[^/]*$"), of("/public/")], "/public%2Fx"),
        (vec![of("^/queues/(%2F/|/*)get$")], "/queues/%2F/get"),
    ] {
        assert_eq!(ask(&enforced(rules), path), arrives(path));
    }
    // What is no slash has one form, as ever.
    let public = enforced(vec![of("/public")]);
    assert_eq!(ask(&public, "/%70ublic//%e4"), arrives("/public//%E4"));
    // A path that is too long for its readings passes where it decides nothing.
    let long = format!("/public%2F{}", "x".repeat(1024));
    assert_eq!(ask(&public, &long), Ends::BadPath(EscapedSlash));
    let all = enforced(vec![rule("web", None, Some(vec![any_path()]))]);
    assert_eq!(ask(&all, &long), arrives(&long));
}
