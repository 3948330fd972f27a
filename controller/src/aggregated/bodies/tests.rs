//! Readers that take their time, beside honest ones.
//!
//! Claims: observe-12, observe-13

use std::time::Duration;

use futures::stream;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::time::sleep;

use super::*;
use crate::aggregated::pace::{LONGEST, PATIENCE, Streams, patiently};

const MIB: usize = 1024 * 1024;

/// The budget, for what a user of this name reads.
fn of(budget: &AnswerBudget, name: &str) -> AnswerBudget {
    budget.of(&User {
        name: name.to_owned(),
        ..User::default()
    })
}

fn answer(bytes: usize) -> Answer {
    Response::new(Full::new(Bytes::from(vec![b'x'; bytes])).boxed_unsync())
}

/// A stream of one line of so many bytes that comes after a while.
fn line_after(wait: Duration, bytes: usize) -> Answer {
    let line = async move {
        sleep(wait).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; bytes])))
    };
    Response::new(StreamBody::new(stream::once(line)).boxed_unsync())
}

/// Reads all of an answer as it is served, and waits before each further part; the bytes that
/// came, or `None` if it was cut.
async fn read(budget: &AnswerBudget, answer: Answer, wait: Duration) -> Option<usize> {
    patiently(async {
        let mut body = budget.admit(answer).ok().unwrap().into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.unwrap().into_data().unwrap().len();
            sleep(wait).await;
        }
        bytes
    })
    .await
}

#[tokio::test]
async fn unread_bodies_fill_budget_but_small_ones_keep_theirs() {
    let limits = Reached::default();
    let budget = AnswerBudget::new(&limits);
    let first = of(&budget, "first").admit(answer(20 * MIB)).ok();
    let second = of(&budget, "second").admit(answer(20 * MIB)).ok();
    assert!(first.is_some() && second.is_some());
    let refusal = budget.admit(answer(20 * MIB)).err().unwrap();
    assert_eq!(refusal.code, StatusCode::TOO_MANY_REQUESTS);
    assert!(refusal.message.contains("try again"), "{}", refusal.message);
    assert_eq!(limits.count("answer-bytes"), 1);
    let small: Vec<_> = (0..100)
        .filter_map(|_| budget.admit(answer(SMALL)).ok())
        .collect();
    assert_eq!(small.len(), 100);
    drop(first);
    assert!(budget.admit(answer(20 * MIB)).is_ok());
    drop((second, small));
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
    assert_eq!(budget.small.available_permits(), SMALL_BYTES);
}

#[tokio::test]
async fn user_holds_half_budget_while_another_reads_complete_graph() {
    let limits = Reached::default();
    let budget = AnswerBudget::new(&limits);
    let slow = of(&budget, "slow");
    let graph = slow.admit(answer(24 * MIB)).ok();
    assert!(graph.is_some(), "there is no other reader");
    let refusal = slow.admit(answer(24 * MIB)).err().unwrap();
    assert_eq!(refusal.code, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        refusal.message.contains("this user's"),
        "{}",
        refusal.message
    );
    assert!(refusal.again_in().is_some());
    assert_eq!(limits.count("answer-bytes"), 1);
    // With other groups it is still the same user.
    let grouped = User {
        name: "slow".to_owned(),
        groups: vec!["others".to_owned()],
        ..User::default()
    };
    assert!(budget.of(&grouped).admit(answer(24 * MIB)).is_err());
    let small = slow.admit(answer(SMALL)).ok();
    assert!(small.is_some(), "small ones have a part of their own");
    let other = of(&budget, "other").admit(answer(24 * MIB)).ok();
    assert!(other.is_some());
    drop(graph);
    assert!(slow.admit(answer(24 * MIB)).is_ok(), "given back");
}

#[tokio::test(start_paused = true)]
async fn lines_of_streams_are_their_reader_s() {
    let budget = AnswerBudget::new(&Reached::default());
    let slow = of(&budget, "slow");
    let held = slow.reserve(28 * MIB).unwrap();
    let stream = slow.admit(line_after(Duration::ZERO, MIB));
    let mut stream = stream.ok().unwrap().into_body();
    assert!(stream.frame().await.unwrap().is_err());
    let other = of(&budget, "other");
    let line = read(&other, line_after(Duration::ZERO, MIB), Duration::ZERO);
    assert_eq!(line.await, Some(MIB));
    drop(held);
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
}

#[tokio::test]
async fn stream_begins_where_its_first_line_finds_room() {
    let budget = AnswerBudget::new(&Reached::default());
    let reader = of(&budget, "reader");
    assert!(reader.begins(24 * MIB).is_ok());
    let own = reader.reserve(10 * MIB).unwrap();
    assert!(reader.begins(24 * MIB).is_err());
    assert!(reader.begins(MIB).is_ok());
    drop(own);
    let held = ["one", "two"].map(|name| of(&budget, name).reserve(28 * MIB).unwrap());
    let refusal = reader.begins(MIB).unwrap_err();
    assert_eq!(refusal.code, StatusCode::TOO_MANY_REQUESTS);
    // What is passed on by one part needs none.
    assert!(reader.begins(PART).is_ok());
    drop(held);
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
}

/// What others are given between the head of a stream and its first line takes nothing from it.
#[tokio::test]
async fn reserved_room_for_first_line_survives_other_readers() {
    let budget = AnswerBudget::new(&Reached::default());
    let reader = of(&budget, "reader");
    for is_reserved in [true, false] {
        let room = reader.begins(MIB).unwrap().unwrap();
        let stream = line_after(Duration::ZERO, MIB);
        let stream = if is_reserved {
            room.of_first_line(stream)
        } else {
            drop(room);
            stream
        };
        let mut body = reader.admit(stream).ok().unwrap().into_body();
        let held = [("one", 28), ("two", 27), ("three", 1)]
            .map(|(name, most)| of(&budget, name).reserve(most * MIB));
        assert_eq!(held.iter().all(Result::is_ok), !is_reserved);
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.into_data().unwrap().len();
        }
        assert_eq!(bytes, if is_reserved { MIB } else { 0 }, "{is_reserved}");
        // It is given back with its last part, while the stream goes on.
        let given_back = reader.begins(MIB);
        assert_eq!(given_back.is_ok(), is_reserved);
        drop((held, given_back, body));
        assert_eq!(budget.large.available_permits(), LARGE_BYTES);
    }
}

#[tokio::test]
async fn what_was_reserved_before_is_counted_once() {
    let budget = AnswerBudget::new(&Reached::default());
    let share = budget.reserve(MAX_ANSWER).unwrap();
    let admitted = budget.admit(share.of(answer(MAX_ANSWER))).ok().unwrap();
    assert_eq!(budget.large.available_permits(), LARGE_BYTES - MAX_ANSWER);
    drop(admitted);
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
}

#[tokio::test]
async fn response_above_max_size_is_refused_permanently() {
    let budget = AnswerBudget::new(&Reached::default());
    let refusal = budget.admit(answer(MAX_ANSWER + 1)).err().unwrap();
    assert_eq!(refusal.code, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(budget.admit(answer(MAX_ANSWER)).is_ok());
}

/// The reader of the longest answer that there may be holds its half and no more.
#[tokio::test]
async fn max_response_fits_one_users_half_beside_another() {
    let budget = AnswerBudget::new(&Reached::default());
    let held = ["one", "two"].map(|name| of(&budget, name).admit(answer(MAX_ANSWER)));
    assert!(held.iter().all(Result::is_ok));
    let refusal = of(&budget, "one").admit(answer(MIB)).err().unwrap();
    assert_eq!(refusal.code, StatusCode::TOO_MANY_REQUESTS);
    drop(held);
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
}

#[tokio::test(start_paused = true)]
async fn reader_stalled_thirty_seconds_is_disconnected_unlike_active_one() {
    let budget = AnswerBudget::new(&Reached::default());
    let started = Instant::now();
    let hour = Duration::from_secs(3600);
    assert_eq!(read(&budget, answer(20 * MIB), hour).await, None);
    let took = started.elapsed();
    let second = Duration::from_secs(1);
    assert!(took >= PATIENCE && took < PATIENCE + second, "{took:?}");
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
    let honest = read(&budget, answer(20 * MIB), Duration::from_millis(10));
    assert_eq!(honest.await, Some(20 * MIB));
    // Whose parts are few may wait before each of them.
    let honest = read(&budget, answer(2 * PART), PATIENCE - second);
    assert_eq!(honest.await, Some(2 * PART));
}

#[tokio::test(start_paused = true)]
async fn trickling_reader_is_disconnected_when_call_time_expires() {
    let budget = AnswerBudget::new(&Reached::default());
    let started = Instant::now();
    let trickle = read(&budget, answer(20 * MIB), Duration::from_secs(20));
    assert_eq!(trickle.await, None);
    let took = started.elapsed();
    assert!(
        took >= LONGEST && took < LONGEST + Duration::from_secs(1),
        "{took:?}"
    );
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
}

#[tokio::test(start_paused = true)]
async fn quiet_stream_without_data_is_not_disconnected() {
    let budget = AnswerBudget::new(&Reached::default());
    let late = line_after(PATIENCE * 2, MIB);
    let read = read(&budget, late, Duration::from_millis(1));
    assert_eq!(read.await, Some(MIB));
}

#[tokio::test(start_paused = true)]
async fn stream_line_without_room_breaks_stream() {
    let limits = Reached::default();
    let budget = AnswerBudget::new(&limits);
    let held = ["one", "two"].map(|name| of(&budget, name).reserve(28 * MIB));
    assert!(held.iter().all(Result::is_ok));
    let mut body = budget
        .admit(line_after(Duration::ZERO, MIB))
        .ok()
        .unwrap()
        .into_body();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(limits.count("answer-bytes"), 1);
    // A short line needs none, and with room a long one goes.
    let short = read(&budget, line_after(Duration::ZERO, PART), Duration::ZERO);
    assert_eq!(short.await, Some(PART));
    drop(held);
    let long = read(&budget, line_after(Duration::ZERO, MIB), Duration::ZERO);
    assert_eq!(long.await, Some(MIB));
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
}

#[tokio::test(start_paused = true)]
async fn stalled_stream_is_reset_but_sibling_stream_completes() {
    let limits = Reached::default();
    let budget = AnswerBudget::new(&limits);
    let (client, server) = tokio::io::duplex(64 * 1024);
    let served = budget.clone();
    let service = service_fn(move |_: Request<Incoming>| {
        let budget = served.clone();
        async move { Ok::<_, Infallible>(budget.admit(answer(MIB)).ok().unwrap()) }
    });
    let cut = limits.counter("answer-readers");
    let mut builder = auto::Builder::new(Streams { cut: cut.clone() });
    builder.http2().timer(TokioTimer::new());
    tokio::spawn(async move {
        let connection = builder.serve_connection(TokioIo::new(server), service);
        connection.await.is_ok()
    });
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(32 * 1024_u32)
        .initial_connection_window_size(1024 * 1024_u32);
    let (mut sender, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let request = || {
        let request = Request::get("http://weft/");
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let stalled = sender.send_request(request()).await.unwrap();
    let honest = sender.send_request(request()).await.unwrap();
    let honest = honest.into_body().collect().await.unwrap();
    assert_eq!(honest.to_bytes().len(), MIB);
    assert_eq!(budget.large.available_permits(), LARGE_BYTES - MIB);
    sleep(PATIENCE + Duration::from_secs(1)).await;
    assert_eq!(cut.get(), 1);
    assert_eq!(budget.large.available_permits(), LARGE_BYTES);
    assert!(stalled.into_body().collect().await.is_err());
}
