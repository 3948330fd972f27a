//! `weft release`: shows what a CanaryRelease does, and gives it commands.
//!
//! All that is shown stands in the object, so the right to read it is enough and no controller
//! has to answer.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use crds::weft::{
    CanaryRelease, CanaryReleaseStatus, CanaryStep, ReleasePhase, ReleaseRun, parse_duration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{ClusterCommand, automation};
use crate::cluster::Cluster;
use crate::cluster::names::{Named, ResourceKind};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::table::{Cell, Table, Tone};
use crate::output::{self, Format, NARROW};

/// Between two looks of a watch; the controller writes counts every five seconds, and decisions
/// at once.
const EACH: Duration = Duration::from_secs(2);
/// The same after looks without a response.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So soon after a new template its run begins: a watch that begins with it sees no run yet.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
/// Steps of a release that lists none, and the shortest time of a step that has none.
const DEFAULT_STEPS: usize = 4;
const DEFAULT_DURATION: Duration = Duration::from_secs(60);

/// Arguments of `weft release`.
#[derive(Args, Debug)]
#[command(
    about = "Show a release, or pause, resume, promote, abort or retry it",
    long_about = "Of status it shows the run of a CanaryRelease: the step, its share of the calls, how much \
                  of that the pods allow (cap), how long the step still takes at least, and of each \
                  check the bad calls of the stable revision and of the candidate, the evidence and \
                  the verdict. Exit status 0 if the release is Idle and neither Accepted nor \
                  ResolvedRefs is False, 1 if not. With --watch again whenever something has changed, \
                  until there is no run left, with the same exit status. The other verbs are commands: \
                  they are written as annotation weft.dev/command, by the user's own right to patch \
                  the object, and the controller carries them out within seconds. pause holds a run where it is and \
                  resume continues it, promote skips what is left of the steps, abort rolls back, \
                  retry starts the refused revision again. A command without effect in the phase that is \
                  read is not written, with exit status 1.",
    after_help = "Example:\n  weft release status web --watch"
)]
pub(crate) struct Release {
    /// status, or a command: pause, resume, promote, abort, retry
    #[arg(value_name = "VERB", value_enum)]
    verb: Verb,
    /// The CanaryRelease
    #[arg(value_name = "NAME")]
    name: String,
    /// Of status: again whenever something has changed, until there is no run
    #[arg(short, long)]
    watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// Shows the run.
    Status,
    /// Holds the run where it is.
    Pause,
    /// Continues a paused run.
    Resume,
    /// Skips what is left of the steps.
    Promote,
    /// Rolls back.
    Abort,
    /// Starts the refused revision again.
    Retry,
}

impl Verb {
    /// The word of a command; none of what is no command.
    fn command(self) -> Option<&'static str> {
        match self {
            Self::Status => None,
            Self::Pause => Some("pause"),
            Self::Resume => Some("resume"),
            Self::Promote => Some("promote"),
            Self::Abort => Some("abort"),
            Self::Retry => Some("retry"),
        }
    }
}

impl ClusterCommand for Release {
    const FORMATS: &'static [Format] = NARROW;

    fn must_be_readable(&self, global: &Global) -> Result<(), Failure> {
        global.in_one_namespace("a release is in one namespace")?;
        if self.verb.command().is_some() {
            global.without_output("one line")?;
            if self.watch {
                let why = "--watch is for status, which shows what becomes of a command";
                return Err(Failure::usage(why));
            }
        }
        self.named().map(drop)
    }

    /// Prints the release of this cluster, or gives it the command.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let name = self.named()?;
        match self.verb.command() {
            Some(verb) => command(cluster, &name, verb, now, console).await,
            None if self.watch => watch(cluster, &name, format, console).await,
            None => {
                let look = Look::read(cluster, &name).await?;
                look.print(format, cluster.now(now), console)?;
                Ok(look.conclusion())
            }
        }
    }
}

impl Release {
    /// `web`, `crel/web` or `canaryrelease/web`.
    fn named(&self) -> Result<String, Failure> {
        let why = "a release is of all ports of its Service";
        Named::read_of(&self.name, ResourceKind::CanaryRelease, why)
    }
}

/// Gives the release a command.
async fn command(
    cluster: &Cluster,
    name: &str,
    verb: &str,
    now: SystemTime,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let look = Look::read(cluster, name).await?;
    if let Some(why) = look.refuses(verb) {
        let namespace = cluster.namespace();
        console.word(&format!("CanaryRelease {namespace}/{name} is {why}"))?;
        return Ok(Conclusion::No);
    }
    let status = look.status();
    let last = status.and_then(|status| status.last_command.as_deref());
    let named = (ResourceKind::CanaryRelease, name);
    automation::command::<CanaryRelease>(cluster, named, verb, last, now).await?;
    let namespace = cluster.namespace();
    console.word(&format!(
        "CanaryRelease {namespace}/{name} is {} and gets the command {verb}; weft release status \
         {name} -n {namespace} --watch shows what becomes of it",
        look.phase()
    ))?;
    Ok(Conclusion::Yes)
}

/// One look after the other, each that differs from the one before, until there is no run.
async fn watch(
    cluster: &Cluster,
    name: &str,
    format: Format,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let until = Instant::now() + BEGINS_WITHIN;
    let mut look = Look::read(cluster, name).await?;
    loop {
        look.print(format, cluster.now(SystemTime::now()), console)?;
        console.out.flush()?;
        let next = changed(cluster, name, &look, console);
        look = if look.has_ended() {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, next).await {
                Ok(next) => next?,
                Err(_) => return Ok(look.conclusion()),
            }
        } else {
            next.await?
        };
        if format == Format::Table {
            console.line("")?;
        }
    }
}

/// The next look that differs from this one. Without a response the watch goes on with longer
/// pauses: an API server may be replaced meanwhile.
async fn changed(
    cluster: &Cluster,
    name: &str,
    before: &Look,
    console: &mut Console<'_>,
) -> Result<Look, Failure> {
    let mut pause = EACH;
    loop {
        sleep(pause).await;
        match automation::read(cluster, (ResourceKind::CanaryRelease, name)).await {
            Ok(object) => {
                pause = EACH;
                let look = Look::of(object, name)?;
                if look.release.status != before.release.status {
                    return Ok(look);
                }
            }
            Err(failure @ Failure::Unknown(_)) => {
                console.word(&failure.to_string())?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(last) => return Err(last),
        }
    }
}

/// A release as it was read.
#[derive(Debug)]
struct Look {
    object: Value,
    release: CanaryRelease,
}

impl Look {
    /// # Errors
    /// When there is no such release, or the API server does not respond or refuses.
    async fn read(cluster: &Cluster, name: &str) -> Result<Self, Failure> {
        let object = automation::read(cluster, (ResourceKind::CanaryRelease, name)).await?;
        Self::of(object, name)
    }

    fn of(object: Value, name: &str) -> Result<Self, Failure> {
        let release = serde_json::from_value(object.clone()).map_err(|error| {
            Failure::unknown(format!("CanaryRelease {name} cannot be read: {error}"))
        })?;
        Ok(Self { object, release })
    }

    fn status(&self) -> Option<&CanaryReleaseStatus> {
        self.release.status.as_ref()
    }

    /// As the status has it.
    fn phase(&self) -> &str {
        let phase = self.status().and_then(|status| status.phase.as_deref());
        phase.unwrap_or("not seen by a controller yet")
    }

    fn is(&self, phase: ReleasePhase) -> bool {
        self.phase() == phase.as_str()
    }

    /// Why a command has no effect in the phase that was read, and what has. One that no controller
    /// has written yet, or a later version, may take any.
    fn refuses(&self, verb: &str) -> Option<String> {
        let phase = ReleasePhase::named(self.phase())?;
        let run = self.status().and_then(|status| status.run.as_ref());
        let taken = run.map_or(&[][..], |_| phase.commands());
        if taken.contains(&verb) {
            return None;
        }
        let way_out = match taken {
            [] => "a run starts when the template of its Deployment changes".to_owned(),
            taken => format!("it takes {}", taken.join(", ")),
        };
        let phase = phase.as_str();
        Some(format!("{phase}, where {verb} has no effect; {way_out}"))
    }

    fn conclusion(&self) -> Conclusion {
        match self.is(ReleasePhase::Idle) && self.refused().next().is_none() {
            true => Conclusion::Yes,
            false => Conclusion::No,
        }
    }

    /// Conditions by which the release has no effect, or not the one that was asked for.
    fn refused(&self) -> impl Iterator<Item = &Condition> {
        let status = self.status().into_iter();
        status.flat_map(|status| automation::refused(&status.conditions))
    }

    /// Nothing more happens until a user does something.
    fn has_ended(&self) -> bool {
        self.is(ReleasePhase::Idle) || self.is(ReleasePhase::RolledBack)
    }

    fn print(
        &self,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        if output::data(console, format, &self.object)? {
            return Ok(());
        }
        for line in self.lines(now) {
            console.line(&crate::escape::plain(&line))?;
        }
        if let Some(status) = self.status().filter(|status| !status.checks.is_empty()) {
            checks(status).write(console.out, console.color)?;
        }
        Ok(())
    }

    /// The first line, and those below it that say more than the first.
    fn lines(&self, now: SystemTime) -> Vec<String> {
        let mut lines = vec![self.head(now)];
        let Some(status) = self.status() else {
            return lines;
        };
        let summary = status.summary.as_deref().filter(|text| !text.is_empty());
        // Of a step the first line and the table say the same.
        let said = self.is(ReleasePhase::Progressing) && self.left(now).is_some();
        lines.extend(summary.filter(|_| !said).map(str::to_owned));
        lines.extend(
            self.refused()
                .map(|one| format!("{}: {}: {}", one.type_, one.reason, one.message)),
        );
        // Of a rollback the summary has the reason.
        if self.is(ReleasePhase::Idle)
            && let Some(last) = status.history.first()
        {
            let mut line = format!(
                "last run {}  {}  {}",
                last.number, last.revision, last.result
            );
            if let Some(reason) = &last.reason {
                let _ = write!(line, "  {reason}");
            }
            if let Some(by) = &last.by {
                let _ = write!(line, "  by {by}");
            }
            lines.push(line);
        }
        lines
    }

    /// `shop/web  run 7  75fd76f75b  Progressing  step 2/4  20 % (cap 25 %)  41 s left`
    fn head(&self, now: SystemTime) -> String {
        let metadata = &self.release.metadata;
        let named = [&metadata.namespace, &metadata.name];
        let named = named.map(|part| part.as_deref().unwrap_or_default());
        let mut parts = vec![named.join("/")];
        let status = self.status();
        let run = status.and_then(|status| status.run.as_ref());
        parts.extend(run.map(|run| format!("run {}", run.number)));
        let candidate = status.and_then(|status| status.candidate.as_ref());
        let revision = candidate.map(|one| one.revision.clone());
        parts.extend(revision.filter(|revision| !revision.is_empty()));
        parts.push(self.phase().to_owned());
        if let Some(run) = run.filter(|_| self.is_under_way()) {
            if run.step > 0 {
                parts.push(format!("step {}/{}", run.step, self.steps()));
            }
            parts.push(self.weight(run));
        }
        parts.extend(self.left(now).map(|left| match left.as_secs() {
            seconds @ 0..120 => format!("{seconds} s left"),
            seconds => format!("{} min left", seconds / 60),
        }));
        parts.join("  ")
    }

    fn is_under_way(&self) -> bool {
        let phases = [
            ReleasePhase::Progressing,
            ReleasePhase::Paused,
            ReleasePhase::Promoting,
        ];
        phases.into_iter().any(|phase| self.is(phase))
    }

    fn steps(&self) -> usize {
        let steps = self.release.spec.steps.as_ref();
        steps.map_or(DEFAULT_STEPS, Vec::len)
    }

    /// The step of the run, if the spec lists it.
    fn step(&self, run: &ReleaseRun) -> Option<&CanaryStep> {
        let at = usize::try_from(run.step).ok()?.checked_sub(1)?;
        self.release.spec.steps.as_ref()?.get(at)
    }

    /// The share of the step, and the most that the pods allow: as many of a hundred calls as
    /// the candidate has of the pods that serve.
    fn weight(&self, run: &ReleaseRun) -> String {
        let copies = self.step(run).and_then(|step| step.mirror);
        if let Some(copies) = copies.filter(|_| run.weight == 0) {
            return format!("copies of {copies} %");
        }
        let pods = |of: fn(&CanaryReleaseStatus) -> Option<i64>| self.status().and_then(of);
        let candidate = pods(|status| Some(status.candidate.as_ref()?.pods));
        let stable = pods(|status| Some(status.stable.as_ref()?.pods));
        match (candidate, stable) {
            (Some(candidate), Some(stable)) if candidate > 0 && stable >= 0 => {
                let cap = candidate.saturating_mul(100) / candidate.saturating_add(stable);
                format!("{} % (cap {} %)", run.weight, cap.max(1))
            }
            _ => format!("{} % (cap 0 %)", run.weight),
        }
    }

    /// How long the step still takes at least; none of a step whose time is over.
    fn left(&self, now: SystemTime) -> Option<Duration> {
        let run = self.status()?.run.as_ref()?;
        if !self.is(ReleasePhase::Progressing) {
            return None;
        }
        let duration = self.step(run).and_then(|step| step.duration.as_deref());
        let duration = match duration {
            Some(text) => parse_duration(text).ok()?,
            None => DEFAULT_DURATION,
        };
        let began: Timestamp = run.step_started_at.as_deref()?.parse().ok()?;
        let ends = SystemTime::from(began).checked_add(duration)?;
        ends.duration_since(now).ok()
    }
}

fn checks(status: &CanaryReleaseStatus) -> Table {
    let mut table = Table::new(&["CHECK", "STABLE", "CANDIDATE", "EVIDENCE", "VERDICT"]);
    for check in &status.checks {
        let verdict = check.verdict.clone().unwrap_or_default();
        // The word of the judge for what it takes calls back for.
        let tone = match verdict.eq_ignore_ascii_case("worse") {
            true => Tone::Bad,
            false => Tone::Plain,
        };
        table.row(vec![
            check.name.clone().into(),
            automation::counts(check.stable).into(),
            automation::counts(check.candidate).into(),
            check.evidence.clone().unwrap_or_default().into(),
            Cell::toned(verdict, tone),
        ]);
    }
    table
}
