//! Events: what a person sees under `kubectl describe`.
//!
//! Said once: the same Event about the same object is not repeated for
//! [`REPEAT_AFTER`], what is a record of who did what for [`RECORD_AGAIN_AFTER`]. The queue
//! is bounded and never waits, because no part
//! of the mesh may stand still for an Event. What the API server cannot take now is tried
//! again for [`TRIED_FOR`], behind what waits. What does not fit, is refused or is not taken
//! until then is counted.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

/// Events that wait to be written. Far above what one change makes.
const QUEUE: usize = 512;
/// Events that are remembered for not being repeated.
const REMEMBERED: usize = 8192;
/// After this time the same Event may be said again; the API server forgets
/// Events after an hour.
const REPEAT_AFTER: Duration = Duration::from_secs(50 * 60);
/// The same for what somebody does, of which every time counts: it tells when he did it, and
/// he cannot fill etcd by doing it all the time.
const RECORD_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// At most twenty Events a second, so that a cluster full of mistakes does not
/// fill etcd with Events.
const PAUSE: Duration = Duration::from_millis(50);
/// The same after a try that may do better another time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// From the first time that an Event is handed in to its last try: an API server that begins
/// anew is back by then.
const TRIED_FOR: Duration = Duration::from_secs(120);
/// What the API server says of a namespace that is going.
const GOING: &str = "NamespaceTerminating";
/// The API server refuses longer texts.
const NOTE_LIMIT: usize = 1024;

/// Where Events are handed in. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EventRecorder {
    queue: mpsc::Sender<QueuedEvent>,
    dropped: Counter,
}

/// An Event that waits to be written.
#[derive(Debug)]
struct QueuedEvent {
    event: Event,
    /// For how long it is not repeated.
    again_after: Duration,
    /// Its own from the begin: what a try wrote whose answer was lost is not written twice.
    name: String,
    happened: Timestamp,
    until: Instant,
}

/// How it shows in `kubectl get events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventType {
    /// Something happened.
    Normal,
    /// Something needs a person.
    Warning,
}

/// One thing to say about one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    /// The object that it is about.
    pub about: About,
    /// Normal or Warning.
    pub event_type: EventType,
    /// CamelCase, machine-readable.
    pub reason: &'static str,
    /// What the controller did, CamelCase.
    pub action: &'static str,
    /// For people.
    pub text: String,
}

/// The object of an Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct About {
    /// For example `v1` or `split.smi-spec.io/v1alpha4`.
    pub api_version: String,
    /// For example `Pod`.
    pub kind: String,
    /// Empty for objects without a namespace.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Empty when unknown; `kubectl describe` then does not show the Event.
    pub uid: String,
}

impl EventRecorder {
    /// Starts nothing: [`Writer::run`] writes what is handed in here.
    pub(crate) fn new(client: Client, me: &str, dropped: Counter) -> (Self, Writer) {
        let (queue, queued) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            me: me.to_owned(),
            queue: queue.downgrade(),
            queued,
            dropped: dropped.clone(),
            published: HashMap::new(),
        };
        (Self { queue, dropped }, writer)
    }

    /// Hands an Event in. Never waits.
    pub(crate) fn record(&self, event: Event) {
        self.hand_in(event, REPEAT_AFTER);
    }

    /// The same of what a user does: when he does it again, that is an Event again.
    pub(crate) fn record_deed(&self, event: Event) {
        self.hand_in(event, RECORD_AGAIN_AFTER);
    }

    fn hand_in(&self, event: Event, again_after: Duration) {
        let queued = QueuedEvent {
            event,
            again_after,
            name: format!("weft-{:016x}", rand::random::<u64>()),
            happened: Timestamp::now(),
            until: Instant::now() + TRIED_FOR,
        };
        if self.queue.try_send(queued).is_err() {
            self.dropped.inc();
        }
    }
}

/// Writes the Events to the API server.
pub(crate) struct Writer {
    client: Client,
    me: String,
    /// For what is tried again; keeps nobody waiting for recorders that are gone.
    queue: mpsc::WeakSender<QueuedEvent>,
    queued: mpsc::Receiver<QueuedEvent>,
    dropped: Counter,
    published: HashMap<Event, Instant>,
}

opaque_debug!(Writer);

impl Writer {
    /// Ends when every [`EventRecorder`] is gone.
    pub(crate) async fn run(mut self) {
        while let Some(queued) = self.queued.recv().await {
            if !self.is_news(&queued.event, queued.again_after, Instant::now()) {
                continue;
            }
            let pause = match self.write(&queued).await {
                Ok(()) => PAUSE,
                Err(error) => self.failed(queued, &error),
            };
            sleep(pause).await;
        }
    }

    /// Puts it behind what waits, or counts it. Returns how long to wait before the next one.
    fn failed(&mut self, queued: QueuedEvent, error: &kube::Error) -> Duration {
        self.published.remove(&queued.event);
        let (reason, object) = (queued.event.reason, queued.event.about.name.clone());
        let again = may_pass(error) && Instant::now() < queued.until;
        let queue = self.queue.upgrade().filter(|_| again);
        if queue.is_some_and(|queue| queue.try_send(queued).is_ok()) {
            debug!(%error, reason, object, "event is tried again");
            // All that wait are tried in this time together, so that none holds up the others.
            let waiting = u32::try_from(self.queued.len()).unwrap_or(u32::MAX);
            return (AGAIN_AFTER / waiting.max(1)).max(PAUSE);
        }
        warn!(%error, reason, object, "event not written");
        self.dropped.inc();
        PAUSE
    }

    fn is_news(&mut self, event: &Event, again_after: Duration, now: Instant) -> bool {
        if self.published.len() >= REMEMBERED {
            self.published
                .retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
            if self.published.len() >= REMEMBERED {
                debug!("event memory is full and starts again");
                self.published.clear();
            }
        }
        match self.published.get(event) {
            Some(at) if now.duration_since(*at) < again_after => false,
            _ => {
                self.published.insert(event.clone(), now);
                true
            }
        }
    }

    async fn write(&self, queued: &QueuedEvent) -> Result<(), kube::Error> {
        let event = &queued.event;
        // Events about objects without a namespace live in `default`, where
        // kubectl looks for them.
        let namespace = match event.about.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let object = v1::Event {
            metadata: ObjectMeta {
                name: Some(queued.name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(event.action.to_owned()),
            event_time: Some(MicroTime(queued.happened)),
            note: Some(cut(&event.text)),
            reason: Some(event.reason.to_owned()),
            regarding: Some(event.about.reference()),
            reporting_controller: Some("weft.dev/controller".to_owned()),
            reporting_instance: Some(self.me.clone()),
            type_: Some(match event.event_type {
                EventType::Normal => "Normal".to_owned(),
                EventType::Warning => "Warning".to_owned(),
            }),
            ..v1::Event::default()
        };
        let api: Api<v1::Event> = Api::namespaced(self.client.clone(), namespace);
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            // By a try whose answer was lost.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            // The namespace is going away, and its Events with it. A quota, a missing right
            // or a policy engine is answered with 403 too, and is a loss.
            Err(kube::Error::Api(status)) if status.is_not_found() || is_going(&status) => {
                debug!(namespace, "no place for an event");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl About {
    fn reference(&self) -> ObjectReference {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        ObjectReference {
            api_version: some(&self.api_version),
            kind: some(&self.kind),
            namespace: some(&self.namespace),
            name: some(&self.name),
            uid: some(&self.uid),
            ..ObjectReference::default()
        }
    }
}

/// Whether another try may do better: it is not the Event that is refused.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500 || matches!(status.code, 408 | 429),
        _ => true,
    }
}

fn is_going(status: &Status) -> bool {
    let details = status.details.as_ref();
    details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == GOING))
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(NOTE_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
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
        writer.run().await;
        assert_eq!(api.writes().len(), 2, "{:?}", api.writes());
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_does_again_minutes_later_is_written_again() {
        let api = FakeApi::default();
        let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
        tokio::spawn(writer.run());
        for (after, written) in [(0, 1), (1, 1), (300, 2), (600, 3)] {
            sleep(Duration::from_secs(after)).await;
            events.record_deed(event("taps"));
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
    async fn note_that_is_never_answered_holds_up_the_next_ones_for_one_time_limit() {
        let api = FakeApi::default();
        let client = crate::apiserver::client::bounded(&api.client());
        let (events, writer) = EventRecorder::new(client, "me", Counter::default());
        tokio::spawn(writer.run());
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
    async fn note_that_the_api_server_cannot_take_now_is_written_later_and_once() {
        let api = FakeApi::default();
        let dropped = Counter::default();
        let (events, writer) = EventRecorder::new(api.client(), "me", dropped.clone());
        tokio::spawn(writer.run());
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
            tokio::spawn(writer.run());
            api.refuse_creation(EVENTS, status);
            events.record(event("one"));
            sleep(TRIED_FOR + 2 * AGAIN_AFTER).await;
            assert_eq!(dropped.get(), 1, "{status}");
        }
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
        let cut = cut(&"ä".repeat(NOTE_LIMIT));
        assert_eq!(cut.len(), NOTE_LIMIT);
        assert!(cut.ends_with('ä'));
    }
}
