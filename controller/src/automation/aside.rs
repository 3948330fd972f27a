//! What becomes of a release that cannot be carried out, or is switched off.
//!
//! A run of it ends, and calls and gates are those of an ordinary rolling update. It forgets which
//! revision is stable: once it can be carried out, it begins with the one that is left.

use std::time::Duration;

use automation::release::{Event, EventKind, State, is_running};
use crds::weft::{ReleasePhase, ReleaseResult};

use super::commands::Request;
use super::conditions::Conditions;
use super::plan::Plan;
use super::stored::Shown;

/// Where no condition has the reason.
const DISABLED: &str = "automation.releases.enabled of the chart is false";

/// The plan of a release that has no effect.
pub(super) fn plan(
    state: &State,
    conditions: &Conditions,
    request: Option<&Request>,
    now: Duration,
) -> Plan {
    let failed = conditions.failed();
    let why = failed.map_or(DISABLED, |failed| failed.message.as_str());
    let mut ending = state.clone();
    let ended = is_running(state.phase)
        .then(|| ending.end(ReleaseResult::Bypassed, why.to_owned(), None, now))
        .flatten();
    let mut plan = Plan {
        decided: state.phase != ReleasePhase::default() || ended.is_some(),
        state: State {
            history: ending.history,
            ..State::default()
        },
        shown: Shown {
            summary: why.to_owned(),
            ..Shown::default()
        },
        ..Plan::default()
    };
    if let Some(ended) = ended {
        plan.events.push(Event {
            kind: EventKind::Bypassed,
            message: format!("{why}; pods of {} serve without checks", ended.revision),
        });
        plan.ended = Some(ended);
    }
    if let Some(Request::Do(command)) = request {
        plan.events.push(Event {
            kind: EventKind::CommandIgnored,
            message: format!("{} has no effect: {why}", command.verb),
        });
    }
    plan
}
