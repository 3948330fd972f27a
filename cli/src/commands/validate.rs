//! `weft validate`: validates objects of SMI and of Weft in files by the code of the webhook and of
//! the controller, with the line of every error.
//!
//! Claims: attack-115

pub mod validated;

use std::collections::BTreeMap;

use clap::Args;
use crds::smi::validation::Cluster;
use serde_json::json;

use self::validated::Finding;
use crate::console;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::{self, NARROW};

/// Arguments of `weft validate`.
#[derive(Args, Debug)]
#[command(
    about = "Validate objects of SMI and of Weft in files as the cluster's webhook would, without a cluster",
    long_about = "Validates objects of SMI, in every version, and of Weft in files by the code of the \
                  webhook: each error with its line and field, and before that by the schema of \
                  its kind and version as the API server does. Of the Gateway API's HTTPRoute, \
                  GRPCRoute and TCPRoute whose parents are Services, each rule that Weft could not \
                  serve is an error. Fields that a kind does not have in \
                  its version, which the cluster passes over, are warned of, and so are labels and \
                  annotations of Weft that have no effect where they stand, on every kind: of one \
                  that several objects have, the first is printed and the others are counted, -o \
                  json has them all. Of other kinds nothing else is looked at. Whether what an \
                  object names exists is not known here. Exit status 1 if an object would be \
                  refused, 2 if a file or one of its documents cannot be read; other documents are \
                  validated all the same.",
    after_help = "Example:\n  weft validate -f policy.yaml"
)]
pub(crate) struct Validate {
    /// Manifests; - is the standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE", num_args = 1..)]
    files: Vec<String>,
    /// The domain under which the cluster's DNS names Services
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// The namespace that Weft is installed in
    #[arg(long, value_name = "NAMESPACE", default_value = "weft-system")]
    mesh_namespace: String,
}

impl Validate {
    /// Prints what is wrong, a line each.
    ///
    /// # Errors
    /// When a file, or a document in one, cannot be read. What could be is printed before.
    pub(crate) fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let format = global.format(NARROW)?;
        let namespace = global.namespace.as_deref().unwrap_or("default");
        let cluster = Cluster {
            domain: self.cluster_domain.as_str().into(),
            mesh_namespace: self.mesh_namespace.as_str().into(),
        };
        let mut findings = Vec::new();
        let (mut objects, mut unreadable) = (0, 0);
        let mut unread = Vec::new();
        for name in &self.files {
            let manifest = match console::read(name, console) {
                Ok(manifest) => manifest,
                Err(why) => {
                    unread.push(why.to_string());
                    continue;
                }
            };
            let validated = validated::validate_each(&manifest.text, namespace, &cluster);
            objects += validated.objects;
            unreadable += validated.unreadable;
            let of_file = validated.findings.into_iter();
            findings.extend(of_file.map(|finding| (name.clone(), finding)));
        }
        let refused = findings
            .iter()
            .filter(|(_, finding)| finding.refused)
            .count();
        let report = json!({
            "success": refused == 0 && unread.is_empty(),
            "objects": objects,
            "findings": findings.iter().map(|(file, finding)| listed(file, finding)).collect::<Vec<_>>(),
        });
        if !output::data(console, format, &report)? {
            for line in lines(&findings) {
                console.line(&line)?;
            }
            let warnings = findings.len() - refused;
            console.word(&format!(
                "{objects} objects validated: {refused} errors, {warnings} warnings"
            ))?;
        }
        if !unread.is_empty() {
            return Err(Failure::usage(unread.join("; ")));
        }
        match (refused, unreadable) {
            (0, 0) => Ok(Conclusion::Yes),
            (_, 0) => Ok(Conclusion::No),
            _ => Err(Failure::usage(format!(
                "{unreadable} of the documents cannot be read; each is named with its line"
            ))),
        }
    }
}

/// The lines for a person. One name of ours may stand on every object of a chart: it is printed for
/// the first object, with the number of the others.
fn lines(findings: &[(String, Finding)]) -> Vec<String> {
    let mut times: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for key in findings.iter().filter_map(|(_, finding)| group(finding)) {
        *times.entry(key).or_default() += 1;
    }
    let shown = findings.iter().filter_map(|(file, finding)| {
        let line = line(file, finding);
        let Some(key) = group(finding) else {
            return Some(line);
        };
        // The first line covers all of them.
        let others = times.remove(&key)? - 1;
        Some(match others {
            0 => line,
            1 => format!("{line}; 1 more object has it too: -o json lists both"),
            more => format!("{line}; {more} more objects have it too: -o json lists them"),
        })
    });
    shown.collect()
}

/// The key of findings that are printed once for all objects.
fn group(finding: &Finding) -> Option<(&str, &str)> {
    let group = finding.group.as_deref()?;
    Some((finding.field.as_str(), group))
}

fn line(file: &str, finding: &Finding) -> String {
    let Finding {
        line,
        object,
        field,
        text,
        ..
    } = finding;
    let severity = severity(finding);
    let field = if field.is_empty() {
        String::new()
    } else {
        format!("{field}: ")
    };
    let whole = format!("{file}:{line}: {severity}: {object}: {field}{text}");
    crate::escape::plain(&whole)
}

fn listed(file: &str, finding: &Finding) -> serde_json::Value {
    json!({
        "file": file,
        "line": finding.line,
        "severity": severity(finding),
        "object": finding.object,
        "field": finding.field,
        "message": finding.text,
    })
}

fn severity(finding: &Finding) -> &'static str {
    if finding.refused { "error" } else { "warning" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(String, Finding)> {
        let validated = validated::validate_text(text, "shop", &Cluster::default()).unwrap();
        let findings = validated.findings.into_iter();
        findings.map(|one| ("f".to_owned(), one)).collect()
    }

    #[test]
    fn common_label_warning_names_first_object_and_counts_others() {
        let cron_job = "CronJob";
        let object = |(kind, label): (&str, &str)| {
            let (version, spec) = match kind == cron_job {
                true => (
                    "batch/v1",
                    "{jobTemplate: {spec: {template: {metadata: {}}}}}",
                ),
                false => ("v1", "{}"),
            };
            let head = format!("apiVersion: {version}\nkind: {kind}\nspec: {spec}");
            format!("---\n{head}\nmetadata:\n  name: a\n  labels:\n    weft.dev/{label}: enabled\n")
        };
        let common = "inject";
        let objects = [
            ("ConfigMap", common),
            ("Secret", common),
            ("Service", "ijnect"),
            (cron_job, common),
            ("Pod", common),
            ("ServiceAccount", common),
            ("Secret", "ijnect"),
            ("Service", "acess"),
        ];
        let text: String = objects.into_iter().map(object).collect();
        let findings = found(&text);
        assert_eq!(findings.len(), 7, "{findings:#?}");
        assert_eq!(
            lines(&findings),
            [
                "f:8: warning: ConfigMap shop/a: metadata.labels[weft.dev/inject]: is not read on \
                 kind ConfigMap; it is a label of Namespace and Pod; 2 more objects have it too: \
                 -o json lists them",
                "f:24: warning: Service shop/a: metadata.labels[weft.dev/ijnect]: is no label of \
                 Weft; you may mean weft.dev/inject; 1 more object has it too: -o json lists both",
                "f:32: warning: CronJob shop/a: metadata.labels[weft.dev/inject]: is not read on \
                 kind CronJob; it is a label of Namespace and Pod; write it under \
                 spec.jobTemplate.spec.template.metadata.labels",
                "f:64: warning: Service shop/a: metadata.labels[weft.dev/acess]: is no label of \
                 Weft; you may mean weft.dev/access",
            ]
        );
    }

    #[test]
    fn repeated_findings_merge_by_group_not_by_text() {
        let finding = |group: Option<&str>| Finding {
            line: 1,
            refused: false,
            object: "Pod shop/a".to_owned(),
            field: "metadata.labels[weft.dev/inject]".to_owned(),
            text: "weft.dev/inject is odd; write weft.dev/inject: enabled".to_owned(),
            group: group.map(str::to_owned),
        };
        let shown = |groups: [Option<&str>; 2]| {
            let findings = groups.map(|group| ("f".to_owned(), finding(group)));
            lines(&findings).len()
        };
        assert_eq!(shown([None, None]), 2);
        assert_eq!(shown([Some("one"), Some("other")]), 2);
        // Control: those of one group.
        assert_eq!(shown([Some("one"), Some("one")]), 1);
    }

    #[test]
    fn injection_label_on_workload_is_reported_once_per_kind() {
        let object = |kind: &str| {
            let metadata = "{name: a, labels: {weft.dev/inject: enabled}}";
            format!("---\napiVersion: apps/v1\nkind: {kind}\nmetadata: {metadata}\n")
        };
        let kinds = ["Deployment", "StatefulSet", "Deployment", "Deployment"];
        let findings = found(&kinds.map(object).concat());
        assert_eq!(findings.len(), 4, "{findings:#?}");
        let shown = lines(&findings);
        let [deployments, other] = &*shown else {
            panic!("{shown:?}");
        };
        let more = "metadata.labels; 2 more objects have it too: -o json lists them";
        assert!(deployments.ends_with(more), "{deployments}");
        assert!(other.contains("on a StatefulSet"), "{other}");
        assert!(other.ends_with("metadata.labels"), "{other}");
    }
}
