//! Collects the problems that compiling finds in objects, and truncates them to a bound.
//!
//! One object may name thousands of things that do not exist, and a namespace may hold a thousand
//! such objects. So for each condition the worst problems are kept, as many as its message lists,
//! and the number of the others.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crds::smi::validation::{self, Mistake};
use policy::name::ObjectRef;

use crate::{
    problem::{
        Condition, ConditionType, ListenerReport, ObjectReport, ParentReport, Problem, Problems,
        Reason, Severity,
    },
    world::Meta,
};

/// Max characters of one message; a condition's limit is 32768, and a longer list of names adds
/// nothing.
const MESSAGE_LIMIT: usize = 1024;
/// Most problems that one condition's message lists.
const LISTED: usize = 8;
/// Problems that are kept of what is wrong with an object by itself: those that its webhook
/// would list, and more. Of what it refers to none is kept that is not listed.
const KEPT: usize = 32;
/// Problems that are not kept and are counted once each, of each condition.
const MAX_DISTINCT: usize = 1024;

/// One thing that is wrong with an object, before it is known where it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) condition: ConditionType,
    pub(crate) severity: Severity,
    pub(crate) reason: Reason,
    pub(crate) field: String,
    pub(crate) message: String,
}

/// Collects problems while compiling.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    findings: BTreeMap<ObjectRef, ObjectFindings>,
    objects: BTreeMap<ObjectRef, FoundObject>,
}

/// What is wrong with one object.
#[derive(Debug, Default)]
struct ObjectFindings {
    accepted: Worst,
    resolved_refs: Worst,
}

/// What is wrong by one condition.
#[derive(Debug, Default)]
struct Worst {
    problems: BTreeSet<Problem>,
    /// How many there are beside those.
    more: usize,
    /// Hashes of those that were dropped, [`MAX_DISTINCT`] at most: an object may hold the same
    /// validation error many times.
    dropped: HashSet<u64>,
}

#[derive(Debug)]
struct FoundObject {
    generation: i64,
    uid: Arc<str>,
    summary: String,
    target: Option<String>,
    parents: Vec<ParentReport>,
    listeners: Vec<ListenerReport>,
}

impl Finding {
    /// `Accepted` is false.
    pub(crate) fn refuse(reason: Reason, field: &str, message: String) -> Self {
        Self {
            condition: ConditionType::Accepted,
            severity: Severity::Failure,
            reason,
            field: field.to_owned(),
            message,
        }
    }

    /// `Accepted` stays true, with a warning.
    pub(crate) fn warn(reason: Reason, field: &str, message: String) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::refuse(reason, field, message)
        }
    }

    /// `ResolvedRefs` is false.
    pub(crate) fn unresolved(reason: Reason, field: &str, message: String) -> Self {
        Self {
            condition: ConditionType::ResolvedRefs,
            ..Self::refuse(reason, field, message)
        }
    }
}

impl Findings {
    /// Notes an object, so that it gets a report.
    pub(crate) fn seen(&mut self, object: ObjectRef, meta: &Meta, summary: String) {
        let seen = FoundObject {
            generation: meta.generation,
            uid: meta.uid.clone(),
            summary,
            target: None,
            parents: Vec::new(),
            listeners: Vec::new(),
        };
        self.objects.entry(object).or_insert(seen);
    }

    /// Notes what an object is about, of a kind that shows that apart.
    pub(crate) fn targeted(&mut self, object: &ObjectRef, target: String) {
        if let Some(seen) = self.objects.get_mut(object) {
            seen.target = Some(target);
        }
    }

    /// Notes what is said about a route as some of its parents see it.
    pub(crate) fn of_parents(&mut self, object: &ObjectRef, parents: Vec<ParentReport>) {
        if let Some(seen) = self.objects.get_mut(object) {
            seen.parents.extend(parents);
        }
    }

    /// Notes what is said about the listeners of a Gateway.
    pub(crate) fn of_listeners(&mut self, object: &ObjectRef, listeners: Vec<ListenerReport>) {
        if let Some(seen) = self.objects.get_mut(object) {
            seen.listeners = listeners;
        }
    }

    /// Starts a report about one object.
    pub(crate) fn about(&mut self, object: &ObjectRef, generation: i64) -> About<'_> {
        About {
            findings: self.findings.entry(object.clone()).or_default(),
            object: object.clone(),
            generation,
        }
    }

    /// The conditions `Accepted` and `ResolvedRefs` of one object, by what was reported so far.
    pub(crate) fn conditions(&self, object: &ObjectRef) -> [Condition; 2] {
        let nothing = ObjectFindings::default();
        let findings = self.findings.get(object).unwrap_or(&nothing);
        [
            findings.accepted.condition(ConditionType::Accepted),
            findings
                .resolved_refs
                .condition(ConditionType::ResolvedRefs),
        ]
    }

    /// Sums up.
    pub(crate) fn finish(self) -> Problems {
        let Self { findings, objects } = self;
        let nothing = ObjectFindings::default();
        let reports = objects.into_iter().map(|(object, seen)| {
            let findings = findings.get(&object).unwrap_or(&nothing);
            let report = ObjectReport {
                generation: seen.generation,
                uid: seen.uid,
                accepted: findings.accepted.condition(ConditionType::Accepted),
                resolved_refs: findings
                    .resolved_refs
                    .condition(ConditionType::ResolvedRefs),
                summary: seen.summary,
                target: seen.target,
                parents: seen.parents,
                listeners: seen.listeners,
            };
            (object, report)
        });
        let reports = reports.collect();
        let findings = findings.into_values();
        let worst = findings.flat_map(|findings| [findings.accepted, findings.resolved_refs]);
        Problems {
            list: worst.flat_map(|worst| worst.problems).collect(),
            reports,
        }
    }
}

impl Worst {
    /// Whether such a problem may be among those that are kept.
    fn may_take(&self, most: usize, severity: Severity, reason: Reason, field: &str) -> bool {
        let full = self.problems.len() >= most;
        let last = self.problems.last().filter(|_| full);
        last.is_none_or(|last| {
            (severity, reason, field) <= (last.severity, last.reason, last.field.as_str())
        })
    }

    fn add(&mut self, most: usize, problem: Problem) {
        self.problems.insert(problem);
        if self.problems.len() > most
            && let Some(last) = self.problems.pop_last()
        {
            self.drop_one(last.severity, last.reason, &last.field, &last.message);
        }
    }

    /// Counts one that is not kept, once.
    fn drop_one(&mut self, severity: Severity, reason: Reason, field: &str, message: &str) {
        let mut hasher = DefaultHasher::new();
        (severity, reason.as_str(), field, message).hash(&mut hasher);
        let full = self.dropped.len() >= MAX_DISTINCT;
        let known = self.dropped.contains(&hasher.finish());
        if !known && !full {
            self.dropped.insert(hasher.finish());
        }
        self.more += usize::from(!known);
    }

    fn condition(&self, of: ConditionType) -> Condition {
        // Problems are sorted: failures before warnings, then the worst reason first.
        let mut problems = self.problems.iter();
        let status = problems.all(|problem| problem.severity == Severity::Warning);
        let first = self.problems.first();
        let mut message: Vec<String> = self
            .problems
            .iter()
            .take(LISTED)
            .map(|problem| match problem.field.as_str() {
                "" => problem.message.clone(),
                field => format!("{field}: {}", problem.message),
            })
            .collect();
        let more = self.more + self.problems.len().saturating_sub(LISTED);
        if more > 0 {
            message.push(format!("and {more} more"));
        }
        Condition {
            status,
            reason: first.map_or(of.as_str(), |problem| problem.reason.as_str()),
            message: message.join("; "),
        }
    }
}

/// A report about one object.
pub(crate) struct About<'a> {
    findings: &'a mut ObjectFindings,
    object: ObjectRef,
    generation: i64,
}

impl About<'_> {
    /// What is wrong with the object by itself, with the messages of the webhook.
    pub(crate) fn add_mistakes(&mut self, mistakes: &[Mistake]) {
        for mistake in mistakes {
            let severity = match mistake.severity {
                validation::Severity::Refuse => Severity::Failure,
                validation::Severity::Warn => Severity::Warning,
            };
            let reason = mistake.code.into();
            self.add(
                ConditionType::Accepted,
                severity,
                reason,
                &mistake.field,
                || mistake.text.clone(),
            );
        }
    }

    /// `Accepted` is false.
    pub(crate) fn refuse(&mut self, reason: Reason, field: &str, message: String) {
        self.add(
            ConditionType::Accepted,
            Severity::Failure,
            reason,
            field,
            || message,
        );
    }

    /// `ResolvedRefs` is false.
    pub(crate) fn unresolved(&mut self, reason: Reason, field: &str, message: String) {
        self.unresolved_with(reason, field, || message);
    }

    /// The same, with a message that is made only where it may be shown.
    pub(crate) fn unresolved_with(
        &mut self,
        reason: Reason,
        field: &str,
        message: impl FnOnce() -> String,
    ) {
        self.add(
            ConditionType::ResolvedRefs,
            Severity::Failure,
            reason,
            field,
            message,
        );
    }

    /// `Accepted` stays true, with a warning.
    pub(crate) fn warn(&mut self, reason: Reason, field: &str, message: String) {
        self.add(
            ConditionType::Accepted,
            Severity::Warning,
            reason,
            field,
            || message,
        );
    }

    /// `ResolvedRefs` stays true, with a warning.
    pub(crate) fn caution(&mut self, reason: Reason, field: &str, message: String) {
        self.add(
            ConditionType::ResolvedRefs,
            Severity::Warning,
            reason,
            field,
            || message,
        );
    }

    /// Reports what was found before.
    pub(crate) fn found(&mut self, finding: &Finding) {
        let Finding {
            condition,
            severity,
            reason,
            field,
            message,
        } = finding;
        self.add(*condition, *severity, *reason, field, || message.clone());
    }

    fn add(
        &mut self,
        condition: ConditionType,
        severity: Severity,
        reason: Reason,
        field: &str,
        message: impl FnOnce() -> String,
    ) {
        let (worst, most) = match condition {
            ConditionType::Accepted => (&mut self.findings.accepted, KEPT),
            ConditionType::ResolvedRefs => (&mut self.findings.resolved_refs, LISTED),
        };
        if !worst.may_take(most, severity, reason, field) {
            match condition {
                ConditionType::Accepted => {
                    worst.drop_one(severity, reason, field, &shortened(message()));
                }
                // Its message is not even made.
                ConditionType::ResolvedRefs => worst.more += 1,
            }
            return;
        }
        let problem = Problem {
            object: self.object.clone(),
            generation: self.generation,
            condition,
            severity,
            reason,
            field: field.to_owned(),
            message: shortened(message()),
        };
        worst.add(most, problem);
    }
}

fn shortened(message: String) -> String {
    if message.len() <= MESSAGE_LIMIT {
        return message;
    }
    let mut end = MESSAGE_LIMIT;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests;
