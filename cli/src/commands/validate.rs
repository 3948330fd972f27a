//! `weft validate`: objects of SMI and of Weft in files, judged by the code of the webhook and of the
//! controller, with the line of every mistake.

pub mod judged;

use clap::Args;
use crds::smi::judge::Cluster;
use serde_json::json;

use self::judged::Finding;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::files;
use crate::global::Global;
use crate::output::{self, NARROW};

/// Arguments of `weft validate`.
#[derive(Args, Debug)]
#[command(
    about = "Judge objects of SMI and of Weft in files as the cluster's webhook would, without a cluster",
    long_about = "Judges objects of SMI, in every version, and of Weft in files by the code of the webhook: each \
                  mistake with its line and field. Fields that a kind does not have in its version, \
                  which the cluster passes over, are warned of, and so are labels and annotations of \
                  Weft that have no effect where they stand, on every kind. Of other kinds nothing else \
                  is looked at. Whether what an object names exists is not known here. Exit status 1 \
                  if an object would be refused.",
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
    /// When a file cannot be read or is no YAML.
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
        let mut objects = 0;
        for name in &self.files {
            let manifest = files::read(name, console)?;
            let judged = judged::judge(&manifest.text, namespace, &cluster)
                .map_err(|error| Failure::usage(format!("{name}:{error}")))?;
            objects += judged.objects;
            let of_file = judged.findings.into_iter();
            findings.extend(of_file.map(|finding| (name.clone(), finding)));
        }
        let refused = findings
            .iter()
            .filter(|(_, finding)| finding.refused)
            .count();
        let report = json!({
            "success": refused == 0,
            "objects": objects,
            "findings": findings.iter().map(|(file, finding)| listed(file, finding)).collect::<Vec<_>>(),
        });
        if !output::data(console, format, &report)? {
            for (file, finding) in &findings {
                console.line(&line(file, finding))?;
            }
            let warnings = findings.len() - refused;
            console.word(&format!(
                "{objects} objects judged: {refused} mistakes, {warnings} warnings"
            ))?;
        }
        Ok(if refused == 0 {
            Conclusion::Yes
        } else {
            Conclusion::No
        })
    }
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
