//! `weft dry-run`: what a change would mean for the calls that there were, and for those that
//! come while it watches.

mod absent;
mod ask;
mod conclusion;
mod watch;

pub(super) use conclusion::{Advice, conclude};

use std::time::{Duration, SystemTime};

use clap::Args;
use crds::labels;
use crds::observe::{
    AccessChange, BackendShare, Change, ChangedEdge, Deleted, DryRun as DryRunObject, DryRunSpec,
    DryRunStatus,
};
use policy::name::Kind;
use serde_json::Value;

use super::inject::template;
use crate::cluster::{Cluster, Refusal};
use crate::console::Console;
use crate::escape;
use crate::failure::{Conclusion, Failure};
use crate::files;
use crate::global::Global;
use crate::kinds;
use crate::output::table::{Cell, Table};
use crate::output::{self, Format, number};
use crate::yaml::tree;
use conclusion::{is_of_nothing, tried};

const FORMATS: &[Format] = &[Format::Table, Format::Json, Format::Yaml];
/// What the names of our labels and annotations begin with.
const OURS: &str = "weft.dev/";
/// Those by which no call is refused, allowed or led elsewhere.
const OF_NO_CALL: [&str; 11] = [
    labels::ACCESS_LOG,
    labels::ACCOUNT,
    labels::DRAIN_DELAY,
    labels::LOG_LEVEL,
    labels::PROXY_CPU_LIMIT,
    labels::PROXY_CPU_REQUEST,
    labels::PROXY_MEMORY_LIMIT,
    labels::PROXY_MEMORY_REQUEST,
    labels::PROXY_VERSION,
    labels::ROUTES,
    labels::TRACE_SAMPLING,
];
/// In less than a report's pace hardly a call is seen, and in no time none.
const SHORTEST: Duration = Duration::from_secs(1);
const ADVICE: Advice = Advice {
    live: "--watch 60s judges live calls",
    less: "try a smaller change",
};

/// Arguments of `weft dry-run`.
#[derive(Args, Debug)]
#[command(
    about = "Say which calls a change would refuse, allow or lead elsewhere",
    long_about = "Lays a change over the cluster without making it, and compares what becomes of every \
                  call that the mesh remembers. depends: that is decided by each request's method, \
                  path or headers, which are not remembered. With --watch the proxies of called \
                  pods judge live calls by the change too, for so long, and enforce nothing of it. \
                  Whoever asks must be allowed to make the change. Exit status 1 if a call that was \
                  seen would be refused. Else 3 if the mesh remembers no call of which anything \
                  can be told, or could not compare them all; if calls depend, and none of the \
                  same caller to the same port was judged live; if calls depend in namespaces \
                  whose graphs the user may not read, or the controller is older and does not say \
                  whether they do; if with --watch not every proxy that the change concerns judged \
                  live calls, or some were skipped for want of time; or if the files hold what \
                  decides about calls and is not tried, such as weft.dev/mtls of a Namespace or \
                  weft.dev/opaque-ports of a pod template.",
    after_help = "Example:\n  weft dry-run -f policy.yaml -n shop"
)]
pub(crate) struct DryRun {
    /// Manifests that would be applied; - is the standard input
    #[arg(short, long = "filename", value_name = "FILE", num_args = 1..)]
    files: Vec<String>,
    /// An object that would be deleted, such as TrafficTarget/read
    #[arg(long, value_name = "KIND/NAME")]
    delete: Vec<String>,
    /// Access mode that the namespace would have: deny, auto, open or audit
    #[arg(long, value_name = "MODE")]
    access: Option<String>,
    /// Judge live calls by the change too, for so long, such as 60s
    #[arg(long, value_name = "TIME", value_parser = number::at_least(SHORTEST), allow_hyphen_values = true)]
    watch: Option<Duration>,
}

impl DryRun {
    /// Prints what would change.
    ///
    /// # Errors
    /// When nobody can tell, or the change cannot be made.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let format = global.format(FORMATS)?;
        global.in_one_namespace("a change is made in one namespace")?;
        let cluster = Cluster::connect(global).await?;
        let Gathered { spec, untried } = self.gathered(cluster.namespace(), console)?;
        let mut answer = match ask(&cluster, spec.clone()).await {
            Ok(answer) => answer,
            Err(refusal) => return Err(absent::or_refused(&cluster, &spec, refusal).await),
        };
        let Some(mut status) = answer.status.take() else {
            return Err(Failure::unknown("the dry run has no status"));
        };
        if is_of_nothing(&status) && self.watch.is_none() {
            let why = "the mesh remembers no call, so nothing can be told of this change";
            return Err(Failure::unknown(why));
        }
        if format == Format::Table {
            print(&status, cluster.now(SystemTime::now()), console)?;
        }
        if let Some(long) = self.watch {
            let trial = watch::watch(&cluster, &spec, long, console).await?;
            if format == Format::Table {
                watch::print(&trial, console)?;
            }
            status.trial = Some(trial);
        }
        let conclusion = tried(conclude(&status, ADVICE), untried);
        answer.status = Some(status);
        output::data(console, format, &answer)?;
        conclusion
    }

    fn gathered(&self, namespace: &str, console: &mut Console<'_>) -> Result<Gathered, Failure> {
        let mut gathered = Gathered::default();
        for name in &self.files {
            let manifest = files::read(name, console)?;
            let bad = |why: String| Failure::usage(format!("{name}:{why}"));
            for document in tree::parse(&manifest.text).map_err(|error| bad(error.to_string()))? {
                let value = document.value().map_err(|error| bad(error.to_string()))?;
                gather(value, namespace, &mut gathered, console)?;
            }
        }
        let spec = &mut gathered.spec;
        for text in &self.delete {
            spec.delete.push(deleted(text, namespace)?);
        }
        spec.access
            .extend(self.access.iter().map(|mode| AccessChange {
                namespace: namespace.to_owned(),
                mode: mode.clone(),
            }));
        if *spec == DryRunSpec::default() {
            tried(Ok(Conclusion::Yes), gathered.untried)?;
            let why = "there is nothing to try: say -f FILE, --delete KIND/NAME or --access MODE";
            return Err(Failure::usage(why));
        }
        Ok(gathered)
    }
}

/// What the command line and its files ask for.
#[derive(Debug, Default)]
struct Gathered {
    spec: DryRunSpec,
    /// Labels and annotations that decide about calls and are not tried.
    untried: usize,
}

/// Takes what can be tried out of a document, and says what is left out.
fn gather(
    mut value: Value,
    namespace: &str,
    gathered: &mut Gathered,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if value.is_null() {
        return Ok(());
    }
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    if kind.ends_with("List")
        && let Some(items) = value.get_mut("items").and_then(Value::as_array_mut)
    {
        for item in std::mem::take(items) {
            gather(item, namespace, gathered, console)?;
        }
        return Ok(());
    }
    gathered.untried += untried(&value, console)?;
    let spec = &mut gathered.spec;
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let mode = value["metadata"]["annotations"][labels::ACCESS].as_str();
    if let Some(mode) = mode.filter(|_| kind == "Namespace") {
        spec.access.push(AccessChange {
            namespace: name.to_owned(),
            mode: mode.to_owned(),
        });
        return Ok(());
    }
    if !Kind::WRITTEN.iter().any(|known| known.as_str() == kind) {
        console.word(&format!("{kind} {name} is not tried"))?;
        return Ok(());
    }
    if kind == Kind::TrafficPolicy.as_str() {
        console.word(&format!(
            "{kind} {name}: its limits, retries and the like are not judged"
        ))?;
    }
    if value["metadata"]["namespace"].is_null()
        && let Some(metadata) = value["metadata"].as_object_mut()
    {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    spec.objects.push(value);
    Ok(())
}

/// Names what else an object says to the mesh, and counts what of that decides about calls.
fn untried(object: &Value, console: &mut Console<'_>) -> Result<usize, Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    let (owner, templates) = (format!("{kind} {name}"), template::all(object));
    // The mesh reads no annotations of what owns pods.
    let own = ["Namespace", "Service"].contains(&kind.as_str());
    let own = own.then_some((&owner, object)).into_iter();
    let mut count = 0;
    for (owner, part) in own.chain(templates.iter().map(|one| (&one.owner, &one.value))) {
        for field in ["annotations", "labels"] {
            let all = part["metadata"][field].as_object();
            for key in all.into_iter().flatten().map(|(key, _)| key.as_str()) {
                let is_tried = kind == "Namespace" && key == labels::ACCESS;
                if is_tried || !key.starts_with(OURS) {
                    continue;
                }
                console.word(&format!("{key} of {owner} is not tried"))?;
                count += usize::from(!OF_NO_CALL.contains(&key));
            }
        }
    }
    Ok(count)
}

fn deleted(text: &str, namespace: &str) -> Result<Deleted, Failure> {
    let (kind, name) = text.split_once('/').unwrap_or((text, ""));
    let written = kinds::all();
    let known = written.iter().find(|known| {
        let plural = known.plural.eq_ignore_ascii_case(kind);
        plural || known.kind.eq_ignore_ascii_case(kind)
    });
    let known = known.filter(|_| !name.is_empty()).ok_or_else(|| {
        let kinds: Vec<&str> = written.iter().map(|known| known.kind).collect();
        let kinds = kinds.join(", ");
        Failure::usage(format!("--delete {text:?}: must be KIND/NAME, of {kinds}"))
    })?;
    Ok(Deleted {
        kind: known.kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

pub(super) async fn ask(cluster: &Cluster, spec: DryRunSpec) -> Result<DryRunObject, Refusal> {
    let request = ask::request(cluster, spec)?;
    cluster.try_request(ask::WHAT, request).await
}

pub(super) fn print(
    status: &DryRunStatus,
    now: SystemTime,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    for warning in &status.warnings {
        console.word(&format!("warning: {warning}"))?;
    }
    let mut table = Table::new(&["CHANGE", "FROM", "TO", "SERVICE", "PORT", "LAST", "WHY"]);
    for edge in &status.changed {
        let row: Vec<Cell> = vec![
            edge.change.as_str().into(),
            edge.from.as_str().into(),
            edge.to.as_str().into(),
            edge.service.as_str().into(),
            edge.port.to_string().into(),
            last(edge, now).into(),
            why(edge).into(),
        ];
        table.row(row);
    }
    let mut listed = status.changed.iter();
    if listed.all(|edge| edge.change == Change::Unknown) {
        console.line("no call that can be judged changes")?;
    }
    if !table.is_empty() {
        table.write(console.out, console.color)?;
    }
    if status.truncated {
        console.word("there are more; these are the worst")?;
    }
    if status.hidden > 0 {
        let depend = match status.hidden_depends {
            Some(edges) => format!("{edges} depend"),
            None => "it is not known how many depend".to_owned(),
        };
        console.word(&format!(
            "{} more edges change in namespaces whose graphs you may not read: {} are refused, and \
             {depend} on the request",
            status.hidden, status.hidden_refused
        ))?;
    }
    console.word(&format!(
        "{} edges stay as they are; of {} nothing can be told, since no pod of one end runs now \
         or it is outside the cluster",
        status.kept, status.unknown
    ))?;
    Ok(())
}

fn last(edge: &ChangedEdge, now: SystemTime) -> String {
    let last = edge.last_seen.parse::<k8s_openapi::jiff::Timestamp>().ok();
    // The cluster's clock is told in whole seconds.
    let ago = last.map(|last| now.duration_since(last.into()).unwrap_or_default());
    ago.map(number::age).unwrap_or_default()
}

fn why(edge: &ChangedEdge) -> String {
    let mut words = Vec::new();
    if !edge.reason.is_empty() {
        words.push(edge.reason.clone());
    }
    match edge.change {
        Change::Depends => words.push("depends on the request".to_owned()),
        Change::Unknown => words.push("no pod of one end runs now".to_owned()),
        Change::Refused | Change::Rerouted | Change::Allowed => {}
    }
    if edge.before != edge.after {
        words.push(format!(
            "{} -> {}",
            shares(&edge.before),
            shares(&edge.after)
        ));
    }
    escape::plain(&words.join("; "))
}

fn shares(shares: &[BackendShare]) -> String {
    let shares = shares.iter();
    let shares: Vec<String> = shares
        .map(|one| format!("{} {}", one.service, number::percent(one.share)))
        .collect();
    if shares.is_empty() {
        "nowhere".to_owned()
    } else {
        shares.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_a_namespace_says_is_named_as_not_tried() {
        let namespace = serde_json::json!({"kind": "Namespace", "metadata": {"name": "shop",
            "annotations": {"weft.dev/access": "auto", "weft.dev/mtls": "strict", "team": "a"},
            "labels": {"weft.dev/inject": "enabled"}}});
        let (mut gathered, mut out, mut err) = (Gathered::default(), Vec::new(), Vec::new());
        let mut console = Console {
            input: &mut std::io::empty(),
            out: &mut out,
            err: &mut err,
            color: false,
        };
        gather(namespace, "shop", &mut gathered, &mut console).unwrap();
        assert_eq!((gathered.spec.access.len(), gathered.untried), (1, 2));
        let words = String::from_utf8(err).unwrap();
        assert_eq!(
            words,
            "weft.dev/mtls of Namespace shop is not tried\n\
             weft.dev/inject of Namespace shop is not tried\n"
        );
    }

    #[test]
    fn object_that_would_be_deleted_is_named_by_its_kind_or_the_plural_of_that() {
        for (text, kind) in [
            ("TrafficTarget/read", "TrafficTarget"),
            ("traffictargets/read", "TrafficTarget"),
            ("TrafficPolicies/read", "TrafficPolicy"),
        ] {
            let gone = deleted(text, "shop").unwrap();
            assert_eq!((gone.kind.as_str(), gone.name.as_str()), (kind, "read"));
        }
        for text in ["Secret/read", "TrafficTarget", "TrafficTarget/", "read"] {
            let words = deleted(text, "shop").unwrap_err().to_string();
            assert!(words.contains("KIND/NAME, of TrafficTarget, "), "{words}");
        }
    }

    #[test]
    fn caller_that_does_not_run_now_is_named() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console {
            input: &mut std::io::empty(),
            out: &mut out,
            err: &mut err,
            color: false,
        };
        let gone = ChangedEdge {
            change: Change::Unknown,
            from: "shop/Job/nightly".to_owned(),
            ..ChangedEdge::default()
        };
        let status = DryRunStatus {
            unknown: 1,
            changed: vec![gone],
            ..DryRunStatus::default()
        };
        print(&status, SystemTime::now(), &mut console).unwrap();
        let out = String::from_utf8(out).unwrap();
        for word in [
            "no call that can be judged changes",
            "unknown",
            "shop/Job/nightly",
        ] {
            assert!(out.contains(word), "{word}: {out}");
        }
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("of 1 nothing can be told"), "{err}");
    }
}
