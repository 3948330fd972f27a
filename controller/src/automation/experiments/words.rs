//! The texts that users read of a FaultExperiment: its summary, its Events, and the conditions of
//! kstatus.

use std::time::Duration;

use automation::experiment::{Ended, LOOK, Run, State};
use crds::weft::validation::Experiment;
use crds::weft::{ExperimentHistory, ExperimentPhase, ExperimentVerdict};
use k8s_openapi::jiff::Timestamp;
use model::world::ObjectKey;

use super::context::Around;
use crate::apiserver::events::{About, Event, EventType};
use crate::automation::conditions::Conditions;

/// For `status.summary`.
pub(super) fn summary(
    state: &State,
    last: Option<&ExperimentHistory>,
    obstacle: Option<&str>,
    due: Option<Duration>,
    now: Duration,
) -> String {
    let run = state.run.as_ref();
    match (state.phase, run) {
        (ExperimentPhase::Waiting, Some(run)) => match (obstacle, run.looking) {
            (Some(why), _) => format!("waits: {why}"),
            (None, looking) => {
                let left = LOOK.saturating_sub(now.saturating_sub(looking.unwrap_or(now)));
                format!(
                    "looks at the checks before it harms, {} s left",
                    left.as_secs()
                )
            }
        },
        (ExperimentPhase::Running, Some(run)) => {
            let ends = run.harms.map_or(now, |(_, ends)| ends);
            let left = ends.saturating_sub(now).as_secs();
            format!("run {}: {left} s left", run.number)
        }
        _ => match (obstacle, last, due) {
            (Some(why), _, _) => why.to_owned(),
            (None, Some(last), _) => match &last.reason {
                Some(reason) => format!("{}: {reason}", last.verdict),
                None => last.verdict.clone(),
            },
            (None, None, Some(due)) => format!("the next run starts at {}", clock(due)),
            (None, None, None) => "starts by weft fault run".to_owned(),
        },
    }
}

/// The Event of a run that begins to harm.
pub(super) fn began(key: &ObjectKey, run: &Run, spec: &Experiment) -> String {
    let percent = (spec.share * 10_000.0).round() / 100.0;
    format!(
        "run {} by {}: {percent}% of the calls to {} are harmed, for {} s at most; weft fault \
         stop {} -n {} ends it",
        run.number,
        run.by,
        spec.target.name,
        spec.duration.as_secs(),
        key.name,
        key.namespace
    )
}

/// The Event of a run that is over.
pub(super) fn ended(run: &Run, ended: &Ended) -> String {
    let verdict = ended.verdict.as_str();
    let number = run.number;
    match ended.reason.as_str() {
        "" => format!("run {number}: {verdict}"),
        reason => format!("run {number}: {verdict}: {reason}"),
    }
}

/// Whether the Event of the end is a Warning.
pub(super) fn is_warning(verdict: ExperimentVerdict) -> bool {
    matches!(
        verdict,
        ExperimentVerdict::Harmful | ExperimentVerdict::NotStarted
    )
}

/// An Event about the experiment.
pub(super) fn event(
    uid: &str,
    key: &ObjectKey,
    reason: &'static str,
    warning: bool,
    text: String,
) -> Event {
    Event {
        about: About {
            api_version: format!("{}/{}", crds::weft::GROUP, crds::weft::VERSION),
            kind: "FaultExperiment".to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: uid.to_owned(),
        },
        event_type: if warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason,
        action: "Experiment",
        text,
    }
}

/// The same about its target; `None` if that is gone.
pub(super) fn on_target(event: &Event, spec: &Experiment, around: &Around<'_>) -> Option<Event> {
    let target = &spec.target;
    let key = ObjectKey::from(target);
    let facts = around.compiled.world.services.get(&key)?;
    let text = format!("FaultExperiment {}, {}", event.about.name, event.text);
    Some(Event {
        about: About {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: target.namespace.to_string(),
            name: target.name.to_string(),
            uid: facts.uid.to_string(),
        },
        text,
        ..event.clone()
    })
}

/// Adds `Ready` and `Stalled`.
pub(super) fn add_progress(conditions: &mut Conditions, state: &State) {
    let failed = conditions.failed().is_some();
    let reason = if failed {
        "NotAccepted"
    } else {
        state.phase.as_str()
    };
    conditions.add_progress((!failed, failed), reason, "");
}

fn clock(since_1970: Duration) -> String {
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
