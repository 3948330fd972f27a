//! The event recorder: writes Events about objects, as `kubectl describe` shows them.
//!
//! An Event is sent once: the same one about the same object is not repeated for [`REPEAT_AFTER`],
//! a record of a user's action for [`RECORD_AGAIN_AFTER`]. The queue is bounded and never waits,
//! because no part of the mesh may stall for an Event. What the API server does not take is
//! retried for [`TRIED_FOR`], behind newer Events; what waits when the replica ends is written
//! within [`LAST_WITHIN`]. What does not fit, is refused or is not written by then is counted.
//!
//! Any replica may write, with or without the Lease: what its holder saw stays true when it is
//! lost, and the next holder did not see all of it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

/// Events that wait to be written. Far above what one change makes.
const QUEUE: usize = 512;
/// Events that are kept for not being repeated.
const MAX_RETAINED: usize = 8192;
/// After this time the same Event may be said again; the API server forgets
/// Events after an hour.
const REPEAT_AFTER: Duration = Duration::from_secs(50 * 60);
/// The same for what a user does, of which every time counts: the Event shows when, and repeating
/// it all the time cannot fill etcd.
const RECORD_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// At most twenty Events a second, so that a cluster full of validation errors does not fill etcd
/// with Events.
const PAUSE: Duration = Duration::from_millis(50);
/// The same after a try that may do better another time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// From the first time that an Event is handed in to its last try: an API server that begins
/// anew is back by then.
const TRIED_FOR: Duration = Duration::from_secs(120);
/// For what waits when the replica ends; the Lease is let go and streams end meanwhile.
const LAST_WITHIN: Duration = Duration::from_secs(2);
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
    /// Known from the begin: what a try wrote whose answer was lost is not written twice.
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
            writing: None,
            dropped: dropped.clone(),
            published: HashMap::new(),
        };
        (Self { queue, dropped }, writer)
    }

    /// Hands an Event in. Never waits.
    pub(crate) fn record(&self, event: Event) {
        self.record_at(event, Timestamp::now());
    }

    fn record_at(&self, event: Event, happened: Timestamp) {
        let id = fingerprint(&event, happened);
        self.hand_in(event, REPEAT_AFTER, happened, id);
    }

    /// The same of what a user does: doing it again is an Event again. No client can know its name
    /// before and take it.
    pub(crate) fn record_action(&self, event: Event) {
        self.hand_in(event, RECORD_AGAIN_AFTER, Timestamp::now(), rand::random());
    }

    fn hand_in(&self, event: Event, again_after: Duration, happened: Timestamp, id: u64) {
        let queued = QueuedEvent {
            event,
            again_after,
            name: format!("weft-{id:016x}"),
            happened,
            until: Instant::now() + TRIED_FOR,
        };
        match self.queue.try_send(queued) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.inc();
            }
            // The metric goes with the process, the log stays.
            Err(TrySendError::Closed(queued)) => lost_at_the_end(&queued, &self.dropped),
        }
    }
}

/// Writes the Events to the API server.
pub(crate) struct Writer {
    client: Client,
    me: String,
    /// For what is tried again; it does not hold up the end of the writer once all recorders are
    /// gone.
    queue: mpsc::WeakSender<QueuedEvent>,
    queued: mpsc::Receiver<QueuedEvent>,
    /// Whose call is under way.
    writing: Option<QueuedEvent>,
    dropped: Counter,
    published: HashMap<Event, Instant>,
}

opaque_debug!(Writer);

impl Writer {
    /// Ends when every [`EventRecorder`] is gone, or at `stop` once what waits is written or
    /// counted.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.keep_writing() => return,
            () = stop => {}
        }
        let _ = timeout(LAST_WITHIN, self.flush()).await;
        self.queued.close();
        if let Some(queued) = self.writing.take() {
            lost_at_the_end(&queued, &self.dropped);
        }
        while let Ok(queued) = self.queued.try_recv() {
            if self.is_news(&queued.event, queued.again_after, Instant::now()) {
                lost_at_the_end(&queued, &self.dropped);
            }
        }
    }

    async fn keep_writing(&mut self) {
        while let Some(queued) = self.queued.recv().await {
            self.publish(queued, PAUSE).await;
        }
    }

    /// Writes what waits, without pauses: there is no more of it than fits into the queue.
    async fn flush(&mut self) {
        // Its name is the same in both calls, so that it is written once.
        if let Some(queued) = self.writing.take() {
            self.published.remove(&queued.event);
            self.publish(queued, Duration::ZERO).await;
        }
        while let Ok(queued) = self.queued.try_recv() {
            self.publish(queued, Duration::ZERO).await;
        }
    }

    /// Writes one that is new, and then waits for `pause`, or for longer if that failed.
    async fn publish(&mut self, queued: QueuedEvent, pause: Duration) {
        if !self.is_news(&queued.event, queued.again_after, Instant::now()) {
            return;
        }
        // Not held by this call, which may be ended between two lines.
        self.writing = Some(queued);
        let written = match &self.writing {
            Some(queued) => self.write(queued).await,
            None => Ok(()),
        };
        let pause = match (written, self.writing.take()) {
            (Err(error), Some(queued)) => self.failed(queued, &error),
            _ => pause,
        };
        sleep(pause).await;
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
        if self.published.len() >= MAX_RETAINED {
            self.published
                .retain(|_, at| now.duration_since(*at) < REPEAT_AFTER);
            if self.published.len() >= MAX_RETAINED {
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
            // By a try whose answer was lost, or by the holder of the Lease before.
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

/// Counts what was not written before the replica ended.
fn lost_at_the_end(queued: &QueuedEvent, dropped: &Counter) {
    let (reason, object) = (queued.event.reason, queued.event.about.name.as_str());
    warn!(reason, object, "event not written before the end");
    dropped.inc();
}

/// The same at each replica that says the same within [`REPEAT_AFTER`], as two holders of the
/// Lease in a row do: one of both is written.
fn fingerprint(event: &Event, happened: Timestamp) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    let seconds = u64::try_from(happened.as_second()).unwrap_or_default();
    (seconds / REPEAT_AFTER.as_secs()).hash(&mut hasher);
    hasher.finish()
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
mod tests;
