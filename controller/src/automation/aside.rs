//! Sets a CanaryRelease aside that cannot be carried out, or is switched off.
//!
//! A run of it ends, and calls and gates are those of an ordinary rolling update; a refused
//! revision serves, and that is said. It forgets which revision is stable: once it can be carried
//! out, it begins with the one that is left.
//!
//! A Service or Deployment that is missing for a short time ends nothing: `automation` says for how
//! long.

use automation::release::{Ended, Event, EventKind, State, refused_serves, span};
use crds::weft::validation::Release;
use crds::weft::{ReleasePhase, ReleaseResult};
use model::world::ObjectKey;

use super::commands::Request;
use super::conditions::Conditions;
use super::context::Around;
use super::plan::Plan;
use super::seen;
use super::stored::Shown;

/// Where no condition has the reason.
const DISABLED: &str = "automation.releases.enabled of the chart is false";

/// The plan of a release that has no effect.
pub(super) fn plan(
    around: Around<'_>,
    key: &ObjectKey,
    state: &State,
    conditions: &Conditions,
    request: Option<&Request>,
) -> Plan {
    let why = why(conditions);
    let mut ending = state.clone();
    let ended = ending.end(ReleaseResult::Bypassed, why.to_owned(), None, around.now);
    let refused = refused(around, key, ending.let_through());
    let mut plan = Plan {
        decided: state.phase != ReleasePhase::default() || ended.is_some(),
        shown: Shown {
            summary: refused.clone().unwrap_or_else(|| why.to_owned()),
            ..Shown::default()
        },
        events: ignored(request, why).into_iter().collect(),
        ..Plan::default()
    };
    if let Some(ended) = ended {
        let serve = || format!("{why}; pods of {} serve without checks", ended.revision);
        plan.events.push(Event {
            kind: EventKind::Bypassed,
            message: refused.unwrap_or_else(serve),
        });
        plan.ended = Some(ended);
    }
    plan.state = State {
        history: ending.history,
        ..State::default()
    };
    plan
}

/// The plan of a release whose Service or Deployment is missing. `None`: it has been for too long,
/// or there is no run.
pub(super) fn kept(
    around: Around<'_>,
    spec: &Release,
    state: &State,
    conditions: &Conditions,
    request: Option<&Request>,
) -> Option<Plan> {
    if spec.suspend {
        return None;
    }
    let mut kept = state.clone();
    let left = kept.outlives(around.now)?;
    let why = why(conditions);
    Some(Plan {
        state: kept,
        shown: Shown {
            summary: format!("{why}; gates open in {} unless it is there", span(left)),
            steps: spec.steps.len(),
            ..Shown::default()
        },
        events: ignored(request, why).into_iter().collect(),
        ..Plan::default()
    })
}

/// What is said of a refused revision while pods of it are there.
pub(super) fn refused(
    around: Around<'_>,
    key: &ObjectKey,
    ended: Option<&Ended>,
) -> Option<String> {
    let ended = ended?;
    let world = &around.compiled.world;
    let deployment = seen::owner(world, &key.namespace, &ended.revision, |_| true)?;
    Some(refused_serves(ended, &deployment.name))
}

fn why(conditions: &Conditions) -> &str {
    let failed = conditions.failed();
    failed.map_or(DISABLED, |failed| failed.message.as_str())
}

/// A command that is met meanwhile.
fn ignored(request: Option<&Request>, why: &str) -> Option<Event> {
    let Some(Request::Do(command)) = request else {
        return None;
    };
    Some(Event {
        kind: EventKind::CommandIgnored,
        message: format!("{} has no effect: {why}", command.verb),
    })
}
