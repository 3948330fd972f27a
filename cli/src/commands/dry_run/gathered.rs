//! What a change holds that somebody typed: objects out of files, deletions, access modes.
//!
//! Whatever a file says to the mesh beside that is named, because a dry run says nothing of it.

use std::collections::BTreeSet;

use crds::labels;
use crds::observe::{AccessChange, Deleted, DryRunSpec};
use policy::name::Kind;
use serde_json::Value;

use super::conclusion::tried;
use crate::commands::inject::template;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::files;
use crate::kinds;
use crate::yaml::tree;

/// Labels and annotations of ours by which no call is refused, allowed or led elsewhere.
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

/// What the command line and its files ask for.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) spec: DryRunSpec,
    /// Namespaces that the files hold, which applying them makes.
    pub(super) namespaces: BTreeSet<String>,
    /// Labels and annotations that decide about calls and are not tried.
    pub(super) untried: usize,
}

impl Gathered {
    /// Takes what can be tried out of a manifest, and says what is left out.
    ///
    /// # Errors
    /// When it cannot be read, or is no YAML.
    pub(super) fn read(
        &mut self,
        name: &str,
        namespace: &str,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let manifest = files::read(name, console)?;
        let bad = |why: String| Failure::usage(format!("{name}:{why}"));
        for document in tree::parse(&manifest.text).map_err(|error| bad(error.to_string()))? {
            let value = document.value().map_err(|error| bad(error.to_string()))?;
            gather(value, namespace, self, console)?;
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
                "{} of Namespace {namespace} is not tried: it is yet to be made, and nobody calls \
                 anything there",
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
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    if kind == "Namespace" {
        gathered.namespaces.insert(name.to_owned());
    }
    let spec = &mut gathered.spec;
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
                if is_tried || !key.starts_with(labels::PREFIX) {
                    continue;
                }
                console.word(&format!("{key} of {owner} is not tried"))?;
                count += usize::from(!OF_NO_CALL.contains(&key));
            }
        }
    }
    Ok(count)
}

/// An object that would be deleted, as `KIND/NAME`.
///
/// # Errors
/// When it is none, of the kinds that there are.
pub(super) fn deleted(text: &str, namespace: &str) -> Result<Deleted, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Streams;

    #[test]
    fn what_else_a_namespace_says_is_named_as_not_tried() {
        let namespace = serde_json::json!({"kind": "Namespace", "metadata": {"name": "shop",
            "annotations": {"weft.dev/access": "auto", "weft.dev/mtls": "strict", "team": "a"},
            "labels": {"weft.dev/inject": "enabled"}}});
        let (mut gathered, mut streams) = (Gathered::default(), Streams::default());
        gather(namespace, "shop", &mut gathered, &mut streams.console()).unwrap();
        assert_eq!((gathered.spec.access.len(), gathered.untried), (1, 2));
        let (_, words) = streams.texts();
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
}
