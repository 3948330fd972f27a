//! `weft convert`: writes TrafficSplits as routes of the Gateway API.

use std::collections::BTreeMap;

use clap::Args;
use crds::convert::{SmiKind, convert};
use crds::smi::STORAGE_VERSION;
use gateway_api::convert::{Around, from_split};
use gateway_api::{HTTPRoute, TCPRoute};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::{Cluster, existing};
use crate::console::{self, Console};
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::{self, Format, NARROW};
use crate::yaml::tree;

/// Arguments of `weft convert`.
#[derive(Args, Debug)]
#[command(
    about = "Write TrafficSplits as HTTPRoutes and TCPRoutes of the Gateway API",
    long_about = "Prints routes of the Gateway API that do what TrafficSplits do: an HTTPRoute, or \
                  for ports whose bytes are opaque a TCPRoute. The HTTPRouteGroups and Services \
                  that a split names must be among the files. What no route can say exactly goes \
                  to the error stream, as NAMESPACE/NAME: FIELD: why, and then the exit status is \
                  1; look at each before you apply. So does a route that would replace another one \
                  of its name in the cluster: it is left out. TrafficTargets have no counterpart \
                  and stay. While a route holds for a port, a split of it has no effect: apply the \
                  routes, look at weft routes svc/NAME --rules, then delete the splits.",
    after_help = "Example:\n  weft convert --from-cluster -n shop > routes.yaml"
)]
pub(crate) struct Convert {
    /// Manifests; - is the standard input
    #[arg(
        short,
        long = "filename",
        value_name = "FILE",
        num_args = 1..,
        required_unless_present = "from_cluster",
        conflicts_with = "from_cluster"
    )]
    files: Vec<String>,
    /// Those that are in the cluster, of the namespace or with -A of all
    #[arg(long)]
    from_cluster: bool,
    /// The domain under which the cluster's DNS names Services
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
}

/// Kinds that are read of a cluster: how each object names its own, and the path of all.
const READ: [(&str, &str, &str); 3] = [
    (
        "split.smi-spec.io/v1alpha4",
        "TrafficSplit",
        "trafficsplits",
    ),
    (
        "specs.smi-spec.io/v1alpha4",
        "HTTPRouteGroup",
        "httproutegroups",
    ),
    ("v1", "Service", "services"),
];
/// Kinds of the routes that are printed: how each is called, and the versions that the mesh reads.
const WRITTEN: [(&str, &str, &[&str]); 2] = [
    ("HTTPRoute", "httproutes", HTTPRoute::VERSIONS),
    ("TCPRoute", "tcproutes", TCPRoute::VERSIONS),
];

impl Convert {
    /// Prints the routes.
    ///
    /// # Errors
    /// When a file or the cluster cannot be read. Nothing is printed then.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let format = global.format(NARROW)?;
        if self.from_cluster {
            let cluster = Cluster::connect(global).await?;
            return self.of_cluster(&cluster, format, console).await;
        }
        global.in_one_namespace("objects in files name their namespaces")?;
        let namespace = global.namespace.as_deref().unwrap_or("default");
        let mut found = self.nothing();
        for name in &self.files {
            let manifest = console::read(name, console)?;
            let bad = |why: String| Failure::usage(format!("{name}:{why}"));
            let documents = tree::parse(&manifest.text).map_err(|error| bad(error.to_string()))?;
            for document in documents {
                let value = document.value().map_err(|error| bad(error.to_string()))?;
                found.add(value, namespace);
            }
        }
        found.print(format, console)
    }

    /// Those of a cluster.
    ///
    /// # Errors
    /// When it does not respond, or the user may not read what a split names.
    pub(super) async fn of_cluster(
        &self,
        cluster: &Cluster,
        format: Format,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let mut found = self.nothing();
        let place = cluster.scope().map(|name| format!("/namespaces/{name}"));
        let place = place.unwrap_or_default();
        for (api_version, kind, plural) in READ {
            let root = if api_version == "v1" { "api" } else { "apis" };
            let path = format!("/{root}/{api_version}{place}/{plural}");
            let list: Value = cluster.read(plural, &path).await?;
            for item in list["items"].as_array().into_iter().flatten() {
                let mut object = item.clone();
                object["apiVersion"] = json!(api_version);
                object["kind"] = json!(kind);
                found.add(object, cluster.namespace());
            }
        }
        if found.around.splits.is_empty() {
            existing::must_be_in_a_namespace(cluster).await?;
        }
        found.routes.read(cluster, &place).await?;
        found.print(format, console)
    }

    fn nothing(&self) -> Found {
        let around = Around {
            cluster_domain: self.cluster_domain.clone(),
            ..Around::default()
        };
        Found {
            around,
            unread: BTreeMap::new(),
            routes: Routes::default(),
        }
    }
}

/// The objects that are converted, and those that they name.
struct Found {
    around: Around,
    /// What is wrong with objects that cannot be read, by their names.
    unread: BTreeMap<String, String>,
    routes: Routes,
}

/// Routes that are in the cluster already, or are printed.
#[derive(Default)]
struct Routes {
    /// The version in which the cluster serves each kind.
    served: BTreeMap<&'static str, String>,
    /// Their parents, by kind, namespace and name.
    parents: BTreeMap<[String; 3], Value>,
    /// Why those of the cluster are not known.
    unseen: Option<String>,
}

impl Routes {
    /// Reads those of a cluster, at this place of its paths.
    ///
    /// # Errors
    /// When it does not respond. A user may have no right to them.
    async fn read(&mut self, cluster: &Cluster, place: &str) -> Result<(), Failure> {
        for (kind, plural, versions) in WRITTEN {
            for version in versions {
                let api_version = format!("{}/{version}", gateway_api::GROUP);
                let path = format!("/apis/{api_version}{place}/{plural}");
                let list: Value = match cluster.try_read(plural, &path).await {
                    Ok(list) => list,
                    Err(refusal) if refusal.is_missing() => continue,
                    Err(refusal) if refusal.code() == Some(403) => {
                        self.unseen = Some(refusal.into_failure().to_string());
                        continue;
                    }
                    Err(refusal) => return Err(refusal.into_failure()),
                };
                for route in list["items"].as_array().into_iter().flatten() {
                    let parents = route["spec"]["parentRefs"].clone();
                    self.parents.insert(key(kind, route), parents);
                }
                self.served.insert(kind, api_version);
                break;
            }
        }
        Ok(())
    }

    /// Adds a route that is to be printed, in the version that the cluster serves.
    ///
    /// # Errors
    /// When it would replace one that is for other parents.
    fn add(&mut self, route: &mut Value) -> Result<(), String> {
        let kind = route["kind"].as_str().unwrap_or_default().to_owned();
        if let Some(api_version) = self.served.get(&*kind) {
            route["apiVersion"] = api_version.as_str().into();
        }
        let (key, parents) = (key(&kind, route), &route["spec"]["parentRefs"]);
        match self.parents.get(&key) {
            Some(known) if known != parents => {
                let [_, _, name] = key;
                Err(format!(
                    "metadata.name: there is a {kind} {name} for other parents, which this route \
                     would replace, so it is left out; give the TrafficSplit another name first"
                ))
            }
            Some(_) => Ok(()),
            None => {
                self.parents.insert(key, parents.clone());
                Ok(())
            }
        }
    }
}

/// By which a route is known.
fn key(kind: &str, route: &Value) -> [String; 3] {
    let text = |field: &str| route["metadata"][field].as_str().unwrap_or_default();
    [kind, text("namespace"), text("name")].map(str::to_owned)
}

impl Found {
    /// Adds an object, or those of a list. Of other kinds nothing is read.
    fn add(&mut self, mut object: Value, namespace: &str) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if kind.ends_with("List")
            && let Some(items) = object.get_mut("items").and_then(Value::as_array_mut)
        {
            for item in std::mem::take(items) {
                self.add(item, namespace);
            }
            return;
        }
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata.filter(|metadata| !metadata.contains_key("namespace")) {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
        let added = match SmiKind::read(&api_version, &kind) {
            Some((smi @ SmiKind::TrafficSplit, _)) => {
                stored(&object, smi).map(|split| self.around.splits.push(split))
            }
            Some((smi @ SmiKind::HttpRouteGroup, _)) => {
                stored(&object, smi).map(|group| self.around.groups.push(group))
            }
            None if kind == SmiKind::TrafficSplit.name() => {
                Err(format!("apiVersion: {api_version:?} is no version of it"))
            }
            None if (&*api_version, &*kind) == ("v1", "Service") => {
                read(object.clone()).map(|service| self.around.services.push(service))
            }
            _ => Ok(()),
        };
        if let Err(why) = added {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            let name = format!("{}/{}", text("namespace"), text("name"));
            self.unread.insert(name, why);
        }
    }

    /// Prints the routes, and what cannot be said by any.
    fn print(mut self, format: Format, console: &mut Console<'_>) -> Result<Conclusion, Failure> {
        let mut unsaid: Vec<String> = self
            .unread
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        let mut objects = Vec::new();
        let splits = &mut self.around.splits;
        splits.sort_by_key(|split| {
            let metadata = &split.metadata;
            (metadata.namespace.clone(), metadata.name.clone())
        });
        for split in &self.around.splits {
            let converted = from_split(split, &self.around);
            let metadata = &split.metadata;
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            let name = metadata.name.as_deref().unwrap_or_default();
            let lines = converted.unsaid.into_iter();
            unsaid.extend(lines.map(|line| format!("{namespace}/{name}: {line}")));
            for mut object in converted.objects {
                match self.routes.add(&mut object) {
                    Ok(()) => objects.push(object),
                    Err(line) => unsaid.push(format!("{namespace}/{name}: {line}")),
                }
            }
        }
        if let Some(why) = self.routes.unseen.filter(|_| !objects.is_empty()) {
            unsaid.push(format!(
                "{why}; see that no route of another use has one of these names before you apply"
            ));
        }
        for line in &unsaid {
            console.word(line)?;
        }
        if self.around.splits.is_empty() && unsaid.is_empty() {
            console.word("there is no TrafficSplit to convert")?;
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        if !output::data(console, format, &list)? {
            for object in &objects {
                let text = format!("---\n{}\n", output::yaml(object)?.trim_end());
                console.out.write_all(text.as_bytes())?;
            }
        }
        Ok(if unsaid.is_empty() {
            Conclusion::Yes
        } else {
            Conclusion::No
        })
    }
}

/// An object of SMI, in the version in which it is stored.
fn stored<K: DeserializeOwned>(object: &Value, kind: SmiKind) -> Result<K, String> {
    let version = format!("{}/{STORAGE_VERSION}", kind.group());
    read(convert(object, &version).map_err(|error| error.to_string())?)
}

fn read<K: DeserializeOwned>(object: Value) -> Result<K, String> {
    serde_json::from_value(object).map_err(|error| format!("cannot be read: {error}"))
}
