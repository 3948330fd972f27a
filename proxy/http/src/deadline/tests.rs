//! Times in headers, and what ends with them.
//!
//! Claims: calls-42, calls-48

use std::pin::pin;
use std::time::Duration;

use policy::traffic::call::Timeouts;

use super::*;

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    });
    pairs.collect()
}

fn within(left: Duration) -> Deadline {
    let requested = RequestedTimeout {
        weft: Some(left),
        ..RequestedTimeout::default()
    };
    Deadline::outgoing(now(), requested, &Timeouts::DEFAULT, None)
}

#[tokio::test(start_paused = true)]
async fn memory_wait_counts_towards_request_deadline() {
    let seconds = Duration::from_secs;
    let timed = Timed {
        requested: RequestedTimeout {
            weft: Some(seconds(5)),
            ..RequestedTimeout::default()
        },
        unreadable: false,
    };
    let policy = Timeouts {
        request: Some(seconds(4)),
        ..Timeouts::DEFAULT
    };
    for (waited, left) in [(None, 4), (Some(3), 1), (Some(9), 0)] {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        if let Some(waited) = waited {
            parts.extensions.insert(Waited(seconds(waited)));
        }
        for deadline in [
            outgoing(&parts, timed, &policy, None),
            outgoing(&parts, Timed::default(), &policy, None),
            arrived(&parts, timed, Some(seconds(4))),
            arrived(&parts, Timed::default(), Some(seconds(4))),
        ] {
            assert_eq!(deadline.left(now()), Some(seconds(left)), "{waited:?}");
            assert_eq!(check(deadline).is_ok(), left > 0, "{waited:?}");
        }
        assert_eq!(arrived(&parts, Timed::default(), None), Deadline::NONE);
    }
}

#[test]
fn timeouts_are_read_from_trusted_senders_and_errors_reported() {
    let both = map(&[("grpc-timeout", "2S"), ("weft-timeout", "300ms")]);
    let read = |grpc, ours: bool| {
        let weft = both.get("weft-timeout").filter(|_| ours);
        Timed::read(&both, grpc, weft, None).requested
    };
    let (two, less) = (Duration::from_secs(2), Duration::from_millis(300));
    assert_eq!(
        (read(true, true).grpc, read(true, true).weft),
        (Some(two), Some(less))
    );
    assert_eq!(
        read(false, false),
        RequestedTimeout::default(),
        "neither gRPC nor believed"
    );
    assert_eq!(
        (read(true, false).grpc, read(true, false).weft),
        (Some(two), None)
    );
    for (name, value) in [("grpc-timeout", "soon"), ("weft-timeout", "300")] {
        let map = map(&[(name, value)]);
        let timed = Timed::read(&map, true, map.get("weft-timeout"), None);
        assert!(
            timed.unreadable && timed.requested == RequestedTimeout::default(),
            "{value}"
        );
    }
    assert!(!Timed::read(&HeaderMap::new(), true, None, None).unreadable);
    for (value, rest) in [("7ms", Some(Duration::from_millis(7))), ("7", None)] {
        let value = HeaderValue::from_static(value);
        let timed = Timed::read(&HeaderMap::new(), false, None, Some(&value));
        assert_eq!(
            (timed.requested.rest, timed.unreadable),
            (rest, rest.is_none())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn head_deadline_is_trusted_according_to_sender() {
    let remaining = |pairs: &[_], from| {
        let until = announced_end(&map(pairs), from);
        until.map(|until| (until - now()).as_millis())
    };
    let all = [
        ("content-type", "application/grpc"),
        ("grpc-timeout", "9S"),
        ("weft-timeout", "700ms"),
        ("weft-rest", "300ms"),
    ];
    for (from, left) in [
        (PreviousHop::Outside, 9000),
        (PreviousHop::Application, 700),
        (PreviousHop::Peer, 300),
    ] {
        assert_eq!(remaining(&all, from), Some(left), "{from:?}");
        assert_eq!(remaining(&all[..1], from), None, "{from:?}");
    }
    assert_eq!(remaining(&all[1..2], PreviousHop::Peer), None, "no gRPC");
    assert_eq!(remaining(&[("weft-timeout", "7")], PreviousHop::Peer), None);
}

#[tokio::test(start_paused = true)]
async fn remaining_time_is_written_only_if_deadline_exists() {
    let deadline = within(Duration::from_secs(2));
    tokio::time::advance(Duration::from_millis(500)).await;
    let mut headers = map(&[("grpc-timeout", "9S")]);
    write(&mut headers, deadline, true, NextHop::Peer);
    assert_eq!(headers["grpc-timeout"], "1500000u");
    assert_eq!(headers["weft-timeout"], "1500ms");
    let mut outside = HeaderMap::new();
    write(&mut outside, deadline, false, NextHop::Outside);
    write(&mut outside, Deadline::NONE, true, NextHop::Peer);
    assert!(outside.is_empty(), "{outside:?}");
    assert!(check(deadline).is_ok() && check(Deadline::NONE).is_ok());
    tokio::time::advance(Duration::from_millis(1500)).await;
    assert_eq!(check(deadline).unwrap_err().reason(), Reason::Deadline);
}

#[tokio::test(start_paused = true)]
async fn context_deadline_is_separate_for_peers_merged_for_applications() {
    let until = Some(now() + Duration::from_millis(700));
    let requested = RequestedTimeout {
        weft: Some(Duration::from_secs(2)),
        ..RequestedTimeout::default()
    };
    let deadline = Deadline::outgoing(now(), requested, &Timeouts::DEFAULT, until);
    let written = |next_hop, grpc| {
        let mut map = HeaderMap::new();
        write(&mut map, deadline, grpc, next_hop);
        map
    };
    let peer = map(&[("weft-timeout", "2000ms"), ("weft-rest", "700ms")]);
    assert_eq!(written(NextHop::Peer, false), peer);
    let application = map(&[("weft-timeout", "700ms"), ("grpc-timeout", "2000000u")]);
    assert_eq!(written(NextHop::Application, true), application);
    assert!(written(NextHop::Outside, false).is_empty());
    let outside = map(&[("grpc-timeout", "2000000u")]);
    assert_eq!(written(NextHop::Outside, true), outside);
}

#[tokio::test(start_paused = true)]
async fn work_is_cancelled_when_its_last_waiter_leaves() {
    let (left, gone) = tokio::sync::oneshot::channel::<()>();
    let left_by = Left::new(async move { drop(gone.await) });
    let ends = StopConditions::new(None, None, &Upload::default(), Some(left_by));
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(left);
    });
    let start = now();
    let nothing = pin!(std::future::pending::<()>());
    let ended = tokio::time::timeout(Duration::from_secs(9), until(ends, nothing)).await;
    assert_eq!(ended, Ok(Err(WaitEnd::Left)));
    assert!(now() - start < Duration::from_millis(100));
    assert!(StopConditions::new(None, None, &Upload::default(), None).is_none());
}

/// A runtime without timers panics where one is made, which the last lines show.
#[test]
fn a_call_without_an_end_makes_no_timer() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let end = ends(Deadline::default(), &Method::GET);
        let (answer, came) = tokio::sync::oneshot::channel();
        let waits = async {
            let came = pin!(came);
            until(
                StopConditions::new(end, None, &Upload::default(), None),
                came,
            )
            .await
        };
        let (ended, ()) = tokio::join!(waits, async { answer.send(7).unwrap() });
        assert_eq!(ended, Ok(Ok(7)));
        assert!(std::panic::catch_unwind(|| StopConditions::at(Some(now()))).is_err());
    });
}

/// A peer gets whole milliseconds, and may be the first to report the end.
#[tokio::test(start_paused = true)]
async fn call_reaches_own_deadline_before_context_deadline() {
    use DeadlineSource::{Context, Own};
    let millis = Duration::from_millis;
    let call = |own: Option<u64>, context: Option<u64>| {
        let requested = RequestedTimeout {
            weft: own.map(millis),
            ..RequestedTimeout::default()
        };
        let until = context.map(|left| now() + millis(left));
        reached(Deadline::outgoing(
            now(),
            requested,
            &Timeouts::DEFAULT,
            until,
        ))
    };
    for (own, context, first) in [
        (None, None, None),
        (Some(0), None, Some(Own)),
        (None, Some(0), Some(Context)),
        (None, Some(1), Some(Context)),
        (None, Some(50), None),
        (Some(1), Some(0), Some(Own)),
        (Some(50), Some(0), Some(Context)),
        (Some(0), Some(50), Some(Own)),
    ] {
        assert_eq!(call(own, context), first, "{own:?} {context:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_takes_longer_than_its_time_is_dropped() {
    let end = Some(now() + Duration::from_millis(100));
    assert_eq!(
        until(StopConditions::at(end), pin!(std::future::ready(1))).await,
        Ok(1)
    );
    assert_eq!(
        until(StopConditions::at(end), pin!(std::future::pending::<()>())).await,
        Err(WaitEnd::Time)
    );
    assert_eq!(until(None, pin!(std::future::ready(2))).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn slow_wait_is_reported_once_and_continues() {
    let millis = Duration::from_millis;
    for (takes, slow, done) in [(50, 0, true), (150, 1, true), (900, 1, false)] {
        let start = now();
        let ends = StopConditions::at(Some(start + millis(300)));
        let mut ends = ends.map(|ends| ends.slow_at(Some(start + millis(100))));
        let mut work = pin!(tokio::time::sleep(millis(takes)));
        let mut notices = 0;
        let ended = loop {
            match progress(&mut ends, work.as_mut()).await {
                Progress::Ended(ended) => break ended,
                Progress::Slow => notices += 1,
            }
            let took = (now() - start).as_millis();
            assert!((100..110).contains(&took), "{took}");
        };
        assert_eq!((notices, ended.is_ok()), (slow, done), "{takes} ms");
    }
}
