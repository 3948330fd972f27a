//! Precedence by the sentences of the specification, one by one, and against a second
//! reader that shares no code with the first.
//!
//! Claims: calls-35

mod deciding_sections;
mod why;

use std::time::Duration;

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::access::{Caller, Source};
use crate::http_match::{HttpMatch, RequestFacts};
use crate::name::SpiffeId;
use crate::traffic::Sections;
use crate::traffic::call::{Retry, Timeouts};
use crate::traffic::endpoint::Ejection;
use crate::traffic::first;
use crate::traffic::guard::{LimitKey, LimitMode, LimitScope, Overload, RateLimit};

fn service() -> ServiceId {
    ServiceId::new("shop", "catalog")
}

fn path(letter: char) -> HttpMatch {
    let none: [&str; 0] = [];
    let regex = format!("/{letter}$");
    HttpMatch::new("m", Some(&regex), &none, &[] as &[(&str, &str)]).unwrap()
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", name).unwrap()
}

/// One that sets how many attempts, so that a test sees which policy counts.
fn retry(name: &str, attempts: u8) -> Policy {
    Policy {
        origin: Origin::new("TrafficPolicy", "shop", name),
        created: 0,
        target: Target::Service(service()),
        enforce: false,
        routes: Match::Always,
        sources: Sources::Everyone,
        sections: Sections {
            retry: Some(Retry {
                attempts,
                ..Retry::DEFAULT
            }),
            ..Sections::default()
        },
    }
}

/// The attempts of a GET of this path by an account.
fn attempts(resolved: &Resolved, caller: &str, path: &str) -> Option<u8> {
    let (id, headers) = (account(caller), HeaderMap::new());
    let request = RequestFacts {
        method: &Method::GET,
        path,
        query: None,
        headers: &headers,
    };
    let found = first(&resolved.traffic.retry, Caller::mesh(&id), Some(&request));
    found.map(|(retry, _)| retry.attempts)
}

/// Whose word counts among these, whatever their order.
fn winner(policies: &[Policy]) -> Option<u8> {
    let forward = resolve(policies, &service(), 80);
    let backward = resolve(policies.iter().rev(), &service(), 80);
    assert_eq!(forward, backward, "the order of reading decides nothing");
    attempts(&forward, "web", "/a")
}

#[test]
fn the_closer_target_decides_and_enforce_beats_all() {
    let with = |target: Target, attempts| Policy {
        target,
        ..retry(&format!("p{attempts}"), attempts)
    };
    let mut all = vec![with(Target::Mesh, 1)];
    assert_eq!(winner(&all), Some(1));
    all.push(with(Target::Namespace("shop".into()), 2));
    assert_eq!(winner(&all), Some(2));
    all.push(with(Target::Service(service()), 3));
    assert_eq!(winner(&all), Some(3));
    all.push(with(Target::Port(service(), 80), 4));
    assert_eq!(winner(&all), Some(4));
    all.push(with(Target::Port(service(), 81), 5));
    all.push(with(Target::Namespace("other".into()), 5));
    all.push(with(Target::Service(ServiceId::new("shop", "x")), 5));
    assert_eq!(winner(&all), Some(4), "others are about something else");
    all[0].enforce = true;
    assert_eq!(winner(&all), Some(1));
    // A Service's owner cannot enforce anything against the mesh's.
    all[3].enforce = true;
    all[0].enforce = false;
    all[2].enforce = true;
    assert_eq!(winner(&all), Some(4));
}

#[test]
fn narrower_policy_decides_then_older_then_by_name() {
    let routes = Match::AnyOf(vec![path('a')]);
    let sources = Sources::Only(vec![Source::Identity(account("web"))]);
    let mut all = vec![retry("p1", 1)];
    all.push(Policy {
        sources: sources.clone(),
        ..retry("p2", 2)
    });
    assert_eq!(winner(&all), Some(2));
    all.push(Policy {
        routes: routes.clone(),
        ..retry("p3", 3)
    });
    assert_eq!(winner(&all), Some(3));
    all.push(Policy {
        routes,
        sources,
        ..retry("p4", 4)
    });
    assert_eq!(winner(&all), Some(4));
    let resolved = resolve(&all, &service(), 80);
    assert_eq!(attempts(&resolved, "other", "/a"), Some(3));
    assert_eq!(attempts(&resolved, "web", "/b"), Some(2));
    assert_eq!(attempts(&resolved, "other", "/b"), Some(1));
    assert!(resolved.lost.is_empty(), "{:?}", resolved.lost);

    let aged = |name: &str, attempts, created| Policy {
        created,
        ..retry(name, attempts)
    };
    assert_eq!(winner(&[aged("b", 1, 10), aged("a", 2, 11)]), Some(1));
    assert_eq!(winner(&[aged("b", 1, 10), aged("a", 2, 10)]), Some(2));
}

#[test]
fn each_section_comes_complete_from_its_own_winner() {
    let close = retry("close", 3);
    let mut far = retry("far", 1);
    far.target = Target::Mesh;
    far.sections.timeouts = Some(Timeouts {
        request: Some(Duration::from_secs(9)),
        ..Timeouts::DEFAULT
    });
    if let Some(retry) = &mut far.sections.retry {
        retry.backoff = Duration::from_secs(9);
    }
    let resolved = resolve(&[close, far], &service(), 80);
    let (rule, by) = resolved.traffic.retry.decide(None);
    let rule = &rule.as_ref().unwrap().section;
    assert_eq!(rule.backoff, Retry::DEFAULT.backoff, "nothing of another's");
    assert_eq!(&**by.unwrap().name(), "close");
    let (timeouts, by) = resolved.traffic.timeouts.decide(None);
    assert!(timeouts.is_some());
    assert_eq!(&**by.unwrap().name(), "far");
}

fn wins_by(policy: &Policy, by: Precedence) -> Winner {
    let origin = policy.origin.clone();
    Winner { origin, by }
}

#[test]
fn losing_policy_names_winner_and_winless_one_conflicts() {
    let old = retry("old", 1);
    let mut half = retry("half", 2);
    half.created = 1;
    half.sections.ejection = Some(Ejection::DEFAULT);
    let mut idle = retry("idle", 3);
    idle.created = 2;
    let mut results = PrecedenceResults::default();
    for port in [80, 81] {
        results.add(&resolve([&old, &half, &idle], &service(), port));
    }
    let conflict = |policy: &Policy| results.of(&policy.origin).unwrap().conflict();
    assert_eq!(conflict(&old), Conflict::None);
    let lost = vec![(Section::Retry, wins_by(&old, Precedence::Older))];
    assert_eq!(conflict(&half), Conflict::PartlyOverridden(lost.clone()));
    assert_eq!(conflict(&idle), Conflict::Conflicted(lost));
    assert_eq!(results.of(&Origin::new("TrafficPolicy", "x", "y")), None);
}

#[test]
fn policy_winning_at_one_port_is_partly_overridden() {
    let wide = retry("wide", 1);
    let mut port = retry("port", 2);
    port.target = Target::Port(service(), 80);
    let mut results = PrecedenceResults::default();
    for number in [80, 81] {
        results.add(&resolve([&wide, &port], &service(), number));
    }
    let conflict = results.of(&wide.origin).unwrap().conflict();
    let lost = vec![(Section::Retry, wins_by(&port, Precedence::Closer))];
    assert_eq!(conflict, Conflict::PartlyOverridden(lost));
}

#[test]
fn mesh_policy_status_counts_ports_decided_by_others() {
    let mut mesh = retry("mesh", 1);
    mesh.target = Target::Mesh;
    let mut own = retry("own", 2);
    own.target = Target::Namespace("shop".into());
    let mut results = PrecedenceResults::default();
    for number in 0..300 {
        results.add(&resolve([&mesh, &own], &service(), number));
    }
    let elsewhere = ServiceId::new("other", "web");
    results.add(&resolve([&mesh, &own], &elsewhere, 80));
    let result = results.of(&mesh.origin).unwrap();
    assert_eq!(result.lost_at, BTreeMap::from([(Section::Retry, 300)]));
    assert!(matches!(result.conflict(), Conflict::PartlyOverridden(lost) if lost.len() == 1));
    let result = results.of(&own.origin).unwrap();
    assert_eq!(
        (result.lost_at.len(), result.conflict()),
        (0, Conflict::None)
    );
}

#[test]
fn covered_routes_conflict_but_other_routes_do_not() {
    let limited = |name: &str, created, letters: &str| Policy {
        created,
        routes: Match::AnyOf(letters.chars().map(path).collect()),
        ..retry(name, 1)
    };
    let all = [
        limited("ab", 0, "ab"),
        limited("b", 1, "b"),
        limited("bc", 2, "bc"),
    ];
    let resolved = resolve(&all, &service(), 80);
    assert_eq!(
        resolved.lost,
        vec![Lost {
            loser: all[1].origin.clone(),
            section: Section::Retry,
            winner: all[0].origin.clone(),
            by: Precedence::Older,
        }]
    );
}

/// Comparing each match of one with each of the other took minutes.
#[test]
fn policies_of_1000_routes_are_compared_in_seconds() {
    let none: [&str; 0] = [];
    let many = |own: usize| -> Vec<HttpMatch> {
        let regex = |n: usize| format!("/{}/{}$", if n < 1000 { 0 } else { own }, n);
        let one = |n| HttpMatch::new("m", Some(&regex(n)), &none, &[] as &[(&str, &str)]);
        (0..1024).map(|n| one(n).unwrap()).collect()
    };
    let all: Vec<Policy> = (1..=64)
        .map(|n| Policy {
            created: i64::try_from(n).unwrap(),
            routes: Match::AnyOf(many(n)),
            ..retry(&format!("p{n}"), 1)
        })
        .collect();
    let began = std::time::Instant::now();
    let resolved = resolve(&all, &service(), 80);
    let took = began.elapsed();
    assert_eq!(resolved.traffic.retry.rules.len(), 64);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn limits_add_up_and_none_is_lost() {
    let limit = |name: &str| {
        Arc::new(RateLimit {
            name: name.into(),
            requests: 1,
            per: Duration::from_secs(1),
            burst: 1,
            key: LimitKey::None,
            scope: LimitScope::Service,
            mode: LimitMode::Enforce,
        })
    };
    let with = |name: &str, limits: &[&str]| {
        let mut policy = retry(name, 1);
        policy.sections = Sections {
            rate_limits: limits.iter().map(|name| limit(name)).collect(),
            ..Sections::default()
        };
        policy
    };
    let mut mesh = with("mesh", &["all"]);
    mesh.target = Target::Mesh;
    mesh.enforce = true;
    let all = [with("a", &["x", "y"]), with("b", &["x"]), mesh];
    let resolved = resolve(&all, &service(), 80);
    assert!(resolved.lost.is_empty());
    let id = account("web");
    let every = crate::traffic::every(&resolved.traffic.rate_limits, Caller::mesh(&id), None);
    let names: Vec<String> = every.map(|(_, origin)| origin.to_string()).collect();
    let expected = ["mesh rule all", "a rule x", "a rule y", "b rule x"];
    assert_eq!(
        names,
        expected.map(|name| format!("TrafficPolicy shop/{name}"))
    );
}

#[test]
fn empty_routes_or_sources_make_policy_apply_nowhere() {
    let mut routes = retry("routes", 1);
    routes.routes = Match::AnyOf(vec![]);
    let mut sources = retry("sources", 2);
    sources.sources = Sources::Only(vec![]);
    let open = retry("open", 3);
    let resolved = resolve([&routes, &sources, &open], &service(), 80);
    assert_eq!(attempts(&resolved, "web", "/a"), Some(3));
    assert_eq!(resolved.traffic.retry.rules.len(), 1);
    assert!(resolved.lost.is_empty(), "their authors get another report");
}

#[test]
fn a_limited_policy_says_nothing_about_endpoints() {
    let mut limited = retry("limited", 1);
    limited.routes = Match::AnyOf(vec![path('a')]);
    limited.sections.overload = Some(Overload::DEFAULT);
    let resolved = resolve([&limited], &service(), 80);
    assert_eq!(resolved.traffic.overload, Table::only(None));
}

#[derive(Clone, Debug)]
struct Plain {
    target: u8,
    enforce: bool,
    routes: Option<Vec<char>>,
    sources: Option<Vec<u8>>,
    created: i64,
    retry: bool,
    ejection: bool,
}

fn plain() -> impl Strategy<Value = Plain> {
    let letters = proptest::option::of(proptest::collection::vec(
        proptest::sample::select(vec!['a', 'b', 'c']),
        0..3,
    ));
    let sources = proptest::option::of(proptest::collection::vec(0u8..3, 0..3));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (0u8..6, letters, sources, 0i64..3, flags).prop_map(
        |(target, routes, sources, created, (enforce, retry, ejection))| Plain {
            target,
            enforce,
            routes,
            sources,
            created,
            retry,
            ejection,
        },
    )
}

fn policy(at: usize, plain: &Plain) -> Policy {
    let letters = |letters: &Vec<char>| Match::AnyOf(letters.iter().map(|c| path(*c)).collect());
    let accounts = |numbers: &Vec<u8>| {
        let id = |number: &u8| Source::Identity(account(&format!("sa{number}")));
        Sources::Only(numbers.iter().map(id).collect())
    };
    Policy {
        origin: Origin::new("TrafficPolicy", "shop", format!("p{at}")),
        created: plain.created,
        target: match plain.target {
            0 => Target::Port(service(), 80),
            1 => Target::Port(service(), 81),
            2 => Target::Service(service()),
            3 => Target::Service(ServiceId::new("shop", "other")),
            4 => Target::Namespace("shop".into()),
            _ => Target::Mesh,
        },
        enforce: plain.enforce,
        routes: plain.routes.as_ref().map_or(Match::Always, letters),
        sources: plain.sources.as_ref().map_or(Sources::Everyone, accounts),
        sections: Sections {
            retry: plain.retry.then(|| Retry {
                attempts: u8::try_from(at).unwrap(),
                ..Retry::DEFAULT
            }),
            ejection: plain.ejection.then(|| Ejection {
                consecutive_failures: u8::try_from(at).unwrap(),
                ..Ejection::DEFAULT
            }),
            ..Sections::default()
        },
    }
}

/// The sentence of the specification, by one call: of the policies that are about this
/// call, walk through the criteria, and keep those that are best by each.
fn plainly(policies: &[Plain], caller: u8, letter: char, limited: bool) -> Option<usize> {
    let mut left: Vec<usize> = Vec::new();
    for (at, policy) in policies.iter().enumerate() {
        let about = [0, 2, 4, 5].contains(&policy.target);
        let says = if limited {
            policy.retry
        } else {
            policy.ejection
        };
        let route = policy.routes.as_ref().is_none_or(|r| r.contains(&letter));
        let source = policy.sources.as_ref().is_none_or(|s| s.contains(&caller));
        let unlimited = policy.routes.is_none() && policy.sources.is_none();
        if about && says && (if limited { route && source } else { unlimited }) {
            left.push(at);
        }
    }
    if left
        .iter()
        .any(|at| policies[*at].enforce && policies[*at].target == 5)
    {
        left.retain(|at| policies[*at].enforce && policies[*at].target == 5);
    }
    for target in [0, 2, 4, 5] {
        if left.iter().any(|at| policies[*at].target == target) {
            left.retain(|at| policies[*at].target == target);
            break;
        }
    }
    for (routes, sources) in [(true, true), (true, false), (false, true)] {
        let fits = |at: &usize| {
            policies[*at].routes.is_some() == routes && policies[*at].sources.is_some() == sources
        };
        if left.iter().any(fits) {
            left.retain(fits);
            break;
        }
    }
    let oldest = left.iter().map(|at| policies[*at].created).min()?;
    left.retain(|at| policies[*at].created == oldest);
    left.into_iter().min_by_key(|at| format!("p{at}"))
}

proptest! {
    #[test]
    fn a_naive_second_reader_comes_to_the_same_policy(
        plain in proptest::collection::vec(plain(), 0..12),
    ) {
        let policies: Vec<Policy> = plain.iter().enumerate().map(|(at, p)| policy(at, p)).collect();
        let resolved = resolve(&policies, &service(), 80);
        for caller in 0..3 {
            for letter in ['a', 'b', 'c', 'd'] {
                let found = attempts(&resolved, &format!("sa{caller}"), &format!("/{letter}"));
                let expected = plainly(&plain, caller, letter, true);
                prop_assert_eq!(found.map(usize::from), expected, "sa{} /{}", caller, letter);
            }
        }
        let whole = resolved.traffic.ejection.decide(None).0;
        let whole = whole.map(|ejection| usize::from(ejection.consecutive_failures));
        prop_assert_eq!(whole, plainly(&plain, 0, 'd', false));
        // What a caller's proxy keeps decides as the whole does.
        for caller in ["sa0", "sa1", "sa2"] {
            let id = account(caller);
            let seen = resolved.traffic.seen_by(Caller::mesh(&id));
            let headers = HeaderMap::new();
            for letter in ["/a", "/b", "/c", "/d"] {
                let request = RequestFacts { method: &Method::GET, path: letter, query: None, headers: &headers };
                let kept = seen.retry.decide(Some(&request)).0.as_ref().map(|r| r.attempts);
                prop_assert_eq!(kept, attempts(&resolved, caller, letter));
            }
        }
    }
}
