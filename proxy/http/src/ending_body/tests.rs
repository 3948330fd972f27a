//! How the body of an answer ends with its request.
//!
//! Claims: attack-27, calls-17, calls-42

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::*;
use crate::body::text;
use crate::deadline::{Left, now};
use crate::upload::Upload;
use crate::watched::{BodyEnd, Watched};

fn head(kind: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
}

type Never = tokio_stream::Pending<Result<Frame<Bytes>, BoxError>>;

fn silent() -> http_body_util::StreamBody<Never> {
    http_body_util::StreamBody::new(tokio_stream::pending())
}

#[tokio::test(start_paused = true)]
async fn late_body_finishes_with_grpc_trailers_or_abort() {
    for kind in ["text/plain", "application/grpc-web+proto"] {
        let at = now() + Duration::from_secs(1);
        let mut plain = EndingBody::new(silent(), StopConditions::at(Some(at)), &head(kind));
        let start = now();
        let error = plain.frame().await.unwrap().unwrap_err();
        assert!(error.is::<OutOfTime>(), "{error}");
        let took = now() - start;
        assert!((1000..1100).contains(&took.as_millis()), "{took:?}");
        assert!(plain.frame().await.is_none() && !plain.is_end_stream());
    }

    let ended = Cell::new(None);
    let at = Some(now() + Duration::from_secs(1));
    let grpc = EndingBody::new(
        silent(),
        StopConditions::at(at),
        &head("application/grpc+proto"),
    );
    let mut grpc = Watched::start(grpc, Arc::default(), |end, _, _| ended.set(Some(end))).await;
    let trailers = grpc.frame().await.unwrap().unwrap();
    assert_eq!(trailers.into_trailers().unwrap()["grpc-status"], "4");
    assert!(grpc.frame().await.is_none());
    assert_eq!(ended.get(), Some(BodyEnd::OutOfTime(WaitEnd::Time)));
}

/// Only a caller that still waits may retry.
#[tokio::test(start_paused = true)]
async fn body_closed_with_request_reports_cause() {
    let second = Duration::from_secs(1);
    let upload = Upload::default();
    let left = Left::new(tokio::time::sleep(second));
    for (ends, over) in [
        (StopConditions::at(Some(now() + second)), WaitEnd::Time),
        (
            StopConditions::new(None, Some(second), &upload, None),
            WaitEnd::Still,
        ),
        (
            StopConditions::new(None, None, &upload, Some(left)),
            WaitEnd::Left,
        ),
    ] {
        let ended = Cell::new(None);
        let body = EndingBody::new(silent(), ends, &head("application/grpc"));
        let mut body = Watched::start(body, Arc::default(), |end, _, _| ended.set(Some(end))).await;
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert_eq!(ended.get(), Some(BodyEnd::OutOfTime(over)));
    }
}

#[tokio::test(start_paused = true)]
async fn body_finished_in_time_or_without_deadline_is_complete() {
    let at = now() + Duration::from_secs(1);
    for end in [Some(at), None] {
        let body = EndingBody::new(text("all"), StopConditions::at(end), &HeaderMap::new());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "all");
    }
    let mut endless = EndingBody::new(silent(), StopConditions::at(None), &HeaderMap::new());
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, endless.frame()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn abort_just_before_deadline_counts_as_timeout() {
    let broken = || {
        let error: Result<Frame<Bytes>, BoxError> = Err("reset".into());
        http_body_util::StreamBody::new(tokio_stream::once(error))
    };
    for (left, in_time) in [(1, true), (50, false)] {
        let at = now() + Duration::from_millis(left);
        let mut body = EndingBody::new(broken(), StopConditions::at(Some(at)), &HeaderMap::new());
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.is::<OutOfTime>(), in_time, "{left} ms before");
    }
}

#[tokio::test(start_paused = true)]
async fn late_empty_response_is_replaceable_without_length() {
    let over = || StopConditions::at(Some(now()));
    let ended = Cell::new(None);
    let body = EndingBody::new(text("all of it"), over(), &HeaderMap::new());
    let mut body = Watched::start(body, Arc::default(), |end, _, _| ended.set(Some(end))).await;
    assert_eq!(
        body.size_hint().exact(),
        None,
        "a head may have announced one"
    );
    assert!(body.is_late());
    assert_eq!(ended.get(), Some(BodyEnd::Late(WaitEnd::Time)));
    drop(body);
    // gRPC reports it behind the head.
    let head = head("application/grpc");
    let body = EndingBody::new(text("all of it"), over(), &head);
    assert!(
        !Watched::start(body, Arc::default(), |_, _, _| ())
            .await
            .is_late()
    );
    let body = EndingBody::new(text("all of it"), StopConditions::at(None), &head);
    let mut whole = Watched::start(body, Arc::default(), |_, _, _| ()).await;
    assert_eq!(whole.size_hint().exact(), Some(9));
    assert!(!whole.is_late());
}

const MOMENT: Duration = Duration::from_millis(10);

async fn is_abandoned_within(rest: &mut Undelivered, left: usize, time: Duration) -> bool {
    let abandon_limiter = poll_fn(|cx| rest.poll_abandoned(left, cx));
    timeout(time, abandon_limiter).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn slowly_read_response_is_kept_but_stalled_one_abandoned() {
    let mut rest = Undelivered::default();
    for left in (0..20).rev() {
        assert!(!is_abandoned_within(&mut rest, left, TAKEN_WITHIN - MOMENT).await);
    }
    assert!(is_abandoned_within(&mut rest, 0, MOMENT * 2).await);
}
