//! Decides the exit status of a dry run: yes only if calls were compared.
//!
//! Claims: observe-109, observe-110, observe-124

use crds::observe::{Change, ChangedEdge, DryRunStatus, Trial};

use crate::failure::{Conclusion, Failure};

/// How more is found out, as the message of the command has it.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct Advice {
    /// How live calls are evaluated.
    pub(in crate::commands) live: &'static str,
    /// How less is compared.
    pub(in crate::commands) less: &'static str,
}

/// There is nothing that a change could be compared by.
pub(super) const fn is_of_nothing(status: &DryRunStatus) -> bool {
    status.changed.is_empty()
        && status.opened.is_empty()
        && status.hidden_opened + status.kept + status.hidden + status.unknown + status.uncompared
            == 0
}

pub(in crate::commands) fn conclude(
    status: &DryRunStatus,
    advice: Advice,
) -> Result<Conclusion, Failure> {
    let count = |change: Change| {
        let listed = status.changed.iter();
        listed.filter(|edge| edge.change == change).count()
    };
    let live = status.trial.as_ref();
    let refused = live.map_or(0, |live| live.refused);
    let opened = !status.opened.is_empty() || status.hidden_opened > 0;
    if opened || count(Change::Refused) > 0 || status.hidden_refused + refused > 0 {
        return Ok(Conclusion::No);
    }
    if let Some(live) = live {
        all_took_part(live)?;
    }
    if status.uncompared > 0 {
        return Err(Failure::unknown(format!(
            "{} edges were not compared in the time that there is; {}",
            status.uncompared, advice.less
        )));
    }
    all_evaluated(status, advice)?;
    let judged = live.map_or(0, |live| live.judged);
    let compared = status.kept + status.hidden + judged;
    if compared == 0 && count(Change::Unknown) == status.changed.len() {
        let why = "no recorded call can be evaluated";
        return Err(Failure::unknown(why));
    }
    Ok(Conclusion::Yes)
}

/// The same of a change of which so many labels and annotations that decide about calls are not
/// tried.
pub(super) fn tried(
    conclusion: Result<Conclusion, Failure>,
    untried: usize,
) -> Result<Conclusion, Failure> {
    match conclusion {
        Ok(Conclusion::Yes) if untried > 0 => Err(Failure::unknown(format!(
            "{untried} labels and annotations decide about calls and are not tried; leave those \
             out of the files that hold already, and look at the others with `weft explain` once \
             they are applied"
        ))),
        other => other,
    }
}

/// Calls that were not evaluated may pass or not: of each edge that depends on the request some
/// live ones must have been evaluated.
fn all_evaluated(status: &DryRunStatus, advice: Advice) -> Result<(), Failure> {
    hidden_are_counted(status)?;
    let listed = status.changed.iter();
    let depends = listed.filter(|edge| edge.change == Change::Depends);
    let live = status.trial.as_ref();
    let not_evaluated = depends
        .filter(|edge| !live.is_some_and(|live| is_evaluated(edge, live)))
        .count();
    // The worst are listed first, so that others of the last one's kind may be truncated.
    let last = status.changed.last();
    let is_cut = status.truncated && last.is_some_and(|edge| edge.change == Change::Depends);
    if not_evaluated > 0 || is_cut {
        return Err(Failure::unknown(not_evaluated_text(
            not_evaluated,
            live,
            advice,
        )));
    }
    match live {
        Some(live) if live.skipped > 0 => Err(Failure::unknown(format!(
            "proxies had time to evaluate {} live calls, which would pass, and not for {} more",
            live.judged, live.skipped
        ))),
        _ => Ok(()),
    }
}

/// What is hidden is no yes where it depends on the request, nor where that is not counted.
fn hidden_are_counted(status: &DryRunStatus) -> Result<(), Failure> {
    match status.hidden_depends {
        None if status.hidden > status.hidden_refused => Err(Failure::unknown(format!(
            "unknown: this controller is older than this command, and does not say of how many of \
             the {} edges in namespaces whose graphs you may not read it depends on the request; \
             `weft version` says which one it is; run it as a user who may read them",
            status.hidden
        ))),
        None | Some(0) => Ok(()),
        Some(edges) => Err(Failure::unknown(format!(
            "what becomes of the calls of {edges} edges in namespaces whose graphs you may not \
             read depends on their method, path or headers; run it as a user who may read them"
        ))),
    }
}

/// Whether live calls of this very edge were evaluated. Proxies know the ports of their own pods,
/// and no Service's. If the controller does not report these ports, the edge's ends decide.
fn is_evaluated(edge: &ChangedEdge, live: &Trial) -> bool {
    let ports = &edge.pod_ports;
    let mut between = live.edges.iter();
    between.any(|seen| {
        seen.from == edge.from
            && seen.to == edge.to
            && (ports.is_empty() || ports.contains(&seen.port))
    })
}

fn not_evaluated_text(not_evaluated: usize, live: Option<&Trial>, advice: Advice) -> String {
    let what = "depends on what is not recorded or may not be shown: their method, path or \
                headers, or the pod that calls";
    match (not_evaluated, live) {
        (0, _) => format!(
            "what becomes of the calls of more edges than are listed {what}; {}",
            advice.less
        ),
        (edges, None) => format!(
            "what becomes of the calls of {edges} edges {what}; {}",
            advice.live
        ),
        (edges, Some(live)) if live.truncated => format!(
            "what becomes of the calls of {edges} edges {what}, and there were live calls of more \
             edges than are listed; {}",
            advice.less
        ),
        (edges, Some(_)) => format!(
            "what becomes of the calls of {edges} edges {what}, and none of their live calls was \
             evaluated; watch for longer, or while they call"
        ),
    }
}

/// The result is unknown if some proxies did not evaluate calls, or were not all found.
fn all_took_part(live: &Trial) -> Result<(), Failure> {
    if live.taking_part >= live.proxies {
        if live.reasons.is_empty() {
            return Ok(());
        }
        let why = "not every proxy that the change concerns evaluated live calls by it";
        return Err(Failure::unknown(why));
    }
    let some = match live.taking_part {
        0 => "none".to_owned(),
        some => format!("only {some}"),
    };
    Err(Failure::unknown(format!(
        "{some} of {} proxies evaluated live calls by the change; `weft proxies` says which are \
         away or older than this question",
        live.proxies
    )))
}

#[cfg(test)]
mod tests {
    use crds::observe::TriedEdge;

    use super::*;

    const ADVICE: Advice = Advice {
        live: "watch",
        less: "try less",
    };

    /// Calls of `cart` through port 80 of its Service.
    fn edge(change: Change, from: &str) -> ChangedEdge {
        ChangedEdge {
            change,
            from: from.to_owned(),
            to: "shop/Deployment/cart".to_owned(),
            service: "shop/cart".to_owned(),
            port: 80,
            pod_ports: vec![8080],
            ..ChangedEdge::default()
        }
    }

    fn listed(change: Change) -> DryRunStatus {
        DryRunStatus {
            changed: vec![edge(change, "shop/Job/nightly")],
            ..DryRunStatus::default()
        }
    }

    /// One live call of each of these to a port of `cart`.
    fn seen(callers: &[(&str, u16)]) -> Trial {
        let edges = callers.iter().map(|(from, port)| TriedEdge {
            from: (*from).to_owned(),
            to: "shop/Deployment/cart".to_owned(),
            port: *port,
            kept: 1,
            ..TriedEdge::default()
        });
        Trial {
            proxies: 1,
            taking_part: 1,
            judged: callers.len() as u64,
            edges: edges.collect(),
            ..Trial::default()
        }
    }

    fn code(status: &DryRunStatus) -> u8 {
        crate::failure::status(&conclude(status, ADVICE))
    }

    #[test]
    fn yes_is_said_only_of_calls_that_were_compared() {
        let kept = |status: DryRunStatus| DryRunStatus { kept: 1, ..status };
        let nothing = DryRunStatus::default();
        assert!(is_of_nothing(&nothing) && !is_of_nothing(&kept(nothing.clone())));
        let opened = DryRunStatus {
            opened: vec!["shop/Deployment/cart".to_owned()],
            ..DryRunStatus::default()
        };
        let hidden = DryRunStatus {
            hidden_opened: 1,
            ..DryRunStatus::default()
        };
        assert!(!is_of_nothing(&opened) && !is_of_nothing(&hidden));
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
            (kept(opened.clone()), 1),
            (opened.clone(), 1),
            (kept(hidden.clone()), 1),
        ] {
            assert_eq!(code(&status), expected, "{status:?}");
        }
    }

    #[test]
    fn refused_live_calls_mean_no_and_partial_watch_unknown() {
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
        // There was no time to find all proxies that it concerns.
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
        for (status, expected) in [
            (live(0, 2), 0),
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

    #[test]
    fn yes_requires_live_calls_on_every_request_dependent_edge() {
        let (web, job) = ("shop/Deployment/web", "shop/Job/nightly");
        let depends = |trial: Option<Trial>| DryRunStatus {
            changed: vec![edge(Change::Depends, web), edge(Change::Depends, job)],
            kept: 1,
            trial,
            ..DryRunStatus::default()
        };
        let cut = |trial: Trial| Trial {
            truncated: true,
            ..trial
        };
        let both = seen(&[(web, 8080), (job, 8080)]);
        let more = DryRunStatus {
            truncated: true,
            ..depends(Some(both.clone()))
        };
        for (status, expected, words) in [
            (depends(None), 3, "calls of 2 edges"),
            // Others' calls, and those to another port, mean nothing for it.
            (depends(Some(seen(&[]))), 3, "calls of 2 edges"),
            (depends(Some(seen(&[(web, 8080)]))), 3, "calls of 1 edges"),
            (
                depends(Some(seen(&[(web, 8080), (job, 9090)]))),
                3,
                "watch for longer",
            ),
            (
                depends(Some(cut(seen(&[(web, 8080)])))),
                3,
                "more edges than are listed; try less",
            ),
            (depends(Some(both.clone())), 0, ""),
            (depends(Some(cut(both))), 0, ""),
            (more, 3, "more edges than are listed"),
        ] {
            assert_eq!(code(&status), expected, "{status:?}");
            if let Err(why) = conclude(&status, ADVICE) {
                assert!(why.to_string().contains(words), "{words}: {why}");
            }
        }
    }

    #[test]
    fn calls_with_hidden_port_match_edges_without_pod_ports() {
        let web = "shop/Deployment/web";
        for (pod_ports, seen_at, expected) in [
            (Vec::new(), 0, 0),
            (Vec::new(), 8080, 0),
            (vec![8080], 8080, 0),
            // By address at one port, and seen at another one.
            (vec![8080], 0, 3),
        ] {
            let status = DryRunStatus {
                changed: vec![ChangedEdge {
                    pod_ports,
                    ..edge(Change::Depends, web)
                }],
                trial: Some(seen(&[(web, seen_at)])),
                ..DryRunStatus::default()
            };
            assert_eq!(code(&status), expected, "{status:?}");
        }
    }

    #[test]
    fn hidden_request_dependent_edges_prevent_yes() {
        let hidden = |hidden_depends: Option<u64>| DryRunStatus {
            kept: 1,
            hidden: 2,
            hidden_depends,
            trial: Some(seen(&[("shop/Deployment/web", 8080)])),
            ..DryRunStatus::default()
        };
        assert_eq!((code(&hidden(Some(0))), code(&hidden(Some(1)))), (0, 3));
        let why = conclude(&hidden(Some(1)), ADVICE).unwrap_err().to_string();
        assert!(why.contains("calls of 1 edges in namespaces"), "{why}");
        // An older controller's response has no such count.
        let older = r#"{"kept": 1, "hidden": 2, "hiddenRefused": 0, "unknown": 0}"#;
        let older: DryRunStatus = serde_json::from_str(older).unwrap();
        let why = conclude(&older, ADVICE).unwrap_err().to_string();
        assert!(why.contains("this controller is older"), "{why}");
        assert_eq!(code(&older), 3);
        let nothing_hidden = DryRunStatus { hidden: 0, ..older };
        assert_eq!(code(&nothing_hidden), 0);
    }
}
