//! `weft suggest`: writes TrafficTargets that allow the calls of the last hour, or
//! ExternalServices for those that left the mesh.

mod called;
mod external;
mod gone;
mod observed_calls;
mod refusals;
mod reported;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use clap::Args;
use crds::labels::short_hash;
use crds::observe::DryRunSpec;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::ObjectList;
use serde_json::{Value, json};

use self::called::{Account, Ports};
use self::gone::Existing;
use self::observed_calls::{Calls, Traffics};
use super::ClusterCommand;
use super::dry_run::{self, Advice};
use crate::cluster::names::Named;
use crate::cluster::{Cluster, Refusal};
use crate::console::Console;
use crate::escape;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::{self, Format, NARROW, number};
use crate::traffic::select::{ENDS, Selected};
use crate::traffic::{IndexedGraph, Question, known};

/// The time for which the graph retains calls one by one, and the shortest part of that.
const TIMES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3_600)];
/// The time for which it retains routes.
const BY_ROUTE: Duration = Duration::from_secs(300);
/// What else helps if the dry run of the objects has no result.
const ADVICE: Advice = Advice {
    live: "`weft dry-run -f FILE --watch 60s`, with these objects as FILE, evaluates live calls",
    less: "--to RES suggests, and tries, less",
};

/// Arguments of `weft suggest`.
#[derive(Args, Debug)]
#[command(
    about = "Write TrafficTargets that allow exactly the calls that there are",
    long_about = "Prints TrafficTargets, with TCPRoutes or by the names of routes, for the calls \
                  of the last hour that mutual TLS proved and that were served, as the called \
                  pods' proxies say, and for no others. What is only persisted, unproven, failed \
                  or reported by its caller alone stands there as comments, and so do the numbers \
                  of calls that no rule allowed, by caller and port, and calls of accounts that do \
                  not exist any more, with when they were seen last. Routes are known of the last \
                  five minutes: with --routes, calls whose routes are not all known are allowed by \
                  their port, with a comment that says why. How many of the calls that failed were \
                  refused is known of these minutes alone as well, and of earlier ones some may \
                  have been: an edge with such is left out where only its port would limit it. \
                  --since 5m looks at these minutes alone. Of a controller that began less than an \
                  hour ago the error stream says of how many minutes it knows the calls. Up to 64 \
                  objects are then tried as `weft dry-run -f` does, and more are not; what it says \
                  goes to the error stream and changes no exit status, as do warnings of accounts \
                  that many share: look for them before you apply it. With --egress it prints \
                  ExternalServices for the hosts and addresses outside the mesh that were called \
                  instead, by the names that callers sent, and nothing is tried: know each host \
                  before you apply it.",
    after_help = "Example:\n  weft suggest --to deploy/cart -n shop > policy.yaml"
)]
pub(crate) struct Suggest {
    /// Only calls to this: KIND/NAME
    #[arg(long, value_name = "RES")]
    to: Option<String>,
    /// Calls of this time, 1m to 1h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = number::between(TIMES), allow_hyphen_values = true)]
    since: Duration,
    /// By routes of HTTPRouteGroups where those of all calls are known, else by port
    #[arg(long)]
    routes: bool,
    /// ExternalServices for calls that leave the mesh, and no TrafficTargets
    #[arg(long, conflicts_with = "routes")]
    egress: bool,
}

impl ClusterCommand for Suggest {
    const FORMATS: &'static [Format] = NARROW;

    fn must_be_readable(&self, _: &Global) -> Result<(), Failure> {
        self.to().map(drop)
    }

    /// Prints objects for `kubectl apply -f -`, as they follow from the cluster's calls.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let mut question = Question::window(self.since.min(BY_ROUTE))?;
        // The window has all of a shorter time.
        question.history = (self.since > BY_ROUTE).then_some(self.since);
        question.routes = self.routes;
        question.persisted = true;
        let traffic = IndexedGraph::fetch(cluster, &question).await?;
        let to = self.to()?;
        known::check(cluster, &traffic, to.as_ref()).await?;
        let to = to.map(|named| Selected::new(named, cluster.scope()));
        let edges = traffic.edges().iter();
        let edges = edges.filter(|edge| to.as_ref().is_none_or(|to| to.is_to(&traffic, edge)));
        if self.egress {
            return external::print(&traffic, edges, cluster.scope(), format, console);
        }
        let ports = ports(cluster).await?;
        let mut calls = Calls::of(&traffic, edges, &ports, cluster.scope(), self.routes);
        let existing = Existing::of(cluster, &calls).await;
        existing.leave_out_gone(&mut calls, &traffic, &ports);
        let objects = objects_of(&calls);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        if output::data(console, format, &list)? {
            // The list has no place for it, and silence would read as completeness.
            for word in calls.words() {
                console.word(&word)?;
            }
        } else {
            write(&calls, &objects, console)?;
        }
        caution(&calls, &objects, console)?;
        if let Some(minutes) = traffic.known_minutes() {
            console.word(&format!(
                "these are the calls of the last {minutes} min alone: of what was before, the \
                 controller knows at most who called whom, and neither whether it was served nor \
                 whether it was refused, so what was called then alone is left out, and a rule for \
                 a port may let pass what was refused then"
            ))?;
        }
        if !objects.is_empty() {
            try_out(cluster, objects, now, console).await?;
        }
        if let Some(word) = traffic.word() {
            console.word(&word)?;
        }
        Ok(Conclusion::Yes)
    }
}

impl Suggest {
    fn to(&self) -> Result<Option<Named>, Failure> {
        let to = self.to.as_deref();
        to.map(|text| Named::read(text, ENDS)).transpose()
    }
}

/// What each of the objects' ports is, since a TrafficPolicy names the other kind.
const PORTS: &str = "# Ports are those of containers, and not of Services.";

/// The objects as documents, with comments about what is not in them.
fn write(calls: &Calls, objects: &[Value], console: &mut Console<'_>) -> Result<(), Failure> {
    if !objects.is_empty() {
        console.line(PORTS)?;
    }
    for object in objects {
        console.line(&format!("---\n{}", output::yaml(object)?.trim_end()))?;
    }
    for word in calls.words() {
        console.line(&format!("# {}", escape::plain(&word)))?;
    }
    Ok(())
}

/// What to know before the objects are applied, in whatever form they were printed.
fn caution(calls: &Calls, objects: &[Value], console: &mut Console<'_>) -> Result<(), Failure> {
    for account in calls.shared() {
        console.word(&format!("warning: {}", calls.sharing.words(&account)))?;
    }
    if calls.unreported > 0 {
        console.word(&format!(
            "the suggestion is not complete: the controller is older than this command, and does \
             not say whether calls of {} of the edges that are left out were served; upgrade it \
             (`weft version` says which one is there)",
            calls.unreported
        ))?;
    }
    if objects.is_empty() && calls.unreported == 0 {
        console.word("no calls that were proven and served, nothing to suggest")?;
    } else if !objects.is_empty() {
        console.word(
            "before it closes anything: apply it with the namespace in mode audit (kubectl \
             annotate namespace NAMESPACE weft.dev/access=audit) and look at `weft edges --refused`",
        )?;
    }
    Ok(())
}

/// Prints what the objects would change for calls of the retained history. On the error stream, so
/// that the output stays what is applied; a user who may suggest and not apply gets a note.
async fn try_out(
    cluster: &Cluster,
    objects: Vec<Value>,
    now: SystemTime,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let spec = DryRunSpec {
        objects,
        ..DryRunSpec::default()
    };
    let answer = dry_run::submit_to(cluster, spec).await;
    let answer = answer.map_err(Refusal::into_failure);
    let tried = answer.map(|answer| answer.status.unwrap_or_default());
    let status = match tried {
        Ok(status) => status,
        Err(why) => {
            console.word(&format!("dry run: the objects were not tried: {why}"))?;
            return Ok(());
        }
    };
    console.word("dry run: what becomes of the recorded calls")?;
    let (mut table, mut words) = (Vec::<u8>::new(), Vec::<u8>::new());
    let mut buffered = Console {
        input: &mut std::io::empty(),
        out: &mut table,
        err: &mut words,
        color: false,
    };
    dry_run::print(&status, cluster.now(now), &mut buffered)?;
    for text in [table, words] {
        console.words(String::from_utf8_lossy(&text).trim_end())?;
    }
    if let Err(why) = dry_run::conclude(&status, ADVICE) {
        console.word(&format!("dry run: {why}"))?;
    }
    Ok(())
}

async fn ports(cluster: &Cluster) -> Result<Ports, Failure> {
    let place = cluster.scope();
    let place = place.map_or_else(String::new, |name| format!("namespaces/{name}/"));
    let services = format!("/api/v1/{place}services");
    let services: ObjectList<Service> = cluster.read("Services", &services).await?;
    let slices = format!("/apis/discovery.k8s.io/v1/{place}endpointslices");
    let slices: ObjectList<EndpointSlice> = cluster.read("EndpointSlices", &slices).await?;
    Ok(Ports::of(&services.items, &slices.items))
}

/// The longest name that stays readable.
const LONGEST_NAME: usize = 63;

/// Calls as TrafficTargets and TCPRoutes, the routes before the targets that name them.
///
/// Sources stand in one target only if they made the same calls: a target allows each of its
/// sources all of its rules.
fn objects_of(calls: &Calls) -> Vec<Value> {
    let mut targets: BTreeMap<(&Account, &Traffics), BTreeSet<&Account>> = BTreeMap::new();
    for ((destination, source, _), traffics) in &calls.facts {
        targets
            .entry((destination, traffics))
            .or_default()
            .insert(source);
    }
    let mut objects = BTreeMap::new();
    let mut last = Vec::new();
    for (((namespace, account), traffics), sources) in targets {
        let route = route_name(account, &traffics.ports);
        let ports: Vec<u16> = traffics.ports.iter().copied().collect();
        let tcp = json!({
            "apiVersion": "specs.smi-spec.io/v1alpha4",
            "kind": "TCPRoute",
            "metadata": {"name": route, "namespace": namespace},
            "spec": {"matches": {"ports": ports}},
        });
        objects.insert((namespace.clone(), route.clone()), tcp);
        let mut rules = vec![json!({"kind": "TCPRoute", "name": route})];
        for (group, matches) in &traffics.routes {
            let matches: Vec<&String> = matches.iter().collect();
            rules.push(json!({"kind": "HTTPRouteGroup", "name": group, "matches": matches}));
        }
        let sources: Vec<Value> = sources
            .into_iter()
            .map(|(namespace, name)| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
            .collect();
        let spec = json!({
            "destination": {"kind": "ServiceAccount", "name": account, "namespace": namespace},
            "sources": sources,
            "rules": rules,
        });
        last.push(json!({
            "apiVersion": "access.smi-spec.io/v1alpha4",
            "kind": "TrafficTarget",
            "metadata": {"name": target_name(account, &spec), "namespace": namespace},
            "spec": spec,
        }));
    }
    objects.into_values().chain(last).collect()
}

/// The same ports have the same name in every run. The hash distinguishes account `web` with port
/// 80 and 8080 from account `web-80` with port 8080.
fn route_name(account: &str, ports: &BTreeSet<u16>) -> String {
    let hash = short_hash(&json!([account, ports]).to_string());
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    shortened(format!("{account}-{}-{}", ports.join("-"), &hash[..8]))
}

/// The name is made of the content, so that a second run changes what is there and adds no twin.
fn target_name(account: &str, spec: &Value) -> String {
    let what = json!([spec["destination"], spec["rules"]]).to_string();
    let hash = short_hash(&what);
    shortened(format!("{account}-{}", &hash[..8]))
}

fn shortened(name: String) -> String {
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let hash = short_hash(&name);
    let kept: String = name.chars().take(LONGEST_NAME - 1 - hash.len()).collect();
    format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests;
