//! Computes the conditions of an object, and whether a difference is worth a write.
//!
//! Claims: calls-32

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::core::{ApiResource, DynamicObject};
use model::problem::{Condition, ObjectReport, ParentReport, few};
use model::revoked::FoundPods;
use model::world::kinds;
use policy::name::{Kind, ObjectRef};
use policy::traffic::part::Part;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fleet::BreakerReport;
use crate::network_policy::InForce;
use crate::observe::acknowledged::Tally;

/// Time between two writes of an object whose counts only tick.
pub(crate) const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Proxies come back within this time: the longest pause between two of their tries, and
/// the handshake.
pub(super) const RECONNECT: Duration = Duration::from_secs(15);
/// A status as it should stand in the API server, without times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) summary: String,
    pub(super) target: Option<String>,
    pub(super) conditions: [(&'static str, Condition); 3],
    /// Of a TrafficPolicy with a breaker that has callers.
    pub(super) breaker: Option<WrittenBreaker>,
    /// Of a route of the Gateway API: what is reported of each of its parents.
    pub(super) parents: Vec<ParentReport>,
    /// Of a Revocation: the pods that its subjects mean.
    pub(super) revoked: Vec<FoundPods>,
}

/// A status as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// None: it was read, not written by this process.
    pub(super) status: Option<Status>,
    /// When each condition last changed, RFC 3339, and its status then.
    pub(super) since: BTreeMap<String, (String, String)>,
    pub(super) uid: String,
    pub(super) at: Instant,
    /// The generation of which `Programmed` is stored as True.
    pub(super) programmed: Option<i64>,
    /// Since when only proxies without a stream lack that generation.
    pub(super) lapsed: Option<Instant>,
}

/// Why no proxy needs an object, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unneeded {
    /// The pods that would carry it out run without proxies.
    NotMeshed(String),
    /// They have made no call yet that it is about.
    Uncalled(String),
}

/// What to do about a status that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Never,
    Now,
    At(Instant),
}

impl Status {
    pub(super) fn of(report: &ObjectReport, tally: &Tally) -> Self {
        // A route is in force for each parent for which it is accepted.
        let parents = &report.parents;
        let accepted = parents.iter().any(|parent| parent.accepted.status);
        let accepted = accepted || (parents.is_empty() && report.accepted.status);
        Self {
            uid: report.uid.to_string(),
            generation: report.generation,
            summary: report.summary.clone(),
            target: report.target.clone(),
            conditions: [
                (crds::smi::ACCEPTED, report.accepted.clone()),
                (crds::smi::RESOLVED_REFS, report.resolved_refs.clone()),
                (crds::smi::PROGRAMMED, programmed(accepted, tally)),
            ],
            breaker: None,
            parents: parents.clone(),
            revoked: Vec::new(),
        }
    }

    /// Adds what is known about UDP, if that is part of the object.
    pub(super) fn with_udp(&mut self, udp: Option<InForce>) {
        let Some(udp) = udp else { return };
        let [.., (_, condition)] = &mut self.conditions;
        condition.message = format!("{}; {}", condition.message, udp.message);
        match udp.lacks {
            // What a proxy could not use is the worse state.
            Some(reason) if !["Nacked", "ProxyTooOld"].contains(&condition.reason) => {
                condition.status = false;
                condition.reason = reason;
            }
            None if condition.reason == "NoProxies" => {
                condition.reason = "Programmed";
            }
            _ => {}
        }
    }

    /// Adds why no proxy needs the object, where that is so. `why` is called only then.
    pub(super) fn with_unneeded(&mut self, why: impl FnOnce() -> Option<Unneeded>) {
        let [.., (_, condition)] = &mut self.conditions;
        if condition.reason != "NoProxies" {
            return;
        }
        let words = match why() {
            None => return,
            Some(Unneeded::NotMeshed(words)) => {
                condition.status = false;
                condition.reason = "NotMeshed";
                words
            }
            Some(Unneeded::Uncalled(words)) => words,
        };
        condition.message = format!("{}; {words}", condition.message);
    }

    /// Adds that pods which the object leads to have no proxy, where others carry it out. `why` is
    /// called only then.
    pub(super) fn with_bare(&mut self, why: impl FnOnce() -> Option<String>) {
        let [.., (_, condition)] = &mut self.conditions;
        if condition.reason == "Programmed"
            && let Some(words) = why()
        {
            condition.reason = "PartlyMeshed";
            condition.message = format!("{}; {words}", condition.message);
        }
    }

    /// Adds how these limits of a policy are kept, which all pods of a Service keep together,
    /// once they are.
    pub(super) fn with_shared_limits(&mut self, limits: &[Arc<str>]) {
        let [.., (_, condition)] = &mut self.conditions;
        if limits.is_empty() || condition.reason != "Programmed" {
            return;
        }
        condition.message = format!(
            "{}; rateLimits {} hold for all pods of a Service together: each keeps a part, which \
             follows what is offered to it, and the parts are no more than the limit",
            condition.message,
            few(limits)
        );
    }

    /// Whether it waits for proxies and for nothing else.
    fn is_pending(&self) -> bool {
        let [.., (_, programmed)] = &self.conditions;
        !programmed.status && programmed.reason == "Pending"
    }

    /// Equal but for the counts in messages.
    fn differs_only_in_counts(&self, other: &Self) -> bool {
        let mut counted = other.clone();
        counted.conditions[2]
            .1
            .message
            .clone_from(&self.conditions[2].1.message);
        if let (Some(mine), Some(theirs)) = (&self.breaker, &mut counted.breaker) {
            theirs.counts = mine.counts;
        }
        counted == *self && self != other
    }
}

/// One for all kinds. Of the reasons `Programmed` and `NoProxies` are True, as is `PartlyMeshed`,
/// which may take the place of the first, and all others False.
fn programmed(accepted: bool, tally: &Tally) -> Condition {
    let Tally {
        needed,
        acknowledged,
        nack,
        too_old,
        lacks,
        away,
        unheard,
        was_called: _,
    } = tally;
    let mut message = format!("{acknowledged} of {needed} proxies");
    if !away.is_empty() {
        message = format!("{message}; not connected: {}", few(away));
    }
    let (status, reason) = if let Some((pod, why)) = nack {
        message = format!("{message}; {pod} could not use it: {why}");
        (false, "Nacked")
    } else if !too_old.is_empty() {
        message = format!("{message}; {}", too_old_for(too_old, lacks));
        (false, "ProxyTooOld")
    } else if *unheard > 0 && acknowledged == needed {
        message = format!(
            "{message}; {unheard} have not connected since this controller started, so not \
             every caller of it is known"
        );
        (false, "Pending")
    } else if acknowledged != needed {
        (false, "Pending")
    } else if !accepted {
        message = format!("{message}; it is not accepted");
        (false, "Pending")
    } else if *needed == 0 {
        (true, "NoProxies")
    } else {
        (true, "Programmed")
    };
    Condition {
        status,
        reason,
        message,
    }
}

/// What proxies do not carry out, and what helps: a newer proxy, where this version has one.
fn too_old_for(pods: &[String], lacks: &BTreeSet<String>) -> String {
    let pods = few(pods);
    let is_in_force = |field: &&str| Part::IN_FORCE.iter().any(|part| part.field() == *field);
    let fields = lacks.iter().map(String::as_str);
    let (old, coming): (Vec<&str>, Vec<&str>) = fields.partition(is_in_force);
    let mut counted = Vec::new();
    if lacks.is_empty() {
        counted.push(format!(
            "the proxies of {pods} are too old for it and do nothing by it: restart these pods"
        ));
    }
    if !old.is_empty() {
        counted.push(format!(
            "the proxies of {pods} are too old for {}: restart these pods",
            old.join(", ")
        ));
    }
    if !coming.is_empty() {
        counted.push(format!(
            "no proxy of this version does anything by {} yet: what else the policy says is in \
             force without it",
            coming.join(", ")
        ));
    }
    counted.join("; ")
}

impl Tally {
    /// Whether proxies are lacking, and all of them are without a stream.
    pub(super) fn only_lacks_absent(&self) -> bool {
        let absent = !self.away.is_empty() || self.unheard > 0;
        absent
            && self.nack.is_none()
            && self.too_old.is_empty()
            && self.acknowledged + self.away.len() == self.needed
    }
}

/// `absent`: proxies without a stream are all that may be lacking.
pub(super) fn when(
    before: Option<&mut Written>,
    status: &Status,
    absent: bool,
    now: Instant,
) -> When {
    let Some(before) = before.filter(|before| before.uid == status.uid) else {
        return When::Now;
    };
    if before.status.as_ref() == Some(status) {
        before.lapsed = None;
        return When::Never;
    }
    let was = before.programmed == Some(status.generation);
    if was && absent && status.is_pending() && before.says_the_rest_of(status) {
        let until = *before.lapsed.get_or_insert(now) + RECONNECT;
        if now < until {
            return When::At(until);
        }
    } else {
        before.lapsed = None;
    }
    match &before.status {
        Some(current) if status.differs_only_in_counts(current) => {
            let at = before.at + COUNT_EVERY;
            if at <= now { When::Now } else { When::At(at) }
        }
        _ => When::Now,
    }
}

impl Written {
    /// Whether nothing but `Programmed` has changed, as far as that is known: of what an
    /// earlier holder of the Lease wrote, the generation is.
    fn says_the_rest_of(&self, status: &Status) -> bool {
        self.status.as_ref().is_none_or(|current| {
            let [accepted, resolved, _] = &current.conditions;
            let [new_accepted, new_resolved, _] = &status.conditions;
            (current.generation, &current.summary, &current.target)
                == (status.generation, &status.summary, &status.target)
                && current.parents == status.parents
                && current.revoked == status.revoked
                && (accepted, resolved) == (new_accepted, new_resolved)
        })
    }
}

pub(crate) fn word(condition: &Condition) -> &'static str {
    if condition.status { "True" } else { "False" }
}

pub(super) fn read(kind: Kind, object: &DynamicObject) -> (ObjectRef, Written) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = object.data["status"]["conditions"].as_array();
    let since = conditions
        .iter()
        .copied()
        .flatten()
        .map(|current| {
            let entry = (
                text(&current["status"]),
                text(&current["lastTransitionTime"]),
            );
            (text(&current["type"]), entry)
        })
        .collect();
    let meta = &object.metadata;
    let name = ObjectRef {
        kind,
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: meta.name.as_deref().unwrap_or_default().into(),
    };
    let uid = meta.uid.clone().unwrap_or_default();
    let programmed = conditions
        .into_iter()
        .flatten()
        .find(|current| current["type"] == crds::smi::PROGRAMMED && current["status"] == "True")
        .and_then(|current| current["observedGeneration"].as_i64());
    (
        name,
        Written {
            status: None,
            since,
            uid,
            at: Instant::now(),
            programmed,
            lapsed: None,
        },
    )
}

/// The kinds that have a status.
pub(super) fn kinds() -> impl Iterator<Item = (Kind, ApiResource)> {
    let rows = kinds::ROWS.iter().filter(|row| row.has_status);
    rows.filter_map(|row| Some((row.object?, (row.resource)())))
}

/// Whether the statuses of a kind are written here. `automation` writes those of its own kinds.
pub(super) fn has_status(kind: Kind) -> bool {
    kinds::row(kind).is_some_and(|row| row.has_status)
}

/// How the API names a kind; none for kinds whose status is not ours.
pub(super) fn resource(kind: Kind) -> Option<ApiResource> {
    let row = kinds::row(kind).filter(|row| row.has_status)?;
    Some((row.resource)())
}

/// `group/version` of a kind, as Events name it.
pub(crate) fn api_version(kind: Kind) -> String {
    let resource = kinds::row(kind).map(|row| (row.resource)());
    resource.map_or_else(|| "v1".to_owned(), |resource| resource.api_version)
}

/// How a breaker fares, as it stands in a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WrittenBreaker {
    pub(super) state: &'static str,
    /// RFC 3339.
    pub(super) since: String,
    pub(super) counts: Counts,
}

/// What ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    failure_percent: u8,
    requests: u32,
    callers: usize,
}

impl From<BreakerReport> for WrittenBreaker {
    fn from(report: BreakerReport) -> Self {
        Self {
            state: report.state.as_str(),
            since: rfc3339(report.since),
            counts: Counts {
                failure_percent: report.failure_percent,
                requests: report.requests,
                callers: report.callers,
            },
        }
    }
}

impl WrittenBreaker {
    /// The field `status.breaker`.
    pub(super) fn json(&self) -> Value {
        json!({
            "state": self.state,
            "since": self.since,
            "failurePercent": self.counts.failure_percent,
            "requests": self.counts.requests,
            "callers": self.counts.callers,
        })
    }
}

/// As Kubernetes writes times.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxies_is_true_only_for_accepted_objects() {
        let tally = |acknowledged, needed| Tally {
            acknowledged,
            needed,
            ..Tally::default()
        };
        let counted = |accepted, tally| {
            let Condition {
                status,
                reason,
                message,
            } = programmed(accepted, &tally);
            (status, reason, message)
        };
        for (accepted, tally, status, reason, message) in [
            (true, tally(0, 0), true, "NoProxies", "0 of 0 proxies"),
            (true, tally(3, 3), true, "Programmed", "3 of 3 proxies"),
            (true, tally(2, 3), false, "Pending", "2 of 3 proxies"),
            (
                false,
                tally(0, 0),
                false,
                "Pending",
                "0 of 0 proxies; it is not accepted",
            ),
            (
                false,
                tally(3, 3),
                false,
                "Pending",
                "3 of 3 proxies; it is not accepted",
            ),
            (false, tally(2, 3), false, "Pending", "2 of 3 proxies"),
        ] {
            let expected = (status, reason, message.to_owned());
            assert_eq!(counted(accepted, tally), expected);
        }
    }
}
