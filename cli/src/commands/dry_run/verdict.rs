//! What a dry run comes to: yes is said only of calls that were compared.

use crds::observe::{Change, DryRunStatus, Trial};

use crate::failure::{Failure, Verdict};

/// There is nothing that a change could be compared by.
pub(super) const fn is_of_nothing(status: &DryRunStatus) -> bool {
    status.changed.is_empty()
        && status.kept + status.hidden + status.unknown + status.uncompared == 0
}

pub(in crate::commands) fn verdict(status: &DryRunStatus) -> Result<Verdict, Failure> {
    let count = |change: Change| {
        let listed = status.changed.iter();
        listed.filter(|edge| edge.change == change).count()
    };
    let live = status.trial.as_ref();
    let refused = live.map_or(0, |live| live.refused);
    if count(Change::Refused) > 0 || status.hidden_refused + refused > 0 {
        return Ok(Verdict::No);
    }
    if let Some(live) = live {
        all_took_part(live)?;
    }
    if status.uncompared > 0 {
        return Err(Failure::unknown(format!(
            "{} edges were not compared in the time that there is; try a smaller change",
            status.uncompared
        )));
    }
    let judged = live.map_or(0, |live| live.judged);
    all_judged(count(Change::Depends), judged, live)?;
    let compared = status.kept + status.hidden + judged;
    if compared == 0 && count(Change::Unknown) == status.changed.len() {
        let why = "of no call that is remembered anything can be told";
        return Err(Failure::unknown(why));
    }
    Ok(Verdict::Yes)
}

/// Of calls that nobody judged nobody knows whether they would pass.
fn all_judged(depends: usize, judged: u64, live: Option<&Trial>) -> Result<(), Failure> {
    if depends > 0 && judged == 0 {
        return Err(Failure::unknown(format!(
            "what becomes of the calls of {depends} edges depends on their method, path or headers, which are not \
             remembered; --watch 60s judges live calls"
        )));
    }
    match live.map_or(0, |live| live.skipped) {
        0 => Ok(()),
        skipped => Err(Failure::unknown(format!(
            "proxies had time to judge {judged} live calls, which would pass, and not for {skipped} more"
        ))),
    }
}

/// What some proxies would refuse nobody knows where they did not judge, or were not all found.
fn all_took_part(live: &Trial) -> Result<(), Failure> {
    if live.taking_part >= live.proxies {
        if live.reasons.is_empty() {
            return Ok(());
        }
        let why = "not every proxy that the change concerns judged live calls by it";
        return Err(Failure::unknown(why));
    }
    let some = match live.taking_part {
        0 => "none".to_owned(),
        some => format!("only {some}"),
    };
    Err(Failure::unknown(format!(
        "{some} of {} proxies judged live calls by the change; `weft proxies` says which are \
         away or older than this question",
        live.proxies
    )))
}

#[cfg(test)]
mod tests {
    use crds::observe::ChangedEdge;

    use super::*;

    fn listed(change: Change) -> DryRunStatus {
        let changed = vec![ChangedEdge {
            change,
            from: "shop/Job/nightly".to_owned(),
            ..ChangedEdge::default()
        }];
        DryRunStatus {
            changed,
            ..DryRunStatus::default()
        }
    }

    fn code(status: &DryRunStatus) -> u8 {
        crate::failure::status(&verdict(status))
    }

    #[test]
    fn yes_is_said_only_of_calls_that_were_compared() {
        let kept = |status: DryRunStatus| DryRunStatus { kept: 1, ..status };
        let nothing = DryRunStatus::default();
        assert!(is_of_nothing(&nothing) && !is_of_nothing(&kept(nothing.clone())));
        let late = |status: DryRunStatus| DryRunStatus {
            uncompared: 1,
            ..status
        };
        for (status, expected) in [
            (kept(nothing.clone()), 0),
            (listed(Change::Allowed), 0),
            (kept(listed(Change::Unknown)), 0),
            (listed(Change::Unknown), 3),
            (late(kept(nothing)), 3),
            (kept(listed(Change::Depends)), 3),
            (late(listed(Change::Refused)), 1),
        ] {
            assert_eq!(code(&status), expected, "{status:?}");
        }
    }

    #[test]
    fn live_calls_say_no_and_a_watch_in_which_not_all_took_part_says_neither() {
        let live = |refused: u64, taking_part: u32| DryRunStatus {
            trial: Some(Trial {
                proxies: 2,
                taking_part,
                judged: 5 + refused,
                refused,
                ..Trial::default()
            }),
            ..DryRunStatus::default()
        };
        let silent = DryRunStatus {
            trial: Some(Trial {
                proxies: 2,
                taking_part: 2,
                ..Trial::default()
            }),
            ..DryRunStatus::default()
        };
        // There was no time to find all whom it concerns.
        let late = DryRunStatus {
            trial: Some(Trial {
                reasons: vec!["late".to_owned()],
                ..Trial::default()
            }),
            ..DryRunStatus::default()
        };
        let kept = |status: DryRunStatus| DryRunStatus { kept: 1, ..status };
        let busy = |refused: u64| {
            let mut status = live(refused, 2);
            status.trial.as_mut().unwrap().skipped = 1000;
            status
        };
        // What depends on the request was judged by live ones.
        let seen = DryRunStatus {
            trial: live(0, 2).trial,
            ..listed(Change::Depends)
        };
        for (status, expected) in [
            (live(0, 2), 0),
            (seen, 0),
            (busy(0), 3),
            (busy(1), 1),
            (live(0, 1), 3),
            (kept(live(0, 1)), 3),
            (live(1, 2), 1),
            (live(1, 1), 1),
            (kept(late), 3),
            (live(0, 0), 3),
            (kept(live(0, 0)), 3),
            (silent.clone(), 3),
            (kept(silent), 0),
        ] {
            assert_eq!(code(&status), expected, "{status:?}");
        }
    }
}
