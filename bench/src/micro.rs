//! How long single decisions of `policy` take, without a proxy around them.

use std::hint::black_box;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result};
use http::{HeaderMap, Method};
use policy::access::{Access, Caller, EvaluatedTraffic, Rule, Source};
use policy::balance::{Cost, pick};
use policy::http_match::{Description, HttpMatch, PathMatch, RequestFacts};
use policy::mode::Enforcement;
use policy::name::SpiffeId;
use policy::origin::Origin;
use policy::revoked::{MAX_SUBJECTS, PeerFacts, Revocation, Revocations, Subject};
use policy::route;

/// Each decision is repeated for this long; the least of five tries counts,
/// because whatever disturbs only adds.
const TRY: Duration = Duration::from_millis(40);
const TRIES: usize = 5;
/// Nanoseconds of a request, with as many revoked subjects as there may be.
const REVOKED_TAKE: f64 = 100.0;
/// Nanoseconds for each match that is looked at.
const MATCH_TAKES: f64 = 10.0;
/// Nanoseconds where the matches are few.
const FEW_MATCHES_TAKE: f64 = 1000.0;

#[derive(Clone, Debug)]
pub(crate) struct Timing {
    pub(crate) what: String,
    pub(crate) nanos: f64,
    /// The bound, where there is one.
    pub(crate) most: Option<f64>,
}

pub(crate) fn all() -> Result<Vec<Timing>> {
    let caller = SpiffeId::of("cluster.local", "bench", "client")?;
    let other = SpiffeId::of("cluster.local", "bench", "other")?;
    let mut timings = Vec::new();
    for count in [10, 100, 1000] {
        let what = format!("one TrafficTarget, {count} routes, the last matches");
        timings.push(deciding(what, vec![rule(&caller, count)?], &caller));
    }
    for count in [10, 1000, 10_000] {
        let mut rules = vec![rule(&other, 1)?; count - 1];
        rules.push(rule(&caller, 1)?);
        let what = format!("{count} TrafficTargets, the last admits the caller");
        timings.push(deciding(what, rules, &caller));
    }
    for count in [1, MAX_SUBJECTS] {
        timings.push(looking_for_revocations(&caller, count));
    }
    for count in [10, 1000] {
        timings.push(routing(count));
    }
    for count in [10_u64, 1000, 10_000] {
        timings.push(balancing(count)?);
    }
    Ok(timings)
}

/// Whether a request may pass.
fn deciding(what: String, rules: Vec<Rule>, caller: &SpiffeId) -> Timing {
    let headers = HeaderMap::new();
    let facts = RequestFacts {
        method: &Method::GET,
        path: "/bench",
        query: None,
        headers: &headers,
    };
    let access = Access {
        enforcement: Enforcement::Enforce,
        rules,
    };
    timed(what, || {
        let verdict = access.decide(Caller::mesh(caller), 8080, EvaluatedTraffic::Http(&facts));
        black_box(verdict.is_allowed());
    })
}

/// Whether the certificate of a request's caller is revoked, where so many other subjects are.
fn looking_for_revocations(caller: &SpiffeId, count: usize) -> Timing {
    let subject = |at: usize| match at % 4 {
        0 => Subject::Pod {
            uid: format!("6c1e2b6e-6d0f-4f6b-8a54-{at:012}").into(),
        },
        1 => Subject::ServiceAccount {
            namespace: "bench".into(),
            name: format!("other-{at}").into(),
        },
        2 => Subject::Serial(at.to_be_bytes().into()),
        _ => Subject::Issuer((at as u128).to_be_bytes()),
    };
    let by = Origin::new("Revocation", "", "bench");
    let revocations = Revocations::of((1..=count).map(|at| Revocation {
        subject: subject(at),
        issued_before: None,
        announced: false,
        by: by.clone(),
    }));
    let peer = PeerFacts {
        id: caller,
        pod: Some("6c1e2b6e-6d0f-4f6b-8a54-0d0f9c2a7d11"),
        serial: &[7; 20],
        issuer: &[7; 16],
        issued: UNIX_EPOCH,
    };
    let what = format!("{count} revoked subjects, the caller is none");
    let timing = timed(what, || {
        black_box(revocations.revoked(black_box(&peer)).is_some());
    });
    Timing {
        most: (count == MAX_SUBJECTS).then_some(REVOKED_TAKE),
        ..timing
    }
}

/// Which of the matches of a Service's routes decides about a request.
fn routing(count: usize) -> Timing {
    let path = |at: usize| format!("/shop/shelf-{at:04}");
    let rule = |at: usize| {
        let description = Description {
            path: Some(PathMatch::Prefix(path(at))),
            ..Description::default()
        };
        route::Rule {
            origin: Origin::new("HTTPRoute", "bench", "web"),
            when: route::Match::AnyOf(vec![HttpMatch::as_described("", description)]),
            then: at,
        }
    };
    let table = route::Table {
        rules: (1..=count).map(rule).collect(),
        otherwise: 0,
    };
    let (headers, path) = (HeaderMap::new(), path(count));
    let facts = RequestFacts {
        method: &Method::GET,
        path: &path,
        query: None,
        headers: &headers,
    };
    let what = format!("{count} matches of HTTPRoutes, the last fits");
    let timing = timed(what, || {
        black_box(table.position(Some(black_box(&facts))));
    });
    Timing {
        most: Some(FEW_MATCHES_TAKE.max(MATCH_TAKES * count as f64)),
        ..timing
    }
}

/// Which endpoint gets a request.
fn balancing(count: u64) -> Result<Timing> {
    let now = Instant::now();
    let mut costs = vec![Cost::default(); usize::try_from(count)?];
    for (at, cost) in costs.iter_mut().enumerate() {
        cost.observe(now, Duration::from_micros(100 + at as u64));
    }
    let mut random = 0_u64;
    Ok(timed(format!("balancer, {count} endpoints"), || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        black_box(pick(
            |at| costs[at].score(now, 1),
            costs.len(),
            (random, random.rotate_left(32)),
        ));
    }))
}

fn rule(caller: &SpiffeId, routes: usize) -> Result<Rule> {
    let none: [(&str, &str); 0] = [];
    let http = (1..=routes)
        .map(|n| {
            let path = if n == routes {
                "/bench".to_owned()
            } else {
                format!("/shop/shelf-{n}/.*")
            };
            HttpMatch::new("route", Some(&path), &["GET"], &none).context(path)
        })
        .collect::<Result<_>>()?;
    Ok(Rule {
        origin: Origin::new("TrafficTarget", "bench", "web"),
        sources: vec![Source::Identity(caller.clone())],
        ports: None,
        http: Some(http),
        limit: None,
    })
}

fn timed(what: String, mut decide: impl FnMut()) -> Timing {
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < TRY {
            // Reading the clock is dearer than some decisions.
            for _ in 0..16 {
                decide();
            }
            count += 16;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(count));
    }
    Timing {
        what,
        nanos: best,
        most: None,
    }
}
