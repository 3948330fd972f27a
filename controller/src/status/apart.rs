//! Computes the three conditions of releases and experiments, whose whole status another part
//! writes.
//!
//! One writer for each status: `automation` writes those of releases and experiments whole, and
//! takes these conditions from here. They change as those of other objects do: counts alone at
//! most every [`super::conditions::COUNT_EVERY`], and proxies that are away for a moment do not
//! count.

use std::collections::BTreeMap;

use model::compiled::Compiled;
use model::problem::Condition;
use policy::name::ObjectRef;
use tokio::time::Instant;

use super::conditions::{Status, When, Written, when};
use crate::observe::acknowledged::Observed;

/// What the conditions of one object should be. Kept as long as the object is.
#[derive(Debug, Default)]
pub(crate) struct Conditions(Option<Written>);

impl Conditions {
    /// `Accepted`, `ResolvedRefs` and `Programmed` as they should stand now, and the generation
    /// that they are about; `None` while the model does not know the object.
    pub(crate) fn update(
        &mut self,
        object: &ObjectRef,
        compiled: &Compiled,
        observed: &Observed,
    ) -> Option<(i64, &[(&'static str, Condition); 3])> {
        let report = compiled.problems.reports.get(object)?;
        let tally = observed.tally(&compiled.model, object, report.generation);
        let absent = tally.only_lacks_absent();
        let status = Status::of(report, &tally);
        let now = Instant::now();
        if when(self.0.as_mut(), &status, absent, now) == When::Now {
            self.0 = Some(Written::now(status, BTreeMap::new()));
        }
        let status = self.0.as_ref()?.status.as_ref()?;
        Some((status.generation, &status.conditions))
    }
}
