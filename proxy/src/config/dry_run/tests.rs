//! What dry runs count of calls, and what that may cost.
//!
//! Claims: observe-121, observe-122

use std::cell::Cell;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use policy::access::{Caller, EvaluatedTraffic, Rule, Source};
use policy::http_match::HttpMatch;
use policy::mode::Enforcement;
use policy::origin::Origin;
use policy::protocol::Protocol;

use super::*;
use crate::telemetry::cell::CallGroup;
use crate::telemetry::labels::Security;

/// Nothing passes, or, with that enforcement, everything.
fn rules(enforcement: v1::Enforcement, examples: u32) -> v1::TrialAsk {
    v1::TrialAsk {
        enforcement: enforcement.into(),
        rules: Vec::new(),
        examples,
    }
}

fn key(caller: &str, route: Option<&str>) -> CellKey {
    CellKey {
        call_ends: CallEnds::Inbound {
            port: 8080,
            caller: caller.into(),
            at: Some("uid".into()),
            security: Security::mtls,
        },
        protocol: Protocol::Http1,
        route: route.map(Arc::from),
        group: CallGroup::None,
    }
}

/// One GET of this path, which passes or not by the rules that hold.
fn call_at(
    dry_runs: &DryRuns,
    (key, path): (CellKey, &str),
    passes: bool,
    clock: &dyn Fn() -> Instant,
) {
    call_with(dry_runs, (key, path, &HeaderMap::new()), passes, clock);
}

fn call_with(
    dry_runs: &DryRuns,
    (key, path, headers): (CellKey, &str, &HeaderMap),
    passes: bool,
    clock: &dyn Fn() -> Instant,
) {
    let request = RequestFacts {
        method: &Method::GET,
        path,
        query: None,
        headers,
    };
    let evaluated = EvaluatedCall {
        key,
        passes,
        request: Some(&request),
        runs: 1,
    };
    let would_pass = |candidate: &Access| {
        let traffic = EvaluatedTraffic::Http(&request);
        candidate
            .decide(Caller::Outside, 8080, traffic)
            .is_allowed()
    };
    dry_runs.evaluate(&evaluated, would_pass, clock);
}

fn call(dry_runs: &DryRuns, key: CellKey, passes: bool) {
    let start = Instant::now();
    call_at(dry_runs, (key, "/items"), passes, &|| start);
}

/// Kept, refused and allowed of each caller and route, in order.
fn rows(running: &Running) -> Vec<(String, String, [u64; 3])> {
    let counts = running.counts().into_iter();
    let mut rows: Vec<_> = counts
        .flat_map(|part| part.rows)
        .map(|row| {
            let counts = [row.kept, row.would_refuse, row.would_allow];
            (row.edge.unwrap().identity, row.route, counts)
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn dry_run_counts_calls_by_edge_route_and_verdict() {
    let dry_runs = Arc::<DryRuns>::default();
    assert!(!dry_runs.any());
    let (closed, _examples) = dry_runs.begin(&rules(v1::Enforcement::Enforce, 0)).unwrap();
    let (open, _others) = dry_runs.begin(&rules(v1::Enforcement::Open, 0)).unwrap();
    assert!(dry_runs.any());
    for (caller, route, passes) in [
        ("shop/web", Some("cart/read"), true),
        ("shop/web", Some("cart/read"), true),
        ("shop/web", Some(""), false),
        ("shop/other", None, false),
    ] {
        call(&dry_runs, key(caller, route), passes);
    }
    let row =
        |caller: &str, route: &str, counts: [u64; 3]| (caller.to_owned(), route.to_owned(), counts);
    let expected = [
        row("shop/other", "", [1, 0, 0]),
        row("shop/web", "", [1, 0, 0]),
        row("shop/web", "cart/read", [0, 2, 0]),
    ];
    assert_eq!(rows(&closed), expected);
    let expected = [
        row("shop/other", "", [0, 0, 1]),
        row("shop/web", "", [0, 0, 1]),
        row("shop/web", "cart/read", [2, 0, 0]),
    ];
    assert_eq!(rows(&open), expected);

    drop(closed);
    assert!(dry_runs.any(), "the other one still tries");
    call(&dry_runs, key("shop/web", Some("cart/read")), true);
    assert_eq!(rows(&open)[2].2, [3, 0, 0]);
    drop(open);
    assert!(!dry_runs.any());
}

#[test]
fn no_two_rows_are_written_alike() {
    let dry_runs = Arc::<DryRuns>::default();
    let (running, _examples) = dry_runs.begin(&rules(v1::Enforcement::Enforce, 0)).unwrap();
    // No route describes the first, and the path of the second has no normal form.
    for (route, passes) in [(Some(""), true), (None, false), (Some("cart/read"), true)] {
        call(&dry_runs, key("shop/web", route), passes);
    }
    let parts = running.counts().into_iter();
    let rows: Vec<_> = parts.flat_map(|part| part.rows).collect();
    for (at, one) in rows.iter().enumerate() {
        let about = (&one.edge, &one.route);
        let mut others = rows[at + 1..].iter();
        assert!(!others.any(|other| (&other.edge, &other.route) == about));
    }
    let calls: u64 = rows.iter().map(|row| row.kept + row.would_refuse).sum();
    assert_eq!((rows.len(), calls), (2, 3), "each call once");
}

#[test]
fn dry_run_examples_are_limited_and_truncated() {
    let dry_runs = Arc::<DryRuns>::default();
    let start = Instant::now();
    let all = rules(v1::Enforcement::Enforce, u32::MAX);
    let (_most, mut findings) = dry_runs.begin(&all).unwrap();
    let none = rules(v1::Enforcement::Enforce, 0);
    let (_none, mut nothing) = dry_runs.begin(&none).unwrap();
    let long = format!("/{}", "é".repeat(300));
    call(&dry_runs, key("shop/web", None), false);
    for _ in 0..30 {
        let labels = (key("shop/web", Some("cart/read")), long.as_str());
        call_at(&dry_runs, labels, true, &|| start);
    }
    let mut examples = Vec::new();
    while let Ok(example) = findings.try_recv() {
        examples.push(example);
    }
    assert_eq!(examples.len(), 20);
    assert!(nothing.try_recv().is_err(), "none is asked for");
    for example in examples {
        assert_eq!((&*example.method, &*example.route), ("GET", "cart/read"));
        assert!(!example.would_allow, "it passes now");
        assert!(long.starts_with(&example.path) && example.path.len() == 255);
        assert_eq!(example.edge.unwrap().identity, "shop/web");
    }
}

#[test]
fn dry_run_skips_calls_beyond_ten_milliseconds_per_second() {
    let dry_runs = Arc::<DryRuns>::default();
    let closed = rules(v1::Enforcement::Enforce, 0);
    let (first, _examples) = dry_runs.begin(&closed).unwrap();
    let (second, _others) = dry_runs.begin(&closed).unwrap();
    // Each look at the clock is a millisecond after the one before: so each judgement takes
    // one, and two look at it twice each.
    let start = Instant::now();
    let looks = Cell::new(0);
    let clock = || {
        looks.set(looks.get() + 1);
        start + Duration::from_millis(looks.get())
    };
    for _ in 0..20 {
        call_at(&dry_runs, (key("shop/web", None), "/items"), true, &clock);
    }
    let evaluated = |running: &Running| rows(running)[0].2[1];
    let skipped = |running: &Running| running.counts()[0].skipped;
    assert_eq!(evaluated(&first) + evaluated(&second), 10, "together");
    assert_eq!(skipped(&first) + skipped(&second), 30);
    assert_eq!(evaluated(&first) + skipped(&first), 20);

    // And in the next second again.
    looks.set(1_100);
    call_at(&dry_runs, (key("shop/web", None), "/items"), true, &clock);
    assert_eq!(evaluated(&first) + evaluated(&second), 12);
}

#[test]
fn dry_run_skips_and_counts_requests_with_costly_patterns() {
    let dry_runs = Arc::<DryRuns>::default();
    let start = Instant::now();
    let looks_at = HttpMatch::as_written("m", None, &["GET"], &[("X-Long", "a+")]);
    let rule = Rule {
        origin: Origin::new("TrafficTarget", "shop", "t"),
        sources: vec![Source::Unauthenticated],
        ports: None,
        http: Some(vec![looks_at]),
        limit: None,
    };
    let access = Access {
        enforcement: Enforcement::Enforce,
        rules: vec![rule],
    };
    let ask = wire::convert::dry_run_query(&access, 20).unwrap();
    let (running, mut findings) = dry_runs.begin(&ask).unwrap();
    let named = |name: &'static str| {
        let value: HeaderValue = "a".repeat(3_000).parse().unwrap();
        HeaderMap::from_iter([(HeaderName::from_static(name), value)])
    };
    let path = |bytes: usize| format!("/{}", "i".repeat(bytes - 1));
    for (path, headers, evaluated) in [
        (path(4_096), HeaderMap::new(), true),
        (path(4_097), HeaderMap::new(), false),
        (path(1_000), named("x-long"), true),
        (path(2_000), named("x-long"), false),
        // No dry run looks at that one.
        (path(2_000), named("x-other"), true),
    ] {
        let count = || {
            let all: u64 = rows(&running).iter().flat_map(|row| row.2).sum();
            (all, running.counts()[0].skipped)
        };
        let before = count();
        let call = (key("shop/web", None), path.as_str(), &headers);
        call_with(&dry_runs, call, true, &|| start);
        let (evaluated, skipped) = (u64::from(evaluated), u64::from(!evaluated));
        assert_eq!(count(), (before.0 + evaluated, before.1 + skipped));
    }
    let mut examples = 0;
    while findings.try_recv().is_ok() {
        examples += 1;
    }
    assert_eq!(examples, 2, "of those that were judged and do not match");
}

#[test]
fn dry_run_rows_are_bounded_and_remaining_calls_merged() {
    let dry_runs = Arc::<DryRuns>::default();
    let (running, _examples) = dry_runs.begin(&rules(v1::Enforcement::Enforce, 0)).unwrap();
    let long = "r".repeat(300);
    for number in 0..200 {
        let route = format!("{long}{number}");
        call(&dry_runs, key("shop/web", Some(&route)), true);
    }
    call(&dry_runs, key("shop/web", Some(&format!("{long}0"))), true);
    let parts = running.counts();
    assert!(parts.len() > 1, "{} part", parts.len());
    for part in &parts {
        let message = v1::Answered {
            id: u64::MAX,
            what: Some(v1::answered::What::Trial(part.clone())),
        };
        assert!(message.encoded_len() < 32 * 1024);
    }
    let rows: Vec<_> = parts.into_iter().flat_map(|part| part.rows).collect();
    assert_eq!(rows.len(), ROWS + 1);
    let refused: u64 = rows.iter().map(|row| row.would_refuse).sum();
    assert_eq!(refused, 201, "each call once");
    let rest = rows.iter().find(|row| row.route.is_empty()).unwrap();
    assert_eq!(rest.would_refuse, 200 - ROWS as u64);
    assert_eq!(rest.edge.as_ref().unwrap().identity, "");
}

#[test]
fn invalid_dry_run_rules_are_refused_with_reason() {
    let dry_runs = Arc::<DryRuns>::default();
    let unnamed = v1::TrialAsk {
        rules: vec![v1::Rule::default()],
        ..v1::TrialAsk::default()
    };
    let refused = dry_runs.begin(&unnamed).map(drop);
    assert_eq!(refused, Err("rules[0].origin: is missing".to_owned()));
    assert!(!dry_runs.any());
    // A mode that is not known is the tightest.
    let newer = v1::TrialAsk {
        enforcement: 99,
        ..v1::TrialAsk::default()
    };
    let (running, _examples) = dry_runs.begin(&newer).unwrap();
    assert_eq!(running.dry_run.candidate.enforcement, Enforcement::Enforce);
}
