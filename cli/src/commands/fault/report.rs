//! Prints the status of a FaultExperiment, and the report of one of its runs.

use std::time::SystemTime;

use crds::weft::{
    ExperimentCalls, ExperimentCheckStatus, ExperimentHistory, ExperimentPhase, ExperimentVerdict,
    FaultExperiment, FaultExperimentStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::names::ResourceKind;
use crate::commands::automation;
use crate::console::Console;
use crate::escape;
use crate::failure::{Conclusion, Failure};
use crate::output::table::Table;
use crate::output::{self, Format};

/// An experiment as it was read.
#[derive(Debug)]
pub(super) struct Look {
    object: Value,
    experiment: FaultExperiment,
}

impl Look {
    /// # Errors
    /// When there is no such experiment, or the API server does not respond or refuses.
    pub(super) async fn read(cluster: &Cluster, name: &str) -> Result<Self, Failure> {
        let object = automation::read(cluster, (ResourceKind::FaultExperiment, name)).await?;
        Self::of(object, name)
    }

    fn of(object: Value, name: &str) -> Result<Self, Failure> {
        let experiment = serde_json::from_value(object.clone()).map_err(|error| {
            Failure::unknown(format!("FaultExperiment {name} cannot be read: {error}"))
        })?;
        Ok(Self { object, experiment })
    }

    pub(super) fn status(&self) -> Option<&FaultExperimentStatus> {
        self.experiment.status.as_ref()
    }

    /// As the status has it.
    pub(super) fn phase(&self) -> &str {
        let phase = self.status().and_then(|status| status.phase.as_deref());
        phase.unwrap_or("not seen by a controller yet")
    }

    fn name(&self) -> &str {
        self.experiment.metadata.name.as_deref().unwrap_or_default()
    }

    /// Prints the experiment, and the run that is under way.
    pub(super) fn print_status(
        &self,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let conclusion = match self.refused().next() {
            None => Conclusion::Yes,
            Some(_) => Conclusion::No,
        };
        if output::data(console, format, &self.object)? {
            return Ok(conclusion);
        }
        console.line(&escape::plain(&self.head(now)))?;
        let Some(status) = self.status() else {
            return Ok(conclusion);
        };
        if let Some(summary) = &status.summary {
            console.line(&escape::plain(summary))?;
        }
        for one in self.refused() {
            let line = format!("{}: {}: {}", one.type_, one.reason, one.message);
            console.line(&escape::plain(&line))?;
        }
        if !status.checks.is_empty() {
            checks(&status.checks).write(console.out, console.color)?;
        }
        if let Some(calls) = status.calls {
            console.line(&of_calls(calls))?;
        }
        Ok(conclusion)
    }

    /// Prints what a run found.
    pub(super) fn print_report(
        &self,
        run: Option<i64>,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let found = self.found(run)?;
        let conclusion = match found.verdict == ExperimentVerdict::Tolerated.as_str() {
            true => Conclusion::Yes,
            false => Conclusion::No,
        };
        if output::data(console, format, found)? {
            return Ok(conclusion);
        }
        if format == Format::Markdown {
            for line in markdown(self.name(), found) {
                console.line(&escape::plain(&line))?;
            }
            return Ok(conclusion);
        }
        let head = format!("{} run {}  {}", self.name(), found.number, sentence(found));
        console.line(&escape::plain(&head))?;
        if !found.checks.is_empty() {
            checks(&found.checks).write(console.out, console.color)?;
        }
        if let Some(calls) = found.calls {
            console.line(&of_calls(calls))?;
        }
        Ok(conclusion)
    }

    /// The run with this number, or the last one.
    fn found(&self, run: Option<i64>) -> Result<&ExperimentHistory, Failure> {
        let history = self.status().map_or(&[][..], |status| &status.history);
        let found = match run {
            None => history.first(),
            Some(number) => history.iter().find(|one| one.number == number),
        };
        found.ok_or_else(|| {
            let kept: Vec<String> = history.iter().map(|one| one.number.to_string()).collect();
            let name = self.name();
            Failure::usage(match (run, kept.is_empty()) {
                (_, true) => format!(
                    "FaultExperiment {name} is {}, and no run of it has ended; weft fault status \
                     {name} shows it",
                    self.phase()
                ),
                (number, false) => format!(
                    "FaultExperiment {name} has no run {} any more, it has {}",
                    number.unwrap_or_default(),
                    kept.join(", ")
                ),
            })
        })
    }

    /// Conditions by which the experiment has no effect.
    fn refused(&self) -> impl Iterator<Item = &Condition> {
        let status = self.status().into_iter();
        status.flat_map(|status| automation::refused(&status.conditions))
    }

    /// `shop/payments-slow  run 3  Running  10%  41 s left`
    fn head(&self, now: SystemTime) -> String {
        let namespace = self.experiment.metadata.namespace.as_deref();
        let mut parts = vec![format!("{}/{}", namespace.unwrap_or_default(), self.name())];
        let run = self.status().and_then(|status| status.run.as_ref());
        parts.extend(run.map(|run| format!("run {}", run.number)));
        parts.push(self.phase().to_owned());
        parts.push(self.experiment.spec.share.clone());
        if self.phase() == ExperimentPhase::Running.as_str() {
            let ends = run.and_then(|run| run.ends_at.as_deref()?.parse::<Timestamp>().ok());
            let left = ends.and_then(|ends| SystemTime::from(ends).duration_since(now).ok());
            parts.extend(left.map(|left| format!("{} s left", left.as_secs())));
        }
        parts.join("  ")
    }
}

/// `Harmful after 9.4 s: "Checkout works" is refuted`
fn sentence(found: &ExperimentHistory) -> String {
    let reason = found.reason.as_deref().unwrap_or_default();
    let claim = found.hypothesis.as_deref();
    let claim = claim.filter(|text| !text.is_empty());
    let verdict = &found.verdict;
    match (ExperimentVerdict::named(verdict), claim) {
        (Some(ExperimentVerdict::Tolerated), Some(claim)) => {
            format!("{verdict}: \"{claim}\" holds")
        }
        (Some(ExperimentVerdict::Harmful), claim) => {
            let after = reason.rsplit_once(" after ");
            let after = after.map_or_else(String::new, |(_, time)| format!(" after {time}"));
            match claim {
                Some(claim) => format!("{verdict}{after}: \"{claim}\" is refuted"),
                None => format!("{verdict}: {reason}"),
            }
        }
        _ if reason.is_empty() => verdict.clone(),
        _ => format!("{verdict}: {reason}"),
    }
}

fn checks(rows: &[ExperimentCheckStatus]) -> Table {
    let mut table = Table::new(&["CHECK", "CONTROL", "HARMED", "EVIDENCE"]);
    for row in rows {
        table.row(cells(row).into_iter().map(Into::into).collect());
    }
    table
}

fn cells(row: &ExperimentCheckStatus) -> [String; 4] {
    [
        row.name.clone(),
        automation::counts(row.control),
        automation::counts(row.harmed),
        row.evidence.clone().unwrap_or_default(),
    ]
}

fn of_calls(calls: ExperimentCalls) -> String {
    let ExperimentCalls {
        total,
        harmed,
        excluded,
        beyond_limit,
        untraced,
    } = calls;
    format!(
        "harmed {harmed} of {total} calls, excluded {excluded}, beyond limit {beyond_limit}, \
         untraced {untraced}"
    )
}

/// For an issue or a page.
fn markdown(name: &str, found: &ExperimentHistory) -> Vec<String> {
    let mut lines = vec![format!(
        "**{name} run {}**: {}",
        found.number,
        sentence(found)
    )];
    if !found.checks.is_empty() {
        lines.push(String::new());
        lines.push("| check | control | harmed | evidence |".to_owned());
        lines.push("|---|---|---|---|".to_owned());
        lines.extend(found.checks.iter().map(|row| {
            let cells = cells(row).map(|cell| cell.replace('|', "\\|"));
            format!("| {} |", cells.join(" | "))
        }));
    }
    if let Some(calls) = found.calls {
        lines.push(String::new());
        lines.push(of_calls(calls));
    }
    lines
}
