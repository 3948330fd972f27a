//! Every kind in every pair of its versions, through the real API server: what is
//! written in one is read, listed, watched and changed in another.
//!
//! Claims: smi-1

mod forms;
mod kubectl;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{
    conformance::Record,
    harness::{Api, Namespace, Outcome, eventually},
};
use serde_json::{Value, json};

use self::forms::{Form, KindForms};

const VERSIONS: [usize; 4] = [1, 2, 3, 4];

#[test]
fn traffic_target_says_the_same_in_every_version() -> Outcome {
    every_pair("versions-tt", &forms::traffic_target())
}

#[test]
fn http_route_group_says_the_same_in_every_version() -> Outcome {
    every_pair("versions-htr", &forms::http_route_group())
}

#[test]
fn tcp_route_says_the_same_in_every_version() -> Outcome {
    every_pair("versions-tr", &forms::tcp_route())
}

#[test]
fn traffic_split_says_the_same_in_every_version() -> Outcome {
    every_pair("versions-ts", &forms::traffic_split())
}

fn every_pair(claim: &str, kind: &KindForms) -> Outcome {
    let mut row = Record::part("E18", kind.kind)?;
    let ns = Namespace::meshed(claim)?;
    let desk = Desk {
        api: Api::open(&ns.cluster)?,
        ns: &ns,
        kind,
    };
    for form in &kind.forms {
        for &from in form.written_in {
            for to in VERSIONS {
                desk.pair(form, from, to).with_context(|| {
                    format!("{} {}, v1alpha{from} to v1alpha{to}", kind.kind, form.name)
                })?;
            }
        }
    }
    desk.applied_again()?;
    for version in VERSIONS {
        desk.watched(version)
            .with_context(|| format!("watch of {} in v1alpha{version}", kind.kind))?;
    }
    let names: Vec<_> = kind.forms.iter().map(|form| form.name).collect();
    let pairs: usize = kind
        .forms
        .iter()
        .map(|form| form.written_in.len() * VERSIONS.len())
        .sum();
    row.saw(
        format!(
            "{}: {}; in {pairs} pairs of versions created, read, listed, updated, and watched",
            kind.kind,
            names.join(", ")
        ),
        "every field as the version shows it",
    );
    row.passed()?;
    Ok(())
}

/// One kind in one namespace.
struct Desk<'a> {
    api: Api,
    ns: &'a Namespace,
    kind: &'a KindForms,
}

impl Desk<'_> {
    fn path(&self, version: usize, name: &str) -> String {
        format!(
            "/apis/{}/v1alpha{version}/namespaces/{}/{}{}{name}",
            self.kind.group,
            self.ns.name,
            self.kind.plural,
            if name.is_empty() { "" } else { "/" },
        )
    }

    /// The object as its author writes it.
    fn object(&self, version: usize, name: &str, view: &Value) -> Value {
        let mut object = self.view(view);
        object["apiVersion"] = format!("{}/v1alpha{version}", self.kind.group).into();
        object["kind"] = self.kind.kind.into();
        object["metadata"] = json!({"name": name, "namespace": self.ns.name,
            "labels": {"team": "web"}, "annotations": {"note": "mine"}});
        object
    }

    fn view(&self, view: &Value) -> Value {
        let text = view.to_string().replace("$NS", &self.ns.name);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Created in one version; read, listed, updated in the other; read in all.
    fn pair(&self, form: &Form, from: usize, to: usize) -> anyhow::Result<()> {
        let name = format!("{}-{from}-{to}", form.name);
        let written = self.object(from, &name, &form.views[from - 1]);
        let created = self.api.create(&self.path(from, ""), &written)?;
        self.shows(&created, from, &form.views)?;
        let read = self.api.read(&self.path(to, &name))?;
        self.shows(&read, to, &form.views)?;

        let list = self.api.read(&self.path(to, ""))?;
        ensure!(
            list["apiVersion"] == read["apiVersion"],
            "the list is {}",
            list["apiVersion"]
        );
        let items = list["items"].as_array().context("no items")?;
        let listed = items.iter().find(|item| item["metadata"]["name"] == *name);
        self.shows(listed.context("not in the list")?, to, &form.views)?;

        let updated = self.update(form, to, &name)?;
        let views = form.changed();
        self.shows(&updated, to, &views)?;
        for version in VERSIONS {
            let read = self.api.read(&self.path(version, &name))?;
            self.shows(&read, version, &views)?;
            ensure!(read["metadata"]["labels"]["team"] == "shop", "{read}");
        }
        Ok(())
    }

    /// As clients do it: read, change, replace, and again if the mesh wrote its status in
    /// between.
    fn update(&self, form: &Form, to: usize, name: &str) -> anyhow::Result<Value> {
        let path = self.path(to, name);
        let limit = Duration::from_secs(20);
        eventually(limit, "no other client writes", || {
            let mut update = self.api.read(&path)?;
            update["metadata"]["labels"]["team"] = "shop".into();
            if let Some((pointers, value)) = &form.change {
                let field = update.pointer_mut(pointers[to - 1]);
                *field.context("no such field")? = value.clone();
            }
            self.api.replace(&path, &update)
        })
    }

    /// Whether the object has exactly what the version shows, and its author's metadata.
    fn shows(&self, object: &Value, version: usize, views: &[Value; 4]) -> anyhow::Result<()> {
        let mut seen = object.clone();
        let map = seen.as_object_mut().context("no object")?;
        let api_version = map.remove("apiVersion");
        let metadata = map.remove("metadata").unwrap_or_default();
        map.remove("kind");
        map.remove("status");
        let wanted = self.view(&views[version - 1]);
        ensure!(
            seen == wanted,
            "v1alpha{version} shows\n  {seen}\ninstead of\n  {wanted}"
        );
        ensure!(
            api_version == Some(format!("{}/v1alpha{version}", self.kind.group).into()),
            "it is {api_version:?}"
        );
        ensure!(metadata["annotations"]["note"] == "mine", "{metadata}");
        Ok(())
    }

    /// kubectl, which compares with what it sent before, finds nothing to change in an
    /// object that it wrote in this version, however often it is applied.
    fn applied_again(&self) -> anyhow::Result<()> {
        let mut objects = Vec::new();
        for form in &self.kind.forms {
            for &from in form.written_in {
                let name = format!("applied-{}-{from}", form.name);
                objects.push(self.object(from, &name, &form.views[from - 1]));
            }
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        for how in ["created", "unchanged"] {
            let output = self.ns.apply(&list)?;
            let lines: Vec<&str> = output.lines().collect();
            ensure!(
                lines.len() == objects.len() && lines.iter().all(|line| line.ends_with(how)),
                "not all {how}: {output}"
            );
        }
        for object in &objects {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let form = self.kind.forms.iter().find(|form| {
                name.strip_prefix("applied-")
                    .is_some_and(|rest| rest.starts_with(form.name))
            });
            let form = form.context("no such form")?;
            for version in VERSIONS {
                self.shows(
                    &self.api.read(&self.path(version, name))?,
                    version,
                    &form.views,
                )?;
            }
        }
        Ok(())
    }

    /// A watch shows what was there before, and a change, in its own version.
    fn watched(&self, version: usize) -> anyhow::Result<()> {
        let form = self.kind.forms.last().context("no form")?;
        let from = *form.written_in.last().context("no version")?;
        let name = format!("watched-{version}");
        let written = self.object(from, &name, &form.views[from - 1]);
        let created = self.api.create(&self.path(from, ""), &written)?;
        let since = created["metadata"]["resourceVersion"].clone();
        let label = json!({"metadata": {"labels": {"team": "shop"}}});
        self.api.merge(&self.path(4, &name), &label)?;
        let query = format!(
            "{}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3D{name}",
            self.path(version, "")
        );
        let since = format!(
            "{query}&resourceVersion={}",
            since.as_str().unwrap_or_default()
        );
        let limit = Duration::from_secs(20);
        for (query, wanted) in [(query, "ADDED"), (since, "MODIFIED")] {
            // It ends after its second, also where nothing has been converted by then.
            eventually(limit, "the watch shows it", || {
                let text = self.api.get(&query)?;
                let events = text.lines().map(serde_json::from_str);
                let events: Vec<Value> = events.collect::<Result<_, _>>()?;
                let event = events.iter().find(|event| event["type"] == wanted);
                let event = event.with_context(|| format!("no {wanted} in {text}"))?;
                self.shows(&event["object"], version, &form.views)
            })?;
        }
        Ok(())
    }
}
