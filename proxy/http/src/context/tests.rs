//! What a request leaves to the calls that are made for it, and when it is over for them.
//!
//! Claims: calls-43, calls-45, calls-47

use std::time::Duration;

use policy::context::MOST;
use policy::deadline::RequestedTimeout;
use tokio::time::{advance, timeout};

use super::*;
use crate::deadline::{StopConditions, WaitEnd, until};
use crate::upload::Upload;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-00000000000000000000000000000001-00f067aa0ba902b7-01";
/// More than an immediate answer takes.
const SOON: Duration = Duration::from_millis(1);

/// How a request ends.
type RequestEnd = fn(OpenRequest);

fn traced(parent: &'static str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("traceparent", HeaderValue::from_static(parent));
    map
}

fn within(left: u64) -> Inherited {
    let requested = RequestedTimeout {
        weft: Some(Duration::from_millis(left)),
        ..RequestedTimeout::default()
    };
    Inherited {
        deadline: Deadline::arrived(now(), requested, None),
        ..Inherited::default()
    }
}

/// The request that goes to the application, and its name.
fn register(
    contexts: &Arc<Contexts>,
    inherited: &Inherited,
    map: HeaderMap,
) -> (OpenRequest, Option<Id>) {
    let mut map = map;
    let (kept, room) = contexts.register(inherited, &mut map);
    assert!(room);
    let name = map.get(CONTEXT);
    let name = name.map(|name| Id::parse(name.as_bytes()).unwrap());
    (kept, name)
}

fn how(contexts: &Contexts, named: Option<Id>, map: &HeaderMap) -> Option<&'static str> {
    contexts.of_call(named, map).how()
}

#[tokio::test(start_paused = true)]
async fn request_gets_context_id_only_where_calls_inherit() {
    let contexts = Arc::<Contexts>::default();
    let plain = Inherited::default();
    let classes = [None, Some(Priority::Normal), Some(Priority::Critical)];
    for priority in classes {
        let inherited = Inherited {
            priority,
            ..plain.clone()
        };
        assert_eq!(register(&contexts, &inherited, traced(PARENT)).1, None);
    }
    let perhaps = Some(Shadow::Perhaps(5));
    let perhaps = Inherited {
        shadow: perhaps,
        ..plain.clone()
    };
    assert_eq!(register(&contexts, &perhaps, HeaderMap::new()).1, None);
    assert_eq!(how(&contexts, None, &traced(PARENT)), None, "no query");
    for inherited in [
        Inherited {
            retry: true,
            ..plain.clone()
        },
        Inherited {
            priority: Some(Priority::Sheddable),
            ..plain.clone()
        },
        Inherited {
            shadow: Some(Shadow::ReadOnly),
            ..plain.clone()
        },
        within(500),
    ] {
        let (kept, name) = register(&contexts, &inherited, HeaderMap::new());
        assert!(name.is_some(), "{inherited:?}");
        let made_for = contexts.of_call(name, &HeaderMap::new());
        let request = made_for.clone().request().unwrap();
        assert_eq!(request.inherited().retry, inherited.retry);
        assert_eq!(made_for.until(), inherited.deadline.end().map(|(at, _)| at));
        kept.ended(BodyEnd::Complete);
        assert_eq!(how(&contexts, name, &HeaderMap::new()), Some("none"));
    }
}

#[tokio::test(start_paused = true)]
async fn trace_uses_loosest_deadline_and_none_counts_as_loosest() {
    let contexts = Arc::<Contexts>::default();
    let (short, _) = register(&contexts, &within(500), traced(PARENT));
    let after = |left| Some(now() + Duration::from_millis(left));
    assert_eq!(contexts.of_call(None, &traced(PARENT)).until(), after(500));
    assert_eq!(how(&contexts, None, &traced(OTHER)), Some("none"));
    assert_eq!(how(&contexts, None, &HeaderMap::new()), Some("none"));
    let (endless, name) = register(&contexts, &Inherited::default(), traced(PARENT));
    assert_eq!(name, None);
    let made_for = contexts.of_call(None, &traced(PARENT));
    assert_eq!((made_for.how(), made_for.until()), (Some("trace"), None));
    drop((short, endless));
    assert_eq!(how(&contexts, None, &traced(PARENT)), Some("none"));
    let _tighter = register(&contexts, &within(300), traced(PARENT));
    assert_eq!(contexts.of_call(None, &traced(PARENT)).until(), after(300));
}

#[tokio::test(start_paused = true)]
async fn trace_ids_are_ignored_until_earlier_requests_finish() {
    let contexts = Arc::<Contexts>::default();
    let (before, _) = register(&contexts, &Inherited::default(), traced(PARENT));
    let (_first, name) = register(&contexts, &within(500), traced(PARENT));
    assert_eq!(how(&contexts, None, &traced(PARENT)), Some("none"));
    assert_eq!(how(&contexts, name, &traced(PARENT)), Some("context"));
    before.ended(BodyEnd::Complete);
    assert_eq!(how(&contexts, None, &traced(PARENT)), Some("trace"));
    // Of what comes later it is known.
    let _later = register(&contexts, &Inherited::default(), HeaderMap::new());
    assert_eq!(how(&contexts, None, &traced(PARENT)), Some("trace"));
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_context_bound_disable_trace_ids() {
    let contexts = Arc::<Contexts>::default();
    let mut all = Vec::new();
    for _ in 0..MOST {
        all.push(register(&contexts, &within(500), traced(PARENT)));
    }
    let mut map = traced(OTHER);
    let (beyond, room) = contexts.register(&within(500), &mut map);
    assert!(!room && !map.contains_key(CONTEXT));
    assert_eq!(how(&contexts, None, &traced(OTHER)), Some("none"));
    assert_eq!(how(&contexts, None, &traced(PARENT)), Some("none"));
    assert_eq!(how(&contexts, all[0].1, &HeaderMap::new()), Some("context"));
    drop(beyond);
    assert_eq!(how(&contexts, None, &traced(PARENT)), Some("trace"));
    all.pop();
    let (_kept, name) = register(&contexts, &within(500), traced(OTHER));
    assert!(name.is_some());
    assert!(
        size_of::<ServedRequest>() <= 176,
        "{}",
        size_of::<ServedRequest>()
    );
}

#[tokio::test(start_paused = true)]
async fn no_call_starts_for_abandoned_or_expired_request() {
    let contexts = Arc::<Contexts>::default();
    let none = HeaderMap::new();
    let ends: [(RequestEnd, &str); 8] = [
        (drop, "over"),
        (|kept| kept.ended(BodyEnd::Dropped), "over"),
        (|kept| kept.ended(BodyEnd::OutOfTime(WaitEnd::Time)), "over"),
        (|kept| kept.ended(BodyEnd::Late(WaitEnd::Time)), "over"),
        (|kept| kept.refused(Reason::Deadline), "over"),
        (|kept| kept.refused(Reason::ConnectionLost), "none"),
        (|kept| kept.ended(BodyEnd::Complete), "none"),
        (|kept| kept.ended(BodyEnd::Failed), "none"),
    ];
    for (end, found) in ends {
        let (kept, name) = register(&contexts, &within(500), traced(PARENT));
        end(kept);
        let made_for = contexts.of_call(name, &none);
        assert_eq!(made_for.how(), Some(found));
        assert_eq!(made_for.until(), (found == "over").then(now));
        // Another request of the trace may be what a call is made for.
        assert_eq!(how(&contexts, None, &traced(PARENT)), Some("none"));
    }
}

#[tokio::test(start_paused = true)]
async fn switched_protocol_has_no_deadline_until_connection_closes() {
    let contexts = Arc::<Contexts>::default();
    let none = HeaderMap::new();
    let (kept, name) = register(&contexts, &within(500), traced(PARENT));
    let started = contexts.of_call(name, &none);
    assert!(started.until().is_some());
    kept.switched();
    advance(Duration::from_secs(1)).await;
    for made_for in [
        started,
        contexts.of_call(name, &none),
        contexts.of_call(None, &traced(PARENT)),
    ] {
        assert_eq!(made_for.until(), None, "{:?}", made_for.how());
    }
    drop(kept);
    assert_eq!(how(&contexts, name, &none), Some("over"));
    // One that has none, and one that is only counted.
    let (kept, _) = register(&contexts, &Inherited::default(), traced(OTHER));
    kept.switched();
    let uncounted = Arc::<Contexts>::default();
    let (kept, _) = register(&uncounted, &Inherited::default(), traced(OTHER));
    kept.switched();
    drop(kept);
    assert_eq!(uncounted.unknown.load(SeqCst), 0);
}

/// Work that only this ends.
async fn wait_for(left: Left) -> Result<(), WaitEnd> {
    let ends = StopConditions::new(None, None, &Upload::default(), Some(left));
    until(ends, pin!(std::future::pending())).await
}

#[tokio::test(start_paused = true)]
async fn waiter_is_notified_of_leaving_caller_not_of_response() {
    let contexts = Arc::<Contexts>::default();
    for leaves in [true, false] {
        let (kept, name) = register(&contexts, &within(500), HeaderMap::new());
        let request = contexts.of_call(name, &HeaderMap::new()).request().unwrap();
        let waiting =
            [request.leaving(), request.leaving()].map(|left| tokio::spawn(wait_for(left)));
        advance(SOON).await;
        assert!(!request.has_left());
        if leaves {
            drop(kept);
        } else {
            kept.ended(BodyEnd::Complete);
        }
        assert_eq!(request.has_left(), leaves);
        for one in waiting {
            assert_eq!(timeout(SOON, one).await.is_ok(), leaves);
        }
        let late = timeout(SOON, wait_for(request.leaving())).await;
        assert_eq!(late.is_ok(), leaves, "a later one gets it as well");
    }
}

#[tokio::test(start_paused = true)]
async fn exhausted_retries_mark_request_by_name_or_trace() {
    let contexts = Arc::<Contexts>::default();
    let (named, name) = register(&contexts, &within(500), traced(PARENT));
    let (other, _) = register(&contexts, &within(500), traced(PARENT));
    let spent = |kept: &OpenRequest, parent| contexts.retries_exhausted(kept, &traced(parent));
    assert!(!spent(&named, PARENT));
    let request = contexts.of_call(name, &HeaderMap::new()).request();
    let spend = |request, map: &HeaderMap| {
        if let Some(retry_parent) = RetryParent::of(request, map) {
            contexts.mark_retries_exhausted(&retry_parent);
        }
    };
    spend(request.as_ref(), &traced(PARENT));
    assert!(spent(&named, PARENT) && !spent(&other, PARENT));
    spend(None, &HeaderMap::new());
    assert!(!spent(&other, PARENT));
    spend(None, &traced(PARENT));
    assert!(spent(&other, PARENT) && !spent(&other, OTHER));
    advance(Duration::from_secs(10)).await;
    assert!(!spent(&other, PARENT) && spent(&named, OTHER));
}
