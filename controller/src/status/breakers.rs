//! Events for a TrafficPolicy's author: when a breaker opens and closes.
//!
//! Claims: calls-68

use std::collections::BTreeMap;
use std::time::Duration;

use policy::name::ObjectRef;
use tokio::time::{Instant, sleep};

use super::conditions::{api_version, rfc3339};
use crate::apiserver::events::{About, Event, EventRecorder, EventType};
use crate::fleet::{BreakerReport, Fleet, Key};
use crate::latest_model::LatestModel;

/// Between two looks: a breaker that flaps says so this often.
const PAUSE: Duration = Duration::from_secs(1);

/// Reports which breakers open and close, until dropped. Only the Lease holder runs this.
pub(crate) async fn report(fleet: Fleet, latest: LatestModel, events: EventRecorder) {
    let mut changes = fleet.changes();
    let mut before = fleet.open(Instant::now());
    while changes.changed().await.is_ok() {
        let now = since_opened(&before, fleet.open(Instant::now()));
        let is_written_open = |key: &Key| fleet.is_written_open(key);
        for event in news(&before, &now, is_written_open, |object| {
            uid(&latest, object)
        }) {
            events.record(event);
        }
        before = now;
        sleep(PAUSE).await;
    }
}

fn uid(latest: &LatestModel, object: &ObjectRef) -> String {
    let compiled = latest.borrow();
    let reports = compiled.as_ref().map(|compiled| &compiled.problems.reports);
    let report = reports.and_then(|reports| reports.get(object));
    report.map_or_else(String::new, |report| report.uid.to_string())
}

type Open = BTreeMap<Key, (ObjectRef, BreakerReport)>;

/// What is open `now`, each since it opened: one that was tried since was open before that.
fn since_opened(before: &Open, mut now: Open) -> Open {
    for (key, (_, report)) in &mut now {
        if let Some((_, known)) = before.get(key) {
            report.since = known.since;
        }
    }
    now
}

/// `is_written_open`: its author has written since that no call is sent there, so what has opened
/// by itself is not called again.
fn news(
    before: &Open,
    now: &Open,
    is_written_open: impl Fn(&Key) -> bool,
    uid: impl Fn(&ObjectRef) -> String,
) -> Vec<Event> {
    let opened = now.iter().filter(|(key, _)| !before.contains_key(*key));
    let opened = opened.map(|(key, (object, report))| {
        let BreakerReport {
            failure_percent,
            requests,
            callers,
            since,
            ..
        } = report;
        let text = format!(
            "{} is called no more since {}: {failure_percent} % of the calls fail as half of the \
             calling accounts see it, of {requests} calls by {callers} proxies",
            backend(key),
            rfc3339(*since)
        );
        about(
            object,
            uid(object),
            EventType::Warning,
            "BreakerOpened",
            text,
        )
    });
    let closed = before.iter().filter(|(key, _)| !now.contains_key(*key));
    let closed = closed.filter(|(key, _)| !is_written_open(key));
    let closed = closed.map(|(key, (object, report))| {
        let text = format!(
            "{} is called again, after it was not since {}",
            backend(key),
            rfc3339(report.since)
        );
        about(
            object,
            uid(object),
            EventType::Normal,
            "BreakerClosed",
            text,
        )
    });
    opened.chain(closed).collect()
}

fn backend(key: &Key) -> String {
    format!("{}:{}", key.backend, key.port)
}

fn about(
    object: &ObjectRef,
    uid: String,
    event_type: EventType,
    reason: &'static str,
    text: String,
) -> Event {
    Event {
        about: About {
            api_version: api_version(object.kind),
            kind: object.kind.as_str().to_owned(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
            uid,
        },
        event_type,
        reason,
        action: "Protect",
        text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use model::world::ObjectKey;
    use policy::name::Kind;

    use super::*;
    use crate::fleet::Phase;

    fn open(name: &str) -> (Key, (ObjectRef, BreakerReport)) {
        let service = ObjectKey::new("shop", name);
        let key = Key {
            backend: service.clone(),
            service,
            port: 80,
        };
        let report = BreakerReport {
            state: Phase::Open,
            since: SystemTime::UNIX_EPOCH,
            failure_percent: 80,
            requests: 50,
            callers: 3,
        };
        (
            key,
            (ObjectRef::new(Kind::TrafficPolicy, "shop", "p"), report),
        )
    }

    #[test]
    fn breaker_transitions_are_each_reported_once_with_evidence() {
        let (before, now) = (
            Open::from([open("a"), open("b")]),
            Open::from([open("b"), open("c")]),
        );
        let published = news(&before, &now, |_| false, |_| "uid".to_owned());
        let published: Vec<(&str, &str)> = published
            .iter()
            .map(|event| (event.reason, event.text.as_str()))
            .collect();
        let [(opened, what), (closed, again)] = published[..] else {
            panic!("{published:?}")
        };
        assert_eq!((opened, closed), ("BreakerOpened", "BreakerClosed"));
        for part in [
            "shop/c:80",
            "80 %",
            "50 calls by 3 proxies",
            "1970-01-01T00:00:00Z",
        ] {
            assert!(what.contains(part), "{what}");
        }
        assert!(again.starts_with("shop/a:80 is called again"), "{again}");
        assert!(news(&now, &now, |_| false, |_| String::new()).is_empty());
        // Its author keeps it open.
        let published = news(&before, &now, |key| *key == open("a").0, |_| String::new());
        let reasons: Vec<&str> = published.iter().map(|event| event.reason).collect();
        assert_eq!(reasons, ["BreakerOpened"]);
    }

    #[test]
    fn who_is_called_again_was_not_since_it_opened() {
        let opened = Open::from([open("a")]);
        let (key, (object, report)) = open("a");
        let tried = BreakerReport {
            state: Phase::Probing,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(30),
            ..report
        };
        let later = since_opened(&opened, Open::from([(key, (object, tried))]));
        let published = news(&later, &Open::new(), |_| false, |_| String::new());
        let text = published.first().map_or("", |event| event.text.as_str());
        assert!(text.ends_with("since 1970-01-01T00:00:00Z"), "{text}");
        // Control: one that was not open before.
        let (key, (object, report)) = open("b");
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(40);
        let other = Open::from([(key.clone(), (object, BreakerReport { since, ..report }))]);
        assert_eq!(since_opened(&opened, other)[&key].1.since, since);
    }
}
