//! Writes the CustomResourceDefinitions as templates of the Helm chart.
//!
//! They are templates and not in the chart's `crds` folder, because Helm never upgrades that
//! folder. They stay when the chart is removed: deleting a definition deletes every object of the
//! kind.

use std::{fs, io, path::Path};

use crate::{convert::SmiKind, smi, weft, yaml};

/// The first line of every file.
const MADE: &str = "{{- /* Made by crdgen from the types in crds/; edit those. */ -}}";
/// The release's namespace, where the conversion webhook answers.
const NAMESPACE: &str = "{{ .Release.Namespace }}";

/// File names in the chart's folder for definitions, with their text.
///
/// # Errors
/// When a definition has no YAML form.
pub fn templates() -> io::Result<Vec<(String, String)>> {
    let mut templates = vec![("_names.tpl".to_owned(), names())];
    for (plural, definition) in smi::definitions(NAMESPACE) {
        let yaml = yaml::to_string(&definition)?;
        let condition = Some("crds.smi.install");
        templates.push((format!("{plural}.yaml"), template(&yaml, condition)));
    }
    // Only Weft has kinds of this group, so their owner is clear.
    let own = weft::definitions().into_iter();
    let cluster_wide = [weft::authority_definition(), weft::revocation_definition()];
    for (plural, definition) in own.chain(cluster_wide) {
        let yaml = yaml::to_string(&definition)?;
        templates.push((format!("{plural}.yaml"), template(&yaml, None)));
    }
    Ok(templates)
}

/// The definitions' names, for templates that deal with all of them.
fn names() -> String {
    let all = SmiKind::ALL.into_iter();
    let converted = all.clone().filter(|kind| kind.versions().len() > 1);
    let list = |kinds: &mut dyn Iterator<Item = SmiKind>| {
        let mut names: Vec<String> = kinds.map(|kind| kind.definition()).collect();
        names.sort();
        serde_json::json!(names).to_string()
    };
    format!(
        "{MADE}\n\
         {{{{/* All SMI definitions, a JSON list. */}}}}\n\
         {{{{- define \"weft.smi.definitions\" -}}}}\n{}\n{{{{- end -}}}}\n\
         {{{{/* Those whose versions the injector converts. */}}}}\n\
         {{{{- define \"weft.smi.converted\" -}}}}\n{}\n{{{{- end -}}}}\n",
        list(&mut all.clone()),
        list(&mut converted.clone()),
    )
}

/// `condition`: the chart's value that decides whether the definition is installed.
fn template(yaml: &str, condition: Option<&str>) -> String {
    // The only Helm expressions are the ones added here; a brace in a description
    // would be read as one.
    debug_assert!(!yaml.replace(NAMESPACE, "").contains("{{"));
    let labelled = yaml.replacen(
        "\nmetadata:\n",
        "\nmetadata:\n  annotations:\n    helm.sh/resource-policy: keep\n",
        1,
    );
    match condition {
        Some(value) => format!("{MADE}\n{{{{- if .Values.{value} }}}}\n{labelled}{{{{- end }}}}\n"),
        None => format!("{MADE}\n{labelled}"),
    }
}

/// Names of files in `folder` that differ from the types: changed, missing or left over.
pub fn stale(folder: &Path) -> io::Result<Vec<String>> {
    let wanted = templates()?;
    let mut stale = Vec::new();
    for (name, text) in &wanted {
        match fs::read_to_string(folder.join(name)) {
            Ok(found) if found == *text => {}
            Ok(_) => stale.push(name.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => stale.push(name.clone()),
            Err(error) => return Err(error),
        }
    }
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !wanted.iter().any(|(wanted, _)| *wanted == name) {
            stale.push(name);
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_holds_what_the_types_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft/templates/crds");
        let stale = stale(&folder).unwrap();
        assert!(
            stale.is_empty(),
            "run `cargo run -p crds --bin crdgen`: {stale:?}"
        );
    }
}
