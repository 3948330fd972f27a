//! What becomes of a call in the access log, and what counting one costs.
//!
//! Claims: observe-101, observe-126, observe-139, observe-96, observe-97, observe-98

use http::Request;
use policy::access_log::AccessLog;
use policy::share::Share;
use policy::trace::{Format, Tracing};
use prometheus_client::registry::Registry;

use super::*;
use crate::telemetry::access_log::Line;
use crate::telemetry::cell::{CallGroup, CellCache, CellKey};
use crate::telemetry::labels::Direction;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::TracingConfig;

/// A call of either side, of which `rule` decides.
fn decided(direction: Direction, access_log: AccessLog, rule: &Origin) -> Call {
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, access_log));
    let (parts, ()) = Request::new(()).into_parts();
    let (security, port) = (Security::mtls, 80);
    let call_ends = match direction {
        Direction::outbound => CallEnds::Outbound {
            service: "shop/web".into(),
            port,
            backend: "shop/web-2".into(),
            rule: Some(rule.clone()),
            pod: Arc::default(),
            security,
        },
        Direction::inbound => CallEnds::Inbound {
            port,
            caller: "shop/web".into(),
            at: None,
            security,
        },
    };
    let mut call = Call::begin(&telemetry, CallKind::Request, call_ends);
    call.note_request(&parts, CameFrom::Application);
    if direction == Direction::inbound {
        call.decided_by(Some(rule));
    }
    call
}

/// The line of a call that ends so at once.
fn line_of<'a>(call: &'a Call, status: u16, reason: &'static str) -> Option<Line<'a>> {
    let ending = TapEnding {
        port: 80,
        route: None,
        status,
        grpc: None,
        reason,
        latency: Duration::ZERO,
        bytes: 0,
    };
    call.notes.line(call.call_ends(), &ending)
}

#[test]
fn the_access_log_names_what_decided_on_either_side() {
    for (direction, kind) in [
        (Direction::inbound, "TrafficTarget"),
        (Direction::outbound, "TrafficSplit"),
    ] {
        let rule = Origin::new(kind, "shop", "web");
        let call = decided(direction, AccessLog::JSON, &rule);
        let line = line_of(&call, 200, "").unwrap();
        assert_eq!(line.rule, Some(&rule));
        let silent = decided(direction, AccessLog::OFF, &rule);
        assert!(line_of(&silent, 200, "").is_none());
    }
}

#[test]
fn access_log_names_route_without_counting_cell() {
    let rule = Origin::new("TrafficTarget", "shop", "web");
    let mut call = decided(Direction::inbound, AccessLog::JSON, &rule);
    let route = |call: &Call| {
        let line = line_of(call, 200, "").unwrap();
        line.route.to_owned()
    };
    assert_eq!(route(&call), "", "it was not judged");
    // It has no cell.
    call.takes_route(&"cart/read".into());
    assert_eq!(route(&call), "cart/read");
    call.takes_route(&"".into());
    assert_eq!(route(&call), "", "none describes it");
}

#[test]
fn refused_head_is_logged_with_its_readable_parts() {
    let rule = Origin::new("TrafficTarget", "shop", "web");
    let post = Method::from_bytes(&[b'P'; 300]).unwrap();
    let whole = ReportedHead {
        method: Some(&post),
        path: "/items",
        ..ReportedHead::default()
    };
    for (asked, method, path) in [
        (whole, &*"P".repeat(256), "/items"),
        (ReportedHead::default(), "", ""),
    ] {
        let mut call = decided(Direction::inbound, AccessLog::JSON, &rule);
        call.note_rejected(asked);
        let line = line_of(&call, 400, "bad-request").unwrap();
        assert_eq!((line.method, line.path, line.host), (method, path, ""));
        assert_eq!((line.direction, line.peer), ("inbound", "shop/web"));
        assert_eq!((line.trace, line.rule), (None, None));
        let mut silent = decided(Direction::inbound, AccessLog::OFF, &rule);
        silent.note_rejected(asked);
        assert!(line_of(&silent, 400, "bad-request").is_none());
    }
}

#[test]
fn the_access_log_follows_the_controller_and_goes_back() {
    let rule = Origin::new("TrafficTarget", "shop", "web");
    let call = decided(Direction::inbound, AccessLog::JSON, &rule);
    let telemetry = Arc::clone(&call.telemetry);
    let logged = |failed| {
        let (parts, ()) = Request::new(()).into_parts();
        let call_ends = call.call_ends().clone();
        let mut call = Call::begin(&telemetry, CallKind::Request, call_ends);
        call.note_request(&parts, CameFrom::Application);
        call.notes.keep_line_of(failed);
        line_of(&call, 200, "").is_some()
    };
    for (configured, good, bad) in [
        (None, true, true),
        (Some("json,errors"), false, true),
        (Some("off"), false, false),
        (Some("json"), true, true),
        (None, true, true),
    ] {
        telemetry.log_as(configured.map(|log: &str| log.parse().unwrap()));
        assert_eq!((logged(false), logged(true)), (good, bad), "{configured:?}");
    }
}

#[test]
fn a_recorded_request_is_the_exemplar_of_its_bucket() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    telemetry.tracer.configure(Some(Arc::new(TracingConfig {
        tracing: Tracing {
            collector: "http://collector:4317".parse().unwrap(),
            share: Share::NONE,
            inject: vec![Format::TraceContext],
            most_per_second: 10,
            paths: true,
        },
        resource: Vec::new(),
    })));
    let page = |verdict: &str| {
        let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{verdict}");
        let request = Request::builder().header("traceparent", parent);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let called = CallEnds::to_service("shop/cart".into(), 80);
        let mut call = Call::begin(&telemetry, CallKind::Request, called);
        call.note_request(&parts, CameFrom::Application);
        let (answer, ()) = Response::new(()).into_parts();
        call.answered(&answer, None)
            .done(BodyEnd::Complete, 10, None);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        telemetry.metrics.calls.annotate(page)
    };
    let id = "# {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} ";
    assert_eq!(page("00").matches(id).count(), 0);
    let page = page("01");
    let lines: Vec<&str> = page.lines().filter(|line| line.contains(id)).collect();
    assert_eq!(lines.len(), 1, "{page}");
    assert!(lines[0].starts_with("weft_request_duration_seconds_bucket{le=\""));
    assert!(lines[0].contains("service=\"shop/cart\""), "{lines:?}");
}

// Counts what each thread allocates; the proxy's own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One request of the application to `cart-v2`, whose cell is kept as an endpoint does.
fn request(
    telemetry: &Arc<Telemetry>,
    kept: &CellCache,
    there: &CellKey,
    answer: &response::Parts,
) {
    let (parts, ()) = Request::new(()).into_parts();
    let called = CallEnds::to_service(Arc::default(), 80);
    let mut call = Call::begin(telemetry, CallKind::Request, called);
    call.speaks(Version::HTTP_11, false);
    call.note_request(&parts, CameFrom::Application);
    call.set_ends(there.call_ends.clone());
    let found = kept.find(|key| key == there);
    let cell = found.unwrap_or_else(|| {
        let cell = telemetry.cell(there.call_ends.clone(), there.protocol);
        kept.keep(&cell);
        cell
    });
    call.attempt(cell);
    call.answered(answer, None)
        .done(BodyEnd::Complete, 10, None);
}

// Claims: observability-13
#[test]
fn request_count_needs_no_allocation_or_map_lookup() {
    const REQUESTS: u64 = 1000;
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    let there = CellKey {
        call_ends: CallEnds::Outbound {
            service: "shop/cart".into(),
            port: 80,
            backend: "shop/cart-v2".into(),
            rule: Some(Origin::new("TrafficSplit", "shop", "cart")),
            pod: "shop/cart-v2-0".into(),
            security: Security::mtls,
        },
        protocol: Protocol::Http1,
        route: None,
        group: CallGroup::None,
    };
    let (answer, ()) = Response::new(()).into_parts();
    let (kept, cells) = (
        CellCache::default(),
        Arc::clone(&telemetry.metrics.calls.cells),
    );
    request(&telemetry, &kept, &there, &answer);
    let (done, finished) = std::sync::mpsc::channel();
    let counting = Arc::clone(&telemetry);
    // A look-up in the map would wait for as long as this holds it.
    let allocated = cells.while_locked(|| {
        std::thread::spawn(move || {
            let allocated = tikv_jemalloc_ctl::thread::allocatedp::read().unwrap();
            // The first one of a thread registers it where cells are kept.
            request(&counting, &kept, &there, &answer);
            let before = allocated.get();
            for _ in 0..REQUESTS {
                request(&counting, &kept, &there, &answer);
            }
            done.send(allocated.get() - before).unwrap();
        });
        finished.recv_timeout(Duration::from_secs(20))
    });
    assert_eq!(allocated.expect("the map was asked"), 0, "bytes");
    let mut calls = 0;
    cells.drain(|_, counts| calls += counts.calls(|outcome| outcome.success));
    assert_eq!(calls, REQUESTS + 2);
}

/// The undeclared port of an application is distinguished once it is served, unless too many are
/// already.
#[test]
fn connection_counts_once_with_distinguished_or_other_port() {
    for distinguished in [true, false] {
        let metrics = Metrics::register(&mut Registry::default());
        let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
        for port in 1..=if distinguished { 1 } else { 100 } {
            let _ = telemetry.port_label(Direction::inbound, "", port, true);
        }
        let call_ends = CallEnds::Inbound {
            port: 9090,
            caller: "shop/web".into(),
            at: None,
            security: Security::mtls,
        };
        let mut call = Call::begin(&telemetry, CallKind::Bytes, call_ends.clone());
        call.on(telemetry.cell(call_ends, Protocol::Opaque));
        call.audited();
        let cell = call.open();
        assert_eq!(cell.key().call_ends.port() == 9090, distinguished);
        call.bytes_ended(None);
        let (mut started, mut audited) = (0, 0);
        let cells = Arc::clone(&telemetry.metrics.calls.cells);
        cells.drain(|_, counts| {
            started += counts.started;
            audited += counts.audit;
        });
        assert_eq!((started, audited), (1, 1), "{distinguished}");
    }
}

/// The control thread may look at any moment.
#[test]
fn connection_counts_once_if_drained_before_port_is_known() {
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    let cells = Arc::clone(&telemetry.metrics.calls.cells);
    let rule = Origin::new("TrafficTarget", "shop", "web");
    let call_ends = CallEnds::Inbound {
        port: 9090,
        caller: "shop/web".into(),
        at: None,
        security: Security::mtls,
    };
    let (mut started, mut rules) = (0, Vec::new());
    let mut take = || {
        cells.drain(|key, counts| {
            started += counts.started;
            let rules_here = counts.rules.iter().map(|rule| rule.label().to_string());
            rules.extend(rules_here.map(|rule| (key.call_ends.port(), rule)));
        });
    };
    let mut call = Call::begin(&telemetry, CallKind::Bytes, call_ends.clone());
    call.on(telemetry.cell(call_ends, Protocol::Opaque));
    call.allowed_by(Some(&rule));
    call.audited();
    take();
    assert_eq!(call.open().key().call_ends.port(), 9090);
    take();
    call.bytes_ended(None);
    take();
    assert_eq!(started, 1);
    assert!(
        rules.contains(&(9090, rule.label().to_string())),
        "{rules:?}"
    );
}

/// A request that waits for memory shows that, a rejected one does not.
#[test]
fn waiting_counts_as_latency_but_rejection_does_not() {
    let rule = Origin::new("TrafficTarget", "shop", "web");
    let counted = |end: fn(Call)| {
        let mut call = decided(Direction::inbound, AccessLog::OFF, &rule);
        let cells = Arc::clone(&call.telemetry.metrics.calls.cells);
        call.waited(Duration::from_secs(7));
        end(call);
        let (mut calls, mut seconds) = (0, 0);
        cells.drain(|_, counts| {
            calls += counts.calls(|outcome| !outcome.success);
            seconds += counts.nanoseconds / 1_000_000_000;
        });
        (calls, seconds)
    };
    let refused = counted(|call| {
        let failure = Failure::not_sent(Reason::Overload, "late");
        let _ = call.refuse(&failure, &Method::GET, false);
    });
    assert_eq!(refused, (1, 7));
    let turned_away = counted(|call| call.turned_away(NotHandled::LATE, ReportedHead::default()));
    assert_eq!(turned_away, (1, 0));
}

#[test]
fn caller_leaving_while_waiting_counts_cancelled_not_failed() {
    let rule = Origin::new("TrafficTarget", "shop", "web");
    let call = decided(Direction::inbound, AccessLog::OFF, &rule);
    let cells = Arc::clone(&call.telemetry.metrics.calls.cells);
    call.turned_away(NotHandled::Left, ReportedHead::default());
    let mut counted = (0, 0);
    cells.drain(|_, counts| counted = (counts.cancelled, counts.calls(|_| true)));
    assert_eq!(counted, (1, 0));
}

/// One request of `shop/web` that takes the route of this name, if it has one.
fn routed(
    telemetry: &Arc<Telemetry>,
    kept: &CellCache,
    route: &Arc<str>,
    answer: &response::Parts,
) {
    let (parts, ()) = Request::new(()).into_parts();
    let call_ends = CallEnds::Inbound {
        port: 80,
        caller: Arc::default(),
        at: None,
        security: Security::mtls,
    };
    let mut call = Call::begin(telemetry, CallKind::Request, call_ends.clone());
    call.speaks(Version::HTTP_11, false);
    call.note_request(&parts, CameFrom::Application);
    let cell = kept.find(|_| true).unwrap_or_else(|| {
        let cell = telemetry.cell(call_ends, Protocol::Http1);
        kept.keep(&cell);
        cell
    });
    call.on(cell);
    call.takes_route(route);
    call.answered(answer, None)
        .done(BodyEnd::Complete, 10, None);
}

/// What cells of this route have counted since the last time.
fn drained(telemetry: &Telemetry, route: Option<&str>) -> (u64, u64) {
    let (mut here, mut elsewhere) = (0, 0);
    telemetry.metrics.calls.cells.drain(|key, counts| {
        let calls = counts.calls(|_| true);
        if key.route.as_deref() == route {
            here += calls;
        } else {
            elsewhere += calls;
        }
    });
    (here, elsewhere)
}

#[test]
fn route_request_count_needs_no_allocation_or_lookup() {
    const REQUESTS: u64 = 1000;
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    telemetry.declare(Arc::new([80].into()));
    let (answer, ()) = Response::new(()).into_parts();
    let (kept, cells) = (
        CellCache::default(),
        Arc::clone(&telemetry.metrics.calls.cells),
    );
    let route: Arc<str> = "cart/read".into();
    // The same name of another table is the same route.
    routed(&telemetry, &kept, &"cart/read".into(), &answer);
    let (done, finished) = std::sync::mpsc::channel();
    let counting = Arc::clone(&telemetry);
    let allocated = cells.while_locked(|| {
        std::thread::spawn(move || {
            let allocated = tikv_jemalloc_ctl::thread::allocatedp::read().unwrap();
            routed(&counting, &kept, &route, &answer);
            let before = allocated.get();
            for _ in 0..REQUESTS {
                routed(&counting, &kept, &route, &answer);
            }
            done.send(allocated.get() - before).unwrap();
        });
        finished.recv_timeout(Duration::from_secs(20))
    });
    assert_eq!(allocated.expect("the map was asked"), 0, "bytes");
    assert_eq!(drained(&telemetry, Some("cart/read")), (REQUESTS + 2, 0));
}

#[test]
fn port_and_route_of_request_are_distinguished_together() {
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    let call_ends = CallEnds::Inbound {
        port: 9090,
        caller: "shop/web".into(),
        at: None,
        security: Security::mtls,
    };
    let mut call = Call::begin(&telemetry, CallKind::Request, call_ends.clone());
    call.speaks(Version::HTTP_11, false);
    call.on(telemetry.cell(call_ends, Protocol::Http1));
    call.takes_route(&"cart/read".into());
    let (answer, ()) = Response::new(()).into_parts();
    call.answered(&answer, None)
        .done(BodyEnd::Complete, 0, None);
    let mut keys = Vec::new();
    telemetry.metrics.calls.cells.drain(|key, counts| {
        if counts.calls(|_| true) > 0 {
            keys.push((key.call_ends.port(), key.route.clone()));
        }
    });
    assert_eq!(keys, [(9090, Some("cart/read".into()))]);
}

#[test]
fn requests_beyond_route_limit_count_and_report_limit() {
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    telemetry.declare(Arc::new([80].into()));
    let (answer, ()) = Response::new(()).into_parts();
    let kept = CellCache::default();
    for route in 0..2000 {
        routed(&telemetry, &kept, &route.to_string().into(), &answer);
    }
    let limit = telemetry
        .metrics
        .limits
        .at(&crate::telemetry::labels::LimitLabels { limit: "routes" });
    assert!(limit.get() > 900, "{}", limit.get());
    let (without, by_route) = drained(&telemetry, None);
    assert_eq!(without + by_route, 2000);
    assert!(by_route > 900, "{by_route}");
}
