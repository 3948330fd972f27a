//! `weft check`: checks whether the mesh can be installed in the cluster, and whether an installed
//! one works.

mod applications;
mod authority;
mod control;
mod data;
mod egress;
mod experiments;
mod facts;
mod list;
mod objects;
mod platform;
pub(super) mod probes;
mod releases;
mod routes;
mod webhooks;

use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use self::facts::{CheckStatus, Facts, MOST};
use super::ClusterCommand;
use crate::cluster::{Cluster, Refusal, existing};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::output::{self, Format, NARROW, number};

pub use self::list::page;

/// For all checks together, and for each of many requests: one that gets no response costs only the
/// checks that need it. First the version is read, and then all else at once.
const ALL_WITHIN: Duration = Duration::from_secs(30);
const EACH_WITHIN: Duration = Duration::from_secs(12);
/// Between two tries of `--wait`.
const AGAIN: Duration = Duration::from_secs(2);

/// Arguments of `weft check`.
#[derive(Args, Debug)]
#[command(
    about = "Check that the mesh is well, or that a cluster can have one",
    long_about = "Checks the cluster, the control plane, the proxies and the users' objects, and \
                  says of each fault what to do. Every check has an id, which docs/checks.md \
                  explains. What the user may not see is skipped, in one line. With -n the pods, \
                  proxies and objects of that namespace alone are looked at. Each answer is waited for 12 s \
                  at most, whatever --request-timeout says, and all of them for 30 s. Exit status \
                  1 if a check failed, 3 if all were skipped but those of the cluster itself, or \
                  some because the controller or the API server had too much to answer.",
    after_help = "Example:\n  weft check --wait 2m"
)]
pub(crate) struct Check {
    /// Before Weft is installed: whether the cluster can have it
    #[arg(long)]
    pre: bool,
    /// Try again for so long until nothing fails
    #[arg(long, value_name = "TIME", value_parser = number::at_least(Duration::ZERO), allow_hyphen_values = true)]
    wait: Option<Duration>,
    /// What exit status 1 means: an error, or a warning already
    #[arg(long, value_name = "RESULT", value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Only errors.
    Error,
    /// Warnings too.
    Warning,
}

/// One check, done.
#[derive(Clone, Debug, Serialize)]
struct Done {
    category: &'static str,
    id: &'static str,
    result: CheckStatus,
    message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'static str,
    /// It is skipped because the user may not see what it needs.
    #[serde(skip)]
    denied: bool,
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct CheckReport {
    success: bool,
    checks: Vec<Done>,
    /// Why there are no checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    conclusion: Conclusion,
    /// Why something is not known that may be known a moment later.
    #[serde(skip)]
    throttled: Option<String>,
}

impl CheckReport {
    /// For an API server that does not respond.
    fn without_answer(why: &Failure) -> Self {
        Self {
            success: false,
            checks: Vec::new(),
            error: Some(why.to_string()),
            conclusion: Conclusion::Unknown,
            throttled: None,
        }
    }

    /// Whether another try may have another result. A user who may see nothing now will not see
    /// more before the time is over.
    fn may_pass(&self) -> bool {
        self.conclusion == Conclusion::No || self.throttled.is_some()
    }
}

impl ClusterCommand for Check {
    const FORMATS: &'static [Format] = NARROW;

    /// Prints what is well and what is not in this cluster.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        _: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let started = Instant::now();
        let cluster = &cluster.within(EACH_WITHIN);
        let report = loop {
            // At the same time: a request for a namespace that gets no response costs no time
            // beside the checks.
            let looking = Box::pin(self.must_be_tried_somewhere(cluster));
            let looking = timeout(ALL_WITHIN, looking);
            let (tried, somewhere) = futures::join!(self.once(cluster), looking);
            if tried.is_ok() {
                somewhere.unwrap_or(Ok(()))?;
            }
            let left = self
                .wait
                .is_some_and(|wait| started.elapsed() + AGAIN < wait);
            match tried {
                Ok(report) if !report.may_pass() || !left => break report,
                Ok(_) => sleep(AGAIN).await,
                // An API server that does not respond now may do so before the time is over; a user
                // that is not known now will not be known then.
                Err(refusal) if left && refusal.may_pass() => sleep(AGAIN).await,
                Err(refusal) => {
                    let failure = refusal.into_failure();
                    output::data(console, format, &CheckReport::without_answer(&failure))?;
                    return Err(failure);
                }
            }
        };
        if !output::data(console, format, &report)? {
            print(&report, console)?;
        }
        match (report.conclusion, report.throttled) {
            (Conclusion::Unknown, Some(why)) => Err(Failure::unknown(format!(
                "not all is known of the mesh, and some checks were skipped: {why}; ask again, or \
                 with --wait 1m"
            ))),
            (Conclusion::Unknown, None) => Err(Failure::unknown(
                "nothing is known of the mesh: every check of it was skipped, for the reason \
                 beside it; run it as a user who may see more",
            )),
            (conclusion, _) => Ok(conclusion),
        }
    }
}

impl Check {
    /// Ends if the installation, or the dry runs of the webhooks, are searched in a namespace that
    /// was named and does not exist: the checks would fail although the mesh is well, or be
    /// skipped, without a line about the reason. A kubeconfig's namespace was not named by the
    /// user, and before an installation no namespace is searched.
    async fn must_be_tried_somewhere(&self, cluster: &Cluster) -> Result<(), Failure> {
        if self.pre {
            return Ok(());
        }
        existing::must_have_weft_namespace(cluster).await?;
        if !cluster.is_named() {
            return Ok(());
        }
        match existing::must_be_in_a_namespace(cluster).await {
            Err(wrong @ Failure::Usage(_)) => Err(wrong),
            // It is not known whether the namespace exists; the checks report why.
            _ => Ok(()),
        }
    }

    async fn once(&self, cluster: &Cluster) -> Result<CheckReport, Refusal> {
        let querying = Facts::query(cluster, self.pre);
        let facts = timeout(ALL_WITHIN, querying).await;
        let facts = facts.map_err(|_| Refusal::late("all checks", ALL_WITHIN))??;
        let checks: Vec<Done> = list::CHECKS
            .iter()
            .filter(|check| {
                check.pre == self.pre || check.category == list::KUBERNETES && !check.pre
            })
            .map(|check| {
                let found = (check.evaluate)(&facts);
                // Taken of a check that failed, too: else the next check would report it.
                let cut = facts.take_cut();
                let denied = matches!(&found, Err(why) if facts.is_denied(why));
                let (result, message) = match found {
                    Ok(found) => of_what_was_read(found, &cut),
                    Err(why) => (CheckStatus::Skipped, why),
                };
                let hint = if result >= CheckStatus::Warning {
                    check.hint
                } else {
                    ""
                };
                Done {
                    category: check.category,
                    id: check.id,
                    result,
                    message,
                    hint,
                    denied,
                }
            })
            .collect();
        let fails = match self.fail_on {
            FailOn::Error => CheckStatus::Error,
            FailOn::Warning => CheckStatus::Warning,
        };
        let throttled = facts.throttled().map(str::to_owned);
        let conclusion = match conclude(&checks, fails) {
            // A part that the user may see is missing, so it is not known that nothing is wrong.
            Conclusion::Yes if throttled.is_some() => Conclusion::Unknown,
            conclusion => conclusion,
        };
        Ok(CheckReport {
            success: conclusion == Conclusion::Yes,
            checks,
            error: None,
            conclusion,
            throttled,
        })
    }
}

/// What a check found, if it may have looked at lists that were not read to their ends: no fault in
/// one part does not mean none in the rest.
fn of_what_was_read(found: (CheckStatus, String), cut: &[&str]) -> (CheckStatus, String) {
    if cut.is_empty() {
        return found;
    }
    let (result, message) = found;
    let of = cut.join(" and ");
    (
        result.max(CheckStatus::Skipped),
        format!("{message}, of the first {MOST} {of}; more were not read"),
    )
}

/// What so many checks come to. Everybody may see the cluster's version, and that alone is no
/// mesh that is well.
fn conclude(checks: &[Done], fails: CheckStatus) -> Conclusion {
    if checks.iter().any(|check| check.result >= fails) {
        return Conclusion::No;
    }
    let of_the_mesh = checks
        .iter()
        .filter(|check| check.category != list::KUBERNETES);
    let mut completed_checks = of_the_mesh.filter(|check| check.result != CheckStatus::Skipped);
    match completed_checks.next() {
        Some(_) => Conclusion::Yes,
        None => Conclusion::Unknown,
    }
}

fn print(report: &CheckReport, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut category = "";
    let (denied, shown): (Vec<&Done>, Vec<&Done>) =
        report.checks.iter().partition(|check| check.denied);
    for check in shown {
        if check.category != category {
            category = check.category;
            console.line(category)?;
        }
        let (word, tone) = check.result.shown();
        let mark = tone.painted(&format!("{word:<8}"), console.color);
        let message = crate::escape::plain(&check.message);
        // With its colour, which no other line of the output has.
        writeln!(console.out, "  {mark} {:<22} {message}", check.id)?;
        if !check.hint.is_empty() {
            console.line(&format!(
                "  {:31} {} (docs/checks.md#{})",
                "", check.hint, check.id
            ))?;
        }
    }
    if let Some(first) = denied.first() {
        let ids: Vec<&str> = denied.iter().map(|check| check.id).collect();
        console.line("not seen")?;
        console.line(&format!(
            "  skipped  {} checks need what you may not see ({}); -n NAME looks at one namespace: {}",
            denied.len(),
            crate::escape::plain(&first.message),
            ids.join(", ")
        ))?;
    }
    let count = |result: CheckStatus| {
        report
            .checks
            .iter()
            .filter(|check| check.result == result)
            .count()
    };
    console.word(&format!(
        "{} ok, {} warnings, {} errors, {} skipped",
        count(CheckStatus::Ok),
        count(CheckStatus::Warning),
        count(CheckStatus::Error),
        count(CheckStatus::Skipped)
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests;
