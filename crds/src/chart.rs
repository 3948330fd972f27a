//! The CustomResourceDefinitions as templates of the Helm chart.
//!
//! Templates rather than the chart's `crds` folder, because Helm never upgrades
//! what lies there. They stay when the chart is removed: deleting a definition
//! deletes every object of the kind.

use std::{fs, io, path::Path};

use crate::smi;

/// The release's namespace, where the conversion webhook answers.
const NAMESPACE: &str = "{{ .Release.Namespace }}";

/// File names in the chart's folder for definitions, with their text.
pub fn templates() -> Vec<(String, String)> {
    smi::definitions(NAMESPACE)
        .into_iter()
        .map(|(plural, definition)| {
            let yaml =
                serde_yaml_ng::to_string(&definition).expect("a JSON value must have a YAML form");
            (format!("{plural}.yaml"), template(&yaml))
        })
        .collect()
}

fn template(yaml: &str) -> String {
    // The only Helm expressions are the ones added here; a brace in a description
    // would be read as one.
    debug_assert!(!yaml.replace(NAMESPACE, "").contains("{{"));
    let labelled = yaml.replacen(
        "\nmetadata:\n",
        "\nmetadata:\n  annotations:\n    helm.sh/resource-policy: keep\n",
        1,
    );
    format!(
        "{{{{- /* Made by crdgen from the types in crds/; edit those. */ -}}}}\n\
         {{{{- if .Values.crds.smi.install }}}}\n{labelled}{{{{- end }}}}\n"
    )
}

/// Names of files in `folder` that differ from the types: changed, missing or left over.
pub fn stale(folder: &Path) -> io::Result<Vec<String>> {
    let wanted = templates();
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
