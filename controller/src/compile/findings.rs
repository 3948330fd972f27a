//! Collects what compiling finds out about objects, and sums it up.

use std::{collections::BTreeMap, sync::Arc};

use crds::smi::judge::{self, Mistake};
use policy::name::ObjectRef;

use crate::{
    problem::{Condition, ConditionType, ObjectReport, Problem, Problems, Reason, Severity},
    world::Meta,
};

/// Most characters of one message; a condition's limit is 32768, and what names
/// more than this says no more.
const MESSAGE_LIMIT: usize = 1024;
/// Most problems that one condition's message lists.
const LISTED: usize = 8;

/// Collects problems while compiling.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Problem>,
    objects: BTreeMap<ObjectRef, Seen>,
}

#[derive(Debug)]
struct Seen {
    generation: i64,
    uid: Arc<str>,
    summary: String,
    target: Option<String>,
}

impl Findings {
    /// Notes an object, so that it gets a verdict.
    pub(crate) fn seen(&mut self, object: ObjectRef, meta: &Meta, summary: String) {
        let seen = Seen {
            generation: meta.generation,
            uid: meta.uid.clone(),
            summary,
            target: None,
        };
        self.objects.insert(object, seen);
    }

    /// Notes what an object is about, of a kind that shows that apart.
    pub(crate) fn targeted(&mut self, object: &ObjectRef, target: String) {
        if let Some(seen) = self.objects.get_mut(object) {
            seen.target = Some(target);
        }
    }

    /// Starts a report about one object.
    pub(crate) fn about(&mut self, object: &ObjectRef, generation: i64) -> About<'_> {
        About {
            findings: self,
            object: object.clone(),
            generation,
        }
    }

    /// Sorts, removes repetitions and sums up.
    pub(crate) fn finish(mut self) -> Problems {
        self.problems.sort();
        self.problems.dedup();
        let mut by_object: BTreeMap<&ObjectRef, Vec<&Problem>> = BTreeMap::new();
        for problem in &self.problems {
            by_object.entry(&problem.object).or_default().push(problem);
        }
        let verdicts = self.objects.into_iter().map(|(object, seen)| {
            let problems = by_object.get(&object).map_or(&[][..], Vec::as_slice);
            let verdict = ObjectReport {
                generation: seen.generation,
                uid: seen.uid,
                accepted: condition(ConditionType::Accepted, problems),
                resolved_refs: condition(ConditionType::ResolvedRefs, problems),
                summary: seen.summary,
                target: seen.target,
            };
            (object, verdict)
        });
        let verdicts = verdicts.collect();
        Problems {
            list: self.problems,
            verdicts,
        }
    }
}

/// A report about one object.
pub(crate) struct About<'a> {
    findings: &'a mut Findings,
    object: ObjectRef,
    generation: i64,
}

impl About<'_> {
    /// What is wrong with the object by itself, in the words of the webhook.
    pub(crate) fn judged(&mut self, mistakes: &[Mistake]) {
        for mistake in mistakes {
            let severity = match mistake.severity {
                judge::Severity::Refuse => Severity::Failure,
                judge::Severity::Warn => Severity::Warning,
            };
            let text = mistake.text.clone();
            let reason = mistake.code.into();
            self.add(
                ConditionType::Accepted,
                severity,
                reason,
                &mistake.field,
                text,
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
            message,
        );
    }

    /// `ResolvedRefs` is false.
    pub(crate) fn unresolved(&mut self, reason: Reason, field: &str, message: String) {
        self.add(
            ConditionType::ResolvedRefs,
            Severity::Failure,
            reason,
            field,
            message,
        );
    }

    /// `Accepted` stays true, with a word of caution.
    pub(crate) fn warn(&mut self, reason: Reason, field: &str, message: String) {
        self.add(
            ConditionType::Accepted,
            Severity::Warning,
            reason,
            field,
            message,
        );
    }

    /// `ResolvedRefs` stays true, with a word of caution.
    pub(crate) fn caution(&mut self, reason: Reason, field: &str, message: String) {
        self.add(
            ConditionType::ResolvedRefs,
            Severity::Warning,
            reason,
            field,
            message,
        );
    }

    fn add(
        &mut self,
        condition: ConditionType,
        severity: Severity,
        reason: Reason,
        field: &str,
        message: String,
    ) {
        self.findings.problems.push(Problem {
            object: self.object.clone(),
            generation: self.generation,
            condition,
            severity,
            reason,
            field: field.to_owned(),
            message: shortened(message),
        });
    }
}

fn condition(of: ConditionType, problems: &[&Problem]) -> Condition {
    let ours: Vec<&Problem> = problems
        .iter()
        .copied()
        .filter(|p| p.condition == of)
        .collect();
    // Problems come sorted: failures before warnings, then the worst reason first.
    let status = ours.iter().all(|p| p.severity == Severity::Warning);
    let reason = ours
        .first()
        .map_or(of.as_str(), |problem| problem.reason.as_str());
    let mut message: Vec<String> = ours
        .iter()
        .take(LISTED)
        .map(|problem| match problem.field.as_str() {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        })
        .collect();
    if ours.len() > LISTED {
        message.push(format!("and {} more", ours.len() - LISTED));
    }
    Condition {
        status,
        reason,
        message: message.join("; "),
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
