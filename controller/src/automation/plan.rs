//! `Plan`: the result of one look at a CanaryRelease, and the Events and metrics that follow once
//! the status is written.

use automation::release::{Ended, Event, EventKind, State};
use crds::weft::{CanaryReleaseStatus, ReleaseResult};
use tracing::info;

use super::context::Releases;
use super::stored::Shown;
use crate::apiserver::events::{self, About, EventType};

/// What a look comes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) state: State,
    pub(super) shown: Shown,
    /// It is written now, and not with the next counts.
    pub(super) decided: bool,
    pub(super) events: Vec<Event>,
    /// The run that ended.
    pub(super) ended: Option<Ended>,
    /// Names of pods whose gates open.
    pub(super) opens: Vec<String>,
    /// The status as it should be.
    pub(super) status: CanaryReleaseStatus,
}

/// Records the Events of a plan that is persisted, and counts the run that ended. `about`: the
/// release, and its Deployment where that is known.
pub(super) fn record(parts: &Releases, about: &[About], plan: &Plan) {
    for event in &plan.events {
        let ignored = event.kind == EventKind::CommandIgnored;
        // A command was given to the release.
        let objects = if ignored { 1 } else { about.len() };
        for object in about.iter().take(objects) {
            let recorded = events::Event {
                about: object.clone(),
                event_type: if event.kind.is_warning() {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: event.kind.as_str(),
                action: "Release",
                text: event.message.clone(),
            };
            if ignored {
                // It is recorded at each look until the annotation is gone.
                parts.events.record(recorded);
            } else {
                parts.events.record_action(recorded);
            }
        }
    }
    if let Some(ended) = &plan.ended {
        parts.metrics.ended(word(ended.result));
        info!(
            release = about
                .first()
                .map(|about| format!("{}/{}", about.namespace, about.name)),
            run = ended.number,
            revision = ended.revision,
            result = ended.result.as_str(),
            reason = ended.reason,
            "run of a release ended"
        );
    }
}

/// A result as the metric's label has it.
fn word(result: ReleaseResult) -> &'static str {
    match result {
        ReleaseResult::Promoted => "promoted",
        ReleaseResult::RolledBack => "rolled-back",
        ReleaseResult::Aborted => "aborted",
        ReleaseResult::Superseded => "superseded",
        ReleaseResult::Bypassed => "bypassed",
    }
}
