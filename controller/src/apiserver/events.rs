//! Events: what a person sees under `kubectl describe`.
//!
//! Said once: the same Event about the same object is not repeated for
//! [`REPEAT_AFTER`], what is a record of who did what for [`RECORD_AGAIN_AFTER`]. The queue
//! is bounded and never waits, because no part
//! of the mesh may stand still for an Event; what does not fit is counted.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
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
/// The API server refuses longer texts.
const NOTE_LIMIT: usize = 1024;

/// Where Events are handed in. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EventRecorder {
    queue: mpsc::Sender<QueuedEvent>,
    dropped: Counter,
}

/// An Event, and for how long it is not repeated.
type QueuedEvent = (Event, Duration);

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
            queued,
            published: HashMap::new(),
        };
        (Self { queue, dropped }, writer)
    }

    /// Hands an Event in. Never waits.
    pub(crate) fn record(&self, event: Event) {
        self.hand_in((event, REPEAT_AFTER));
    }

    /// The same of what a user does: when he does it again, that is an Event again.
    pub(crate) fn record_deed(&self, event: Event) {
        self.hand_in((event, RECORD_AGAIN_AFTER));
    }

    fn hand_in(&self, queued: QueuedEvent) {
        if self.queue.try_send(queued).is_err() {
            self.dropped.inc();
        }
    }
}

/// Writes the Events to the API server.
pub(crate) struct Writer {
    client: Client,
    me: String,
    queued: mpsc::Receiver<QueuedEvent>,
    published: HashMap<Event, Instant>,
}

opaque_debug!(Writer);

impl Writer {
    /// Ends when every [`EventRecorder`] is gone.
    pub(crate) async fn run(mut self) {
        while let Some((event, again_after)) = self.queued.recv().await {
            if !self.is_news(&event, again_after, Instant::now()) {
                continue;
            }
            if let Err(error) = self.write(&event).await {
                warn!(%error, reason = event.reason, object = event.about.name, "event not written");
                self.published.remove(&event);
            }
            sleep(PAUSE).await;
        }
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

    async fn write(&self, event: &Event) -> Result<(), kube::Error> {
        // Events about objects without a namespace live in `default`, where
        // kubectl looks for them.
        let namespace = match event.about.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let object = v1::Event {
            metadata: ObjectMeta {
                generate_name: Some("weft-".to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(event.action.to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
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
            // The namespace is going away, and its Events with it.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_forbidden() => {
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

fn cut(text: &str) -> String {
    let mut end = text.len().min(NOTE_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::api_server::FakeApi;

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
        sleep(crate::apiserver::client::CALL_WITHIN + Duration::from_secs(1)).await;
        assert_eq!(api.writes().len(), 1, "{:?}", api.writes());
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
