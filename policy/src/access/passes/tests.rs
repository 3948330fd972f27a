//! What is said of calls without their requests agrees with what is decided of each.
//!
//! Claims: observe-108

use http::{HeaderMap, Method};

use super::*;
use crate::access::{Ports, Source};
use crate::http_match::RequestFacts;
use crate::name::SpiffeId;
use crate::origin::Origin;

const PORT: u16 = 80;
const PATHS: [&str; 4] = ["/", "/items", "/items/7", "/admin"];
static METHODS: [Method; 2] = [Method::GET, Method::PUT];

fn web() -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", "web").unwrap()
}

fn one(name: &str, path: Option<&str>, methods: &[&str]) -> HttpMatch {
    HttpMatch::new(name, path, methods, &[] as &[(&str, &str)]).unwrap()
}

fn rule(source: Source, ports: Option<Ports>, http: Option<Vec<HttpMatch>>) -> Rule {
    Rule {
        origin: Origin::new("TrafficTarget", "shop", "t"),
        sources: vec![source],
        ports,
        http,
        limit: None,
    }
}

fn of(rules: Vec<Rule>) -> Access {
    Access {
        enforcement: Enforcement::Enforce,
        rules,
    }
}

/// Rules of one caller, of several shapes.
fn accesses() -> Vec<Access> {
    let own = || Source::Identity(web());
    let read = || vec![one("read", Some("/items"), &["GET"])];
    let here = || Some(Ports::only([PORT]));
    vec![
        of(vec![]),
        of(vec![rule(own(), None, None)]),
        of(vec![rule(own(), here(), None)]),
        of(vec![rule(own(), Some(Ports::only([81])), None)]),
        of(vec![rule(own(), None, Some(vec![]))]),
        of(vec![rule(own(), None, Some(read()))]),
        of(vec![rule(own(), here(), Some(read()))]),
        of(vec![rule(
            own(),
            None,
            Some(vec![one("all", None, &["*"])]),
        )]),
        of(vec![rule(
            own(),
            None,
            Some(vec![one("all", Some("/.*"), &[])]),
        )]),
        of(vec![
            rule(Source::Unauthenticated, here(), None),
            rule(own(), None, Some(read())),
            rule(
                Source::Authenticated,
                None,
                Some(vec![one("admin", Some("^/admin$"), &["PUT"])]),
            ),
        ]),
        Access {
            enforcement: Enforcement::Audit,
            rules: vec![],
        },
        Rule {
            limit: Some(Ports::only([81])),
            ..rule(own(), here(), None)
        }
        .alone(),
    ]
}

impl Rule {
    fn alone(self) -> Access {
        of(vec![self])
    }
}

/// Whether each request passes, as a proxy decides it.
fn decided(access: &Access, caller: Caller<'_>) -> Vec<bool> {
    let headers = HeaderMap::new();
    let requests = PATHS
        .iter()
        .flat_map(|path| METHODS.iter().map(move |method| (path, method)));
    let passes = requests.map(|(path, method)| {
        let request = RequestFacts {
            method,
            path,
            query: None,
            headers: &headers,
        };
        access
            .decide(caller, PORT, EvaluatedTraffic::Http(&request))
            .is_allowed()
    });
    passes.collect()
}

#[test]
fn passes_summary_agrees_with_decision_on_each_request() {
    let id = web();
    for caller in [Caller::mesh(&id), Caller::Outside] {
        for access in accesses() {
            let each = decided(&access, caller);
            match access.passes(caller, PORT, Spoken::Http) {
                Passes::All => assert!(each.iter().all(|passes| *passes), "{access:?}"),
                Passes::Nothing => assert!(!each.contains(&true), "{access:?}"),
                Passes::Requests(matches) => {
                    assert!(each.contains(&true) && each.contains(&false), "{access:?}");
                    assert!(!matches.is_empty());
                }
            }
            for (spoken, traffic) in [
                (Spoken::Opaque, EvaluatedTraffic::Opaque),
                (Spoken::Bytes, EvaluatedTraffic::Bytes),
            ] {
                let all = access.passes(caller, PORT, spoken) == Passes::All;
                let decided = access.decide(caller, PORT, traffic).is_allowed();
                assert_eq!(all, decided, "{access:?}");
            }
        }
    }
}

#[test]
fn change_effect_is_named_only_when_all_requests_agree() {
    let id = web();
    let caller = Caller::mesh(&id);
    let all = accesses();
    for before in &all {
        for after in &all {
            let (was, is) = (decided(before, caller), decided(after, caller));
            let passed = before.passes(caller, PORT, Spoken::Http);
            let effect = passed.becomes(&after.passes(caller, PORT, Spoken::Http));
            let lost = was.iter().zip(&is).any(|(was, is)| *was && !*is);
            let words = format!("{before:?}\n{after:?}");
            match effect {
                Effect::Kept => assert_eq!(was, is, "{words}"),
                Effect::Allowed => assert!(!lost && was != is, "{words}"),
                Effect::Refused => assert!(!is.contains(&true) && was.contains(&true), "{words}"),
                Effect::Depends => assert!(is.contains(&true) && was != is, "{words}"),
            }
        }
    }
}

#[test]
fn matches_are_equal_regardless_of_name_and_order() {
    let id = web();
    let caller = Caller::mesh(&id);
    let access =
        |matches: Vec<HttpMatch>| rule(Source::Identity(web()), None, Some(matches)).alone();
    let read = |name: &str| one(name, Some("/items"), &["GET"]);
    let write = |name: &str| one(name, Some("/items"), &["PUT"]);
    let before = access(vec![read("a"), write("b")]);
    let same = access(vec![write("c"), read("d")]);
    let other = access(vec![read("a")]);
    let becomes = |before: &Access, after: &Access| {
        let before = before.passes(caller, PORT, Spoken::Http);
        before.becomes(&after.passes(caller, PORT, Spoken::Http))
    };
    assert_eq!(becomes(&before, &same), Effect::Kept);
    assert_eq!(becomes(&before, &other), Effect::Depends);
    assert_eq!(becomes(&other, &before), Effect::Depends);
}
