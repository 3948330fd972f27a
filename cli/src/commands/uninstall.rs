//! `weft uninstall`: prints the mesh's cluster-wide objects as manifests for `kubectl delete -f
//! -`.
//!
//! They are all known without a cluster: the command is for a mesh whose namespace was deleted
//! first, where leftover webhooks and APIServices block pods and the deletion of namespaces. What
//! else of the cluster still needs the mesh is read from it, and printed to the error stream with
//! the commands that end it.

mod remaining;

use clap::Args;

use crate::cluster::Cluster;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::kinds;

const ADMISSION: &str = "admissionregistration.k8s.io/v1";
const AGGREGATION: &str = "apiregistration.k8s.io/v1";
const EXTENSIONS: &str = "apiextensions.k8s.io/v1";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// Kind of the definitions.
const DEFINITION: &str = "CustomResourceDefinition";

/// apiVersion, kind and name of what the chart makes in no namespace, in the order in which it
/// goes: first what the API server calls, then bindings, then what they bind.
const OBJECTS: [(&str, &str, &str); 33] = [
    (ADMISSION, "MutatingWebhookConfiguration", "weft-injector"),
    (
        ADMISSION,
        "ValidatingWebhookConfiguration",
        "weft-validator",
    ),
    (AGGREGATION, "APIService", "v1alpha1.metrics.smi-spec.io"),
    (AGGREGATION, "APIService", "v1alpha2.metrics.smi-spec.io"),
    (AGGREGATION, "APIService", "v1alpha1.observe.weft.dev"),
    (
        ADMISSION,
        "ValidatingAdmissionPolicyBinding",
        "weft-headers",
    ),
    (
        ADMISSION,
        "ValidatingAdmissionPolicyBinding",
        "weft-pod-status",
    ),
    (ADMISSION, "ValidatingAdmissionPolicy", "weft-headers"),
    (ADMISSION, "ValidatingAdmissionPolicy", "weft-pod-status"),
    (RBAC, "ClusterRoleBinding", "weft-aggregated"),
    (RBAC, "ClusterRoleBinding", "weft-controller"),
    (RBAC, "ClusterRoleBinding", "weft-gateways"),
    (RBAC, "ClusterRoleBinding", "weft-injector"),
    (RBAC, "ClusterRoleBinding", "weft-leave"),
    (RBAC, "ClusterRoleBinding", "weft-leave-aggregated"),
    (RBAC, "ClusterRoleBinding", "weft-network-policies"),
    (RBAC, "ClusterRoleBinding", "weft-observe-scopes"),
    (RBAC, "ClusterRole", "weft-aggregated"),
    (RBAC, "ClusterRole", "weft-controller"),
    (RBAC, "ClusterRole", "weft-fault-operator"),
    (RBAC, "ClusterRole", "weft-gateways"),
    (RBAC, "ClusterRole", "weft-incident"),
    (RBAC, "ClusterRole", "weft-injector"),
    (RBAC, "ClusterRole", "weft-leave"),
    (RBAC, "ClusterRole", "weft-leave-aggregated"),
    (RBAC, "ClusterRole", "weft-metrics-view"),
    (RBAC, "ClusterRole", "weft-network-policies"),
    (RBAC, "ClusterRole", "weft-observe-edit"),
    (RBAC, "ClusterRole", "weft-observe-scopes"),
    (RBAC, "ClusterRole", "weft-observe-view"),
    (RBAC, "ClusterRole", "weft-smi-edit"),
    (RBAC, "ClusterRole", "weft-smi-view"),
    (RBAC, "ClusterRole", "weft-tap"),
];
/// What the chart makes in a namespace that is neither the mesh's nor a user's: kind, name, namespace.
const IN_OTHER_NAMESPACES: (&str, &str, &str) = ("RoleBinding", "weft-aggregated", "kube-system");

/// Arguments of `weft uninstall`.
#[derive(Args, Debug)]
#[command(
    about = "Print what is left of a mesh outside its namespace, to be deleted",
    long_about = "Prints every object of the mesh that is in no namespace, webhooks and APIServices \
                  first, as manifests for kubectl delete: for a mesh whose namespace or release is \
                  gone, or which helm did not install. Definitions of SMI's and of \
                  Weft's kinds are printed with --definitions only: all objects of these kinds \
                  go with them. On the error stream stand the commands for what the cluster still \
                  has of the mesh: kubectl patch for definitions that its injector converts for, \
                  kubectl rollout restart and kubectl delete for pods with a proxy, and for Gateways. \
                  Exit status 1 while there are such pods, 3 if the cluster does not answer; what is \
                  printed to be deleted is the same.",
    after_help = "Example:\n  weft uninstall | kubectl delete --ignore-not-found -f -"
)]
pub(crate) struct Uninstall {
    /// Also the definitions of SMI's and Weft's kinds, whose objects all go with them
    #[arg(long)]
    definitions: bool,
}

impl Uninstall {
    /// Prints the manifests, and what of the cluster still needs the mesh.
    ///
    /// # Errors
    /// When a format is requested, or the output is closed.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        global.without_output("manifests")?;
        self.manifests(console)?;
        match Cluster::connect(global).await {
            Ok(cluster) => remaining::report(&cluster, console).await,
            Err(failure) => remaining::unknown("what still needs the mesh", &failure, console),
        }
    }

    fn manifests(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        for (api_version, kind, name) in OBJECTS {
            console.line(&manifest(api_version, kind, &format!("name: {name}")))?;
        }
        let (kind, name, namespace) = IN_OTHER_NAMESPACES;
        let metadata = format!("name: {name}, namespace: {namespace}");
        console.line(&manifest(RBAC, kind, &metadata))?;
        if self.definitions {
            let all = kinds::all().into_iter().map(|kind| kind.definition());
            let cluster_wide = [
                kinds::authority_definition(),
                kinds::revocation_definition(),
            ];
            for name in all.chain(cluster_wide) {
                let metadata = format!("name: {name}");
                console.line(&manifest(EXTENSIONS, DEFINITION, &metadata))?;
            }
        } else {
            console.word(
                "definitions of SMI's and Weft's kinds stay, with all their objects; \
                 --definitions prints them too",
            )?;
        }
        console.word(
            "where another product serves metrics.smi-spec.io, take its two APIServices out",
        )?;
        Ok(())
    }
}

/// What `kubectl delete -f` needs of an object.
fn manifest(api_version: &str, kind: &str, metadata: &str) -> String {
    format!("---\napiVersion: {api_version}\nkind: {kind}\nmetadata: {{{metadata}}}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use clap::Parser as _;
    use serde::Deserialize as _;
    use serde_json::Value;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::console::Streams;

    fn printed(line: &str) -> Vec<Value> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Uninstall(command) = cli.command else {
            panic!("{line}");
        };
        let mut streams = Streams::default();
        command.manifests(&mut streams.console()).unwrap();
        let (out, _) = streams.texts();
        let documents = serde_yaml_ng::Deserializer::from_str(&out);
        documents
            .map(|one| Value::deserialize(one).unwrap())
            .collect()
    }

    /// Kind and name of each.
    fn names(objects: &[Value]) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = objects.iter();
        names
            .map(|one| (text(&one["kind"]), text(&one["metadata"]["name"])))
            .collect()
    }

    /// Kinds that are in no namespace. `weft-test` of `helm test` is skipped: a Namespace of that
    /// name may be a user's.
    const IN_NO_NAMESPACE: [&str; 8] = [
        "APIService",
        "ClusterRole",
        "ClusterRoleBinding",
        DEFINITION,
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    ];

    /// Name of an object whose metadata begin with this line of its template, each that it has.
    fn written(text: &str, line: &str) -> Vec<String> {
        let all = |name: &str, variable: &str, values: [&str; 2]| {
            let each = values.map(|value| name.replace(variable, value));
            each.to_vec()
        };
        if let Some(name) = line.strip_prefix("  name: ") {
            return match name {
                name if name.contains("{{ $role }}") => all(name, "{{ $role }}", ["view", "edit"]),
                name if name.contains("{{ $version }}") => {
                    all(name, "{{ $version }}", ["v1alpha1", "v1alpha2"])
                }
                name => vec![name.to_owned()],
            };
        }
        let included = line.split('"').nth(1).unwrap();
        let (_, defined) = text
            .split_once(&format!("define \"{included}\" -}}}}\n"))
            .unwrap();
        let name = defined.lines().next().unwrap().strip_prefix("name: ");
        vec![name.unwrap().to_owned()]
    }

    /// Kind and name of all that the templates of a folder make in no namespace.
    fn made(folder: &Path, all: &mut BTreeSet<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                made(&path, all);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                let kind = line.strip_prefix("kind: ").unwrap_or_default();
                if !IN_NO_NAMESPACE.contains(&kind) {
                    continue;
                }
                let mut metadata = lines.by_ref().skip_while(|line| *line != "metadata:");
                metadata.next();
                let begins = |line: &&str| line.starts_with("  name: ") || line.contains("include");
                let first = metadata.find(begins).unwrap();
                let names = written(&text, first).into_iter();
                all.extend(names.map(|name| (kind.to_owned(), name)));
            }
        }
    }

    // Claims: attack-95
    #[test]
    fn all_that_the_chart_makes_outside_namespaces_is_printed() {
        let mut all = BTreeSet::new();
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft/templates");
        made(&chart, &mut all);
        let objects = printed("weft uninstall --definitions");
        let named = names(&objects).into_iter();
        let (in_none, others): (BTreeSet<_>, BTreeSet<_>) =
            named.partition(|(kind, _)| IN_NO_NAMESPACE.contains(&kind.as_str()));
        assert_eq!(in_none, all);
        let (kind, name, _) = IN_OTHER_NAMESPACES;
        assert_eq!(others, BTreeSet::from([(kind.to_owned(), name.to_owned())]));
    }

    // Claims: attack-95
    #[test]
    fn webhooks_are_printed_first_and_definitions_on_request() {
        let objects = printed("weft uninstall");
        let kinds: Vec<String> = names(&objects).into_iter().map(|(kind, _)| kind).collect();
        let called = |kind: &String| kind.contains("Webhook") || kind == "APIService";
        assert!(kinds[..5].iter().all(called), "{kinds:?}");
        assert!(!kinds[5..].iter().any(called), "{kinds:?}");
        assert!(!kinds.iter().any(|kind| kind == DEFINITION), "{kinds:?}");
        // A binding goes before what it binds.
        let last = kinds.iter().rposition(|kind| kind == "ClusterRoleBinding");
        let first = kinds.iter().position(|kind| kind == "ClusterRole");
        assert!(last < first, "{kinds:?}");
        let all = printed("weft uninstall --definitions");
        assert_eq!(all.len(), objects.len() + kinds::all().len() + 2);
    }
}
