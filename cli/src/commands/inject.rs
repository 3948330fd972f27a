//! `weft inject` and `weft uninject`: add and remove the injection label, or the sidecar, in
//! manifests. All other bytes of a manifest stay as they are.

mod sidecar;
pub(super) mod template;

use std::collections::BTreeSet;

use clap::Args;
use crds::labels::{DISABLED, ENABLED, INJECT, parse_inject};
use json_patch::Patch;
use serde_json::{Value, json};

use self::sidecar::Sidecar;
use self::template::Template;
use crate::console::{self, Console, Manifest};
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::yaml::{change, differ, tree};

/// What both print.
const MANIFESTS: &str = "manifests";

/// Arguments of `weft inject`.
#[derive(Args, Debug)]
#[command(
    about = "Put the mesh's label on the pod templates of manifests",
    long_about = "Puts label weft.dev/inject: enabled on every pod template of the manifests and \
                  prints them. Comments, order, line ends, Lists and everything else stay as they \
                  are; a second run changes no byte. With --manual the whole sidecar is added, \
                  for pods that no webhook shall touch.",
    after_help = "Example:\n  weft inject deployment.yaml | kubectl apply -f -"
)]
pub(crate) struct Inject {
    /// Add the sidecar itself, not the label
    #[arg(long)]
    manual: bool,
    /// With --manual: the proxy's image; the cluster's injector is queried without it
    #[arg(long, value_name = "IMAGE", requires = "manual")]
    proxy_image: Option<String>,
    /// Manifests; - is the standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

/// Arguments of `weft uninject`.
#[derive(Args, Debug)]
#[command(
    about = "Take the mesh's label from the pod templates of manifests",
    long_about = "Takes label weft.dev/inject from every pod template of the manifests, unless it \
                  is disabled, and prints them, nothing else changed but labels and metadata that \
                  held nothing else. Pods of a namespace that has the label get a proxy all the \
                  same; write weft.dev/inject: disabled to keep one out. With --manual the sidecar \
                  is taken out, and all that was written with it: probes and hooks are what they \
                  were, but for names of ports, which are their numbers now, and schemes of probes \
                  that were the default. A nodeSelector or nodeAffinity that inject --manual wrote \
                  stays and is named, as its author is not known.",
    after_help = "Example:\n  weft uninject deployment.yaml | kubectl apply -f -"
)]
pub(crate) struct Uninject {
    /// Take out the sidecar of inject --manual, not the label
    #[arg(long)]
    manual: bool,
    /// Manifests; - is the standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

impl Inject {
    /// Prints the manifests with the label.
    ///
    /// # Errors
    /// When one is no YAML, or cannot be changed in place. Nothing is printed then.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        global.without_output(MANIFESTS)?;
        let manifests = read(&self.files, console)?;
        if !self.manual {
            return edit(&manifests, console, &mut |template, words| {
                put_label(template, words)
            });
        }
        let image = self.proxy_image.as_deref();
        let sidecar = Sidecar::of(global, image, namespaces(&manifests)).await?;
        edit(&manifests, console, &mut |template, words| {
            sidecar.add(template, words)
        })
    }
}

impl Uninject {
    /// Prints the manifests without the label, or without the sidecar.
    ///
    /// # Errors
    /// When one is no YAML, or cannot be changed in place. Nothing is printed then.
    pub(crate) fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        global.without_output(MANIFESTS)?;
        let manifests = read(&self.files, console)?;
        edit(&manifests, console, &mut |template, words| {
            if self.manual {
                sidecar::take_out(template, words)
            } else {
                Ok(take_label(template, words))
            }
        })
    }
}

/// The new content of one template, and messages about it. An error is a clause about it.
type Change<'a> = dyn FnMut(&Template, &mut Vec<String>) -> Result<Value, String> + 'a;

fn read(files: &[String], console: &mut Console<'_>) -> Result<Vec<Manifest>, Failure> {
    if files.iter().filter(|name| *name == "-").count() > 1 {
        return Err(Failure::usage("-: the standard input can be read once"));
    }
    let files = files.iter();
    files.map(|name| console::read(name, console)).collect()
}

/// The namespaces of the manifests' pods. What cannot be read is reported when it is edited.
fn namespaces(manifests: &[Manifest]) -> BTreeSet<String> {
    let documents = manifests
        .iter()
        .filter_map(|one| tree::parse(&one.text).ok());
    let values = documents
        .flatten()
        .filter_map(|document| document.value().ok());
    let templates = values.flat_map(|value| template::all(&value));
    templates
        .filter_map(|template| template.namespace)
        .collect()
}

fn edit(
    manifests: &[Manifest],
    console: &mut Console<'_>,
    wanted: &mut Change<'_>,
) -> Result<Conclusion, Failure> {
    let mut written = String::new();
    let mut words = Vec::new();
    for manifest in manifests {
        let text = changed(manifest, wanted, &mut words)?;
        if written.is_empty() {
            if manifest.marked {
                written.push('\u{feff}');
            }
        } else {
            if !written.ends_with('\n') {
                written.push('\n');
            }
            if !text.starts_with("---") {
                written.push_str("---\n");
            }
        }
        written.push_str(&text);
    }
    for word in words {
        console.word(&word)?;
    }
    console.out.write_all(written.as_bytes())?;
    Ok(Conclusion::Yes)
}

fn changed(
    manifest: &Manifest,
    wanted: &mut Change<'_>,
    words: &mut Vec<String>,
) -> Result<String, Failure> {
    let name = &manifest.name;
    let malformed = |error: &dyn std::fmt::Display| Failure::usage(format!("{name}:{error}"));
    let documents = tree::parse(&manifest.text).map_err(|error| malformed(&error))?;
    let mut text = manifest.text.clone();
    let mut templates = 0;
    for (number, document) in documents.iter().enumerate() {
        let value = document.value().map_err(|error| malformed(&error))?;
        for template in template::all(&value) {
            templates += 1;
            let mut notes = Vec::new();
            let line = document.line_of(&template.steps(), "");
            let new = wanted(&template, &mut notes).map_err(|why| {
                Failure::usage(format!("{name}:{line}:1: {}: {why}", template.owner))
            })?;
            words.extend(
                notes
                    .into_iter()
                    .map(|word| format!("{name}: {}: {word}", template.owner)),
            );
            let patch: Patch = differ::differences(&template.path, &template.value, &new);
            text = change::apply(&text, number, &patch).map_err(|error| malformed(&error))?;
        }
    }
    if templates == 0 {
        words.push(format!("{name}: holds no pod template, nothing to change"));
    }
    Ok(text)
}

fn put_label(template: &Template, words: &mut Vec<String>) -> Result<Value, String> {
    let mut new = template.value.clone();
    let current = new
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(INJECT));
    match current.map(|current| current.as_str().unwrap_or_default()) {
        Some(DISABLED) => {
            words.push(format!("stays as it is: {INJECT} is {DISABLED}"));
            return Ok(new);
        }
        Some(text) if parse_inject(text).is_err() => {
            words.push(format!("{INJECT} was {text:?}, which means nothing"));
        }
        _ => {}
    }
    let metadata = template::object(&mut new, "metadata").ok_or("is no object")?;
    let labels = template::member(metadata, "labels").ok_or("metadata.labels is no object")?;
    labels.insert(INJECT.to_owned(), json!(ENABLED));
    Ok(new)
}

/// Without the label, and without the mappings that held nothing else. Where it keeps the
/// mesh out its owner wrote it, and without it the pod might get a proxy.
fn take_label(template: &Template, words: &mut Vec<String>) -> Value {
    let mut new = template.value.clone();
    let Some(labels) = new
        .pointer_mut("/metadata/labels")
        .and_then(Value::as_object_mut)
    else {
        return new;
    };
    if labels
        .get(INJECT)
        .is_some_and(|current| current == DISABLED)
    {
        words.push(format!("stays as it is: {INJECT} is {DISABLED}"));
        return new;
    }
    if labels.remove(INJECT).is_none() || !labels.is_empty() {
        return new;
    }
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("labels");
        if metadata.is_empty()
            && let Some(template) = new.as_object_mut()
        {
            template.remove("metadata");
        }
    }
    new
}

#[cfg(test)]
mod tests;
