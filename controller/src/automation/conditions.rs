//! Builds the conditions of one release or experiment: those of `status`, with what its run adds.
//!
//! `Accepted`, `ResolvedRefs` and `Programmed` come from compiling. What is found in a look is
//! added, with `Ready` and `Stalled`, by which `kubectl wait`, Flux and Argo CD read any object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self, Time};
use k8s_openapi::jiff::Timestamp;
use model::compiled::Compiled;
use model::problem::Condition;
use model::world::ObjectKey;
use policy::name::{Kind, ObjectRef};

use crate::observe::acknowledged::Observed;
use crate::status::apart;
use crate::status::conditions::word;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    generation: i64,
    all: Vec<(&'static str, Condition)>,
}

impl Conditions {
    /// Those of compiling; `None` while the model does not know the object. `kept`: what the looks
    /// before left.
    pub(super) fn of(
        kept: &mut apart::Conditions,
        kind: Kind,
        key: &ObjectKey,
        compiled: &Compiled,
        observed: &Observed,
    ) -> Option<Self> {
        let name = ObjectRef {
            kind,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        };
        let (generation, three) = kept.update(&name, compiled, observed)?;
        Some(Self {
            generation,
            all: three.to_vec(),
        })
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        let found = self.all.iter().find(|(of, _)| *of == name);
        found.is_some_and(|(_, condition)| condition.status)
    }

    /// The first that keeps the object from having an effect.
    pub(super) fn failed(&self) -> Option<&Condition> {
        let decisive = [crds::smi::ACCEPTED, crds::smi::RESOLVED_REFS];
        let mut all = self.all.iter();
        let failed = all.find(|(name, condition)| decisive.contains(name) && !condition.status)?;
        Some(&failed.1)
    }

    /// What is wrong, or a warning, in words.
    pub(super) fn cautions(&self) -> String {
        let spoken = [crds::smi::ACCEPTED, crds::smi::RESOLVED_REFS];
        let all = self.all.iter();
        let all = all.filter(|(name, one)| spoken.contains(name) && !one.message.is_empty());
        let all: Vec<&str> = all.map(|(_, one)| one.message.as_str()).collect();
        all.join("; ")
    }

    pub(super) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Condition)) {
        if let Some((_, condition)) = self.all.iter_mut().find(|(of, _)| *of == name) {
            edit(condition);
        }
    }

    /// Makes `Accepted` false, unless it is.
    pub(super) fn refuse(&mut self, reason: &'static str, message: String) {
        self.edit(crds::smi::ACCEPTED, |accepted| {
            if accepted.status {
                *accepted = Condition {
                    status: false,
                    reason,
                    message,
                };
            }
        });
    }

    /// Adds `Ready` and `Stalled`.
    pub(super) fn add_progress(
        &mut self,
        (ready, stalled): (bool, bool),
        reason: &'static str,
        message: &str,
    ) {
        for (name, status) in [("Ready", ready), ("Stalled", stalled)] {
            let condition = Condition {
                status,
                reason,
                message: message.to_owned(),
            };
            self.all.push((name, condition));
        }
    }

    /// As they are stored, with the times of those before.
    pub(super) fn stored(&self, before: &[v1::Condition], now: Timestamp) -> Vec<v1::Condition> {
        dated(&self.all, self.generation, before, now)
    }
}

/// Conditions with the times of their last changes, as far as `before` has them.
fn dated(
    all: &[(&'static str, Condition)],
    generation: i64,
    before: &[v1::Condition],
    now: Timestamp,
) -> Vec<v1::Condition> {
    // As it is stored: a time with parts of a second would differ from what is read back.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let stored = |name: &str, condition: &Condition| v1::Condition {
        type_: name.to_owned(),
        status: word(condition).to_owned(),
        reason: condition.reason.to_owned(),
        message: condition.message.clone(),
        observed_generation: Some(generation),
        last_transition_time: Time(now),
    };
    let dated = all.iter().map(|(name, condition)| {
        let mut new = stored(name, condition);
        let same = |old: &&v1::Condition| old.type_ == new.type_ && old.status == new.status;
        if let Some(old) = before.iter().find(same) {
            new.last_transition_time = old.last_transition_time.clone();
        }
        new
    });
    dated.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_keeps_time_while_its_status_stays() {
        let condition = |status| Condition {
            status,
            reason: "Idle",
            message: String::new(),
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = dated(
            &[("Ready", condition(true))],
            1,
            &[],
            at("2026-11-29T14:00:00.5Z"),
        );
        let second = at("2026-11-29T14:00:00Z");
        assert_eq!(first[0].last_transition_time, Time(second));
        let later = at("2026-11-29T15:00:00Z");
        let same = dated(&[("Ready", condition(true))], 2, &first, later);
        assert_eq!(same[0].last_transition_time, Time(second));
        let other = dated(&[("Ready", condition(false))], 2, &first, later);
        assert_eq!(other[0].last_transition_time, Time(later));
    }
}
