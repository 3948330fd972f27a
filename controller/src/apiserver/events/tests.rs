//! What is written, how often, and what is counted.
//!
//! Claims: attack-113

use http::StatusCode;

use super::*;
use crate::testing::api_server::FakeApi;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

fn event(text: &str) -> Event {
    Event {
        about: About {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            uid: "1".to_owned(),
        },
        event_type: EventType::Warning,
        reason: "Skipped",
        action: "Observe",
        text: text.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn same_note_is_written_once_and_another_text_again() {
    let api = FakeApi::default();
    let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
    for text in ["one", "one", "two", "one"] {
        events.record(event(text));
    }
    drop(events);
    writer.run(std::future::pending()).await;
    assert_eq!(api.writes().len(), 2, "{:?}", api.writes());
}

#[tokio::test(start_paused = true)]
async fn action_repeated_minutes_later_is_recorded_again() {
    let api = FakeApi::default();
    let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
    tokio::spawn(writer.run(std::future::pending()));
    for (after, written) in [(0, 1), (1, 1), (300, 2), (600, 3)] {
        sleep(Duration::from_secs(after)).await;
        events.record_action(event("taps"));
        events.record(event("is broken"));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            api.writes().len(),
            written + 1,
            "{after}: {:?}",
            api.writes()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn unanswered_event_delays_next_ones_by_one_timeout() {
    let api = FakeApi::default();
    let client = crate::apiserver::client::bounded(&api.client());
    let (events, writer) = EventRecorder::new(client, "me", Counter::default());
    tokio::spawn(writer.run(std::future::pending()));
    api.vanish(true);
    events.record(event("one"));
    sleep(Duration::from_secs(1)).await;
    api.vanish(false);
    events.record(event("two"));
    sleep(crate::apiserver::client::CALL_WITHIN + AGAIN_AFTER).await;
    let notes = || -> Vec<String> {
        let events = api.below(EVENTS).into_iter();
        events.map(|event| event["note"].to_string()).collect()
    };
    assert!(notes().contains(&"\"two\"".to_owned()), "{:?}", notes());
    // And the first after it.
    sleep(AGAIN_AFTER).await;
    assert_eq!(notes().len(), 2, "{:?}", notes());
}

#[tokio::test(start_paused = true)]
async fn event_refused_temporarily_is_written_later_once() {
    let api = FakeApi::default();
    let dropped = Counter::default();
    let (events, writer) = EventRecorder::new(api.client(), "me", dropped.clone());
    tokio::spawn(writer.run(std::future::pending()));
    api.refuse_creation(EVENTS, StatusCode::INTERNAL_SERVER_ERROR);
    events.record(event("one"));
    events.record(event("one"));
    sleep(TRIED_FOR / 2).await;
    assert!(api.below(EVENTS).is_empty());
    api.allow_creation(EVENTS, true);
    sleep(TRIED_FOR).await;
    assert_eq!((api.below(EVENTS).len(), dropped.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn note_that_is_refused_or_never_taken_is_counted() {
    for status in [
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::FORBIDDEN,
        StatusCode::UNPROCESSABLE_ENTITY,
    ] {
        let api = FakeApi::default();
        let dropped = Counter::default();
        let (events, writer) = EventRecorder::new(api.client(), "me", dropped.clone());
        tokio::spawn(writer.run(std::future::pending()));
        api.refuse_creation(EVENTS, status);
        events.record(event("one"));
        sleep(TRIED_FOR + 2 * AGAIN_AFTER).await;
        assert_eq!(dropped.get(), 1, "{status}");
    }
}

/// Hands in three Events, one of them twice, ends the writer, and hands in one more. Returns
/// how many were counted and how long the end took.
async fn ended(api: &FakeApi, client: Client) -> (u64, Duration) {
    let dropped = Counter::default();
    let (events, writer) = EventRecorder::new(client, "me", dropped.clone());
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(writer.run(async {
        let _ = stopping.await;
    }));
    // One whose call is under way, if that takes time, and what waits behind it.
    events.record(event("first"));
    sleep(PAUSE / 2).await;
    for text in ["one", "one", "two"] {
        events.record(event(text));
    }
    let said = Instant::now();
    stop.send(()).unwrap();
    writing.await.unwrap();
    let took = said.elapsed();
    let written = api.below(EVENTS).len();
    events.record(event("too late"));
    assert_eq!(api.below(EVENTS).len(), written);
    (dropped.get(), took)
}

#[tokio::test(start_paused = true)]
async fn shutdown_writes_pending_events_and_counts_later_ones_dropped() {
    for each in [Duration::ZERO, PAUSE] {
        let api = FakeApi::default();
        let (dropped, took) = ended(&api, api.slow_client(each)).await;
        let mut notes: Vec<String> = api
            .below(EVENTS)
            .iter()
            .map(|event| event["note"].as_str().unwrap().to_owned())
            .collect();
        notes.sort();
        assert_eq!(notes, ["first", "one", "two"], "{each:?}");
        assert_eq!(dropped, 1, "only the one after the end, {each:?}");
        assert!(took < 4 * PAUSE, "{each:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unwritable_events_delay_shutdown_two_seconds_and_are_counted() {
    for vanishes in [true, false] {
        let api = FakeApi::default();
        let client = crate::apiserver::client::bounded(&api.client());
        api.vanish(vanishes);
        // Not for good: with more time they would be written.
        api.refuse_creation(EVENTS, StatusCode::INTERNAL_SERVER_ERROR);
        let (dropped, took) = ended(&api, client).await;
        assert_eq!(dropped, 3 + 1, "each once, vanishes: {vanishes}");
        assert!(
            took <= LAST_WITHIN + PAUSE,
            "vanishes: {vanishes}: {took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn event_accepted_just_before_shutdown_is_not_lost() {
    let api = FakeApi::default();
    let dropped = Counter::default();
    let (events, writer) = EventRecorder::new(api.client(), "me", dropped.clone());
    let writing = tokio::spawn(writer.run(sleep(Duration::from_secs(10))));
    api.refuse_creation(EVENTS, StatusCode::SERVICE_UNAVAILABLE);
    events.record(event("one"));
    sleep(Duration::from_millis(10_100)).await;
    api.allow_creation(EVENTS, true);
    writing.await.unwrap();
    assert_eq!((api.below(EVENTS).len(), dropped.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn equal_replica_events_merge_but_user_actions_do_not() {
    let api = FakeApi::default();
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let later = at + REPEAT_AFTER;
    assert_ne!(
        fingerprint(&event("one"), at),
        fingerprint(&event("two"), at)
    );
    assert_ne!(
        fingerprint(&event("one"), at),
        fingerprint(&event("one"), later)
    );
    for replica in ["first", "second"] {
        let dropped = Counter::default();
        let (events, writer) = EventRecorder::new(api.client(), replica, dropped.clone());
        events.record_at(event("is broken"), at);
        events.record_action(event("taps"));
        drop(events);
        writer.run(std::future::pending()).await;
        assert_eq!(dropped.get(), 0, "{replica}");
    }
    let notes = api.below(EVENTS);
    let count = |text: &str| notes.iter().filter(|event| event["note"] == text).count();
    assert_eq!((count("is broken"), count("taps")), (1, 2), "{notes:?}");
}

#[tokio::test]
async fn full_queue_drops_and_counts_instead_of_waiting() {
    let api = FakeApi::default();
    let dropped = Counter::default();
    let (events, _writer) = EventRecorder::new(api.client(), "me", dropped.clone());
    for number in 0..QUEUE + 3 {
        events.record(event(&number.to_string()));
    }
    assert_eq!(dropped.get(), 3);
}

#[test]
fn long_note_is_cut_at_a_character() {
    // The limit is within a character.
    let cut = cut(&format!("a{}", "ä".repeat(NOTE_LIMIT)));
    assert_eq!(cut.len(), NOTE_LIMIT - 1);
    assert!(cut.ends_with('ä'));
}
