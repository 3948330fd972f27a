//! What becomes of a release that cannot be carried out, or is switched off.
//!
//! A run of it ends, and calls and gates are those of an ordinary rolling update. It forgets which
//! revision is stable: once it can be carried out, it begins with the one that is left.

use std::time::Duration;

use automation::release::{Ended, Event, EventKind, HISTORY, State, is_running};
use crds::weft::{CanaryReleaseStatus, ReleaseResult};

use super::commands::Request;
use super::plan::Plan;
use super::standing::Conditions;
use super::stored::Shown;

/// Where no condition has the reason.
const DISABLED: &str = "automation.releases.enabled of the chart is false";

/// The plan of a release that has no effect.
pub(super) fn plan(
    state: &State,
    status: &CanaryReleaseStatus,
    conditions: &Conditions,
    request: Option<&Request>,
    now: Duration,
) -> Plan {
    let why = conditions.obstacle().unwrap_or(DISABLED);
    let mut plan = Plan {
        state: State {
            history: state.history.clone(),
            ..State::default()
        },
        shown: Shown {
            summary: why.to_owned(),
            ..Shown::default()
        },
        ..Plan::default()
    };
    let candidate = state.candidate.as_ref();
    let run = state.run.as_ref().filter(|_| is_running(state.phase));
    if let (Some(run), Some(candidate)) = (run, candidate) {
        let checks = &status.checks;
        let errors = checks.iter().find(|check| check.name == "errorRate");
        let counts = errors.and_then(|check| check.candidate).unwrap_or_default();
        let ended = Ended {
            number: run.number,
            revision: candidate.clone(),
            result: ReleaseResult::Bypassed,
            reason: why.to_owned(),
            by: None,
            started: run.started,
            ended: now,
            requests: u64::try_from(counts.requests).unwrap_or(0),
            bad: u64::try_from(counts.bad).unwrap_or(0),
        };
        plan.state.history.insert(0, ended.clone());
        plan.state.history.truncate(HISTORY);
        plan.ended = Some(ended);
        plan.events.push(Event {
            kind: EventKind::Bypassed,
            message: format!("{why}; pods of {candidate} serve without checks"),
        });
    }
    if let Some(Request::Do(command)) = request {
        plan.events.push(Event {
            kind: EventKind::CommandIgnored,
            message: format!("{} has no effect: {why}", command.verb),
        });
    }
    plan.decided = plan.state.phase != state.phase || plan.ended.is_some();
    plan
}
