//! What is wrong with objects, in the words that their authors will read.
//!
//! Compiling never fails: it uses what it can, and says about the rest which
//! field is wrong and why. From the same findings come the conditions `Accepted`
//! and `ResolvedRefs` and the Events, so they cannot disagree.

use std::{collections::BTreeMap, sync::Arc};

use crds::smi::judge::{self, Code, Mistake};
use policy::name::ObjectRef;

/// Most characters of one message; a condition's limit is 32768, and what names
/// more than this says no more.
const MESSAGE_LIMIT: usize = 1024;
/// Most problems that one condition's message lists.
const LISTED: usize = 8;

/// The condition that a problem belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object can be understood as it is written.
    Accepted,
    /// Everything it names exists and fits.
    ResolvedRefs,
}

impl ConditionType {
    /// The name that Kubernetes shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
        }
    }
}

/// Whether a problem makes its condition false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The condition is False: something that was asked for does not happen.
    Failure,
    /// The condition stays True: it happens, but maybe not as meant.
    Warning,
}

/// One thing that is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object.
    pub object: ObjectRef,
    /// Its generation; 0 where Kubernetes keeps none.
    pub generation: i64,
    /// Condition it belongs to.
    pub condition: ConditionType,
    /// Whether it makes the condition false.
    pub severity: Severity,
    /// One word, such as `RefNotFound`.
    pub reason: Reason,
    /// Path of the field, such as `spec.backends[1].service`; empty for the whole object.
    pub field: String,
    /// One sentence.
    pub message: String,
}

/// Reasons, worst first: the first one becomes its condition's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The object cannot be read at all.
    Unreadable,
    /// A field's value cannot be used.
    Invalid,
    /// A TrafficTarget that protects another namespace than its own.
    ForeignDestination,
    /// An IdentityBinding with an identity of another namespace.
    ForeignIdentity,
    /// A kind that is not served.
    UnsupportedKind,
    /// A Service of a type that cannot do this.
    UnsupportedService,
    /// Another, older object already decides.
    Conflicted,
    /// A split that sends traffic nowhere.
    NoUsableBackend,
    /// A named object or match does not exist.
    RefNotFound,
    /// A backend lacks a port of the root.
    PortNotFound,
    /// Two Services declare different protocols for one port of a pod.
    ProtocolConflict,
    /// Rules of two kinds for a port that nobody has said what it carries.
    ProtocolNotDeclared,
    /// A Service port was taken for the container port behind it.
    ServicePortMapped,
    /// The pod's capture leaves this port alone, so no rule applies to it.
    PortSkipped,
    /// The rule exists but nothing enforces it.
    NotEnforced,
    /// A field that has no meaning where it stands.
    FieldIgnored,
    /// A method that no client is likely to send.
    UnusualMethod,
    /// A source without a namespace was taken for one of the object's own.
    NamespaceDefaulted,
}

impl Reason {
    /// The word that Kubernetes shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "Unreadable",
            Self::Invalid => "Invalid",
            Self::ForeignDestination => "ForeignDestination",
            Self::ForeignIdentity => "ForeignIdentity",
            Self::UnsupportedKind => "UnsupportedKind",
            Self::UnsupportedService => "UnsupportedService",
            Self::Conflicted => "Conflicted",
            Self::NoUsableBackend => "NoUsableBackend",
            Self::RefNotFound => "RefNotFound",
            Self::PortNotFound => "PortNotFound",
            Self::ProtocolConflict => "ProtocolConflict",
            Self::ProtocolNotDeclared => "ProtocolNotDeclared",
            Self::ServicePortMapped => "ServicePortMapped",
            Self::PortSkipped => "PortSkipped",
            Self::NotEnforced => "NotEnforced",
            Self::FieldIgnored => "FieldIgnored",
            Self::UnusualMethod => "UnusualMethod",
            Self::NamespaceDefaulted => "NamespaceDefaulted",
        }
    }
}

impl From<Code> for Reason {
    fn from(code: Code) -> Self {
        match code {
            Code::Unreadable => Self::Unreadable,
            Code::Invalid => Self::Invalid,
            Code::ForeignDestination => Self::ForeignDestination,
            Code::UnsupportedKind => Self::UnsupportedKind,
            Code::FieldIgnored => Self::FieldIgnored,
            Code::UnusualMethod => Self::UnusualMethod,
        }
    }
}

/// One condition, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// True or False.
    pub status: bool,
    /// One word; the condition's own name when nothing is wrong.
    pub reason: &'static str,
    /// What is wrong, field by field; may be empty.
    pub message: String,
}

/// What is said about one SMI object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The generation that this is about.
    pub generation: i64,
    /// Unique id of the object.
    pub uid: Arc<str>,
    /// Can it be understood.
    pub accepted: Condition,
    /// Does everything that it names exist.
    pub resolved_refs: Condition,
    /// The object in a few words, for `kubectl get`.
    pub summary: String,
}

/// Everything that compiling found out about objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// All problems, sorted and without repetition. Also about Services, Pods and
    /// Namespaces, which have no conditions: those become Events only.
    pub list: Vec<Problem>,
    /// One verdict per SMI object, problem or not.
    pub verdicts: BTreeMap<ObjectRef, Verdict>,
}

impl Problems {
    /// Objects about which something else is said than `before`, or that only one of the
    /// two knows.
    pub fn news<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a ObjectRef> {
        let changed = self.verdicts.iter().filter(|(object, verdict)| {
            let held = before.verdicts.get(*object);
            held != Some(*verdict)
        });
        let gone = before.verdicts.keys();
        let gone = gone.filter(|object| !self.verdicts.contains_key(*object));
        changed.map(|(object, _)| object).chain(gone)
    }
}

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
}

impl Findings {
    /// Notes an SMI object, so that it gets a verdict.
    pub(crate) fn seen(&mut self, object: ObjectRef, meta: &crate::world::Meta, summary: String) {
        let seen = Seen {
            generation: meta.generation,
            uid: meta.uid.clone(),
            summary,
        };
        self.objects.insert(object, seen);
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
            let verdict = Verdict {
                generation: seen.generation,
                uid: seen.uid,
                accepted: condition(ConditionType::Accepted, problems),
                resolved_refs: condition(ConditionType::ResolvedRefs, problems),
                summary: seen.summary,
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
