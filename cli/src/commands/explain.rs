//! `weft explain`: explains whether a call passes, and why.

mod bare;
mod described;
mod port;

use std::time::SystemTime;

use clap::Args;
use crds::observe::{
    API_VERSION, Explanation, ExplanationSpec, ExplanationStatus, ExplanationVerdict, Fix, From,
    Header, Resource, To,
};
use http::Request;

use super::ClusterCommand;
use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::{Cluster, Refusal, existing, ports};
use crate::console::Console;
use crate::escape;
use crate::failure::{Conclusion, Failure};
use crate::global::{Global, namespace};
use crate::output::{self, Format};

/// Kinds that can call.
pub(super) const FROM: &[ResourceKind] = &[
    ResourceKind::Deployment,
    ResourceKind::StatefulSet,
    ResourceKind::DaemonSet,
    ResourceKind::Job,
    ResourceKind::CronJob,
    ResourceKind::Rollout,
    ResourceKind::Pod,
    ResourceKind::ReplicaSet,
    ResourceKind::ReplicationController,
    ResourceKind::ServiceAccount,
];
/// What can be called.
pub(super) const TO: &[ResourceKind] = &[
    ResourceKind::Service,
    ResourceKind::Deployment,
    ResourceKind::StatefulSet,
    ResourceKind::DaemonSet,
    ResourceKind::Job,
    ResourceKind::CronJob,
    ResourceKind::Rollout,
    ResourceKind::Pod,
    ResourceKind::ReplicaSet,
    ResourceKind::ReplicationController,
    ResourceKind::External,
    ResourceKind::Gateway,
];

/// Schemes of the URLs that clients of a Gateway call.
const SCHEMES: [&str; 2] = ["https://", "http://"];

/// Arguments of `weft explain`.
#[derive(Args, Debug)]
#[command(
    about = "Say what becomes of a call, why, and what would let it pass",
    long_about = "Says whether a call would pass, who decides that, and which rule or missing \
                  rule is the reason. FROM is deploy/web, sa/web and the like, or outside for a \
                  caller without a proxy. A name without a kind means the workload that has it, as \
                  TO first the Service; which one is printed. PORT is a number, or a Service's \
                  name for it; of a headless Service the pods' own. From outside to \
                  gateway/NAME, PATH is the URL that the client calls. Where rules or splits \
                  look at the host, say it with -H: every request has one. Where a route of the \
                  Gateway API decides, its rule is named, and -o wide says why earlier rules do \
                  not fit. see names a line of docs/applications.md that the call meets. -o fix \
                  prints objects that allow this call, and what passes besides. Exit status 1 if \
                  it is refused, 3 if that is not known.",
    after_help = "Example:\n  weft explain deploy/web svc/cart:80 DELETE /items/7 -n shop"
)]
pub(crate) struct Explain {
    /// Who calls: KIND/NAME, the name of a workload, or outside
    #[arg(value_name = "FROM")]
    from: String,
    /// What is called: KIND/NAME[:PORT], or NAME[:PORT] of a Service or a workload
    #[arg(value_name = "TO")]
    to: String,
    /// Method of the request
    #[arg(value_name = "METHOD")]
    method: Option<String>,
    /// Path of the request; to a Gateway the URL
    #[arg(value_name = "PATH", requires = "method")]
    path: Option<String>,
    /// A header of the request; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A connection of bytes, no request
    #[arg(long, conflicts_with_all = ["method", "path", "headers"])]
    tcp: bool,
    /// Namespace of the caller, if another one
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    from_namespace: Option<String>,
    /// Namespace of the called, if another one
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    to_namespace: Option<String>,
}

impl ClusterCommand for Explain {
    const FORMATS: &'static [Format] = &[
        Format::Table,
        Format::Wide,
        Format::Json,
        Format::Yaml,
        Format::Fix,
    ];

    fn must_be_readable(&self, global: &Global) -> Result<(), Failure> {
        global.in_one_namespace("each end of a call is in one namespace")?;
        // What a name without a kind, or one of a port, means only the cluster knows.
        let from = bare::readable(&self.from, FROM);
        let (to, _) = port::split(&self.to)?;
        self.question("default", from, bare::readable(to, TO))
            .map(drop)
    }

    /// Prints the verdict.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let namespace = cluster.namespace();
        let in_namespace =
            |named: &Option<String>| cluster.about(Some(named.as_deref().unwrap_or(namespace)));
        let [calling, called] = [&self.from_namespace, &self.to_namespace].map(in_namespace);
        let (object, port) = port::split(&self.to)?;
        let from = bare::named(&calling, &self.from, FROM, console).await?;
        let object = bare::named(&called, object, TO, console).await?;
        let to = port::numbered(&called, &object, TO, port, console).await?;
        let spec = self.question(namespace, &from, &to)?;
        let answer = request_explanation(cluster, spec).await?;
        let Some(status) = &answer.status else {
            return Err(Failure::unknown("the explanation has no status"));
        };
        if status.verdict == ExplanationVerdict::Unknown {
            must_be_there(&calling, &from, FROM).await?;
            must_be_there(&called, &to, TO).await?;
        }
        self.cautions(&calling, &from, console).await?;
        if format == Format::Fix {
            return print_fix(status, console);
        }
        if !output::data(console, format, &answer)? {
            for line in described::lines(status, format == Format::Wide, cluster.now(now)) {
                console.line(&escape::plain(&line))?;
            }
        }
        match status.verdict {
            ExplanationVerdict::Allowed => Ok(Conclusion::Yes),
            ExplanationVerdict::Refused | ExplanationVerdict::Mixed => Ok(Conclusion::No),
            ExplanationVerdict::Unknown => Ok(Conclusion::Unknown),
        }
    }
}

impl Explain {
    /// Prints parts of the query that were probably not meant.
    async fn cautions(
        &self,
        calling: &Cluster,
        from: &str,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let method = self.method.as_deref();
        if let Some(unusual) = method.and_then(crds::smi::validation::unusual_method) {
            console.word(&format!("METHOD {unusual}"))?;
        }
        // An account may be queried before it exists, and be misspelt.
        let account = Named::read_one(from, &[ResourceKind::ServiceAccount]).ok();
        if let Some((named, name)) = account
            && let Ok(None) = existing::read(calling, named.kind, &name).await
        {
            let absent = existing::absent(calling, (named.kind, &name), &[]).await;
            console.word(&format!("{absent}; this is what would become of its calls"))?;
        }
        Ok(())
    }

    /// The typed arguments as a query of the API; the ends with their kinds.
    fn question(&self, namespace: &str, from: &str, to: &str) -> Result<ExplanationSpec, Failure> {
        let place = |said: &Option<String>| said.clone().unwrap_or_else(|| namespace.to_owned());
        let nowhere = |option: &str, said: &Option<String>| match said {
            Some(place) => Err(Failure::usage(format!(
                "--{option} {place}: what is outside the mesh is in no namespace; leave --{option} \
                 out"
            ))),
            None => Ok(()),
        };
        let from = if from == bare::OUTSIDE {
            nowhere("from-namespace", &self.from_namespace)?;
            From {
                outside: true,
                ..From::default()
            }
        } else {
            let (named, name) = Named::read_one(from, FROM)?;
            let named = named.without_port(from, "a caller has no port")?;
            From {
                kind: named.kind.as_str().to_owned(),
                namespace: place(&self.from_namespace),
                name,
                outside: false,
            }
        };
        let (named, name) = Named::read_one(to, TO)?;
        let to = To {
            kind: named.kind.as_str().to_owned(),
            namespace: match named.kind {
                ResourceKind::External => {
                    nowhere("to-namespace", &self.to_namespace)?;
                    String::new()
                }
                _ => place(&self.to_namespace),
            },
            name,
            port: named.port,
        };
        if named.kind == ResourceKind::External && to.name.contains('/') {
            return Err(Failure::usage(format!(
                "ExternalService {}: name one of its hosts or addresses, such as \
                 external/api.example:443",
                to.name
            )));
        }
        if named.kind == ResourceKind::Gateway {
            self.must_be_of_client(&from, &to)?;
        }
        if from.outside && named.kind == ResourceKind::External {
            return Err(Failure::usage(
                "a call from outside to outside passes no proxy: one end must be in the mesh",
            ));
        }
        let header = |text: &String| match text.split_once(':') {
            Some((name, value)) if !name.trim().is_empty() => Ok(Header {
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
            }),
            _ => Err(Failure::usage(format!("-H {text:?}: must be NAME: VALUE"))),
        };
        if let Some(path) = &self.path
            && !path.starts_with('/')
            && named.kind != ResourceKind::Gateway
        {
            return Err(Failure::usage(format!("path {path:?} must begin with /")));
        }
        Ok(ExplanationSpec {
            from,
            to,
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.headers.iter().map(header).collect::<Result<_, _>>()?,
            tcp: self.tcp,
        })
    }
}

impl Explain {
    /// Checks what is said of a call to a Gateway.
    ///
    /// # Errors
    /// When no client calls a Gateway so.
    fn must_be_of_client(&self, from: &From, to: &To) -> Result<(), Failure> {
        let name = &to.name;
        if !from.outside {
            return Err(Failure::usage(format!(
                "gateway/{name}: a Gateway looks at no identity of its clients; say outside in \
                 place of {}",
                self.from
            )));
        }
        if let Some(port) = to.port {
            return Err(Failure::usage(format!(
                "gateway/{name}:{port}: the URL has the port; leave it out"
            )));
        }
        let url = self.path.as_deref().unwrap_or_default();
        if SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "gateway/{name}: PATH {url:?} is no URL; say METHOD and the URL that the client calls, \
             such as GET https://HOST/PATH"
        )))
    }
}

/// Ends if an end of a call does not exist, about which the API reports nothing more. Without the
/// right to see the object the API's own result is printed.
///
/// # Errors
/// When there is no such object, or a Service has no such port, with the nearest that there is.
async fn must_be_there(
    cluster: &Cluster,
    text: &str,
    allowed: &[ResourceKind],
) -> Result<(), Failure> {
    if text == bare::OUTSIDE {
        return Ok(());
    }
    let (named, name) = Named::read_one(text, allowed)?;
    // What is outside is no object, and an account may be queried before it exists.
    if [ResourceKind::External, ResourceKind::ServiceAccount].contains(&named.kind) {
        return Ok(());
    }
    match existing::read(cluster, named.kind, &name).await {
        Ok(None) => Err(existing::absent(cluster, (named.kind, &name), &[]).await),
        Ok(Some(service)) if named.kind == ResourceKind::Service => {
            ports::must_be_of(&service, &name, named.port)
        }
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// The explanation of a call.
///
/// # Errors
/// When it is not known.
async fn request_explanation(
    cluster: &Cluster,
    spec: ExplanationSpec,
) -> Result<Explanation, Failure> {
    let answer = try_explain(cluster, spec).await;
    answer.map_err(|refusal| refusal.into_failure())
}

/// The same; the caller distinguishes a refusal from a failed connection.
///
/// # Errors
/// When it is not known.
pub(crate) async fn try_explain(
    cluster: &Cluster,
    spec: ExplanationSpec,
) -> Result<Explanation, Refusal> {
    let what = Resource::Explanations.plural();
    let mut places = vec![spec.to.namespace.clone(), spec.from.namespace.clone()];
    places.retain(|place| !place.is_empty());
    places.dedup();
    let question = Explanation {
        api_version: API_VERSION.to_owned(),
        kind: Resource::Explanations.kind().to_owned(),
        spec,
        status: None,
    };
    let body = serde_json::to_vec(&question);
    let body = body.map_err(|error| Refusal::of(what, kube::Error::SerdeError(error)))?;
    let explain_in = async |place: &str| {
        let request = Request::post(Resource::Explanations.path(Some(place), None))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.clone())
            .map_err(|error| Refusal::of(what, kube::Error::HttpError(error)))?;
        cluster.try_request(what, request).await
    };
    let last = places.pop();
    // Without the right to query in the called side's namespace, the caller's own namespace gives a
    // shorter result.
    for place in &places {
        match explain_in(place).await {
            Err(refusal) if refusal.is_forbidden() => {}
            answer => return answer,
        }
    }
    explain_in(last.as_deref().unwrap_or(cluster.namespace())).await
}

/// Objects for `kubectl apply -f -`; what no object can repair goes to the error stream.
fn print_fix(status: &ExplanationStatus, console: &mut Console<'_>) -> Result<Conclusion, Failure> {
    if status.verdict == ExplanationVerdict::Unknown {
        let why = format!("it is not known: {}", status.reason);
        return Err(Failure::unknown(why));
    }
    let Some(fix) = &status.fix else {
        let why = match status.verdict {
            ExplanationVerdict::Allowed => {
                "the call is allowed, there is nothing to mend".to_owned()
            }
            verdict => {
                let why = match described::hidden(status) {
                    Some(owners) => format!("{owners}, and what would mend it"),
                    None => ": nothing is known that would mend it".to_owned(),
                };
                format!("{} {}{why}", verdict.as_str(), status.reason)
            }
        };
        console.word(&why)?;
        return Ok(if status.verdict == ExplanationVerdict::Allowed {
            Conclusion::Yes
        } else {
            Conclusion::No
        });
    };
    for warning in &fix.warnings {
        console.word(&format!("warning: {warning}"))?;
    }
    for command in &fix.commands {
        console.word(&format!("no object mends this; run: {command}"))?;
    }
    console.out.write_all(yaml(fix)?.as_bytes())?;
    Ok(if fix.objects.is_empty() {
        Conclusion::No
    } else {
        Conclusion::Yes
    })
}

/// The objects of a fix, as `kubectl apply` takes them.
///
/// # Errors
/// When one of them has no YAML.
pub(crate) fn yaml(fix: &Fix) -> Result<String, Failure> {
    let mut text = String::new();
    for object in &fix.objects {
        text.push_str(&format!("---\n{}\n", output::yaml(object)?.trim_end()));
    }
    Ok(text)
}
