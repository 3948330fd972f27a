//! What a tap of requests shows, and what it does not.
//!
//! Claims: observe-126, observe-98

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, Response, StatusCode, Version, request};
use policy::access_log::AccessLog;
use policy::protocol::Protocol;
use policy::reason::Reason;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::Receiver;
use wire::v1;

use crate::http::head::ReportedHead;
use crate::http::header_names::{PROOF, TOKEN};
use crate::http::refusal::NotHandled;
use crate::http::watched::BodyEnd;
use crate::telemetry::Telemetry;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::labels::Security;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::tap::Watch;
use crate::telemetry::tap::record::Tapped;
use crate::telemetry::trace::CameFrom;

fn telemetry() -> Arc<Telemetry> {
    let metrics = Metrics::register(&mut Registry::default());
    Arc::new(Telemetry::new(metrics, AccessLog::OFF))
}

fn all() -> v1::TapAsk {
    v1::TapAsk {
        max_per_second: 1_000,
        ..v1::TapAsk::default()
    }
}

fn watch(telemetry: &Telemetry, ask: v1::TapAsk) -> (Watch, Receiver<v1::TapRecord>) {
    telemetry.taps.watch(ask)
}

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn to(service: &str, backend: &str, pod: &str) -> CallEnds {
    CallEnds::Outbound {
        service: service.into(),
        port: 8080,
        backend: backend.into(),
        rule: None,
        pod: pod.into(),
        security: Security::mtls,
    }
}

fn from(caller: &str, uid: &str) -> CallEnds {
    CallEnds::Inbound {
        port: 8080,
        caller: caller.into(),
        at: Some(uid.into()),
        security: Security::mtls,
    }
}

/// One request between these, answered like this.
fn call(telemetry: &Arc<Telemetry>, call_ends: CallEnds, parts: &request::Parts, status: u16) {
    let mut call = Call::begin(telemetry, CallKind::Request, call_ends);
    call.note_request(parts, CameFrom::Application);
    let (answer, ()) = Response::builder()
        .status(status)
        .body(())
        .unwrap()
        .into_parts();
    call.answered(&answer, None)
        .done(BodyEnd::Complete, 7, None);
}

fn get(telemetry: &Arc<Telemetry>, call_ends: CallEnds) {
    call(telemetry, call_ends, &head("GET", "/items", &[]), 200);
}

#[test]
fn tap_record_omits_query_and_unrequested_headers() {
    let telemetry = telemetry();
    // They live as long as what borrows of them.
    let (token, proof) = (TOKEN, PROOF);
    let names = [
        "user-agent",
        "authorization",
        "cookie",
        "x-tenant",
        "Not A Name",
        token.as_str(),
        proof.as_str(),
    ];
    let ask = v1::TapAsk {
        headers: names.map(str::to_owned).to_vec(),
        ..all()
    };
    let (_watch, mut records) = watch(&telemetry, ask);
    let secret = "s3cret";
    let parts = head(
        "POST",
        "http://user:s3cret@cart:8080/items/7?token=s3cret#s3cret",
        &[
            ("user-agent", "curl"),
            ("authorization", secret),
            ("proxy-authorization", secret),
            ("cookie", secret),
            ("x-other", secret),
            (TOKEN.as_str(), secret),
            (PROOF.as_str(), secret),
        ],
    );
    call(
        &telemetry,
        to("shop/cart", "shop/cart-v2", "shop/cart-v2-0"),
        &parts,
        503,
    );
    let record = records.try_recv().unwrap();
    assert!(!format!("{record:?}").contains(secret), "{record:?}");
    assert_eq!(record.path, "/items/7");
    assert_eq!(
        (record.method.as_str(), record.host.as_str()),
        ("POST", "cart:8080")
    );
    assert_eq!((record.status, record.bytes), (503, 7));
    let [header] = &*record.headers else {
        panic!("{record:?}");
    };
    assert_eq!(header.name, "user-agent");
    let edge = record.edge.unwrap();
    assert_eq!(edge.side(), v1::Side::Client);
    assert_eq!((edge.service.as_str(), edge.port), ("shop/cart", 8080));
    assert_eq!(
        (edge.backend.as_str(), edge.pod.as_str()),
        ("shop/cart-v2", "shop/cart-v2-0")
    );
    assert_eq!(edge.security(), v1::Security::Mtls);

    // Text of a caller has a bound.
    let long = format!("/{}", "x".repeat(60_000));
    let parts = head("GET", &long, &[("user-agent", &"y".repeat(60_000))]);
    call(&telemetry, from("shop/web", "uid"), &parts, 200);
    let record = records.try_recv().unwrap();
    assert!(prost::Message::encoded_len(&record) < 4096);
    let edge = record.edge.unwrap();
    assert_eq!(
        (edge.identity.as_str(), edge.caller.as_str()),
        ("shop/web", "uid")
    );
}

#[test]
fn only_what_fits_every_filter_is_shown() {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let cases: [(&str, v1::TapAsk, usize); 10] = [
        ("all", all(), 4),
        (
            "method",
            v1::TapAsk {
                method: "POST".to_owned(),
                ..all()
            },
            1,
        ),
        (
            "no method",
            v1::TapAsk {
                method: "P OST".to_owned(),
                ..all()
            },
            0,
        ),
        (
            "path",
            v1::TapAsk {
                path_prefix: "/it".to_owned(),
                ..all()
            },
            3,
        ),
        (
            "status",
            v1::TapAsk {
                status_first: 500,
                status_last: 599,
                ..all()
            },
            1,
        ),
        (
            "slower",
            v1::TapAsk {
                slower: 3_600_000_000,
                ..all()
            },
            0,
        ),
        (
            "service",
            v1::TapAsk {
                to_services: list(&["shop/cart"]),
                ..all()
            },
            1,
        ),
        (
            "backend",
            v1::TapAsk {
                to_services: list(&["shop/cart-v2"]),
                ..all()
            },
            1,
        ),
        (
            "caller",
            v1::TapAsk {
                from_pods: list(&["uid-1"]),
                ..all()
            },
            1,
        ),
        (
            "both ends",
            v1::TapAsk {
                to_pods: list(&["shop/pay-0"]),
                from_accounts: list(&["shop/web"]),
                ..all()
            },
            3,
        ),
    ];
    for (what, ask, shown) in cases {
        let telemetry = telemetry();
        let (watch, _records) = watch(&telemetry, ask);
        get(
            &telemetry,
            to("shop/cart", "shop/cart-v2", "shop/cart-v2-0"),
        );
        let parts = head("POST", "/pay?x=/items", &[]);
        call(
            &telemetry,
            to("shop/pay", "shop/pay", "shop/pay-0"),
            &parts,
            500,
        );
        get(&telemetry, from("shop/web", "uid-1"));
        get(&telemetry, from("shop/web", "uid-2"));
        assert_eq!(watch.summary().shown as usize, shown, "{what}");
    }
}

#[test]
fn concurrent_taps_see_call_with_own_headers_each() {
    let telemetry = telemetry();
    let asks = ["x-tenant", "user-agent"].map(|name| v1::TapAsk {
        headers: vec![name.to_owned()],
        ..all()
    });
    let mut taps = asks.map(|ask| watch(&telemetry, ask));
    // Its head is noted for this one too, which wants it no more when it has ended.
    let slow = v1::TapAsk {
        slower: 3_600_000_000,
        ..all()
    };
    let (_watch, mut none) = watch(&telemetry, slow);
    let headers = [("x-tenant", "a"), ("user-agent", "curl")];
    let parts = head("GET", "http://cart:8080/items", &headers);
    let call_ends = to("shop/cart", "shop/cart", "shop/cart-0");
    call(&telemetry, call_ends, &parts, 200);
    let reported = taps.each_mut().map(|(_, records)| {
        let record = records.try_recv().unwrap();
        let names = record.headers.into_iter().map(|header| header.name);
        let names: Vec<String> = names.collect();
        assert!(record.at > 0 && record.edge.is_some());
        [record.method, record.host, record.path, names.concat()]
    });
    for (reported, header) in reported.iter().zip(["x-tenant", "user-agent"]) {
        assert_eq!(reported, &["GET", "cart:8080", "/items", header]);
    }
    assert!(none.try_recv().is_err());
}

#[test]
fn requests_of_one_route_are_those_that_it_describes() {
    let telemetry = telemetry();
    let ask = v1::TapAsk {
        route: "cart/read".to_owned(),
        ..all()
    };
    let (watch, mut records) = watch(&telemetry, ask);
    for route in ["cart/read", "cart/write", ""] {
        let call_ends = from("shop/web", "uid");
        let mut call = Call::begin(&telemetry, CallKind::Request, call_ends.clone());
        call.speaks(Version::HTTP_11, false);
        call.note_request(&head("GET", "/items", &[]), CameFrom::Application);
        call.on(telemetry.cell(call_ends, Protocol::Http1));
        call.takes_route(&route.into());
        let (answer, ()) = Response::new(()).into_parts();
        call.answered(&answer, None)
            .done(BodyEnd::Complete, 0, None);
    }
    // What the own application calls has no route of its own.
    get(&telemetry, to("shop/cart", "shop/cart", "shop/cart-0"));
    assert_eq!(records.try_recv().unwrap().route, "cart/read");
    assert_eq!(watch.summary().matched, 1);
}

// Claims: observability-14
#[test]
fn tap_rate_and_queue_are_bounded_counting_drops() {
    let telemetry = telemetry();
    assert!(!telemetry.taps.any());
    let slow = v1::TapAsk {
        max_per_second: 10,
        ..all()
    };
    let began = Instant::now();
    let (first, _records) = watch(&telemetry, slow);
    let (second, mut records) = watch(&telemetry, all());
    for _ in 0..300 {
        get(&telemetry, from("shop/web", "uid"));
    }
    let summary = first.summary();
    // Ten in each second that started, which on a machine that stalls is not only one.
    let seconds = began.elapsed().as_secs() + 1;
    assert!(
        summary.matched == 300 && (10..=10 * seconds).contains(&summary.shown),
        "{summary:?} in {seconds} s"
    );
    assert_eq!(summary.dropped, 0);
    let summary = second.summary();
    assert_eq!(
        (summary.matched, summary.shown, summary.dropped),
        (300, 256, 44)
    );
    assert!(records.try_recv().is_ok());

    drop(first);
    assert!(telemetry.taps.any(), "the other one still watches");
    drop(second);
    assert!(!telemetry.taps.any());
}

#[test]
fn refused_head_reaches_taps_with_matching_filter() {
    let telemetry = telemetry();
    let of = |method: &str, path_prefix: &str| v1::TapAsk {
        method: method.to_owned(),
        path_prefix: path_prefix.to_owned(),
        status_first: 400,
        status_last: 499,
        ..all()
    };
    let asks = [of("", ""), of("POST", ""), of("GET", "/items"), of("", "/")];
    let mut taps = asks.map(|ask| watch(&telemetry, ask));
    let mut reported = |method: Option<&Method>, path| {
        let call = Call::begin(&telemetry, CallKind::Request, from("shop/web", "uid"));
        let how = NotHandled::Answered(Reason::BadRequest, StatusCode::BAD_REQUEST);
        let asked = ReportedHead {
            method,
            path,
            ..ReportedHead::default()
        };
        call.turned_away(how, asked);
        taps.each_mut().map(|(_, records)| {
            let record = records.try_recv().ok()?;
            assert_eq!((record.status, &*record.reason), (400, "bad-request"));
            Some([record.method, record.path])
        })
    };
    let read = Some(["GET".to_owned(), "/items/7".to_owned()]);
    assert_eq!(
        reported(Some(&Method::GET), "/items/7"),
        [read.clone(), None, read.clone(), read]
    );
    // Of which nothing could be read: only a tap without filters gets it.
    let unread = Some([String::new(), String::new()]);
    assert_eq!(reported(None, ""), [unread, None, None, None]);
    // Control: one that was served is no refusal.
    get(&telemetry, from("shop/web", "uid"));
    let more = taps
        .each_mut()
        .map(|(_, records)| records.try_recv().is_ok());
    assert_eq!(more, [false; 4]);
}

// Claims: observability-13
#[test]
fn request_that_no_tap_wants_is_written_down_nowhere() {
    let telemetry = telemetry();
    let posts = v1::TapAsk {
        method: "POST".to_owned(),
        ..all()
    };
    let others = v1::TapAsk {
        from_pods: vec!["uid-9".to_owned()],
        status_first: 500,
        status_last: 599,
        ..all()
    };
    let _taps = [posts, others].map(|ask| watch(&telemetry, ask));
    let (call_ends, parts) = (from("shop/web", "uid"), head("GET", "/items", &[]));
    let noted =
        move || Tapped::note(&telemetry.taps, &call_ends, ReportedHead::of(&parts), None).is_some();
    let looking = std::thread::spawn(move || {
        assert!(!noted());
        let allocated = tikv_jemalloc_ctl::thread::allocatedp::read().unwrap();
        let before = allocated.get();
        let noted = (0..1_000).filter(|_| noted()).count();
        (noted, allocated.get() - before)
    });
    assert_eq!(looking.join().unwrap(), (0, 0), "requests and bytes");
}
