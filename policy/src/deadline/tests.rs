//! Ends of calls, and how they are said to others.
//!
//! Claims: calls-42

use proptest::prelude::*;

use super::*;
use crate::traffic::set::Percent;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn timeouts_of(grpc: Option<u64>, weft: Option<u64>, rest: Option<u64>) -> RequestedTimeout {
    RequestedTimeout {
        grpc: grpc.map(ms),
        weft: weft.map(ms),
        rest: rest.map(ms),
    }
}

#[test]
fn own_deadline_is_minimum_of_requested_and_policy() {
    let now = Instant::now();
    let policy = |request| Timeouts {
        request,
        ..Timeouts::DEFAULT
    };
    for (grpc, weft, request, least) in [
        (None, None, None, None),
        (Some(5), None, None, Some(5)),
        (Some(5), Some(4), None, Some(4)),
        (Some(5), Some(4), Some(3), Some(3)),
        (Some(2), Some(4), Some(3), Some(2)),
        (None, Some(9), Some(8), Some(8)),
    ] {
        let policy = policy(request.map(ms));
        let out = Deadline::outgoing(now, timeouts_of(grpc, weft, None), &policy, None);
        assert_eq!(out.own_left(now), least.map(ms));
        assert_eq!(out.context_left(now), None);
        let came = Deadline::arrived(now, timeouts_of(grpc, weft, None), request.map(ms));
        assert_eq!(came.own_left(now), least.map(ms));
    }
}

#[test]
fn call_gets_share_of_time_remaining_for_served_request() {
    let now = Instant::now();
    let serving = Deadline::arrived(now, timeouts_of(Some(2000), None, Some(1000)), None);
    let later = now + ms(400);
    let policy = Timeouts {
        share: Percent::at_most(50),
        ..Timeouts::DEFAULT
    };
    let until = serving.end().map(|(at, _)| at);
    let out = Deadline::outgoing(later, RequestedTimeout::default(), &policy, until);
    // 600 ms of the stricter end are left.
    assert_eq!(out.context_left(later), Some(ms(300)));
    assert_eq!(out.own_left(later), None, "no caller wants an error");
}

/// Point 6: 30, 10 and 3 s on three Services in a chain.
#[test]
fn each_hop_gets_time_remaining_from_previous_hops() {
    let start = Instant::now();
    let mut serving = Deadline::NONE;
    let mut now = start;
    let mut seen = Vec::new();
    for (request, used) in [(30, 1500), (10, 2500), (3, 700)] {
        let policy = Timeouts {
            request: Some(ms(request * 1000)),
            ..Timeouts::DEFAULT
        };
        let until = serving.end().map(|(at, _)| at);
        let out = Deadline::outgoing(now, RequestedTimeout::default(), &policy, until);
        // Over the wire, as headers, to a proxy with another clock.
        let header_of = |left: Option<Duration>| {
            left.map(|left| parse_millis(print_millis(left).as_bytes()).unwrap())
        };
        serving = Deadline::arrived(
            now,
            RequestedTimeout {
                grpc: None,
                weft: header_of(out.own_left(now)),
                rest: header_of(out.context_left(now)),
            },
            None,
        );
        seen.push((serving.own_left(now), serving.context_left(now)));
        now += ms(used);
    }
    assert_eq!(
        seen,
        [
            (Some(ms(30_000)), None),
            (Some(ms(10_000)), Some(ms(28_500))),
            (Some(ms(3000)), Some(ms(7500))),
        ]
    );
}

#[test]
fn context_deadline_aborts_only_safe_methods_unlike_own() {
    let now = Instant::now();
    let both = Deadline::arrived(now, timeouts_of(Some(3000), None, Some(2000)), None);
    let (own, context) = (now + ms(3000), now + ms(2000));
    assert_eq!(both.end(), Some((context, DeadlineSource::Context)));
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        assert_eq!(
            both.breaks_off(&method),
            Some((context, DeadlineSource::Context))
        );
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        assert_eq!(both.breaks_off(&method), Some((own, DeadlineSource::Own)));
    }
    let context_alone = Deadline::arrived(now, timeouts_of(None, None, Some(2000)), None);
    assert_eq!(context_alone.breaks_off(&Method::POST), None);
    // But none begins after it.
    assert_eq!(context_alone.over(now + ms(1999)), None);
    assert_eq!(context_alone.over(context), Some(DeadlineSource::Context));
    assert_eq!(both.over(own), Some(DeadlineSource::Own));
    assert_eq!(Deadline::NONE.over(now), None);
}

#[test]
fn nothing_left_on_arrival_is_over_at_once() {
    let now = Instant::now();
    assert_eq!(
        Deadline::arrived(now, timeouts_of(Some(0), None, None), None).over(now),
        Some(DeadlineSource::Own)
    );
    assert_eq!(
        Deadline::arrived(now, timeouts_of(Some(9), None, Some(0)), None).over(now),
        Some(DeadlineSource::Context)
    );
}

#[test]
fn last_attempt_gets_remaining_time_others_their_limit() {
    let now = Instant::now();
    let call = Deadline::arrived(now, timeouts_of(Some(1000), None, None), None);
    let limit = Some(ms(300));
    assert_eq!(
        call.attempt(&Method::GET, now, limit, false),
        Some(now + ms(300))
    );
    assert_eq!(
        call.attempt(&Method::GET, now, limit, true),
        Some(now + ms(1000))
    );
    let late = now + ms(900);
    assert_eq!(
        call.attempt(&Method::GET, late, limit, false),
        Some(now + ms(1000))
    );
    assert_eq!(
        call.attempt(&Method::GET, now, None, false),
        Some(now + ms(1000))
    );
    // A call without end would wait for ever.
    assert_eq!(
        Deadline::NONE.attempt(&Method::GET, now, limit, true),
        Some(now + ms(300))
    );
    assert_eq!(Deadline::NONE.attempt(&Method::GET, now, None, true), None);
}

#[test]
fn last_attempt_outlasts_limit_when_call_deadline_is_later() {
    let now = Instant::now();
    let both = Deadline::arrived(now, timeouts_of(Some(3000), None, Some(1000)), None);
    for (method, call, limit, at) in [
        (Method::GET, both, Some(300), Some(300)),
        (Method::GET, both, Some(1000), None),
        (Method::GET, both, None, None),
        // Its context's end is none for it.
        (Method::POST, both, Some(1000), Some(1000)),
        (Method::POST, both, Some(3000), None),
        // What has no end is ended by the limit.
        (Method::GET, Deadline::NONE, Some(300), None),
    ] {
        let found = call.outlasts(&method, now, limit.map(ms));
        assert_eq!(found, at.map(|at| now + ms(at)), "{method} {limit:?}");
    }
}

#[test]
fn unsafe_attempt_outlives_context_deadline_but_not_own() {
    let now = Instant::now();
    let both = Deadline::arrived(now, timeouts_of(Some(3000), None, Some(1000)), None);
    let context = Deadline::arrived(now, timeouts_of(None, None, Some(1000)), None);
    let limit = Some(ms(2000));
    for (method, call, limit, last, end) in [
        (Method::GET, both, limit, false, Some(1000)),
        (Method::GET, both, None, true, Some(1000)),
        (Method::POST, both, limit, false, Some(2000)),
        (Method::POST, both, None, false, Some(3000)),
        (Method::POST, both, limit, true, Some(3000)),
        (Method::POST, context, None, false, None),
        (Method::POST, context, limit, true, Some(2000)),
    ] {
        let found = call.attempt(&method, now, limit, last);
        assert_eq!(
            found,
            end.map(|end| now + ms(end)),
            "{method} {limit:?} {last}"
        );
    }
}

#[test]
fn call_for_expired_request_has_no_time_remaining() {
    let now = Instant::now();
    let of =
        |until| Deadline::outgoing(now, RequestedTimeout::default(), &Timeouts::DEFAULT, until);
    assert_eq!(of(Some(now)).over(now), Some(DeadlineSource::Context));
    assert_eq!(
        of(now.checked_sub(ms(5))).over(now),
        Some(DeadlineSource::Context)
    );
    assert_eq!(of(Some(now + ms(1))).over(now), None);
    assert_eq!(of(None), Deadline::NONE);
}

#[test]
fn for_callers_outside_the_longest_of_all_services_holds() {
    assert_eq!(
        longest([Some(ms(1)), Some(ms(3)), Some(ms(2))]),
        Some(ms(3))
    );
    assert_eq!(longest([Some(ms(1)), None]), None);
    assert_eq!(longest([]), None);
}

#[test]
fn grpc_timeouts_are_read_in_every_unit() {
    for (text, nanos) in [
        ("1H", 3_600_000_000_000),
        ("2M", 120_000_000_000),
        ("30S", 30_000_000_000),
        ("1500m", 1_500_000_000),
        ("7u", 7000),
        ("00000009n", 9),
        ("0m", 0),
        ("99999999H", 99_999_999 * 3_600_000_000_000),
    ] {
        let read = parse_grpc_timeout(text.as_bytes()).unwrap();
        assert_eq!(read.as_nanos(), nanos, "{text}");
    }
}

#[test]
fn what_is_no_time_is_not_guessed() {
    for (text, why) in [
        ("", Unreadable::NoUnit),
        ("5", Unreadable::NoUnit),
        ("5s", Unreadable::Unit),
        ("5h", Unreadable::Unit),
        ("m", Unreadable::Digits),
        ("-1m", Unreadable::Digits),
        ("+1m", Unreadable::Digits),
        (" 1m", Unreadable::Digits),
        ("1 m", Unreadable::Digits),
        ("1.5S", Unreadable::Digits),
        ("1e3m", Unreadable::Digits),
        ("123456789m", Unreadable::Digits),
        ("1m ", Unreadable::Unit),
        ("1m,2m", Unreadable::Digits),
    ] {
        assert_eq!(parse_grpc_timeout(text.as_bytes()), Err(why), "{text:?}");
    }
    assert_eq!(parse_grpc_timeout(b"\xff"), Err(Unreadable::Unit));
    for (text, why) in [
        ("", Unreadable::NoUnit),
        ("1840", Unreadable::NoUnit),
        ("1840s", Unreadable::Unit),
        ("1840 ms", Unreadable::Digits),
        ("ms", Unreadable::Digits),
        ("-1ms", Unreadable::Digits),
        ("123456789ms", Unreadable::Digits),
    ] {
        assert_eq!(parse_millis(text.as_bytes()), Err(why), "{text:?}");
    }
    assert_eq!(parse_millis(b"1840ms"), Ok(ms(1840)));
}

#[test]
fn timeouts_are_printed_in_finest_unit_that_fits() {
    for (left, text) in [
        (Duration::ZERO, "0u"),
        (Duration::from_nanos(999), "0u"),
        (ms(1), "1000u"),
        (Duration::from_micros(99_999_999), "99999999u"),
        (Duration::from_secs(100), "100000m"),
        (Duration::from_secs(100_000), "100000S"),
        (Duration::from_secs(100_000_000), "1666666M"),
        (Duration::from_secs(60 * 100_000_000), "1666666H"),
        (Duration::MAX, "99999999H"),
    ] {
        assert_eq!(print_grpc_timeout(left).as_str(), text);
    }
    assert_eq!(print_millis(ms(1840)).as_str(), "1840ms");
    assert_eq!(
        print_millis(Duration::from_micros(1_840_999)).as_str(),
        "1840ms"
    );
    assert_eq!(print_millis(Duration::MAX).as_str(), "99999999ms");
}

proptest! {
    #[test]
    fn printed_timeout_parses_back_and_is_never_longer(nanos in any::<u64>()) {
        let left = Duration::from_nanos(nanos);
        let printed = print_grpc_timeout(left);
        prop_assert!(printed.as_bytes().len() <= 9);
        let read = parse_grpc_timeout(printed.as_bytes()).unwrap();
        prop_assert!(read <= left);
        // Not shorter than by the unit: at most a second in a day.
        prop_assert!(left - read <= left / 1000 + Duration::from_micros(1));
        let read = parse_millis(print_millis(left).as_bytes()).unwrap();
        prop_assert!(read <= left);
    }

    #[test]
    fn no_bytes_make_the_parsers_fail_otherwise(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
        if let Ok(read) = parse_grpc_timeout(&bytes) {
            prop_assert!(read <= Duration::from_secs(3600 * 99_999_999));
        }
        let _ = parse_millis(&bytes);
    }
}
