//! Renders the sections of a TrafficPolicy for page `/traffic`, as the author wrote them, each with
//! the object that it came from.
//!
//! Skipped is what may be a secret or concerns third parties: a policy's fixed responses in place
//! of a Service, the callers that it grants overrides, and the hashes of tokens.

use std::time::Duration;

use policy::fault::{Fault, Selection};
use policy::origin::Origin;
use policy::route::{Match, Table};
use policy::traffic::call::{
    Fallback, FallbackTo, Mirror, Override, Retry, Sticky, StickyKey, Timeouts,
};
use policy::traffic::endpoint::{Balance, Breaker, Ejection, Subset};
use policy::traffic::set::Methods;
use policy::traffic::{CallerPolicy, Section, without_object};
use serde_json::{Map, Value, json};

/// Where no object configures anything.
const WITHOUT_OBJECT: &str = "without any policy";

/// The sections that hold, by their names. Of several that `routes` limit the first that fits a
/// request decides. `retry` and `ejection`: what holds where no object configures them.
pub(super) fn of(
    settings: &CallerPolicy,
    retry: Option<&Retry>,
    ejection: Option<&Ejection>,
) -> Map<String, Value> {
    let balance_of = &without_object::BALANCE;
    let mut all = Map::new();
    let mut add = |section: Section, rules: Vec<Value>| {
        if !rules.is_empty() {
            all.insert(section.as_str().to_owned(), rules.into());
        }
    };
    add(Section::Timeouts, rules(&settings.timeouts, None, timeouts));
    add(Section::Retry, rules(&settings.retry, retry, retry_of));
    let ejections = rules(&settings.ejection, ejection, ejection_of);
    add(Section::Ejection, ejections);
    add(Section::Breaker, rules(&settings.breaker, None, breaker));
    let fallbacks = rules(&settings.fallback, None, |one| fallback(one));
    add(Section::Fallback, fallbacks);
    let priorities = rules(&settings.priority, None, |one| one.as_str().into());
    add(Section::Priority, priorities);
    let mirrors = rules(&settings.mirror, None, |all| {
        all.iter().map(mirror).collect()
    });
    add(Section::Mirror, mirrors);
    let balances = rules(&settings.balance, Some(balance_of), balance);
    add(Section::Balance, balances);
    add(Section::Sticky, rules(&settings.sticky, None, sticky));
    let overrides = rules(&settings.overrides, None, |all| {
        all.iter().map(override_of).collect()
    });
    add(Section::Overrides, overrides);
    // Of FaultExperiments, whether their runs are granted or not.
    let faults = rules(&settings.fault, None, |one| fault(one));
    if !faults.is_empty() {
        all.insert("fault".to_owned(), faults.into());
    }
    all
}

/// The rules of one section in their order, and what holds for all others.
fn rules<T>(
    table: &Table<Option<T>>,
    otherwise: Option<&T>,
    show: impl Fn(&T) -> Value,
) -> Vec<Value> {
    let rule = |from: Option<&Origin>, some: bool, section: &T| {
        let from = from.map_or_else(|| WITHOUT_OBJECT.to_owned(), ToString::to_string);
        json!({ "from": from, "someRequestsOnly": some, "says": show(section) })
    };
    let mut shown = Vec::new();
    for one in &table.rules {
        let some = one.when != Match::Always;
        if let Some(section) = &one.then {
            shown.push(rule(Some(&one.origin), some, section));
        }
    }
    let decides_all = table.rules.iter().any(|one| one.when == Match::Always);
    if let Some(section) = otherwise.filter(|_| !decides_all) {
        shown.push(rule(None, false, section));
    }
    shown
}

fn time(time: Duration) -> String {
    if time.is_zero() {
        "0s".to_owned()
    } else {
        format!("{time:?}")
    }
}

fn time_or_none(end: Option<Duration>) -> String {
    time(end.unwrap_or_default())
}

fn methods(methods: &Methods) -> Vec<String> {
    match methods {
        Methods::Any => vec!["*".to_owned()],
        Methods::Only(listed) => listed.iter().map(ToString::to_string).collect(),
    }
}

fn timeouts(settings: &Timeouts) -> Value {
    json!({
        "request": time_or_none(settings.request),
        "backendRequest": time_or_none(settings.backend_request),
        "idle": time_or_none(settings.idle),
        "share": settings.share.get(),
    })
}

fn retry_of(settings: &Retry) -> Value {
    json!({
        "attempts": settings.attempts,
        "codes": settings.codes.iter().collect::<Vec<_>>(),
        "grpcCodes": settings.grpc_codes.iter().map(|code| code.as_str()).collect::<Vec<_>>(),
        "methods": methods(&settings.methods),
        "backoff": time(settings.backoff),
        "budget": {
            "percent": settings.budget.percent.get(),
            "interval": time(settings.budget.interval),
            "minPerSecond": settings.budget.min_per_second,
        },
    })
}

fn ejection_of(settings: &Ejection) -> Value {
    json!({
        "consecutiveFailures": settings.consecutive_failures,
        "codes": settings.codes.iter().collect::<Vec<_>>(),
        "baseTime": time(settings.base_time),
        "maxTime": time(settings.max_time),
        "maxPercent": settings.max_percent.get(),
    })
}

fn breaker(settings: &Breaker) -> Value {
    json!({
        "state": format!("{:?}", settings.state),
        "failurePercent": settings.failure_percent.get(),
        "interval": time(settings.interval),
        "minRequests": settings.min_requests,
        "openTime": time(settings.open_time),
    })
}

fn fallback(settings: &Fallback) -> Value {
    let when: Vec<&str> = settings.on.iter().map(|cause| cause.as_str()).collect();
    match &settings.to {
        FallbackTo::Service(service) => json!({ "service": service.to_string(), "when": when }),
        FallbackTo::Response(response) => json!({
            "response": { "status": response.status.as_u16() },
            "when": when,
        }),
    }
}

fn mirror(settings: &Mirror) -> Value {
    json!({
        "service": settings.service.to_string(),
        "percent": settings.percent.get(),
        "methods": methods(&settings.methods),
        "downstream": format!("{:?}", settings.downstream),
    })
}

fn fault(settings: &Fault) -> Value {
    let Selection { seed, share } = settings.selection;
    let failure = settings.failure.map(|failure| failure.effect().as_str());
    json!({
        "run": seed,
        "sharePercent": f64::from(share.millionths()) / 10_000.0,
        "delay": time_or_none(settings.delay),
        "failure": failure,
        "pods": settings.pods.as_ref().map(|pods| pods.iter().count()),
    })
}

fn balance(settings: &Balance) -> Value {
    let subset = match settings.subset {
        Subset::All => 0,
        Subset::Automatic => -1,
        Subset::Count(count) => i64::from(count),
    };
    json!({
        "locality": settings.locality.map(|locality| format!("{locality:?}")),
        "subset": subset,
        "warmup": time(settings.warmup),
    })
}

fn sticky(settings: &Sticky) -> Value {
    let (kind, name) = match &settings.key {
        StickyKey::Header(name) => ("Header", Some(name.to_string())),
        StickyKey::Cookie(name) => ("Cookie", Some(name.to_string())),
        StickyKey::Caller => ("Caller", None),
    };
    json!({
        "type": kind,
        "name": name,
        "scope": format!("{:?}", settings.scope),
        "ttl": time_or_none(settings.ttl),
    })
}

fn override_of(settings: &Override) -> Value {
    let to: Vec<String> = settings.to.iter().map(ToString::to_string).collect();
    json!({
        "to": to,
        "sources": settings.sources.len(),
        "forwarders": settings.forwarders.len(),
        "tokens": settings.tokens.len(),
    })
}
