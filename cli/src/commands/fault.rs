//! `weft fault`: shows what a FaultExperiment did, starts and ends its runs, and lets a namespace
//! be harmed.
//!
//! All that is shown stands in the object.

mod report;

use std::time::SystemTime;

use clap::{Args, ValueEnum};
use crds::labels::{FAULTS, FAULTS_ALLOWED, FAULTS_STOPPED};
use crds::weft::{ExperimentPhase, FaultExperiment, parse_faults};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::Patch;
use serde_json::json;

use self::report::Look;
use super::ClusterCommand;
use super::automation::{self, written_by_user};
use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::{Cluster, existing};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::Format;

/// Arguments of `weft fault`.
#[derive(Args, Debug)]
#[command(
    about = "Show what a fault experiment did, start or stop it, or allow faults",
    long_about = "status shows a FaultExperiment and the run that is under way; exit status 1 if Accepted or \
                  ResolvedRefs is False, so that no run can start. report shows what a run found: \
                  of each check the failed calls of requests that were spared and of those that met \
                  the fault, and the evidence; exit status 0 if it was tolerated, 1 if not. run and \
                  stop are commands: they are written as annotation weft.dev/command, by the user's \
                  own right to patch the object (ClusterRole weft-fault-operator), and the controller \
                  carries them out within seconds; one without effect in the phase that is read is not \
                  written, with exit status 1. stop --all stops every experiment of the mesh and \
                  lets none start, by annotation weft.dev/faults of the mesh's namespace; allow --all \
                  takes that away. allow lets experiments harm calls of the namespace, of all or with \
                  --share of at most that share; --share 0% takes it away.",
    after_help = "Example:\n  weft fault report payments-slow"
)]
pub(crate) struct Fault {
    /// status, report, run, stop or allow
    #[arg(value_name = "VERB", value_enum)]
    verb: Verb,
    /// The FaultExperiment
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Of report: the run with this number; the last one without it
    #[arg(long, value_name = "NUMBER")]
    run: Option<i64>,
    /// Of stop and allow: the whole mesh
    #[arg(long)]
    all: bool,
    /// Of allow: at most this share of the calls
    #[arg(long, value_name = "PERCENT")]
    share: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// Shows the experiment.
    Status,
    /// Shows what a run found.
    Report,
    /// Starts a run.
    Run,
    /// Ends the run.
    Stop,
    /// Lets experiments harm calls of the namespace.
    Allow,
}

impl ClusterCommand for Fault {
    const FORMATS: &'static [Format] =
        &[Format::Table, Format::Json, Format::Yaml, Format::Markdown];

    fn must_be_readable(&self, global: &Global) -> Result<(), Failure> {
        if !self.all {
            global.in_one_namespace("an experiment is in one namespace")?;
        }
        match self.verb {
            Verb::Status | Verb::Report => {}
            Verb::Run | Verb::Stop | Verb::Allow => global.without_output("one line")?,
        }
        if global.output.as_deref() == Some("markdown") && self.verb != Verb::Report {
            let why = "-o markdown: only report prints that";
            return Err(Failure::usage(why));
        }
        if self.all && !matches!(self.verb, Verb::Stop | Verb::Allow) {
            let why = "--all is for stop and allow, of the whole mesh";
            return Err(Failure::usage(why));
        }
        if self.run.is_some() && self.verb != Verb::Report {
            let why = "--run is for report; a command is about the run that is under way";
            return Err(Failure::usage(why));
        }
        if self.share.is_some() && (self.verb != Verb::Allow || self.all) {
            let why = "--share is for allow, of one namespace";
            return Err(Failure::usage(why));
        }
        self.annotation()?;
        match (self.needs_name(), &self.name) {
            (true, _) => self.named().map(drop),
            (false, None) => Ok(()),
            (false, Some(name)) => Err(Failure::usage(format!(
                "{name}: this is about no single experiment; leave it out"
            ))),
        }
    }

    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        match self.verb {
            Verb::Stop if self.all => {
                let value = Some(FAULTS_STOPPED.to_owned());
                let mesh = cluster.weft_namespace();
                annotate(cluster, mesh, value, console).await?;
                console.word("every experiment of the mesh ends now, and none starts; weft fault allow --all takes that away")?;
                Ok(Conclusion::Yes)
            }
            Verb::Allow if self.all => {
                annotate(cluster, cluster.weft_namespace(), None, console).await?;
                console.word("experiments may run again where namespaces allow them")?;
                Ok(Conclusion::Yes)
            }
            Verb::Allow => {
                let (value, namespace) = (self.annotation()?, cluster.namespace());
                if namespace == cluster.weft_namespace() {
                    return Err(Failure::usage(format!(
                        "namespace {namespace} is the mesh's own, where {FAULTS} stops all \
                         experiments; say -n of the namespace whose calls may be harmed, or take \
                         a stop away with weft fault allow --all"
                    )));
                }
                annotate(cluster, namespace, Some(value), console).await?;
                Ok(Conclusion::Yes)
            }
            Verb::Run => command(cluster, &self.named()?, "run", now, console).await,
            Verb::Stop => command(cluster, &self.named()?, "stop", now, console).await,
            Verb::Status => {
                let name = self.named()?;
                let look = Look::read(cluster, &name).await?;
                look.print_status(format, cluster.now(now), console)
            }
            Verb::Report => {
                let name = self.named()?;
                let look = Look::read(cluster, &name).await?;
                look.print_report(self.run, format, console)
            }
        }
    }
}

impl Fault {
    fn needs_name(&self) -> bool {
        self.verb != Verb::Allow && !self.all
    }

    /// `slow`, `fexp/slow` or `faultexperiment/slow`.
    fn named(&self) -> Result<String, Failure> {
        let Some(name) = &self.name else {
            return Err(Failure::usage(
                "name the FaultExperiment; kubectl get fexp lists them",
            ));
        };
        let why = "an experiment has its port in its spec";
        Named::read_of(name, ResourceKind::FaultExperiment, why)
    }

    /// What `allow` writes.
    fn annotation(&self) -> Result<String, Failure> {
        let value = match &self.share {
            None => FAULTS_ALLOWED.to_owned(),
            Some(share) => format!("share={share}"),
        };
        match parse_faults(&value) {
            Ok(_) => Ok(value),
            Err(_) => Err(Failure::usage(
                "--share: must be a share such as 5% or 0.25%, 100% at most",
            )),
        }
    }
}

/// Gives the experiment a command.
async fn command(
    cluster: &Cluster,
    name: &str,
    verb: &str,
    now: SystemTime,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let look = Look::read(cluster, name).await?;
    if let Some(why) = without_effect(&look, verb) {
        let namespace = cluster.namespace();
        let phase = look.phase();
        let words = format!(
            "FaultExperiment {namespace}/{name} is {phase}, where {verb} has no effect; {why}"
        );
        console.word(&words)?;
        return Ok(Conclusion::No);
    }
    let status = look.status();
    let last = status.and_then(|status| status.last_command.as_deref());
    let named = (ResourceKind::FaultExperiment, name);
    automation::command::<FaultExperiment>(cluster, named, verb, last, now).await?;
    let namespace = cluster.namespace();
    console.word(&format!(
        "FaultExperiment {namespace}/{name} is {} and gets the command {verb}; weft fault status \
         {name} -n {namespace} shows what becomes of it",
        look.phase()
    ))?;
    Ok(Conclusion::Yes)
}

/// What to do in place of a command that has no effect in the phase that was read.
fn without_effect(look: &Look, verb: &str) -> Option<&'static str> {
    let phase = ExperimentPhase::named(look.phase())?;
    match (phase.is_under_way(), verb) {
        (false, "stop") => Some("no run is under way, weft fault run starts one"),
        (true, "run") => Some("a run is under way, weft fault stop ends it"),
        _ => None,
    }
}

/// Writes the annotation of a namespace by which faults are allowed or stopped.
async fn annotate(
    cluster: &Cluster,
    namespace: &str,
    value: Option<String>,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let what = format!("Namespace {namespace}");
    let patch = json!({"metadata": {"annotations": {FAULTS: value}}});
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let (parameters, patch) = (written_by_user(), Patch::Merge(&patch));
    let patched = cluster.try_call(&what, namespaces.patch(namespace, &parameters, &patch));
    if let Err(refusal) = patched.await {
        let named = (ResourceKind::Namespace, namespace);
        return Err(existing::or_absent(cluster, named, refusal).await);
    }
    console.word(&match value {
        Some(value) => format!("{what}: {FAULTS} is {value}"),
        None => format!("{what}: {FAULTS} is taken away"),
    })?;
    Ok(())
}
