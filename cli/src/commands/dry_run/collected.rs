//! Collects the change of a dry run from the command line: objects in files, deletions, access
//! modes.
//!
//! Other settings of the mesh in a file are named, because a dry run does not evaluate them.
//!
//! Claims: observe-115

use std::collections::{BTreeMap, BTreeSet};

use crds::labels;
use crds::observe::{AccessChange, Deleted, DryRunSpec};
use policy::name::Kind;
use serde_json::Value;

use super::conclusion::tried;
use crate::cluster::nearest::{hint, nearest};
use crate::commands::inject::template;
use crate::console;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::kinds::{self, UserKind};
use crate::yaml::tree;

/// Labels and annotations of ours by which no call is refused, allowed or led elsewhere.
const OF_NO_CALL: [&str; 12] = [
    labels::ACCESS_LOG,
    labels::ACCOUNT,
    labels::DRAIN_DELAY,
    labels::LOG_LEVEL,
    labels::PROXY_CPU_LIMIT,
    labels::PROXY_CPU_REQUEST,
    labels::PROXY_GUARANTEED,
    labels::PROXY_MEMORY_LIMIT,
    labels::PROXY_MEMORY_REQUEST,
    labels::PROXY_VERSION,
    labels::ROUTES,
    labels::TRACE_SAMPLING,
];

/// Maps of an object's metadata that the mesh reads.
pub(super) const MAPS: [&str; 2] = ["annotations", "labels"];

/// The change of the command line and its files.
#[derive(Debug, Default)]
pub(super) struct CollectedChange {
    pub(super) spec: DryRunSpec,
    /// Namespaces that the files hold, which applying them creates, with their settings for the
    /// mesh.
    pub(super) namespaces: BTreeMap<String, BTreeSet<String>>,
    /// Labels and annotations that decide about calls and are not tried.
    pub(super) untried: usize,
}

impl CollectedChange {
    /// Takes what can be tried out of a manifest, and reports what is skipped.
    ///
    /// # Errors
    /// When it cannot be read, or is no YAML.
    pub(super) fn read(
        &mut self,
        name: &str,
        namespace: &str,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let manifest = console::read(name, console)?;
        let bad = |why: String| Failure::usage(format!("{name}:{why}"));
        for document in tree::parse(&manifest.text).map_err(|error| bad(error.to_string()))? {
            let value = document.value().map_err(|error| bad(error.to_string()))?;
            collect_objects(value, namespace, self, console)?;
        }
        Ok(())
    }

    /// Leaves out the access modes of namespaces that are yet to be made.
    ///
    /// # Errors
    /// When nothing is left to try.
    pub(super) fn leave_out(
        &mut self,
        new: &[String],
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        for namespace in new {
            console.word(&format!(
                "{} of Namespace {namespace} is not tried: it is yet to be made, and nothing is \
                 called there",
                labels::ACCESS
            ))?;
        }
        let modes = &mut self.spec.access;
        modes.retain(|change| !new.contains(&change.namespace));
        self.must_try_something()
    }

    /// # Errors
    /// When there is nothing to try.
    pub(super) fn must_try_something(&self) -> Result<(), Failure> {
        if self.spec != DryRunSpec::default() {
            return Ok(());
        }
        tried(Ok(Conclusion::Yes), self.untried)?;
        let why = "there is nothing to try: say -f FILE, --delete KIND/NAME or --access MODE";
        Err(Failure::usage(why))
    }
}

/// Takes what can be tried out of a document, and reports what is skipped.
fn collect_objects(
    mut value: Value,
    namespace: &str,
    collected: &mut CollectedChange,
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
            collect_objects(item, namespace, collected, console)?;
        }
        return Ok(());
    }
    collected.untried += untried(&value, console)?;
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    if kind == "Namespace" {
        let own = MAPS.iter().flat_map(|map| names(&value["metadata"][*map]));
        let own = own.map(ToOwned::to_owned);
        let namespace = collected.namespaces.entry(name.to_owned()).or_default();
        namespace.extend(own);
    }
    let spec = &mut collected.spec;
    let mode = value["metadata"]["annotations"][labels::ACCESS].as_str();
    if let Some(mode) = mode.filter(|_| kind == "Namespace") {
        spec.access.push(AccessChange {
            namespace: name.to_owned(),
            mode: mode.to_owned(),
        });
        return Ok(());
    }
    let api_version = value["apiVersion"].as_str().unwrap_or_default();
    must_be_served(api_version, &kind, name)?;
    if !Kind::WRITTEN.iter().any(|known| known.word() == kind) || is_namesake(api_version, &kind) {
        console.word(&format!("{kind} {name} is not tried"))?;
        return Ok(());
    }
    caution(&kind, name, console)?;
    if value["metadata"]["namespace"].is_null()
        && let Some(metadata) = value["metadata"].as_object_mut()
    {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    spec.objects.push(value);
    Ok(())
}

/// Whether it is of another project: more than one has a kind called HTTPRoute or TCPRoute.
fn is_namesake(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let mut routes = kinds::of_gateway_api().into_iter();
    routes.any(|known| known.kind == kind) && Kind::of(group, kind).is_none()
}

/// Warns of the parts of a policy, put or deleted, that no dry run evaluates.
///
/// # Errors
/// When the error stream cannot be written.
pub(super) fn caution(kind: &str, name: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    if kind == Kind::TrafficPolicy.as_str() {
        console.word(&format!(
            "{kind} {name}: its limits, retries and the like are not evaluated"
        ))?;
    }
    if kind == Kind::ExternalService.as_str() {
        console.word(&format!(
            "{kind} {name}: calls that leave the mesh are not evaluated; annotation \
             weft.dev/egress=audit counts those that nothing gives"
        ))?;
    }
    Ok(())
}

/// # Errors
/// When a group of ours has no such kind, or has it in no such version: no cluster takes it, and
/// skipping it would turn a typing error into the result that nothing changes. Kinds of other
/// groups are others'.
fn must_be_served(api_version: &str, kind: &str, name: &str) -> Result<(), Failure> {
    let (group, version) = api_version.split_once('/').unwrap_or((api_version, ""));
    let mut of_group = kinds::all();
    // Others may have more kinds of the Gateway API than the mesh reads.
    let read = kinds::of_gateway_api().into_iter();
    of_group.extend(read.filter(|known| known.kind == kind));
    of_group.retain(|known| known.group == group);
    if of_group.is_empty() {
        return Ok(());
    }
    let Some(known) = of_group.iter().find(|known| known.kind == kind) else {
        let names = || of_group.iter().map(|known| known.kind);
        let hint = match nearest(kind, names()) {
            Some(meant) => hint(Some(meant)),
            None => format!("; it has {}", names().collect::<Vec<_>>().join(", ")),
        };
        let why = format!("{kind} {name}: API group {group} has no kind {kind:?}{hint}");
        return Err(Failure::usage(why));
    };
    let versions = known.versions();
    if versions.contains(&version) {
        return Ok(());
    }
    let meant = nearest(version, versions.iter().copied()).or(versions.first().copied());
    let hint = hint(meant.map(|meant| format!("{group}/{meant}")));
    Err(Failure::usage(format!(
        "{kind} {name}: apiVersion {api_version:?} is not served for this kind{hint}"
    )))
}

/// Names the other settings of an object for the mesh, and counts those that decide about calls.
fn untried(object: &Value, console: &mut Console<'_>) -> Result<usize, Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    let (owner, templates) = (format!("{kind} {name}"), template::all(object));
    // The mesh reads no annotations of what owns pods.
    let own = ["Namespace", "Service"].contains(&kind.as_str());
    let own = own.then_some((&owner, object)).into_iter();
    let mut count = 0;
    for (owner, part) in own.chain(templates.iter().map(|one| (&one.owner, &one.value))) {
        for field in MAPS {
            for key in names(&part["metadata"][field]) {
                if kind == "Namespace" && key == labels::ACCESS {
                    continue;
                }
                console.word(&format!("{key} of {owner} is not tried"))?;
                count += usize::from(decides(key));
            }
        }
    }
    Ok(count)
}

/// Names of ours in a map of metadata.
pub(super) fn names(map: &Value) -> impl Iterator<Item = &str> {
    let all = map.as_object().into_iter().flatten();
    let names = all.map(|(key, _)| key.as_str());
    names.filter(|key| key.starts_with(labels::PREFIX))
}

/// Whether a label or an annotation of ours decides about calls.
pub(super) fn decides(key: &str) -> bool {
    !OF_NO_CALL.contains(&key)
}

/// An object that would be deleted, as `KIND/NAME`.
///
/// # Errors
/// When it is none, of the kinds that there are.
pub(super) fn deleted(text: &str, namespace: &str) -> Result<Deleted, Failure> {
    let (kind, name) = text.split_once('/').unwrap_or((text, ""));
    let mut written = kinds::all();
    // Of two kinds with one name the shorter word means that of SMI.
    written.extend(kinds::of_gateway_api());
    let is_typed = |known: &&UserKind| {
        let names = [known.kind, known.known.as_str(), known.plural, known.short];
        names.iter().any(|name| name.eq_ignore_ascii_case(kind))
    };
    let known = written.iter().find(is_typed);
    let known = known.filter(|_| !name.is_empty()).ok_or_else(|| {
        let what = format!("--delete {text:?}: must be KIND/NAME");
        let names = written.iter().flat_map(|known| [known.kind, known.plural]);
        let meant = nearest(kind, names).filter(|_| known.is_none() && !name.is_empty());
        if let Some(meant) = meant {
            return Failure::usage(format!("{what}{}", hint(Some(format!("{meant}/{name}")))));
        }
        let kinds: Vec<&str> = written.iter().map(|known| known.known.as_str()).collect();
        Failure::usage(format!("{what}, of {}", kinds.join(", ")))
    })?;
    Ok(Deleted {
        kind: known.known.as_str().to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Streams;

    #[test]
    fn other_namespace_settings_are_reported_as_untried() {
        let namespace = serde_json::json!({"kind": "Namespace", "metadata": {"name": "shop",
            "annotations": {"weft.dev/access": "auto", "weft.dev/mtls": "strict", "team": "a"},
            "labels": {"weft.dev/inject": "enabled"}}});
        let (mut collected, mut streams) = (CollectedChange::default(), Streams::default());
        collect_objects(namespace, "shop", &mut collected, &mut streams.console()).unwrap();
        assert_eq!((collected.spec.access.len(), collected.untried), (1, 2));
        let (_, words) = streams.texts();
        assert_eq!(
            words,
            "weft.dev/mtls of Namespace shop is not tried\n\
             weft.dev/inject of Namespace shop is not tried\n"
        );
    }

    #[test]
    fn deletion_accepts_kind_plural_or_short_name() {
        for (text, kind) in [
            ("TrafficTarget/read", "TrafficTarget"),
            ("traffictargets/read", "TrafficTarget"),
            ("TrafficPolicies/read", "TrafficPolicy"),
            ("tt/read", "TrafficTarget"),
            ("HTR/read", "HTTPRouteGroup"),
            ("tp/read", "TrafficPolicy"),
            ("httproute/read", "HTTPRoute"),
            ("tcproute/read", "TCPRoute"),
            (
                "tcproutes.gateway.networking.k8s.io/read",
                "TCPRoute.gateway.networking.k8s.io",
            ),
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
    fn misspelt_kind_to_delete_suggests_nearest_kind_only() {
        for (text, meant) in [
            ("TrafficTarge/read", "TrafficTarget/read"),
            ("traffictarget5/read", "TrafficTarget/read"),
            ("trafficsplts/cart", "trafficsplits/cart"),
        ] {
            let words = deleted(text, "shop").unwrap_err().to_string();
            let line = format!("--delete {text:?}: must be KIND/NAME; you may mean {meant}");
            assert_eq!(words, line);
        }
    }

    #[test]
    fn unknown_kind_or_version_in_own_group_is_rejected() {
        let ended = |api_version: &str, kind: &str| {
            let object = serde_json::json!({"apiVersion": api_version, "kind": kind,
                "metadata": {"name": "read"}});
            let (mut collected, mut out, mut err) =
                (CollectedChange::default(), Vec::new(), Vec::new());
            let mut console = Console {
                input: &mut std::io::empty(),
                out: &mut out,
                err: &mut err,
                color: false,
            };
            let ended = collect_objects(object, "shop", &mut collected, &mut console);
            (ended, collected.spec.objects.len())
        };
        let access = "access.smi-spec.io";
        for (api_version, kind, end) in [
            (
                "access.smi-spec.io/v1alpha4",
                "TrafficTarge",
                "has no kind \"TrafficTarge\"; you may mean TrafficTarget",
            ),
            (
                "access.smi-spec.io/v1alpha4",
                "traffictarget",
                "; you may mean TrafficTarget",
            ),
            (access, "", "; it has TrafficTarget, IdentityBinding"),
            (
                "weft.dev/v1alpha1",
                "TraficPolicy",
                "; you may mean TrafficPolicy",
            ),
            (
                "access.smi-spec.io/v1alpha5",
                "TrafficTarget",
                "; you may mean access.smi-spec.io/v1alpha4",
            ),
            (
                "weft.dev/v1",
                "TrafficPolicy",
                "; you may mean weft.dev/v1alpha1",
            ),
            (
                "gateway.networking.k8s.io/v1beta9",
                "ReferenceGrant",
                "; you may mean gateway.networking.k8s.io/v1beta1",
            ),
        ] {
            let (ended, _) = ended(api_version, kind);
            let Err(Failure::Usage(words)) = ended else {
                panic!("{api_version} {kind}: {ended:?}");
            };
            assert!(words.ends_with(end), "{words}");
        }
        // Control: what is served is tried, and objects of other kinds are skipped.
        for (api_version, kind, tried) in [
            ("access.smi-spec.io/v1alpha1", "TrafficTarget", 1),
            ("weft.dev/v1alpha1", "TrafficPolicy", 1),
            ("gateway.networking.k8s.io/v1", "HTTPRoute", 1),
            ("gateway.networking.k8s.io/v1alpha2", "TCPRoute", 1),
            ("gateway.networking.k8s.io/v1", "GatewayClass", 0),
            ("policy.linkerd.io/v1beta3", "HTTPRoute", 0),
            ("v1", "ConfigMap", 0),
            ("example.com/v1", "TrafficTarge", 0),
        ] {
            let (ended, objects) = ended(api_version, kind);
            ended.unwrap();
            assert_eq!(objects, tried, "{api_version} {kind}");
        }
    }
}
