//! What is tried again, and what it costs.
//!
//! Claims: calls-2, calls-46

use super::*;
use crate::deadline::RequestedTimeout;
use crate::traffic::call::Budget;
use crate::traffic::set::{GrpcCode, GrpcCodes, Methods, Percent, Statuses};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn status(code: u16) -> Ended {
    Ended::Status(StatusCode::from_u16(code).unwrap())
}

fn attempted(method: &Method, ended: Ended) -> Attempted<'_> {
    Attempted {
        method,
        grpc: false,
        ended,
        retries: 0,
        moved: false,
        body_kept: true,
        retries_exhausted: false,
        late: false,
        requested_wait: RequestedWait::Nothing,
        deadline: Deadline::NONE,
    }
}

/// With a budget that has one token of its reserve.
fn next(retry: &Retry, attempted: &Attempted<'_>) -> Next {
    let start = Instant::now();
    may_retry(retry, attempted, &RetryBudget::new(start), start, 1, 0)
}

fn retries(retry: &Retry, attempted: &Attempted<'_>) -> bool {
    matches!(next(retry, attempted), Next::Retry { .. })
}

#[test]
fn default_policy_retries_safe_503_or_loss_once() {
    let retry = Retry::DEFAULT;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        for (ended, expected) in [
            (status(503), true),
            (status(502), false),
            (status(504), false),
            (status(500), false),
            (status(429), false),
            (status(200), false),
            (Ended::Lost { after: ms(1000) }, true),
            (Ended::Lost { after: ms(1001) }, false),
            (Ended::TimedOut, true),
        ] {
            let one = attempted(&method, ended);
            assert_eq!(retries(&retry, &one), expected, "{method} {ended:?}");
            let again = Attempted { retries: 1, ..one };
            assert_eq!(next(&retry, &again), Next::Pass, "one retry");
        }
    }
}

/// Asked when an attempt has taken as long as `backendRequest`, which ends it only then.
#[test]
fn attempt_continues_without_token_when_no_retry_would_follow() {
    let (now, get, plain) = (Instant::now(), Method::GET, Retry::DEFAULT);
    let listing = |code| Retry {
        grpc_codes: GrpcCodes::of(&[code]),
        ..Retry::DEFAULT
    };
    let unavailable = listing(GrpcCode::Unavailable);
    let too_late = listing(GrpcCode::DeadlineExceeded);
    let late = attempted(&get, Ended::TimedOut);
    let (retries_made, grpc_call) = (
        Attempted { retries: 1, ..late },
        Attempted { grpc: true, ..late },
    );
    let spent = Attempted {
        retries_exhausted: true,
        ..late
    };
    let long = Attempted {
        body_kept: false,
        ..late
    };
    let over_in = |left| Attempted {
        deadline: Deadline::arrived(now, RequestedTimeout::default(), Some(left)),
        ..late
    };
    for (retry, one, follows) in [
        (&plain, late, true),
        (&plain, retries_made, false),
        (&plain, spent, false),
        (&plain, long, false),
        (&plain, over_in(plain.backoff), false),
        (&plain, over_in(plain.backoff + ms(1)), true),
        (&unavailable, grpc_call, false),
        (&too_late, grpc_call, true),
    ] {
        let budget = RetryBudget::new(now);
        let next = may_retry(retry, &one, &budget, now, 1, 0);
        let followed = matches!(next, Next::Retry { .. });
        assert_eq!(followed, follows, "{one:?}");
        assert_eq!(budget.spend(now, &retry.budget, 1), !follows, "{one:?}");
    }
}

#[test]
fn unsafe_requests_and_grpc_retry_only_if_listed() {
    let quiet = Retry::DEFAULT;
    let ends = [status(503), Ended::Lost { after: ms(0) }, Ended::TimedOut];
    for ended in ends {
        assert_eq!(next(&quiet, &attempted(&Method::POST, ended)), Next::Pass);
        let listed = Retry {
            methods: Methods::Any,
            ..Retry::DEFAULT
        };
        assert!(retries(&listed, &attempted(&Method::POST, ended)));
        // gRPC retries by codes, whatever stands in `methods`.
        let grpc = |ended| Attempted {
            grpc: true,
            ..attempted(&Method::POST, ended)
        };
        let refused = Ended::Grpc {
            code: 14,
            trailers_only: true,
        };
        for ended in [Ended::Lost { after: ms(0) }, refused] {
            assert_eq!(next(&quiet, &grpc(ended)), Next::Pass);
            assert_eq!(next(&listed, &grpc(ended)), Next::Pass);
        }
    }
}

#[test]
fn grpc_is_retried_on_listed_codes_before_headers() {
    let retry = Retry {
        grpc_codes: GrpcCodes::of(&[GrpcCode::Unavailable]),
        ..Retry::DEFAULT
    };
    let grpc = |ended| Attempted {
        grpc: true,
        ..attempted(&Method::POST, ended)
    };
    let answer = |code, trailers_only| {
        grpc(Ended::Grpc {
            code,
            trailers_only,
        })
    };
    assert!(retries(&retry, &answer(14, true)));
    assert_eq!(next(&retry, &answer(14, false)), Next::Pass);
    assert_eq!(next(&retry, &answer(4, true)), Next::Pass);
    assert_eq!(next(&retry, &answer(0, true)), Next::Pass);
}

/// In gRPC a loss is UNAVAILABLE, and an attempt that is out of time DEADLINE_EXCEEDED.
#[test]
fn lost_or_late_grpc_retries_only_if_listed() {
    let lost = |after| Ended::Lost { after };
    for code in GrpcCode::ALL {
        let retry = Retry {
            grpc_codes: GrpcCodes::of(&[code]),
            ..Retry::DEFAULT
        };
        let tried = |ended| {
            let grpc = Attempted {
                grpc: true,
                ..attempted(&Method::POST, ended)
            };
            retries(&retry, &grpc)
        };
        let (unavailable, late) = (GrpcCode::Unavailable, GrpcCode::DeadlineExceeded);
        assert_eq!(tried(lost(ms(10))), code == unavailable, "{code}");
        let refused = Ended::refused(Reason::ConnectionLost, ms(10));
        assert_eq!(tried(refused), code == unavailable, "{code}");
        assert!(
            !tried(lost(ms(1001))),
            "{code}: the work may have been done"
        );
        assert_eq!(tried(Ended::TimedOut), code == late, "{code}");
    }
}

#[test]
fn mesh_refusals_are_not_retried_but_overload_moves_once() {
    let retry = Retry {
        methods: Methods::Any,
        codes: Statuses::of(&[403, 429, 503, 504]),
        ..Retry::DEFAULT
    };
    for reason in Reason::ALL {
        let one = attempted(&Method::POST, Ended::Refused(reason));
        let moved = reason == Reason::Overload;
        assert_eq!(retries(&retry, &one), moved, "{reason}");
    }
    let refused = attempted(&Method::POST, Ended::Refused(Reason::Overload));
    assert!(retries(&Retry::DEFAULT, &refused), "it was not sent");
    let again = Attempted {
        moved: true,
        ..refused
    };
    let many = Retry {
        attempts: 5,
        ..Retry::DEFAULT
    };
    assert_eq!(next(&many, &again), Next::Pass);
    let none = Retry {
        attempts: 0,
        ..Retry::DEFAULT
    };
    assert_eq!(next(&none, &refused), Next::Pass);
}

#[test]
fn application_crash_behind_proxy_counts_as_connection_loss() {
    let retry = Retry::DEFAULT;
    let lost = |method, after| {
        let ended = Ended::refused(Reason::ConnectionLost, after);
        retries(&retry, &attempted(method, ended))
    };
    assert!(lost(&Method::GET, ms(1000)));
    assert!(
        !lost(&Method::GET, ms(1001)),
        "the work may break the server"
    );
    assert!(!lost(&Method::POST, ms(0)), "no application sees it twice");
    for reason in Reason::ALL {
        let other = reason != Reason::ConnectionLost;
        let ended = Ended::refused(reason, ms(7));
        assert_eq!(ended == Ended::Refused(reason), other, "{reason}");
    }
}

#[test]
fn call_without_endpoint_marks_parent_request() {
    let marks = |ended| attempted(&Method::POST, ended).exhausts_parent_retries(&Retry::DEFAULT);
    for reason in Reason::ALL {
        let expected = matches!(
            reason,
            Reason::ConnectFailed
                | Reason::TlsFailed
                | Reason::NoEndpoint
                | Reason::ConnectionLost
                | Reason::CircuitOpen
                | Reason::Overload
        );
        assert_eq!(marks(Ended::Refused(reason)), expected, "{reason}");
        let after = marks(Ended::refused(reason, ms(5000)));
        assert_eq!(after, expected, "{reason}");
    }
}

#[test]
fn why_no_retry_was_made_is_said() {
    let retry = Retry::DEFAULT;
    let one = attempted(&Method::GET, status(503));
    let spent = Attempted {
        retries_exhausted: true,
        ..one
    };
    assert_eq!(next(&retry, &spent), Next::Denied(RetryOutcome::Spent));
    let body = Attempted {
        body_kept: false,
        ..one
    };
    assert_eq!(next(&retry, &body), Next::Denied(RetryOutcome::Body));

    let start = Instant::now();
    let requested = RequestedTimeout {
        grpc: Some(ms(25)),
        ..RequestedTimeout::default()
    };
    let late = Attempted {
        deadline: Deadline::arrived(start, requested, None),
        ..one
    };
    let budget = RetryBudget::new(start);
    let at = |now, call: &Attempted<'_>| may_retry(&retry, call, &budget, now, 1, 0);
    assert_eq!(at(start, &late), Next::Denied(RetryOutcome::Deadline));
    assert_eq!(at(start, &one), Next::Retry { wait: ms(25) });
    assert_eq!(at(start, &one), Next::Denied(RetryOutcome::Budget));
}

#[test]
fn requested_short_wait_is_honoured_and_long_prevents_retry() {
    let retry = Retry::DEFAULT;
    let with = |requested| Attempted {
        requested_wait: requested,
        ..attempted(&Method::GET, status(503))
    };
    let http = |text: &str| next(&retry, &with(RequestedWait::of_http(Some(text.as_bytes()))));
    assert_eq!(http("0"), Next::Retry { wait: ms(0) });
    assert_eq!(http("1"), Next::Retry { wait: ms(1000) });
    for text in ["2", "", "-1", "+1", "1.5", "x", "99999999999999999999"] {
        assert_eq!(http(text), Next::Pass, "{text:?}");
    }
    assert_eq!(http("Wed, 21 Oct 2015 07:28:00 GMT"), Next::Pass);
    let grpc = |text: &str| RequestedWait::of_grpc(Some(text.as_bytes()));
    assert_eq!(grpc("1000"), RequestedWait::After(ms(1000)));
    assert_eq!(grpc("1001"), RequestedWait::NotNow);
    assert_eq!(grpc("-1"), RequestedWait::NotNow);
    assert_eq!(RequestedWait::of_grpc(None), RequestedWait::Nothing);
}

#[test]
fn backoff_doubles_with_jitter_up_to_ten_times_base() {
    let base = ms(25);
    for (retries, from, to) in [(0, 25, 50), (1, 50, 100), (2, 100, 200), (3, 200, 250)] {
        assert_eq!(backoff(base, retries, 0), ms(from));
        let most = backoff(base, retries, u64::MAX);
        assert!(most <= ms(to) && most > ms(to - 1), "{retries}: {most:?}");
    }
    assert_eq!(backoff(base, 255, 0), ms(250));
    assert_eq!(backoff(Duration::ZERO, 3, 7), Duration::ZERO);
}

#[test]
fn routes_with_other_intervals_spend_from_the_same_savings() {
    let of = |seconds: u64| Budget {
        interval: ms(seconds * 1000),
        min_per_second: 0,
        ..Budget::DEFAULT
    };
    let (start, long, short) = (Instant::now(), of(60), of(1));
    let budget = RetryBudget::new(start);
    let now = start + ms(90_000);
    for _ in 0..10 {
        budget.save(now, &long);
    }
    assert_eq!(
        (budget.saved(now, &short), budget.saved(now, &long)),
        (2, 2)
    );
    assert!(budget.spend(now, &short, 1) && budget.spend(now, &long, 1));
    assert!(!budget.spend(now, &short, 1) && !budget.spend(now, &long, 1));
    // Each looks back as far as its interval.
    for _ in 0..5 {
        budget.save(now, &short);
    }
    for (later, seen) in [
        (400, (1, 1)),
        (1500, (0, 1)),
        (59_000, (0, 1)),
        (61_000, (0, 0)),
    ] {
        let now = now + ms(later);
        let found = (budget.saved(now, &short), budget.saved(now, &long));
        assert_eq!(found, seen, "{later}");
    }
}

#[test]
fn retry_reserve_follows_peer_and_rate_changes() {
    let start = Instant::now();
    let of = |min| Budget {
        percent: Percent::NONE,
        min_per_second: min,
        ..Budget::DEFAULT
    };
    let budget = RetryBudget::new(start);
    assert!(
        budget.spend(start, &of(1), 1000),
        "one in a thousand seconds"
    );
    assert!(!budget.spend(start, &of(1), 1), "not the next at once");
    assert!(
        budget.spend(start + ms(1000), &of(1), 1),
        "the peers are gone"
    );
    assert!(!budget.spend(start + ms(1000), &of(1), 1));
}

#[test]
fn minimum_retries_per_second_are_shared_among_proxies() {
    let start = Instant::now();
    let settings = Budget {
        percent: Percent::NONE,
        ..Budget::DEFAULT
    };
    for (min, peers, in_ten) in [
        (1, 1, 10..=11),
        (1, 4, 3..=4),
        (10, 1, 100..=110),
        (10, 5, 20..=22),
    ] {
        let settings = Budget {
            min_per_second: min,
            ..settings
        };
        let budget = RetryBudget::new(start);
        let spent = (0..10_000)
            .filter(|n| budget.spend(start + ms(*n), &settings, peers))
            .count();
        assert!(in_ten.contains(&spent), "{min} of {peers}: {spent}");
    }
}

#[test]
fn concurrent_threads_never_spend_more_than_saved() {
    let (start, settings) = (
        Instant::now(),
        Budget {
            min_per_second: 0,
            ..Budget::DEFAULT
        },
    );
    let budget = RetryBudget::new(start);
    for _ in 0..5000 {
        budget.save(start, &settings);
    }
    let spent: usize = std::thread::scope(|scope| {
        let spend = || {
            (0..1000)
                .filter(|_| budget.spend(start, &settings, 1))
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(spend)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert!((990..=1000).contains(&spent), "{spent}");
}

#[test]
fn only_failed_last_attempt_marks_parent_request_spent() {
    let retry = Retry::DEFAULT;
    let marks = |ended| attempted(&Method::POST, ended).exhausts_parent_retries(&retry);
    assert!(marks(status(503)) && marks(Ended::TimedOut) && marks(Ended::Lost { after: ms(9000) }));
    assert!(!marks(status(200)) && !marks(status(404)));
    assert!(!marks(Ended::Refused(Reason::NotAllowed)));
    let below = Attempted {
        retries_exhausted: true,
        ..attempted(&Method::GET, status(500))
    };
    assert!(below.exhausts_parent_retries(&retry), "the mark travels up");
    for reason in Reason::ALL {
        let refused = attempted(&Method::GET, Ended::Refused(reason));
        let late = Attempted {
            late: true,
            ..refused
        };
        let marks = reason == Reason::Deadline || refused.exhausts_parent_retries(&retry);
        assert_eq!(late.exhausts_parent_retries(&retry), marks, "{reason}");
    }
}

#[test]
fn marks_are_kept_for_ten_seconds_and_are_bounded() {
    let start = Instant::now();
    let mut spent = RetryExhaustedTraces::default();
    spent.mark(7, start);
    assert!(spent.is_marked(7, start + TRACES_KEPT - ms(1)));
    assert!(!spent.is_marked(7, start + TRACES_KEPT) && !spent.is_marked(8, start));
    // Marked again: the older entry takes the newer one with it neither by age ...
    spent.mark(7, start + ms(5000));
    spent.mark(8, start + TRACES_KEPT);
    assert!(spent.is_marked(7, start + TRACES_KEPT));
    // ... nor by number.
    for trace in 0..3 * MAX_TRACES as u128 {
        spent.mark(1000 + trace, start + TRACES_KEPT);
    }
    assert_eq!(spent.len(), MAX_TRACES);
    assert!(spent.is_marked(1000 + 3 * MAX_TRACES as u128 - 1, start + TRACES_KEPT));
    assert!(!spent.is_marked(1000, start + TRACES_KEPT));
    spent.mark(1, start + TRACES_KEPT + TRACES_KEPT);
    assert_eq!(spent.len(), 1);
    assert!(!spent.is_empty());
}

#[test]
fn outcomes_are_the_labels_that_are_promised() {
    let labels = ["success", "failure", "budget", "body", "deadline", "spent"];
    assert_eq!(RetryOutcome::ALL.map(RetryOutcome::as_str), labels);
}
